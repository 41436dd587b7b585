//! Sets AdaLi's bounds from histograms of membrane potentials.
//!
//! The paper states that the bounds can be "automatically determined from the distribution of membrane potentials"; the rule
//! here is \[ours\]. `z = (H - theta)/theta` is taken before the reset, over all steps of sampled mini-batches; `r` is the
//! share of `z >= 0` and `p` the target share inside the window:
//!
//! ```text
//! L* = -Q((1-r)(1-p))        R* = Q((1-r) + r p)        Q: quantile, linear inside a bin
//! L <- clamp(exp((1-m) ln L + m ln L*), floor, ceiling), likewise R
//! ```
//!
//! In a dead or saturated layer, `p` is at least 0.9 and the side without samples follows the schedule.

mod flag;
mod mode;
mod tuning;

pub use crate::histogram::{BINS, Histogram, RANGE};
use crate::surrogate::{Bounds, Schedule};
pub use flag::Flag;
pub use mode::BoundsMode;
use serde::{Deserialize, Serialize};
pub use tuning::Tuning;

/// A layer that fires less than this share is dead; one that fires more than one minus this is saturated.
const SILENT_SHARE: f64 = 0.001;
/// Target share inside for such a layer: a neuron outside learns nothing, and almost all have to move.
const SILENT_TARGET: f64 = 0.9;
/// With fewer samples than this, a side is too thin for a quantile.
const THIN_COUNT: u64 = 1000;
const THIN_SHARE: f64 = 0.001;

/// AdaLi's bounds as configured.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BoundsSpec {
    pub mode: BoundsMode,
    pub schedule: Schedule,
    /// `[W0, W1]` of the left bound, in units of the threshold.
    pub left: [f64; 2],
    /// `[W0, W1]` of the right bound.
    pub right: [f64; 2],
    /// Weight of the left side; the right side has `1 - alpha`.
    pub alpha: f64,
    /// `[p0, p1]`: target share of potentials inside the window, which moves like the log schedule.
    pub target: [f64; 2],
    /// `m`: how far one update moves the bounds, in `(0, 1]`.
    pub momentum: f64,
    /// Smallest automatic bound.
    pub floor: f64,
    /// Largest automatic bound.
    pub ceiling: f64,
    /// `[W0, W1]`: scales both sides' weights so that, for evenly spread potentials, the mean square of the slope is that of
    /// a width following the log schedule. A control for what else the widths do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gain: Option<[f64; 2]>,
    /// Evaluate the schedule at every step (fractional epochs), not only once per epoch.
    pub per_step: bool,
    /// Steps between automatic updates; 0 updates at the end of every epoch.
    pub update_every: u32,
    /// One histogram and one set of bounds per channel, not per layer.
    pub per_channel: bool,
    /// All layers share one window, which follows the counts of all layers together.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pooled: bool,
    /// Epochs by which the schedule lags behind; at 1, the second epoch still has the first values.
    #[serde(skip_serializing_if = "is_zero")]
    pub delay: f64,
}

impl Default for BoundsSpec {
    fn default() -> Self {
        Self {
            mode: BoundsMode::Manual,
            schedule: Schedule::Log,
            left: [1.5, 0.3],
            right: [1.5, 0.3],
            alpha: 0.5,
            target: [0.4, 0.4],
            momentum: 0.3,
            floor: 0.25,
            ceiling: 2.5,
            gain: None,
            per_step: false,
            update_every: 0,
            per_channel: false,
            pooled: false,
            delay: 0.0,
        }
    }
}

fn is_zero(value: &f64) -> bool {
    *value == 0.0
}

impl BoundsSpec {
    /// Where the schedule stands at `position`: epochs done plus one.
    pub fn delayed(&self, position: f64) -> f64 {
        (position - self.delay).max(1.0)
    }

    /// Checks every value against its range.
    pub fn validate(&self) -> anyhow::Result<()> {
        if !(self.delay >= 0.0 && self.delay.is_finite()) {
            crate::bail_input!("bounds delay {} must be a finite number of epochs, at least 0", self.delay);
        }
        let positive = |x: f64| x > 0.0 && x.is_finite();
        let share = |x: f64| x > 0.0 && x < 1.0;
        for (name, pair) in [("left", self.left), ("right", self.right)] {
            if !pair.iter().all(|&w| positive(w)) {
                crate::bail_input!("bounds {name} = {pair:?} must be finite widths above 0");
            }
        }
        if let Some(gain) = self.gain.filter(|gain| !gain.iter().all(|&w| positive(w))) {
            crate::bail_input!("bounds gain = {gain:?} must be finite widths above 0");
        }
        if self.pooled && self.per_channel {
            crate::bail_input!("bounds are pooled or per channel, not both");
        }
        if !share(self.alpha) {
            crate::bail_input!("bounds alpha {} must lie between 0 and 1", self.alpha);
        }
        if !self.target.iter().all(|&p| share(p)) {
            crate::bail_input!("bounds target = {:?} must be shares between 0 and 1", self.target);
        }
        if !(self.momentum > 0.0 && self.momentum <= 1.0) {
            crate::bail_input!("bounds momentum {} must be above 0 and at most 1", self.momentum);
        }
        if !(positive(self.floor) && positive(self.ceiling) && self.floor <= self.ceiling && self.ceiling <= RANGE) {
            crate::bail_input!(
                "bounds floor {} and ceiling {} must satisfy 0 < floor <= ceiling <= {RANGE}",
                self.floor,
                self.ceiling
            );
        }
        Ok(())
    }

    /// A short description of what moves the bounds: `log schedule`, or the mode's name.
    pub fn in_words(&self) -> String {
        match self.mode {
            BoundsMode::Manual => format!("{} schedule", self.schedule.name()),
            mode => mode.name().into(),
        }
    }

    /// The schedule's bounds at a (fractional) epoch; `start` replaces the first values (auto-init).
    pub fn scheduled(&self, start: Option<Bounds>, epoch: f64, epochs: f64) -> Bounds {
        let (left0, right0) = start.map_or((self.left[0], self.right[0]), |b| (b.left as f64, b.right as f64));
        let left = self.schedule.at(left0, self.left[1], epoch, epochs);
        let right = self.schedule.at(right0, self.right[1], epoch, epochs);
        let alpha = if self.mode == BoundsMode::AutoMass { right / (left + right) } else { self.alpha };
        Bounds::new(left, right, alpha)
    }

    /// Bounds with the weights scaled by `gain` at a (fractional) epoch.
    pub fn with_gain(&self, bounds: Bounds, epoch: f64, epochs: f64) -> Bounds {
        let Some([first, last]) = self.gain else { return bounds };
        let [l, r, a, b] = [bounds.left, bounds.right, bounds.alpha, bounds.beta].map(f64::from);
        let width = Schedule::Log.at(first, last, epoch, epochs);
        let scale = ((a * a + b * b) / width / (a * a / l + b * b / r)).sqrt();
        Bounds { alpha: (a * scale) as f32, beta: (b * scale) as f32, ..bounds }
    }

    /// The target share inside the window at a (fractional) epoch.
    pub fn target_at(&self, epoch: f64, epochs: f64) -> f64 {
        Schedule::Log.at(self.target[0], self.target[1], epoch, epochs)
    }

    /// What is wrong according to a histogram, whatever sets the bounds.
    pub fn diagnose(&self, histogram: &Histogram) -> Option<Flag> {
        let rate = histogram.firing_rate();
        if histogram.total() == 0 {
            Some(Flag::NotSampled)
        } else if histogram.share_inside(self.ceiling, self.ceiling) == 0.0 {
            Some(Flag::OutOfReach)
        } else if rate < SILENT_SHARE {
            Some(Flag::Dead)
        } else if rate > 1.0 - SILENT_SHARE {
            Some(Flag::Saturated)
        } else {
            None
        }
    }

    /// New bounds for one layer (or channel) from its histogram.
    ///
    /// `previous` are the bounds to move from, or `None` at the start, where the histogram's bounds are adopted in full;
    /// `scheduled` replaces what the histogram cannot tell; `target` is the share wanted inside.
    pub fn tune(
        &self,
        histogram: &Histogram,
        previous: Option<Bounds>,
        scheduled: Bounds,
        target: f64,
    ) -> (Bounds, Vec<Flag>) {
        let (total, spikes, rate) = (histogram.total(), histogram.spikes(), histogram.firing_rate());
        let flag = self.diagnose(histogram);
        let mut flags = Vec::from_iter(flag);
        match flag {
            Some(Flag::NotSampled) => return (previous.unwrap_or(scheduled), flags),
            Some(Flag::OutOfReach) => return (scheduled, flags),
            _ => {}
        }
        let silent = matches!(flag, Some(Flag::Dead | Flag::Saturated));
        let target = if silent { target.max(SILENT_TARGET) } else { target };
        let thin = |count: u64| count < THIN_COUNT || (count as f64) < THIN_SHARE * total as f64;
        let by_deviation = self.mode == BoundsMode::AutoStd;
        let symmetric = by_deviation || self.mode == BoundsMode::AutoSymmetric;
        let both_sides = || match by_deviation {
            true => Some(3f64.sqrt() * target * histogram.std()),
            false => histogram.symmetric_quantile(target),
        };
        let left_side = || histogram.quantile((1.0 - rate) * (1.0 - target)).map(|z| -z);
        let right_side = || histogram.quantile((1.0 - rate) + rate * target);
        // None: the histogram cannot tell this side's bound.
        let (left, right) = if flag == Some(Flag::Dead) {
            let told = !thin(total - spikes);
            (told.then(if symmetric { &both_sides as &dyn Fn() -> _ } else { &left_side }).flatten(), None)
        } else if flag == Some(Flag::Saturated) {
            let told = !thin(spikes);
            (None, told.then(if symmetric { &both_sides as &dyn Fn() -> _ } else { &right_side }).flatten())
        } else if symmetric || thin(spikes) || thin(total - spikes) {
            if !symmetric {
                flags.push(Flag::Thin);
            }
            let width = if thin(total) { None } else { both_sides() };
            (width, width)
        } else if self.mode == BoundsMode::AutoBalanced {
            let width = left_side().zip(right_side()).map(|(left, right)| (left * right).sqrt());
            (width, width)
        } else {
            (left_side(), right_side())
        };
        let mut clamp = |width: Option<f64>, previous: Option<f32>, scheduled: f32| {
            let Some(width) = width else { return scheduled as f64 };
            if width.is_infinite() && !flags.contains(&Flag::BeyondHistogram) {
                flags.push(Flag::BeyondHistogram);
            }
            let width = width.clamp(self.floor, self.ceiling);
            let moved = previous
                .map_or(width, |old| ((1.0 - self.momentum) * (old as f64).ln() + self.momentum * width.ln()).exp());
            moved.clamp(self.floor, self.ceiling)
        };
        let left = clamp(left, previous.map(|b| b.left), scheduled.left);
        let right = clamp(right, previous.map(|b| b.right), scheduled.right);
        (Bounds::new(left, right, self.alpha), flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::histogram::tests::{histogram, uniform};

    fn spec(mode: BoundsMode) -> BoundsSpec {
        BoundsSpec { mode, ..BoundsSpec::default() }
    }

    const SCHEDULED: Bounds = Bounds { left: 1.1, right: 1.2, alpha: 0.5, beta: 0.5 };

    fn tune(samples: Vec<f32>) -> (Bounds, Vec<Flag>) {
        spec(BoundsMode::AutoTrack).tune(&histogram(samples), None, SCHEDULED, 0.4)
    }

    #[test]
    fn the_rule_puts_the_target_share_inside_on_both_sides() {
        // z uniform on [-3, 1): r = 1/4. L* = .4 of the left side's 3, R* = .4 of the right side's 1.
        let (bounds, flags) = tune(uniform(-3.0, 1.0, 80_000).collect());
        assert!((bounds.left - 1.2).abs() < 0.01 && (bounds.right - 0.4).abs() < 0.01, "{bounds:?}");
        assert!(flags.is_empty());
    }

    #[test]
    fn balanced_bounds_are_the_sides_geometric_mean() {
        let h = histogram(uniform(-3.0, 1.0, 80_000));
        let (bounds, _) = spec(BoundsMode::AutoBalanced).tune(&h, None, SCHEDULED, 0.4);
        assert!((bounds.left as f64 - (1.2f64 * 0.4).sqrt()).abs() < 0.01, "{bounds:?}");
        assert_eq!(bounds.left, bounds.right);
    }

    #[test]
    fn momentum_moves_bounds_geometrically() {
        let h = histogram(uniform(-3.0, 1.0, 80_000));
        let previous = Bounds::new(2.4, 0.8, 0.5);
        let (bounds, _) = spec(BoundsMode::AutoTrack).tune(&h, Some(previous), SCHEDULED, 0.4);
        assert!((bounds.left as f64 - 2.4f64.powf(0.7) * 1.2f64.powf(0.3)).abs() < 0.01, "{bounds:?}");
        assert!((bounds.right as f64 - 0.8f64.powf(0.7) * 0.4f64.powf(0.3)).abs() < 0.01, "{bounds:?}");
    }

    #[test]
    fn the_failure_table_row_by_row() {
        // Nothing sampled: keep the bounds and report it.
        let kept = Bounds::new(0.7, 0.6, 0.5);
        let empty = Histogram::default();
        assert_eq!(
            spec(BoundsMode::AutoTrack).tune(&empty, Some(kept), SCHEDULED, 0.4),
            (kept, vec![Flag::NotSampled])
        );
        // No spikes: nearly all potentials inside, and the right side follows the schedule.
        let (b, flags) = tune(uniform(-2.0, 0.0, 10_000).collect());
        assert!((b.left - 1.8).abs() < 0.01 && b.right == SCHEDULED.right && flags == [Flag::Dead], "{b:?} {flags:?}");
        // Only spikes: the left side follows the schedule.
        let (b, flags) = tune(uniform(0.0, 2.0, 10_000).collect());
        assert!((b.right - 1.8).abs() < 0.01 && b.left == SCHEDULED.left, "{b:?}");
        assert_eq!(flags, [Flag::Saturated]);
        // A thin side: one symmetric width.
        let (b, flags) = tune(uniform(-2.0, 0.0, 10_000).chain(uniform(0.0, 2.0, 500)).collect());
        assert!(b.left == b.right && (b.left - 0.8).abs() < 0.02 && flags == [Flag::Thin], "{b:?} {flags:?}");
        // Still thin: the schedule.
        let (b, flags) = tune(uniform(-2.0, 2.0, 500).collect());
        assert_eq!((b, flags), (SCHEDULED, vec![Flag::Thin]));
        // A quantile outside the histogram: the ceiling.
        let (b, flags) = tune(uniform(-9.0, -8.0, 9_000).chain(uniform(0.0, 1.0, 9_000)).collect());
        assert!(b.left == 2.5 && (b.right - 0.4).abs() < 0.01 && flags == [Flag::BeyondHistogram], "{b:?} {flags:?}");
        // Everything out of reach: no bound can help.
        let (b, flags) = tune(uniform(-9.0, -3.0, 9_000).chain(uniform(3.0, 9.0, 9_000)).collect());
        assert_eq!((b, flags), (SCHEDULED, vec![Flag::OutOfReach]));
    }

    #[test]
    fn symmetric_bounds_hold_the_share_inside() {
        let h = histogram(uniform(-3.0, 1.0, 80_000));
        let (b, flags) = spec(BoundsMode::AutoSymmetric).tune(&h, None, SCHEDULED, 0.4);
        assert!(b.left == b.right && (b.left - 0.8).abs() < 0.01 && flags.is_empty(), "{b:?}");
        assert!((h.share_inside(b.left as f64, b.right as f64) - 0.4).abs() < 0.002);
    }

    #[test]
    fn mass_mode_balances_the_sides() {
        let spec = BoundsSpec { left: [1.2, 0.6], right: [0.4, 0.2], ..spec(BoundsMode::AutoMass) };
        let b = spec.scheduled(None, 1.0, 10.0);
        assert!((b.alpha - 0.25).abs() < 1e-6 && (b.beta - 0.75).abs() < 1e-6, "{b:?}");
    }

    #[test]
    fn impossible_settings_are_refused() {
        let good = BoundsSpec::default();
        good.validate().unwrap();
        for bad in [
            BoundsSpec { left: [0.0, 1.0], ..good },
            BoundsSpec { right: [1.0, f64::NAN], ..good },
            BoundsSpec { alpha: 1.0, ..good },
            BoundsSpec { target: [0.4, 1.5], ..good },
            BoundsSpec { momentum: 0.0, ..good },
            BoundsSpec { floor: 3.0, ..good },
            BoundsSpec { ceiling: 9.0, ..good },
        ] {
            assert!(bad.validate().is_err(), "{bad:?}");
        }
    }

    /// For evenly spread potentials, mean g² is `alpha²/L + beta²/R` times their density.
    #[test]
    fn a_gain_sets_the_mean_square_of_the_slope() {
        let square = |b: Bounds| (b.alpha * b.alpha / b.left + b.beta * b.beta / b.right) as f64;
        let mut cases = 0;
        for (left, right) in [([0.5; 2], [0.5; 2]), ([1.5, 0.3], [1.5, 0.3]), ([0.8; 2], [0.3, 1.1])] {
            for alpha in [0.5, 0.3] {
                let plain = BoundsSpec { left, right, alpha, ..BoundsSpec::default() };
                let log = BoundsSpec { gain: Some([1.5, 0.3]), ..plain };
                for epoch in [1.0, 2.5, 10.0] {
                    let bounds = plain.scheduled(None, epoch, 10.0);
                    assert_eq!(plain.with_gain(bounds, epoch, 10.0), bounds);
                    let scaled = log.with_gain(bounds, epoch, 10.0);
                    let width = Schedule::Log.at(1.5, 0.3, epoch, 10.0);
                    let want = square(Bounds::new(width, width, alpha));
                    assert!((square(scaled) - want).abs() < 1e-5 * want, "{scaled:?}");
                    let ratio = bounds.alpha / bounds.beta;
                    assert_eq!((scaled.left, scaled.right), (bounds.left, bounds.right));
                    assert!((scaled.alpha / scaled.beta - ratio).abs() < 1e-5 * ratio);
                    cases += 1;
                }
            }
        }
        assert_eq!(cases, 3 * 2 * 3);
    }

    /// Evenly spread potentials of half width 2: the standard deviation is 2/sqrt(3), and p = 0.4 gives 0.8 on either side.
    #[test]
    fn auto_std_gives_the_quantiles_width_where_potentials_are_spread_evenly() {
        let mut h = Histogram::default();
        (-2000..2000).for_each(|i| h.count((i as f32 + 0.5) / 1000.0));
        assert!((h.std() - 2.0 / 3f64.sqrt()).abs() < 1e-4, "{}", h.std());
        let (b, flags) = spec(BoundsMode::AutoStd).tune(&h, None, SCHEDULED, 0.4);
        assert!((b.left - 0.8).abs() < 1e-3 && b.left == b.right && flags.is_empty(), "{b:?} {flags:?}");
        let (quantiles, _) = spec(BoundsMode::AutoSymmetric).tune(&h, None, SCHEDULED, 0.4);
        assert!((b.left - quantiles.left).abs() < 2e-3, "{b:?} {quantiles:?}");
    }
}
