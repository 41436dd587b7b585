//! A network on a backend: parameters, buffers, forward and backward pass.

mod bounds;
pub mod memory;
mod predict;

use crate::backend::shape::{Span, Volume};
use crate::backend::{Backend, Input, LossSpec, Normalisation, Step, Totals, Trained, Update};
use crate::data::SampleShape;
use crate::data::sampling::Augmentation;
pub use crate::network::layer::Pass;
use crate::network::layer::{Layer, StageState};
use crate::network::parameters::{Parameter, StageParameters};
use crate::network::shapes::{Plan, Stage};
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
    stages: Vec<StageState<B>>,
    input: B::Floats,
    logits: B::Floats,
    logits_grad: B::Floats,
    /// Gradient of a stage's currents, and that of the stage's output; the two swap roles.
    current_grad: B::Floats,
    output_grad: B::Floats,
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
        let mut stages = Vec::with_capacity(plan.stages.len());
        for (i, stage) in plan.stages.iter().enumerate() {
            let of_currents = Span { batch: capacity, steps: plan.current_steps(i) };
            stages.push(StageState::new(&backend, stage, span, of_currents, &neuron, &spec.surrogate, seed)?);
        }
        let (largest_span, largest) = Self::largest(&backend, &plan, capacity);
        let classes = Volume { h: 1, w: 1, c: plan.classes };
        let input_span = Span { batch: capacity, steps: plan.current_steps(0) };
        let trained = stages.iter_mut().flat_map(StageState::trained);
        Ok(Self {
            optimizer: backend.optimizer(&trained.collect::<Vec<_>>())?,
            batch: backend.batch(capacity, plan.stages.len())?,
            tally: backend.tally()?,
            input: backend.samples(input_span, plan.input)?,
            logits: backend.readouts(span, classes)?,
            logits_grad: backend.readouts(span, classes)?,
            output_grad: backend.activations(largest_span, largest)?,
            current_grad: backend.activations(largest_span, largest)?,
            stages,
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

    /// The largest of the stages' outputs and currents.
    pub(super) fn largest(backend: &B, plan: &Plan, capacity: usize) -> (Span, Volume) {
        let of = |(i, stage): (usize, &Stage)| {
            let outputs = (Span { batch: capacity, steps: plan.steps }, stage.output());
            [outputs, (Span { batch: capacity, steps: plan.current_steps(i) }, stage.conv.output)]
        };
        let all = plan.stages.iter().enumerate().flat_map(of);
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
        let (input, frames) = (plan.input, plan.current_steps(0));
        let shape = SampleShape { frames, height: input.h, width: input.w, channels: input.c };
        let constant = vec![1.0; input.c];
        let normalisation = Normalisation { full_scale: 1.0, mean: constant.clone(), deviation: constant };
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

    /// The stages that have neurons, with their index among all stages.
    pub fn spiking_stages(&self) -> impl Iterator<Item = (usize, &Stage)> {
        self.plan.stages.iter().enumerate().filter(|(_, stage)| stage.spiking)
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
        for i in 0..self.stages.len() {
            let (below, rest) = self.stages.split_at_mut(i);
            let input = below.last().map_or(Input::Dense(&self.input), StageState::output);
            let layer = layer(&self.backend, &self.plan, self.neuron, self.surrogate, span.batch, i);
            layer.forward(&mut rest[0], input, pass, &self.batch)?;
        }
        let readout = self.stages.last().expect("a network has a readout");
        let steps = self.plan.current_steps(self.stages.len() - 1);
        match (&readout.neurons.spikes, &readout.currents) {
            (Some(spikes), _) => {
                self.backend.vote_spikes(self.plan.classes, self.plan.vote, span, spikes, &mut self.logits)
            }
            (None, Some(currents)) => {
                self.backend.vote_currents(self.plan.classes, self.plan.vote, span, currents, steps, &mut self.logits)
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
        let last = self.stages.len() - 1;
        let (classes, vote) = (self.plan.classes, self.plan.vote);
        let (steps, outputs_grad) = match self.plan.stages[last].spiking {
            true => (span.steps, &mut self.output_grad),
            false => (self.plan.current_steps(last), &mut self.current_grad),
        };
        self.backend.vote_backward(classes, vote, span, &self.logits_grad, &self.tally, steps, outputs_grad)?;
        // Whether `current_grad` is already that of stage `i`.
        let mut through = !self.plan.stages[last].spiking;
        for i in (0..=last).rev() {
            let (below, rest) = self.stages.split_at_mut(i);
            let state = &mut rest[0];
            let layer = |i| layer(&self.backend, &self.plan, self.neuron, self.surrogate, span.batch, i);
            if !through {
                layer(i).neurons_backward(state, pass.batch_statistics, &self.output_grad, &mut self.current_grad)?;
            }
            let input = below.last().map_or(Input::Dense(&self.input), StageState::output);
            layer(i).synapses_backward(state, input, &self.current_grad)?;
            let Some(lower) = i.checked_sub(1) else { break };
            let dropout = self.plan.stages[lower].dropout.filter(|_| pass.dropout);
            let between = (&layer(lower), &mut below[lower]);
            let (current_grad, output_grad) = (&self.current_grad, &mut self.output_grad);
            through =
                dropout.is_none() && layer(i).input_backward_through(state, current_grad, between, output_grad)?;
            if through {
                std::mem::swap(&mut self.current_grad, &mut self.output_grad);
                continue;
            }
            layer(i).input_backward(state, current_grad, output_grad)?;
            if let Some(probability) = dropout {
                let volume = self.plan.stages[lower].output();
                self.backend.dropout_floats(volume, span, probability, &self.batch, lower, output_grad)?;
            }
        }
        Ok(())
    }

    /// Moves every parameter along its gradient.
    pub fn update(&mut self, update: &Update) -> Result<()> {
        let Self { backend, stages, batch, optimizer, tally, .. } = self;
        let mut parameters: Vec<Trained<B>> = stages.iter_mut().flat_map(StageState::trained).collect();
        backend.update(update, batch, optimizer, &mut parameters, tally)
    }

    /// All trained parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter<B>> {
        self.stages.iter().flat_map(|state| state.synapses.parameters.trained())
    }

    /// Parameters and running statistics of each stage.
    pub fn stage_parameters(&self) -> impl Iterator<Item = (&Stage, &StageParameters<B>)> {
        self.plan.stages.iter().zip(self.stages.iter().map(|state| &state.synapses.parameters))
    }

    /// Like [`Model::stage_parameters`], but mutable.
    pub fn stage_parameters_mut(&mut self) -> impl Iterator<Item = (&Stage, &mut StageParameters<B>)> {
        self.plan.stages.iter().zip(self.stages.iter_mut().map(|state| &mut state.synapses.parameters))
    }

    /// The gathered batch, `[N, C, H, W]`, or `[T, N, C, H, W]` for frames.
    pub fn read_input(&self) -> Result<Vec<f32>> {
        let span = Span { batch: self.size, steps: self.plan.current_steps(0) };
        self.backend.read_samples(&self.input, span, self.plan.input)
    }

    /// Logits of every step, `[T, N, classes]`.
    pub fn read_logits(&self) -> Result<Vec<f32>> {
        self.backend.read_activations(&self.logits, self.span(), Volume { h: 1, w: 1, c: self.plan.classes })
    }

    /// A stage's spikes before any pool, `[T, N, C, H, W]`, if it has neurons.
    pub fn read_spikes(&self, stage: usize) -> Result<Option<Vec<u8>>> {
        let volume = self.plan.stages[stage].conv.output;
        self.stages[stage]
            .neurons
            .spikes
            .as_ref()
            .map(|bits| self.backend.read_spikes(bits, self.span(), volume))
            .transpose()
    }

    /// A stage's `H` before the reset, `[T, N, C, H, W]`, after a pass with `membranes`.
    pub fn read_membrane(&self, stage: usize) -> Result<Option<Vec<f32>>> {
        let volume = self.plan.stages[stage].conv.output;
        let membrane = self.stages[stage].neurons.membrane.as_ref();
        membrane.map(|floats| self.backend.read_activations(floats, self.span(), volume)).transpose()
    }
}

/// The operations of stage `i`.
fn layer<'a, B: Backend>(
    backend: &'a B,
    plan: &'a Plan,
    neuron: Neuron,
    surrogate: Surrogate,
    batch: usize,
    i: usize,
) -> Layer<'a, B> {
    let span = Span { batch, steps: plan.steps };
    let of_currents = Span { batch, steps: plan.current_steps(i) };
    Layer { backend, index: i, stage: &plan.stages[i], neuron, surrogate, span, of_currents }
}
