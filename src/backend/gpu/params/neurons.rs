//! Neurons, their norms, histograms and bounds, pools and dropout.

use super::{Field, Mask, NeuronConstants, Params, Places, Pool, SlopeConstants, Summand};
use crate::autotune::{BoundsSpec, Flag};
use bytemuck::{Pod, Zeroable};

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

    /// `sum_currents`
    struct SumCurrents {
        summands: [Summand; 3],
        sum: u64,
        places: Places,
        count: u32,
        steps: u32,
        padding: u32,
    }

    /// `sum_lif_forward`
    struct SumLif {
        input: SumCurrents,
        windows: u64,
        spikes: u64,
        inside: u64,
        membranes: u64,
        histogram: u64,
        places: Places,
        channels: u32,
        windows_per_channel: u32,
        histogram_per_channel: u32,
        neuron: NeuronConstants,
    }

    /// `pass_gradient`
    struct PassGradient {
        gradient: u64,
        scale: u64,
        to: u64,
        places: Places,
        steps: u32,
        add: u32,
        padding: u32,
    }

    /// `mask_gradient`
    struct MaskGradient {
        gradient: u64,
        mask: u64,
        to: u64,
        places: Places,
        inverted: u32,
        add: u32,
        scale: f32,
    }

    /// `and_spikes`
    struct AndSpikes {
        own: u64,
        other: u64,
        out: u64,
        words: u64,
        inverted: u32,
        padding: u32,
    }

    /// `gain_forward`
    struct GainForward {
        gain: u64,
        out: u64,
        channels: u32,
        scale: f32,
    }

    /// `gain_backward`, `gain_sum`
    struct GainBackward {
        gradient: u64,
        currents: u64,
        partial: u64,
        gain_gradient: u64,
        places: Places,
        channels: u32,
        current_steps: u32,
        pieces: u32,
        scale: f32,
        padding: u32,
    }

    /// `norm_lif_reduce`, `norm_lif_apply`, `norm_reduce`, `norm_apply`
    struct NormLifBackward {
        currents: u64,
        gradient: u64,
        spikes: u64,
        inside: u64,
        windows: u64,
        scale: u64,
        shift: u64,
        membranes: u64,
        mean: u64,
        inv_std: u64,
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

    /// `channel_sums`
    struct ChannelSums {
        values: u64,
        sums: u64,
        places: Places,
        padding: u32,
    }

    /// `fold_affine`
    struct FoldAffine {
        scale: u64,
        shift: u64,
        bias: u64,
        folded_scale: u64,
        folded_shift: u64,
        channels: u32,
        dropout: f32,
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
        inv_std: u64,
        scale: u64,
        shift: u64,
        pieces: u32,
        repeats: u32,
        channels: u32,
        update: u32,
    }

    /// `batch_norm_backward`
    struct BatchNormBackward {
        sums: u64,
        mean: u64,
        inv_std: u64,
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
        add: u32,
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

    /// The first potentials that were not finite, in device memory.
    struct Fault {
        /// The step from 1 on, times 2^16, plus the layer from 1 on; 0 while there is none.
        place: u64,
        /// How many of the layer's potentials.
        potentials: u64,
    }

    /// `collect_counts`
    struct CollectCounts {
        fresh: u64,
        recent: u64,
        epoch: u64,
        /// Address of the step's number, counted from 1, a `u64`.
        step: u64,
        fault: u64,
        layer: u32,
        padding: u32,
    }

    /// `merge_counts`
    struct MergeCounts {
        source: u64,
        target: u64,
        add: u32,
        padding: u32,
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
        gain0: f64,
        gain1: f64,
        mode: u32,
        schedule: u32,
        count: u32,
        first: u32,
        threshold: f32,
        padding: u32,
    }

    /// `avg_pool_backward`
    struct AvgPoolBackward {
        gradient: u64,
        out: u64,
        places: Places,
        pool: Pool,
        add: u32,
    }

    /// `max_pool_forward`, `avg_pool_forward`, `avg_pool_values`
    struct PoolForward {
        input: u64,
        pooled: u64,
        pool: Pool,
        images: u32,
        words: u32,
        share: f32,
        padding: u32,
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
}

impl From<&BoundsSpec> for TuneBounds {
    /// The rule; which histograms, and when, is left open.
    fn from(spec: &BoundsSpec) -> Self {
        let ([left0, left1], [right0, right1], [target0, target1]) = (spec.left, spec.right, spec.target);
        let BoundsSpec { alpha, momentum, floor, ceiling, .. } = *spec;
        let [gain0, gain1] = spec.gain.unwrap_or_default();
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
            gain0,
            gain1,
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

/// The bit with which `tune_bounds` reports potentials that were not finite.
pub const NON_FINITE: u32 = 64;
