//! Memory layouts on the CPU.
//!
//! | tensor | order | padding |
//! |---|---|---|
//! | activations, currents, gradients | `[N][T][H][W][C]` f32 | C to 16 |
//! | samples | `[N][T][H][W][C]` f32 | none |
//! | spikes, inside | `[N][T][H][W][C/32]` u32, bit b of word w is channel 32w+b | C to 32 |
//! | weights | `[R][S][C][K]` f32 | K to 16; C as in the convolution's input |
//! | per-channel vectors | `[C]` f32 | C to 16 |
//!
//! A sample's steps are contiguous, so a thread owns one contiguous piece of every tensor. Padding is zero in spikes,
//! weights and vectors, and its values never reach a real channel.

use crate::backend::shape::{Conv, InputKind, Span, Volume};
use crate::host::{reserve, zeros};
use anyhow::Result;

/// Channels of an activation, padding included.
pub fn pitch(channels: usize) -> usize {
    channels.next_multiple_of(16)
}

/// Number of 32-channel words.
pub fn words(channels: usize) -> usize {
    channels.div_ceil(32)
}

/// Values per pixel of a convolution's input.
pub fn input_pitch(conv: &Conv) -> usize {
    match conv.reads {
        InputKind::Image => conv.input.c,
        InputKind::Dense => pitch(conv.input.c),
        InputKind::Spikes => 32 * words(conv.input.c),
    }
}

/// Number of values in a weight.
pub fn weight_len(conv: &Conv) -> usize {
    conv.kernel.h * conv.kernel.w * input_pitch(conv) * pitch(conv.output.c)
}

/// Calls `f(index in file order, index in memory order)` for every real value of a weight.
fn each_weight(conv: &Conv, mut f: impl FnMut(usize, usize)) {
    let (taps, channels) = (conv.kernel.h * conv.kernel.w, conv.input.c);
    let (rows, filters) = (input_pitch(conv), pitch(conv.output.c));
    for k in 0..conv.output.c {
        for c in 0..channels {
            for tap in 0..taps {
                f((k * channels + c) * taps + tap, (tap * rows + c) * filters + k);
            }
        }
    }
}

/// Converts a weight from `[K, C, R, S]` to memory order; padding is left as it is.
pub fn weight_from_file(conv: &Conv, values: &[f32], weight: &mut [f32]) {
    each_weight(conv, |file, memory| weight[memory] = values[file]);
}

/// Converts a weight from memory order to `[K, C, R, S]`.
pub fn weight_to_file(conv: &Conv, weight: &[f32]) -> Result<Vec<f32>> {
    let mut values = zeros(conv.output.c * conv.fan_in())?;
    each_weight(conv, |file, memory| values[file] = weight[memory]);
    Ok(values)
}

/// `[T, N, C, H, W]` from `[N][T][H][W][pitch]`, where `value(pixel index, channel)` reads one value.
pub fn to_file<V>(span: Span, volume: Volume, value: impl Fn(usize, usize) -> V) -> Result<Vec<V>> {
    let mut values = Vec::new();
    reserve(&mut values, span.batch * span.steps * volume.values())?;
    for t in 0..span.steps {
        for n in 0..span.batch {
            let first = (n * span.steps + t) * volume.pixels();
            for c in 0..volume.c {
                values.extend((0..volume.pixels()).map(|pixel| value(first + pixel, c)));
            }
        }
    }
    Ok(values)
}
