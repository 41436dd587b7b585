//! Batches, loss, optimiser and weight norm.

use super::{Field, Params};
use bytemuck::{Pod, Zeroable};

params! {
    /// `placements`
    struct Placements {
        seed: u64,
        epoch: u64,
        indices: u64,
        placements: u64,
        batch: u32,
        crop_padding: u32,
        flip: u32,
        roll: u32,
        drop: u32,
        padding: u32,
    }

    /// `input`
    struct InputBatch {
        set: u64,
        indices: u64,
        placements: u64,
        table: u64,
        samples: u64,
        dropped: u64,
        batch: u32,
        frames: u32,
        height: u32,
        width: u32,
        channels: u32,
        padding: u32,
        shares: u64,
    }

    /// `integrate_events`
    struct IntegrateEvents {
        entries: u64,
        ends: u64,
        frames: u64,
        first: u64,
        samples: u32,
        cells: u32,
    }

    /// `vote_currents`, `vote_spikes`
    struct Vote {
        outputs: u64,
        logits: u64,
        batch: u32,
        steps: u32,
        current_steps: u32,
        classes: u32,
        vote: u32,
        padding: u32,
    }

    /// `vote_backward`
    struct VoteBackward {
        logits_gradient: u64,
        outputs_gradient: u64,
        loss_scale: u64,
        batch: u32,
        steps: u32,
        current_steps: u32,
        classes: u32,
        vote: u32,
        padding: u32,
    }

    /// Sums over an epoch, in device memory.
    struct Metrics {
        loss: f64,
        correct: u64,
        samples: u64,
    }

    /// `loss`
    struct Loss {
        logits: u64,
        labels: u64,
        gradient: u64,
        samples: u64,
        mse: f64,
        label_smoothing: f64,
        batch: u32,
        steps: u32,
        classes: u32,
        tet: u32,
        shares: u64,
    }

    /// `loss_total`
    struct LossTotal {
        samples: u64,
        metrics: u64,
        batch: u32,
        padding: u32,
    }

    /// A parameter in the optimiser's table, in device memory.
    struct TrainedTensor {
        value: u64,
        gradient: u64,
        first: u64,
        second: u64,
        length: u32,
        padding: u32,
    }

    /// [`OPTIMIZER_CHUNK`] values of a tensor from `start` on, or what is left of it; in device memory.
    struct Chunk {
        tensor: u32,
        start: u32,
    }

    /// What changes from update to update, in device memory. `gradient_norm` writes it; the host writes the first
    /// `loss_scale`, and the state when a training is continued.
    struct OptimizerState {
        norm: f64,
        /// Of all finite norms.
        norm_sum: f64,
        rate: f32,
        loss_scale: f32,
        gradient_scale: f32,
        step: f32,
        root: f32,
        finite: u32,
        count: u32,
        skipped: u32,
        /// Updates since the loss scale last changed.
        steady: u32,
        padding: u32,
        /// The first step that was skipped although its loss scale could not shrink; 0 if there is none.
        failed: u64,
    }

    /// `optimizer_sgd`, `optimizer_adam`
    struct Optimizer {
        tensors: u64,
        chunks: u64,
        state: u64,
        decay: f32,
        momentum: f32,
        beta1: f32,
        beta2: f32,
        epsilon: f32,
        decoupled: u32,
    }

    /// `gradient_squares`, `gradient_norm`
    struct GradientNorm {
        tensors: u64,
        chunks: u64,
        squares: u64,
        state: u64,
        /// Address of the learning rate, an `f32`.
        rate: u64,
        /// Address of the step's number, counted from 1, a `u64`.
        step: u64,
        limit: f64,
        beta1: f32,
        beta2: f32,
        chunk_count: u32,
        /// Updates after which the loss scale doubles; 0 if it is fixed.
        growth: u32,
    }

    /// `weight_norm_forward`
    struct WeightNorm {
        weight: u64,
        gain: u64,
        effective: u64,
        fan_in: u32,
        scale: f32,
        factor: f64,
    }

    /// `weight_norm_backward`
    struct WeightNormBackward {
        weight: u64,
        gain: u64,
        gradient: u64,
        gain_gradient: u64,
        fan_in: u32,
        scale: f32,
        factor: f64,
    }
}

/// Values per chunk in `kernels/optimizer.cu`.
pub const OPTIMIZER_CHUNK: usize = 4096;

/// The chunks of tensors of these lengths, one per block of the optimiser.
pub fn chunks(lengths: &[usize]) -> Vec<Chunk> {
    let of = |(tensor, &length): (usize, &usize)| {
        (0..length).step_by(OPTIMIZER_CHUNK).map(move |start| Chunk { tensor: tensor as u32, start: start as u32 })
    };
    lengths.iter().enumerate().flat_map(of).collect()
}
