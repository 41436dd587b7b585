//! Sums of projections, and combined spikes.

use super::super::memory::{Gpu, Memory};
use super::super::params::{
    self, AndSpikes, GainBackward, GainForward, MaskGradient, PassGradient, SumCurrents, SumLif,
};
use super::super::tensors::{Floats, padded, places, words};
use super::super::{Buffer, Driver, Launch};
use crate::backend::shape::{Span, Volume};
use crate::backend::{Affine, BatchNorm, Branches, Input, Neurons, NormState, Put, SpikeOutput, Summand};
use anyhow::Result;

/// A summand as kernels take it.
fn summand<D: Driver>(input: &Input<Gpu<D>>, steps: usize, affine: Option<Affine<Gpu<D>>>) -> params::Summand {
    let (values, spikes, of_spike) = match input {
        Input::Dense(values) => (values.memory.address(), 0, 1.0),
        Input::Spikes { bits, scale } => (0, bits.address(), *scale),
    };
    params::Summand {
        values,
        spikes,
        scale: affine.map_or(0, |affine| affine.scale.memory.address()),
        shift: affine.map_or(0, |affine| affine.shift.memory.address()),
        steps: steps as u32,
        of_spike,
    }
}

fn sum_of<D: Driver>(
    volume: Volume,
    span: Span,
    summands: &[params::Summand],
    sum: Option<&mut Floats<D>>,
) -> SumCurrents {
    let mut all = [params::Summand::default(); 3];
    all[..summands.len()].copy_from_slice(summands);
    SumCurrents {
        summands: all,
        sum: sum.map_or(0, |sum| sum.memory.address()),
        places: places(span, volume),
        count: summands.len() as u32,
        steps: summands.iter().map(|summand| summand.steps).max().unwrap_or(1),
        padding: 0,
    }
}

fn all_of<D: Driver>(summands: &[Summand<Gpu<D>>]) -> Vec<params::Summand> {
    summands.iter().map(|each| summand(&each.input, each.steps, Some(each.affine))).collect()
}

impl<D: Driver> Branches for Gpu<D> {
    fn sum_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        summands: &[Summand<Self>],
        sum: Option<&mut Floats<D>>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        let (windows, windows_per_channel) = Self::windows_for(neurons);
        let places = places(span, volume);
        let (launch, each) = self.counting(places, out.histogram.as_deref());
        let params = SumLif {
            input: sum_of(volume, span, &all_of(summands), sum),
            windows,
            spikes: out.spikes.address(),
            inside: out.inside.map_or(0, |inside| inside.address()),
            membranes: out.membrane.map_or(0, |membrane| membrane.memory.address()),
            histogram: out.histogram.map_or(0, |counts| counts.fresh.address()),
            places,
            channels: volume.c as u32,
            windows_per_channel,
            histogram_per_channel: each.into(),
            neuron: neurons.neuron.into(),
        };
        self.run_stored("sum_lif_forward", launch, &params)
    }

    fn sum_currents(&self, volume: Volume, span: Span, summands: &[Summand<Self>], sum: &mut Floats<D>) -> Result<()> {
        let params = sum_of(volume, span, &all_of(summands), Some(sum));
        self.run_stored("sum_currents", self.over_places(params.places), &params)
    }

    fn batch_norm_statistics(
        &self,
        volume: Volume,
        span: Span,
        currents: &Floats<D>,
        steps: usize,
        norm: BatchNorm<Self>,
        update: bool,
        state: &mut NormState<Floats<D>>,
    ) -> Result<()> {
        let moments = self.moments(volume, span, currents)?;
        self.norm_statistics(norm, steps / span.steps, Some((&moments, update)), state)
    }

    fn pass_gradient(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Floats<D>,
        scale: &Floats<D>,
        steps: usize,
        put: Put,
        to: &mut Floats<D>,
    ) -> Result<()> {
        let places = places(span, volume);
        let params = PassGradient {
            gradient: gradient.memory.address(),
            scale: scale.memory.address(),
            to: to.memory.address(),
            places,
            steps: steps as u32,
            add: put.into(),
            padding: 0,
        };
        self.run_stored("pass_gradient", self.over_places(places), &params)
    }

    fn gain_forward(&self, gain: &Floats<D>, scale: f32, channels: usize, out: &mut Floats<D>) -> Result<()> {
        let channels = padded(channels);
        let params =
            GainForward { gain: gain.memory.address(), out: out.memory.address(), channels: channels as u32, scale };
        self.run("gain_forward", Launch::over(channels, 256, 256), &params)
    }

    fn gain_backward(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Floats<D>,
        currents: &Floats<D>,
        current_steps: usize,
        scale: f32,
        gain_grad: &mut Floats<D>,
    ) -> Result<()> {
        let places = places(span, volume);
        let launch = self.over_places(places);
        let pieces = launch.grid[0] * launch.grid[1];
        let partial = self.borrow(pieces as usize * size_of::<f64>())?;
        let params = GainBackward {
            gradient: gradient.memory.address(),
            currents: currents.memory.address(),
            partial: partial.address(),
            gain_gradient: gain_grad.memory.address(),
            places,
            channels: volume.c as u32,
            current_steps: current_steps as u32,
            pieces,
            scale,
            padding: 0,
        };
        self.run_stored("gain_backward", launch, &params)?;
        self.run("gain_sum", Launch::over(1, 1, 32), &params)
    }

    fn and_spikes(
        &self,
        volume: Volume,
        span: Span,
        own: &Memory<D>,
        inverted: bool,
        other: &Memory<D>,
        out: &mut Memory<D>,
    ) -> Result<()> {
        let all = span.batch * span.steps * volume.pixels() * words(volume.c);
        let params = AndSpikes {
            own: own.address(),
            other: other.address(),
            out: out.address(),
            words: all as u64,
            inverted: inverted.into(),
            padding: 0,
        };
        self.run("and_spikes", self.over_values(all), &params)
    }

    fn mask_gradient(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Floats<D>,
        mask: &Memory<D>,
        inverted: bool,
        scale: f32,
        put: Put,
        to: &mut Floats<D>,
    ) -> Result<()> {
        let places = places(span, volume);
        let params = MaskGradient {
            gradient: gradient.memory.address(),
            mask: mask.address(),
            to: to.memory.address(),
            places,
            inverted: inverted.into(),
            add: put.into(),
            scale,
        };
        self.run_stored("mask_gradient", self.over_places(places), &params)
    }

    fn add_spikes(
        &self,
        volume: Volume,
        span: Span,
        own: &Memory<D>,
        other: Input<Self>,
        out: &mut Floats<D>,
    ) -> Result<()> {
        let own = Input::Spikes { bits: own, scale: 1.0 };
        let summands = [summand(&own, span.steps, None), summand(&other, span.steps, None)];
        let params = sum_of(volume, span, &summands, Some(out));
        self.run_stored("sum_currents", self.over_places(params.places), &params)
    }
}
