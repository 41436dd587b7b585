// Types of stored values: bf16, f16 (two bytes) and f32. Arithmetic is f32 everywhere; these types only load,
// store and feed the tensor cores.
#pragma once
#include "device.cuh"

struct F32 {
    using Stored = float;
    static DEVICE float load(const float* at) { return *at; }
    static DEVICE void store(float* at, float x) { *at = x; }
    // Eight loaded values, kept as they are in memory so that nothing waits for them before they are used.
    struct Eight {
        float4 a, b;
    };
    static DEVICE Eight fetch8(const float* at) {
        return {reinterpret_cast<const float4*>(at)[0], reinterpret_cast<const float4*>(at)[1]};
    }
    static DEVICE void unpack8(const Eight& from, float (&x)[8]) {
        const float4 a = from.a, b = from.b;
        x[0] = a.x, x[1] = a.y, x[2] = a.z, x[3] = a.w, x[4] = b.x, x[5] = b.y, x[6] = b.z, x[7] = b.w;
    }
    static DEVICE void load8(const float* at, float (&x)[8]) { unpack8(fetch8(at), x); }
    static DEVICE void store8(float* at, const float (&x)[8]) {
        reinterpret_cast<float4*>(at)[0] = float4{x[0], x[1], x[2], x[3]};
        reinterpret_cast<float4*>(at)[1] = float4{x[4], x[5], x[6], x[7]};
    }
    static DEVICE void round8(float (&)[8]) {}
};

// Two 16-bit values share a register, the first in the low half.
template <class V>
struct Half {
    using Stored = uint16_t;
    static DEVICE float load(const uint16_t* at) { return V::low(*at); }
    static DEVICE void store(uint16_t* at, float x) { *at = static_cast<uint16_t>(V::pack(x, 0.0f)); }
    using Eight = uint4;
    static DEVICE Eight fetch8(const uint16_t* at) { return *reinterpret_cast<const uint4*>(at); }
    static DEVICE void unpack8(const Eight& from, float (&x)[8]) {
        const uint32_t pairs[4] = {from.x, from.y, from.z, from.w};
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[2 * i] = V::low(pairs[i]);
            x[2 * i + 1] = V::high(pairs[i]);
        }
    }
    static DEVICE void load8(const uint16_t* at, float (&x)[8]) { unpack8(fetch8(at), x); }
    static DEVICE void store8(uint16_t* at, const float (&x)[8]) {
        *reinterpret_cast<uint4*>(at) =
            uint4{V::pack(x[0], x[1]), V::pack(x[2], x[3]), V::pack(x[4], x[5]), V::pack(x[6], x[7])};
    }
    // As after storing.
    static DEVICE void round8(float (&x)[8]) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const uint32_t pair = V::pack(x[2 * i], x[2 * i + 1]);
            x[2 * i] = V::low(pair);
            x[2 * i + 1] = V::high(pair);
        }
    }
};

struct Bf16 : Half<Bf16> {
    static constexpr uint32_t ONE = 0x3f80;
    // Spikes as operands: lane q's four bits of each half of a word go to bits 11 … 14, the upper exponent bits of
    // bf16, where a single bit is a power of two: 2^-111, 2^-95, 2^-63 or 2. The weight it multiplies is packed times
    // the inverse, so the product is exactly the weight (below 2^17, where the range ends).
    static DEVICE uint32_t align_spikes(uint32_t word, uint32_t q) { return rotate_right(word, 4 * q - 11); }
    static DEVICE uint32_t spikes(uint32_t aligned, int s) { return aligned & 0x08000800u << s; }
    static DEVICE float spike_inverse(int s) { return __uint_as_float((127u + 127u - (16u << s)) << 23); }
    static DEVICE uint32_t pack(float low, float high) { return pack_bf16(low, high); }
    static DEVICE float low(uint32_t pair) { return __uint_as_float(pair << 16); }
    static DEVICE float high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }
    static DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma_bf16(c, a, b0, b1); }
};

struct F16 : Half<F16> {
    static constexpr uint32_t ONE = 0x3c00;
    // The range of f16 is too small for that: the bits stay low and are multiplied up to 1.0.
    static DEVICE uint32_t align_spikes(uint32_t word, uint32_t q) { return word >> 4 * q; }
    static DEVICE uint32_t spikes(uint32_t aligned, int s) { return (aligned & 0x00010001u << s) * (ONE >> s); }
    static DEVICE float spike_inverse(int) { return 1.0f; }
    static DEVICE uint32_t pack(float low, float high) { return pack_f16(low, high); }
    static DEVICE float low(uint32_t pair) { return unpack_f16(pair & 0xffff); }
    static DEVICE float high(uint32_t pair) { return unpack_f16(pair >> 16); }
    static DEVICE void mma(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) { mma_f16(c, a, b0, b1); }
};

// Writes eight values, or adds them to what is there.
template <class V>
DEVICE void put8(typename V::Stored* at, float (&x)[8], bool add) {
    if (add) {
        float before[8];
        V::load8(at, before);
#pragma unroll
        for (int i = 0; i < 8; i++) x[i] += before[i];
    }
    V::store8(at, x);
}

// Defines one kernel per type: `name_bf16` and so on, all calling `body<V>(p)`.
#define KERNEL_EACH_HALF(name, Params, THREADS, BLOCKS, body)       \
    KERNEL(name##_bf16, Params, THREADS, BLOCKS) { body<Bf16>(p); } \
    KERNEL(name##_f16, Params, THREADS, BLOCKS) { body<F16>(p); }
#define KERNEL_EACH_VALUE(name, Params, THREADS, BLOCKS, body)    \
    KERNEL(name##_f32, Params, THREADS, BLOCKS) { body<F32>(p); } \
    KERNEL_EACH_HALF(name, Params, THREADS, BLOCKS, body)
