// What conv_lif_forward applies to its sums: dropout's scale, bias and affine map in one.
//
//   folded_scale[k] = dropout scale[k]      folded_shift[k] = scale[k] bias[k] + shift[k]
//
// All [K to 32] f32; one thread per channel.
#include "device.cuh"

struct FoldAffine {
    const float *scale, *shift, *bias;
    float *folded_scale, *folded_shift;
    uint32_t channels;  // with padding
    float dropout;
};

KERNEL(fold_affine, FoldAffine, 256, 4) {
    const uint32_t k = blockIdx.x * blockDim.x + threadIdx.x;
    if (k >= p.channels) return;
    p.folded_scale[k] = p.dropout * p.scale[k];
    p.folded_shift[k] = fmaf(p.scale[k], p.bias[k], p.shift[k]);
}
