//! How long to train, and how parameters and the learning rate move.

use crate::backend::UpdateRule;
use crate::bail_input;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// How parameters are moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Optimizer {
    /// With momentum, as PyTorch's.
    Sgd,
    /// As PyTorch's: weight decay is added to the gradient.
    Adam,
    /// As PyTorch's: weight decay is decoupled.
    Adamw,
}

/// How the learning rate moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum RateSchedule {
    /// Cosine decay to 0.
    Cosine,
    Constant,
}

/// What is kept from the forward pass for the backward pass. Both give the same bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum MemoryUse {
    /// Everything that the backward pass reads.
    #[default]
    Full,
    /// Not the currents before a batch norm, or for a slope that needs them: they are computed again.
    Low,
}

/// Epochs, batches, optimiser.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingSpec {
    pub epochs: u32,
    /// Samples per batch; in each epoch the rest of the order after the last whole batch is not used.
    pub batch: usize,
    pub optimizer: Optimizer,
    /// The peak learning rate.
    pub learning_rate: f64,
    /// For SGD.
    pub momentum: f64,
    /// For Adam and AdamW.
    pub betas: [f64; 2],
    pub weight_decay: f64,
    pub rate_schedule: RateSchedule,
    /// Epochs over which the learning rate rises from 0.
    pub warmup: f64,
    /// Scale gradients down to this 2-norm; 0 for never.
    pub clip: f64,
    /// Steps between counts of the membrane potentials; 0 for eight counts per epoch.
    pub histogram_every: u32,
    /// Steps between checkpoints; 0 for only one at the end of each epoch.
    pub checkpoint_every: u32,
    // Written only if it is not the default, so that other runs have the bytes of older versions.
    #[serde(skip_serializing_if = "MemoryUse::is_full")]
    pub memory: MemoryUse,
}

impl MemoryUse {
    fn is_full(&self) -> bool {
        *self == Self::Full
    }
}

impl Default for TrainingSpec {
    fn default() -> Self {
        Self {
            epochs: 20,
            batch: 64,
            optimizer: Optimizer::Sgd,
            learning_rate: 0.1,
            momentum: 0.9,
            betas: [0.9, 0.999],
            weight_decay: 1e-4,
            rate_schedule: RateSchedule::Cosine,
            warmup: 0.0,
            clip: 0.0,
            histogram_every: 0,
            checkpoint_every: 0,
            memory: MemoryUse::Full,
        }
    }
}

impl TrainingSpec {
    /// The learning rate of step `step` (from 0) of `total`, with `epoch_steps` steps per epoch.
    pub fn rate(&self, step: u64, total: u64, epoch_steps: u64) -> f64 {
        let warmup = self.warmup * epoch_steps as f64;
        if (step as f64) < warmup {
            return self.learning_rate * (step + 1) as f64 / (warmup + 1.0);
        }
        match self.rate_schedule {
            RateSchedule::Constant => self.learning_rate,
            RateSchedule::Cosine => {
                let share = (step as f64 - warmup) / (total as f64 - warmup).max(1.0);
                self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
            }
        }
    }

    /// The optimiser with its constants.
    pub fn rule(&self) -> UpdateRule {
        let [beta1, beta2] = self.betas.map(|beta| beta as f32);
        match self.optimizer {
            Optimizer::Sgd => UpdateRule::Sgd { momentum: self.momentum as f32 },
            Optimizer::Adam => UpdateRule::Adam { beta1, beta2, epsilon: 1e-8, decoupled: false },
            Optimizer::Adamw => UpdateRule::Adam { beta1, beta2, epsilon: 1e-8, decoupled: true },
        }
    }

    pub(super) fn validate(&self) -> Result<()> {
        if self.epochs == 0 || self.epochs > 1_000_000 {
            bail_input!("epochs {} must be between 1 and 1000000", self.epochs);
        }
        if self.batch == 0 || self.batch > 1 << 20 {
            bail_input!("batch {} must be between 1 and {}", self.batch, 1 << 20);
        }
        if !(self.learning_rate > 0.0 && self.learning_rate.is_finite()) {
            bail_input!("learning_rate {} must be a finite number above 0", self.learning_rate);
        }
        for (name, value, limit) in [
            ("momentum", self.momentum, 1.0),
            ("betas", self.betas[0], 1.0),
            ("betas", self.betas[1], 1.0),
            ("weight_decay", self.weight_decay, f64::INFINITY),
            ("warmup", self.warmup, self.epochs as f64),
            ("clip", self.clip, f64::INFINITY),
        ] {
            if !(value >= 0.0 && value < limit) {
                bail_input!("{name} {value} must be at least 0 and below {limit}");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_warm_up_and_follow_the_cosine() {
        let spec = TrainingSpec { learning_rate: 1.0, warmup: 1.0, ..TrainingSpec::default() };
        let rates: Vec<f64> = (0..40).map(|step| spec.rate(step, 40, 4)).collect();
        assert!(rates[..4].windows(2).all(|w| w[0] < w[1]) && rates[3] < 1.0);
        assert_eq!(rates[4], 1.0);
        assert!((rates[22] - 0.5).abs() < 1e-12, "half way after the warm-up");
        assert!(rates[39] > 0.0 && rates[39] < 0.01);
    }
}
