//! Operations where networks branch.

use crate::backend::shape::{Span, Volume};
use crate::backend::{BatchNorm, Input, Neurons, NormState, Put, SpikeOutput, Storage, Summand};
use anyhow::Result;

/// Where networks branch: sums of several projections, and combined spikes. All tensors have the same extents.
pub trait Branches: Storage {
    /// The sum of several projections, and the neurons that receive it; `sum` also keeps it, with as many steps as the
    /// summand that has the most. Kept in 16 bits, the neurons receive the rounded sum.
    fn sum_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        summands: &[Summand<Self>],
        sum: Option<&mut Self::Floats>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
    ) -> Result<()>;

    /// The sum alone, of `span.steps` steps.
    fn sum_currents(
        &self,
        volume: Volume,
        span: Span,
        summands: &[Summand<Self>],
        sum: &mut Self::Floats,
    ) -> Result<()>;

    /// Statistics and affine map of a batch norm over stored currents; see [`super::ConvForward::conv_batch_norm`].
    fn batch_norm_statistics(
        &self,
        volume: Volume,
        span: Span,
        currents: &Self::Floats,
        steps: usize,
        norm: BatchNorm<Self>,
        update: bool,
        state: &mut NormState<Self::Floats>,
    ) -> Result<()>;

    /// Passes a gradient of `span.steps` steps on to what was multiplied by `scale`, per channel; summed over the steps if
    /// `steps` is 1.
    fn pass_gradient(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Self::Floats,
        scale: &Self::Floats,
        steps: usize,
        put: Put,
        to: &mut Self::Floats,
    ) -> Result<()>;

    /// A learned factor times a constant one, for every channel.
    fn gain_forward(&self, gain: &Self::Floats, scale: f32, channels: usize, out: &mut Self::Floats) -> Result<()>;

    /// The learned factor's gradient, from the sum's and the currents it multiplies, of 1 or all steps.
    fn gain_backward(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Self::Floats,
        currents: &Self::Floats,
        current_steps: usize,
        scale: f32,
        gain_grad: &mut Self::Floats,
    ) -> Result<()>;

    /// `own` and `other`, or, with `inverted`, `other` and not `own`.
    fn and_spikes(
        &self,
        volume: Volume,
        span: Span,
        own: &Self::Bits,
        inverted: bool,
        other: &Self::Bits,
        out: &mut Self::Bits,
    ) -> Result<()>;

    /// Passes a gradient on where `mask` is set, or, with `inverted`, where it is not, times `scale`.
    fn mask_gradient(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Self::Floats,
        mask: &Self::Bits,
        inverted: bool,
        scale: f32,
        put: Put,
        to: &mut Self::Floats,
    ) -> Result<()>;

    /// Spikes plus another layer's output.
    fn add_spikes(
        &self,
        volume: Volume,
        span: Span,
        own: &Self::Bits,
        other: Input<Self>,
        out: &mut Self::Floats,
    ) -> Result<()>;
}
