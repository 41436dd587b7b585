//! Augmentations by the host: operations against Pillow's, byte for byte, and what is drawn for a sample.

use adali::backend::LossSpec;
use adali::backend::cpu::input::mix;
use adali::backend::cpu::layout::pitch;
use adali::backend::cpu::loss::loss;
use adali::backend::shape::Span;
use adali::data::SampleShape;
use adali::data::augment::augmented;
use adali::data::auto_augment::{
    Operation::{self, *},
    perform,
};
use adali::data::image_ops::Image;
use adali::data::mixup::shares;
use adali::data::sampling::{Augmentation, placement};
use std::collections::HashSet;

/// The image of `tests/parity/augmentations.py`.
fn image(height: usize, width: usize, channels: usize, contrast: bool) -> Image {
    let byte = |i: usize| {
        let (y, x, c) = (i / channels / width, i / channels % width, i % channels);
        let noise = ((i as u64 * 2_654_435_761) as u32 >> 26) as usize;
        let value = (7 * x + 5 * y + 60 * c + noise) % 256;
        (if contrast { 40 + value / 3 } else { value }) as u8
    };
    Image { height, width, channels, bytes: (0..height * width * channels).map(byte).collect() }
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

const OPERATIONS: [Operation; 13] = [
    Invert,
    Contrast,
    Rotate,
    TranslateX,
    TranslateY,
    Sharpness,
    ShearY,
    AutoContrast,
    Equalize,
    Posterize,
    Color,
    Brightness,
    Solarize,
];

#[test]
fn operations_give_the_bytes_of_pillow() {
    let mut cases = 0;
    for line in include_str!("parity/augmentations.txt").lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<&str> = line.split(' ').collect();
        let [height, width, channels, contrast] = [0, 1, 2, 3].map(|at| words[at].parse::<usize>().unwrap());
        let mut image = image(height, width, channels, contrast == 1);
        match words[4] {
            "Itself" => {}
            "Resize" => image = image.resize(words[5].parse().unwrap(), words[6].parse().unwrap()),
            name => {
                let operation = OPERATIONS.into_iter().find(|operation| format!("{operation:?}") == name).expect(name);
                perform(&mut image, operation, words[5].parse().unwrap(), words[6] == "-");
            }
        }
        assert_eq!(format!("{:016x}", fnv(&image.bytes)), *words.last().unwrap(), "{line}");
        cases += 1;
    }
    assert_eq!(cases, 5 * (1 + 8 * 10 * 2 + 2 * 10 + 3 + 6));
}

const SHAPE: SampleShape = SampleShape { frames: 1, height: 20, width: 16, channels: 3 };

fn shown(augmentation: Augmentation, seed: u64, epoch: u32, sample: u32) -> Vec<u8> {
    augmented(&image(20, 16, 3, false).bytes, SHAPE, &augmentation, seed, epoch, sample)
}

#[test]
fn a_sample_is_shown_differently_in_each_epoch_and_in_the_same_way_again() {
    for augmentation in [
        Augmentation { auto_augment: true, ..Augmentation::NONE },
        Augmentation { resized_crop: true, ..Augmentation::NONE },
        Augmentation { cutout: 5, ..Augmentation::NONE },
    ] {
        assert!(augmentation.is_on_host());
        let mut seen = HashSet::new();
        for (seed, epoch, sample) in (0..8).flat_map(|i| [(i, 1, 1), (1, i as u32 + 2, 1), (1, 1, i as u32 + 2)]) {
            let bytes = shown(augmentation, seed, epoch, sample);
            assert_eq!(bytes, shown(augmentation, seed, epoch, sample));
            seen.insert(bytes);
        }
        assert!(seen.len() > 12, "{augmentation:?}: {} of 24 differ", seen.len());
    }
    // Frozen, so that a run of one version resumes in the next.
    let all = Augmentation { auto_augment: true, crop_padding: 4, flip: true, cutout: 6, ..Augmentation::NONE };
    let resized = Augmentation { resized_crop: true, flip: true, ..Augmentation::NONE };
    let frozen = [all, resized].map(|augmentation| {
        let bytes: Vec<u8> = (0..50).flat_map(|sample| shown(augmentation, 42, 3, sample)).collect();
        format!("{:016x}", fnv(&bytes))
    });
    assert_eq!(frozen, ["761fe3febbdb9f10", "12efb6e299077d80"]);
}

#[test]
fn the_host_shifts_and_flips_as_a_backend_would() {
    let original = image(20, 16, 3, false);
    // A policy of brightness would hide it: the cutout leaves all but one pixel.
    let augmentation = Augmentation { crop_padding: 3, flip: true, cutout: 1, ..Augmentation::NONE };
    for sample in 0..40 {
        let placement = placement(&augmentation, 5, 2, sample);
        let bytes = shown(augmentation, 5, 2, sample);
        let expected = (0..20).flat_map(|y| (0..16).map(move |x| (y, x))).flat_map(|(y, x)| {
            let source = placement.source(y, x, 20, 16).map(|(y, x)| (y * 16 + x) * 3);
            source.map_or([0; 3], |at| original.bytes[at..][..3].try_into().unwrap())
        });
        let differ = bytes.iter().zip(expected).filter(|(byte, expected)| *byte != expected).count();
        assert!(differ <= 3, "{differ} values of sample {sample}");
    }
    let rest = Augmentation { drop: 0.3, ..augmentation }.after_host();
    assert_eq!(rest, Augmentation { drop: 0.3, ..Augmentation::NONE });
    let device = Augmentation { crop_padding: 3, roll: 0, flip: true, drop: 0.1, ..Augmentation::NONE };
    assert!(!device.is_on_host() && device.after_host() == device);
}

#[test]
fn mixup_mixes_pairs_and_their_losses() {
    let augmentation = Augmentation { mixup: 0.4, ..Augmentation::NONE };
    assert!(shares(&Augmentation::NONE, 1, 1, &[3, 4]).is_empty());
    // Mean and variance of Beta(a, a), within five deviations of 20 000 draws.
    for mixup in [0.01, 0.2, 1.0f32] {
        let samples: Vec<u32> = (0..20_000).collect();
        let all: Vec<f64> =
            shares(&Augmentation { mixup, ..augmentation }, 9, 2, &samples).into_iter().map(f64::from).collect();
        assert!(all.iter().all(|share| (0.0..=1.0).contains(share)));
        let mean = all.iter().sum::<f64>() / 20_000.0;
        let variance = all.iter().map(|share| (share - mean).powi(2)).sum::<f64>() / 20_000.0;
        let want = 1.0 / (4.0 * (2.0 * f64::from(mixup) + 1.0));
        assert!((mean - 0.5).abs() < 5.0 * (want / 20_000.0).sqrt(), "{mixup}: {mean}");
        assert!((variance - want).abs() < 0.02 * want, "{mixup}: {variance}, not {want}");
    }
    // By sample and epoch, wherever in the batch a sample is.
    let drawn = shares(&augmentation, 9, 2, &[5, 6, 7]);
    assert_eq!(drawn, shares(&augmentation, 9, 2, &[7, 6, 5]).into_iter().rev().collect::<Vec<_>>());
    assert_ne!(drawn, shares(&augmentation, 9, 3, &[5, 6, 7]));
    let plain: Vec<f32> = (0..6).map(|i| i as f32 * i as f32).collect();
    let mut mixed = plain.clone();
    mix(&drawn, 2, &mut mixed);
    let (classes, labels) = (3, [2u16, 0, 1]);
    for n in 0..3 {
        let share = drawn[n];
        for i in 0..2 {
            let want = share * plain[2 * n + i] + (1.0 - share) * plain[2 * (2 - n) + i];
            assert!((mixed[2 * n + i] - want).abs() < 1e-4, "sample {n}");
        }
        // The loss is linear in the labels.
        for spec in [(0.0, 0.1, false), (0.3, 0.0, true)] {
            let spec = LossSpec { mse: spec.0, label_smoothing: spec.1, tet: spec.2 };
            let pitch = pitch(classes);
            let logit = |i: usize| if i % pitch < classes { (i as f32 / 3.0).sin() } else { 0.0 };
            let logits: Vec<f32> = (0..2 * pitch).map(logit).collect();
            let span = Span { batch: 1, steps: 2 };
            let of = |label: u16| {
                let mut gradient = vec![0.0; logits.len()];
                (loss(&spec, classes, span, &logits, &[label], &[], Some(&mut gradient)), gradient)
            };
            let ((own, own_gradient), (other, other_gradient)) = (of(labels[n]), of(labels[2 - n]));
            let three = logits.repeat(3);
            let mut gradient = vec![0.0; three.len()];
            let span = Span { batch: 3, steps: 2 };
            // All samples have the same logits; only this one's gradient is compared.
            loss(&spec, classes, span, &three, &labels, &drawn, Some(&mut gradient));
            let by_share = |a: f32, b: f32| share * a + (1.0 - share) * b;
            for i in 0..logits.len() {
                let want = by_share(own_gradient[i], other_gradient[i]) / 3.0;
                assert!((gradient[n * logits.len() + i] - want).abs() < 1e-6, "sample {n}, {spec:?}");
            }
            let alone = loss(
                &spec,
                classes,
                Span { batch: 2, steps: 2 },
                &three,
                &[labels[n], labels[2 - n]],
                &[share, 1.0 - share],
                None,
            );
            let want = 2.0 * (f64::from(share) * own.loss + f64::from(1.0 - share) * other.loss);
            assert!((alone.loss - want).abs() < 1e-6, "sample {n}, {spec:?}");
        }
    }
}

#[test]
fn a_cutout_is_a_square_that_may_reach_over_the_edge() {
    let shape = SampleShape { frames: 2, height: 12, width: 10, channels: 2 };
    let (mut whole, mut centers) = (0, HashSet::new());
    for side in [1, 4, 5] {
        let augmentation = Augmentation { cutout: side as u32, ..Augmentation::NONE };
        for sample in 0..400 {
            let bytes = augmented(&vec![7; shape.len()], shape, &augmentation, 1, 1, sample);
            let (first, second) = bytes.split_at(shape.len() / 2);
            assert_eq!(first, second, "the same in every frame");
            let cut: Vec<usize> = (0..120).filter(|&i| first[2 * i..][..2] == [0, 0]).collect();
            assert_eq!(first.iter().filter(|byte| **byte == 0).count(), 2 * cut.len());
            let rows: HashSet<_> = cut.iter().map(|i| i / 10).collect();
            let columns: HashSet<_> = cut.iter().map(|i| i % 10).collect();
            assert_eq!(rows.len() * columns.len(), cut.len());
            assert!((1..=side).contains(&rows.len()) && (1..=side).contains(&columns.len()));
            whole += usize::from(cut.len() == side * side);
            if side == 1 {
                centers.insert(cut[0]);
            }
        }
    }
    assert!(whole > 600 && centers.len() > 110, "{whole} {}", centers.len());
}

#[test]
fn a_random_part_has_torchvisions_area_and_ratio() {
    // Columns rise by one from left to right, so the range that is seen tells the width of the part.
    let (height, width) = (64, 200);
    let shape = SampleShape { frames: 1, height, width, channels: 1 };
    let bytes: Vec<u8> = (0..height * width).map(|i| (i % width) as u8).collect();
    let augmentation = Augmentation { resized_crop: true, ..Augmentation::NONE };
    let mut widths = HashSet::new();
    for sample in 0..500 {
        let shown = augmented(&bytes, shape, &augmentation, 3, 1, sample);
        let wide = f64::from(shown[width - 1]) - f64::from(shown[0]) + 1.0;
        // Up to 64 rows, and at most 4/3 of them wide.
        assert!((26.0..=86.5).contains(&wide), "{wide}");
        assert!(shown[..width].is_sorted());
        widths.insert(wide as usize);
    }
    assert!(widths.len() > 40, "{widths:?}");
}
