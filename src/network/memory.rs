//! How much memory a network and a batch take, known before anything is allocated.

use crate::backend::shape::{PoolKind, Span};
use crate::backend::{Backend, Neurons};
use crate::bail_input;
use crate::network::shapes::Plan;
use crate::network::spec::Norm;
use anyhow::Result;

/// Memory by kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights, gradients and moments.
    pub parameters: usize,
    /// Spikes and windows.
    pub bits: usize,
    /// Currents kept for the backward pass.
    pub currents: usize,
    /// Input, gradients of activations, pooled means.
    pub activations: usize,
}

impl Memory {
    /// What [`crate::network::Model::new`] allocates for batches of up to `capacity`.
    pub fn plan<B: Backend>(backend: &B, plan: &Plan, neurons: &Neurons, capacity: usize) -> Self {
        let span = Span { batch: capacity, steps: plan.steps };
        let mut memory = Self { parameters: 4 * size_of::<f32>() * plan.parameters(), ..Self::default() };
        let (mut outputs, mut currents) = (0, 0);
        for (i, stage) in plan.stages.iter().enumerate() {
            let of_currents = Span { batch: capacity, steps: plan.current_steps(i) };
            let bits = |volume| backend.bits_size(span, volume);
            let keeps_bits = stage.spiking && neurons.bits_suffice();
            let planes = stage.spiking as usize + keeps_bits as usize;
            memory.bits += planes * bits(stage.conv.output);
            let averages = stage.pool.is_some_and(|pool| pool.kind == PoolKind::Avg);
            match stage.pool {
                Some(_) if averages => memory.activations += backend.floats_size(span, stage.output()),
                Some(_) => memory.bits += bits(stage.output()),
                None => {}
            }
            if stage.dropout.is_some() && !averages {
                memory.bits += bits(stage.output());
            }
            let current = backend.floats_size(of_currents, stage.conv.output);
            if !keeps_bits || stage.synapse.norm == Norm::Batch {
                memory.currents += current;
            }
            outputs = outputs.max(backend.floats_size(span, stage.output()));
            currents = currents.max(current);
        }
        let input = size_of::<f32>() * capacity * plan.current_steps(0) * plan.input.values();
        memory.activations += outputs + currents + input;
        memory
    }

    /// All of it.
    pub fn total(&self) -> usize {
        self.parameters + self.bits + self.currents + self.activations
    }

    /// Refuses what the device cannot hold.
    ///
    /// # Errors
    /// With the largest batch that would fit.
    pub fn check<B: Backend>(&self, backend: &B, plan: &Plan, neurons: &Neurons, capacity: usize) -> Result<()> {
        let Some(available) = backend.available_memory() else { return Ok(()) };
        if self.total() <= available {
            return Ok(());
        }
        let fits = |batch: &usize| Self::plan(backend, plan, neurons, *batch).total() <= available;
        let mut sizes = (0..usize::BITS).map(|bit| capacity >> bit).take_while(|&batch| batch > 0);
        let advice = match sizes.find(fits) {
            Some(batch) => format!("a batch of {batch} would fit"),
            None => "no batch would fit; make the network smaller".into(),
        };
        bail_input!(
            "the network with a batch of {capacity} takes {:.1} GB, but {:.1} GB are free; {advice}",
            self.total() as f64 / 1e9,
            available as f64 / 1e9
        );
    }
}
