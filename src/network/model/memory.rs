//! How much memory a network and a batch take, known before anything is allocated.

use crate::backend::shape::{PoolKind, Span, Volume};
use crate::backend::{Backend, LayerExtents, bits_suffice};
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
    /// Logits, histograms, bounds, samples on their way from the host, tables, and what a device adds by rounding sizes up.
    pub tables: usize,
    /// What operations need for themselves, or, on the CPU, one tensor on its way to or from a checkpoint.
    pub working: usize,
    /// On the CPU: the data set.
    pub data: usize,
    /// On the CPU: the program itself.
    pub program: usize,
}

/// What a process of this program takes in memory before it has data or a network, measured on Linux (x86-64): code,
/// threads, and what remains after drawing the first plots.
const PROGRAM: usize = 10 << 20;
/// Memory to leave free in addition: for later threads and plots, and for addresses that the allocator sets aside.
const RESERVE: usize = 16 << 20;

impl Memory {
    /// What [`Model::new`] allocates for batches of up to `capacity`, and the batches of two data sets that stay on the
    /// host. Histograms per channel take more.
    pub fn plan<B: Backend>(backend: &B, spec: &NetworkSpec, plan: &Plan, capacity: usize) -> Result<Self> {
        let span = Span { batch: capacity, steps: plan.steps };
        let rehearsed = Model::rehearse(backend, spec, plan, capacity)?;
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
        let (tables, working) = match rehearsed {
            Some((kept, working)) => (kept.saturating_sub(memory.total()), working),
            None => (Self::tables(backend, plan, capacity), Self::working(backend, plan, capacity)),
        };
        Ok(Self { tables, working, ..memory })
    }

    /// Logits, their gradient, and one histogram per layer.
    fn tables<B: Backend>(backend: &B, plan: &Plan, capacity: usize) -> usize {
        let logits =
            backend.readouts_size(Span { batch: capacity, steps: plan.steps }, Volume { h: 1, w: 1, c: plan.classes });
        2 * logits + plan.stages.len() * backend.counts_size(1)
    }

    fn working<B: Backend>(backend: &B, plan: &Plan, capacity: usize) -> usize {
        let extents = |(i, stage): (usize, &Stage)| LayerExtents {
            conv: stage.conv,
            pool: stage.pool,
            batch_norm: stage.synapse.norm == Norm::Batch,
            spiking: stage.spiking,
            of_currents: Span { batch: capacity, steps: plan.current_steps(i) },
        };
        let layers: Vec<LayerExtents> = plan.stages.iter().enumerate().map(extents).collect();
        let operations = backend.working_size(Span { batch: capacity, steps: plan.steps }, &layers);
        let tensor = plan.stages.iter().map(|stage| stage.conv.output.c * stage.conv.fan_in()).max().unwrap_or(0);
        operations.max(if backend.is_host() { size_of::<f32>() * tensor } else { 0 })
    }

    /// The same with a data set of `data` bytes, if the network shares the process's memory.
    pub fn of_process<B: Backend>(self, backend: &B, data: usize) -> Self {
        if backend.is_host() { Self { data, program: PROGRAM, ..self } } else { self }
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

    /// The total.
    pub fn total(&self) -> usize {
        let Self { weights, optimizer, spikes, windows, currents, activations, tables, working, data, program } = self;
        weights + optimizer + spikes + windows + currents + activations + tables + working + data + program
    }

    /// What must be free: the total and, if the network shares the process's memory, a margin for the allocator and the
    /// process.
    fn needed<B: Backend>(&self, backend: &B) -> usize {
        let total = self.total();
        if backend.is_host() { total + total / 32 + RESERVE } else { total }
    }

    /// Refuses what the device cannot hold.
    ///
    /// # Errors
    /// With the largest batch that would fit.
    pub fn check<B: Backend>(&self, backend: &B, spec: &NetworkSpec, plan: &Plan, capacity: usize) -> Result<()> {
        let Some(available) = backend.available_memory() else { return Ok(()) };
        let needed = self.needed(backend);
        if needed <= available {
            return Ok(());
        }
        let fits =
            |batch: usize| Ok::<_, anyhow::Error>(Self::plan(backend, spec, plan, batch)?.needed(backend) <= available);
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
            "the network with a batch of {capacity} takes {:.1} MB, but {:.1} MB are left {}; {advice}",
            needed as f64 / 1e6,
            available as f64 / 1e6,
            backend.available_where()
        );
    }
}
