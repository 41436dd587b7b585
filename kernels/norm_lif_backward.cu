// Batch norm and neurons backward in two passes over what the forward pass stored; dL/dI is never written in between.
//
//   reduce   sums[block][0][c] = sum g      sums[block][1][c] = sum g (y - mean[c]) inv_std[c]
//   apply    out = of_gradient[c] g + of_current[c] y + constant[c]
//
// y are the currents, g = dL/dI of the normalised current by the reverse-time LIF of neuron.cuh, kept in f32. There are
// two variants, one kernel each: with window bits, nothing is recomputed; otherwise the membranes are recomputed from
// the currents and held in dynamic shared memory [T][8][thread]. `norm_reduce` and `norm_apply` are for a norm whose
// output is not the neurons' input alone: g is the gradient as given, [T][places][C]. currents, out [T or 1][places][C]
// (1: g is summed over the steps), gradient [T][N][H'][W'][C], spikes and inside [T][places][C/32], sums
// [grid.x][2][C]. Threads as in places.cuh. Memory traffic, per neuron-step and pass: 2 + 2 bytes and 2 bits in; apply
// 2 bytes out.
//
// Dynamic shared memory: 8 PLACE_THREADS floats times T if membranes are recomputed; reduce takes at least 2 in place
// of T. If that exceeds what the card has, the `long` kernels keep the membranes in global memory (8 more bytes).
#include "neuron.cuh"
#include "surrogate.cuh"
#include "unpool.cuh"

struct NormLifBackward {
    const void *currents, *gradient;
    const uint32_t *spikes, *inside;  // spikes: given window bits or a max-pool; inside null: no window bits
    const Window* windows;            // AdaLi only; one, or [C]
    const float *scale, *shift;       // [C]: the affine map; only if membranes are recomputed
    float* membranes;                 // [block][T][8][thread]: the `long` kernels
    const float *mean, *inv_std;      // [C], reduce
    float* sums;                      // reduce
    const float *of_gradient, *of_current, *constant;  // [C], apply
    void* out;                                         // apply
    Places places;
    Pool pool;
    Neuron neuron;
    SlopeConstants slope;
    SlopeKind slope_kind;
    uint32_t windows_per_channel, current_steps;
};

namespace {

DEVICE Window window_of(const NormLifBackward& p, uint32_t channel) {
    return p.windows[p.windows_per_channel ? channel : 0];
}

// Slopes of eight channels from their membranes, which are not rounded here.
template <class Slope>
DEVICE void slopes(const NormLifBackward& p, uint32_t channel, const float (&h)[8], uint32_t spikes, float (&g)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float d = h[i] - p.neuron.threshold;
        if constexpr (Slope::needs_membrane) {
            g[i] = Slope::at(p.slope, d);
        } else {
            const Window window = window_of(p, channel + i);
            g[i] = Slope::of_bits(window, inside(window, d), spikes >> i & 1);
        }
    }
}

// What the forward pass left of a thread's neurons: either all of it in the bits …
template <class V>
struct FromBits {
    static constexpr bool AHEAD = true, NEURONS = true;

    const NormLifBackward& p;
    float left[8], right[8];
    uint32_t next_spikes, next_inside;

    DEVICE FromBits(const NormLifBackward& p, const Quad& quad) : p(p) {
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const Window window = window_of(p, quad.channel() + i);
            left[i] = window.slope_left, right[i] = window.slope_right;
        }
    }
    DEVICE void begin(const Quad&, size_t) {}
    DEVICE void fetch(size_t at) { next_spikes = p.spikes[at], next_inside = p.inside[at]; }
    DEVICE void read(const Quad& quad, uint32_t, float (&)[8], float (&g)[8], uint32_t& spikes) const {
        spikes = next_spikes >> 8 * quad.lane;
        const uint32_t inside = next_inside >> 8 * quad.lane;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            g[i] = Adali::of_bits({0.0f, 0.0f, left[i], right[i]}, inside >> i & 1, spikes >> i & 1);
        }
    }
};

// … or the membranes, recomputed; LONG: too many for shared memory.
template <class V, bool LONG>
struct FromCurrents {
    static constexpr bool AHEAD = false, NEURONS = true;

    const NormLifBackward& p;
    float* membranes;

    DEVICE FromCurrents(const NormLifBackward& p, const Quad&) : p(p) {
        if constexpr (LONG) {
            const size_t block = blockIdx.y * gridDim.x + blockIdx.x;
            membranes = p.membranes + block * p.places.steps * 8 * PLACE_THREADS + threadIdx.x;
        } else {
            DYNAMIC_SHARED(float, shared);
            membranes = shared + threadIdx.x;
        }
    }
    DEVICE void begin(const Quad& quad, size_t word) {
        const auto* currents = static_cast<const typename V::Stored*>(p.currents);
        const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
        float v[8] = {}, current[8] = {}, scale[8], shift[8];
        F32::load8(p.scale + quad.channel(), scale);
        F32::load8(p.shift + quad.channel(), shift);
        for (uint32_t t = 0; t < p.places.steps; t++) {
            if (t < p.current_steps) V::load8(currents + (t * words + word) * 32 + 8 * quad.lane, current);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float h = charge(p.neuron, v[i], fmaf(scale[i], current[i], shift[i]));
                membranes[(8 * t + i) * PLACE_THREADS] = h;
                v[i] = reset(p.neuron, p.neuron.hard, h, h >= p.neuron.threshold);
            }
        }
    }
    DEVICE void fetch(size_t) {}
    DEVICE void read(const Quad& quad, uint32_t t, float (&h)[8], float (&g)[8], uint32_t& spikes) const {
        spikes = 0;
#pragma unroll
        for (int i = 0; i < 8; i++) {
            h[i] = membranes[(8 * t + i) * PLACE_THREADS];
            spikes |= static_cast<uint32_t>(h[i] >= p.neuron.threshold) << i;
        }
        switch (p.slope_kind) {
            case SlopeKind::Adali:
                return slopes<Adali>(p, quad.channel(), h, spikes, g);
#define CASE(name, Formula)  \
    case SlopeKind::Formula: \
        return slopes<Formula>(p, quad.channel(), h, spikes, g);
                FORMULAS(CASE)
#undef CASE
        }
    }
};

// No neurons: g is the gradient as it is.
template <class V>
struct FromGradient {
    static constexpr bool AHEAD = true, NEURONS = false;

    DEVICE FromGradient(const NormLifBackward&, const Quad&) {}
    DEVICE void begin(const Quad&, size_t) {}
    DEVICE void fetch(size_t) {}
};

// Passes every step's g and y to `sink`, from the last step to the first, and signals the end of a place.
template <class V, class State, bool POOLED, class Sink>
DEVICE void steps_back(const NormLifBackward& p, const Quad& quad, Sink& sink) {
    using Stored = typename V::Stored;
    // The next step's operands are loaded while this step is computed, if there are registers for them.
    constexpr bool AHEAD = !POOLED && State::AHEAD && sizeof(Stored) == 2;
    const auto* currents = static_cast<const Stored*>(p.currents);
    const auto* gradient = static_cast<const Stored*>(p.gradient);
    State state(p, quad);
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        const Covering covering = POOLED ? Covering(p.pool, place) : Covering{};
        state.begin(quad, word);
        typename V::Eight next_current, next_gradient;
        const auto fetch = [&](uint32_t t) {
            const size_t at = t * words + word;
            next_current = V::fetch8(currents + (p.current_steps == 1 ? word : at) * 32 + 8 * quad.lane);
            if constexpr (!POOLED) next_gradient = V::fetch8(gradient + at * 32 + 8 * quad.lane);
            state.fetch(at);
        };
        if constexpr (AHEAD) fetch(p.places.steps - 1);
        float g_v[8] = {};
        for (uint32_t t = p.places.steps; t-- > 0;) {
            float g_s[8], h[8] = {}, g[8], y[8];
            if constexpr (POOLED) unpool8<V>(p.pool, p.places, quad, covering, t, gradient, p.spikes, g_s);
            if constexpr (!AHEAD) fetch(t);
            const typename V::Eight current = next_current, of_spikes = next_gradient;
            uint32_t spikes = 0;
            if constexpr (State::NEURONS) state.read(quad, t, h, g, spikes);
            if (AHEAD && t > 0) fetch(t - 1);
            if constexpr (!POOLED) V::unpack8(of_spikes, g_s);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const bool spike = spikes >> i & 1;
                if constexpr (State::NEURONS) {
                    g[i] = step_back(p.neuron, p.neuron.hard, p.neuron.detach, h[i], spike, g[i], g_s[i], g_v[i]);
                } else {
                    g[i] = g_s[i];
                }
            }
            V::unpack8(current, y);
            sink.step((t * words + word) * 32 + 8 * quad.lane, g, y);
        }
        sink.end(word * 32 + 8 * quad.lane);
    }
}

template <class V, class State, class Sink>
DEVICE void steps_back(const NormLifBackward& p, const Quad& quad, Sink& sink) {
    if constexpr (State::NEURONS) {
        if (p.pool.kind != NO_POOL) return steps_back<V, State, true>(p, quad, sink);
    }
    steps_back<V, State, false>(p, quad, sink);
}

// A current that stands for all steps receives the sum of their gradients, so nothing changes for it here. Per-channel
// constants are read from the cache at every step, here and in Apply: no registers are left for them.
struct Reduce {
    const float* mean;
    float sums[8] = {}, products[8] = {};

    DEVICE void step(size_t, const float (&g)[8], const float (&y)[8]) {
        float mean[8];
        F32::load8(this->mean, mean);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            sums[i] += g[i];
            products[i] = fmaf(g[i], y[i] - mean[i], products[i]);
        }
    }
    DEVICE void end(size_t) {}
};

template <class V, class State>
DEVICE void norm_lif_reduce(const NormLifBackward& p) {
    DYNAMIC_SHARED(float, partial);
    const Quad quad(p.places);
    Reduce reduce{p.mean + quad.channel()};
    if (quad.active) steps_back<V, State>(p, quad, reduce);
    // A thread's sums overwrite its own membranes.
#pragma unroll
    for (int i = 0; i < 8; i++) {
        partial[i * PLACE_THREADS + threadIdx.x] = reduce.sums[i];
        partial[(8 + i) * PLACE_THREADS + threadIdx.x] = reduce.products[i];
    }
    __syncthreads();
    const uint32_t across = min(p.places.words, QUADS), down = QUADS / across, channels = 32 * p.places.words;
    for (uint32_t i = threadIdx.x; i < 64 * across; i += PLACE_THREADS) {
        const uint32_t product = i / (32 * across), c = i % (32 * across), channel = blockIdx.y * across * 32 + c;
        if (channel >= channels) continue;
        const float* from = partial + (8 * product + c % 8) * PLACE_THREADS + c / 8;
        float sum = 0.0f;
        for (uint32_t row = 0; row < down; row++) sum += from[row * across * 4];
        const float scale = product ? p.inv_std[channel] : 1.0f;
        p.sums[(2 * blockIdx.x + product) * static_cast<size_t>(channels) + channel] = sum * scale;
    }
}

template <class V, bool KEEPS>
struct Apply {
    const NormLifBackward& p;
    uint32_t channel;
    float of_gradient[8], of_current[8], constant[8], sum[8] = {};

    DEVICE Apply(const NormLifBackward& p, const Quad& quad) : p(p), channel(quad.channel()) {
        F32::load8(p.of_gradient + channel, of_gradient);
        if (KEEPS) load();
    }
    DEVICE void load() {
        F32::load8(p.of_current + channel, of_current);
        F32::load8(p.constant + channel, constant);
    }
    DEVICE void write(size_t at, const float (&g)[8], const float (&y)[8]) {
        if (!KEEPS) load();
        float x[8];
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = fmaf(of_gradient[i], g[i], fmaf(of_current[i], y[i], constant[i]));
        V::store8(static_cast<typename V::Stored*>(p.out) + at, x);
    }
    DEVICE void step(size_t at, const float (&g)[8], const float (&y)[8]) {
        if (p.current_steps != 1) return write(at, g, y);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] += g[i];
    }
    DEVICE void end(size_t at) {
        if (p.current_steps != 1) return;
        float y[8];
        V::load8(static_cast<const typename V::Stored*>(p.currents) + at, y);
        write(at, sum, y);
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] = 0.0f;
    }
};

template <class V, class State>
DEVICE void norm_lif_apply(const NormLifBackward& p) {
    const Quad quad(p.places);
    if (!quad.active) return;
    // Recomputed membranes leave no registers for constants.
    Apply<V, State::AHEAD> apply(p, quad);
    steps_back<V, State>(p, quad, apply);
}

}  // namespace

#define NORM_LIF_BACKWARD(V, suffix)                                                                                 \
    KERNEL(norm_lif_reduce_bits_##suffix, NormLifBackward, PLACE_THREADS, 2) { norm_lif_reduce<V, FromBits<V>>(p); } \
    KERNEL(norm_lif_reduce_currents_##suffix, NormLifBackward, PLACE_THREADS, 1) {                                   \
        norm_lif_reduce<V, FromCurrents<V, false>>(p);                                                               \
    }                                                                                                                \
    KERNEL(norm_lif_reduce_currents_long_##suffix, NormLifBackward, PLACE_THREADS, 1) {                              \
        norm_lif_reduce<V, FromCurrents<V, true>>(p);                                                                \
    }                                                                                                                \
    KERNEL(norm_reduce_##suffix, NormLifBackward, PLACE_THREADS, 2) { norm_lif_reduce<V, FromGradient<V>>(p); }      \
    KERNEL(norm_apply_##suffix, NormLifBackward, PLACE_THREADS, 2) { norm_lif_apply<V, FromGradient<V>>(p); }        \
    KERNEL(norm_lif_apply_bits_##suffix, NormLifBackward, PLACE_THREADS, 2) { norm_lif_apply<V, FromBits<V>>(p); }   \
    KERNEL(norm_lif_apply_currents_##suffix, NormLifBackward, PLACE_THREADS, 1) {                                    \
        norm_lif_apply<V, FromCurrents<V, false>>(p);                                                                \
    }                                                                                                                \
    KERNEL(norm_lif_apply_currents_long_##suffix, NormLifBackward, PLACE_THREADS, 1) {                               \
        norm_lif_apply<V, FromCurrents<V, true>>(p);                                                                 \
    }
NORM_LIF_BACKWARD(F32, f32)
NORM_LIF_BACKWARD(Bf16, bf16)
NORM_LIF_BACKWARD(F16, f16)
