//! Pools: which pixels each window covers, OR and mean over them, and where gradients go back.

use super::Cpu;
use super::layout::{pitch, words};
use super::simd::{lanes, simd};
use crate::backend::shape::{Pool, PoolKind, Span};
use crate::backend::{Input, Put};
use rayon::prelude::*;

/// See [`crate::backend::NeuronLayers::max_pool_forward`].
pub fn max(pool: &Pool, span: Span, spikes: &[u32], pooled: &mut [u32]) {
    let words = words(pool.input.c);
    let (from, to) = (pool.input.pixels() * words, pool.output.pixels() * words);
    let windows = Windows::new(pool);
    pooled[..span.batch * span.steps * to]
        .par_chunks_mut(to)
        .zip(spikes.par_chunks(from))
        .for_each(|(pooled, spikes)| windows.max(spikes, pooled, words));
}

/// See [`crate::backend::NeuronLayers::avg_pool_forward`].
pub fn avg(pool: &Pool, span: Span, input: Input<Cpu>, pooled: &mut [f32]) {
    let (pixels, pitch) = (pool.input.pixels(), pitch(pool.input.c));
    let to = pool.output.pixels() * pitch;
    let windows = Windows::new(pool);
    let images = pooled[..span.batch * span.steps * to].par_chunks_mut(to);
    match input {
        Input::Spikes { bits, scale } => {
            images.zip(bits.par_chunks(pixels * words(pool.input.c))).for_each(|(pooled, spikes)| {
                simd(
                    #[inline(always)]
                    || windows.avg(spikes, scale, pooled, pool.input.c),
                )
            });
        }
        Input::Dense(values) => images
            .zip(values.par_chunks(pixels * pitch))
            .for_each(|(pooled, values)| windows.avg_dense(values, pooled, pitch)),
    }
}

/// See [`crate::backend::NeuronLayers::avg_pool_backward`].
pub fn avg_backward(pool: &Pool, span: Span, gradient: &[f32], put: Put, out: &mut [f32]) {
    let pitch = pitch(pool.input.c);
    let (from, to) = (pool.output.pixels() * pitch, pool.input.pixels() * pitch);
    let windows = Windows::new(pool);
    let share = 1.0 / windows.places as f32;
    let images = out[..span.batch * span.steps * to].par_chunks_mut(to).zip(gradient.par_chunks(from));
    images.for_each(|(out, gradient)| {
        if put == Put::Write {
            out.fill(0.0);
        }
        simd(
            #[inline(always)]
            || {
                for (window, gradient) in windows.pixels.chunks_exact(windows.places).zip(gradient.chunks_exact(pitch))
                {
                    for &pixel in window.iter().filter(|&&pixel| pixel != PADDING) {
                        let out = &mut out[pixel as usize * pitch..][..pitch];
                        out.iter_mut().zip(gradient).for_each(|(out, g)| *out = g.mul_add(share, *out));
                    }
                }
            },
        );
    });
}

/// The pixels of every window, looked up once per operation.
pub struct Windows {
    /// `[window][place]`: a pixel, or [`PADDING`].
    pixels: Vec<u32>,
    /// Places per window.
    places: usize,
}

/// A place of a window outside the image.
const PADDING: u32 = u32::MAX;

impl Windows {
    /// All windows of a pool, their places in row-major order.
    pub fn new(pool: &Pool) -> Self {
        let places = pool.kernel.h * pool.kernel.w;
        let pixel = |window: usize, place: usize| {
            let (p, q) = (window / pool.output.w, window % pool.output.w);
            let y = (p * pool.stride.h + place / pool.kernel.w).checked_sub(pool.padding.h)?;
            let x = (q * pool.stride.w + place % pool.kernel.w).checked_sub(pool.padding.w)?;
            (y < pool.input.h && x < pool.input.w).then_some((y * pool.input.w + x) as u32)
        };
        let all = (0..pool.output.pixels()).flat_map(|window| (0..places).map(move |place| (window, place)));
        Self { pixels: all.map(|(window, place)| pixel(window, place).unwrap_or(PADDING)).collect(), places }
    }

    /// OR of each window: `[H][W][words]` to `[H'][W'][words]`.
    pub fn max(&self, spikes: &[u32], pooled: &mut [u32], words: usize) {
        for (window, out) in self.pixels.chunks_exact(self.places).zip(pooled.chunks_exact_mut(words)) {
            out.fill(0);
            for &pixel in window.iter().filter(|&&pixel| pixel != PADDING) {
                for (out, word) in out.iter_mut().zip(&spikes[pixel as usize * words..]) {
                    *out |= word;
                }
            }
        }
    }

    /// Mean of each window, where a spike counts `scale`: `[H][W][words]` to `[H'][W'][pitch]`.
    #[inline(always)]
    pub fn avg(&self, spikes: &[u32], scale: f32, pooled: &mut [f32], channels: usize) {
        let words = words(channels);
        let share = scale / self.places as f32;
        for (window, out) in self.pixels.chunks_exact(self.places).zip(pooled.chunks_exact_mut(pitch(channels))) {
            out.fill(0.0);
            for &pixel in window.iter().filter(|&&pixel| pixel != PADDING) {
                let pixel = &spikes[pixel as usize * words..][..words];
                for (out, word) in out.chunks_mut(32).zip(pixel) {
                    for (bit, out) in out.iter_mut().enumerate() {
                        *out += (word >> bit & 1) as f32;
                    }
                }
            }
            out.iter_mut().for_each(|x| *x *= share);
        }
    }

    /// The same of dense values, `[H][W][pitch]`.
    fn avg_dense(&self, values: &[f32], pooled: &mut [f32], pitch: usize) {
        let share = 1.0 / self.places as f32;
        for (window, out) in self.pixels.chunks_exact(self.places).zip(pooled.chunks_exact_mut(pitch)) {
            out.fill(0.0);
            for &pixel in window.iter().filter(|&&pixel| pixel != PADDING) {
                out.iter_mut().zip(&values[pixel as usize * pitch..]).for_each(|(out, x)| *out += x);
            }
            out.iter_mut().for_each(|x| *x *= share);
        }
    }

    /// For a max-pool, the channels whose gradient goes to each place of each window, `[window][place][words]`: the first
    /// spike in row-major order, else the first pixel, as in PyTorch's argmax.
    fn routes(&self, spikes: &[u32], words: usize, routes: &mut [u32]) {
        for (window, routes) in self.pixels.chunks_exact(self.places).zip(routes.chunks_exact_mut(self.places * words))
        {
            for word in 0..words {
                let mut seen = 0;
                let mut first = None;
                for (place, &pixel) in window.iter().enumerate().filter(|&(_, &pixel)| pixel != PADDING) {
                    let here = spikes[pixel as usize * words + word];
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

/// The gradient that reaches each neuron of a sample through the pool that follows it.
pub struct Upstream<'a> {
    /// Of the pooled spikes, `[T][H'][W'][pitch]`.
    pub gradient: &'a [f32],
    pub pool: Option<(&'a Pool, &'a Windows)>,
    pub pixels: usize,
    pub width: usize,
    pub channels: usize,
    /// Max-pool: see [`Windows::routes`], for every step.
    pub routes: &'a mut Vec<u32>,
    /// The windows over the current pixel, each with the pixel's place in it.
    pub covering: Vec<(usize, usize)>,
}

impl Upstream<'_> {
    /// Finds where gradients go back through a max-pool of these spikes.
    pub fn prepare(&mut self, steps: usize, spikes: &[u32]) {
        let Some((_, windows)) = self.pool.filter(|(pool, _)| pool.kind == PoolKind::Max) else { return };
        let words = words(self.channels);
        let step = windows.pixels.len() * words;
        self.routes.clear();
        self.routes.resize(steps * step, 0);
        for (routes, spikes) in self.routes.chunks_exact_mut(step).zip(spikes.chunks_exact(self.pixels * words)) {
            windows.routes(spikes, words, routes);
        }
    }

    /// Lists the windows that cover a pixel.
    pub fn find(&mut self, pixel: usize) {
        let Some((pool, _)) = self.pool else { return };
        self.covering.clear();
        let covering = |at: usize, kernel: usize, stride: usize, extent: usize| {
            let first = (at + 1).saturating_sub(kernel).div_ceil(stride);
            first..(at / stride + 1).min(extent)
        };
        let (y, x) = (pixel / self.width + pool.padding.h, pixel % self.width + pool.padding.w);
        for p in covering(y, pool.kernel.h, pool.stride.h, pool.output.h) {
            for q in covering(x, pool.kernel.w, pool.stride.w, pool.output.w) {
                let place = (y - p * pool.stride.h) * pool.kernel.w + x - q * pool.stride.w;
                self.covering.push((p * pool.output.w + q, place));
            }
        }
    }

    /// The gradient of `L` channels of a pixel's spikes at step `t`.
    #[inline(always)]
    pub fn read<const L: usize>(&self, t: usize, pixel: usize, channel: usize, sum: &mut [f32; L]) {
        let (pitch, words) = (pitch(self.channels), words(self.channels));
        let Some((pool, windows)) = self.pool else {
            *sum = *lanes(self.gradient, (t * self.pixels + pixel) * pitch + channel);
            return;
        };
        *sum = [0.0; L];
        for &(window, place) in &self.covering {
            let window = t * pool.output.pixels() + window;
            let gradient = lanes::<L>(self.gradient, window * pitch + channel);
            match pool.kind {
                PoolKind::Max => {
                    let route = self.routes[(window * windows.places + place) * words + channel / 32];
                    for i in 0..L {
                        sum[i] += if route >> i & 1 == 1 { gradient[i] } else { 0.0 };
                    }
                }
                PoolKind::Avg => {
                    let share = 1.0 / windows.places as f32;
                    for i in 0..L {
                        sum[i] = gradient[i].mul_add(share, sum[i]);
                    }
                }
            }
        }
    }
}
