//! A stage's backward pass.

use super::{BatchNormState, Layer, NeuronState, StageState, SynapseState};
use crate::backend::{Affine, Backend, Below, CurrentGradient, Input, Neurons, NormBackward, Saved};
use crate::network::parameters::StageParameters;
use anyhow::Result;

impl<B: Backend> Layer<'_, B> {
    /// From the gradient of the stage's output to that of its neurons' input, with the gradients of a bias or batch norm in
    /// between. `batch` says whether a batch norm's statistics were the batch's own.
    pub fn neurons_backward(
        &self,
        state: &mut StageState<B>,
        batch: bool,
        output_grad: &B::Floats,
        current_grad: &mut B::Floats,
    ) -> Result<()> {
        let (backend, volume, pool) = (self.backend, self.stage.conv.output, self.stage.pool.as_ref());
        let (kept, current_steps) = (&state.neurons, self.of_currents.steps);
        let neurons = Neurons { neuron: self.neuron, surrogate: self.surrogate, bounds: &kept.bounds };
        let spikes = kept.spikes.as_ref().expect("a stage with neurons has spikes");
        let SynapseState { parameters, batch_norm, ones, zeros, .. } = &mut state.synapses;
        let (forward, gradient) = batch_norm.as_mut().map(|norm| (&norm.forward, &mut norm.gradient)).unzip();
        let affine = match forward {
            Some(state) => Affine { scale: &state.scale, shift: &state.shift },
            None => Affine { scale: ones, shift: zeros },
        };
        let saved = match (&kept.inside, &state.currents) {
            (Some(inside), _) => Saved::Bits { spikes, inside },
            (None, Some(currents)) => Saved::Currents { currents, steps: current_steps, affine, spikes },
            (None, None) => unreachable!("bits or currents are kept"),
        };
        let StageParameters { bias, norm, .. } = parameters;
        match (norm, forward.zip(gradient), &state.currents) {
            (Some(norm), Some((forward, gradient)), Some(currents)) => {
                let norm = NormBackward {
                    currents,
                    current_steps,
                    state: forward,
                    batch,
                    gain_grad: &mut norm.gain.gradient,
                    bias_grad: &mut norm.bias.gradient,
                    gradient,
                    current_bias_grad: bias.as_mut().map(|bias| &mut bias.gradient),
                };
                backend.norm_spike_backward(volume, self.span, &neurons, saved, pool, output_grad, norm, current_grad)
            }
            (norm, ..) => {
                let bias = bias.as_mut().or(norm.as_mut().map(|norm| &mut norm.bias));
                let bias_grad = bias.map(|bias| &mut bias.gradient);
                backend.spike_backward(
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
            }
        }
    }

    /// A gradient of the currents, with what is still to be applied of a batch norm before the neurons.
    fn gradient<'g>(
        &self,
        batch_norm: &'g Option<BatchNormState<B::Floats>>,
        currents: Option<&'g B::Floats>,
        gradient: &'g B::Floats,
    ) -> CurrentGradient<'g, B> {
        let norm = batch_norm.as_ref().filter(|_| self.stage.spiking).map(|norm| &norm.gradient);
        CurrentGradient { gradient, norm: currents.zip(norm) }
    }

    /// Gradients of the stage's weight, and of its bias if no neurons follow.
    pub fn synapses_backward(
        &self,
        state: &mut StageState<B>,
        input: Input<B>,
        current_grad: &B::Floats,
    ) -> Result<()> {
        let (backend, conv, of_currents) = (self.backend, &self.stage.conv, self.of_currents);
        let StageState { synapses, currents, .. } = state;
        let gradient = self.gradient(&synapses.batch_norm, currents.as_ref(), current_grad);
        let parameters = &mut synapses.parameters;
        let bias = parameters.bias.as_mut().or(parameters.norm.as_mut().map(|norm| &mut norm.bias));
        if let Some(bias) = bias.filter(|_| !self.stage.spiking) {
            backend.bias_grad(conv.output, of_currents, current_grad, &mut bias.gradient)?;
        }
        let weight = &mut parameters.weight;
        backend.conv_weight_grad(conv, of_currents, input, gradient, &mut weight.gradient)?;
        if let (Some(_), Some(norm)) = (&synapses.effective, &mut parameters.norm) {
            let (gain, scale) = (&mut norm.gain, self.stage.synapse.weight_scale);
            let grads = (&mut weight.gradient, &mut gain.gradient);
            backend.weight_norm_backward(conv, &weight.value, &gain.value, scale, grads.0, grads.1)?;
        }
        Ok(())
    }

    /// Gradient of the stage's input.
    pub fn input_backward(&self, state: &StageState<B>, current_grad: &B::Floats, out: &mut B::Floats) -> Result<()> {
        let gradient = self.gradient(&state.synapses.batch_norm, state.currents.as_ref(), current_grad);
        self.backend.conv_input_grad(&self.stage.conv, self.of_currents, gradient, state.synapses.weights(), out)
    }

    /// The same followed by the backward pass of stage `below`'s neurons, if the backend can fuse the two and nothing that
    /// it does not know lies in between.
    pub fn input_backward_through(
        &self,
        state: &StageState<B>,
        current_grad: &B::Floats,
        below: (&Self, &mut StageState<B>),
        out: &mut B::Floats,
    ) -> Result<bool> {
        let (layer, neurons_of) = below;
        let NeuronState { bounds, spikes: Some(spikes), inside: Some(inside), .. } = &neurons_of.neurons else {
            return Ok(false);
        };
        let SynapseState { parameters: StageParameters { bias, norm, .. }, batch_norm: None, .. } =
            &mut neurons_of.synapses
        else {
            return Ok(false);
        };
        let bias = bias.as_mut().or(norm.as_mut().map(|norm| &mut norm.bias));
        let below = Below {
            volume: layer.stage.conv.output,
            neurons: Neurons { neuron: layer.neuron, surrogate: layer.surrogate, bounds },
            spikes,
            inside,
            pool: layer.stage.pool.as_ref(),
            current_steps: layer.of_currents.steps,
            bias_grad: bias.map(|bias| &mut bias.gradient),
        };
        let gradient = self.gradient(&state.synapses.batch_norm, state.currents.as_ref(), current_grad);
        let (conv, span, weights) = (&self.stage.conv, self.of_currents, state.synapses.weights());
        self.backend.conv_input_grad_lif(conv, span, gradient, weights, below, out)
    }
}
