// Neurons of a layer whose currents are in memory: affine map (batch norm) and all T steps in one pass.
//
//   I = scale[c] current + shift[c]; then the neuron of neuron.cuh, its membrane in registers
//
// currents [T or 1][places][C] (1: the same current at every step) -> spikes, windows [T][places][C/32], and on request
// the membranes H [T][places][C] and the histogram. Threads as in places.cuh. For a histogram, a block counts in
// dynamic shared memory, [1 or 32][COUNTS] u32, and adds the result at its end; with one histogram per channel, the
// grid is (any number of blocks, C/32) and a block owns one word of channels. Memory traffic, per neuron-step: 2 bytes
// of current in, 2 bits out.
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

namespace {

template <class V, bool COUNTED>
DEVICE void all_steps(const NormLif& p, const Quad& quad, uint32_t* counts) {
    using Stored = typename V::Stored;
    // Steps whose currents are loaded together: no load can move ahead of the previous step's stores. Counting takes so
    // much longer than loading that one is enough.
    constexpr uint32_t AHEAD = COUNTED ? 1 : 8 / sizeof(Stored);
    const auto* currents = static_cast<const Stored*>(p.currents);
    auto* membranes = static_cast<Stored*>(p.membranes);
    const uint32_t channel = quad.channel();
    float scale[8] = {1, 1, 1, 1, 1, 1, 1, 1}, shift[8] = {}, left[8], right[8];
    if (quad.active && p.scale) {
        F32::load8(p.scale + channel, scale);
        F32::load8(p.shift + channel, shift);
    }
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
        float v[8] = {}, current[8] = {};
        for (uint32_t start = 0; start < p.places.steps; start += AHEAD) {
            typename V::Eight fetched[AHEAD] = {};
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++) {
                if (!active || start + j >= p.current_steps) break;
                fetched[j] = V::fetch8(currents + (at + j * words) * 32 + 8 * quad.lane);
            }
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++, at += words, h_out += 32 * words) {
                const uint32_t t = start + j;
                if (t >= p.places.steps) break;
                if (t < p.current_steps) V::unpack8(fetched[j], current);
                float h[8];
                uint32_t spikes = 0, inside_bits = 0;
#pragma unroll
                for (int i = 0; i < 8; i++) {
                    h[i] = charge(p.neuron, v[i], fmaf(scale[i], current[i], shift[i]));
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

template <class V>
DEVICE void norm_lif_forward(const NormLif& p) {
    if (!p.histogram) return all_steps<V, false>(p, Quad(p.places), nullptr);
    DYNAMIC_SHARED(uint32_t, counts);
    const uint32_t histograms = p.histogram_per_channel ? 32 : 1;
    for (uint32_t h = 0; h < histograms; h++) clear_counts(counts + h * COUNTS);
    __syncthreads();
    all_steps<V, true>(p, p.histogram_per_channel ? Quad(p.places, 1) : Quad(p.places), counts);
    __syncthreads();
    const uint32_t channel = p.histogram_per_channel ? 32 * blockIdx.y : 0;
    for (uint32_t h = 0; h < histograms && channel + h < p.channels; h++) {
        add_counts(counts + h * COUNTS, p.histogram + static_cast<size_t>(channel + h) * COUNTS);
    }
}

}  // namespace

KERNEL_EACH_VALUE(norm_lif_forward, NormLif, PLACE_THREADS, 2, norm_lif_forward)
