//! Augmentation by the host, for what changes more than the place of a pixel: a batch's bytes are prepared before they are
//! uploaded, so that every backend reads the same ones. In torchvision's order: `RandomResizedCrop` or a shift, a flip,
//! `AutoAugment`, and last the cutout.

use super::SampleShape;
use super::auto_augment;
use super::image_ops::Image;
use super::sampling::{Augmentation, Draw, Placement, draws, placement};
use crate::random::CounterRng;
use rayon::prelude::*;
use std::borrow::Cow;

/// Share of the image's area that a random part takes, and the ratio of its width to its height \[torchvision\].
const AREA: [f64; 2] = [0.08, 1.0];
const RATIO: [f64; 2] = [3.0 / 4.0, 4.0 / 3.0];
/// Parts that are drawn before the largest one in the middle is taken instead.
const TRIES: usize = 10;

/// The samples of a batch, by index into `values`, augmented if the host has to; see [`Augmentation::is_on_host`].
pub fn prepared<'a>(
    values: &'a [u8],
    shape: SampleShape,
    augmentation: &Augmentation,
    seed: u64,
    epoch: u32,
    samples: &[u32],
) -> Vec<Cow<'a, [u8]>> {
    let sample = |&index: &u32| &values[index as usize * shape.len()..][..shape.len()];
    if !augmentation.is_on_host() {
        return samples.iter().map(|index| sample(index).into()).collect();
    }
    let of = |index: &u32| augmented(sample(index), shape, augmentation, seed, epoch, *index).into();
    samples.par_iter().map(of).collect()
}

/// One sample, `[frames][height][width][channels]`, as an epoch shows it, except for what
/// [`Augmentation::after_host`] leaves.
pub fn augmented(
    sample: &[u8],
    shape: SampleShape,
    augmentation: &Augmentation,
    seed: u64,
    epoch: u32,
    index: u32,
) -> Vec<u8> {
    let rng = |draw| draws(seed, epoch, index, draw);
    let SampleShape { height, width, channels, .. } = shape;
    let frame = height * width * channels;
    let image = |bytes: Vec<u8>| Image { height, width, channels, bytes };
    let mut bytes = sample.to_vec();
    if augmentation.resized_crop {
        bytes = resized_crop(&image(bytes), rng(Draw::Part)).bytes;
    }
    bytes = placed(&bytes, shape, &placement(augmentation, seed, epoch, index));
    if augmentation.auto_augment {
        let mut whole = image(bytes);
        auto_augment::apply(&mut whole, rng(Draw::Policy));
        bytes = whole.bytes;
    }
    if augmentation.cutout > 0 {
        bytes.chunks_exact_mut(frame).for_each(|frame| cut_out(frame, shape, augmentation.cutout, rng(Draw::Cutout)));
    }
    bytes
}

/// A random part of an image, enlarged to its size.
fn resized_crop(image: &Image, mut rng: CounterRng) -> Image {
    let mut between = |[low, high]: [f64; 2]| low + (high - low) * rng.uniform();
    let drawn = (0..TRIES).find_map(|_| {
        let area = (image.height * image.width) as f64 * between(AREA);
        let ratio = between(RATIO.map(f64::ln)).exp();
        let [width, height] = [area * ratio, area / ratio].map(|square| square.sqrt().round_ties_even() as usize);
        ((1..=image.width).contains(&width) && (1..=image.height).contains(&height)).then_some((height, width))
    });
    let (top, left, height, width) = match drawn {
        Some((height, width)) => {
            let mut start = |room: usize| rng.below(room as u64 + 1) as usize;
            (start(image.height - height), start(image.width - width), height, width)
        }
        None => {
            let (height, width) = largest(image.height, image.width);
            ((image.height - height) / 2, (image.width - width) / 2, height, width)
        }
    };
    image.crop(top, left, height, width).resize(image.height, image.width)
}

/// The largest part whose ratio is allowed.
fn largest(height: usize, width: usize) -> (usize, usize) {
    let ratio = width as f64 / height as f64;
    if ratio < RATIO[0] {
        ((width as f64 / RATIO[0]).round_ties_even() as usize, width)
    } else if ratio > RATIO[1] {
        (height, (height as f64 * RATIO[1]).round_ties_even() as usize)
    } else {
        (height, width)
    }
}

/// The bytes as the placement shows them; 0 outside.
fn placed(sample: &[u8], shape: SampleShape, placement: &Placement) -> Vec<u8> {
    let SampleShape { height, width, channels, .. } = shape;
    let mut out = Vec::with_capacity(sample.len());
    for frame in sample.chunks_exact(height * width * channels) {
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            match placement.source(y, x, height, width) {
                Some((y, x)) => out.extend_from_slice(&frame[(y * width + x) * channels..][..channels]),
                None => out.resize(out.len() + channels, 0),
            }
        }
    }
    out
}

/// Sets a square around a random pixel to 0; the part outside the image is lost (T. DeVries and G. Taylor, "Improved
/// regularization of convolutional neural networks with cutout", 2017).
fn cut_out(frame: &mut [u8], shape: SampleShape, side: u32, mut rng: CounterRng) {
    let side = side as usize;
    let mut covered = |extent: usize| {
        let middle = rng.below(extent as u64) as usize;
        middle.saturating_sub(side / 2)..(middle + side.div_ceil(2)).min(extent)
    };
    let (rows, columns) = (covered(shape.height), covered(shape.width));
    for y in rows {
        let line = y * shape.width;
        frame[(line + columns.start) * shape.channels..(line + columns.end) * shape.channels].fill(0);
    }
}
