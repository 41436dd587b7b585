//! Memory that the operations need for themselves: buffers kept by threads, and those of single operations.

use super::conv::{Spread, partials_len};
use super::layout::{input_pitch, pitch, words};
use super::lif::rows_per_tile;
use super::source::padded_len;
use crate::backend::LayerExtents;
use crate::backend::shape::{InputKind, PoolKind, Span};

/// Lists of spikes grow with the spikes; planned for this share of neurons, in a vector that has doubled.
const SPIKING: f64 = 0.25;

/// The largest buffers of a thread's [`Scratch`](super::threads::Scratch), in values of four bytes.
#[derive(Default)]
struct Buffers {
    values: usize,
    tile: usize,
    words: usize,
    lists: usize,
    sources: usize,
}

impl Buffers {
    fn needs(&mut self, span: Span, layer: &LayerExtents) {
        let raise = |buffer: &mut usize, len: usize| *buffer = len.max(*buffer);
        if let Some(pool) = layer.pool.filter(|pool| layer.spiking && pool.kind == PoolKind::Max) {
            let places = pool.kernel.h * pool.kernel.w;
            raise(&mut self.words, span.steps * pool.output.pixels() * places * words(pool.input.c));
        }
        let Some(conv) = layer.conv.as_ref().filter(|conv| !conv.is_linear()) else { return };
        let (input, output) = (conv.input.pixels(), conv.output.pixels());
        if conv.reads != InputKind::Image {
            raise(&mut self.values, Spread::new(conv).len(conv));
        }
        let source = match conv.reads {
            InputKind::Spikes => {
                raise(&mut self.lists, spikes(32 * input));
                input + spikes(input * conv.input.c)
            }
            InputKind::Image | InputKind::Dense => {
                raise(&mut self.values, padded_len(conv));
                raise(&mut self.tile, output * pitch(conv.output.c));
                padded_len(conv)
            }
        };
        let (rows, steps) = (rows_per_tile(conv.output, layer.of_currents.steps), layer.of_currents.steps);
        raise(&mut self.tile, steps * rows * conv.output.w * pitch(conv.output.c));
        raise(&mut self.sources, steps * source);
    }
}

fn spikes(neurons: usize) -> usize {
    (2.0 * SPIKING * neurons as f64) as usize
}

/// The most values that a single operation of a layer needs.
fn of_operations(span: Span, layer: &LayerExtents) -> usize {
    let LayerExtents { volume, conv, pool, batch_norm, of_currents, spiking } = layer;
    let pitch = pitch(volume.c);
    let rows = of_currents.batch * of_currents.steps;
    let moments = if *batch_norm { rows * 2 * pitch } else { 0 };
    let sums = span.batch * 2 * pitch + pool.map_or(0, |pool| pool.output.pixels() * pool.kernel.h * pool.kernel.w);
    let synapses = match conv {
        None => 0,
        Some(conv) if conv.is_linear() => {
            let currents = if *spiking { rows * pitch } else { 0 };
            let of_spikes = conv.reads == InputKind::Spikes;
            let lists = if of_spikes { rows * spikes(conv.input.pixels() * input_pitch(conv)) } else { 0 };
            currents + lists
        }
        Some(conv) => partials_len(conv, span.batch),
    };
    moments.max(sums).max(synapses)
}

/// Bytes for all operations of these layers on `threads` threads.
pub fn working_size(span: Span, layers: &[LayerExtents], threads: usize) -> usize {
    let mut buffers = Buffers { values: 32 * span.steps, tile: 32 * span.steps, ..Buffers::default() };
    layers.iter().for_each(|layer| buffers.needs(span, layer));
    let Buffers { values, tile, words, lists, sources } = buffers;
    let operations = layers.iter().map(|layer| of_operations(span, layer)).max().unwrap_or(0);
    size_of::<f32>() * (threads * (values + tile + words + lists + sources) + operations)
}
