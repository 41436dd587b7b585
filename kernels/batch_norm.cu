// Batch norm, channel by channel: from partial moments to the affine map, from partial gradient sums to the map that
// the convolution's backward pass applies. Mirrors src/backend/cpu/norm.rs.
//
//   mean = sum n m / sum n     variance = (sum squares + sum n (m - mean)^2) / sum n        over the pieces
//   inverse_deviation = 1 / sqrt(variance + 1e-5)     scale = gain inverse_deviation     shift = bias - mean scale
//
// Pieces [pieces][2][C] f32 (moments: mean and summed squared distance from it; sums: sum g and sum g xhat), vectors
// [C] f32, C padded to 32. Distances are from the mean of all, in f64: a difference of large sums would cancel. A
// block owns 8 channels (one sector of memory) and 64 rows of pieces, whose sums meet in a fixed tree. Moves: the
// pieces once (sums) or twice (moments).
#include "device.cuh"

constexpr uint32_t CHANNELS = 8, ROWS = 64, THREADS = CHANNELS * ROWS;
constexpr float EPSILON = 1e-5f, MOMENTUM = 0.1f;  // as PyTorch

struct BatchNorm {
    const float* moments;
    const uint32_t* counts;  // [pieces]: values of a piece; null: `count` each
    const float *gain, *bias;
    float *running_mean, *running_variance;
    float *mean, *inverse_deviation, *scale, *shift;
    uint32_t pieces, count;
    uint32_t repeats;   // steps that a current stands for
    uint32_t channels;  // without padding
    uint32_t update;    // moves the running statistics
    uint32_t padding;
};
LAYOUT(BatchNorm, moments, counts, gain, bias, running_mean, running_variance, mean, inverse_deviation, scale, shift,
       pieces, count, repeats, channels, update, padding)

struct BatchNormBackward {
    const float* sums;
    const float *mean, *inverse_deviation, *scale;
    float *gain_grad, *bias_grad;
    float *of_gradient, *of_current, *constant;
    float* sum;    // gradient of a bias before the norm
    double share;  // repeats / samples where the statistics were the batch's own, else 0
    uint32_t pieces, channels;
};
LAYOUT(BatchNormBackward, sums, mean, inverse_deviation, scale, gain_grad, bias_grad, of_gradient, of_current, constant,
       sum, share, pieces, channels)

namespace {

// The sum of a channel's 64 rows, in every thread. `shared` holds a value a thread.
DEVICE double sum_of_rows(double* shared, double x) {
    __syncthreads();
    shared[threadIdx.x] = x;
    for (uint32_t half = THREADS / 2; half >= CHANNELS; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) shared[threadIdx.x] += shared[threadIdx.x + half];
    }
    __syncthreads();
    return shared[threadIdx.x % CHANNELS];
}

DEVICE void write_affine(const BatchNorm& p, uint32_t channel, float mean, float variance) {
    const float inverse_deviation = 1.0f / sqrtf(variance + EPSILON), scale = p.gain[channel] * inverse_deviation;
    p.mean[channel] = mean;
    p.inverse_deviation[channel] = inverse_deviation;
    p.scale[channel] = scale;
    p.shift[channel] = p.bias[channel] - mean * scale;
}

DEVICE uint32_t padded(uint32_t channels) { return (channels + 31) / 32 * 32; }

}  // namespace

// The grid is C / 8 blocks.
KERNEL(batch_norm_statistics, BatchNorm, THREADS, 1) {
    SHARED(double, shared, THREADS);
    const uint32_t channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, row = threadIdx.x / CHANNELS;
    const size_t pitch = padded(p.channels);
    const auto count_of = [&](uint32_t piece) { return static_cast<double>(p.counts ? p.counts[piece] : p.count); };

    double values = 0.0, total = 0.0;
#pragma unroll 4
    for (uint32_t piece = row; piece < p.pieces; piece += ROWS) {
        values += count_of(piece);
        total += count_of(piece) * p.moments[2 * piece * pitch + channel];
    }
    values = sum_of_rows(shared, values);
    const double mean = sum_of_rows(shared, total) / values;
    double squares = 0.0;
#pragma unroll 4
    for (uint32_t piece = row; piece < p.pieces; piece += ROWS) {
        const double distance = p.moments[2 * piece * pitch + channel] - mean;
        squares += p.moments[(2 * piece + 1) * pitch + channel] + count_of(piece) * distance * distance;
    }
    const double variance = sum_of_rows(shared, squares) / values;
    if (row > 0) return;
    if (p.update && channel < p.channels) {
        const double samples = values * p.repeats, unbiased = variance * samples / fmax(samples - 1.0, 1.0);
        float &running_mean = p.running_mean[channel], &running_variance = p.running_variance[channel];
        running_mean += MOMENTUM * (static_cast<float>(mean) - running_mean);
        running_variance += MOMENTUM * (static_cast<float>(unbiased) - running_variance);
    }
    write_affine(p, channel, static_cast<float>(mean), static_cast<float>(variance));
}

// The affine map from the running statistics; a thread a channel.
KERNEL(batch_norm_running, BatchNorm, 256, 1) {
    const uint32_t channel = blockIdx.x * 256 + threadIdx.x;
    if (channel >= padded(p.channels)) return;
    write_affine(p, channel, p.running_mean[channel], p.running_variance[channel]);
}

// The grid is C / 8 blocks.
KERNEL(batch_norm_backward, BatchNormBackward, THREADS, 1) {
    SHARED(double, shared, THREADS);
    const uint32_t channel = blockIdx.x * CHANNELS + threadIdx.x % CHANNELS, row = threadIdx.x / CHANNELS;
    const size_t pitch = padded(p.channels);
    double sum = 0.0, product = 0.0;
#pragma unroll 4
    for (uint32_t piece = row; piece < p.pieces; piece += ROWS) {
        sum += p.sums[2 * piece * pitch + channel];
        product += p.sums[(2 * piece + 1) * pitch + channel];
    }
    sum = sum_of_rows(shared, sum);
    product = sum_of_rows(shared, product);
    if (row > 0) return;
    const double scale = p.scale[channel], inverse_deviation = p.inverse_deviation[channel], mean = p.mean[channel];
    const double slope = scale * product * p.share * inverse_deviation;
    p.bias_grad[channel] = static_cast<float>(sum);
    p.gain_grad[channel] = static_cast<float>(product);
    p.of_gradient[channel] = p.scale[channel];
    p.of_current[channel] = static_cast<float>(-slope);
    p.constant[channel] = static_cast<float>(slope * mean - scale * sum * p.share);
    // A bias in front shifts the batch's mean along: it changes nothing.
    p.sum[channel] = p.share > 0.0 ? 0.0f : static_cast<float>(scale * sum);
}
