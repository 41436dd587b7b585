//! Batch norm and weight norm.

use super::layout::{input_pitch, pitch};
use super::simd;
use crate::backend::shape::{Conv, Span, Volume};
use crate::backend::{BatchNorm, NormState};
use rayon::prelude::*;

/// Added to the variance, as PyTorch does.
const BATCH_EPSILON: f32 = 1e-5;
/// How far a batch moves the running statistics, as PyTorch does.
const BATCH_MOMENTUM: f32 = 0.1;
/// Added to a filter's summed variance, as in scaled weight standardisation.
const WEIGHT_EPSILON: f32 = 1e-4;

/// Per channel, `[piece][2][pitch]`: two sums over the pixels of each sample, from `f(pixel values) -> two terms`.
/// Pieces are whole samples, so that their order does not depend on the number of threads.
fn image_sums<'a>(
    floats: &'a [f32],
    image: usize,
    pitch: usize,
    add: impl Fn(usize, &'a [f32], &mut [f32], &mut [f32]) + Sync,
) -> Vec<Vec<f32>> {
    floats
        .par_chunks(image)
        .enumerate()
        .map(|(n, values)| {
            let mut sums = vec![0.0; 2 * pitch];
            let (first, second) = sums.split_at_mut(pitch);
            add(n, values, first, second);
            sums
        })
        .collect()
}

/// Mean and biased variance of each channel: every sample's own first, then put together (Chan et al.), because
/// a difference of large sums would cancel.
fn moments(floats: &[f32], image: usize, pitch: usize) -> (Vec<f64>, Vec<f64>) {
    let count = (image / pitch) as f64;
    let images = image_sums(floats, image, pitch, |_, values, mean, squares| {
        simd(
            #[inline(always)]
            || {
                for pixel in values.chunks_exact(pitch) {
                    for (sum, x) in mean.iter_mut().zip(pixel) {
                        *sum += x;
                    }
                }
                mean.iter_mut().for_each(|sum| *sum /= count as f32);
                for pixel in values.chunks_exact(pitch) {
                    for (c, x) in pixel.iter().enumerate() {
                        let d = x - mean[c];
                        squares[c] = d.mul_add(d, squares[c]);
                    }
                }
            },
        );
    });
    let (mut mean, mut squares) = (vec![0.0; pitch], vec![0.0; pitch]);
    for (n, sums) in images.iter().enumerate() {
        let before = n as f64 * count;
        for c in 0..pitch {
            let delta = sums[c] as f64 - mean[c];
            mean[c] += delta * count / (before + count);
            squares[c] += sums[pitch + c] as f64 + delta * delta * before * count / (before + count);
        }
    }
    let total = images.len() as f64 * count;
    squares.iter_mut().for_each(|s| *s /= total);
    (mean, squares)
}

/// See [`crate::backend::Backend::batch_norm_statistics`].
pub fn statistics(
    norm: BatchNorm<super::Cpu>,
    span: Span,
    volume: Volume,
    steps: usize,
    currents: &[f32],
    update: bool,
) -> NormState<Vec<f32>> {
    let pitch = pitch(volume.c);
    let image = span.steps * volume.pixels() * pitch;
    let (mean, variance) = moments(&currents[..span.batch * image], image, pitch);
    let count = (span.batch * steps * volume.pixels()) as f64;
    if update {
        for c in 0..norm.channels {
            let unbiased = variance[c] * count / (count - 1.0).max(1.0);
            norm.running_mean[c] += BATCH_MOMENTUM * (mean[c] as f32 - norm.running_mean[c]);
            norm.running_variance[c] += BATCH_MOMENTUM * (unbiased as f32 - norm.running_variance[c]);
        }
    }
    let mean: Vec<f32> = mean.iter().map(|&m| m as f32).collect();
    let variance: Vec<f32> = variance.iter().map(|&v| v as f32).collect();
    affine(norm.gain, norm.bias, mean, &variance)
}

/// See [`crate::backend::Backend::batch_norm_running`].
pub fn running(norm: BatchNorm<super::Cpu>) -> NormState<Vec<f32>> {
    affine(norm.gain, norm.bias, norm.running_mean.clone(), norm.running_variance)
}

fn affine(gain: &[f32], bias: &[f32], mean: Vec<f32>, variance: &[f32]) -> NormState<Vec<f32>> {
    let inverse_deviation: Vec<f32> = variance.iter().map(|v| 1.0 / (v + BATCH_EPSILON).sqrt()).collect();
    let scale: Vec<f32> = gain.iter().zip(&inverse_deviation).map(|(g, r)| g * r).collect();
    let shift = bias.iter().zip(&mean).zip(&scale).map(|((b, m), s)| b - m * s).collect();
    NormState { mean, inverse_deviation, scale, shift }
}

/// See [`crate::backend::Backend::channel_sums`].
pub fn channel_sums(volume: Volume, span: Span, floats: &[f32], sums: &mut [f32]) {
    let pitch = pitch(volume.c);
    let image = span.steps * volume.pixels() * pitch;
    let images = image_sums(&floats[..span.batch * image], image, pitch, |_, values, first, _| {
        for pixel in values.chunks_exact(pitch) {
            for (sum, x) in first.iter_mut().zip(pixel) {
                *sum += x;
            }
        }
    });
    for (c, sum) in sums.iter_mut().enumerate() {
        *sum = images.iter().map(|image| image[c] as f64).sum::<f64>() as f32;
    }
}

/// See [`crate::backend::Backend::batch_norm_backward`].
pub fn batch_backward(
    volume: Volume,
    span: Span,
    steps: usize,
    batch: bool,
    currents: &[f32],
    state: &NormState<Vec<f32>>,
    grad: &mut [f32],
    gain_grad: &mut [f32],
    bias_grad: &mut [f32],
) {
    let pitch = pitch(volume.c);
    let image = span.steps * volume.pixels() * pitch;
    let grad = &mut grad[..span.batch * image];
    let (mean, inverse) = (&state.mean, &state.inverse_deviation);
    let images = image_sums(grad, image, pitch, |n, values, sums, products| {
        let currents = &currents[n * image..][..image];
        simd(
            #[inline(always)]
            || {
                for (pixel, current) in values.chunks_exact(pitch).zip(currents.chunks_exact(pitch)) {
                    for c in 0..pitch {
                        sums[c] += pixel[c];
                        products[c] = pixel[c].mul_add((current[c] - mean[c]) * inverse[c], products[c]);
                    }
                }
            },
        );
    });
    for c in 0..pitch {
        bias_grad[c] = images.iter().map(|image| image[c] as f64).sum::<f64>() as f32;
        gain_grad[c] = images.iter().map(|image| image[pitch + c] as f64).sum::<f64>() as f32;
    }
    // A current that stands for T steps takes the mean's share T times.
    let share = if batch { (steps / span.steps) as f64 / (span.batch * steps * volume.pixels()) as f64 } else { 0.0 };
    let mean_grad: Vec<f32> = bias_grad.iter().map(|&g| (g as f64 * share) as f32).collect();
    let slope: Vec<f32> = gain_grad.iter().map(|&g| (g as f64 * share) as f32).collect();
    grad.par_chunks_mut(image).zip(currents.par_chunks(image)).for_each(|(grad, currents)| {
        simd(
            #[inline(always)]
            || {
                for (pixel, current) in grad.chunks_exact_mut(pitch).zip(currents.chunks_exact(pitch)) {
                    for c in 0..pitch {
                        let normalised = (current[c] - mean[c]) * inverse[c];
                        pixel[c] = state.scale[c] * (-normalised).mul_add(slope[c], pixel[c] - mean_grad[c]);
                    }
                }
            },
        );
    });
}

/// Mean of each filter and `1 / sqrt(var fan_in + 1e-4)` [ours: the population variance, as scaled weight
/// standardisation has it].
fn filters(conv: &Conv, weight: &[f32]) -> (Vec<f32>, Vec<f32>) {
    let pitch = pitch(conv.output.c);
    let fan_in = conv.fan_in() as f64;
    let mut mean = vec![0.0; pitch];
    real_rows(conv, weight, |row| row.iter().enumerate().for_each(|(k, &w)| mean[k] += w as f64 / fan_in));
    let mut squares = vec![0.0; pitch];
    real_rows(conv, weight, |row| {
        row.iter().enumerate().for_each(|(k, &w)| squares[k] += (w as f64 - mean[k]).powi(2))
    });
    let inverse = squares.iter().map(|s| (1.0 / (s + WEIGHT_EPSILON as f64).sqrt()) as f32).collect();
    (mean.iter().map(|&m| m as f32).collect(), inverse)
}

/// Calls `f` on every row (one tap and input channel, all filters) that is not padding.
fn real_rows(conv: &Conv, weight: &[f32], mut f: impl FnMut(&[f32])) {
    let (rows, pitch) = (input_pitch(conv), pitch(conv.output.c));
    for tap in weight.chunks_exact(rows * pitch) {
        tap.chunks_exact(pitch).take(conv.input.c).for_each(&mut f);
    }
}

/// As [`real_rows`] over two weights, the first changed.
fn change_real_rows(conv: &Conv, weight: &mut [f32], other: &[f32], mut f: impl FnMut(&mut [f32], &[f32])) {
    let (rows, pitch) = (input_pitch(conv), pitch(conv.output.c));
    for (tap, other) in weight.chunks_exact_mut(rows * pitch).zip(other.chunks_exact(rows * pitch)) {
        tap.chunks_exact_mut(pitch).zip(other.chunks_exact(pitch)).take(conv.input.c).for_each(|(a, b)| f(a, b));
    }
}

/// See [`crate::backend::Backend::weight_norm_forward`].
pub fn weight_forward(conv: &Conv, weight: &[f32], gain: &[f32], scale: f32, effective: &mut [f32]) {
    let (mean, inverse) = filters(conv, weight);
    change_real_rows(conv, effective, weight, |out, row| {
        for (k, out) in out.iter_mut().enumerate() {
            *out = gain[k] * scale * inverse[k] * (row[k] - mean[k]);
        }
    });
}

/// See [`crate::backend::Backend::weight_norm_backward`].
///
/// With `u = (W - mean) i`, `i = 1/sqrt(sum (W - mean)^2 + 1e-4)` and `G` the effective weight's gradient:
/// `dgain = s sum G u` and `dW = gain s i (G - mean(G) - u sum(G u))`.
pub fn weight_backward(conv: &Conv, weight: &[f32], gain: &[f32], scale: f32, grad: &mut [f32], gain_grad: &mut [f32]) {
    let (mean, inverse) = filters(conv, weight);
    let pitch = pitch(conv.output.c);
    let (mut sums, mut products) = (vec![0.0f64; pitch], vec![0.0f64; pitch]);
    change_real_rows(conv, grad, weight, |grad, row| {
        for k in 0..pitch {
            sums[k] += grad[k] as f64;
            products[k] += (grad[k] * (row[k] - mean[k]) * inverse[k]) as f64;
        }
    });
    for k in 0..pitch {
        gain_grad[k] = (scale as f64 * products[k]) as f32;
        sums[k] /= conv.fan_in() as f64;
    }
    change_real_rows(conv, grad, weight, |grad, row| {
        for k in 0..pitch {
            let u = (row[k] - mean[k]) * inverse[k];
            grad[k] = gain[k] * scale * inverse[k] * (grad[k] - sums[k] as f32 - u * products[k] as f32);
        }
    });
}
