// Routes a gradient back through a spike pool, as src/backend/cpu/pool.rs does.
#pragma once
#include "places.cuh"
#include "pool.cuh"
#include "value.cuh"

// The first window that covers position `at` of a padded axis.
DEVICE uint32_t first_window(uint32_t at, uint32_t kernel, uint32_t stride) {
    return at < kernel ? 0 : (at - kernel) / stride + 1;
}

// A place of the input and the windows that cover it, [top, bottom) x [left, right).
struct Covering {
    uint32_t image, y, x, top, bottom, left, right;

    Covering() = default;
    DEVICE Covering(const Pool& pool, uint32_t place) {
        const uint32_t pixels = pool.input_h * pool.input_w, pixel = place % pixels;
        image = place / pixels, y = pixel / pool.input_w, x = pixel % pool.input_w;
        const uint32_t down = y + pool.padding_h, across = x + pool.padding_w;
        top = first_window(down, pool.kernel_h, pool.stride_h);
        left = first_window(across, pool.kernel_w, pool.stride_w);
        bottom = min(down / pool.stride_h + 1, pool.output_h);
        right = min(across / pool.stride_w + 1, pool.output_w);
    }
};

// The channels of max-pool window (row, column) whose gradient goes to this place: to the window's first spike in
// row-major order, else to its first pixel inside the image. `spikes` is the word of the image's first pixel.
DEVICE uint32_t route(const Pool& pool, const Covering& at, uint32_t row, uint32_t column, const uint32_t* spikes,
                      uint32_t words) {
    const int top = static_cast<int>(row * pool.stride_h) - static_cast<int>(pool.padding_h);
    const int left = static_cast<int>(column * pool.stride_w) - static_cast<int>(pool.padding_w);
    const uint32_t y0 = max(top, 0), y1 = min(top + pool.kernel_h, pool.input_h);
    const uint32_t x0 = max(left, 0), x1 = min(left + pool.kernel_w, pool.input_w);
    uint32_t before = 0, here = 0, after = 0;
    for (uint32_t y = y0; y < y1; y++) {
#pragma unroll 2
        for (uint32_t x = x0; x < x1; x++) {
            const uint32_t word = spikes[static_cast<size_t>(y * pool.input_w + x) * words];
            const bool earlier = y < at.y || (y == at.y && x < at.x), same = y == at.y && x == at.x;
            before |= earlier ? word : 0;
            here |= same ? word : 0;
            after |= earlier || same ? 0 : word;
        }
    }
    const bool first = at.y == y0 && at.x == x0;
    return (here & ~before) | (first ? ~(here | after) : 0);
}

// Gradient of a quad lane's eight channels at step `t` and one place, summed over the windows. `gradient` is
// [T][N][H'][W'][C], `spikes` [T][places][C/32], for a max-pool.
template <class V, bool AVERAGE = false>
DEVICE void unpool8(const Pool& pool, const Places& places, const Quad& quad, const Covering& at, uint32_t t,
                    const typename V::Stored* gradient, const uint32_t* spikes, float (&sum)[8]) {
    const uint32_t pixels = pool.input_h * pool.input_w, image = t * (places.places / pixels) + at.image;
    const size_t windows = static_cast<size_t>(image) * pool.output_h * pool.output_w;
    gradient += (windows * places.words + quad.word) * 32 + 8 * quad.lane;
    if (!AVERAGE) spikes += static_cast<size_t>(image) * pixels * places.words + quad.word;
    const float share = 1.0f / static_cast<float>(pool.kernel_h * pool.kernel_w);
#pragma unroll
    for (int i = 0; i < 8; i++) sum[i] = 0.0f;
    for (uint32_t row = at.top; row < at.bottom; row++) {
        for (uint32_t column = at.left; column < at.right; column++) {
            float g[8];
            V::load8(gradient + static_cast<size_t>(row * pool.output_w + column) * places.words * 32, g);
            if (AVERAGE || pool.kind == AVG_POOL) {
#pragma unroll
                for (int i = 0; i < 8; i++) sum[i] = fmaf(g[i], share, sum[i]);
            } else {
                const uint32_t here = route(pool, at, row, column, spikes, places.words) >> 8 * quad.lane;
#pragma unroll
                for (int i = 0; i < 8; i++) sum[i] += here >> i & 1 ? g[i] : 0.0f;
            }
        }
    }
}
