//! The seam's operations on a device.

use super::memory::{Counts, Floats, Gpu, Moments, Packed, lowered, padded, words};
use super::precision::Precision;
use super::{Buffer, Driver};
use crate::autotune::Histogram;
use crate::backend::shape::{Conv, InputKind, Pool, Span, Volume};
use crate::backend::*;
use crate::data::SampleShape;
use crate::data::sampling::Placement;
use crate::histogram::BINS;
use anyhow::Result;

/// Counters of a histogram: bins, underflow, overflow, not finite.
const COUNTERS: usize = BINS + 3;

impl<D: Driver> Backend for Gpu<D> {
    type Floats = Floats<D::Buffer>;
    type Bits = D::Buffer;
    type Bytes = D::Buffer;
    type Counts = Counts<D::Buffer>;
    type Packed = Packed<D::Buffer>;
    type Sums = Moments<D::Buffer>;

    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.precision.name())
    }

    fn available_memory(&self) -> Option<usize> {
        self.driver.available_memory()
    }

    fn activations(&self, span: Span, volume: Volume) -> Result<Self::Floats> {
        self.floats(span.batch * span.steps * volume.pixels() * padded(volume.c), self.precision)
    }

    fn readouts(&self, span: Span, volume: Volume) -> Result<Self::Floats> {
        self.floats(span.batch * span.steps * volume.pixels() * padded(volume.c), Precision::F32)
    }

    fn samples(&self, span: Span, volume: Volume) -> Result<Self::Floats> {
        self.floats(span.batch * span.steps * volume.values(), self.precision)
    }

    fn spikes(&self, span: Span, volume: Volume) -> Result<Self::Bits> {
        self.zeros(self.bits_size(span, volume))
    }

    fn vector(&self, values: &[f32]) -> Result<Self::Floats> {
        let mut vector = values.to_vec();
        vector.resize(padded(values.len()), 0.0);
        Ok(Floats { buffer: self.put(&vector)?, stored: Precision::F32 })
    }

    fn weight(&self, conv: &Conv, values: &[f32]) -> Result<Self::Floats> {
        let mut weight = vec![0.0; values.len()];
        each_weight(conv, |file, memory| weight[memory] = values[file]);
        Ok(Floats { buffer: self.put(&weight)?, stored: Precision::F32 })
    }

    fn packed(&self, conv: &Conv) -> Result<Self::Packed> {
        self.packed_weight(conv)
    }

    fn sums(&self, _: Span, _: Volume) -> Result<Self::Sums> {
        Ok(Moments { pieces: None })
    }

    fn copy(&self, from: &Self::Floats, to: &mut Self::Floats) -> Result<()> {
        self.driver.upload(&to.buffer, 0, &self.driver.download(&from.buffer)?)
    }

    fn histogram(&self, count: usize) -> Result<Self::Counts> {
        Ok(Counts { buffer: self.zeros(count * COUNTERS * 8)?, count })
    }

    fn bytes(&self, values: Vec<u8>) -> Result<Self::Bytes> {
        self.put(&values)
    }

    fn floats_size(&self, span: Span, volume: Volume) -> usize {
        self.precision.bytes() * span.batch * span.steps * volume.pixels() * padded(volume.c)
    }

    fn bits_size(&self, span: Span, volume: Volume) -> usize {
        4 * span.batch * span.steps * volume.pixels() * words(volume.c)
    }

    fn read_activations(&self, floats: &Self::Floats, span: Span, volume: Volume) -> Result<Vec<f32>> {
        let (values, pitch) = (self.decode(floats)?, padded(volume.c));
        Ok(Self::to_file(span, volume, |place, c| values[place * pitch + c]))
    }

    fn read_samples(&self, floats: &Self::Floats, span: Span, volume: Volume) -> Result<Vec<f32>> {
        let values = self.decode(floats)?;
        Ok(Self::to_file(span, volume, |place, c| values[place * volume.c + c]))
    }

    fn read_spikes(&self, bits: &Self::Bits, span: Span, volume: Volume) -> Result<Vec<u8>> {
        let (bits, words) = (self.get::<u32>(bits)?, words(volume.c));
        Ok(Self::to_file(span, volume, |place, c| (bits[place * words + c / 32] >> (c % 32) & 1) as u8))
    }

    fn read_vector(&self, floats: &Self::Floats, len: usize) -> Result<Vec<f32>> {
        let mut values = self.decode(floats)?;
        values.truncate(len);
        Ok(values)
    }

    fn read_weight(&self, conv: &Conv, floats: &Self::Floats) -> Result<Vec<f32>> {
        let weight = self.decode(floats)?;
        let mut values = vec![0.0; weight.len()];
        each_weight(conv, |file, memory| values[file] = weight[memory]);
        Ok(values)
    }

    fn take_histogram(&self, counts: &mut Self::Counts) -> Result<Vec<Histogram>> {
        let counted: Vec<u64> = self.get(&counts.buffer)?;
        *counts = self.histogram(counts.count)?;
        let histogram = |counters: &[u64]| Histogram {
            bins: counters[..BINS].to_vec(),
            underflow: counters[BINS],
            overflow: counters[BINS + 1],
            non_finite: counters[BINS + 2],
        };
        Ok(counted.chunks_exact(COUNTERS).map(histogram).collect())
    }

    fn input(
        &self,
        set: &Self::Bytes,
        shape: &SampleShape,
        normalisation: &Normalisation,
        indices: &[u32],
        placements: &[Placement],
        out: &mut Self::Floats,
    ) -> Result<()> {
        self.gather(set, shape, normalisation, indices, placements, out)
    }

    fn pack_weight(&self, conv: &Conv, weight: &Self::Floats, packed: &mut Self::Packed, _: bool) -> Result<()> {
        self.pack(conv, weight, packed)
    }

    fn weight_norm_forward(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        gain: &Self::Floats,
        scale: f32,
        effective: &mut Self::Floats,
    ) -> Result<()> {
        self.standardise(conv, weight, gain, scale, effective)
    }

    fn weight_norm_backward(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        gain: &Self::Floats,
        scale: f32,
        weight_grad: &mut Self::Floats,
        gain_grad: &mut Self::Floats,
    ) -> Result<()> {
        self.standardise_back(conv, weight, gain, scale, weight_grad, gain_grad)
    }

    fn conv_current(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        weights: Weights<Self>,
        bias: &Self::Floats,
        currents: &mut Self::Floats,
        moments: Option<&mut Self::Sums>,
    ) -> Result<()> {
        self.current(conv, span, input, weights.value, weights.packed, bias, currents, moments)
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
        neurons: &Neurons,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        // Dense steps are no constant current, and the naive kernels do not fuse.
        let dense = lowered(conv).reads != InputKind::Spikes;
        match &weights.packed.forward {
            Some(packed) if !dense || input_steps == 1 => {
                self.conv_lif(conv, span, input, input_steps, packed, bias, affine, neurons, out)
            }
            _ => {
                let of_currents = Span { steps: input_steps, ..span };
                let mut currents = self.activations(of_currents, conv.output)?;
                self.conv_current(conv, of_currents, input, weights, bias, &mut currents, None)?;
                self.norm_lif(conv.output, span, &currents, input_steps, affine, neurons, out)
            }
        }
    }

    fn batch_norm_statistics(
        &self,
        norm: BatchNorm<Self>,
        span: Span,
        _: Volume,
        steps: usize,
        moments: &Self::Sums,
        update: bool,
    ) -> Result<NormState<Self::Floats>> {
        self.norm_statistics(norm, steps / span.steps, Some((moments, update)))
    }

    fn batch_norm_running(&self, norm: BatchNorm<Self>) -> Result<NormState<Self::Floats>> {
        self.norm_statistics(norm, 1, None)
    }

    fn norm_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        currents: &Self::Floats,
        current_steps: usize,
        affine: Affine<Self>,
        neurons: &Neurons,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        self.norm_lif(volume, span, currents, current_steps, affine, neurons, out)
    }

    fn max_pool_forward(&self, pool: &Pool, span: Span, spikes: &Self::Bits, pooled: &mut Self::Bits) -> Result<()> {
        let outputs = pool.output.pixels() * words(pool.input.c);
        let launch = self.over_outputs(outputs, span.batch * span.steps);
        self.run("max_pool_forward", launch, &self.pool(pool, span, spikes, pooled))
    }

    fn avg_pool_forward(&self, pool: &Pool, span: Span, spikes: &Self::Bits, pooled: &mut Self::Floats) -> Result<()> {
        let outputs = 4 * pool.output.pixels() * words(pool.input.c);
        let launch = self.over_outputs(outputs, span.batch * span.steps);
        self.run_stored("avg_pool_forward", launch, &self.pool(pool, span, spikes, &pooled.buffer))
    }

    fn dropout_spikes(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        seed: u64,
        spikes: &Self::Bits,
        kept: &mut Self::Bits,
    ) -> Result<()> {
        self.drop_spikes(volume, span, (probability, seed), spikes, kept)
    }

    fn dropout_floats(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        seed: u64,
        values: &mut Self::Floats,
    ) -> Result<()> {
        self.drop_values(volume, span, (probability, seed), values)
    }

    fn vote_currents(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Self::Floats,
        current_steps: usize,
        logits: &mut Self::Floats,
    ) -> Result<()> {
        self.vote("vote_currents", (classes, vote), span, outputs.buffer.address(), current_steps, logits)
    }

    fn vote_spikes(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Self::Bits,
        logits: &mut Self::Floats,
    ) -> Result<()> {
        self.vote("vote_spikes", (classes, vote), span, outputs.address(), span.steps, logits)
    }

    fn vote_backward(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        logits_grad: &Self::Floats,
        current_steps: usize,
        outputs_grad: &mut Self::Floats,
    ) -> Result<()> {
        self.vote_back((classes, vote), span, logits_grad, current_steps, outputs_grad)
    }

    fn loss(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Self::Floats,
        labels: &[u16],
        grad: Option<&mut Self::Floats>,
    ) -> Result<LossSums> {
        self.sample_losses(spec, classes, span, logits, labels, grad)
    }

    fn spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Self::Floats,
        current_steps: usize,
        out: &mut Self::Floats,
        bias_grad: Option<&mut Self::Floats>,
    ) -> Result<()> {
        self.neurons_back(volume, span, neurons, saved, pool, spikes_grad, current_steps, out)?;
        let of_currents = Span { steps: current_steps, ..span };
        bias_grad.map_or(Ok(()), |bias_grad| self.sum_channels(volume, of_currents, out, bias_grad))
    }

    fn norm_spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Self::Floats,
        norm: NormBackward<Self>,
        out: &mut Self::Floats,
    ) -> Result<NormGradient<Self::Floats>> {
        self.norm_neurons_back(volume, span, neurons, saved, pool, spikes_grad, norm, out)
    }

    fn bias_grad(&self, volume: Volume, span: Span, gradient: &Self::Floats, out: &mut Self::Floats) -> Result<()> {
        self.sum_channels(volume, span, gradient, out)
    }

    /// A batch norm's part is in the gradient already.
    fn conv_weight_grad(
        &self,
        conv: &Conv,
        span: Span,
        input: Input<Self>,
        gradient: CurrentGradient<Self>,
        weight_grad: &mut Self::Floats,
    ) -> Result<()> {
        self.weight_grad(conv, span, input, gradient.gradient, weight_grad)
    }

    fn conv_input_grad(
        &self,
        conv: &Conv,
        span: Span,
        gradient: CurrentGradient<Self>,
        weights: Weights<Self>,
        input_grad: &mut Self::Floats,
    ) -> Result<()> {
        self.input_grad(conv, span, gradient.gradient, weights.value, weights.packed, input_grad)
    }

    fn gradient_norm(&self, gradients: &[&Self::Floats]) -> Result<f64> {
        let mut sum = 0.0;
        for gradient in gradients {
            sum += self.decode(gradient)?.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>();
        }
        Ok(sum.sqrt())
    }

    fn optimizer(&self, update: &Update, parameter: Trained<Self>) -> Result<()> {
        self.step(update, parameter)
    }
}

/// Calls `f(position in [K, C, R, S], position in [K][R][S][C])` for every value of a weight.
fn each_weight(conv: &Conv, mut f: impl FnMut(usize, usize)) {
    let (taps, channels) = (conv.kernel.h * conv.kernel.w, conv.input.c);
    for k in 0..conv.output.c {
        for c in 0..channels {
            for tap in 0..taps {
                f((k * channels + c) * taps + tap, (k * taps + tap) * channels + c);
            }
        }
    }
}
