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
            for channel in (0..pitch).step_by(LANES) {
                let currents = &currents[pixel * pitch + channel..];
                self.lanes::<HARD>(currents, stride, first + pixel, channel, out);
            }
        }
    }

    /// Neighbouring channels of one pixel over all steps.
    #[inline(always)]
    fn lanes<const HARD: bool>(
        &self,
        currents: &[f32],
        stride: usize,
        pixel: usize,
        channel: usize,
        out: &mut ImageOutput,
    ) {
        let neuron = &self.neuron;
        let (scale, shift) = (lanes(self.scale, channel), lanes(self.shift, channel));
        let mut v = [0.0; LANES];
        for t in 0..self.steps {
            let current = lanes(currents, t * stride);
            let mut h = [0.0; LANES];
            let mut spikes = 0;
            for i in 0..LANES {
                h[i] = neuron.charge(v[i], scale[i].mul_add(current[i], shift[i]));
                spikes |= ((h[i] >= neuron.threshold) as u32) << i;
                v[i] = neuron.reset::<HARD>(h[i], h[i] >= neuron.threshold);
            }
            let place = t * self.volume.pixels() + pixel;
            let word = place * words(self.volume.c) + channel / 32;
            put_bits(&mut out.spikes[word], spikes, channel);
            if let (Some(table), Some(windows)) = (&self.windows, &mut out.windows) {
                let (left, right) = (lanes(&table.left, channel), lanes(&table.right, channel));
                let mut inside = 0;
                for i in 0..LANES {
                    let d = h[i] - neuron.threshold;
                    inside |= ((d >= -left[i] && d <= right[i]) as u32) << i;
                }
                put_bits(&mut windows[word], inside, channel);
            }
            if let Some(membrane) = &mut out.membrane {
                membrane[place * pitch(self.volume.c) + channel..][..LANES].copy_from_slice(&h);
            }
            if let Some(histogram) = &mut out.histogram {
                let each = (histogram.len() > 1) as usize;
                for i in 0..LANES.min(self.volume.c - channel) {
                    histogram[(channel + i) * each].count((h[i] - neuron.threshold) / neuron.threshold);
                }
            }
        }
    }
}

/// Puts the bits of 16 channels from `channel` on into their word; the first half clears the second.
#[inline(always)]
fn put_bits(word: &mut u32, bits: u32, channel: usize) {
    if channel.is_multiple_of(32) {
        *word = bits;
    } else {
        *word |= bits << 16;
    }
}

/// Channels that loops keep in registers: half a word, two vectors of 8.
pub const LANES: usize = 16;

/// [`LANES`] values from `start` on.
#[inline(always)]
pub fn lanes(values: &[f32], start: usize) -> &[f32; LANES] {
    values[start..].first_chunk().expect("channels are padded to whole lanes")
}

/// Rows of an image whose currents over all steps fit the second-level cache together with their inputs.
pub fn rows_per_tile(output: Volume, steps: usize) -> usize {
    const VALUES: usize = 64 * 1024;
    (VALUES / (steps * output.w * pitch(output.c))).clamp(1, output.h)
}
