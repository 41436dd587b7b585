//! Max and average pooling, and dropout with a given mask.

use super::Tensor;
use super::conv::{input_position, output_extent};

/// A pooling window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Rows and columns.
    pub kernel: [usize; 2],
    /// Stride of each axis.
    pub stride: [usize; 2],
    /// Padding, all four sides; at most half the kernel, so that no window lies entirely in the padding.
    pub padding: usize,
}

impl Window {
    /// With a square kernel.
    pub fn square(kernel: usize, stride: usize, padding: usize) -> Self {
        Self { kernel: [kernel; 2], stride: [stride; 2], padding }
    }

    fn places(&self) -> f64 {
        (self.kernel[0] * self.kernel[1]) as f64
    }

    /// Output shape `[T, N, C, P, Q]` for an input shape `[T, N, C, H, W]`.
    pub fn output_shape(&self, [steps, batch, channels, height, width]: [usize; 5]) -> [usize; 5] {
        assert!(self.kernel.iter().all(|kernel| self.padding <= kernel / 2), "padding above half the kernel");
        let extent = |axis: usize, size| output_extent(size, self.kernel[axis], self.stride[axis], self.padding);
        [steps, batch, channels, extent(0, height), extent(1, width)]
    }

    /// Input offsets of each output's window, in row-major order, without padding.
    fn members(&self, shape: [usize; 5]) -> Vec<Vec<usize>> {
        let [steps, batch, channels, height, width] = shape;
        let [.., rows, columns] = self.output_shape(shape);
        let mut all = Vec::new();
        for plane in 0..steps * batch * channels {
            for p in 0..rows {
                for q in 0..columns {
                    let mut window = Vec::new();
                    for r in 0..self.kernel[0] {
                        for s in 0..self.kernel[1] {
                            let y = input_position(p, r, self.stride[0], self.padding, height);
                            let x = input_position(q, s, self.stride[1], self.padding, width);
                            if let (Some(y), Some(x)) = (y, x) {
                                window.push((plane * height + y) * width + x);
                            }
                        }
                    }
                    all.push(window);
                }
            }
        }
        all
    }
}

/// Maximum of each window, and the input offset it was taken from, one per output.
///
/// The first of equal values wins, as in PyTorch. On spikes this is the OR of the window, from its first spiking
/// position, else from its first position. On smooth spikes it is the maximum, whose derivative is the routing
/// of the gradient to the winner wherever the winner is unique.
pub fn max_pool_forward(window: &Window, input: &Tensor) -> (Tensor, Vec<usize>) {
    let mut output = Tensor::zeros(&window.output_shape(input.dims5()));
    let mut winners = Vec::new();
    for (o, members) in window.members(input.dims5()).iter().enumerate() {
        let mut winner = members[0];
        for &i in members {
            if input.data[i] > input.data[winner] {
                winner = i;
            }
        }
        output.data[o] = input.data[winner];
        winners.push(winner);
    }
    (output, winners)
}

/// Gradient of the input: each output's gradient goes to its winner.
pub fn max_pool_backward(input_shape: &[usize], winners: &[usize], output_gradient: &Tensor) -> Tensor {
    let mut gradient = Tensor::zeros(input_shape);
    for (winner, above) in winners.iter().zip(&output_gradient.data) {
        gradient.data[*winner] += above;
    }
    gradient
}

/// Mean of each window; padding counts as 0.
pub fn avg_pool_forward(window: &Window, input: &Tensor) -> Tensor {
    let mut output = Tensor::zeros(&window.output_shape(input.dims5()));
    for (o, members) in window.members(input.dims5()).iter().enumerate() {
        let sum: f64 = members.iter().map(|i| input.data[*i]).sum();
        output.data[o] = sum / window.places();
    }
    output
}

/// Gradient of the input: each output's gradient is spread evenly over its window.
pub fn avg_pool_backward(window: &Window, input_shape: [usize; 5], output_gradient: &Tensor) -> Tensor {
    let mut gradient = Tensor::zeros(&input_shape);
    for (o, members) in window.members(input_shape).iter().enumerate() {
        for i in members {
            gradient.data[*i] += output_gradient.data[o] / window.places();
        }
    }
    gradient
}

/// x mask / keep, with `mask` `[N, C, H, W]` the same at every step. Its own backward pass.
pub fn dropout(mask: &Tensor, keep: f64, x: &Tensor) -> Tensor {
    assert_eq!(mask.shape, x.shape[1..], "a dropout mask is [N, C, H, W]");
    let mut y = x.clone();
    for (offset, value) in y.data.iter_mut().enumerate() {
        *value *= mask.data[offset % mask.data.len()] / keep;
    }
    y
}
