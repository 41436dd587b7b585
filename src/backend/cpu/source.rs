//! One sample at one step, as convolutions read it.

use super::events::Events;
use super::layout::{input_pitch, words};
use super::operands::CpuInput;
use crate::backend::shape::Conv;

/// One sample at one step, ready to be convolved.
pub enum Source {
    Events(Events),
    /// The image with its zero border.
    Padded(Vec<f32>),
}

impl Default for Source {
    fn default() -> Self {
        Self::Padded(Vec::new())
    }
}

impl Source {
    /// Reads image `image` (counted over samples and steps) of `input`.
    pub fn load(&mut self, conv: &Conv, input: &CpuInput, image: usize) {
        match *input {
            CpuInput::Spikes { bits, .. } => {
                let len = conv.input.pixels() * words(conv.input.c);
                let mut events = match std::mem::take(self) {
                    Self::Events(events) => events,
                    Self::Padded(_) => Events::default(),
                };
                events.collect(&bits[image * len..][..len], conv.input);
                *self = Self::Events(events);
            }
            CpuInput::Dense(values) => {
                let len = conv.input.pixels() * input_pitch(conv);
                let mut padded = match std::mem::take(self) {
                    Self::Padded(padded) => padded,
                    Self::Events(_) => Vec::new(),
                };
                pad_input(conv, &values[image * len..][..len], &mut padded);
                *self = Self::Padded(padded);
            }
        }
    }
}

/// Width in pixels of a padded image.
pub fn padded_width(conv: &Conv) -> usize {
    conv.input.w + 2 * conv.padding.w
}

/// Values of a padded image.
pub fn padded_len(conv: &Conv) -> usize {
    (conv.input.h + 2 * conv.padding.h) * padded_width(conv) * input_pitch(conv)
}

/// Copies an image and surrounds it with zeros.
pub fn pad_input(conv: &Conv, image: &[f32], padded: &mut Vec<f32>) {
    let pitch = input_pitch(conv);
    let width = padded_width(conv) * pitch;
    padded.clear();
    padded.resize(padded_len(conv), 0.0);
    for (y, row) in image.chunks_exact(conv.input.w * pitch).enumerate() {
        padded[(y + conv.padding.h) * width + conv.padding.w * pitch..][..row.len()].copy_from_slice(row);
    }
}
