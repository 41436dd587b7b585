//! The interface between the trainer and the hardware: a small set of operations on typed tensors.
//!
//! Each operation has the same name everywhere. How a tensor is laid out in memory is up to the backend; plain slices that
//! cross the interface are in PyTorch's order (`[K, C, R, S]` weights, `[T, N, C, H, W]` activations). Every output is
//! written completely unless its docs say that it is added to. A device may still be at work when an operation returns: only
//! reading values back waits for it.

pub mod cpu;
pub mod gpu;
mod operands;
pub mod operations;
pub mod shape;
mod storage;

use crate::random::{CounterRng, stream};
use anyhow::Result;
pub use operands::*;
pub use operations::{BoundsTuning, Branches, ConvBackward, ConvForward, NeuronLayers, Rates, Training};
pub use storage::Storage;

/// Whether a dropout keeps element `index` (`[N][H][W][C]` order) of a mask: the same on every backend.
pub fn keeps(mask: u64, index: u64, probability: f32) -> bool {
    CounterRng::new(mask, stream::DROPOUT).fork(index).uniform() >= probability as f64
}

/// The dropout mask after a stage, in a step whose masks are drawn from `seed`.
pub fn dropout_mask(seed: u64, stage: usize) -> u64 {
    seed.wrapping_add(stage as u64)
}

/// Hardware that can train a network.
pub trait Backend: Rates + ConvForward + ConvBackward + NeuronLayers + Branches + Training + BoundsTuning {
    /// Runs `operations`, or replays `graph` if it was made from them: they must be the same operations on the same memory.
    fn repeat(&self, graph: &mut Option<Self::Graph>, operations: &mut dyn FnMut() -> Result<()>) -> Result<()>;

    /// Seconds that the device takes for these operations, which are all done when this returns.
    fn seconds(&self, operations: &mut dyn FnMut() -> Result<()>) -> Result<f64>;

    /// Whether a convolution of spikes skips the weights of silent inputs.
    fn skips_silence(&self) -> bool {
        false
    }
}
