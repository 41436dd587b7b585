// One instruction in each kernel, in the words of kernels/device.cuh, to be compared with what the host computes.
#include "value.cuh"

struct Instruction {
    const void* in;
    void* out;
    uint32_t count, padding;
};

// a [16][16], b [16][8] 16-bit values and c [16][8] f32 behind them -> a b + c.
template <class V, bool SWAPPED = false>
DEVICE void tensor_core(const Instruction& p) {
    const auto* a = static_cast<const uint16_t*>(p.in);
    const auto* b = a + 16 * 16;
    const auto* c = reinterpret_cast<const float*>(b + 16 * 8);
    const uint32_t group = LANE / 4, pair = LANE % 4 * 2;
    uint32_t of_a[4], of_b[2];
    for (uint32_t i = 0; i < 4; i++) {
        const uint16_t* at = a + (group + i % 2 * 8) * 16 + pair + i / 2 * 8;
        of_a[i] = at[0] | static_cast<uint32_t>(at[1]) << 16;
    }
    for (uint32_t i = 0; i < 2; i++) {
        const uint16_t* at = b + (pair + 8 * i) * 8 + group;
        of_b[i] = at[0] | static_cast<uint32_t>(at[8]) << 16;
    }
    float sums[4];
    for (uint32_t i = 0; i < 4; i++) sums[i] = c[(group + i / 2 * 8) * 8 + pair + i % 2];
    V::mma(sums, of_a, of_b[SWAPPED], of_b[!SWAPPED]);
    for (uint32_t i = 0; i < 4; i++) static_cast<float*>(p.out)[(group + i / 2 * 8) * 8 + pair + i % 2] = sums[i];
}
KERNEL_EACH_HALF(instruction_mma, Instruction, 32, 1, tensor_core)
// Its operands in the wrong order.
KERNEL(planted_mma, Instruction, 32, 1) { tensor_core<F16, true>(p); }

// Four matrices [8][8] of 16 bits, rows 24 values apart in shared memory -> [4][32] registers.
template <bool TRANSPOSED>
DEVICE void load_matrices(const Instruction& p) {
    SHARED(uint16_t, rows, 32 * 24);
    for (uint32_t i = 0; i < 8; i++) rows[LANE * 24 + i] = static_cast<const uint16_t*>(p.in)[LANE * 8 + i];
    __syncwarp();
    uint32_t out[4];
    if (TRANSPOSED) {
        ldmatrix_transposed(out, rows + LANE * 24);
    } else {
        ldmatrix(out, rows + LANE * 24);
    }
    for (uint32_t i = 0; i < 4; i++) static_cast<uint32_t*>(p.out)[32 * i + LANE] = out[i];
}
KERNEL(instruction_ldmatrix, Instruction, 32, 1) { load_matrices<false>(p); }
KERNEL(instruction_ldmatrix_transposed, Instruction, 32, 1) { load_matrices<true>(p); }

// A word a lane -> the results of each warp instruction, [.][32].
KERNEL(instruction_warp, Instruction, 32, 1) {
    const uint32_t x = static_cast<const uint32_t*>(p.in)[LANE];
    auto* out = static_cast<uint32_t*>(p.out) + LANE;
    out[0] = __shfl_sync(~0u, x, x);
    out[32] = __shfl_xor_sync(~0u, x, 13);
    out[64] = __shfl_up_sync(~0u, x, 5);
    out[96] = __ballot_sync(~0u, x & 1);
    out[128] = __match_any_sync(~0u, x % 5);
    out[160] = __byte_perm(x, ~x, x >> 7);
    out[192] = static_cast<uint32_t>(__popc(x));
    out[224] = static_cast<uint32_t>(__ffs(x));
    // The odd lanes alone.
    out[256] = 0;
    if (LANE % 2) out[256] = __ballot_sync(0xaaaaaaaa, x & 2);
    const double wide = __shfl_xor_sync(~0u, static_cast<double>(x) + 0.5, 1);
    out[288] = static_cast<uint32_t>(wide);
    // Numbers as predicates: 0 is false, any other is true.
    uint32_t chosen;
    asm("{\n\t.reg .pred odd, both;\n\tsetp.ne.u32 odd, %1, 0;\n\tand.pred both, odd, -1;\n\tor.pred both, both, 0;\n\t"
        "selp.b32 %0, 3, 5, both;\n\t}"
        : "=r"(chosen)
        : "r"(x & 1));
    out[320] = chosen;
}

// f32 pairs -> packed pairs.
template <class V>
DEVICE void pack(const Instruction& p) {
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += gridDim.x * blockDim.x) {
        const float* pair = static_cast<const float*>(p.in) + 2 * i;
        static_cast<uint32_t*>(p.out)[i] = V::pack(pair[0], pair[1]);
    }
}
KERNEL_EACH_HALF(instruction_pack, Instruction, 256, 1, pack)

// Packed pairs -> f32 pairs.
template <class V>
DEVICE void unpack(const Instruction& p) {
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += gridDim.x * blockDim.x) {
        const uint32_t pair = static_cast<const uint32_t*>(p.in)[i];
        static_cast<float*>(p.out)[2 * i] = V::low(pair);
        static_cast<float*>(p.out)[2 * i + 1] = V::high(pair);
    }
}
KERNEL_EACH_HALF(instruction_unpack, Instruction, 256, 1, unpack)

// Counts of words in 7 bins, in 64 bits and in 32 bits behind them; both are added to.
KERNEL(instruction_atomics, Instruction, 64, 1) {
    auto* wide = static_cast<unsigned long long*>(p.out);
    auto* narrow = reinterpret_cast<uint32_t*>(wide + 7);
    for (uint32_t i = blockIdx.x * 64 + threadIdx.x; i < p.count; i += gridDim.x * 64) {
        const uint32_t x = static_cast<const uint32_t*>(p.in)[i];
        atomicAdd(&wide[x % 7], static_cast<unsigned long long>(x));
        atomicAdd(&narrow[x % 7], x);
    }
}

// The same in shared memory, a block each: [blocks][7].
KERNEL(instruction_shared_atomics, Instruction, 64, 1) {
    SHARED(unsigned long long, bins, 7);
    if (threadIdx.x < 7) bins[threadIdx.x] = 0;
    __syncthreads();
    for (uint32_t i = blockIdx.x * 64 + threadIdx.x; i < p.count; i += gridDim.x * 64) {
        const uint32_t x = static_cast<const uint32_t*>(p.in)[i];
        atomicAdd(&bins[x % 7], static_cast<unsigned long long>(x));
    }
    __syncthreads();
    if (threadIdx.x < 7) static_cast<unsigned long long*>(p.out)[blockIdx.x * 7 + threadIdx.x] = bins[threadIdx.x];
}

// Threads in the order in which they come, behind a counter of them.
KERNEL(instruction_order, Instruction, 64, 1) {
    auto* out = static_cast<uint32_t*>(p.out);
    out[1 + atomicAdd(out, 1u)] = blockIdx.x * 64 + threadIdx.x;
}

// `count` bytes, then zeros: 32 lanes of BYTES each in two committed groups.
template <int BYTES>
DEVICE void copy(const Instruction& p) {
    SHARED(unsigned char, buffer, 2 * 32 * BYTES);
    const auto* in = static_cast<const unsigned char*>(p.in);
    for (uint32_t group = 0; group < 2; group++) {
        const uint32_t at = (32 * group + LANE) * BYTES;
        cp_async<BYTES>(buffer + at, in + at, at + BYTES <= p.count);
        cp_async_commit();
    }
    const auto* words = reinterpret_cast<const uint32_t*>(buffer);
    auto* out = static_cast<uint32_t*>(p.out);
    cp_async_wait<1>();
    __syncwarp();
    for (uint32_t i = LANE; i < 8 * BYTES; i += 32) out[i] = words[i];
    cp_async_wait<0>();
    __syncwarp();
    for (uint32_t i = 8 * BYTES + LANE; i < 16 * BYTES; i += 32) out[i] = words[i];
}
KERNEL(instruction_cp_async_4, Instruction, 32, 1) { copy<4>(p); }
KERNEL(instruction_cp_async_8, Instruction, 32, 1) { copy<8>(p); }
KERNEL(instruction_cp_async_16, Instruction, 32, 1) { copy<16>(p); }
