//! Neurons forward: currents of a layer to spikes, all steps of a neuron at once, its membrane in registers.

use super::layout::{pitch, words};
use super::{WindowTable, simd};
use crate::autotune::Histogram;
use crate::backend::shape::Volume;
use crate::neuron::{Neuron, ResetKind};

/// A layer's neurons, per-channel constants spread out to the padded width.
pub struct Lif<'a> {
    pub volume: Volume,
    pub steps: usize,
    pub neuron: Neuron,
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    /// Present where window bits are wanted.
    pub windows: Option<WindowTable>,
}

/// One sample's part of each output.
pub struct ImageOutput<'a> {
    /// `[T][H][W][words]`.
    pub spikes: &'a mut [u32],
    pub windows: Option<&'a mut [u32]>,
    /// `[T][H][W][pitch]`.
    pub membrane: Option<&'a mut [f32]>,
    /// One, or one a channel.
    pub histogram: Option<Vec<Histogram>>,
}

impl Lif<'_> {
    /// Runs the neurons of `currents.len() / (steps there) / pitch` pixels from `first` on. `currents` is
    /// `[steps or 1][pixels][pitch]`.
    pub fn run(&self, currents: &[f32], current_steps: usize, first: usize, out: &mut ImageOutput) {
        simd(
            #[inline(always)]
            || match self.neuron.reset {
                ResetKind::Soft => self.pixels::<false>(currents, current_steps, first, out),
                ResetKind::Hard => self.pixels::<true>(currents, current_steps, first, out),
            },
        );
    }

    #[inline(always)]
    fn pixels<const HARD: bool>(&self, currents: &[f32], current_steps: usize, first: usize, out: &mut ImageOutput) {
        let pitch = pitch(self.volume.c);
        let pixels = currents.len() / current_steps / pitch;
        let stride = if current_steps == 1 { 0 } else { pixels * pitch };
        for pixel in 0..pixels {
            for word in 0..words(self.volume.c) {
                let at = pixel * pitch + 32 * word;
                if pitch - 32 * word >= 32 {
                    self.word::<32, HARD>(&currents[at..], stride, first + pixel, word, out);
                } else {
                    self.word::<16, HARD>(&currents[at..], stride, first + pixel, word, out);
                }
            }
        }
    }

    /// `L` channels of one pixel over all steps.
    #[inline(always)]
    fn word<const L: usize, const HARD: bool>(
        &self,
        currents: &[f32],
        stride: usize,
        pixel: usize,
        word: usize,
        out: &mut ImageOutput,
    ) {
        let (neuron, channel, words) = (&self.neuron, 32 * word, words(self.volume.c));
        let scale = lanes::<L>(self.scale, channel);
        let shift = lanes::<L>(self.shift, channel);
        let mut v = [0.0; L];
        for t in 0..self.steps {
            let current = lanes::<L>(currents, t * stride);
            let mut h = [0.0; L];
            for i in 0..L {
                h[i] = neuron.charge(v[i], scale[i].mul_add(current[i], shift[i]));
            }
            let mut spikes = 0;
            for i in 0..L {
                spikes |= ((h[i] >= neuron.threshold) as u32) << i;
                v[i] = neuron.reset::<HARD>(h[i], h[i] >= neuron.threshold);
            }
            let place = t * self.volume.pixels() + pixel;
            out.spikes[place * words + word] = spikes;
            if let (Some(table), Some(windows)) = (&self.windows, &mut out.windows) {
                let (left, right) = (lanes::<L>(&table.left, channel), lanes::<L>(&table.right, channel));
                let mut inside = 0;
                for i in 0..L {
                    let d = h[i] - neuron.threshold;
                    inside |= ((d >= -left[i] && d <= right[i]) as u32) << i;
                }
                windows[place * words + word] = inside;
            }
            if let Some(membrane) = &mut out.membrane {
                membrane[place * pitch(self.volume.c) + channel..][..L].copy_from_slice(&h);
            }
            if let Some(histogram) = &mut out.histogram {
                let each = (histogram.len() > 1) as usize;
                for i in 0..L.min(self.volume.c - channel) {
                    histogram[(channel + i) * each].count((h[i] - neuron.threshold) / neuron.threshold);
                }
            }
        }
    }
}

/// `L` values from `start` on.
#[inline(always)]
pub fn lanes<const L: usize>(values: &[f32], start: usize) -> &[f32; L] {
    values[start..].first_chunk().expect("channels are padded to whole lanes")
}

/// Rows of an image whose currents over all steps fit the second-level cache together with their inputs.
pub fn rows_per_tile(output: Volume, steps: usize) -> usize {
    const VALUES: usize = 64 * 1024;
    (VALUES / (steps * output.w * pitch(output.c))).clamp(1, output.h)
}
