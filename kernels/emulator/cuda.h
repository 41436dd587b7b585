// The CUDA language for g++: what adali's kernels use of it, and nothing else, so that what is missing does not
// compile. Each CUDA thread is a coroutine; barriers and warp instructions are places where it waits.
#pragma once
#include <cmath>
#include <cstring>

#include "emulator.h"

#define __global__
#define __device__
#define __forceinline__ inline
#define __restrict__ __restrict

#define threadIdx (emu::thread_index())
#define blockIdx (emu::block_index())
#define blockDim (emu::block_dim())
#define gridDim (emu::grid_dim())
#define LANE (emu::lane())

// The caller's place in the source, as a default argument.
#define EMU_SITE emu::Site site = emu::Site::here()

#define KERNEL(name, Params, THREADS, BLOCKS)                                 \
    static void name(const Params& p);                                        \
    static const emu::Registration name##_registration(                       \
        emu::Kernel{#name, sizeof(Params), THREADS, [](const void* params) {  \
                        const Params p = *static_cast<const Params*>(params); \
                        name(p);                                              \
                    }});                                                      \
    static void name(const Params& p)

#define EMU_FIELD(S, f) emu::Field{#f, offsetof(S, f), sizeof(S::f)},
#define LAYOUT(S, ...)                                                 \
    static const emu::Field S##_fields[] = {EMU_EACH(S, __VA_ARGS__)}; \
    static const emu::Registration S##_layout(#S, sizeof(S), S##_fields, sizeof(S##_fields) / sizeof(emu::Field));
// Applies EMU_FIELD to each name of a list.
#define EMU_PARENS ()
#define EMU_EXPAND(...) EMU_EXPAND3(EMU_EXPAND3(EMU_EXPAND3(__VA_ARGS__)))
#define EMU_EXPAND3(...) EMU_EXPAND2(EMU_EXPAND2(EMU_EXPAND2(__VA_ARGS__)))
#define EMU_EXPAND2(...) EMU_EXPAND1(EMU_EXPAND1(EMU_EXPAND1(__VA_ARGS__)))
#define EMU_EXPAND1(...) __VA_ARGS__
#define EMU_EACH(S, ...) __VA_OPT__(EMU_EXPAND(EMU_EACH_STEP(S, __VA_ARGS__)))
#define EMU_EACH_STEP(S, f, ...) EMU_FIELD(S, f) __VA_OPT__(EMU_EACH_AGAIN EMU_PARENS(S, __VA_ARGS__))
#define EMU_EACH_AGAIN() EMU_EACH_STEP

#define DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(emu::dynamic_shared())
#define SHARED(T, name, N)            \
    static const char name##_key = 0; \
    T* const name = static_cast<T*>(emu::static_shared(&name##_key, sizeof(T) * (N), #name))

struct alignas(8) uint2 {
    uint32_t x, y;
};
struct alignas(16) uint4 {
    uint32_t x, y, z, w;
};
struct alignas(16) float4 {
    float x, y, z, w;
};

static inline void __syncthreads(EMU_SITE) { emu::barrier(site); }

static inline void __syncwarp(unsigned mask = ~0u, EMU_SITE) { emu::warp_barrier(mask, site); }

namespace emu {

// A value and the lane to take another's from.
template <class T>
struct Shuffle {
    T value;
    unsigned from;
    T got;
};

template <class T>
T shuffle(unsigned mask, T value, unsigned from, const char* instruction, Site site) {
    Shuffle<T> self{value, from & 31, value};
    collective(mask, site, instruction, &self, [](void* const(&lanes)[32], unsigned mask) {
        for (unsigned i = 0; i < 32; i++) {
            if (!(mask >> i & 1)) continue;
            auto* lane = static_cast<Shuffle<T>*>(lanes[i]);
            // From a lane outside the mask nothing defined arrives.
            if (mask >> lane->from & 1) {
                lane->got = static_cast<Shuffle<T>*>(lanes[lane->from])->value;
            } else {
                memset(&lane->got, 0xff, sizeof(T));
            }
        }
    });
    return self.got;
}

struct Word {
    uint32_t in, out;
};

template <class F>
uint32_t reduce(unsigned mask, uint32_t value, const char* instruction, Site site, F) {
    Word self{value, 0};
    collective(mask, site, instruction, &self, [](void* const(&lanes)[32], unsigned mask) {
        uint32_t total = 0;
        for (unsigned i = 0; i < 32; i++) {
            if (mask >> i & 1) total = F::combine(total, static_cast<Word*>(lanes[i])->in, i);
        }
        for (unsigned i = 0; i < 32; i++) {
            if (mask >> i & 1) static_cast<Word*>(lanes[i])->out = total;
        }
    });
    return self.out;
}
struct Add {
    static uint32_t combine(uint32_t total, uint32_t x, unsigned) { return total + x; }
};
struct Or {
    static uint32_t combine(uint32_t total, uint32_t x, unsigned) { return total | x; }
};
struct Ballot {
    static uint32_t combine(uint32_t total, uint32_t x, unsigned lane) { return total | (x != 0) << lane; }
};

}  // namespace emu

template <class T>
static inline T __shfl_sync(unsigned mask, T value, unsigned lane, EMU_SITE) {
    return emu::shuffle(mask, value, lane, "__shfl_sync", site);
}
template <class T>
static inline T __shfl_xor_sync(unsigned mask, T value, unsigned with, EMU_SITE) {
    return emu::shuffle(mask, value, LANE ^ with, "__shfl_xor_sync", site);
}
template <class T>
static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, EMU_SITE) {
    return emu::shuffle(mask, value, LANE >= by ? LANE - by : LANE, "__shfl_up_sync", site);
}
static inline unsigned __ballot_sync(unsigned mask, bool vote, EMU_SITE) {
    return emu::reduce(mask, vote, "__ballot_sync", site, emu::Ballot{});
}
static inline unsigned __reduce_add_sync(unsigned mask, unsigned x, EMU_SITE) {
    return emu::reduce(mask, x, "__reduce_add_sync", site, emu::Add{});
}
static inline unsigned __reduce_or_sync(unsigned mask, unsigned x, EMU_SITE) {
    return emu::reduce(mask, x, "__reduce_or_sync", site, emu::Or{});
}
static inline unsigned atomicAdd(unsigned* at, unsigned value) { return emu::atomic_add(at, value); }
static inline unsigned long long atomicAdd(unsigned long long* at, unsigned long long value) {
    return emu::atomic_add(at, value);
}
static inline unsigned atomicCAS(unsigned* at, unsigned expected, unsigned value) {
    return emu::atomic_cas(at, expected, value);
}
static inline unsigned long long atomicCAS(unsigned long long* at, unsigned long long expected,
                                           unsigned long long value) {
    return emu::atomic_cas(at, expected, value);
}
static inline unsigned __match_any_sync(unsigned mask, unsigned value, EMU_SITE) {
    emu::Word self{value, 0};
    emu::collective(mask, site, "__match_any_sync", &self, [](void* const(&lanes)[32], unsigned mask) {
        for (unsigned i = 0; i < 32; i++) {
            if (!(mask >> i & 1)) continue;
            for (unsigned j = 0; j < 32; j++) {
                auto *a = static_cast<emu::Word*>(lanes[i]),
                     *b = mask >> j & 1 ? static_cast<emu::Word*>(lanes[j]) : nullptr;
                if (b && b->in == a->in) a->out |= 1u << j;
            }
        }
    });
    return self.out;
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(unsigned x) { return __builtin_ffs(static_cast<int>(x)); }
static inline uint64_t __umul64hi(uint64_t x, uint64_t y) {
    return static_cast<uint64_t>(static_cast<unsigned __int128>(x) * y >> 64);
}
static inline uint32_t __float_as_uint(float x) {
    uint32_t u;
    memcpy(&u, &x, 4);
    return u;
}
static inline float __uint_as_float(uint32_t u) {
    float x;
    memcpy(&x, &u, 4);
    return x;
}
template <class T>
static inline T __ldg(const T* at) {
    return *at;
}
template <class T>
static inline T min(T a, T b) {
    return b < a ? b : a;
}
template <class T>
static inline T max(T a, T b) {
    return a < b ? b : a;
}
static inline uint32_t rotate_right(uint32_t x, uint32_t by) {
    by &= 31;
    return by ? x >> by | x << (32 - by) : x;
}
// The bytes of y:x that the nibbles of `selector` name.
static inline uint32_t __byte_perm(uint32_t x, uint32_t y, uint32_t selector) {
    const uint64_t both = static_cast<uint64_t>(y) << 32 | x;
    uint32_t out = 0;
    for (int i = 0; i < 4; i++) out |= static_cast<uint32_t>(both >> 8 * (selector >> 4 * i & 7) & 0xff) << 8 * i;
    return out;
}

// 16-bit floating point, rounded to nearest even.
namespace emu {

static inline float bf16_to_float(uint32_t bits) { return __uint_as_float(bits << 16); }
static inline uint32_t float_to_bf16(float x) {
    const uint32_t u = __float_as_uint(x);
    if (x != x) return 0x7fff;
    return (u + 0x7fff + (u >> 16 & 1)) >> 16;
}
static inline float f16_to_float(uint32_t bits) {
    const uint32_t sign = (bits & 0x8000) << 16, exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    if (exponent) return __uint_as_float(sign | (exponent + 112) << 23 | fraction << 13);
    const float small = static_cast<float>(fraction) * 0x1p-24f;
    return sign ? -small : small;
}
static inline uint32_t float_to_f16(float x) {
    const uint32_t u = __float_as_uint(x), sign = u >> 16 & 0x8000;
    if (x != x) return 0x7fff;
    const float size = std::fabs(x);
    if (size >= 65520.0f) return sign | 0x7c00;
    // Adding half a unit's worth of a power of two makes f32 round where f16 does.
    if (size < 0x1p-14f) {
        const float rounded = size + 0.5f;  // unit in the last place of [.5, 1) is 2^-24, that of f16's smallest
        return sign | (__float_as_uint(rounded) - 0x3f000000);
    }
    const uint32_t v = u & 0x7fffffff;
    return sign | (((v + 0xfff + (v >> 13 & 1)) >> 13) - (112 << 10));
}

// m16n8k16: D = A B + C, with the fragments of the PTX manual.
struct Mma {
    const uint32_t *a, *b;
    float* c;
};
template <float (*to_float)(uint32_t)>
void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const char* instruction, Site site) {
    const uint32_t b[2] = {b0, b1};
    Mma self{a, b, c};
    collective(~0u, site, instruction, &self, [](void* const(&lanes)[32], unsigned) {
        float a[16][16], b[16][8];
        for (int lane = 0; lane < 32; lane++) {
            const Mma& m = *static_cast<Mma*>(lanes[lane]);
            const int row = lane / 4, pair = lane % 4 * 2;
            for (int i = 0; i < 4; i++) {
                for (int e = 0; e < 2; e++)
                    a[row + 8 * (i & 1)][pair + e + 8 * (i >> 1)] = to_float(m.a[i] >> 16 * e & 0xffff);
            }
            for (int i = 0; i < 2; i++) {
                for (int e = 0; e < 2; e++) b[pair + e + 8 * i][row] = to_float(m.b[i] >> 16 * e & 0xffff);
            }
        }
        float d[16][8] = {};
        for (int i = 0; i < 16; i++) {
            for (int k = 0; k < 16; k++) {
                for (int j = 0; j < 8; j++) d[i][j] += a[i][k] * b[k][j];
            }
        }
        for (int lane = 0; lane < 32; lane++) {
            float* c = static_cast<Mma*>(lanes[lane])->c;
            for (int i = 0; i < 4; i++) c[i] += d[lane / 4 + 8 * (i >> 1)][lane % 4 * 2 + (i & 1)];
        }
    });
}

// Four 8x8 matrices of 16-bit values; lane 8i + r gives the address of row r of matrix i.
struct LdMatrix {
    const void* row;
    uint32_t* out;
};
template <bool TRANSPOSED>
void ldmatrix(uint32_t (&out)[4], const void* row, const char* instruction, Site site) {
    check_row(row, 16, instruction, site);
    LdMatrix self{row, out};
    collective(~0u, site, instruction, &self, [](void* const(&lanes)[32], unsigned) {
        uint16_t m[4][8][8];
        for (int lane = 0; lane < 32; lane++)
            memcpy(m[lane / 8][lane % 8], static_cast<LdMatrix*>(lanes[lane])->row, 16);
        for (int lane = 0; lane < 32; lane++) {
            const int row = lane / 4, pair = lane % 4 * 2;
            for (int i = 0; i < 4; i++) {
                const uint32_t low = TRANSPOSED ? m[i][pair][row] : m[i][row][pair];
                const uint32_t high = TRANSPOSED ? m[i][pair + 1][row] : m[i][row][pair + 1];
                static_cast<LdMatrix*>(lanes[lane])->out[i] = low | high << 16;
            }
        }
    });
}

}  // namespace emu

static inline void mma_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMU_SITE) {
    emu::mma<emu::bf16_to_float>(c, a, b0, b1, "mma.bf16", site);
}
static inline void mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, EMU_SITE) {
    emu::mma<emu::f16_to_float>(c, a, b0, b1, "mma.f16", site);
}
static inline void ldmatrix(uint32_t (&out)[4], const void* row, EMU_SITE) {
    emu::ldmatrix<false>(out, row, "ldmatrix", site);
}
static inline void ldmatrix_transposed(uint32_t (&out)[4], const void* row, EMU_SITE) {
    emu::ldmatrix<true>(out, row, "ldmatrix.trans", site);
}
template <int BYTES>
static inline void cp_async(void* to, const void* from, bool valid, EMU_SITE) {
    static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async copies 4, 8 or 16 bytes");
    emu::copy_async(to, from, BYTES, valid ? BYTES : 0, site);
}
static inline void cp_async_commit() { emu::commit_copies(); }
template <int GROUPS_LEFT>
static inline void cp_async_wait() {
    emu::wait_copies(GROUPS_LEFT);
}
static inline uint32_t pack_bf16(float low, float high) {
    return emu::float_to_bf16(low) | emu::float_to_bf16(high) << 16;
}
static inline uint32_t pack_f16(float low, float high) {
    return emu::float_to_f16(low) | emu::float_to_f16(high) << 16;
}
static inline float unpack_f16(uint32_t bits) { return emu::f16_to_float(bits & 0xffff); }

// What the compiler may leave as calls, whose accesses nobody checks: kernels copy by assignment.
#pragma GCC poison memcpy memmove memset __builtin_memcpy __builtin_memmove __builtin_memset
