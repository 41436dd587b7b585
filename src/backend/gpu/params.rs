//! Parameter structs of the kernels, field for field those of `kernels/*.cu`; a test compares the layouts.
//!
//! Addresses are device addresses, 0 where the kernel's documentation allows none.

use crate::backend::shape::Pool;
use crate::data::sampling;
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{Slope, Window};
use bytemuck::{Pod, Zeroable};

/// Name, offset and size of a field.
pub type Field = (&'static str, usize, usize);

/// A struct that a kernel takes.
pub trait Params: Pod {
    /// Its name on both sides.
    const NAME: &str;
    /// Its fields in order.
    const FIELDS: &[Field];
}

macro_rules! params {
    ($($(#[$doc:meta])* struct $Name:ident { $($field:ident: $Type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            pub struct $Name { $(pub $field: $Type,)* }

            impl Params for $Name {
                const NAME: &str = stringify!($Name);
                const FIELDS: &[Field] =
                    &[$((stringify!($field), std::mem::offset_of!($Name, $field), size_of::<$Type>()),)*];
            }
        )*

        /// Every struct's name, size and fields.
        pub const ALL: &[(&str, usize, &[Field])] = &[$((stringify!($Name), size_of::<$Name>(), $Name::FIELDS),)*];
    };
}

/// Extents of a layer for the kernels that work neuron by neuron; see `kernels/places.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Places {
    /// Samples times pixels.
    pub places: u32,
    /// Words of 32 channels.
    pub words: u32,
    pub steps: u32,
}

/// The neuron of `kernels/neuron.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct NeuronConstants {
    pub leak: f32,
    pub gain: f32,
    pub threshold: f32,
    pub v_reset: f32,
    pub hard: u32,
    pub detach: u32,
}

impl From<Neuron> for NeuronConstants {
    fn from(n: Neuron) -> Self {
        let hard = (n.reset == ResetKind::Hard).into();
        let Neuron { leak, gain, threshold, v_reset, detach, .. } = n;
        Self { leak, gain, threshold, v_reset, hard, detach: detach.into() }
    }
}

/// A slope of `kernels/surrogate.cuh`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct SlopeConstants {
    pub height: f32,
    pub rate: f32,
}

/// A slope's number in `kernels/surrogate.cuh`, its name in kernels' names, and its constants.
pub fn slope(slope: Slope) -> (u32, &'static str, SlopeConstants) {
    match slope {
        Slope::Window => (0, "adali", SlopeConstants::default()),
        Slope::Sigmoid(s) => (1, "sigmoid", SlopeConstants { height: 0.0, rate: s.rate() }),
        Slope::Arctan(s) => (2, "arctan", SlopeConstants { height: s.height(), rate: s.rate() }),
        Slope::Triangle(s) => (3, "triangle", SlopeConstants { height: s.height(), rate: s.rate() }),
    }
}

/// A window as the kernels read it.
pub fn window(w: Window) -> [f32; 4] {
    [w.left, w.right, w.slope_left, w.slope_right]
}

/// A pool's extents, as `kernels/pool.cuh` has them.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct PoolExtents {
    pub input: [u32; 2],
    pub output: [u32; 2],
    pub kernel: [u32; 2],
    pub stride: [u32; 2],
    pub padding: [u32; 2],
}

impl From<&Pool> for PoolExtents {
    fn from(pool: &Pool) -> Self {
        let pair = |h: usize, w: usize| [h as u32, w as u32];
        Self {
            input: pair(pool.input.h, pool.input.w),
            output: pair(pool.output.h, pool.output.w),
            kernel: pair(pool.kernel.h, pool.kernel.w),
            stride: pair(pool.stride.h, pool.stride.w),
            padding: pair(pool.padding.h, pool.padding.w),
        }
    }
}

/// What a dropout's mask follows from, as `kernels/dropout.cu` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Mask {
    /// Address of the seed, a `u64`.
    pub seed: u64,
    /// See [`dropout_threshold`].
    pub threshold: u64,
}

/// The smallest number of 53 bits that a dropout keeps: [`crate::backend::keeps`] in integers.
pub fn dropout_threshold(probability: f32) -> u64 {
    (f64::from(probability) * (1u64 << 53) as f64).ceil() as u64
}

/// Where a sample is read, as `kernels/input.cu` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct Placement {
    pub dx: i32,
    pub dy: i32,
    pub flip: u32,
}

impl From<sampling::Placement> for Placement {
    fn from(sampling::Placement { dx, dy, flip }: sampling::Placement) -> Self {
        Self { dx, dy, flip: flip.into() }
    }
}

params! {
    /// `norm_lif_forward`
    struct NormLif {
        currents: u64,
        scale: u64,
        shift: u64,
        windows: u64,
        spikes: u64,
        inside: u64,
        membranes: u64,
        histogram: u64,
        places: Places,
        channels: u32,
        current_steps: u32,
        windows_per_channel: u32,
        histogram_per_channel: u32,
        neuron: NeuronConstants,
        padding: u32,
    }

    /// `max_pool_forward`, `avg_pool_forward`
    struct PoolForward {
        spikes: u64,
        pooled: u64,
        pool: PoolExtents,
        images: u32,
        words: u32,
    }

    /// `dropout_spikes`
    struct DropoutSpikes {
        spikes: u64,
        kept: u64,
        mask: Mask,
        places: Places,
        channels: u32,
    }

    /// `dropout_values`
    struct DropoutValues {
        values: u64,
        mask: Mask,
        places: Places,
        channels: u32,
        scale: f32,
        padding: u32,
    }

    /// `placements`
    struct Placements {
        seed: u64,
        epoch: u64,
        indices: u64,
        placements: u64,
        batch: u32,
        crop_padding: u32,
        flip: u32,
        padding: u32,
    }

    /// `input`
    struct InputBatch {
        set: u64,
        indices: u64,
        placements: u64,
        table: u64,
        samples: u64,
        batch: u32,
        frames: u32,
        height: u32,
        width: u32,
        channels: u32,
        padding: u32,
    }

    /// `unfold`
    struct Unfold {
        samples: u64,
        columns: u64,
        places: Places,
        height: u32,
        width: u32,
        channels: u32,
        output_h: u32,
        output_w: u32,
        kernel_h: u32,
        kernel_w: u32,
        stride_h: u32,
        stride_w: u32,
        padding_h: u32,
        padding_w: u32,
    }

    /// `spike_count`
    struct SpikeCount {
        spikes: u64,
        counts: u64,
        places: Places,
        padding: u32,
    }
}
