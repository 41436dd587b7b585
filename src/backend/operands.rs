//! Operands of the operations, borrowed or by value.

use super::Storage;
use super::shape::{Conv, Pool, Span, Volume};
use crate::autotune::{Flag, Histogram};
use crate::data::sampling::Augmentation;
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::Surrogate;
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

/// What a convolution reads: samples or dense activations, or spikes times `scale` (a dropout's `1/(1-p)`).
pub enum Input<'a, B: Storage> {
    Dense(&'a B::Floats),
    Spikes { bits: &'a B::Bits, scale: f32 },
}

impl<B: Storage> Input<'_, B> {
    /// Reborrows the input.
    pub fn reborrow(&self) -> Input<'_, B> {
        match self {
            Self::Dense(values) => Input::Dense(*values),
            Self::Spikes { bits, scale } => Input::Spikes { bits: *bits, scale: *scale },
        }
    }
}

/// A weight as stored, and as prepared by [`super::ConvForward::pack_weight`].
pub struct Weights<'a, B: Storage> {
    pub value: &'a B::Floats,
    pub packed: &'a B::Packed,
}

/// How bytes of a data set become input values: `(byte / full_scale - mean[c]) / std[c]`.
#[derive(Clone, Debug)]
pub struct Normalisation {
    pub full_scale: f32,
    pub mean: Vec<f32>,
    pub std: Vec<f32>,
}

impl Normalisation {
    /// The input values of all possible bytes, `[channels][256]`.
    pub fn table(&self) -> Vec<f32> {
        let channel =
            |(&mean, &std): (&f32, &f32)| (0..=u8::MAX).map(move |byte| (byte as f32 / self.full_scale - mean) / std);
        self.mean.iter().zip(&self.std).flat_map(channel).collect()
    }
}

/// A layer's neurons: `H`, threshold and reset, surrogate, and AdaLi's bounds (one, or one per channel).
pub struct Neurons<'a, B: Storage> {
    pub neuron: Neuron,
    pub surrogate: Surrogate,
    pub bounds: &'a B::Bounds,
}

impl<B: Storage> Clone for Neurons<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Storage> Copy for Neurons<'_, B> {}

/// Whether the neurons' backward pass needs only the spike and window bits; otherwise it needs the membrane.
pub fn bits_suffice(neuron: &Neuron, surrogate: &Surrogate) -> bool {
    !surrogate.needs_membrane() && (neuron.reset == ResetKind::Soft || neuron.detach)
}

/// Scale and shift of the current before the neurons, per channel: batch norm as an affine map.
pub struct Affine<'a, B: Storage> {
    pub scale: &'a B::Floats,
    pub shift: &'a B::Floats,
}

impl<B: Storage> Clone for Affine<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Storage> Copy for Affine<'_, B> {}

/// What the neurons write. Only `spikes` is always wanted.
pub struct SpikeOutput<'a, B: Storage> {
    pub spikes: &'a mut B::Bits,
    /// Which membranes lie inside AdaLi's window.
    pub inside: Option<&'a mut B::Bits>,
    /// `H` before the reset.
    pub membrane: Option<&'a mut B::Floats>,
    /// Fresh counts of `(H - theta)/theta`, added to.
    pub histogram: Option<&'a mut B::Counts>,
}

/// What the neurons' backward pass knows about the forward pass.
pub enum Saved<'a, B: Storage> {
    /// Two bits per neuron and step.
    Bits { spikes: &'a B::Bits, inside: &'a B::Bits },
    /// The currents, of 1 or all steps, from which the membranes are recomputed.
    Currents { currents: &'a B::Floats, steps: usize, affine: Affine<'a, B>, spikes: &'a B::Bits },
}

/// The extents of a layer that determine the working memory of its operations.
#[derive(Clone, Copy, Debug)]
pub struct LayerExtents {
    pub volume: Volume,
    pub conv: Option<Conv>,
    /// Of the spikes.
    pub pool: Option<Pool>,
    pub batch_norm: bool,
    /// Whether it has neurons.
    pub spiking: bool,
    pub of_currents: Span,
}

/// The neurons below a convolution, for [`super::ConvBackward::conv_input_grad_lif`].
pub struct Below<'a, B: Storage> {
    pub volume: Volume,
    pub neurons: Neurons<'a, B>,
    pub spikes: &'a B::Bits,
    pub inside: &'a B::Bits,
    /// Between the neurons and the convolution.
    pub pool: Option<&'a Pool>,
    /// 1 if the neurons' current is the same at every step: its gradient is then summed.
    pub current_steps: usize,
    pub bias_grad: Option<&'a mut B::Floats>,
}

/// Batch norm of one layer over `T, N, H, W`, per channel.
pub struct BatchNorm<'a, B: Storage> {
    pub channels: usize,
    pub gain: &'a B::Floats,
    pub bias: &'a B::Floats,
    pub running_mean: &'a mut B::Floats,
    pub running_variance: &'a mut B::Floats,
}

/// What a batch norm's forward pass leaves: `x^ = (current - mean) * inv_std` and its affine map.
pub struct NormState<F> {
    pub mean: F,
    pub inv_std: F,
    pub scale: F,
    pub shift: F,
}

/// A batch norm, for the backward pass of the neurons after it.
pub struct NormBackward<'a, B: Storage> {
    /// Of 1 or all steps.
    pub currents: &'a B::Floats,
    pub current_steps: usize,
    pub state: &'a NormState<B::Floats>,
    /// Whether the statistics were the batch's own.
    pub batch: bool,
    pub gain_grad: &'a mut B::Floats,
    pub bias_grad: &'a mut B::Floats,
    /// Of a bias before the norm.
    pub current_bias_grad: Option<&'a mut B::Floats>,
}

/// A weight norm of a layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightNorm {
    /// `s`.
    pub scale: f32,
    /// Whether the variance is the sum of squares over one less than the fan-in, not over the fan-in.
    pub sample_variance: bool,
}

impl WeightNorm {
    /// What a filter's sum of squares is multiplied by to be `var fan_in`.
    pub fn factor(&self, fan_in: usize) -> f64 {
        if self.sample_variance { fan_in as f64 / (fan_in as f64 - 1.0).max(1.0) } else { 1.0 }
    }
}

/// Whether a result replaces what is there or is added to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    Write,
    Add,
}

impl From<Put> for u32 {
    /// Whether it is added, as kernels take it.
    fn from(put: Put) -> Self {
        (put == Put::Add).into()
    }
}

/// One of the projections that a population sums: values of 1 or all steps, each channel's times `affine.scale` plus
/// `affine.shift`.
pub struct Summand<'a, B: Storage> {
    pub input: Input<'a, B>,
    pub steps: usize,
    pub affine: Affine<'a, B>,
}

/// Which loss, and over which logits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LossSpec {
    /// Weight of the mean squared error to one-hot; the cross-entropy's is one minus it.
    pub mse: f64,
    /// Label smoothing of the cross-entropy.
    pub label_smoothing: f64,
    /// Temporal efficient training: average the loss of every step's logits, instead of taking the loss of the averaged
    /// logits.
    pub tet: bool,
}

/// What changes from step to step.
#[derive(Clone, Copy, Debug)]
pub struct Step<'a> {
    /// The batch's samples as indices into the data set, and their labels.
    pub samples: &'a [u32],
    pub labels: &'a [u16],
    /// Crops and flips are drawn from this and the epoch.
    pub seed: u64,
    pub epoch: u32,
    /// Epochs done when the schedule of the bounds is evaluated, plus one: 1 … E, with fractions.
    pub position: f64,
    /// Seed of the dropout masks.
    pub dropout: u64,
    /// Learning rate.
    pub learning_rate: f32,
    /// 1 for the first step of a training.
    pub count: u64,
    /// Of the samples. What it leaves to the host is done when the batch is written; the rest is for
    /// [`super::Training::input`].
    pub augmentation: Augmentation,
}

impl<'a> Step<'a> {
    /// A step that neither draws random numbers nor trains.
    pub fn evaluate(samples: &'a [u32], labels: &'a [u16]) -> Self {
        let augmentation = Augmentation::NONE;
        Self {
            samples,
            labels,
            seed: 0,
            epoch: 0,
            position: 1.0,
            dropout: 0,
            learning_rate: 0.0,
            count: 0,
            augmentation,
        }
    }
}

/// Sums over steps, and what stops a training.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    pub loss: f64,
    pub correct: u64,
    pub samples: u64,
    /// Of the gradients' 2-norms before clipping, those that were finite.
    pub gradient_norm: f64,
    /// Updates since the training began, and those skipped because the gradient was not finite.
    pub updates: u64,
    pub skipped: u64,
    /// The factor of gradients on their way through 16 bits, and the updates since it last changed.
    pub loss_scale: f32,
    pub steady: u32,
    /// The first step that was skipped although the loss scale could not shrink.
    #[serde(skip)]
    pub failed: Option<u64>,
    #[serde(skip)]
    pub fault: Option<Fault>,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            loss: 0.0,
            correct: 0,
            samples: 0,
            gradient_norm: 0.0,
            updates: 0,
            skipped: 0,
            loss_scale: 1.0,
            steady: 0,
            failed: None,
            fault: None,
        }
    }
}

impl Totals {
    /// Checks that the device has counted every sample it was given: one that computes nothing leaves its memory unchanged.
    ///
    /// # Errors
    /// If not, with what it has counted.
    pub fn ensure_counted(&self, samples: u64) -> Result<()> {
        ensure!(
            self.samples == samples && self.correct <= samples,
            "the device was given {samples} samples and counted {}, {} of them correct: it does not compute; \
             `adali bench` checks each operation",
            self.samples,
            self.correct
        );
        Ok(())
    }

    /// The sums set to 0 and the optimiser's state unchanged.
    pub fn next_epoch(self) -> Self {
        Self { loss: 0.0, correct: 0, samples: 0, gradient_norm: 0.0, ..self }
    }
}

/// Membrane potentials that were not finite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The step that counted them.
    pub step: u64,
    /// Index among the layers that were examined.
    pub layer: usize,
    pub potentials: u64,
}

/// A layer's histograms between steps: one of each kind, or one per channel.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histograms {
    /// Since they last moved the bounds.
    pub recent: Vec<Histogram>,
    /// Of the epoch.
    pub epoch: Vec<Histogram>,
    /// What they showed when the bounds were last examined.
    pub flags: Vec<Flag>,
}

impl Histograms {
    /// `count` empty ones of each kind.
    pub fn empty(count: usize) -> Self {
        let none = vec![Histogram::default(); count];
        Self { recent: none.clone(), epoch: none, flags: Vec::new() }
    }
}

/// Sums over the samples of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct LossSums {
    pub loss: f64,
    pub correct: u64,
}

/// How parameters are updated from their gradients.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UpdateRule {
    /// As `torch.optim.SGD`: `g += decay p; m = momentum m + g; p -= rate m`.
    Sgd { momentum: f32 },
    /// As `torch.optim.AdamW`; with `decoupled` false, as `torch.optim.Adam`.
    Adam { beta1: f32, beta2: f32, epsilon: f32, decoupled: bool },
}

/// An update of all parameters; the learning rate is the step's.
#[derive(Clone, Copy, Debug)]
pub struct Update {
    pub rule: UpdateRule,
    pub decay: f32,
    /// The 2-norm of all gradients together is limited to this by scaling; 0 for no limit.
    pub clip: f64,
}

/// A parameter with its gradient and the optimiser's two moments.
pub struct Trained<'a, B: Storage> {
    pub value: &'a mut B::Floats,
    pub gradient: &'a B::Floats,
    pub moment1: &'a mut B::Floats,
    /// Empty for SGD.
    pub moment2: &'a mut B::Floats,
}
