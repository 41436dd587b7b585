// Histograms of stored membranes, as histogram.cuh counts them: of a layer, or one a channel.
//
//   counts[bin of (H - threshold)/threshold] += 1
//
// membranes [T][places][C] -> histogram [1 or C][COUNTS] u64, added to. A thread takes eight channels of a place at a
// time; a block counts in dynamic shared memory, [1 or 32][COUNTS] u32, and adds that up at its end. The grid is (any
// number of blocks, 1, or where each channel has a histogram C/32: a block then owns one word of channels). Moves, per
// neuron-step: 2 bytes in.
//
// `find_non_finite`, one block, notes the first layer with potentials that are not finite. A warp takes every 16th
// layer of a table, a lane every 32nd of its histograms. Moves 8 bytes a histogram. It comes before `tune_bounds`,
// which clears the counts.
#include "histogram.cuh"
#include "places.cuh"
#include "reduce.cuh"
#include "value.cuh"

struct MembraneHistogram {
    const void* membranes;
    unsigned long long* histogram;
    Places places;
    uint32_t channels;  // without padding
    uint32_t per_channel;
    float threshold;
};
LAYOUT(MembraneHistogram, membranes, histogram, places, channels, per_channel, threshold)

struct CountedLayer {
    const unsigned long long* histogram;  // [count][COUNTS]
    uint32_t count, padding;
};
LAYOUT(CountedLayer, histogram, count, padding)

struct Fault {
    unsigned long long step;        // 0: none
    unsigned long long potentials;  // of the layer that are not finite
    uint32_t layer, padding;
};
LAYOUT(Fault, step, potentials, layer, padding)

struct FindNonFinite {
    const CountedLayer* layers;
    const unsigned long long* step;  // 1 …
    Fault* fault;                    // the first one stays
    uint32_t layer_count, padding;
};
LAYOUT(FindNonFinite, layers, step, fault, layer_count, padding)

template <class V>
DEVICE void membrane_histogram(const MembraneHistogram& p) {
    const auto* membranes = static_cast<const typename V::Stored*>(p.membranes);
    DYNAMIC_SHARED(uint32_t, counts);
    const uint32_t histograms = p.per_channel ? 32 : 1;
    for (uint32_t h = 0; h < histograms; h++) clear_counts(counts + h * COUNTS);
    __syncthreads();
    const uint32_t words = p.places.words, across = p.per_channel ? 1 : words, lane = threadIdx.x % 4;
    const uint32_t quads = p.places.steps * p.places.places * across;
    // The whole warp walks together: count_in_block needs it.
    for (uint32_t first = blockIdx.x * QUADS; first < quads; first += gridDim.x * QUADS) {
        const uint32_t quad = first + threadIdx.x / 4, word = p.per_channel ? blockIdx.y : quad % across;
        const bool active = quad < quads;
        float h[8] = {};
        if (active) V::load8(membranes + (static_cast<size_t>(quad / across) * words + word) * 32 + 8 * lane, h);
#pragma unroll
        for (uint32_t i = 0; i < 8; i++) {
            const uint32_t in_word = 8 * lane + i, from = p.per_channel ? in_word * COUNTS : 0;
            const bool real = active && 32 * word + in_word < p.channels;
            count_in_block(counts, real ? from + bin_of((h[i] - p.threshold) / p.threshold) : NO_BIN);
        }
    }
    __syncthreads();
    const uint32_t channel = 32 * blockIdx.y;
    for (uint32_t h = 0; h < histograms && channel + h < p.channels; h++) {
        add_counts(counts + h * COUNTS, p.histogram + static_cast<size_t>(channel + h) * COUNTS);
    }
}

KERNEL_EACH_VALUE(membrane_histogram, MembraneHistogram, PLACE_THREADS, 2, membrane_histogram)

constexpr uint32_t FIND_THREADS = 512, FIND_WARPS = FIND_THREADS / 32;

// One block.
KERNEL(find_non_finite, FindNonFinite, FIND_THREADS, 1) {
    SHARED(uint32_t, layers, FIND_WARPS);
    SHARED(unsigned long long, potentials, FIND_WARPS);
    if (p.fault->step) return;
    unsigned long long found = 0;
    uint32_t layer = threadIdx.x / 32;
    for (; layer < p.layer_count; layer += FIND_WARPS) {
        const CountedLayer counted = p.layers[layer];
        found = 0;
        for (uint32_t i = LANE; i < counted.count; i += 32) {
            found += counted.histogram[static_cast<size_t>(i) * COUNTS + BINS + 2];
        }
        found = warp_sum(found);
        if (found) break;
    }
    if (LANE == 0) layers[threadIdx.x / 32] = layer, potentials[threadIdx.x / 32] = found;
    __syncthreads();
    if (threadIdx.x > 0) return;
    uint32_t first = 0;
    for (uint32_t warp = 1; warp < FIND_WARPS; warp++) {
        if (layers[warp] < layers[first]) first = warp;
    }
    if (layers[first] < p.layer_count) *p.fault = {*p.step, potentials[first], layers[first], 0};
}
