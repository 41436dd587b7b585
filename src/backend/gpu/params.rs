//! Parameter structs of the kernels, field for field those of `kernels/*.cu`; a test compares the layouts.
//!
//! Addresses are device addresses, 0 where the kernel's documentation allows none.

use crate::autotune::{BoundsSpec, Flag};
use crate::backend::shape::{self, PoolKind};
use crate::data::sampling;
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{Slope, Window};
use bytemuck::{Pod, Zeroable};

/// Name, offset and size of a field.
pub type Field = (&'static str, usize, usize);

/// A struct that a kernel takes, or a part of one.
pub trait Params: Pod {
    /// Its name on both sides.
    const NAME: &str;
    /// Its fields in order.
    const FIELDS: &[Field];
}

macro_rules! params {
    ($($(#[$doc:meta])* struct $Name:ident { $($(#[$note:meta])* $field:ident: $Type:ty,)* })*) => {
        $(
            $(#[$doc])*
            #[repr(C)]
            #[derive(Clone, Copy, Debug, Default, PartialEq, Pod, Zeroable)]
            pub struct $Name { $($(#[$note])* pub $field: $Type,)* }

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

/// Values of a chunk in `kernels/optimizer.cu`.
pub const OPTIMIZER_CHUNK: usize = 4096;

/// The chunks of tensors of these lengths, a block of the optimiser each.
pub fn chunks(lengths: &[usize]) -> Vec<Chunk> {
    let of = |(tensor, &length): (usize, &usize)| {
        (0..length).step_by(OPTIMIZER_CHUNK).map(move |start| Chunk { tensor: tensor as u32, start: start as u32 })
    };
    lengths.iter().enumerate().flat_map(of).collect()
}

/// The smallest number of 53 bits that a dropout keeps: [`crate::backend::keeps`] in integers.
pub fn dropout_threshold(probability: f32) -> u64 {
    (f64::from(probability) * (1u64 << 53) as f64).ceil() as u64
}

impl From<sampling::Placement> for Placement {
    fn from(sampling::Placement { dx, dy, flip }: sampling::Placement) -> Self {
        Self { dx, dy, flip: flip.into() }
    }
}

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

    /// The neuron of `kernels/neuron.cuh`.
    struct NeuronConstants {
        leak: f32,
        gain: f32,
        threshold: f32,
        v_reset: f32,
        hard: u32,
        detach: u32,
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

    /// A slope of `kernels/surrogate.cuh`.
    struct SlopeConstants {
        height: f32,
        rate: f32,
    }

    /// What a dropout's mask follows from, as `kernels/dropout.cu` has it.
    struct Mask {
        /// Address of the seed, a `u64`.
        seed: u64,
        /// See [`dropout_threshold`].
        threshold: u64,
    }

    /// Where a sample is read, as `kernels/input.cu` has it.
    struct Placement {
        dx: i32,
        dy: i32,
        flip: u32,
    }

    /// `conv_lif_forward`
    struct ConvLif {
        source: u64,
        weights: u64,
        scale: u64,
        shift: u64,
        windows: u64,
        spikes: u64,
        inside: u64,
        pooled: u64,
        membranes: u64,
        histogram: u64,
        shape: ConvShape,
        tile: Tile,
        neuron_steps: u32,
        channels: u32,
        windows_per_channel: u32,
        histogram_per_channel: u32,
        neuron: NeuronConstants,
    }

    /// `conv_current`
    struct ConvCurrent {
        source: u64,
        weights: u64,
        bias: u64,
        currents: u64,
        moments: u64,
        counts: u64,
        shape: ConvShape,
        tile: Tile,
        dropout: f32,
        wide: u32,
    }

    /// `conv_input_grad` and `conv_input_grad_lif`
    struct ConvInputGrad {
        gradient: u64,
        weights: u64,
        out: u64,
        spikes: u64,
        inside: u64,
        membranes: u64,
        windows: u64,
        shape: ConvShape,
        tile: Tile,
        pool: u32,
        sum_steps: u32,
        windows_per_channel: u32,
        slope: u32,
        constants: SlopeConstants,
        neuron: NeuronConstants,
        below_h: u32,
        below_w: u32,
        below_words: u32,
        carry: u32,
    }

    /// `conv_weight_grad`
    struct ConvWeightGrad {
        gradient: u64,
        source: u64,
        partial: u64,
        shape: ConvShape,
        tile: Tile,
        filters: u32,
        channels: u32,
        all_taps: u32,
        pixel_words: u32,
        has_bias: u32,
        words_staged: u32,
        dropout: f32,
        padding: u32,
    }

    /// `reduce_weight_grad`
    struct ReduceWeightGrad {
        partial: u64,
        weight_grad: u64,
        bias_grad: u64,
        weights: u32,
        biases: u32,
        splits: u32,
        padding: u32,
    }

    /// `conv_current_naive`, `conv_input_grad_naive` and `conv_weight_grad_naive`
    struct ConvNaive {
        source: u64,
        gradient: u64,
        weight: u64,
        bias: u64,
        out: u64,
        weight_grad: u64,
        bias_grad: u64,
        images: u32,
        in_h: u32,
        in_w: u32,
        channels: u32,
        out_h: u32,
        out_w: u32,
        filters: u32,
        taps_h: u32,
        taps_w: u32,
        stride_h: u32,
        stride_w: u32,
        padding_h: u32,
        padding_w: u32,
        spikes: u32,
        dropout: f32,
        padding: u32,
    }

    /// `pack_weight`
    struct PackWeight {
        weight: u64,
        packed: u64,
        filters: u32,
        channels: u32,
        all_taps_h: u32,
        all_taps_w: u32,
        taps_h: u32,
        taps_w: u32,
        first_h: u32,
        first_w: u32,
        step_h: u32,
        step_w: u32,
        reads: u32,
        flattened: u32,
    }

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

    /// `vote_currents`, `vote_spikes`
    struct Vote {
        outputs: u64,
        logits: u64,
        batch: u32,
        steps: u32,
        current_steps: u32,
        classes: u32,
        vote: u32,
        padding: u32,
    }

    /// `vote_backward`
    struct VoteBackward {
        logits_gradient: u64,
        outputs_gradient: u64,
        loss_scale: u64,
        batch: u32,
        steps: u32,
        current_steps: u32,
        classes: u32,
        vote: u32,
        padding: u32,
    }

    /// Sums over an epoch, in device memory.
    struct Metrics {
        loss: f64,
        correct: u64,
        samples: u64,
    }

    /// `loss`
    struct Loss {
        logits: u64,
        labels: u64,
        gradient: u64,
        samples: u64,
        mse: f64,
        label_smoothing: f64,
        batch: u32,
        steps: u32,
        classes: u32,
        tet: u32,
    }

    /// `loss_total`
    struct LossTotal {
        samples: u64,
        metrics: u64,
        batch: u32,
        padding: u32,
    }

    /// A parameter in the optimiser's table, in device memory.
    struct TrainedTensor {
        value: u64,
        gradient: u64,
        first: u64,
        second: u64,
        length: u32,
        decay: f32,
    }

    /// [`OPTIMIZER_CHUNK`] values of a tensor from `start` on, or what is left of it; in device memory.
    struct Chunk {
        tensor: u32,
        start: u32,
    }

    /// What changes from update to update, in device memory. The host writes `rate` and `loss_scale` before
    /// `gradient_norm`.
    struct OptimizerState {
        norm: f64,
        rate: f32,
        loss_scale: f32,
        gradient_scale: f32,
        step: f32,
        root: f32,
        finite: u32,
        count: u32,
        skipped: u32,
    }

    /// `optimizer_sgd`, `optimizer_adam`
    struct Optimizer {
        tensors: u64,
        chunks: u64,
        state: u64,
        momentum: f32,
        beta1: f32,
        beta2: f32,
        epsilon: f32,
        decoupled: u32,
        padding: u32,
    }

    /// `gradient_squares`, `gradient_norm`
    struct GradientNorm {
        tensors: u64,
        chunks: u64,
        squares: u64,
        state: u64,
        limit: f64,
        beta1: f32,
        beta2: f32,
        chunk_count: u32,
        padding: u32,
    }

    /// `weight_norm_forward`
    struct WeightNorm {
        weight: u64,
        gain: u64,
        effective: u64,
        fan_in: u32,
        scale: f32,
    }

    /// `weight_norm_backward`
    struct WeightNormBackward {
        weight: u64,
        gain: u64,
        gradient: u64,
        gain_gradient: u64,
        fan_in: u32,
        scale: f32,
    }

    /// `max_pool_forward`, `avg_pool_forward`
    struct PoolForward {
        spikes: u64,
        pooled: u64,
        pool: Pool,
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
