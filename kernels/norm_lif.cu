// Neurons of a layer whose currents are in memory: affine map (batch norm) and all T steps in one pass.
//
//   I = scale[c] current + shift[c]; then the neuron of neuron.cuh, its membrane in registers
//
// currents [T or 1][places][C] (1: the same current at every step) -> spikes, windows [T][places][C/32], and where
// asked for the membranes H [T][places][C] and the histogram. Threads as in places.cuh. Moves, per neuron-step: 2
// bytes of current in, 2 bits out.
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
LAYOUT(NormLif, currents, scale, shift, windows, spikes, inside, membranes, histogram, places, channels, current_steps,
       windows_per_channel, histogram_per_channel, neuron, padding)

template <class V>
DEVICE void norm_lif_forward(const NormLif& p) {
    using Stored = typename V::Stored;
    const auto* currents = static_cast<const Stored*>(p.currents);
    auto* membranes = static_cast<Stored*>(p.membranes);
    SHARED(uint32_t, counts, COUNTS);
    const bool counts_layer = p.histogram && !p.histogram_per_channel;
    if (counts_layer) {
        clear_counts(counts);
        __syncthreads();
    }
    const Quad quad(p.places);
    const uint32_t channel = quad.channel();
    float scale[8], shift[8];
    Window window[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const bool map = quad.active && p.scale;
        scale[i] = map ? p.scale[channel + i] : 1.0f;
        shift[i] = map ? p.shift[channel + i] : 0.0f;
        window[i] = p.windows[quad.active && p.windows_per_channel ? channel + i : 0];
    }
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    // All quads of a warp walk together: word_of_quad needs them.
    const uint32_t rounds = (p.places.places + quad.stride - 1) / quad.stride;
    for (uint32_t round = 0; round < rounds; round++) {
        const uint32_t place = quad.first + round * quad.stride;
        const bool active = quad.active && place < p.places.places;
        const size_t word = active ? static_cast<size_t>(place) * p.places.words + quad.word : 0;
        float v[8] = {}, current[8] = {};
        for (uint32_t t = 0; t < p.places.steps; t++) {
            if (active && t < p.current_steps) V::load8(currents + (t * words + word) * 32 + 8 * quad.lane, current);
            float h[8];
            uint32_t spikes = 0, inside_bits = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) {
                h[i] = charge(p.neuron, v[i], fmaf(scale[i], current[i], shift[i]));
                const bool spike = h[i] >= p.neuron.threshold;
                spikes |= static_cast<uint32_t>(spike) << i;
                inside_bits |= static_cast<uint32_t>(inside(window[i], h[i] - p.neuron.threshold)) << i;
                v[i] = reset(p.neuron, p.neuron.hard, h[i], spike);
            }
            spikes = word_of_quad(spikes, quad.lane);
            inside_bits = word_of_quad(inside_bits, quad.lane);
            if (active && quad.lane == 0) {
                p.spikes[t * words + word] = spikes;
                if (p.inside) p.inside[t * words + word] = inside_bits;
            }
            if (active && membranes) V::store8(membranes + (t * words + word) * 32 + 8 * quad.lane, h);
            if (p.histogram) {
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    const bool real = active && channel + i < p.channels;
                    const uint32_t bin = real ? bin_of((h[i] - p.neuron.threshold) / p.neuron.threshold) : NO_BIN;
                    if (counts_layer) {
                        count_in_block(counts, bin);
                    } else if (real) {
                        atomicAdd(&p.histogram[(channel + i) * COUNTS + bin], 1ull);
                    }
                }
            }
        }
    }
    if (counts_layer) {
        __syncthreads();
        add_counts(counts, p.histogram);
    }
}

KERNEL_EACH_VALUE(norm_lif_forward, NormLif, PLACE_THREADS, 2, norm_lif_forward)
