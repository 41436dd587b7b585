// What a card can do at best, for the share of it that other kernels reach: a copy, and matrix instructions (for f32
// fused multiply-adds) whose operands never leave the registers.
//
//   copy_memory      to[i] = from[i], 16 bytes per thread and turn, the rest by single bytes; bytes moved: 2 x bytes
//   matrix_rate      each warp, `rounds` times: CHAINS products 16x8x16 that depend on nothing but the round before
//
// Both operands are `one`, 1 that the compiler does not know of. Accumulator i of a thread begins at i, and out[thread]
// is their sum: 4 CHAINS of them grow by 16 a round; in f32 2 CHAINS, by 1.
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
    uint32_t rounds;
    float one;
};

template <typename V>
DEVICE void matrix_rate(const MatrixRate& p) {
    const uint32_t ones = V::pack(p.one, p.one);
    const uint32_t a[4] = {ones, ones, ones, ones};
    float sums[CHAINS][4];
#pragma unroll
    for (int i = 0; i < 4 * CHAINS; ++i) sums[i / 4][i % 4] = i;
    for (uint32_t round = 0; round < p.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < CHAINS; ++i) V::mma(sums[i], a, ones, ones);
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < CHAINS; ++i) sum += (sums[i][0] + sums[i][1]) + (sums[i][2] + sums[i][3]);
    p.out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
KERNEL_EACH_HALF(matrix_rate, MatrixRate, 256, 2, matrix_rate)

KERNEL(matrix_rate_f32, MatrixRate, 256, 2) {
    float sums[2 * CHAINS];
#pragma unroll
    for (int i = 0; i < 2 * CHAINS; ++i) sums[i] = i;
    for (uint32_t round = 0; round < p.rounds; ++round) {
#pragma unroll
        for (int i = 0; i < 2 * CHAINS; ++i) sums[i] = fmaf(p.one, p.one, sums[i]);
    }
    float sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 2 * CHAINS; ++i) sum += sums[i];
    p.out[blockIdx.x * blockDim.x + threadIdx.x] = sum;
}
