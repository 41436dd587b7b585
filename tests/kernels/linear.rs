//! Spike counts for the last, linear layer.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::SpikeCount;
use adali::backend::shape::{Span, Volume};

#[test]
fn spike_count_matches_a_sum() {
    let mut rng = Rng::fresh("spike_count");
    let mut cases = 0;
    for value in VALUES {
        for steps in [1, 2, 3, 4, 7, 8, 16, 256] {
            for (h, w, c) in [(5, 7, 3), (5, 7, 33), (1, 1, 64), (1, 2, 2100)] {
                let (span, volume) = (Span { batch: 3, steps }, Volume { h, w, c });
                // With always full channels: T itself is the count that asks most of the type.
                let spikes = Tensor::new(span, volume, || f32::from(rng.below(8) != 0));
                let spikes = if cases % 6 == 0 { Tensor::new(span, volume, || 1.0) } else { spikes };
                let mut want = Tensor::new(Span { steps: 1, ..span }, volume, || 0.0);
                let step = want.data.len();
                spikes.data.iter().enumerate().for_each(|(i, spike)| want.data[i % step] += spike);

                for _schedule in 0..2 {
                    let device = Device::new(rng.next_u64());
                    let (from, to) = (device.bits(&spikes), device.empty_values(value, want.span, volume));
                    let places = places(span, volume);
                    let params = SpikeCount { spikes: from.address(), counts: to.address(), places, padding: 0 };
                    device.run(&format!("spike_count_{}", value.name()), over_places(places), &params);
                    let what = format!("{value:?} {span:?} {volume:?}");
                    assert_same(&what, &device.get_values(value, &to, want.span, volume), &want);
                    assert!(device.get::<u8>(&to) == value.encode(&want.gpu_floats()), "{what}: padding");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 8 * 4 * 2);
}
