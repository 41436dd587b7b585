//! Stateless random numbers: a draw depends only on a seed, a purpose and what it is for, so resumed runs and all backends
//! draw the same.

/// Streams of [`CounterRng`], one per purpose.
pub mod stream {
    /// The order of an epoch.
    pub const ORDER: u64 = 1;
    /// Shifts, flips and all other augmentation.
    pub const PLACEMENT: u64 = 2;
    /// Which samples are held out.
    pub const HOLD_OUT: u64 = 3;
    /// A simulated sensor's thresholds.
    pub const THRESHOLDS: u64 = 4;
    /// A simulated sensor's noise.
    pub const SENSOR_NOISE: u64 = 5;
    /// Initial weights.
    pub const WEIGHTS: u64 = 16;
    /// Dropout masks.
    pub const DROPOUT: u64 = 17;
}

/// SplitMix64's increment, 2^64 over the golden ratio.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's finaliser (G. Steele, D. Lea and C. Flood, OOPSLA 2014, with D. Stafford's constants "Mix13").
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A generator whose `n`-th number is a function of its key and `n`: SplitMix64 from a hashed start.
///
/// Not cryptographically secure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CounterRng {
    state: u64,
}

impl CounterRng {
    /// The generator for a seed and a purpose (see [`stream`]); different streams of one seed are independent.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self { state: mix(seed.wrapping_add(GAMMA)) }.fork(stream)
    }

    /// Derives the generator of one case, such as an epoch or a sample; `self` does not change.
    pub fn fork(&self, case: u64) -> Self {
        // The complement keeps this apart from the numbers that `next_u64` returns.
        Self { state: mix(!mix(self.state.wrapping_add(case.wrapping_mul(GAMMA)))) }
    }

    /// The next number, uniform over all 64-bit values.
    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GAMMA);
        mix(self.state)
    }

    /// The next number below `n`, all equally likely (D. Lemire, "Fast random integer generation in an interval",
    /// 2019). Panics if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        assert!(n > 0, "no number is below 0");
        let rejected = n.wrapping_neg() % n;
        loop {
            let product = u128::from(self.next_u64()) * u128::from(n);
            if product as u64 >= rejected {
                return (product >> 64) as u64;
            }
        }
    }

    /// The next number in `[0, 1)`, a multiple of 2^-53.
    pub fn uniform(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Two independent standard normal numbers (Box and Muller).
    pub fn normal_pair(&mut self) -> [f64; 2] {
        let radius = (-2.0 * (1.0 - self.uniform()).ln()).sqrt();
        let (sine, cosine) = (std::f64::consts::TAU * self.uniform()).sin_cos();
        [radius * cosine, radius * sine]
    }

    /// Shuffles `items`; all permutations are equally likely (Fisher and Yates).
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_numbers_are_split_mix_64() {
        // The published sequences for the seeds 0 and 1234567.
        let mut zero = CounterRng { state: 0 };
        assert_eq!([(); 3].map(|()| zero.next_u64()), [0xe220a8397b1dcdaf, 0x6e789e6aa1b965f4, 0x06c45d188009454f]);
        let mut other = CounterRng { state: 1234567 };
        assert_eq!([(); 3].map(|()| other.next_u64()), [6457827717110365317, 3203168211198807973, 9817491932198370423]);
    }

    #[test]
    fn keys_do_not_meet() {
        let mut seen = HashSet::new();
        for seed in 0..40 {
            for stream in 0..20 {
                let mut rng = CounterRng::new(seed, stream);
                for case in 0..10 {
                    assert!(seen.insert(rng.fork(case).next_u64()));
                }
                for _ in 0..10 {
                    assert!(seen.insert(rng.next_u64()));
                }
            }
        }
        assert_eq!(seen.len(), 40 * 20 * 20);
    }

    /// Chi-square of counts that should be equal.
    pub(crate) fn chi_square(counts: &[u32]) -> f64 {
        let mean = counts.iter().sum::<u32>() as f64 / counts.len() as f64;
        counts.iter().map(|&count| (count as f64 - mean).powi(2) / mean).sum()
    }

    #[test]
    fn below_is_uniform_and_in_range() {
        let mut rng = CounterRng::new(5, 99);
        let mut counts = [0; 7];
        for _ in 0..70_000 {
            counts[rng.below(7) as usize] += 1;
        }
        // The 99.9 % quantile at 6 degrees of freedom is 22.5.
        assert!(chi_square(&counts) < 22.5, "{counts:?}");
        assert_eq!(rng.below(1), 0);
        // Three quarters of 2^64: without rejection, half of the numbers would be multiples of 3.
        let bound = 3 << 62;
        let multiples = (0..30_000).filter(|_| rng.below(bound).is_multiple_of(3)).count();
        assert!((9_650..10_350).contains(&multiples), "{multiples}");
    }

    #[test]
    fn uniform_fills_the_unit_interval() {
        let mut rng = CounterRng::new(1, 77);
        let draws: Vec<f64> = (0..100_000).map(|_| rng.uniform()).collect();
        assert!(draws.iter().all(|draw| (0.0..1.0).contains(draw)));
        let mean = draws.iter().sum::<f64>() / draws.len() as f64;
        let square = draws.iter().map(|draw| draw * draw).sum::<f64>() / draws.len() as f64;
        assert!((mean - 0.5).abs() < 0.004 && (square - 1.0 / 3.0).abs() < 0.004, "{mean} {square}");
    }
}
