//! Memory on the CPU: plain vectors.

use super::integrate_events::integrate_events;
use super::layout::{self, pitch, words};
use super::working::working_size;
use super::{Batch, Counts, Cpu, Set, Transposed};
use crate::autotune::{BINS, Histogram};
use crate::backend::shape::{Conv, InputKind, Span, Volume};
use crate::backend::{Histograms, LayerExtents, Normalisation, Step, Storage, Totals, Trained};
use crate::data::augment::prepared;
use crate::data::{SampleShape, Values};
use crate::host::{available, zeros};
use crate::surrogate::Bounds;
use anyhow::Result;

impl Storage for Cpu {
    type Floats = Vec<f32>;
    type Bits = Vec<u32>;
    type Set = Set;
    type Batch = Batch;
    type Bounds = Vec<Bounds>;
    type Counts = Counts;
    type Packed = Transposed;
    type Optimizer = ();
    type Tally = Totals;
    type Graph = ();

    fn describe(&self) -> String {
        let simd = format!("{:?}", pulp::Arch::new());
        let simd = match simd.split('(').next().unwrap_or_default() {
            "V3" => "AVX2",
            "V4" => "AVX-512",
            "Neon" => "NEON",
            _ => "no SIMD",
        };
        let threads = rayon::current_num_threads();
        format!("cpu ({threads} thread{}, {simd})", if threads == 1 { "" } else { "s" })
    }

    fn available_memory(&self) -> Option<usize> {
        available().map(|(bytes, _)| bytes)
    }

    fn available_where(&self) -> String {
        available().map_or_else(String::new, |(_, limit)| limit.to_string())
    }

    fn is_host(&self) -> bool {
        true
    }

    fn working_size(&self, span: Span, layers: &[LayerExtents]) -> usize {
        working_size(span, layers, rayon::current_num_threads())
    }

    fn activations(&self, span: Span, volume: Volume) -> Result<Vec<f32>> {
        zeros(span.batch * span.steps * volume.pixels() * pitch(volume.c))
    }

    fn readouts(&self, span: Span, volume: Volume) -> Result<Vec<f32>> {
        self.activations(span, volume)
    }

    fn samples(&self, span: Span, volume: Volume) -> Result<Vec<f32>> {
        zeros(span.batch * span.steps * volume.values())
    }

    fn spikes(&self, span: Span, volume: Volume) -> Result<Vec<u32>> {
        zeros(span.batch * span.steps * volume.pixels() * words(volume.c))
    }

    fn vector(&self, values: &[f32]) -> Result<Vec<f32>> {
        let mut vector = zeros(pitch(values.len()))?;
        vector[..values.len()].copy_from_slice(values);
        Ok(vector)
    }

    fn weight(&self, conv: &Conv, values: &[f32]) -> Result<Vec<f32>> {
        let mut weight = zeros(layout::weight_len(conv))?;
        layout::weight_from_file(conv, values, &mut weight);
        Ok(weight)
    }

    fn packed(&self, _: &Conv) -> Result<Transposed> {
        Ok(Vec::new())
    }

    fn bounds(&self, bounds: &[Bounds], _: f32) -> Result<Vec<Bounds>> {
        Ok(bounds.to_vec())
    }

    fn counts(&self, count: usize) -> Result<Counts> {
        Ok(Counts { fresh: vec![Histogram::default(); count], kept: Histograms::empty(count) })
    }

    fn batch(&self, _: usize, _: usize) -> Result<Batch> {
        Ok(Batch::default())
    }

    fn optimizer(&self, _: &[Trained<Self>]) -> Result<()> {
        Ok(())
    }

    fn tally(&self) -> Result<Totals> {
        Ok(Totals::default())
    }

    fn set(&self, values: Values, shape: SampleShape, normalisation: &Normalisation, _: usize) -> Result<Set> {
        let values = integrate_events(values, shape.len())?;
        Ok(Set { values, shape, normalisation: normalisation.clone() })
    }

    fn floats_size(&self, span: Span, volume: Volume) -> usize {
        size_of::<f32>() * span.batch * span.steps * volume.pixels() * pitch(volume.c)
    }

    fn readouts_size(&self, span: Span, volume: Volume) -> usize {
        self.floats_size(span, volume)
    }

    fn samples_size(&self, span: Span, volume: Volume) -> usize {
        size_of::<f32>() * span.batch * span.steps * volume.values()
    }

    fn vector_size(&self, len: usize) -> usize {
        size_of::<f32>() * pitch(len)
    }

    fn weight_size(&self, conv: &Conv) -> usize {
        size_of::<f32>() * layout::weight_len(conv)
    }

    fn packed_size(&self, conv: &Conv) -> usize {
        if conv.reads == InputKind::Image { 0 } else { self.weight_size(conv) }
    }

    fn counts_size(&self, count: usize) -> usize {
        3 * count * (size_of::<Histogram>() + BINS * size_of::<u64>())
    }

    fn write_vector(&self, floats: &mut Vec<f32>, values: &[f32]) -> Result<()> {
        floats[..values.len()].copy_from_slice(values);
        Ok(())
    }

    fn write_weight(&self, conv: &Conv, floats: &mut Vec<f32>, values: &[f32]) -> Result<()> {
        layout::weight_from_file(conv, values, floats);
        Ok(())
    }

    fn bits_size(&self, span: Span, volume: Volume) -> usize {
        size_of::<u32>() * span.batch * span.steps * volume.pixels() * words(volume.c)
    }

    fn read_activations(&self, floats: &Vec<f32>, span: Span, volume: Volume) -> Result<Vec<f32>> {
        layout::to_file(span, volume, |pixel, c| floats[pixel * pitch(volume.c) + c])
    }

    fn read_samples(&self, floats: &Vec<f32>, span: Span, volume: Volume) -> Result<Vec<f32>> {
        layout::to_file(span, volume, |pixel, c| floats[pixel * volume.c + c])
    }

    fn read_spikes(&self, bits: &Vec<u32>, span: Span, volume: Volume) -> Result<Vec<u8>> {
        let words = words(volume.c);
        layout::to_file(span, volume, |pixel, c| (bits[pixel * words + c / 32] >> (c % 32) & 1) as u8)
    }

    fn read_vector(&self, floats: &Vec<f32>, len: usize) -> Result<Vec<f32>> {
        Ok(floats[..len].to_vec())
    }

    fn read_weight(&self, conv: &Conv, floats: &Vec<f32>) -> Result<Vec<f32>> {
        layout::weight_to_file(conv, floats)
    }

    fn write_bounds(&self, windows: &mut Vec<Bounds>, bounds: &[Bounds]) -> Result<()> {
        windows.copy_from_slice(bounds);
        Ok(())
    }

    fn read_bounds(&self, windows: &Vec<Bounds>) -> Result<Vec<Bounds>> {
        Ok(windows.clone())
    }

    fn write_counts(&self, counts: &mut Counts, histograms: &Histograms) -> Result<()> {
        *counts = Counts { kept: histograms.clone(), ..self.counts(counts.fresh.len())? };
        Ok(())
    }

    fn read_counts(&self, counts: &Counts) -> Result<Histograms> {
        Ok(counts.kept.clone())
    }

    fn write_tally(&self, tally: &mut Totals, totals: &Totals) -> Result<()> {
        *tally = *totals;
        Ok(())
    }

    fn read_tally(&self, tally: &Totals) -> Result<Totals> {
        Ok(*tally)
    }

    fn poll_totals(&self, tally: &mut Totals) -> Result<Option<Totals>> {
        Ok(Some(*tally))
    }

    fn write_batch(&self, batch: &mut Batch, set: &mut Set, step: &Step) -> Result<()> {
        batch.write(step);
        batch.prepared = match step.augmentation.is_on_host() {
            true => prepared(&set.values, set.shape, &step.augmentation, step.seed, step.epoch, step.samples).concat(),
            false => Vec::new(),
        };
        Ok(())
    }

    fn move_batch(&self, batch: &mut Batch, position: f64) -> Result<()> {
        batch.position = position;
        Ok(())
    }

    fn release_batch(&self, _: &mut Batch, _: &mut Set) -> Result<()> {
        Ok(())
    }
}
