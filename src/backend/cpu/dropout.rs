//! Dropout: one mask for all steps of a sample.

use super::layout::{pitch, words};
use crate::backend::keeps;
use crate::backend::shape::{Span, Volume};
use rayon::prelude::*;

/// See [`crate::backend::Backend::dropout_spikes`].
pub fn spikes(volume: Volume, span: Span, probability: f32, seed: u64, spikes: &[u32], kept: &mut [u32]) {
    let words = words(volume.c);
    let image = volume.pixels() * words;
    kept.par_chunks_mut(span.steps * image)
        .zip(spikes.par_chunks(span.steps * image))
        .enumerate()
        .take(span.batch)
        .for_each(|(n, (kept, spikes))| {
            for i in 0..image {
                let first = 32 * (i % words);
                let bits = (0..32.min(volume.c - first)).filter(|b| {
                    keeps(seed, (n * volume.values() + i / words * volume.c + first + b) as u64, probability)
                });
                let mask = bits.fold(0, |mask, b| mask | 1u32 << b);
                for t in 0..span.steps {
                    kept[t * image + i] = spikes[t * image + i] & mask;
                }
            }
        });
}

/// See [`crate::backend::Backend::dropout_floats`].
pub fn floats(volume: Volume, span: Span, probability: f32, seed: u64, values: &mut [f32]) {
    let pitch = pitch(volume.c);
    let image = volume.pixels() * pitch;
    let scale = 1.0 / (1.0 - probability);
    values.par_chunks_mut(span.steps * image).enumerate().take(span.batch).for_each(|(n, values)| {
        for pixel in 0..volume.pixels() {
            for c in 0..volume.c {
                let keep = keeps(seed, (n * volume.values() + pixel * volume.c + c) as u64, probability);
                for t in 0..span.steps {
                    values[t * image + pixel * pitch + c] *= if keep { scale } else { 0.0 };
                }
            }
        }
    });
}
