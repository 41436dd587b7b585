//! The CPU backend: f32, all cores, event-driven wherever a layer reads spikes.
//!
//! Results are bit-identical for any number of threads: a thread owns whole samples or whole output rows, and what
//! is summed over samples is summed in pieces whose borders depend on extents alone. No `unsafe`: `pulp` chooses
//! the SIMD width at run time and loops over arrays of constant length become SIMD by themselves.

mod ceiling;
mod conv;
mod conv_lif;
mod counters;
pub mod dropout;
mod events;
pub mod input;
pub mod integrate_events;
pub mod layout;
mod lif;
mod linear;
pub mod loss;
pub mod norm;
mod operands;
pub mod optimizer;
mod pool;
mod product;
mod simd;
mod source;
mod spike_backward;
mod step;
mod storage;
mod synapses;
mod threads;
mod working;

use super::shape::{Conv, Pool, Span, Volume};
use super::*;
use crate::host::zeros;
use crate::surrogate::Bounds;
use layout::pitch;
use lif::{Lif, each_image};
use spike_backward::neurons_backward;
use std::time::Instant;
pub use step::{Batch, Counts, Set};

/// Runs on the threads of rayon's current pool.
#[derive(Clone, Copy, Debug)]
pub struct Cpu;

/// A weight in the order in which its input gradient reads it; empty where none is asked for.
pub type Transposed = Vec<f32>;

impl Backend for Cpu {
    fn repeat(&self, _: &mut Option<()>, operations: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        operations()
    }

    fn seconds(&self, operations: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let begin = Instant::now();
        operations()?;
        Ok(begin.elapsed().as_secs_f64())
    }

    fn copy(&self, from: &Vec<f32>, to: &mut Vec<f32>) -> Result<usize> {
        Ok(size_of::<f32>() * ceiling::copy(from, to))
    }

    fn multiply(&self, rounds: u32) -> Result<f64> {
        Ok(2.0 * ceiling::multiply(rounds) as f64)
    }

    fn skips_silence(&self) -> bool {
        true
    }

    fn input(&self, set: &Set, batch: &Batch, augmentation: &Augmentation, out: &mut Vec<f32>) -> Result<()> {
        let placements = batch.placements(augmentation);
        let drop = augmentation.drop;
        input::gather(&set.values, &set.shape, &set.normalisation, &batch.samples, &placements, drop, out);
        Ok(())
    }

    fn pack_weight(&self, conv: &Conv, weight: &Vec<f32>, packed: &mut Transposed, input_grad: bool) -> Result<()> {
        if input_grad {
            synapses::pack_transposed(conv, weight, packed)?;
        }
        Ok(())
    }

    fn weight_norm_forward(
        &self,
        conv: &Conv,
        weight: &Vec<f32>,
        gain: &Vec<f32>,
        scale: f32,
        effective: &mut Vec<f32>,
    ) -> Result<()> {
        norm::weight_forward(conv, weight, gain, scale, effective);
        Ok(())
    }

    fn weight_norm_backward(
        &self,
        conv: &Conv,
        weight: &Vec<f32>,
        gain: &Vec<f32>,
        scale: f32,
        weight_grad: &mut Vec<f32>,
        gain_grad: &mut Vec<f32>,
    ) -> Result<()> {
        norm::weight_backward(conv, weight, gain, scale, weight_grad, gain_grad);
        Ok(())
    }

    fn conv_current(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Vec<f32>,
        currents: &mut Vec<f32>,
    ) -> Result<()> {
        synapses::current(conv, span, &input.into(), &weights.get(), bias, currents, None);
        Ok(())
    }

    fn conv_batch_norm(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Vec<f32>,
        currents: &mut Vec<f32>,
        steps: usize,
        norm: BatchNorm<Self>,
        update: bool,
        state: &mut NormState<Vec<f32>>,
    ) -> Result<()> {
        // `[N or N T][2][pitch]`: a piece is a sample's step.
        let pitch = pitch(conv.output.c);
        let mut moments = zeros(span.batch * span.steps * 2 * pitch)?;
        synapses::current(conv, span, &input.into(), &weights.get(), bias, currents, Some(&mut moments));
        *state = norm::statistics(norm, span, conv.output, steps, &moments, update);
        Ok(())
    }

    fn batch_norm_running(&self, norm: BatchNorm<Self>, state: &mut NormState<Vec<f32>>) -> Result<()> {
        *state = norm::running(norm);
        Ok(())
    }

    fn conv_lif_forward(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        input_steps: usize,
        weights: Weights<Self>,
        bias: &Vec<f32>,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
        pooled: Option<(&Pool, &mut Vec<u32>)>,
    ) -> Result<()> {
        let SpikeOutput { spikes, windows, membrane, histogram } = out;
        let out = SpikeOutput { spikes: &mut *spikes, windows, membrane, histogram };
        conv_lif::conv_lif(conv, span, input, input_steps, weights, bias, affine, neurons, out)?;
        pooled.map_or(Ok(()), |(pool, pooled)| self.max_pool_forward(pool, span, spikes, pooled))
    }

    fn norm_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        currents: &Vec<f32>,
        current_steps: usize,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        let lif = Lif::new(volume, span, affine, neurons, out.windows.is_some());
        let image = current_steps * volume.pixels() * pitch(volume.c);
        each_image(volume, span, out, |n, out| lif.run(&currents[n * image..][..image], current_steps, 0, out));
        Ok(())
    }

    fn max_pool_forward(&self, pool: &Pool, span: Span, spikes: &Vec<u32>, pooled: &mut Vec<u32>) -> Result<()> {
        pool::max(pool, span, spikes, pooled);
        Ok(())
    }

    fn avg_pool_forward(&self, pool: &Pool, span: Span, spikes: &Vec<u32>, pooled: &mut Vec<f32>) -> Result<()> {
        pool::avg(pool, span, spikes, pooled);
        Ok(())
    }

    fn dropout_spikes(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Batch,
        stage: usize,
        spikes: &Vec<u32>,
        kept: &mut Vec<u32>,
    ) -> Result<()> {
        dropout::spikes(volume, span, probability, dropout_mask(batch.dropout, stage), spikes, kept);
        Ok(())
    }

    fn dropout_floats(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Batch,
        stage: usize,
        values: &mut Vec<f32>,
    ) -> Result<()> {
        dropout::floats(volume, span, probability, dropout_mask(batch.dropout, stage), values);
        Ok(())
    }

    fn vote_currents(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Vec<f32>,
        current_steps: usize,
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        loss::vote_currents(classes, vote, span, outputs, current_steps, logits);
        Ok(())
    }

    fn vote_spikes(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Vec<u32>,
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        loss::vote_spikes(classes, vote, span, outputs, logits);
        Ok(())
    }

    fn vote_backward(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        logits_grad: &Vec<f32>,
        _: &Totals,
        current_steps: usize,
        outputs_grad: &mut Vec<f32>,
    ) -> Result<()> {
        loss::vote_backward(classes, vote, span, logits_grad, current_steps, outputs_grad);
        Ok(())
    }

    fn loss(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Vec<f32>,
        batch: &Batch,
        grad: Option<&mut Vec<f32>>,
        tally: &mut Totals,
    ) -> Result<()> {
        let sums = loss::loss(spec, classes, span, logits, &batch.labels, grad.map(Vec::as_mut_slice));
        tally.loss += sums.loss;
        tally.correct += sums.correct;
        tally.samples += span.batch as u64;
        Ok(())
    }

    fn spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Vec<f32>,
        current_steps: usize,
        out: &mut Vec<f32>,
        bias_grad: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        let sums = neurons_backward(volume, span, neurons, saved, pool, spikes_grad, current_steps, out, None)?;
        if let Some(bias_grad) = bias_grad {
            norm::channel_sums(&sums, span.batch, bias_grad);
        }
        Ok(())
    }

    fn norm_spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Vec<f32>,
        norm: NormBackward<Self>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let NormBackward { currents, current_steps, state, batch, gain_grad, bias_grad, gradient, current_bias_grad } =
            norm;
        let of_norm = Some((currents, state));
        let sums = neurons_backward(volume, span, neurons, saved, pool, spikes_grad, current_steps, out, of_norm)?;
        let of_currents = Span { steps: current_steps, ..span };
        norm::batch_backward(
            volume,
            of_currents,
            span.steps,
            batch,
            &sums,
            state,
            gain_grad,
            bias_grad,
            gradient,
            current_bias_grad,
        );
        Ok(())
    }

    fn bias_grad(&self, volume: Volume, span: Span, gradient: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        norm::bias_grad(&gradient[..span.batch * span.steps * volume.pixels() * pitch(volume.c)], out);
        Ok(())
    }

    fn conv_weight_grad(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        gradient: CurrentGradient<Self>,
        weight_grad: &mut Vec<f32>,
    ) -> Result<()> {
        synapses::weight_grad(conv, span, &input.into(), &gradient.into(), weight_grad)
    }

    fn conv_input_grad(
        &self,
        conv: &Conv,
        span: Span,
        gradient: CurrentGradient<Self>,
        weights: Weights<Self>,
        input_grad: &mut Vec<f32>,
    ) -> Result<()> {
        synapses::input_grad(conv, span, &gradient.into(), &weights.get(), input_grad)
    }

    fn update(
        &self,
        update: &Update,
        batch: &Batch,
        _: &(),
        parameters: &mut [Trained<Self>],
        tally: &mut Totals,
    ) -> Result<()> {
        step::update(update, batch, parameters, tally);
        Ok(())
    }

    fn collect_counts(&self, layers: &mut [&mut Counts], batch: &Batch, tally: &mut Totals) -> Result<()> {
        step::collect_counts(layers, batch, tally);
        Ok(())
    }

    fn pool_counts(&self, layers: &mut [&mut Counts]) -> Result<()> {
        step::pool_counts(layers);
        Ok(())
    }

    fn tune_bounds(
        &self,
        tuning: &Tuning,
        batch: &Batch,
        counts: Option<&mut Counts>,
        start: &mut Vec<Bounds>,
        bounds: &mut Vec<Bounds>,
    ) -> Result<()> {
        step::tune_bounds(tuning, batch, counts, start, bounds);
        Ok(())
    }
}
