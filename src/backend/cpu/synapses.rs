//! A layer's synapses: calls the code for linear layers, whose images are one pixel, or that for convolutions.

use super::layout::pitch;
use super::operands::{CpuInput, Weight};
use super::{Cpu, Transposed, conv, conv_lif, linear, norm};
use crate::backend::shape::{Conv, Pool, Span};
use crate::backend::{
    Affine, BatchNorm, ConvBackward, ConvForward, Input, NeuronLayers, Neurons, NormState, Put, SpikeOutput, Weights,
};
use crate::host::zeros;
use anyhow::Result;

impl ConvForward for Cpu {
    fn pack_weight(&self, conv: &Conv, weight: &Vec<f32>, packed: &mut Transposed, input_grad: bool) -> Result<()> {
        match (input_grad, conv.is_linear()) {
            (false, _) => Ok(()),
            (true, true) => linear::pack_transposed(conv, weight, packed),
            (true, false) => conv::pack_transposed(conv, weight, packed),
        }
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
        current(conv, span, &input.into(), &weights.get(), bias, currents, None);
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
        current(conv, span, &input.into(), &weights.get(), bias, currents, Some(&mut moments));
        *state = norm::statistics(norm, span, conv.output, steps, &moments, update);
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
        let SpikeOutput { spikes, inside, membrane, histogram } = out;
        let out = SpikeOutput { spikes: &mut *spikes, inside, membrane, histogram };
        conv_lif::conv_lif(conv, span, input, input_steps, weights, bias, affine, neurons, out)?;
        pooled.map_or(Ok(()), |(pool, pooled)| self.max_pool_forward(pool, span, spikes, pooled))
    }
}

impl ConvBackward for Cpu {
    fn conv_weight_grad(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        gradient: &Vec<f32>,
        weight_grad: &mut Vec<f32>,
    ) -> Result<()> {
        let input = input.into();
        if !conv.is_linear() {
            return conv::weight_grad(conv, span, &input, gradient, weight_grad);
        }
        linear::weight_grad(conv, span, &input, gradient, weight_grad);
        Ok(())
    }

    fn conv_input_grad(
        &self,
        conv: &Conv,
        span: Span,
        gradient: &Vec<f32>,
        weights: Weights<Self>,
        put: Put,
        input_grad: &mut Vec<f32>,
    ) -> Result<()> {
        let input_grad_of = if conv.is_linear() { linear::input_grad } else { conv::input_grad };
        input_grad_of(conv, span, gradient, &weights.get(), put, input_grad);
        Ok(())
    }
}

/// The currents, and the moments of each step of a sample, `[N T][2][pitch]`.
fn current(
    shape: &Conv,
    span: Span,
    input: &CpuInput,
    weight: &Weight,
    bias: &[f32],
    currents: &mut [f32],
    moments: Option<&mut Vec<f32>>,
) {
    if !shape.is_linear() {
        return conv::current(shape, span, input, weight, bias, currents, moments);
    }
    linear::current(shape, span, input, weight, bias, currents);
    if let Some(moments) = moments {
        let pitch = pitch(shape.output.c);
        let rows = currents.chunks_exact(pitch).zip(moments.chunks_exact_mut(2 * pitch));
        rows.for_each(|(row, out)| norm::moments(row, out));
    }
}
