// Gradient of a convolution's weight (and bias) from that of its currents and its input.
//
//   dL/dW[k][tap][c] = dropout sum over images, steps, positions of dL/dI[position][k] x[position at tap][c]
//
// dL/dI [images][P][Q][K] 16-bit and spikes [images][H][W][C/32] or 16-bit values [images][H][W][C] -> partial sums
// [splits][K taps C + K] f32, f32 masters' order, biases behind; reduce_weight_grad adds them in a fixed order, so two
// runs agree bit by bit. Steps are but more images here.
//
// A block owns 64 or 128 filters (MT m-tiles of mma.m16n8k16) and as many columns as it has warps, a column being 32 input
// channels at one tap; it walks over tiles of 128 positions, which are the reduction. dL/dI of a tile is staged once for
// all columns, [position][units of 8 filters] with unit u at u ^ (position & 7), so that the rows of a transposed
// ldmatrix touch all banks once; the source patch as in conv.cuh, for all words of the block's columns. Spikes become the
// other operand in registers: byte j of two positions' words side by side, then lane/4 chooses the bit: three integer
// operations a register, which all m-tiles share. The bias is summed from the staged dL/dI by the blocks of the first
// columns, a pair of filters a lane, every warps-th position a warp.
#include "conv.cuh"
#include "value.cuh"

struct ConvWeightGrad {
    const void *gradient, *source;
    float* partial;
    ConvShape shape;  // of the forward convolution, steps 1
    Tile tile;        // at most 128 positions
    uint32_t filters, channels;  // without padding
    uint32_t all_taps;           // of the weight: a linear layer's are its input's pixels
    uint32_t pixel_words;        // words of one of them
    uint32_t has_bias, words_staged;
    float dropout;
    uint32_t padding;
};
LAYOUT(ConvWeightGrad, gradient, source, partial, shape, tile, filters, channels, all_taps, pixel_words, has_bias,
       words_staged, dropout, padding)

struct ReduceWeightGrad {
    const float* partial;
    float *weight_grad, *bias_grad;
    uint32_t weights, biases, splits, padding;
};
LAYOUT(ReduceWeightGrad, partial, weight_grad, bias_grad, weights, biases, splits, padding)

constexpr uint32_t REDUCED = 128, MOST_COLUMNS = 8;

// What a thread needs of the tile's positions, which are the same in every tile but for the tile's origin.
struct Positions {
    uint32_t *patch, *local;  // first tap in the patch; image, row and column in the tile, a byte each

    DEVICE void make(const ConvShape& c, const Tile& tile) const {
        for (uint32_t m = threadIdx.x; m < REDUCED; m += blockDim.x) {
            const uint32_t x = m % tile.w, y = m / tile.w % tile.h, image = m / tile.w / tile.h;
            const bool valid = image < tile.images;
            patch[m] = valid ? (image * tile.patch_h + y * c.stride_h) * tile.patch_w + x * c.stride_w : 0;
            local[m] = valid ? image << 16 | y << 8 | x : ~0u;
        }
    }
};

struct Origin {
    uint32_t image, row, column;
    DEVICE Origin(const Tile& tile, uint32_t index) {
        column = index % tile.across_w * tile.w;
        row = index / tile.across_w % tile.across_h * tile.h;
        image = index / tile.across_w / tile.across_h * tile.images;
    }
};

template <uint32_t ROW_UNITS>
DEVICE void load_gradient(const ConvWeightGrad& p, const Origin& origin, const uint32_t* local, uint4* to) {
    const auto* from = static_cast<const uint4*>(p.gradient);
    const uint32_t row_units = p.shape.out_words * 4;
    for (uint32_t i = threadIdx.x; i < REDUCED * ROW_UNITS; i += blockDim.x) {
        const uint32_t m = i / ROW_UNITS, unit = i % ROW_UNITS, at = local[m];
        const uint32_t image = origin.image + (at >> 16 & 255), y = origin.row + (at >> 8 & 255);
        const uint32_t x = origin.column + (at & 255), column = blockIdx.z * ROW_UNITS + unit;
        const bool valid = at != ~0u && image < p.shape.images && y < p.shape.rows && x < p.shape.columns &&
                           column < row_units;
        const size_t place = (static_cast<size_t>(image) * p.shape.rows + y) * p.shape.columns + x;
        cp_async<16>(to + m * ROW_UNITS + (unit ^ (m & 7)), valid ? from + place * row_units + column : from, valid);
    }
}

// The source pixel of a patch position.
struct PatchPixel {
    size_t index;
    bool valid;
    DEVICE PatchPixel(const ConvShape& c, const Tile& tile, const Origin& origin, uint32_t patch) {
        const uint32_t x = patch % tile.patch_w, rest = patch / tile.patch_w;
        const uint32_t y = rest % tile.patch_h, image = origin.image + rest / tile.patch_h;
        const int32_t row = static_cast<int32_t>(origin.row * c.stride_h + y) + c.origin_h;
        const int32_t column = static_cast<int32_t>(origin.column * c.stride_w + x) + c.origin_w;
        valid = image < c.images && static_cast<uint32_t>(row) < c.source_h &&
                static_cast<uint32_t>(column) < c.source_w;
        index = valid ? (static_cast<size_t>(image) * c.source_h + row) * c.source_w + column : 0;
    }
};

// Spikes: a word a patch position.
struct SpikeColumn {
    static DEVICE uint32_t units(uint32_t patch) { return (patch + 3) / 4; }

    static DEVICE void load_word(const ConvWeightGrad& p, const PatchPixel& pixel, uint32_t word, uint32_t i, uint4* to) {
        const auto* from = static_cast<const uint32_t*>(p.source);
        const bool valid = pixel.valid && word < p.shape.source_words;
        cp_async<4>(reinterpret_cast<uint32_t*>(to) + i,
                    valid ? from + pixel.index * p.shape.source_words + word : from, valid);
    }

    // B fragments of four n-tiles for 16 positions from `m` on.
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

// 16-bit values: four units of 8 channels a patch position, placed as in conv.cuh.
struct DenseColumn {
    static DEVICE uint32_t units(uint32_t patch) { return patch * 4; }

    static DEVICE void load_word(const ConvWeightGrad& p, const PatchPixel& pixel, uint32_t word, uint32_t i, uint4* to) {
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

// Adds a warp's share of the positions of a tile to the sums of two filters for each 64 of the block's.
template <class V, uint32_t ROW_UNITS>
DEVICE void add_bias(const uint4* gradient, float (&sum)[ROW_UNITS / 8][2]) {
    const auto* pairs = reinterpret_cast<const uint32_t*>(gradient);
#pragma unroll 4
    for (uint32_t m = threadIdx.x / 32; m < REDUCED; m += blockDim.x / 32) {
#pragma unroll
        for (uint32_t i = 0; i < ROW_UNITS / 8; i++) {
            const uint32_t unit = (i * 8 + LANE / 4) ^ (m & 7);
            const uint32_t pair = pairs[(m * ROW_UNITS + unit) * 4 + LANE % 4];
            sum[i][0] += V::low(pair);
            sum[i][1] += V::high(pair);
        }
    }
}

// Adds the warps' sums in order; `shared` holds a row of the block's filters for each warp.
template <uint32_t ROW_UNITS>
DEVICE void store_bias(const ConvWeightGrad& p, const float (&sum)[ROW_UNITS / 8][2], float* shared, float* out) {
    constexpr uint32_t FILTERS = ROW_UNITS * 8;
#pragma unroll
    for (uint32_t i = 0; i < ROW_UNITS / 8; i++) {
        for (uint32_t e = 0; e < 2; e++) shared[threadIdx.x / 32 * FILTERS + i * 64 + LANE * 2 + e] = sum[i][e];
    }
    __syncthreads();
    for (uint32_t f = threadIdx.x; f < FILTERS; f += blockDim.x) {
        float total = 0.0f;
        for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) total += shared[warp * FILTERS + f];
        if (blockIdx.z * FILTERS + f < p.filters) out[blockIdx.z * FILTERS + f] = total;
    }
}

template <class V, class Column, int MT>
DEVICE void conv_weight_grad(const ConvWeightGrad& p) {
    constexpr uint32_t ROW_UNITS = 2 * MT, GRADIENT_UNITS = REDUCED * ROW_UNITS;
    DYNAMIC_SHARED(uint4, memory);
    SHARED(float, bias_sums, MOST_COLUMNS * 16 * MT);
    SHARED(uint32_t, patch_of, REDUCED);
    SHARED(uint32_t, local_of, REDUCED);
    const Positions positions{patch_of, local_of};
    positions.make(p.shape, p.tile);
    const uint32_t taps = p.shape.taps_h * p.shape.taps_w, warps = blockDim.x / 32;
    const uint32_t first_column = blockIdx.y * warps, column = first_column + threadIdx.x / 32;
    const uint32_t first_word = first_column / taps, word = column / taps, tap = column % taps;
    const bool active = column < taps * p.shape.source_words;
    const uint32_t tap_at = tap / p.shape.taps_w * p.tile.patch_w + tap % p.shape.taps_w;
    const uint32_t patch = p.tile.images * p.tile.patch_h * p.tile.patch_w, word_units = Column::units(patch);
    const uint32_t slot_units = GRADIENT_UNITS + p.words_staged * word_units;
    const uint32_t tiles =
        (p.shape.images + p.tile.images - 1) / p.tile.images * p.tile.across_h * p.tile.across_w;
    __syncthreads();

    auto ask = [&](uint32_t index, uint32_t slot) {
        if (index < tiles) {
            uint4* to = memory + slot * slot_units;
            const Origin origin(p.tile, index);
            load_gradient<ROW_UNITS>(p, origin, local_of, to);
            for (uint32_t i = threadIdx.x; i < patch; i += blockDim.x) {
                const PatchPixel pixel(p.shape, p.tile, origin, i);
                for (uint32_t w = 0; w < p.words_staged; w++) {
                    Column::load_word(p, pixel, first_word + w, i, to + GRADIENT_UNITS + w * word_units);
                }
            }
        }
        cp_async_commit();
    };

    const bool owns_bias = p.has_bias && blockIdx.y == 0;
    float acc[MT][4][4] = {}, bias[ROW_UNITS / 8][2] = {};
    ask(blockIdx.x, 0);
    uint32_t slot = 0;
    for (uint32_t index = blockIdx.x; index < tiles; index += gridDim.x, slot ^= 1) {
        ask(index + gridDim.x, slot ^ 1);
        cp_async_wait<1>();
        __syncthreads();
        const uint4* gradient = memory + slot * slot_units;
        const uint4* from = gradient + GRADIENT_UNITS + (active ? word - first_word : 0) * word_units;
        if (owns_bias) add_bias<V, ROW_UNITS>(gradient, bias);
#pragma unroll 2
        for (uint32_t m = 0; m < REDUCED; m += 16) {
            uint32_t b[4][2];
            Column::template fragments<V>(from, patch_of + m, active ? tap_at : 0, b);
            const uint32_t row = m + LANE % 8 + LANE / 16 * 8;
#pragma unroll
            for (int mt = 0; mt < MT; mt++) {
                uint32_t a[4];
                ldmatrix_transposed(a, gradient + row * ROW_UNITS + ((2 * mt + LANE / 8 % 2) ^ (row & 7)));
#pragma unroll
                for (int j = 0; j < 4; j++) V::mma(acc[mt][j], a, b[j][0], b[j][1]);
            }
        }
        __syncthreads();  // the other slot is filled next
    }

    const size_t weights = static_cast<size_t>(p.filters) * p.all_taps * p.channels;
    float* out = p.partial + blockIdx.x * (weights + (p.has_bias ? p.filters : 0));
    const uint32_t all_tap = tap + word / p.pixel_words;
#pragma unroll
    for (int mt = 0; mt < MT; mt++) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t k = blockIdx.z * 16 * MT + mt * 16 + LANE / 4 + i / 2 * 8;
            if (k >= p.filters) continue;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const uint32_t c = word % p.pixel_words * 32 + j * 8 + LANE % 4 * 2 + i % 2;
                if (active && c < p.channels) {
                    out[(static_cast<size_t>(k) * p.all_taps + all_tap) * p.channels + c] = p.dropout * acc[mt][j][i];
                }
            }
        }
    }
    if (owns_bias) store_bias<ROW_UNITS>(p, bias, bias_sums, out + weights);
}

#define CONV_WEIGHT_GRAD(V, suffix, Column, source)                                                      \
    KERNEL(conv_weight_grad_##source##_k64_##suffix, ConvWeightGrad, MOST_COLUMNS * 32, 2) {             \
        conv_weight_grad<V, Column, 4>(p);                                                               \
    }                                                                                                    \
    KERNEL(conv_weight_grad_##source##_k128_##suffix, ConvWeightGrad, MOST_COLUMNS * 32, 1) {            \
        conv_weight_grad<V, Column, 8>(p);                                                               \
    }
CONV_WEIGHT_GRAD(Bf16, bf16, SpikeColumn, spikes)
CONV_WEIGHT_GRAD(F16, f16, SpikeColumn, spikes)
CONV_WEIGHT_GRAD(Bf16, bf16, DenseColumn, dense)
CONV_WEIGHT_GRAD(F16, f16, DenseColumn, dense)

KERNEL(reduce_weight_grad, ReduceWeightGrad, 256, 4) {
    const uint32_t all = p.weights + p.biases;
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += gridDim.x * blockDim.x) {
        float sum = 0.0f;
        for (uint32_t s = 0; s < p.splits; s++) sum += p.partial[static_cast<size_t>(s) * all + i];
        (i < p.weights ? p.weight_grad[i] : p.bias_grad[i - p.weights]) = sum;
    }
}
