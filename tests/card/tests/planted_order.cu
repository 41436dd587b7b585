// Order: barriers, warps, asynchronous copies, races, and kernels without end.
#include "planted.cuh"

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
DEVICE void shared_atomics(const Planted& p) {
    SHARED(uint32_t, sum, 1);
    if (threadIdx.x == 0) sum[0] = 0;
    __syncthreads();
    atomicAdd(&sum[0], threadIdx.x);
    if (!FAULT) __syncthreads();
    p.out[threadIdx.x] = sum[0];
}
PLANTED(shared_atomics, 64)

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

// Parts of a warp are not ordered with each other.
template <bool FAULT>
DEVICE void partial_syncwarp(const Planted& p) {
    SHARED(uint32_t, words, 32);
    words[LANE] = 1;
    if (!FAULT) __syncwarp();
    if (LANE < 16) {
        if (FAULT) __syncwarp(0xffff);
        p.out[LANE] = words[31 - LANE];
    } else {
        p.out[LANE] = 0;
    }
}
PLANTED(partial_syncwarp, 32)

// A barrier counts however many come between: none, or as many as the counters of a smaller stamp wrap at.
template <bool FAULT>
DEVICE void many_barriers(const Planted& p) {
    SHARED(uint32_t, words, 64);
    words[threadIdx.x] = 1;
    for (uint32_t i = 0; i < (FAULT ? 0 : p.count); i++) __syncthreads();
    p.out[threadIdx.x] = words[63 - threadIdx.x];
}
template <bool FAULT>
DEVICE void many_warp_barriers(const Planted& p) {
    SHARED(uint32_t, words, 32);
    words[LANE] = 1;
    for (uint32_t i = 0; i < (FAULT ? 0 : p.count); i++) __syncwarp();
    p.out[LANE] = words[31 - LANE];
}
PLANTED(many_barriers, 64)
PLANTED(many_warp_barriers, 32)

// A warp's barriers are not the block's.
template <bool FAULT>
DEVICE void barrier_of_warp_alone(const Planted& p) {
    SHARED(uint32_t, words, 64);
    words[threadIdx.x] = 1;
    __syncwarp();
    __syncwarp();
    if (!FAULT) __syncthreads();
    p.out[threadIdx.x] = words[63 - threadIdx.x];
}
PLANTED(barrier_of_warp_alone, 64)

template <bool FAULT>
DEVICE void endless(const Planted& p) {
    if (LANE == 0) {
        while (FAULT && atomicAdd(&p.out[0], 0u) == 0) continue;
    }
    p.out[LANE] = 1;
}
template <bool FAULT>
DEVICE void endless_barriers(const Planted& p) {
    do {
        __syncthreads();
    } while (FAULT);
    p.out[LANE] = 1;
}
PLANTED(endless, 32)
PLANTED(endless_barriers, 32)

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
    const uint32_t read = *const_cast<const volatile uint32_t*>(&p.out[FAULT ? 1 : 2]); // where it stands: not below
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
