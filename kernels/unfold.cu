// Unfolds samples for the first convolution, which thereby becomes a 1x1 convolution with a full reduction.
//
//   columns[t][n][p][q][(r S + s) C + c] = samples[t][n][p stride_h + r - padding_h][q stride_w + s - padding_w][c],
//   0 outside the image
//
// samples [T][N][H][W][C], C not padded -> columns [T][N][P][Q][R S C to 32], padding zero; T frames, 1 for images.
// Threads as in places.cuh, with columns as channels. Memory traffic, per place: stride_h stride_w C values in (the
// rest of the window comes from cache), R S C with padding out.
#include "places.cuh"
#include "value.cuh"

struct Unfold {
    const void* samples;
    void* columns;
    Places places;  // N P Q, words of columns, T
    uint32_t height, width, channels;
    uint32_t output_h, output_w;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
};

template <class V>
DEVICE void unfold(const Unfold& p) {
    using Stored = typename V::Stored;
    const Quad quad(p.places);
    if (!quad.active) return;
    const uint32_t line = p.width * p.channels, windows = p.output_h * p.output_w;
    const size_t image = static_cast<size_t>(p.height) * line, batch = p.places.places / windows;
    const size_t step = static_cast<size_t>(p.places.places) * p.places.words * 32;
    // For each of the thread's columns: its row and pixel in the window, its offset from the window's first value.
    uint32_t row[8], pixel[8], distance[8];
#pragma unroll
    for (uint32_t i = 0; i < 8; i++) {
        const uint32_t column = quad.channel() + i, tap = column / p.channels;
        // Padding columns read from below the image, where values are zero.
        row[i] = tap < p.kernel_h * p.kernel_w ? tap / p.kernel_w : p.height + p.padding_h;
        pixel[i] = tap % p.kernel_w;
        distance[i] = row[i] * line + pixel[i] * p.channels + column % p.channels;
    }
    for (uint32_t place = quad.first; place < p.places.places; place += quad.stride) {
        const uint32_t n = place / windows, window = place % windows;
        // Coordinates above or left of the image wrap to large ones, so one comparison covers all four sides.
        const uint32_t y = window / p.output_w * p.stride_h - p.padding_h;
        const uint32_t x = window % p.output_w * p.stride_w - p.padding_w;
        const uint32_t first = y * line + x * p.channels;
        const Stored* sample = static_cast<const Stored*>(p.samples) + n * image;
        Stored* columns =
            static_cast<Stored*>(p.columns) + static_cast<size_t>(place) * p.places.words * 32 + quad.channel();
        for (uint32_t t = 0; t < p.places.steps; t++, sample += batch * image, columns += step) {
            float values[8];
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const bool inside = y + row[i] < p.height && x + pixel[i] < p.width;
                values[i] = inside ? V::load(sample + (first + distance[i])) : 0.0f;
            }
            V::store8(columns, values);
        }
    }
}

KERNEL_EACH_VALUE(unfold, Unfold, PLACE_THREADS, 4, unfold)
