// Convolution to currents in memory, with the moments of each channel for a batch norm.
//
//   y = dropout sum W x + bias
//
// spikes [T][N][H][W][C/32] or 16-bit values [T][N][H][W][C] -> currents [T][N][P][Q][K], 16-bit, or f32 if `wide`
// (logits). Moments are of the stored values, one piece per block: [pieces][2][K], the mean and the sum of squared
// distances from it, and each piece's count per channel. Threads as in conv.cuh; chunks of TC steps are blocks in z.
// Four lanes transpose their 4-byte pairs into 16-byte stores. Memory traffic, per current: the patch in, 2 bytes out.
#include "conv.cuh"
#include "value.cuh"

struct ConvCurrent {
    const void* source;
    const uint4* weights;
    const float* bias;  // [K to 32]
    void* currents;
    float* moments;    // null: not wanted
    uint32_t* counts;  // [pieces]
    ConvShape shape;
    Tile tile;
    float dropout;  // factor by which dropout scales kept spikes
    uint32_t wide;
};

// Number of values per channel in the block's tile and chunk of steps.
template <int TC>
DEVICE uint32_t values_of_block(const ConvShape& c, const Tile& tile) {
    const TileOrigin origin(tile, blockIdx.x);
    return min(tile.images, c.images - origin.image) * min(tile.h, c.rows - origin.row) *
           min(tile.w, c.columns - origin.column) * min(static_cast<uint32_t>(TC), c.steps - blockIdx.z * TC);
}

// Sums of the block's 64 channels over its positions, from each thread's partial sums, in a fixed order.
DEVICE void sum_channels(const float (&sums)[N_TILES][2], float* partial, float* total) {
#pragma unroll
    for (int j = 0; j < N_TILES; j++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            float sum = sums[j][e];
            sum += __shfl_xor_sync(~0u, sum, 4);
            sum += __shfl_xor_sync(~0u, sum, 8);
            sum += __shfl_xor_sync(~0u, sum, 16);
            if (LANE < 4) partial[threadIdx.x / 32 * TILE_CHANNELS + j * 8 + LANE * 2 + e] = sum;
        }
    }
    __syncthreads();
    for (uint32_t c = threadIdx.x; c < TILE_CHANNELS; c += blockDim.x) {
        float sum = 0.0f;
        for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) sum += partial[warp * TILE_CHANNELS + c];
        total[c] = sum;
    }
    __syncthreads();
}

template <int PG>
DEVICE void store_moments(const ConvCurrent& p, const bool (&valid)[PG][2], const Sums& acc) {
    constexpr int TC = STEPS<PG>;
    SHARED(float, partial, 8 * TILE_CHANNELS);
    SHARED(float, total, TILE_CHANNELS);
    const uint32_t count = values_of_block<TC>(p.shape, p.tile);
    const float share = 1.0f / static_cast<float>(count);
    const uint32_t channels = p.shape.out_words * 32, piece = blockIdx.z * gridDim.x + blockIdx.x;
    float mean[N_TILES][2] = {};
    // The first round sums the values, the second their squared distances from the mean.
#pragma unroll
    for (int round = 0; round < 2; round++) {
        float sums[N_TILES][2] = {};
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
            const bool now = blockIdx.z * TC + m % TC < p.shape.steps;
#pragma unroll
            for (int j = 0; j < N_TILES; j++) {
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const float d = valid[m / TC][i / 2] && now ? acc[m][j][i] - mean[j][i % 2] : 0.0f;
                    sums[j][i % 2] = round == 0 ? sums[j][i % 2] + d : fmaf(d, d, sums[j][i % 2]);
                }
            }
        }
        sum_channels(sums, partial, total);
        for (uint32_t c = threadIdx.x; c < TILE_CHANNELS; c += blockDim.x) {
            const uint32_t k = blockIdx.y * TILE_CHANNELS + c;
            const float value = round == 0 ? total[c] * share : total[c];
            if (k < channels) p.moments[(static_cast<size_t>(piece) * 2 + round) * channels + k] = value;
        }
        if (round == 0) {
#pragma unroll
            for (int j = 0; j < N_TILES; j++) {
#pragma unroll
                for (int e = 0; e < 2; e++) mean[j][e] = total[j * 8 + LANE % 4 * 2 + e] * share;
            }
        }
    }
    if (threadIdx.x == 0 && blockIdx.y == 0) p.counts[piece] = count;
}

template <class V, class Source, int PG>
DEVICE void conv_current(const ConvCurrent& p) {
    constexpr int TC = STEPS<PG>;
    const uint32_t q = LANE % 4, t0 = blockIdx.z * TC;
    const size_t places = static_cast<size_t>(p.shape.images) * p.shape.out_h * p.shape.out_w;
    Sums acc;
    convolve<V, Source, PG>(p.shape, p.tile, p.source, p.weights, t0, acc);
    bool valid[PG][2];
#pragma unroll
    for (int pg = 0; pg < PG; pg++) {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const Position at = position_of(p.shape, p.tile, first_group<PG>() + pg, LANE / 4 + 8 * row);
            valid[pg][row] = at.valid;
            const size_t place = place_of(p.shape, at);
#pragma unroll
            for (int w = 0; w < WORDS; w++) {
                const uint32_t word = blockIdx.y * WORDS + w;
                if (word >= p.shape.out_words) continue;
                float bias[4][2];
#pragma unroll
                for (int j = 0; j < 4; j++) {
#pragma unroll
                    for (int e = 0; e < 2; e++) bias[j][e] = p.bias[word * 32 + j * 8 + 2 * q + e];
                }
#pragma unroll
                for (int t = 0; t < TC; t++) {
                    const bool stored = at.valid && t0 + t < p.shape.steps;
                    const size_t first = ((t0 + t) * places + place) * p.shape.out_words * 32 + word * 32;
                    uint32_t pairs[4];
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        float* two = &acc[pg * TC + t][4 * w + j][2 * row];
#pragma unroll
                        for (int e = 0; e < 2; e++) two[e] = fmaf(p.dropout, two[e], bias[j][e]);
                        if (p.wide && stored) {
                            *reinterpret_cast<uint2*>(static_cast<float*>(p.currents) + first + j * 8 + 2 * q) =
                                uint2{__float_as_uint(two[0]), __float_as_uint(two[1])};
                        }
                        pairs[j] = V::pack(two[0], two[1]);
                        if (!p.wide) {
                            two[0] = V::low(pairs[j]);
                            two[1] = V::high(pairs[j]);
                        }
                    }
                    const uint4 eight = transpose_quad(pairs);
                    if (!p.wide && stored) {
                        *reinterpret_cast<uint4*>(static_cast<uint16_t*>(p.currents) + first + 8 * q) = eight;
                    }
                }
            }
        }
    }
    if (p.moments) store_moments<PG>(p, valid, acc);
}

#define CONV_CURRENT(V, suffix)                                                                                   \
    KERNEL(conv_current_spikes_t1_##suffix, ConvCurrent, CONV_THREADS, 1) { conv_current<V, SpikeSource, 4>(p); } \
    KERNEL(conv_current_spikes_t4_##suffix, ConvCurrent, CONV_THREADS, 1) { conv_current<V, SpikeSource, 1>(p); } \
    KERNEL(conv_current_dense_t1_##suffix, ConvCurrent, CONV_THREADS, 1) { conv_current<V, DenseSource, 4>(p); }  \
    KERNEL(conv_current_dense_t4_##suffix, ConvCurrent, CONV_THREADS, 1) { conv_current<V, DenseSource, 1>(p); }
CONV_CURRENT(Bf16, bf16)
CONV_CURRENT(F16, f16)
