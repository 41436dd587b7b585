// Sums of a warp's values, and of a block's f64 values, in an order that depends only on the block's size: the same in
// every run.
#pragma once
#include "device.cuh"

// Sums a warp's values; all lanes get the result.
template <class T>
DEVICE T warp_sum(T x) {
#pragma unroll
    for (uint32_t with = 16; with > 0; with /= 2) x += __shfl_xor_sync(~0u, x, with);
    return x;
}

// Sums each of the N values over the block; all threads get the result. `scratch` has N doubles per warp; the block may
// have read it before its last barrier.
template <int N>
DEVICE void block_sums(double (&x)[N], double* scratch) {
#pragma unroll
    for (int i = 0; i < N; i++) {
        x[i] = warp_sum(x[i]);
        if (LANE == 0) scratch[N * (threadIdx.x / 32) + i] = x[i];
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < N; i++) {
        x[i] = 0.0;
        for (uint32_t warp = 0; warp < blockDim.x / 32; warp++) x[i] += scratch[N * warp + i];
    }
    __syncthreads();
}
