// Parameter updates, all tensors in one launch: operation for operation those of src/backend/cpu/optimizer.rs.
//
//   SGD   g = scale gradient + decay v;  m = momentum m + g;  v -= rate m
//   Adam  g = scale gradient + decay v;  m = beta1 m + (1 - beta1) g;  s = beta2 s + (1 - beta2) g^2;
//         v -= rate m / (1 - beta1^count) / (sqrt(s / (1 - beta2^count)) + epsilon)
//   AdamW the same with decoupled decay: v = (1 - rate decay) v - …
//
// The host lists the tensors, [length] f32 each, and their chunks of CHUNK values once. One block per chunk, 16 values
// per thread. Whatever changes from step to step is in device memory. Before the update run `gradient_squares` (one
// block per chunk) and `gradient_norm` (one block), which fetches the rate, removes the loss scale, computes the norm
// and the clipping scale, counts the update and from the count corrects Adam's bias; if the norm is not finite, the
// update does nothing and is not counted. Finally it sets the next step's loss scale by the rule of PyTorch's
// GradScaler (whose `growth` is 2000) with bounds:
//
//   scale <- min(2 scale, 2^24) after `growth` finite norms with it     max(scale / 2, 1) after one that is not finite
//
// Memory traffic: 20 bytes per value (SGD), 28 (Adam), 4 (norm).
#include "reduce.cuh"

struct TrainedTensor {
    float* value;
    const float* gradient;
    float *first, *second;  // second: null for SGD
    uint32_t length, padding;
};

struct Chunk {
    uint32_t tensor, start;
};

// Written only by the kernels, except the first loss scale and the values that a resumed training continues from.
struct OptimizerState {
    double norm;       // of the gradients without the loss scale
    double norm_sum;   // of all finite norms
    float rate;        // of this step
    float loss_scale;  // the factor for the next gradients
    float gradient_scale;
    float step, root;  // Adam: rate / (1 - beta1^count) and sqrt(1 - beta2^count)
    uint32_t finite;   // 0 or 1: whether the last norm was finite
    uint32_t count;    // updates, including this one
    uint32_t skipped;
    uint32_t steady;  // updates since the loss scale last changed
    uint32_t padding;
    unsigned long long failed;  // first step skipped although its loss scale could not shrink; 0: none
};

struct Optimizer {
    const TrainedTensor* tensors;
    const Chunk* chunks;
    const OptimizerState* state;
    float decay, momentum;
    float beta1, beta2, epsilon;
    uint32_t decoupled;
};

struct GradientNorm {
    const TrainedTensor* tensors;
    const Chunk* chunks;
    double* squares;  // [chunks]
    OptimizerState* state;
    const float* rate;
    const unsigned long long* step;  // 1 …
    double limit;                    // of the norm; 0: none
    float beta1, beta2;              // Adam
    uint32_t chunk_count;
    uint32_t growth;  // updates after which the loss scale doubles; 0: fixed
};

constexpr uint32_t OPTIMIZER_THREADS = 256, CHUNK = 4096;
constexpr float SMALLEST_SCALE = 1.0f, LARGEST_SCALE = 16777216.0f;

// Calls `f(&tensor's arrays at some offset)` for four values at a time, and for each of the rest.
template <class Four, class One>
DEVICE void each_value(const TrainedTensor& tensor, uint32_t start, Four four, One one) {
    const uint32_t end = min(tensor.length, start + CHUNK), whole = end / 4 * 4;
#pragma unroll 2
    for (uint32_t i = start + 4 * threadIdx.x; i < whole; i += 4 * OPTIMIZER_THREADS) four(i);
    if (whole + threadIdx.x < end) one(whole + threadIdx.x);
}

// Updates values, four or one at a time, by `move(value, gradient, first, second)`.
template <bool SECOND, class F>
DEVICE void update(const TrainedTensor& tensor, uint32_t start, F move) {
    each_value(
        tensor, start,
        [&](uint32_t i) {
            float4 v = *reinterpret_cast<const float4*>(tensor.value + i);
            const float4 g = *reinterpret_cast<const float4*>(tensor.gradient + i);
            float4 m = *reinterpret_cast<const float4*>(tensor.first + i), s{};
            if (SECOND) s = *reinterpret_cast<const float4*>(tensor.second + i);
            move(v.x, g.x, m.x, s.x);
            move(v.y, g.y, m.y, s.y);
            move(v.z, g.z, m.z, s.z);
            move(v.w, g.w, m.w, s.w);
            *reinterpret_cast<float4*>(tensor.value + i) = v;
            *reinterpret_cast<float4*>(tensor.first + i) = m;
            if (SECOND) *reinterpret_cast<float4*>(tensor.second + i) = s;
        },
        [&](uint32_t i) {
            float s = SECOND ? tensor.second[i] : 0.0f;
            move(tensor.value[i], tensor.gradient[i], tensor.first[i], s);
            if (SECOND) tensor.second[i] = s;
        });
}

KERNEL(optimizer_sgd, Optimizer, OPTIMIZER_THREADS, 4) {
    if (!p.state->finite) return;
    const Chunk chunk = p.chunks[blockIdx.x];
    const TrainedTensor tensor = p.tensors[chunk.tensor];
    const float rate = p.state->rate, scale = p.state->gradient_scale;
    update<false>(tensor, chunk.start, [&](float& v, float gradient, float& m, float&) {
        const float g = fmaf(p.decay, v, scale * gradient);
        m = fmaf(p.momentum, m, g);
        v = fmaf(-rate, m, v);
    });
}

KERNEL(optimizer_adam, Optimizer, OPTIMIZER_THREADS, 2) {
    if (!p.state->finite) return;
    const float rate = p.state->rate, scale = p.state->gradient_scale, step = p.state->step, root = p.state->root;
    const Chunk chunk = p.chunks[blockIdx.x];
    const TrainedTensor tensor = p.tensors[chunk.tensor];
    const float kept = p.decoupled ? 1.0f - rate * p.decay : 1.0f, added = p.decoupled ? 0.0f : p.decay;
    update<true>(tensor, chunk.start, [&](float& v, float gradient, float& m, float& s) {
        const float g = fmaf(added, v, scale * gradient);
        m = fmaf(p.beta1, m, (1.0f - p.beta1) * g);
        s = fmaf(p.beta2, s, (1.0f - p.beta2) * g * g);
        v = fmaf(kept, v, -step * m / (sqrtf(s) / root + p.epsilon));
    });
}

KERNEL(gradient_squares, GradientNorm, OPTIMIZER_THREADS, 4) {
    SHARED(double, scratch, OPTIMIZER_THREADS / 32);
    const Chunk chunk = p.chunks[blockIdx.x];
    const TrainedTensor tensor = p.tensors[chunk.tensor];
    double sum[1] = {};
    const auto add = [&](float g) { sum[0] += static_cast<double>(g) * g; };
    each_value(
        tensor, chunk.start,
        [&](uint32_t i) {
            const float4 g = *reinterpret_cast<const float4*>(tensor.gradient + i);
            add(g.x), add(g.y), add(g.z), add(g.w);
        },
        [&](uint32_t i) { add(tensor.gradient[i]); });
    block_sums(sum, scratch);
    if (threadIdx.x == 0) p.squares[blockIdx.x] = sum[0];
}

// x^n as LLVM's run-time library computes it, which is what the host calls.
DEVICE double power(double x, uint32_t n) {
    double result = 1.0;
    for (; n; n /= 2, x *= x) {
        if (n & 1) result *= x;
    }
    return result;
}

// One block.
KERNEL(gradient_norm, GradientNorm, OPTIMIZER_THREADS, 1) {
    SHARED(double, scratch, OPTIMIZER_THREADS / 32);
    double sum[1] = {};
    for (uint32_t i = threadIdx.x; i < p.chunk_count; i += OPTIMIZER_THREADS) sum[0] += p.squares[i];
    block_sums(sum, scratch);
    if (threadIdx.x != 0) return;
    OptimizerState& state = *p.state;
    const float rate = *p.rate, loss_scale = state.loss_scale;
    const double norm = sqrt(sum[0]) / loss_scale;
    const bool finite = norm < INFINITY;
    const float clipped = p.limit > 0.0 && norm > p.limit ? static_cast<float>(p.limit / norm) : 1.0f;
    state.norm = norm;
    if (finite) state.norm_sum += norm;
    state.rate = rate;
    state.gradient_scale = clipped / loss_scale;
    state.finite = finite;
    state.count += finite;
    state.skipped += !finite;
    const uint32_t count = min(state.count, 0x7fffffffu);
    state.step = static_cast<float>(rate / (1.0 - power(p.beta1, count)));
    state.root = static_cast<float>(sqrt(1.0 - power(p.beta2, count)));
    const bool shrinks = p.growth && loss_scale > SMALLEST_SCALE;
    if (!finite && !shrinks && !state.failed) state.failed = *p.step;
    state.steady += finite;
    float next = loss_scale;
    if (!finite && shrinks) next = fmaxf(0.5f * loss_scale, SMALLEST_SCALE);
    if (finite && p.growth && state.steady >= p.growth) next = fminf(2.0f * loss_scale, LARGEST_SCALE);
    if (next != loss_scale) state.steady = 0;
    state.loss_scale = next;
}
