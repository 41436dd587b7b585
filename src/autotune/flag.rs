//! Warnings drawn from histograms.

use serde::{Deserialize, Serialize};

/// What is wrong with a layer according to its histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flag {
    /// No samples: the bounds stay.
    NotSampled,
    /// Almost no spikes: the left bound takes in nearly all potentials, the right one follows the schedule.
    Dead,
    /// Almost only spikes: the right bound takes in nearly all potentials, the left one follows the schedule.
    Saturated,
    /// One side has too few samples for a quantile: one symmetric width for both, or the schedule.
    Thin,
    /// The quantile lies outside the histogram: the bound is at its ceiling.
    BeyondHistogram,
    /// Every potential is further from the threshold than any bound: initialisation or normalisation is at fault.
    OutOfReach,
}

impl Flag {
    /// The name used in metrics and on the terminal.
    pub fn name(self) -> &'static str {
        match self {
            Self::NotSampled => "not-sampled",
            Self::Dead => "dead",
            Self::Saturated => "saturated",
            Self::Thin => "thin",
            Self::BeyondHistogram => "beyond-histogram",
            Self::OutOfReach => "out-of-reach",
        }
    }
}
