// Gradient of a convolution's weight, from the gradient of its currents and its input.
//
//   dL/dW[k][tap][c] = dropout sum over images, steps, positions of dL/dI[position][k] x[position at tap][c]
//
// dL/dI [images][P][Q][K] 16-bit and spikes [images][H][W][C/32] or 16-bit values [images][H][W][C] -> partial sums
// [splits][K taps C] f32, ordered as the f32 masters; reduce_sums adds them in a fixed order, so two runs agree bit by
// bit. Steps are simply more images here.
//
// A block owns 64 filters (four m-tiles of mma.m16n8k16) and two columns per warp, a column being 32 input channels at
// one tap; it walks over tiles of up to 128 positions, which are the reduction (a smaller tile is filled up to 128 with
// zeros). dL/dI of a tile is staged once for all columns, [position][8 units of 8 filters] with unit u at
// u ^ (position & 7), so that the rows of a transposed ldmatrix touch all banks once; the source patch as in conv.cuh,
// for all words of the block's columns. Spikes become the other operand in registers: byte j of two positions' words
// are placed side by side, then lane/4 selects the bit. That takes three integer operations per register, shared by the
// m-tiles, and the columns share the m-tiles.
#include "conv.cuh"
#include "value.cuh"

struct ConvWeightGrad {
    const void *gradient, *source;
    float* partial;
    ConvShape shape;             // of the forward convolution, steps 1
    Tile tile;                   // at most 128 positions
    uint32_t filters, channels;  // without padding
    uint32_t all_taps;           // of the weight: for a linear layer, the input's pixels
    uint32_t pixel_words;        // words per input pixel
    uint32_t words_staged;
    float dropout;
};

struct ReduceSums {
    const float* partial;  // [splits][count]
    float* sums;
    uint32_t count, splits;
};

constexpr uint32_t REDUCED = 128, ROW_UNITS = TILE_CHANNELS / 8, GRADIENT_UNITS = REDUCED * ROW_UNITS;
constexpr int COLUMNS = 2;  // per warp

// What is the same for every tile's positions.
struct Positions {
    uint32_t* patch;  // first tap in the patch
    uint32_t* local;  // image, row and column in the tile, one byte each; none beyond the tile
    uint32_t* place;  // place relative to the tile's origin

    DEVICE void make(const ConvShape& c, const Tile& tile) const {
        for (uint32_t m = threadIdx.x; m < REDUCED; m += blockDim.x) {
            const uint32_t x = m % tile.w, y = m / tile.w % tile.h, image = m / tile.w / tile.h;
            const bool valid = image < tile.images;
            patch[m] = valid ? (image * tile.patch_h + y * c.stride_h) * tile.patch_w + x * c.stride_w : 0;
            local[m] = valid ? image << 16 | y << 8 | x : ~0u;
            place[m] = (image * c.rows + y) * c.columns + x;
        }
    }
};

DEVICE void load_gradient(const ConvWeightGrad& p, const TileOrigin& origin, const Positions& positions, uint4* to) {
    const auto* from = static_cast<const uint4*>(p.gradient);
    const uint32_t row_units = p.shape.out_words * 4, unit = threadIdx.x % ROW_UNITS;
    const uint32_t column = blockIdx.z * ROW_UNITS + unit;
    const size_t first =
        (static_cast<size_t>(origin.image) * p.shape.rows + origin.row) * p.shape.columns + origin.column;
    for (uint32_t m = threadIdx.x / ROW_UNITS; m < REDUCED; m += blockDim.x / ROW_UNITS) {
        const uint32_t at = positions.local[m];
        const bool valid = at != ~0u && origin.image + (at >> 16) < p.shape.images &&
                           origin.row + (at >> 8 & 255) < p.shape.rows &&
                           origin.column + (at & 255) < p.shape.columns && column < row_units;
        const uint4* source = from + (first + positions.place[m]) * row_units + column;
        cp_async<16>(to + m * ROW_UNITS + (unit ^ (m & 7)), valid ? source : from, valid);
    }
}

// Spikes: one word per patch position.
struct SpikeColumn {
    static DEVICE uint32_t units(uint32_t patch) { return (patch + 3) / 4; }

    static DEVICE void load_word(const ConvWeightGrad& p, const SourcePixel& pixel, uint32_t word, uint32_t i,
                                 uint4* to) {
        const auto* from = static_cast<const uint32_t*>(p.source);
        const bool valid = pixel.valid && word < p.shape.source_words;
        cp_async<4>(reinterpret_cast<uint32_t*>(to) + i,
                    valid ? from + pixel.index * p.shape.source_words + word : from, valid);
    }

    // B fragments of four n-tiles for 16 positions starting at `m`.
    template <class V>
    static DEVICE void fragments(const uint4* patch, const uint32_t* at, uint32_t tap, uint32_t (&b)[4][2]) {
        const auto* words = reinterpret_cast<const uint32_t*>(patch) + tap;
        const uint32_t group = LANE / 4, mask = 0x00010001u << group, one = V::ONE >> group;
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const uint2 two = *reinterpret_cast<const uint2*>(at + 8 * half + 2 * (LANE % 4));
            const uint32_t low = words[two.x], high = words[two.y];
#pragma unroll
            for (int j = 0; j < 4; j++) b[j][half] = (__byte_perm(low, high, 0x4400u + 0x1111u * j) & mask) * one;
        }
    }
};

// 16-bit values: four units of 8 channels per patch position, laid out as in conv.cuh.
struct DenseColumn {
    static DEVICE uint32_t units(uint32_t patch) { return patch * 4; }

    static DEVICE void load_word(const ConvWeightGrad& p, const SourcePixel& pixel, uint32_t word, uint32_t i,
                                 uint4* to) {
        const auto* from = static_cast<const uint4*>(p.source);
        const bool valid = pixel.valid && word < p.shape.source_words;
#pragma unroll
        for (uint32_t unit = 0; unit < 4; unit++) {
            cp_async<16>(to + DenseSource::unit_of(i, unit),
                         valid ? from + (pixel.index * p.shape.source_words + word) * 4 + unit : from, valid);
        }
    }

    template <class V>
    static DEVICE void fragments(const uint4* patch, const uint32_t* at, uint32_t tap, uint32_t (&b)[4][2]) {
        const uint32_t position = at[LANE % 16] + tap;
#pragma unroll
        for (uint32_t pair = 0; pair < 2; pair++) {
            uint32_t four[4];
            ldmatrix_transposed(four, patch + DenseSource::unit_of(position, pair * 2 + LANE / 16));
            b[2 * pair][0] = four[0], b[2 * pair][1] = four[1];
            b[2 * pair + 1][0] = four[2], b[2 * pair + 1][1] = four[3];
        }
    }
};

// One of a warp's columns.
struct ColumnPlace {
    uint32_t word, tap, staged, at;  // `staged`: which of the block's staged words; `at`: the tap in the patch
    bool active;
    DEVICE ColumnPlace(const ConvWeightGrad& p, int i) {
        const uint32_t taps = p.shape.taps_h * p.shape.taps_w, first = blockIdx.y * (blockDim.x / 32 * COLUMNS);
        const uint32_t column = first + threadIdx.x / 32 * COLUMNS + i;
        active = column < taps * p.shape.source_words;
        word = column / taps;
        tap = column % taps;
        staged = active ? word - first / taps : 0;
        at = active ? tap / p.shape.taps_w * p.tile.patch_w + tap % p.shape.taps_w : 0;
    }
};

template <class V, class Column>
DEVICE void conv_weight_grad(const ConvWeightGrad& p) {
    DYNAMIC_SHARED(uint4, memory);
    SHARED(uint32_t, patch_of, REDUCED);
    SHARED(uint32_t, local_of, REDUCED);
    SHARED(uint32_t, place_of, REDUCED);
    const Positions positions{patch_of, local_of, place_of};
    positions.make(p.shape, p.tile);
    const uint32_t patch = p.tile.images * p.tile.patch_h * p.tile.patch_w, word_units = Column::units(patch);
    const uint32_t slot_units = GRADIENT_UNITS + p.words_staged * word_units;
    const uint32_t tiles = (p.shape.images + p.tile.images - 1) / p.tile.images * p.tile.across_h * p.tile.across_w;
    const uint32_t first_word = blockIdx.y * (blockDim.x / 32 * COLUMNS) / (p.shape.taps_h * p.shape.taps_w);
    __syncthreads();

    auto ask = [&](uint32_t index, uint32_t slot) {
        if (index < tiles) {
            uint4* to = memory + slot * slot_units;
            const TileOrigin origin(p.tile, index);
            load_gradient(p, origin, positions, to);
            for (uint32_t i = threadIdx.x; i < patch; i += blockDim.x) {
                const SourcePixel pixel(p.shape, p.tile, origin, i);
                for (uint32_t w = 0; w < p.words_staged; w++) {
                    Column::load_word(p, pixel, first_word + w, i, to + GRADIENT_UNITS + w * word_units);
                }
            }
        }
        cp_async_commit();
    };

    const ColumnPlace columns[COLUMNS] = {ColumnPlace(p, 0), ColumnPlace(p, 1)};
    float acc[COLUMNS][4][4][4] = {};
    ask(blockIdx.x, 0);
    uint32_t slot = 0;
    for (uint32_t index = blockIdx.x; index < tiles; index += gridDim.x, slot ^= 1) {
        ask(index + gridDim.x, slot ^ 1);
        cp_async_wait<1>();
        __syncthreads();
        const uint4* gradient = memory + slot * slot_units;
#pragma unroll 2
        for (uint32_t m = 0; m < REDUCED; m += 16) {
            uint32_t b[COLUMNS][4][2];
#pragma unroll
            for (int i = 0; i < COLUMNS; i++) {
                const uint4* from = gradient + GRADIENT_UNITS + columns[i].staged * word_units;
                Column::template fragments<V>(from, patch_of + m, columns[i].at, b[i]);
            }
            const uint32_t row = m + LANE % 8 + LANE / 16 * 8;
#pragma unroll
            for (int mt = 0; mt < 4; mt++) {
                uint32_t a[4];
                ldmatrix_transposed(a, gradient + row * ROW_UNITS + ((2 * mt + LANE / 8 % 2) ^ (row & 7)));
#pragma unroll
                for (int i = 0; i < COLUMNS; i++) {
#pragma unroll
                    for (int j = 0; j < 4; j++) V::mma(acc[i][mt][j], a, b[i][j][0], b[i][j][1]);
                }
            }
        }
        __syncthreads();  // the other slot is filled next
    }

    const size_t weights = static_cast<size_t>(p.filters) * p.all_taps * p.channels;
    float* out = p.partial + blockIdx.x * weights;
#pragma unroll
    for (int column = 0; column < COLUMNS; column++) {
        const ColumnPlace& place = columns[column];
        if (!place.active) continue;
        const uint32_t tap = place.tap + place.word / p.pixel_words, first = place.word % p.pixel_words * 32;
#pragma unroll
        for (int mt = 0; mt < 4; mt++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const uint32_t k = blockIdx.z * TILE_CHANNELS + mt * 16 + LANE / 4 + i / 2 * 8;
                float* row = out + (static_cast<size_t>(k) * p.all_taps + tap) * p.channels;
#pragma unroll
                for (int j = 0; j < 4; j++) {
                    const uint32_t c = first + j * 8 + LANE % 4 * 2 + i % 2;
                    if (k < p.filters && c < p.channels) row[c] = p.dropout * acc[column][mt][j][i];
                }
            }
        }
    }
}

KERNEL(conv_weight_grad_spikes_bf16, ConvWeightGrad, CONV_THREADS, 1) { conv_weight_grad<Bf16, SpikeColumn>(p); }
KERNEL(conv_weight_grad_spikes_f16, ConvWeightGrad, CONV_THREADS, 1) { conv_weight_grad<F16, SpikeColumn>(p); }
KERNEL(conv_weight_grad_dense_bf16, ConvWeightGrad, CONV_THREADS, 1) { conv_weight_grad<Bf16, DenseColumn>(p); }
KERNEL(conv_weight_grad_dense_f16, ConvWeightGrad, CONV_THREADS, 1) { conv_weight_grad<F16, DenseColumn>(p); }

KERNEL(reduce_sums, ReduceSums, 256, 4) {
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += gridDim.x * blockDim.x) {
        float sum = 0.0f;
        for (uint32_t s = 0; s < p.splits; s++) sum += p.partial[static_cast<size_t>(s) * p.count + i];
        p.sums[i] = sum;
    }
}
