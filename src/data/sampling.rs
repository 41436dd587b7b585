//! Stateless random numbers: the order of an epoch and the shift of an image depend only on the
//! seed, the epoch and the sample, so resumed runs and all backends draw the same.

use super::SampleShape;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Streams of [`CounterRng`] that this folder uses; other users take theirs from 16 on.
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

/// The order in which an epoch visits `samples`.
pub fn epoch_order(samples: &[u32], seed: u64, epoch: u32) -> Vec<u32> {
    let mut order = samples.to_vec();
    CounterRng::new(seed, stream::ORDER).fork(epoch.into()).shuffle(&mut order);
    order
}

/// How training samples are augmented.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Augmentation {
    /// Shifts an image by up to this many pixels each way, like a crop from the image with that much padding.
    pub crop_padding: u32,
    /// Mirrors half of the images left to right.
    pub flip: bool,
    /// Shifts an image by up to this many pixels each way; what leaves on one side comes back on the other.
    pub roll: u32,
    /// The share of values, in `[0, 1)`, set to a byte of 0; drawn for each pixel, frame and channel.
    pub drop: f32,
    /// Replaces an image by a random part of it, enlarged to the image's size; see [`super::augment`].
    #[serde(skip_serializing_if = "is_default")]
    pub resized_crop: bool,
    /// Applies a random sub-policy of AutoAugment's policy for CIFAR-10; see [`super::auto_augment`].
    #[serde(skip_serializing_if = "is_default")]
    pub auto_augment: bool,
    /// The side in pixels of a square, anywhere in the image, whose bytes are set to 0.
    #[serde(skip_serializing_if = "is_default")]
    pub cutout: u32,
    /// Mixes each sample with another of its batch, and the loss of their labels; see [`shares`]. 0 for never, at most 1.
    #[serde(skip_serializing_if = "is_default")]
    pub mixup: f32,
}

/// Keys that came later are written only if they are used, so that a run without them gives the bytes of older versions.
fn is_default<V: Default + PartialEq>(value: &V) -> bool {
    *value == V::default()
}

impl Augmentation {
    /// Nothing is varied.
    pub const NONE: Self = Self {
        crop_padding: 0,
        flip: false,
        roll: 0,
        drop: 0.0,
        resized_crop: false,
        auto_augment: false,
        cutout: 0,
        mixup: 0.0,
    };

    /// Whether the host prepares the bytes of each batch, as some of this is not computed where the batch is gathered.
    pub fn is_on_host(&self) -> bool {
        self.resized_crop || self.auto_augment || self.cutout > 0
    }

    /// What is left to do where a batch is gathered, after [`super::augment::augmented`] if [`Self::is_on_host`].
    pub fn after_host(&self) -> Self {
        if self.is_on_host() { Self { drop: self.drop, ..Self::NONE } } else { *self }
    }

    /// Checks the ranges against the images.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if an image could be shifted out of sight or all the way round, or
    /// if nothing of it would be left.
    pub fn validate(&self, shape: SampleShape) -> Result<()> {
        let side = shape.height.min(shape.width);
        for (name, pixels) in [("crop padding", self.crop_padding), ("roll", self.roll), ("cutout", self.cutout)] {
            if pixels as usize >= side {
                crate::bail_input!(
                    "{name} {pixels} must be below the smaller side of the images, {side}; choose a smaller one"
                );
            }
        }
        if self.crop_padding > 0 && self.roll > 0 {
            crate::bail_input!(
                "crop padding {} and roll {} both shift the images; set one of them to 0",
                self.crop_padding,
                self.roll
            );
        }
        if !(0.0..1.0).contains(&self.drop) {
            crate::bail_input!("drop {} must be at least 0 and below 1", self.drop);
        }
        if !(0.0..=1.0).contains(&self.mixup) {
            crate::bail_input!("mixup {} must be between 0 and 1", self.mixup);
        }
        if self.resized_crop && self.crop_padding.max(self.roll) > 0 {
            crate::bail_input!(
                "resized_crop and crop padding {} or roll {} both move the images; use one of them",
                self.crop_padding,
                self.roll
            );
        }
        for (name, asked) in [("resized_crop", self.resized_crop), ("auto_augment", self.auto_augment)] {
            if asked && (shape.frames != 1 || !matches!(shape.channels, 1 | 3)) {
                crate::bail_input!(
                    "{name} is for images, of one frame with 1 or 3 channels, but the samples are {shape} (frames x height \
                     x width x channels); leave it out"
                );
            }
        }
        Ok(())
    }
}

/// Where an image is read for one visit; the same for all frames of a sample.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Each value is read this many pixels to the right.
    pub dx: i32,
    /// Each value is read this many pixels below.
    pub dy: i32,
    /// Whether the shifted image is then mirrored left to right.
    pub flip: bool,
    /// Whether reads outside the image wrap around to its other side.
    pub wraps: bool,
    /// The seed of the dropped values; see [`crate::backend::keeps`].
    pub mask: u64,
}

impl Placement {
    /// The row and column of the image shown at row `y` and column `x`, like `RandomCrop` followed by a flip:
    /// `(y + dy, x' + dx)` with `x' = width - 1 - x` when flipped, modulo the extents when it wraps. Without wrapping,
    /// `None` outside of the image, where bytes of 0 are shown.
    pub fn source(&self, y: usize, x: usize, height: usize, width: usize) -> Option<(usize, usize)> {
        let x = if self.flip { width.checked_sub(1)?.checked_sub(x)? } else { x };
        let shifted = |at: usize, by: i32, extent: usize| match self.wraps {
            true => Some((at as i64 + i64::from(by)).rem_euclid(extent as i64) as usize),
            false => at.checked_add_signed(by as isize).filter(|&at| at < extent),
        };
        Some((shifted(y, self.dy, height)?, shifted(x, self.dx, width)?))
    }
}

/// The generator of everything that is drawn for a sample in an epoch; each kind of draw forks its own.
pub(super) fn draws(seed: u64, epoch: u32, sample: u32) -> CounterRng {
    CounterRng::new(seed, stream::PLACEMENT).fork(epoch.into()).fork(sample.into())
}

/// The placement of a sample in an epoch: `dx` and `dy` uniform in `-crop_padding ..= crop_padding`, or in the range of
/// the roll, and a flip in half of the cases. No draw depends on whether the others are enabled.
pub fn placement(augmentation: &Augmentation, seed: u64, epoch: u32, sample: u32) -> Placement {
    let case = draws(seed, epoch, sample);
    let padding = i64::from(augmentation.crop_padding.max(augmentation.roll));
    let shift = |mut rng: CounterRng| (rng.below(2 * padding as u64 + 1) as i64 - padding) as i32;
    Placement {
        dx: shift(case.fork(0)),
        dy: shift(case.fork(1)),
        flip: augmentation.flip && case.fork(2).next_u64() >> 63 == 1,
        wraps: augmentation.roll > 0,
        mask: if augmentation.drop > 0.0 { case.fork(3).next_u64() } else { 0 },
    }
}

/// Mixup (Zhang et al., 2018): the share of each of these samples in what the network sees, drawn from Beta(a, a); the sample
/// at position `n` of a batch of `N` is mixed with that at `N - 1 - n`. Empty without mixup.
pub fn shares(augmentation: &Augmentation, seed: u64, epoch: u32, samples: &[u32]) -> Vec<f32> {
    if augmentation.mixup == 0.0 {
        return Vec::new();
    }
    samples.iter().map(|&sample| beta(augmentation.mixup, draws(seed, epoch, sample).fork(5))).collect()
}

/// A draw of Beta(a, a) for `a` up to 1 (Jöhnk, 1964), in logarithms because powers of small numbers may be 0.
fn beta(a: f32, mut rng: CounterRng) -> f32 {
    loop {
        let mut log_power = || (1.0 - rng.uniform()).ln() / f64::from(a);
        let (x, y) = (log_power(), log_power());
        if x.exp() + y.exp() <= 1.0 {
            return (1.0 / (1.0 + (y - x).exp())) as f32;
        }
    }
}

#[cfg(test)]
mod tests {
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
    fn chi_square(counts: &[u32]) -> f64 {
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

    #[test]
    fn an_epoch_is_a_permutation_that_repeats() {
        let samples: Vec<u32> = (0..500).map(|i| 3 * i).collect();
        let mut orders = HashSet::new();
        for (seed, epoch) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
            let order = epoch_order(&samples, seed, epoch);
            assert_eq!(order, epoch_order(&samples, seed, epoch));
            let mut sorted = order.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, samples);
            orders.insert(order);
        }
        assert_eq!(orders.len(), 4);
        assert!(epoch_order(&[], 0, 0).is_empty());
        // Frozen so that a checkpoint of one version resumes in the next.
        assert_eq!(epoch_order(&[0, 1, 2, 3, 4, 5, 6, 7], 42, 3), [4, 3, 0, 2, 6, 7, 5, 1]);
    }

    #[test]
    fn each_order_of_three_is_as_likely() {
        let mut counts = [0; 6];
        for epoch in 0..12_000 {
            let order = epoch_order(&[0, 1, 2], 9, epoch);
            counts[(2 * order[0] + u32::from(order[1] > order[2])) as usize] += 1;
        }
        assert!(chi_square(&counts) < 20.5, "{counts:?}"); // 99.9 % at 5 degrees of freedom
    }

    #[test]
    fn shifts_and_flips_are_uniform_and_independent_of_each_other() {
        let both = Augmentation { crop_padding: 2, flip: true, ..Augmentation::default() };
        let (mut counts, mut masks) = ([0; 50], HashSet::new());
        for sample in 0..50_000 {
            let placed = placement(&both, 7, 1, sample);
            assert_eq!(placed, placement(&both, 7, 1, sample));
            let unflipped = placement(&Augmentation { flip: false, ..both }, 7, 1, sample);
            assert_eq!(unflipped, Placement { flip: false, ..placed });
            let rolled = placement(&Augmentation { crop_padding: 0, roll: 2, drop: 0.1, ..both }, 7, 1, sample);
            assert_eq!(rolled, Placement { wraps: true, mask: rolled.mask, ..placed });
            masks.insert(rolled.mask);
            counts[((placed.dx + 2) * 10 + (placed.dy + 2) * 2 + i32::from(placed.flip)) as usize] += 1;
        }
        assert!(chi_square(&counts) < 85.4, "{counts:?}"); // 99.9 % at 49 degrees of freedom
        assert_eq!(masks.len(), 50_000);
        assert_eq!(placement(&Augmentation::default(), 7, 1, 3), Placement::default());
        placement(&Augmentation { crop_padding: u32::MAX, ..both }, 7, 1, 3);
    }

    #[test]
    fn a_placement_reads_inside_or_nothing() {
        let shifted = Placement { dx: 2, dy: -1, ..Placement::default() };
        assert_eq!(shifted.source(0, 0, 4, 5), None);
        assert_eq!(shifted.source(1, 0, 4, 5), Some((0, 2)));
        assert_eq!(shifted.source(3, 2, 4, 5), Some((2, 4)));
        assert_eq!(shifted.source(3, 3, 4, 5), None);
        let flipped = Placement { flip: true, ..shifted };
        assert_eq!(flipped.source(1, 4, 4, 5), Some((0, 2)));
        assert_eq!(flipped.source(1, 2, 4, 5), Some((0, 4)));
        assert_eq!(flipped.source(1, 1, 4, 5), None);
        let rolled = Placement { wraps: true, ..shifted };
        assert_eq!(rolled.source(0, 0, 4, 5), Some((3, 2)));
        assert_eq!(rolled.source(3, 3, 4, 5), Some((2, 0)));
        assert_eq!(Placement { wraps: true, ..flipped }.source(1, 1, 4, 5), Some((0, 0)));
    }

    #[test]
    fn an_augmentation_must_leave_something() {
        let shape = SampleShape { frames: 1, height: 4, width: 9, channels: 1 };
        let none = Augmentation::NONE;
        assert_eq!(none, Augmentation::default());
        for good in [Augmentation { crop_padding: 3, ..none }, Augmentation { roll: 3, drop: 0.99, ..none }] {
            assert!(good.validate(shape).is_ok());
        }
        for bad in [
            Augmentation { crop_padding: 4, ..none },
            Augmentation { roll: 4, ..none },
            Augmentation { crop_padding: 1, roll: 1, ..none },
            Augmentation { drop: 1.0, ..none },
            Augmentation { drop: -0.1, ..none },
            Augmentation { drop: f32::NAN, ..none },
            Augmentation { cutout: 4, ..none },
            Augmentation { resized_crop: true, roll: 1, ..none },
        ] {
            assert!(bad.validate(shape).unwrap_err().is::<crate::error::InputError>(), "{bad:?}");
        }
        for good in [
            Augmentation { resized_crop: true, flip: true, cutout: 3, ..none },
            Augmentation { auto_augment: true, crop_padding: 2, ..none },
        ] {
            assert!(good.validate(shape).is_ok());
            for (frames, channels) in [(2, 1), (1, 2)] {
                assert!(good.validate(SampleShape { frames, channels, ..shape }).is_err());
            }
        }
    }
}
