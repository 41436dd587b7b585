//! Surrogate slopes, AdaLi's bounds, and how the bounds move over the epochs.
//!
//! A spike is a step of the membrane potential `H` at the threshold `theta`; its derivative is replaced by a
//! slope `g(H) = g_z(z) / theta` with `z = (H - theta) / theta` [ours: scaled by theta, so that a bound means
//! the same at any threshold].

use serde::{Deserialize, Serialize};

/// Which slope stands in for the derivative of a spike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum SurrogateKind {
    /// alpha/L left of the threshold, beta/R right of it, 0 outside of the bounds.
    ///
    /// `alpha/L` on `[-L, 0)`, `beta/R` on `[0, R]`, 0 elsewhere \[authors\].
    Adali,
    /// Derivative of the logistic function, k = 4.
    ///
    /// `k s(kz)(1 - s(kz))` with the logistic function `s`.
    Sigmoid,
    /// Derivative of the arctangent, k = 2.
    ///
    /// `(k/2) / (1 + (pi k z / 2)^2)`.
    Arctan,
    /// A triangle around the threshold, k = 1.
    ///
    /// `max(0, k - k^2 |z|)`.
    Triangle,
    /// Derivative of the softsign x/(1 + |x|), k = 2.
    ///
    /// `(k/2) / (1 + k|z|)^2`.
    Softsign,
    /// AdaLi with both bounds and weights fixed at 0.5.
    ///
    /// AdaLi fixed at `L = R = alpha = beta = 0.5`: the rectangle of STBP.
    Rectangle,
}

impl SurrogateKind {
    /// Every kind, adali first.
    pub fn all() -> &'static [Self] {
        &[Self::Adali, Self::Sigmoid, Self::Arctan, Self::Triangle, Self::Softsign, Self::Rectangle]
    }

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adali => "adali",
            Self::Sigmoid => "sigmoid",
            Self::Arctan => "arctan",
            Self::Triangle => "triangle",
            Self::Softsign => "softsign",
            Self::Rectangle => "rectangle",
        }
    }

    /// The usual sharpness `k`, if the slope is a formula.
    pub fn usual_sharpness(self) -> Option<f32> {
        match self {
            Self::Adali | Self::Rectangle => None,
            Self::Sigmoid => Some(4.0),
            Self::Arctan | Self::Softsign => Some(2.0),
            Self::Triangle => Some(1.0),
        }
    }
}

/// A surrogate and its sharpness.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surrogate {
    pub kind: SurrogateKind,
    /// `k`, unless it is the usual one; adali and rectangle have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharpness: Option<f32>,
}

impl Surrogate {
    /// A surrogate with its usual sharpness.
    pub fn new(kind: SurrogateKind) -> Self {
        Self { kind, sharpness: None }
    }

    /// Whether the backward pass needs the membrane itself; otherwise the spike and window bits suffice.
    pub fn needs_membrane(&self) -> bool {
        !matches!(self.kind, SurrogateKind::Adali | SurrogateKind::Rectangle)
    }

    /// The slope as a function of `H - theta`, for kernels.
    pub fn slope(&self, threshold: f32) -> Slope {
        let k = self.sharpness.or(self.kind.usual_sharpness()).unwrap_or_default();
        let constants = |height, rate| SlopeConstants { height, rate };
        match self.kind {
            SurrogateKind::Adali | SurrogateKind::Rectangle => Slope::Window,
            SurrogateKind::Sigmoid => Slope::Sigmoid(Sigmoid(constants(0.0, k / threshold))),
            SurrogateKind::Arctan => {
                Slope::Arctan(Arctan(constants(k / (2.0 * threshold), std::f32::consts::FRAC_PI_2 * k / threshold)))
            }
            SurrogateKind::Triangle => {
                Slope::Triangle(Triangle(constants(k / threshold, k * k / (threshold * threshold))))
            }
            SurrogateKind::Softsign => Slope::Softsign(Softsign(constants(k / (2.0 * threshold), k / threshold))),
        }
    }
}

/// A slope with its constants in units of the membrane.
#[derive(Clone, Copy, Debug)]
pub enum Slope {
    /// Piecewise constant: see [`Window`].
    Window,
    Sigmoid(Sigmoid),
    Arctan(Arctan),
    Triangle(Triangle),
    Softsign(Softsign),
}

/// A `match` over a [`Slope`] with one arm for all formulas, compiled separately for each of them.
macro_rules! match_slope {
    ($slope:expr, Window => $window:expr, $formula:ident => $body:expr) => {
        match $slope {
            $crate::surrogate::Slope::Window => $window,
            $crate::surrogate::Slope::Sigmoid($formula) => $body,
            $crate::surrogate::Slope::Arctan($formula) => $body,
            $crate::surrogate::Slope::Triangle($formula) => $body,
            $crate::surrogate::Slope::Softsign($formula) => $body,
        }
    };
}
pub(crate) use match_slope;

impl Slope {
    /// `g(H)` at `d = H - theta`; `None` if it depends on the bounds.
    pub fn at(self, d: f32) -> Option<f32> {
        match_slope!(self, Window => None, formula => Some(formula.at(d)))
    }

    /// The constants of a formula.
    pub fn constants(self) -> Option<SlopeConstants> {
        match_slope!(self, Window => None, formula => Some(formula.0))
    }
}

/// Constants of a formula: its value at the threshold and the factor of the distance from it, if it has them.
#[derive(Clone, Copy, Debug)]
pub struct SlopeConstants {
    pub height: f32,
    pub rate: f32,
}

/// A slope that is a formula of `d = H - theta`.
pub trait Formula: Copy + Send + Sync {
    /// `g(H)` at `d = H - theta`.
    fn at(self, d: f32) -> f32;
}

/// See [`SurrogateKind::Sigmoid`].
#[derive(Clone, Copy, Debug)]
pub struct Sigmoid(SlopeConstants);

impl Formula for Sigmoid {
    #[inline(always)]
    fn at(self, d: f32) -> f32 {
        // s(x)(1 - s(x)) = e / (1 + e)^2 with e = exp(-|x|), which cannot overflow.
        let e = exp_of_negative((self.0.rate * d).abs());
        self.0.rate * e / ((1.0 + e) * (1.0 + e))
    }
}

/// See [`SurrogateKind::Arctan`].
#[derive(Clone, Copy, Debug)]
pub struct Arctan(SlopeConstants);

impl Formula for Arctan {
    #[inline(always)]
    fn at(self, d: f32) -> f32 {
        let x = self.0.rate * d;
        self.0.height / x.mul_add(x, 1.0)
    }
}

/// See [`SurrogateKind::Triangle`].
#[derive(Clone, Copy, Debug)]
pub struct Triangle(SlopeConstants);

impl Formula for Triangle {
    #[inline(always)]
    fn at(self, d: f32) -> f32 {
        (-self.0.rate).mul_add(d.abs(), self.0.height).max(0.0)
    }
}

/// See [`SurrogateKind::Softsign`].
#[derive(Clone, Copy, Debug)]
pub struct Softsign(SlopeConstants);

impl Formula for Softsign {
    #[inline(always)]
    fn at(self, d: f32) -> f32 {
        let x = self.0.rate.mul_add(d.abs(), 1.0);
        self.0.height / (x * x)
    }
}

/// `exp(-x)` for `x >= 0` within 2e-7 relative, in arithmetic that compilers turn into SIMD (`f32::exp` is a call).
#[inline(always)]
fn exp_of_negative(x: f32) -> f32 {
    let x = x.min(87.0);
    // -x = n ln 2 + r with n rounded down, so 0 <= r < ln 2; ln 2 in two parts keeps r exact.
    let n = (x * -std::f32::consts::LOG2_E).floor();
    let r = (-n).mul_add(1.428_606_8e-6, (-n).mul_add(0.693_145_75, -x));
    // Taylor series of exp on [0, ln 2): its next term is below 2e-7 relative after centring at r/2 twice.
    let h = 0.5 * r;
    let mut p = h.mul_add(1.0 / 720.0, 1.0 / 120.0);
    p = h.mul_add(p, 1.0 / 24.0);
    p = h.mul_add(p, 1.0 / 6.0);
    p = h.mul_add(p, 0.5);
    p = h.mul_add(p, 1.0);
    p = h.mul_add(p, 1.0);
    p * p * f32::from_bits(((n as i32 + 127) << 23) as u32)
}

/// AdaLi's bounds and side weights: `left` and `right` in units of the threshold, `alpha + beta = 1`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bounds {
    pub left: f32,
    pub right: f32,
    pub alpha: f32,
    pub beta: f32,
}

impl Bounds {
    /// The rectangle of STBP.
    pub const RECTANGLE: Self = Self { left: 0.5, right: 0.5, alpha: 0.5, beta: 0.5 };

    /// Bounds whose side weights are `alpha` and `1 - alpha`.
    pub fn new(left: f64, right: f64, alpha: f64) -> Self {
        Self { left: left as f32, right: right as f32, alpha: alpha as f32, beta: (1.0 - alpha) as f32 }
    }

    /// The same in units of the membrane, ready for a kernel.
    pub fn window(&self, threshold: f32) -> Window {
        let (left, right) = (self.left * threshold, self.right * threshold);
        Window { left, right, slope_left: self.alpha / left, slope_right: self.beta / right }
    }
}

/// AdaLi's window around the threshold in units of the membrane, with the slope on each side.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    pub left: f32,
    pub right: f32,
    pub slope_left: f32,
    pub slope_right: f32,
}

/// How a bound moves from its first value `W0` to its last `W1` over the epochs `e = 1 … E`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// W0 (W1/W0)^(ln e / ln E) in epoch e of E.
    ///
    /// Source: \[authors\].
    Log,
    /// W0 + (W1 - W0)(e - 1)/(E - 1).
    ///
    /// Source: \[authors\].
    Linear,
    /// W0 + (W1 - W0)(sqrt e - 1)/(sqrt E - 1).
    ///
    /// Source: \[ours: the authors' form misses the endpoint\].
    Sqrt,
    /// W0.
    Constant,
}

impl Schedule {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Linear => "linear",
            Self::Sqrt => "sqrt",
            Self::Constant => "constant",
        }
    }

    /// The value at `epoch` (1 … `epochs`, may be fractional), from `first` to `last`; one epoch alone gives `first`.
    pub fn at(self, first: f64, last: f64, epoch: f64, epochs: f64) -> f64 {
        if epochs <= 1.0 {
            return first;
        }
        let epoch = epoch.clamp(1.0, epochs);
        match self {
            Self::Log => first * (last / first).powf(epoch.ln() / epochs.ln()),
            Self::Linear => first + (last - first) * (epoch - 1.0) / (epochs - 1.0),
            Self::Sqrt => first + (last - first) * (epoch.sqrt() - 1.0) / (epochs.sqrt() - 1.0),
            Self::Constant => first,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_meet_their_endpoints_and_the_authors_middle() {
        for schedule in [Schedule::Log, Schedule::Linear, Schedule::Sqrt] {
            assert!((schedule.at(1.5, 0.3, 1.0, 500.0) - 1.5).abs() < 1e-12, "{schedule:?}");
            assert!((schedule.at(1.5, 0.3, 500.0, 500.0) - 0.3).abs() < 1e-12, "{schedule:?}");
            assert_eq!(schedule.at(1.5, 0.3, 1.0, 1.0), 1.5);
        }
        // e = sqrt(E) is half way in the exponent.
        assert!((Schedule::Log.at(1.5, 0.3, 10.0, 100.0) - (1.5f64 * 0.3).sqrt()).abs() < 1e-12);
        assert!((Schedule::Linear.at(1.5, 0.3, 3.0, 5.0) - 0.9).abs() < 1e-12);
        assert_eq!(Schedule::Constant.at(1.5, 0.3, 3.0, 5.0), 1.5);
    }

    #[test]
    fn slopes_follow_their_formulas() {
        let mut cases = 0;
        for threshold in [0.5f32, 1.0, 2.0] {
            for step in -4000..4000 {
                let z = step as f64 / 1000.0;
                let d = (z * threshold as f64) as f32;
                let z = d as f64 / threshold as f64;
                for (kind, want) in [
                    (SurrogateKind::Sigmoid, {
                        let s = 1.0 / (1.0 + (-4.0 * z).exp());
                        4.0 * s * (1.0 - s)
                    }),
                    (SurrogateKind::Arctan, 1.0 / (1.0 + (std::f64::consts::PI * z).powi(2))),
                    (SurrogateKind::Triangle, (1.0 - z.abs()).max(0.0)),
                    (SurrogateKind::Softsign, (1.0 + 2.0 * z.abs()).powi(-2)),
                ] {
                    let got = Surrogate::new(kind).slope(threshold).at(d).expect("a formula");
                    let want = want / threshold as f64;
                    assert!((got as f64 - want).abs() <= 2e-6 * want + 2e-7, "{kind:?} at {z}: {got} and {want}");
                    cases += 1;
                }
            }
        }
        assert_eq!(cases, 3 * 8000 * 4);
    }

    #[test]
    fn exponential_is_accurate_to_single_precision() {
        for i in 0..87_000 {
            let x = i as f32 / 1000.0;
            let want = (-x as f64).exp();
            let error = (exp_of_negative(x) as f64 - want).abs() / want;
            assert!(error < 5e-7, "exp(-{x}) is off by {error:e}");
        }
        assert!(exp_of_negative(f32::INFINITY) < 1e-37);
    }

    #[test]
    fn a_window_scales_with_the_threshold() {
        let window = Bounds::new(0.8, 0.25, 0.3).window(2.0);
        assert!((window.left - 1.6).abs() < 1e-6 && (window.right - 0.5).abs() < 1e-6);
        assert!((window.slope_left - 0.3 / 1.6).abs() < 1e-6 && (window.slope_right - 0.7 / 0.5).abs() < 1e-6);
    }
}
