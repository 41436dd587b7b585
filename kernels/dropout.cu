// Dropout: one mask for all steps of a sample, drawn where it is used.
//
//   keep = uniform(seed, place, channel) >= probability
//   spikes: S keep                         values, in place: x / (1 - probability) where kept, else 0 x
//
// spikes -> kept [T][places][C/32]; values [T][places][C]. Threads as in places.cuh. Moves, per neuron-step: 2 bits
// (spikes), 4 bytes (values of 2 bytes); a draw a neuron is about a hundred integer instructions, once for all steps.
#include "places.cuh"
#include "random.cuh"
#include "value.cuh"

// What a mask follows from. In exact integers: 2^53 uniform >= threshold = 2^53 probability, rounded up.
struct Mask {
    const unsigned long long* seed;
    unsigned long long threshold;
};
LAYOUT(Mask, seed, threshold)

struct DropoutSpikes {
    const uint32_t* spikes;
    uint32_t* kept;
    Mask mask;
    Places places;
    uint32_t channels;  // without padding
};
LAYOUT(DropoutSpikes, spikes, kept, mask, places, channels)

struct DropoutValues {
    void* values;
    Mask mask;
    Places places;
    uint32_t channels;  // without padding
    float scale;        // 1 / (1 - probability)
    uint32_t padding;
};
LAYOUT(DropoutValues, values, mask, places, channels, scale, padding)

// Which of eight channels the mask keeps; no padding.
DEVICE uint32_t draw(const CounterRng& rng, uint64_t threshold, uint32_t place, uint32_t channels, uint32_t first) {
    const uint64_t element = static_cast<uint64_t>(place) * channels + first;
    uint32_t keep = 0;
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        if (first + i < channels && rng.fork(element + i).uniform53() >= threshold) keep |= 1u << i;
    }
    return keep;
}

KERNEL(dropout_spikes, DropoutSpikes, PLACE_THREADS, 4) {
    const CounterRng rng(*p.mask.seed, DROPOUT_STREAM);
    const Quad quad(p.places);
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    // All quads of a warp walk together: word_of_quad needs them.
    const uint32_t rounds = (p.places.places + quad.stride - 1) / quad.stride;
    for (uint32_t round = 0; round < rounds; round++) {
        const uint32_t place = quad.first + round * quad.stride;
        const bool active = quad.active && place < p.places.places;
        uint32_t keep = active ? draw(rng, p.mask.threshold, place, p.channels, quad.channel()) : 0;
        keep = word_of_quad(keep, quad.lane);
        if (!active) continue;
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        for (size_t t = quad.lane, at = t * words + word; t < p.places.steps; t += 4, at += 4 * words) {
            p.kept[at] = p.spikes[at] & keep;
        }
    }
}

template <class V>
DEVICE void dropout_values(const DropoutValues& p) {
    const CounterRng rng(*p.mask.seed, DROPOUT_STREAM);
    auto* values = static_cast<typename V::Stored*>(p.values);
    const Quad quad(p.places);
    if (!quad.active) return;
    const size_t step = static_cast<size_t>(p.places.places) * p.places.words * 32;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const uint32_t keep = draw(rng, p.mask.threshold, place, p.channels, quad.channel());
        auto* at = values + static_cast<size_t>(place) * p.places.words * 32 + quad.channel();
        for (uint32_t t = 0; t < p.places.steps; t++, at += step) {
            float x[8];
            V::load8(at, x);
#pragma unroll
            for (int i = 0; i < 8; i++) x[i] *= keep >> i & 1 ? p.scale : 0.0f;
            V::store8(at, x);
        }
    }
}

KERNEL_EACH_VALUE(dropout_values, DropoutValues, PLACE_THREADS, 4, dropout_values)
