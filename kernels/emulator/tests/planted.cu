// Kernels with a planted fault, `planted_x`, each beside its correct twin, `right_x`: the emulator's own tests.
#include "device.cuh"

struct Planted {
    const uint32_t* in;
    uint32_t* out;
    uint32_t count, padding;
};

#define PLANTED(name, THREADS)                                     \
    KERNEL(planted_##name, Planted, THREADS, 1) { name<true>(p); } \
    KERNEL(right_##name, Planted, THREADS, 1) { name<false>(p); }

// Sums of blocks in shared memory, without the barrier of each round.
template <bool FAULT>
DEVICE void missing_barrier(const Planted& p) {
    SHARED(uint32_t, sums, 128);
    const uint32_t i = threadIdx.x;
    sums[i] = p.in[blockIdx.x * 128 + i];
    __syncthreads();
    for (uint32_t half = 64; half > 0; half /= 2) {
        if (i < half) sums[i] += sums[i + half];
        if (!FAULT || half != 16) __syncthreads();
    }
    if (i == 0) p.out[blockIdx.x] = sums[0];
}
PLANTED(missing_barrier, 128)

// All read a word that its owner then writes.
template <bool FAULT>
DEVICE void write_after_read(const Planted& p) {
    SHARED(uint32_t, word, 1);
    if (threadIdx.x == 0) word[0] = 7;
    __syncthreads();
    const uint32_t read = word[0];
    if (!FAULT) __syncthreads();
    if (threadIdx.x == 0) word[0] = 8;
    p.out[threadIdx.x] = read;
}
PLANTED(write_after_read, 64)

// The writer is the last of all that read. A vote brings the lanes together, but orders nothing in memory.
template <bool FAULT>
DEVICE void write_after_own_read(const Planted& p) {
    SHARED(uint32_t, word, 1);
    if (LANE == 0) word[0] = 7;
    __syncwarp();
    const uint32_t read = word[0];
    p.out[LANE] = __ballot_sync(~0u, read == 7);
    if (!FAULT) __syncwarp();
    if (LANE == 0) word[0] = word[0] + 1;
}
PLANTED(write_after_own_read, 32)

// Two buffers in turn, so that what is read too early has been written before.
template <bool FAULT, bool WAITS>
DEVICE void copies(const Planted& p) {
    SHARED(uint32_t, buffers, 2 * 32);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 2; i++) {
        cp_async<4>(&buffers[32 * i + LANE], p.in + 32 * i + LANE, true);
        cp_async_commit();
    }
    for (uint32_t i = 0; i < 6; i++) {
        if (!FAULT) {
            cp_async_wait<1>();
        } else if (i < 4) {
            cp_async_wait<1>();
        } else if (WAITS) {
            cp_async_wait<2>();
        }
        __syncwarp();
        sum += buffers[32 * (i % 2) + (LANE + 1) % 32];
        __syncwarp();
        if (i < 4) cp_async<4>(&buffers[32 * (i % 2) + LANE], p.in + 32 * (i + 2) + LANE, true);
        cp_async_commit();
    }
    cp_async_wait<0>();
    p.out[LANE] = sum;
}
template <bool FAULT>
DEVICE void missing_wait(const Planted& p) {
    copies<FAULT, false>(p);
}
template <bool FAULT>
DEVICE void short_wait(const Planted& p) {
    copies<FAULT, true>(p);
}
PLANTED(missing_wait, 32)
PLANTED(short_wait, 32)

// A buffer is filled again while another lane may still read it.
template <bool FAULT>
DEVICE void early_copy(const Planted& p) {
    SHARED(uint32_t, buffer, 32);
    buffer[LANE] = LANE;
    __syncwarp();
    const uint32_t read = buffer[LANE ^ 1];
    if (!FAULT) __syncwarp();
    cp_async<4>(&buffer[LANE], p.in + LANE, true);
    cp_async_commit();
    __syncwarp();
    cp_async_wait<0>();
    __syncwarp();
    p.out[LANE] = read + buffer[LANE ^ 1];
}
PLANTED(early_copy, 32)

template <bool FAULT>
DEVICE void copy_never_waited_for(const Planted& p) {
    SHARED(uint32_t, buffer, 32);
    cp_async<4>(&buffer[LANE], p.in + LANE, true);
    cp_async_commit();
    if (!FAULT) cp_async_wait<0>();
    p.out[LANE] = 1;
}
PLANTED(copy_never_waited_for, 32)

template <bool FAULT>
DEVICE void shared_overflow(const Planted& p) {
    SHARED(uint32_t, words, 31);
    if (FAULT || LANE < 31) words[LANE] = LANE;
    p.out[LANE] = LANE < 31 ? words[LANE] : 0;
}
PLANTED(shared_overflow, 32)

template <bool FAULT>
DEVICE void dynamic_overflow(const Planted& p) {
    DYNAMIC_SHARED(uint32_t, words);
    if (FAULT || LANE < p.count) words[LANE] = LANE;
    p.out[LANE] = LANE < p.count ? words[LANE] : 0;
}
PLANTED(dynamic_overflow, 32)

template <bool FAULT>
DEVICE void unwritten_shared(const Planted& p) {
    SHARED(uint32_t, words, 32);
    if (!FAULT || LANE != 5) words[LANE] = LANE;
    __syncwarp();
    p.out[LANE] = words[31 - LANE];
}
PLANTED(unwritten_shared, 32)

template <bool FAULT>
DEVICE void unwritten_global(const Planted& p) {
    // Nothing has written `out`.
    p.out[threadIdx.x] = FAULT ? p.out[threadIdx.x] + 1 : 1;
}
PLANTED(unwritten_global, 32)

template <bool FAULT>
DEVICE void skipped_barrier(const Planted& p) {
    if (!FAULT || threadIdx.x != 40) __syncthreads();
    p.out[threadIdx.x] = 1;
}
PLANTED(skipped_barrier, 64)

template <bool FAULT>
DEVICE void two_barriers(const Planted& p) {
    if (FAULT && threadIdx.x < 32) {
        __syncthreads();
    } else {
        __syncthreads();
    }
    p.out[threadIdx.x] = 1;
}
PLANTED(two_barriers, 64)

template <bool FAULT>
DEVICE void lost_lane(const Planted& p) {
    p.out[LANE] = 1;
    if (LANE == 9) return;
    const uint32_t mask = FAULT ? ~0u : ~(1u << 9);
    p.out[LANE] = __shfl_sync(mask, LANE, 3);
}
PLANTED(lost_lane, 32)

template <bool FAULT>
DEVICE void outside_own_mask(const Planted& p) {
    p.out[LANE] = __ballot_sync(FAULT && LANE == 4 ? 0xfu : ~0u, true);
}
PLANTED(outside_own_mask, 32)

template <bool FAULT>
DEVICE void diverged_warp(const Planted& p) {
    uint32_t x;
    if (FAULT && LANE < 16) {
        x = __reduce_add_sync(~0u, 1);
    } else {
        x = __reduce_add_sync(~0u, 1);
    }
    p.out[LANE] = x;
}
PLANTED(diverged_warp, 32)

// One element past the end, and before the start.
template <bool FAULT>
DEVICE void read_past_end(const Planted& p) {
    p.out[LANE] = p.in[FAULT ? LANE + 1 : LANE];
}
template <bool FAULT>
DEVICE void read_before_start(const Planted& p) {
    p.out[LANE] = p.in[FAULT ? static_cast<int>(LANE) - 1 : LANE];
}
template <bool FAULT>
DEVICE void write_past_end(const Planted& p) {
    p.out[FAULT ? LANE + 1 : LANE] = 1;
}
template <bool FAULT>
DEVICE void write_before_start(const Planted& p) {
    p.out[FAULT ? static_cast<int>(LANE) - 1 : LANE] = 1;
}
PLANTED(read_past_end, 32)
PLANTED(read_before_start, 32)
PLANTED(write_past_end, 32)
PLANTED(write_before_start, 32)

// 16 bytes at an address that is a multiple of 4 alone; of four numbers one is used.
template <bool FAULT>
DEVICE void misaligned_read(const Planted& p) {
    const uint4 four = *reinterpret_cast<const uint4*>(p.in + (FAULT ? 1 : 0));
    p.out[LANE] = four.y;
}
template <bool FAULT>
DEVICE void misaligned_write(const Planted& p) {
    p.out[LANE] = 0;
    __syncwarp();
    if (LANE == 0) *reinterpret_cast<uint4*>(p.out + (FAULT ? 2 : 0)) = uint4{1, 2, 3, 4};
}
PLANTED(misaligned_read, 32)
PLANTED(misaligned_write, 32)

template <bool FAULT>
DEVICE void race_of_blocks(const Planted& p) {
    if (threadIdx.x == 0) p.out[FAULT ? 0 : blockIdx.x] = blockIdx.x;
}
template <bool FAULT>
DEVICE void read_of_other_block(const Planted& p) {
    if (LANE == 0) p.out[blockIdx.x] = 1;
    if (LANE == 0 && blockIdx.x == 1) p.out[1] += p.in[0] + (FAULT ? p.out[0] : 0);
}
template <bool FAULT>
DEVICE void race_with_atomic(const Planted& p) {
    if (FAULT && blockIdx.x == 1) {
        if (LANE == 0) p.out[0] = 3;
    } else {
        atomicAdd(&p.out[0], 1u);
    }
}
// The last block to come writes what all have read: nothing orders the others' reads before.
template <bool FAULT>
DEVICE void write_of_last_block(const Planted& p) {
    if (LANE != 0) return;
    const uint32_t read = p.out[FAULT ? 1 : 2];
    const bool last = atomicAdd(&p.out[0], 1u) == gridDim.x - 1;
    if (last) p.out[1] = read + p.out[FAULT ? 1 : 2];
}
PLANTED(race_of_blocks, 32)
PLANTED(write_of_last_block, 32)
PLANTED(read_of_other_block, 32)
PLANTED(race_with_atomic, 32)

template <bool FAULT>
DEVICE void race_in_warp(const Planted& p) {
    SHARED(uint32_t, words, 32);
    words[LANE] = p.in[LANE];
    if (!FAULT) __syncwarp();
    p.out[LANE] = words[LANE ^ 1];
}
PLANTED(race_in_warp, 32)

template <bool FAULT>
DEVICE void incomplete_output(const Planted& p) {
    if (!FAULT || LANE != 30) p.out[LANE] = 1;
}
PLANTED(incomplete_output, 32)
