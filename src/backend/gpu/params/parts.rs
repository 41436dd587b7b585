//! Structs inside other parameter structs.

use super::{Field, Params};
use crate::backend::shape::{self, PoolKind};
use crate::data::sampling;
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{Surrogate, SurrogateKind, Window};
use bytemuck::{Pod, Zeroable};

params! {
    /// Extents of a layer for the kernels that work neuron by neuron; see `kernels/places.cuh`.
    struct Places {
        /// Samples times pixels.
        places: u32,
        /// Words of 32 channels.
        words: u32,
        steps: u32,
    }

    /// The pool of `kernels/pool.cuh`; its default is none.
    struct Pool {
        input_h: u32,
        input_w: u32,
        output_h: u32,
        output_w: u32,
        kernel_h: u32,
        kernel_w: u32,
        stride_h: u32,
        stride_w: u32,
        padding_h: u32,
        padding_w: u32,
        /// 1 max, 2 avg.
        kind: u32,
        padding: u32,
    }

    /// One of several currents that are added; see `kernels/norm_lif.cu`.
    struct Summand {
        values: u64,
        spikes: u64,
        scale: u64,
        shift: u64,
        steps: u32,
        of_spike: f32,
    }

    /// The neuron of `kernels/neuron.cuh`.
    struct NeuronConstants {
        leak: f32,
        gain: f32,
        threshold: f32,
        v_reset: f32,
        hard: u32,
        detach: u32,
    }

    /// A slope of `kernels/surrogate.cuh`.
    struct SlopeConstants {
        height: f32,
        rate: f32,
    }

    /// Where a convolution's positions lie in its source and its output; see `kernels/conv.cuh`.
    struct ConvShape {
        images: u32,
        steps: u32,
        source_h: u32,
        source_w: u32,
        source_words: u32,
        rows: u32,
        columns: u32,
        origin_h: i32,
        origin_w: i32,
        stride_h: u32,
        stride_w: u32,
        taps_h: u32,
        taps_w: u32,
        out_h: u32,
        out_w: u32,
        out_words: u32,
        first_h: u32,
        first_w: u32,
        step_h: u32,
        step_w: u32,
    }

    /// A block's positions; see `kernels/conv.cuh`.
    struct Tile {
        images: u32,
        h: u32,
        w: u32,
        paired: u32,
        patch_h: u32,
        patch_w: u32,
        across_h: u32,
        across_w: u32,
    }

    /// What a dropout mask is derived from, as in `kernels/dropout.cu`.
    struct Mask {
        /// Address of the seed, a `u64`.
        seed: u64,
        /// See [`dropout_threshold`].
        threshold: u64,
    }

    /// Where a sample is read, as in `kernels/input.cu`.
    struct Placement {
        dx: i32,
        dy: i32,
        flip: u32,
        wraps: u32,
        mask: u64,
    }
}

impl From<&shape::Pool> for Pool {
    fn from(p: &shape::Pool) -> Self {
        let kind = match p.kind {
            PoolKind::Max => 1,
            PoolKind::Avg => 2,
        };
        Self {
            input_h: p.input.h as u32,
            input_w: p.input.w as u32,
            output_h: p.output.h as u32,
            output_w: p.output.w as u32,
            kernel_h: p.kernel.h as u32,
            kernel_w: p.kernel.w as u32,
            stride_h: p.stride.h as u32,
            stride_w: p.stride.w as u32,
            padding_h: p.padding.h as u32,
            padding_w: p.padding.w as u32,
            kind,
            padding: 0,
        }
    }
}

impl From<Neuron> for NeuronConstants {
    fn from(n: Neuron) -> Self {
        let hard = (n.reset == ResetKind::Hard).into();
        let Neuron { leak, gain, threshold, v_reset, detach, .. } = n;
        Self { leak, gain, threshold, v_reset, hard, detach: detach.into() }
    }
}

/// A slope's number in `kernels/surrogate.cuh`, its name in kernel names, and its constants.
pub fn slope(surrogate: &Surrogate, threshold: f32) -> (u32, &'static str, SlopeConstants) {
    let kind = if surrogate.needs_membrane() { surrogate.kind } else { SurrogateKind::Adali };
    let constants = surrogate.slope(threshold).constants();
    let constants =
        constants.map_or_else(SlopeConstants::default, |c| SlopeConstants { height: c.height, rate: c.rate });
    (kind as u32, kind.name(), constants)
}

/// A window in the form the kernels read.
pub fn window(w: Window) -> [f32; 4] {
    [w.left, w.right, w.slope_left, w.slope_right]
}

/// The smallest 53-bit number that a dropout keeps: [`crate::backend::keeps`] in integers.
pub fn dropout_threshold(probability: f32) -> u64 {
    (f64::from(probability) * (1u64 << 53) as f64).ceil() as u64
}

impl From<sampling::Placement> for Placement {
    fn from(sampling::Placement { dx, dy, flip, wraps, mask }: sampling::Placement) -> Self {
        Self { dx, dy, flip: flip.into(), wraps: wraps.into(), mask }
    }
}
