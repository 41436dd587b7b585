// Convolutions in plain f32 arithmetic, one thread per output: the reference for the tensor-core kernels at large
// sizes, and the convolutions of f32 training.
//
//   forward       y[place][k]    = dropout sum W x + bias
//   input grad    dx[pixel][c]   = sum W dy
//   weight grad   dW[k][tap][c]  = dropout sum dy x
//
// Values [images][H][W][C] (padded to 32, padding written too), spikes [images][H][W][C/32], weights f32 masters
// [K][R][S][C]; steps are simply more images. A linear layer is a kernel that covers its whole input.
//
// `current_moments` computes the pieces that batch_norm.cu reads, [pieces][2][K] and [pieces]: for each
// channel of `rows_per_piece` rows the mean and the sum of squared distances from it, in f64 until stored, and the
// number of rows. One block per piece, one thread per channel. Reads the currents twice.
#include "value.cuh"

struct ConvNaive {
    const void* source;    // spikes or values; weight grad and forward
    const void* gradient;  // [images][P][Q][K]; both gradients
    const float *weight, *bias;
    void* out;  // currents, or the input's gradient
    float* weight_grad;
    uint32_t images, in_h, in_w, channels, out_h, out_w, filters;
    uint32_t taps_h, taps_w, stride_h, stride_w, padding_h, padding_w;
    uint32_t spikes;  // whether the source is spikes
    float dropout;
    uint32_t add;  // whether the input's gradient is added to `out`
};

struct CurrentMoments {
    const void* currents;  // [rows][pitch]
    float* moments;
    uint32_t* counts;
    uint32_t rows, pitch;  // channels with padding
    uint32_t rows_per_piece, padding;
};

DEVICE uint32_t padded(uint32_t channels) { return (channels + 31) / 32 * 32; }

// The value of one channel of an input pixel.
template <class V>
DEVICE float source_at(const ConvNaive& p, size_t pixel, uint32_t c) {
    if (p.spikes) {
        const auto* words = static_cast<const uint32_t*>(p.source) + pixel * (padded(p.channels) / 32);
        return words[c / 32] >> c % 32 & 1 ? 1.0f : 0.0f;
    }
    return V::load(static_cast<const typename V::Stored*>(p.source) + pixel * padded(p.channels) + c);
}

// The input pixel that an output position reads at a tap, or false outside.
DEVICE bool pixel_at(const ConvNaive& p, uint32_t image, uint32_t y, uint32_t x, uint32_t r, uint32_t s,
                     size_t& pixel) {
    const uint32_t row = y * p.stride_h + r - p.padding_h, column = x * p.stride_w + s - p.padding_w;
    if (row >= p.in_h || column >= p.in_w) return false;  // negative values wrap to large ones
    pixel = (static_cast<size_t>(image) * p.in_h + row) * p.in_w + column;
    return true;
}

DEVICE size_t first_index() { return static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; }
DEVICE size_t index_stride() { return static_cast<size_t>(gridDim.x) * blockDim.x; }

template <class V>
DEVICE void conv_current_naive(const ConvNaive& p) {
    const uint32_t pitch = padded(p.filters);
    const size_t all = static_cast<size_t>(p.images) * p.out_h * p.out_w * pitch;
    for (size_t i = first_index(); i < all; i += index_stride()) {
        const uint32_t k = i % pitch, x = i / pitch % p.out_w, y = i / pitch / p.out_w % p.out_h;
        const uint32_t image = i / pitch / p.out_w / p.out_h;
        float sum = 0.0f;
        for (uint32_t r = 0; r < p.taps_h && k < p.filters; r++) {
            for (uint32_t s = 0; s < p.taps_w; s++) {
                size_t pixel;
                if (!pixel_at(p, image, y, x, r, s, pixel)) continue;
                const float* w = p.weight + ((static_cast<size_t>(k) * p.taps_h + r) * p.taps_w + s) * p.channels;
                for (uint32_t c = 0; c < p.channels; c++) sum = fmaf(w[c], source_at<V>(p, pixel, c), sum);
            }
        }
        const float y_k = k < p.filters ? fmaf(p.dropout, sum, p.bias[k]) : 0.0f;
        V::store(static_cast<typename V::Stored*>(p.out) + i, y_k);
    }
}

template <class V>
DEVICE void conv_input_grad_naive(const ConvNaive& p) {
    const auto* gradient = static_cast<const typename V::Stored*>(p.gradient);
    const uint32_t pitch = padded(p.channels), above = padded(p.filters);
    const size_t all = static_cast<size_t>(p.images) * p.in_h * p.in_w * pitch;
    for (size_t i = first_index(); i < all; i += index_stride()) {
        const uint32_t c = i % pitch, column = i / pitch % p.in_w, row = i / pitch / p.in_w % p.in_h;
        const uint32_t image = i / pitch / p.in_w / p.in_h;
        float sum = 0.0f;
        for (uint32_t r = 0; r < p.taps_h && c < p.channels; r++) {
            const uint32_t y = row + p.padding_h - r;
            if (y % p.stride_h || y / p.stride_h >= p.out_h) continue;  // negative values wrap to large ones
            for (uint32_t s = 0; s < p.taps_w; s++) {
                const uint32_t x = column + p.padding_w - s;
                if (x % p.stride_w || x / p.stride_w >= p.out_w) continue;
                const size_t place = (static_cast<size_t>(image) * p.out_h + y / p.stride_h) * p.out_w + x / p.stride_w;
                for (uint32_t k = 0; k < p.filters; k++) {
                    const size_t w = ((static_cast<size_t>(k) * p.taps_h + r) * p.taps_w + s) * p.channels + c;
                    sum = fmaf(p.weight[w], V::load(gradient + place * above + k), sum);
                }
            }
        }
        auto* out = static_cast<typename V::Stored*>(p.out) + i;
        V::store(out, p.add ? V::load(out) + sum : sum);
    }
}

template <class V>
DEVICE void conv_weight_grad_naive(const ConvNaive& p) {
    const auto* gradient = static_cast<const typename V::Stored*>(p.gradient);
    const uint32_t above = padded(p.filters);
    const size_t weights = static_cast<size_t>(p.filters) * p.taps_h * p.taps_w * p.channels;
    for (size_t i = first_index(); i < weights; i += index_stride()) {
        const uint32_t c = i % p.channels, s = i / p.channels % p.taps_w, r = i / p.channels / p.taps_w % p.taps_h;
        const uint32_t k = i / p.channels / p.taps_w / p.taps_h;
        float sum = 0.0f;
        for (uint32_t place = 0; place < p.images * p.out_h * p.out_w; place++) {
            const uint32_t x = place % p.out_w, y = place / p.out_w % p.out_h, image = place / p.out_w / p.out_h;
            size_t pixel;
            if (pixel_at(p, image, y, x, r, s, pixel)) {
                const float g = V::load(gradient + static_cast<size_t>(place) * above + k);
                sum = fmaf(g, source_at<V>(p, pixel, c), sum);
            }
        }
        p.weight_grad[i] = p.dropout * sum;
    }
}

KERNEL_EACH_VALUE(conv_current_naive, ConvNaive, 256, 1, conv_current_naive)
KERNEL_EACH_VALUE(conv_input_grad_naive, ConvNaive, 256, 1, conv_input_grad_naive)
KERNEL_EACH_VALUE(conv_weight_grad_naive, ConvNaive, 256, 1, conv_weight_grad_naive)

// The grid is rows / rows_per_piece blocks, rounded up.
template <class V>
DEVICE void current_moments(const CurrentMoments& p) {
    using Stored = typename V::Stored;
    const uint32_t piece = blockIdx.x, first = piece * p.rows_per_piece;
    const uint32_t count = min(p.rows_per_piece, p.rows - first);
    for (uint32_t c = threadIdx.x; c < p.pitch; c += blockDim.x) {
        const Stored* currents = static_cast<const Stored*>(p.currents) + static_cast<size_t>(first) * p.pitch + c;
        double sum = 0.0, squares = 0.0;
        for (uint32_t row = 0; row < count; row++) sum += V::load(currents + static_cast<size_t>(row) * p.pitch);
        const float mean = static_cast<float>(sum / count);
        for (uint32_t row = 0; row < count; row++) {
            const double distance = static_cast<double>(V::load(currents + static_cast<size_t>(row) * p.pitch)) - mean;
            squares = fma(distance, distance, squares);
        }
        p.moments[static_cast<size_t>(2 * piece) * p.pitch + c] = mean;
        p.moments[static_cast<size_t>(2 * piece + 1) * p.pitch + c] = static_cast<float>(squares);
    }
    if (threadIdx.x == 0) p.counts[piece] = count;
}

KERNEL_EACH_VALUE(current_moments, CurrentMoments, 256, 1, current_moments)
