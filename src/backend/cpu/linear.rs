//! Linear layers: one row of inputs per sample and step, all rows against the whole weight.
//!
//! A thread takes a range of rows and walks over the weight once, one block of columns at a time, so that the block stays in
//! cache while its rows pass. Rows are independent, so any split gives the same bits.

use super::events::{Events, add_rows, push_bits};
use super::layout::{input_pitch, pitch};
use super::operands::{CpuInput, Weight};
use super::product::{PANEL, Product, Start};
use super::simd::{each_lanes, simd};
use crate::backend::Put;
use crate::backend::shape::{Conv, Span, Volume};
use crate::host::resize;
use anyhow::Result;
use rayon::prelude::*;

/// Rows per thread.
fn stretch(rows: usize) -> usize {
    rows.div_ceil(rayon::current_num_threads()).max(1)
}

/// Inputs per row, padding included.
fn inputs(conv: &Conv) -> usize {
    conv.input.pixels() * input_pitch(conv)
}

/// Outputs of every sample and step.
pub fn current(conv: &Conv, span: Span, input: &CpuInput, weight: &Weight, bias: &[f32], currents: &mut [f32]) {
    let (rows, filters) = (span.batch * span.steps, pitch(conv.output.c));
    let stretch = stretch(rows);
    currents[..rows * filters].par_chunks_mut(stretch * filters).enumerate().for_each(|(i, out)| match *input {
        CpuInput::Spikes { bits, scale } => event_outputs(conv, bits, scale, weight, bias, i * stretch, out),
        CpuInput::Dense(values) => Product {
            x: values,
            rows: &(0..out.len() / filters).map(|row| ((i * stretch + row) * inputs(conv)) as u32).collect::<Vec<_>>(),
            runs: &[0],
            run_len: inputs(conv),
            step: 1,
            b: weight.forward,
            b_row: filters,
            b_panel: PANEL,
            start: Start::Bias(bias),
            out,
            pitch: filters,
        }
        .run(),
    });
}

fn event_outputs(conv: &Conv, bits: &[u32], scale: f32, weight: &Weight, bias: &[f32], first: usize, out: &mut [f32]) {
    let filters = pitch(conv.output.c);
    let row_words = inputs(conv) / 32;
    // All pixels as one, so that the list's entries are rows of the weight.
    let flat = Volume { h: 1, w: 1, c: inputs(conv) };
    let events: Vec<Events> = (0..out.len() / filters)
        .map(|row| {
            let mut events = Events::default();
            events.collect(&bits[(first + row) * row_words..][..row_words], flat);
            events
        })
        .collect();
    simd(
        #[inline(always)]
        || {
            each_lanes!(filters, |B, k| {
                let bias: &[f32; B] = bias[k..].first_chunk().expect("a bias is as wide as a row");
                for (events, out) in events.iter().zip(out.chunks_exact_mut(filters)) {
                    let mut sums = [0.0; B];
                    add_rows::<B>(&mut sums, events.between(0, 1), 0, weight.forward, filters, k);
                    for (i, out) in out[k..][..B].iter_mut().enumerate() {
                        *out = sums[i].mul_add(scale, bias[i]);
                    }
                }
            });
        },
    );
}

/// `[k][(pixel, c)]` in panels of 16 inputs, padded like activations.
pub fn pack_transposed(conv: &Conv, weight: &[f32], packed: &mut Vec<f32>) -> Result<()> {
    let (rows_in, filters, channels) = (input_pitch(conv), pitch(conv.output.c), pitch(conv.input.c));
    resize(packed, conv.input.pixels() * channels * filters)?;
    packed.par_chunks_mut(filters * PANEL).enumerate().for_each(|(panel, packed)| {
        let (pixel, first) = (panel * PANEL / channels, panel * PANEL % channels);
        for i in 0..PANEL.min(rows_in.saturating_sub(first)) {
            let row = &weight[(pixel * rows_in + first + i) * filters..][..filters];
            for (k, &w) in row.iter().enumerate() {
                packed[k * PANEL + i] = w;
            }
        }
    });
    Ok(())
}

/// Gradient of the input.
pub fn input_grad(conv: &Conv, span: Span, gradient: &[f32], weight: &Weight, put: Put, out: &mut [f32]) {
    let (rows, filters) = (span.batch * span.steps, pitch(conv.output.c));
    let columns = conv.input.pixels() * pitch(conv.input.c);
    let stretch = stretch(rows);
    out[..rows * columns].par_chunks_mut(stretch * columns).enumerate().for_each(|(i, out)| {
        Product {
            x: gradient,
            rows: &(0..out.len() / columns).map(|row| ((i * stretch + row) * filters) as u32).collect::<Vec<_>>(),
            runs: &[0],
            run_len: filters,
            step: 1,
            b: weight.transposed,
            b_row: PANEL,
            b_panel: filters * PANEL,
            start: Start::of(put),
            out,
            pitch: columns,
        }
        .run();
    });
}

/// Gradient of the weight: each task owns 32 of its rows and walks over all samples and steps.
pub fn weight_grad(conv: &Conv, span: Span, input: &CpuInput, gradient: &[f32], out: &mut [f32]) {
    let (rows, filters) = (span.batch * span.steps, pitch(conv.output.c));
    let inputs = inputs(conv);
    out.par_chunks_mut(32 * filters).enumerate().for_each(|(block, out)| match *input {
        CpuInput::Spikes { bits, scale } => {
            let mut lists = vec![Vec::new(); 32];
            let mut channels = Vec::with_capacity(32);
            for row in 0..rows {
                channels.clear();
                push_bits(&mut channels, bits[row * inputs.div_ceil(32) + block], 0);
                for &c in &channels {
                    lists[c as usize].push(row as u32);
                }
            }
            simd(
                #[inline(always)]
                || {
                    each_lanes!(filters, |B, k| {
                        for (list, out) in lists.iter().zip(out.chunks_exact_mut(filters)) {
                            let mut sums = [0.0; B];
                            add_rows::<B>(&mut sums, list, 0, gradient, filters, k);
                            for (i, out) in out[k..][..B].iter_mut().enumerate() {
                                *out = sums[i] * scale;
                            }
                        }
                    });
                },
            );
        }
        CpuInput::Dense(values) => Product {
            x: values,
            rows: &(0..out.len() / filters).map(|i| (block * 32 + i) as u32).collect::<Vec<_>>(),
            runs: &[0],
            run_len: rows,
            step: inputs,
            b: gradient,
            b_row: filters,
            b_panel: PANEL,
            start: Start::Zero,
            out,
            pitch: filters,
        }
        .run(),
    });
}
