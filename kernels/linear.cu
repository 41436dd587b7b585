// Spike counts for the last, linear layer: what it gives is linear in its input, so its mean over T steps is one
// product with the counts instead of T products.
//
//   counts[place][c] = sum over t of S[t][place][c]
//
// spikes [T][places][C/32] -> counts [places][C], exact in bf16 while T <= 256, in f16 while T <= 2048; that is the
// caller's to check. Threads as in places.cuh. Moves, per neuron: T bits in, 2 bytes out.
#include "places.cuh"
#include "value.cuh"

struct SpikeCount {
    const uint32_t* spikes;
    void* counts;
    Places places;
    uint32_t padding;
};

template <class V>
DEVICE void spike_count(const SpikeCount& p) {
    const Quad quad(p.places);
    if (!quad.active) return;
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        uint32_t count[8] = {};
#pragma unroll 4
        for (uint32_t t = 0; t < p.places.steps; t++) {
            const uint32_t spikes = p.spikes[t * words + word] >> 8 * quad.lane;
#pragma unroll
            for (int i = 0; i < 8; i++) count[i] += spikes >> i & 1;
        }
        float values[8];
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = static_cast<float>(count[i]);
        V::store8(static_cast<typename V::Stored*>(p.counts) + word * 32 + 8 * quad.lane, values);
    }
}

KERNEL_EACH_VALUE(spike_count, SpikeCount, PLACE_THREADS, 4, spike_count)
