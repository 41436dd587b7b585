//! Convolutions and what prepares their operands.

use super::{ConvShape, Field, NeuronConstants, Params, Places, Tile};
use bytemuck::{Pod, Zeroable};

params! {
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
        windows: u64,
        shape: ConvShape,
        tile: Tile,
        pool: u32,
        sum_steps: u32,
        windows_per_channel: u32,
        neuron: NeuronConstants,
        below_h: u32,
        below_w: u32,
        below_words: u32,
        carry: u32,
        add: u32,
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
        words_staged: u32,
        dropout: f32,
    }

    /// `reduce_sums`
    struct ReduceSums {
        partial: u64,
        sums: u64,
        count: u32,
        splits: u32,
    }

    /// `conv_current_naive`, `conv_input_grad_naive` and `conv_weight_grad_naive`
    struct ConvNaive {
        source: u64,
        gradient: u64,
        weight: u64,
        bias: u64,
        out: u64,
        weight_grad: u64,
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
        add: u32,
    }

    /// `current_moments`
    struct CurrentMoments {
        currents: u64,
        moments: u64,
        counts: u64,
        rows: u32,
        pitch: u32,
        rows_per_piece: u32,
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
}
