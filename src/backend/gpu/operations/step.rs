//! What changes from step to step, in device memory: the batch, AdaLi's bounds and the counts that move them, and the sums.

use super::super::memory::{Gpu, Memory};
use super::super::params::{
    self, CollectCounts, Fault, MembraneHistogram, MergeCounts, Metrics, OptimizerState, TuneBounds,
};
use super::super::tensors::{COUNTS, Counts, Floats, Windows, address, places};
use super::super::{Buffer, Driver, Launch, SLOTS};
use crate::autotune::{Histogram, Tuning};
use crate::backend::shape::{Span, Volume};
use crate::backend::{self, BoundsTuning, Histograms, Normalisation, Step, Storage, Totals, dropout_mask};
use crate::data::augment::prepared;
use crate::data::mixup::shares;
use crate::data::{SampleShape, Values};
use crate::histogram::BINS;
use anyhow::{Result, ensure};
use std::mem::offset_of;
use std::sync::Arc;

/// Counters of a histogram: bins, underflow, overflow, not finite.
const COUNTERS: usize = BINS + 3;
/// Steps between two readings of the sums.
const LOOK_EVERY: u32 = 16;
/// The first part of a batch's memory. It is followed by the seeds of the dropout masks, `[stages]` u64, the samples and
/// their places in what holds them, `[capacity]` u32 each, their shares with mixup, `[capacity]` f32, and the labels,
/// `[capacity]` u16.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Numbers {
    seed: u64,
    position: f64,
    count: u64,
    epoch: u32,
    learning_rate: f32,
}

/// A step's numbers and samples; written as a whole.
pub struct Batch<D: Driver> {
    memory: Memory<D>,
    pub placements: Memory<D>,
    stages: usize,
    capacity: usize,
    /// Samples in the batch.
    pub size: usize,
    mixes: bool,
    /// The slot to which the samples of a set on the host were copied.
    slot: usize,
}

/// A data set.
pub struct Set<D: Driver> {
    pub shape: SampleShape,
    /// Input values of all bytes, `[C][256]`.
    pub table: Memory<D>,
    held: Held<D>,
}

enum Held<D: Driver> {
    Device(Memory<D>),
    /// On the host; batches are copied to `[SLOTS][capacity]` samples in turn.
    Host {
        values: Arc<Vec<u8>>,
        batches: Memory<D>,
        capacity: usize,
    },
}

/// Sums over steps: an [`OptimizerState`], [`Metrics`] and a [`Fault`].
pub struct Tally<D: Driver> {
    memory: Memory<D>,
    reading: Option<D::Reading>,
    /// Polls to skip before the next reading.
    pause: u32,
}

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Sums {
    optimizer: OptimizerState,
    metrics: Metrics,
    fault: Fault,
}

impl<D: Driver> Batch<D> {
    fn at(&self, offset: usize) -> u64 {
        self.memory.address() + offset as u64
    }

    fn samples_offset(&self) -> usize {
        size_of::<Numbers>() + self.stages * size_of::<u64>()
    }

    pub fn seed(&self) -> u64 {
        self.at(offset_of!(Numbers, seed))
    }

    pub fn position(&self) -> u64 {
        self.at(offset_of!(Numbers, position))
    }

    pub fn count(&self) -> u64 {
        self.at(offset_of!(Numbers, count))
    }

    pub fn epoch(&self) -> u64 {
        self.at(offset_of!(Numbers, epoch))
    }

    pub fn learning_rate(&self) -> u64 {
        self.at(offset_of!(Numbers, learning_rate))
    }

    pub fn dropout_seed(&self, stage: usize) -> u64 {
        self.at(size_of::<Numbers>() + stage * size_of::<u64>())
    }

    pub fn samples(&self) -> u64 {
        self.at(self.samples_offset())
    }

    pub fn places(&self) -> u64 {
        self.at(self.samples_offset() + self.capacity * size_of::<u32>())
    }

    /// The shares of the samples, or 0 without mixup.
    pub fn shares(&self) -> u64 {
        if self.mixes { self.at(self.samples_offset() + 2 * self.capacity * size_of::<u32>()) } else { 0 }
    }

    pub fn labels(&self) -> u64 {
        self.at(self.samples_offset() + 3 * self.capacity * size_of::<u32>())
    }

    /// The whole batch as bytes.
    fn bytes(&self, step: &Step, places: &[u32]) -> Vec<u8> {
        let &Step { seed, position, count, epoch, learning_rate, .. } = step;
        let numbers = Numbers { seed, position, count, epoch, learning_rate };
        let mut bytes = bytemuck::bytes_of(&numbers).to_vec();
        bytes.extend((0..self.stages).flat_map(|stage| dropout_mask(step.dropout, stage).to_le_bytes()));
        let shares = shares(&step.augmentation, seed, epoch, step.samples);
        for words in [step.samples, places, bytemuck::cast_slice(&shares)] {
            bytes.extend_from_slice(bytemuck::cast_slice(words));
            bytes.resize(bytes.len() + (self.capacity - words.len()) * size_of::<u32>(), 0);
        }
        bytes.extend_from_slice(bytemuck::cast_slice(step.labels));
        bytes
    }
}

impl<D: Driver> Set<D> {
    pub fn is_resident(&self) -> bool {
        matches!(self.held, Held::Device(_))
    }

    pub fn address(&self) -> u64 {
        match &self.held {
            Held::Device(values) => values.address(),
            Held::Host { batches, .. } => batches.address(),
        }
    }
}

impl<D: Driver> Tally<D> {
    pub fn optimizer_state(&self) -> u64 {
        self.memory.address() + offset_of!(Sums, optimizer) as u64
    }

    pub fn loss_scale(&self) -> u64 {
        self.optimizer_state() + offset_of!(OptimizerState, loss_scale) as u64
    }

    pub fn metrics(&self) -> u64 {
        self.memory.address() + offset_of!(Sums, metrics) as u64
    }

    pub fn fault(&self) -> u64 {
        self.memory.address() + offset_of!(Sums, fault) as u64
    }
}

impl From<&Totals> for Sums {
    /// Leaves out what stopped a training: it does not go on.
    fn from(totals: &Totals) -> Self {
        let &Totals { loss, correct, samples, gradient_norm, updates, skipped, loss_scale, steady, .. } = totals;
        Self {
            optimizer: OptimizerState {
                norm_sum: gradient_norm,
                loss_scale,
                count: updates as u32,
                skipped: skipped as u32,
                steady,
                ..OptimizerState::default()
            },
            metrics: Metrics { loss, correct, samples },
            fault: Fault::default(),
        }
    }
}

impl From<Sums> for Totals {
    fn from(Sums { optimizer, metrics, fault }: Sums) -> Self {
        let place = |Fault { place, potentials }| backend::Fault {
            step: place >> 16,
            layer: (place & 0xffff) as usize - 1,
            potentials,
        };
        Self {
            loss: metrics.loss,
            correct: metrics.correct,
            samples: metrics.samples,
            gradient_norm: optimizer.norm_sum,
            updates: optimizer.count.into(),
            skipped: optimizer.skipped.into(),
            loss_scale: optimizer.loss_scale,
            steady: optimizer.steady,
            failed: (optimizer.failed > 0).then_some(optimizer.failed),
            fault: (fault.place > 0).then(|| place(fault)),
        }
    }
}

impl<D: Driver> Gpu<D> {
    pub(in super::super) fn batch_of(&self, capacity: usize, stages: usize) -> Result<Batch<D>> {
        let sample = 3 * size_of::<u32>() + size_of::<u16>();
        let memory = self.allocate(size_of::<Numbers>() + stages * size_of::<u64>() + capacity * sample)?;
        let placements = self.allocate(capacity * size_of::<params::Placement>())?;
        Ok(Batch { memory, placements, stages, capacity, size: 0, mixes: false, slot: 0 })
    }

    pub(in super::super) fn set_of(
        &self,
        values: Values,
        shape: SampleShape,
        normalisation: &Normalisation,
        capacity: usize,
        on_host: bool,
    ) -> Result<Set<D>> {
        let table = self.put(&normalisation.table())?;
        // Leave a little for whatever else uses the device. On a rehearsal the set stays on the host.
        let room = self.driver().map_or(Some(0), |_| self.available_memory()).map(|bytes| bytes - bytes / 16);
        let size = values.samples(shape.len()) * shape.len();
        let held = match on_host || room.is_some_and(|room| size > room) {
            true => {
                let values = values.into_bytes(shape.len())?;
                Held::Host { values, batches: self.zeros(SLOTS * capacity * shape.len())?, capacity }
            }
            false => Held::Device(self.frames(&values, shape.len())?),
        };
        Ok(Set { shape, table, held })
    }

    pub(in super::super) fn fill_batch(&self, batch: &mut Batch<D>, set: &Set<D>, step: &Step) -> Result<()> {
        (batch.size, batch.mixes) = (step.samples.len(), step.augmentation.mixup > 0.0);
        let Held::Host { values, batches, capacity } = &set.held else {
            ensure!(!step.augmentation.is_on_host(), "samples on the device cannot be augmented by the host");
            return self.write(&batch.memory, 0, &batch.bytes(step, step.samples));
        };
        batch.slot = (batch.slot + 1) % SLOTS;
        let (len, first) = (set.shape.len(), batch.slot * capacity);
        let prepared = prepared(values, set.shape, &step.augmentation, step.seed, step.epoch, step.samples);
        if let (Some(driver), Some(to)) = (self.driver(), batches.buffer()) {
            let samples: Vec<&[u8]> = prepared.iter().map(|sample| &**sample).collect();
            driver.upload_beside(batch.slot, to, first * len, &samples)?;
        }
        let places: Vec<u32> = (first..first + batch.size).map(|place| place as u32).collect();
        self.write(&batch.memory, 0, &batch.bytes(step, &places))
    }

    pub(in super::super) fn move_position(&self, batch: &Batch<D>, position: f64) -> Result<()> {
        self.write(&batch.memory, offset_of!(Numbers, position), &[position])
    }

    pub(in super::super) fn done_with(&self, batch: &Batch<D>, set: &Set<D>) -> Result<()> {
        match (&set.held, self.driver()) {
            (Held::Host { .. }, Some(driver)) => driver.release(batch.slot),
            _ => Ok(()),
        }
    }

    pub(in super::super) fn tally_of(&self) -> Result<Tally<D>> {
        let memory = self.put(&[Sums::from(&Totals::default())])?;
        Ok(Tally { memory, reading: None, pause: 0 })
    }

    pub(in super::super) fn replace_totals(&self, tally: &mut Tally<D>, totals: &Totals) -> Result<()> {
        tally.reading = None;
        self.write(&tally.memory, 0, &[Sums::from(totals)])
    }

    pub(in super::super) fn totals_of(&self, tally: &Tally<D>) -> Result<Totals> {
        Ok(self.get::<Sums>(&tally.memory)?[0].into())
    }

    pub(in super::super) fn look_at(&self, tally: &mut Tally<D>) -> Result<Option<Totals>> {
        let (Some(driver), Some(buffer)) = (self.driver(), tally.memory.buffer()) else { return Ok(None) };
        if let Some(reading) = &mut tally.reading {
            let Some(bytes) = driver.finish_reading(reading)? else { return Ok(None) };
            tally.reading = None;
            return Ok(Some(bytemuck::pod_read_unaligned::<Sums>(&bytes).into()));
        }
        if tally.pause == 0 {
            tally.reading = Some(driver.start_reading(buffer)?);
            tally.pause = LOOK_EVERY;
        }
        tally.pause -= 1;
        Ok(None)
    }

    pub(in super::super) fn counts_of(&self, count: usize) -> Result<Counts<D>> {
        let histograms = || self.zeros(count * COUNTERS * size_of::<u64>());
        let flags = self.zeros(count * size_of::<u32>())?;
        Ok(Counts { fresh: histograms()?, recent: histograms()?, epoch: histograms()?, flags, count })
    }

    pub(in super::super) fn histograms_of(&self, counts: &Counts<D>) -> Result<Histograms> {
        let histogram = |counters: &[u64]| Histogram {
            bins: counters[..BINS].to_vec(),
            underflow: counters[BINS],
            overflow: counters[BINS + 1],
            non_finite: counters[BINS + 2],
        };
        let read = |memory: &Memory<D>| -> Result<Vec<Histogram>> {
            Ok(self.get::<u64>(memory)?.chunks_exact(COUNTERS).map(histogram).collect())
        };
        let raised = self.get::<u32>(&counts.flags)?.into_iter().fold(0, |all, mask| all | mask);
        Ok(Histograms { recent: read(&counts.recent)?, epoch: read(&counts.epoch)?, flags: params::flags(raised) })
    }

    pub(in super::super) fn replace_histograms(&self, counts: &Counts<D>, histograms: &Histograms) -> Result<()> {
        let counters = |h: &Histogram| {
            let ends = [h.underflow, h.overflow, h.non_finite];
            h.bins.iter().copied().chain(ends).collect::<Vec<u64>>()
        };
        for (memory, histograms) in [(&counts.recent, &histograms.recent), (&counts.epoch, &histograms.epoch)] {
            self.write(memory, 0, &histograms.iter().flat_map(counters).collect::<Vec<_>>())?;
        }
        self.write(&counts.fresh, 0, &vec![0u64; counts.count * COUNTERS])?;
        let mask = histograms.flags.iter().fold(0, |mask, &flag| mask | 1u32 << flag as u32);
        self.write(&counts.flags, 0, &vec![mask; counts.count])
    }
}

impl<D: Driver> BoundsTuning for Gpu<D> {
    fn membrane_histogram(
        &self,
        volume: Volume,
        span: Span,
        membranes: &Floats<D>,
        threshold: f32,
        counts: &mut Counts<D>,
    ) -> Result<()> {
        let places = places(span, volume);
        let mut launch = self.over_places(places);
        let each = counts.count > 1;
        launch.grid[1] = if each { places.words } else { 1 };
        launch.shared = COUNTS * if each { 32 } else { 1 };
        let params = MembraneHistogram {
            membranes: membranes.memory.address(),
            histogram: counts.fresh.address(),
            places,
            channels: volume.c as u32,
            per_channel: each.into(),
            threshold,
        };
        self.run_stored("membrane_histogram", launch, &params)
    }

    fn collect_counts(&self, layers: &mut [&mut Counts<D>], batch: &Batch<D>, tally: &mut Tally<D>) -> Result<()> {
        for (layer, counts) in layers.iter().enumerate() {
            let params = CollectCounts {
                fresh: counts.fresh.address(),
                recent: counts.recent.address(),
                epoch: counts.epoch.address(),
                step: batch.count(),
                fault: tally.fault(),
                layer: layer as u32,
                padding: 0,
            };
            self.run("collect_counts", Launch::over(counts.count, 1, 256), &params)?;
        }
        Ok(())
    }

    fn merge_counts(&self, layers: &mut [&mut Counts<D>]) -> Result<()> {
        let Some((first, others)) = layers.split_first() else { return Ok(()) };
        let pool = |source: &Counts<D>, target: &Counts<D>, add: bool| {
            let (source, target) = (source.recent.address(), target.recent.address());
            self.run(
                "merge_counts",
                Launch::over(1, 1, 256),
                &MergeCounts { source, target, add: add.into(), padding: 0 },
            )
        };
        others.iter().try_for_each(|other| pool(other, first, true))?;
        others.iter().try_for_each(|other| pool(first, other, false))
    }

    fn tune_bounds(
        &self,
        tuning: &Tuning,
        batch: &Batch<D>,
        counts: Option<&mut Counts<D>>,
        start: &mut Windows<D>,
        bounds: &mut Windows<D>,
    ) -> Result<()> {
        let params = TuneBounds {
            histogram: address(counts.as_ref().map(|counts| &counts.recent)),
            epoch: batch.position(),
            bounds: bounds.memory.address(),
            start: start.memory.address(),
            windows: bounds.address(),
            flags: address(counts.as_ref().map(|counts| &counts.flags)),
            epochs: tuning.epochs,
            count: bounds.count as u32,
            first: tuning.first.into(),
            threshold: bounds.threshold,
            ..TuneBounds::from(&tuning.spec)
        };
        self.run("tune_bounds", Launch::over(bounds.count, 4, 128), &params)
    }
}
