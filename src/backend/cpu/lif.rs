//! Neurons forward: from a layer's currents to spikes, all steps of a neuron at once with its membrane in registers.

use super::Cpu;
use super::counters::Counters;
use super::layout::{pitch, words};
use super::operands::WindowTable;
use super::simd::{each_lanes, lanes, simd, split};
use crate::backend::shape::{Span, Volume};
use crate::backend::{Affine, Neurons, SpikeOutput};
use crate::neuron::{Neuron, ResetKind};
use rayon::prelude::*;
use std::sync::Mutex;

/// A layer's neurons, with per-channel constants expanded to the padded width.
pub struct Lif<'a> {
    pub volume: Volume,
    pub steps: usize,
    pub neuron: Neuron,
    pub scale: &'a [f32],
    pub shift: &'a [f32],
    /// Present if window bits are wanted.
    pub windows: Option<WindowTable>,
}

/// One sample's part of each output.
pub struct ImageOutput<'a> {
    /// `[T][H][W][words]`.
    pub spikes: &'a mut [u32],
    pub inside: Option<&'a mut [u32]>,
    /// `[T][H][W][pitch]`.
    pub membrane: Option<&'a mut [f32]>,
    pub counters: Option<Counters>,
}

impl<'a> Lif<'a> {
    /// The neurons of a layer after an affine map; `windows` says whether window bits are wanted.
    pub fn new(volume: Volume, span: Span, affine: Affine<'a, Cpu>, neurons: &Neurons<Cpu>, windows: bool) -> Self {
        Self {
            volume,
            steps: span.steps,
            neuron: neurons.neuron,
            scale: affine.scale,
            shift: affine.shift,
            windows: windows.then(|| WindowTable::new(neurons, volume.c)),
        }
    }

    /// Runs the neurons of `currents.len() / current_steps / pitch` pixels from `first` on. `currents` is `[steps or
    /// 1][pixels][pitch]`.
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
            each_lanes!(pitch, |L, channel| {
                let currents = &currents[pixel * pitch + channel..];
                self.lanes::<L, HARD>(currents, stride, first + pixel, channel, out);
            });
        }
    }

    /// Neighbouring channels of one pixel over all steps.
    #[inline(always)]
    fn lanes<const L: usize, const HARD: bool>(
        &self,
        currents: &[f32],
        stride: usize,
        pixel: usize,
        channel: usize,
        out: &mut ImageOutput,
    ) {
        let neuron = &self.neuron;
        let (scale, shift) = (lanes::<L>(self.scale, channel), lanes::<L>(self.shift, channel));
        let mut v = [0.0; L];
        for t in 0..self.steps {
            let current = lanes::<L>(currents, t * stride);
            let mut h = [0.0; L];
            let mut spikes = 0;
            for i in 0..L {
                h[i] = neuron.charge(v[i], scale[i].mul_add(current[i], shift[i]));
                spikes |= ((h[i] >= neuron.threshold) as u32) << i;
                v[i] = neuron.reset::<HARD>(h[i], h[i] >= neuron.threshold);
            }
            let place = t * self.volume.pixels() + pixel;
            let word = place * words(self.volume.c) + channel / 32;
            out.spikes[word] = spikes;
            if let (Some(table), Some(bits)) = (&self.windows, &mut out.inside) {
                let (left, right) = (lanes::<L>(&table.left, channel), lanes::<L>(&table.right, channel));
                let mut inside = 0;
                for i in 0..L {
                    let d = h[i] - neuron.threshold;
                    inside |= u32::from((d >= -left[i]) & (d <= right[i])) << i;
                }
                bits[word] = inside;
            }
            if let Some(membrane) = &mut out.membrane {
                membrane[place * pitch(self.volume.c) + channel..][..L].copy_from_slice(&h);
            }
            if let Some(counters) = &mut out.counters {
                let z = h.map(|h| (h - neuron.threshold) / neuron.threshold);
                counters.count(z, channel, L.min(self.volume.c - channel));
            }
        }
    }
}

/// Rows of an image whose currents over all steps fit in the L2 cache together with their inputs.
pub fn rows_per_tile(output: Volume, steps: usize) -> usize {
    const VALUES: usize = 64 * 1024;
    (VALUES / (steps * output.w * pitch(output.c))).clamp(1, output.h)
}

/// Runs `task(sample, its outputs)` for every sample and merges the histograms.
pub fn each_image(volume: Volume, span: Span, out: SpikeOutput<Cpu>, task: impl Fn(usize, &mut ImageOutput) + Sync) {
    let places = span.steps * volume.pixels();
    let words = places * words(volume.c);
    let inside = split(out.inside, words, span.batch);
    let membranes = split(out.membrane, places * pitch(volume.c), span.batch);
    let histograms = out.histogram.as_ref().map(|counts| counts.fresh.len());
    let counts = out.histogram.map(|counts| Mutex::new(&mut counts.fresh));
    out.spikes.par_chunks_exact_mut(words).zip(inside).zip(membranes).enumerate().for_each(
        |(n, ((spikes, inside), membrane))| {
            let mut image = ImageOutput { spikes, inside, membrane, counters: histograms.map(Counters::new) };
            task(n, &mut image);
            if let (Some(counts), Some(counters)) = (&counts, image.counters) {
                // Integers: the order in which samples arrive does not matter.
                counters.add_to(&mut counts.lock().expect("no task panics while it counts"));
            }
        },
    );
}
