// Random numbers without saved state: the only CUDA copy of CounterRng, number for number that of src/random.rs,
// so that every backend draws the same masks and crops.
#pragma once
#include "device.cuh"

// What a generator is used for.
enum Stream : uint64_t { PLACEMENT_STREAM = 2, DROPOUT_STREAM = 17 };

// SplitMix64 (G. Steele, D. Lea and C. Flood, OOPSLA 2014) from a hashed start.
class CounterRng {
public:
    DEVICE CounterRng(uint64_t seed, Stream stream) : CounterRng(CounterRng(mix(seed + GAMMA)).fork(stream)) {}

    // The generator of one case, such as an epoch or a sample; this generator stays unchanged.
    DEVICE CounterRng fork(uint64_t of_case) const { return from(of_case).fork_here(); }

    // For neighbouring cases: from(a + i).fork_here() is fork(a + i), and next_case() is one addition.
    DEVICE CounterRng from(uint64_t of_case) const { return CounterRng(state + of_case * GAMMA); }
    DEVICE void next_case() { state += GAMMA; }
    DEVICE CounterRng fork_here() const { return CounterRng(mix(~mix(state))); }

    DEVICE uint64_t next() { return mix(state += GAMMA); }

    // The next number below n, each equally likely (D. Lemire, 2019).
    DEVICE uint64_t below(uint64_t n) {
        const uint64_t rejected = (0 - n) % n;
        for (;;) {
            const uint64_t number = next();
            if (number * n >= rejected) return __umul64hi(number, n);
        }
    }

    // 2^53 times the next number in [0, 1).
    DEVICE uint64_t uniform53() { return next() >> 11; }

private:
    static constexpr uint64_t GAMMA = 0x9e3779b97f4a7c15;

    uint64_t state;

    explicit DEVICE CounterRng(uint64_t state) : state(state) {}

    static DEVICE uint64_t mix(uint64_t z) {
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
        z = (z ^ z >> 27) * 0x94d049bb133111eb;
        return z ^ z >> 31;
    }
};
