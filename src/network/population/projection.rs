//! A projection's own buffers and its forward pass.

use super::{Layer, Pass, PopulationState, batch_norm, norm_state, read};
use crate::backend::shape::{InputKind, Span, Volume};
use crate::backend::{Backend, Input, NormState, WeightNorm, Weights};
use crate::host;
use crate::network::parameters::ProjectionParameters;
use crate::network::plan::{Plan, Population, Projection};
use crate::network::spec::{Norm, Synapse, Variance};
use anyhow::Result;

/// What a projection keeps besides its parameters.
pub struct ProjectionState<B: Backend> {
    pub synapses: Option<SynapseState<B>>,
    /// Output of the convolution, if anything but the neurons right after it needs it; absent while not borrowed.
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

/// Whether a projection's currents are written to memory.
fn stores_currents(population: &Population, projection: &Projection, keeps_bits: bool) -> bool {
    projection.convolution.is_some() && (!population.is_single() || !keeps_bits || population.has_batch_norm())
}

/// Whether they are written to memory of their own and kept. Only a readout's are if currents are recomputed.
pub fn keeps_currents(population: &Population, projection: &Projection, keeps_bits: bool, recompute: bool) -> bool {
    stores_currents(population, projection, keeps_bits) && (!recompute || population.is_linear_readout())
}

/// The projections of a population whose currents are stored but not kept, those of most steps first.
fn borrowing(population: &Population, keeps_bits: bool, recompute: bool) -> Vec<usize> {
    let borrows = |&k: &usize| {
        let projection = &population.projections[k];
        stores_currents(population, projection, keeps_bits)
            && !keeps_currents(population, projection, keeps_bits, recompute)
    };
    let mut all: Vec<usize> = (0..population.projections.len()).filter(borrows).collect();
    all.sort_by_key(|&k| std::cmp::Reverse(population.projections[k].steps));
    all
}

/// The memory that one population after the other borrows for its currents if they are recomputed.
pub fn borrowed_currents<B: Backend>(backend: &B, plan: &Plan, suffice: bool, batch: usize) -> Vec<(Span, Volume)> {
    let mut largest: Vec<(Span, Volume)> = Vec::new();
    for population in &plan.populations {
        let borrowing = borrowing(population, population.spiking && suffice, plan.recompute);
        for (i, k) in borrowing.into_iter().enumerate() {
            let own = (Span { batch, steps: population.projections[k].steps }, population.volume);
            match largest.get_mut(i) {
                None => largest.push(own),
                Some(other) => *other = std::cmp::max_by_key(*other, own, |&(s, v)| backend.floats_size(s, v)),
            }
        }
    }
    largest
}

impl<B: Backend> ProjectionState<B> {
    /// Buffers for batches of `batch`; `keeps_bits` says whether the neurons' bits suffice for the backward pass.
    pub fn new(
        backend: &B,
        population: &Population,
        projection: &Projection,
        batch: usize,
        keeps_bits: bool,
        recompute: bool,
    ) -> Result<Self> {
        let (volume, span) = (population.volume, Span { batch, steps: projection.steps });
        let currents = keeps_currents(population, projection, keeps_bits, recompute).then(|| {
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
        let PopulationState { parameters, projections, zeros, .. } = &mut *state;
        let ProjectionState { synapses, currents, pooled, .. } = &mut projections[k];
        let stores = stores && currents.is_some();
        let synapses = synapses.as_mut().expect("a convolution has synapses");
        if let Some(norm_state) = &mut synapses.batch_norm {
            let parameters = parameters.projections[k].synapses.as_mut().expect("a convolution has parameters");
            let bias = parameters.bias.as_ref().map_or(&*zeros, |bias| &bias.value);
            let norm = batch_norm(parameters.norm.as_mut().expect("a batch norm has parameters"));
            let Some(currents) = currents.as_mut().filter(|_| stores && pass.batch_statistics) else {
                self.backend.batch_norm_running(norm, norm_state)?;
                return if stores { self.store_currents(state, k, below, input) } else { Ok(()) };
            };
            let input = pooled.as_ref().map_or_else(|| read(projection.source, below, input), Input::Dense);
            let weights = Weights { value: &parameters.weight.value, packed: &synapses.packed };
            let (conv, span) = (&convolution.conv, self.of_steps(projection.steps));
            let (steps, update) = (self.span.steps, pass.update_running);
            return self
                .backend
                .conv_batch_norm(conv, span, input, weights, bias, currents, steps, norm, update, norm_state);
        }
        if stores { self.store_currents(state, k, below, input) } else { Ok(()) }
    }

    fn store_currents(
        &self,
        state: &mut PopulationState<B>,
        k: usize,
        below: &[PopulationState<B>],
        input: &B::Floats,
    ) -> Result<()> {
        let projection = &self.population.projections[k];
        let conv = &projection.convolution.as_ref().expect("only convolutions store currents").conv;
        let mut currents = state.projections[k].currents.take().expect("currents are allocated or borrowed");
        let own = &state.projections[k];
        let (weights, bias) = own.operands(&state.parameters.projections[k], &state.zeros);
        let input = own.pooled.as_ref().map_or_else(|| read(projection.source, below, input), Input::Dense);
        let span = self.of_steps(projection.steps);
        let stored = self.backend.conv_current(conv, span, input, weights, bias, &mut currents);
        state.projections[k].currents = Some(currents);
        stored
    }

    fn borrowing(&self) -> Vec<usize> {
        borrowing(self.population, self.keeps_bits(), self.recompute)
    }

    /// Borrows memory for currents that are not kept; see [`borrowed_currents`].
    pub fn borrow_currents(&self, state: &mut PopulationState<B>, shared: &mut [Option<B::Floats>]) {
        for (k, shared) in self.borrowing().into_iter().zip(shared) {
            state.projections[k].currents = shared.take();
        }
    }

    /// Returns what was borrowed.
    pub fn return_currents(&self, state: &mut PopulationState<B>, shared: &mut [Option<B::Floats>]) {
        for (k, shared) in self.borrowing().into_iter().zip(shared) {
            *shared = state.projections[k].currents.take();
        }
    }

    /// Computes borrowed currents again, as far as the backward pass reads them.
    pub fn recompute_currents(
        &self,
        state: &mut PopulationState<B>,
        below: &[PopulationState<B>],
        input: &B::Floats,
    ) -> Result<()> {
        let slope = self.population.is_single() && !self.keeps_bits();
        let reads = |k: &usize| {
            let projection = &self.population.projections[*k];
            slope || projection.has_batch_norm() || projection.gain.is_some()
        };
        self.borrowing().into_iter().filter(reads).try_for_each(|k| self.store_currents(state, k, below, input))
    }
}
