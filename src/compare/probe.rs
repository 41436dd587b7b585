//! Examines a network after its training: dead and saturated neurons, gradients layer by layer, memory.

use crate::backend::shape::Span;
use crate::backend::{Backend, Step, Totals, bits_suffice};
use crate::data::sampling::{Augmentation, epoch_order};
use crate::network::Plan;
use crate::network::model::Pass;
use crate::network::parameters::Part;
use crate::network::plan::Projection;
use crate::network::population::{keeps_currents, keeps_sum};
use crate::network::spec::NetworkSpec;
use crate::train::Trainer;
use crate::train::evaluate::Scores;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};

/// Samples on which neurons are observed.
const SAMPLES: usize = 512;
/// Batches whose gradients are measured.
const BATCHES: usize = 4;

/// The content of `probe.json` in a run folder. Everything describes the network of the last epoch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Scores on the test samples.
    pub test: Scores,
    /// Samples on which the neurons were observed: held-out ones, or training ones if none are held out.
    pub samples: usize,
    pub layers: Vec<LayerProbe>,
    /// Training batches used for the gradients.
    pub batches: usize,
    pub gradients: Vec<GradientProbe>,
    /// Planned memory of the network and its buffers, in bytes.
    pub memory_bytes: usize,
    /// Bytes kept for the backward pass, per neuron and step; see [`saved_bytes`].
    pub saved_bytes: f64,
}

/// One spiking layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerProbe {
    /// Its name, such as `layers.3`.
    pub name: String,
    pub neurons: usize,
    /// Share of neurons that never spiked.
    pub dead: f64,
    /// Share of neurons that spiked at every step of every sample.
    pub saturated: f64,
}

/// The weight of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GradientProbe {
    /// The layer's name, such as `layers.3`.
    pub name: String,
    /// 2-norm of the gradient of the batch's mean loss, averaged over batches.
    pub norm: f64,
}

/// Examines the network of a finished training; `test` are its scores. Weights, statistics and totals are unchanged.
/// `None` once `stop` is set.
pub fn probe<B: Backend>(trainer: &mut Trainer<B>, test: Scores, stop: &AtomicBool) -> Result<Option<Probe>> {
    let Some((samples, layers)) = watch_neurons(trainer, stop)? else { return Ok(None) };
    let Some((batches, gradients)) = gradient_norms(trainer, stop)? else { return Ok(None) };
    let model = &trainer.model;
    let saved_bytes = saved_bytes(model.backend(), &trainer.config.network, model.plan(), model.capacity())?;
    let memory_bytes = model.memory().total();
    Ok(Some(Probe { test, samples, layers, batches, gradients, memory_bytes, saved_bytes }))
}

fn watch_neurons<B: Backend>(trainer: &mut Trainer<B>, stop: &AtomicBool) -> Result<Option<(usize, Vec<LayerProbe>)>> {
    let Trainer { model, set, labels, training, validation, .. } = trainer;
    let from = if validation.is_empty() { training } else { validation };
    let indices = &from[..from.len().min(SAMPLES)];
    let spiking = model.spiking();
    let populations: Vec<(usize, String, usize)> =
        spiking.map(|(i, population)| (i, population.label(), population.volume.values())).collect();
    let mut spikes: Vec<Vec<u32>> = populations.iter().map(|&(.., neurons)| vec![0; neurons]).collect();
    for batch in indices.chunks(model.capacity()) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let labels: Vec<u16> = batch.iter().map(|&i| labels[i as usize]).collect();
        model.write_batch(set, &Step::evaluate(batch, &labels))?;
        model.gather(set, &Augmentation::default())?;
        model.forward(Pass::evaluate())?;
        model.release_batch(set)?;
        for (&(population, _, neurons), counts) in populations.iter().zip(&mut spikes) {
            let fired = model.read_spikes(population)?.expect("the population spikes");
            for sample in fired.chunks_exact(neurons) {
                counts.iter_mut().zip(sample).for_each(|(count, &spike)| *count += u32::from(spike != 0));
            }
        }
    }
    let most = (indices.len() * model.plan().steps) as u32;
    let layers = populations.into_iter().zip(spikes).map(|((_, name, neurons), counts)| {
        let share = |wanted: u32| counts.iter().filter(|&&count| count == wanted).count() as f64 / neurons as f64;
        LayerProbe { name, neurons, dead: share(0), saturated: share(most) }
    });
    Ok(Some((indices.len(), layers.collect())))
}

fn gradient_norms<B: Backend>(
    trainer: &mut Trainer<B>,
    stop: &AtomicBool,
) -> Result<Option<(usize, Vec<GradientProbe>)>> {
    let before = trainer.model.totals()?;
    let epoch = trainer.config.training.epochs;
    let order = epoch_order(&trainer.training, trainer.config.seed, epoch);
    let steps = trainer.epoch_steps();
    let pass = Pass { update_running: false, ..Pass::train(false) };
    let mut sums: Vec<GradientProbe> = Vec::new();
    let mut batches = 0;
    for batch in order.chunks_exact(trainer.config.training.batch).take(BATCHES) {
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        // The masks of the last epoch's steps.
        let count = u64::from(epoch - 1) * steps + batches as u64 + 1;
        trainer.write_batch(batch, epoch, epoch.into(), count, 0.0)?;
        let Trainer { model, set, config, .. } = &mut *trainer;
        model.gather(set, &config.data.augmentation)?;
        model.forward(pass)?;
        model.loss(&config.loss, true)?;
        model.backward(pass)?;
        model.release_batch(set)?;
        // Gradients are scaled on their way through 16 bits.
        let scale = f64::from(before.loss_scale);
        for (i, weight) in model.parameters().filter(|parameter| parameter.is_weight()).enumerate() {
            let gradient = weight.read(model.backend(), Part::Gradient)?;
            let norm = gradient.iter().map(|&g| f64::from(g) * f64::from(g)).sum::<f64>().sqrt() / scale;
            match sums.get_mut(i) {
                Some(sum) => sum.norm += norm,
                None => {
                    let name = weight.name.trim_end_matches(".weight").to_string();
                    sums.push(GradientProbe { name, norm });
                }
            }
        }
        batches += 1;
    }
    sums.iter_mut().for_each(|sum| sum.norm /= batches.max(1) as f64);
    trainer.model.set_totals(&Totals { fault: None, failed: None, ..before })?;
    Ok(Some((batches, sums)))
}

/// Bytes that the spiking layers keep from the forward pass for the backward pass (spikes, windows, currents), per
/// neuron and step. With a batch norm the currents are kept for any surrogate, for the norm's own backward pass.
pub fn saved_bytes<B: Backend>(backend: &B, spec: &NetworkSpec, plan: &Plan, batch: usize) -> Result<f64> {
    let span = Span { batch, steps: plan.steps };
    let suffice = bits_suffice(&spec.neuron.neuron()?, &spec.surrogate);
    let (mut bytes, mut values) = (0, 0);
    for population in plan.populations.iter().filter(|population| population.spiking) {
        let volume = population.volume;
        let floats = |steps: usize| backend.floats_size(Span { batch, steps }, volume);
        bytes += backend.bits_size(span, volume) * (1 + usize::from(suffice));
        bytes += usize::from(keeps_sum(population, suffice)) * floats(population.current_steps);
        let keeps = |projection: &&Projection| keeps_currents(population, projection, suffice, plan.recompute);
        let kept = population.projections.iter().filter(keeps);
        bytes += kept.map(|projection| floats(projection.steps)).sum::<usize>();
        values += batch * plan.steps * volume.values();
    }
    Ok(bytes as f64 / values.max(1) as f64)
}
