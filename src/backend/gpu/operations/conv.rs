//! Convolutions: on tensor cores, or in f32 by the naive kernels.

use super::super::memory::{Gpu, Memory};
use super::super::params::{ConvCurrent, ConvLif, ConvNaive, CurrentMoments, FoldAffine, PackWeight, Unfold};
use super::super::precision::Precision;
use super::super::tensors::{Floats, Packed, address, lowered, padded, places};
use super::super::tile::{self, Epilogue, Source, Unroll};
use super::super::{Buffer, Driver, Launch};
use crate::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, Span, Volume};
use crate::backend::{Affine, BatchNorm, ConvForward, Input, NeuronLayers, Neurons, NormState, SpikeOutput, Weights};
use anyhow::Result;

/// A convolution's input in the form that its kernels take.
pub(super) struct Operand<D: Driver> {
    /// The convolution as the device runs it.
    pub conv: Conv,
    pub address: u64,
    /// The factor by which dropout scales kept spikes.
    pub dropout: f32,
    /// Columns unfolded for this operation.
    _columns: Option<Memory<D>>,
}

impl<D: Driver> Operand<D> {
    pub fn source(&self) -> Source {
        if self.conv.reads == InputKind::Spikes { Source::Spikes } else { Source::Dense }
    }

    pub fn name(&self) -> &'static str {
        if self.conv.reads == InputKind::Spikes { "spikes" } else { "dense" }
    }
}

/// The least bytes of a packed weight, so that it has an address.
const SMALLEST: usize = 16;

/// Moments of a convolution's currents, piece by piece, for the duration of one operation.
pub(in super::super) struct Moments<D: Driver> {
    /// `[pieces][2][C]`.
    pub partial: Memory<D>,
    /// Number of values per channel in each piece.
    pub counts: Memory<D>,
    pub pieces: u32,
}

/// Whether a pool reduces two by two pixels to one, which the convolutions' kernels can do as well.
pub(super) fn halves(pool: &Pool) -> bool {
    let two = Extent::square(2);
    pool.kernel == two && pool.stride == two && pool.padding == Extent::square(0)
}

/// All steps as separate images.
pub(super) fn as_images(span: Span) -> Span {
    Span { batch: span.batch * span.steps, steps: 1 }
}

impl<D: Driver> Gpu<D> {
    pub(super) fn operand(&self, conv: &Conv, span: Span, input: &Input<Self>) -> Result<Operand<D>> {
        let lowered = lowered(conv);
        Ok(match input {
            Input::Spikes { bits, scale } => {
                Operand { conv: lowered, address: bits.address(), dropout: *scale, _columns: None }
            }
            Input::Dense(values) if conv.reads == InputKind::Image => {
                let columns = self.unfold(conv, span, values)?;
                Operand { conv: lowered, address: columns.address(), dropout: 1.0, _columns: Some(columns) }
            }
            Input::Dense(values) => {
                Operand { conv: lowered, address: values.memory.address(), dropout: 1.0, _columns: None }
            }
        })
    }

    fn unfold(&self, conv: &Conv, span: Span, samples: &Floats<D>) -> Result<Memory<D>> {
        let columns = Volume { c: conv.fan_in(), ..conv.output };
        let places = places(span, columns);
        let len = span.steps * (places.places * places.words * 32) as usize;
        let out = self.borrow(len * self.precision.bytes())?;
        let params = Unfold {
            samples: samples.memory.address(),
            columns: out.address(),
            places,
            height: conv.input.h as u32,
            width: conv.input.w as u32,
            channels: conv.input.c as u32,
            output_h: conv.output.h as u32,
            output_w: conv.output.w as u32,
            kernel_h: conv.kernel.h as u32,
            kernel_w: conv.kernel.w as u32,
            stride_h: conv.stride.h as u32,
            stride_w: conv.stride.w as u32,
            padding_h: conv.padding.h as u32,
            padding_w: conv.padding.w as u32,
        };
        self.run_stored("unfold", self.over_places(places), &params)?;
        Ok(out)
    }

    /// A naive kernel's parameters without the buffers.
    pub(super) fn naive(&self, conv: &Conv, span: Span) -> ConvNaive {
        ConvNaive {
            images: (span.batch * span.steps) as u32,
            in_h: conv.input.h as u32,
            in_w: conv.input.w as u32,
            channels: conv.input.c as u32,
            out_h: conv.output.h as u32,
            out_w: conv.output.w as u32,
            filters: conv.output.c as u32,
            taps_h: conv.kernel.h as u32,
            taps_w: conv.kernel.w as u32,
            stride_h: conv.stride.h as u32,
            stride_w: conv.stride.w as u32,
            padding_h: conv.padding.h as u32,
            padding_w: conv.padding.w as u32,
            spikes: (conv.reads == InputKind::Spikes).into(),
            dropout: 1.0,
            ..ConvNaive::default()
        }
    }

    pub(super) fn over_values(&self, values: usize) -> Launch {
        let blocks = values.div_ceil(256).clamp(1, 32 * self.card.multiprocessors);
        Launch { grid: [blocks as u32, 1, 1], threads: 256, shared: 0 }
    }

    pub(in super::super) fn packed_weight(&self, conv: &Conv) -> Result<Packed<D>> {
        if self.precision == Precision::F32 {
            return Ok(Packed { forward: None, gradient: Vec::new() });
        }
        let span = Span { batch: 1, steps: 1 };
        let room = |bytes: usize| self.allocate(bytes.max(SMALLEST));
        let forward = Some(room(tile::packed_bytes(&tile::forward(&lowered(conv), span)))?);
        let mut gradient = Vec::new();
        if conv.reads != InputKind::Image {
            for class in tile::input_gradient(conv, span) {
                gradient.push((class, room(tile::packed_bytes(&class.shape))?));
            }
        }
        Ok(Packed { forward, gradient })
    }

    /// Bytes of a [`Gpu::packed_weight`].
    pub(in super::super) fn packed_bytes(&self, conv: &Conv) -> usize {
        if self.precision == Precision::F32 {
            return 0;
        }
        let span = Span { batch: 1, steps: 1 };
        let classes = if conv.reads == InputKind::Image { Vec::new() } else { tile::input_gradient(conv, span) };
        let shapes = classes.into_iter().map(|class| class.shape).chain([tile::forward(&lowered(conv), span)]);
        shapes.map(|shape| tile::packed_bytes(&shape).max(SMALLEST)).sum()
    }

    /// Currents and, with `moments`, those of each channel for a batch norm.
    fn current(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Floats<D>,
        currents: &mut Floats<D>,
        moments: bool,
    ) -> Result<Option<Moments<D>>> {
        let operand = self.operand(conv, span, &input)?;
        let Some(forward) = &weights.packed.forward else {
            let params = ConvNaive {
                source: operand.address,
                weight: weights.value.memory.address(),
                bias: bias.memory.address(),
                out: currents.memory.address(),
                dropout: operand.dropout,
                ..self.naive(&operand.conv, span)
            };
            let values = span.batch * span.steps * conv.output.pixels() * padded(conv.output.c);
            self.run_stored("conv_current_naive", self.over_values(values), &params)?;
            return moments.then(|| self.moments(conv.output, span, currents)).transpose();
        };
        let unroll = Unroll::for_currents(span.steps);
        let images = if unroll == Unroll::T4 { span } else { as_images(span) };
        let shape = tile::forward(&operand.conv, images);
        let tile::Plan { tile, launch, .. } = tile::plan(&shape, unroll, operand.source(), Epilogue::Store, self.card)?;
        let pieces = launch.grid[0] * launch.grid[2];
        let moments = moments.then(|| self.borrow_moments(conv.output, pieces)).transpose()?;
        let params = ConvCurrent {
            source: operand.address,
            weights: forward.address(),
            bias: bias.memory.address(),
            currents: currents.memory.address(),
            moments: moments.as_ref().map_or(0, |moments| moments.partial.address()),
            counts: moments.as_ref().map_or(0, |moments| moments.counts.address()),
            shape,
            tile,
            dropout: operand.dropout,
            wide: (currents.stored == Precision::F32).into(),
        };
        self.run_stored(&format!("conv_current_{}_{}", operand.name(), unroll.name()), launch, &params)?;
        Ok(moments)
    }

    fn borrow_moments(&self, volume: Volume, pieces: u32) -> Result<Moments<D>> {
        let partial = self.borrow(pieces as usize * 2 * padded(volume.c) * 4)?;
        Ok(Moments { partial, counts: self.borrow(4 * pieces as usize)?, pieces })
    }

    /// Moments of stored currents.
    pub(super) fn moments(&self, volume: Volume, span: Span, currents: &Floats<D>) -> Result<Moments<D>> {
        const ROWS: usize = 128;
        let (rows, pitch) = (span.batch * span.steps * volume.pixels(), padded(volume.c));
        let launch = Launch::over(rows, ROWS, pitch.min(256) as u32);
        let moments = self.borrow_moments(volume, launch.grid[0])?;
        let params = CurrentMoments {
            currents: currents.memory.address(),
            moments: moments.partial.address(),
            counts: moments.counts.address(),
            rows: rows as u32,
            pitch: pitch as u32,
            rows_per_piece: ROWS as u32,
            padding: 0,
        };
        self.run_stored("current_moments", launch, &params)?;
        Ok(moments)
    }

    fn conv_lif(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        input_steps: usize,
        packed: &Memory<D>,
        bias: &Floats<D>,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
        pooled: Option<(&Pool, &mut Memory<D>)>,
    ) -> Result<()> {
        let of_input = Span { steps: input_steps, ..span };
        let operand = self.operand(conv, of_input, &input)?;
        let (volume, direct) = (conv.output, operand.source() == Source::Dense);
        let channels = || self.borrow_floats(padded(volume.c), Precision::F32);
        let (scale, shift) = (channels()?, channels()?);
        let fold = FoldAffine {
            scale: affine.scale.memory.address(),
            shift: affine.shift.memory.address(),
            bias: bias.memory.address(),
            folded_scale: scale.memory.address(),
            folded_shift: shift.memory.address(),
            channels: padded(volume.c) as u32,
            dropout: operand.dropout,
        };
        self.run("fold_affine", Launch::over(padded(volume.c), 256, 256), &fold)?;
        let (windows, windows_per_channel) = Self::windows_for(neurons);
        let unroll = if direct { Unroll::T1 } else { Unroll::for_neurons(span.steps) };
        let shape = tile::forward(&operand.conv, of_input);
        let (fused, apart) = match pooled {
            Some((pool, pooled)) if halves(pool) && pool.kind == PoolKind::Max => (Some(pooled), None),
            pooled => (None, pooled),
        };
        let epilogue = Epilogue::Neurons { pooled: fused.is_some() };
        let tile::Plan { tile, launch, .. } = tile::plan(&shape, unroll, operand.source(), epilogue, self.card)?;
        let params = ConvLif {
            source: operand.address,
            weights: packed.address(),
            scale: scale.memory.address(),
            shift: shift.memory.address(),
            windows,
            spikes: out.spikes.address(),
            inside: out.inside.map_or(0, |inside| inside.address()),
            pooled: address(fused.as_deref()),
            membranes: out.membrane.map_or(0, |membrane| membrane.memory.address()),
            histogram: out.histogram.as_ref().map_or(0, |counts| counts.fresh.address()),
            shape,
            tile,
            neuron_steps: span.steps as u32,
            channels: volume.c as u32,
            windows_per_channel,
            histogram_per_channel: out.histogram.is_some_and(|counts| counts.count > 1).into(),
            neuron: neurons.neuron.into(),
        };
        let variant = if direct { "direct" } else { unroll.name() };
        self.run_stored(&format!("conv_lif_forward_{variant}"), launch, &params)?;
        apart.map_or(Ok(()), |(pool, pooled)| self.max_pool_forward(pool, span, out.spikes, pooled))
    }
}

impl<D: Driver> ConvForward for Gpu<D> {
    fn pack_weight(&self, conv: &Conv, weight: &Floats<D>, packed: &mut Packed<D>, input_grad: bool) -> Result<()> {
        let conv = lowered(conv);
        let reads = if conv.reads == InputKind::Spikes { 0 } else { 1 };
        let shape = tile::forward(&conv, Span { batch: 1, steps: 1 });
        let forward = packed.forward.iter().map(|buffer| (shape, [0, 0], reads, buffer));
        let gradient = packed.gradient.iter().filter(|_| input_grad);
        let gradient = gradient.map(|(class, buffer)| (class.shape, class.first_tap, 2, buffer));
        for (shape, first, reads, buffer) in forward.chain(gradient) {
            let units = tile::packed_bytes(&shape) / 16;
            if units == 0 {
                continue;
            }
            let params = PackWeight {
                weight: weight.memory.address(),
                packed: buffer.address(),
                filters: conv.output.c as u32,
                channels: conv.input.c as u32,
                all_taps_h: conv.kernel.h as u32,
                all_taps_w: conv.kernel.w as u32,
                taps_h: shape.taps_h,
                taps_w: shape.taps_w,
                first_h: first[0],
                first_w: first[1],
                step_h: conv.stride.h as u32,
                step_w: conv.stride.w as u32,
                reads,
                flattened: conv.is_linear().into(),
            };
            self.run_stored("pack_weight", self.over_values(units), &params)?;
        }
        Ok(())
    }

    fn conv_current(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Self::Floats,
        currents: &mut Self::Floats,
    ) -> Result<()> {
        self.current(conv, span, input, weights, bias, currents, false).map(drop)
    }

    fn conv_batch_norm(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Self::Floats,
        currents: &mut Self::Floats,
        steps: usize,
        norm: BatchNorm<Self>,
        update: bool,
        state: &mut NormState<Self::Floats>,
    ) -> Result<()> {
        let moments = self.current(conv, span, input, weights, bias, currents, true)?;
        let moments = moments.as_ref().map(|moments| (moments, update));
        self.norm_statistics(norm, steps / span.steps, moments, state)
    }

    fn conv_lif_forward(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        input_steps: usize,
        weights: Weights<Self>,
        bias: &Self::Floats,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
        pooled: Option<(&Pool, &mut Self::Bits)>,
    ) -> Result<()> {
        // Dense steps are not a constant current, and the naive kernels do not fuse.
        let dense = lowered(conv).reads != InputKind::Spikes;
        match &weights.packed.forward {
            Some(packed) if !dense || input_steps == 1 => {
                self.conv_lif(conv, span, input, input_steps, packed, bias, affine, neurons, out, pooled)
            }
            _ => {
                let of_currents = Span { steps: input_steps, ..span };
                let values = span.batch * input_steps * conv.output.pixels() * padded(conv.output.c);
                let mut currents = self.borrow_floats(values, self.precision)?;
                self.current(conv, of_currents, input, weights, bias, &mut currents, false)?;
                let SpikeOutput { spikes, inside, membrane, histogram } = out;
                let out = SpikeOutput { spikes: &mut *spikes, inside, membrane, histogram };
                self.norm_lif_forward(conv.output, span, &currents, input_steps, affine, neurons, out)?;
                pooled.map_or(Ok(()), |(pool, pooled)| self.max_pool_forward(pool, span, spikes, pooled))
            }
        }
    }
}
