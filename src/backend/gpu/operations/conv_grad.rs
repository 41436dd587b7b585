//! Gradients of convolutions: of their weights and inputs, and of the neurons below.

use super::super::memory::{Gpu, Memory};
use super::super::params::{self, ConvInputGrad, ConvNaive, ConvWeightGrad, ReduceSums};
use super::super::precision::Precision;
use super::super::tensors::{Floats, padded, words};
use super::super::tile::{self, Epilogue, Source, Unroll};
use super::super::{Buffer, Driver};
use super::conv::{as_images, halves};
use crate::backend::shape::{Conv, Pool, Span};
use crate::backend::{Below, ConvBackward, Input, NeuronLayers, Put, Weights};
use anyhow::Result;

/// Where sums are written first.
pub(super) fn address_of<D: Driver>(partial: &Option<Memory<D>>, out: &Floats<D>) -> u64 {
    partial.as_ref().unwrap_or(&out.memory).address()
}

impl<D: Driver> Gpu<D> {
    /// Memory for partial sums; `None` if there is only one, which is the result.
    pub(super) fn partial(&self, splits: u32, len: usize) -> Result<Option<Memory<D>>> {
        (splits > 1).then(|| self.borrow(splits as usize * len * size_of::<f32>())).transpose()
    }

    /// Adds partial sums in order.
    pub(super) fn reduce(&self, partial: Option<Memory<D>>, to: &mut Floats<D>, len: usize, splits: u32) -> Result<()> {
        let Some(partial) = partial else { return Ok(()) };
        let params = ReduceSums { partial: partial.address(), sums: to.memory.address(), count: len as u32, splits };
        self.run("reduce_sums", self.over_values(len), &params)
    }
}

impl<D: Driver> ConvBackward for Gpu<D> {
    fn conv_weight_grad(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        gradient: &Floats<D>,
        weight_grad: &mut Floats<D>,
    ) -> Result<()> {
        let operand = self.operand(conv, span, &input)?;
        let weights = operand.conv.output.c * operand.conv.fan_in();
        if self.precision == Precision::F32 {
            let params = ConvNaive {
                source: operand.address,
                gradient: gradient.memory.address(),
                weight_grad: weight_grad.memory.address(),
                dropout: operand.dropout,
                ..self.naive(&operand.conv, span)
            };
            return self.run_stored("conv_weight_grad_naive", self.over_values(weights), &params);
        }
        let shape = tile::forward(&operand.conv, as_images(span));
        let plan = tile::plan_weight_grad(&shape, operand.source(), self.card)?;
        let splits = plan.launch.grid[0];
        let partial = self.partial(splits, weights)?;
        let params = ConvWeightGrad {
            gradient: gradient.memory.address(),
            source: operand.address,
            partial: address_of(&partial, weight_grad),
            shape,
            tile: plan.tile,
            filters: operand.conv.output.c as u32,
            channels: operand.conv.input.c as u32,
            all_taps: (operand.conv.kernel.h * operand.conv.kernel.w) as u32,
            pixel_words: words(operand.conv.input.c) as u32,
            words_staged: plan.words_staged,
            dropout: operand.dropout,
        };
        self.run_stored(&format!("conv_weight_grad_{}", operand.name()), plan.launch, &params)?;
        self.reduce(partial, weight_grad, weights, splits)
    }

    fn conv_input_grad(
        &self,
        conv: &Conv,
        span: Span,
        gradient: &Floats<D>,
        Weights { value: weight, packed }: Weights<Self>,
        put: Put,
        input_grad: &mut Floats<D>,
    ) -> Result<()> {
        if self.precision == Precision::F32 {
            let params = ConvNaive {
                gradient: gradient.memory.address(),
                weight: weight.memory.address(),
                out: input_grad.memory.address(),
                add: put.into(),
                ..self.naive(conv, span)
            };
            let values = span.batch * span.steps * conv.input.pixels() * padded(conv.input.c);
            return self.run_stored("conv_input_grad_naive", self.over_values(values), &params);
        }
        let unroll = Unroll::for_currents(span.steps);
        let images = if unroll == Unroll::T4 { span } else { as_images(span) };
        for (class, (_, weights)) in tile::input_gradient(conv, images).iter().zip(&packed.gradient) {
            let plan = tile::plan(&class.shape, unroll, Source::Dense, Epilogue::Store, self.card)?;
            let params = ConvInputGrad {
                gradient: gradient.memory.address(),
                weights: weights.address(),
                out: input_grad.memory.address(),
                shape: class.shape,
                tile: plan.tile,
                add: put.into(),
                ..ConvInputGrad::default()
            };
            self.run_stored(&format!("conv_input_grad_{}", unroll.name()), plan.launch, &params)?;
        }
        Ok(())
    }

    fn conv_input_grad_lif(
        &self,
        conv: &Conv,
        span: Span,
        gradient: &Floats<D>,
        Weights { packed, .. }: Weights<Self>,
        below: Below<Self>,
        out: &mut Floats<D>,
    ) -> Result<bool> {
        let Below { volume, neurons, spikes, inside, pool, current_steps, bias_grad } = below;
        let unroll = Unroll::for_neurons(span.steps);
        let sum_steps = current_steps != span.steps;
        let whole = span.steps <= unroll.steps();
        let even = |pool: &Pool| halves(pool) && volume.h.is_multiple_of(2) && volume.w.is_multiple_of(2);
        if self.precision == Precision::F32 || pool.is_some_and(|pool| !even(pool)) {
            return Ok(false);
        }
        if !whole && (sum_steps || pool.is_some()) {
            return Ok(false);
        }
        let (windows, windows_per_channel) = Self::windows_for(&neurons);
        let of_convolution = conv.input;
        let epilogue = Epilogue::NeuronsBack { pool: pool.is_some(), sum_steps };
        let classes = tile::input_gradient(conv, span).into_iter();
        let planned =
            classes.map(|class| Ok((class, tile::plan(&class.shape, unroll, Source::Dense, epilogue, self.card)?)));
        let Ok(planned) = planned.collect::<Result<Vec<_>>>() else { return Ok(false) };
        for ((class, plan), (_, weights)) in planned.iter().zip(&packed.gradient) {
            let params = ConvInputGrad {
                gradient: gradient.memory.address(),
                weights: weights.address(),
                out: out.memory.address(),
                spikes: spikes.address(),
                inside: inside.address(),
                windows,
                shape: class.shape,
                tile: plan.tile,
                pool: pool.map_or(0, |pool| params::Pool::from(pool).kind),
                sum_steps: sum_steps.into(),
                windows_per_channel,
                neuron: neurons.neuron.into(),
                below_h: of_convolution.h as u32,
                below_w: of_convolution.w as u32,
                below_words: words(of_convolution.c) as u32,
                carry: plan.carry,
                ..ConvInputGrad::default()
            };
            self.run_stored(&format!("conv_input_grad_lif_{}", unroll.name()), plan.launch, &params)?;
        }
        let of_currents = Span { steps: current_steps, ..span };
        bias_grad.map_or(Ok(()), |bias_grad| self.bias_grad(volume, of_currents, out, bias_grad))?;
        Ok(true)
    }
}
