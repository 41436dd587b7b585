// Gradient of a convolution's input, optionally fused with the backward pass in time of the neurons of the layer below.
//
//   dL/dS[t] = sum over taps and filters of W dL/dI[t]
//
// dL/dI of this layer [T][N][P][Q][K] -> dL/dS [T][N][H][W][C], 16-bit, written or added, or, in the `lif` kernels,
// dL/dI of the layer below: one thread ends up with all steps of a neuron (conv.cuh) and runs them backward from
// AdaLi's spike and window bits, so dL/dS never reaches memory. A 2x2 pool over even extents may lie between the two
// layers: its gradient goes to the first spike of each window, or else to its first pixel (max), or in quarters (avg),
// and the four neurons of a window run one after another. With a pool or with sums over the steps, all steps are in one
// chunk. dL/dS is rounded to 16 bits in between, so the result equals that of conv_input_grad followed by
// spike_backward bit by bit. Strided convolutions take one launch for each parity class of the input's pixels. Memory
// traffic, per neuron-step: the patch and 2 bits in, 2 bytes out.
#include "conv.cuh"
#include "neuron.cuh"
#include "pool.cuh"
#include "surrogate.cuh"
#include "value.cuh"

struct ConvInputGrad {
    const void* gradient;
    const uint4* weights;
    void* out;
    const uint32_t *spikes, *inside;  // of the neurons below
    const Window* windows;            // one, or [C to 32]
    ConvShape shape;
    Tile tile;
    uint32_t pool, sum_steps;  // sum_steps: the neurons' current is the same at every step
    uint32_t windows_per_channel;
    Neuron neuron;
    uint32_t below_h, below_w, below_words;  // of the convolution's input image; a linear layer has one pixel
    uint32_t carry;                          // bytes of dynamic shared memory before G_V, passed between chunks of time
    uint32_t add;                            // whether dL/dS is added to `out`; not by the `lif` kernels
};

// Words of scratch memory per thread: all its sums, two per word.
constexpr uint32_t SCRATCH_WORDS = M_TILES * N_TILES * 2;

template <class V, int PG>
DEVICE void conv_input_grad(const ConvInputGrad& p) {
    constexpr int TC = STEPS<PG>;
    const uint32_t t0 = blockIdx.z * TC;
    const size_t places = static_cast<size_t>(p.shape.images) * p.shape.out_h * p.shape.out_w;
    Sums acc;
    convolve<V, DenseSource, PG>(p.shape, p.tile, p.gradient, p.weights, t0, acc);
#pragma unroll
    for (int pg = 0; pg < PG; pg++) {
#pragma unroll
        for (int row = 0; row < 2; row++) {
            const Position at = position_of(p.shape, p.tile, first_group<PG>() + pg, LANE / 4 + 8 * row);
            const size_t place = place_of(p.shape, at);
#pragma unroll
            for (int w = 0; w < WORDS; w++) {
                const uint32_t word = blockIdx.y * WORDS + w;
                if (word >= p.shape.out_words) continue;
#pragma unroll
                for (int t = 0; t < TC; t++) {
                    uint32_t pairs[4];
#pragma unroll
                    for (int j = 0; j < 4; j++) {
                        const float* two = &acc[pg * TC + t][4 * w + j][2 * row];
                        pairs[j] = V::pack(two[0], two[1]);
                    }
                    const uint4 eight = transpose_quad(pairs);
                    if (at.valid && t0 + t < p.shape.steps) {
                        const size_t first = (((t0 + t) * places + place) * p.shape.out_words + word) * 32;
                        uint16_t* out = static_cast<uint16_t*>(p.out) + first + 8 * (LANE % 4);
                        if (!p.add) {
                            *reinterpret_cast<uint4*>(out) = eight;
                        } else {
                            float x[8];
                            V::unpack8(eight, x);
                            put8<V>(out, x, true);
                        }
                    }
                }
            }
        }
    }
}

// The neurons that receive the gradient of one word at a position: one pixel's, or those of a pool window's four.
struct Below {
    size_t first;           // word of the first of them
    uint32_t row, channel;  // words between rows; the word's first channel
    DEVICE Below(const ConvInputGrad& p, const Position& at, uint32_t word) {
        uint32_t y = p.shape.first_h + at.row * p.shape.step_h, x = p.shape.first_w + at.column * p.shape.step_w;
        if (p.below_words != p.shape.out_words) {
            y = word / p.below_words / p.below_w;
            x = word / p.below_words % p.below_w;
            word %= p.below_words;
        }
        const uint32_t side = p.pool ? 2 : 1;
        row = side * p.below_w * p.below_words;
        first = (static_cast<size_t>(at.image) * p.below_h + y) * side * row + side * x * p.below_words + word;
        channel = word * 32;
    }
    DEVICE size_t member(const ConvInputGrad& p, uint32_t i) const {
        return first + i / 2 * row + i % 2 * p.below_words;
    }
};

// Which of a word's channels route their gradient to member `i` of a 2x2 window, and that member's spikes.
DEVICE uint32_t route_of(const ConvInputGrad& p, const uint32_t* spikes, const Below& below, uint32_t i,
                         uint32_t& own) {
    own = spikes[below.member(p, i)];
    if (p.pool != MAX_POOL) return ~0u;
    uint32_t seen = 0;
    for (uint32_t earlier = 0; earlier < i; earlier++) seen |= spikes[below.member(p, earlier)];
    if (i > 0) return own & ~seen;
    return own | ~(own | spikes[below.member(p, 1)] | spikes[below.member(p, 2)] | spikes[below.member(p, 3)]);
}

// A thread's own part of the scratch memory: dL/dS, later replaced by dL/dI, of one word's eight channels (four
// n-tiles, two each) of two positions at all steps of a chunk, a pair of channels per word. It allows the loops over
// groups, words and channels to stay rolled, which keeps the code within the instruction cache.
template <int TC>
struct Scratch {
    static constexpr uint32_t WORDS = TC * 8;
    uint32_t* first;
    DEVICE uint32_t& at(uint32_t t, uint32_t row, uint32_t j) const {
        return first[((t * 2 + row) * 4 + j) * CONV_THREADS];
    }
};

// Runs member `i` of two positions' neurons over the steps of one chunk, last first. `carry`: G_V of the later chunk,
// 16 words CONV_THREADS apart; null if there is only one chunk.
template <class V, int TC>
DEVICE void run_neurons_back(const ConvInputGrad& p, const Position (&at)[2], uint32_t word, uint32_t t0, uint32_t i,
                             const Scratch<TC>& above, const Scratch<TC>& out, float* carry, bool later) {
    const uint32_t q = LANE % 4;
    const size_t words = static_cast<size_t>(p.shape.images) * p.below_h * p.below_w * p.below_words * (p.pool ? 4 : 1);
    const Below below[2] = {Below(p, at[0], word), Below(p, at[1], word)};
    const uint32_t channel = below[0].channel + 2 * q;
    const float share = p.pool == AVG_POOL ? 0.25f : 1.0f;
    size_t own[2];
    uint32_t spikes[TC][2] = {}, inside_bits[TC][2] = {}, route[TC][2] = {};
#pragma unroll
    for (int row = 0; row < 2; row++) {
        own[row] = t0 * words + below[row].member(p, i);
#pragma unroll
        for (int t = 0; t < TC; t++) {
            if (!at[row].valid || t0 + t >= p.shape.steps) continue;
            route[t][row] = route_of(p, p.spikes + (t0 + t) * words, below[row], i, spikes[t][row]);
            inside_bits[t][row] = p.inside[own[row] + t * words];
        }
    }
#pragma unroll 1
    for (uint32_t j = 0; j < 4; j++) {
        const uint32_t bit = j * 8 + 2 * q;
        Window window[2];
        for (int e = 0; e < 2; e++) window[e] = p.windows[p.windows_per_channel ? channel + j * 8 + e : 0];
#pragma unroll
        for (int row = 0; row < 2; row++) {
            float g_v[2] = {}, sum[2] = {};
            for (int e = 0; e < 2; e++) {
                if (later) g_v[e] = carry[(j * 4 + row * 2 + e) * CONV_THREADS];
            }
#pragma unroll
            for (int t = TC - 1; t >= 0; t--) {
                if (t0 + t >= p.shape.steps) continue;
                const uint32_t pair = above.at(t, row, j);
                float g_i[2];
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    const bool spike = spikes[t][row] >> (bit + e) & 1;
                    const float g = Adali::of_bits(window[e], inside_bits[t][row] >> (bit + e) & 1, spike);
                    const float g_s =
                        route[t][row] >> (bit + e) & 1 ? (e == 0 ? V::low(pair) : V::high(pair)) * share : 0.0f;
                    g_i[e] = step_back(p.neuron, p.neuron.hard, p.neuron.detach, 0.0f, spike, g, g_s, g_v[e]);
                    sum[e] += g_i[e];
                }
                out.at(t, row, j) = V::pack(g_i[0], g_i[1]);
            }
            if (p.sum_steps) out.at(0, row, j) = V::pack(sum[0], sum[1]);
            for (int e = 0; e < 2; e++) {
                if (carry) carry[(j * 4 + row * 2 + e) * CONV_THREADS] = g_v[e];
            }
        }
    }
#pragma unroll 1
    for (uint32_t t = 0; t < (p.sum_steps ? 1 : TC); t++) {
        if (t0 + t >= p.shape.steps) break;
#pragma unroll
        for (int row = 0; row < 2; row++) {
            uint32_t pairs[4];
#pragma unroll
            for (int j = 0; j < 4; j++) pairs[j] = out.at(t, row, j);
            const uint4 eight = transpose_quad(pairs);
            if (at[row].valid) static_cast<uint4*>(p.out)[(own[row] + t * words) * 4 + q] = eight;
        }
    }
}

template <class V, int PG>
DEVICE void conv_input_grad_lif(const ConvInputGrad& p) {
    constexpr int TC = STEPS<PG>;
    DYNAMIC_SHARED(uint32_t, memory);
    // One chunk if the steps are known to fit.
    const uint32_t chunks = TC < 4 ? 1 : (p.shape.steps + TC - 1) / TC;
    for (uint32_t chunk = chunks; chunk-- > 0;) {
        Sums acc;
        convolve<V, DenseSource, PG>(p.shape, p.tile, p.gradient, p.weights, chunk * TC, acc);
        __syncthreads();  // the convolution was using the scratch memory
#pragma unroll
        for (int m = 0; m < M_TILES; m++) {
#pragma unroll
            for (int j = 0; j < N_TILES; j++) {
                const uint32_t part = m / TC * WORDS + j / 4;
                const Scratch<TC> above{memory + part * Scratch<TC>::WORDS * CONV_THREADS + threadIdx.x};
                above.at(m % TC, 0, j % 4) = V::pack(acc[m][j][0], acc[m][j][1]);
                above.at(m % TC, 1, j % 4) = V::pack(acc[m][j][2], acc[m][j][3]);
            }
        }
#pragma unroll 1
        for (uint32_t part = 0; part < PG * WORDS; part++) {
            const uint32_t group = first_group<PG>() + part / WORDS, word = blockIdx.y * WORDS + part % WORDS;
            if (word >= p.shape.out_words) continue;
            const Position at[2] = {position_of(p.shape, p.tile, group, LANE / 4),
                                    position_of(p.shape, p.tile, group, LANE / 4 + 8)};
            const Scratch<TC> above{memory + part * Scratch<TC>::WORDS * CONV_THREADS + threadIdx.x};
            // Four neurons read a window's gradient, so it cannot be replaced in place.
            const Scratch<TC> out{p.pool ? memory + SCRATCH_WORDS * CONV_THREADS + threadIdx.x : above.first};
            float* carry = nullptr;
            if (chunks > 1)
                carry = reinterpret_cast<float*>(memory) + p.carry / 4 + 16 * CONV_THREADS * part + threadIdx.x;
#pragma unroll 1
            for (uint32_t i = 0; i < (p.pool ? 4 : 1); i++) {
                run_neurons_back<V, TC>(p, at, word, chunk * TC, i, above, out, carry, chunk + 1 < chunks);
            }
        }
    }
}

#define CONV_INPUT_GRAD(V, suffix)                                                                            \
    KERNEL(conv_input_grad_t1_##suffix, ConvInputGrad, CONV_THREADS, 1) { conv_input_grad<V, 4>(p); }         \
    KERNEL(conv_input_grad_t4_##suffix, ConvInputGrad, CONV_THREADS, 1) { conv_input_grad<V, 1>(p); }         \
    KERNEL(conv_input_grad_lif_t1_##suffix, ConvInputGrad, CONV_THREADS, 1) { conv_input_grad_lif<V, 4>(p); } \
    KERNEL(conv_input_grad_lif_t2_##suffix, ConvInputGrad, CONV_THREADS, 1) { conv_input_grad_lif<V, 2>(p); } \
    KERNEL(conv_input_grad_lif_t4_##suffix, ConvInputGrad, CONV_THREADS, 1) { conv_input_grad_lif<V, 1>(p); }
CONV_INPUT_GRAD(Bf16, bf16)
CONV_INPUT_GRAD(F16, f16)
