//! A training in its run folder: begun or resumed, saved as it goes, tested once at the end.

use crate::backend::Backend;
use crate::data::Samples;
use crate::files::write_whole;
use crate::metrics::EpochMetrics;
use crate::metrics::median;
use crate::train::checkpoint::{self, Progress, load_model, open_model, open_state};
use crate::train::evaluate::Scores;
use crate::train::run::{Run, RunResult, identity, identity_in, signed};
use crate::train::{Observer, Outcome, Scored, Trainer};
use crate::{bail_input, input_error};
use anyhow::Result;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

/// A training and its run folder.
pub struct Session<B: Backend> {
    pub trainer: Trainer<B>,
    pub run: Run,
    /// The finished epochs.
    pub epochs: Vec<EpochMetrics>,
    test: Samples,
    identity: String,
}

impl<B: Backend> Session<B> {
    /// Begins a new training in a folder made for it.
    pub fn begin(trainer: Trainer<B>, run: Run, test: Samples) -> Result<Self> {
        let identity = identity(&trainer.config, trainer.progress.fingerprint);
        write_whole(&run.files().config(), signed(&trainer.config, &identity).as_bytes())?;
        Ok(Self { trainer, run, epochs: Vec::new(), test, identity })
    }

    /// Resumes from the folder's state, or from the beginning if there is none yet; `source` says where the
    /// samples come from.
    ///
    /// # Errors
    /// If the state is from other samples or another configuration, or files are from different runs.
    pub fn resume(mut trainer: Trainer<B>, run: Run, test: Samples, source: &str) -> Result<Self> {
        let files = run.files();
        files.check()?;
        if !files.state().exists() {
            return Self::begin(trainer, run, test);
        }
        let (state, progress) = open_state(&files.state())?;
        if progress.fingerprint != trainer.progress.fingerprint {
            bail_input!("{} was trained on other samples than {source} holds now", run.folder().display());
        }
        if !state.config()?.same_training(&trainer.config) {
            bail_input!(
                "{} was changed since {} was written; put it back, or start a new run with --config",
                files.config().display(),
                files.state().display()
            );
        }
        trainer.check_progress(&progress, &files.state())?;
        // An older version wrote no identity.
        let known = identity_in(&state.description("config")?);
        let identity = known.unwrap_or_else(|| identity(&trainer.config, progress.fingerprint));
        let epochs = files.read_metrics(progress.epoch)?;
        trainer.resume(&state, progress)?;
        Ok(Self { trainer, run, epochs, test, identity })
    }

    /// The run's identity.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Trains to the end or until `stop`; every epoch is saved.
    pub fn train(&mut self, observer: &mut dyn Observer<B>, stop: &AtomicBool) -> Result<Outcome> {
        let Self { trainer, run, epochs, identity, .. } = self;
        let config = signed(&trainer.config, identity);
        trainer.run(&mut Keeper { run, epochs, observer, config, identity }, stop)
    }

    /// Scores of the current network on the test samples; `None` once `stop` is set.
    pub fn test_as_it_is(&mut self, observer: &mut dyn Observer<B>, stop: &AtomicBool) -> Result<Option<Scores>> {
        let mut waiting = |done: usize, of: usize| {
            observer.scored(done, of, Scored::Test);
            if done < of && stop.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        self.trainer.evaluate(self.test.clone(), &mut waiting)
    }

    /// Tests the network of the chosen epoch and writes `result.json`; `None` once `stop` is set; a resume then runs the
    /// test.
    pub fn finish(mut self, observer: &mut dyn Observer<B>, stop: &AtomicBool) -> Result<Option<RunResult>> {
        let files = self.run.files();
        let chosen = open_model(&files.model())?;
        let epoch = chosen
            .description("epoch")?
            .parse()
            .map_err(|_| input_error!("{} has no epoch", files.model().display()))?;
        load_model(&chosen, &mut self.trainer.model)?;
        let Some(test) = self.test_as_it_is(observer, stop)? else { return Ok(None) };
        let Self { trainer, run, identity, .. } = self;
        let result = RunResult {
            test_accuracy: test.accuracy,
            test_loss: test.loss,
            test_samples: test.samples,
            epoch,
            epochs: trainer.config.training.epochs,
            validation_accuracy: trainer.progress.best.map(|best| best.accuracy),
            parameters: trainer.model.plan().parameters(),
            images_per_second: median(&trainer.progress.rates),
            peak_rss_bytes: peak_memory(),
            device: trainer.model.backend().describe(),
            identity: Some(identity),
            run: run.folder().display().to_string(),
        };
        write_whole(&files.result(), (serde_json::to_string_pretty(&result)? + "\n").as_bytes())?;
        Ok(Some(result))
    }
}

/// Saves a training as it goes.
struct Keeper<'a, B> {
    run: &'a Run,
    epochs: &'a mut Vec<EpochMetrics>,
    observer: &'a mut dyn Observer<B>,
    /// With the run's identity.
    config: String,
    identity: &'a str,
}

impl<B: Backend> Observer<B> for Keeper<'_, B> {
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        self.observer.step(done, total, epoch, progress);
    }

    fn scored(&mut self, done: usize, total: usize, what: Scored) {
        self.observer.scored(done, total, what);
    }

    fn improved(&mut self, trainer: &Trainer<B>, epoch: u32) -> Result<()> {
        checkpoint::save_model(&self.run.files().model(), &trainer.model, &self.config, epoch)?;
        self.observer.improved(trainer, epoch)
    }

    fn epoch(&mut self, trainer: &Trainer<B>, metrics: &EpochMetrics, improved: bool) -> Result<()> {
        self.epochs.push(metrics.clone());
        self.run.files().save_epoch(trainer, self.epochs, self.identity)?;
        self.observer.epoch(trainer, metrics, improved)
    }

    fn checkpoint(&mut self, trainer: &Trainer<B>) -> Result<()> {
        let state = self.run.files().state();
        checkpoint::save_state(&state, &trainer.model, &trainer.tracker, &trainer.progress, &self.config)?;
        self.run.commit()?;
        self.observer.checkpoint(trainer)
    }

    fn saved(&mut self, metrics: &EpochMetrics, improved: bool) -> Result<()> {
        self.observer.saved(metrics, improved)
    }
}

/// Peak memory of this process in bytes; `None` if the system does not report it.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
