//! Convolution and neurons in one pass, with no currents in memory.

use super::layout::pitch;
use super::lif::{self, Lif, each_image};
use super::threads::with_scratch;
use super::{Cpu, conv};
use crate::backend::shape::{Conv, Span};
use crate::backend::{Affine, ConvForward, Input, NeuronLayers, Neurons, SpikeOutput, Storage, Weights};
use anyhow::Result;

/// Convolution and neurons, sample by sample.
pub fn conv_lif(
    shape: &Conv,
    span: Span,
    input: Input<Cpu>,
    input_steps: usize,
    weights: Weights<Cpu>,
    bias: &Vec<f32>,
    affine: Affine<Cpu>,
    neurons: &Neurons<Cpu>,
    out: SpikeOutput<Cpu>,
) -> Result<()> {
    let volume = shape.output;
    let of_currents = Span { batch: span.batch, steps: input_steps };
    if shape.is_linear() {
        // One neuron per row: the weight, not the currents, must stay in cache.
        let mut currents = Cpu.activations(of_currents, volume)?;
        Cpu.conv_current(shape, of_currents, input, weights, bias, &mut currents)?;
        return Cpu.norm_lif_forward(volume, span, &currents, input_steps, affine, neurons, out);
    }
    let (input, weight) = (input.into(), weights.get());
    let lif = Lif::new(volume, span, affine, neurons, out.inside.is_some());
    let rows = lif::rows_per_tile(volume, input_steps);
    let row = volume.w * pitch(volume.c);
    each_image(volume, span, out, |n, out| {
        with_scratch(|scratch| {
            let mut tile = std::mem::take(&mut scratch.tile);
            let sources = scratch.sources(input_steps);
            for (t, source) in sources.iter_mut().enumerate() {
                source.load(shape, &input, n * input_steps + t);
            }
            for first in (0..volume.h).step_by(rows) {
                let len = rows.min(volume.h - first) * row;
                tile.resize(input_steps * len, 0.0);
                for (source, currents) in sources.iter().zip(tile.chunks_exact_mut(len)) {
                    conv::current_rows(shape, source, input.scale(), &weight, bias, first, currents);
                }
                lif.run(&tile, input_steps, first * volume.w, out);
            }
            scratch.tile = tile;
        });
    });
    Ok(())
}
