//! How the convolutions' blocks tile a layer: extents, launches and shared memory, computed here alone.
//!
//! See `kernels/conv.cuh`. A convolution is described by where its output positions lie in its source; a linear layer
//! is a 1x1 convolution over 1x1 images with all its inputs as channels; the input gradient of a strided convolution is
//! one convolution for each parity class of the input's pixels.

use super::Launch;
use super::params::{ConvShape, Tile};
use crate::backend::shape::{Conv, Span};
use anyhow::{Result, bail};

/// Output channels of a block.
pub const TILE_CHANNELS: usize = 64;
/// Threads of a whole block.
const THREADS: u32 = 256;
/// Bytes of one step's weights, and how many steps' are in shared memory.
const STEP: usize = 4096;
const STAGES: usize = 3;
/// Bytes for membranes on their way out: 16 values a thread.
const SCRATCH: usize = 16 * 4 * THREADS as usize;
/// Blocks of a grid in y and z.
const MOST_BLOCKS: usize = 65535;

/// How a warp's matrix tiles are shared between groups of 16 positions and steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroll {
    T1,
    T2,
    T4,
    T8,
}

impl Unroll {
    /// For neurons that need all steps in one thread: as few idle steps as possible, then as many at once as possible.
    pub fn for_neurons(steps: usize) -> Self {
        match steps {
            1 => Self::T1,
            2 => Self::T2,
            _ if steps.next_multiple_of(8) <= steps.next_multiple_of(4) => Self::T8,
            _ => Self::T4,
        }
    }

    /// For currents and gradients, where steps are but more images.
    pub fn for_currents(steps: usize) -> Self {
        if steps.is_multiple_of(4) { Self::T4 } else { Self::T1 }
    }

    /// Its part of a kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::T1 => "t1",
            Self::T2 => "t2",
            Self::T4 => "t4",
            Self::T8 => "t8",
        }
    }

    /// Steps of a tile.
    pub fn steps(self) -> usize {
        match self {
            Self::T1 => 1,
            Self::T2 => 2,
            Self::T4 => 4,
            Self::T8 => 8,
        }
    }

    /// Positions of a warp.
    fn positions(self) -> usize {
        16 * match self {
            Self::T1 => 4,
            Self::T2 => 2,
            Self::T4 | Self::T8 => 1,
        }
    }

    /// Warps that share positions.
    fn share(self) -> usize {
        if self == Self::T8 { 2 } else { 1 }
    }
}

/// What a convolution reads, as its kernels stage it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Spikes,
    /// 16-bit values.
    Dense,
}

/// Words of 32 channels.
fn words(channels: usize) -> usize {
    channels.div_ceil(32)
}

/// Words of a convolution's input pixel; of the whole input where the layer is linear.
pub fn input_words(conv: &Conv) -> usize {
    words(conv.input.c) * if conv.is_linear() { conv.input.pixels() } else { 1 }
}

/// A convolution from its input to its output.
pub fn forward(conv: &Conv, span: Span) -> ConvShape {
    let linear = conv.is_linear();
    let [source_h, source_w, taps_h, taps_w] =
        if linear { [1; 4] } else { [conv.input.h, conv.input.w, conv.kernel.h, conv.kernel.w] };
    ConvShape {
        images: span.batch as u32,
        steps: span.steps as u32,
        source_h: source_h as u32,
        source_w: source_w as u32,
        source_words: input_words(conv) as u32,
        rows: conv.output.h as u32,
        columns: conv.output.w as u32,
        origin_h: -(conv.padding.h as i32),
        origin_w: -(conv.padding.w as i32),
        stride_h: conv.stride.h as u32,
        stride_w: conv.stride.w as u32,
        taps_h: taps_h as u32,
        taps_w: taps_w as u32,
        out_h: conv.output.h as u32,
        out_w: conv.output.w as u32,
        out_words: words(conv.output.c) as u32,
        first_h: 0,
        first_w: 0,
        step_h: 1,
        step_w: 1,
    }
}

/// One parity class of a convolution's input gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientClass {
    pub shape: ConvShape,
    /// First tap, `[h, w]`; the others follow by strides.
    pub first_tap: [u32; 2],
}

/// The taps that reach input pixel `class + stride i` from the output, along one axis: the first, how many, how many
/// pixels there are, and the output position of pixel 0 at the last tap.
fn gradient_axis(class: usize, input: usize, kernel: usize, stride: usize, padding: usize) -> (usize, usize, usize, i32) {
    let pixels = (input - class).div_ceil(stride);
    let first = (class + padding) % stride;
    let taps = if first < kernel { (kernel - first).div_ceil(stride) } else { 0 };
    let origin = ((class + padding - first) / stride) as i32 - (taps as i32 - 1);
    (first, taps, pixels, origin)
}

/// A convolution's input gradient from its output's, class by class. With `neurons`, the classes that no tap reaches
/// are there too: their gradient is zero and must be written.
pub fn input_gradient(conv: &Conv, span: Span) -> Vec<GradientClass> {
    if conv.is_linear() {
        let shape = ConvShape {
            source_words: words(conv.output.c) as u32,
            out_words: input_words(conv) as u32,
            ..forward(conv, span)
        };
        return vec![GradientClass { shape, first_tap: [0, 0] }];
    }
    let (stride, input) = (conv.stride, conv.input);
    let classes = (0..stride.h.min(input.h)).flat_map(|h| (0..stride.w.min(input.w)).map(move |w| (h, w)));
    let class = |(h, w)| {
        let (first_h, taps_h, rows, origin_h) = gradient_axis(h, input.h, conv.kernel.h, stride.h, conv.padding.h);
        let (first_w, taps_w, columns, origin_w) = gradient_axis(w, input.w, conv.kernel.w, stride.w, conv.padding.w);
        let shape = ConvShape {
            images: span.batch as u32,
            steps: span.steps as u32,
            source_h: conv.output.h as u32,
            source_w: conv.output.w as u32,
            source_words: words(conv.output.c) as u32,
            rows: rows as u32,
            columns: columns as u32,
            origin_h,
            origin_w,
            stride_h: 1,
            stride_w: 1,
            taps_h: taps_h as u32,
            taps_w: taps_w as u32,
            out_h: input.h as u32,
            out_w: input.w as u32,
            out_words: words(input.c) as u32,
            first_h: h as u32,
            first_w: w as u32,
            step_h: stride.h as u32,
            step_w: stride.w as u32,
        };
        GradientClass { shape, first_tap: [first_h as u32, first_w as u32] }
    };
    classes.map(class).collect()
}

/// Bytes of a packed weight for a convolution of this shape.
pub fn packed_bytes(shape: &ConvShape) -> usize {
    let steps = (shape.taps_h * shape.taps_w * shape.source_words) as usize;
    (shape.out_words as usize).div_ceil(2) * steps * STEP
}

/// Chunks of `unroll` steps become blocks in z, or are walked through by each block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chunks {
    Blocks,
    Walked,
}

/// The tile of a block and the launch, within `shared` bytes of shared memory a block. `paired` for 2x2 pools.
pub fn plan(
    shape: &ConvShape,
    unroll: Unroll,
    source: Source,
    paired: bool,
    chunks: Chunks,
    shared: usize,
) -> Result<(Tile, Launch)> {
    let most = THREADS as usize / 32 / unroll.share() * unroll.positions();
    let mut positions = most;
    let (tile, bytes) = loop {
        if let Some(best) = best_tile(shape, unroll, source, paired, positions, shared) {
            break best;
        }
        positions /= 2;
        if positions < 16 {
            bail!(
                "a {}x{} kernel over {} steps does not fit {shared} bytes of shared memory",
                shape.taps_h,
                shape.taps_w,
                unroll.steps()
            );
        }
    };
    let tiles = (shape.images.div_ceil(tile.images) * tile.across_h * tile.across_w) as usize;
    let (channels, times) = (
        (shape.out_words as usize).div_ceil(TILE_CHANNELS / 32),
        if chunks == Chunks::Blocks { (shape.steps as usize).div_ceil(unroll.steps()) } else { 1 },
    );
    if channels > MOST_BLOCKS || times > MOST_BLOCKS {
        bail!("{} channels over {} steps are more than a launch can take", 32 * shape.out_words, shape.steps);
    }
    let used = (tile.images * tile.h * tile.w) as usize;
    let warps = used.div_ceil(unroll.positions()) * unroll.share();
    let launch = Launch {
        grid: [tiles as u32, channels as u32, times as u32],
        threads: 32 * warps as u32,
        shared: bytes.max(SCRATCH) as u32,
    };
    Ok((tile, launch))
}

/// The tile of at most `positions` positions with the fewest blocks, then the smallest patch, and its shared memory.
fn best_tile(
    shape: &ConvShape,
    unroll: Unroll,
    source: Source,
    paired: bool,
    positions: usize,
    shared: usize,
) -> Option<(Tile, usize)> {
    let even = if paired { 2 } else { 1 };
    let (rows, columns) = (shape.rows.next_multiple_of(even), shape.columns.next_multiple_of(even));
    let mut best: Option<(u64, usize, Tile, usize)> = None;
    for w in (even..=columns.min(positions as u32)).step_by(even as usize) {
        for h in (even..=rows.min(positions as u32 / w)).step_by(even as usize) {
            let images = (positions as u32 / (w * h)).min(shape.images);
            let (across_h, across_w) = (shape.rows.div_ceil(h), shape.columns.div_ceil(w));
            // Fewer images where the last block would be emptier for it.
            let images = shape.images.div_ceil(shape.images.div_ceil(images));
            let blocks = u64::from(shape.images.div_ceil(images)) * u64::from(across_h) * u64::from(across_w);
            // At least one, that a position's first tap has a place; of no taps nothing is staged.
            let patch = |extent: u32, stride: u32, taps: u32| (extent - 1) * stride + taps.max(1);
            let (patch_h, patch_w) = (patch(h, shape.stride_h, shape.taps_h), patch(w, shape.stride_w, shape.taps_w));
            let patch = (images * patch_h * patch_w) as usize;
            let slots = if shape.taps_h * shape.taps_w > 1 { 2 } else { 3 };
            let slot = match source {
                Source::Spikes => (patch * unroll.steps()).div_ceil(4) * 16,
                Source::Dense => patch * unroll.steps() * 64,
            };
            let bytes = STAGES * STEP + slots * slot;
            let better = best.as_ref().is_none_or(|b| (blocks, patch) < (b.0, b.1));
            if bytes.max(SCRATCH) <= shared && better {
                let tile = Tile { images, h, w, paired: paired.into(), patch_h, patch_w, across_h, across_w };
                best = Some((blocks, patch, tile, bytes));
            }
        }
    }
    best.map(|(_, _, tile, bytes)| (tile, bytes))
}
