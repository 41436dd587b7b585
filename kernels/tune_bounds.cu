// AdaLi's bounds from a histogram or the schedule: src/autotune.rs and src/histogram.rs on the device, in f64.
//
//   L* = -Q((1-r)(1-p))     R* = Q((1-r) + r p)     L <- clamp(exp((1-m) ln L + m ln L*), floor, ceiling), likewise R
//
//   with a gain W':  alpha, beta <- s alpha, s beta,  s^2 = (alpha^2 + beta^2)/W' / (alpha^2/L + beta^2/R)
//
// r is the share of z >= 0, p the target share inside, Q the quantile. A warp owns a histogram [COUNTS]: each lane sums
// 16 neighbouring bins, and a prefix sum over the lanes locates a quantile; counts are integers below 2^53, so this
// order gives exactly the sequential results. Every lane computes the rest redundantly. Reads the histograms (4 KB
// each) once or a few times, from the cache, and clears them; writes bounds, windows and flags.
#include "histogram.cuh"
#include "reduce.cuh"
#include "surrogate.cuh"

enum BoundsMode : uint32_t { MANUAL, AUTO_INIT, AUTO_TRACK, AUTO_MASS, AUTO_SYMMETRIC, AUTO_STD, AUTO_BALANCED };
enum Schedule : uint32_t { LOG, LINEAR, SQRT, CONSTANT };
// Flags of src/autotune.rs, one bit each, and those that stop a training.
enum Flag : uint32_t {
    NOT_SAMPLED = 1,
    DEAD = 2,
    SATURATED = 4,
    THIN = 8,
    BEYOND_HISTOGRAM = 16,
    OUT_OF_REACH = 32,
    NON_FINITE = 64
};

// In units of the threshold.
struct alignas(16) Bounds {
    float left, right, alpha, beta;
};

struct TuneBounds {
    unsigned long long* histogram;  // [count][COUNTS], cleared; null: schedule only, flags untouched
    const double* epoch;            // 1 …, may be fractional
    Bounds* bounds;                 // [count], moved
    Bounds* start;                  // [count], auto-init: the first bounds, written if `first`, else read
    Window* windows;                // [count], of the bounds
    uint32_t* flags;                // [count]
    double epochs;
    double left0, left1, right0, right1, target0, target1;
    double alpha, momentum, floor, ceiling;
    double gain0, gain1;  // widths whose mean g^2 the slopes are scaled to; 0: no scaling
    uint32_t mode, schedule, count;
    uint32_t first;  // before the first step: the histogram's bounds are taken unsmoothed
    float threshold;
    uint32_t padding;
};

namespace {

constexpr double SILENT_SHARE = 0.001, SILENT_TARGET = 0.9, THIN_SHARE = 0.001, BINS_PER_UNIT = 64.0, RANGE = 4.0;
constexpr uint64_t THIN_COUNT = 1000;

using Count = unsigned long long;

DEVICE double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// Where `wanted` lies in `N` neighbouring counts, in bins from the first; infinite after the last.
template <uint32_t N, class F>
DEVICE double position(double wanted, F count) {
    constexpr uint32_t EACH = N / 32;
    Count own = 0;
    for (uint32_t i = 0; i < EACH; i++) own += count(LANE * EACH + i);
    Count before = own;
    for (uint32_t by = 1; by < 32; by *= 2) {
        const Count below = __shfl_up_sync(~0u, before, by);
        if (LANE >= by) before += below;
    }
    before -= own;
    double found = INFINITY;
    for (uint32_t i = 0; i < EACH; i++) {
        const Count here = count(LANE * EACH + i);
        const double rest = wanted - static_cast<double>(before), size = static_cast<double>(here);
        if (here > 0 && rest <= size && !(found < INFINITY)) found = LANE * EACH + i + rest / size;
        before += here;
    }
    const uint32_t lanes = __ballot_sync(~0u, found < INFINITY);
    return lanes ? __shfl_sync(~0u, found, __ffs(lanes) - 1) : INFINITY;
}

struct Histogram {
    const Count* counts;
    Count below, spikes, total;

    explicit DEVICE Histogram(const Count* counts) : counts(counts) {
        Count low = 0, high = 0;
        for (uint32_t bin = LANE; bin < BINS / 2; bin += 32) low += counts[bin], high += counts[BINS / 2 + bin];
        below = counts[BINS] + warp_sum(low);
        spikes = counts[BINS + 1] + warp_sum(high);
        total = below + spikes;
    }
    DEVICE double firing_rate() const { return static_cast<double>(spikes) / (total ? total : 1); }

    DEVICE double quantile(double q) const {
        const double wanted = clamp(q, 0.0, 1.0) * total - static_cast<double>(counts[BINS]);
        if (wanted < 0.0) return -INFINITY;
        return position<BINS>(wanted, [&](uint32_t bin) { return counts[bin]; }) / BINS_PER_UNIT - RANGE;
    }
    DEVICE double symmetric_quantile(double p) const {
        const Count *right = counts + BINS / 2, *left = right - 1;
        const double wanted = clamp(p, 0.0, 1.0) * total;
        const auto pair = [&](int distance) { return right[distance] + left[-distance]; };
        return position<BINS / 2>(wanted, pair) / BINS_PER_UNIT;
    }
    DEVICE double cumulative(double z) const {
        const double position = clamp((z + RANGE) * BINS_PER_UNIT, 0.0, BINS);
        const uint32_t whole = static_cast<uint32_t>(position);
        Count count = 0;
        for (uint32_t bin = LANE; bin < whole; bin += 32) count += counts[bin];
        count = counts[BINS] + warp_sum(count);
        const double part = whole < BINS ? counts[whole] * (position - whole) : 0.0;
        if (z >= RANGE) count += counts[BINS + 1];
        return count + part;
    }
    // In half bins from the threshold the sums are integers, below 2^63 as long as all counts are below 2^45.
    DEVICE double deviation() const {
        long long sum = 0, squares = 0;
        const auto add = [&](long long at, Count count) {
            sum += at * static_cast<long long>(count), squares += at * at * static_cast<long long>(count);
        };
        for (uint32_t bin = LANE; bin < BINS; bin += 32) add(2ll * bin + 1 - static_cast<long long>(BINS), counts[bin]);
        if (LANE == 0) add(-static_cast<long long>(BINS), counts[BINS]), add(BINS, counts[BINS + 1]);
        sum = warp_sum(sum), squares = warp_sum(squares);
        const double all = total ? total : 1, mean = sum / all;
        return sqrt(fmax(squares / all - mean * mean, 0.0)) / (2.0 * BINS_PER_UNIT);
    }
    DEVICE bool nothing_inside(double width) const { return !(cumulative(width) - cumulative(-width) > 0.0); }
};

DEVICE double scheduled(uint32_t schedule, double first, double last, double epoch, double epochs) {
    if (epochs <= 1.0) return first;
    epoch = clamp(epoch, 1.0, epochs);
    switch (schedule) {
        case LOG:
            return first * pow(last / first, log(epoch) / log(epochs));
        case LINEAR:
            return first + (last - first) * (epoch - 1.0) / (epochs - 1.0);
        case SQRT:
            return first + (last - first) * (sqrt(epoch) - 1.0) / (sqrt(epochs) - 1.0);
        default:
            return first;
    }
}

DEVICE Bounds bounds_of(double left, double right, double alpha) {
    return {static_cast<float>(left), static_cast<float>(right), static_cast<float>(alpha),
            static_cast<float>(1.0 - alpha)};
}

DEVICE Bounds scheduled_bounds(const TuneBounds& p, double left0, double right0, double epoch) {
    const double left = scheduled(p.schedule, left0, p.left1, epoch, p.epochs);
    const double right = scheduled(p.schedule, right0, p.right1, epoch, p.epochs);
    return bounds_of(left, right, p.mode == AUTO_MASS ? right / (left + right) : p.alpha);
}

DEVICE uint32_t diagnose(const TuneBounds& p, const Histogram& h) {
    const double rate = h.firing_rate();
    if (h.total == 0) return NOT_SAMPLED;
    if (h.nothing_inside(p.ceiling)) return OUT_OF_REACH;
    if (rate < SILENT_SHARE) return DEAD;
    return rate > 1.0 - SILENT_SHARE ? SATURATED : 0;
}

// One side's bound from the histogram, NaN if there is none.
DEVICE double side(const TuneBounds& p, double told, float old, float scheduled, uint32_t& flags) {
    if (told != told) return scheduled;
    if (fabs(told) == INFINITY) flags |= BEYOND_HISTOGRAM;
    const double width = clamp(told, p.floor, p.ceiling);
    if (p.first) return width;
    const double moved = exp((1.0 - p.momentum) * log(static_cast<double>(old)) + p.momentum * log(width));
    return clamp(moved, p.floor, p.ceiling);
}

// `flags` come in as diagnosed.
DEVICE Bounds tune(const TuneBounds& p, const Histogram& h, const Bounds& previous, const Bounds& scheduled,
                   double target, uint32_t& flags) {
    if (flags & NOT_SAMPLED) return p.first ? scheduled : previous;
    if (flags & OUT_OF_REACH) return scheduled;
    const auto thin = [&](Count count) { return count < THIN_COUNT || count < THIN_SHARE * h.total; };
    const bool symmetric = p.mode == AUTO_SYMMETRIC || p.mode == AUTO_STD, thin_side = thin(h.spikes) || thin(h.below);
    const bool silent = flags & (DEAD | SATURATED), together = symmetric || (thin_side && !silent);
    if (silent) target = fmax(target, SILENT_TARGET);
    const double rate = h.firing_rate();
    const auto width = [&] {
        return p.mode == AUTO_STD ? sqrt(3.0) * target * h.deviation() : h.symmetric_quantile(target);
    };
    double left = NAN, right = NAN;
    if (!silent && !symmetric && thin_side) flags |= THIN;
    if (!(flags & SATURATED) && !thin(flags & DEAD ? h.below : h.total)) {
        left = together ? width() : -h.quantile((1.0 - rate) * (1.0 - target));
    }
    if (!(flags & DEAD) && !thin(flags & SATURATED ? h.spikes : h.total)) {
        right = together ? width() : h.quantile((1.0 - rate) + rate * target);
    }
    if (p.mode == AUTO_BALANCED && !together && !silent) left = right = sqrt(left * right);
    left = side(p, left, previous.left, scheduled.left, flags);
    right = side(p, right, previous.right, scheduled.right, flags);
    return bounds_of(left, right, p.alpha);
}

DEVICE Bounds with_gain(const TuneBounds& p, Bounds bounds, double epoch) {
    if (!(p.gain0 > 0.0)) return bounds;
    const double l = bounds.left, r = bounds.right, a = bounds.alpha, b = bounds.beta;
    const double width = scheduled(LOG, p.gain0, p.gain1, epoch, p.epochs);
    const double scale = sqrt((a * a + b * b) / width / (a * a / l + b * b / r));
    return {bounds.left, bounds.right, static_cast<float>(a * scale), static_cast<float>(b * scale)};
}

}  // namespace

// One warp per histogram: the grid is count / 4 rounded up.
KERNEL(tune_bounds, TuneBounds, 128, 1) {
    const uint32_t i = blockIdx.x * 4 + threadIdx.x / 32;
    if (i >= p.count) return;
    const size_t from = static_cast<size_t>(i) * COUNTS;
    const double epoch = *p.epoch;
    const bool starts = p.mode == AUTO_INIT, tracks = p.mode == AUTO_TRACK || p.mode >= AUTO_SYMMETRIC;
    const bool started = starts && !p.first;
    const double left0 = started ? p.start[i].left : p.left0, right0 = started ? p.start[i].right : p.right0;
    Bounds bounds = scheduled_bounds(p, left0, right0, epoch);
    uint32_t flags = 0;
    if (p.histogram) {
        const Count* counts = p.histogram + from;
        const Histogram h(counts);
        flags = diagnose(p, h);
        if (tracks || (starts && p.first)) {
            const double target = scheduled(LOG, p.target0, p.target1, epoch, p.epochs);
            bounds = tune(p, h, p.first ? Bounds{} : p.bounds[i], bounds, target, flags);
        }
        if (counts[BINS + 2]) flags |= NON_FINITE;
    }
    __syncwarp();  // all lanes have finished reading
    if (p.histogram) {
        for (uint32_t bin = LANE; bin < COUNTS; bin += 32) p.histogram[from + bin] = 0;
    }
    if (LANE > 0) return;
    if (starts && p.first) p.start[i] = bounds;
    bounds = with_gain(p, bounds, epoch);
    p.bounds[i] = bounds;
    if (p.histogram) p.flags[i] = flags;
    const float left = bounds.left * p.threshold, right = bounds.right * p.threshold;
    p.windows[i] = {left, right, bounds.alpha / left, bounds.beta / right};
}
