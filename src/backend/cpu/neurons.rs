//! Neurons and what lies between them and the next layer's synapses.

use super::layout::pitch;
use super::lif::{Lif, each_image};
use super::spike_backward::neurons_backward;
use super::{Batch, Cpu, dropout, norm, pool};
use crate::backend::shape::{Pool, Span, Volume};
use crate::backend::{
    Affine, BatchNorm, NeuronLayers, Neurons, NormBackward, NormState, Saved, SpikeOutput, dropout_mask,
};
use anyhow::Result;

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
}
