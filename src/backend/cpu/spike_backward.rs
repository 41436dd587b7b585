//! Neurons backward: gradient of (pooled) spikes to gradient of currents, from the last step to the first.

use super::layout::{pitch, words};
use super::operands::WindowTable;
use super::pool::{Upstream, Windows};
use super::simd::{each_lanes, lanes, put_lanes, simd};
use super::threads::{Scratch, with_scratch};
use super::{Cpu, norm};
use crate::backend::shape::{Pool, Span, Volume};
use crate::backend::{Neurons, NormState, Put, Saved};
use crate::host::zeros;
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{Formula, Slope, match_slope};
use anyhow::Result;
use rayon::prelude::*;

/// What the forward pass left of one sample.
#[derive(Clone, Copy)]
enum ImageSaved<'a> {
    /// `[T][H][W][words]` each.
    Bits { spikes: &'a [u32], inside: &'a [u32] },
    /// `[steps or 1][H][W][pitch]`, with the per-channel affine map.
    Currents { currents: &'a [f32], steps: usize, scale: &'a [f32], shift: &'a [f32], spikes: &'a [u32] },
}

/// A layer's neurons, for the backward pass.
struct SpikeBackward<'a> {
    pub volume: Volume,
    pub steps: usize,
    pub neuron: Neuron,
    pub slope: Slope,
    pub table: WindowTable,
    pub pool: Option<&'a Pool>,
    /// The pool's windows.
    pub windows: Option<Windows>,
    /// 1 if the gradient is summed over the steps, else `steps`.
    pub current_steps: usize,
    pub put: Put,
}

/// Slopes of neighbouring channels from their membranes; `fired` is all ones where a neuron spiked, else 0.
trait LaneSlope {
    fn at<const L: usize>(&self, channel: usize, d: &[f32; L], fired: &[u32; L]) -> [f32; L];
}

impl<S: Formula> LaneSlope for S {
    #[inline(always)]
    fn at<const L: usize>(&self, _: usize, d: &[f32; L], _: &[u32; L]) -> [f32; L] {
        let mut g = [0.0; L];
        for i in 0..L {
            g[i] = Formula::at(*self, d[i]);
        }
        g
    }
}

impl LaneSlope for &WindowTable {
    #[inline(always)]
    fn at<const L: usize>(&self, channel: usize, d: &[f32; L], fired: &[u32; L]) -> [f32; L] {
        let (left, right) = (lanes::<L>(&self.left, channel), lanes::<L>(&self.right, channel));
        let mut inside = [0; L];
        for i in 0..L {
            inside[i] = u32::from((d[i] >= -left[i]) & (d[i] <= right[i])).wrapping_neg();
        }
        self.of_bits(channel, &inside, fired)
    }
}

impl WindowTable {
    /// AdaLi's slopes from masks of all ones or all zeros: without a branch the loop is vectorised.
    #[inline(always)]
    fn of_bits<const L: usize>(&self, channel: usize, inside: &[u32; L], fired: &[u32; L]) -> [f32; L] {
        let (low, high) = (lanes::<L>(&self.slope_left, channel), lanes::<L>(&self.slope_right, channel));
        let mut g = [0.0; L];
        for i in 0..L {
            g[i] = f32::from_bits((high[i].to_bits() & fired[i] | low[i].to_bits() & !fired[i]) & inside[i]);
        }
        g
    }
}

impl SpikeBackward<'_> {
    /// One sample: `gradient` is that of the pooled spikes, `[T][H'][W'][pitch]`; `out` is `[T or 1][H][W][pitch]`.
    pub fn run(&self, saved: ImageSaved, gradient: &[f32], out: &mut [f32], scratch: &mut Scratch) {
        let spikes = match saved {
            ImageSaved::Bits { spikes, .. } | ImageSaved::Currents { spikes, .. } => spikes,
        };
        let mut upstream = Upstream {
            gradient,
            pool: self.pool.zip(self.windows.as_ref()),
            pixels: self.volume.pixels(),
            width: self.volume.w,
            channels: self.volume.c,
            routes: &mut scratch.words,
            covering: Vec::new(),
        };
        upstream.prepare(self.steps, spikes);
        let buffers = (&mut scratch.values, &mut scratch.tile);
        simd(
            #[inline(always)]
            || match (self.neuron.reset, self.neuron.detach) {
                (ResetKind::Soft, false) => self.slopes::<false, false>(saved, &mut upstream, out, buffers),
                (ResetKind::Soft, true) => self.slopes::<false, true>(saved, &mut upstream, out, buffers),
                (ResetKind::Hard, false) => self.slopes::<true, false>(saved, &mut upstream, out, buffers),
                (ResetKind::Hard, true) => self.slopes::<true, true>(saved, &mut upstream, out, buffers),
            },
        );
    }

    #[inline(always)]
    fn slopes<const HARD: bool, const DETACH: bool>(
        &self,
        saved: ImageSaved,
        upstream: &mut Upstream,
        out: &mut [f32],
        buffers: (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        let slope = if matches!(saved, ImageSaved::Bits { .. }) { Slope::Window } else { self.slope };
        match_slope!(slope,
            Window => self.pixels::<HARD, DETACH, _>(&self.table, saved, upstream, out, buffers),
            formula => self.pixels::<HARD, DETACH, _>(formula, saved, upstream, out, buffers))
    }

    #[inline(always)]
    fn pixels<const HARD: bool, const DETACH: bool, S: LaneSlope>(
        &self,
        slope: S,
        saved: ImageSaved,
        upstream: &mut Upstream,
        out: &mut [f32],
        (gradients, membranes): (&mut Vec<f32>, &mut Vec<f32>),
    ) {
        gradients.resize(self.steps * 32, 0.0);
        membranes.resize(self.steps * 32, 0.0);
        for pixel in 0..self.volume.pixels() {
            upstream.find(pixel);
            each_lanes!(pitch(self.volume.c), |L, channel| {
                self.lanes::<L, HARD, DETACH, S>(&slope, saved, upstream, pixel, channel, out, gradients, membranes);
            });
        }
    }

    /// Neighbouring channels of one pixel over all steps.
    #[inline(always)]
    fn lanes<const L: usize, const HARD: bool, const DETACH: bool, S: LaneSlope>(
        &self,
        slope: &S,
        saved: ImageSaved,
        upstream: &Upstream,
        pixel: usize,
        channel: usize,
        out: &mut [f32],
        gradients: &mut [f32],
        membranes: &mut [f32],
    ) {
        let neuron = &self.neuron;
        let (pitch, words, pixels) = (pitch(self.volume.c), words(self.volume.c), self.volume.pixels());
        for t in 0..self.steps {
            upstream.read::<L>(t, pixel, channel, gradients[32 * t..].first_chunk_mut().expect("one row a step"));
        }
        if let ImageSaved::Currents { currents, steps, scale, shift, .. } = saved {
            let stride = if steps == 1 { 0 } else { pixels * pitch };
            let (scale, shift) = (lanes::<L>(scale, channel), lanes::<L>(shift, channel));
            let mut v = [0.0; L];
            for t in 0..self.steps {
                let current = lanes::<L>(currents, t * stride + pixel * pitch + channel);
                let h: &mut [f32; L] = membranes[32 * t..].first_chunk_mut().expect("one row a step");
                for i in 0..L {
                    h[i] = neuron.charge(v[i], scale[i].mul_add(current[i], shift[i]));
                    v[i] = neuron.reset::<HARD>(h[i], h[i] >= neuron.threshold);
                }
            }
        }
        let mut g_v = [0.0; L];
        let mut sum = [0.0; L];
        for t in (0..self.steps).rev() {
            let g_s = lanes::<L>(gradients, 32 * t);
            let place = t * pixels + pixel;
            let g;
            let mut h = [0.0; L];
            let mut fired = [0; L];
            match saved {
                ImageSaved::Bits { spikes, inside: window } => {
                    let word = place * words + channel / 32;
                    let (spikes, window) = (spikes[word], window[word]);
                    let mut inside = [0; L];
                    for i in 0..L {
                        fired[i] = (spikes >> i & 1).wrapping_neg();
                        inside[i] = (window >> i & 1).wrapping_neg();
                    }
                    g = self.table.of_bits(channel, &inside, &fired);
                }
                ImageSaved::Currents { .. } => {
                    h = *lanes::<L>(membranes, 32 * t);
                    let mut d = h;
                    for i in 0..L {
                        fired[i] = u32::from(h[i] >= neuron.threshold).wrapping_neg();
                        d[i] -= neuron.threshold;
                    }
                    g = slope.at::<L>(channel, &d, &fired);
                }
            }
            let mut g_i = [0.0; L];
            for i in 0..L {
                let through_reset = g_v[i] * neuron.reset_derivative::<HARD, DETACH>(h[i], fired[i] != 0, g[i]);
                let g_h = g_s[i].mul_add(g[i], through_reset);
                g_i[i] = neuron.gain * g_h;
                g_v[i] = neuron.leak * g_h;
            }
            if self.current_steps == 1 {
                for i in 0..L {
                    sum[i] += g_i[i];
                }
            } else {
                put_lanes(self.put, &mut out[place * pitch + channel..], &g_i);
            }
        }
        if self.current_steps == 1 {
            put_lanes(self.put, &mut out[pixel * pitch + channel..], &sum);
        }
    }
}

/// The neurons' backward pass over all samples, with the sums of each sample's gradient and, with a norm, of its product
/// with the normalised currents.
pub fn neurons_backward(
    volume: Volume,
    span: Span,
    neurons: &Neurons<Cpu>,
    saved: Saved<Cpu>,
    pool: Option<&Pool>,
    spikes_grad: &[f32],
    current_steps: usize,
    put: Put,
    out: &mut [f32],
    norm: Option<(&Vec<f32>, &NormState<Vec<f32>>)>,
) -> Result<Vec<f32>> {
    let task = SpikeBackward {
        volume,
        steps: span.steps,
        neuron: neurons.neuron,
        slope: neurons.surrogate.slope(neurons.neuron.threshold),
        table: WindowTable::new(neurons, volume.c),
        pool,
        current_steps,
        put,
        windows: pool.map(Windows::new),
    };
    let (pixels, pitch) = (volume.pixels(), pitch(volume.c));
    let bits = span.steps * pixels * words(volume.c);
    let gradient = span.steps * pool.map_or(pixels, |pool| pool.output.pixels()) * pitch;
    let image = current_steps * pixels * pitch;
    let mut sums = zeros(span.batch * 2 * pitch)?;
    out.par_chunks_mut(image).zip(sums.par_chunks_mut(2 * pitch)).enumerate().for_each(|(n, (out, sums))| {
        let saved = match saved {
            Saved::Bits { spikes, inside } => {
                ImageSaved::Bits { spikes: &spikes[n * bits..][..bits], inside: &inside[n * bits..][..bits] }
            }
            Saved::Currents { currents, steps, affine, spikes } => ImageSaved::Currents {
                currents: &currents[n * steps * pixels * pitch..][..steps * pixels * pitch],
                steps,
                scale: affine.scale,
                shift: affine.shift,
                spikes: &spikes[n * bits..][..bits],
            },
        };
        with_scratch(|scratch| task.run(saved, &spikes_grad[n * gradient..][..gradient], out, scratch));
        match norm {
            Some((currents, state)) => norm::norm_gradient_sums(out, &currents[n * image..][..image], state, sums),
            None => norm::gradient_sums(out, sums),
        }
    });
    Ok(sums)
}
