// Sums of each channel over places and steps: bias gradients that no other kernel computes.
//
//   sums[block][c] = sum of values[t][place][c] over the block's places and all steps
//
// values [T][places][C] -> partial sums [grid.x][C to 32] f32 in a fixed order; reduce_sums adds them. Threads as in
// places.cuh. Reads each value once.
#include "places.cuh"
#include "value.cuh"

struct ChannelSums {
    const void* values;
    float* sums;
    Places places;
    uint32_t padding;
};

template <class V>
DEVICE void channel_sums(const ChannelSums& p) {
    SHARED(float, partial, 8 * PLACE_THREADS);
    const Quad quad(p.places);
    const auto* values = static_cast<const typename V::Stored*>(p.values);
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    float sums[8] = {};
    for (uint32_t place = quad.first; quad.active && place < p.places.places; place += quad.stride) {
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
#pragma unroll 4
        for (uint32_t t = 0; t < p.places.steps; t++) {
            float x[8];
            V::load8(values + (t * words + word) * 32 + 8 * quad.lane, x);
#pragma unroll
            for (int i = 0; i < 8; i++) sums[i] += x[i];
        }
    }
#pragma unroll
    for (int i = 0; i < 8; i++) partial[i * PLACE_THREADS + threadIdx.x] = sums[i];
    __syncthreads();
    const uint32_t across = min(p.places.words, QUADS), down = QUADS / across, channels = 32 * p.places.words;
    for (uint32_t c = threadIdx.x; c < 32 * across; c += PLACE_THREADS) {
        const uint32_t channel = blockIdx.y * across * 32 + c;
        if (channel >= channels) continue;
        const float* from = partial + c % 8 * PLACE_THREADS + c / 8;
        float sum = 0.0f;
        for (uint32_t row = 0; row < down; row++) sum += from[row * across * 4];
        p.sums[static_cast<size_t>(blockIdx.x) * channels + channel] = sum;
    }
}

KERNEL_EACH_VALUE(channel_sums, ChannelSums, PLACE_THREADS, 4, channel_sums)
