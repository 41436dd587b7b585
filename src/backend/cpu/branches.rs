//! Sums of projections, and combined spikes.

use super::layout::{pitch, words};
use super::lif::{Lif, each_image, rows_per_tile};
use super::simd::{each_lanes, lanes, put_lanes, simd, split};
use super::threads::{Scratch, with_scratch};
use super::{Cpu, norm};
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
    /// `shift` is the sum of the summands' shifts.
    fn fill(&mut self, summands: &[Summand<Cpu>], shift: &[f32]) {
        simd(
            #[inline(always)]
            || {
                for (k, summand) in summands.iter().enumerate() {
                    self.add(summand, (k == 0).then_some(shift));
                }
            },
        );
    }

    /// Adds the products with the summand's scale to what is there, or to `shift`.
    #[inline(always)]
    fn add(&mut self, summand: &Summand<Cpu>, shift: Option<&[f32]>) {
        let (pitch, words, pixels) = (pitch(self.volume.c), words(self.volume.c), self.volume.pixels());
        let len = self.sum.len() / self.steps;
        let scale = summand.affine.scale;
        for (t, sum) in self.sum.chunks_exact_mut(len).enumerate() {
            let t = if summand.steps == 1 { 0 } else { t };
            let first = (self.sample * summand.steps + t) * pixels + self.first;
            for (pixel, sum) in sum.chunks_exact_mut(pitch).enumerate() {
                let place = first + pixel;
                match summand.input {
                    Input::Dense(values) => {
                        let values = &values[place * pitch..][..pitch];
                        each_lanes!(pitch, |L, c| {
                            let (scale, values) = (lanes::<L>(scale, c), lanes::<L>(values, c));
                            let mut x = *shift.map_or(lanes::<L>(sum, c), |shift| lanes::<L>(shift, c));
                            for i in 0..L {
                                x[i] = scale[i].mul_add(values[i], x[i]);
                            }
                            put_lanes(Put::Write, &mut sum[c..], &x);
                        });
                    }
                    Input::Spikes { bits, scale: factor } => {
                        let bits = &bits[place * words..][..words];
                        each_lanes!(pitch, |L, c| {
                            let (scale, word) = (lanes::<L>(scale, c), bits[c / 32]);
                            let mut x = *shift.map_or(lanes::<L>(sum, c), |shift| lanes::<L>(shift, c));
                            for i in 0..L {
                                let spike = f32::from_bits(factor.to_bits() & (word >> i & 1).wrapping_neg());
                                x[i] = scale[i].mul_add(spike, x[i]);
                            }
                            put_lanes(Put::Write, &mut sum[c..], &x);
                        });
                    }
                }
            }
        }
    }
}

fn total_shift(summands: &[Summand<Cpu>], pitch: usize) -> Vec<f32> {
    (0..pitch).map(|c| summands.iter().map(|summand| summand.affine.shift[c]).sum()).collect()
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
        let shift = total_shift(summands, pitch);
        let kept: Vec<_> = split(sum, steps * pixels * pitch, span.batch).into_iter().map(Mutex::new).collect();
        let rows = rows_per_tile(volume, steps) * volume.w;
        each_image(volume, span, out, |n, out| {
            with_scratch(|Scratch { tile, .. }| {
                for first in (0..pixels).step_by(rows) {
                    let len = rows.min(pixels - first) * pitch;
                    tile.resize(steps * len, 0.0);
                    Tile { volume, sample: n, first, steps, sum: tile }.fill(summands, &shift);
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
        let shift = total_shift(summands, pitch(volume.c));
        sum.par_chunks_mut(image).take(span.batch).enumerate().for_each(|(sample, sum)| {
            Tile { volume, sample, first: 0, steps: span.steps, sum }.fill(summands, &shift);
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
            simd(
                #[inline(always)]
                || {
                    for (pixel, to) in to.chunks_exact_mut(pitch).enumerate() {
                        each_lanes!(pitch, |L, c| {
                            let (scale, mut sum) = (lanes::<L>(scale, c), [0.0; L]);
                            for i in 0..span.steps / steps {
                                let gradient = lanes::<L>(gradient, i * each + pixel * pitch + c);
                                sum.iter_mut().zip(gradient).for_each(|(sum, g)| *sum += g);
                            }
                            sum.iter_mut().zip(scale).for_each(|(sum, scale)| *sum *= scale);
                            put_lanes(put, &mut to[c..], &sum);
                        });
                    }
                },
            );
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
        let invert = if inverted { u32::MAX } else { 0 };
        each.take(places).for_each(|((to, gradient), mask)| {
            each_lanes!(pitch, |L, c| {
                let (gradient, mask) = (lanes::<L>(gradient, c), mask[c / 32] ^ invert);
                let mut x = [0.0; L];
                for i in 0..L {
                    x[i] = if mask >> i & 1 == 1 { scale * gradient[i] } else { 0.0 };
                }
                put_lanes(put, &mut to[c..], &x);
            });
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
