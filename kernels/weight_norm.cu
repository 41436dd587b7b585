// Weight norm (scaled weight standardisation) and its gradients, one block per filter.
//
//   u = (W - mean) i,  i = 1/sqrt(f sum (W - mean)^2 + 1e-4),  effective = gain[k] s u
//   backward, G the effective weight's gradient:  dgain[k] = s sum G u,  dW = gain s i (G - mean(G) - f u sum(G u))
//
// The factor f is 1, or n / (n - 1) for the variance of a sample of n = fan_in weights.
//
// weight, effective, gradient [K][R][S][C] f32: a filter is contiguous; gain [K padded to 32]. Sums in f64 and a fixed
// order, because weights that differ little from their mean would lose their digits. A filter is read three times, all
// but the first from cache: 8 bytes per weight from memory, 12 backward.
#include "places.cuh"
#include "reduce.cuh"

struct WeightNorm {
    const float *weight, *gain;
    float* effective;
    uint32_t fan_in;
    float scale;
    double factor;
};

struct WeightNormBackward {
    const float *weight, *gain;
    float* gradient;       // of the effective weight; overwritten by the weight's
    float* gain_gradient;  // [K padded to 32], padding zero
    uint32_t fan_in;
    float scale;
    double factor;
};

constexpr uint32_t FILTER_THREADS = 256, FILTER_WARPS = FILTER_THREADS / 32;
constexpr double WEIGHT_EPSILON = 1e-4;

KERNEL(weight_norm_forward, WeightNorm, FILTER_THREADS, 4) {
    SHARED(double, scratch, FILTER_WARPS);
    const size_t filter = static_cast<size_t>(blockIdx.x) * p.fan_in;
    const float* weight = p.weight + filter;
    double sum[1] = {}, squares[1] = {};
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < p.fan_in; i += FILTER_THREADS) sum[0] += weight[i];
    block_sums(sum, scratch);
    const double mean = sum[0] / p.fan_in;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < p.fan_in; i += FILTER_THREADS) {
        const double d = weight[i] - mean;
        squares[0] += d * d;
    }
    block_sums(squares, scratch);
    const double inverse = 1.0 / sqrt(p.factor * squares[0] + WEIGHT_EPSILON);
    const double stretch = static_cast<double>(p.gain[blockIdx.x] * p.scale) * inverse;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < p.fan_in; i += FILTER_THREADS) {
        p.effective[filter + i] = static_cast<float>(stretch * (weight[i] - mean));
    }
}

KERNEL(weight_norm_backward, WeightNormBackward, FILTER_THREADS, 4) {
    SHARED(double, scratch, 2 * FILTER_WARPS);
    const size_t filter = static_cast<size_t>(blockIdx.x) * p.fan_in;
    const float* weight = p.weight + filter;
    float* gradient = p.gradient + filter;
    double sums[2] = {}, products[2] = {};
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < p.fan_in; i += FILTER_THREADS) {
        sums[0] += weight[i];
        sums[1] += gradient[i];
    }
    block_sums(sums, scratch);
    const double mean = sums[0] / p.fan_in, mean_gradient = sums[1] / p.fan_in;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < p.fan_in; i += FILTER_THREADS) {
        const double d = weight[i] - mean;
        products[0] += d * d;
        products[1] += gradient[i] * d;
    }
    block_sums(products, scratch);
    const double inverse = 1.0 / sqrt(p.factor * products[0] + WEIGHT_EPSILON), product = products[1] * inverse;
    const double stretch = static_cast<double>(p.gain[blockIdx.x] * p.scale) * inverse;
#pragma unroll 4
    for (uint32_t i = threadIdx.x; i < p.fan_in; i += FILTER_THREADS) {
        const double u = (weight[i] - mean) * inverse;
        gradient[i] = static_cast<float>(stretch * (gradient[i] - mean_gradient - u * (p.factor * product)));
    }
    if (threadIdx.x == 0) p.gain_gradient[blockIdx.x] = static_cast<float>(p.scale * product);
    const uint32_t padding = gridDim.x + threadIdx.x;
    if (blockIdx.x == 0 && padding < padded(gridDim.x)) p.gain_gradient[padding] = 0.0f;
}
