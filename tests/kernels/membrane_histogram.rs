//! Histograms of stored membranes, collected step by step, and potentials in them that are not finite.

use super::harness::*;
use super::norm_lif::counts;
use crate::oracle::Rng;
use adali::autotune::{BINS, Histogram};
use adali::backend::cpu::{Batch, Counts, Cpu};
use adali::backend::gpu::params::{CollectCounts, Fault, MembraneHistogram, MergeCounts};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Span, Volume};
use adali::backend::{BoundsTuning, Histograms, Step, Totals};

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
                    // Earlier counts, to be added to.
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
        // Beyond 32 bits.
        (h.underflow, h.overflow) = (rng.next_u64() >> 20, rng.next_u64() >> 20);
        h.bins[rng.below(BINS)] = rng.next_u64() >> 20;
    }
    histograms
}

/// The fault recorded for a step and a layer, counted from 0.
fn fault(step: u64, layer: usize, potentials: u64) -> Fault {
    Fault { place: step << 16 | (layer as u64 + 1), potentials }
}

/// The fault recorded on the CPU after collecting one step, and after the next.
fn on_cpu(steps: [&[Vec<Histogram>]; 2], first: u64) -> [Fault; 2] {
    let (mut totals, mut batch) = (Totals::default(), Batch::default());
    let mut number = first;
    steps.map(|layers| {
        let kept = |layer: &[Histogram]| Histograms::empty(layer.len());
        let mut counts: Vec<_> = layers.iter().map(|l| Counts { fresh: l.clone(), kept: kept(l) }).collect();
        batch.write(&Step { count: number, ..Step::evaluate(&[], &[]) });
        number += 1;
        Cpu.collect_counts(&mut counts.iter_mut().collect::<Vec<_>>(), &batch, &mut totals).unwrap();
        for (counts, layer) in counts.iter().zip(layers) {
            assert_eq!((&counts.kept.recent, &counts.kept.epoch), (layer, layer));
            assert_eq!(counts.fresh, Histograms::empty(layer.len()).recent);
        }
        totals.fault.map_or(Fault::default(), |f| fault(f.step, f.layer, f.potentials))
    })
}

/// A layer's histograms after adding others.
fn merged(mut histograms: Vec<Histogram>, others: &[Histogram]) -> Vec<Histogram> {
    assert_eq!(histograms.len(), others.len());
    histograms.iter_mut().zip(others).for_each(|(histogram, other)| histogram.merge(other));
    histograms
}

/// Two steps are collected, layer by layer; in the first, the layers of `bad` have potentials that are not finite, in the
/// second all layers have.
#[test]
fn collect_counts_matches() {
    let mut rng = Rng::fresh("collect_counts");
    let (one_each, per_channel) = (vec![1; 37], vec![1, 33, 1, 70, 32, 3]);
    let layouts: [(&[usize], &[&[usize]]); 4] = [
        (&[], &[&[]]),
        (&[1], &[&[], &[0]]),
        (&one_each, &[&[], &[0], &[36], &[16], &[20, 4], &[35, 36, 18], &[15, 31]]),
        (&per_channel, &[&[], &[1], &[3], &[5, 4], &[2, 3]]),
    ];
    let (mut cases, mut collected) = (0, 0);
    for (layers, faulty) in layouts {
        for bad in faulty {
            for earlier in [false, true] {
                let draw = |rng: &mut Rng| layers.iter().map(|&count| layer(rng, count)).collect::<Vec<_>>();
                let [mut fresh, mut later, recent, epoch] = std::array::from_fn(|_| draw(&mut rng));
                for &at in *bad {
                    let of_layer = &mut fresh[at];
                    let last = of_layer.len() - 1;
                    of_layer[last].non_finite = 1 + (rng.next_u64() >> 20);
                    // Two channels, or one channel with a larger count.
                    let any = rng.below(last + 1);
                    of_layer[any].non_finite += rng.next_u64() >> 20;
                }
                later.iter_mut().flatten().for_each(|h| h.non_finite = 1 + (rng.next_u64() >> 20));
                let non_finite = |layer: &[Histogram]| layer.iter().map(|h| h.non_finite).sum::<u64>();
                // Beyond 32 bits.
                let step = (1 << 33) + rng.next_u64() % 1000;
                let before = if earlier { fault(7, 90, 3) } else { Fault::default() };
                let first = bad.iter().min().map(|&first| fault(step, first, non_finite(&fresh[first])));
                let want = if earlier { before } else { first.unwrap_or_default() };
                let at_last = later.first().map_or(before, |layer| fault(step + 1, 0, non_finite(layer)));
                let at_last = if want.place > 0 { want } else { at_last };
                if !earlier {
                    assert_eq!([want, at_last], on_cpu([&fresh, &later], step), "the CPU's fault");
                }

                for device in schedules(&mut rng) {
                    let (number, found) = (device.put(&[step]), device.put(&[before]));
                    let what = format!("{layers:?} bad {bad:?} earlier {earlier}");
                    let put = |layers: &[Vec<Histogram>]| -> Vec<CudaBuffer> {
                        layers.iter().map(|layer| device.put(&counts(layer))).collect()
                    };
                    let collect = |fresh: &[CudaBuffer], recent: &[CudaBuffer], epoch: &[CudaBuffer], step| {
                        for (i, &count) in layers.iter().enumerate() {
                            let params = CollectCounts {
                                fresh: fresh[i].address(),
                                recent: recent[i].address(),
                                epoch: epoch[i].address(),
                                step,
                                fault: found.address(),
                                layer: i as u32,
                                padding: 0,
                            };
                            device.run("collect_counts", Launch::over(count, 1, 256), &params);
                        }
                        device.get::<Fault>(&found)[0]
                    };
                    let (of_recent, of_epoch) = (put(&recent), put(&epoch));
                    let (of_fresh, of_later) = (put(&fresh), put(&later));
                    assert_eq!(collect(&of_fresh, &of_recent, &of_epoch, number.address()), want, "{what}");
                    // With no fresh counts, nothing changes.
                    let next = device.put(&[step + 1]);
                    assert_eq!(collect(&of_fresh, &of_recent, &of_epoch, next.address()), want, "{what}");
                    let hold = |buffers: &[CudaBuffer], what: &str, want: &dyn Fn(usize) -> Vec<Histogram>| {
                        for (i, buffer) in buffers.iter().enumerate() {
                            assert!(device.get::<u64>(buffer) == counts(&want(i)), "{what} of layer {i}");
                        }
                    };
                    let none = |i: usize| vec![Histogram::default(); layers[i]];
                    hold(&of_fresh, &format!("{what}: fresh"), &none);
                    hold(&of_recent, &format!("{what}: recent"), &|i| merged(recent[i].clone(), &fresh[i]));
                    hold(&of_epoch, &format!("{what}: epoch"), &|i| merged(epoch[i].clone(), &fresh[i]));

                    assert_eq!(collect(&of_later, &of_recent, &of_epoch, next.address()), at_last, "{what}");
                    hold(&of_later, &format!("{what}: later"), &none);
                    let both = |kept: &[Histogram], i: usize| merged(merged(kept.to_vec(), &fresh[i]), &later[i]);
                    hold(&of_recent, &format!("{what}: recent at last"), &|i| both(&recent[i], i));
                    hold(&of_epoch, &format!("{what}: epoch at last"), &|i| both(&epoch[i], i));
                    cases += 1;
                    collected += 3 * layers.len();
                }
            }
        }
    }
    assert_eq!(cases, (1 + 2 + 7 + 5) * orders() * 2);
    assert_eq!(collected, 3 * (2 + 7 * 37 + 5 * 6) * orders() * 2);
}

/// Launched as the host does: into the first layer, then from it to the others.
#[test]
fn merge_counts_matches() {
    let mut rng = Rng::fresh("merge_counts");
    let mut cases = 0;
    for layers in [1, 2, 9] {
        let recent: Vec<_> = (0..layers).map(|_| layer(&mut rng, 1)).collect();
        let kept = |recent: &Vec<Histogram>| Histograms { recent: recent.clone(), ..Histograms::empty(1) };
        let mut expected: Vec<_> =
            recent.iter().map(|r| Counts { fresh: vec![Histogram::default()], kept: kept(r) }).collect();
        Cpu.merge_counts(&mut expected.iter_mut().collect::<Vec<_>>()).unwrap();
        let sum = recent.iter().skip(1).fold(recent[0].clone(), |sum, other| merged(sum, other));
        assert!(expected.iter().all(|counts| counts.kept.recent == sum), "the CPU's sum");
        for device in schedules(&mut rng) {
            let buffers: Vec<_> = recent.iter().map(|layer| device.put(&counts(layer))).collect();
            let pool = |source: &CudaBuffer, target: &CudaBuffer, add| {
                let params = MergeCounts { source: source.address(), target: target.address(), add, padding: 0 };
                device.run("merge_counts", Launch::over(1, 1, 256), &params);
            };
            buffers.iter().skip(1).for_each(|other| pool(other, &buffers[0], 1));
            buffers.iter().skip(1).for_each(|other| pool(&buffers[0], other, 0));
            assert!(buffers.iter().all(|buffer| device.get::<u64>(buffer) == counts(&sum)), "{layers} layers");
            cases += 1;
        }
    }
    assert!(cases >= 3);
}
