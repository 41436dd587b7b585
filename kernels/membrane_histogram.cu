// Histograms of stored membranes, counted as in histogram.cuh: one per layer or one per channel.
//
//   counts[bin of (H - threshold)/threshold] += 1
//
// membranes [T][places][C] -> histogram [1 or C][COUNTS] u64, added to. A thread takes eight channels of a place at a
// time; a block counts in dynamic shared memory, [1 or 32][COUNTS] u32, and adds the result at its end. The grid is
// (any number of blocks, 1), or with a histogram per channel (any number of blocks, C/32): a block then owns one word
// of channels. Memory traffic, per neuron-step: 2 bytes in.
//
// `collect_counts` adds a layer's fresh counts (of all steps since it last ran) to the recent ones, which move the
// bounds, and to the epoch's, then clears them; one block per histogram. The first layer with potentials that are not
// finite is noted; layers are collected in order, launch by launch. Memory traffic: 40 bytes per counter.
//
// `merge_counts` replaces one layer's recent counts by those of another, or adds them: first all layers' into the
// first's, then the first's to every other's. Memory traffic: 24 bytes per counter.
#include "histogram.cuh"
#include "places.cuh"
#include "value.cuh"

struct MembraneHistogram {
    const void* membranes;
    unsigned long long* histogram;
    Places places;
    uint32_t channels;  // without padding
    uint32_t per_channel;
    float threshold;
};

struct Fault {
    unsigned long long place;       // step << 16 | layer + 1; 0: none
    unsigned long long potentials;  // number of that layer's potentials that are not finite
};

struct CollectCounts {
    unsigned long long *fresh, *recent, *epoch;  // [count][COUNTS]
    const unsigned long long* step;              // 1 …
    Fault* fault;                                // keeps the first one
    uint32_t layer, padding;
};

struct MergeCounts {
    const unsigned long long* source;  // [COUNTS], like the target
    unsigned long long* target;
    uint32_t add, padding;  // add 1: keep the target's own counts
};

template <class V>
DEVICE void membrane_histogram(const MembraneHistogram& p) {
    const auto* membranes = static_cast<const typename V::Stored*>(p.membranes);
    DYNAMIC_SHARED(uint32_t, counts);
    const uint32_t histograms = p.per_channel ? 32 : 1;
    for (uint32_t h = 0; h < histograms; h++) clear_counts(counts + h * COUNTS);
    __syncthreads();
    const uint32_t words = p.places.words, across = p.per_channel ? 1 : words, lane = threadIdx.x % 4;
    const uint32_t quads = p.places.steps * p.places.places * across;
    // The whole warp stays together: count_in_block needs it.
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

constexpr uint32_t COLLECT_THREADS = 256;

KERNEL(collect_counts, CollectCounts, COLLECT_THREADS, 1) {
    const size_t first = static_cast<size_t>(blockIdx.x) * COUNTS;
    for (uint32_t bin = threadIdx.x; bin < COUNTS; bin += COLLECT_THREADS) {
        const unsigned long long count = p.fresh[first + bin];
        p.recent[first + bin] += count;
        p.epoch[first + bin] += count;
        p.fresh[first + bin] = 0;
        if (bin < BINS + 2 || !count) continue;
        const unsigned long long here = *p.step << 16 | (p.layer + 1);
        const unsigned long long found = atomicCAS(&p.fault->place, 0ull, here);
        if (!found || found == here) atomicAdd(&p.fault->potentials, count);
    }
}

KERNEL(merge_counts, MergeCounts, COLLECT_THREADS, 1) {
    for (uint32_t bin = threadIdx.x; bin < COUNTS; bin += COLLECT_THREADS) {
        p.target[bin] = p.source[bin] + (p.add ? p.target[bin] : 0);
    }
}
