//! A network on a backend: parameters, buffers, forward and backward pass.

use crate::autotune::Histogram;
use crate::backend::shape::{Span, Volume};
use crate::backend::{Backend, Input, LossSpec, LossSums, Neurons, Normalisation, Trained, Update};
use crate::data::SampleShape;
use crate::data::sampling::Placement;
use crate::network::layer::{Layer, StageState};
use crate::network::memory::Memory;
use crate::network::parameters::{Parameter, StageParameters};
use crate::network::shapes::{Plan, Stage};
use crate::network::spec::NetworkSpec;
use crate::neuron::Neuron;
use crate::surrogate::{Bounds, Surrogate};
use anyhow::Result;

/// How a forward pass is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pass {
    /// Batch norms use the batch's statistics, not the running ones.
    pub batch_statistics: bool,
    /// Batch norms move their running statistics.
    pub update_running: bool,
    /// Seed of the dropout masks; none are drawn without.
    pub dropout: Option<u64>,
    /// A backward pass will follow.
    pub backward: bool,
    /// Count membrane potentials.
    pub histogram: bool,
    /// Keep membrane potentials; see [`Model::read_membrane`].
    pub membranes: bool,
}

impl Pass {
    /// A training step.
    pub fn train(dropout: u64, histogram: bool) -> Self {
        Self {
            batch_statistics: true,
            update_running: true,
            dropout: Some(dropout),
            backward: true,
            histogram,
            membranes: false,
        }
    }

    /// Inference.
    pub fn evaluate() -> Self {
        Self::default()
    }
}

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
    /// Gradient of what a stage hands on.
    output_grad: B::Floats,
    /// Gradient of a stage's currents.
    current_grad: B::Floats,
    /// Samples in the current batch.
    batch: usize,
    /// The most that a batch may have.
    capacity: usize,
    memory: Memory,
}

impl<B: Backend> Model<B> {
    /// Builds the network with fresh weights from `seed` and buffers for batches of up to `capacity`.
    pub fn new(backend: B, spec: &NetworkSpec, plan: Plan, capacity: usize, seed: u64) -> Result<Self> {
        let span = Span { batch: capacity, steps: plan.steps };
        let neuron = spec.neuron.neuron()?;
        let neurons = Neurons { neuron, surrogate: spec.surrogate, bounds: &[] };
        let memory = Memory::plan(&backend, &plan, &neurons, capacity);
        memory.check(&backend, &plan, &neurons, capacity)?;
        let mut stages = Vec::with_capacity(plan.stages.len());
        for (i, stage) in plan.stages.iter().enumerate() {
            let of_currents = Span { batch: capacity, steps: plan.current_steps(i) };
            stages.push(StageState::new(&backend, stage, span, of_currents, &neurons, seed)?);
        }
        let largest = |volumes: &mut dyn Iterator<Item = (Span, Volume)>| {
            volumes.max_by_key(|&(span, volume)| backend.floats_size(span, volume)).expect("a network has a readout")
        };
        let outputs = plan.stages.iter().map(|stage| (span, stage.output()));
        let (output_span, output) = largest(&mut outputs.into_iter());
        let currents = plan
            .stages
            .iter()
            .enumerate()
            .map(|(i, stage)| (Span { batch: capacity, steps: plan.current_steps(i) }, stage.conv.output));
        let (current_span, current) = largest(&mut currents.into_iter());
        let classes = Volume { h: 1, w: 1, c: plan.classes };
        let input_span = Span { batch: capacity, steps: plan.current_steps(0) };
        Ok(Self {
            input: backend.samples(input_span, plan.input)?,
            logits: backend.readouts(span, classes)?,
            logits_grad: backend.readouts(span, classes)?,
            output_grad: backend.activations(output_span, output)?,
            current_grad: backend.activations(current_span, current)?,
            stages,
            neuron,
            surrogate: spec.surrogate,
            plan,
            backend,
            batch: 0,
            capacity,
            memory,
        })
    }

    /// The backend it runs on.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// The most samples that a batch may have.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Every extent of it.
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

    /// AdaLi's bounds of a stage: one, or one a channel.
    pub fn bounds(&self, stage: usize) -> &[Bounds] {
        &self.stages[stage].neurons.bounds
    }

    /// Sets the bounds of a stage: one, or one a channel.
    pub fn set_bounds(&mut self, stage: usize, bounds: Vec<Bounds>) {
        debug_assert!(bounds.len() == 1 || bounds.len() == self.plan.stages[stage].conv.output.c);
        self.stages[stage].neurons.bounds = bounds;
    }

    /// Counts from now on into `count` histograms for each stage: 1, or one a channel.
    pub fn set_histograms(&mut self, per_channel: bool) -> Result<()> {
        for (stage, state) in self.plan.stages.iter().zip(&mut self.stages) {
            state.neurons.counts = self.backend.histogram(if per_channel { stage.conv.output.c } else { 1 })?;
        }
        Ok(())
    }

    /// What a stage's neurons have counted since the last call.
    pub fn take_histogram(&mut self, stage: usize) -> Result<Vec<Histogram>> {
        self.stages[stage].take_histogram(&self.backend)
    }

    /// Memory of its buffers.
    pub fn memory(&self) -> Memory {
        self.memory
    }

    /// Gathers a batch of at most the capacity.
    pub fn gather(
        &mut self,
        set: &B::Bytes,
        shape: &SampleShape,
        normalisation: &Normalisation,
        indices: &[u32],
        placements: &[Placement],
    ) -> Result<()> {
        assert!(indices.len() <= self.capacity && !indices.is_empty(), "a batch has 1 to {} samples", self.capacity);
        self.batch = indices.len();
        self.backend.input(set, shape, normalisation, indices, placements, &mut self.input)
    }

    fn span(&self) -> Span {
        Span { batch: self.batch, steps: self.plan.steps }
    }

    /// Runs the gathered batch to its logits.
    pub fn forward(&mut self, pass: Pass) -> Result<()> {
        let span = self.span();
        for i in 0..self.stages.len() {
            let (below, rest) = self.stages.split_at_mut(i);
            let input = below.last().map_or(Input::Dense(&self.input), StageState::output);
            let layer = layer(&self.backend, &self.plan, self.neuron, self.surrogate, span.batch, i);
            layer.forward(&mut rest[0], input, pass, pass.dropout.map(|seed| mask(seed, i)))?;
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

    /// Loss and hits of the batch; with `grad` its gradient is kept for [`Model::backward`].
    pub fn loss(&mut self, spec: &LossSpec, labels: &[u16], grad: bool) -> Result<LossSums> {
        let grad = grad.then_some(&mut self.logits_grad);
        let span = Span { batch: self.batch, steps: self.plan.steps };
        self.backend.loss(spec, self.plan.classes, span, &self.logits, labels, grad)
    }

    /// Gradients of every parameter, after a forward pass with `backward` and a loss with `grad`.
    pub fn backward(&mut self, pass: Pass) -> Result<()> {
        let span = self.span();
        let last = self.stages.len() - 1;
        let (classes, vote) = (self.plan.classes, self.plan.vote);
        if self.plan.stages[last].spiking {
            self.backend.vote_backward(classes, vote, span, &self.logits_grad, span.steps, &mut self.output_grad)?;
        } else {
            let steps = self.plan.current_steps(last);
            self.backend.vote_backward(classes, vote, span, &self.logits_grad, steps, &mut self.current_grad)?;
        }
        for i in (0..=last).rev() {
            let (below, rest) = self.stages.split_at_mut(i);
            let state = &mut rest[0];
            let layer = layer(&self.backend, &self.plan, self.neuron, self.surrogate, span.batch, i);
            let norm = if layer.stage.spiking {
                layer.neurons_backward(state, pass.batch_statistics, &self.output_grad, &mut self.current_grad)?
            } else {
                None
            };
            let input = below.last().map_or(Input::Dense(&self.input), StageState::output);
            let input_grad = (i > 0).then_some(&mut self.output_grad);
            layer.synapses_backward(state, input, &self.current_grad, norm.as_ref(), input_grad)?;
            let dropout = i.checked_sub(1).and_then(|below| self.plan.stages[below].dropout);
            if let (Some(probability), Some(seed)) = (dropout, pass.dropout) {
                let volume = self.plan.stages[i - 1].output();
                self.backend.dropout_floats(volume, span, probability, mask(seed, i - 1), &mut self.output_grad)?;
            }
        }
        Ok(())
    }

    /// The 2-norm of all gradients together.
    pub fn gradient_norm(&self) -> Result<f64> {
        let gradients: Vec<&B::Floats> = self.parameters().map(|p| &p.gradient).collect();
        self.backend.gradient_norm(&gradients)
    }

    /// Moves every parameter along its gradient.
    pub fn update(&mut self, update: &Update) -> Result<()> {
        for parameter in self.stages.iter_mut().flat_map(|state| state.synapses.parameters.trained_mut()) {
            let Parameter { value, gradient, first, second, .. } = parameter;
            self.backend.optimizer(update, Trained { value, gradient, first, second })?;
        }
        Ok(())
    }

    /// All trained parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter<B>> {
        self.stages.iter().flat_map(|state| state.synapses.parameters.trained())
    }

    /// Parameters and running statistics of each stage.
    pub fn stage_parameters(&self) -> impl Iterator<Item = (&Stage, &StageParameters<B>)> {
        self.plan.stages.iter().zip(self.stages.iter().map(|state| &state.synapses.parameters))
    }

    /// As [`Model::stage_parameters`], to be changed.
    pub fn stage_parameters_mut(&mut self) -> impl Iterator<Item = (&Stage, &mut StageParameters<B>)> {
        self.plan.stages.iter().zip(self.stages.iter_mut().map(|state| &mut state.synapses.parameters))
    }

    /// The gathered batch, `[N, C, H, W]`, or `[T, N, C, H, W]` for frames.
    pub fn read_input(&self) -> Result<Vec<f32>> {
        let span = Span { batch: self.batch, steps: self.plan.current_steps(0) };
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
    Layer { backend, stage: &plan.stages[i], neuron, surrogate, span, of_currents }
}

/// The dropout mask behind stage `i`.
fn mask(seed: u64, i: usize) -> u64 {
    seed.wrapping_add(i as u64)
}
