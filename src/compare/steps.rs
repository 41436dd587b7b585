//! The cost of a training step of each configuration: on the same random samples, with the initial weights, taking turns.
//!
//! The learning rate is 0, so that the work is the same in every round. Membrane potentials are not counted, as in most
//! steps of a training. A step is timed as in a training; its parts are timed separately, with a wait after each, so on
//! a device that works asynchronously they sum to more.

use crate::backend::{Backend, Totals, Update};
use crate::bench::timing::{ROUNDS, Timing, repetitions, seconds, take_turns};
use crate::compare::plan::Plan;
use crate::data::{Dataset, Samples};
use crate::network::model::Pass;
use crate::random::CounterRng;
use crate::train::config::DataSpec;
use crate::train::graphs::{Graphs, Repeated};
use crate::train::{Config, Trainer};
use anyhow::Result;
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// Seconds that a configuration's turn should take.
const TURN: f64 = 0.04;

/// Costs of all configurations.
#[derive(Clone, Debug, Serialize)]
pub struct StepCosts {
    pub rounds: usize,
    /// One for each configuration, in order.
    pub configurations: Vec<StepCost>,
}

/// Cost of one configuration. Times are in seconds per step.
#[derive(Clone, Debug, Serialize)]
pub struct StepCost {
    pub name: String,
    /// Samples per step.
    pub batch: usize,
    /// Steps per round.
    pub steps: usize,
    pub step: Timing,
    /// Ratio to the first configuration's step, round by round.
    pub ratio: Timing,
    /// Input, forward pass and loss.
    pub forward: Timing,
    pub backward: Timing,
    pub update: Timing,
    /// The backward pass's share of the three parts' sum, in `[0, 1]`.
    pub backward_share: Timing,
    /// Share of neuron-steps that spiked in these steps.
    pub firing_rate: f64,
}

/// A network ready to be stepped.
struct Stepped<B: Backend> {
    trainer: Trainer<B>,
    graphs: Graphs<B>,
    batch: Vec<u32>,
    steps: usize,
}

/// Times the steps of all configurations; `None` if `stop` was set.
pub fn step_costs<B: Backend>(
    backend: &B,
    plan: &Plan,
    load: &dyn Fn(&Config) -> Result<Dataset>,
    stop: &AtomicBool,
) -> Result<Option<StepCosts>> {
    let mut known: Option<(DataSpec, Dataset)> = None;
    let mut networks = Vec::new();
    for configuration in &plan.configurations {
        let config = Config { seed: plan.seeds[0], ..configuration.config.clone() };
        let data = match known.take() {
            Some((spec, data)) if spec.source == config.data.source && spec.dir == config.data.dir => data,
            _ => without_samples(load(&config)?),
        };
        networks.push(Stepped::new(backend, &config, &data)?);
        known = Some((config.data, data));
    }
    for network in &mut networks {
        let before = network.wait()?.samples;
        network.whole_step()?;
        network.wait()?.ensure_counted(before + network.batch.len() as u64)?;
        let once = seconds(|| network.whole_step().and_then(|()| network.wait().map(drop)))?;
        network.steps = repetitions(once, TURN);
    }
    let Some(times) = take_turns(networks.len(), ROUNDS, stop, |i| networks[i].turn())? else { return Ok(None) };
    let first = &times[0][0];
    let mut configurations = Vec::new();
    for ((network, configuration), times) in networks.iter().zip(&plan.configurations).zip(&times) {
        let [step, forward, backward, update] = times;
        let sums: Vec<f64> = (0..ROUNDS).map(|i| forward[i] + backward[i] + update[i]).collect();
        configurations.push(StepCost {
            name: configuration.name.clone(),
            batch: network.batch.len(),
            steps: network.steps,
            step: Timing::of(step),
            ratio: Timing::of_ratios(step, first),
            forward: Timing::of(forward),
            backward: Timing::of(backward),
            update: Timing::of(update),
            backward_share: Timing::of_ratios(backward, &sums),
            firing_rate: network.firing_rate()?,
        });
    }
    Ok(Some(StepCosts { rounds: ROUNDS, configurations }))
}

/// Keeps only what random samples must match.
fn without_samples(data: Dataset) -> Dataset {
    let empty = |samples: &Samples| Samples { shape: samples.shape, values: Vec::new().into(), labels: Vec::new() };
    Dataset { train: empty(&data.train), test: empty(&data.test), ..data }
}

impl<B: Backend> Stepped<B> {
    /// `data` determines the shape of the samples.
    fn new(backend: &B, config: &Config, data: &Dataset) -> Result<Self> {
        let mut config = config.clone();
        let batch = config.training.batch;
        (config.data.validation, config.data.limit) = (0.0, 0);
        let shape = data.train.shape;
        let mut rng = CounterRng::new(0, 0);
        let classes = data.classes() as u64;
        let labels = (0..batch).map(|_| rng.below(classes) as u16).collect();
        let values: Vec<u8> = (0..batch * shape.len()).map(|_| rng.below(256) as u8).collect();
        let mut data = Dataset { train: Samples { shape, values: values.into(), labels }, ..data.clone() };
        let trainer = Trainer::new(backend.clone(), config, &mut data)?;
        Ok(Self { batch: trainer.training.clone(), trainer, graphs: Graphs::default(), steps: 1 })
    }

    /// Waits until the device is idle.
    fn wait(&mut self) -> Result<Totals> {
        self.trainer.model.totals()
    }

    fn write_batch(&mut self) -> Result<()> {
        self.trainer.write_batch(&self.batch, 1, 1.0, 1, 0.0)
    }

    fn whole_step(&mut self) -> Result<()> {
        self.write_batch()?;
        let Trainer { model, set, config, .. } = &mut self.trainer;
        let update = update(config);
        self.graphs.run(model, Repeated::Train { counts: false, updates: false }, |model| {
            model.gather(set, &config.data.augmentation)?;
            model.forward(Pass::train(false))?;
            model.loss(&config.loss, true)?;
            model.backward(Pass::train(false))?;
            model.update(&update)
        })?;
        model.release_batch(set)
    }

    /// Seconds per step: whole, forward, backward, update.
    fn turn(&mut self) -> Result<[f64; 4]> {
        let steps = self.steps;
        let whole = seconds(|| {
            (0..steps).try_for_each(|_| self.whole_step())?;
            self.wait().map(drop)
        })?;
        let mut parts = [whole, 0.0, 0.0, 0.0];
        for _ in 0..steps {
            self.write_batch()?;
            self.wait()?;
            let Trainer { model, set, config, .. } = &mut self.trainer;
            let update = update(config);
            parts[1] += seconds(|| {
                model.gather(set, &config.data.augmentation)?;
                model.forward(Pass::train(false))?;
                model.loss(&config.loss, true)?;
                model.totals().map(|_| ())
            })?;
            parts[2] += seconds(|| model.backward(Pass::train(false)).and_then(|()| model.totals().map(|_| ())))?;
            parts[3] += seconds(|| model.update(&update).and_then(|()| model.totals().map(|_| ())))?;
            model.release_batch(set)?;
        }
        Ok(parts.map(|seconds| seconds / steps as f64))
    }

    fn firing_rate(&self) -> Result<f64> {
        let model = &self.trainer.model;
        let (mut spikes, mut all) = (0u64, 0u64);
        for (population, _) in model.spiking() {
            let fired = model.read_spikes(population)?.unwrap_or_default();
            spikes += fired.iter().map(|&spike| u64::from(spike != 0)).sum::<u64>();
            all += fired.len() as u64;
        }
        Ok(spikes as f64 / all.max(1) as f64)
    }
}

fn update(config: &Config) -> Update {
    let training = &config.training;
    Update { rule: training.rule(), decay: training.weight_decay as f32, clip: training.clip }
}
