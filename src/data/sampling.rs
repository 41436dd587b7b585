//! The order of an epoch, and how its samples are varied: draws that depend only on the seed, the epoch and the sample.

use super::SampleShape;
use crate::random::{CounterRng, stream};
use anyhow::Result;
use serde::{Deserialize, Serialize};

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
    /// Mixes each sample with another of its batch, and the loss of their labels; see [`super::mixup`]. 0 for never, at most 1.
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

    /// What is left to do for each sample where a batch is gathered, after [`super::augment::augmented`] if
    /// [`Self::is_on_host`]. Mixup, which is for pairs, comes after that.
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

/// What is drawn for a sample in an epoch, each independently of the others. The numbers are part of what a seed means.
#[derive(Clone, Copy)]
pub(super) enum Draw {
    ShiftX = 0,
    ShiftY = 1,
    Flip = 2,
    Mask = 3,
    Part = 4,
    Policy = 5,
    Cutout = 6,
    Share = 7,
}

/// The generator of one draw for a sample in an epoch.
pub(super) fn draws(seed: u64, epoch: u32, sample: u32, draw: Draw) -> CounterRng {
    CounterRng::new(seed, stream::PLACEMENT).fork(epoch.into()).fork(sample.into()).fork(draw as u64)
}

/// The placement of a sample in an epoch: `dx` and `dy` uniform in `-crop_padding ..= crop_padding`, or in the range of
/// the roll, and a flip in half of the cases. No draw depends on whether the others are enabled.
pub fn placement(augmentation: &Augmentation, seed: u64, epoch: u32, sample: u32) -> Placement {
    let case = |draw| draws(seed, epoch, sample, draw);
    let padding = i64::from(augmentation.crop_padding.max(augmentation.roll));
    let shift = |mut rng: CounterRng| (rng.below(2 * padding as u64 + 1) as i64 - padding) as i32;
    Placement {
        dx: shift(case(Draw::ShiftX)),
        dy: shift(case(Draw::ShiftY)),
        flip: augmentation.flip && case(Draw::Flip).next_u64() >> 63 == 1,
        wraps: augmentation.roll > 0,
        mask: if augmentation.drop > 0.0 { case(Draw::Mask).next_u64() } else { 0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::tests::chi_square;
    use std::collections::HashSet;

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
