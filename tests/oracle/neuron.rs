//! The spiking neuron over T steps.
//!
//!     H[t] = lambda V[t-1] + kappa I[t]     S[t] = 1 if H[t] >= theta else 0     V[-1] = 0
//!     soft reset V = H - theta S            hard reset V = (1 - S) H + S v_reset

use super::{Slope, Tensor};

/// What a spike does to the membrane.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Reset {
    /// V = H - theta S.
    Soft,
    /// V = (1 - S) H + S v_reset.
    Hard {
        /// Membrane after a spike.
        v_reset: f64,
    },
}

/// A neuron; the same for a whole layer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neuron {
    /// Fraction of the membrane kept from one step to the next.
    pub lambda: f64,
    /// Factor of the input current.
    pub kappa: f64,
    /// Threshold, > 0.
    pub theta: f64,
    /// What a spike does to the membrane.
    pub reset: Reset,
    /// Whether the reset's spike is a constant for the gradient.
    pub detached: bool,
}

/// How the forward pass fires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpikeModel {
    /// S = 1 if H >= theta else 0: the method.
    Hard,
    /// S = the slope's integral at z: a forward pass whose derivative the backward pass is.
    Smooth,
}

/// What a layer of neurons computed; every tensor is `[T, N, C, H, W]`.
#[derive(Clone, Debug)]
pub struct NeuronTrace {
    /// H, before the reset.
    pub membrane: Tensor,
    /// S.
    pub spikes: Tensor,
    /// V, after the reset.
    pub after_reset: Tensor,
    /// z inside the AdaLi window, in the order of `membrane.data`.
    pub inside: Vec<bool>,
}

impl Neuron {
    /// z = (H - theta) / theta.
    pub fn z(&self, membrane: f64) -> f64 {
        (membrane - self.theta) / self.theta
    }

    /// S at membrane H.
    pub fn spike(&self, slope: &Slope, membrane: f64, model: SpikeModel) -> f64 {
        match model {
            SpikeModel::Hard => f64::from(u8::from(membrane >= self.theta)),
            SpikeModel::Smooth => slope.primitive(self.z(membrane)),
        }
    }

    /// V from H and the reset's spike S.
    pub fn after_reset(&self, membrane: f64, spike: f64) -> f64 {
        match self.reset {
            Reset::Soft => membrane - self.theta * spike,
            Reset::Hard { v_reset } => (1.0 - spike) * membrane + spike * v_reset,
        }
    }

    /// dV/dH, from H, S and the slope g over the membrane.
    pub fn reset_derivative(&self, membrane: f64, spike: f64, g: f64) -> f64 {
        match (self.reset, self.detached) {
            (Reset::Soft, false) => 1.0 - self.theta * g,
            (Reset::Soft, true) => 1.0,
            (Reset::Hard { v_reset }, false) => (1.0 - spike) + (v_reset - membrane) * g,
            (Reset::Hard { .. }, true) => 1.0 - spike,
        }
    }
}

/// The slope of a channel: `slopes` holds one for all channels, or one per channel.
pub fn slope_of(slopes: &[Slope], channel: usize) -> &Slope {
    if slopes.len() == 1 { &slopes[0] } else { &slopes[channel] }
}

/// Runs the neurons over `current` `[T, N, C, H, W]`.
///
/// `frozen_spikes`, of the same shape, replaces S in the reset of a detached neuron: the function whose true
/// derivative the detached gradient is.
pub fn neuron_forward(
    neuron: &Neuron,
    slopes: &[Slope],
    current: &Tensor,
    model: SpikeModel,
    frozen_spikes: Option<&Tensor>,
) -> NeuronTrace {
    let [steps, _, channels, ..] = current.dims5();
    assert!(slopes.len() == 1 || slopes.len() == channels, "{} slopes for {channels} channels", slopes.len());
    let mut membrane = Tensor::zeros(&current.shape);
    let mut spikes = Tensor::zeros(&current.shape);
    let mut after_reset = Tensor::zeros(&current.shape);
    let mut inside = vec![false; current.data.len()];
    let per_step = current.data.len() / steps;
    for t in 0..steps {
        for i in 0..per_step {
            let now = t * per_step + i;
            let before = if t == 0 { 0.0 } else { after_reset.data[now - per_step] };
            let slope = slope_of(slopes, current.channel(now));
            let h = neuron.lambda * before + neuron.kappa * current.data[now];
            let s = neuron.spike(slope, h, model);
            let reset_spike = match frozen_spikes {
                Some(frozen) if neuron.detached => frozen.data[now],
                _ => s,
            };
            membrane.data[now] = h;
            spikes.data[now] = s;
            after_reset.data[now] = neuron.after_reset(h, reset_spike);
            inside[now] = slope.inside(neuron.z(h));
        }
    }
    NeuronTrace { membrane, spikes, after_reset, inside }
}

/// Gradient of the current from that of the spikes, both `[T, N, C, H, W]`.
///
///     G_H = G_S g + G_V dV/dH     G_I[t] = kappa G_H     G_V[t-1] = lambda G_H     G_V[T-1] = 0
pub fn neuron_backward(
    neuron: &Neuron,
    slopes: &[Slope],
    membrane: &Tensor,
    spikes: &Tensor,
    spike_gradient: &Tensor,
) -> Tensor {
    let steps = membrane.dims5()[0];
    let mut current_gradient = Tensor::zeros(&membrane.shape);
    let per_step = membrane.data.len() / steps;
    for i in 0..per_step {
        let mut reset_gradient = 0.0;
        for t in (0..steps).rev() {
            let now = t * per_step + i;
            let h = membrane.data[now];
            let slope = slope_of(slopes, membrane.channel(now));
            let g = slope.slope(neuron.z(h)) / neuron.theta;
            let derivative = neuron.reset_derivative(h, spikes.data[now], g);
            let h_gradient = spike_gradient.data[now] * g + reset_gradient * derivative;
            current_gradient.data[now] = neuron.kappa * h_gradient;
            reset_gradient = neuron.lambda * h_gradient;
        }
    }
    current_gradient
}
