//! Dropout of spikes and of values, and its gradient.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::Storage;
use adali::backend::cpu::{Cpu, dropout};
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::{DropoutSpikes, DropoutValues, Mask, dropout_threshold};
use adali::backend::keeps;
use adali::backend::shape::{Span, Volume};

/// Calls `test` with every extent (2080 channels take two blocks) and a probability and seed for each.
fn each_case(rng: &mut Rng, mut test: impl FnMut(&mut Rng, Span, Volume, f32, u64)) {
    for steps in [1, 2, 3, 4, 7, 8, 16] {
        for (h, w, c) in [(5, 7, 3), (5, 7, 33), (5, 7, 64), (1, 2, 2080)] {
            for probability in [0.0, 0.1, 0.5, 0.9] {
                let seed = rng.next_u64();
                test(rng, Span { batch: 2, steps }, Volume { h, w, c }, probability, seed);
            }
        }
    }
}

#[test]
fn dropout_spikes_matches() {
    let mut rng = Rng::fresh("dropout_spikes");
    let mut cases = 0;
    each_case(&mut rng, |rng, span, volume, probability, seed| {
        let spikes = Tensor::new(span, volume, || rng.below(2) as f32);
        let mut want = Cpu.spikes(span, volume).unwrap();
        dropout::spikes(volume, span, probability, seed, &spikes.cpu_bits(), &mut want);
        let want = Tensor::from_cpu_bits(span, volume, &want);

        for _schedule in 0..2 {
            let device = Device::new(rng.next_u64());
            let (from, to) = (device.bits(&spikes), device.empty_bits(span, volume));
            let (seed, places) = (device.put(&[seed]), places(span, volume));
            let params = DropoutSpikes {
                spikes: from.address(),
                kept: to.address(),
                mask: Mask { seed: seed.address(), threshold: dropout_threshold(probability) },
                places,
                channels: volume.c as u32,
            };
            device.run("dropout_spikes", over_places(places), &params);
            let what = format!("{span:?} {volume:?} p={probability}");
            assert_same(&what, &device.get_bits(&to, span, volume), &want);
            assert!(device.get::<u32>(&to) == want.gpu_bits(), "{what}: padding");
            cases += 1;
        }
    });
    assert_eq!(cases, 7 * 4 * 4 * 2);
}

#[test]
fn dropout_values_matches() {
    let mut rng = Rng::fresh("dropout_values");
    let mut cases = 0;
    each_case(&mut rng, |rng, span, volume, probability, seed| {
        for value in VALUES {
            let values = Tensor::new(span, volume, || rng.normal() as f32).rounded(value);
            let mut want = values.cpu_floats();
            dropout::floats(volume, span, probability, seed, &mut want);
            let want = Tensor::from_cpu_floats(span, volume, &want).rounded(value);

            for _schedule in 0..2 {
                let device = Device::new(rng.next_u64());
                let in_place = device.values(value, &values);
                let (seed, places) = (device.put(&[seed]), places(span, volume));
                let params = DropoutValues {
                    values: in_place.address(),
                    mask: Mask { seed: seed.address(), threshold: dropout_threshold(probability) },
                    places,
                    channels: volume.c as u32,
                    scale: 1.0 / (1.0 - probability),
                    padding: 0,
                };
                device.run(&format!("dropout_values_{}", value.name()), over_places(places), &params);
                let what = format!("{value:?} {span:?} {volume:?} p={probability}");
                assert_same(&what, &device.get_values(value, &in_place, span, volume), &want);
                assert!(device.get::<u8>(&in_place) == value.encode(&want.gpu_floats()), "{what}: padding");
                cases += 1;
            }
        }
    });
    assert_eq!(cases, 7 * 4 * 4 * 3 * 2);
}

/// Probabilities between the numbers that can be drawn, and the numbers on both sides of them.
#[test]
fn the_threshold_is_the_probability() {
    let mut rng = Rng::fresh("dropout_threshold");
    let mut kept = 0;
    for case in 0..100_000 {
        let (mask, probability) = (rng.next_u64(), rng.uniform(0.0, 1.0) as f32);
        let drawn = adali::random::CounterRng::new(mask, adali::random::stream::DROPOUT).fork(case).next_u64() >> 11;
        assert_eq!(drawn >= dropout_threshold(probability), keeps(mask, case, probability), "{mask} {probability}");
        kept += usize::from(keeps(mask, case, probability));
    }
    assert!((45_000..55_000).contains(&kept), "{kept}");
    assert_eq!([0.0, 0.5, f32::MIN_POSITIVE].map(dropout_threshold), [0, 1 << 52, 1]);
}
