//! Convolutions: on tensor cores, or in f32 by the naive kernels.

use super::super::memory::{Floats, Gpu, Moments, Packed, lowered, padded, places, words};
use super::super::params::{
    ChannelSums, ConvCurrent, ConvInputGrad, ConvLif, ConvNaive, ConvWeightGrad, FoldAffine, PackWeight,
    ReduceWeightGrad, Unfold,
};
use super::super::precision::Precision;
use super::super::tile::{self, Epilogue, Source, Unroll};
use super::super::{Buffer, Driver, Launch};
use crate::backend::shape::{Conv, InputKind, Span, Volume};
use crate::backend::{Affine, Input, Neurons, SpikeOutput};
use anyhow::Result;

/// What a convolution reads, as its kernels want it.
struct Operand<B> {
    /// As the device runs it.
    conv: Conv,
    address: u64,
    /// What dropout scales kept spikes by.
    dropout: f32,
    /// Columns that were unfolded for this operation.
    _columns: Option<B>,
}

impl<B> Operand<B> {
    fn source(&self) -> Source {
        if self.conv.reads == InputKind::Spikes { Source::Spikes } else { Source::Dense }
    }

    fn name(&self) -> &'static str {
        if self.conv.reads == InputKind::Spikes { "spikes" } else { "dense" }
    }
}

/// All steps as images.
fn as_images(span: Span) -> Span {
    Span { batch: span.batch * span.steps, steps: 1 }
}

impl<D: Driver> Gpu<D> {
    fn operand(&self, conv: &Conv, span: Span, input: &Input<Self>) -> Result<Operand<D::Buffer>> {
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
                Operand { conv: lowered, address: values.buffer.address(), dropout: 1.0, _columns: None }
            }
        })
    }

    fn unfold(&self, conv: &Conv, span: Span, samples: &Floats<D::Buffer>) -> Result<D::Buffer> {
        let columns = Volume { c: conv.fan_in(), ..conv.output };
        let places = places(span, columns);
        let len = span.steps * (places.places * places.words * 32) as usize;
        let out = self.driver.allocate(len * self.precision.bytes())?;
        let params = Unfold {
            samples: samples.buffer.address(),
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

    /// A naive kernel's parameters but for the buffers.
    fn naive(&self, conv: &Conv, span: Span) -> ConvNaive {
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

    fn over_values(&self, values: usize) -> Launch {
        let blocks = values.div_ceil(256).clamp(1, 32 * self.card.multiprocessors);
        Launch { grid: [blocks as u32, 1, 1], threads: 256, shared: 0 }
    }

    pub(in super::super) fn packed_weight(&self, conv: &Conv) -> Result<Packed<D::Buffer>> {
        if self.precision == Precision::F32 {
            return Ok(Packed { forward: None, gradient: Vec::new() });
        }
        let span = Span { batch: 1, steps: 1 };
        let room = |bytes: usize| self.driver.allocate(bytes.max(16));
        let forward = Some(room(tile::packed_bytes(&tile::forward(&lowered(conv), span)))?);
        let mut gradient = Vec::new();
        if conv.reads != InputKind::Image {
            for class in tile::input_gradient(conv, span) {
                gradient.push((class, room(tile::packed_bytes(&class.shape))?));
            }
        }
        Ok(Packed { forward, gradient })
    }

    pub(in super::super) fn pack(
        &self,
        conv: &Conv,
        weight: &Floats<D::Buffer>,
        packed: &mut Packed<D::Buffer>,
    ) -> Result<()> {
        let conv = lowered(conv);
        let reads = if conv.reads == InputKind::Spikes { 0 } else { 1 };
        let shape = tile::forward(&conv, Span { batch: 1, steps: 1 });
        let forward = packed.forward.iter().map(|buffer| (shape, [0, 0], reads, buffer));
        let gradient = packed.gradient.iter().map(|(class, buffer)| (class.shape, class.first_tap, 2, buffer));
        for (shape, first, reads, buffer) in forward.chain(gradient) {
            let units = tile::packed_bytes(&shape) / 16;
            if units == 0 {
                continue;
            }
            let params = PackWeight {
                weight: weight.buffer.address(),
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

    pub(in super::super) fn current(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weight: &Floats<D::Buffer>,
        packed: &Packed<D::Buffer>,
        bias: &Floats<D::Buffer>,
        currents: &mut Floats<D::Buffer>,
        moments: Option<&mut Moments<D::Buffer>>,
    ) -> Result<()> {
        let operand = self.operand(conv, span, &input)?;
        let Some(forward) = &packed.forward else {
            let params = ConvNaive {
                source: operand.address,
                weight: weight.buffer.address(),
                bias: bias.buffer.address(),
                out: currents.buffer.address(),
                dropout: operand.dropout,
                ..self.naive(&operand.conv, span)
            };
            let values = span.batch * span.steps * conv.output.pixels() * padded(conv.output.c);
            self.run_stored("conv_current_naive", self.over_values(values), &params)?;
            return moments.map_or(Ok(()), |moments| self.moments(conv.output, span, currents, moments));
        };
        let unroll = Unroll::for_currents(span.steps);
        let images = if unroll == Unroll::T4 { span } else { as_images(span) };
        let shape = tile::forward(&operand.conv, images);
        let tile::Plan { tile, launch, .. } = tile::plan(&shape, unroll, operand.source(), Epilogue::Store, self.card)?;
        let pieces = launch.grid[0] * launch.grid[2];
        let made = moments.is_some().then(|| -> Result<_> {
            let partial = self.driver.allocate(pieces as usize * 2 * padded(conv.output.c) * 4)?;
            Ok((partial, self.driver.allocate(4 * pieces as usize)?, pieces))
        });
        let made = made.transpose()?;
        let params = ConvCurrent {
            source: operand.address,
            weights: forward.address(),
            bias: bias.buffer.address(),
            currents: currents.buffer.address(),
            moments: made.as_ref().map_or(0, |(partial, ..)| partial.address()),
            counts: made.as_ref().map_or(0, |(_, counts, _)| counts.address()),
            shape,
            tile,
            dropout: operand.dropout,
            wide: (currents.stored == Precision::F32).into(),
        };
        self.run_stored(&format!("conv_current_{}_{}", operand.name(), unroll.name()), launch, &params)?;
        if let Some(moments) = moments {
            moments.pieces = made;
        }
        Ok(())
    }

    /// Moments of currents that a naive kernel has written: those of each value by itself.
    fn moments(
        &self,
        volume: Volume,
        span: Span,
        currents: &Floats<D::Buffer>,
        moments: &mut Moments<D::Buffer>,
    ) -> Result<()> {
        let values = self.decode(currents)?;
        let pitch = padded(volume.c);
        let rows = span.batch * span.steps * volume.pixels();
        let pieces: Vec<f32> =
            values.chunks_exact(pitch).take(rows).flat_map(|row| row.iter().copied().chain(vec![0.0; pitch])).collect();
        moments.pieces = Some((self.put(&pieces)?, self.put(&vec![1u32; rows])?, rows as u32));
        Ok(())
    }

    pub(in super::super) fn conv_lif(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        input_steps: usize,
        packed: &D::Buffer,
        bias: &Floats<D::Buffer>,
        affine: Affine<Self>,
        neurons: &Neurons,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        let of_input = Span { steps: input_steps, ..span };
        let operand = self.operand(conv, of_input, &input)?;
        let (volume, direct) = (conv.output, operand.source() == Source::Dense);
        let (scale, shift) = (self.channels(volume.c)?, self.channels(volume.c)?);
        let fold = FoldAffine {
            scale: affine.scale.buffer.address(),
            shift: affine.shift.buffer.address(),
            bias: bias.buffer.address(),
            folded_scale: scale.buffer.address(),
            folded_shift: shift.buffer.address(),
            channels: padded(volume.c) as u32,
            dropout: operand.dropout,
        };
        self.run("fold_affine", Launch::over(padded(volume.c), 256, 256), &fold)?;
        let (windows, windows_per_channel) = self.windows(neurons)?;
        let unroll = if direct { Unroll::T1 } else { Unroll::for_neurons(span.steps) };
        let shape = tile::forward(&operand.conv, of_input);
        let epilogue = Epilogue::Neurons { pooled: false };
        let tile::Plan { tile, launch, .. } = tile::plan(&shape, unroll, operand.source(), epilogue, self.card)?;
        let params = ConvLif {
            source: operand.address,
            weights: packed.address(),
            scale: scale.buffer.address(),
            shift: shift.buffer.address(),
            windows: windows.address(),
            spikes: out.spikes.address(),
            inside: out.windows.map_or(0, |windows| windows.address()),
            pooled: 0,
            membranes: out.membrane.map_or(0, |membrane| membrane.buffer.address()),
            histogram: out.histogram.as_ref().map_or(0, |counts| counts.buffer.address()),
            shape,
            tile,
            neuron_steps: span.steps as u32,
            channels: volume.c as u32,
            windows_per_channel,
            histogram_per_channel: out.histogram.is_some_and(|counts| counts.count > 1).into(),
            neuron: neurons.neuron.into(),
        };
        let variant = if direct { "direct" } else { unroll.name() };
        self.run_stored(&format!("conv_lif_forward_{variant}"), launch, &params)
    }

    pub(in super::super) fn weight_grad(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        gradient: &Floats<D::Buffer>,
        weight_grad: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let operand = self.operand(conv, span, &input)?;
        let weights = operand.conv.output.c * operand.conv.fan_in();
        if self.precision == Precision::F32 {
            let params = ConvNaive {
                source: operand.address,
                gradient: gradient.buffer.address(),
                weight_grad: weight_grad.buffer.address(),
                dropout: operand.dropout,
                ..self.naive(&operand.conv, span)
            };
            return self.run_stored("conv_weight_grad_naive", self.over_values(weights), &params);
        }
        let shape = tile::forward(&operand.conv, as_images(span));
        let plan = tile::plan_weight_grad(&shape, operand.source(), self.card)?;
        let splits = plan.launch.grid[0];
        let partial = self.driver.allocate(splits as usize * weights * 4)?;
        let params = ConvWeightGrad {
            gradient: gradient.buffer.address(),
            source: operand.address,
            partial: partial.address(),
            shape,
            tile: plan.tile,
            filters: operand.conv.output.c as u32,
            channels: operand.conv.input.c as u32,
            all_taps: (operand.conv.kernel.h * operand.conv.kernel.w) as u32,
            pixel_words: words(operand.conv.input.c) as u32,
            has_bias: 0,
            words_staged: plan.words_staged,
            dropout: operand.dropout,
            padding: 0,
        };
        self.run_stored(&format!("conv_weight_grad_{}", operand.name()), plan.launch, &params)?;
        self.reduce(&partial, weight_grad, weights, splits)
    }

    /// Adds partial sums in order.
    fn reduce(&self, partial: &D::Buffer, to: &mut Floats<D::Buffer>, len: usize, splits: u32) -> Result<()> {
        let params = ReduceWeightGrad {
            partial: partial.address(),
            weight_grad: to.buffer.address(),
            bias_grad: 0,
            weights: len as u32,
            biases: 0,
            splits,
            padding: 0,
        };
        self.run("reduce_weight_grad", self.over_values(len), &params)
    }

    /// A bias's gradient from that of what it is added to.
    pub(in super::super) fn sum_channels(
        &self,
        volume: Volume,
        span: Span,
        values: &Floats<D::Buffer>,
        out: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let places = places(span, volume);
        let launch = self.over_places(places);
        let partial = self.driver.allocate(launch.grid[0] as usize * padded(volume.c) * 4)?;
        let params = ChannelSums { values: values.buffer.address(), sums: partial.address(), places, padding: 0 };
        self.run_stored("channel_sums", launch, &params)?;
        self.reduce(&partial, out, padded(volume.c), launch.grid[0])
    }

    pub(in super::super) fn input_grad(
        &self,
        conv: &Conv,
        span: Span,
        gradient: &Floats<D::Buffer>,
        weight: &Floats<D::Buffer>,
        packed: &Packed<D::Buffer>,
        input_grad: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        if self.precision == Precision::F32 {
            let params = ConvNaive {
                gradient: gradient.buffer.address(),
                weight: weight.buffer.address(),
                out: input_grad.buffer.address(),
                ..self.naive(conv, span)
            };
            let values = span.batch * span.steps * conv.input.pixels() * padded(conv.input.c);
            return self.run_stored("conv_input_grad_naive", self.over_values(values), &params);
        }
        let unroll = Unroll::for_currents(span.steps);
        let images = if unroll == Unroll::T4 { span } else { as_images(span) };
        for (class, (_, weights)) in tile::input_gradient(conv, images).iter().zip(&packed.gradient) {
            let plan = tile::plan(&class.shape, unroll, Source::Dense, Epilogue::Store, self.card)?;
            let params = ConvInputGrad {
                gradient: gradient.buffer.address(),
                weights: weights.address(),
                out: input_grad.buffer.address(),
                shape: class.shape,
                tile: plan.tile,
                ..ConvInputGrad::default()
            };
            self.run_stored(&format!("conv_input_grad_{}", unroll.name()), plan.launch, &params)?;
        }
        Ok(())
    }
}
