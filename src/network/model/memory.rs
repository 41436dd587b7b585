//! How much memory a network and a batch take, known before anything is allocated.

use crate::backend::shape::{PoolKind, Span, Volume};
use crate::backend::{Backend, LayerExtents, bits_suffice};
use crate::bail_input;
use crate::network::lifetimes::Lifetimes;
use crate::network::model::Model;
use crate::network::plan::{Convolution, Plan, Population, Projection};
use crate::network::population::{borrowed_currents, keeps_currents, keeps_sum};
use crate::network::spec::{Combination, NetworkSpec, Norm};
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
        let suffice = bits_suffice(&spec.neuron.neuron()?, &spec.surrogate);
        for population in &plan.populations {
            memory.add_parameters(backend, population);
            memory.add_activations(backend, population, span, suffice, plan.recompute);
        }
        let shared = borrowed_currents(backend, plan, suffice, capacity).into_iter();
        memory.currents += shared.map(|(span, volume)| backend.floats_size(span, volume)).sum::<usize>();
        let input = Span { batch: capacity, steps: plan.input_steps };
        let (largest_span, largest) = Model::largest(backend, plan, capacity);
        let slots = Lifetimes::new(plan).slots;
        memory.activations +=
            slots * backend.floats_size(largest_span, largest) + backend.samples_size(input, plan.input);
        let (tables, working) = match rehearsed {
            Some((kept, working)) => (kept.saturating_sub(memory.total()), working),
            None => (Self::tables(backend, plan, capacity), Self::working(backend, plan, capacity)),
        };
        Ok(Self { tables, working, ..memory })
    }

    /// What one population keeps of a forward pass, if the neurons' bits `suffice` for the backward pass or not.
    pub fn of_activations<B: Backend>(backend: &B, population: &Population, span: Span, suffice: bool) -> Self {
        let mut memory = Self::default();
        memory.add_activations(backend, population, span, suffice, false);
        memory
    }

    /// Logits, their gradient, and one histogram per layer.
    fn tables<B: Backend>(backend: &B, plan: &Plan, capacity: usize) -> usize {
        let logits =
            backend.readouts_size(Span { batch: capacity, steps: plan.steps }, Volume { h: 1, w: 1, c: plan.classes });
        2 * logits + plan.populations.len() * backend.counts_size(1)
    }

    fn working<B: Backend>(backend: &B, plan: &Plan, capacity: usize) -> usize {
        let extents = |(population, projection): (&Population, &Projection)| LayerExtents {
            volume: population.volume,
            conv: projection.convolution.as_ref().map(|convolution| convolution.conv),
            pool: population.pool,
            batch_norm: projection.has_batch_norm() || population.sum_norm == Norm::Batch,
            spiking: population.spiking,
            of_currents: Span { batch: capacity, steps: projection.steps },
        };
        let each = plan.populations.iter().flat_map(|p| p.projections.iter().map(move |projection| (p, projection)));
        let layers: Vec<LayerExtents> = each.map(extents).collect();
        let operations = backend.working_size(Span { batch: capacity, steps: plan.steps }, &layers);
        let tensor = plan.convolutions().map(|c| c.conv.output.c * c.conv.fan_in()).max().unwrap_or(0);
        operations.max(if backend.is_host() { size_of::<f32>() * tensor } else { 0 })
    }

    /// The same with a data set of `data` bytes, if the network shares the process's memory.
    pub fn of_process<B: Backend>(self, backend: &B, data: usize) -> Self {
        if backend.is_host() { Self { data, program: PROGRAM, ..self } } else { self }
    }

    fn add_parameters<B: Backend>(&mut self, backend: &B, population: &Population) {
        let vector = backend.vector_size(population.volume.c);
        let norm = |kind: Norm| if kind == Norm::None { 0 } else { 2 * vector };
        // Running statistics, and a batch norm's mean, deviation and affine map.
        let state = |kind: Norm| if kind == Norm::Batch { 6 * vector } else { 0 };
        let mut trained = norm(population.sum_norm);
        // A scale of 1 and a shift of 0.
        self.weights += 2 * vector + state(population.sum_norm);
        for projection in &population.projections {
            trained += usize::from(projection.gain.is_some()) * backend.vector_size(1);
            self.weights += usize::from(!projection.is_plain()) * vector;
            let Some(Convolution { conv, synapse, .. }) = &projection.convolution else { continue };
            let weight = backend.weight_size(conv);
            trained += weight + vector * usize::from(synapse.has_bias()) + norm(synapse.norm);
            let effective = if synapse.norm == Norm::Weight { weight } else { 0 };
            self.weights += effective + backend.packed_size(conv) + state(synapse.norm);
        }
        self.weights += trained;
        self.optimizer += 3 * trained;
    }

    fn add_activations<B: Backend>(
        &mut self,
        backend: &B,
        population: &Population,
        span: Span,
        suffice: bool,
        recompute: bool,
    ) {
        let keeps_bits = population.spiking && suffice;
        let volume = population.volume;
        let of_steps = |steps: usize| Span { steps, ..span };
        let bits = |volume| backend.bits_size(span, volume);
        let floats = |volume| backend.floats_size(span, volume);
        self.spikes += usize::from(population.spiking) * bits(volume);
        self.windows += usize::from(keeps_bits) * bits(volume);
        match population.combine {
            None => {}
            Some((_, Combination::Add)) => self.activations += floats(volume),
            Some(_) => self.spikes += bits(volume),
        }
        match population.pool {
            None => {}
            Some(pool) if pool.kind == PoolKind::Avg => {
                self.activations += backend.floats_size(of_steps(population.output_steps(span.steps)), pool.output);
            }
            Some(pool) => self.spikes += bits(pool.output),
        }
        if population.dropout.is_some() && !population.is_dense() {
            self.spikes += bits(population.output());
        }
        if keeps_sum(population, keeps_bits) {
            self.currents += backend.floats_size(of_steps(population.current_steps), volume);
        }
        for projection in &population.projections {
            let span = of_steps(projection.steps);
            self.activations += projection.pool.map_or(0, |pool| backend.floats_size(span, pool.output));
            if keeps_currents(population, projection, keeps_bits, recompute) {
                self.currents += match population.is_linear_readout() {
                    true => backend.readouts_size(span, volume),
                    false => backend.floats_size(span, volume),
                };
            }
        }
    }

    /// Every kind by its name for people.
    pub fn kinds(&self) -> [(&'static str, usize); 10] {
        [
            ("weights", self.weights),
            ("optimiser", self.optimizer),
            ("spikes", self.spikes),
            ("windows", self.windows),
            ("currents", self.currents),
            ("activations", self.activations),
            ("tables", self.tables),
            ("working", self.working),
            ("data", self.data),
            ("program", self.program),
        ]
    }

    /// The total.
    pub fn total(&self) -> usize {
        self.kinds().iter().map(|(_, bytes)| bytes).sum()
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
