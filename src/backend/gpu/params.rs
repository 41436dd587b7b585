//! Parameter structs of the kernels, field for field those of `kernels/*.cu`; a test compares the layouts.
//!
//! Addresses are device addresses, 0 where the kernel's documentation allows none.

use crate::autotune::{BoundsSpec, Flag};
use crate::backend::shape::{self, PoolKind};
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

/// The pool of `kernels/pool.cuh`; its default is none.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
pub struct Pool {
    pub input_h: u32,
    pub input_w: u32,
    pub output_h: u32,
    pub output_w: u32,
    pub kernel_h: u32,
    pub kernel_w: u32,
    pub stride_h: u32,
    pub stride_w: u32,
    pub padding_h: u32,
    pub padding_w: u32,
    /// 1 max, 2 avg.
    pub kind: u32,
    pub padding: u32,
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

    /// `spike_backward_*`
    struct SpikeBackward {
        gradient: u64,
        spikes: u64,
        inside: u64,
        membranes: u64,
        windows: u64,
        out: u64,
        places: Places,
        pool: Pool,
        neuron: NeuronConstants,
        slope: SlopeConstants,
        windows_per_channel: u32,
        current_steps: u32,
        padding: u32,
    }

    /// `norm_lif_reduce`, `norm_lif_apply`
    struct NormLifBackward {
        currents: u64,
        gradient: u64,
        spikes: u64,
        inside: u64,
        windows: u64,
        scale: u64,
        shift: u64,
        mean: u64,
        inverse_deviation: u64,
        sums: u64,
        of_gradient: u64,
        of_current: u64,
        constant: u64,
        out: u64,
        places: Places,
        pool: Pool,
        neuron: NeuronConstants,
        slope: SlopeConstants,
        slope_kind: u32,
        windows_per_channel: u32,
        current_steps: u32,
    }

    /// `batch_norm_statistics`, `batch_norm_running`
    struct BatchNorm {
        moments: u64,
        counts: u64,
        gain: u64,
        bias: u64,
        running_mean: u64,
        running_variance: u64,
        mean: u64,
        inverse_deviation: u64,
        scale: u64,
        shift: u64,
        pieces: u32,
        count: u32,
        repeats: u32,
        channels: u32,
        update: u32,
        padding: u32,
    }

    /// `batch_norm_backward`
    struct BatchNormBackward {
        sums: u64,
        mean: u64,
        inverse_deviation: u64,
        scale: u64,
        gain_grad: u64,
        bias_grad: u64,
        of_gradient: u64,
        of_current: u64,
        constant: u64,
        sum: u64,
        share: f64,
        pieces: u32,
        channels: u32,
    }

    /// `membrane_histogram`
    struct MembraneHistogram {
        membranes: u64,
        histogram: u64,
        places: Places,
        channels: u32,
        per_channel: u32,
        threshold: f32,
    }

    /// `tune_bounds`
    struct TuneBounds {
        histogram: u64,
        epoch: u64,
        bounds: u64,
        start: u64,
        windows: u64,
        flags: u64,
        epochs: f64,
        left0: f64,
        left1: f64,
        right0: f64,
        right1: f64,
        target0: f64,
        target1: f64,
        alpha: f64,
        momentum: f64,
        floor: f64,
        ceiling: f64,
        mode: u32,
        schedule: u32,
        count: u32,
        first: u32,
        threshold: f32,
        padding: u32,
    }
}

impl From<&BoundsSpec> for TuneBounds {
    /// The rule; which histograms, and when, is left open.
    fn from(spec: &BoundsSpec) -> Self {
        let ([left0, left1], [right0, right1], [target0, target1]) = (spec.left, spec.right, spec.target);
        let BoundsSpec { alpha, momentum, floor, ceiling, .. } = *spec;
        let (mode, schedule) = (spec.mode as u32, spec.schedule as u32);
        Self {
            left0,
            left1,
            right0,
            right1,
            target0,
            target1,
            alpha,
            momentum,
            floor,
            ceiling,
            mode,
            schedule,
            ..Self::default()
        }
    }
}

/// What `tune_bounds` found wrong with a histogram.
pub fn flags(mask: u32) -> Vec<Flag> {
    const ALL: [Flag; 6] =
        [Flag::NotSampled, Flag::Dead, Flag::Saturated, Flag::Thin, Flag::BeyondHistogram, Flag::OutOfReach];
    ALL.into_iter().enumerate().filter(|(bit, _)| mask >> bit & 1 == 1).map(|(_, flag)| flag).collect()
}

/// The bit by which `tune_bounds` says that potentials were not finite.
pub const NON_FINITE: u32 = 64;
