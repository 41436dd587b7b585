//! A projection's own buffers and its forward pass.

use super::{Layer, Pass, PopulationState, batch_norm, norm_state, read};
use crate::backend::shape::{InputKind, Span};
use crate::backend::{Backend, Input, NormState, WeightNorm, Weights};
use crate::host;
use crate::network::parameters::ProjectionParameters;
use crate::network::plan::{Population, Projection};
use crate::network::spec::{Norm, Synapse, Variance};
use anyhow::Result;

/// What a projection keeps besides its parameters.
pub struct ProjectionState<B: Backend> {
    pub synapses: Option<SynapseState<B>>,
    /// Output of the convolution, if anything but the neurons right after it needs it.
    pub currents: Option<B::Floats>,
    /// Output of its own pool.
    pub pooled: Option<B::Floats>,
    /// What multiplies it, for each channel.
    pub factor: Option<B::Floats>,
}

/// A convolution's weight in other forms, and its batch norm.
pub struct SynapseState<B: Backend> {
    /// Standardised weight (weight norm).
    pub effective: Option<B::Floats>,
    packed: B::Packed,
    pub batch_norm: Option<NormState<B::Floats>>,
}

/// The weight norm of a synapse, if it has one.
pub fn weight_norm(synapse: &Synapse) -> Option<WeightNorm> {
    (synapse.norm == Norm::Weight).then_some(WeightNorm {
        scale: synapse.weight_scale,
        sample_variance: synapse.weight_variance == Variance::Sample,
    })
}

/// Whether a projection's currents are kept in memory.
pub fn keeps_currents(population: &Population, projection: &Projection, keeps_bits: bool) -> bool {
    projection.convolution.is_some() && (!population.is_single() || !keeps_bits || population.has_batch_norm())
}

impl<B: Backend> ProjectionState<B> {
    /// Buffers for batches of `batch`; `keeps_bits` says whether the neurons' bits suffice for the backward pass.
    pub fn new(
        backend: &B,
        population: &Population,
        projection: &Projection,
        batch: usize,
        keeps_bits: bool,
    ) -> Result<Self> {
        let (volume, span) = (population.volume, Span { batch, steps: projection.steps });
        let currents = keeps_currents(population, projection, keeps_bits).then(|| {
            if population.is_linear_readout() {
                backend.readouts(span, volume)
            } else {
                backend.activations(span, volume)
            }
        });
        let synapses = projection.convolution.as_ref().map(|convolution| {
            let (conv, norm) = (&convolution.conv, convolution.synapse.norm);
            let effective = || backend.weight(conv, &host::zeros(volume.c * conv.fan_in())?);
            Ok::<_, anyhow::Error>(SynapseState {
                effective: (norm == Norm::Weight).then(effective).transpose()?,
                packed: backend.packed(conv)?,
                batch_norm: (norm == Norm::Batch).then(|| norm_state(backend, volume.c)).transpose()?,
            })
        });
        let factor = (!projection.is_plain()).then(|| backend.vector(&vec![projection.scale; volume.c]));
        Ok(Self {
            synapses: synapses.transpose()?,
            currents: currents.transpose()?,
            pooled: projection.pool.map(|pool| backend.activations(span, pool.output)).transpose()?,
            factor: factor.transpose()?,
        })
    }

    pub fn batch_norm(&self) -> Option<&NormState<B::Floats>> {
        self.synapses.as_ref().and_then(|synapses| synapses.batch_norm.as_ref())
    }

    /// The weight and bias that the convolution uses: the bias is its own, or that of a weight norm.
    pub fn operands<'s>(
        &'s self,
        parameters: &'s ProjectionParameters<B>,
        zeros: &'s B::Floats,
    ) -> (Weights<'s, B>, &'s B::Floats) {
        let (Some(state), Some(parameters)) = (&self.synapses, &parameters.synapses) else {
            unreachable!("only convolutions have operands")
        };
        let weights =
            Weights { value: state.effective.as_ref().unwrap_or(&parameters.weight.value), packed: &state.packed };
        (weights, parameters.bias().map_or(zeros, |bias| &bias.value))
    }
}

impl<B: Backend> Layer<'_, B> {
    /// Prepares weights, factors and pools of every projection.
    pub fn prepare(
        &self,
        state: &mut PopulationState<B>,
        below: &[PopulationState<B>],
        input: &B::Floats,
        pass: Pass,
    ) -> Result<()> {
        let backend = self.backend;
        let PopulationState { parameters, projections, .. } = state;
        let each = self.population.projections.iter().zip(&parameters.projections).zip(projections);
        for ((projection, parameters), state) in each {
            if let (Some(gain), Some(factor)) = (&parameters.gain, &mut state.factor) {
                backend.gain_forward(&gain.value, projection.scale, self.volume().c, factor)?;
            }
            if let (Some(pool), Some(pooled)) = (&projection.pool, &mut state.pooled) {
                let input = read(projection.source, below, input);
                backend.avg_pool_forward(pool, self.of_steps(projection.steps), input, pooled)?;
            }
            let (Some(convolution), Some(parameters), Some(state)) =
                (&projection.convolution, &parameters.synapses, &mut state.synapses)
            else {
                continue;
            };
            let conv = &convolution.conv;
            let (effective, norm) = (&mut state.effective, &parameters.norm);
            if let (Some(norm), Some(effective), Some(of)) = (weight_norm(&convolution.synapse), effective, norm) {
                backend.weight_norm_forward(conv, &parameters.weight.value, &of.gain.value, norm, effective)?;
            }
            let weight = state.effective.as_ref().unwrap_or(&parameters.weight.value);
            let input_grad = pass.backward && conv.reads != InputKind::Image;
            backend.pack_weight(conv, weight, &mut state.packed, input_grad)?;
        }
        Ok(())
    }

    /// A convolution's currents, if they are to be stored, and its batch norm.
    pub fn project(
        &self,
        state: &mut PopulationState<B>,
        k: usize,
        below: &[PopulationState<B>],
        input: &B::Floats,
        pass: Pass,
        stores: bool,
    ) -> Result<()> {
        let projection = &self.population.projections[k];
        let Some(convolution) = &projection.convolution else { return Ok(()) };
        let (backend, conv, span) = (self.backend, &convolution.conv, self.of_steps(projection.steps));
        let PopulationState { parameters, projections, zeros, .. } = state;
        let ProjectionState { synapses, currents, pooled, .. } = &mut projections[k];
        let pooled = pooled.as_ref().map(Input::Dense);
        let input = pooled.unwrap_or_else(|| read(projection.source, below, input));
        let synapses = synapses.as_mut().expect("a convolution has synapses");
        let parameters = parameters.projections[k].synapses.as_mut().expect("a convolution has parameters");
        let currents = currents.as_mut().filter(|_| stores);
        let weights = Weights {
            value: synapses.effective.as_ref().unwrap_or(&parameters.weight.value),
            packed: &synapses.packed,
        };
        let Some(state) = &mut synapses.batch_norm else {
            let Some(currents) = currents else { return Ok(()) };
            let bias = parameters.bias().map_or(&*zeros, |bias| &bias.value);
            return backend.conv_current(conv, span, input, weights, bias, currents);
        };
        let bias = parameters.bias.as_ref().map_or(&*zeros, |bias| &bias.value);
        let norm = batch_norm(parameters.norm.as_mut().expect("a batch norm has parameters"));
        match currents {
            Some(currents) if pass.batch_statistics => {
                let (steps, update) = (self.span.steps, pass.update_running);
                backend.conv_batch_norm(conv, span, input, weights, bias, currents, steps, norm, update, state)
            }
            currents => {
                backend.batch_norm_running(norm, state)?;
                let Some(currents) = currents else { return Ok(()) };
                backend.conv_current(conv, span, input, weights, bias, currents)
            }
        }
    }
}
