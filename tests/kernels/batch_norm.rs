//! Batch norm: statistics, running statistics, backward.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::{Cpu, layout, norm};
use adali::backend::gpu::params::{BatchNorm, BatchNormBackward};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Span, Volume};
use adali::backend::{self, Storage};

/// `n` values in a range, with padding.
fn vector(rng: &mut Rng, channels: usize, low: f64, high: f64) -> Vec<f32> {
    (0..padded(channels)).map(|c| if c < channels { rng.uniform(low, high) as f32 } else { 0.0 }).collect()
}

/// Pieces of the kernels, converted to the CPU backend's layout.
fn cpu_pieces(pieces: &[f32], channels: usize) -> Vec<f32> {
    let pitch = layout::pitch(channels);
    pieces.chunks_exact(padded(channels)).flat_map(|row| row[..pitch].to_vec()).collect()
}

/// Output vectors of a launch.
fn outputs<const N: usize>(device: &Device, channels: usize) -> [CudaBuffer; N] {
    std::array::from_fn(|_| device.empty(padded(channels) * 4))
}

fn over_channels(channels: usize) -> Launch {
    Launch { grid: [padded(channels) as u32 / 8, 1, 1], threads: 512, shared: 0 }
}

/// Asserts that values differ only by rounding; `size` is the size of what was summed for them.
#[track_caller]
fn assert_near(what: &str, device: &Device, got: &CudaBuffer, want: &[f32], channels: usize, size: f32) {
    let got: Vec<f32> = device.get(got);
    assert_close(what, &got[..channels], &want[..channels], 1e-6, 1e-6 * size);
    assert!(got.iter().all(|x| x.is_finite()), "{what}: padding");
}

#[test]
fn batch_norm_statistics_match() {
    let mut rng = Rng::fresh("batch_norm_statistics");
    let mut count = 0;
    for pieces in [1, 3, 255, 1300] {
        for channels in [3, 33, 64] {
            for (equal, update, repeats, far) in [(true, true, 1, 0.0), (true, false, 3, 1e3), (false, true, 1, 10.0)] {
                let what = format!("{pieces} pieces, {channels} channels, equal {equal}, around {far}");
                let pitch = padded(channels);
                let counts: Vec<u32> = (0..pieces).map(|_| if equal { 35 } else { 1 + rng.below(50) as u32 }).collect();
                let mut moments = vec![0.0f32; pieces * 2 * pitch];
                for (piece, &n) in moments.chunks_exact_mut(2 * pitch).zip(&counts) {
                    for c in 0..channels {
                        piece[c] = (far + rng.normal()) as f32;
                        piece[pitch + c] = (n as f64 * rng.uniform(0.0, 2.0)) as f32;
                    }
                }
                let (gain, bias) = (vector(&mut rng, channels, 0.5, 1.5), vector(&mut rng, channels, -1.0, 1.0));
                let running = [vector(&mut rng, channels, -1.0, 1.0), vector(&mut rng, channels, 0.5, 1.5)];

                // The CPU's pieces all have one size; a piece of n values becomes n pieces of one, equally far from the mean.
                let mut running_of_cpu = running.clone().map(|v| Cpu.vector(&v[..channels]).unwrap());
                let of_cpu = if equal { moments.clone() } else { singles(&moments, &counts, pitch) };
                let (batch, values) = if equal { (pieces, 35) } else { (counts.iter().sum::<u32>() as usize, 1) };
                let [running_mean, running_variance] = &mut running_of_cpu;
                let batch_norm = backend::BatchNorm::<Cpu> {
                    channels,
                    gain: &Cpu.vector(&gain[..channels]).unwrap(),
                    bias: &Cpu.vector(&bias[..channels]).unwrap(),
                    running_mean,
                    running_variance,
                };
                let (span, volume) = (Span { batch, steps: 1 }, Volume { h: values, w: 1, c: channels });
                let sums = cpu_pieces(&of_cpu, channels);
                let want = norm::statistics(batch_norm, span, volume, repeats, &sums, update);

                let device = Device::new(rng.next_u64());
                let (of_moments, of_counts) = (device.put(&moments), device.put(&counts));
                let (gain, bias) = (device.put(&gain), device.put(&bias));
                let [running_mean, running_variance] = running.map(|v| device.put(&v));
                let [mean, inv_std, scale, shift] = outputs(&device, channels);
                let params = BatchNorm {
                    moments: of_moments.address(),
                    counts: of_counts.address(),
                    gain: gain.address(),
                    bias: bias.address(),
                    running_mean: running_mean.address(),
                    running_variance: running_variance.address(),
                    mean: mean.address(),
                    inv_std: inv_std.address(),
                    scale: scale.address(),
                    shift: shift.address(),
                    pieces: pieces as u32,
                    repeats: repeats as u32,
                    channels: channels as u32,
                    update: update.into(),
                };
                device.run("batch_norm_statistics", over_channels(channels), &params);
                let size = far as f32;
                assert_near(&what, &device, &mean, &want.mean, channels, 1.0);
                assert_near(&what, &device, &inv_std, &want.inv_std, channels, 0.0);
                assert_near(&what, &device, &scale, &want.scale, channels, 0.0);
                assert_near(&what, &device, &shift, &want.shift, channels, 1.0 + size);
                assert_near(&what, &device, &running_mean, &running_of_cpu[0], channels, 1.0);
                assert_near(&what, &device, &running_variance, &running_of_cpu[1], channels, 0.0);

                // The affine map from the running statistics: equal bit by bit.
                let [mean, inv_std, scale, shift] = outputs(&device, channels);
                let params = BatchNorm {
                    mean: mean.address(),
                    inv_std: inv_std.address(),
                    scale: scale.address(),
                    shift: shift.address(),
                    ..params
                };
                let launch = Launch { grid: [padded(channels).div_ceil(256) as u32, 1, 1], threads: 256, shared: 0 };
                device.run("batch_norm_running", launch, &params);
                let [mut mean_now, mut variance_now] =
                    [running_mean, running_variance].map(|v| Cpu.vector(&device.get::<f32>(&v)[..channels]).unwrap());
                let batch_norm = backend::BatchNorm::<Cpu> {
                    channels,
                    gain: &Cpu.vector(&device.get::<f32>(&gain)[..channels]).unwrap(),
                    bias: &Cpu.vector(&device.get::<f32>(&bias)[..channels]).unwrap(),
                    running_mean: &mut mean_now,
                    running_variance: &mut variance_now,
                };
                let want = norm::running(batch_norm);
                for (got, want) in
                    [(mean, want.mean), (inv_std, want.inv_std), (scale, want.scale), (shift, want.shift)]
                {
                    assert_eq!(device.get::<f32>(&got)[..channels], want[..channels], "{what}");
                }
                count += 1;
            }
        }
    }
    assert_eq!(count, 4 * 3 * 3);
}

/// Pieces of one value each with the same moments: all at the mean, the first carrying the squared distances.
fn singles(moments: &[f32], counts: &[u32], pitch: usize) -> Vec<f32> {
    let mut all = Vec::new();
    for (piece, &n) in moments.chunks_exact(2 * pitch).zip(counts) {
        for i in 0..n {
            all.extend_from_slice(&piece[..pitch]);
            all.extend(piece[pitch..].iter().map(|&squares| if i == 0 { squares } else { 0.0 }));
        }
    }
    all
}

#[test]
fn batch_norm_backward_matches() {
    let mut rng = Rng::fresh("batch_norm_backward");
    let mut count = 0;
    for pieces in [1, 3, 255, 1300] {
        for channels in [3, 33, 64] {
            for (batch, steps) in [(true, 1), (true, 4), (false, 1)] {
                let what = format!("{pieces} pieces, {channels} channels, batch {batch}, {steps} steps");
                let pitch = padded(channels);
                let sums: Vec<f32> = (0..pieces)
                    .flat_map(|_| {
                        [vector(&mut rng, channels, -1.0, 1.0), vector(&mut rng, channels, -1.0, 1.0)].concat()
                    })
                    .collect();
                assert_eq!(sums.len(), pieces * 2 * pitch);
                let state =
                    [(-1.0, 1.0), (0.5, 2.0), (0.5, 2.0)].map(|(low, high)| vector(&mut rng, channels, low, high));
                let volume = Volume { h: 5, w: 7, c: channels };
                let samples = (pieces * steps * volume.pixels()) as f64;
                let share = if batch { steps as f64 / samples } else { 0.0 };
                // As in src/backend/cpu/norm.rs, channel by channel.
                let mut want = [(); 6].map(|()| Vec::with_capacity(channels));
                for c in 0..channels {
                    let total = |first: usize| -> f64 {
                        sums.chunks_exact(2 * pitch).map(|piece| f64::from(piece[first + c])).sum()
                    };
                    let (first, second) = (total(0), total(pitch));
                    let [mean, inverse, scale] = [0, 1, 2].map(|i| f64::from(state[i][c]));
                    let slope = scale * second * share * inverse;
                    let sum = if batch { 0.0 } else { scale * first };
                    let values = [second, first, scale, -slope, slope * mean - scale * first * share, sum];
                    want.iter_mut().zip(values).for_each(|(want, value)| want.push(value as f32));
                }

                let device = Device::new(rng.next_u64());
                let of_sums = device.put(&sums);
                let [mean, inv_std, scale] = state.map(|v| device.put(&v));
                let out: [CudaBuffer; 6] = outputs(&device, channels);
                let params = BatchNormBackward {
                    sums: of_sums.address(),
                    mean: mean.address(),
                    inv_std: inv_std.address(),
                    scale: scale.address(),
                    gain_grad: out[0].address(),
                    bias_grad: out[1].address(),
                    of_gradient: out[2].address(),
                    of_current: out[3].address(),
                    constant: out[4].address(),
                    sum: out[5].address(),
                    share,
                    pieces: pieces as u32,
                    channels: channels as u32,
                };
                device.run("batch_norm_backward", over_channels(channels), &params);
                for (got, want) in out.iter().zip(&want) {
                    assert_near(&what, &device, got, want, channels, 0.0);
                }
                count += 1;
            }
        }
    }
    assert_eq!(count, 4 * 3 * 3);
}
