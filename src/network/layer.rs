//! One stage on a backend: its parameters, the results of its forward pass, and its operations in order.

mod backward;

use crate::backend::shape::{InputKind, PoolKind, Span};
use crate::backend::{
    Affine, Backend, BatchNorm, Input, Neurons, NormGradient, NormState, SpikeOutput, Trained, Weights, bits_suffice,
};
use crate::host;
use crate::network::parameters::{Parameter, StageParameters};
use crate::network::shapes::Stage;
use crate::network::spec::Norm;
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
    /// Dropouts drop.
    pub dropout: bool,
    /// A backward pass will follow.
    pub backward: bool,
    /// Count membrane potentials.
    pub histogram: bool,
    /// Keep membrane potentials; see [`Model::read_membrane`](crate::network::Model::read_membrane).
    pub membranes: bool,
}

impl Pass {
    /// A training step.
    pub fn train(histogram: bool) -> Self {
        Self {
            batch_statistics: true,
            update_running: true,
            dropout: true,
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

/// A stage's parameters and the results of its forward pass.
pub struct StageState<B: Backend> {
    pub synapses: SynapseState<B>,
    /// Output of the convolution, if the backward pass or a batch norm needs it.
    pub currents: Option<B::Floats>,
    pub neurons: NeuronState<B>,
    pooled: Pooled<B>,
    /// Spikes that a dropout kept.
    kept: Option<B::Bits>,
    /// What a spike counts for in the next stage: a dropout's `1/(1-p)`, else 1.
    scale: f32,
}

/// Weights, bias and norm.
pub struct SynapseState<B: Backend> {
    pub parameters: StageParameters<B>,
    /// Standardised weight (weight norm).
    effective: Option<B::Floats>,
    packed: B::Packed,
    batch_norm: Option<BatchNormState<B::Floats>>,
    /// The affine map of layers without batch norm; the shift is also the bias of layers without one.
    ones: B::Floats,
    zeros: B::Floats,
}

/// What a batch norm's passes leave behind.
struct BatchNormState<F> {
    forward: NormState<F>,
    gradient: NormGradient<F>,
}

/// Spikes and what goes with them.
pub struct NeuronState<B: Backend> {
    pub bounds: B::Bounds,
    /// The first bounds of auto-init.
    pub start: B::Bounds,
    /// `None` for a readout without neurons.
    pub spikes: Option<B::Bits>,
    /// Present if the bits are all that the backward pass needs.
    inside: Option<B::Bits>,
    /// Only after a pass that asked for it.
    pub membrane: Option<B::Floats>,
    pub counts: B::Counts,
}

/// A pool's output.
enum Pooled<B: Backend> {
    None,
    Spikes(B::Bits),
    Floats(B::Floats),
}

impl<B: Backend> StageState<B> {
    /// Fresh parameters, and buffers for `span`; those of the currents are for `of_currents`.
    pub fn new(
        backend: &B,
        stage: &Stage,
        span: Span,
        of_currents: Span,
        neuron: &Neuron,
        surrogate: &Surrogate,
        seed: u64,
    ) -> Result<Self> {
        let volume = stage.conv.output;
        let keeps_bits = stage.spiking && bits_suffice(neuron, surrogate);
        let keeps_currents = !keeps_bits || stage.synapse.norm == Norm::Batch;
        let pooled = match stage.pool {
            None => Pooled::None,
            Some(pool) if pool.kind == PoolKind::Max => Pooled::Spikes(backend.spikes(span, pool.output)?),
            Some(pool) => Pooled::Floats(backend.activations(span, pool.output)?),
        };
        let drops_spikes = stage.dropout.is_some() && !matches!(pooled, Pooled::Floats(_));
        Ok(Self {
            synapses: SynapseState::new(backend, stage, seed)?,
            currents: keeps_currents.then(|| currents(backend, stage, of_currents)).transpose()?,
            neurons: NeuronState {
                bounds: backend.bounds(&[Bounds::RECTANGLE], neuron.threshold)?,
                start: backend.bounds(&[Bounds::RECTANGLE], neuron.threshold)?,
                spikes: stage.spiking.then(|| backend.spikes(span, volume)).transpose()?,
                inside: keeps_bits.then(|| backend.spikes(span, volume)).transpose()?,
                membrane: None,
                counts: backend.counts(1)?,
            },
            pooled,
            kept: drops_spikes.then(|| backend.spikes(span, stage.output())).transpose()?,
            scale: 1.0,
        })
    }

    /// Its parameters in the form that the optimiser takes.
    pub fn trained(&mut self) -> impl Iterator<Item = Trained<'_, B>> {
        self.synapses.parameters.trained_mut().map(Parameter::as_trained)
    }

    /// What the next stage reads.
    pub fn output(&self) -> Input<'_, B> {
        let bits = match (&self.kept, &self.pooled) {
            (_, Pooled::Floats(means)) => return Input::Dense(means),
            (Some(kept), _) if self.scale != 1.0 => kept,
            (_, Pooled::Spikes(pooled)) => pooled,
            (_, Pooled::None) => {
                self.neurons.spikes.as_ref().expect("only the readout may lack neurons, and nothing reads it")
            }
        };
        Input::Spikes { bits, scale: self.scale }
    }
}

/// Memory for a stage's currents.
fn currents<B: Backend>(backend: &B, stage: &Stage, span: Span) -> Result<B::Floats> {
    if stage.spiking { backend.activations(span, stage.conv.output) } else { backend.readouts(span, stage.conv.output) }
}

impl<B: Backend> SynapseState<B> {
    fn new(backend: &B, stage: &Stage, seed: u64) -> Result<Self> {
        let (conv, filters) = (&stage.conv, stage.conv.output.c);
        let standardised = stage.synapse.norm == Norm::Weight;
        let zeros = || backend.vector(&vec![0.0; filters]);
        let batch_norm = || -> Result<_> {
            Ok(BatchNormState {
                forward: NormState { mean: zeros()?, inv_std: zeros()?, scale: zeros()?, shift: zeros()? },
                gradient: NormGradient { of_gradient: zeros()?, of_current: zeros()?, constant: zeros()? },
            })
        };
        Ok(Self {
            parameters: StageParameters::new(backend, stage, seed)?,
            effective: standardised
                .then(|| backend.weight(conv, &host::zeros(filters * conv.fan_in())?))
                .transpose()?,
            packed: backend.packed(conv)?,
            batch_norm: (stage.synapse.norm == Norm::Batch).then(batch_norm).transpose()?,
            ones: backend.vector(&vec![1.0; filters])?,
            zeros: zeros()?,
        })
    }

    /// The weight that the convolution uses.
    fn weights(&self) -> Weights<'_, B> {
        Weights { value: self.effective.as_ref().unwrap_or(&self.parameters.weight.value), packed: &self.packed }
    }

    /// The bias that the convolution adds: its own, or that of a weight norm.
    fn bias(&self) -> &B::Floats {
        match (&self.parameters.bias, &self.parameters.norm, &self.effective) {
            (Some(bias), _, _) => &bias.value,
            (None, Some(norm), Some(_)) => &norm.bias.value,
            _ => &self.zeros,
        }
    }

    fn affine(&self) -> Affine<'_, B> {
        match &self.batch_norm {
            Some(norm) => Affine { scale: &norm.forward.scale, shift: &norm.forward.shift },
            None => Affine { scale: &self.ones, shift: &self.zeros },
        }
    }
}

/// One stage's operations.
pub struct Layer<'a, B: Backend> {
    pub backend: &'a B,
    /// Its index among all stages.
    pub index: usize,
    pub stage: &'a Stage,
    pub neuron: Neuron,
    pub surrogate: Surrogate,
    /// Samples and steps of the spikes.
    pub span: Span,
    /// Samples and steps of the currents: one step if the input is constant.
    pub of_currents: Span,
}

impl<B: Backend> Layer<'_, B> {
    /// Weights, norm, neurons, pool and dropout.
    pub fn forward(&self, state: &mut StageState<B>, input: Input<B>, pass: Pass, batch: &B::Batch) -> Result<()> {
        self.prepare_weights(&mut state.synapses, pass)?;
        let batch_norm = self.stage.synapse.norm == Norm::Batch;
        let saves_currents = pass.backward && (batch_norm || !bits_suffice(&self.neuron, &self.surrogate));
        let stores_currents = !self.stage.spiking || saves_currents || (batch_norm && pass.batch_statistics);
        let currents = state.currents.as_mut().filter(|_| stores_currents);
        self.currents(&mut state.synapses, input.reborrow(), currents, pass)?;
        let (backend, conv) = (self.backend, &self.stage.conv);
        let NeuronState { bounds, spikes, inside, membrane, counts, .. } = &mut state.neurons;
        let Some(spikes) = spikes else { return Ok(()) };
        match (pass.membranes, &membrane) {
            (true, None) => *membrane = Some(backend.activations(self.span, conv.output)?),
            (false, Some(_)) => *membrane = None,
            _ => {}
        }
        let neurons = Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds };
        let out = SpikeOutput {
            spikes,
            inside: inside.as_mut().filter(|_| pass.backward),
            membrane: membrane.as_mut(),
            histogram: pass.histogram.then_some(counts),
        };
        let (affine, steps) = (state.synapses.affine(), self.of_currents.steps);
        match state.currents.as_ref().filter(|_| stores_currents) {
            Some(currents) => {
                backend.norm_lif_forward(conv.output, self.span, currents, steps, affine, &neurons, out)?;
            }
            None => {
                let (weights, bias, span) = (state.synapses.weights(), state.synapses.bias(), self.span);
                let pooled = match (&self.stage.pool, &mut state.pooled) {
                    (Some(pool), Pooled::Spikes(pooled)) => Some((pool, pooled)),
                    _ => None,
                };
                let done = pooled.is_some();
                backend.conv_lif_forward(conv, span, input, steps, weights, bias, affine, &neurons, out, pooled)?;
                if done {
                    return self.drop(state, pass, batch);
                }
            }
        }
        self.pool(state)?;
        self.drop(state, pass, batch)
    }

    /// The currents, if they are stored, and their batch norm.
    fn currents(
        &self,
        state: &mut SynapseState<B>,
        input: Input<B>,
        currents: Option<&mut B::Floats>,
        pass: Pass,
    ) -> Result<()> {
        let (backend, conv, span) = (self.backend, &self.stage.conv, self.of_currents);
        if state.batch_norm.is_none() {
            let Some(currents) = currents else { return Ok(()) };
            return backend.conv_current(conv, span, input, state.weights(), state.bias(), currents);
        }
        let SynapseState { parameters, packed, batch_norm, zeros, .. } = state;
        let weights = Weights { value: &parameters.weight.value, packed };
        let batch_norm = batch_norm.as_mut().expect("just looked at");
        let norm = parameters.norm.as_mut().expect("a batch norm has parameters");
        let bias = parameters.bias.as_ref().map_or(&*zeros, |bias| &bias.value);
        let norm = BatchNorm {
            channels: conv.output.c,
            gain: &norm.gain.value,
            bias: &norm.bias.value,
            running_mean: &mut norm.running_mean,
            running_variance: &mut norm.running_variance,
        };
        let state = &mut batch_norm.forward;
        match currents {
            Some(currents) if pass.batch_statistics => {
                let (steps, update) = (self.span.steps, pass.update_running);
                backend.conv_batch_norm(conv, span, input, weights, bias, currents, steps, norm, update, state)
            }
            currents => {
                backend.batch_norm_running(norm, state)?;
                let Some(currents) = currents else { return Ok(()) };
                backend.conv_current(conv, span, input, weights, bias, currents)
            }
        }
    }

    fn prepare_weights(&self, state: &mut SynapseState<B>, pass: Pass) -> Result<()> {
        let (conv, parameters) = (&self.stage.conv, &state.parameters);
        if let (Some(effective), Some(norm)) = (&mut state.effective, &parameters.norm) {
            let scale = self.stage.synapse.weight_scale;
            self.backend.weight_norm_forward(conv, &parameters.weight.value, &norm.gain.value, scale, effective)?;
        }
        let weight = state.effective.as_ref().unwrap_or(&parameters.weight.value);
        let input_grad = pass.backward && conv.reads != InputKind::Image;
        self.backend.pack_weight(conv, weight, &mut state.packed, input_grad)
    }

    fn pool(&self, state: &mut StageState<B>) -> Result<()> {
        let (Some(pool), Some(spikes)) = (&self.stage.pool, &state.neurons.spikes) else { return Ok(()) };
        match &mut state.pooled {
            Pooled::Spikes(pooled) => self.backend.max_pool_forward(pool, self.span, spikes, pooled),
            Pooled::Floats(pooled) => self.backend.avg_pool_forward(pool, self.span, spikes, pooled),
            Pooled::None => Ok(()),
        }
    }

    fn drop(&self, state: &mut StageState<B>, pass: Pass, batch: &B::Batch) -> Result<()> {
        state.scale = 1.0;
        let Some(probability) = self.stage.dropout.filter(|_| pass.dropout) else { return Ok(()) };
        let (volume, stage) = (self.stage.output(), self.index);
        let spikes = match (&mut state.pooled, &state.neurons.spikes) {
            (Pooled::Floats(means), _) => {
                return self.backend.dropout_floats(volume, self.span, probability, batch, stage, means);
            }
            (Pooled::Spikes(pooled), _) => pooled,
            (Pooled::None, Some(spikes)) => spikes,
            (Pooled::None, None) => return Ok(()),
        };
        let kept = state.kept.as_mut().expect("allocated for a stage that drops spikes");
        self.backend.dropout_spikes(volume, self.span, probability, batch, stage, spikes, kept)?;
        // If nothing can be dropped, the spikes themselves are passed on.
        state.scale = 1.0 / (1.0 - probability);
        Ok(())
    }
}
