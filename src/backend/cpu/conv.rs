//! Convolutions: currents, weight gradient, input gradient. Linear layers are in `linear.rs`.

use super::events::{Events, add_rows, push_bits};
use super::layout::{input_pitch, pitch, words};
use super::norm::moments;
use super::operands::{CpuInput, Weight};
use super::product::{PANEL, Product, Start};
use super::simd::{each_lanes, simd, split};
use super::source::{Source, pad_input, padded_width};
use super::threads::{Scratch, with_scratch};
use crate::backend::Put;
use crate::backend::shape::{Conv, InputKind, Span};
use crate::host::{resize, zeros};
use anyhow::Result;
use rayon::prelude::*;

/// Currents of the output rows from `first` on, as many as fit in `out` (`[rows][W][pitch]`).
pub fn current_rows(
    conv: &Conv,
    source: &Source,
    scale: f32,
    weight: &Weight,
    bias: &[f32],
    first: usize,
    out: &mut [f32],
) {
    match source {
        Source::Events(events) => event_rows(conv, events, scale, weight.forward, bias, first, out),
        Source::Padded(padded) => padded_rows(conv, padded, weight.forward, bias, first, out),
    }
}

fn event_rows(conv: &Conv, events: &Events, scale: f32, weight: &[f32], bias: &[f32], first: usize, out: &mut [f32]) {
    let (pitch_in, pitch_out) = (input_pitch(conv), pitch(conv.output.c));
    let (h, w) = (conv.input.h as isize, conv.input.w as isize);
    simd(
        #[inline(always)]
        || {
            for (i, out) in out.chunks_exact_mut(pitch_out).enumerate() {
                let (row, column) = (first + i / conv.output.w, i % conv.output.w);
                let y0 = (row * conv.stride.h) as isize - conv.padding.h as isize;
                let x0 = (column * conv.stride.w) as isize - conv.padding.w as isize;
                let (left, right) = (x0.max(0), (x0 + conv.kernel.w as isize).min(w));
                each_lanes!(pitch_out, |B, k| {
                    let mut sums = [0.0; B];
                    for r in 0..conv.kernel.h {
                        let y = y0 + r as isize;
                        if y < 0 || y >= h || left >= right {
                            continue;
                        }
                        let piece = events.between((y * w + left) as usize, (y * w + right) as usize);
                        let base = (r * conv.kernel.w) as isize - x0;
                        add_rows::<B>(&mut sums, piece, (base * pitch_in as isize) as i32, weight, pitch_out, k);
                    }
                    let bias: &[f32; B] = bias[k..].first_chunk().expect("a bias is as wide as a row");
                    for (i, out) in out[k..][..B].iter_mut().enumerate() {
                        *out = sums[i].mul_add(scale, bias[i]);
                    }
                });
            }
        },
    );
}

fn padded_rows(conv: &Conv, padded: &[f32], weight: &[f32], bias: &[f32], first: usize, out: &mut [f32]) {
    let (pitch_in, pitch_out) = (input_pitch(conv), pitch(conv.output.c));
    let width = padded_width(conv) * pitch_in;
    let positions = out.len() / pitch_out;
    let offset = |i: usize| {
        let (row, column) = (first + i / conv.output.w, i % conv.output.w);
        (row * conv.stride.h * width + column * conv.stride.w * pitch_in) as u32
    };
    Product {
        x: padded,
        rows: &(0..positions).map(offset).collect::<Vec<_>>(),
        runs: &(0..conv.kernel.h).map(|r| (r * width) as u32).collect::<Vec<_>>(),
        run_len: conv.kernel.w * pitch_in,
        step: 1,
        b: weight,
        b_row: pitch_out,
        b_panel: PANEL,
        start: Start::Bias(bias),
        out,
        pitch: pitch_out,
    }
    .run();
}

/// Currents of every sample and step. The moments of each, `[2][pitch]`, are taken while it is in cache.
pub fn current(
    conv: &Conv,
    span: Span,
    input: &CpuInput,
    weight: &Weight,
    bias: &[f32],
    currents: &mut [f32],
    sums: Option<&mut Vec<f32>>,
) {
    let (pitch, pieces) = (pitch(conv.output.c), span.batch * span.steps);
    let sums = split(sums, 2 * pitch, pieces);
    currents.par_chunks_mut(conv.output.pixels() * pitch).zip(sums).enumerate().for_each(|(i, (out, sums))| {
        with_scratch(|scratch| {
            let source = scratch.sources(1);
            source[0].load(conv, input, i);
            current_rows(conv, &source[0], input.scale(), weight, bias, 0, out);
        });
        if let Some(sums) = sums {
            moments(out, sums);
        }
    });
}

/// Extents and layout of a gradient spread out so that its convolution with the flipped kernel, at stride 1 and without
/// border cases, is the input gradient: row `y`, tap `r` of the input reads row `y + R-1-r` here.
pub struct Spread {
    height: usize,
    width: usize,
}

impl Spread {
    pub fn new(conv: &Conv) -> Self {
        Self { height: conv.input.h + conv.kernel.h - 1, width: conv.input.w + conv.kernel.w - 1 }
    }

    /// Number of values of a spread gradient.
    pub fn len(&self, conv: &Conv) -> usize {
        self.height * self.width * pitch(conv.output.c)
    }

    /// Spreads one image's gradient, with zeros between strides and outside.
    fn fill(&self, conv: &Conv, gradient: &[f32], image: usize, spread: &mut Vec<f32>) {
        let pitch = pitch(conv.output.c);
        let len = conv.output.pixels() * pitch;
        spread.clear();
        spread.resize(self.len(conv), 0.0);
        let place = |at: usize, stride: usize, kernel: usize, padding: usize, extent: usize| {
            (at * stride + kernel - 1).checked_sub(padding).filter(|&to| to < extent)
        };
        simd(
            #[inline(always)]
            || {
                for pixel in 0..conv.output.pixels() {
                    let (p, q) = (pixel / conv.output.w, pixel % conv.output.w);
                    let y = place(p, conv.stride.h, conv.kernel.h, conv.padding.h, self.height);
                    let x = place(q, conv.stride.w, conv.kernel.w, conv.padding.w, self.width);
                    if let (Some(y), Some(x)) = (y, x) {
                        let from = &gradient[image * len + pixel * pitch..][..pitch];
                        spread[(y * self.width + x) * pitch..][..pitch].copy_from_slice(from);
                    }
                }
            },
        );
    }
}

/// `[(R-1-r, S-1-s, k)][c]` in panels of 16 input channels: what [`input_grad`] multiplies by.
pub fn pack_transposed(conv: &Conv, weight: &[f32], packed: &mut Vec<f32>) -> Result<()> {
    let (rows_in, filters, channels) = (input_pitch(conv), pitch(conv.output.c), pitch(conv.input.c));
    let taps = conv.kernel.h * conv.kernel.w;
    resize(packed, taps * filters * channels)?;
    packed.par_chunks_mut(taps * filters * PANEL).enumerate().for_each(|(panel, packed)| {
        for (row, out) in packed.chunks_exact_mut(PANEL).enumerate() {
            let (tap, k) = (taps - 1 - row / filters, row % filters);
            for (i, out) in out.iter_mut().enumerate() {
                let c = panel * PANEL + i;
                *out = if c < rows_in { weight[(tap * rows_in + c) * filters + k] } else { 0.0 };
            }
        }
    });
    Ok(())
}

/// Gradient of the input.
pub fn input_grad(conv: &Conv, span: Span, gradient: &[f32], weight: &Weight, put: Put, out: &mut [f32]) {
    let (filters, channels) = (pitch(conv.output.c), pitch(conv.input.c));
    let image_in = conv.input.pixels() * channels;
    let spread = Spread::new(conv);
    let rows: Vec<u32> = (0..conv.input.pixels())
        .map(|i| ((i / conv.input.w * spread.width + i % conv.input.w) * filters) as u32)
        .collect();
    let runs: Vec<u32> = (0..conv.kernel.h).map(|r| (r * spread.width * filters) as u32).collect();
    out.par_chunks_mut(image_in).enumerate().take(span.batch * span.steps).for_each(|(i, out)| {
        with_scratch(|Scratch { values, .. }| {
            spread.fill(conv, gradient, i, values);
            Product {
                x: values,
                rows: &rows,
                runs: &runs,
                run_len: conv.kernel.w * filters,
                step: 1,
                b: weight.transposed,
                b_row: PANEL,
                b_panel: runs.len() * conv.kernel.w * filters * PANEL,
                start: Start::of(put),
                out,
                pitch: channels,
            }
            .run();
        });
    });
}

/// The most pieces a weight gradient is cut into. The pieces depend on extents alone, so the order of the sum, and with it
/// every bit of the result, is the same for any number of threads.
const PIECES: usize = 16;

/// Channels per block, number of blocks, and number of sample groups of a weight gradient.
fn pieces(conv: &Conv, batch: usize) -> (usize, usize, usize) {
    let (block, blocks) = match conv.reads {
        InputKind::Spikes => (32, words(conv.input.c)),
        InputKind::Image | InputKind::Dense => (input_pitch(conv), 1),
    };
    (block, blocks, (PIECES / blocks).clamp(1, batch))
}

/// Number of values in all pieces of a weight gradient.
pub fn partials_len(conv: &Conv, batch: usize) -> usize {
    let (block, blocks, groups) = pieces(conv, batch);
    groups * blocks * conv.kernel.h * conv.kernel.w * block * pitch(conv.output.c)
}

/// Gradient of the weight. Each task sums one group of samples for one block of input channels; the groups are then
/// added in order.
pub fn weight_grad(conv: &Conv, span: Span, input: &CpuInput, gradient: &[f32], out: &mut [f32]) -> Result<()> {
    let filters = pitch(conv.output.c);
    let taps = conv.kernel.h * conv.kernel.w;
    let (block, blocks, groups) = pieces(conv, span.batch);
    let group = span.batch.div_ceil(groups);
    let partials = (0..groups * blocks)
        .into_par_iter()
        .map(|task| {
            let mut partial = zeros(taps * block * filters)?;
            let samples = (task / blocks * group).min(span.batch)..((task / blocks + 1) * group).min(span.batch);
            for image in samples.start * span.steps..samples.end * span.steps {
                with_scratch(|scratch| match *input {
                    CpuInput::Spikes { bits, .. } => {
                        add_event_grad(conv, scratch, bits, task % blocks, image, gradient, &mut partial);
                    }
                    CpuInput::Dense(values) => add_dense_grad(conv, scratch, values, image, gradient, &mut partial),
                });
            }
            Ok(partial)
        })
        .collect::<Result<Vec<Vec<f32>>>>()?;
    let scale = input.scale();
    out.par_chunks_mut(block * filters).enumerate().for_each(|(i, out)| {
        let (tap, at) = (i / blocks, i % blocks);
        out.fill(0.0);
        for partial in partials.iter().skip(at).step_by(blocks) {
            for (sum, x) in out.iter_mut().zip(&partial[tap * block * filters..]) {
                *sum += x;
            }
        }
        if scale != 1.0 {
            out.iter_mut().for_each(|x| *x *= scale);
        }
    });
    Ok(())
}

/// Adds one image's part of the weight gradient of 32 channels: for each channel and tap, the gradients at the pixels where
/// the channel spiked.
fn add_event_grad(
    conv: &Conv,
    scratch: &mut Scratch,
    bits: &[u32],
    word: usize,
    image: usize,
    gradient: &[f32],
    partial: &mut [f32],
) {
    let (filters, words) = (pitch(conv.output.c), words(conv.input.c));
    let spread = Spread::new(conv);
    spread.fill(conv, gradient, image, &mut scratch.values);
    let lists = channel_lists(
        &mut scratch.lists,
        conv,
        &bits[image * conv.input.pixels() * words..],
        word,
        words,
        spread.width,
    );
    let values = &scratch.values;
    simd(
        #[inline(always)]
        || {
            for (c, list) in lists.iter().enumerate().take(conv.input.c - 32 * word) {
                for tap in 0..conv.kernel.h * conv.kernel.w {
                    let (r, s) = (tap / conv.kernel.w, tap % conv.kernel.w);
                    let shift = (conv.kernel.h - 1 - r) * spread.width + conv.kernel.w - 1 - s;
                    let row = &mut partial[(tap * 32 + c) * filters..][..filters];
                    each_lanes!(filters, |B, k| {
                        let sums: &mut [f32; B] = row[k..].first_chunk_mut().expect("a row is as wide as the filters");
                        let mut local = *sums;
                        add_rows::<B>(&mut local, list, shift as i32, values, filters, k);
                        *sums = local;
                    });
                }
            }
        },
    );
}

/// For each of 32 channels, the positions (in the spread gradient) of the pixels where it spiked.
fn channel_lists<'a>(
    lists: &'a mut Vec<Vec<u32>>,
    conv: &Conv,
    bits: &[u32],
    word: usize,
    words: usize,
    width: usize,
) -> &'a [Vec<u32>] {
    lists.resize_with(32, Vec::new);
    lists.iter_mut().for_each(Vec::clear);
    let mut channels = Vec::with_capacity(32);
    for y in 0..conv.input.h {
        for x in 0..conv.input.w {
            channels.clear();
            push_bits(&mut channels, bits[(y * conv.input.w + x) * words + word], 0);
            for &c in &channels {
                lists[c as usize].push((y * width + x) as u32);
            }
        }
    }
    lists
}

/// Adds one image's part of the weight gradient from a dense input.
fn add_dense_grad(
    conv: &Conv,
    scratch: &mut Scratch,
    values: &[f32],
    image: usize,
    gradient: &[f32],
    partial: &mut [f32],
) {
    let (pitch_in, filters) = (input_pitch(conv), pitch(conv.output.c));
    let (image_in, image_out) = (conv.input.pixels() * pitch_in, conv.output.pixels() * filters);
    pad_input(conv, &values[image * image_in..][..image_in], &mut scratch.values);
    let width = padded_width(conv) * pitch_in;
    let rows: Vec<u32> = (0..conv.kernel.h * conv.kernel.w * pitch_in)
        .map(|i| (i / (conv.kernel.w * pitch_in) * width + i % (conv.kernel.w * pitch_in)) as u32)
        .collect();
    Product {
        x: &scratch.values,
        rows: &rows,
        runs: &(0..conv.output.h).map(|p| (p * conv.stride.h * width) as u32).collect::<Vec<_>>(),
        run_len: conv.output.w,
        step: conv.stride.w * pitch_in,
        b: &gradient[image * image_out..][..image_out],
        b_row: filters,
        b_panel: PANEL,
        start: Start::Out,
        out: partial,
        pitch: filters,
    }
    .run();
}
