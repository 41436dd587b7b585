// Convolution over all steps, affine map (bias, running batch norm and dropout's scale, folded) and neurons in one
// kernel: neither currents nor membranes go to memory.
//
//   I[t] = scale[k] sum W S[t] + shift[k]; then the neuron of neuron.cuh
//
// spikes in [T][N][H][W][C/32] (or, if `direct`, one step of dense values: the same current at every step) -> spikes
// and windows [T][N][P][Q][K/32]; on request also the OR over 2x2 [T][N][P/2][Q/2][K/32], the membranes [T][N][P][Q][K]
// and the histogram. Threads as in conv.cuh: each holds all steps of its neurons, so the neurons run in registers; two
// shuffles assemble a word of spikes. T beyond TC runs in chunks of time that carry the membranes in registers. Memory
// traffic, per neuron-step: the patch's bits in, 2 bits out.
#include "conv.cuh"
#include "histogram.cuh"
#include "neuron.cuh"
#include "surrogate.cuh"
#include "value.cuh"

struct ConvLif {
    const void* source;
    const uint4* weights;
    const float *scale, *shift;  // [K to 32], zero after K; null scale: 1
    const Window* windows;       // one, or [K to 32]
    uint32_t* spikes;
    uint32_t* inside;               // null: not wanted
    uint32_t* pooled;               // null: not wanted; otherwise the tile is paired
    void* membranes;                // null: not wanted
    unsigned long long* histogram;  // [1 or K][COUNTS], added to; null: not wanted
    ConvShape shape;                // of one step if the input is direct
    Tile tile;
    uint32_t neuron_steps, channels;  // T; K without padding
    uint32_t windows_per_channel, histogram_per_channel;
    Neuron neuron;
};

// OR of one word's spikes over each 2x2 window: vertical neighbours are this thread's two rows, horizontal ones lie
// four lanes apart.
DEVICE void store_pooled(const ConvLif& p, const Position& at, uint32_t t, uint32_t word, uint32_t both_rows) {
    const uint32_t bits = both_rows | __shfl_xor_sync(~0u, both_rows, 4);
    const uint32_t h = p.shape.out_h / 2, w = p.shape.out_w / 2;
    if (LANE % 8 == 0 && at.valid && at.row / 2 < h && at.column / 2 < w) {
        const size_t place =
            ((static_cast<size_t>(t) * p.shape.images + at.image) * h + at.row / 2) * w + at.column / 2;
        p.pooled[place * p.shape.out_words + word] = bits;
    }
}

// Stores and counts the sixteen membranes of one step that a thread left in its own part of the scratch memory. The
// loop stays rolled: most layers and steps need neither, and unrolled it would be most of the kernel's code.
template <class V>
DEVICE void keep_membranes(const ConvLif& p, const Position (&at)[2], const size_t (&place)[2], bool now,
                           uint32_t channel, const float* scratch, uint32_t* counts) {
#pragma unroll 1
    for (uint32_t i = 0; i < 16; i++) {
        const float h = scratch[i * CONV_THREADS + threadIdx.x];
        const uint32_t k = channel + i / 2 % 4 * 8 + i % 2;
        const bool valid = (i < 8 ? at[0].valid : at[1].valid) && now, real = valid && k < p.channels;
        if (p.membranes && valid) {
            V::store(static_cast<uint16_t*>(p.membranes) + (i < 8 ? place[0] : place[1]) * p.shape.out_words * 32 + k,
                     h);
        }
        if (!p.histogram) continue;
        const uint32_t bin = real ? bin_of((h - p.neuron.threshold) / p.neuron.threshold) : NO_BIN;
        if (!p.histogram_per_channel) {
            count_in_block(counts, bin);
        } else if (real) {
            atomicAdd(&p.histogram[k * COUNTS + bin], 1ull);
        }
    }
}

// Eight channels (four n-tiles, two each) of two positions, over the steps of one chunk. `current(t, j, i)` is the
// convolution's sum; v holds the membranes after the last reset. UNROLLED: the number of steps if known at compile
// time, otherwise 1.
template <class V, int UNROLLED, class Current>
DEVICE void run_neurons(const ConvLif& p, const Position (&at)[2], uint32_t word, uint32_t t0, uint32_t steps,
                        float (&v)[4][4], float* scratch, uint32_t* counts, Current current) {
    const uint32_t q = LANE % 4, channel = word * 32 + 2 * q;
    const size_t places = static_cast<size_t>(p.shape.images) * p.shape.out_h * p.shape.out_w;
    const bool keeps = p.membranes || p.histogram;
    // Padding channels do not spike, whatever the shift.
    const uint32_t behind = word * 32 + 32 > p.channels ? word * 32 + 32 - p.channels : 0, real = ~0u >> behind;
    size_t place[2];
#pragma unroll
    for (int row = 0; row < 2; row++) place[row] = t0 * places + place_of(p.shape, at[row]);
    float scale[4][2], shift[4][2];
    Window window[4][2];
#pragma unroll
    for (int j = 0; j < 4; j++) {
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const uint32_t k = channel + j * 8 + e;
            scale[j][e] = p.scale ? p.scale[k] : 1.0f;
            shift[j][e] = p.shift[k];
            window[j][e] = p.windows[p.windows_per_channel ? k : 0];
        }
    }
#pragma unroll UNROLLED
    for (uint32_t t = 0; t < steps; t++) {
        const bool now = t0 + t < p.neuron_steps;
        uint32_t spikes[2] = {}, inside_bits[2] = {};
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const int row = i / 2, e = i % 2;
                const float h = charge(p.neuron, v[j][i], fmaf(scale[j][e], current(t, j, i), shift[j][e]));
                const bool spike = h >= p.neuron.threshold;
                if (spike) spikes[row] |= 1u << (j * 8 + e);
                if (inside(window[j][e], h - p.neuron.threshold)) inside_bits[row] |= 1u << (j * 8 + e);
                v[j][i] = reset(p.neuron, p.neuron.hard, h, spike);
                if (keeps) scratch[((row * 4 + j) * 2 + e) * CONV_THREADS + threadIdx.x] = h;
            }
        }
        if (keeps) keep_membranes<V>(p, at, place, now, channel, scratch, counts);
#pragma unroll
        for (int row = 0; row < 2; row++) {
            spikes[row] = or_of_quad(spikes[row] << 2 * q) & real;
            inside_bits[row] = or_of_quad(inside_bits[row] << 2 * q) & real;
            if (q == 0 && at[row].valid && now) {
                p.spikes[place[row] * p.shape.out_words + word] = spikes[row];
                if (p.inside) p.inside[place[row] * p.shape.out_words + word] = inside_bits[row];
            }
            place[row] += places;
        }
        if (p.pooled && now) store_pooled(p, at[0], t0 + t, word, spikes[0] | (at[1].valid ? spikes[1] : 0));
    }
}

template <class V, class Source, int PG, bool DIRECT>
DEVICE void conv_lif_forward(const ConvLif& p) {
    DYNAMIC_SHARED(float, scratch);  // at least 16 CONV_THREADS floats
    SHARED(uint32_t, counts, COUNTS);
    const bool counts_layer = p.histogram && !p.histogram_per_channel;
    if (counts_layer) clear_counts(counts);  // the convolution begins with a barrier
    constexpr int TC = STEPS<PG>;
    float v[PG][WORDS][4][4] = {};
    // One chunk if the steps are known to fit: no membrane is then carried through the main loop.
    const uint32_t chunks = DIRECT || TC < 4 ? 1 : (p.neuron_steps + TC - 1) / TC;
    for (uint32_t chunk = 0; chunk < chunks; chunk++) {
        Sums acc;
        convolve<V, Source, PG>(p.shape, p.tile, p.source, p.weights, chunk * TC, acc);
        if (p.histogram || p.membranes) __syncthreads();  // the convolution was using the scratch memory
#pragma unroll
        for (int pg = 0; pg < PG; pg++) {
            const Position at[2] = {position_of(p.shape, p.tile, first_group<PG>() + pg, LANE / 4),
                                    position_of(p.shape, p.tile, first_group<PG>() + pg, LANE / 4 + 8)};
#pragma unroll
            for (int w = 0; w < WORDS; w++) {
                const uint32_t word = blockIdx.y * WORDS + w;
                if (word >= p.shape.out_words) continue;
                run_neurons<V, DIRECT ? 1 : TC>(
                    p, at, word, chunk * TC, DIRECT ? p.neuron_steps : TC, v[pg][w], scratch, counts,
                    [&](uint32_t t, int j, int i) { return acc[pg * TC + (DIRECT ? 0 : t)][4 * w + j][i]; });
            }
        }
    }
    if (counts_layer) {
        __syncthreads();
        add_counts(counts, p.histogram);
    }
}

#define CONV_LIF(V, suffix)                                                                                           \
    KERNEL(conv_lif_forward_t1_##suffix, ConvLif, CONV_THREADS, 1) { conv_lif_forward<V, SpikeSource, 4, false>(p); } \
    KERNEL(conv_lif_forward_t2_##suffix, ConvLif, CONV_THREADS, 1) { conv_lif_forward<V, SpikeSource, 2, false>(p); } \
    KERNEL(conv_lif_forward_t4_##suffix, ConvLif, CONV_THREADS, 1) { conv_lif_forward<V, SpikeSource, 1, false>(p); } \
    KERNEL(conv_lif_forward_direct_##suffix, ConvLif, CONV_THREADS, 1) { conv_lif_forward<V, DenseSource, 4, true>(p); }
CONV_LIF(Bf16, bf16)
CONV_LIF(F16, f16)
