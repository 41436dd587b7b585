//! Where the bounds come from.

use serde::{Deserialize, Serialize};

/// How the bounds are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum BoundsMode {
    /// From the schedule alone.
    Manual,
    /// The first value from the histogram before the first step, then the schedule.
    AutoInit,
    /// Set from the histogram before the first step and updated from it afterwards.
    AutoTrack,
    /// From the schedule, with alpha = R/(L+R) and beta = L/(L+R).
    ///
    /// From the schedule, with `alpha = R/(L+R)` and `beta = L/(L+R)`.
    AutoMass,
    /// Like auto-track, with one width W for both sides, such that P(|z| <= W) equals the target.
    ///
    /// As auto-track, with one `W` for both sides: `P(|z| <= W) = p`.
    AutoSymmetric,
    /// As auto-symmetric, with W = sqrt(3) times the target, in standard deviations.
    ///
    /// As auto-symmetric, with `W = sqrt(3) p` standard deviations: the quantile's width, were potentials spread evenly.
    AutoStd,
    /// As auto-track, with the geometric mean of both bounds for both sides.
    ///
    /// As auto-track, with one `W = sqrt(L* R*)` for both sides.
    AutoBalanced,
}

impl BoundsMode {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::AutoInit => "auto-init",
            Self::AutoTrack => "auto-track",
            Self::AutoMass => "auto-mass",
            Self::AutoSymmetric => "auto-symmetric",
            Self::AutoStd => "auto-std",
            Self::AutoBalanced => "auto-balanced",
        }
    }

    /// Whether the bounds follow the histogram throughout training.
    pub fn tracks(self) -> bool {
        matches!(self, Self::AutoTrack | Self::AutoSymmetric | Self::AutoStd | Self::AutoBalanced)
    }
}
