//! What a population keeps: its parameters and the results of its forward pass.

use super::projection::ProjectionState;
use crate::backend::shape::{PoolKind, Span};
use crate::backend::{Backend, Input, NormState, Trained, bits_suffice};
use crate::network::parameters::{Parameter, PopulationParameters};
use crate::network::plan::Population;
use crate::network::spec::{Combination, Norm};
use crate::neuron::Neuron;
use crate::surrogate::{Bounds, Surrogate};
use anyhow::Result;

/// A population's parameters and the results of its forward pass.
pub struct PopulationState<B: Backend> {
    pub parameters: PopulationParameters<B>,
    pub(super) projections: Vec<ProjectionState<B>>,
    /// The summed currents, if another population, a norm or the backward pass reads them.
    pub(super) sum: Option<B::Floats>,
    pub(super) sum_norm: Option<NormState<B::Floats>>,
    pub neurons: NeuronState<B>,
    pub(super) combined: Activations<B>,
    pub(super) pooled: Activations<B>,
    /// Spikes that a dropout kept.
    pub(super) kept: Option<B::Bits>,
    /// What a spike counts for where it is read: a dropout's `1/(1-p)`, else 1.
    pub(super) scale: f32,
    /// The affine map of currents that nothing changes; the shift is also the bias of convolutions without one.
    pub(super) ones: B::Floats,
    pub(super) zeros: B::Floats,
}

/// Spikes and what goes with them.
pub struct NeuronState<B: Backend> {
    pub bounds: B::Bounds,
    /// The first bounds of auto-init.
    pub start: B::Bounds,
    /// `None` for a layer without neurons.
    pub spikes: Option<B::Bits>,
    /// Present if the bits are all that the backward pass needs.
    pub(super) inside: Option<B::Bits>,
    /// Only after a pass that asked for it.
    pub membrane: Option<B::Floats>,
    pub counts: B::Counts,
}

/// What becomes of spikes that are combined with others, or pooled.
pub(super) enum Activations<B: Backend> {
    None,
    Spikes(B::Bits),
    Floats(B::Floats),
}

impl<B: Backend> Activations<B> {
    pub(super) fn as_input(&self, scale: f32) -> Option<Input<'_, B>> {
        match self {
            Self::None => None,
            Self::Spikes(bits) => Some(Input::Spikes { bits, scale }),
            Self::Floats(values) => Some(Input::Dense(values)),
        }
    }
}

pub(super) fn norm_state<B: Backend>(backend: &B, channels: usize) -> Result<NormState<B::Floats>> {
    let zeros = || backend.vector(&vec![0.0; channels]);
    Ok(NormState { mean: zeros()?, inv_std: zeros()?, scale: zeros()?, shift: zeros()? })
}

/// Whether the sum of a population's currents is kept in memory.
pub fn keeps_sum(population: &Population, keeps_bits: bool) -> bool {
    !population.is_single() && (population.hands_on_currents || population.sum_norm == Norm::Batch || !keeps_bits)
}

impl<B: Backend> PopulationState<B> {
    /// Fresh parameters, and buffers for batches of `batch` and `steps` steps.
    pub fn new(
        backend: &B,
        population: &Population,
        Span { batch, steps }: Span,
        neuron: &Neuron,
        surrogate: &Surrogate,
        seed: u64,
        recompute: bool,
    ) -> Result<Self> {
        let (volume, span) = (population.volume, Span { batch, steps });
        let keeps_bits = population.spiking && bits_suffice(neuron, surrogate);
        let of_sum = Span { batch, steps: population.current_steps };
        let of_output = Span { batch, steps: population.output_steps(steps) };
        let pooled = match population.pool {
            None => Activations::None,
            Some(pool) if pool.kind == PoolKind::Max => Activations::Spikes(backend.spikes(span, pool.output)?),
            Some(pool) => Activations::Floats(backend.activations(of_output, pool.output)?),
        };
        let combined = match population.combine {
            None => Activations::None,
            Some((_, Combination::Add)) => Activations::Floats(backend.activations(span, volume)?),
            Some(_) => Activations::Spikes(backend.spikes(span, volume)?),
        };
        let drops_spikes = population.dropout.is_some() && !population.is_dense();
        let projections = population.projections.iter();
        let sum = keeps_sum(population, keeps_bits);
        Ok(Self {
            parameters: PopulationParameters::new(backend, population, seed)?,
            projections: projections
                .map(|projection| ProjectionState::new(backend, population, projection, batch, keeps_bits, recompute))
                .collect::<Result<_>>()?,
            sum: sum.then(|| backend.activations(of_sum, volume)).transpose()?,
            sum_norm: (population.sum_norm == Norm::Batch).then(|| norm_state(backend, volume.c)).transpose()?,
            neurons: NeuronState {
                bounds: backend.bounds(&[Bounds::RECTANGLE], neuron.threshold)?,
                start: backend.bounds(&[Bounds::RECTANGLE], neuron.threshold)?,
                spikes: population.spiking.then(|| backend.spikes(span, volume)).transpose()?,
                inside: keeps_bits.then(|| backend.spikes(span, volume)).transpose()?,
                membrane: None,
                counts: backend.counts(1)?,
            },
            combined,
            pooled,
            kept: drops_spikes.then(|| backend.spikes(span, population.output())).transpose()?,
            scale: 1.0,
            ones: backend.vector(&vec![1.0; volume.c])?,
            zeros: backend.vector(&vec![0.0; volume.c])?,
        })
    }

    /// Its parameters in the form that the optimiser takes.
    pub fn trained(&mut self) -> impl Iterator<Item = Trained<'_, B>> {
        self.parameters.trained_mut().map(Parameter::as_trained)
    }

    /// What its readers read.
    pub fn output(&self) -> Input<'_, B> {
        if let Some(bits) = self.kept.as_ref().filter(|_| self.scale != 1.0) {
            return Input::Spikes { bits, scale: self.scale };
        }
        let spikes_or_sum = || match &self.neurons.spikes {
            Some(bits) => Input::Spikes { bits, scale: 1.0 },
            None => Input::Dense(self.summed()),
        };
        self.pooled.as_input(1.0).or_else(|| self.combined.as_input(1.0)).unwrap_or_else(spikes_or_sum)
    }

    /// Its summed currents.
    pub(super) fn summed(&self) -> &B::Floats {
        self.sum.as_ref().expect("currents that are handed on are kept")
    }

    /// A readout's currents, if no neurons follow.
    pub fn readout(&self) -> Option<&B::Floats> {
        self.projections[0].currents.as_ref()
    }
}
