//! Histograms of stored membranes.

use super::harness::*;
use super::norm_lif::counts;
use crate::oracle::Rng;
use adali::autotune::Histogram;
use adali::backend::gpu::params::MembraneHistogram;
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Span, Volume};

#[test]
fn membrane_histogram_matches() {
    let mut rng = Rng::fresh("membrane_histogram");
    let mut cases = 0;
    for value in VALUES {
        for steps in [1, 3, 4, 7, 8, 16] {
            for channels in [3, 33, 64] {
                for per_channel in [false, true] {
                    let (span, volume) = (Span { batch: 2, steps }, Volume { h: 5, w: 7, c: channels });
                    let mut membranes = Tensor::new(span, volume, || 2.0 * rng.normal() as f32).rounded(value);
                    (membranes.data[3], membranes.data[40], membranes.data[77]) = (f32::INFINITY, f32::NAN, 0.75);
                    let (threshold, pixels) = (0.75, volume.pixels());
                    let mut histograms = vec![Histogram::default(); if per_channel { channels } else { 1 }];
                    // Counted before; to be added to.
                    histograms[0].bins[7] = 5;
                    let before = counts(&histograms);
                    for (i, &h) in membranes.data.iter().enumerate() {
                        let c = if per_channel { i / pixels % channels } else { 0 };
                        histograms[c].count((h - threshold) / threshold);
                    }

                    for _schedule in 0..2 {
                        let device = Device::new(rng.next_u64());
                        let (of_membranes, histogram) = (device.values(value, &membranes), device.put(&before));
                        let params = MembraneHistogram {
                            membranes: of_membranes.address(),
                            histogram: histogram.address(),
                            places: places(span, volume),
                            channels: channels as u32,
                            per_channel: per_channel.into(),
                            threshold,
                        };
                        let (across, private) = if per_channel { (params.places.words, 32) } else { (1, 1) };
                        let launch = Launch { grid: [3, across, 1], threads: 256, shared: private * 515 * 4 };
                        device.run(&format!("membrane_histogram_{}", value.name()), launch, &params);
                        let what = format!("{value:?} T={steps} C={channels} per channel {per_channel}");
                        assert_eq!(device.get::<u64>(&histogram), counts(&histograms), "{what}");
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 3 * 6 * 3 * 2 * 2);
}
