// How kernels that work neuron by neuron distribute a layer over threads.
//
// Values are [T][places][C] with C padded to 32 and places = N H W; spikes are [T][places][C/32] words. Four lanes (a
// quad) own one word: lane q its channels 8q … 8q+7, 16 bytes of a 16-bit type. A block owns up to 64 words of channels
// and walks over places, so a thread's channels never change: per-channel constants are loaded once, per-channel sums
// stay in registers.
#pragma once
#include "device.cuh"

// Channels with padding.
DEVICE uint32_t padded(uint32_t channels) { return (channels + 31) / 32 * 32; }

struct Places {
    uint32_t places, words, steps;
};

constexpr uint32_t PLACE_THREADS = 256, QUADS = PLACE_THREADS / 4;

// The grid is (any number of blocks, words / 64 rounded up), or, for blocks that own fewer words, words / `across`
// rounded up.
struct Quad {
    uint32_t lane, word, first, stride;
    bool active;

    explicit DEVICE Quad(const Places& p) : Quad(p, min(p.words, QUADS)) {}
    DEVICE Quad(const Places& p, uint32_t across) {
        const uint32_t down = QUADS / across, quad = threadIdx.x / 4;
        lane = threadIdx.x % 4;
        word = blockIdx.y * across + quad % across;
        active = quad / across < down && word < p.words;
        first = blockIdx.x * down + quad / across;
        stride = gridDim.x * down;
    }
    // The first of the thread's eight channels.
    DEVICE uint32_t channel() const { return 32 * word + 8 * lane; }
};

// Assembles a word from eight bits of each lane of a quad.
DEVICE uint32_t word_of_quad(uint32_t bits, uint32_t lane) {
    bits <<= 8 * lane;
    bits |= __shfl_xor_sync(~0u, bits, 1);
    return bits | __shfl_xor_sync(~0u, bits, 2);
}
