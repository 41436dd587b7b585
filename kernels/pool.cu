// Pooling of spikes, forward.
//
//   max: OR of the spikes in the window -> spikes      avg: their count / (kernel_h kernel_w) -> values
//
// spikes [T][N][H][W][C/32] -> pooled [T][N][H'][W'][C/32] bits (max), [T][N][H'][W'][C] values (avg).
//
// A thread owns one output word of an image (max), or a quad of threads does, each eight of its channels (avg). It
// keeps its window and walks over images: the grid is (words or quarters of words per image, any number of blocks of
// images). Small images need blocks of fewer threads. Memory traffic, per output word of non-overlapping windows: 4
// kernel_h kernel_w bytes in, 4 bytes (max) or 32 values (avg) out.
#include "pool.cuh"
#include "value.cuh"

struct PoolForward {
    const uint32_t* spikes;
    void* pooled;
    Pool pool;
    uint32_t images;  // T N
    uint32_t words;
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
        const uint32_t* images = p.spikes + first * inputs + at % p.words;
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
    const float share = 1.0f / static_cast<float>(pool.kernel_h * pool.kernel_w);
    auto* pooled = static_cast<typename V::Stored*>(p.pooled);
    for (uint32_t image = blockIdx.y; image < p.images; image += gridDim.y) {
        const uint32_t* words = p.spikes + image * inputs + at % p.words;
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
