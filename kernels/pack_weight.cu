// Weights for the tensor cores: f32 masters [K][R][S][C] to 16-bit fragments in the order in which conv.cuh reads them,
// rewritten after every optimiser step.
//
// packed [output tile of 64][step][ks 2][pair of n-tiles 4][lane 32] uint4 = {tile 0 b0, b1, tile 1 b0, b1}; a step is
// one tap of one slab of 32 reduced channels. In the forward pass, outputs are filters and channels are reduced; for
// the input gradient it is the other way round, taps run backward, and one parity class of a strided convolution holds
// every stride-th of them. In a flattened (linear) layer, the channels of all taps form one long row: of the reduction
// in the forward pass, of the outputs for the input gradient.
//
// Order of the reduction inside a slab, for register `half` of lane q: spikes 4q + 2ks + half and 16 above, times the
// inverse of the number that represents such a spike (value.cuh); dense values 16ks + 8half + 2q and the next. One
// thread per uint4; reads 32 bytes, writes 16.
#include "conv.cuh"
#include "value.cuh"

enum Reads : uint32_t { SPIKES, DENSE, GRADIENT };

struct PackWeight {
    const float* weight;
    void* packed;
    uint32_t filters, channels, all_taps_h, all_taps_w;
    uint32_t taps_h, taps_w, first_h, first_w, step_h, step_w;  // taps of a parity class; forward: all
    uint32_t reads, flattened;
};

// A weight, or 0 in the padding. `output` and `reduced` count padded channels.
DEVICE float weight_at(const PackWeight& p, uint32_t output, uint32_t reduced, uint32_t tap) {
    const bool gradient = p.reads == GRADIENT;
    uint32_t k = gradient ? reduced : output, c = gradient ? output : reduced;
    if (p.flattened) {
        const uint32_t padded = (p.channels + 31) / 32 * 32;
        tap = c / padded;
        c %= padded;
        if (tap >= p.all_taps_h * p.all_taps_w) return 0.0f;
    } else {
        uint32_t r = tap / p.taps_w, s = tap % p.taps_w;
        if (gradient) {
            r = p.first_h + p.step_h * (p.taps_h - 1 - r);
            s = p.first_w + p.step_w * (p.taps_w - 1 - s);
        }
        tap = r * p.all_taps_w + s;
    }
    if (k >= p.filters || c >= p.channels) return 0.0f;
    return p.weight[(static_cast<size_t>(k) * p.all_taps_h * p.all_taps_w + tap) * p.channels + c];
}

template <class V>
DEVICE void pack_weight(const PackWeight& p) {
    const uint32_t flat = p.flattened ? p.all_taps_h * p.all_taps_w : 1;
    const uint32_t filter_words = (p.filters + 31) / 32, channel_words = (p.channels + 31) / 32 * flat;
    const bool gradient = p.reads == GRADIENT;
    const uint32_t slabs = gradient ? filter_words : channel_words;
    const uint32_t tiles = ((gradient ? channel_words : filter_words) + 1) / 2;
    const uint32_t taps = p.flattened ? 1 : p.taps_h * p.taps_w;
    const uint32_t all = tiles * slabs * taps * STEP_UNITS;
    for (uint32_t i = blockIdx.x * blockDim.x + threadIdx.x; i < all; i += gridDim.x * blockDim.x) {
        const uint32_t lane = i % 32, pair = i / 32 % 4, ks = i / 128 % 2, step = i / STEP_UNITS;
        const uint32_t tap = step % taps, slab = step / taps % slabs, tile = step / taps / slabs;
        const uint32_t q = lane % 4;
        uint32_t out[4];
#pragma unroll
        for (uint32_t b = 0; b < 4; b++) {
            const uint32_t half = b % 2, output = tile * TILE_CHANNELS + (pair * 2 + b / 2) * 8 + lane / 4;
            const uint32_t low = slab * 32 + (p.reads == SPIKES ? 4 * q + 2 * ks + half : 16 * ks + 8 * half + 2 * q);
            const uint32_t high = low + (p.reads == SPIKES ? 16 : 1);
            const float inverse = p.reads == SPIKES ? V::spike_inverse(2 * ks + half) : 1.0f;
            out[b] = V::pack(inverse * weight_at(p, output, low, tap), inverse * weight_at(p, output, high, tap));
        }
        static_cast<uint4*>(p.packed)[i] = uint4{out[0], out[1], out[2], out[3]};
    }
}

KERNEL_EACH_HALF(pack_weight, PackWeight, 256, 4, pack_weight)
