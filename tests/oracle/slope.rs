//! Surrogate slopes and their integrals, over z = (H - theta) / theta.

use std::f64::consts::PI;

/// A surrogate slope g_z(z). The slope over the membrane is `slope(z) / theta`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Slope {
    /// alpha / left on [-left, 0), beta / right on [0, right], 0 elsewhere.
    Adali {
        /// Left bound L > 0, in z units.
        left: f64,
        /// Right bound R > 0, in z units.
        right: f64,
        /// Mass of the left side.
        alpha: f64,
        /// Mass of the right side.
        beta: f64,
    },
    /// k s(kz) (1 - s(kz)), s the logistic function.
    Sigmoid {
        /// Steepness.
        k: f64,
    },
    /// (k/2) / (1 + (pi k z / 2)^2).
    Arctan {
        /// Steepness.
        k: f64,
    },
    /// max(0, k - k^2 |z|).
    Triangle {
        /// Height.
        k: f64,
    },
    /// (k/2) / (1 + k|z|)^2.
    Softsign {
        /// Steepness.
        k: f64,
    },
}

impl Slope {
    /// The slopes given by a formula with one steepness.
    pub const FORMULAS: [&str; 4] = ["sigmoid", "arctan", "triangle", "softsign"];

    /// One of them by name.
    pub fn formula(name: &str, k: f64) -> Self {
        match name {
            "sigmoid" => Self::Sigmoid { k },
            "arctan" => Self::Arctan { k },
            "triangle" => Self::Triangle { k },
            "softsign" => Self::Softsign { k },
            _ => panic!("no formula {name}"),
        }
    }

    /// The rectangle of STBP: height 1 on [-.5, .5].
    pub fn rectangle() -> Self {
        Self::Adali { left: 0.5, right: 0.5, alpha: 0.5, beta: 0.5 }
    }

    /// The slope at `z`.
    pub fn slope(&self, z: f64) -> f64 {
        match *self {
            Self::Adali { left, right, alpha, beta } => {
                if -left <= z && z < 0.0 {
                    alpha / left
                } else if 0.0 <= z && z <= right {
                    beta / right
                } else {
                    0.0
                }
            }
            Self::Sigmoid { k } => k * logistic(k * z) * logistic(-k * z),
            Self::Arctan { k } => {
                let scaled = PI * k * z / 2.0;
                (k / 2.0) / (1.0 + scaled * scaled)
            }
            Self::Triangle { k } => (k - k * k * z.abs()).max(0.0),
            Self::Softsign { k } => (k / 2.0) / (1.0 + k * z.abs()).powi(2),
        }
    }

    /// Integral of the slope from minus infinity to `z`: the smooth spike, from 0 to 1.
    pub fn primitive(&self, z: f64) -> f64 {
        match *self {
            Self::Adali { left, right, alpha, beta } => {
                if z < -left {
                    0.0
                } else if z < 0.0 {
                    alpha * (z + left) / left
                } else if z <= right {
                    alpha + beta * z / right
                } else {
                    alpha + beta
                }
            }
            Self::Sigmoid { k } => logistic(k * z),
            Self::Arctan { k } => 0.5 + (PI * k * z / 2.0).atan() / PI,
            Self::Triangle { k } => {
                let edge = (1.0 - k * z.abs()).max(0.0);
                let tail = 0.5 * edge * edge;
                if z < 0.0 { tail } else { 1.0 - tail }
            }
            Self::Softsign { k } => 0.5 + 0.5 * k * z / (1.0 + k * z.abs()),
        }
    }

    /// Whether `z` lies in an AdaLi window [-left, right]. The other slopes have none: always true.
    pub fn inside(&self, z: f64) -> bool {
        match *self {
            Self::Adali { left, right, .. } => -left <= z && z <= right,
            _ => true,
        }
    }

    /// Number of the piece of `primitive` that `z` lies on; it is smooth within a piece.
    pub fn piece(&self, z: f64) -> usize {
        let pieces = |left: f64, right: f64| usize::from(-left <= z) + usize::from(0.0 <= z) + usize::from(right < z);
        match *self {
            Self::Adali { left, right, .. } => pieces(left, right),
            Self::Triangle { k } => pieces(1.0 / k, 1.0 / k),
            Self::Softsign { .. } => usize::from(0.0 <= z),
            Self::Sigmoid { .. } | Self::Arctan { .. } => 0,
        }
    }
}

/// 1 / (1 + exp(-x)).
fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
