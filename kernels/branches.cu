// Gradients where networks branch, combined spikes, and learned factors.
//
//   pass_gradient   to (+)= scale[c] g, summed over the steps if `to` has one
//   mask_gradient   to (+)= scale g where the mask is set, or where it is not
//   and_spikes      own and other, or other and not own
//   gain_forward    out[c] = scale gain            gain_backward   dgain = scale sum g y
//
// Gradients [T][places][C], currents y [T or 1][places][C], spikes [T][places][C/32]. Threads as in places.cuh, for
// and_spikes one per word. Memory traffic, per neuron-step of 16 bits: 4 bytes, 6 if added.
#include "places.cuh"
#include "reduce.cuh"
#include "value.cuh"

struct PassGradient {
    const void* gradient;
    const float* scale;  // [C]
    void* to;            // [steps][places][C]
    Places places;
    uint32_t steps, add;
    uint32_t padding;
};

struct MaskGradient {
    const void* gradient;
    const uint32_t* mask;
    void* to;
    Places places;
    uint32_t inverted, add;
    float scale;
};

struct AndSpikes {
    const uint32_t *own, *other;
    uint32_t* out;
    unsigned long long words;  // of each
    uint32_t inverted, padding;
};

struct GainForward {
    const float* gain;
    float* out;         // [C padded to 32]
    uint32_t channels;  // with padding
    float scale;
};

struct GainBackward {
    const void *gradient, *currents;
    double* partial;  // [grid.x]
    float* gain_gradient;
    Places places;
    uint32_t channels;       // without padding
    uint32_t current_steps;  // T or 1
    uint32_t pieces;         // gain_sum: how many partial sums
    float scale;
    uint32_t padding;
};

template <class V>
DEVICE void pass_gradient(const PassGradient& p) {
    using Stored = typename V::Stored;
    const Quad quad(p.places);
    if (!quad.active) return;
    const auto* gradient = static_cast<const Stored*>(p.gradient);
    auto* to = static_cast<Stored*>(p.to);
    float scale[8];
    F32::load8(p.scale + quad.channel(), scale);
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    const bool sums = p.steps != p.places.steps;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        float sum[8] = {};
        for (uint32_t t = 0; t < p.places.steps; t++) {
            const size_t at = (t * words + word) * 32 + 8 * quad.lane;
            float g[8];
            V::load8(gradient + at, g);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                sum[i] += g[i];
                g[i] *= scale[i];
            }
            if (!sums) put8<V>(to + at, g, p.add);
        }
        if (!sums) continue;
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] *= scale[i];
        put8<V>(to + word * 32 + 8 * quad.lane, sum, p.add);
    }
}

template <class V>
DEVICE void mask_gradient(const MaskGradient& p) {
    using Stored = typename V::Stored;
    const Quad quad(p.places);
    if (!quad.active) return;
    const uint32_t invert = p.inverted ? ~0u : 0;
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        for (uint32_t t = 0; t < p.places.steps; t++) {
            const size_t word = t * words + static_cast<size_t>(place) * p.places.words + quad.word;
            const uint32_t mask = (p.mask[word] ^ invert) >> 8 * quad.lane;
            const size_t at = word * 32 + 8 * quad.lane;
            float g[8];
            V::load8(static_cast<const Stored*>(p.gradient) + at, g);
#pragma unroll
            for (int i = 0; i < 8; i++) g[i] = mask >> i & 1 ? p.scale * g[i] : 0.0f;
            put8<V>(static_cast<Stored*>(p.to) + at, g, p.add);
        }
    }
}

KERNEL_EACH_VALUE(pass_gradient, PassGradient, PLACE_THREADS, 2, pass_gradient)
KERNEL_EACH_VALUE(mask_gradient, MaskGradient, PLACE_THREADS, 2, mask_gradient)

KERNEL(and_spikes, AndSpikes, 256, 4) {
    const uint32_t invert = p.inverted ? ~0u : 0;
    const size_t stride = static_cast<size_t>(gridDim.x) * blockDim.x;
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < p.words; i += stride) {
        p.out[i] = (p.own[i] ^ invert) & p.other[i];
    }
}

KERNEL(gain_forward, GainForward, 256, 4) {
    const uint32_t channel = blockIdx.x * blockDim.x + threadIdx.x;
    if (channel < p.channels) p.out[channel] = p.scale * p.gain[0];
}

// Each block's part, in f64; gain_sum adds them in order.
template <class V>
DEVICE void gain_backward(const GainBackward& p) {
    using Stored = typename V::Stored;
    SHARED(double, scratch, PLACE_THREADS / 32);
    const auto* gradient = static_cast<const Stored*>(p.gradient);
    const auto* currents = static_cast<const Stored*>(p.currents);
    const Quad quad(p.places);
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    double sum[1] = {};
    for (uint32_t place = quad.first; quad.active && place < p.places.places; place += quad.stride) {
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        for (uint32_t t = 0; t < p.places.steps; t++) {
            const size_t at = t * words + word;
            float g[8], y[8];
            V::load8(gradient + at * 32 + 8 * quad.lane, g);
            V::load8(currents + (p.current_steps == 1 ? word : at) * 32 + 8 * quad.lane, y);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (quad.channel() + i < p.channels) sum[0] = fma(static_cast<double>(g[i]), y[i], sum[0]);
            }
        }
    }
    block_sums(sum, scratch);
    if (threadIdx.x == 0) p.partial[blockIdx.y * gridDim.x + blockIdx.x] = sum[0];
}

KERNEL_EACH_VALUE(gain_backward, GainBackward, PLACE_THREADS, 2, gain_backward)

// One block of one warp.
KERNEL(gain_sum, GainBackward, 32, 1) {
    if (threadIdx.x > 0) return;
    double sum = 0.0;
    for (uint32_t i = 0; i < p.pieces; i++) sum += p.partial[i];
    p.gain_gradient[0] = static_cast<float>(p.scale * sum);
}
