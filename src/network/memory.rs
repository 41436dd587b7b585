//! How much memory a network and a batch take, known before anything is allocated.

use crate::backend::shape::{PoolKind, Span};
use crate::backend::{Backend, bits_suffice};
use crate::bail_input;
use crate::network::model::Model;
use crate::network::shapes::{Plan, Stage};
use crate::network::spec::{NetworkSpec, Norm};
use anyhow::Result;

/// Memory by kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Weights in all their forms, biases, norms.
    pub weights: usize,
    /// Gradients and moments of what is trained.
    pub optimizer: usize,
    pub spikes: usize,
    pub windows: usize,
    /// Currents kept for the backward pass.
    pub currents: usize,
    /// Input, gradients of activations, pooled means.
    pub activations: usize,
    /// Logits, histograms, bounds, samples on their way from the host, tables, and what a device adds to round sizes up.
    pub tables: usize,
    /// What single operations need for themselves.
    pub working: usize,
}

impl Memory {
    /// What [`Model::new`] allocates for batches of up to `capacity`, and the batches of two data sets that stay on the host;
    /// tables, which take little, are left out where nothing is rehearsed. A histogram a channel takes more.
    pub fn plan<B: Backend>(backend: &B, spec: &NetworkSpec, plan: &Plan, capacity: usize) -> Result<Self> {
        let span = Span { batch: capacity, steps: plan.steps };
        let (kept, working) = Model::rehearse(backend, spec, plan, capacity)?;
        let mut memory = Self::default();
        for (i, stage) in plan.stages.iter().enumerate() {
            memory.add_synapses(backend, stage);
            let of_currents = Span { batch: capacity, steps: plan.current_steps(i) };
            let bits = |volume| backend.bits_size(span, volume);
            let keeps_bits = stage.spiking && bits_suffice(&spec.neuron.neuron()?, &spec.surrogate);
            memory.spikes += stage.spiking as usize * bits(stage.conv.output);
            memory.windows += keeps_bits as usize * bits(stage.conv.output);
            let averages = stage.pool.is_some_and(|pool| pool.kind == PoolKind::Avg);
            match stage.pool {
                Some(_) if averages => memory.activations += backend.floats_size(span, stage.output()),
                Some(_) => memory.spikes += bits(stage.output()),
                None => {}
            }
            if stage.dropout.is_some() && !averages {
                memory.spikes += bits(stage.output());
            }
            if !stage.spiking {
                memory.currents += backend.readouts_size(of_currents, stage.conv.output);
            } else if !keeps_bits || stage.synapse.norm == Norm::Batch {
                memory.currents += backend.floats_size(of_currents, stage.conv.output);
            }
        }
        let input = Span { batch: capacity, steps: plan.current_steps(0) };
        let (largest_span, largest) = Model::largest(backend, plan, capacity);
        memory.activations += 2 * backend.floats_size(largest_span, largest) + backend.samples_size(input, plan.input);
        Ok(Self { tables: kept.saturating_sub(memory.total()), working, ..memory })
    }

    fn add_synapses<B: Backend>(&mut self, backend: &B, stage: &Stage) {
        let (conv, norm) = (&stage.conv, stage.synapse.norm);
        let (weight, vector) = (backend.weight_size(conv), backend.vector_size(conv.output.c));
        let normed = usize::from(norm != Norm::None);
        let trained = weight + vector * (usize::from(stage.synapse.has_bias()) + 2 * normed);
        self.optimizer += 3 * trained;
        // Running statistics; a scale of 1 and a shift of 0; a batch norm's state and gradient.
        let vectors = 2 * normed + 2 + if norm == Norm::Batch { 7 } else { 0 };
        let effective = if norm == Norm::Weight { weight } else { 0 };
        self.weights += trained + effective + backend.packed_size(conv) + vectors * vector;
    }

    /// All of it.
    pub fn total(&self) -> usize {
        let Self { weights, optimizer, spikes, windows, currents, activations, tables, working } = self;
        weights + optimizer + spikes + windows + currents + activations + tables + working
    }

    /// Refuses what the device cannot hold.
    ///
    /// # Errors
    /// With the largest batch that would fit.
    pub fn check<B: Backend>(&self, backend: &B, spec: &NetworkSpec, plan: &Plan, capacity: usize) -> Result<()> {
        let Some(available) = backend.available_memory() else { return Ok(()) };
        if self.total() <= available {
            return Ok(());
        }
        let fits = |batch: usize| Ok::<_, anyhow::Error>(Self::plan(backend, spec, plan, batch)?.total() <= available);
        // Between a batch that fits and one that does not.
        let (mut low, mut high) = (0, capacity);
        while high - low > 1 {
            let middle = low.midpoint(high);
            if fits(middle)? {
                low = middle;
            } else {
                high = middle;
            }
        }
        let advice = match low {
            0 => "no batch would fit; make the network smaller".into(),
            batch => format!("the largest batch that would fit is {batch}"),
        };
        bail_input!(
            "the network with a batch of {capacity} takes {:.1} MB, but {:.1} MB are free on {}; {advice}",
            self.total() as f64 / 1e6,
            available as f64 / 1e6,
            backend.describe()
        );
    }
}
