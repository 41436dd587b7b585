//! Summary of each configuration over its seeds.

use crate::compare::probe::{LayerProbe, Probe};
use crate::compare::record::{Comparison, RunRecord, Status};
use crate::metrics::{EpochMetrics, LayerMetrics};
use serde::Serialize;

/// A quantity over seeds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// Seeds.
    pub count: usize,
    pub mean: f64,
    pub min: f64,
    pub max: f64,
    /// Sample standard deviation; absent for a single seed.
    pub deviation: Option<f64>,
}

impl Spread {
    /// `None` if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let values: Vec<f64> = values.into_iter().collect();
        let count = values.len();
        let mean = values.iter().sum::<f64>() / count as f64;
        let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
        (count > 0).then(|| Self {
            count,
            mean,
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            deviation: (count > 1).then(|| (squares / (count - 1) as f64).sqrt()),
        })
    }
}

/// One configuration over its finished runs. Accuracies and other shares lie in `[0, 1]`; values about neurons cover all
/// spiking layers together, except in `layers`.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub name: String,
    pub finished: usize,
    pub failed: usize,
    pub pending: usize,
    /// On the test samples, after the last epoch.
    pub last_test_accuracy: Option<Spread>,
    /// On the test samples, for the epoch chosen on the held-out ones.
    pub test_accuracy: Option<Spread>,
    /// On the held-out samples, for the chosen epoch.
    pub validation_accuracy: Option<Spread>,
    /// Seeds that reached the requested validation accuracy, and the epochs they took.
    pub reached: usize,
    pub epochs_to_reach: Option<Spread>,
    /// Over all spiking layers.
    #[serde(flatten)]
    pub neurons: NeuronSummary,
    /// Training images per second: median over epochs.
    pub images_per_second: Option<Spread>,
    /// Planned memory in bytes.
    pub memory_bytes: Option<usize>,
    /// Bytes kept for the backward pass, per neuron-step.
    pub saved_bytes: Option<f64>,
    /// Spiking layers, and the readout for its gradient.
    pub layers: Vec<LayerSummary>,
}

/// One layer over the seeds.
#[derive(Clone, Debug, Serialize)]
pub struct LayerSummary {
    pub name: String,
    /// 2-norm of the weight gradient of the batch's mean loss, after the last epoch.
    pub gradient_norm: Option<Spread>,
    #[serde(flatten)]
    pub neurons: NeuronSummary,
}

/// Neurons over the seeds.
#[derive(Clone, Debug, Serialize)]
pub struct NeuronSummary {
    /// Mean of the slope `g_z` over the membrane potentials of the last epoch.
    pub mean_slope: Option<Spread>,
    pub mean_square_slope: Option<Spread>,
    /// Share of membrane potentials inside AdaLi's window, in the last epoch.
    pub inside: Option<Spread>,
    /// Share of neuron-steps that spike, in the last epoch.
    pub firing_rate: Option<Spread>,
    /// Share of neurons that never spike on the samples probed.
    pub dead: Option<Spread>,
    /// Share of neurons that spike at every step of the samples probed.
    pub saturated: Option<Spread>,
}

impl NeuronSummary {
    /// From a function that combines a measured and a probed value over layers.
    fn new(
        measured: impl Fn(fn(&LayerMetrics) -> Option<f64>) -> Option<Spread>,
        probed: impl Fn(fn(&LayerProbe) -> f64) -> Option<Spread>,
    ) -> Self {
        Self {
            mean_slope: measured(|layer| layer.mean_slope),
            mean_square_slope: measured(|layer| layer.mean_square_slope),
            inside: measured(|layer| layer.inside),
            firing_rate: measured(|layer| Some(layer.firing_rate)),
            dead: probed(|layer| layer.dead),
            saturated: probed(|layer| layer.saturated),
        }
    }
}

/// The records of a finished run.
struct Finished<'a> {
    record: &'a RunRecord,
    probe: &'a Probe,
    last: &'a EpochMetrics,
}

/// The first epoch whose validation accuracy is at least `reach`.
pub fn epochs_to_reach(epochs: &[EpochMetrics], reach: f64) -> Option<u32> {
    epochs.iter().find(|e| e.validation_accuracy.is_some_and(|accuracy| accuracy >= reach)).map(|e| e.epoch)
}

/// All configurations, in order.
pub fn summaries(comparison: &Comparison) -> Vec<Summary> {
    comparison.plan.configurations.iter().map(|configuration| summary(comparison, &configuration.name)).collect()
}

fn summary(comparison: &Comparison, name: &str) -> Summary {
    let with = |status: Status| comparison.runs_of(name).filter(|record| record.status == status).count();
    let finished = |record| Finished::of(record);
    let runs: Vec<Finished> = comparison.runs_of(name).filter_map(finished).collect();
    let over = |value: &dyn Fn(&Finished) -> Option<f64>| Spread::of(runs.iter().filter_map(value));
    let result = |value: fn(&crate::train::run::RunResult) -> Option<f64>| {
        Spread::of(runs.iter().filter_map(|run| run.record.result.as_ref()).filter_map(value))
    };
    let reached: Vec<f64> = runs
        .iter()
        .filter_map(|run| epochs_to_reach(&run.record.epochs, comparison.plan.reach))
        .map(f64::from)
        .collect();
    Summary {
        name: name.into(),
        finished: with(Status::Finished),
        failed: with(Status::Failed),
        pending: with(Status::Pending),
        last_test_accuracy: over(&|run| Some(run.probe.test.accuracy)),
        test_accuracy: result(|r| Some(r.test_accuracy)),
        validation_accuracy: result(|r| r.validation_accuracy),
        reached: reached.len(),
        epochs_to_reach: Spread::of(reached),
        neurons: NeuronSummary::new(
            |value| over(&|run| run.over_neurons(value)),
            |value| over(&|run| run.share(value)),
        ),
        images_per_second: result(|r| r.images_per_second),
        memory_bytes: runs.first().map(|run| run.probe.memory_bytes),
        saved_bytes: runs.first().map(|run| run.probe.saved_bytes),
        layers: layers(&runs),
    }
}

fn layers(runs: &[Finished]) -> Vec<LayerSummary> {
    let Some(first) = runs.first() else { return Vec::new() };
    let layer = |name: &String| {
        let metric = |value: fn(&LayerMetrics) -> Option<f64>| {
            let of = |run: &Finished| run.last.layers.iter().find(|layer| layer.name == *name).and_then(value);
            Spread::of(runs.iter().filter_map(of))
        };
        let probed = |value: fn(&LayerProbe) -> f64| {
            let of = |run: &Finished| run.probe.layers.iter().find(|layer| layer.name == *name).map(value);
            Spread::of(runs.iter().filter_map(of))
        };
        let norm = |run: &Finished| run.probe.gradients.iter().find(|g| g.name == *name).map(|g| g.norm);
        LayerSummary {
            name: name.clone(),
            gradient_norm: Spread::of(runs.iter().filter_map(norm)),
            neurons: NeuronSummary::new(metric, probed),
        }
    };
    first.probe.gradients.iter().map(|gradient| layer(&gradient.name)).collect()
}

impl<'a> Finished<'a> {
    fn of(record: &'a RunRecord) -> Option<Self> {
        Some(Self { record, probe: record.probe.as_ref()?, last: record.epochs.last()? })
    }

    /// A layer's share of all spiking neurons.
    fn weight(&self, name: &str) -> f64 {
        let all: usize = self.probe.layers.iter().map(|layer| layer.neurons).sum();
        let own = self.probe.layers.iter().find(|layer| layer.name == name).map_or(0, |layer| layer.neurons);
        own as f64 / all.max(1) as f64
    }

    /// Mean over neurons of a layer measurement in the last epoch; `None` if a layer lacks it, or there is no layer.
    fn over_neurons(&self, value: impl Fn(&LayerMetrics) -> Option<f64>) -> Option<f64> {
        let parts = self.last.layers.iter().map(|layer| Some(value(layer)? * self.weight(&layer.name)));
        let parts: Vec<f64> = parts.collect::<Option<_>>()?;
        (!parts.is_empty()).then(|| parts.iter().sum())
    }

    fn share(&self, value: impl Fn(&LayerProbe) -> f64) -> Option<f64> {
        let layers = &self.probe.layers;
        (!layers.is_empty()).then(|| layers.iter().map(|layer| value(layer) * self.weight(&layer.name)).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spreads_are_those_of_a_sample() {
        let spread = Spread::of([1.0, 2.0, 4.0, 5.0]).unwrap();
        assert_eq!((spread.count, spread.mean, spread.min, spread.max), (4, 3.0, 1.0, 5.0));
        assert!((spread.deviation.unwrap() - (10.0f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Spread::of([7.0]).unwrap().deviation, None);
        assert_eq!(Spread::of([]), None);
    }
}
