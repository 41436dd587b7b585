//! A population's backward pass.

use super::projection::weight_norm;
use super::{Layer, PopulationState, affine, read};
use crate::backend::{Backend, Below, Input, Neurons, NormBackward, Put, Saved, Weights};
use crate::network::lifetimes::{Gradients, Route, Target, Through};
use crate::network::parameters::{NormParameters, Parameter};
use crate::network::plan::Source;
use crate::network::population::Pass;
use crate::network::spec::Combination;
use anyhow::Result;

/// One buffer to read and another to write.
fn two<F>(slots: &mut [F], from: usize, to: usize) -> (&F, &mut F) {
    let [from, to] =
        slots.get_disjoint_mut([from, to]).expect("gradients that live together have buffers of their own");
    (from, to)
}

impl<B: Backend> Layer<'_, B> {
    /// From the gradient of the output to that of the summed currents, with the gradients of a norm or bias in between and of
    /// what the spikes are combined with.
    pub fn output_backward(
        &self,
        state: &mut PopulationState<B>,
        below: &[PopulationState<B>],
        slots: &mut [B::Floats],
        gradients: &Gradients,
        pass: Pass,
        batch: &B::Batch,
    ) -> Result<()> {
        let (backend, population, volume, span) = (self.backend, self.population, self.volume(), self.span);
        if let Some(probability) = population.dropout.filter(|_| pass.dropout) {
            let output = &mut slots[gradients.output];
            backend.dropout_floats(population.output(), self.of_output(), probability, batch, self.index, output)?;
        }
        let Some(own) = &state.neurons.spikes else {
            let Some(pool) = &population.pool else { return Ok(()) };
            let (from, to) = two(slots, gradients.output, gradients.sum.slot);
            return backend.avg_pool_backward(pool, self.of_output(), from, gradients.sum.put, to);
        };
        if let (Some(pool), true) = (&population.pool, population.combine.is_some()) {
            let (from, to) = two(slots, gradients.output, gradients.unpooled);
            backend.avg_pool_backward(pool, span, from, Put::Write, to)?;
        }
        if let (Some((other, with)), Route::To(to)) = (population.combine, gradients.other)
            && with != Combination::Add
            && let Input::Spikes { bits: others, .. } = below[other].output()
        {
            let inverted = with == Combination::Iand;
            let (gradient, spikes) = two(slots, gradients.unpooled, gradients.spikes);
            let sign = if inverted { -1.0 } else { 1.0 };
            backend.mask_gradient(volume, span, gradient, others, false, sign, Put::Write, spikes)?;
            let (gradient, others) = two(slots, gradients.unpooled, to.slot);
            backend.mask_gradient(volume, span, gradient, own, inverted, 1.0, to.put, others)?;
        }
        self.through_neurons(state, slots, gradients, pass)?;
        if let (Some((_, Combination::Add)), Route::To(to)) = (population.combine, gradients.other) {
            let (gradient, others) = two(slots, gradients.spikes, to.slot);
            backend.pass_gradient(volume, span, gradient, &state.ones, span.steps, to.put, others)?;
        }
        Ok(())
    }

    fn through_neurons(
        &self,
        state: &mut PopulationState<B>,
        slots: &mut [B::Floats],
        gradients: &Gradients,
        pass: Pass,
    ) -> Result<()> {
        let (backend, population, volume, span) = (self.backend, self.population, self.volume(), self.span);
        let PopulationState { parameters, projections, sum, sum_norm, neurons: kept, ones, zeros, .. } = state;
        let neurons = Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds: &kept.bounds };
        let spikes = kept.spikes.as_ref().expect("a population with neurons has spikes");
        let single = population.is_single();
        let (currents, norm) = match single {
            true => (projections[0].currents.as_ref(), projections[0].batch_norm()),
            false => (sum.as_ref(), sum_norm.as_ref()),
        };
        let steps = population.current_steps;
        let saved = match (&kept.inside, currents) {
            (Some(inside), _) => Saved::Bits { spikes, inside },
            (None, Some(currents)) => {
                Saved::Currents { currents, steps, affine: affine::<B>(norm, ones, zeros), spikes }
            }
            (None, None) => unreachable!("bits or currents are kept"),
        };
        let pool = population.pool.as_ref().filter(|_| population.combine.is_none());
        let of_single = parameters.projections[0].synapses.as_mut().filter(|_| single);
        let (Some(state), Some(currents)) = (norm, currents) else {
            let (gradient, out) = two(slots, gradients.spikes, gradients.sum.slot);
            let bias = of_single.and_then(|synapses| synapses.bias_mut()).map(|bias| &mut bias.gradient);
            let put = gradients.sum.put;
            return backend.spike_backward(volume, span, &neurons, saved, pool, gradient, steps, put, out, bias);
        };
        let (of, bias) = match of_single {
            Some(synapses) => (synapses.norm.as_mut(), synapses.bias.as_mut()),
            None => (parameters.sum_norm.as_mut(), None),
        };
        let of = of.expect("a batch norm has parameters");
        let norm = norm_backward(of, bias, currents, steps, state, pass.batch_statistics);
        let (gradient, out) = two(slots, gradients.spikes, gradients.before_norm);
        backend.norm_spike_backward(volume, span, &neurons, saved, pool, gradient, norm, out)?;
        if gradients.before_norm != gradients.sum.slot {
            let (gradient, out) = two(slots, gradients.before_norm, gradients.sum.slot);
            backend.pass_gradient(volume, self.of_steps(steps), gradient, ones, steps, Put::Add, out)?;
        }
        Ok(())
    }

    /// From the gradient of the summed currents to those of every projection's parameters and source. If a source's neurons
    /// were run backward as well, its index is returned; the gradient of its currents is where its output's would be.
    pub fn projections_backward(
        &self,
        state: &mut PopulationState<B>,
        below: &mut [PopulationState<B>],
        input: &B::Floats,
        slots: &mut [B::Floats],
        gradients: &Gradients,
        pass: Pass,
        fuse: impl Fn(usize) -> Option<Self>,
    ) -> Result<Option<usize>> {
        let mut fused = None;
        for (k, through) in gradients.projections.iter().enumerate() {
            self.currents_backward(state, k, slots, gradients.sum.slot, through, pass)?;
            let projection = &self.population.projections[k];
            let span = self.of_steps(projection.steps);
            let Some(convolution) = &projection.convolution else {
                if let Route::To(to) = through.source {
                    let (gradient, source) = two(slots, gradients.sum.slot, to.slot);
                    let scale = state.projections[k].factor.as_ref().unwrap_or(&state.ones);
                    let of_sum = self.of_steps(self.population.current_steps);
                    let (volume, steps) = (self.volume(), projection.steps);
                    self.backend.pass_gradient(volume, of_sum, gradient, scale, steps, to.put, source)?;
                }
                continue;
            };
            let pooled = state.projections[k].pooled.as_ref().map(Input::Dense);
            let read = pooled.unwrap_or_else(|| read(projection.source, below, input));
            let synapses = state.parameters.projections[k].synapses.as_mut().expect("a convolution has parameters");
            let (conv, gradient, weight) = (&convolution.conv, &slots[through.currents], &mut synapses.weight);
            self.backend.conv_weight_grad(conv, span, read, gradient, &mut weight.gradient)?;
            if let (Some(norm), Some(of)) = (weight_norm(&convolution.synapse), &mut synapses.norm) {
                let (gain, grads) = (&of.gain.value, (&mut weight.gradient, &mut of.gain.gradient));
                self.backend.weight_norm_backward(conv, &weight.value, gain, norm, grads.0, grads.1)?;
            }
            let Route::To(to) = through.source else { continue };
            let (weights, _) = state.projections[k].operands(&state.parameters.projections[k], &state.zeros);
            if let (Source::Output(source), None, Put::Write) = (projection.source, &projection.pool, to.put)
                && let Some(layer) = fuse(source)
            {
                let (gradient, out) = two(slots, through.currents, to.slot);
                let weights = Weights { ..weights };
                if self.through_source(k, gradient, weights, (&layer, &mut below[source]), out)? {
                    fused = Some(source);
                    continue;
                }
            }
            let target = if projection.pool.is_some() { Target { slot: through.pooled, put: Put::Write } } else { to };
            let (weights, _) = state.projections[k].operands(&state.parameters.projections[k], &state.zeros);
            let (gradient, out) = two(slots, through.currents, target.slot);
            self.backend.conv_input_grad(conv, span, gradient, weights, target.put, out)?;
            if let Some(pool) = &projection.pool {
                let (gradient, out) = two(slots, through.pooled, to.slot);
                self.backend.avg_pool_backward(pool, span, gradient, to.put, out)?;
            }
        }
        Ok(fused)
    }

    /// From the gradient of the sum to that of a convolution's currents, with the gradients of a norm, factor or bias.
    fn currents_backward(
        &self,
        state: &mut PopulationState<B>,
        k: usize,
        slots: &mut [B::Floats],
        sum: usize,
        through: &Through,
        pass: Pass,
    ) -> Result<()> {
        let (backend, projection, volume) = (self.backend, &self.population.projections[k], self.volume());
        let PopulationState { parameters, projections, ones, .. } = state;
        let (parameters, state) = (&mut parameters.projections[k], &projections[k]);
        let Some(synapses) = &mut parameters.synapses else { return Ok(()) };
        // The neurons' backward pass has done it.
        if self.population.is_single() && self.population.spiking {
            return Ok(());
        }
        let (of_sum, steps) = (self.of_steps(self.population.current_steps), projection.steps);
        if let (Some(gain), Some(currents)) = (&mut parameters.gain, &state.currents) {
            let gradient = &slots[sum];
            let scale = projection.scale;
            backend.gain_backward(volume, of_sum, gradient, currents, steps, scale, &mut gain.gradient)?;
        }
        if let (Some(norm), Some(currents)) = (state.batch_norm(), &state.currents) {
            let of = synapses.norm.as_mut().expect("a batch norm has parameters");
            let norm = norm_backward(of, synapses.bias.as_mut(), currents, steps, norm, pass.batch_statistics);
            let (gradient, out) = two(slots, sum, through.currents);
            return backend.norm_backward(volume, of_sum, gradient, norm, out);
        }
        if through.currents != sum {
            let (gradient, out) = two(slots, sum, through.currents);
            let scale = state.factor.as_ref().unwrap_or(ones);
            backend.pass_gradient(volume, of_sum, gradient, scale, steps, Put::Write, out)?;
        }
        if let Some(bias) = synapses.bias_mut() {
            backend.bias_grad(volume, self.of_steps(steps), &slots[through.currents], &mut bias.gradient)?;
        }
        Ok(())
    }

    /// The gradient of a source's currents, if the backend can run the source's neurons backward in the same operation.
    fn through_source(
        &self,
        k: usize,
        gradient: &B::Floats,
        weights: Weights<B>,
        (layer, state): (&Self, &mut PopulationState<B>),
        out: &mut B::Floats,
    ) -> Result<bool> {
        let projection = &self.population.projections[k];
        let conv = &self.population.projections[k].convolution.as_ref().expect("a convolution").conv;
        let (Some(spikes), Some(inside)) = (&state.neurons.spikes, &state.neurons.inside) else { return Ok(false) };
        let single = layer.population.is_single();
        let synapses = state.parameters.projections[0].synapses.as_mut().filter(|_| single);
        let below = Below {
            volume: layer.volume(),
            neurons: Neurons { neuron: layer.neuron, surrogate: layer.surrogate, bounds: &state.neurons.bounds },
            spikes,
            inside,
            pool: layer.population.pool.as_ref(),
            current_steps: layer.population.current_steps,
            bias_grad: synapses.and_then(|synapses| synapses.bias_mut()).map(|bias| &mut bias.gradient),
        };
        let span = self.of_steps(projection.steps);
        self.backend.conv_input_grad_lif(conv, span, gradient, weights, below, out)
    }
}

/// A batch norm for the operations of the backward pass.
fn norm_backward<'a, B: Backend>(
    of: &'a mut NormParameters<B>,
    bias: Option<&'a mut Parameter<B>>,
    currents: &'a B::Floats,
    current_steps: usize,
    state: &'a crate::backend::NormState<B::Floats>,
    batch: bool,
) -> NormBackward<'a, B> {
    NormBackward {
        currents,
        current_steps,
        state,
        batch,
        gain_grad: &mut of.gain.gradient,
        bias_grad: &mut of.bias.gradient,
        current_bias_grad: bias.map(|bias| &mut bias.gradient),
    }
}
