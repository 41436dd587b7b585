// Kernels with a planted fault, `planted_x`, each beside its correct twin, `right_x`: the emulator's own tests.
#include "device.cuh"

struct Planted {
    const uint32_t* in;
    uint32_t* out;
    uint32_t count, padding;
};

#define PLANTED(name, THREADS)                                            \
    KERNEL(planted_##name, Planted, THREADS, 1) { name<true>(p); }        \
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
DEVICE void missing_wait(const Planted& p) { copies<FAULT, false>(p); }
template <bool FAULT>
DEVICE void short_wait(const Planted& p) { copies<FAULT, true>(p); }
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

// Sixteen bytes, of which the last four are handed on.
DEVICE void copy_one(uint32_t* to, const uint32_t* from, uint32_t* out) {
    cp_async<16>(to, from, true);
    cp_async_commit();
    cp_async_wait<0>();
    out[0] = to[3];
}
template <bool FAULT>
DEVICE void misaligned_target(const Planted& p) {
    SHARED(uint32_t, words, 8);
    if (LANE == 0) copy_one(words + (FAULT ? 1 : 0), p.in, p.out);
}
template <bool FAULT>
DEVICE void misaligned_source(const Planted& p) {
    SHARED(uint32_t, words, 8);
    if (LANE == 0) copy_one(words, p.in + (FAULT ? 2 : 0), p.out);
}
template <bool FAULT>
DEVICE void copy_to_global(const Planted& p) {
    SHARED(uint32_t, words, 8);
    if (LANE == 0) copy_one(FAULT ? p.out + 4 : words, p.in, p.out);
}
template <bool FAULT>
DEVICE void copy_from_shared(const Planted& p) {
    SHARED(uint32_t, words, 8);
    if (LANE == 0) words[4] = words[5] = words[6] = words[7] = 1;
    if (LANE == 0) copy_one(words, FAULT ? words + 4 : p.in, p.out);
}
PLANTED(misaligned_target, 32)
PLANTED(misaligned_source, 32)
PLANTED(copy_to_global, 32)
PLANTED(copy_from_shared, 32)

template <bool FAULT>
DEVICE void matrix_of_global(const Planted& p) {
    SHARED(uint4, rows, 32);
    rows[LANE] = reinterpret_cast<const uint4*>(p.in)[LANE];
    __syncwarp();
    uint32_t matrices[4];
    ldmatrix(matrices, FAULT ? static_cast<const void*>(p.in + 4 * LANE) : rows + LANE);
    p.out[LANE] = matrices[0] + matrices[3];
}
PLANTED(matrix_of_global, 32)

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

// Past the end of an array, by as much as the next one's distance where they lie side by side.
template <bool FAULT>
DEVICE void overflow_into_next(const Planted& p) {
    SHARED(uint32_t, words, 32);
    SHARED(uint32_t, next, 64);
    next[LANE] = next[LANE + 32] = 1;
    __syncwarp();
    if (LANE < 8) words[FAULT ? 48 + LANE : LANE] = 3;
    __syncwarp();
    p.out[LANE] = next[LANE];
}
template <bool FAULT>
DEVICE void far_overflow(const Planted& p) {
    SHARED(uint32_t, words, 32);
    SHARED(uint32_t, next, 64);
    next[LANE] = words[LANE] = 1;
    p.out[LANE] = words[FAULT ? LANE + 800 : LANE] + next[LANE];
}
template <bool FAULT>
DEVICE void before_shared(const Planted& p) {
    DYNAMIC_SHARED(uint32_t, words);
    words[FAULT ? static_cast<int>(LANE) - 1 : LANE] = LANE;
    p.out[LANE] = 1;
}
PLANTED(overflow_into_next, 32)
PLANTED(far_overflow, 32)
PLANTED(before_shared, 32)

// The launch asks for no dynamic shared memory.
template <bool FAULT>
DEVICE void no_dynamic(const Planted& p) {
    SHARED(uint32_t, words, 32);
    DYNAMIC_SHARED(uint32_t, dynamic);
    words[LANE] = 7;
    __syncwarp();
    if (FAULT) dynamic[LANE] = LANE;
    p.out[LANE] = words[LANE];
}
PLANTED(no_dynamic, 32)

// More than 48 KB of static shared memory; more than there is with what the launch asks for.
template <bool FAULT>
DEVICE void much_static(const Planted& p) {
    SHARED(uint32_t, words, 12 * 1024 + (FAULT ? 1 : 0));
    p.out[LANE] = words[LANE] = 1;
}
template <bool FAULT>
DEVICE void much_shared(const Planted& p) {
    SHARED(uint32_t, words, 32 + (FAULT ? 1 : 0));
    p.out[LANE] = words[LANE] = 1;
}
PLANTED(much_static, 32)
PLANTED(much_shared, 32)

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

// Parts of a warp are not ordered.
template <bool FAULT>
DEVICE void partial_syncwarp(const Planted& p) {
    SHARED(uint32_t, words, 32);
    words[LANE] = 1;
    if (!FAULT) __syncwarp();
    if (LANE < 16) {
        if (FAULT) __syncwarp(0xffff);
        p.out[LANE] = words[15 - LANE];
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

// One element past the end, and before the start.
template <bool FAULT>
DEVICE void read_past_end(const Planted& p) { p.out[LANE] = p.in[FAULT ? LANE + 1 : LANE]; }
template <bool FAULT>
DEVICE void read_before_start(const Planted& p) { p.out[LANE] = p.in[FAULT ? static_cast<int>(LANE) - 1 : LANE]; }
template <bool FAULT>
DEVICE void write_past_end(const Planted& p) { p.out[FAULT ? LANE + 1 : LANE] = 1; }
template <bool FAULT>
DEVICE void write_before_start(const Planted& p) { p.out[FAULT ? static_cast<int>(LANE) - 1 : LANE] = 1; }
PLANTED(read_past_end, 32)
PLANTED(read_before_start, 32)
PLANTED(write_past_end, 32)
PLANTED(write_before_start, 32)

// So far past the end that another buffer could lie there.
template <bool FAULT>
DEVICE void read_far_past_end(const Planted& p) { p.out[LANE] = p.in[FAULT ? LANE + p.count : LANE]; }
PLANTED(read_far_past_end, 32)

// What a CPU computes otherwise, or lets pass.
template <bool FAULT>
DEVICE void long_shift(const Planted& p) { p.out[LANE] = p.in[LANE] << (p.count + (FAULT ? 1 : 0)); }
template <bool FAULT>
DEVICE void local_overflow(const Planted& p) {
    uint32_t words[4];
    for (uint32_t i = 0; i < 4; i++) words[i] = p.in[i];
    p.out[LANE] = words[(p.count + LANE) % (FAULT ? 64 : 4)];
}
PLANTED(long_shift, 32)
PLANTED(local_overflow, 32)

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

// The same line of two files: at the end, because the lines after it have other numbers.
#line 1000 "one.cuh"
DEVICE uint32_t sum_in_one() { return __reduce_add_sync(~0u, 1); }
#line 1000 "two.cuh"
DEVICE uint32_t sum_in_two() { return __reduce_add_sync(~0u, 1); }
template <bool FAULT>
DEVICE void two_files(const Planted& p) {
    p.out[LANE] = FAULT && LANE < 16 ? sum_in_one() : sum_in_two();
}
PLANTED(two_files, 32)
