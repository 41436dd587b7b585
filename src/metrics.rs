//! What a training measures: one line per epoch in `metrics.jsonl`, and the epoch that is chosen.

use serde::{Deserialize, Serialize};

/// One epoch. Losses are means over samples, accuracies are shares in `[0, 1]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EpochMetrics {
    /// 1 … E.
    pub epoch: u32,
    pub train_loss: f64,
    pub train_accuracy: f64,
    /// Absent without held-out samples.
    pub validation_loss: Option<f64>,
    pub validation_accuracy: Option<f64>,
    /// At the epoch's last step.
    pub learning_rate: f64,
    /// Mean over the epoch's steps of the gradient's global 2-norm, before clipping.
    pub gradient_norm: f64,
    /// Training images per second, not counting validation.
    pub images_per_second: f64,
    /// Wall time of the epoch in seconds, including validation.
    pub seconds: f64,
    /// One per spiking layer, from the epoch's sampled steps.
    pub layers: Vec<LayerMetrics>,
}

/// One spiking layer over an epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerMetrics {
    /// The layer's name, such as `layers.3`.
    pub name: String,
    /// AdaLi's bounds during the epoch, in units of the threshold; means over channels; absent for other surrogates.
    pub bounds: Option<BoundsMetrics>,
    /// Share of neuron-steps that spike.
    pub firing_rate: f64,
    /// Share of neuron-steps whose membrane lies inside the window; absent for other surrogates.
    pub inside: Option<f64>,
    /// Mean over the potentials of the surrogate's slope `g_z` (of `z = (H - theta)/theta`), from their histogram and the
    /// bounds above; absent if none were counted.
    #[serde(default)]
    pub mean_slope: Option<f64>,
    /// Mean of the slope's square.
    #[serde(default)]
    pub mean_square_slope: Option<f64>,
    /// What is wrong according to the histogram, such as `dead`; see [`crate::autotune::Flag`].
    pub flags: Vec<String>,
}

/// AdaLi's bounds as reported.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct BoundsMetrics {
    pub left: f64,
    pub right: f64,
    pub alpha: f64,
    pub beta: f64,
}

/// The epoch that did best on the held-out samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Best {
    pub epoch: u32,
    pub accuracy: f64,
    pub loss: f64,
}

impl Best {
    /// Whether this epoch is preferred to an `earlier` one: it is more accurate, or as accurate at a lower loss.
    pub fn beats(&self, earlier: &Self) -> bool {
        self.accuracy > earlier.accuracy || (self.accuracy == earlier.accuracy && self.loss < earlier.loss)
    }
}

/// The median, the upper of two middle values; `None` if there are no values.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}
