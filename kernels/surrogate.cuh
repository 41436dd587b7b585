// Surrogate slopes g at d = H - threshold: the only CUDA copy, operation for operation that of src/surrogate.rs.
#pragma once
#include "device.cuh"

// AdaLi's window [-left, right] around the threshold in membrane units, and the slope on each side.
struct alignas(16) Window {
    float left, right, slope_left, slope_right;
};

DEVICE bool inside(const Window& w, float d) { return d >= -w.left && d <= w.right; }

// Every slope that is a formula of the membrane, in the order of SurrogateKind: its name in kernel names, its struct.
#define FORMULAS(EACH) EACH(sigmoid, Sigmoid) EACH(arctan, Arctan) EACH(triangle, Triangle) EACH(softsign, Softsign)

enum class SlopeKind : uint32_t {
    Adali,
#define KIND(name, Formula) Formula,
    FORMULAS(KIND)
#undef KIND
};

// A formula's constants in membrane units; AdaLi has its windows instead.
struct SlopeConstants {
    float height, rate;
};

// AdaLi's slope depends only on a spike bit and a window bit. It is never computed from a membrane: storing H in 16
// bits may move it over the threshold or out of the window, so both bits are those of the forward pass.
struct Adali {
    static constexpr bool needs_membrane = false;
    static DEVICE float of_bits(const Window& w, bool inside, bool spike) {
        const float side = spike ? w.slope_right : w.slope_left;
        return inside ? side : 0.0f;
    }
};

// exp(-x) for x >= 0, with relative error below 2e-7.
DEVICE float exp_of_negative(float x) {
    x = fminf(x, 87.0f);
    // -x = n ln 2 + r with n rounded down, so 0 <= r < ln 2; ln 2 in two parts keeps r exact.
    const float n = floorf(x * -1.44269504088896341f);
    const float r = fmaf(-n, 1.4286068e-6f, fmaf(-n, 0.69314575f, -x));
    const float h = 0.5f * r;
    float p = fmaf(h, 1.0f / 720.0f, 1.0f / 120.0f);
    p = fmaf(h, p, 1.0f / 24.0f);
    p = fmaf(h, p, 1.0f / 6.0f);
    p = fmaf(h, p, 0.5f);
    p = fmaf(h, p, 1.0f);
    p = fmaf(h, p, 1.0f);
    return p * p * __uint_as_float(static_cast<uint32_t>(static_cast<int>(n) + 127) << 23);
}

struct Sigmoid {
    static constexpr bool needs_membrane = true;
    static DEVICE float at(SlopeConstants c, float d) {
        const float e = exp_of_negative(fabsf(c.rate * d));
        return c.rate * e / ((1.0f + e) * (1.0f + e));
    }
};

struct Arctan {
    static constexpr bool needs_membrane = true;
    static DEVICE float at(SlopeConstants c, float d) {
        const float x = c.rate * d;
        return c.height / fmaf(x, x, 1.0f);
    }
};

struct Triangle {
    static constexpr bool needs_membrane = true;
    static DEVICE float at(SlopeConstants c, float d) { return fmaxf(fmaf(-c.rate, fabsf(d), c.height), 0.0f); }
};

struct Softsign {
    static constexpr bool needs_membrane = true;
    static DEVICE float at(SlopeConstants c, float d) {
        const float x = fmaf(c.rate, fabsf(d), 1.0f);
        return c.height / (x * x);
    }
};
