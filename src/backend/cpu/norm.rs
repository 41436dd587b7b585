//! Batch norm and weight norm.

use super::layout::{input_pitch, pitch};
use super::simd::{lanes, simd};
use crate::backend::shape::{Conv, Span, Volume};
use crate::backend::{BatchNorm, NormBackward, NormState, WeightNorm};
use rayon::prelude::*;

/// Added to the variance, as PyTorch does.
const BATCH_EPSILON: f32 = 1e-5;
/// How far a batch moves the running statistics, as PyTorch does.
const BATCH_MOMENTUM: f32 = 0.1;
/// Added to a filter's summed variance, as in scaled weight standardisation.
const WEIGHT_EPSILON: f64 = 1e-4;

/// Channels that a loop over pixels keeps in registers.
const LANES: usize = 16;

/// Runs `f(first channel) -> two sums` for every 16 channels and puts them into `out`, `[2][pitch]`.
fn each_lanes(out: &mut [f32], f: impl Fn(usize) -> [[f32; LANES]; 2]) {
    let pitch = out.len() / 2;
    simd(
        #[inline(always)]
        || {
            for first in (0..pitch).step_by(LANES) {
                let [a, b] = f(first);
                out[first..][..LANES].copy_from_slice(&a);
                out[pitch + first..][..LANES].copy_from_slice(&b);
            }
        },
    );
}

/// Mean and sum of squared deviations from it, for each channel of one piece, `[pixels][pitch]`.
pub fn moments(values: &[f32], out: &mut [f32]) {
    let pitch = out.len() / 2;
    let count = (values.len() / pitch) as f32;
    each_lanes(
        out,
        #[inline(always)]
        |first| {
            let (mut mean, mut squares) = ([0.0; LANES], [0.0; LANES]);
            for pixel in values.chunks_exact(pitch) {
                let x = lanes::<LANES>(pixel, first);
                for i in 0..LANES {
                    mean[i] += x[i];
                }
            }
            for i in 0..LANES {
                mean[i] /= count;
            }
            for pixel in values.chunks_exact(pitch) {
                let x = lanes::<LANES>(pixel, first);
                for i in 0..LANES {
                    let d = x[i] - mean[i];
                    squares[i] = d.mul_add(d, squares[i]);
                }
            }
            [mean, squares]
        },
    );
}

/// Sum of each channel of one piece's gradient.
pub fn gradient_sums(gradient: &[f32], out: &mut [f32]) {
    let pitch = out.len() / 2;
    each_lanes(
        out,
        #[inline(always)]
        |first| {
            let mut sums = [0.0; LANES];
            for pixel in gradient.chunks_exact(pitch) {
                let g = lanes::<LANES>(pixel, first);
                for i in 0..LANES {
                    sums[i] += g[i];
                }
            }
            [sums, [0.0; LANES]]
        },
    );
}

/// A bias's gradient: the same sums as a single vector.
pub fn bias_grad(gradient: &[f32], out: &mut [f32]) {
    let mut sums = vec![0.0; 2 * out.len()];
    gradient_sums(gradient, &mut sums);
    out.copy_from_slice(&sums[..out.len()]);
}

/// Sums of the gradient and of its product with the normalised currents, per channel of one piece.
pub fn norm_gradient_sums(gradient: &[f32], currents: &[f32], state: &NormState<Vec<f32>>, out: &mut [f32]) {
    let pitch = out.len() / 2;
    each_lanes(
        out,
        #[inline(always)]
        |first| {
            let (mut sums, mut products) = ([0.0; LANES], [0.0; LANES]);
            let (mean, inverse) = (lanes::<LANES>(&state.mean, first), lanes::<LANES>(&state.inv_std, first));
            for (pixel, current) in gradient.chunks_exact(pitch).zip(currents.chunks_exact(pitch)) {
                let (g, y) = (lanes::<LANES>(pixel, first), lanes::<LANES>(current, first));
                for i in 0..LANES {
                    sums[i] += g[i];
                    products[i] = g[i].mul_add((y[i] - mean[i]) * inverse[i], products[i]);
                }
            }
            [sums, products]
        },
    );
}

/// Both sums over all pieces, in order.
fn totals(sums: &[f32], pitch: usize) -> [Vec<f64>; 2] {
    let mut totals = [vec![0.0; pitch], vec![0.0; pitch]];
    for piece in sums.chunks_exact(2 * pitch) {
        for (total, part) in totals.iter_mut().zip(piece.chunks_exact(pitch)) {
            total.iter_mut().zip(part).for_each(|(total, &x)| *total += x as f64);
        }
    }
    totals
}

/// See [`crate::backend::ConvForward::conv_batch_norm`]: combines the pieces' moments (Chan et al.), because a difference of
/// large sums would cancel.
pub fn statistics(
    norm: BatchNorm<super::Cpu>,
    span: Span,
    volume: Volume,
    steps: usize,
    sums: &[f32],
    update: bool,
) -> NormState<Vec<f32>> {
    let pitch = pitch(volume.c);
    let count = volume.pixels() as f64;
    let (mut mean, mut variance) = (vec![0.0; pitch], vec![0.0; pitch]);
    let pieces = span.batch * span.steps;
    for (n, piece) in sums.chunks_exact(2 * pitch).take(pieces).enumerate() {
        let before = n as f64 * count;
        for c in 0..pitch {
            let delta = piece[c] as f64 - mean[c];
            mean[c] += delta * count / (before + count);
            variance[c] += piece[pitch + c] as f64 + delta * delta * before * count / (before + count);
        }
    }
    variance.iter_mut().for_each(|v| *v /= pieces as f64 * count);
    let samples = (span.batch * steps * volume.pixels()) as f64;
    if update {
        for c in 0..norm.channels {
            let unbiased = variance[c] * samples / (samples - 1.0).max(1.0);
            norm.running_mean[c] += BATCH_MOMENTUM * (mean[c] as f32 - norm.running_mean[c]);
            norm.running_variance[c] += BATCH_MOMENTUM * (unbiased as f32 - norm.running_variance[c]);
        }
    }
    let mean: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
    let variance: Vec<f32> = variance.iter().map(|&v| v as f32).collect();
    affine(norm.gain, norm.bias, mean, &variance)
}

/// See [`crate::backend::NeuronLayers::batch_norm_running`].
pub fn running(norm: BatchNorm<super::Cpu>) -> NormState<Vec<f32>> {
    affine(norm.gain, norm.bias, norm.running_mean.clone(), norm.running_variance)
}

fn affine(gain: &[f32], bias: &[f32], mean: Vec<f32>, variance: &[f32]) -> NormState<Vec<f32>> {
    let inv_std: Vec<f32> = variance.iter().map(|v| 1.0 / (v + BATCH_EPSILON).sqrt()).collect();
    let scale: Vec<f32> = gain.iter().zip(&inv_std).map(|(g, r)| g * r).collect();
    let shift = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    NormState { mean, inv_std, scale, shift }
}

/// A bias's gradient from the pieces' sums.
pub fn channel_sums(sums: &[f32], pieces: usize, out: &mut [f32]) {
    let [first, _] = totals(&sums[..2 * out.len() * pieces], out.len());
    out.iter_mut().zip(first).for_each(|(out, sum)| *out = sum as f32);
}

/// A batch norm's backward pass from the pieces' sums: gradients of its gain, its bias and a bias before it; then `out`,
/// which holds the gradient of the normalised currents, becomes that of the currents.
pub fn batch_backward(
    volume: Volume,
    span: Span,
    steps: usize,
    sums: &[f32],
    norm: NormBackward<super::Cpu>,
    out: &mut [f32],
) {
    let NormBackward { currents, state, batch, gain_grad, bias_grad, mut current_bias_grad, .. } = norm;
    let pitch = pitch(volume.c);
    let [first, second] = totals(&sums[..2 * pitch * span.batch], pitch);
    // A current that stands for T steps takes the mean's share T times.
    let share = if batch { (steps / span.steps) as f64 / (span.batch * steps * volume.pixels()) as f64 } else { 0.0 };
    let (mut of_current, mut constant) = (vec![0.0; pitch], vec![0.0; pitch]);
    for c in 0..pitch {
        (bias_grad[c], gain_grad[c]) = (first[c] as f32, second[c] as f32);
        let [scale, inverse, mean] = [state.scale[c], state.inv_std[c], state.mean[c]].map(f64::from);
        let slope = scale * second[c] * share * inverse;
        of_current[c] = -slope as f32;
        // A bias before the norm shifts the batch's mean as well: it changes nothing.
        if let Some(sum) = &mut current_bias_grad {
            sum[c] = if batch { 0.0 } else { (scale * first[c]) as f32 };
        }
        constant[c] = (slope * mean - scale * first[c] * share) as f32;
    }
    let image = span.steps * volume.pixels() * pitch;
    out.par_chunks_mut(image).zip(currents.par_chunks(image)).take(span.batch).for_each(|(out, currents)| {
        simd(
            #[inline(always)]
            || {
                for (out, currents) in out.chunks_exact_mut(pitch).zip(currents.chunks_exact(pitch)) {
                    for first in (0..pitch).step_by(LANES) {
                        let (of_gradient, of_current) =
                            (lanes::<LANES>(&state.scale, first), lanes::<LANES>(&of_current, first));
                        let (constant, y) = (lanes::<LANES>(&constant, first), lanes::<LANES>(currents, first));
                        for (i, g) in out[first..][..LANES].iter_mut().enumerate() {
                            *g = of_gradient[i].mul_add(*g, of_current[i].mul_add(y[i], constant[i]));
                        }
                    }
                }
            },
        );
    });
}

/// Mean of each filter and `1 / sqrt(var fan_in + 1e-4)` (ours: the population variance, as in scaled weight
/// standardisation). In f64, so that weights that differ little from their mean, or that cancel, keep their digits.
fn filters(conv: &Conv, weight: &[f32], norm: WeightNorm) -> [Vec<f64>; 2] {
    let pitch = pitch(conv.output.c);
    let mut mean = vec![0.0; pitch];
    real_rows(conv, weight, |row| row.iter().enumerate().for_each(|(k, &w)| mean[k] += w as f64));
    mean.iter_mut().for_each(|m| *m /= conv.fan_in() as f64);
    let mut squares = vec![0.0; pitch];
    real_rows(conv, weight, |row| {
        row.iter().enumerate().for_each(|(k, &w)| squares[k] += (w as f64 - mean[k]).powi(2))
    });
    let factor = norm.factor(conv.fan_in());
    [mean, squares.iter().map(|s| 1.0 / (factor * s + WEIGHT_EPSILON).sqrt()).collect()]
}

/// Calls `f` on every row (one tap and input channel, all filters) that is not padding.
fn real_rows(conv: &Conv, weight: &[f32], mut f: impl FnMut(&[f32])) {
    let (rows, pitch) = (input_pitch(conv), pitch(conv.output.c));
    for tap in weight.chunks_exact(rows * pitch) {
        tap.chunks_exact(pitch).take(conv.input.c).for_each(&mut f);
    }
}

/// Like [`real_rows`] over two weights, of which the first is changed.
fn change_real_rows(conv: &Conv, weight: &mut [f32], other: &[f32], mut f: impl FnMut(&mut [f32], &[f32])) {
    let (rows, pitch) = (input_pitch(conv), pitch(conv.output.c));
    for (tap, other) in weight.chunks_exact_mut(rows * pitch).zip(other.chunks_exact(rows * pitch)) {
        tap.chunks_exact_mut(pitch).zip(other.chunks_exact(pitch)).take(conv.input.c).for_each(|(a, b)| f(a, b));
    }
}

/// See [`crate::backend::Training::weight_norm_forward`].
pub fn weight_forward(conv: &Conv, weight: &[f32], gain: &[f32], norm: WeightNorm, effective: &mut [f32]) {
    let ([mean, inverse], scale) = (filters(conv, weight, norm), norm.scale);
    change_real_rows(conv, effective, weight, |out, row| {
        for (k, out) in out.iter_mut().enumerate() {
            *out = ((gain[k] * scale) as f64 * inverse[k] * (row[k] as f64 - mean[k])) as f32;
        }
    });
}

/// See [`crate::backend::Training::weight_norm_backward`].
///
/// With `u = (W - mean) i`, `i = 1/sqrt(f sum (W - mean)^2 + 1e-4)`, `f` the variance's factor and `G` the effective
/// weight's gradient: `dgain = s sum G u` and `dW = gain s i (G - mean(G) - f u sum(G u))`.
pub fn weight_backward(
    conv: &Conv,
    weight: &[f32],
    gain: &[f32],
    norm: WeightNorm,
    grad: &mut [f32],
    gain_grad: &mut [f32],
) {
    let ([mean, inverse], scale) = (filters(conv, weight, norm), norm.scale);
    let (pitch, factor) = (pitch(conv.output.c), norm.factor(conv.fan_in()));
    let (mut sums, mut products) = (vec![0.0; pitch], vec![0.0; pitch]);
    change_real_rows(conv, grad, weight, |grad, row| {
        for k in 0..pitch {
            sums[k] += grad[k] as f64;
            products[k] += grad[k] as f64 * (row[k] as f64 - mean[k]) * inverse[k];
        }
    });
    for k in 0..pitch {
        gain_grad[k] = (scale as f64 * products[k]) as f32;
        sums[k] /= conv.fan_in() as f64;
        products[k] *= factor;
    }
    change_real_rows(conv, grad, weight, |grad, row| {
        for k in 0..pitch {
            let u = (row[k] as f64 - mean[k]) * inverse[k];
            let stretch = (gain[k] * scale) as f64 * inverse[k];
            grad[k] = (stretch * (grad[k] as f64 - sums[k] - u * products[k])) as f32;
        }
    });
}
