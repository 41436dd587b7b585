//! The training loop.

mod epoch;
mod observer;

pub use observer::{Observer, Scored};

use crate::backend::{Backend, Normalisation, Step, Totals, Update};
use crate::bail_input;
use crate::data::sampling::epoch_order;
use crate::data::{Dataset, SampleShape, Samples, Values};
use crate::network::Model;
use crate::network::model::Pass;
use crate::network::model::memory::Memory;
use crate::random::{CounterRng, stream};
use crate::train::bounds::{BoundsTracker, not_finite};
use crate::train::checkpoint::{Checkpoint, Progress, load_state};
use crate::train::config::Config;
use crate::train::evaluate::{self, Scores, Waiting};
use crate::train::graphs::{Graphs, Repeated};
use anyhow::{Result, bail};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Batches used for the first automatic bounds.
const START_BATCHES: usize = 4;
/// Counts of the membrane potentials per epoch, unless configured.
const COUNTS_PER_EPOCH: u64 = 8;

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    /// Asked to stop; the state is saved.
    Interrupted,
}

/// A training: network, samples and progress.
pub struct Trainer<B: Backend> {
    pub model: Model<B>,
    pub tracker: BoundsTracker,
    pub progress: Progress,
    pub config: Config,
    pub(crate) set: B::Set,
    graphs: Graphs<B>,
    /// Labels of all training samples.
    pub(crate) labels: Vec<u16>,
    normalisation: Normalisation,
    shape: SampleShape,
    /// Indices into the training samples.
    pub(crate) training: Vec<u32>,
    pub(crate) validation: Vec<u32>,
    /// Scores of the epoch that has just ended.
    held_out: Option<Scores>,
    /// Bytes of the data set, and of a batch that the host prepares.
    data_size: usize,
}

impl<B: Backend> Trainer<B> {
    /// Splits the training samples, which are moved out of `data`, and builds the network.
    pub fn new(backend: B, config: Config, data: &mut Dataset) -> Result<Self> {
        let plan = config.plan(data)?;
        let (training, validation) = config.split(&data.train.labels)?;
        let batch = config.training.batch;
        let normalisation = evaluate::normalisation(&config.data, data);
        let empty = Samples { shape: data.train.shape, values: Vec::new().into(), labels: data.train.labels.clone() };
        let samples = std::mem::replace(&mut data.train, empty);
        // While the host prepares a batch, it holds the samples one by one and then joined.
        let prepared = if config.data.augmentation.is_on_host() { 2 * batch * samples.shape.len() } else { 0 };
        let data_size = data_size(&samples, &data.test) + prepared;
        let fingerprint = fingerprint(&samples);
        let mut model = Model::new(backend, &config.network, plan, batch, config.seed)?;
        let tracker = BoundsTracker::new(&mut model, config.effective_bounds(), config.training.epochs)?;
        let totals = Totals { loss_scale: model.backend().first_loss_scale(), ..Totals::default() };
        model.set_totals(&totals)?;
        let set = match config.data.augmentation.is_on_host() {
            true => model.backend().set_on_host(samples.values, samples.shape, &normalisation, batch)?,
            false => model.backend().set(samples.values, samples.shape, &normalisation, batch)?,
        };
        Ok(Self {
            model,
            tracker,
            progress: Progress { fingerprint, totals, ..Progress::default() },
            config,
            set,
            graphs: Graphs::default(),
            labels: samples.labels,
            normalisation,
            shape: samples.shape,
            training,
            validation,
            held_out: None,
            data_size,
        })
    }

    /// Planned memory: of the network, and on the CPU also of the data and the program.
    pub fn memory(&self) -> Memory {
        self.model.memory().of_process(self.model.backend(), self.data_size)
    }

    /// Refuses a position in the training that this configuration never reaches; `path` is that of the state.
    ///
    /// # Errors
    /// If the configuration was changed after the state was saved, or the state is damaged.
    pub fn check_progress(&self, progress: &Progress, path: &Path) -> Result<()> {
        let p = progress;
        let (steps, samples) = (self.epoch_steps(), p.step.checked_mul(self.config.training.batch as u64));
        if p.epoch > self.config.training.epochs
            || p.step > steps
            || (p.step == steps && p.epoch == self.config.training.epochs)
            || samples != Some(p.totals.samples)
            || p.totals.correct > p.totals.samples
        {
            bail_input!(
                "{} was saved at epoch {}, step {} ({} samples), which this configuration ({} epochs of {steps} steps) never reaches; restore the original config.toml",
                path.display(),
                p.epoch,
                p.step,
                p.totals.samples,
                self.config.training.epochs
            );
        }
        let Totals { updates, skipped, loss_scale, .. } = p.totals;
        if updates.max(skipped) >= u32::MAX.into() || !loss_scale.is_finite() || loss_scale < 1.0 {
            bail_input!(
                "{} holds impossible totals: {updates} updates, {skipped} left out, a loss scale of {loss_scale}",
                path.display()
            );
        }
        Ok(())
    }

    /// Resumes from a state.
    pub fn resume(&mut self, state: &Checkpoint, progress: Progress) -> Result<()> {
        load_state(state, &mut self.model, &self.tracker)?;
        self.model.set_totals(&progress.totals)?;
        self.progress = progress;
        Ok(())
    }

    /// The network in a few words.
    pub fn title(&self) -> String {
        let layers = self.tracker.layers.len();
        let plural = if layers == 1 { "" } else { "s" };
        format!("{layers} spiking layer{plural}, T = {}, {}", self.config.network.steps, self.surrogate())
    }

    /// The surrogate in a few words.
    pub fn surrogate(&self) -> String {
        let kind = self.config.surrogate().kind.name();
        match self.config.effective_bounds() {
            Some(bounds) => format!("{kind} ({})", bounds.in_words()),
            None => kind.to_string(),
        }
    }

    /// Steps per epoch; training samples that do not fill a batch are left over, different ones each epoch.
    pub fn epoch_steps(&self) -> u64 {
        (self.training.len() / self.config.training.batch) as u64
    }

    /// Whether the training samples are on the device; otherwise each step copies its own there.
    pub fn is_resident(&self) -> bool {
        self.model.backend().is_resident(&self.set)
    }

    /// The numbers of training and held-out samples.
    pub fn split(&self) -> (usize, usize) {
        (self.training.len(), self.validation.len())
    }

    /// Trains from the current position to the end or until `stop`.
    pub fn run(&mut self, observer: &mut dyn Observer<B>, stop: &AtomicBool) -> Result<Outcome> {
        let total = self.epoch_steps();
        while self.progress.epoch < self.config.training.epochs {
            let epoch = self.progress.epoch + 1;
            let begin = Instant::now();
            let before = self.progress.seconds;
            let order = epoch_order(&self.training, self.config.seed, epoch);
            if epoch == 1 && self.progress.step == 0 && self.tracker.wants_start() {
                self.look_before_first_step(&order)?;
            }
            while self.progress.step < total {
                let started = Instant::now();
                self.step(&order, epoch, total)?;
                self.progress.seconds += started.elapsed().as_secs_f64();
                observer.step(self.progress.step, total, epoch, &self.progress);
                let every = self.config.training.checkpoint_every as u64;
                let stopping = stop.load(Ordering::Relaxed);
                if self.progress.step == total {
                    break;
                }
                if stopping || (every > 0 && self.progress.step.is_multiple_of(every)) {
                    self.catch_up()?;
                    observer.checkpoint(self)?;
                }
                if stopping {
                    return Ok(Outcome::Interrupted);
                }
            }
            let waited = Instant::now();
            self.catch_up()?;
            self.progress.seconds += waited.elapsed().as_secs_f64();
            let mut waiting = |done: usize, of: usize| {
                observer.scored(done, of, Scored::HeldOut(epoch));
                // After the last batch there is nothing left to stop.
                if done < of && stop.load(Ordering::Relaxed) {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let Some(improved) = self.validate(epoch, &mut waiting)? else {
                // All steps are done but the epoch is not: a resume scores the held-out samples again.
                observer.checkpoint(self)?;
                return Ok(Outcome::Interrupted);
            };
            if improved {
                observer.improved(self, epoch)?;
            }
            let metrics = self.end_epoch(epoch, total, before, begin)?;
            observer.epoch(self, &metrics, improved)?;
            observer.checkpoint(self)?;
            observer.saved(&metrics, improved)?;
            if stop.load(Ordering::Relaxed) {
                return Ok(Outcome::Interrupted);
            }
        }
        Ok(Outcome::Finished)
    }

    /// Counts membrane potentials on a few batches and sets the first automatic bounds.
    fn look_before_first_step(&mut self, order: &[u32]) -> Result<()> {
        let pass = Pass { batch_statistics: true, histogram: true, ..Pass::default() };
        for batch in order.chunks_exact(self.config.training.batch).take(START_BATCHES) {
            self.write_batch(batch, 1, 1.0, 0, 0.0)?;
            self.model.gather(&self.set, &self.config.data.augmentation)?;
            self.model.forward(pass)?;
            self.model.release_batch(&mut self.set)?;
        }
        self.tracker.start(&mut self.model)
    }

    /// The samples of step `count` of the training.
    pub(crate) fn write_batch(
        &mut self,
        batch: &[u32],
        epoch: u32,
        position: f64,
        count: u64,
        learning_rate: f32,
    ) -> Result<()> {
        let labels: Vec<u16> = batch.iter().map(|&i| self.labels[i as usize]).collect();
        let seed = self.config.seed;
        let dropout = CounterRng::new(seed, stream::DROPOUT).fork(count.wrapping_sub(1)).next_u64();
        let augmentation = self.config.data.augmentation;
        let position = self.config.bounds.delayed(position);
        let step = Step {
            samples: batch,
            labels: &labels,
            seed,
            epoch,
            position,
            dropout,
            learning_rate,
            count,
            augmentation,
        };
        self.model.write_batch(&mut self.set, &step)
    }

    fn step(&mut self, order: &[u32], epoch: u32, total: u64) -> Result<()> {
        let step = self.progress.step;
        let size = self.config.training.batch;
        let global = (epoch as u64 - 1) * total + step;
        // The schedule is read before the step, the histograms after it.
        let done = if self.tracker.tracks() { step + 1 } else { step };
        let position = epoch as f64 + done as f64 / total as f64;
        let training = &self.config.training;
        let learning_rate = training.rate(global, total * training.epochs as u64, total) as f32;
        self.write_batch(&order[step as usize * size..][..size], epoch, position, global + 1, learning_rate)?;
        let counts = step.is_multiple_of(self.count_every(total));
        let updates = self.tracker.update_every().is_some_and(|every| (global + 1).is_multiple_of(every));
        let Self { model, tracker, set, graphs, config, .. } = self;
        let training = &config.training;
        let update = Update { rule: training.rule(), decay: training.weight_decay as f32, clip: training.clip };
        let pass = Pass::train(counts);
        graphs.run(model, Repeated::Train { counts, updates }, |model| {
            if tracker.moves_per_step() {
                tracker.follow_schedule(model)?;
            }
            model.gather(set, &config.data.augmentation)?;
            model.forward(pass)?;
            if counts {
                model.collect_counts()?;
            }
            model.loss(&config.loss, true)?;
            model.backward(pass)?;
            model.update(&update)?;
            if updates {
                tracker.update(model)?;
            }
            Ok(())
        })?;
        model.release_batch(set)?;
        self.progress.step += 1;
        match self.model.poll_totals()? {
            Some(totals) => self.take_totals(totals),
            None => Ok(()),
        }
    }

    /// Waits for all queued steps.
    fn catch_up(&mut self) -> Result<()> {
        let totals = self.model.totals()?;
        self.take_totals(totals)?;
        totals.ensure_counted(self.progress.step * self.config.training.batch as u64)
    }

    /// Takes in totals of an earlier step.
    ///
    /// # Errors
    /// If the training cannot go on.
    fn take_totals(&mut self, totals: Totals) -> Result<()> {
        let steps = self.epoch_steps();
        let when = |count: u64| {
            let before = count.max(1) - 1;
            format!("at step {} of epoch {} (step {count} in all)", before % steps + 1, before / steps + 1)
        };
        if let Some(fault) = totals.fault {
            let population = self.tracker.layers[fault.layer].population;
            bail!("{}", not_finite(&self.model, population, fault.potentials, &when(fault.step)));
        }
        let count = self.progress.epoch as u64 * steps + self.progress.step;
        if !totals.loss.is_finite() {
            let when = when(totals.failed.unwrap_or(count));
            bail!("the loss is {} {when}; lower the learning rate or clip gradients", totals.loss);
        }
        if let Some(count) = totals.failed {
            bail!("the gradient's norm is not finite {}; lower the learning rate or clip gradients", when(count));
        }
        self.progress.totals = totals;
        Ok(())
    }

    /// Steps between counts of the membrane potentials.
    fn count_every(&self, total: u64) -> u64 {
        let configured = self.config.training.histogram_every as u64;
        let usual = if configured > 0 { configured } else { (total / COUNTS_PER_EPOCH).max(1) };
        self.tracker.update_every().map_or(usual, |every| usual.min(every))
    }

    /// Logits `[N, classes]` of `N` samples of bytes, shaped like the training samples; see [`Model::predict`].
    pub fn predict(&mut self, values: &[u8]) -> Result<Vec<f32>> {
        self.model.predict(values, self.shape, &self.normalisation)
    }

    /// Loss and accuracy on other samples of the same data set; `None` if `waiting` stopped it.
    pub fn evaluate(&mut self, samples: Samples, waiting: &mut Waiting) -> Result<Option<Scores>> {
        let all: Vec<u32> = (0..samples.labels.len() as u32).collect();
        evaluate::sample_scores(&mut self.model, samples, &self.normalisation, &all, &self.config.loss, waiting)
    }
}

/// Bytes of memory for a data set: training samples as frames of bytes while training, test samples during the test, and
/// for each sample its label and its place in the order of an epoch.
fn data_size(training: &Samples, test: &Samples) -> usize {
    let bytes = |samples: &Samples| samples.len() * samples.shape.len();
    let kept = |samples: &Samples| match &samples.values {
        Values::Bytes(_) => 0,
        Values::Counts(_) => samples.values.size(),
    };
    let lists = (training.len() + test.len()) * 2 * (size_of::<u16>() + size_of::<u32>());
    bytes(training) + bytes(test) + kept(training).max(kept(test)) + lists
}

/// FNV-1a over labels and values.
fn fingerprint(samples: &Samples) -> u64 {
    let labels = samples.labels.iter().flat_map(|label| label.to_le_bytes());
    labels
        .chain(samples.values.kept().iter().copied())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}
