//! Sums of projections, and combined spikes.

use super::layout::{pitch, words};
use super::lif::{Lif, each_image, rows_per_tile};
use super::norm;
use super::threads::{Scratch, with_scratch};
use super::{Cpu, simd::split};
use crate::backend::shape::{Span, Volume};
use crate::backend::{Affine, BatchNorm, Branches, Input, Neurons, NormState, Put, SpikeOutput, Summand};
use crate::host::zeros;
use anyhow::Result;
use rayon::prelude::*;
use std::sync::Mutex;

/// One sample's pixels from `first` on of the sum, `[steps][pixels][pitch]`.
struct Tile<'a> {
    volume: Volume,
    sample: usize,
    first: usize,
    steps: usize,
    sum: &'a mut [f32],
}

impl Tile<'_> {
    fn fill(&mut self, summands: &[Summand<Cpu>]) {
        for (k, summand) in summands.iter().enumerate() {
            let put = if k == 0 { Put::Write } else { Put::Add };
            self.add(summand, put);
        }
    }

    fn add(&mut self, summand: &Summand<Cpu>, put: Put) {
        let (pitch, words, pixels) = (pitch(self.volume.c), words(self.volume.c), self.volume.pixels());
        let len = self.sum.len() / self.steps;
        let Affine { scale, shift } = summand.affine;
        for (t, sum) in self.sum.chunks_exact_mut(len).enumerate() {
            let t = if summand.steps == 1 { 0 } else { t };
            let first = (self.sample * summand.steps + t) * pixels + self.first;
            for (pixel, sum) in sum.chunks_exact_mut(pitch).enumerate() {
                let place = first + pixel;
                match summand.input {
                    Input::Dense(values) => {
                        let values = &values[place * pitch..][..pitch];
                        put_each(put, sum, |c| scale[c].mul_add(values[c], shift[c]));
                    }
                    Input::Spikes { bits, scale: factor } => {
                        let bits = &bits[place * words..][..words];
                        let spike = |c: usize| if bits[c / 32] >> (c % 32) & 1 == 1 { factor } else { 0.0 };
                        put_each(put, sum, |c| scale[c].mul_add(spike(c), shift[c]));
                    }
                }
            }
        }
    }
}

/// Writes or adds `value(i)` to every element.
#[inline(always)]
fn put_each(put: Put, out: &mut [f32], value: impl Fn(usize) -> f32) {
    match put {
        Put::Write => out.iter_mut().enumerate().for_each(|(i, out)| *out = value(i)),
        Put::Add => out.iter_mut().enumerate().for_each(|(i, out)| *out += value(i)),
    }
}

impl Branches for Cpu {
    fn sum_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        summands: &[Summand<Self>],
        sum: Option<&mut Vec<f32>>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        let (pitch, pixels) = (pitch(volume.c), volume.pixels());
        let steps = summands.iter().map(|summand| summand.steps).max().unwrap_or(1);
        let (ones, none) = (vec![1.0; pitch], vec![0.0; pitch]);
        let affine = Affine { scale: &ones, shift: &none };
        let lif = Lif::new(volume, span, affine, neurons, out.inside.is_some());
        let kept: Vec<_> = split(sum, steps * pixels * pitch, span.batch).into_iter().map(Mutex::new).collect();
        let rows = rows_per_tile(volume, steps) * volume.w;
        each_image(volume, span, out, |n, out| {
            with_scratch(|Scratch { tile, .. }| {
                for first in (0..pixels).step_by(rows) {
                    let len = rows.min(pixels - first) * pitch;
                    tile.resize(steps * len, 0.0);
                    Tile { volume, sample: n, first, steps, sum: tile }.fill(summands);
                    // A sample is one task's.
                    if let Some(kept) = kept[n].lock().expect("no task panics while it sums").as_mut() {
                        for (t, tile) in tile.chunks_exact(len).enumerate() {
                            kept[(t * pixels + first) * pitch..][..len].copy_from_slice(tile);
                        }
                    }
                    lif.run(tile, steps, first, out);
                }
            });
        });
        Ok(())
    }

    fn sum_currents(&self, volume: Volume, span: Span, summands: &[Summand<Self>], sum: &mut Vec<f32>) -> Result<()> {
        let image = span.steps * volume.pixels() * pitch(volume.c);
        sum.par_chunks_mut(image).take(span.batch).enumerate().for_each(|(sample, sum)| {
            Tile { volume, sample, first: 0, steps: span.steps, sum }.fill(summands);
        });
        Ok(())
    }

    fn batch_norm_statistics(
        &self,
        volume: Volume,
        span: Span,
        currents: &Vec<f32>,
        steps: usize,
        norm: BatchNorm<Self>,
        update: bool,
        state: &mut NormState<Vec<f32>>,
    ) -> Result<()> {
        let pitch = pitch(volume.c);
        let mut moments = zeros(span.batch * span.steps * 2 * pitch)?;
        let pieces = moments.par_chunks_mut(2 * pitch).zip(currents.par_chunks(volume.pixels() * pitch));
        pieces.for_each(|(moments, currents)| norm::moments(currents, moments));
        *state = norm::statistics(norm, span, volume, steps, &moments, update);
        Ok(())
    }

    fn pass_gradient(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Vec<f32>,
        scale: &Vec<f32>,
        steps: usize,
        put: Put,
        to: &mut Vec<f32>,
    ) -> Result<()> {
        let pitch = pitch(volume.c);
        let step = volume.pixels() * pitch;
        let images = to.par_chunks_mut(steps * step).zip(gradient.par_chunks(span.steps * step));
        images.take(span.batch).for_each(|(to, gradient)| {
            // Several steps of the gradient, or one, for each of the result's.
            let each = to.len();
            for (pixel, to) in to.chunks_exact_mut(pitch).enumerate() {
                let at = |i: usize, c: usize| gradient[i * each + pixel * pitch + c];
                put_each(put, to, |c| scale[c] * (0..span.steps / steps).map(|i| at(i, c)).sum::<f32>());
            }
        });
        Ok(())
    }

    fn gain_forward(&self, gain: &Vec<f32>, scale: f32, _: usize, out: &mut Vec<f32>) -> Result<()> {
        out.fill(scale * gain[0]);
        Ok(())
    }

    fn gain_backward(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Vec<f32>,
        currents: &Vec<f32>,
        current_steps: usize,
        scale: f32,
        gain_grad: &mut Vec<f32>,
    ) -> Result<()> {
        let pitch = pitch(volume.c);
        let step = volume.pixels() * pitch;
        let of_sample = |n: usize| {
            let mut sum = 0.0;
            for t in 0..span.steps {
                let gradient = &gradient[(n * span.steps + t) * step..][..step];
                let currents = &currents[(n * current_steps + t.min(current_steps - 1)) * step..][..step];
                for (gradient, currents) in gradient.chunks_exact(pitch).zip(currents.chunks_exact(pitch)) {
                    let products = gradient.iter().zip(currents).take(volume.c);
                    sum += products.map(|(&g, &y)| f64::from(g) * f64::from(y)).sum::<f64>();
                }
            }
            sum
        };
        let sums: Vec<f64> = (0..span.batch).into_par_iter().map(of_sample).collect();
        gain_grad[0] = (f64::from(scale) * sums.into_iter().sum::<f64>()) as f32;
        Ok(())
    }

    fn and_spikes(
        &self,
        volume: Volume,
        span: Span,
        own: &Vec<u32>,
        inverted: bool,
        other: &Vec<u32>,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let invert = if inverted { u32::MAX } else { 0 };
        let all = span.batch * span.steps * volume.pixels() * words(volume.c);
        let each = out[..all].par_iter_mut().zip(&own[..all]).zip(&other[..all]);
        each.for_each(|((out, own), other)| *out = (own ^ invert) & other);
        Ok(())
    }

    fn mask_gradient(
        &self,
        volume: Volume,
        span: Span,
        gradient: &Vec<f32>,
        mask: &Vec<u32>,
        inverted: bool,
        scale: f32,
        put: Put,
        to: &mut Vec<f32>,
    ) -> Result<()> {
        let (pitch, words) = (pitch(volume.c), words(volume.c));
        let places = span.batch * span.steps * volume.pixels();
        let each = to.par_chunks_mut(pitch).zip(gradient.par_chunks(pitch)).zip(mask.par_chunks(words));
        each.take(places).for_each(|((to, gradient), mask)| {
            let passes = |c: usize| (mask[c / 32] >> (c % 32) & 1 == 1) != inverted;
            put_each(put, to, |c| if passes(c) { scale * gradient[c] } else { 0.0 });
        });
        Ok(())
    }

    fn add_spikes(
        &self,
        volume: Volume,
        span: Span,
        own: &Vec<u32>,
        other: Input<Self>,
        out: &mut Vec<f32>,
    ) -> Result<()> {
        let ones = vec![1.0; pitch(volume.c)];
        let none = vec![0.0; pitch(volume.c)];
        let affine = Affine { scale: &ones, shift: &none };
        let own = Summand { input: Input::Spikes { bits: own, scale: 1.0 }, steps: span.steps, affine };
        self.sum_currents(volume, span, &[own, Summand { input: other, steps: span.steps, affine }], out)
    }
}
