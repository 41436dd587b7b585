// Loss and correct answers of each sample, and the gradient of the batch's mean loss.
//
//   q[k] = hot[k] (1 - smoothing) + smoothing/classes                  hot[k] = 1 at the label, else 0
//   loss = sum over k of -(1 - mse) q[k] log softmax(x)[k] + mse (x[k] - hot[k])^2 / classes
//
// With mixup, sample n is mixed with N - 1 - n, and its loss is that of both labels by their shares: hot[k] is the
// share of k's label, and the label of the larger share counts as correct.
//
// with x the logits averaged over T, or (TET) the average of the losses of every step's logits. Correct: the first of
// the largest averaged logits, in f32, is the label's.
//
// logits [T][N][classes padded to 32] f32, labels [N] u16 -> samples [N], gradient like the logits, padding zero. One
// warp per sample, a lane takes every 32nd class; f64 inside. Memory traffic: 8 bytes per logit. `loss_total` adds the
// samples to the metrics in a fixed order.
#include "places.cuh"
#include "reduce.cuh"

struct SampleLoss {
    double loss;
    uint32_t correct, padding;
};

struct Metrics {
    double loss;
    unsigned long long correct, samples;
};

struct Loss {
    const float* logits;
    const uint16_t* labels;
    float* gradient;  // null: not wanted
    SampleLoss* samples;
    double mse, label_smoothing;
    uint32_t batch, steps, classes, tet;
    const float* shares;  // [N]; null: no mixup
};

struct LossTotal {
    const SampleLoss* samples;
    Metrics* metrics;  // added to
    uint32_t batch, padding;
};

constexpr uint32_t LOSS_THREADS = 128;

// One sample's logits averaged over some of its steps.
struct Averaged {
    const float* first;
    size_t step;
    uint32_t steps;

    DEVICE double operator()(uint32_t k) const {
        double sum = 0.0;
        for (uint32_t t = 0; t < steps; t++) sum += first[t * step + k];
        return sum / steps;
    }
};

// The first of the largest logits. NaN never compares larger; if it comes first, nothing compares larger than it.
DEVICE uint32_t largest_class(const Averaged& logits, uint32_t classes) {
    float best = -INFINITY;
    uint32_t at = LANE;
    for (uint32_t k = LANE; k < classes; k += 32) {
        const float x = static_cast<float>(logits(k));
        if (x > best) best = x, at = k;
        if (k == 0 && x != x) best = INFINITY;
    }
#pragma unroll
    for (uint32_t with = 16; with > 0; with /= 2) {
        const float other = __shfl_xor_sync(~0u, best, with);
        const uint32_t other_at = __shfl_xor_sync(~0u, at, with);
        if (other > best || (other == best && other_at < at)) best = other, at = other_at;
    }
    return at;
}

// A sample's label, that of the sample it is mixed with, and its own share.
struct Target {
    uint32_t label, other;
    double share;

    DEVICE double operator()(uint32_t k) const { return (k == label ? share : 0.0) + (k == other ? 1.0 - share : 0.0); }
};

// The loss of one set of logits; its gradient, divided by `share`, is written at each of `repeats` steps.
DEVICE double loss_of(const Loss& p, const Averaged& logits, const Target& labels, float* gradient, uint32_t repeats,
                      double share) {
    const double classes = p.classes;
    double largest = -INFINITY, total = 0.0, loss = 0.0;
    for (uint32_t k = LANE; k < p.classes; k += 32) largest = fmax(largest, logits(k));
#pragma unroll
    for (uint32_t with = 16; with > 0; with /= 2) largest = fmax(largest, __shfl_xor_sync(~0u, largest, with));
    for (uint32_t k = LANE; k < p.classes; k += 32) total += exp(logits(k) - largest);
    const double log_total = log(warp_sum(total));
    for (uint32_t k = LANE; k < padded(p.classes); k += 32) {
        float slope = 0.0f;
        if (k < p.classes) {
            const double x = logits(k), hot = labels(k), log_share = x - largest - log_total;
            const double target = hot * (1.0 - p.label_smoothing) + p.label_smoothing / classes;
            // hot (x - 1)^2 + (1 - hot) x^2: the squared error, averaged over both labels.
            const double square = (x - hot) * (x - hot) + hot * (1.0 - hot);
            loss += (1.0 - p.mse) * -target * log_share + p.mse * square / classes;
            const double g = (1.0 - p.mse) * (exp(log_share) - target) + p.mse * 2.0 * (x - hot) / classes;
            slope = static_cast<float>(g / share);
        }
        for (uint32_t t = 0; gradient && t < repeats; t++) gradient[t * logits.step + k] = slope;
    }
    return warp_sum(loss);
}

KERNEL(loss, Loss, LOSS_THREADS, 4) {
    const uint32_t n = (blockIdx.x * LOSS_THREADS + threadIdx.x) / 32;
    if (n >= p.batch) return;
    const uint32_t pitch = padded(p.classes), label = p.labels[n];
    const Target target{label, p.shares ? p.labels[p.batch - 1 - n] : label, p.shares ? p.shares[n] : 1.0};
    const size_t step = static_cast<size_t>(p.batch) * pitch, at = static_cast<size_t>(n) * pitch;
    float* gradient = p.gradient ? p.gradient + at : nullptr;
    const Averaged mean{p.logits + at, step, p.steps};
    const double steps = p.steps, share = steps * p.batch;
    double loss = 0.0;
    if (p.tet) {
        for (uint32_t t = 0; t < p.steps; t++) {
            const Averaged logits{p.logits + at + t * step, step, 1};
            loss += loss_of(p, logits, target, gradient ? gradient + t * step : nullptr, 1, share) / steps;
        }
    } else {
        loss = loss_of(p, mean, target, gradient, p.steps, share);
    }
    const uint32_t correct = largest_class(mean, p.classes) == (target.share >= 0.5 ? label : target.other);
    if (LANE == 0) p.samples[n] = {loss, correct, 0};
}

// One block.
KERNEL(loss_total, LossTotal, LOSS_THREADS, 1) {
    SHARED(double, scratch, 2 * LOSS_THREADS / 32);
    double sums[2] = {};
    for (uint32_t n = threadIdx.x; n < p.batch; n += LOSS_THREADS) {
        sums[0] += p.samples[n].loss;
        sums[1] += p.samples[n].correct;
    }
    block_sums(sums, scratch);
    if (threadIdx.x == 0) {
        p.metrics->loss += sums[0];
        p.metrics->correct += static_cast<unsigned long long>(sums[1]);
        p.metrics->samples += p.batch;
    }
}
