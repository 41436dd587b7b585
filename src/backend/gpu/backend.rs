//! The seam's operations on a device.

use super::memory::{Gpu, Memory};
use super::operations::step::{Batch, Set, Tally};
use super::operations::training::Optimizer;
use super::precision::Precision;
use super::tensors::{Counts, Floats, Packed, Windows, each_weight, lowered, padded, words};
use super::{Buffer, Driver, driver};
use crate::autotune::Tuning;
use crate::backend::shape::{Conv, InputKind, Pool, Span, Volume};
use crate::backend::*;
use crate::data::SampleShape;
use crate::data::sampling::Augmentation;
use crate::surrogate::Bounds;
use anyhow::Result;

/// What an f16 gradient is first multiplied by, as in PyTorch's GradScaler.
const FIRST_LOSS_SCALE: f32 = 65536.0;

impl<D: Driver> Backend for Gpu<D> {
    type Floats = Floats<D>;
    type Bits = Memory<D>;
    type Set = Set<D>;
    type Batch = Batch<D>;
    type Windows = Windows<D>;
    type Counts = Counts<D>;
    type Packed = Packed<D>;
    type Optimizer = Optimizer<D>;
    type Tally = Tally<D>;
    type Graph = D::Graph;

    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.precision.name())
    }

    fn available_memory(&self) -> Option<usize> {
        self.driver()?.available_memory()
    }

    fn rehearsal(&self) -> Option<Self> {
        Some(self.rehearse())
    }

    fn first_loss_scale(&self) -> f32 {
        if self.precision == Precision::F16 { FIRST_LOSS_SCALE } else { 1.0 }
    }

    fn kept_memory(&self) -> usize {
        self.rehearsed_bytes()
    }

    fn working_memory(&self) -> usize {
        self.most_borrowed()
    }

    fn reserve(&self, bytes: usize) -> Result<()> {
        self.set_aside(bytes)
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
        Ok(Floats { memory: self.put(&vector)?, stored: Precision::F32 })
    }

    fn weight(&self, conv: &Conv, values: &[f32]) -> Result<Self::Floats> {
        let weight = self.floats(values.len(), Precision::F32)?;
        self.write(&weight.memory, 0, &weight_from_file(conv, values))?;
        Ok(weight)
    }

    fn packed(&self, conv: &Conv) -> Result<Self::Packed> {
        self.packed_weight(conv)
    }

    fn windows(&self, bounds: &[Bounds], threshold: f32) -> Result<Self::Windows> {
        self.windows_of(bounds, threshold)
    }

    fn counts(&self, count: usize) -> Result<Self::Counts> {
        self.counts_of(count)
    }

    fn batch(&self, capacity: usize, stages: usize) -> Result<Self::Batch> {
        self.batch_of(capacity, stages)
    }

    fn optimizer(&self, parameters: &[Trained<Self>]) -> Result<Self::Optimizer> {
        self.optimizer_of(parameters)
    }

    fn tally(&self) -> Result<Self::Tally> {
        self.tally_of()
    }

    fn set(
        &self,
        values: Vec<u8>,
        shape: SampleShape,
        normalisation: &Normalisation,
        capacity: usize,
    ) -> Result<Self::Set> {
        self.set_of(values, shape, normalisation, capacity)
    }

    fn is_resident(&self, set: &Self::Set) -> bool {
        set.is_resident()
    }

    fn floats_size(&self, span: Span, volume: Volume) -> usize {
        self.precision.bytes() * span.batch * span.steps * volume.pixels() * padded(volume.c)
    }

    fn readouts_size(&self, span: Span, volume: Volume) -> usize {
        Precision::F32.bytes() * span.batch * span.steps * volume.pixels() * padded(volume.c)
    }

    fn samples_size(&self, span: Span, volume: Volume) -> usize {
        self.precision.bytes() * span.batch * span.steps * volume.values()
    }

    fn vector_size(&self, len: usize) -> usize {
        Precision::F32.bytes() * padded(len)
    }

    fn weight_size(&self, conv: &Conv) -> usize {
        Precision::F32.bytes() * conv.output.c * conv.fan_in()
    }

    fn packed_size(&self, conv: &Conv) -> usize {
        self.packed_bytes(conv)
    }

    fn write_vector(&self, floats: &mut Self::Floats, values: &[f32]) -> Result<()> {
        self.write(&floats.memory, 0, values)
    }

    fn write_weight(&self, conv: &Conv, floats: &mut Self::Floats, values: &[f32]) -> Result<()> {
        self.write(&floats.memory, 0, &weight_from_file(conv, values))
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

    fn write_windows(&self, windows: &mut Self::Windows, bounds: &[Bounds]) -> Result<()> {
        self.replace_windows(windows, bounds)
    }

    fn read_windows(&self, windows: &Self::Windows) -> Result<Vec<Bounds>> {
        self.bounds_of(windows)
    }

    fn write_counts(&self, counts: &mut Self::Counts, histograms: &Histograms) -> Result<()> {
        self.replace_histograms(counts, histograms)
    }

    fn read_counts(&self, counts: &Self::Counts) -> Result<Histograms> {
        self.histograms_of(counts)
    }

    fn write_tally(&self, tally: &mut Self::Tally, totals: &Totals) -> Result<()> {
        self.replace_totals(tally, totals)
    }

    fn read_tally(&self, tally: &Self::Tally) -> Result<Totals> {
        self.totals_of(tally)
    }

    fn glance(&self, tally: &mut Self::Tally) -> Result<Option<Totals>> {
        self.look_at(tally)
    }

    fn write_batch(&self, batch: &mut Self::Batch, set: &mut Self::Set, step: &Step) -> Result<()> {
        self.fill_batch(batch, set, step)
    }

    fn move_batch(&self, batch: &mut Self::Batch, position: f64) -> Result<()> {
        self.move_position(batch, position)
    }

    fn release_batch(&self, batch: &mut Self::Batch, set: &mut Self::Set) -> Result<()> {
        self.done_with(batch, set)
    }

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

    fn input(
        &self,
        set: &Self::Set,
        batch: &Self::Batch,
        augmentation: &Augmentation,
        out: &mut Self::Floats,
    ) -> Result<()> {
        self.gather(set, batch, augmentation, out)
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

/// `[K][R][S][C]` from `[K, C, R, S]`.
fn weight_from_file(conv: &Conv, values: &[f32]) -> Vec<f32> {
    let mut weight = vec![0.0; values.len()];
    each_weight(conv, |file, memory| weight[memory] = values[file]);
    weight
}
