//! Dropout: one mask for all steps of a sample.

use super::layout::{pitch, words};
use crate::backend::keeps;
use crate::backend::shape::{Span, Volume};
use rayon::prelude::*;

/// A layer's mask.
struct Mask {
    volume: Volume,
    probability: f32,
    seed: u64,
}

impl Mask {
    /// The kept channels of a word of a sample's pixel, as bits.
    fn word(&self, n: usize, pixel: usize, word: usize) -> u32 {
        let channels = self.volume.c;
        let first = (n * self.volume.pixels() + pixel) * channels + 32 * word;
        let kept = |bit: &usize| keeps(self.seed, (first + bit) as u64, self.probability);
        (0..32.min(channels - 32 * word)).filter(kept).fold(0, |mask, bit| mask | 1u32 << bit)
    }
}

/// See [`crate::backend::NeuronLayers::dropout_spikes`].
pub fn spikes(volume: Volume, span: Span, probability: f32, seed: u64, spikes: &[u32], kept: &mut [u32]) {
    let words = words(volume.c);
    let image = volume.pixels() * words;
    let mask = Mask { volume, probability, seed };
    kept.par_chunks_mut(span.steps * image)
        .zip(spikes.par_chunks(span.steps * image))
        .enumerate()
        .take(span.batch)
        .for_each(|(n, (kept, spikes))| {
            for i in 0..image {
                let mask = mask.word(n, i / words, i % words);
                for t in 0..span.steps {
                    kept[t * image + i] = spikes[t * image + i] & mask;
                }
            }
        });
}

/// See [`crate::backend::NeuronLayers::dropout_floats`].
pub fn floats(volume: Volume, span: Span, probability: f32, seed: u64, values: &mut [f32]) {
    let pitch = pitch(volume.c);
    let image = volume.pixels() * pitch;
    let scale = 1.0 / (1.0 - probability);
    let mask = Mask { volume, probability, seed };
    values.par_chunks_mut(span.steps * image).enumerate().take(span.batch).for_each(|(n, values)| {
        let mut factors = vec![0.0; pitch];
        for pixel in 0..volume.pixels() {
            for (word, factors) in factors.chunks_mut(32).enumerate() {
                let mask = mask.word(n, pixel, word);
                for (bit, factor) in factors.iter_mut().enumerate() {
                    *factor = (mask >> bit & 1) as f32 * scale;
                }
            }
            for t in 0..span.steps {
                let values = &mut values[t * image + pixel * pitch..][..pitch];
                values.iter_mut().zip(&factors).for_each(|(value, factor)| *value *= factor);
            }
        }
    });
}
