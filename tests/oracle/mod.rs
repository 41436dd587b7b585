//! Independent reference for the whole method: naive loops in f64, written from `method.md` alone.
//!
//! Nothing here is fast, and nothing is shared with `src/`. Activations are `[T, N, C, H, W]` (PyTorch's order with the time
//! step first); a linear layer's output is `[T, N, out, 1, 1]`.
//!
//! [`run`] does a forward and an explicit backward pass. With [`SpikeModel::Smooth`] the spike is the integral
//! of its surrogate slope, so that the same backward code computes a true derivative, which
//! [`finite_difference`] can check.

pub mod backward;
pub mod conv;
pub mod finite_difference;
pub mod forward;
pub mod loss;
pub mod network;
pub mod neuron;
pub mod norm;
pub mod optimizer;
pub mod pool;
pub mod rng;
pub mod slope;
pub mod tensor;

pub use backward::{LayerGradients, backward, backward_rounded};
pub use conv::Filter;
pub use forward::{AffineTrace, Forward, LayerTrace, forward};
pub use loss::{Loss, loss_and_gradient};
pub use network::{Input, Join, Layer, LayerParams, Network, Norm, Params, Source};
pub use neuron::{Neuron, NeuronTrace, Reset, SpikeModel, neuron_backward, neuron_forward};
pub use norm::BatchStatistics;
pub use optimizer::{AdamW, AdamWState, Sgd};
pub use pool::Window;
pub use rng::Rng;
pub use slope::Slope;
pub use tensor::Tensor;

/// Everything one training step computes, before the optimiser.
#[derive(Clone, Debug)]
pub struct Trace {
    /// Logits of each time step, `[T, N, classes]`.
    pub logits_per_step: Tensor,
    /// Logits averaged over the time steps, `[N, classes]`.
    pub logits: Tensor,
    /// The loss, mean over the batch.
    pub loss: f64,
    /// What each layer computed, one entry per layer.
    pub layers: Vec<LayerTrace>,
    /// Gradients of each layer's parameters, one entry per layer.
    pub gradients: Vec<LayerGradients>,
    /// Gradient of the input: `[N, C, H, W]` for a direct image, `[T, N, C, H, W]` for frames.
    pub input_gradient: Tensor,
}

/// One forward and one backward pass. `labels` holds N class numbers.
pub fn run(
    network: &Network,
    params: &Params,
    input: &Input,
    labels: &[usize],
    loss: &Loss,
    model: SpikeModel,
) -> Trace {
    let forward = forward(network, params, input, model, None);
    let (value, logits_gradient) = loss_and_gradient(loss, &forward.logits_per_step, labels);
    let (gradients, input_gradient) = backward(network, params, input, &forward, &logits_gradient);
    Trace {
        logits_per_step: forward.logits_per_step,
        logits: forward.logits,
        loss: value,
        layers: forward.layers,
        gradients,
        input_gradient,
    }
}
