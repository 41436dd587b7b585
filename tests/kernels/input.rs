//! Batches gathered from a data set's bytes, and their placements.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::Normalisation;
use adali::backend::cpu::input::{gather, mix};
use adali::backend::gpu::params::{InputBatch, Placement, Placements, dropout_threshold};
use adali::backend::gpu::{Buffer, Launch};
use adali::data::mixup::shares;
use adali::data::sampling::placement;
use adali::data::{Augmentation, SampleShape};

const AUGMENTATIONS: [Augmentation; 8] = [
    Augmentation { crop_padding: 0, flip: false, roll: 0, drop: 0.0, ..Augmentation::NONE },
    Augmentation { crop_padding: 0, flip: true, roll: 0, drop: 0.0, ..Augmentation::NONE },
    Augmentation { crop_padding: 3, flip: false, roll: 0, drop: 0.0, ..Augmentation::NONE },
    Augmentation { crop_padding: 4, flip: true, roll: 0, drop: 0.3, ..Augmentation::NONE },
    Augmentation { crop_padding: 0, flip: true, roll: 4, drop: 0.0, ..Augmentation::NONE },
    Augmentation { crop_padding: 0, flip: false, roll: 3, drop: 0.9, ..Augmentation::NONE },
    Augmentation { crop_padding: 2, flip: true, drop: 0.2, mixup: 1.0, ..Augmentation::NONE },
    Augmentation { mixup: 0.1, ..Augmentation::NONE },
];

/// `[N][T]` images of the CPU backend, reordered to the kernels' `[T][N]`.
fn steps_first(values: &[f32], shape: &SampleShape) -> Vec<f32> {
    let image = shape.len() / shape.frames;
    let frame = |t: usize| values.chunks_exact(image).skip(t).step_by(shape.frames);
    (0..shape.frames).flat_map(frame).flatten().copied().collect()
}

#[test]
fn input_matches() {
    let mut rng = Rng::fresh("input");
    let mut cases = 0;
    for (height, width, channels) in [(5, 7, 3), (6, 8, 3), (8, 8, 1), (5, 7, 2), (5, 9, 33)] {
        for frames in [1, 2, 4, 7] {
            let shape = SampleShape { frames, height, width, channels };
            let (samples, batch) = (6, 5);
            let set: Vec<u8> = (0..samples * shape.len()).map(|_| rng.next_u64() as u8).collect();
            let mut vector = |low: f64, high: f64| (0..channels).map(|_| rng.uniform(low, high) as f32).collect();
            let (mean, std) = (vector(-0.5, 0.5), vector(0.2, 2.0));
            let normalisation = Normalisation { full_scale: 255.0, mean, std };
            for augmentation in AUGMENTATIONS {
                let indices: Vec<u32> = (0..batch).map(|_| rng.below(samples) as u32).collect();
                let seed = rng.next_u64();
                let placements: Vec<_> = indices.iter().map(|&i| placement(&augmentation, seed, 3, i)).collect();
                let mut want = vec![0.0; batch * shape.len()];
                gather(&set, &shape, &normalisation, &indices, &placements, augmentation.drop, &mut want);
                let shares = shares(&augmentation, seed, 3, &indices);
                mix(&shares, shape.len(), &mut want);
                let want = steps_first(&want, &shape);

                let device = Device::new(rng.next_u64());
                let (on_device, table) = (device.put(&set), device.put(&normalisation.table()));
                let placements: Vec<Placement> = placements.into_iter().map(Placement::from).collect();
                let (indices, placements) = (device.put(&indices), device.put(&placements));
                let shares = (!shares.is_empty()).then(|| device.put(&shares));
                for value in VALUES {
                    let out = device.empty(want.len() * value.bytes());
                    let params = InputBatch {
                        set: on_device.address(),
                        indices: indices.address(),
                        placements: placements.address(),
                        table: table.address(),
                        samples: out.address(),
                        dropped: dropout_threshold(augmentation.drop),
                        batch: batch as u32,
                        frames: frames as u32,
                        height: height as u32,
                        width: width as u32,
                        channels: channels as u32,
                        padding: 0,
                        shares: address(shares.as_ref()),
                    };
                    let eights = (height * width * channels).div_ceil(8);
                    let grid = [eights.div_ceil(64) as u32, 3, 1];
                    let launch = Launch { grid, threads: 64, shared: 1024 * channels as u32 };
                    device.run(&format!("input_{}", value.name()), launch, &params);
                    let what = format!("{value:?} {shape} {augmentation:?}");
                    assert!(device.get::<u8>(&out) == value.encode(&want), "{what}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 5 * 4 * 8 * 3);
}

#[test]
fn placements_match() {
    let mut rng = Rng::fresh("placements");
    let mut drawn = 0;
    let widest = Augmentation { crop_padding: u32::MAX, flip: true, ..Augmentation::default() };
    for augmentation in AUGMENTATIONS.into_iter().chain([widest]) {
        for batch in [1, 100, 300] {
            for epoch in [0, 1, u32::MAX] {
                let seed = rng.next_u64();
                let indices: Vec<u32> = (0..batch).map(|_| rng.next_u64() as u32).collect();
                let want = indices.iter().map(|&i| placement(&augmentation, seed, epoch, i).into());

                let device = Device::new(rng.next_u64());
                let (on_device, out) = (device.put(&indices), device.empty(batch * size_of::<Placement>()));
                let (seed, epoch) = (device.put(&[seed]), device.put(&[epoch]));
                let params = Placements {
                    seed: seed.address(),
                    epoch: epoch.address(),
                    indices: on_device.address(),
                    placements: out.address(),
                    batch: batch as u32,
                    crop_padding: augmentation.crop_padding,
                    flip: augmentation.flip.into(),
                    roll: augmentation.roll,
                    drop: (augmentation.drop > 0.0).into(),
                    padding: 0,
                };
                device.run("placements", Launch::over(batch, 64, 64), &params);
                assert_eq!(device.get::<Placement>(&out), want.collect::<Vec<_>>(), "{augmentation:?}");
                drawn += batch;
            }
        }
    }
    assert_eq!(drawn, 9 * 3 * 401);
}
