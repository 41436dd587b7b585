// Dropout: one mask for all steps of a sample, drawn where it is used.
//
//   keep = uniform(seed, place, channel) >= probability
//   spikes: S keep                         values, in place: x / (1 - probability) where kept, else 0 x
//
// spikes -> kept [T][places][C/32]; values [T][places][C]. Threads as in places.cuh. Memory traffic, per neuron-step: 2
// bits (spikes), 4 bytes (2-byte values). Each neuron's draw is three rounds of 64-bit mixing, about 75 integer
// instructions, once for all steps: on an H100 they bound the spike kernel, and the value kernel up to about T = 2.
#include "places.cuh"
#include "random.cuh"
#include "value.cuh"

// What determines a mask. In exact integers: 2^53 uniform >= threshold = 2^53 probability, rounded up.
struct Mask {
    const unsigned long long* seed;
    unsigned long long threshold;
};

struct DropoutSpikes {
    const uint32_t* spikes;
    uint32_t* kept;
    Mask mask;
    Places places;
    uint32_t channels;  // without padding
};

struct DropoutValues {
    void* values;
    Mask mask;
    Places places;
    uint32_t channels;  // without padding
    float scale;        // 1 / (1 - probability)
    uint32_t padding;
};

// Which of eight channels the mask keeps, excluding padding.
DEVICE uint32_t draw(const CounterRng& rng, uint64_t threshold, uint32_t place, uint32_t channels, uint32_t first) {
    CounterRng neuron = rng.from(static_cast<uint64_t>(place) * channels + first);
    uint32_t keep = 0;
#pragma unroll
    for (uint32_t i = 0; i < 8; i++, neuron.next_case()) {
        keep |= static_cast<uint32_t>(neuron.fork_here().uniform53() >= threshold) << i;
    }
    const uint32_t left = channels - min(first, channels);
    return left < 8 ? keep & ((1u << left) - 1) : keep;
}

KERNEL(dropout_spikes, DropoutSpikes, PLACE_THREADS, 4) {
    const CounterRng rng(*p.mask.seed, DROPOUT_STREAM);
    const Quad quad(p.places);
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    // All quads of a warp stay together: word_of_quad needs them.
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
    using Stored = typename V::Stored;
    // Steps whose values are in flight together; the first of them are loaded during the draw.
    constexpr uint32_t AHEAD = 8 / sizeof(Stored);
    auto* values = static_cast<Stored*>(p.values);
    const Quad quad(p.places);
    if (!quad.active) return;
    const size_t step = static_cast<size_t>(p.places.places) * p.places.words * 32;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        uint32_t keep = 0;
        auto* at = values + static_cast<size_t>(place) * p.places.words * 32 + quad.channel();
        for (uint32_t start = 0; start < p.places.steps; start += AHEAD, at += AHEAD * step) {
            typename V::Eight fetched[AHEAD] = {};
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++) {
                if (start + j < p.places.steps) fetched[j] = V::fetch8(at + j * step);
            }
            if (start == 0) keep = draw(rng, p.mask.threshold, place, p.channels, quad.channel());
#pragma unroll
            for (uint32_t j = 0; j < AHEAD; j++) {
                if (start + j >= p.places.steps) break;
                float x[8];
                V::unpack8(fetched[j], x);
#pragma unroll
                for (int i = 0; i < 8; i++) x[i] *= keep >> i & 1 ? p.scale : 0.0f;
                V::store8(at + j * step, x);
            }
        }
    }
}

KERNEL_EACH_VALUE(dropout_values, DropoutValues, PLACE_THREADS, 4, dropout_values)
