// Batch norm, per channel: from partial moments to the affine map, and from partial gradient sums to the map that the
// convolution's backward pass applies. Mirrors src/backend/cpu/norm.rs.
//
//   mean = sum n m / sum n     variance = (sum squares + sum n (m - mean)^2) / sum n        over the pieces
//   as d = sum n (m - m[0]) / sum n:  mean = m[0] + d   variance = (sum squares + sum n (m - m[0])^2) / sum n - d^2
//   inv_std = 1 / sqrt(variance + 1e-5)     scale = gain inv_std     shift = bias - mean scale
//
// Pieces are [pieces][2][C] f32 (moments: mean and sum of squared distances from it; sums: sum g and sum g xhat),
// vectors [C] f32, C padded to 32. Measuring distances from the first piece's mean, in f64, reads the pieces only once;
// large sums would cancel, but that mean is no farther from the overall mean than the pieces are apart. A block owns 8
// channels (one memory sector) and walks over the pieces with 256 rows of two threads, four channels each; sums are
// combined in a fixed order. Memory traffic: the pieces once, with 64 KB in flight per block.
#include "places.cuh"

constexpr uint32_t CHANNELS = 8, THREADS = 512, ROWS = THREADS / 2, WARPS = THREADS / 32;
constexpr float EPSILON = 1e-5f, MOMENTUM = 0.1f;  // as PyTorch

struct BatchNorm {
    const float* moments;
    const uint32_t* counts;  // [pieces]: values per piece
    const float *gain, *bias;
    float *running_mean, *running_variance;
    float *mean, *inv_std, *scale, *shift;
    uint32_t pieces;
    uint32_t repeats;   // steps that one current stands for
    uint32_t channels;  // without padding
    uint32_t update;    // whether to move the running statistics
};

struct BatchNormBackward {
    const float* sums;
    const float *mean, *inv_std, *scale;
    float *gain_grad, *bias_grad;
    float *of_gradient, *of_current, *constant;
    float* sum;    // gradient of a bias before the norm
    double share;  // repeats / samples where the statistics were the batch's own, else 0
    uint32_t pieces, channels;
};

namespace {

// Sums over a block's rows of each thread's four channels, N doubles per channel.
template <uint32_t N>
struct RowSums {
    double* sums;  // [warp][half][N][4]

    DEVICE RowSums(double* sums, const double (&x)[N][4]) : sums(sums) {
#pragma unroll
        for (uint32_t n = 0; n < N; n++) {
#pragma unroll
            for (uint32_t i = 0; i < 4; i++) {
                double sum = x[n][i];
#pragma unroll
                for (uint32_t with = 16; with > 1; with /= 2) sum += __shfl_xor_sync(~0u, sum, with);
                if (LANE < 2) sums[((threadIdx.x / 32 * 2 + LANE) * N + n) * 4 + i] = sum;
            }
        }
        __syncthreads();
    }
    DEVICE double operator()(uint32_t n, uint32_t channel) const {
        double sum = 0.0;
        for (uint32_t warp = 0; warp < WARPS; warp++) {
            sum += sums[((warp * 2 + channel / 4) * N + n) * 4 + channel % 4];
        }
        return sum;
    }
};

// Four channels of one row of pieces.
DEVICE void load4(const float* at, float (&x)[4]) {
    const float4 from = *reinterpret_cast<const float4*>(at);
    x[0] = from.x, x[1] = from.y, x[2] = from.z, x[3] = from.w;
}

DEVICE void write_affine(const BatchNorm& p, uint32_t channel, float mean, float variance) {
    const float inv_std = 1.0f / sqrtf(variance + EPSILON), scale = p.gain[channel] * inv_std;
    p.mean[channel] = mean;
    p.inv_std[channel] = inv_std;
    p.scale[channel] = scale;
    p.shift[channel] = p.bias[channel] - mean * scale;
}

}  // namespace

// The grid is C / 8 blocks.
KERNEL(batch_norm_statistics, BatchNorm, THREADS, 1) {
    SHARED(double, shared, 2 * WARPS * 3 * 4);
    const uint32_t four = blockIdx.x * CHANNELS + threadIdx.x % 2 * 4;
    const size_t pitch = padded(p.channels);
    float around[4];
    load4(p.moments + four, around);
    double of_row[3][4] = {};
#pragma unroll 4
    for (uint32_t piece = threadIdx.x / 2; piece < p.pieces; piece += ROWS) {
        const double values = p.counts[piece];
        float mean[4], squares[4];
        load4(p.moments + 2 * piece * pitch + four, mean);
        load4(p.moments + (2 * piece + 1) * pitch + four, squares);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const double distance = static_cast<double>(mean[i]) - around[i];
            of_row[0][i] += values;
            of_row[1][i] = fma(values, distance, of_row[1][i]);
            of_row[2][i] = fma(values * distance, distance, of_row[2][i] + squares[i]);
        }
    }
    const RowSums<3> sums(shared, of_row);
    if (threadIdx.x >= CHANNELS) return;
    const uint32_t channel = blockIdx.x * CHANNELS + threadIdx.x;
    const double values = sums(0, threadIdx.x), distance = sums(1, threadIdx.x) / values;
    const double mean = p.moments[channel] + distance;
    double variance = sums(2, threadIdx.x) / values - distance * distance;
    if (variance < 0.0) variance = 0.0;  // can result from rounding; NaN stays NaN
    if (p.update && channel < p.channels) {
        const double samples = values * p.repeats, unbiased = variance * samples / fmax(samples - 1.0, 1.0);
        float &running_mean = p.running_mean[channel], &running_variance = p.running_variance[channel];
        running_mean += MOMENTUM * (static_cast<float>(mean) - running_mean);
        running_variance += MOMENTUM * (static_cast<float>(unbiased) - running_variance);
    }
    write_affine(p, channel, static_cast<float>(mean), static_cast<float>(variance));
}

// The affine map from the running statistics; one thread per channel.
KERNEL(batch_norm_running, BatchNorm, 256, 1) {
    const uint32_t channel = blockIdx.x * 256 + threadIdx.x;
    if (channel >= padded(p.channels)) return;
    write_affine(p, channel, p.running_mean[channel], p.running_variance[channel]);
}

// The grid is C / 8 blocks.
KERNEL(batch_norm_backward, BatchNormBackward, THREADS, 1) {
    SHARED(double, shared, 2 * WARPS * 2 * 4);
    const uint32_t four = blockIdx.x * CHANNELS + threadIdx.x % 2 * 4;
    const size_t pitch = padded(p.channels);
    double of_row[2][4] = {};
#pragma unroll 4
    for (uint32_t piece = threadIdx.x / 2; piece < p.pieces; piece += ROWS) {
        float sum[4], product[4];
        load4(p.sums + 2 * piece * pitch + four, sum);
        load4(p.sums + (2 * piece + 1) * pitch + four, product);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            of_row[0][i] += sum[i];
            of_row[1][i] += product[i];
        }
    }
    const RowSums<2> sums(shared, of_row);
    if (threadIdx.x >= CHANNELS) return;
    const uint32_t channel = blockIdx.x * CHANNELS + threadIdx.x;
    const double sum = sums(0, threadIdx.x), product = sums(1, threadIdx.x);
    const double scale = p.scale[channel], inv_std = p.inv_std[channel], mean = p.mean[channel];
    const double slope = scale * product * p.share * inv_std;
    p.bias_grad[channel] = static_cast<float>(sum);
    p.gain_grad[channel] = static_cast<float>(product);
    p.of_gradient[channel] = p.scale[channel];
    p.of_current[channel] = static_cast<float>(-slope);
    p.constant[channel] = static_cast<float>(slope * mean - scale * sum * p.share);
    // A bias before the norm only shifts the batch mean: it has no effect.
    p.sum[channel] = p.share > 0.0 ? 0.0f : static_cast<float>(scale * sum);
}
