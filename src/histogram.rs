//! Histograms of membrane potentials relative to the threshold, `z = (H - theta)/theta`.

/// Equal bins over `z` in `[-RANGE, RANGE)`.
pub const BINS: usize = 512;
/// Half the width of the histogram, in units of the threshold.
pub const RANGE: f64 = 4.0;
const BINS_PER_UNIT: f64 = BINS as f64 / (2.0 * RANGE);
/// Counts of `z` in equal bins; integers, so that the order of counting does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    pub bins: Vec<u64>,
    /// `z < -RANGE`.
    pub underflow: u64,
    /// `z >= RANGE`.
    pub overflow: u64,
    /// NaN or infinite.
    pub non_finite: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: vec![0; BINS], underflow: 0, overflow: 0, non_finite: 0 }
    }
}

impl Histogram {
    /// Counts one potential.
    #[inline(always)]
    pub fn count(&mut self, z: f32) {
        if !z.is_finite() {
            self.non_finite += 1;
            return;
        }
        // Scaling by a power of two is exact, so z = 0 is the lower edge of bin BINS/2 and no negative z falls into it.
        let bin = (z * BINS_PER_UNIT as f32).floor() + (BINS / 2) as f32;
        if bin < 0.0 {
            self.underflow += 1;
        } else if bin >= BINS as f32 {
            self.overflow += 1;
        } else {
            self.bins[bin as usize] += 1;
        }
    }

    /// Adds another histogram's counts.
    pub fn merge(&mut self, other: &Self) {
        for (a, b) in self.bins.iter_mut().zip(&other.bins) {
            *a += b;
        }
        self.underflow += other.underflow;
        self.overflow += other.overflow;
        self.non_finite += other.non_finite;
    }

    /// Finite samples.
    pub fn total(&self) -> u64 {
        self.below() + self.spikes()
    }

    /// Samples with `z < 0`.
    fn below(&self) -> u64 {
        self.underflow + self.bins[..BINS / 2].iter().sum::<u64>()
    }

    /// Samples with `z >= 0`: the spikes.
    pub fn spikes(&self) -> u64 {
        self.overflow + self.bins[BINS / 2..].iter().sum::<u64>()
    }

    /// Share of samples that spike; 0 when nothing was sampled.
    pub fn firing_rate(&self) -> f64 {
        self.spikes() as f64 / self.total().max(1) as f64
    }

    /// Share of samples in `[-left, right]`, linear inside a bin; 0 when nothing was sampled.
    pub fn share_inside(&self, left: f64, right: f64) -> f64 {
        (self.cumulative(right) - self.cumulative(-left)).max(0.0) / self.total().max(1) as f64
    }

    /// Number of samples below `z`, linear inside a bin; counts beyond the range lie at its ends.
    fn cumulative(&self, z: f64) -> f64 {
        let position = ((z + RANGE) * BINS_PER_UNIT).clamp(0.0, BINS as f64);
        let whole = position as usize;
        let mut count = self.underflow + self.bins[..whole].iter().sum::<u64>();
        let part = self.bins.get(whole).map_or(0.0, |&n| n as f64 * (position - whole as f64));
        if z >= RANGE {
            count += self.overflow;
        }
        count as f64 + part
    }

    /// Standard deviation of `z`, with a bin's samples at its centre and those beyond the range at its ends; 0 when nothing
    /// was sampled.
    pub fn std(&self) -> f64 {
        // In half bins from the threshold, so that the sums are whole numbers.
        let halves = |bin: usize| 2 * bin as i64 + 1 - BINS as i64;
        let ends = [(-(BINS as i64), self.underflow), (BINS as i64, self.overflow)];
        let bins = self.bins.iter().enumerate().map(|(bin, &count)| (halves(bin), count));
        let (mut sum, mut squares) = (0i64, 0i64);
        for (at, count) in bins.chain(ends) {
            sum = sum.wrapping_add(at.wrapping_mul(count as i64));
            squares = squares.wrapping_add((at * at).wrapping_mul(count as i64));
        }
        let total = self.total().max(1) as f64;
        let mean = sum as f64 / total;
        (squares as f64 / total - mean * mean).max(0.0).sqrt() / (2.0 * BINS_PER_UNIT)
    }

    /// The `z` below which the share `q` of samples lies, linear inside a bin; infinite where the counts beyond
    /// the range hide it. `None` when nothing was sampled.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let mut wanted = q.clamp(0.0, 1.0) * total as f64 - self.underflow as f64;
        if wanted < 0.0 {
            return Some(f64::NEG_INFINITY);
        }
        for (bin, &count) in self.bins.iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && wanted <= count {
                return Some((bin as f64 + wanted / count) / BINS_PER_UNIT - RANGE);
            }
            wanted -= count;
        }
        Some(f64::INFINITY)
    }

    /// The `W` for which the share `p` of samples has `|z| <= W`, linear inside a bin; infinite where the
    /// counts beyond the range hide it. `None` when nothing was sampled.
    pub fn symmetric_quantile(&self, p: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let mut wanted = p.clamp(0.0, 1.0) * total as f64;
        for distance in 0..BINS / 2 {
            let count = (self.bins[BINS / 2 + distance] + self.bins[BINS / 2 - 1 - distance]) as f64;
            if count > 0.0 && wanted <= count {
                return Some((distance as f64 + wanted / count) / BINS_PER_UNIT);
            }
            wanted -= count;
        }
        Some(f64::INFINITY)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    pub fn histogram(samples: impl IntoIterator<Item = f32>) -> Histogram {
        let mut histogram = Histogram::default();
        samples.into_iter().for_each(|z| histogram.count(z));
        histogram
    }

    /// `n` values spread evenly over `[low, high)`.
    pub fn uniform(low: f32, high: f32, n: usize) -> impl Iterator<Item = f32> {
        (0..n).map(move |i| low + (high - low) * (i as f32 + 0.5) / n as f32)
    }

    #[test]
    fn every_potential_lands_in_its_bin() {
        let h = histogram([-4.0, -1e-9, 0.0, 3.999, 4.0, -4.001, f32::NAN, f32::INFINITY, f32::NEG_INFINITY]);
        assert_eq!((h.bins[0], h.bins[255], h.bins[256], h.bins[511]), (1, 1, 1, 1));
        assert_eq!((h.underflow, h.overflow, h.non_finite, h.total(), h.spikes()), (1, 1, 3, 6, 3));
    }

    #[test]
    fn quantiles_of_a_uniform_distribution() {
        let h = histogram(uniform(-2.0, 2.0, 40_000));
        for q in [0.01, 0.25, 0.5, 0.9, 1.0] {
            assert!((h.quantile(q).unwrap() - (4.0 * q - 2.0)).abs() < 0.005, "{q}");
            assert!((h.symmetric_quantile(q).unwrap() - 2.0 * q).abs() < 0.005, "{q}");
        }
        assert!((h.share_inside(1.0, 0.5) - 0.375).abs() < 0.002);
        assert!((h.firing_rate() - 0.5).abs() < 1e-9);
    }
}
