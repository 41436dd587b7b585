//! AdaLi's bounds, tuned on the device.

use super::harness::*;
use super::norm_lif::counts;
use crate::oracle::Rng;
use adali::autotune::{BINS, BoundsMode, BoundsSpec, Flag, Histogram, Tuning};
use adali::backend::gpu::params::{NON_FINITE, TuneBounds, flags, window};
use adali::backend::gpu::{Buffer, Launch};
use adali::surrogate::{Bounds, Schedule};
use std::collections::HashSet;

const THRESHOLD: f32 = 0.75;

/// `n` values spread evenly over each `[low, high)`.
fn evenly(parts: &[(f32, f32, usize)]) -> Histogram {
    let mut histogram = Histogram::default();
    for &(low, high, n) in parts {
        (0..n).for_each(|i| histogram.count(low + (high - low) * (i as f32 + 0.5) / n as f32));
    }
    histogram
}

/// One histogram per row of the table of failures, and random ones.
fn histograms(rng: &mut Rng) -> Vec<Histogram> {
    let mut all = vec![
        Histogram::default(),
        evenly(&[(-3.0, 1.0, 80_000)]),
        evenly(&[(-2.0, 0.0, 10_000)]),
        evenly(&[(0.0, 2.0, 10_000)]),
        evenly(&[(-2.0, 0.0, 500)]),
        evenly(&[(0.0, 2.0, 500)]),
        evenly(&[(-2.0, 0.0, 10_000), (0.0, 2.0, 500)]),
        evenly(&[(-2.0, 2.0, 500)]),
        evenly(&[(-9.0, -8.0, 9_000), (0.0, 1.0, 9_000)]),
        evenly(&[(-1.0, 0.0, 9_000), (8.0, 9.0, 9_000)]),
        evenly(&[(-9.0, -8.0, 9_000), (-1.0, 1.0, 700), (8.0, 9.0, 9_000)]),
        evenly(&[(-9.0, -3.0, 9_000), (3.0, 9.0, 9_000)]),
        evenly(&[(-3.9, -3.8, 50_000), (0.1, 0.2, 5)]),
        evenly(&[(0.5, 0.501, 100_000), (-0.3, -0.2, 1)]),
        // A target of one half is reached at the end of a bin that gaps follow.
        evenly(&[(-1.0, -0.99, 4_000), (-0.2, -0.19, 4_000), (0.1, 0.101, 4_000), (1.0, 1.01, 4_000)]),
    ];
    for _ in 0..20 {
        let mut histogram = Histogram::default();
        let scale = 10f64.powf(rng.uniform(0.0, 6.0));
        for _ in 0..1 + rng.below(300) {
            histogram.bins[rng.below(BINS)] += (rng.uniform(0.0, 1.0) * scale) as u64;
        }
        histogram.underflow = (rng.uniform(-1.0, 1.0).max(0.0) * 50.0 * scale) as u64;
        histogram.overflow = (rng.uniform(-1.0, 1.0).max(0.0) * 50.0 * scale) as u64;
        histogram.non_finite = rng.below(2) as u64;
        all.push(histogram);
    }
    all
}

fn four(b: Bounds) -> [f32; 4] {
    [b.left, b.right, b.alpha, b.beta]
}

#[test]
fn tune_bounds_matches() {
    use BoundsMode::{AutoBalanced, AutoInit, AutoMass, AutoStd, AutoSymmetric, AutoTrack, Manual};
    use Schedule::{Constant, Linear, Log, Sqrt};
    let mut rng = Rng::fresh("tune_bounds");
    let (mut cases, mut seen) = (0, HashSet::<Flag>::new());
    for mode in [Manual, AutoInit, AutoTrack, AutoMass, AutoSymmetric, AutoStd, AutoBalanced] {
        for (schedule, epoch, epochs) in
            [(Log, 1.0, 1.0), (Log, 3.7, 20.0), (Linear, 20.0, 20.0), (Sqrt, 2.5, 9.0), (Constant, 9.5, 9.0)]
        {
            for (first, sampled) in [(true, true), (false, true), (false, false)] {
                let spec = BoundsSpec {
                    mode,
                    schedule,
                    left: [1.5, 0.4],
                    right: [1.1, 0.3],
                    alpha: rng.uniform(0.2, 0.8),
                    target: if rng.below(2) == 0 { [0.5; 2] } else { [rng.uniform(0.3, 0.8), rng.uniform(0.1, 0.5)] },
                    momentum: rng.uniform(0.1, 1.0),
                    ceiling: if rng.below(4) == 0 { 4.0 } else { 2.5 },
                    gain: (rng.below(2) == 0).then(|| [rng.uniform(0.3, 2.0), rng.uniform(0.3, 2.0)]),
                    ..BoundsSpec::default()
                };
                spec.validate().unwrap();
                if mode.tracks() && !sampled {
                    continue;
                }
                let histograms = histograms(&mut rng);
                let mut draw = || Bounds::new(rng.uniform(0.3, 2.0), rng.uniform(0.3, 2.0), 0.5);
                let previous: Vec<Bounds> = histograms.iter().map(|_| draw()).collect();
                let start: Vec<Bounds> = histograms.iter().map(|_| draw()).collect();

                let device = Device::new(rng.next_u64());
                let upload = |bounds: &[Bounds]| device.put(&bounds.iter().map(|&b| four(b)).collect::<Vec<_>>());
                let histogram = device.put(&counts(&histograms));
                let (bounds, starts, of_epoch) = (upload(&previous), upload(&start), device.put(&[epoch]));
                let (windows, masks) = (device.empty(16 * histograms.len()), device.put(&vec![0u32; histograms.len()]));
                let params = TuneBounds {
                    histogram: if sampled { histogram.address() } else { NONE },
                    epoch: of_epoch.address(),
                    bounds: bounds.address(),
                    start: if mode == AutoInit { starts.address() } else { NONE },
                    windows: windows.address(),
                    flags: masks.address(),
                    epochs,
                    count: histograms.len() as u32,
                    first: first.into(),
                    threshold: THRESHOLD,
                    ..TuneBounds::from(&spec)
                };
                let launch = Launch { grid: [histograms.len().div_ceil(4) as u32, 1, 1], threads: 128, shared: 0 };
                device.run("tune_bounds", launch, &params);

                let (bounds, starts): (Vec<[f32; 4]>, Vec<[f32; 4]>) = (device.get(&bounds), device.get(&starts));
                let (windows, masks): (Vec<[f32; 4]>, Vec<u32>) = (device.get(&windows), device.get(&masks));
                for (i, h) in histograms.iter().enumerate() {
                    let what = format!("{mode:?} {schedule:?} {epoch} first {first} sampled {sampled} histogram {i}");
                    let (mut want, mut want_start) = (previous[i], start[i]);
                    let tuning = Tuning { spec, epochs, first };
                    let mut want_flags = tuning.apply(sampled.then_some(h), epoch, &mut want_start, &mut want);
                    assert_eq!(want_start != start[i], mode == AutoInit && first, "{what}");
                    assert_close(&what, &bounds[i], &four(want), 1e-6, 0.0);
                    assert_close(&what, &windows[i], &window(want.window(THRESHOLD)), 2e-6, 0.0);
                    assert_close(&what, &starts[i], &four(want_start), 1e-6, 0.0);
                    want_flags.sort_by_key(|&flag| flag as u32);
                    seen.extend(&want_flags);
                    assert_eq!(flags(masks[i]), want_flags, "{what}");
                    assert_eq!(masks[i] & NON_FINITE != 0, sampled && h.non_finite > 0, "{what}");
                    cases += 1;
                }
                let left = device.get::<u64>(&histogram);
                let want = if sampled { vec![0; left.len()] } else { counts(&histograms) };
                assert_eq!(left, want, "counts are cleared");
            }
        }
    }
    assert_eq!(cases, (7 * 3 - 4) * 5 * 35);
    assert_eq!(seen.len(), 6, "every flag was raised: {seen:?}");
}
