//! Ranges and ticks: round numbers, whole epochs, decades.

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use std::ops::Range;

/// The typographic minus sign.
pub(super) const MINUS: &str = "\u{2212}";

/// Larger values are not plotted, so that sums and differences stay finite.
const LARGEST: f64 = 1e300;
/// Above this ratio between its ends, a positive quantity gets a logarithmic axis.
const LOG_RATIO: f64 = 30.0;

/// One axis: the positions of values, and the labelled ticks.
#[derive(Clone, Debug)]
pub(super) struct Axis {
    /// Quantity and unit.
    pub name: String,
    /// Ends of the axis; logarithms to base 10 if `logarithmic`.
    pub low: f64,
    pub high: f64,
    /// Positions and texts of the ticks, ascending.
    pub ticks: Vec<(f64, String)>,
    logarithmic: bool,
}

impl Axis {
    /// From `low` to `high` exactly, with round ticks inside.
    pub fn fixed(name: &str, low: f64, high: f64, most_ticks: usize) -> Self {
        let step = round_step((high - low) / most_ticks as f64);
        let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
        // A range below the resolution of its numbers has no ticks of its own.
        let count = ((last - first).max(0.0) as usize).min(2 * most_ticks);
        let ticks = (0..=count).map(|i| (first + i as f64) * step).map(|v| (v, number(v, step))).collect();
        Self { name: name.into(), low, high, ticks, logarithmic: false }
    }

    /// Round ends around all finite `values`; `limits` are those of the quantity, such as 0 and 100 for percent.
    pub fn around(name: &str, values: impl IntoIterator<Item = f64>, limits: (f64, f64)) -> Self {
        const MOST_TICKS: usize = 6;
        let Some((low, high)) = extent(values) else { return Self::fixed(name, 0.0, 1.0, MOST_TICKS) };
        let span = high - low;
        // Constant data is put in the middle of a range in which its digits can be distinguished.
        let margin = if span > 1e-6 * low.abs().max(high.abs()) {
            0.04 * span
        } else if high == 0.0 {
            0.5
        } else {
            0.1 * high.abs()
        };
        let within = |v: f64| v.clamp(limits.0.min(low), limits.1.max(high));
        let (low, high) = (within(low - margin), within(high + margin));
        let step = round_step((high - low) / MOST_TICKS as f64);
        let (low, high) = ((low / step + 1e-9).floor() * step, (high / step - 1e-9).ceil() * step);
        Self::fixed(name, low, high, MOST_TICKS)
    }

    /// Like [`Axis::around`], but logarithmic if positive values span more than a factor of 30.
    pub fn around_loss(name: &str, values: impl Iterator<Item = f64> + Clone) -> Self {
        match extent(values.clone()) {
            Some((low, high)) if low > 0.0 && high / low > LOG_RATIO => Self::decades(name, low.log10(), high.log10()),
            _ => Self::around(name, values, (0.0, f64::INFINITY)),
        }
    }

    /// Logarithmic around all positive `values`.
    pub fn logarithmic(name: &str, values: impl IntoIterator<Item = f64>) -> Self {
        let (low, high) = extent(values.into_iter().filter(|&v| v > 0.0)).unwrap_or((0.1, 10.0));
        // A single value is put in the middle of a decade.
        let margin = if high > 1.1 * low { 0.0 } else { 0.5 };
        Self::decades(name, low.log10() - margin, high.log10() + margin)
    }

    /// From `10^low` to `10^high`: ticks at 1, 2, 5 in each decade, or at some decades.
    fn decades(name: &str, low: f64, high: f64) -> Self {
        let margin = 0.04 * (high - low);
        let (low, high) = (low - margin, high + margin);
        let every = ((high - low) / 6.0).ceil() as i32;
        let digits: &[f64] = if high - low < 2.6 { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let ticks = (low.floor() as i32..=high.ceil() as i32)
            .filter(|decade| decade.rem_euclid(every) == 0)
            .flat_map(|decade| digits.iter().map(move |&digit| (digit, decade)))
            .map(|(digit, decade)| (digit.log10() + decade as f64, scientific(digit, decade)))
            .filter(|&(at, _)| (low..=high).contains(&at))
            .collect();
        Self { name: format!("{name}, log scale"), low, high, ticks, logarithmic: true }
    }

    /// Whole numbers from `first` to `last`, with room for the marks at both ends.
    pub fn counting(name: &str, first: u32, last: u32) -> Self {
        let step = round_step(f64::from(last - first) / 7.0).max(1.0) as u32;
        let start = first.checked_next_multiple_of(step).unwrap_or(u32::MAX);
        let mut ticks: Vec<u32> = (start..=last).step_by(step as usize).collect();
        // The first epoch is labelled too, unless the next tick is near.
        if ticks.first().is_none_or(|&tick| 2 * (tick - first) > step) {
            ticks.insert(0, first);
        }
        let margin = if first == last { 1.0 } else { 0.025 * f64::from(last - first) };
        Self {
            name: name.into(),
            low: f64::from(first) - margin,
            high: f64::from(last) + margin,
            ticks: ticks.into_iter().map(|tick| (f64::from(tick), tick.to_string())).collect(),
            logarithmic: false,
        }
    }

    /// Whether 0 is inside, so that a line there separates the signs.
    pub fn crosses_zero(&self) -> bool {
        !self.logarithmic && self.low < 0.0 && self.high > 0.0
    }

    /// Where `value` lies between `low` and `high`; `None` if it cannot be drawn.
    pub fn place(&self, value: f64) -> Option<f64> {
        let at = if self.logarithmic { value.log10() } else { value };
        (plottable(value) && at.is_finite()).then_some(at)
    }
}

/// The axis is also plotters' coordinate: its values are positions between `low` and `high`.
impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, &position: &f64, (start, end): (i32, i32)) -> i32 {
        // Values far outside are drawn just outside, so that pixels do not overflow.
        let share = ((position - self.low) / (self.high - self.low)).clamp(-1.0, 2.0);
        start + (f64::from(end - start) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The second call asks for lighter lines between the ticks: there are none.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.iter().map(|tick| tick.0).collect() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for Axis {
    fn format_ext(&self, position: &f64) -> String {
        let tick = self.ticks.iter().find(|tick| tick.0 == *position);
        tick.map_or_else(String::new, |tick| tick.1.clone())
    }
}

/// Whether a value can be placed on any axis.
pub(super) fn plottable(value: f64) -> bool {
    value.abs() < LARGEST
}

/// Smallest and largest of the values that can be placed.
fn extent(values: impl IntoIterator<Item = f64>) -> Option<(f64, f64)> {
    let values = values.into_iter().filter(|&v| plottable(v));
    values.fold(None, |ends, v| Some(ends.map_or((v, v), |(low, high): (f64, f64)| (low.min(v), high.max(v)))))
}

/// The smallest of 1, 2, 5 times a power of ten that is at least `step`.
fn round_step(step: f64) -> f64 {
    let step = step.max(1e-300);
    let power = 10f64.powf(step.log10().floor());
    [1.0, 2.0, 5.0].map(|digit| digit * power).into_iter().find(|&s| s >= step * (1.0 - 1e-9)).unwrap_or(10.0 * power)
}

/// `value` with the decimals that multiples of `step` need.
fn number(value: f64, step: f64) -> String {
    let value = if value.abs() < step * 1e-6 { 0.0 } else { value };
    let text = if (1e-4..1e5).contains(&step) {
        format!("{value:.decimals$}", decimals = (-step.log10() - 1e-9).ceil().max(0.0) as usize)
    } else if value == 0.0 {
        "0".into()
    } else {
        let decimals = (value.abs() / step).log10().max(0.0).ceil().min(6.0) as usize;
        format!("{value:.decimals$e}")
    };
    text.replace('-', MINUS)
}

/// `digit * 10^decade`, written out if that is short.
fn scientific(digit: f64, decade: i32) -> String {
    if (-4..=4).contains(&decade) {
        format!("{value:.decimals$}", value = digit * 10f64.powi(decade), decimals = (-decade).max(0) as usize)
    } else {
        format!("{digit:.0}e{decade}").replace('-', MINUS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|tick| tick.1.as_str()).collect()
    }

    #[test]
    fn ends_and_ticks_are_round() {
        let axis = Axis::around("accuracy", [31.0, 97.2], (0.0, 100.0));
        assert_eq!((axis.low, axis.high), (20.0, 100.0));
        assert_eq!(labels(&axis), ["20", "40", "60", "80", "100"]);
        assert_eq!(labels(&Axis::fixed("z", -4.0, 4.0, 9)), ["−4", "−3", "−2", "−1", "0", "1", "2", "3", "4"]);
        let axis = Axis::around("rate", [0.0, 0.00013], (0.0, 100.0));
        assert_eq!(labels(&axis), ["0", "5e−5", "1.0e−4", "1.5e−4"]);
    }

    #[test]
    fn constant_empty_and_extreme_data_have_an_axis() {
        for values in
            [vec![], vec![0.0], vec![2.3, 2.3], vec![-1e299, 1e299], vec![f64::NAN, 1.0], vec![1e16, 1e16 + 2.0]]
        {
            let axis = Axis::around("y", values.clone(), (f64::NEG_INFINITY, f64::INFINITY));
            assert!(axis.low < axis.high && !axis.ticks.is_empty() && axis.ticks.len() <= 12, "{values:?}: {axis:?}");
            assert!(axis.ticks.iter().all(|tick| (axis.low..=axis.high * (1.0 + 1e-9)).contains(&tick.0)), "{axis:?}");
        }
        assert_eq!(Axis::around("y", [], (0.0, 1.0)).place(f64::INFINITY), None);
    }

    #[test]
    fn epochs_are_whole() {
        assert_eq!(labels(&Axis::counting("epoch", 1, 1)), ["1"]);
        assert_eq!(labels(&Axis::counting("epoch", 1, 3)), ["1", "2", "3"]);
        assert_eq!(labels(&Axis::counting("epoch", 1, 500)), ["1", "100", "200", "300", "400", "500"]);
        assert_eq!(labels(&Axis::counting("epoch", 17, 19)), ["17", "18", "19"]);
        assert!(labels(&Axis::counting("epoch", 0, u32::MAX)).len() <= 10);
    }

    #[test]
    fn wide_losses_are_logarithmic() {
        let axis = Axis::around_loss("loss", [2.3, 0.004].into_iter());
        assert_eq!(labels(&axis), ["0.01", "0.1", "1"]);
        assert!(axis.name.ends_with("log scale") && (axis.place(0.1).unwrap() + 1.0).abs() < 1e-12);
        assert_eq!((axis.place(0.0), axis.place(-1.0)), (None, None));
        assert!(!Axis::around_loss("loss", [2.3, 0.4].into_iter()).logarithmic);
        assert!(Axis::around_loss("loss", [1e-290, 1e290].into_iter()).ticks.len() <= 8);
    }
}
