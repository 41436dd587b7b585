//! Every operation of the backend interface, by family. Each family is implemented in one file per backend.

mod branches;

use super::shape::{Conv, Pool, Span, Volume};
use super::{
    Affine, BatchNorm, Below, Input, LossSpec, Neurons, NormBackward, NormState, Put, Saved, SpikeOutput, Storage,
    Trained, Update, WeightNorm, Weights,
};
use crate::autotune::Tuning;
use crate::data::sampling::Augmentation;
use anyhow::Result;
pub use branches::Branches;

/// A device's peak rates.
pub trait Rates: Storage {
    /// Copies as many bytes as both hold and returns their number; measures the rate of reading and writing memory.
    fn copy(&self, from: &Self::Floats, to: &mut Self::Floats) -> Result<usize>;

    /// Products of matrices (on the CPU, of vectors) in registers only, `rounds` times; returns the number of floating-point
    /// operations. Measures their rate.
    fn multiply(&self, rounds: u32) -> Result<f64>;
}

/// Convolutions and linear layers forward.
pub trait ConvForward: Storage {
    /// Prepares a weight for the convolutions after it has changed; `input_grad` says whether that is among them.
    fn pack_weight(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        packed: &mut Self::Packed,
        input_grad: bool,
    ) -> Result<()>;

    /// Convolution and bias to currents. `span.steps` is 1 for a constant input.
    fn conv_current(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Self::Floats,
        currents: &mut Self::Floats,
    ) -> Result<()>;

    /// The same followed by a batch norm: its statistics over the batch, the running statistics moved towards them if
    /// `update`, and the affine map. `steps` is `T` even if the currents of one step stand for all.
    fn conv_batch_norm(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Self::Floats,
        currents: &mut Self::Floats,
        steps: usize,
        norm: BatchNorm<Self>,
        update: bool,
        state: &mut NormState<Self::Floats>,
    ) -> Result<()>;

    /// Convolution, bias, affine map and neurons, with no currents in memory, and a max-pool of the spikes if `pooled` asks
    /// for one. `input_steps` is 1 for a constant input, else `span.steps`.
    fn conv_lif_forward(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        input_steps: usize,
        weights: Weights<Self>,
        bias: &Self::Floats,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
        pooled: Option<(&Pool, &mut Self::Bits)>,
    ) -> Result<()>;
}

/// Convolutions and linear layers backward.
pub trait ConvBackward: Storage {
    /// Gradient of the weight from that of the currents and the input.
    fn conv_weight_grad(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        gradient: &Self::Floats,
        weight_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradient of the input from that of the currents; a dropout in between is left to `dropout_floats`.
    fn conv_input_grad(
        &self,
        conv: &Conv,
        span: Span,
        gradient: &Self::Floats,
        weights: Weights<Self>,
        put: Put,
        input_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// [`ConvBackward::conv_input_grad`] followed by the [`NeuronLayers::spike_backward`] of the layer below, whose neurons'
    /// bits must suffice, with no gradient of spikes in memory, if the device can fuse the two. Otherwise does nothing and
    /// returns `false`.
    fn conv_input_grad_lif(
        &self,
        _conv: &Conv,
        _span: Span,
        _gradient: &Self::Floats,
        _weights: Weights<Self>,
        _below: Below<Self>,
        _out: &mut Self::Floats,
    ) -> Result<bool> {
        Ok(false)
    }
}

/// Neurons, batch norms, pools and dropout.
pub trait NeuronLayers: Storage {
    /// A batch norm's affine map from the running statistics.
    fn batch_norm_running(&self, norm: BatchNorm<Self>, state: &mut NormState<Self::Floats>) -> Result<()>;

    /// Affine map and neurons over currents of 1 or all steps.
    fn norm_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        currents: &Self::Floats,
        current_steps: usize,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
    ) -> Result<()>;

    /// Pool of spikes to spikes (an OR).
    fn max_pool_forward(&self, pool: &Pool, span: Span, spikes: &Self::Bits, pooled: &mut Self::Bits) -> Result<()>;

    /// Pool of spikes or dense values to dense means.
    fn avg_pool_forward(&self, pool: &Pool, span: Span, input: Input<Self>, pooled: &mut Self::Floats) -> Result<()>;

    /// Gradient of what an average pool reads. If neurons' spikes are all that it reads, [`NeuronLayers::spike_backward`]
    /// includes this.
    fn avg_pool_backward(
        &self,
        pool: &Pool,
        span: Span,
        pooled_grad: &Self::Floats,
        put: Put,
        input_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// Clears the spikes that the batch's mask after stage `stage` drops; the mask is the same at every step.
    fn dropout_spikes(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Self::Batch,
        stage: usize,
        spikes: &Self::Bits,
        kept: &mut Self::Bits,
    ) -> Result<()>;

    /// Zeroes the values that the mask drops and scales the others by `1/(1-p)`; also its own backward pass.
    fn dropout_floats(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Self::Batch,
        stage: usize,
        values: &mut Self::Floats,
    ) -> Result<()>;

    /// Un-pools the gradient of the (pooled) spikes and runs the neurons backward in time: gradient of the neurons' input,
    /// summed over steps if `current_steps` is 1, and that of a bias (if the gradient is not added to another).
    fn spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Self::Floats,
        current_steps: usize,
        put: Put,
        out: &mut Self::Floats,
        bias_grad: Option<&mut Self::Floats>,
    ) -> Result<()>;

    /// [`NeuronLayers::spike_backward`] followed by the [`NeuronLayers::norm_backward`] of a batch norm before the neurons.
    fn norm_spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Self::Floats,
        norm: NormBackward<Self>,
        out: &mut Self::Floats,
    ) -> Result<()>;

    /// A batch norm's backward pass: from the gradient of its output, of all steps, to that of its currents, and the
    /// gradients of its gain and bias and of a bias before it.
    fn norm_backward(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Self::Floats,
        norm: NormBackward<Self>,
        out: &mut Self::Floats,
    ) -> Result<()>;

    /// A bias's gradient if no neurons follow, from the gradient itself.
    fn bias_grad(&self, volume: Volume, span: Span, gradient: &Self::Floats, out: &mut Self::Floats) -> Result<()>;
}

/// Operations around the layers: input, weight norm, readout, loss, optimiser.
pub trait Training: Storage {
    /// Gathers, crops, flips and normalises a batch; bytes outside the sample are 0. Samples that the host has prepared
    /// are not shifted or flipped again; see [`Augmentation::after_host`]. With mixup, samples are mixed in pairs; see
    /// [`crate::data::mixup::shares`].
    fn input(
        &self,
        set: &Self::Set,
        batch: &Self::Batch,
        augmentation: &Augmentation,
        out: &mut Self::Floats,
    ) -> Result<()>;

    /// `effective = gain s (W - mean) / sqrt(var fan_in + 1e-4)`, per filter.
    fn weight_norm_forward(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        gain: &Self::Floats,
        norm: WeightNorm,
        effective: &mut Self::Floats,
    ) -> Result<()>;

    /// Gradients of weight and gain from the effective weight's gradient, which `weight_grad` holds on entry and which is
    /// overwritten by the weight's.
    fn weight_norm_backward(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        gain: &Self::Floats,
        norm: WeightNorm,
        weight_grad: &mut Self::Floats,
        gain_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// Logits of every step: each class is the mean of `vote` outputs.
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

    /// Gradient of the outputs from the logits' gradient; summed over steps if `current_steps` is 1. From here on gradients
    /// are scaled by the tally's loss scale, which [`Training::update`] removes.
    fn vote_backward(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        logits_grad: &Self::Floats,
        tally: &Self::Tally,
        current_steps: usize,
        outputs_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// Adds a batch's loss and correct answers to the tally; with `grad`, computes the gradient of the batch's mean loss. With
    /// mixup, a sample's loss is that of both labels by their shares, and the label of the larger share is the correct one.
    fn loss(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Self::Floats,
        batch: &Self::Batch,
        grad: Option<&mut Self::Floats>,
        tally: &mut Self::Tally,
    ) -> Result<()>;

    /// Moves all parameters along their gradients, unless one of these is not finite; counts the update and adds the
    /// gradients' 2-norm to the tally.
    fn update(
        &self,
        update: &Update,
        batch: &Self::Batch,
        optimizer: &Self::Optimizer,
        parameters: &mut [Trained<Self>],
        tally: &mut Self::Tally,
    ) -> Result<()>;
}

/// Histograms of membrane potentials, and the bounds that follow from them.
pub trait BoundsTuning: Storage {
    /// Adds the potentials `(H - threshold)/threshold` of stored membranes to a layer's fresh counts. In training the
    /// forward pass counts them; this does the same for membranes in memory.
    fn membrane_histogram(
        &self,
        volume: Volume,
        span: Span,
        membranes: &Self::Floats,
        threshold: f32,
        counts: &mut Self::Counts,
    ) -> Result<()>;

    /// Adds the fresh counts of layers to their histograms, and records in the tally the first layer with potentials that
    /// are not finite.
    fn collect_counts(
        &self,
        layers: &mut [&mut Self::Counts],
        batch: &Self::Batch,
        tally: &mut Self::Tally,
    ) -> Result<()>;

    /// Gives each of several layers with one histogram the recent counts of all of them together.
    fn merge_counts(&self, layers: &mut [&mut Self::Counts]) -> Result<()>;

    /// Moves a layer's bounds to the schedule's or, if the mode says so, by its recent histograms, which are then emptied
    /// and whose flags are recorded. `start` holds the first bounds of auto-init, written if `tuning.first`.
    fn tune_bounds(
        &self,
        tuning: &Tuning,
        batch: &Self::Batch,
        counts: Option<&mut Self::Counts>,
        start: &mut Self::Bounds,
        bounds: &mut Self::Bounds,
    ) -> Result<()>;
}
