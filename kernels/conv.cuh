// The time-unrolled tensor-core convolution shared by conv_current, conv_lif_forward and conv_input_grad.
//
// Positions. A block owns a tile of output positions (images x rows x columns) and 64 output channels. A warp owns PG
// groups of 16 positions at TC steps, PG TC = 4 m-tiles of mma.m16n8k16, and all 64 channels, eight n-tiles. M-tile
// (pg, t) holds the positions of group pg at step t, so a weight fragment is fetched once for all of them, and each
// thread ends up with all TC steps of its neurons.
//
// Reduction. One step of the main loop is one tap of one slab (32 input channels, one word of spikes). Weights come
// packed (pack_weight.cu), 4 KB per step, through a ring of three stages filled by cp.async two steps ahead. The source
// patch of a slab (the tile with its halo) is staged once for all its taps.
//
// Shared memory: [3][256] uint4 of weights, then the ring of patches.
//   spikes  [position][TC] words: the TC steps of a position are one access of up to 16 bytes. The four lanes of a
//           quad read the same address; the eight quads of a warp read neighbouring positions, whose words lie next
//           to each other: no bank conflict except where a row of the tile ends.
//   dense   [TC][position][4 units of 8 channels, 16 bytes]: unit u of position i lies at u ^ (i/2 & 3), so the eight
//           rows of an ldmatrix (neighbouring positions, 64 bytes apart) touch all 32 banks once.
// Weights are read lane by lane, 16 bytes per lane: no conflict.
#pragma once
#include "device.cuh"

struct ConvShape {
    uint32_t images, steps;
    uint32_t source_h, source_w, source_words;  // words: 32 channels each
    uint32_t rows, columns;                     // positions per image
    int32_t origin_h, origin_w;                 // source pixel of position 0 at tap 0
    uint32_t stride_h, stride_w;                // source pixels between positions
    uint32_t taps_h, taps_w;
    uint32_t out_h, out_w, out_words;
    uint32_t first_h, first_w, step_h, step_w;  // output pixel of a position: first + step * position
};

// A block's positions: `images` x `h` x `w`. `paired`: rows i and i+8 of an m-tile are vertical neighbours, and lanes l
// and l^4 hold horizontal ones, as a 2x2 pool needs; `h` and `w` are then even.
struct Tile {
    uint32_t images, h, w, paired;
    uint32_t patch_h, patch_w;    // (h-1) stride_h + taps_h, …
    uint32_t across_h, across_w;  // tiles per image
};

constexpr uint32_t STAGES = 3, STEP_UNITS = 256;  // units of 16 bytes
constexpr uint32_t CONV_THREADS = 256, TILE_CHANNELS = 64;

// The origin of a tile.
struct TileOrigin {
    uint32_t image, row, column;
    DEVICE TileOrigin(const Tile& tile, uint32_t index) {
        column = index % tile.across_w * tile.w;
        row = index / tile.across_w % tile.across_h * tile.h;
        image = index / tile.across_w / tile.across_h * tile.images;
    }
};

// One of a block's positions.
struct Position {
    uint32_t patch;  // its first tap in the patch
    uint32_t image, row, column;
    bool valid;
};

DEVICE Position position_of(const ConvShape& c, const Tile& tile, uint32_t group, uint32_t row_of_tile) {
    uint32_t x, y, rest;
    if (tile.paired) {
        const uint32_t pair = group * 8 + row_of_tile % 8;
        x = pair % tile.w;
        rest = pair / tile.w;
        y = rest % (tile.h / 2) * 2 + row_of_tile / 8;
        rest /= tile.h / 2;
    } else {
        const uint32_t m = group * 16 + row_of_tile;
        x = m % tile.w;
        rest = m / tile.w;
        y = rest % tile.h;
        rest /= tile.h;
    }
    const TileOrigin origin(tile, blockIdx.x);
    Position at;
    at.image = origin.image + rest;
    at.row = origin.row + y;
    at.column = origin.column + x;
    at.valid = rest < tile.images && at.image < c.images && at.row < c.rows && at.column < c.columns;
    at.patch = at.valid ? (rest * tile.patch_h + y * c.stride_h) * tile.patch_w + x * c.stride_w : 0;
    return at;
}

// The output pixel of a position, as an index over images and pixels.
DEVICE uint32_t place_of(const ConvShape& c, const Position& at) {
    const uint32_t y = c.first_h + at.row * c.step_h, x = c.first_w + at.column * c.step_w;
    return (at.image * c.out_h + y) * c.out_w + x;
}

// The source pixel of a patch position, as an index over images and pixels, or invalid if outside.
struct SourcePixel {
    size_t index;
    bool valid;
    DEVICE SourcePixel(const ConvShape& c, const Tile& tile, const TileOrigin& origin, uint32_t patch) {
        const uint32_t x = patch % tile.patch_w, rest = patch / tile.patch_w;
        const uint32_t y = rest % tile.patch_h, image = origin.image + rest / tile.patch_h;
        const int32_t row = static_cast<int32_t>(origin.row * c.stride_h + y) + c.origin_h;
        const int32_t column = static_cast<int32_t>(origin.column * c.stride_w + x) + c.origin_w;
        valid =
            image < c.images && static_cast<uint32_t>(row) < c.source_h && static_cast<uint32_t>(column) < c.source_w;
        index = valid ? (static_cast<size_t>(image) * c.source_h + row) * c.source_w + column : 0;
    }
};

// Where a lane's positions begin in the patch: those of its own two rows, and that of the row whose address it passes
// to ldmatrix.
template <int PG>
struct Rows {
    uint32_t own[PG][2], given[PG];
};

// Reads bit-packed spikes. Lane q of a quad takes bit 4q + 2ks + half of a word as the low and bit 16 + that as the
// high element of a register; pack_weight orders the weights the same way. One integer operation per register in bf16,
// two in f16.
struct SpikeSource {
    template <int TC>
    static DEVICE uint32_t slot_units(uint32_t patch) {
        return (patch * TC + 3) / 4;
    }

    template <int TC>
    static DEVICE void load_patch(const ConvShape& c, const Tile& tile, const void* source, uint32_t slab, uint32_t t0,
                                  uint4* slot) {
        const auto* words = static_cast<const uint32_t*>(source);
        auto* to = reinterpret_cast<uint32_t*>(slot);
        const TileOrigin origin(tile, blockIdx.x);
        const size_t step = static_cast<size_t>(c.images) * c.source_h * c.source_w * c.source_words;
        for (uint32_t i = threadIdx.x; i < tile.images * tile.patch_h * tile.patch_w; i += blockDim.x) {
            const SourcePixel pixel(c, tile, origin, i);
            const uint32_t* from = words + t0 * step + pixel.index * c.source_words + slab;
#pragma unroll
            for (int t = 0; t < TC; t++) {
                const bool valid = pixel.valid && t0 + t < c.steps;
                cp_async<4>(to + i * TC + t, valid ? from + t * step : words, valid);
            }
        }
    }

    // The words of a warp's positions at one tap, for both halves of the slab.
    template <class V, int PG, int TC>
    struct Tap {
        uint32_t words[PG * TC][2];

        DEVICE Tap(const uint4* slot, const Rows<PG>& rows, uint32_t tap, uint32_t) {
            const auto* from = reinterpret_cast<const uint32_t*>(slot);
#pragma unroll
            for (int pg = 0; pg < PG; pg++) {
#pragma unroll
                for (int row = 0; row < 2; row++) {
                    uint32_t at[TC];
                    load(from + (rows.own[pg][row] + tap) * TC, at);
#pragma unroll
                    for (int t = 0; t < TC; t++) words[pg * TC + t][row] = V::align_spikes(at[t], LANE & 3);
                }
            }
        }

        static DEVICE void load(const uint32_t* from, uint32_t (&to)[TC]) {
            if constexpr (TC == 1) {
                to[0] = *from;
            } else if constexpr (TC == 2) {
                const uint2 two = *reinterpret_cast<const uint2*>(from);
                to[0] = two.x, to[1] = two.y;
            } else {
#pragma unroll
                for (int t = 0; t < TC; t += 4) {
                    const uint4 four = *reinterpret_cast<const uint4*>(from + t);
                    to[t] = four.x, to[t + 1] = four.y, to[t + 2] = four.z, to[t + 3] = four.w;
                }
            }
        }

        DEVICE void fragment(int m, int ks, uint32_t (&a)[4]) const {
#pragma unroll
            for (int half = 0; half < 2; half++) {
#pragma unroll
                for (int row = 0; row < 2; row++) a[half * 2 + row] = V::spikes(words[m][row], ks * 2 + half);
            }
        }
    };
};

// Reads 16-bit values, 32 channels per slab.
struct DenseSource {
    template <int TC>
    static DEVICE uint32_t slot_units(uint32_t patch) {
        return patch * TC * 4;
    }

    template <int TC>
    static DEVICE void load_patch(const ConvShape& c, const Tile& tile, const void* source, uint32_t slab, uint32_t t0,
                                  uint4* slot) {
        const auto* units = static_cast<const uint4*>(source);
        const TileOrigin origin(tile, blockIdx.x);
        const uint32_t patch = tile.images * tile.patch_h * tile.patch_w;
        const size_t step = static_cast<size_t>(c.images) * c.source_h * c.source_w * c.source_words * 4;
        for (uint32_t i = threadIdx.x; i < patch * 4; i += blockDim.x) {
            const uint32_t position = i / 4, unit = i % 4;
            const SourcePixel pixel(c, tile, origin, position);
            const uint4* from = units + t0 * step + (pixel.index * c.source_words + slab) * 4 + unit;
#pragma unroll
            for (int t = 0; t < TC; t++) {
                const bool valid = pixel.valid && t0 + t < c.steps;
                cp_async<16>(slot + t * patch * 4 + unit_of(position, unit), valid ? from + t * step : units, valid);
            }
        }
    }

    static DEVICE uint32_t unit_of(uint32_t position, uint32_t unit) {
        return position * 4 + (unit ^ (position >> 1 & 3));
    }

    template <class V, int PG, int TC>
    struct Tap {
        const uint4* slot;
        uint32_t patch, positions[PG];

        DEVICE Tap(const uint4* slot, const Rows<PG>& rows, uint32_t tap, uint32_t patch) : slot(slot), patch(patch) {
#pragma unroll
            for (int pg = 0; pg < PG; pg++) positions[pg] = rows.given[pg] + tap;
        }

        DEVICE void fragment(int m, int ks, uint32_t (&a)[4]) const {
            const uint32_t position = positions[m / TC];
            ldmatrix(a, slot + (m % TC) * patch * 4 + unit_of(position, ks * 2 + LANE / 16));
        }
    };
};

// A warp's m-tiles and n-tiles, its words of channels, and its simultaneous steps given PG groups of positions.
constexpr int M_TILES = 4, N_TILES = 8, WORDS = TILE_CHANNELS / 32;
template <int PG>
constexpr int STEPS = M_TILES / PG;

// The first of a warp's groups of positions.
template <int PG>
DEVICE uint32_t first_group() {
    return threadIdx.x / 32 * PG;
}

// Element i of m-tile pg STEPS + t and n-tile j: position row LANE/4 + 8(i/2), channel 8j + 2(LANE%4) + i%2.
using Sums = float[M_TILES][N_TILES][4];

template <class V, class Source, int PG>
DEVICE void convolve(const ConvShape& c, const Tile& tile, const void* source, const uint4* weights, uint32_t t0,
                     Sums& acc) {
    constexpr int TC = STEPS<PG>;
    DYNAMIC_SHARED(uint4, memory);
    const uint32_t patch = tile.images * tile.patch_h * tile.patch_w;
    const uint32_t slot_units = Source::template slot_units<TC>(patch);
    const uint32_t taps = c.taps_h * c.taps_w, total = taps * c.source_words;
    // Patches are requested two steps ahead: with one tap per slab, three are in flight.
    const uint32_t slots = taps > 1 ? 2 : 3;
    uint4* const patches = memory + STAGES * STEP_UNITS;

    Rows<PG> rows;
#pragma unroll
    for (int pg = 0; pg < PG; pg++) {
        rows.own[pg][0] = position_of(c, tile, first_group<PG>() + pg, LANE / 4).patch;
        rows.own[pg][1] = position_of(c, tile, first_group<PG>() + pg, LANE / 4 + 8).patch;
        rows.given[pg] = position_of(c, tile, first_group<PG>() + pg, LANE % 16).patch;
    }
#pragma unroll
    for (int m = 0; m < M_TILES; m++) {
#pragma unroll
        for (int j = 0; j < N_TILES; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) acc[m][j][i] = 0.0f;
        }
    }

    const uint4* next = weights + static_cast<size_t>(blockIdx.y) * total * STEP_UNITS;
    uint32_t asked = 0, asked_tap = 0, asked_slab = 0, asked_stage = 0, asked_slot = 0;
    // Requests the next step's operands.
    auto ask = [&] {
        if (asked < total) {
            if (asked_tap == 0) {
                Source::template load_patch<TC>(c, tile, source, asked_slab, t0, patches + asked_slot * slot_units);
                asked_slot = asked_slot + 1 == slots ? 0 : asked_slot + 1;
            }
            for (uint32_t i = threadIdx.x; i < STEP_UNITS; i += blockDim.x) {
                cp_async<16>(memory + asked_stage * STEP_UNITS + i, next + i, true);
            }
            next += STEP_UNITS;
            asked++;
            asked_stage = asked_stage + 1 == STAGES ? 0 : asked_stage + 1;
            if (++asked_tap == taps) {
                asked_tap = 0;
                asked_slab++;
            }
        }
        cp_async_commit();
    };

    __syncthreads();  // the block's previous work may still be using the memory
    ask();
    ask();
    uint32_t stage = 0, slot = 0;
    for (uint32_t slab = 0; slab < c.source_words; slab++) {
        uint32_t row = 0;
        for (uint32_t r = 0; r < c.taps_h; r++, row += tile.patch_w) {
            for (uint32_t s = 0; s < c.taps_w; s++) {
                cp_async_wait<1>();
                __syncthreads();
                ask();
                const typename Source::template Tap<V, PG, TC> tap(patches + slot * slot_units, rows, row + s, patch);
                const uint4* fragments = memory + stage * STEP_UNITS + LANE;
#pragma unroll
                for (int ks = 0; ks < 2; ks++) {
                    uint32_t a[M_TILES][4];
#pragma unroll
                    for (int m = 0; m < M_TILES; m++) tap.fragment(m, ks, a[m]);
#pragma unroll
                    for (int pair = 0; pair < N_TILES / 2; pair++) {
                        const uint4 b = fragments[(ks * 4 + pair) * 32];
#pragma unroll
                        for (int m = 0; m < M_TILES; m++) {
                            V::mma(acc[m][2 * pair], a[m], b.x, b.y);
                            V::mma(acc[m][2 * pair + 1], a[m], b.z, b.w);
                        }
                    }
                }
                stage = stage + 1 == STAGES ? 0 : stage + 1;
            }
        }
        slot = slot + 1 == slots ? 0 : slot + 1;
    }
}

// OR over the four lanes of a quad.
DEVICE uint32_t or_of_quad(uint32_t bits) {
    bits |= __shfl_xor_sync(~0u, bits, 1);
    return bits | __shfl_xor_sync(~0u, bits, 2);
}

// Lane q of a quad holds word q of four rows; afterwards it holds all four words of row q.
DEVICE uint4 transpose_quad(uint32_t (&r)[4]) {
    const bool odd = LANE & 1, upper = LANE & 2;
#pragma unroll
    for (int i = 0; i < 4; i += 2) {
        const uint32_t got = __shfl_xor_sync(~0u, odd ? r[i] : r[i + 1], 1);
        (odd ? r[i] : r[i + 1]) = got;
    }
#pragma unroll
    for (int i = 0; i < 2; i++) {
        const uint32_t got = __shfl_xor_sync(~0u, upper ? r[i] : r[i + 2], 2);
        (upper ? r[i] : r[i + 2]) = got;
    }
    return uint4{r[0], r[1], r[2], r[3]};
}
