//! The seam between the trainer and the hardware: a small set of operations on typed tensors.
//!
//! One operation has one name everywhere. A tensor's order in memory is the backend's own affair; what crosses
//! the seam as plain slices is in PyTorch's order (`[K, C, R, S]` weights, `[T, N, C, H, W]` activations).
//! Every output is written completely unless its docs say that it is added to.

pub mod cpu;
pub mod gpu;
mod operands;
pub mod shape;

use crate::autotune::Histogram;
use crate::data::SampleShape;
use crate::data::sampling::{CounterRng, Placement};
use anyhow::Result;
pub use operands::*;
use shape::{Conv, Pool, Span, Volume};

/// Streams of random numbers outside the data's own; see [`crate::data::sampling::stream`].
pub mod stream {
    /// Initial weights.
    pub const WEIGHTS: u64 = 16;
    /// Dropout masks.
    pub const DROPOUT: u64 = 17;
}

/// Whether a dropout keeps element `index` (`[N][H][W][C]` order) of a mask: the same on every backend.
pub fn keeps(mask: u64, index: u64, probability: f32) -> bool {
    CounterRng::new(mask, stream::DROPOUT).fork(index).uniform() >= probability as f64
}

/// Hardware that can train a network.
pub trait Backend {
    /// Dense numbers.
    type Floats;
    /// Bit-packed spikes or windows.
    type Bits;
    /// A data set's bytes.
    type Bytes;
    /// Histograms of membrane potentials.
    type Counts;
    /// A weight made ready for the convolutions.
    type Packed;
    /// Two partial sums a channel, gathered where the values are at hand.
    type Sums;

    /// For people: which device, how many threads.
    fn describe(&self) -> String;

    /// Bytes of memory that can still be had; `None` where the system does not say.
    fn available_memory(&self) -> Option<usize>;

    // Memory. Activations are `batch x steps x volume`; vectors are per-channel values.
    fn activations(&self, span: Span, volume: Volume) -> Result<Self::Floats>;
    /// Activations in f32, whatever the others are stored in: a readout's outputs and the logits.
    fn readouts(&self, span: Span, volume: Volume) -> Result<Self::Floats>;
    fn samples(&self, span: Span, volume: Volume) -> Result<Self::Floats>;
    fn spikes(&self, span: Span, volume: Volume) -> Result<Self::Bits>;
    fn vector(&self, values: &[f32]) -> Result<Self::Floats>;
    fn weight(&self, conv: &Conv, values: &[f32]) -> Result<Self::Floats>;
    fn packed(&self, conv: &Conv) -> Result<Self::Packed>;
    fn sums(&self, span: Span, volume: Volume) -> Result<Self::Sums>;
    /// Copies a per-channel vector.
    fn copy(&self, from: &Self::Floats, to: &mut Self::Floats) -> Result<()>;
    /// One histogram, or one a channel.
    fn histogram(&self, count: usize) -> Result<Self::Counts>;
    fn bytes(&self, values: Vec<u8>) -> Result<Self::Bytes>;
    /// Bytes of memory that activations of this extent take.
    fn floats_size(&self, span: Span, volume: Volume) -> usize;
    /// Bytes of memory that spikes of this extent take.
    fn bits_size(&self, span: Span, volume: Volume) -> usize;

    // Reading back, in PyTorch's order.
    fn read_activations(&self, floats: &Self::Floats, span: Span, volume: Volume) -> Result<Vec<f32>>;
    fn read_samples(&self, floats: &Self::Floats, span: Span, volume: Volume) -> Result<Vec<f32>>;
    fn read_spikes(&self, bits: &Self::Bits, span: Span, volume: Volume) -> Result<Vec<u8>>;
    fn read_vector(&self, floats: &Self::Floats, len: usize) -> Result<Vec<f32>>;
    fn read_weight(&self, conv: &Conv, floats: &Self::Floats) -> Result<Vec<f32>>;
    fn take_histogram(&self, counts: &mut Self::Counts) -> Result<Vec<Histogram>>;

    /// Gathers, crops, flips and normalises a batch; outside the sample a byte is 0.
    fn input(
        &self,
        set: &Self::Bytes,
        shape: &SampleShape,
        normalisation: &Normalisation,
        indices: &[u32],
        placements: &[Placement],
        out: &mut Self::Floats,
    ) -> Result<()>;

    /// Makes a weight ready for the convolutions after it has changed; `input_grad` says whether that is among them.
    fn pack_weight(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        packed: &mut Self::Packed,
        input_grad: bool,
    ) -> Result<()>;

    /// `effective = gain s (W - mean) / sqrt(var fan_in + 1e-4)`, per filter.
    fn weight_norm_forward(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        gain: &Self::Floats,
        scale: f32,
        effective: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradients of weight and gain from the effective weight's gradient, which `weight_grad` holds on entry and
    /// which is replaced by the weight's.
    fn weight_norm_backward(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        gain: &Self::Floats,
        scale: f32,
        weight_grad: &mut Self::Floats,
        gain_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// Convolution and bias to currents, with their moments for a batch norm. `span.steps` is 1 for a constant input.
    fn conv_current(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Self::Floats,
        currents: &mut Self::Floats,
        moments: Option<&mut Self::Sums>,
    ) -> Result<()>;

    /// Convolution, bias, affine map and neurons, with no current in memory. `input_steps` is 1 for a constant
    /// input, else `span.steps`.
    fn conv_lif_forward(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        input_steps: usize,
        weights: Weights<Self>,
        bias: &Self::Floats,
        affine: Affine<Self>,
        neurons: &Neurons,
        out: SpikeOutput<Self>,
    ) -> Result<()>;

    /// Batch statistics from the moments of the currents, the running statistics moved towards them when `update`, and the affine map.
    /// `steps` is `T` even where the currents of one step stand for all.
    fn batch_norm_statistics(
        &self,
        norm: BatchNorm<Self>,
        span: Span,
        volume: Volume,
        steps: usize,
        moments: &Self::Sums,
        update: bool,
    ) -> Result<NormState<Self::Floats>>;

    /// The affine map from the running statistics.
    fn batch_norm_running(&self, norm: BatchNorm<Self>) -> Result<NormState<Self::Floats>>;

    /// Affine map and neurons over currents of 1 or all steps.
    fn norm_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        currents: &Self::Floats,
        current_steps: usize,
        affine: Affine<Self>,
        neurons: &Neurons,
        out: SpikeOutput<Self>,
    ) -> Result<()>;

    /// Pool of spikes to spikes (an OR).
    fn max_pool_forward(&self, pool: &Pool, span: Span, spikes: &Self::Bits, pooled: &mut Self::Bits) -> Result<()>;

    /// Pool of spikes to dense means.
    fn avg_pool_forward(&self, pool: &Pool, span: Span, spikes: &Self::Bits, pooled: &mut Self::Floats) -> Result<()>;

    /// Clears the spikes that a mask, the same at every step, drops: `seed` names the mask.
    fn dropout_spikes(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        seed: u64,
        spikes: &Self::Bits,
        kept: &mut Self::Bits,
    ) -> Result<()>;

    /// Zeroes the values that the mask drops and scales the others by `1/(1-p)`; also its own backward pass.
    fn dropout_floats(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        seed: u64,
        values: &mut Self::Floats,
    ) -> Result<()>;

    /// Logits of every step: each class the mean of `vote` outputs.
    fn vote_currents(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Self::Floats,
        current_steps: usize,
        logits: &mut Self::Floats,
    ) -> Result<()>;
    fn vote_spikes(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Self::Bits,
        logits: &mut Self::Floats,
    ) -> Result<()>;
    /// Gradient of the outputs from the logits' gradient; summed over steps where `current_steps` is 1.
    fn vote_backward(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        logits_grad: &Self::Floats,
        current_steps: usize,
        outputs_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// Loss and hits of a batch; the gradient of the batch's mean loss with `grad`.
    fn loss(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Self::Floats,
        labels: &[u16],
        grad: Option<&mut Self::Floats>,
    ) -> Result<LossSums>;

    /// Un-pools the gradient of the (pooled) spikes and runs the neurons backward in time: gradient of what
    /// entered the neurons, summed over steps where `current_steps` is 1, and that of a bias.
    fn spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Self::Floats,
        current_steps: usize,
        out: &mut Self::Floats,
        bias_grad: Option<&mut Self::Floats>,
    ) -> Result<()>;

    /// As [`Backend::spike_backward`] where a batch norm lies before the neurons: with its gradients. What of the norm is
    /// still to be applied to `out` is returned, for the convolution's backward operations.
    fn norm_spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Self::Floats,
        norm: NormBackward<Self>,
        out: &mut Self::Floats,
    ) -> Result<NormGradient<Self::Floats>>;

    /// A bias's gradient where no neurons follow, from the gradient itself.
    fn bias_grad(&self, volume: Volume, span: Span, gradient: &Self::Floats, out: &mut Self::Floats) -> Result<()>;

    /// Gradient of the weight from that of the currents and the input.
    fn conv_weight_grad(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        gradient: CurrentGradient<Self>,
        weight_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of the input from that of the currents; a dropout between is `dropout_floats`' affair.
    fn conv_input_grad(
        &self,
        conv: &Conv,
        span: Span,
        gradient: CurrentGradient<Self>,
        weights: Weights<Self>,
        input_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// The 2-norm over all of them together.
    fn gradient_norm(&self, gradients: &[&Self::Floats]) -> Result<f64>;

    /// Moves one parameter.
    fn optimizer(&self, update: &Update, parameter: Trained<Self>) -> Result<()>;
}
