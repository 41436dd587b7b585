//! A layer's synapses: the code for linear layers, whose images are one pixel, or that for convolutions.

use super::layout::pitch;
use super::operands::{CpuInput, Gradient, Weight};
use super::{Transposed, conv, linear, norm};
use crate::backend::shape::{Conv, Span};
use anyhow::Result;

/// See [`crate::backend::Backend::conv_current`]; and the moments of each step of a sample, `[N T][2][pitch]`.
pub fn current(
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

/// See [`crate::backend::Backend::pack_weight`].
pub fn pack_transposed(shape: &Conv, weight: &[f32], packed: &mut Transposed) -> Result<()> {
    if shape.is_linear() {
        linear::pack_transposed(shape, weight, packed)
    } else {
        conv::pack_transposed(shape, weight, packed)
    }
}

/// See [`crate::backend::Backend::conv_weight_grad`].
pub fn weight_grad(
    shape: &Conv,
    span: Span,
    input: &CpuInput,
    gradient: &Gradient,
    weight_grad: &mut [f32],
) -> Result<()> {
    if shape.is_linear() {
        let pitch = pitch(shape.output.c);
        let whole = gradient.whole(span.batch * span.steps * pitch, pitch)?;
        linear::weight_grad(shape, span, input, &whole, weight_grad);
        Ok(())
    } else {
        conv::weight_grad(shape, span, input, gradient, weight_grad)
    }
}

/// See [`crate::backend::Backend::conv_input_grad`].
pub fn input_grad(
    shape: &Conv,
    span: Span,
    gradient: &Gradient,
    weight: &Weight,
    input_grad: &mut [f32],
) -> Result<()> {
    if shape.is_linear() {
        let pitch = pitch(shape.output.c);
        let whole = gradient.whole(span.batch * span.steps * pitch, pitch)?;
        linear::input_grad(shape, span, &whole, weight, input_grad);
    } else {
        conv::input_grad(shape, span, gradient, weight, input_grad);
    }
    Ok(())
}
