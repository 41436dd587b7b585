//! The backend's device memory.

use super::Driver;
use super::memory::{Gpu, Memory};
use super::operations::step::{Batch, Set, Tally};
use super::operations::training::Optimizer;
use super::precision::Precision;
use super::tensors::{Counts, Floats, Packed, Windows, each_weight, padded, words};
use crate::backend::shape::{Conv, Span, Volume};
use crate::backend::{Histograms, Normalisation, Step, Storage, Totals, Trained};
use crate::data::{SampleShape, Values};
use crate::surrogate::Bounds;
use anyhow::Result;

/// Device memory left to the driver: its pool maps memory in pieces of several megabytes, and graphs take some.
pub const RESERVE: usize = 64 << 20;
/// The initial factor of f16 gradients, as in PyTorch's GradScaler.
const FIRST_LOSS_SCALE: f32 = 65536.0;

impl<D: Driver> Storage for Gpu<D> {
    type Floats = Floats<D>;
    type Bits = Memory<D>;
    type Set = Set<D>;
    type Batch = Batch<D>;
    type Bounds = Windows<D>;
    type Counts = Counts<D>;
    type Packed = Packed<D>;
    type Optimizer = Optimizer<D>;
    type Tally = Tally<D>;
    type Graph = D::Graph;

    fn describe(&self) -> String {
        format!("{} ({})", self.name, self.precision.name())
    }

    fn available_memory(&self) -> Option<usize> {
        Some(self.driver()?.available_memory()?.saturating_sub(RESERVE))
    }

    fn rehearsal(&self) -> Option<Self> {
        Some(self.rehearse())
    }

    fn largest_weight(&self) -> f32 {
        match self.precision {
            Precision::F32 => f32::MAX,
            // Packed times 2^111 where it meets a spike (`kernels/value.cuh`): the largest below 2^17.
            Precision::Bf16 => 130_560.0,
            Precision::F16 => 65_504.0,
        }
    }

    fn rounding(&self) -> f64 {
        match self.precision {
            Precision::F32 => 2f64.powi(-24),
            Precision::Bf16 => 2f64.powi(-8),
            Precision::F16 => 2f64.powi(-11),
        }
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

    fn launched(&self) -> Vec<String> {
        self.rehearsed().launches.into_iter().map(|(kernel, _)| kernel).collect()
    }

    fn registers(&self, kernel: &str) -> Option<u32> {
        self.driver()?.registers(kernel)
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

    fn bounds(&self, bounds: &[Bounds], threshold: f32) -> Result<Self::Bounds> {
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
        values: Values,
        shape: SampleShape,
        normalisation: &Normalisation,
        capacity: usize,
    ) -> Result<Self::Set> {
        self.set_of(values, shape, normalisation, capacity, false)
    }

    fn set_on_host(
        &self,
        values: Values,
        shape: SampleShape,
        normalisation: &Normalisation,
        capacity: usize,
    ) -> Result<Self::Set> {
        self.set_of(values, shape, normalisation, capacity, true)
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

    fn write_bounds(&self, windows: &mut Self::Bounds, bounds: &[Bounds]) -> Result<()> {
        self.replace_windows(windows, bounds)
    }

    fn read_bounds(&self, windows: &Self::Bounds) -> Result<Vec<Bounds>> {
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

    fn poll_totals(&self, tally: &mut Self::Tally) -> Result<Option<Totals>> {
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
}

/// `[K][R][S][C]` from `[K, C, R, S]`.
fn weight_from_file(conv: &Conv, values: &[f32]) -> Vec<f32> {
    let mut weight = vec![0.0; values.len()];
    each_weight(conv, |file, memory| weight[memory] = values[file]);
    weight
}
