//! Neurons, batch norm, pools and dropout.

use super::super::memory::{Gpu, Memory};
use super::super::params::{
    self, AvgPoolBackward, ChannelSums, DropoutSpikes, DropoutValues, Mask, NormLif, NormLifBackward, Places,
    PoolForward, SpikeBackward,
};
use super::super::params::{BatchNorm as BatchNormParams, BatchNormBackward};
use super::super::precision::Precision;
use super::super::tensors::{COUNTS, Counts, Floats, address, padded, places, words};
use super::super::{Buffer, Driver, Launch};
use super::conv::Moments;
use super::conv_grad::address_of;
use super::step::Batch;
use crate::backend::shape::{Pool, Span, Volume};
use crate::backend::{
    Affine, BatchNorm, Input, NeuronLayers, Neurons, NormBackward, NormState, Put, Saved, SpikeOutput,
};
use crate::neuron::ResetKind;
use anyhow::Result;

impl<D: Driver> Gpu<D> {
    pub(super) fn norm_statistics(
        &self,
        norm: BatchNorm<Self>,
        repeats: usize,
        moments: Option<(&Moments<D>, bool)>,
        state: &mut NormState<Floats<D>>,
    ) -> Result<()> {
        let mut params = BatchNormParams {
            gain: norm.gain.memory.address(),
            bias: norm.bias.memory.address(),
            running_mean: norm.running_mean.memory.address(),
            running_variance: norm.running_variance.memory.address(),
            mean: state.mean.memory.address(),
            inv_std: state.inv_std.memory.address(),
            scale: state.scale.memory.address(),
            shift: state.shift.memory.address(),
            repeats: repeats as u32,
            channels: norm.channels as u32,
            ..BatchNormParams::default()
        };
        let Some((moments, update)) = moments else {
            return self.run("batch_norm_running", Launch::over(padded(norm.channels), 256, 256), &params);
        };
        params.moments = moments.partial.address();
        params.counts = moments.counts.address();
        params.pieces = moments.pieces;
        params.update = update.into();
        self.run("batch_norm_statistics", self.over_channels(norm.channels), &params)
    }

    /// The launch of neurons that also count their potentials, and whether they do so for each channel.
    pub(super) fn counting(&self, places: Places, counts: Option<&Counts<D>>) -> (Launch, bool) {
        let mut launch = self.over_places(places);
        let each = counts.is_some_and(|counts| counts.count > 1);
        if each {
            launch.grid[1] = places.words;
        }
        launch.shared = COUNTS * if each { 32 } else { u32::from(counts.is_some()) };
        (launch, each)
    }

    fn over_channels(&self, channels: usize) -> Launch {
        Launch { grid: [padded(channels) as u32 / 8, 1, 1], threads: 512, shared: 0 }
    }

    fn pool(&self, pool: &Pool, span: Span, input: &Memory<D>, scale: f32, pooled: &Memory<D>) -> PoolForward {
        PoolForward {
            input: input.address(),
            pooled: pooled.address(),
            pool: pool.into(),
            images: (span.batch * span.steps) as u32,
            words: words(pool.input.c) as u32,
            share: scale / (pool.kernel.h * pool.kernel.w) as f32,
            padding: 0,
        }
    }

    /// The launch of a pool with `outputs` outputs per image.
    pub(super) fn over_outputs(&self, outputs: usize, images: usize) -> Launch {
        let threads = outputs.next_multiple_of(32).min(256);
        let rows = images.clamp(1, 4 * self.card.multiprocessors).min(65535);
        Launch { grid: [outputs.div_ceil(threads) as u32, rows as u32, 1], threads: threads as u32, shared: 0 }
    }

    /// A norm's backward pass in two kernels: the first sums over each channel, the second writes.
    fn through_norm(
        &self,
        volume: Volume,
        span: Span,
        norm: NormBackward<Self>,
        params: NormLifBackward,
        [reduce, apply]: [&str; 2],
        form: &str,
        shared: u32,
        out: &mut Floats<D>,
    ) -> Result<()> {
        let NormBackward { currents, current_steps, state, batch, gain_grad, bias_grad, current_bias_grad } = norm;
        let launch = self.over_places(params.places);
        let pieces = launch.grid[0];
        let channels = || self.borrow_floats(padded(volume.c), Precision::F32);
        let sums = self.borrow(pieces as usize * 2 * padded(volume.c) * 4)?;
        let (of_gradient, of_current, constant, unwanted) = (channels()?, channels()?, channels()?, channels()?);
        let sum = current_bias_grad.as_deref().unwrap_or(&unwanted);
        let params = NormLifBackward {
            currents: currents.memory.address(),
            scale: state.scale.memory.address(),
            shift: state.shift.memory.address(),
            mean: state.mean.memory.address(),
            inv_std: state.inv_std.memory.address(),
            sums: sums.address(),
            of_gradient: of_gradient.memory.address(),
            of_current: of_current.memory.address(),
            constant: constant.memory.address(),
            out: out.memory.address(),
            current_steps: current_steps as u32,
            ..params
        };
        // For the sums of a block's threads.
        let least = 2 * 8 * launch.threads * 4;
        self.run_stored(&format!("{reduce}{form}"), Launch { shared: shared.max(least), ..launch }, &params)?;
        let samples = (span.batch * span.steps * volume.pixels()) as f64;
        let repeats = (span.steps / current_steps) as f64;
        let of_norm = BatchNormBackward {
            sums: sums.address(),
            mean: state.mean.memory.address(),
            inv_std: state.inv_std.memory.address(),
            scale: state.scale.memory.address(),
            gain_grad: gain_grad.memory.address(),
            bias_grad: bias_grad.memory.address(),
            of_gradient: of_gradient.memory.address(),
            of_current: of_current.memory.address(),
            constant: constant.memory.address(),
            sum: sum.memory.address(),
            share: if batch { repeats / samples } else { 0.0 },
            pieces,
            channels: volume.c as u32,
        };
        self.run("batch_norm_backward", self.over_channels(volume.c), &of_norm)?;
        self.run_stored(&format!("{apply}{form}"), Launch { shared, ..launch }, &params)
    }

    fn mask(probability: f32, batch: &Batch<D>, stage: usize) -> Mask {
        Mask { seed: batch.dropout_seed(stage), threshold: params::dropout_threshold(probability) }
    }
}

impl<D: Driver> NeuronLayers for Gpu<D> {
    fn batch_norm_running(&self, norm: BatchNorm<Self>, state: &mut NormState<Self::Floats>) -> Result<()> {
        self.norm_statistics(norm, 1, None, state)
    }

    fn norm_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        currents: &Floats<D>,
        current_steps: usize,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        let (windows, windows_per_channel) = Self::windows_for(neurons);
        let places = places(span, volume);
        let (launch, each) = self.counting(places, out.histogram.as_deref());
        let params = NormLif {
            currents: currents.memory.address(),
            scale: affine.scale.memory.address(),
            shift: affine.shift.memory.address(),
            windows,
            spikes: out.spikes.address(),
            inside: out.inside.map_or(0, |inside| inside.address()),
            membranes: out.membrane.map_or(0, |membrane| membrane.memory.address()),
            histogram: out.histogram.map_or(0, |counts| counts.fresh.address()),
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

    fn max_pool_forward(&self, pool: &Pool, span: Span, spikes: &Memory<D>, pooled: &mut Memory<D>) -> Result<()> {
        let outputs = pool.output.pixels() * words(pool.input.c);
        let launch = self.over_outputs(outputs, span.batch * span.steps);
        self.run("max_pool_forward", launch, &self.pool(pool, span, spikes, 1.0, pooled))
    }

    fn avg_pool_forward(&self, pool: &Pool, span: Span, input: Input<Self>, pooled: &mut Self::Floats) -> Result<()> {
        let outputs = 4 * pool.output.pixels() * words(pool.input.c);
        let launch = self.over_outputs(outputs, span.batch * span.steps);
        let (kernel, input, scale) = match input {
            Input::Spikes { bits, scale } => ("avg_pool_forward", bits, scale),
            Input::Dense(values) => ("avg_pool_values", &values.memory, 1.0),
        };
        self.run_stored(kernel, launch, &self.pool(pool, span, input, scale, &pooled.memory))
    }

    fn avg_pool_backward(
        &self,
        pool: &Pool,
        span: Span,
        pooled_grad: &Floats<D>,
        put: Put,
        input_grad: &mut Floats<D>,
    ) -> Result<()> {
        let places = places(span, pool.input);
        let params = AvgPoolBackward {
            gradient: pooled_grad.memory.address(),
            out: input_grad.memory.address(),
            places,
            pool: pool.into(),
            add: put.into(),
        };
        self.run_stored("avg_pool_backward", self.over_places(places), &params)
    }

    fn dropout_spikes(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Batch<D>,
        stage: usize,
        spikes: &Memory<D>,
        kept: &mut Memory<D>,
    ) -> Result<()> {
        let mask = Self::mask(probability, batch, stage);
        let places = places(span, volume);
        let params =
            DropoutSpikes { spikes: spikes.address(), kept: kept.address(), mask, places, channels: volume.c as u32 };
        self.run("dropout_spikes", self.over_places(places), &params)
    }

    fn dropout_floats(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Batch<D>,
        stage: usize,
        values: &mut Floats<D>,
    ) -> Result<()> {
        let mask = Self::mask(probability, batch, stage);
        let places = places(span, volume);
        let params = DropoutValues {
            values: values.memory.address(),
            mask,
            places,
            channels: volume.c as u32,
            scale: 1.0 / (1.0 - probability),
            padding: 0,
        };
        self.run_stored("dropout_values", self.over_places(places), &params)
    }

    fn spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Floats<D>,
        current_steps: usize,
        put: Put,
        out: &mut Floats<D>,
        bias_grad: Option<&mut Floats<D>>,
    ) -> Result<()> {
        let (windows, windows_per_channel) = Self::windows_for(neurons);
        let (_, slope_name, slope) = params::slope(&neurons.surrogate, neurons.neuron.threshold);
        let places = places(span, volume);
        // If the bits do not suffice, the membranes are recomputed and AdaLi's bits with them: a membrane rounded for
        // storage may land on the other side of the threshold or of the window's end.
        let again = match saved {
            Saved::Bits { .. } => None,
            Saved::Currents { currents, steps, affine, .. } => {
                let mut membranes =
                    self.borrow_floats(span.steps * (places.places * places.words * 32) as usize, self.precision)?;
                let bits = || self.borrow(span.steps * (places.places * places.words * 4) as usize);
                let mut spikes = bits()?;
                let mut inside = (!neurons.surrogate.needs_membrane()).then(bits).transpose()?;
                let out = SpikeOutput {
                    spikes: &mut spikes,
                    inside: inside.as_mut(),
                    membrane: Some(&mut membranes),
                    histogram: None,
                };
                self.norm_lif_forward(volume, span, currents, steps, affine, neurons, out)?;
                Some((membranes, inside))
            }
        };
        let (membranes, inside) = again.map_or((None, None), |(membranes, inside)| (Some(membranes), inside));
        let (spikes, inside, form) = match saved {
            Saved::Bits { spikes, inside } => (spikes, inside.address(), "bits"),
            Saved::Currents { spikes, .. } => (spikes, address(inside.as_ref()), "membrane"),
        };
        let params = SpikeBackward {
            gradient: spikes_grad.memory.address(),
            spikes: spikes.address(),
            inside,
            membranes: address(membranes.as_ref().map(|membranes| &membranes.memory)),
            windows,
            out: out.memory.address(),
            places,
            pool: pool.map(Into::into).unwrap_or_default(),
            neuron: neurons.neuron.into(),
            slope,
            windows_per_channel,
            current_steps: current_steps as u32,
            add: put.into(),
        };
        let reset = if neurons.neuron.reset == ResetKind::Hard { "hard" } else { "soft" };
        let gradient = if neurons.neuron.detach { "detached" } else { "attached" };
        let kernel = format!("spike_backward_{slope_name}_{reset}_{gradient}_{form}");
        self.run_stored(&kernel, self.over_places(places), &params)?;
        let of_currents = Span { steps: current_steps, ..span };
        bias_grad.map_or(Ok(()), |bias_grad| self.bias_grad(volume, of_currents, out, bias_grad))
    }

    fn norm_spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Floats<D>,
        norm: NormBackward<Self>,
        out: &mut Floats<D>,
    ) -> Result<()> {
        let (windows, windows_per_channel) = Self::windows_for(neurons);
        let (slope_kind, _, slope) = params::slope(&neurons.surrogate, neurons.neuron.threshold);
        let places = places(span, volume);
        let launch = self.over_places(places);
        // Recomputed membranes are kept in shared memory if they fit.
        let step = 8 * launch.threads * 4;
        let membranes = span.steps * step as usize;
        let (spikes, inside, form, shared, long) = match saved {
            Saved::Bits { spikes, inside } => (spikes, inside.address(), "_bits", 0, None),
            Saved::Currents { spikes, .. } if membranes <= self.card.shared => {
                (spikes, 0, "_currents", membranes as u32, None)
            }
            Saved::Currents { spikes, .. } => {
                let blocks = (launch.grid[0] * launch.grid[1]) as usize;
                (spikes, 0, "_currents_long", 0, Some(self.borrow(blocks * membranes)?))
            }
        };
        let params = NormLifBackward {
            gradient: spikes_grad.memory.address(),
            spikes: spikes.address(),
            inside,
            windows,
            membranes: address(long.as_ref()),
            places,
            pool: pool.map(Into::into).unwrap_or_default(),
            neuron: neurons.neuron.into(),
            slope,
            slope_kind,
            windows_per_channel,
            ..NormLifBackward::default()
        };
        self.through_norm(volume, span, norm, params, ["norm_lif_reduce", "norm_lif_apply"], form, shared, out)
    }

    fn norm_backward(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Floats<D>,
        norm: NormBackward<Self>,
        out: &mut Floats<D>,
    ) -> Result<()> {
        let (gradient, places) = (gradient.memory.address(), places(span, volume));
        let params = NormLifBackward { gradient, places, ..NormLifBackward::default() };
        self.through_norm(volume, span, norm, params, ["norm_reduce", "norm_apply"], "", 0, out)
    }

    fn bias_grad(&self, volume: Volume, span: Span, values: &Floats<D>, out: &mut Floats<D>) -> Result<()> {
        let places = places(span, volume);
        let launch = self.over_places(places);
        let partial = self.partial(launch.grid[0], padded(volume.c))?;
        let sums = address_of(&partial, out);
        let params = ChannelSums { values: values.memory.address(), sums, places, padding: 0 };
        self.run_stored("channel_sums", launch, &params)?;
        self.reduce(partial, out, padded(volume.c), launch.grid[0])
    }
}
