//! Neurons and what lies between them and the next layer's synapses.

use super::layout::pitch;
use super::lif::{Lif, each_image};
use super::spike_backward::neurons_backward;
use super::{Batch, Cpu, dropout, norm, pool};
use crate::backend::shape::{Pool, Span, Volume};
use crate::backend::{
    Affine, BatchNorm, Input, NeuronLayers, Neurons, NormBackward, NormState, Put, Saved, SpikeOutput, dropout_mask,
};
use crate::host::zeros;
use anyhow::Result;
use rayon::prelude::*;

impl NeuronLayers for Cpu {
    fn batch_norm_running(&self, norm: BatchNorm<Self>, state: &mut NormState<Vec<f32>>) -> Result<()> {
        *state = norm::running(norm);
        Ok(())
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
        let lif = Lif::new(volume, span, affine, neurons, out.inside.is_some());
        let image = current_steps * volume.pixels() * pitch(volume.c);
        each_image(volume, span, out, |n, out| lif.run(&currents[n * image..][..image], current_steps, 0, out));
        Ok(())
    }

    fn max_pool_forward(&self, pool: &Pool, span: Span, spikes: &Vec<u32>, pooled: &mut Vec<u32>) -> Result<()> {
        pool::max(pool, span, spikes, pooled);
        Ok(())
    }

    fn avg_pool_forward(&self, pool: &Pool, span: Span, input: Input<Self>, pooled: &mut Vec<f32>) -> Result<()> {
        pool::avg(pool, span, input, pooled);
        Ok(())
    }

    fn avg_pool_backward(
        &self,
        pool: &Pool,
        span: Span,
        pooled_grad: &Vec<f32>,
        put: Put,
        input_grad: &mut Vec<f32>,
    ) -> Result<()> {
        pool::avg_backward(pool, span, pooled_grad, put, input_grad);
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

    fn spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Vec<f32>,
        current_steps: usize,
        put: Put,
        out: &mut Vec<f32>,
        bias_grad: Option<&mut Vec<f32>>,
    ) -> Result<()> {
        let sums = neurons_backward(volume, span, neurons, saved, pool, spikes_grad, current_steps, put, out, None)?;
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
        let steps = norm.current_steps;
        let of_norm = Some((norm.currents, norm.state));
        let put = Put::Write;
        let sums = neurons_backward(volume, span, neurons, saved, pool, spikes_grad, steps, put, out, of_norm)?;
        norm::batch_backward(volume, Span { steps, ..span }, span.steps, &sums, norm, out);
        Ok(())
    }

    fn norm_backward(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Vec<f32>,
        norm: NormBackward<Self>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let (pitch, of_currents) = (pitch(volume.c), Span { steps: norm.current_steps, ..span });
        let image = volume.pixels() * pitch;
        let (from, to) = (span.steps * image, of_currents.steps * image);
        let mut sums = zeros(span.batch * 2 * pitch)?;
        let each = out.par_chunks_mut(to).zip(sums.par_chunks_mut(2 * pitch)).zip(gradient.par_chunks(from));
        each.zip(norm.currents.par_chunks(to)).for_each(|(((out, sums), gradient), currents)| {
            fold_steps(gradient, out);
            norm::norm_gradient_sums(out, currents, norm.state, sums);
        });
        norm::batch_backward(volume, of_currents, span.steps, &sums, norm, out);
        Ok(())
    }

    fn bias_grad(&self, volume: Volume, span: Span, gradient: &Vec<f32>, out: &mut Vec<f32>) -> Result<()> {
        norm::bias_grad(&gradient[..span.batch * span.steps * volume.pixels() * pitch(volume.c)], out);
        Ok(())
    }
}

/// Sums all steps of a sample into `out`, or copies them if `out` has as many.
fn fold_steps(values: &[f32], out: &mut [f32]) {
    let (first, others) = values.split_at(out.len());
    out.copy_from_slice(first);
    for step in others.chunks_exact(out.len()) {
        out.iter_mut().zip(step).for_each(|(sum, x)| *sum += x);
    }
}
