//! The seam's operations on a device.

use super::memory::Gpu;
use super::tensors::{lowered, padded, words};
use super::{Buffer, Driver, driver};
use crate::autotune::Tuning;
use crate::backend::shape::{Conv, InputKind, Pool, Span, Volume};
use crate::backend::*;
use crate::data::sampling::Augmentation;
use anyhow::Result;

impl<D: Driver> Backend for Gpu<D> {
    fn repeat(&self, graph: &mut Option<D::Graph>, operations: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let Some(driver) = self.driver().filter(|_| self.records()) else { return operations() };
        let graph = match graph {
            Some(graph) => graph,
            None => {
                driver.begin_recording()?;
                let done = operations();
                let recorded = driver.end_recording();
                done?;
                graph.insert(recorded?)
            }
        };
        driver::replay(driver, graph)
    }

    fn seconds(&self, operations: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        match self.driver() {
            Some(driver) => driver.seconds(operations),
            None => operations().map(|()| 0.0),
        }
    }

    fn copy(&self, from: &Self::Floats, to: &mut Self::Floats) -> Result<usize> {
        self.copy_floats(from, to)
    }

    fn multiply(&self, rounds: u32) -> Result<f64> {
        self.matrix_products(rounds)
    }

    fn input(
        &self,
        set: &Self::Set,
        batch: &Self::Batch,
        augmentation: &Augmentation,
        out: &mut Self::Floats,
    ) -> Result<()> {
        self.gather(set, batch, augmentation, out)
    }

    fn pack_weight(
        &self,
        conv: &Conv,
        weight: &Self::Floats,
        packed: &mut Self::Packed,
        input_grad: bool,
    ) -> Result<()> {
        self.pack(conv, weight, packed, input_grad)
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

    fn batch_norm_running(&self, norm: BatchNorm<Self>, state: &mut NormState<Self::Floats>) -> Result<()> {
        self.norm_statistics(norm, 1, None, state)
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
        // Dense steps are no constant current, and the naive kernels do not fuse.
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
                let SpikeOutput { spikes, windows, membrane, histogram } = out;
                let out = SpikeOutput { spikes: &mut *spikes, windows, membrane, histogram };
                self.norm_lif(conv.output, span, &currents, input_steps, affine, neurons, out)?;
                pooled.map_or(Ok(()), |(pool, pooled)| self.max_pool_forward(pool, span, spikes, pooled))
            }
        }
    }

    fn norm_lif_forward(
        &self,
        volume: Volume,
        span: Span,
        currents: &Self::Floats,
        current_steps: usize,
        affine: Affine<Self>,
        neurons: &Neurons<Self>,
        out: SpikeOutput<Self>,
    ) -> Result<()> {
        self.norm_lif(volume, span, currents, current_steps, affine, neurons, out)
    }

    fn max_pool_forward(&self, pool: &Pool, span: Span, spikes: &Self::Bits, pooled: &mut Self::Bits) -> Result<()> {
        self.pool_spikes(pool, span, spikes, pooled)
    }

    fn avg_pool_forward(&self, pool: &Pool, span: Span, spikes: &Self::Bits, pooled: &mut Self::Floats) -> Result<()> {
        let outputs = 4 * pool.output.pixels() * words(pool.input.c);
        let launch = self.over_outputs(outputs, span.batch * span.steps);
        self.run_stored("avg_pool_forward", launch, &self.pool(pool, span, spikes, &pooled.memory))
    }

    fn dropout_spikes(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Self::Batch,
        stage: usize,
        spikes: &Self::Bits,
        kept: &mut Self::Bits,
    ) -> Result<()> {
        self.drop_spikes(volume, span, probability, batch, stage, spikes, kept)
    }

    fn dropout_floats(
        &self,
        volume: Volume,
        span: Span,
        probability: f32,
        batch: &Self::Batch,
        stage: usize,
        values: &mut Self::Floats,
    ) -> Result<()> {
        self.drop_values(volume, span, probability, batch, stage, values)
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
        self.vote("vote_currents", (classes, vote), span, outputs.memory.address(), current_steps, logits)
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
        tally: &Self::Tally,
        current_steps: usize,
        outputs_grad: &mut Self::Floats,
    ) -> Result<()> {
        self.vote_back((classes, vote), span, logits_grad, tally, current_steps, outputs_grad)
    }

    fn loss(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Self::Floats,
        batch: &Self::Batch,
        grad: Option<&mut Self::Floats>,
        tally: &mut Self::Tally,
    ) -> Result<()> {
        self.losses(spec, classes, span, logits, batch, grad, tally)
    }

    fn spike_backward(
        &self,
        volume: Volume,
        span: Span,
        neurons: &Neurons<Self>,
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
        neurons: &Neurons<Self>,
        saved: Saved<Self>,
        pool: Option<&Pool>,
        spikes_grad: &Self::Floats,
        norm: NormBackward<Self>,
        out: &mut Self::Floats,
    ) -> Result<()> {
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

    fn conv_input_grad_lif(
        &self,
        conv: &Conv,
        span: Span,
        gradient: CurrentGradient<Self>,
        weights: Weights<Self>,
        below: Below<Self>,
        out: &mut Self::Floats,
    ) -> Result<bool> {
        self.input_grad_lif(conv, span, gradient.gradient, weights.packed, below, out)
    }

    fn update(
        &self,
        update: &Update,
        batch: &Self::Batch,
        optimizer: &Self::Optimizer,
        _: &mut [Trained<Self>],
        tally: &mut Self::Tally,
    ) -> Result<()> {
        self.step(update, batch, optimizer, tally)
    }

    fn collect_counts(
        &self,
        layers: &mut [&mut Self::Counts],
        batch: &Self::Batch,
        tally: &mut Self::Tally,
    ) -> Result<()> {
        self.collect(layers, batch, tally)
    }

    fn pool_counts(&self, layers: &mut [&mut Self::Counts]) -> Result<()> {
        self.pool_recent(layers)
    }

    fn tune_bounds(
        &self,
        tuning: &Tuning,
        batch: &Self::Batch,
        counts: Option<&mut Self::Counts>,
        start: &mut Self::Windows,
        bounds: &mut Self::Windows,
    ) -> Result<()> {
        self.tune(tuning, batch, counts, start, bounds)
    }
}
