//! What changes from step to step, in memory, and what watches over it.

use super::Cpu;
use super::optimizer::{self, Move};
use crate::autotune::{Histogram, Tuning};
use crate::backend::{Fault, Histograms, Normalisation, Step, Totals, Trained, Update};
use crate::data::SampleShape;
use crate::data::sampling::{Augmentation, Placement, placement};
use crate::surrogate::Bounds;
use std::sync::Arc;

/// A data set.
pub struct Set {
    pub values: Arc<Vec<u8>>,
    pub shape: SampleShape,
    pub normalisation: Normalisation,
}

/// A step's numbers; see [`Step`].
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub samples: Vec<u32>,
    pub labels: Vec<u16>,
    pub position: f64,
    pub dropout: u64,
    seed: u64,
    epoch: u32,
    rate: f32,
    count: u64,
}

/// Histograms of a layer, one or one a channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    pub fresh: Vec<Histogram>,
    pub kept: Histograms,
}

impl Batch {
    pub fn write(&mut self, step: &Step) {
        let &Step { samples, labels, seed, epoch, position, dropout, rate, count } = step;
        self.samples.clear();
        self.samples.extend_from_slice(samples);
        self.labels.clear();
        self.labels.extend_from_slice(labels);
        (self.seed, self.epoch, self.position) = (seed, epoch, position);
        (self.dropout, self.rate, self.count) = (dropout, rate, count);
    }

    pub fn placements(&self, augmentation: &Augmentation) -> Vec<Placement> {
        self.samples.iter().map(|&sample| placement(augmentation, self.seed, self.epoch, sample)).collect()
    }
}

/// See [`crate::backend::Backend::update`].
pub fn update(update: &Update, batch: &Batch, parameters: &mut [Trained<Cpu>], totals: &mut Totals) {
    let gradients: Vec<&Vec<f32>> = parameters.iter().map(|parameter| parameter.gradient).collect();
    let norm = optimizer::norm(&gradients);
    if !norm.is_finite() {
        totals.skipped += 1;
        totals.failed = totals.failed.or(Some(batch.count));
        return;
    }
    totals.gradient_norm += norm;
    totals.updates += 1;
    let &Update { rule, decay, clip } = update;
    let gradient_scale = if clip > 0.0 && norm > clip { (clip / norm) as f32 } else { 1.0 };
    let update = Move { rule, rate: batch.rate, decay, gradient_scale, count: totals.updates };
    for Trained { value, gradient, first, second } in parameters {
        optimizer::update(&update, value, gradient, first, second);
    }
}

/// See [`crate::backend::Backend::collect_counts`].
pub fn collect_counts(layers: &mut [&mut Counts], batch: &Batch, totals: &mut Totals) {
    for (layer, counts) in layers.iter_mut().enumerate() {
        let potentials: u64 = counts.fresh.iter().map(|histogram| histogram.non_finite).sum();
        if potentials > 0 && totals.fault.is_none() {
            totals.fault = Some(Fault { step: batch.count, layer, potentials });
        }
        let kept = counts.kept.recent.iter_mut().zip(&mut counts.kept.epoch);
        for (fresh, (recent, epoch)) in counts.fresh.iter_mut().zip(kept) {
            recent.merge(fresh);
            epoch.merge(fresh);
            *fresh = Histogram::default();
        }
    }
}

/// See [`crate::backend::Backend::pool_counts`].
pub fn pool_counts(layers: &mut [&mut Counts]) {
    let mut all = Histogram::default();
    layers.iter().for_each(|counts| all.merge(&counts.kept.recent[0]));
    layers.iter_mut().for_each(|counts| counts.kept.recent[0].clone_from(&all));
}

/// See [`crate::backend::Backend::tune_bounds`].
pub fn tune_bounds(
    tuning: &Tuning,
    batch: &Batch,
    counts: Option<&mut Counts>,
    start: &mut [Bounds],
    bounds: &mut [Bounds],
) {
    let each = start.iter_mut().zip(bounds);
    let Some(Counts { kept: Histograms { recent, flags, .. }, .. }) = counts else {
        each.for_each(|(start, bounds)| drop(tuning.apply(None, batch.position, start, bounds)));
        return;
    };
    flags.clear();
    for (recent, (start, bounds)) in recent.iter_mut().zip(each) {
        for flag in tuning.apply(Some(recent), batch.position, start, bounds) {
            if !flags.contains(&flag) {
                flags.push(flag);
            }
        }
        *recent = Histogram::default();
    }
    flags.sort_by_key(|&flag| flag as u32);
}
