//! The integrate-and-fire neuron: the only Rust copy of its mathematics.
//!
//! ```text
//! H[t] = lambda V[t-1] + kappa I[t]        S[t] = 1 if H[t] >= theta else 0        V[-1] = 0
//! soft reset: V = H - theta S              hard reset: V = (1 - S) H + S v_reset
//! ```
//!
//! Backward, from the last step to the first, with `g` the surrogate slope at `H[t]`:
//!
//! ```text
//! G_H = G_S g + G_V dV/dH        G_I[t] = kappa G_H        G_V[t-1] = lambda G_H
//! dV/dH: soft attached 1 - theta g | soft detached 1 | hard attached (1-S) + (v_reset-H) g | hard detached 1-S
//! ```

use serde::{Deserialize, Serialize};

/// Whether the membrane leaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum NeuronModel {
    /// Leaky integrate-and-fire.
    ///
    /// `lambda = 1 - 1/tau`.
    Lif,
    /// Integrate-and-fire, without a leak.
    ///
    /// `lambda = kappa = 1`.
    If,
}

/// What a spike does to the membrane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum ResetKind {
    /// The threshold is subtracted.
    Soft,
    /// The membrane is set to a value, 0 unless a file says another.
    ///
    /// The value is `v_reset`.
    Hard,
}

/// A neuron as configured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NeuronSpec {
    pub model: NeuronModel,
    /// Time constant in steps, at least 1; LIF only.
    pub tau: f32,
    /// LIF only: the input is scaled by `1/tau` as the membrane decays (`kappa = 1/tau`), else `kappa = 1`.
    pub decay_input: bool,
    /// Firing threshold `theta`, above 0.
    pub threshold: f32,
    pub reset: ResetKind,
    /// The membrane after a hard reset; below the threshold.
    pub v_reset: f32,
    /// Treat the reset as a constant in the backward pass.
    pub detach_reset: bool,
}

impl Default for NeuronSpec {
    fn default() -> Self {
        Self {
            model: NeuronModel::Lif,
            tau: 2.0,
            decay_input: true,
            threshold: 1.0,
            reset: ResetKind::Soft,
            v_reset: 0.0,
            detach_reset: false,
        }
    }
}

impl NeuronSpec {
    /// The neuron's constants, or an error that says what is wrong with them.
    pub fn neuron(&self) -> anyhow::Result<Neuron> {
        if !(self.threshold > 0.0 && self.threshold.is_finite()) {
            crate::bail_input!("neuron threshold {} must be a finite number above 0", self.threshold);
        }
        if !(self.tau >= 1.0 && self.tau.is_finite()) {
            crate::bail_input!("neuron tau {} must be a finite number of steps, at least 1", self.tau);
        }
        if self.reset == ResetKind::Hard && !(self.v_reset < self.threshold && self.v_reset.is_finite()) {
            crate::bail_input!("neuron v_reset {} must be below the threshold {}", self.v_reset, self.threshold);
        }
        let (leak, gain) = match self.model {
            NeuronModel::If => (1.0, 1.0),
            NeuronModel::Lif => (1.0 - 1.0 / self.tau, if self.decay_input { 1.0 / self.tau } else { 1.0 }),
        };
        Ok(Neuron {
            leak,
            gain,
            threshold: self.threshold,
            reset: self.reset,
            v_reset: self.v_reset,
            detach: self.detach_reset,
        })
    }
}

/// A neuron's constants.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neuron {
    /// `lambda`: the share of the membrane that remains after a step.
    pub leak: f32,
    /// `kappa`: the factor of the input current.
    pub gain: f32,
    /// `theta`.
    pub threshold: f32,
    pub reset: ResetKind,
    pub v_reset: f32,
    pub detach: bool,
}

impl Neuron {
    /// `H` from the membrane after the last reset and the input current.
    #[inline(always)]
    pub fn charge(&self, v: f32, current: f32) -> f32 {
        self.leak.mul_add(v, self.gain * current)
    }

    /// `V` after the reset.
    #[inline(always)]
    pub fn reset<const HARD: bool>(&self, h: f32, spike: bool) -> f32 {
        let after = if HARD { self.v_reset } else { h - self.threshold };
        if spike { after } else { h }
    }

    /// `dV/dH` at a step with membrane `h`, spike and surrogate slope `g`.
    #[inline(always)]
    pub fn reset_derivative<const HARD: bool, const DETACH: bool>(&self, h: f32, spike: bool, g: f32) -> f32 {
        let kept = if HARD && spike { 0.0 } else { 1.0 };
        match (HARD, DETACH) {
            (_, true) => kept,
            (false, false) => (-self.threshold).mul_add(g, 1.0),
            (true, false) => (self.v_reset - h).mul_add(g, kept),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_steps_by_hand() {
        // tau 2, decay_input: H = V/2 + I/2. Currents 1.5, 2.0, -1.0.
        let neuron = NeuronSpec::default().neuron().unwrap();
        let h0 = neuron.charge(0.0, 1.5);
        assert_eq!(h0, 0.75);
        let h1 = neuron.charge(neuron.reset::<false>(h0, false), 2.0);
        assert_eq!(h1, 1.375);
        assert_eq!(neuron.reset::<false>(h1, true), 0.375);
        assert_eq!(neuron.reset::<true>(h1, true), 0.0);
        assert_eq!(neuron.charge(0.375, -1.0), -0.3125);
    }

    #[test]
    fn impossible_neurons_are_refused() {
        let good = NeuronSpec::default();
        for bad in [
            NeuronSpec { threshold: 0.0, ..good },
            NeuronSpec { threshold: f32::NAN, ..good },
            NeuronSpec { tau: 0.5, ..good },
            NeuronSpec { reset: ResetKind::Hard, v_reset: 1.0, ..good },
        ] {
            assert!(bad.neuron().is_err(), "{bad:?}");
        }
    }
}
