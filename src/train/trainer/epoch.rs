//! The end of an epoch: held-out samples, metrics, and the bounds of the next epoch.

use super::Trainer;
use crate::backend::Backend;
use crate::metrics::Best;
use crate::metrics::{BoundsMetrics, EpochMetrics, LayerMetrics};
use crate::slope_means::SlopeMeans;
use crate::train::checkpoint::Progress;
use crate::train::evaluate::{self, Waiting};
use anyhow::{Result, bail};
use std::time::Instant;

impl<B: Backend> Trainer<B> {
    /// Scores the held-out samples and returns whether this is the best epoch so far. `None` if it was stopped.
    pub(super) fn validate(&mut self, epoch: u32, waiting: &mut Waiting) -> Result<Option<bool>> {
        self.held_out = None;
        if self.validation.is_empty() {
            return Ok(Some(true));
        }
        let Self { model, graphs, set, labels, validation, config, .. } = self;
        let now = evaluate::scores(model, graphs, set, labels, validation, &config.loss, waiting)?;
        let Some(now) = now else { return Ok(None) };
        if !now.loss.is_finite() {
            bail!(
                "the loss on held-out samples is {} after epoch {epoch} (step {} in all); lower the learning rate or clip gradients",
                now.loss,
                epoch as u64 * self.epoch_steps()
            );
        }
        self.held_out = Some(now);
        let now = Best { epoch, accuracy: now.accuracy, loss: now.loss };
        let improved = self.progress.best.is_none_or(|best| now.beats(&best));
        if improved {
            self.progress.best = Some(now);
        }
        Ok(Some(improved))
    }

    /// Gathers the metrics and moves the bounds and the progress to the next epoch.
    pub(super) fn end_epoch(&mut self, epoch: u32, total: u64, before: f64, begin: Instant) -> Result<EpochMetrics> {
        // The reported bounds are those of this epoch.
        let bounds = self.tracker.layers.iter().map(|layer| {
            Ok::<_, anyhow::Error>((self.bounds_metrics(layer.population)?, self.slope_means(layer.population)?))
        });
        let bounds: Vec<_> = bounds.collect::<Result<_>>()?;
        if self.tracker.update_every().is_none() {
            let next = (epoch + 1).min(self.config.training.epochs);
            self.model.move_batch(self.config.bounds.delayed(next.into()))?;
            self.tracker.update(&mut self.model)?;
        }
        self.tracker.end_epoch(&mut self.model)?;
        let layers = self.tracker.layers.iter().zip(bounds).map(|(layer, (bounds, slopes))| LayerMetrics {
            name: self.model.plan().populations[layer.population].label(),
            inside: bounds.map(|b| layer.histogram.share_inside(b.left, b.right)),
            firing_rate: layer.histogram.firing_rate(),
            bounds,
            mean_slope: slopes.map(|s| s.mean),
            mean_square_slope: slopes.map(|s| s.mean_square),
            flags: layer.flags.iter().map(|flag| flag.name().to_string()).collect(),
        });
        let (p, training) = (&mut self.progress, &self.config.training);
        let totals = p.totals;
        p.rates.push(totals.samples as f64 / p.seconds);
        let metrics = EpochMetrics {
            epoch,
            train_loss: totals.loss / totals.samples as f64,
            train_accuracy: totals.correct as f64 / totals.samples as f64,
            validation_loss: self.held_out.map(|s| s.loss),
            validation_accuracy: self.held_out.map(|s| s.accuracy),
            learning_rate: training.rate(epoch as u64 * total - 1, total * training.epochs as u64, total),
            gradient_norm: totals.gradient_norm / total as f64,
            images_per_second: totals.samples as f64 / p.seconds,
            seconds: before + begin.elapsed().as_secs_f64(),
            layers: layers.collect(),
        };
        *p = Progress {
            epoch,
            totals: totals.next_epoch(),
            best: p.best,
            fingerprint: p.fingerprint,
            rates: std::mem::take(&mut p.rates),
            ..Progress::default()
        };
        self.model.set_totals(&p.totals)?;
        Ok(metrics)
    }

    /// A layer's bounds for reports: means over channels.
    fn bounds_metrics(&self, population: usize) -> Result<Option<BoundsMetrics>> {
        if self.model.surrogate().needs_membrane() {
            return Ok(None);
        }
        let bounds = self.model.bounds(population)?;
        let mean = |get: fn(&crate::surrogate::Bounds) -> f32| {
            bounds.iter().map(|b| get(b) as f64).sum::<f64>() / bounds.len() as f64
        };
        Ok(Some(BoundsMetrics {
            left: mean(|b| b.left),
            right: mean(|b| b.right),
            alpha: mean(|b| b.alpha),
            beta: mean(|b| b.beta),
        }))
    }

    /// The means of the slope in a layer over the ending epoch, with per-channel bounds if there are any.
    fn slope_means(&self, population: usize) -> Result<Option<SlopeMeans>> {
        let bounds = self.model.bounds(population)?;
        Ok(SlopeMeans::over(self.model.surrogate(), &bounds, &self.model.histograms(population)?.epoch))
    }
}
