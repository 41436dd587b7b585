// Neurons backward in time: from the gradient of (pooled) spikes to the gradient of the neurons' input current.
//
//   G_H = G_S g + G_V dV/dH     G_I[t] = gain G_H     G_V[t-1] = leak G_H     t from T-1 to 0, G_V[T-1] = 0
//
// g is the slope of surrogate.cuh, dV/dH that of neuron.cuh; each slope x reset x detach x stored form is its own
// kernel. gradient [T][N][H'][W'][C] (H' W' of the pool if any, else of the layer), spikes and, for AdaLi, inside
// [T][places][C/32], and, if bits do not suffice (any other slope; a hard attached reset), the membranes H
// [T][places][C] -> out [T or 1][places][C] (1: summed over the steps). Rounding may move a stored H over the threshold
// or an end of the window, so spikes and window membership are always read from the bits. Threads as in places.cuh.
// Memory traffic, per neuron-step: 2 bytes of gradient, 2 bits and, if stored, 2 bytes of membrane in, 2 bytes out.
#include "neuron.cuh"
#include "surrogate.cuh"
#include "unpool.cuh"

struct SpikeBackward {
    const void* gradient;
    const uint32_t *spikes, *inside;  // inside: AdaLi only
    const void* membranes;            // form `membrane` only
    const Window* windows;            // AdaLi only; one, or [C]
    void* out;
    Places places;
    Pool pool;
    Neuron neuron;
    SlopeConstants slope;
    uint32_t windows_per_channel, current_steps;
    uint32_t add;  // whether the gradient is added to `out`
};

enum ResetKind : bool { soft, hard };
enum ResetGradient : bool { attached, detached };
enum StoredForm : bool { membrane, bits };

template <class Slope>
DEVICE float slope_of(const SpikeBackward& p, const Window& window, bool inside, bool spike, float h) {
    if constexpr (Slope::needs_membrane) {
        return Slope::at(p.slope, h - p.neuron.threshold);
    } else {
        return Slope::of_bits(window, inside, spike);
    }
}

template <class V, class Slope, ResetKind RESET, ResetGradient RESET_GRADIENT, StoredForm FORM, bool POOLED>
DEVICE void steps_back(const SpikeBackward& p, const Quad& quad) {
    using Stored = typename V::Stored;
    // Steps whose operands are loaded together; a pool's own reads are already enough.
    constexpr uint32_t AHEAD = POOLED ? 1 : 8 / sizeof(Stored);
    const auto* gradient = static_cast<const Stored*>(p.gradient);
    const auto* membranes = static_cast<const Stored*>(p.membranes);
    auto* out = static_cast<Stored*>(p.out);
    Window window[8] = {};
    if constexpr (!Slope::needs_membrane) {
#pragma unroll
        for (int i = 0; i < 8; i++) window[i] = p.windows[p.windows_per_channel ? quad.channel() + i : 0];
    }
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        const Covering covering = POOLED ? Covering(p.pool, place) : Covering{};
        float g_v[8] = {}, sum[8] = {};
        for (uint32_t end = p.places.steps; end > 0; end -= min(end, AHEAD)) {
            typename V::Eight gradients[AHEAD] = {}, hs[AHEAD] = {};
            uint32_t spikes[AHEAD] = {}, inside[AHEAD] = {};
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++) {
                if (j >= end) break;
                const size_t at = (end - 1 - j) * words + word;
                spikes[j] = p.spikes[at];
                if constexpr (!Slope::needs_membrane) inside[j] = p.inside[at];
                if constexpr (FORM == membrane) hs[j] = V::fetch8(membranes + at * 32 + 8 * quad.lane);
                if constexpr (!POOLED) gradients[j] = V::fetch8(gradient + at * 32 + 8 * quad.lane);
            }
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++) {
                if (j >= end) break;
                const uint32_t t = end - 1 - j;
                float g_s[8], h[8], g_i[8];
                if constexpr (POOLED) {
                    unpool8<V>(p.pool, p.places, quad, covering, t, gradient, p.spikes, g_s);
                } else {
                    V::unpack8(gradients[j], g_s);
                }
                V::unpack8(hs[j], h);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const bool spike = spikes[j] >> (8 * quad.lane + i) & 1;
                    const bool inside_bit = inside[j] >> (8 * quad.lane + i) & 1;
                    const float g = slope_of<Slope>(p, window[i], inside_bit, spike, h[i]);
                    const float through = reset_derivative<RESET, RESET_GRADIENT>(p.neuron, h[i], spike, g);
                    g_i[i] = step_back(p.neuron, through, g, g_s[i], g_v[i]);
                    sum[i] += g_i[i];
                }
                if (p.current_steps != 1) put8<V>(out + (t * words + word) * 32 + 8 * quad.lane, g_i, p.add);
            }
        }
        if (p.current_steps == 1) put8<V>(out + word * 32 + 8 * quad.lane, sum, p.add);
    }
}

template <class V, class Slope, ResetKind RESET, ResetGradient RESET_GRADIENT, StoredForm FORM>
DEVICE void spike_backward(const SpikeBackward& p) {
    const Quad quad(p.places);
    if (!quad.active) return;
    if (p.pool.kind == NO_POOL) {
        steps_back<V, Slope, RESET, RESET_GRADIENT, FORM, false>(p, quad);
    } else {
        steps_back<V, Slope, RESET, RESET_GRADIENT, FORM, true>(p, quad);
    }
}

#define ONE(slope, Slope, reset, detach, form, type, V)                                                      \
    KERNEL(spike_backward_##slope##_##reset##_##detach##_##form##_##type, SpikeBackward, PLACE_THREADS, 2) { \
        spike_backward<V, Slope, reset, detach, form>(p);                                                    \
    }
#define EACH_TYPE(slope, Slope, reset, detach, form)   \
    ONE(slope, Slope, reset, detach, form, f32, F32)   \
    ONE(slope, Slope, reset, detach, form, bf16, Bf16) \
    ONE(slope, Slope, reset, detach, form, f16, F16)
#define EACH_RESET(slope, Slope)                      \
    EACH_TYPE(slope, Slope, soft, attached, membrane) \
    EACH_TYPE(slope, Slope, soft, detached, membrane) \
    EACH_TYPE(slope, Slope, hard, attached, membrane) \
    EACH_TYPE(slope, Slope, hard, detached, membrane)

EACH_RESET(adali, Adali)
FORMULAS(EACH_RESET)
EACH_TYPE(adali, Adali, soft, attached, bits)
EACH_TYPE(adali, Adali, soft, detached, bits)
EACH_TYPE(adali, Adali, hard, detached, bits)
