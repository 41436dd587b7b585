//! Neurons, batch norm, pools and dropout.

use super::super::memory::{Floats, Gpu, Moments, address, padded, places, words};
use super::super::params::{
    self, DropoutSpikes, DropoutValues, Mask, NormLif, NormLifBackward, PoolForward, SpikeBackward,
};
use super::super::params::{BatchNorm as BatchNormParams, BatchNormBackward};
use super::super::{Buffer, Driver, Launch};
use crate::backend::shape::{Pool, Span, Volume};
use crate::backend::{Affine, BatchNorm, Neurons, NormBackward, NormGradient, NormState, Saved, SpikeOutput};
use crate::histogram::BINS;
use crate::neuron::ResetKind;
use anyhow::Result;

/// Bytes of a block's own counts of one histogram.
const COUNTS: u32 = 4 * (BINS as u32 + 3);

impl<D: Driver> Gpu<D> {
    pub(in super::super) fn norm_lif(
        &self,
        volume: Volume,
        span: Span,
        currents: &Floats<D::Buffer>,
        current_steps: usize,
        affine: Affine<Self>,
        neurons: &Neurons,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        let (windows, windows_per_channel) = self.windows(neurons)?;
        let places = places(span, volume);
        let mut launch = self.over_places(places);
        let each = out.histogram.as_ref().is_some_and(|counts| counts.count > 1);
        if each {
            launch.grid[1] = places.words;
        }
        launch.shared = COUNTS * if each { 32 } else { u32::from(out.histogram.is_some()) };
        let params = NormLif {
            currents: currents.buffer.address(),
            scale: affine.scale.buffer.address(),
            shift: affine.shift.buffer.address(),
            windows: windows.address(),
            spikes: out.spikes.address(),
            inside: out.windows.map_or(0, |windows| windows.address()),
            membranes: out.membrane.map_or(0, |membrane| membrane.buffer.address()),
            histogram: out.histogram.map_or(0, |counts| counts.buffer.address()),
            places,
            channels: volume.c as u32,
            current_steps: current_steps as u32,
            windows_per_channel,
            histogram_per_channel: each.into(),
            neuron: neurons.neuron.into(),
            padding: 0,
        };
        self.run_stored("norm_lif_forward", launch, &params)
    }

    pub(in super::super) fn norm_statistics(
        &self,
        norm: BatchNorm<Self>,
        repeats: usize,
        moments: Option<(&Moments<D::Buffer>, bool)>,
    ) -> Result<NormState<Floats<D::Buffer>>> {
        let vector = || self.channels(norm.channels);
        let state = NormState { mean: vector()?, inverse_deviation: vector()?, scale: vector()?, shift: vector()? };
        let mut params = BatchNormParams {
            gain: norm.gain.buffer.address(),
            bias: norm.bias.buffer.address(),
            running_mean: norm.running_mean.buffer.address(),
            running_variance: norm.running_variance.buffer.address(),
            mean: state.mean.buffer.address(),
            inverse_deviation: state.inverse_deviation.buffer.address(),
            scale: state.scale.buffer.address(),
            shift: state.shift.buffer.address(),
            repeats: repeats as u32,
            channels: norm.channels as u32,
            ..BatchNormParams::default()
        };
        let Some((moments, update)) = moments else {
            self.run("batch_norm_running", Launch::over(padded(norm.channels), 256, 256), &params)?;
            return Ok(state);
        };
        let (partial, counts, pieces) = moments.pieces.as_ref().expect("the convolution has left its moments");
        params.moments = partial.address();
        params.counts = counts.address();
        params.pieces = *pieces;
        params.update = update.into();
        self.run("batch_norm_statistics", self.over_channels(norm.channels), &params)?;
        Ok(state)
    }

    fn over_channels(&self, channels: usize) -> Launch {
        Launch { grid: [padded(channels) as u32 / 8, 1, 1], threads: 512, shared: 0 }
    }

    pub(in super::super) fn pool(
        &self,
        pool: &Pool,
        span: Span,
        spikes: &D::Buffer,
        pooled: &D::Buffer,
    ) -> PoolForward {
        PoolForward {
            spikes: spikes.address(),
            pooled: pooled.address(),
            pool: pool.into(),
            images: (span.batch * span.steps) as u32,
            words: words(pool.input.c) as u32,
        }
    }

    /// The launch of a pool with so many outputs an image.
    pub(in super::super) fn over_outputs(&self, outputs: usize, images: usize) -> Launch {
        let threads = outputs.next_multiple_of(32).min(256);
        let rows = images.clamp(1, 4 * self.card.multiprocessors).min(65535);
        Launch { grid: [outputs.div_ceil(threads) as u32, rows as u32, 1], threads: threads as u32, shared: 0 }
    }

    fn mask(&self, probability: f32, seed: u64) -> Result<(D::Buffer, Mask)> {
        let seed = self.put(&[seed])?;
        let mask = Mask { seed: seed.address(), threshold: params::dropout_threshold(probability) };
        Ok((seed, mask))
    }

    pub(in super::super) fn drop_spikes(
        &self,
        volume: Volume,
        span: Span,
        (probability, seed): (f32, u64),
        spikes: &D::Buffer,
        kept: &D::Buffer,
    ) -> Result<()> {
        let (_seed, mask) = self.mask(probability, seed)?;
        let places = places(span, volume);
        let params =
            DropoutSpikes { spikes: spikes.address(), kept: kept.address(), mask, places, channels: volume.c as u32 };
        self.run("dropout_spikes", self.over_places(places), &params)
    }

    pub(in super::super) fn drop_values(
        &self,
        volume: Volume,
        span: Span,
        (probability, seed): (f32, u64),
        values: &Floats<D::Buffer>,
    ) -> Result<()> {
        let (_seed, mask) = self.mask(probability, seed)?;
        let places = places(span, volume);
        let params = DropoutValues {
            values: values.buffer.address(),
            mask,
            places,
            channels: volume.c as u32,
            scale: 1.0 / (1.0 - probability),
            padding: 0,
        };
        self.run_stored("dropout_values", self.over_places(places), &params)
    }

    pub(in super::super) fn neurons_back(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Floats<D::Buffer>,
        current_steps: usize,
        out: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let (windows, windows_per_channel) = self.windows(neurons)?;
        let (_, slope_name, slope) = params::slope(neurons.surrogate.slope(neurons.neuron.threshold));
        let places = places(span, volume);
        // Where bits do not suffice the membranes are computed again.
        let membranes = match saved {
            Saved::Bits { .. } => None,
            Saved::Currents { currents, steps, affine, .. } => {
                let mut membranes =
                    self.floats(span.steps * (places.places * places.words * 32) as usize, self.precision)?;
                let mut spikes = self.zeros(span.steps * (places.places * places.words * 4) as usize)?;
                let again =
                    SpikeOutput { spikes: &mut spikes, windows: None, membrane: Some(&mut membranes), histogram: None };
                self.norm_lif(volume, span, currents, steps, affine, neurons, again)?;
                Some(membranes)
            }
        };
        let (spikes, inside, form) = match saved {
            Saved::Bits { spikes, windows } => (spikes, windows.address(), "bits"),
            Saved::Currents { spikes, .. } => (spikes, 0, "membrane"),
        };
        let params = SpikeBackward {
            gradient: spikes_grad.buffer.address(),
            spikes: spikes.address(),
            inside,
            membranes: address(membranes.as_ref().map(|membranes| &membranes.buffer)),
            windows: windows.address(),
            out: out.buffer.address(),
            places,
            pool: pool.map(Into::into).unwrap_or_default(),
            neuron: neurons.neuron.into(),
            slope,
            windows_per_channel,
            current_steps: current_steps as u32,
            padding: 0,
        };
        let reset = if neurons.neuron.reset == ResetKind::Hard { "hard" } else { "soft" };
        let gradient = if neurons.neuron.detach { "detached" } else { "attached" };
        let kernel = format!("spike_backward_{slope_name}_{reset}_{gradient}_{form}");
        self.run_stored(&kernel, self.over_places(places), &params)
    }

    pub(in super::super) fn norm_neurons_back(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Floats<D::Buffer>,
        norm: NormBackward<Self>,
        out: &mut Floats<D::Buffer>,
    ) -> Result<NormGradient<Floats<D::Buffer>>> {
        let NormBackward { currents, current_steps, state, batch, gain_grad, bias_grad } = norm;
        let (windows, windows_per_channel) = self.windows(neurons)?;
        let (slope_kind, _, slope) = params::slope(neurons.surrogate.slope(neurons.neuron.threshold));
        let (spikes, inside, form) = match saved {
            Saved::Bits { spikes, windows } => (spikes, windows.address(), "bits"),
            Saved::Currents { spikes, .. } => (spikes, 0, "currents"),
        };
        let places = places(span, volume);
        let launch = self.over_places(places);
        let pieces = launch.grid[0];
        let sums = self.driver.allocate(pieces as usize * 2 * padded(volume.c) * 4)?;
        let vector = || self.channels(volume.c);
        let gradient =
            NormGradient { of_gradient: vector()?, of_current: vector()?, constant: vector()?, sum: vector()? };
        let params = NormLifBackward {
            currents: currents.buffer.address(),
            gradient: spikes_grad.buffer.address(),
            spikes: spikes.address(),
            inside,
            windows: windows.address(),
            scale: state.scale.buffer.address(),
            shift: state.shift.buffer.address(),
            mean: state.mean.buffer.address(),
            inverse_deviation: state.inverse_deviation.buffer.address(),
            sums: sums.address(),
            of_gradient: gradient.of_gradient.buffer.address(),
            of_current: gradient.of_current.buffer.address(),
            constant: gradient.constant.buffer.address(),
            out: out.buffer.address(),
            places,
            pool: pool.map(Into::into).unwrap_or_default(),
            neuron: neurons.neuron.into(),
            slope,
            slope_kind,
            windows_per_channel,
            current_steps: current_steps as u32,
        };
        let step = 8 * launch.threads * 4;
        let membranes = if form == "bits" { 0 } else { span.steps as u32 * step };
        let reduce = Launch { shared: membranes.max(2 * step), ..launch };
        self.run_stored(&format!("norm_lif_reduce_{form}"), reduce, &params)?;
        let samples = (span.batch * span.steps * volume.pixels()) as f64;
        let repeats = (span.steps / current_steps) as f64;
        let of_norm = BatchNormBackward {
            sums: sums.address(),
            mean: state.mean.buffer.address(),
            inverse_deviation: state.inverse_deviation.buffer.address(),
            scale: state.scale.buffer.address(),
            gain_grad: gain_grad.buffer.address(),
            bias_grad: bias_grad.buffer.address(),
            of_gradient: gradient.of_gradient.buffer.address(),
            of_current: gradient.of_current.buffer.address(),
            constant: gradient.constant.buffer.address(),
            sum: gradient.sum.buffer.address(),
            share: if batch { repeats / samples } else { 0.0 },
            pieces,
            channels: volume.c as u32,
        };
        self.run("batch_norm_backward", self.over_channels(volume.c), &of_norm)?;
        self.run_stored(&format!("norm_lif_apply_{form}"), Launch { shared: membranes, ..launch }, &params)?;
        Ok(gradient)
    }
}
