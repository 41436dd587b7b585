// Event frames as bytes, from their nonzero entries.
//
//   frames[first + n][cell] = min(255, frames[first + n][cell] + count)   for every entry (cell, count) of sample n
//
// entries [any] words, cell | count << 24, in any order, a cell may occur several times; sample n's entries end at
// ends[n] and start where those of the sample before end; frames [any][cells] bytes, a cell's index being that of its
// event in [T][H][W][2]. Four cells share a word, to which threads add by compare-and-swap: counts saturate at 255 in
// any order and neighbours are untouched. A block takes whole samples, a thread every blockDim-th entry. Memory
// traffic, per entry: 4 bytes in, one word of frames in and out.
#include "device.cuh"

struct IntegrateEvents {
    const uint32_t* entries;
    const uint32_t* ends;  // [N]
    uint32_t* frames;
    unsigned long long first;
    uint32_t samples, cells;
};

// Adds to one byte of a word.
DEVICE void add(uint32_t* word, uint32_t shift, uint32_t count) {
    // Most cells are written once, so the first guess is zero.
    for (uint32_t guess = 0;;) {
        const uint32_t sum = min((guess >> shift & 0xff) + count, 255u);
        const uint32_t seen = atomicCAS(word, guess, (guess & ~(0xffu << shift)) | sum << shift);
        if (seen == guess) return;
        guess = seen;
    }
}

KERNEL(integrate_events, IntegrateEvents, 256, 4) {
    for (uint32_t n = blockIdx.x; n < p.samples; n += gridDim.x) {
        const uint32_t start = n == 0 ? 0 : p.ends[n - 1], end = p.ends[n];
        for (uint32_t i = start + threadIdx.x; i < end; i += blockDim.x) {
            const uint32_t entry = p.entries[i];
            const size_t place = (p.first + n) * p.cells + (entry & 0xffffff);
            add(p.frames + place / 4, 8 * (place % 4), entry >> 24);
        }
    }
}
