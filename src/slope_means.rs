//! How steep a surrogate is on average at the membrane potentials: means of the slope `g_z` over `z = (H - theta)/theta`,
//! from histograms of `z`.

use crate::histogram::{BINS, Histogram, RANGE};
use crate::surrogate::{Bounds, Formula, Surrogate, match_slope};

/// Means over counted potentials, dimensionless: `g_z` is per threshold.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SlopeMeans {
    /// Mean of `g_z`.
    pub mean: f64,
    /// Mean of `g_z` squared.
    pub mean_square: f64,
}

impl SlopeMeans {
    /// Means over all `histograms`. `bounds` are those of each histogram, or one for all; only AdaLi uses them, since the
    /// rectangle has its own. A window takes its share of each bin; other slopes are evaluated at a bin's centre. Potentials
    /// beyond the histogram's range count at its ends. `None` if nothing was counted.
    pub fn over(surrogate: &Surrogate, bounds: &[Bounds], histograms: &[Histogram]) -> Option<Self> {
        let count: u64 = histograms.iter().map(Histogram::total).sum();
        let (mut sum, mut squares) = (0.0, 0.0);
        for (i, histogram) in histograms.iter().enumerate() {
            let bounds = bounds.get(i).or(bounds.first()).copied().unwrap_or(Bounds::RECTANGLE);
            let [a, b] = sums(surrogate, &bounds, histogram);
            sum += a;
            squares += b;
        }
        (count > 0).then(|| Self { mean: sum / count as f64, mean_square: squares / count as f64 })
    }
}

/// Sums of the slope and of its square over one histogram.
fn sums(surrogate: &Surrogate, bounds: &Bounds, histogram: &Histogram) -> [f64; 2] {
    // With a threshold of 1, H - theta is z.
    let slope = surrogate.slope(1.0);
    match_slope!(slope, Window => window_sums(bounds, histogram), formula => formula_sums(formula, histogram))
}

const BIN: f64 = 2.0 * RANGE / BINS as f64;

fn formula_sums(slope: impl Formula, histogram: &Histogram) -> [f64; 2] {
    let ends = [(-RANGE, histogram.underflow), (RANGE, histogram.overflow)];
    let centre = |bin: usize| (bin as f64 + 0.5) * BIN - RANGE;
    let bins = histogram.bins.iter().enumerate().map(|(bin, &count)| (centre(bin), count));
    bins.chain(ends).filter(|&(_, count)| count > 0).fold([0.0; 2], |[sum, squares], (z, count)| {
        let g = slope.at(z as f32) as f64;
        [sum + count as f64 * g, squares + count as f64 * g * g]
    })
}

fn window_sums(bounds: &Bounds, histogram: &Histogram) -> [f64; 2] {
    let (left, right) = (bounds.left as f64, bounds.right as f64);
    let (below, above) = (bounds.alpha as f64 / left, bounds.beta as f64 / right);
    let (mut inside_below, mut inside_above) = (0.0, 0.0);
    for (bin, &count) in histogram.bins.iter().enumerate().filter(|&(_, &count)| count > 0) {
        let low = bin as f64 * BIN - RANGE;
        // The threshold lies between two bins.
        let share = |from: f64, to: f64| ((low + BIN).min(to) - low.max(from)).max(0.0) / BIN;
        inside_below += count as f64 * share(-left, 0.0);
        inside_above += count as f64 * share(0.0, right);
    }
    inside_below += if left >= RANGE { histogram.underflow as f64 } else { 0.0 };
    inside_above += if right >= RANGE { histogram.overflow as f64 } else { 0.0 };
    [inside_below * below + inside_above * above, inside_below * below * below + inside_above * above * above]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::tests::{histogram, uniform};
    use crate::surrogate::SurrogateKind;

    /// `g_z(z)`: a window by its definition, a formula as in `surrogate.rs`.
    fn slope(kind: SurrogateKind, k: f64, bounds: &Bounds, z: f64) -> f64 {
        let b = bounds;
        let window = |left: f32, right: f32, alpha: f32, beta: f32| match z {
            z if (-left as f64..0.0).contains(&z) => (alpha / left) as f64,
            z if (0.0..=right as f64).contains(&z) => (beta / right) as f64,
            _ => 0.0,
        };
        match kind {
            SurrogateKind::Adali => window(b.left, b.right, b.alpha, b.beta),
            SurrogateKind::Rectangle => window(0.5, 0.5, 0.5, 0.5),
            _ => {
                let slope = Surrogate { kind, sharpness: Some(k as f32) }.slope(1.0);
                slope.at(z as f32).expect("a formula").into()
            }
        }
    }

    #[test]
    fn means_are_those_of_a_direct_sum() {
        let mut cases = 0;
        for &kind in SurrogateKind::all() {
            for k in [0.5, 2.0] {
                for bounds in [Bounds::new(1.5, 0.3, 0.5), Bounds::new(0.26, 3.7, 0.2)] {
                    for (low, high) in [(-2.0, 1.0), (-0.9, 3.9), (0.2, 0.4), (-3.9, -0.1)] {
                        let own = if kind == SurrogateKind::Rectangle { Bounds::RECTANGLE } else { bounds };
                        let surrogate = Surrogate { kind, sharpness: Some(k as f32) };
                        let samples: Vec<f32> = uniform(low, high, 50_000).collect();
                        let got = SlopeMeans::over(&surrogate, &[own], &[histogram(samples.clone())]).unwrap();
                        let values = samples.iter().map(|&z| slope(kind, k, &bounds, z as f64));
                        let (sum, squares) = values.fold((0.0, 0.0), |(a, b), g| (a + g, b + g * g));
                        let want = [sum / samples.len() as f64, squares / samples.len() as f64];
                        // Samples are even within a bin, except for the two bins that the range cuts.
                        for (got, want) in [got.mean, got.mean_square].into_iter().zip(want) {
                            let close = 0.02 * want + 0.002 * want.max(1.0);
                            assert!((got - want).abs() < close, "{kind:?} {k} {bounds:?} {low} {high}: {got} {want}");
                        }
                        cases += 1;
                    }
                }
            }
        }
        assert_eq!(cases, 16 * SurrogateKind::all().len());
    }

    #[test]
    fn channels_have_their_own_bounds_and_the_ends_count() {
        let adali = Surrogate::new(SurrogateKind::Adali);
        let parts = [histogram([-0.2, 0.2, 3.0]), histogram([-0.2, 0.2])];
        let bounds = [Bounds::new(1.0, 1.0, 0.5), Bounds::new(0.5, 0.5, 0.5)];
        let means = SlopeMeans::over(&adali, &bounds, &parts).unwrap();
        assert!((means.mean - (2.0 * 0.5 + 2.0 * 1.0) / 5.0).abs() < 1e-6, "{means:?}");
        assert!((means.mean_square - (2.0 * 0.25 + 2.0 * 1.0) / 5.0).abs() < 1e-6, "{means:?}");
        let far = [histogram([-9.0, 9.0])];
        let wide = SlopeMeans::over(&adali, &[Bounds::new(5.0, 3.0, 0.5)], &far).unwrap();
        assert!((wide.mean - 0.05).abs() < 1e-6, "{wide:?}");
        let arctan = SlopeMeans::over(&Surrogate::new(SurrogateKind::Arctan), &[], &far).unwrap();
        assert!((arctan.mean - 1.0 / (1.0 + (4.0 * std::f64::consts::PI).powi(2))).abs() < 1e-6, "{arctan:?}");
        assert_eq!(SlopeMeans::over(&adali, &bounds, &[Histogram::default()]), None);
    }
}
