//! Convolution, forward and backward. A linear layer is the convolution whose kernel covers the whole input:
//! its weight `[out, C*H*W]` then lies in memory as `[out, C, H, W]`.

use super::Tensor;

/// Geometry of a convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Output channels K.
    pub out: usize,
    /// Kernel rows R.
    pub kernel_h: usize,
    /// Kernel columns S.
    pub kernel_w: usize,
    /// Stride, both axes.
    pub stride: usize,
    /// Zero padding, all four sides.
    pub padding: usize,
}

/// Output extent of a window of `kernel` moved by `stride` over `size` with `padding` at both ends.
pub fn output_extent(size: usize, kernel: usize, stride: usize, padding: usize) -> usize {
    assert!(size + 2 * padding >= kernel, "a window of {kernel} does not fit {size} padded by {padding}");
    (size + 2 * padding - kernel) / stride + 1
}

/// Input position that window position `inner` of output position `outer` reads, or None in the padding.
pub fn input_position(outer: usize, inner: usize, stride: usize, padding: usize, size: usize) -> Option<usize> {
    let position = (outer * stride + inner).checked_sub(padding)?;
    (position < size).then_some(position)
}

impl Filter {
    /// Output shape `[T, N, K, P, Q]` for an input shape `[T, N, C, H, W]`.
    pub fn output_shape(&self, [steps, batch, _, height, width]: [usize; 5]) -> [usize; 5] {
        let rows = output_extent(height, self.kernel_h, self.stride, self.padding);
        let columns = output_extent(width, self.kernel_w, self.stride, self.padding);
        [steps, batch, self.out, rows, columns]
    }

    /// Calls `visit(output, input, weight)` with the offsets of every product of the convolution.
    fn for_each_product(&self, input: [usize; 5], mut visit: impl FnMut(usize, usize, usize)) {
        let [steps, batch, channels, height, width] = input;
        let [.., rows, columns] = self.output_shape(input);
        let (stride, padding) = (self.stride, self.padding);
        for image in 0..steps * batch {
            for k in 0..self.out {
                for p in 0..rows {
                    for q in 0..columns {
                        let output = ((image * self.out + k) * rows + p) * columns + q;
                        for c in 0..channels {
                            for r in 0..self.kernel_h {
                                let Some(y) = input_position(p, r, stride, padding, height) else {
                                    continue;
                                };
                                for s in 0..self.kernel_w {
                                    let Some(x) = input_position(q, s, stride, padding, width) else {
                                        continue;
                                    };
                                    let input = ((image * channels + c) * height + y) * width + x;
                                    let weight = ((k * channels + c) * self.kernel_h + r) * self.kernel_w + s;
                                    visit(output, input, weight);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `input` `[T, N, C, H, W]`, `weight` `[K, C, R, S]` -> `[T, N, K, P, Q]`, without bias.
pub fn conv_forward(filter: &Filter, input: &Tensor, weight: &Tensor) -> Tensor {
    let mut output = Tensor::zeros(&filter.output_shape(input.dims5()));
    filter.for_each_product(input.dims5(), |o, i, w| {
        output.data[o] += input.data[i] * weight.data[w];
    });
    output
}

/// Gradient of the input, `[T, N, C, H, W]`, from that of the output, `[T, N, K, P, Q]`.
pub fn conv_input_gradient(
    filter: &Filter,
    input_shape: [usize; 5],
    weight: &Tensor,
    output_gradient: &Tensor,
) -> Tensor {
    let mut gradient = Tensor::zeros(&input_shape);
    filter.for_each_product(input_shape, |o, i, w| {
        gradient.data[i] += output_gradient.data[o] * weight.data[w];
    });
    gradient
}

/// Gradient of the weight, in the shape of `weight`, from that of the output, `[T, N, K, P, Q]`.
pub fn conv_weight_gradient(filter: &Filter, input: &Tensor, weight: &Tensor, output_gradient: &Tensor) -> Tensor {
    let mut gradient = Tensor::zeros(&weight.shape);
    filter.for_each_product(input.dims5(), |o, i, w| {
        gradient.data[w] += output_gradient.data[o] * input.data[i];
    });
    gradient
}
