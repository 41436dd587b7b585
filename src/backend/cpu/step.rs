//! What changes from step to step in memory, and what monitors it.

use super::counters::Counters;
use super::layout::pitch;
use super::optimizer::{self, Move};
use super::{Cpu, input, loss, norm};
use crate::autotune::{Histogram, Tuning};
use crate::backend::shape::{Conv, Span, Volume};
use crate::backend::{
    BoundsTuning, Fault, Histograms, LossSpec, Normalisation, Step, Totals, Trained, Training, Update, WeightNorm,
};
use crate::data::SampleShape;
use crate::data::mixup::shares;
use crate::data::sampling::{Augmentation, Placement, placement};
use crate::surrogate::Bounds;
use anyhow::Result;
use rayon::prelude::*;
use std::sync::{Arc, Mutex};

/// A data set.
pub struct Set {
    pub values: Arc<Vec<u8>>,
    pub shape: SampleShape,
    pub normalisation: Normalisation,
}

/// The numbers of a step; see [`Step`].
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub samples: Vec<u32>,
    pub labels: Vec<u16>,
    pub position: f64,
    pub dropout: u64,
    seed: u64,
    epoch: u32,
    learning_rate: f32,
    count: u64,
    /// The samples that the host has augmented, if it has.
    pub prepared: Vec<u8>,
    /// See [`shares`].
    shares: Vec<f32>,
}

/// Histograms of a layer: one, or one per channel.
#[derive(Clone, Debug, PartialEq)]
pub struct Counts {
    pub fresh: Vec<Histogram>,
    pub kept: Histograms,
}

impl Batch {
    pub fn write(&mut self, step: &Step) {
        let &Step { samples, labels, seed, epoch, position, dropout, learning_rate, count, .. } = step;
        self.samples.clear();
        self.samples.extend_from_slice(samples);
        self.labels.clear();
        self.labels.extend_from_slice(labels);
        (self.seed, self.epoch, self.position) = (seed, epoch, position);
        (self.dropout, self.learning_rate, self.count) = (dropout, learning_rate, count);
        self.shares = shares(&step.augmentation, seed, epoch, samples);
    }

    pub fn placements(&self, augmentation: &Augmentation) -> Vec<Placement> {
        self.samples.iter().map(|&sample| placement(augmentation, self.seed, self.epoch, sample)).collect()
    }
}

impl Training for Cpu {
    fn input(&self, set: &Set, batch: &Batch, augmentation: &Augmentation, out: &mut Vec<f32>) -> Result<()> {
        let placements = batch.placements(&augmentation.after_host());
        let places: Vec<u32> = (0..batch.samples.len() as u32).collect();
        let (bytes, indices) = match &batch.prepared[..] {
            [] => (&set.values[..], &batch.samples),
            prepared => (prepared, &places),
        };
        input::gather(bytes, &set.shape, &set.normalisation, indices, &placements, augmentation.drop, out);
        input::mix(&batch.shares, set.shape.len(), out);
        Ok(())
    }

    fn weight_norm_forward(
        &self,
        conv: &Conv,
        weight: &Vec<f32>,
        gain: &Vec<f32>,
        norm: WeightNorm,
        effective: &mut Vec<f32>,
    ) -> Result<()> {
        norm::weight_forward(conv, weight, gain, norm, effective);
        Ok(())
    }

    fn weight_norm_backward(
        &self,
        conv: &Conv,
        weight: &Vec<f32>,
        gain: &Vec<f32>,
        norm: WeightNorm,
        weight_grad: &mut Vec<f32>,
        gain_grad: &mut Vec<f32>,
    ) -> Result<()> {
        norm::weight_backward(conv, weight, gain, norm, weight_grad, gain_grad);
        Ok(())
    }

    fn vote_currents(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Vec<f32>,
        current_steps: usize,
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        loss::vote_currents(classes, vote, span, outputs, current_steps, logits);
        Ok(())
    }

    fn vote_spikes(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Vec<u32>,
        logits: &mut Vec<f32>,
    ) -> Result<()> {
        loss::vote_spikes(classes, vote, span, outputs, logits);
        Ok(())
    }

    fn vote_backward(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        logits_grad: &Vec<f32>,
        _: &Totals,
        current_steps: usize,
        outputs_grad: &mut Vec<f32>,
    ) -> Result<()> {
        loss::vote_backward(classes, vote, span, logits_grad, current_steps, outputs_grad);
        Ok(())
    }

    fn loss(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Vec<f32>,
        batch: &Batch,
        grad: Option<&mut Vec<f32>>,
        tally: &mut Totals,
    ) -> Result<()> {
        let sums = loss::loss(spec, classes, span, logits, &batch.labels, &batch.shares, grad.map(Vec::as_mut_slice));
        tally.loss += sums.loss;
        tally.correct += sums.correct;
        tally.samples += span.batch as u64;
        Ok(())
    }

    fn update(
        &self,
        update: &Update,
        batch: &Batch,
        _: &(),
        parameters: &mut [Trained<Self>],
        tally: &mut Totals,
    ) -> Result<()> {
        let gradients: Vec<&Vec<f32>> = parameters.iter().map(|parameter| parameter.gradient).collect();
        let norm = optimizer::norm(&gradients);
        if !norm.is_finite() {
            tally.skipped += 1;
            tally.failed = tally.failed.or(Some(batch.count));
            return Ok(());
        }
        tally.gradient_norm += norm;
        tally.updates += 1;
        let &Update { rule, decay, clip } = update;
        let gradient_scale = if clip > 0.0 && norm > clip { (clip / norm) as f32 } else { 1.0 };
        let update = Move { rule, learning_rate: batch.learning_rate, decay, gradient_scale, count: tally.updates };
        for Trained { value, gradient, moment1, moment2 } in parameters {
            optimizer::update(&update, value, gradient, moment1, moment2);
        }
        Ok(())
    }
}

impl BoundsTuning for Cpu {
    fn membrane_histogram(
        &self,
        volume: Volume,
        span: Span,
        membranes: &Vec<f32>,
        threshold: f32,
        counts: &mut Counts,
    ) -> Result<()> {
        let pitch = pitch(volume.c);
        let histograms = counts.fresh.len();
        let fresh = Mutex::new(&mut counts.fresh);
        let image = span.steps * volume.pixels() * pitch;
        membranes.par_chunks_exact(image).take(span.batch).for_each(|membranes| {
            let mut counters = Counters::new(histograms);
            for place in membranes.chunks_exact(pitch) {
                for (i, h) in place.as_chunks::<16>().0.iter().enumerate().take(volume.c.div_ceil(16)) {
                    counters.count(h.map(|h| (h - threshold) / threshold), 16 * i, 16.min(volume.c - 16 * i));
                }
            }
            // Integers: the order in which samples arrive does not matter.
            counters.add_to(&mut fresh.lock().expect("no task panics while it counts"));
        });
        Ok(())
    }

    fn collect_counts(&self, layers: &mut [&mut Counts], batch: &Batch, tally: &mut Totals) -> Result<()> {
        for (layer, counts) in layers.iter_mut().enumerate() {
            let potentials: u64 = counts.fresh.iter().map(|histogram| histogram.non_finite).sum();
            if potentials > 0 && tally.fault.is_none() {
                tally.fault = Some(Fault { step: batch.count, layer, potentials });
            }
            let kept = counts.kept.recent.iter_mut().zip(&mut counts.kept.epoch);
            for (fresh, (recent, epoch)) in counts.fresh.iter_mut().zip(kept) {
                recent.merge(fresh);
                epoch.merge(fresh);
                *fresh = Histogram::default();
            }
        }
        Ok(())
    }

    fn merge_counts(&self, layers: &mut [&mut Counts]) -> Result<()> {
        let mut all = Histogram::default();
        layers.iter().for_each(|counts| all.merge(&counts.kept.recent[0]));
        layers.iter_mut().for_each(|counts| counts.kept.recent[0].clone_from(&all));
        Ok(())
    }

    fn tune_bounds(
        &self,
        tuning: &Tuning,
        batch: &Batch,
        counts: Option<&mut Counts>,
        start: &mut Vec<Bounds>,
        bounds: &mut Vec<Bounds>,
    ) -> Result<()> {
        let each = start.iter_mut().zip(bounds);
        let Some(Counts { kept: Histograms { recent, flags, .. }, .. }) = counts else {
            each.for_each(|(start, bounds)| drop(tuning.apply(None, batch.position, start, bounds)));
            return Ok(());
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
        Ok(())
    }
}
