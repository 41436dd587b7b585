//! A network on a backend: parameters, buffers, forward and backward pass.

use crate::autotune::Histogram;
use crate::backend::shape::{InputKind, PoolKind, Span, Volume};
use crate::backend::{
    Affine, Backend, BatchNorm, Input, LossSpec, LossSums, Neurons, NormState, Normalisation, Saved, SpikeOutput,
    Trained, Update, Weights,
};
use crate::data::SampleShape;
use crate::data::sampling::Placement;
use crate::network::parameters::{Parameter, StageParameters};
use crate::network::shapes::{Plan, Stage};
use crate::network::spec::{NetworkSpec, Norm};
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
}

/// One stage's parameters and what its forward pass leaves.
struct StageState<B: Backend> {
    parameters: StageParameters<B>,
    /// Standardised weight (weight norm).
    effective: Option<B::Floats>,
    packed: B::Packed,
    /// Scale 1 and shift 0, for layers without batch norm; the shift is also the bias of layers without.
    ones: B::Floats,
    zeros: B::Floats,
    bounds: Vec<Bounds>,
    currents: Option<B::Floats>,
    norm_state: Option<NormState<B::Floats>>,
    spikes: Option<B::Bits>,
    windows: Option<B::Bits>,
    membrane: Option<B::Floats>,
    histogram: B::Counts,
    pooled: Pooled<B>,
    /// Spikes that a dropout kept.
    kept: Option<B::Bits>,
    /// What the spikes count in the next stage: a dropout's `1/(1-p)`, else 1.
    scale: f32,
}

/// What a pool makes of the spikes.
enum Pooled<B: Backend> {
    None,
    Spikes(B::Bits),
    Floats(B::Floats),
}

/// Memory by kind, in bytes.
#[derive(Clone, Copy, Debug, Default)]
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
    /// All of it.
    pub fn total(&self) -> usize {
        self.parameters + self.bits + self.currents + self.activations
    }
}

impl<B: Backend> Model<B> {
    /// Builds the network with fresh weights from `seed` and buffers for batches of up to `capacity`.
    pub fn new(backend: B, spec: &NetworkSpec, plan: Plan, capacity: usize, seed: u64) -> Result<Self> {
        let span = Span { batch: capacity, steps: plan.steps };
        let neuron = spec.neuron.neuron()?;
        let neurons = Neurons { neuron, surrogate: spec.surrogate, bounds: &[] };
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
            logits: backend.activations(span, classes)?,
            logits_grad: backend.activations(span, classes)?,
            output_grad: backend.activations(output_span, output)?,
            current_grad: backend.activations(current_span, current)?,
            stages,
            neuron,
            surrogate: spec.surrogate,
            plan,
            backend,
            batch: 0,
            capacity,
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
        &self.stages[stage].bounds
    }

    /// Sets the bounds of a stage: one, or one a channel.
    pub fn set_bounds(&mut self, stage: usize, bounds: Vec<Bounds>) {
        debug_assert!(bounds.len() == 1 || bounds.len() == self.plan.stages[stage].conv.output.c);
        self.stages[stage].bounds = bounds;
    }

    /// Counts from now on into `count` histograms for each stage: 1, or one a channel.
    pub fn set_histograms(&mut self, per_channel: bool) -> Result<()> {
        for (stage, state) in self.plan.stages.iter().zip(&mut self.stages) {
            state.histogram = self.backend.histogram(if per_channel { stage.conv.output.c } else { 1 })?;
        }
        Ok(())
    }

    /// What a stage's neurons have counted since the last call.
    pub fn take_histogram(&mut self, stage: usize) -> Result<Vec<Histogram>> {
        self.backend.take_histogram(&mut self.stages[stage].histogram)
    }

    /// Memory of its buffers.
    pub fn memory(&self) -> Memory {
        let span = Span { batch: self.capacity, steps: self.plan.steps };
        let once = |i| Span { batch: self.capacity, steps: self.plan.current_steps(i) };
        let mut memory = Memory { parameters: 4 * size_of::<f32>() * self.plan.parameters(), ..Memory::default() };
        let (mut outputs, mut currents) = (0, 0);
        for (i, (stage, state)) in self.plan.stages.iter().zip(&self.stages).enumerate() {
            let bits = |volume| self.backend.bits_size(span, volume);
            let planes = state.spikes.is_some() as usize + state.windows.is_some() as usize;
            memory.bits += planes * bits(stage.conv.output) + state.kept.is_some() as usize * bits(stage.output());
            match state.pooled {
                Pooled::None => {}
                Pooled::Spikes(_) => memory.bits += bits(stage.output()),
                Pooled::Floats(_) => memory.activations += self.backend.floats_size(span, stage.output()),
            }
            let current = self.backend.floats_size(once(i), stage.conv.output);
            memory.currents += if state.currents.is_some() { current } else { 0 };
            outputs = outputs.max(self.backend.floats_size(span, stage.output()));
            currents = currents.max(current);
        }
        memory.activations +=
            outputs + currents + size_of::<f32>() * self.capacity * once(0).steps * self.plan.input.len();
        memory
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
            let of_currents = Span { batch: span.batch, steps: self.plan.current_steps(i) };
            let state = &mut rest[0];
            let layer = Layer {
                backend: &self.backend,
                stage: &self.plan.stages[i],
                neuron: self.neuron,
                surrogate: self.surrogate,
            };
            layer.synapses(state, input, span, of_currents, pass)?;
            layer.pool_and_drop(state, span, pass.dropout.map(|seed| seed.wrapping_add(i as u64)))?;
        }
        let readout = self.stages.last().expect("a network has a readout");
        let steps = self.plan.current_steps(self.stages.len() - 1);
        match (&readout.spikes, &readout.currents) {
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
            let of_currents = Span { batch: span.batch, steps: self.plan.current_steps(i) };
            let layer = Layer {
                backend: &self.backend,
                stage: &self.plan.stages[i],
                neuron: self.neuron,
                surrogate: self.surrogate,
            };
            if layer.stage.spiking {
                layer.neurons_backward(state, span, of_currents, &self.output_grad, &mut self.current_grad)?;
            }
            let input = below.last().map_or(Input::Dense(&self.input), StageState::output);
            layer.synapses_backward(state, input, span, of_currents, pass.batch_statistics, &mut self.current_grad)?;
            if let Some(stage) = i.checked_sub(1).map(|below| &self.plan.stages[below]) {
                let weights = Weights { value: state.weight(), packed: &state.packed };
                self.backend.conv_input_grad(
                    &layer.stage.conv,
                    of_currents,
                    &self.current_grad,
                    weights,
                    &mut self.output_grad,
                )?;
                if let (Some(probability), Some(seed)) = (stage.dropout, pass.dropout) {
                    let seed = seed.wrapping_add(i as u64 - 1);
                    self.backend.dropout_floats(stage.output(), span, probability, seed, &mut self.output_grad)?;
                }
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
        for parameter in self.stages.iter_mut().flat_map(|state| state.parameters.trained_mut()) {
            let Parameter { value, gradient, first, second, .. } = parameter;
            self.backend.optimizer(update, Trained { value, gradient, first, second })?;
        }
        Ok(())
    }

    /// All trained parameters, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &Parameter<B>> {
        self.stages.iter().flat_map(|state| state.parameters.trained())
    }

    /// Parameters and running statistics of each stage.
    pub fn stage_parameters(&self) -> impl Iterator<Item = (&Stage, &StageParameters<B>)> {
        self.plan.stages.iter().zip(self.stages.iter().map(|state| &state.parameters))
    }

    /// As [`Model::stage_parameters`], to be changed.
    pub fn stage_parameters_mut(&mut self) -> impl Iterator<Item = (&Stage, &mut StageParameters<B>)> {
        self.plan.stages.iter().zip(self.stages.iter_mut().map(|state| &mut state.parameters))
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
        self.stages[stage].spikes.as_ref().map(|bits| self.backend.read_spikes(bits, self.span(), volume)).transpose()
    }

    /// A stage's `H` before the reset, `[T, N, C, H, W]`, after a pass with `membranes`.
    pub fn read_membrane(&self, stage: usize) -> Result<Option<Vec<f32>>> {
        let volume = self.plan.stages[stage].conv.output;
        let membrane = self.stages[stage].membrane.as_ref();
        membrane.map(|floats| self.backend.read_activations(floats, self.span(), volume)).transpose()
    }
}

impl<B: Backend> StageState<B> {
    fn new(backend: &B, stage: &Stage, span: Span, of_currents: Span, neurons: &Neurons, seed: u64) -> Result<Self> {
        let conv = &stage.conv;
        let needs_currents = !stage.spiking || stage.synapse.norm == Norm::Batch || !neurons.bits_suffice();
        let pooled = match stage.pool {
            None => Pooled::None,
            Some(pool) if pool.kind == PoolKind::Max => Pooled::Spikes(backend.spikes(span, pool.output)?),
            Some(pool) => Pooled::Floats(backend.activations(span, pool.output)?),
        };
        let drops_spikes = stage.dropout.is_some() && !matches!(pooled, Pooled::Floats(_));
        let parameters = StageParameters::new(backend, stage, seed)?;
        Ok(Self {
            effective: match stage.synapse.norm {
                Norm::Weight => Some(backend.weight(conv, &vec![0.0; conv.output.c * conv.fan_in()])?),
                _ => None,
            },
            packed: backend.packed(conv)?,
            ones: backend.vector(&vec![1.0; conv.output.c])?,
            zeros: backend.vector(&vec![0.0; conv.output.c])?,
            bounds: vec![Bounds::RECTANGLE],
            currents: needs_currents.then(|| backend.activations(of_currents, conv.output)).transpose()?,
            norm_state: None,
            spikes: stage.spiking.then(|| backend.spikes(span, conv.output)).transpose()?,
            windows: (stage.spiking && neurons.bits_suffice())
                .then(|| backend.spikes(span, conv.output))
                .transpose()?,
            membrane: None,
            histogram: backend.histogram(1)?,
            pooled,
            kept: drops_spikes.then(|| backend.spikes(span, stage.output())).transpose()?,
            scale: 1.0,
            parameters,
        })
    }

    /// The weight that the convolution uses.
    fn weight(&self) -> &B::Floats {
        self.effective.as_ref().unwrap_or(&self.parameters.weight.value)
    }

    /// The bias that the convolution adds.
    fn bias(&self, norm: Norm) -> &B::Floats {
        match (&self.parameters.bias, &self.parameters.norm) {
            (Some(bias), _) => &bias.value,
            (None, Some(own)) if norm == Norm::Weight => &own.bias.value,
            _ => &self.zeros,
        }
    }

    fn affine(&self) -> Affine<'_, B> {
        match &self.norm_state {
            Some(state) => Affine { scale: &state.scale, shift: &state.shift },
            None => Affine { scale: &self.ones, shift: &self.zeros },
        }
    }

    /// What the next stage reads.
    fn output(&self) -> Input<'_, B> {
        if let Pooled::Floats(means) = &self.pooled {
            return Input::Dense(means);
        }
        let pooled = match &self.pooled {
            Pooled::Spikes(bits) => bits,
            _ => self.spikes.as_ref().expect("only the readout has no spikes, and nothing reads it"),
        };
        let dropped = self.scale != 1.0;
        Input::Spikes { bits: self.kept.as_ref().filter(|_| dropped).unwrap_or(pooled), scale: self.scale }
    }
}

/// One stage's operations in order.
struct Layer<'a, B: Backend> {
    backend: &'a B,
    stage: &'a Stage,
    neuron: Neuron,
    surrogate: Surrogate,
}

impl<B: Backend> Layer<'_, B> {
    /// Weights, norm and neurons.
    fn synapses(
        &self,
        state: &mut StageState<B>,
        input: Input<B>,
        span: Span,
        of_currents: Span,
        pass: Pass,
    ) -> Result<()> {
        let (backend, conv, synapse) = (self.backend, &self.stage.conv, &self.stage.synapse);
        if let (Some(effective), Some(norm)) = (&mut state.effective, &state.parameters.norm) {
            let weight = &state.parameters.weight.value;
            backend.weight_norm_forward(conv, weight, &norm.gain.value, synapse.weight_scale, effective)?;
        }
        let value = state.effective.as_ref().unwrap_or(&state.parameters.weight.value);
        if pass.backward && conv.reads != InputKind::Image {
            backend.pack_weight(conv, value, &mut state.packed)?;
        }
        let neurons = Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds: &state.bounds };
        let batch_norm = synapse.norm == Norm::Batch;
        let saves_currents = pass.backward && (batch_norm || !neurons.bits_suffice());
        let needs_currents = !self.stage.spiking || saves_currents || (batch_norm && pass.batch_statistics);
        if needs_currents {
            let mut currents = state.currents.take().expect("allocated for this stage");
            let weights = Weights { value: state.weight(), packed: &state.packed };
            backend.conv_current(
                conv,
                of_currents,
                input.reborrow(),
                weights,
                state.bias(synapse.norm),
                &mut currents,
            )?;
            state.currents = Some(currents);
        }
        if let (true, Some(norm)) = (batch_norm, &mut state.parameters.norm) {
            let norm = BatchNorm {
                channels: conv.output.c,
                gain: &norm.gain.value,
                bias: &norm.bias.value,
                running_mean: &mut norm.running_mean,
                running_variance: &mut norm.running_variance,
            };
            state.norm_state = Some(match &state.currents {
                Some(currents) if pass.batch_statistics => backend.batch_norm_statistics(
                    norm,
                    of_currents,
                    conv.output,
                    span.steps,
                    currents,
                    pass.update_running,
                )?,
                _ => backend.batch_norm_running(norm)?,
            });
        }
        if !self.stage.spiking {
            return Ok(());
        }
        let mut spikes = state.spikes.take().expect("a stage with neurons has spikes");
        let mut windows = state.windows.take();
        let mut membrane = match (pass.membranes, state.membrane.take()) {
            (true, None) => Some(backend.activations(span, conv.output)?),
            (true, kept) => kept,
            (false, _) => None,
        };
        let mut histogram = std::mem::replace(&mut state.histogram, backend.histogram(0)?);
        let out = SpikeOutput {
            spikes: &mut spikes,
            windows: windows.as_mut().filter(|_| pass.backward),
            membrane: membrane.as_mut(),
            histogram: pass.histogram.then_some(&mut histogram),
        };
        let affine = state.affine();
        match &state.currents {
            Some(currents) if needs_currents => {
                backend.norm_lif_forward(conv.output, span, currents, of_currents.steps, affine, &neurons, out)?;
            }
            _ => {
                let weights = Weights { value: state.weight(), packed: &state.packed };
                let bias = state.bias(synapse.norm);
                backend.conv_lif_forward(conv, span, input, of_currents.steps, weights, bias, affine, &neurons, out)?;
            }
        }
        (state.spikes, state.windows, state.membrane, state.histogram) = (Some(spikes), windows, membrane, histogram);
        Ok(())
    }

    fn pool_and_drop(&self, state: &mut StageState<B>, span: Span, dropout: Option<u64>) -> Result<()> {
        if let (Some(pool), Some(spikes)) = (&self.stage.pool, &state.spikes) {
            match &mut state.pooled {
                Pooled::Spikes(pooled) => self.backend.max_pool_forward(pool, span, spikes, pooled)?,
                Pooled::Floats(pooled) => self.backend.avg_pool_forward(pool, span, spikes, pooled)?,
                Pooled::None => {}
            }
        }
        state.scale = 1.0;
        let (Some(probability), Some(seed)) = (self.stage.dropout, dropout) else { return Ok(()) };
        let volume = self.stage.output();
        if let Pooled::Floats(means) = &mut state.pooled {
            return self.backend.dropout_floats(volume, span, probability, seed, means);
        }
        let Some(mut kept) = state.kept.take() else { return Ok(()) };
        if let Input::Spikes { bits, .. } = state.output() {
            self.backend.dropout_spikes(volume, span, probability, seed, bits, &mut kept)?;
        }
        state.kept = Some(kept);
        state.scale = 1.0 / (1.0 - probability);
        Ok(())
    }

    /// From the gradient of what the stage hands on to that of its currents.
    fn neurons_backward(
        &self,
        state: &StageState<B>,
        span: Span,
        of_currents: Span,
        output_grad: &B::Floats,
        current_grad: &mut B::Floats,
    ) -> Result<()> {
        let neurons = Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds: &state.bounds };
        let spikes = state.spikes.as_ref().expect("a stage with neurons has spikes");
        let saved = match (&state.windows, &state.currents) {
            (Some(windows), _) => Saved::Bits { spikes, windows },
            (None, Some(currents)) => {
                Saved::Currents { currents, steps: of_currents.steps, affine: state.affine(), spikes }
            }
            (None, None) => unreachable!("windows or currents are kept"),
        };
        let pool = self.stage.pool.as_ref();
        self.backend.spike_backward(
            self.stage.conv.output,
            span,
            &neurons,
            saved,
            pool,
            output_grad,
            of_currents.steps,
            current_grad,
        )
    }

    /// Gradients of the stage's parameters; `current_grad` becomes that of the convolution's output.
    fn synapses_backward(
        &self,
        state: &mut StageState<B>,
        input: Input<B>,
        span: Span,
        of_currents: Span,
        batch_statistics: bool,
        current_grad: &mut B::Floats,
    ) -> Result<()> {
        let (backend, conv, synapse) = (self.backend, &self.stage.conv, &self.stage.synapse);
        let parameters = &mut state.parameters;
        if let (Norm::Batch, Some(norm), Some(norm_state), Some(currents)) =
            (synapse.norm, &mut parameters.norm, &state.norm_state, &state.currents)
        {
            let (gain, bias) = (&mut norm.gain.gradient, &mut norm.bias.gradient);
            backend.batch_norm_backward(
                conv.output,
                of_currents,
                span.steps,
                batch_statistics,
                currents,
                norm_state,
                current_grad,
                gain,
                bias,
            )?;
        }
        let bias = match (&mut parameters.bias, &mut parameters.norm) {
            (Some(bias), _) => Some(bias),
            (None, Some(norm)) if synapse.norm == Norm::Weight => Some(&mut norm.bias),
            _ => None,
        };
        if let Some(bias) = bias {
            backend.channel_sums(conv.output, of_currents, current_grad, &mut bias.gradient)?;
        }
        let weight = &mut parameters.weight;
        backend.conv_weight_grad(conv, of_currents, input, current_grad, &mut weight.gradient)?;
        if let (Norm::Weight, Some(norm)) = (synapse.norm, &mut parameters.norm) {
            let gain = &mut norm.gain;
            backend.weight_norm_backward(
                conv,
                &weight.value,
                &gain.value,
                synapse.weight_scale,
                &mut weight.gradient,
                &mut gain.gradient,
            )?;
        }
        Ok(())
    }
}
