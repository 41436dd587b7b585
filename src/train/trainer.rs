//! The training loop.

use crate::backend::{Backend, LossSums, Normalisation, Update};
use crate::data::sampling::{CounterRng, Placement, epoch_order, placement};
use crate::data::split::hold_out;
use crate::data::{Dataset, Samples};
use crate::network::Model;
use crate::network::model::Pass;
use crate::train::bounds::BoundsTracker;
use crate::train::checkpoint::{Best, Progress};
use crate::train::config::Config;
use crate::train::evaluate::{self, Scores};
use crate::train::metrics::{BoundsMetrics, EpochMetrics, LayerMetrics};
use crate::{backend, bail_input};
use anyhow::{Result, bail};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Batches that the first automatic bounds look at.
const START_BATCHES: usize = 4;
/// Counts of the membrane potentials in an epoch, unless configured.
const COUNTS_PER_EPOCH: u64 = 8;

/// Whoever watches a training: a progress bar, a run folder.
pub trait Observer<B: Backend> {
    /// After every step; `done` of `total` in this epoch.
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress);
    /// The network is the best so far on the held-out samples, or nothing is held out.
    fn improved(&mut self, trainer: &Trainer<B>, epoch: u32) -> Result<()>;
    /// After every epoch.
    fn epoch(&mut self, trainer: &Trainer<B>, metrics: &EpochMetrics, improved: bool) -> Result<()>;
    /// A checkpoint is due: after every epoch, after so many steps, or when the training stops early.
    fn checkpoint(&mut self, trainer: &Trainer<B>) -> Result<()>;
}

/// How a training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Finished,
    /// Asked to stop; the state is saved.
    Interrupted,
}

/// A training: network, samples, and where it stands.
pub struct Trainer<B: Backend> {
    pub model: Model<B>,
    pub tracker: BoundsTracker,
    pub progress: Progress,
    pub config: Config,
    set: B::Bytes,
    samples: Samples,
    normalisation: Normalisation,
    /// Indices into the training samples.
    training: Vec<u32>,
    validation: Vec<u32>,
    /// Scores of the epoch that has just ended.
    held_out: Option<Scores>,
}

impl<B: Backend> Trainer<B> {
    /// Splits the training samples, which are moved out of `data`, and builds the network.
    pub fn new(backend: B, config: Config, data: &mut Dataset) -> Result<Self> {
        let plan = config.plan(data)?;
        let (mut training, validation) = hold_out(&data.train.labels, config.data.validation, config.seed)?;
        if config.data.limit > 0 {
            training = epoch_order(&training, config.seed, 0);
            training.truncate(config.data.limit);
            training.sort_unstable();
        }
        let batch = config.training.batch;
        if training.len() < batch {
            bail_input!("batch {batch} is larger than the {} training samples; use a smaller batch", training.len());
        }
        let normalisation = evaluate::normalisation(data);
        let empty = Samples { shape: data.train.shape, values: Vec::new(), labels: data.train.labels.clone() };
        let samples = std::mem::replace(&mut data.train, empty);
        let fingerprint = fingerprint(&samples);
        let mut model = Model::new(backend, &config.network, plan, batch, config.seed)?;
        let tracker = BoundsTracker::new(&mut model, config.effective_bounds(), config.training.epochs)?;
        let set = model.backend().bytes(samples.values)?;
        Ok(Self {
            model,
            tracker,
            progress: Progress { fingerprint, ..Progress::default() },
            config,
            set,
            samples: Samples { values: Vec::new(), ..samples },
            normalisation,
            training,
            validation,
            held_out: None,
        })
    }

    /// Refuses a place in the training that this configuration never reaches; `path` is the state's.
    ///
    /// # Errors
    /// Where the configuration was changed behind the state, or the state is damaged.
    pub fn check_progress(&self, progress: &Progress, path: &Path) -> Result<()> {
        let p = progress;
        let (steps, samples) = (self.epoch_steps(), p.step.checked_mul(self.config.training.batch as u64));
        if p.epoch > self.config.training.epochs
            || p.step >= steps
            || samples != Some(p.samples)
            || p.correct > p.samples
        {
            bail_input!(
                "{} stands behind epoch {}, step {} ({} samples), where this configuration ({} epochs of {steps} steps) never is; put the old config.toml back",
                path.display(),
                p.epoch,
                p.step,
                p.samples,
                self.config.training.epochs
            );
        }
        Ok(())
    }

    /// The network in a few words.
    pub fn title(&self) -> String {
        format!("{} spiking layers, T = {}, {}", self.tracker.layers.len(), self.config.network.steps, self.surrogate())
    }

    /// The surrogate in a few words.
    pub fn surrogate(&self) -> String {
        let kind = self.config.surrogate().kind.name();
        match self.config.effective_bounds() {
            Some(bounds) => format!("{kind} ({})", bounds.mode.name()),
            None => kind.to_string(),
        }
    }

    /// Steps in an epoch.
    pub fn epoch_steps(&self) -> u64 {
        (self.training.len() / self.config.training.batch) as u64
    }

    /// Numbers of training and held-out samples.
    pub fn split(&self) -> (usize, usize) {
        (self.training.len(), self.validation.len())
    }

    /// Trains from where it stands to the end, or until `stop`.
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
            if self.progress.step == 0 {
                self.tracker.follow_schedule(&mut self.model, epoch as f64);
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
                    observer.checkpoint(self)?;
                }
                if stopping {
                    return Ok(Outcome::Interrupted);
                }
            }
            let improved = self.validate(epoch)?;
            if improved {
                observer.improved(self, epoch)?;
            }
            let metrics = self.end_epoch(epoch, total, before, begin);
            observer.epoch(self, &metrics, improved)?;
            self.tracker.end_epoch();
            observer.checkpoint(self)?;
            if stop.load(Ordering::Relaxed) && self.progress.epoch < self.config.training.epochs {
                return Ok(Outcome::Interrupted);
            }
        }
        Ok(Outcome::Finished)
    }

    /// Counts membrane potentials on a few batches and sets the first automatic bounds.
    fn look_before_first_step(&mut self, order: &[u32]) -> Result<()> {
        let pass = Pass { batch_statistics: true, histogram: true, ..Pass::default() };
        for batch in order.chunks_exact(self.config.training.batch).take(START_BATCHES) {
            self.gather(batch, 1)?;
            self.model.forward(pass)?;
        }
        self.tracker.collect(&mut self.model, "before the first step")?;
        self.tracker.start(&mut self.model);
        Ok(())
    }

    /// Gathers training samples with the epoch's augmentation.
    fn gather(&mut self, batch: &[u32], epoch: u32) -> Result<()> {
        let augmentation = &self.config.data.augmentation;
        let placements: Vec<Placement> =
            batch.iter().map(|&sample| placement(augmentation, self.config.seed, epoch, sample)).collect();
        self.model.gather(&self.set, &self.samples.shape, &self.normalisation, batch, &placements)
    }

    fn step(&mut self, order: &[u32], epoch: u32, total: u64) -> Result<()> {
        let step = self.progress.step;
        let size = self.config.training.batch;
        let batch = &order[step as usize * size..][..size];
        let global = (epoch as u64 - 1) * total + step;
        if self.tracker.moves_per_step() {
            self.tracker.follow_schedule(&mut self.model, epoch as f64 + step as f64 / total as f64);
        }
        self.gather(batch, epoch)?;
        let mask = CounterRng::new(self.config.seed, backend::stream::DROPOUT).fork(global).next_u64();
        let counts = step.is_multiple_of(self.count_every(total));
        let pass = Pass::train(mask, counts);
        self.model.forward(pass)?;
        let when = format!("at step {} of epoch {epoch} (step {} in all)", step + 1, global + 1);
        if counts {
            self.tracker.collect(&mut self.model, &when)?;
        }
        let labels: Vec<u16> = batch.iter().map(|&i| self.samples.labels[i as usize]).collect();
        let sums = self.model.loss(&self.config.loss, &labels, true)?;
        if !sums.loss.is_finite() {
            bail!("the loss is {} {when}; lower the learning rate or clip gradients", sums.loss);
        }
        self.model.backward(pass)?;
        let norm = self.model.gradient_norm()?;
        if !norm.is_finite() {
            bail!("the gradient's norm is {norm} {when}; lower the learning rate or clip gradients");
        }
        let training = &self.config.training;
        let clipped = training.clip > 0.0 && norm > training.clip;
        self.model.update(&Update {
            rule: training.rule(),
            rate: training.rate(global, total * training.epochs as u64, total) as f32,
            decay: training.weight_decay as f32,
            gradient_scale: if clipped { (training.clip / norm) as f32 } else { 1.0 },
            count: global + 1,
        })?;
        let p = &mut self.progress;
        p.step += 1;
        p.loss += sums.loss;
        p.correct += sums.correct;
        p.samples += size as u64;
        p.gradient_norm += norm;
        if self.tracker.update_every().is_some_and(|every| (global + 1).is_multiple_of(every)) {
            self.tracker.update(&mut self.model, epoch as f64 + (step + 1) as f64 / total as f64);
        }
        Ok(())
    }

    /// Steps between counts of the membrane potentials.
    fn count_every(&self, total: u64) -> u64 {
        let configured = self.config.training.histogram_every as u64;
        let usual = if configured > 0 { configured } else { (total / COUNTS_PER_EPOCH).max(1) };
        self.tracker.update_every().map_or(usual, |every| usual.min(every))
    }

    /// Scores the held-out samples; whether this is the best epoch so far.
    fn validate(&mut self, epoch: u32) -> Result<bool> {
        self.held_out = None;
        if self.validation.is_empty() {
            return Ok(true);
        }
        let Self { model, set, samples, normalisation, validation, config, .. } = self;
        let now = evaluate::scores(model, set, samples, normalisation, validation, &config.loss)?;
        if !now.loss.is_finite() {
            bail!(
                "the loss on held-out samples is {} after epoch {epoch} (step {} in all); lower the learning rate or clip gradients",
                now.loss,
                epoch as u64 * self.epoch_steps()
            );
        }
        self.held_out = Some(now);
        let better =
            |best: Best| now.accuracy > best.accuracy || (now.accuracy == best.accuracy && now.loss < best.loss);
        let improved = self.progress.best.is_none_or(better);
        if improved {
            self.progress.best = Some(Best { epoch, accuracy: now.accuracy, loss: now.loss });
        }
        Ok(improved)
    }

    /// Gathers the metrics, moves the bounds and the progress to the next epoch.
    fn end_epoch(&mut self, epoch: u32, total: u64, before: f64, begin: Instant) -> EpochMetrics {
        // The bounds are reported as they were in this epoch.
        let bounds: Vec<_> = self.tracker.layers.iter().map(|layer| self.bounds_metrics(layer.stage)).collect();
        let training = &self.config.training;
        if self.tracker.update_every().is_none() {
            let next = (epoch + 1).min(training.epochs);
            self.tracker.update(&mut self.model, next as f64);
        }
        let layers = self.tracker.layers.iter().zip(bounds).map(|(layer, bounds)| {
            let histogram = layer.histogram();
            LayerMetrics {
                name: self.model.plan().stages[layer.stage].name(),
                inside: bounds.map(|b| histogram.share_inside(b.left, b.right)),
                firing_rate: histogram.firing_rate(),
                bounds,
                flags: layer.flags.iter().map(|flag| flag.name().to_string()).collect(),
            }
        });
        let p = &mut self.progress;
        p.rates.push(p.samples as f64 / p.seconds);
        let metrics = EpochMetrics {
            epoch,
            train_loss: p.loss / p.samples as f64,
            train_accuracy: p.correct as f64 / p.samples as f64,
            validation_loss: self.held_out.map(|s| s.loss),
            validation_accuracy: self.held_out.map(|s| s.accuracy),
            learning_rate: training.rate(epoch as u64 * total - 1, total * training.epochs as u64, total),
            gradient_norm: p.gradient_norm / total as f64,
            images_per_second: p.samples as f64 / p.seconds,
            seconds: before + begin.elapsed().as_secs_f64(),
            layers: layers.collect(),
        };
        *p = Progress {
            epoch,
            best: p.best,
            fingerprint: p.fingerprint,
            rates: std::mem::take(&mut p.rates),
            ..Progress::default()
        };
        metrics
    }

    /// A layer's bounds for people: means over channels.
    fn bounds_metrics(&self, stage: usize) -> Option<BoundsMetrics> {
        if self.model.surrogate().needs_membrane() {
            return None;
        }
        let bounds = self.model.bounds(stage);
        let mean = |get: fn(&crate::surrogate::Bounds) -> f32| {
            bounds.iter().map(|b| get(b) as f64).sum::<f64>() / bounds.len() as f64
        };
        Some(BoundsMetrics {
            left: mean(|b| b.left),
            right: mean(|b| b.right),
            alpha: mean(|b| b.alpha),
            beta: mean(|b| b.beta),
        })
    }

    /// Loss and accuracy on other samples of the same data set.
    pub fn evaluate(&mut self, samples: Samples) -> Result<Scores> {
        let all: Vec<u32> = (0..samples.labels.len() as u32).collect();
        let set = self.model.backend().bytes(samples.values)?;
        let samples = Samples { values: Vec::new(), ..samples };
        evaluate::scores(&mut self.model, &set, &samples, &self.normalisation, &all, &self.config.loss)
    }
}

/// FNV-1a over labels and values.
fn fingerprint(samples: &Samples) -> u64 {
    let labels = samples.labels.iter().flat_map(|label| label.to_le_bytes());
    labels
        .chain(samples.values.iter().copied())
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

/// Adds two batches' sums.
impl std::ops::AddAssign for LossSums {
    fn add_assign(&mut self, other: Self) {
        self.loss += other.loss;
        self.correct += other.correct;
    }
}
