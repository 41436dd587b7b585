// Memory: bounds, spaces, alignment, limits, and what nothing has written.
#include "planted.cuh"

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

// No report: what it computes is no number, in every block.
template <bool FAULT>
DEVICE void unwritten_register(const Planted& p) {
    float sum;
    if (FAULT) {
        asm volatile("{.reg .f32 nothing; add.f32 %0, nothing, 0f3F800000;}" : "=f"(sum));
    } else {
        asm volatile("{.reg .f32 nothing; mov.f32 nothing, 0f00000000; add.f32 %0, nothing, 0f3F800000;}" : "=f"(sum));
    }
    if (LANE == 0) p.out[blockIdx.x] = __float_as_uint(sum);
}
PLANTED(unwritten_register, 32)

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
    if (LANE < 8) words[(FAULT ? 48 : 0) + LANE * p.in[0]] = 3;
    __syncwarp();
    p.out[LANE] = next[LANE] + words[LANE % 8];
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
    words[static_cast<int>(LANE) - (FAULT ? 1 : 0)] = LANE;
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

// More than 48 KB of static shared memory.
template <bool FAULT>
DEVICE void much_static(const Planted& p) {
    SHARED(uint32_t, words, 12 * 1024 + (FAULT ? 1 : 0));
    words[LANE] = 1;
    __syncwarp();
    p.out[LANE] = words[31 - LANE];
}
PLANTED(much_static, 32)

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

// One element past the end, and before the start.
template <bool FAULT>
DEVICE void read_past_end(const Planted& p) {
    p.out[LANE] = p.in[FAULT ? LANE + 1 : LANE];
}
template <bool FAULT>
DEVICE void read_before_start(const Planted& p) {
    p.out[LANE] = p.in[static_cast<int>(LANE) - (FAULT ? 1 : 0)];
}
template <bool FAULT>
DEVICE void write_past_end(const Planted& p) {
    p.out[FAULT ? LANE + 1 : LANE] = 1;
}
template <bool FAULT>
DEVICE void write_before_start(const Planted& p) {
    p.out[static_cast<int>(LANE) - (FAULT ? 1 : 0)] = 1;
}
PLANTED(read_past_end, 32)
PLANTED(read_before_start, 32)
PLANTED(write_past_end, 32)
PLANTED(write_before_start, 32)

// So far past the end that another buffer could lie there.
template <bool FAULT>
DEVICE void read_far_past_end(const Planted& p) {
    p.out[LANE] = p.in[FAULT ? LANE + p.count : LANE];
}
PLANTED(read_far_past_end, 32)

// 16 bytes at an address that is a multiple of 4 alone.
template <bool FAULT>
DEVICE void misaligned_read(const Planted& p) {
    const uint4 four = *reinterpret_cast<const uint4*>(p.in + (FAULT ? 1 : 0));
    p.out[LANE] = four.x + four.y + four.z + four.w;
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
DEVICE void incomplete_output(const Planted& p) {
    if (!FAULT || LANE != 30) p.out[LANE] = 1;
}
PLANTED(incomplete_output, 32)
