// From the network's outputs to logits, and backward: the logit of a class is the mean of a group of `vote` outputs.
//
//   logit[t][n][k] = (sum over j < vote of output[t][n][k vote + j]) / vote
//
// outputs: currents [T or 1][N][K] f32, K = classes vote padded to 32 (1: the same at every step), or spikes
// [T][N][K/32] words -> logits [T][N][classes padded to 32] f32, padding zero. One thread per logit.
//
// Backward: the logits' gradient in f32 -> the outputs' in their type, [T or 1][N][K], padding zero; 1: summed over the
// steps. One thread per eight outputs. With a loss scale, the gradient is multiplied by it. Each array is read or
// written once.
#include "places.cuh"
#include "value.cuh"

struct Vote {
    const void* outputs;
    float* logits;
    uint32_t batch, steps, current_steps, classes, vote, padding;
};

struct VoteBackward {
    const float* logits_gradient;
    void* outputs_gradient;
    const float* loss_scale;  // null: 1
    uint32_t batch, steps, current_steps, classes, vote, padding;
};

constexpr uint32_t READOUT_THREADS = 256;

// Calls `logit(step and sample, class)`.
template <class F>
DEVICE void each_logit(const Vote& p, F logit) {
    const uint32_t pitch = padded(p.classes);
    const size_t i = static_cast<size_t>(blockIdx.x) * READOUT_THREADS + threadIdx.x;
    if (i >= static_cast<size_t>(p.steps) * p.batch * pitch) return;
    const uint32_t row = i / pitch, k = i % pitch;
    p.logits[i] = k < p.classes ? logit(row, k) : 0.0f;
}

KERNEL(vote_currents, Vote, READOUT_THREADS, 4) {
    each_logit(p, [&](uint32_t row, uint32_t k) {
        const size_t of = p.current_steps == 1 ? row % p.batch : row;
        const float* outputs = static_cast<const float*>(p.outputs) + of * padded(p.classes * p.vote);
        float sum = -0.0f;  // the neutral element: x + -0 is x for every x
        for (uint32_t j = 0; j < p.vote; j++) sum += outputs[k * p.vote + j];
        return sum / static_cast<float>(p.vote);
    });
}

KERNEL(vote_spikes, Vote, READOUT_THREADS, 4) {
    each_logit(p, [&](uint32_t row, uint32_t k) {
        const uint32_t words = padded(p.classes * p.vote) / 32, first = k * p.vote, end = first + p.vote;
        const uint32_t* spikes = static_cast<const uint32_t*>(p.outputs) + static_cast<size_t>(row) * words;
        uint32_t count = 0;
        for (uint32_t word = first / 32; word * 32 < end; word++) {
            uint32_t bits = spikes[word];
            if (word * 32 < first) bits &= ~0u << first % 32;
            if (end - word * 32 < 32) bits &= ~(~0u << end % 32);
            count += __popc(bits);
        }
        return static_cast<float>(count) / static_cast<float>(p.vote);
    });
}

template <class V>
DEVICE void vote_backward(const VoteBackward& p) {
    const uint32_t outputs = p.classes * p.vote, pitch = padded(outputs), pitch_in = padded(p.classes);
    const size_t i = (static_cast<size_t>(blockIdx.x) * READOUT_THREADS + threadIdx.x) * 8;
    if (i >= static_cast<size_t>(p.current_steps) * p.batch * pitch) return;
    const uint32_t row = i / pitch, first = i % pitch, repeats = p.steps / p.current_steps;
    const float scale = p.loss_scale ? *p.loss_scale : 1.0f;
    float gradient[8];
#pragma unroll
    for (uint32_t j = 0; j < 8; j++) {
        float sum = first + j < outputs ? -0.0f : 0.0f;
        for (uint32_t t = 0; first + j < outputs && t < repeats; t++) {
            const size_t of_step = static_cast<size_t>(t) * p.batch + row;
            sum += p.logits_gradient[of_step * pitch_in + (first + j) / p.vote];
        }
        gradient[j] = sum / static_cast<float>(p.vote) * scale;
    }
    V::store8(static_cast<typename V::Stored*>(p.outputs_gradient) + i, gradient);
}

KERNEL_EACH_VALUE(vote_backward, VoteBackward, READOUT_THREADS, 4, vote_backward)
