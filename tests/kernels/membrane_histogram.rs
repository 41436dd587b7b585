//! Histograms of stored membranes, and potentials in them that are not finite.

use super::harness::*;
use super::norm_lif::counts;
use crate::oracle::Rng;
use adali::autotune::Histogram;
use adali::backend::gpu::params::{CountedLayer, Fault, FindNonFinite, MembraneHistogram};
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

/// Random histograms of a layer, without potentials that are not finite.
fn layer(rng: &mut Rng, count: usize) -> Vec<Histogram> {
    let mut histograms = vec![Histogram::default(); count];
    for h in &mut histograms {
        (0..40).for_each(|_| h.count(3.0 * rng.normal() as f32));
        (h.underflow, h.overflow) = (rng.next_u64() >> 20, rng.next_u64() >> 20);
    }
    histograms
}

#[test]
fn find_non_finite_matches() {
    let mut rng = Rng::fresh("find_non_finite");
    let (one_each, per_channel) = (vec![1; 37], vec![1, 33, 1, 70, 32, 3]);
    let layouts: [(&[usize], &[&[usize]]); 4] = [
        (&[], &[&[]]),
        (&[1], &[&[], &[0]]),
        (&one_each, &[&[], &[0], &[36], &[16], &[20, 4], &[35, 36, 18], &[15, 31]]),
        (&per_channel, &[&[], &[1], &[3], &[5, 4], &[2, 3]]),
    ];
    let mut cases = 0;
    for (layers, faulty) in layouts {
        for bad in faulty {
            for earlier in [false, true] {
                let mut histograms: Vec<_> = layers.iter().map(|&count| layer(&mut rng, count)).collect();
                for &at in *bad {
                    let of_layer = &mut histograms[at];
                    let last = of_layer.len() - 1;
                    of_layer[last].non_finite = 1 + (rng.next_u64() >> 20);
                    let any = rng.below(last + 1);
                    of_layer[any].non_finite += rng.next_u64() >> 20;
                }
                // Past 32 bits.
                let step = (1 << 33) + rng.next_u64() % 1000;
                let before =
                    if earlier { Fault { step: 7, potentials: 3, layer: 90, padding: 0 } } else { Fault::default() };
                let want = match bad.iter().min() {
                    Some(&first) if !earlier => {
                        let potentials = histograms[first].iter().map(|h| h.non_finite).sum();
                        Fault { step, potentials, layer: first as u32, padding: 0 }
                    }
                    _ => before,
                };
                for device in schedules(&mut rng) {
                    let buffers: Vec<_> = histograms.iter().map(|of_layer| device.put(&counts(of_layer))).collect();
                    let entry = |(buffer, &count): (&TestBuffer, &usize)| CountedLayer {
                        histogram: buffer.address(),
                        count: count as u32,
                        padding: 0,
                    };
                    let table: Vec<_> = buffers.iter().zip(layers).map(entry).collect();
                    let (table, number, fault) = (device.put(&table), device.put(&[step]), device.put(&[before]));
                    let params = FindNonFinite {
                        layers: table.address(),
                        step: number.address(),
                        fault: fault.address(),
                        layer_count: layers.len() as u32,
                        padding: 0,
                    };
                    device.run("find_non_finite", Launch::over(1, 1, 512), &params);
                    let what = format!("{layers:?} bad {bad:?} earlier {earlier}");
                    assert_eq!(device.get::<Fault>(&fault), [want], "{what}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, (1 + 2 + 7 + 5) * 2 * 2);
}
