// Upper bounds of a card, to relate other kernels to: a copy, and matrix instructions (for f32, fused multiply-adds)
// whose operands never leave the registers.
//
//   copy_memory      to[i] = from[i], 16 bytes per thread and iteration, the rest by single bytes; traffic: 2 x bytes
//   matrix_rate      each warp, `rounds` times: CHAINS products 16x8x16, each depending only on the previous round
//
// Operands are random: multipliers whose inputs never change draw less power, so the card would clock higher than with
// real products. Accumulator i of a thread starts at i; out[thread] is the sum of all 4 CHAINS (f32: 2 CHAINS).
#include "device.cuh"
#include "value.cuh"

constexpr int CHAINS = 8;
constexpr int TURNS = 4;

struct CopyMemory {
    const unsigned char* from;
    unsigned char* to;
    uint64_t bytes;
};

// A block copies TURNS x 256 vectors of 16 bytes.
KERNEL(copy_memory, CopyMemory, 256, 8) {
    const uint64_t first = (uint64_t)blockIdx.x * TURNS * blockDim.x + threadIdx.x, vectors = p.bytes / 16;
    const uint4* from = reinterpret_cast<const uint4*>(p.from);
    uint4* to = reinterpret_cast<uint4*>(p.to);
    uint4 values[TURNS];
#pragma unroll
    for (int i = 0; i < TURNS; ++i) {
        const uint64_t at = first + i * blockDim.x;
        if (at < vectors) values[i] = from[at];
    }
#pragma unroll
    for (int i = 0; i < TURNS; ++i) {
        const uint64_t at = first + i * blockDim.x;
        if (at < vectors) to[at] = values[i];
    }
    const uint64_t rest = 16 * vectors + threadIdx.x;
    if (blockIdx.x == 0 && rest < p.bytes) p.to[rest] = p.from[rest];
}

struct MatrixRate {
    float* out;
    uint32_t rounds, seed;
};

// Bits that differ between threads and between values of `i` (the mixing step of lowbias32).
DEVICE uint32_t mixed(const MatrixRate& p, uint32_t i) {
    uint32_t x = p.seed + (threadIdx.x << 8 | i);
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return x ^ x >> 16;
}

// Two values of magnitude 0.5 to 2 and either sign.
template <typename V>
DEVICE uint32_t operand(const MatrixRate& p, uint32_t i) {
    constexpr bool BF16 = V::ONE == 0x3f80;
    return (mixed(p, i) & (BF16 ? 0x80ff80ffu : 0x87ff87ffu)) | (BF16 ? 0x3f003f00u : 0x38003800u);
}

template <typename V>
DEVICE void matrix_rate(const MatrixRate& p) {
    uint32_t a[4], b[CHAINS][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = operand<V>(p, i);
#pragma unroll
    for (int i = 0; i < 2 * CHAINS; ++i) b[i / 2][i % 2] = operand<V>(p, 4 + i);
    float sums[CHAINS][4];
#pragma unroll
    for (int i = 0; i < 4 * CHAINS; ++i) sums[i / 4][i % 4] = i;
    for (uint32_t round = 0; round < p.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) V::mma(sums[i], a, b[i][0], b[i][1]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) sum += (sums[i][0] + sums[i][1]) + (sums[i][2] + sums[i][3]);
    p.out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
KERNEL_EACH_HALF(matrix_rate, MatrixRate, 256, 2, matrix_rate)

KERNEL(matrix_rate_f32, MatrixRate, 256, 2) {
    float sums[2 * CHAINS], factors[2 * CHAINS];
#pragma unroll
    for (int i = 0; i < 2 * CHAINS; ++i) {
        sums[i] = i;
        factors[i] = __uint_as_float((mixed(p, i) & 0x80ffffffu) | 0x3f000000u);
    }
    for (uint32_t round = 0; round < p.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < 2 * CHAINS; ++i) sums[i] = fmaf(factors[i], factors[(i + 1) % (2 * CHAINS)], sums[i]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 2 * CHAINS; ++i) sum += sums[i];
    p.out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
