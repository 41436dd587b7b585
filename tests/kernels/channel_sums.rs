//! Sums of channels, and the affine map that convolutions apply.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::gpu::params::{ChannelSums, FoldAffine};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Span, Volume};

#[test]
fn channel_sums_matches_a_sum() {
    let mut rng = Rng::fresh("channel_sums");
    let mut cases = 0;
    for value in VALUES {
        for steps in [1, 3, 4, 8] {
            for (h, w, c) in [(5, 7, 3), (5, 7, 33), (3, 2, 96), (1, 2, 2100)] {
                let (span, volume) = (Span { batch: 2, steps }, Volume { h, w, c });
                // Multiples of 1/8: every sum is exact.
                let values = Tensor::new(span, volume, || (rng.below(31) as f32 - 15.0) / 8.0);
                for device in schedules(&mut rng) {
                    let places = places(span, volume);
                    let launch = over_places(places);
                    let (of_values, sums) =
                        (device.values(value, &values), device.empty(4 * launch.grid[0] as usize * padded(c)));
                    let params = ChannelSums { values: of_values.address(), sums: sums.address(), places, padding: 0 };
                    device.run(&format!("channel_sums_{}", value.name()), launch, &params);
                    let partial: Vec<f32> = device.get(&sums);
                    for k in 0..c {
                        let sum: f32 = partial.iter().skip(k).step_by(padded(c)).sum();
                        assert_eq!(sum, values.channel(k).sum::<f32>(), "{value:?} {span:?} {volume:?} channel {k}");
                    }
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * 4 * 4);
}

#[test]
fn fold_affine_matches_its_formula() {
    let mut rng = Rng::fresh("fold_affine");
    for channels in [32, 320] {
        let [scale, shift, bias] = [(); 3].map(|()| (0..channels).map(|_| rng.normal() as f32).collect::<Vec<_>>());
        for device in schedules(&mut rng) {
            let of = [&scale, &shift, &bias].map(|values| device.put(values));
            let folded = [device.empty(4 * channels), device.empty(4 * channels)];
            let params = FoldAffine {
                scale: of[0].address(),
                shift: of[1].address(),
                bias: of[2].address(),
                folded_scale: folded[0].address(),
                folded_shift: folded[1].address(),
                channels: channels as u32,
                dropout: 1.25,
            };
            device.run("fold_affine", Launch::over(channels, 256, 256), &params);
            let [got_scale, got_shift] = folded.map(|values| device.get::<f32>(&values));
            for k in 0..channels {
                assert_eq!(got_scale[k], 1.25 * scale[k]);
                assert_eq!(got_shift[k], scale[k].mul_add(bias[k], shift[k]));
            }
        }
    }
}
