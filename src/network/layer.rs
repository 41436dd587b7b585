//! One stage on a backend: its parameters, what its forward pass leaves, and its operations in order.

use crate::autotune::Histogram;
use crate::backend::shape::{InputKind, PoolKind, Span};
use crate::backend::{
    Affine, Backend, BatchNorm, CurrentGradient, Input, Neurons, NormBackward, NormGradient, NormState, Saved,
    SpikeOutput, Weights,
};
use crate::network::model::Pass;
use crate::network::parameters::StageParameters;
use crate::network::shapes::Stage;
use crate::network::spec::Norm;
use crate::neuron::Neuron;
use crate::surrogate::{Bounds, Surrogate};
use anyhow::Result;

/// A stage's parameters and what its forward pass leaves.
pub struct StageState<B: Backend> {
    pub synapses: SynapseState<B>,
    /// Output of the convolution, where the backward pass or a batch norm needs it.
    pub currents: Option<B::Floats>,
    /// Moments of the currents, for a batch norm.
    moments: B::Sums,
    pub neurons: NeuronState<B>,
    pooled: Pooled<B>,
    /// Spikes that a dropout kept.
    kept: Option<B::Bits>,
    /// What the spikes count in the next stage: a dropout's `1/(1-p)`, else 1.
    scale: f32,
}

/// Weights, bias and norm.
pub struct SynapseState<B: Backend> {
    pub parameters: StageParameters<B>,
    /// Standardised weight (weight norm).
    effective: Option<B::Floats>,
    packed: B::Packed,
    norm_state: Option<NormState<B::Floats>>,
    /// The affine map of layers without batch norm; the shift is also the bias of those without.
    ones: B::Floats,
    zeros: B::Floats,
}

/// Spikes and what goes with them.
pub struct NeuronState<B: Backend> {
    pub bounds: Vec<Bounds>,
    /// `None` for a readout without neurons.
    pub spikes: Option<B::Bits>,
    /// Where the bits are all that the backward pass needs.
    windows: Option<B::Bits>,
    /// Only after a pass that asked for it.
    pub membrane: Option<B::Floats>,
    pub counts: B::Counts,
}

/// What a pool makes of the spikes.
enum Pooled<B: Backend> {
    None,
    Spikes(B::Bits),
    Floats(B::Floats),
}

impl<B: Backend> StageState<B> {
    /// Fresh parameters, and buffers for `span`; currents are those of `of_currents`.
    pub fn new(
        backend: &B,
        stage: &Stage,
        span: Span,
        of_currents: Span,
        neurons: &Neurons,
        seed: u64,
    ) -> Result<Self> {
        let volume = stage.conv.output;
        let keeps_bits = stage.spiking && neurons.bits_suffice();
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
            moments: backend.sums(of_currents, volume)?,
            neurons: NeuronState {
                bounds: vec![Bounds::RECTANGLE],
                spikes: stage.spiking.then(|| backend.spikes(span, volume)).transpose()?,
                windows: keeps_bits.then(|| backend.spikes(span, volume)).transpose()?,
                membrane: None,
                counts: backend.histogram(1)?,
            },
            pooled,
            kept: drops_spikes.then(|| backend.spikes(span, stage.output())).transpose()?,
            scale: 1.0,
        })
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

    /// What its neurons have counted since the last call.
    pub fn take_histogram(&mut self, backend: &B) -> Result<Vec<Histogram>> {
        backend.take_histogram(&mut self.neurons.counts)
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
        Ok(Self {
            parameters: StageParameters::new(backend, stage, seed)?,
            effective: standardised.then(|| backend.weight(conv, &vec![0.0; filters * conv.fan_in()])).transpose()?,
            packed: backend.packed(conv)?,
            norm_state: None,
            ones: backend.vector(&vec![1.0; filters])?,
            zeros: backend.vector(&vec![0.0; filters])?,
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
        match &self.norm_state {
            Some(state) => Affine { scale: &state.scale, shift: &state.shift },
            None => Affine { scale: &self.ones, shift: &self.zeros },
        }
    }
}

/// One stage's operations.
pub struct Layer<'a, B: Backend> {
    pub backend: &'a B,
    pub stage: &'a Stage,
    pub neuron: Neuron,
    pub surrogate: Surrogate,
    /// Samples and steps of the spikes.
    pub span: Span,
    /// Samples and steps of the currents: one step where the input is constant.
    pub of_currents: Span,
}

impl<B: Backend> Layer<'_, B> {
    /// Weights, norm, neurons, pool and dropout.
    pub fn forward(&self, state: &mut StageState<B>, input: Input<B>, pass: Pass, mask: Option<u64>) -> Result<()> {
        self.prepare_weights(&mut state.synapses, pass)?;
        let NeuronState { bounds, spikes, windows, membrane, counts } = &mut state.neurons;
        let neurons = Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds };
        let batch_norm = self.stage.synapse.norm == Norm::Batch;
        let saves_currents = pass.backward && (batch_norm || !neurons.bits_suffice());
        let stores_currents = !self.stage.spiking || saves_currents || (batch_norm && pass.batch_statistics);
        let (backend, conv) = (self.backend, &self.stage.conv);
        let currents = state.currents.as_mut().filter(|_| stores_currents);
        if let Some(currents) = currents {
            let moments = (batch_norm && pass.batch_statistics).then_some(&mut state.moments);
            let (weights, bias) = (state.synapses.weights(), state.synapses.bias());
            backend.conv_current(conv, self.of_currents, input.reborrow(), weights, bias, currents, moments)?;
        }
        if batch_norm {
            self.batch_norm(&mut state.synapses, &state.moments, pass)?;
        }
        let Some(spikes) = spikes else { return Ok(()) };
        match (pass.membranes, &membrane) {
            (true, None) => *membrane = Some(backend.activations(self.span, conv.output)?),
            (false, Some(_)) => *membrane = None,
            _ => {}
        }
        let out = SpikeOutput {
            spikes,
            windows: windows.as_mut().filter(|_| pass.backward),
            membrane: membrane.as_mut(),
            histogram: pass.histogram.then_some(counts),
        };
        let (affine, steps) = (state.synapses.affine(), self.of_currents.steps);
        match state.currents.as_ref().filter(|_| stores_currents) {
            Some(currents) => {
                backend.norm_lif_forward(conv.output, self.span, currents, steps, affine, &neurons, out)?;
            }
            None => {
                let (weights, bias) = (state.synapses.weights(), state.synapses.bias());
                backend.conv_lif_forward(conv, self.span, input, steps, weights, bias, affine, &neurons, out)?;
            }
        }
        self.pool(state)?;
        self.drop(state, mask)
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

    fn batch_norm(&self, state: &mut SynapseState<B>, moments: &B::Sums, pass: Pass) -> Result<()> {
        let norm = state.parameters.norm.as_mut().expect("a batch norm has parameters");
        let volume = self.stage.conv.output;
        let norm = BatchNorm {
            channels: volume.c,
            gain: &norm.gain.value,
            bias: &norm.bias.value,
            running_mean: &mut norm.running_mean,
            running_variance: &mut norm.running_variance,
        };
        state.norm_state = Some(if pass.batch_statistics {
            let (steps, update) = (self.span.steps, pass.update_running);
            self.backend.batch_norm_statistics(norm, self.of_currents, volume, steps, moments, update)?
        } else {
            self.backend.batch_norm_running(norm)?
        });
        Ok(())
    }

    fn pool(&self, state: &mut StageState<B>) -> Result<()> {
        let (Some(pool), Some(spikes)) = (&self.stage.pool, &state.neurons.spikes) else { return Ok(()) };
        match &mut state.pooled {
            Pooled::Spikes(pooled) => self.backend.max_pool_forward(pool, self.span, spikes, pooled),
            Pooled::Floats(pooled) => self.backend.avg_pool_forward(pool, self.span, spikes, pooled),
            Pooled::None => Ok(()),
        }
    }

    fn drop(&self, state: &mut StageState<B>, mask: Option<u64>) -> Result<()> {
        state.scale = 1.0;
        let (Some(probability), Some(mask)) = (self.stage.dropout, mask) else { return Ok(()) };
        let volume = self.stage.output();
        let spikes = match (&mut state.pooled, &state.neurons.spikes) {
            (Pooled::Floats(means), _) => {
                return self.backend.dropout_floats(volume, self.span, probability, mask, means);
            }
            (Pooled::Spikes(pooled), _) => pooled,
            (Pooled::None, Some(spikes)) => spikes,
            (Pooled::None, None) => return Ok(()),
        };
        let kept = state.kept.as_mut().expect("allocated for a stage that drops spikes");
        self.backend.dropout_spikes(volume, self.span, probability, mask, spikes, kept)?;
        // Where nothing can be dropped, the spikes themselves are handed on.
        state.scale = 1.0 / (1.0 - probability);
        Ok(())
    }

    /// From the gradient of what the stage hands on to that of what entered its neurons, with the gradients of a bias or
    /// batch norm between; what of the norm is still to be applied. `batch` says whether a batch norm's statistics were
    /// the batch's own.
    pub fn neurons_backward(
        &self,
        state: &mut StageState<B>,
        batch: bool,
        output_grad: &B::Floats,
        current_grad: &mut B::Floats,
    ) -> Result<Option<NormGradient<B::Floats>>> {
        let (backend, volume, pool) = (self.backend, self.stage.conv.output, self.stage.pool.as_ref());
        let (kept, current_steps) = (&state.neurons, self.of_currents.steps);
        let neurons = Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds: &kept.bounds };
        let spikes = kept.spikes.as_ref().expect("a stage with neurons has spikes");
        let SynapseState { parameters, norm_state, ones, zeros, .. } = &mut state.synapses;
        let norm_state = norm_state.as_ref();
        let affine = match norm_state {
            Some(state) => Affine { scale: &state.scale, shift: &state.shift },
            None => Affine { scale: ones, shift: zeros },
        };
        let saved = match (&kept.windows, &state.currents) {
            (Some(windows), _) => Saved::Bits { spikes, windows },
            (None, Some(currents)) => Saved::Currents { currents, steps: current_steps, affine, spikes },
            (None, None) => unreachable!("windows or currents are kept"),
        };
        match (&mut parameters.norm, norm_state, &state.currents) {
            (Some(norm), Some(state), Some(currents)) => {
                let (gain_grad, bias_grad) = (&mut norm.gain.gradient, &mut norm.bias.gradient);
                let norm = NormBackward { currents, current_steps, state, batch, gain_grad, bias_grad };
                let gradient = backend.norm_spike_backward(
                    volume,
                    self.span,
                    &neurons,
                    saved,
                    pool,
                    output_grad,
                    norm,
                    current_grad,
                )?;
                if let Some(bias) = &mut parameters.bias {
                    backend.copy(&gradient.sum, &mut bias.gradient)?;
                }
                Ok(Some(gradient))
            }
            (norm, ..) => {
                let bias = parameters.bias.as_mut().or(norm.as_mut().map(|norm| &mut norm.bias));
                let bias_grad = bias.map(|bias| &mut bias.gradient);
                backend
                    .spike_backward(
                        volume,
                        self.span,
                        &neurons,
                        saved,
                        pool,
                        output_grad,
                        current_steps,
                        current_grad,
                        bias_grad,
                    )
                    .map(|()| None)
            }
        }
    }

    /// Gradients of the stage's weight, of its bias where no neurons follow, and of what it reads where `input_grad`
    /// wants it. `norm` is what [`Layer::neurons_backward`] left to be applied.
    pub fn synapses_backward(
        &self,
        state: &mut StageState<B>,
        input: Input<B>,
        current_grad: &B::Floats,
        norm: Option<&NormGradient<B::Floats>>,
        input_grad: Option<&mut B::Floats>,
    ) -> Result<()> {
        let (backend, conv, of_currents) = (self.backend, &self.stage.conv, self.of_currents);
        let StageState { synapses, currents, .. } = state;
        let SynapseState { parameters, effective, packed, .. } = synapses;
        let gradient = CurrentGradient { gradient: current_grad, norm: currents.as_ref().zip(norm) };
        let bias = parameters.bias.as_mut().or(parameters.norm.as_mut().map(|norm| &mut norm.bias));
        if let Some(bias) = bias.filter(|_| !self.stage.spiking) {
            backend.bias_grad(conv.output, of_currents, current_grad, &mut bias.gradient)?;
        }
        let weight = &mut parameters.weight;
        backend.conv_weight_grad(conv, of_currents, input, gradient, &mut weight.gradient)?;
        if let (Some(_), Some(norm)) = (&effective, &mut parameters.norm) {
            let (gain, scale) = (&mut norm.gain, self.stage.synapse.weight_scale);
            let grads = (&mut weight.gradient, &mut gain.gradient);
            backend.weight_norm_backward(conv, &weight.value, &gain.value, scale, grads.0, grads.1)?;
        }
        if let Some(input_grad) = input_grad {
            let weights = Weights { value: effective.as_ref().unwrap_or(&weight.value), packed };
            backend.conv_input_grad(conv, of_currents, gradient, weights, input_grad)?;
        }
        Ok(())
    }
}
