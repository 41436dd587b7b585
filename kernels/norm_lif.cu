// Neurons of a layer whose currents are in memory: affine map (batch norm) and all T steps in one pass.
//
//   I = scale[c] current + shift[c]; then the neuron of neuron.cuh, its membrane in registers
//
// `sum_lif_forward` adds up to three such currents, or spikes, and keeps the sum on request; `sum_currents` only adds.
// Both start from the sum of all shifts and add the products in order.
//
// currents [T or 1][places][C] (1: the same current at every step) -> spikes, windows [T][places][C/32], and on request
// the membranes H [T][places][C], the sum [T or 1][places][C] and the histogram. Threads as in places.cuh. For a
// histogram, a block counts in dynamic shared memory, [1 or 32][COUNTS] u32, and adds the result at its end; with one
// histogram per channel, the grid is (any number of blocks, C/32) and a block owns one word of channels. Memory
// traffic, per neuron-step: 2 bytes of current in, 2 bits out.
#include "histogram.cuh"
#include "neuron.cuh"
#include "places.cuh"
#include "surrogate.cuh"
#include "value.cuh"

struct NormLif {
    const void* currents;
    const float *scale, *shift;  // [C]; null: 1 and 0
    const Window* windows;       // one, or [C]
    uint32_t* spikes;
    uint32_t* inside;               // null: not wanted
    void* membranes;                // null: not wanted
    unsigned long long* histogram;  // [1 or C][COUNTS], added to; null: not wanted
    Places places;
    uint32_t channels;  // without padding
    uint32_t current_steps, windows_per_channel, histogram_per_channel;
    Neuron neuron;
    uint32_t padding;
};

// One of several currents that are added.
struct Summand {
    const void* values;          // [steps][places][C], or
    const uint32_t* spikes;      // [steps][places][C/32]
    const float *scale, *shift;  // [C]; null: 1 and 0
    uint32_t steps;              // T or 1
    float of_spike;              // what a spike counts for
};

struct SumCurrents {
    Summand summands[3];
    void* sum;  // null: not wanted
    Places places;
    uint32_t count, steps;  // summands; steps of the sum
    uint32_t padding;
};

struct SumLif {
    SumCurrents input;
    const Window* windows;
    uint32_t* spikes;
    uint32_t* inside;
    void* membranes;
    unsigned long long* histogram;
    Places places;
    uint32_t channels;
    uint32_t windows_per_channel, histogram_per_channel;
    Neuron neuron;
};

namespace {

// The input of neurons: one current …
template <class V>
struct OneCurrent {
    static constexpr uint32_t AHEAD = 8 / sizeof(typename V::Stored);
    using Fetched = typename V::Eight;

    const typename V::Stored* currents;
    uint32_t steps, lane;
    float scale[8] = {1, 1, 1, 1, 1, 1, 1, 1}, shift[8] = {}, current[8] = {};

    DEVICE OneCurrent(const NormLif& p, const Quad& quad)
        : currents(static_cast<const typename V::Stored*>(p.currents)), steps(p.current_steps), lane(quad.lane) {
        if (!quad.active || !p.scale) return;
        F32::load8(p.scale + quad.channel(), scale);
        F32::load8(p.shift + quad.channel(), shift);
    }
    DEVICE Fetched fetch(uint32_t t, size_t, size_t at) const {
        return t < steps ? V::fetch8(currents + at * 32 + 8 * lane) : Fetched{};
    }
    DEVICE void read(const Fetched& fetched, uint32_t t, size_t, bool, float (&x)[8]) {
        if (t < steps) V::unpack8(fetched, current);
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = fmaf(scale[i], current[i], shift[i]);
    }
};

// … or the sum of several, kept if wanted.
template <class V>
struct SumOfCurrents {
    static constexpr uint32_t AHEAD = 4 / sizeof(typename V::Stored);
    struct Fetched {
        typename V::Eight values[3];
        uint32_t spikes[3];
    };

    const SumCurrents& p;
    uint32_t lane;
    float scale[3][8], shift[8] = {};  // each one's scale, the sum of all shifts

    DEVICE SumOfCurrents(const SumCurrents& p, const Quad& quad) : p(p), lane(quad.lane) {
#pragma unroll
        for (int k = 0; k < 3; k++) {
#pragma unroll
            for (int i = 0; i < 8; i++) scale[k][i] = 1.0f;
            if (k >= p.count || !quad.active || !p.summands[k].scale) continue;
            float own[8];
            F32::load8(p.summands[k].scale + quad.channel(), scale[k]);
            F32::load8(p.summands[k].shift + quad.channel(), own);
#pragma unroll
            for (int i = 0; i < 8; i++) shift[i] += own[i];
        }
    }
    DEVICE SumOfCurrents(const SumLif& p, const Quad& quad) : SumOfCurrents(p.input, quad) {}
    DEVICE Fetched fetch(uint32_t, size_t word, size_t at) const {
        Fetched fetched = {};
#pragma unroll
        for (int k = 0; k < 3; k++) {
            if (k >= p.count) break;
            const Summand& summand = p.summands[k];
            const size_t from = summand.steps == 1 ? word : at;
            if (summand.spikes) {
                fetched.spikes[k] = summand.spikes[from];
            } else {
                fetched.values[k] =
                    V::fetch8(static_cast<const typename V::Stored*>(summand.values) + from * 32 + 8 * lane);
            }
        }
        return fetched;
    }
    DEVICE void read(const Fetched& fetched, uint32_t t, size_t at, bool active, float (&x)[8]) const {
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] = shift[i];
        if (!active) return;
#pragma unroll
        for (int k = 0; k < 3; k++) {
            if (k >= p.count) break;
            const Summand& summand = p.summands[k];
            float y[8];
            if (summand.spikes) {
                const uint32_t own = fetched.spikes[k] >> 8 * lane;
#pragma unroll
                for (int i = 0; i < 8; i++) y[i] = own >> i & 1 ? summand.of_spike : 0.0f;
            } else {
                V::unpack8(fetched.values[k], y);
            }
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] = fmaf(scale[k][i], y[i], x[i]);
        }
        if (!p.sum) return;
        // Whoever reads the sum later sees what the neurons see.
        V::round8(x);
        if (t < p.steps) V::store8(static_cast<typename V::Stored*>(p.sum) + at * 32 + 8 * lane, x);
    }
};

template <class V, class Input, bool COUNTED, class P>
DEVICE void all_steps(const P& p, const Quad& quad, uint32_t* counts) {
    using Stored = typename V::Stored;
    // Steps whose currents are loaded together: no load can move ahead of the previous step's stores. Counting takes so
    // much longer than loading that one is enough.
    constexpr uint32_t AHEAD = COUNTED ? 1 : Input::AHEAD;
    auto* membranes = static_cast<Stored*>(p.membranes);
    const uint32_t channel = quad.channel();
    Input input(p, quad);
    float left[8], right[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const bool own = quad.active && p.windows_per_channel;
        left[i] = left[0], right[i] = right[0];
        if (own || i == 0) {
            const Window& window = p.windows[own ? channel + i : 0];
            left[i] = window.left, right[i] = window.right;
        }
    }
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    // All quads of a warp stay together: word_of_quad needs them.
    const uint32_t rounds = (p.places.places + quad.stride - 1) / quad.stride;
    for (uint32_t round = 0; round < rounds; round++) {
        const uint32_t place = quad.first + round * quad.stride;
        const bool active = quad.active && place < p.places.places;
        const size_t word = active ? static_cast<size_t>(place) * p.places.words + quad.word : 0;
        size_t at = word;
        // A running pointer: the compiler splits 16-byte stores at a computed index.
        Stored* h_out = membranes ? membranes + word * 32 + 8 * quad.lane : nullptr;
        float v[8] = {};
        for (uint32_t start = 0; start < p.places.steps; start += AHEAD) {
            typename Input::Fetched fetched[AHEAD] = {};
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++) {
                if (!active || start + j >= p.places.steps) break;
                fetched[j] = input.fetch(start + j, word, at + j * words);
            }
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++, at += words, h_out += 32 * words) {
                const uint32_t t = start + j;
                if (t >= p.places.steps) break;
                float h[8], x[8];
                uint32_t spikes = 0, inside_bits = 0;
                input.read(fetched[j], t, at, active, x);
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    h[i] = charge(p.neuron, v[i], x[i]);
                    const bool spike = h[i] >= p.neuron.threshold;
                    const bool near = inside({left[i], right[i], 0.0f, 0.0f}, h[i] - p.neuron.threshold);
                    spikes |= static_cast<uint32_t>(spike) << i;
                    inside_bits |= static_cast<uint32_t>(near) << i;
                    v[i] = reset(p.neuron, p.neuron.hard, h[i], spike);
                }
                spikes = word_of_quad(spikes, quad.lane);
                inside_bits = word_of_quad(inside_bits, quad.lane);
                if (active && quad.lane == 0) {
                    p.spikes[at] = spikes;
                    if (p.inside) p.inside[at] = inside_bits;
                }
                if (active && membranes) V::store8(h_out, h);
                if constexpr (COUNTED) {
#pragma unroll
                    for (int i = 0; i < 8; i++) {
                        const uint32_t from = p.histogram_per_channel ? (8 * quad.lane + i) * COUNTS : 0;
                        const bool real = active && channel + i < p.channels;
                        const float z = (h[i] - p.neuron.threshold) / p.neuron.threshold;
                        count_in_block(counts, real ? from + bin_of(z) : NO_BIN);
                    }
                }
            }
        }
    }
}

template <class V, class Input, class P>
DEVICE void neurons_forward(const P& p) {
    if (!p.histogram) return all_steps<V, Input, false>(p, Quad(p.places), nullptr);
    DYNAMIC_SHARED(uint32_t, counts);
    const uint32_t histograms = p.histogram_per_channel ? 32 : 1;
    for (uint32_t h = 0; h < histograms; h++) clear_counts(counts + h * COUNTS);
    __syncthreads();
    all_steps<V, Input, true>(p, p.histogram_per_channel ? Quad(p.places, 1) : Quad(p.places), counts);
    __syncthreads();
    const uint32_t channel = p.histogram_per_channel ? 32 * blockIdx.y : 0;
    for (uint32_t h = 0; h < histograms && channel + h < p.channels; h++) {
        add_counts(counts + h * COUNTS, p.histogram + static_cast<size_t>(channel + h) * COUNTS);
    }
}

template <class V>
DEVICE void norm_lif_forward(const NormLif& p) {
    neurons_forward<V, OneCurrent<V>>(p);
}

template <class V>
DEVICE void sum_lif_forward(const SumLif& p) {
    neurons_forward<V, SumOfCurrents<V>>(p);
}

template <class V>
DEVICE void sum_currents(const SumCurrents& p) {
    const Quad quad(p.places);
    if (!quad.active) return;
    const SumOfCurrents<V> input(p, quad);
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        size_t at = word;
        for (uint32_t t = 0; t < p.steps; t++, at += words) {
            float x[8];
            input.read(input.fetch(t, word, at), t, at, true, x);
        }
    }
}

}  // namespace

KERNEL_EACH_VALUE(norm_lif_forward, NormLif, PLACE_THREADS, 2, norm_lif_forward)
KERNEL_EACH_VALUE(sum_lif_forward, SumLif, PLACE_THREADS, 2, sum_lif_forward)
KERNEL_EACH_VALUE(sum_currents, SumCurrents, PLACE_THREADS, 2, sum_currents)
