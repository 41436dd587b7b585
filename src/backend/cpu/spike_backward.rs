//! Neurons backward: gradient of (pooled) spikes to gradient of currents, from the last step to the first.

use super::layout::{pitch, words};
use super::lif::lanes;
use super::{Scratch, WindowTable, simd};
use crate::backend::shape::{Pool, PoolKind, Volume};
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{MembraneSlope, Slope};

/// One sample of what the forward pass left.
#[derive(Clone, Copy)]
pub enum ImageSaved<'a> {
    /// `[T][H][W][words]` each.
    Bits { spikes: &'a [u32], windows: &'a [u32] },
    /// `[steps or 1][H][W][pitch]`, with the per-channel affine map.
    Currents { currents: &'a [f32], steps: usize, scale: &'a [f32], shift: &'a [f32], spikes: &'a [u32] },
}

/// A layer's neurons, for the backward pass.
pub struct SpikeBackward<'a> {
    pub volume: Volume,
    pub steps: usize,
    pub neuron: Neuron,
    pub slope: Slope,
    pub table: WindowTable,
    pub pool: Option<&'a Pool>,
    /// 1 where the gradient is summed over the steps, else `steps`.
    pub current_steps: usize,
}

/// Slopes of neighbouring channels from their membranes.
trait LaneSlope {
    fn at<const L: usize>(&self, channel: usize, d: &[f32; L]) -> [f32; L];
}

impl<S: MembraneSlope> LaneSlope for S {
    #[inline(always)]
    fn at<const L: usize>(&self, _: usize, d: &[f32; L]) -> [f32; L] {
        let mut g = [0.0; L];
        for i in 0..L {
            g[i] = MembraneSlope::at(*self, d[i]);
        }
        g
    }
}

impl LaneSlope for &WindowTable {
    #[inline(always)]
    fn at<const L: usize>(&self, channel: usize, d: &[f32; L]) -> [f32; L] {
        let (left, right) = (lanes::<L>(&self.left, channel), lanes::<L>(&self.right, channel));
        let (low, high) = (lanes::<L>(&self.slope_left, channel), lanes::<L>(&self.slope_right, channel));
        let mut g = [0.0; L];
        for i in 0..L {
            let inside = d[i] >= -left[i] && d[i] <= right[i];
            let side = if d[i] >= 0.0 { high[i] } else { low[i] };
            g[i] = if inside { side } else { 0.0 };
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
            volume: self.volume,
            gradient,
            pool: self.pool,
            routes: &mut scratch.words,
            windows: Vec::new(),
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
        match (saved, self.slope) {
            (ImageSaved::Bits { .. }, _) => self.pixels::<HARD, DETACH, _>(&self.table, saved, upstream, out, buffers),
            (_, Slope::Window) => self.pixels::<HARD, DETACH, _>(&self.table, saved, upstream, out, buffers),
            (_, Slope::Sigmoid(slope)) => self.pixels::<HARD, DETACH, _>(slope, saved, upstream, out, buffers),
            (_, Slope::Arctan(slope)) => self.pixels::<HARD, DETACH, _>(slope, saved, upstream, out, buffers),
            (_, Slope::Triangle(slope)) => self.pixels::<HARD, DETACH, _>(slope, saved, upstream, out, buffers),
        }
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
            upstream.find_windows(pixel);
            for word in 0..words(self.volume.c) {
                if pitch(self.volume.c) - 32 * word >= 32 {
                    self.word::<32, HARD, DETACH, S>(&slope, saved, upstream, pixel, word, out, gradients, membranes);
                } else {
                    self.word::<16, HARD, DETACH, S>(&slope, saved, upstream, pixel, word, out, gradients, membranes);
                }
            }
        }
    }

    /// `L` channels of one pixel over all steps.
    #[inline(always)]
    fn word<const L: usize, const HARD: bool, const DETACH: bool, S: LaneSlope>(
        &self,
        slope: &S,
        saved: ImageSaved,
        upstream: &Upstream,
        pixel: usize,
        word: usize,
        out: &mut [f32],
        gradients: &mut [f32],
        membranes: &mut [f32],
    ) {
        let (neuron, channel) = (&self.neuron, 32 * word);
        let (pitch, words, pixels) = (pitch(self.volume.c), words(self.volume.c), self.volume.pixels());
        for t in 0..self.steps {
            upstream.read::<L>(t, pixel, word, gradients[32 * t..].first_chunk_mut().expect("one row a step"));
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
            let mut g = [0.0; L];
            let mut h = [0.0; L];
            let mut spike = [false; L];
            match saved {
                ImageSaved::Bits { spikes, windows } => {
                    let (spikes, windows) = (spikes[place * words + word], windows[place * words + word]);
                    let low = lanes::<L>(&self.table.slope_left, channel);
                    let high = lanes::<L>(&self.table.slope_right, channel);
                    for i in 0..L {
                        spike[i] = spikes >> i & 1 == 1;
                        let side = if spike[i] { high[i] } else { low[i] };
                        g[i] = if windows >> i & 1 == 1 { side } else { 0.0 };
                    }
                }
                ImageSaved::Currents { .. } => {
                    h = *lanes::<L>(membranes, 32 * t);
                    let mut d = h;
                    for i in 0..L {
                        spike[i] = h[i] >= neuron.threshold;
                        d[i] -= neuron.threshold;
                    }
                    g = slope.at::<L>(channel, &d);
                }
            }
            let mut g_i = [0.0; L];
            for i in 0..L {
                let through_reset = g_v[i] * neuron.reset_derivative::<HARD, DETACH>(h[i], spike[i], g[i]);
                let g_h = g_s[i].mul_add(g[i], through_reset);
                g_i[i] = neuron.gain * g_h;
                g_v[i] = neuron.leak * g_h;
            }
            if self.current_steps == 1 {
                for i in 0..L {
                    sum[i] += g_i[i];
                }
            } else {
                out[place * pitch + channel..][..L].copy_from_slice(&g_i);
            }
        }
        if self.current_steps == 1 {
            out[pixel * pitch + channel..][..L].copy_from_slice(&sum);
        }
    }
}

/// The gradient that reaches each neuron through the pool behind it.
struct Upstream<'a> {
    volume: Volume,
    gradient: &'a [f32],
    pool: Option<&'a Pool>,
    /// Max-pool: `[T][window][place in window][words]`, the channels whose gradient goes to that place.
    routes: &'a mut Vec<u32>,
    /// The windows over the current pixel, each with the pixel's place in it.
    windows: Vec<(usize, usize)>,
}

impl Upstream<'_> {
    /// Finds, for a max-pool, where each window's gradient goes: to its first spike in row-major order, else to
    /// its first pixel, as PyTorch's argmax does.
    fn prepare(&mut self, steps: usize, spikes: &[u32]) {
        let Some(pool) = self.pool.filter(|pool| pool.kind == PoolKind::Max) else { return };
        let (words, places) = (words(self.volume.c), pool.kernel.h * pool.kernel.w);
        self.routes.clear();
        self.routes.resize(steps * pool.output.pixels() * places * words, 0);
        let mut routes = self.routes.chunks_exact_mut(places * words);
        for t in 0..steps {
            for window in 0..pool.output.pixels() {
                let routes = routes.next().expect("one piece a window and step");
                for word in 0..words {
                    let mut seen = 0;
                    let mut first = None;
                    for place in 0..places {
                        let Some(pixel) = pixel_of(pool, window, place) else { continue };
                        let here = spikes[(t * self.volume.pixels() + pixel) * words + word];
                        routes[place * words + word] = here & !seen;
                        seen |= here;
                        first.get_or_insert(place);
                    }
                    let first = first.expect("every window covers a pixel");
                    routes[first * words + word] |= !seen;
                }
            }
        }
    }

    /// Lists the windows that cover a pixel.
    #[inline(always)]
    fn find_windows(&mut self, pixel: usize) {
        let Some(pool) = self.pool else { return };
        self.windows.clear();
        let covering = |at: usize, kernel: usize, stride: usize, extent: usize| {
            let first = (at + 1).saturating_sub(kernel).div_ceil(stride);
            first..(at / stride + 1).min(extent)
        };
        let (y, x) = (pixel / self.volume.w + pool.padding.h, pixel % self.volume.w + pool.padding.w);
        for p in covering(y, pool.kernel.h, pool.stride.h, pool.output.h) {
            for q in covering(x, pool.kernel.w, pool.stride.w, pool.output.w) {
                let place = (y - p * pool.stride.h) * pool.kernel.w + x - q * pool.stride.w;
                self.windows.push((p * pool.output.w + q, place));
            }
        }
    }

    /// The gradient of `L` channels of a pixel's spikes.
    #[inline(always)]
    fn read<const L: usize>(&self, t: usize, pixel: usize, word: usize, out: &mut [f32; L]) {
        let (pitch, words, channel) = (pitch(self.volume.c), words(self.volume.c), 32 * word);
        let Some(pool) = self.pool else {
            *out = *lanes(self.gradient, (t * self.volume.pixels() + pixel) * pitch + channel);
            return;
        };
        *out = [0.0; L];
        let places = pool.kernel.h * pool.kernel.w;
        for &(window, place) in &self.windows {
            let window = t * pool.output.pixels() + window;
            let gradient = lanes::<L>(self.gradient, window * pitch + channel);
            match pool.kind {
                PoolKind::Max => {
                    let route = self.routes[(window * places + place) * words + word];
                    for i in 0..L {
                        out[i] += if route >> i & 1 == 1 { gradient[i] } else { 0.0 };
                    }
                }
                PoolKind::Avg => {
                    let share = 1.0 / places as f32;
                    for i in 0..L {
                        out[i] = gradient[i].mul_add(share, out[i]);
                    }
                }
            }
        }
    }
}

/// The pixel at a place of a window, unless it lies in the padding.
fn pixel_of(pool: &Pool, window: usize, place: usize) -> Option<usize> {
    let (p, q) = (window / pool.output.w, window % pool.output.w);
    let y = (p * pool.stride.h + place / pool.kernel.w).checked_sub(pool.padding.h)?;
    let x = (q * pool.stride.w + place % pool.kernel.w).checked_sub(pool.padding.w)?;
    (y < pool.input.h && x < pool.input.w).then_some(y * pool.input.w + x)
}

/// OR or mean over each window of one sample and step.
pub mod pool {
    use super::*;

    /// `[H][W][words]` to `[H'][W'][words]`.
    pub fn max(pool: &Pool, spikes: &[u32], pooled: &mut [u32]) {
        let words = words(pool.input.c);
        for (window, out) in pooled.chunks_exact_mut(words).enumerate() {
            out.fill(0);
            for place in 0..pool.kernel.h * pool.kernel.w {
                if let Some(pixel) = pixel_of(pool, window, place) {
                    for (out, word) in out.iter_mut().zip(&spikes[pixel * words..]) {
                        *out |= word;
                    }
                }
            }
        }
    }

    /// `[H][W][words]` to `[H'][W'][pitch]`.
    pub fn avg(pool: &Pool, spikes: &[u32], pooled: &mut [f32]) {
        let (words, places) = (words(pool.input.c), pool.kernel.h * pool.kernel.w);
        for (window, out) in pooled.chunks_exact_mut(pitch(pool.input.c)).enumerate() {
            for (c, out) in out.iter_mut().enumerate() {
                let spiked = |place| {
                    pixel_of(pool, window, place).map_or(0, |pixel| spikes[pixel * words + c / 32] >> (c % 32) & 1)
                };
                *out = (0..places).map(spiked).sum::<u32>() as f32 / places as f32;
            }
        }
    }
}
