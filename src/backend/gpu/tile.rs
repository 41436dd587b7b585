//! How convolution blocks tile a layer: all extents, launches and shared memory are computed here.
//!
//! See `kernels/conv.cuh`; [`geometry`](super::geometry) says what is tiled.

use super::Launch;
pub use super::geometry::{GradientClass, forward, input_gradient, input_words};
use super::params::{ConvShape, Tile};
use anyhow::{Result, bail};

/// Output channels per block.
pub const TILE_CHANNELS: usize = 64;
/// Threads of a full block.
const THREADS: usize = 256;
/// Bytes of one step's weights, and how many steps' weights are in shared memory.
const STEP: usize = 4096;
const STAGES: usize = 3;
/// The most blocks of a grid in y and z.
const MOST_BLOCKS: usize = 65535;

/// The most bytes of shared memory that the kernels declare per block; those of neurons backward declare none.
pub const STATIC_SHARED: usize = 4096;

/// What a plan needs to know about a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Card {
    pub multiprocessors: usize,
    /// The most bytes of shared memory that a block may ask for.
    pub shared: usize,
}

/// How a warp's four matrix tiles are shared between groups of 16 positions and steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unroll {
    T1,
    T2,
    T4,
}

impl Unroll {
    /// For neurons, which need all steps in one thread; more than four are split into chunks.
    pub fn for_neurons(steps: usize) -> Self {
        match steps {
            1 => Self::T1,
            2 => Self::T2,
            _ => Self::T4,
        }
    }

    /// For currents and gradients, where steps are just more images.
    pub fn for_currents(steps: usize) -> Self {
        if steps.is_multiple_of(4) { Self::T4 } else { Self::T1 }
    }

    /// Its part of a kernel's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::T1 => "t1",
            Self::T2 => "t2",
            Self::T4 => "t4",
        }
    }

    /// Steps per tile.
    pub fn steps(self) -> usize {
        match self {
            Self::T1 => 1,
            Self::T2 => 2,
            Self::T4 => 4,
        }
    }

    /// Positions per warp.
    fn positions(self) -> usize {
        16 * 4 / self.steps()
    }
}

/// A convolution's input as its kernels stage it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Spikes,
    /// 16-bit values.
    Dense,
}

/// Bytes of a packed weight for a convolution of this shape; 0 if no tap reaches, since there is nothing to pack.
pub fn packed_bytes(shape: &ConvShape) -> usize {
    let steps = (shape.taps_h * shape.taps_w * shape.source_words) as usize;
    (shape.out_words as usize).div_ceil(2) * steps * STEP
}

/// What follows a convolution in its kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Epilogue {
    /// Stores currents or gradients; each chunk of steps is a block of its own.
    Store,
    /// Neurons forward: a block walks through the chunks. `pooled`: also applies 2x2 pools.
    Neurons { pooled: bool },
    /// Neurons backward: a block walks through the chunks. `pool`: with a 2x2 pool in between. `sum_steps`: for a current
    /// that is the same at every step.
    NeuronsBack { pool: bool, sum_steps: bool },
}

impl Epilogue {
    /// Bytes of shared memory used in place of the convolution's.
    fn scratch(self, unroll: Unroll) -> usize {
        match self {
            Self::Store => 0,
            Self::Neurons { .. } => 4 * THREADS * 16,
            Self::NeuronsBack { pool, .. } => 4 * THREADS * (64 + if pool { 8 * unroll.steps() } else { 0 }),
        }
    }

    /// Additional bytes of shared memory if there are several chunks: what one passes on to the next.
    fn carry(self, chunks: usize) -> usize {
        if matches!(self, Self::NeuronsBack { .. }) && chunks > 1 { 4 * THREADS * 16 * TILE_CHANNELS / 32 } else { 0 }
    }
}

/// A convolution's tile and launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    pub tile: Tile,
    pub launch: Launch,
    /// Offset in shared memory of what chunks of steps pass on.
    pub carry: u32,
}

/// Plans a convolution for a card.
///
/// # Errors
/// If not even a warp's positions fit in shared memory, if the launch would be too large, or if neurons backward with a pool
/// or with sums have more steps than one chunk: run those separately from the convolution.
pub fn plan(shape: &ConvShape, unroll: Unroll, source: Source, epilogue: Epilogue, card: Card) -> Result<Plan> {
    let steps = shape.steps as usize;
    let (chunks, scratch) = (steps.div_ceil(unroll.steps()), epilogue.scratch(unroll));
    if let Epilogue::NeuronsBack { pool, sum_steps } = epilogue
        && (pool || sum_steps)
        && chunks > 1
    {
        bail!("neurons backward behind a pool or with sums take {} steps at once, not {steps}", unroll.steps());
    }
    let carry = epilogue.carry(chunks);
    let declared = if matches!(epilogue, Epilogue::NeuronsBack { .. }) { 0 } else { STATIC_SHARED };
    let room = card.shared.saturating_sub(declared + carry);
    let paired = epilogue == Epilogue::Neurons { pooled: true };
    let channels = (shape.out_words as usize).div_ceil(TILE_CHANNELS / 32);
    let deep = if epilogue == Epilogue::Store { chunks } else { 1 };
    let blocks = |tile: &Tile| {
        let tiles = u64::from(shape.images.div_ceil(tile.images)) * u64::from(tile.across_h) * u64::from(tile.across_w);
        (tiles, tiles * (channels * deep) as u64)
    };
    // The largest block that still gives every multiprocessor one; else the smallest.
    let most = THREADS / 32 * unroll.positions();
    let sizes = std::iter::successors(Some(most), |n| Some(n / 2)).take_while(|&n| n >= unroll.positions());
    let fitting = sizes.filter(|_| scratch <= room).filter_map(|n| best_tile(shape, unroll, source, paired, n, room));
    let mut best = None;
    for (tile, bytes) in fitting {
        best = Some((tile, bytes));
        if blocks(&tile).1 >= card.multiprocessors as u64 {
            break;
        }
    }
    let Some((tile, bytes)) = best else {
        bail!(
            "a {}x{} convolution of {} steps at once does not fit {} bytes of shared memory",
            shape.taps_h,
            shape.taps_w,
            unroll.steps(),
            card.shared
        );
    };
    let tiles = u32::try_from(blocks(&tile).0).ok().filter(|&tiles| tiles <= i32::MAX as u32);
    let Some(tiles) = tiles.filter(|_| channels <= MOST_BLOCKS && deep <= MOST_BLOCKS) else {
        bail!("{} channels over {steps} steps are more than a launch can take", 32 * shape.out_words);
    };
    let used = (tile.images * tile.h * tile.w) as usize;
    let before = bytes.max(scratch);
    let launch = Launch {
        grid: [tiles, channels as u32, deep as u32],
        threads: 32 * used.div_ceil(unroll.positions()) as u32,
        shared: (before + carry) as u32,
    };
    Ok(Plan { tile, launch, carry: before as u32 })
}

/// A weight gradient's tile and launch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WeightGradPlan {
    pub tile: Tile,
    pub launch: Launch,
    /// Words of 32 input channels that a block stages.
    pub words_staged: u32,
}

/// Plans a weight gradient over `shape` (its steps counted as images) for a card. The number of partial sums, and so the
/// last bits of the gradient, depend on the card.
///
/// # Errors
/// If not even a few positions fit in shared memory, or if the launch would be too large.
pub fn plan_weight_grad(shape: &ConvShape, source: Source, card: Card) -> Result<WeightGradPlan> {
    const REDUCED: usize = 128;
    /// Columns per warp.
    const COLUMNS: usize = 2;
    const MOST_WARPS: usize = THREADS / 32;
    let room = card.shared.saturating_sub(STATIC_SHARED);
    let (taps, words) = ((shape.taps_h * shape.taps_w) as usize, shape.source_words as usize);
    let all = taps * words;
    // Columns run tap by tap: a block's columns may lie in this many words.
    let staged = |columns: usize| {
        let blocks = 0..all.div_ceil(columns).min(taps);
        let words = |block: usize| ((block + 1) * columns).min(all).div_ceil(taps) - block * columns / taps;
        blocks.map(words).max().unwrap_or(1)
    };
    // As many columns per block as divide evenly; then as many positions as can be staged.
    let even = |warps: usize| all.div_ceil(COLUMNS * all.div_ceil(COLUMNS * warps));
    for positions in [REDUCED, REDUCED / 2, REDUCED / 4, REDUCED / 8] {
        for warps in (1..=MOST_WARPS).rev().map(even) {
            let staged = staged(warps * COLUMNS);
            let bytes = |patch: usize| {
                let word = match source {
                    Source::Spikes => patch.div_ceil(4) * 16,
                    Source::Dense => patch * 64,
                };
                2 * (REDUCED * TILE_CHANNELS * 2 + staged * word)
            };
            let Some((tile, bytes)) = best_tile_of(shape, false, positions, room, bytes) else { continue };
            let tiles = (shape.images.div_ceil(tile.images) * tile.across_h * tile.across_w) as usize;
            let (across, deep) =
                (all.div_ceil(warps * COLUMNS), (32 * shape.out_words as usize).div_ceil(TILE_CHANNELS));
            if across > MOST_BLOCKS || deep > MOST_BLOCKS {
                bail!("{} channels of {taps} taps are more than a launch can take", 32 * words);
            }
            // One full wave of blocks, as many as fit on a multiprocessor by registers (a warp takes 8 K) and memory.
            let resident = (8 / warps).min(card.shared / (bytes + STATIC_SHARED)).max(1);
            let splits = (resident * card.multiprocessors / (across * deep)).clamp(1, tiles);
            let launch = Launch {
                grid: [splits as u32, across as u32, deep as u32],
                threads: 32 * warps as u32,
                shared: bytes as u32,
            };
            return Ok(WeightGradPlan { tile, launch, words_staged: staged as u32 });
        }
    }
    bail!("a {}x{} weight gradient does not fit {} bytes of shared memory", shape.taps_h, shape.taps_w, card.shared);
}

/// A convolution's best tile and its shared memory.
fn best_tile(
    shape: &ConvShape,
    unroll: Unroll,
    source: Source,
    paired: bool,
    positions: usize,
    shared: usize,
) -> Option<(Tile, usize)> {
    best_tile_of(shape, paired, positions, shared, |patch| {
        let slots = if shape.taps_h * shape.taps_w > 1 { 2 } else { 3 };
        let slot = match source {
            Source::Spikes => (patch * unroll.steps()).div_ceil(4) * 16,
            Source::Dense => patch * unroll.steps() * 64,
        };
        STAGES * STEP + slots * slot
    })
}

/// The tile of at most `positions` positions with the fewest blocks, then the smallest patch, whose shared memory, computed
/// from the patch, is within `shared`.
fn best_tile_of(
    shape: &ConvShape,
    paired: bool,
    positions: usize,
    shared: usize,
    bytes: impl Fn(usize) -> usize,
) -> Option<(Tile, usize)> {
    let even = if paired { 2 } else { 1 };
    let (rows, columns) = (shape.rows.next_multiple_of(even), shape.columns.next_multiple_of(even));
    let mut best: Option<(u64, usize, Tile, usize)> = None;
    for w in (even..=columns.min(positions as u32)).step_by(even as usize) {
        for h in (even..=rows.min(positions as u32 / w)).step_by(even as usize) {
            let images = (positions as u32 / (w * h)).min(shape.images);
            let (across_h, across_w) = (shape.rows.div_ceil(h), shape.columns.div_ceil(w));
            // Fewer images if the last block would otherwise be emptier.
            let images = shape.images.div_ceil(shape.images.div_ceil(images));
            let blocks = u64::from(shape.images.div_ceil(images)) * u64::from(across_h) * u64::from(across_w);
            // At least one, so that a position's first tap has a place; without taps nothing is staged.
            let patch = |extent: u32, stride: u32, taps: u32| (extent - 1) * stride + taps.max(1);
            let (patch_h, patch_w) = (patch(h, shape.stride_h, shape.taps_h), patch(w, shape.stride_w, shape.taps_w));
            let patch = (images * patch_h * patch_w) as usize;
            let bytes = bytes(patch);
            let better = best.as_ref().is_none_or(|b| (blocks, patch) < (b.0, b.1));
            if bytes <= shared && better {
                let tile = Tile { images, h, w, paired: paired.into(), patch_h, patch_w, across_h, across_w };
                best = Some((blocks, patch, tile, bytes));
            }
        }
    }
    best.map(|(_, _, tile, bytes)| (tile, bytes))
}
