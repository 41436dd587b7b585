//! A network on a backend: parameters, buffers, forward and backward pass.

mod bounds;
pub mod memory;
mod predict;

use crate::backend::shape::{Span, Volume};
use crate::backend::{Backend, LossSpec, Normalisation, Step, Totals, Trained, Update, bits_suffice};
use crate::data::SampleShape;
use crate::data::sampling::Augmentation;
use crate::network::lifetimes::Lifetimes;
use crate::network::parameters::{Parameter, PopulationParameters};
use crate::network::plan::{Plan, Population};
pub use crate::network::population::Pass;
use crate::network::population::{Layer, PopulationState, borrowed_currents};
use crate::network::spec::NetworkSpec;
use crate::neuron::Neuron;
use crate::surrogate::Surrogate;
use anyhow::Result;
use memory::Memory;

/// A network with its parameters and buffers on a backend.
pub struct Model<B: Backend> {
    backend: B,
    plan: Plan,
    neuron: Neuron,
    surrogate: Surrogate,
    populations: Vec<PopulationState<B>>,
    input: B::Floats,
    logits: B::Floats,
    logits_grad: B::Floats,
    /// Gradients of activations and currents, in the places that `lifetimes` gives them.
    gradients: Vec<B::Floats>,
    lifetimes: Lifetimes,
    /// Currents that one population after the other borrows, if they are recomputed.
    shared: Vec<Option<B::Floats>>,
    batch: B::Batch,
    optimizer: B::Optimizer,
    tally: B::Tally,
    /// Samples in the current batch.
    size: usize,
    /// The most samples that a batch may have.
    capacity: usize,
    memory: Memory,
    /// How often tensors have been replaced since the model was built.
    version: u32,
}

impl<B: Backend> Model<B> {
    /// Builds the network with fresh weights from `seed` and buffers for batches of up to `capacity`.
    ///
    /// # Errors
    /// If the device's memory does not suffice, with the largest batch that would fit.
    pub fn new(backend: B, spec: &NetworkSpec, plan: Plan, capacity: usize, seed: u64) -> Result<Self> {
        let memory = Memory::plan(&backend, spec, &plan, capacity)?;
        memory.check(&backend, spec, &plan, capacity)?;
        backend.reserve(memory.working)?;
        let model = Self::build(backend, spec, plan, capacity, seed)?;
        Ok(Self { memory, ..model })
    }

    fn build(backend: B, spec: &NetworkSpec, plan: Plan, capacity: usize, seed: u64) -> Result<Self> {
        let span = Span { batch: capacity, steps: plan.steps };
        let neuron = spec.neuron.neuron()?;
        let populations = plan.populations.iter();
        let mut populations = populations
            .map(|population| {
                PopulationState::new(&backend, population, span, &neuron, &spec.surrogate, seed, plan.recompute)
            })
            .collect::<Result<Vec<_>>>()?;
        let suffice = bits_suffice(&neuron, &spec.surrogate);
        let shared = borrowed_currents(&backend, &plan, suffice, capacity).into_iter();
        let shared = shared.map(|(span, volume)| backend.activations(span, volume).map(Some)).collect::<Result<_>>()?;
        let lifetimes = Lifetimes::new(&plan);
        let (largest_span, largest) = Self::largest(&backend, &plan, capacity);
        let gradients = (0..lifetimes.slots).map(|_| backend.activations(largest_span, largest));
        let classes = Volume { h: 1, w: 1, c: plan.classes };
        let input_span = Span { batch: capacity, steps: plan.input_steps };
        let trained = populations.iter_mut().flat_map(PopulationState::trained);
        Ok(Self {
            optimizer: backend.optimizer(&trained.collect::<Vec<_>>())?,
            batch: backend.batch(capacity, plan.populations.len())?,
            tally: backend.tally()?,
            input: backend.samples(input_span, plan.input)?,
            logits: backend.readouts(span, classes)?,
            logits_grad: backend.readouts(span, classes)?,
            gradients: gradients.collect::<Result<_>>()?,
            lifetimes,
            shared,
            populations,
            neuron,
            surrogate: spec.surrogate,
            plan,
            backend,
            size: 0,
            capacity,
            memory: Memory::default(),
            version: 0,
        })
    }

    /// The largest of the populations' outputs and currents.
    pub(super) fn largest(backend: &B, plan: &Plan, capacity: usize) -> (Span, Volume) {
        let of = |population: &Population| {
            let whole = |steps: usize| Span { batch: capacity, steps };
            let pools = population.projections.iter().filter_map(|projection| projection.pool);
            let mut all: Vec<_> = pools.map(|pool| (whole(plan.steps), pool.output)).collect();
            let steps = if population.is_single() { population.current_steps } else { plan.steps };
            all.extend([(whole(plan.steps), population.output()), (whole(steps), population.volume)]);
            all
        };
        let all = plan.populations.iter().flat_map(of);
        all.max_by_key(|&(span, volume)| backend.floats_size(span, volume)).expect("a network has a readout")
    }

    /// What a device is asked to keep, with two data sets that stay on the host, and the most that its operations need for
    /// themselves in training and inference; `None` if there is no rehearsal.
    pub(super) fn rehearse(
        backend: &B,
        spec: &NetworkSpec,
        plan: &Plan,
        capacity: usize,
    ) -> Result<Option<(usize, usize)>> {
        let Some(backend) = backend.rehearsal() else { return Ok(None) };
        let mut model = Self::build(backend, spec, plan.clone(), capacity, 0)?;
        let (input, frames) = (plan.input, plan.input_steps);
        let shape = SampleShape { frames, height: input.h, width: input.w, channels: input.c };
        let constant = vec![1.0; input.c];
        let normalisation = Normalisation { full_scale: 1.0, mean: constant.clone(), std: constant };
        let set = || model.backend.set(vec![0; shape.len()].into(), shape, &normalisation, capacity);
        let (mut set, _another) = (set()?, set()?);
        let kept = model.backend.kept_memory();
        let (samples, labels) = (vec![0; capacity], vec![0; capacity]);
        let step = Step::evaluate(&samples, &labels);
        for pass in [Pass::train(true), Pass::evaluate()] {
            model.write_batch(&mut set, &step)?;
            model.gather(&set, &Augmentation::default())?;
            model.forward(pass)?;
            model.loss(&LossSpec::default(), pass.backward)?;
            if pass.backward {
                model.backward(pass)?;
            }
        }
        Ok(Some((kept, model.backend.working_memory())))
    }

    /// The backend it runs on.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The most samples that a batch may have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// All its extents.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The surrogate of its neurons.
    pub fn surrogate(&self) -> &Surrogate {
        &self.surrogate
    }

    /// The populations that have neurons, with their index among all.
    pub fn spiking(&self) -> impl Iterator<Item = (usize, &Population)> {
        self.plan.populations.iter().enumerate().filter(|(_, population)| population.spiking)
    }

    /// The sums over the steps since they were last set.
    pub fn totals(&self) -> Result<Totals> {
        self.backend.read_tally(&self.tally)
    }

    /// Sets the sums.
    pub fn set_totals(&mut self, totals: &Totals) -> Result<()> {
        self.backend.write_tally(&mut self.tally, totals)
    }

    /// Earlier sums, if they have arrived.
    pub fn poll_totals(&mut self) -> Result<Option<Totals>> {
        self.backend.poll_totals(&mut self.tally)
    }

    /// How often tensors have been replaced: operations recorded before that do not know the new ones.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// The memory its buffers take.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Writes the next step's batch, of at most the capacity.
    pub fn write_batch(&mut self, set: &mut B::Set, step: &Step) -> Result<()> {
        let size = step.samples.len();
        assert!(size <= self.capacity && size > 0, "a batch has 1 to {} samples", self.capacity);
        assert_eq!(size, step.labels.len(), "a label a sample");
        self.size = size;
        self.backend.write_batch(&mut self.batch, set, step)
    }

    /// Sets another position of the same step; see [`Step::position`].
    pub fn move_batch(&mut self, position: f64) -> Result<()> {
        self.backend.move_batch(&mut self.batch, position)
    }

    /// To be called once all of the batch's operations have been issued.
    pub fn release_batch(&mut self, set: &mut B::Set) -> Result<()> {
        self.backend.release_batch(&mut self.batch, set)
    }

    /// Samples in the batch.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Gathers the batch's samples.
    pub fn gather(&mut self, set: &B::Set, augmentation: &Augmentation) -> Result<()> {
        self.backend.input(set, &self.batch, augmentation, &mut self.input)
    }

    fn span(&self) -> Span {
        Span { batch: self.size, steps: self.plan.steps }
    }

    /// Runs the gathered batch up to its logits.
    pub fn forward(&mut self, pass: Pass) -> Result<()> {
        let span = self.span();
        for i in 0..self.populations.len() {
            let (below, rest) = self.populations.split_at_mut(i);
            let layer = Layer::new(&self.backend, &self.plan, self.neuron, self.surrogate, span.batch, i);
            layer.borrow_currents(&mut rest[0], &mut self.shared);
            layer.forward(&mut rest[0], below, &self.input, pass, &self.batch)?;
            layer.return_currents(&mut rest[0], &mut self.shared);
        }
        let readout = self.populations.last().expect("a network has a readout");
        let steps = self.plan.populations[self.populations.len() - 1].current_steps;
        let (classes, vote) = (self.plan.classes, self.plan.vote);
        match (&readout.neurons.spikes, readout.readout()) {
            (Some(spikes), _) => self.backend.vote_spikes(classes, vote, span, spikes, &mut self.logits),
            (None, Some(currents)) => {
                self.backend.vote_currents(classes, vote, span, currents, steps, &mut self.logits)
            }
            (None, None) => unreachable!("a readout keeps its spikes or its currents"),
        }
    }

    /// Adds the batch's loss and correct answers to the totals; with `grad`, keeps the gradient for [`Model::backward`].
    pub fn loss(&mut self, spec: &LossSpec, grad: bool) -> Result<()> {
        let span = self.span();
        let grad = grad.then_some(&mut self.logits_grad);
        self.backend.loss(spec, self.plan.classes, span, &self.logits, &self.batch, grad, &mut self.tally)
    }

    /// Computes the gradients of every parameter, after a forward pass with `backward` and a loss with `grad`.
    pub fn backward(&mut self, pass: Pass) -> Result<()> {
        let span = self.span();
        let Self { backend, plan, populations, gradients: slots, lifetimes, shared, .. } = self;
        let layer = |i| Layer::new(&*backend, &*plan, self.neuron, self.surrogate, span.batch, i);
        let last = populations.len() - 1;
        let readout = &plan.populations[last];
        let steps = if readout.spiking { span.steps } else { readout.current_steps };
        let outputs_grad = &mut slots[lifetimes.populations[last].output];
        backend.vote_backward(plan.classes, plan.vote, span, &self.logits_grad, &self.tally, steps, outputs_grad)?;
        // The population whose neurons were run backward by its reader.
        let mut through = None;
        for i in (0..=last).rev() {
            let (below, rest) = populations.split_at_mut(i);
            let (state, gradients) = (&mut rest[0], &lifetimes.populations[i]);
            layer(i).borrow_currents(state, shared);
            layer(i).recompute_currents(state, below, &self.input)?;
            if through == Some(i) {
                slots.swap(gradients.output, gradients.sum.slot);
            } else {
                layer(i).output_backward(state, below, slots, gradients, pass, &self.batch)?;
            }
            let fuse = |source: usize| {
                let drops = plan.populations[source].dropout.is_some() && pass.dropout;
                let possible = source + 1 == i && lifetimes.populations[source].one_reader && !drops;
                (possible && !plan.populations[source].has_batch_norm()).then(|| layer(source))
            };
            through = layer(i).projections_backward(state, below, &self.input, slots, gradients, pass, fuse)?;
            layer(i).return_currents(state, shared);
        }
        Ok(())
    }

    /// Moves every parameter along its gradient.
    pub fn update(&mut self, update: &Update) -> Result<()> {
        let Self { backend, populations, batch, optimizer, tally, .. } = self;
        let mut parameters: Vec<Trained<B>> = populations.iter_mut().flat_map(PopulationState::trained).collect();
        backend.update(update, batch, optimizer, &mut parameters, tally)
    }

    /// All trained parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter<B>> {
        self.populations.iter().flat_map(|state| state.parameters.trained())
    }

    /// Every population with its parameters and running statistics.
    pub fn populations(&self) -> impl Iterator<Item = (&Population, &PopulationParameters<B>)> {
        self.plan.populations.iter().zip(self.populations.iter().map(|state| &state.parameters))
    }

    /// Like [`Model::populations`], but mutable.
    pub fn populations_mut(&mut self) -> impl Iterator<Item = (&Population, &mut PopulationParameters<B>)> {
        self.plan.populations.iter().zip(self.populations.iter_mut().map(|state| &mut state.parameters))
    }

    /// The gathered batch, `[N, C, H, W]`, or `[T, N, C, H, W]` for frames.
    pub fn read_input(&self) -> Result<Vec<f32>> {
        let span = Span { batch: self.size, steps: self.plan.input_steps };
        self.backend.read_samples(&self.input, span, self.plan.input)
    }

    /// Logits of every step, `[T, N, classes]`.
    pub fn read_logits(&self) -> Result<Vec<f32>> {
        self.backend.read_activations(&self.logits, self.span(), Volume { h: 1, w: 1, c: self.plan.classes })
    }

    /// A population's spikes before any combination or pool, `[T, N, C, H, W]`, if it has neurons.
    pub fn read_spikes(&self, population: usize) -> Result<Option<Vec<u8>>> {
        let volume = self.plan.populations[population].volume;
        self.populations[population]
            .neurons
            .spikes
            .as_ref()
            .map(|bits| self.backend.read_spikes(bits, self.span(), volume))
            .transpose()
    }

    /// A population's `H` before the reset, `[T, N, C, H, W]`, after a pass with `membranes`.
    pub fn read_membrane(&self, population: usize) -> Result<Option<Vec<f32>>> {
        let volume = self.plan.populations[population].volume;
        let membrane = self.populations[population].neurons.membrane.as_ref();
        membrane.map(|floats| self.backend.read_activations(floats, self.span(), volume)).transpose()
    }
}
