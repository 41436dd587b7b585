//! How parameters and the learning rate move, by name.

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
