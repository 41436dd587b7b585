// Pooling of spikes, forward.
//
//   max: OR of the spikes in the window -> spikes      avg: their count / (kernel_h kernel_w) -> values
//
// spikes [T][N][H][W][C/32] -> pooled [T][N][H'][W'][C/32] bits (max), [T][N][H'][W'][C] values (avg). Also the mean of
// dense values, and its backward pass: dx[pixel] = sum over the windows that cover it of dpooled / (kernel_h kernel_w).
//
// A thread owns one output word of an image (max), or a quad of threads does, each eight of its channels (avg). It
// keeps its window and walks over images: the grid is (words or quarters of words per image, any number of blocks of
// images). Small images need blocks of fewer threads. Memory traffic, per output word of non-overlapping windows: 4
// kernel_h kernel_w bytes in, 4 bytes (max) or 32 values (avg) out.
#include "unpool.cuh"

struct PoolForward {
    const void* input;  // spikes; values for avg_pool_values
    void* pooled;
    Pool pool;
    uint32_t images;  // T N
    uint32_t words;
    float share;  // of each value in a mean, avg only: what a spike counts for over kernel_h kernel_w
    uint32_t padding;
};

struct AvgPoolBackward {
    const void* gradient;  // [T][N][H'][W'][C]
    void* out;             // [T][N][H][W][C]
    Places places;
    Pool pool;
    uint32_t add;  // whether it is added to `out`
};

constexpr uint32_t POOL_THREADS = 256;

// Images that a thread of max_pool_forward reads at once, so that several loads are in flight.
constexpr uint32_t IMAGES_AT_ONCE = 4;

KERNEL(max_pool_forward, PoolForward, POOL_THREADS, 4) {
    const Pool& pool = p.pool;
    const uint32_t at = blockIdx.x * blockDim.x + threadIdx.x, outputs = pool.output_h * pool.output_w * p.words;
    if (at >= outputs) return;
    const PoolWindow window(pool, at / p.words);
    const size_t inputs = static_cast<size_t>(pool.input_h) * pool.input_w * p.words;
    auto* pooled = static_cast<uint32_t*>(p.pooled);
    for (uint32_t first = IMAGES_AT_ONCE * blockIdx.y; first < p.images; first += IMAGES_AT_ONCE * gridDim.y) {
        const uint32_t* images = static_cast<const uint32_t*>(p.input) + first * inputs + at % p.words;
        uint32_t any[IMAGES_AT_ONCE] = {};
        for (uint32_t y = window.top; y < window.bottom; y++) {
#pragma unroll 1
            for (uint32_t x = window.left; x < window.right; x++) {
                const uint32_t pixel = (y * pool.input_w + x) * p.words;
#pragma unroll
                for (uint32_t i = 0; i < IMAGES_AT_ONCE; i++) {
                    if (first + i < p.images) any[i] |= images[i * inputs + pixel];
                }
            }
        }
#pragma unroll
        for (uint32_t i = 0; i < IMAGES_AT_ONCE; i++) {
            if (first + i < p.images) pooled[static_cast<size_t>(first + i) * outputs + at] = any[i];
        }
    }
}

template <class V>
DEVICE void avg_pool_forward(const PoolForward& p) {
    const Pool& pool = p.pool;
    const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, lane = thread % 4, at = thread / 4;
    const uint32_t outputs = pool.output_h * pool.output_w * p.words;
    if (at >= outputs) return;
    const PoolWindow window(pool, at / p.words);
    const size_t inputs = static_cast<size_t>(pool.input_h) * pool.input_w * p.words;
    const float share = p.share;
    auto* pooled = static_cast<typename V::Stored*>(p.pooled);
    for (uint32_t image = blockIdx.y; image < p.images; image += gridDim.y) {
        const uint32_t* words = static_cast<const uint32_t*>(p.input) + image * inputs + at % p.words;
        uint32_t count[8] = {};
        for (uint32_t y = window.top; y < window.bottom; y++) {
            for (uint32_t x = window.left; x < window.right; x++) {
                const uint32_t spikes = words[(y * pool.input_w + x) * p.words] >> 8 * lane;
#pragma unroll
                for (int i = 0; i < 8; i++) count[i] += spikes >> i & 1;
            }
        }
        float mean[8];
#pragma unroll
        for (int i = 0; i < 8; i++) mean[i] = static_cast<float>(count[i]) * share;
        V::store8(pooled + (static_cast<size_t>(image) * outputs + at) * 32 + 8 * lane, mean);
    }
}

KERNEL_EACH_VALUE(avg_pool_forward, PoolForward, POOL_THREADS, 4, avg_pool_forward)

template <class V>
DEVICE void avg_pool_values(const PoolForward& p) {
    using Stored = typename V::Stored;
    const Pool& pool = p.pool;
    const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, lane = thread % 4, at = thread / 4;
    const uint32_t outputs = pool.output_h * pool.output_w * p.words;
    if (at >= outputs) return;
    const PoolWindow window(pool, at / p.words);
    const size_t inputs = static_cast<size_t>(pool.input_h) * pool.input_w * p.words;
    const float share = p.share;
    for (uint32_t image = blockIdx.y; image < p.images; image += gridDim.y) {
        const Stored* values = static_cast<const Stored*>(p.input) + (image * inputs + at % p.words) * 32 + 8 * lane;
        float sum[8] = {};
        for (uint32_t y = window.top; y < window.bottom; y++) {
            for (uint32_t x = window.left; x < window.right; x++) {
                float here[8];
                V::load8(values + static_cast<size_t>(y * pool.input_w + x) * p.words * 32, here);
#pragma unroll
                for (int i = 0; i < 8; i++) sum[i] += here[i];
            }
        }
#pragma unroll
        for (int i = 0; i < 8; i++) sum[i] *= share;
        const size_t out = (static_cast<size_t>(image) * outputs + at) * 32 + 8 * lane;
        V::store8(static_cast<Stored*>(p.pooled) + out, sum);
    }
}

KERNEL_EACH_VALUE(avg_pool_values, PoolForward, POOL_THREADS, 4, avg_pool_values)

// Threads as in places.cuh.
template <class V>
DEVICE void avg_pool_backward(const AvgPoolBackward& p) {
    using Stored = typename V::Stored;
    const Quad quad(p.places);
    if (!quad.active) return;
    const size_t words = static_cast<size_t>(p.places.places) * p.places.words;
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const Covering covering(p.pool, place);
        const size_t word = static_cast<size_t>(place) * p.places.words + quad.word;
        for (uint32_t t = 0; t < p.places.steps; t++) {
            float g[8];
            unpool8<V, true>(p.pool, p.places, quad, covering, t, static_cast<const Stored*>(p.gradient), nullptr, g);
            put8<V>(static_cast<Stored*>(p.out) + (t * words + word) * 32 + 8 * quad.lane, g, p.add);
        }
    }
}

KERNEL_EACH_VALUE(avg_pool_backward, AvgPoolBackward, PLACE_THREADS, 2, avg_pool_backward)
