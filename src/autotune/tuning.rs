//! One update of the bounds, on the host.

use super::{BoundsMode, BoundsSpec, Flag, Histogram};
use crate::surrogate::Bounds;

/// How the bounds of a layer follow its histogram and the schedule.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    pub spec: BoundsSpec,
    /// Epochs of the whole training.
    pub epochs: f64,
    /// Before the first step, where the histogram's bounds are adopted in full.
    pub first: bool,
}

impl Tuning {
    /// Moves the bounds of one layer (or channel) at a (fractional) epoch and returns what the histogram shows to be wrong.
    /// `start` holds the first bounds of auto-init; it is written if `first`.
    pub fn apply(
        &self,
        histogram: Option<&Histogram>,
        epoch: f64,
        start: &mut Bounds,
        bounds: &mut Bounds,
    ) -> Vec<Flag> {
        let (spec, starts) = (&self.spec, self.spec.mode == BoundsMode::AutoInit);
        let scheduled = spec.scheduled((starts && !self.first).then_some(*start), epoch, self.epochs);
        let previous = (!self.first).then_some(*bounds);
        let (moved, flags) = match histogram {
            Some(histogram) if spec.mode.tracks() || starts && self.first => {
                spec.tune(histogram, previous, scheduled, spec.target_at(epoch, self.epochs))
            }
            histogram => (scheduled, histogram.and_then(|histogram| spec.diagnose(histogram)).into_iter().collect()),
        };
        if starts && self.first {
            *start = moved;
        }
        *bounds = spec.with_gain(moved, epoch, self.epochs);
        flags
    }
}
