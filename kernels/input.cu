// A batch from the data set's bytes: gathered by index, cropped or rolled, flipped, masked, normalised.
//
//   sample[y][x][c] = table[c][byte at (y + dy, x' + dx)], x' = W - 1 - x if flipped; the place modulo H and W if
//   it wraps; otherwise, outside the image, and for the share of values that a mask drops: byte 0
//
// With mixup, sample n becomes share[n] sample[n] + (1 - share[n]) sample[N - 1 - n].
//
// set [any][T][H][W][C] bytes -> samples [T][N][H][W][C], C not padded; T frames, 1 for images. Memory traffic, per
// value: 1 byte in (2 with mixup), 2 bytes out.
//
// A thread owns eight consecutive values in a row of an image, keeps that place and walks over images (t, n): the grid
// is (groups of eight per image, any number of blocks of images). The dynamic shared memory is 1024 C bytes for the
// table. Small images need blocks of fewer threads.
//
// `placements` draws a batch's crops, rolls, flips and masks as placement() of src/data/sampling.rs does, one thread
// per sample. A mask keeps a value as dropout does: uniform(mask, place of the value in [T][H][W][C]) >= share.
#include "random.cuh"
#include "value.cuh"

// Where a sample is read: the shift in pixels to the right and down, whether it is mirrored left to right, whether
// reads past an edge wrap around, and what the dropped values are drawn from.
struct Placement {
    int32_t dx, dy;
    uint32_t flip, wraps;
    unsigned long long mask;
};

struct Placements {
    const unsigned long long* seed;
    const uint32_t* epoch;
    const uint32_t* indices;  // [N]
    Placement* placements;    // [N]
    uint32_t batch;
    uint32_t crop_padding, flip, roll, drop;  // the augmentation; drop: whether there are masks
    uint32_t padding;
};

struct InputBatch {
    const uint8_t* set;
    const uint32_t* indices;      // [N]
    const Placement* placements;  // [N]
    const float* table;           // [C][256]
    void* samples;
    unsigned long long dropped;  // 2^53 times the dropped share, rounded up
    uint32_t batch, frames, height, width, channels;
    uint32_t padding;
    const float* shares;  // [N]; null: no mixup
};

constexpr uint32_t INPUT_THREADS = 256;

// Uniform in -crop_padding … crop_padding.
DEVICE int32_t shift(CounterRng rng, uint32_t crop_padding) {
    const uint64_t drawn = rng.below(2 * static_cast<uint64_t>(crop_padding) + 1);
    return static_cast<int32_t>(static_cast<int64_t>(drawn) - crop_padding);
}

KERNEL(placements, Placements, INPUT_THREADS, 1) {
    const uint32_t n = blockIdx.x * blockDim.x + threadIdx.x;
    if (n >= p.batch) return;
    const CounterRng rng = CounterRng(*p.seed, PLACEMENT_STREAM).fork(*p.epoch).fork(p.indices[n]);
    const uint32_t most = max(p.crop_padding, p.roll);
    const int32_t dx = shift(rng.fork(0), most), dy = shift(rng.fork(1), most);
    const bool flip = p.flip && rng.fork(2).next() >> 63;
    p.placements[n] = Placement{dx, dy, flip, p.roll > 0, p.drop ? rng.fork(3).next() : 0};
}

// The index to read for a shifted row or column, which is out of range by less than the extent.
DEVICE uint32_t wrapped(uint32_t at, int32_t shift, uint32_t extent) {
    return at < extent ? at : shift < 0 ? at + extent : at - extent;
}

// Eight values of sample n at step t, from place `first` on.
DEVICE void read8(const InputBatch& p, const float* table, uint32_t t, uint32_t n, uint32_t first, float (&values)[8]) {
    const uint32_t line = p.width * p.channels, length = p.height * line;
    const Placement placement = p.placements[n];
    const uint8_t* bytes = p.set + (static_cast<size_t>(p.indices[n]) * p.frames + t) * length;
    CounterRng value = CounterRng(placement.mask, DROPOUT_STREAM).from(static_cast<uint64_t>(t) * length + first);
    uint32_t y = first / line, x = first % line / p.channels, c = first % line % p.channels;
#pragma unroll
    for (int i = 0; i < 8; i++) {
        // Coordinates above or left of the image wrap to large ones, so one comparison covers all four sides.
        uint32_t row = y + placement.dy, column = (placement.flip ? p.width - 1 - x : x) + placement.dx;
        if (placement.wraps) {
            row = wrapped(row, placement.dy, p.height);
            column = wrapped(column, placement.dx, p.width);
        }
        bool inside = row < p.height && column < p.width;
        if (p.dropped) {
            inside = inside && value.fork_here().uniform53() >= p.dropped;
            value.next_case();
        }
        values[i] = table[256 * c + (inside ? bytes[(row * p.width + column) * p.channels + c] : 0)];
        if (++c == p.channels) c = 0, x++;
        if (x == p.width) x = 0, y++;
    }
}

template <class V>
DEVICE void input(const InputBatch& p) {
    DYNAMIC_SHARED(float, table);
    for (uint32_t i = 4 * threadIdx.x; i < 256 * p.channels; i += 4 * blockDim.x) {
        *reinterpret_cast<float4*>(table + i) = *reinterpret_cast<const float4*>(p.table + i);
    }
    __syncthreads();
    const uint32_t line = p.width * p.channels, length = p.height * line;
    const uint32_t first = 8 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (first >= length) return;
    for (uint32_t image = blockIdx.y; image < p.frames * p.batch; image += gridDim.y) {
        const uint32_t t = image / p.batch, n = image % p.batch;
        float values[8];
        read8(p, table, t, n, first, values);
        if (p.shares) {
            float others[8];
            read8(p, table, t, p.batch - 1 - n, first, others);
#pragma unroll
            for (int i = 0; i < 8; i++) values[i] = fmaf(p.shares[n], values[i] - others[i], others[i]);
        }
        auto* samples = static_cast<typename V::Stored*>(p.samples) + static_cast<size_t>(image) * length + first;
        if (length % 8 == 0) {
            V::store8(samples, values);
        } else {
#pragma unroll
            for (int i = 0; i < 8; i++) {
                if (first + i < length) V::store(samples + i, values[i]);
            }
        }
    }
}

KERNEL_EACH_VALUE(input, InputBatch, INPUT_THREADS, 3, input)
