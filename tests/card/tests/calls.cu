// Kernels for the tests of the driver's calls.
#include <cstdint>

struct Words {
    const uint32_t* from;
    uint32_t* to;
    uint64_t count;
};

extern "C" __global__ void copy_words(const Words p) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < p.count) p.to[i] = p.from[i];
}

extern "C" __global__ void with_shared(const Words p) {
    extern __shared__ uint32_t shared[];
    shared[threadIdx.x] = p.from[threadIdx.x];
    __syncthreads();
    p.to[threadIdx.x] = shared[blockDim.x - 1 - threadIdx.x];
}
