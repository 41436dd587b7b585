//! Convolution to currents, on tensor cores and naively, with the moments of each channel.

use super::convolution::*;
use super::harness::*;
use crate::launch::cuts_off;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::params::{ConvCurrent, ConvNaive, CurrentMoments};
use adali::backend::gpu::tile::{self, Epilogue, Source, Unroll};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Conv, InputKind, Span};
use adali::backend::{ConvForward, Input, Storage};

/// The CPU backend's currents.
fn on_cpu(weight: &Weight, span: Span, x: &Tensor, bias: &[f32], dropout: f32) -> Tensor {
    let conv = &weight.conv;
    let (floats, bits, weights) = (x.cpu_floats(), x.cpu_bits(), weight.on_cpu());
    let spikes = conv.reads == InputKind::Spikes;
    let input = if spikes { Input::Spikes { bits: &bits, scale: dropout } } else { Input::Dense(&floats) };
    let mut currents = Cpu.activations(span, conv.output).unwrap();
    let bias = Cpu.vector(&bias[..conv.output.c]).unwrap();
    Cpu.conv_current(conv, span, input, cpu_weights(&weights), &bias, &mut currents).unwrap();
    Tensor::from_cpu_floats(span, conv.output, &currents)
}

/// Mean and sum of squared distances of each channel over all pieces, combined in f64.
fn moments(pieces: &[f32], counts: &[u32], pitch: usize, channels: usize) -> Vec<[f64; 3]> {
    let mut all = vec![[0.0f64; 3]; channels];
    for (piece, &count) in pieces.chunks_exact(2 * pitch).zip(counts) {
        for (c, [n, mean, squares]) in all.iter_mut().enumerate() {
            let (count, delta) = (f64::from(count), f64::from(piece[c]) - *mean);
            *squares += f64::from(piece[pitch + c]) + delta * delta * *n * count / (*n + count);
            *mean += delta * count / (*n + count);
            *n += count;
        }
    }
    all
}

fn check(conv: Conv, span: Span, value: Value, wide: bool, rng: &mut Rng) {
    let spikes = conv.reads == InputKind::Spikes;
    let x = if spikes { random_spikes(span, conv.input, rng) } else { exact_values(span, conv.input, rng) };
    let weight = Weight::exact(conv, rng);
    let bias: Vec<f32> = (0..padded(conv.output.c))
        .map(|k| if k < conv.output.c { (rng.below(65) as f32 - 32.0) / 64.0 } else { 0.0 })
        .collect();
    let dropout = if spikes { 1.5 } else { 1.0 };
    let want = on_cpu(&weight, span, &x, &bias, dropout);

    for device in schedules(rng) {
        let source = if spikes { device.bits(&x) } else { device.values(value, &x) };
        let packed = weight.packed(&device, value, if spikes { Packing::Spikes } else { Packing::Dense });
        // Without unrolling, steps are simply more images.
        let unroll = Unroll::for_currents(span.steps);
        let images = Span { batch: span.batch * span.steps, steps: 1 };
        let shape = tile::forward(&conv, if unroll == Unroll::T4 { span } else { images });
        let kind = if spikes { Source::Spikes } else { Source::Dense };
        let tile::Plan { tile, launch, .. } = tile::plan(&shape, unroll, kind, Epilogue::Store, SMALL).unwrap();
        let pieces = (launch.grid[0] * launch.grid[2]) as usize;
        let pitch = padded(conv.output.c);
        let stored = if wide { Value::F32 } else { value };
        let currents = device.empty_values(stored, span, conv.output);
        let (gpu_moments, counts) = (device.empty(pieces * 2 * pitch * 4), device.empty(pieces * 4));
        let bias = device.put(&bias);
        let params = ConvCurrent {
            source: source.address(),
            weights: packed.address(),
            bias: bias.address(),
            currents: currents.address(),
            moments: if wide { NONE } else { gpu_moments.address() },
            counts: counts.address(),
            shape,
            tile,
            dropout,
            wide: wide.into(),
        };
        let name = if spikes { "spikes" } else { "dense" };
        let kernel = format!("conv_current_{name}_{}_{}", unroll.name(), value.name());
        device.run(&kernel, launch, &params);
        let what = format!("{kernel} {conv:?} {span:?} {tile:?}");
        let got = device.get_values(stored, &currents, span, conv.output);
        assert_same(&what, &got, &want.clone().rounded(stored));
        if !wide {
            let got = moments(&device.get(&gpu_moments), &device.get(&counts), pitch, conv.output.c);
            let values = want.clone().rounded(value);
            for (c, [count, mean, squares]) in got.into_iter().enumerate() {
                let mine: Vec<f64> = values.channel(c).map(f64::from).collect();
                let want = mine.iter().sum::<f64>() / mine.len() as f64;
                let far: f64 = mine.iter().map(|x| (x - want).powi(2)).sum();
                assert_eq!(count as usize, mine.len(), "{what}");
                assert!(
                    (mean - want).abs() < 1e-5 && (squares - far).abs() < 1e-5 * far.max(1.0),
                    "{what} channel {c}"
                );
            }
        }
    }
}

#[test]
fn conv_current_matches() {
    let mut rng = Rng::fresh("conv_current");
    let mut cases = 0;
    for reads in [InputKind::Spikes, InputKind::Dense] {
        for conv in shapes(reads) {
            for (batch, steps) in [(3, 1), (2, 4), (1, 7), (3, 8)] {
                check(conv, Span { batch, steps }, HALVES[cases % 2], cases % 5 == 0, &mut rng);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * 8 * 4);
}

/// Arbitrary weights and values, not only exact ones: sums in another order, then one rounding.
#[test]
fn conv_current_of_any_values_is_close() {
    let mut rng = Rng::fresh("conv_current of any values");
    let mut cases = 0;
    for conv in shapes(InputKind::Dense) {
        for value in HALVES {
            let span = Span { batch: 2, steps: 4 };
            let weight = Weight::normal(conv, &mut rng).rounded(value);
            let x = Tensor::new(span, conv.input, || rng.normal() as f32).rounded(value);
            let bias = vec![0.0; padded(conv.output.c)];
            let want = on_cpu(&weight, span, &x, &bias, 1.0);
            // If sums are truncated, each product loses less than the last bit of a sum, which is at most the sum of sizes.
            let mut sizes = (weight.clone(), x.clone());
            sizes.0.values.iter_mut().chain(&mut sizes.1.data).for_each(|value| *value = value.abs());
            let sizes = on_cpu(&sizes.0, span, &sizes.1, &bias, 1.0);
            let cut_off = if cuts_off() { conv.fan_in() as f32 * f32::EPSILON } else { 0.0 };
            for device in schedules(&mut rng) {
                let (source, packed) = (device.values(value, &x), weight.packed(&device, value, Packing::Dense));
                let shape = tile::forward(&conv, span);
                let plan = tile::plan(&shape, Unroll::T4, Source::Dense, Epilogue::Store, SMALL).unwrap();
                let currents = device.empty_values(value, span, conv.output);
                let bias = device.put(&bias);
                let params = ConvCurrent {
                    source: source.address(),
                    weights: packed.address(),
                    bias: bias.address(),
                    currents: currents.address(),
                    shape,
                    tile: plan.tile,
                    dropout: 1.0,
                    ..ConvCurrent::default()
                };
                device.run(&format!("conv_current_dense_t4_{}", value.name()), plan.launch, &params);
                let got = device.get_values(value, &currents, span, conv.output);
                for (i, (g, w)) in got.data.iter().zip(&want.data).enumerate() {
                    let near = value.epsilon() / 2.0 * w.abs() + 1e-5 + cut_off * sizes.data[i];
                    assert!((g - w).abs() <= near, "{conv:?}: value {i} is {g}, not {w}");
                }
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 8 * 2);
}

/// Launch of a naive kernel with few blocks, so that threads take several outputs.
pub fn naive_launch() -> Launch {
    Launch { grid: [3, 1, 1], threads: 256, shared: 0 }
}

/// A naive kernel's parameters, without the buffers.
pub fn naive(conv: &Conv, span: Span) -> ConvNaive {
    ConvNaive {
        images: (span.batch * span.steps) as u32,
        in_h: conv.input.h as u32,
        in_w: conv.input.w as u32,
        channels: conv.input.c as u32,
        out_h: conv.output.h as u32,
        out_w: conv.output.w as u32,
        filters: conv.output.c as u32,
        taps_h: conv.kernel.h as u32,
        taps_w: conv.kernel.w as u32,
        stride_h: conv.stride.h as u32,
        stride_w: conv.stride.w as u32,
        padding_h: conv.padding.h as u32,
        padding_w: conv.padding.w as u32,
        spikes: (conv.reads == InputKind::Spikes).into(),
        dropout: 1.0,
        ..ConvNaive::default()
    }
}

#[test]
fn conv_current_naive_matches() {
    let mut rng = Rng::fresh("conv_current_naive");
    let mut cases = 0;
    for reads in [InputKind::Spikes, InputKind::Dense] {
        for conv in shapes(reads) {
            let (span, value) = (Span { batch: 2, steps: 3 }, VALUES[cases % 3]);
            let spikes = reads == InputKind::Spikes;
            let x = if spikes {
                random_spikes(span, conv.input, &mut rng)
            } else {
                exact_values(span, conv.input, &mut rng)
            };
            let weight = Weight::exact(conv, &mut rng);
            let bias = vec![0.25; padded(conv.output.c)];
            let want = on_cpu(&weight, span, &x, &bias, 1.0);
            for device in schedules(&mut rng) {
                let source = if spikes { device.bits(&x) } else { device.values(value, &x) };
                let (master, bias) = (weight.on_device(&device), device.put(&bias));
                let currents = device.empty_values(value, span, conv.output);
                let params = ConvNaive {
                    source: source.address(),
                    weight: master.address(),
                    bias: bias.address(),
                    out: currents.address(),
                    ..naive(&conv, span)
                };
                device.run(&format!("conv_current_naive_{}", value.name()), naive_launch(), &params);
                let got = device.get_values(value, &currents, span, conv.output);
                assert_same(&format!("{conv:?}"), &got, &want.clone().rounded(value));
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 2 * 8);
}

#[test]
fn current_moments_match() {
    let mut rng = Rng::fresh("current_moments_naive");
    let mut cases = 0;
    for rows in [1, 6, 65, 301usize] {
        for channels in [3, 33, 64, 300] {
            for (rows_per_piece, threads, far) in [(1, 64, 0.0), (7, 256, 10.0), (64, 32, 1e3), (1000, 256, 1.0)] {
                let (pitch, pieces) = (padded(channels), rows.div_ceil(rows_per_piece));
                let currents: Vec<f32> = (0..rows * pitch)
                    .map(|i| if i % pitch < channels { (far + rng.normal()) as f32 } else { 0.0 })
                    .collect();
                // For one channel: the number of values, their mean and the sum of their squared distances from it.
                let in_f64 = |rows: &[f32], c: usize| {
                    let values = || rows.iter().skip(c).step_by(pitch).map(|&x| f64::from(x));
                    let count = values().count() as f64;
                    let mean = values().sum::<f64>() / count;
                    [count, mean, values().map(|x| (x - mean) * (x - mean)).sum()]
                };
                let what = format!("{rows} rows of {channels} channels, {rows_per_piece} a piece, around {far}");
                let near = |got: [f64; 3], want: [f64; 3], of_squares: f64, what: &str| {
                    assert_eq!(got[0], want[0], "{what}");
                    assert!((got[1] - want[1]).abs() <= 1e-7 * want[1].abs(), "{what}: mean {} of {}", got[1], want[1]);
                    // Squares are of distances from the mean rounded to f32.
                    let of_mean = want[0] * (want[1] * 2f64.powi(-24)).powi(2);
                    let close = (got[2] - want[2]).abs() <= of_squares * want[2] + of_mean;
                    assert!(close, "{what}: squares {} of {}", got[2], want[2]);
                };
                for device in schedules(&mut rng) {
                    let buffer = device.put(&currents);
                    let (of_pieces, counts) = (device.empty(pieces * 2 * pitch * 4), device.empty(pieces * 4));
                    let params = CurrentMoments {
                        currents: buffer.address(),
                        moments: of_pieces.address(),
                        counts: counts.address(),
                        rows: rows as u32,
                        pitch: pitch as u32,
                        rows_per_piece: rows_per_piece as u32,
                        padding: 0,
                    };
                    let launch = Launch { grid: [pieces as u32, 1, 1], threads, shared: 0 };
                    device.run("current_moments_f32", launch, &params);
                    let (of_pieces, counts): (Vec<f32>, Vec<u32>) = (device.get(&of_pieces), device.get(&counts));
                    for (i, piece) in of_pieces.chunks_exact(2 * pitch).enumerate() {
                        let part = &currents[i * rows_per_piece * pitch..];
                        let part = &part[..part.len().min(rows_per_piece * pitch)];
                        for c in 0..pitch {
                            let got = [counts[i].into(), piece[c].into(), piece[pitch + c].into()];
                            near(got, in_f64(part, c), 1e-6, &format!("{what}: piece {i}, channel {c}"));
                        }
                    }
                    // All pieces combined; their means are f32.
                    for (c, got) in moments(&of_pieces, &counts, pitch, channels).into_iter().enumerate() {
                        near(got, in_f64(&currents, c), 1e-6 + 1e-7 * far, &format!("{what}: channel {c}"));
                    }
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 4 * 4 * 4 * orders());
}
