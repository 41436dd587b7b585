//! A training in its run folder: begun or continued, saved as it goes, tested once at its end.

use crate::backend::Backend;
use crate::bench::timing::median;
use crate::data::Samples;
use crate::files::write_whole;
use crate::train::checkpoint::{self, Progress, load_model, open_model, open_state};
use crate::train::evaluate::Scores;
use crate::train::metrics::EpochMetrics;
use crate::train::run::Run;
use crate::train::{Observer, Outcome, Trainer};
use crate::{bail_input, input_error};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::sync::atomic::AtomicBool;

/// Whoever looks at a training without saving it.
pub trait Watch {
    /// After every step; `done` of `total` in this epoch.
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress);
    /// After every epoch.
    fn epoch(&mut self, metrics: &EpochMetrics, improved: bool) -> Result<()>;
}

/// What `result.json` holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Share in `[0, 1]`, of the chosen epoch's network.
    pub test_accuracy: f64,
    /// Mean over the test samples.
    pub test_loss: f64,
    pub test_samples: usize,
    /// The chosen epoch: the best on held-out samples, or the last.
    pub epoch: u32,
    pub epochs: u32,
    /// Of the chosen epoch; absent without held-out samples.
    pub validation_accuracy: Option<f64>,
    pub parameters: usize,
    /// Median over epochs; training alone.
    pub images_per_second: Option<f64>,
    /// The largest memory of the process so far, in bytes.
    pub peak_rss_bytes: Option<u64>,
    pub device: String,
    /// The run folder.
    pub run: String,
}

/// A training and its run folder.
pub struct Session<B: Backend> {
    pub trainer: Trainer<B>,
    pub run: Run,
    /// The epochs done.
    pub epochs: Vec<EpochMetrics>,
    test: Samples,
}

impl<B: Backend> Session<B> {
    /// A new training in a folder made for it.
    pub fn begin(trainer: Trainer<B>, run: Run, test: Samples) -> Result<Self> {
        write_whole(&run.config(), trainer.config.to_toml().as_bytes())?;
        Ok(Self { trainer, run, epochs: Vec::new(), test })
    }

    /// Goes on where the folder's state stands, or from the beginning where there is none yet; `source` says where the
    /// samples come from.
    ///
    /// # Errors
    /// Where the state is of other samples or of another configuration.
    pub fn resume(mut trainer: Trainer<B>, run: Run, test: Samples, source: &str) -> Result<Self> {
        if !run.state().exists() {
            return Self::begin(trainer, run, test);
        }
        let (state, progress) = open_state(&run.state())?;
        if progress.fingerprint != trainer.progress.fingerprint {
            bail_input!("{} was trained on other samples than {source} holds now", run.folder().display());
        }
        if !state.config()?.same_training(&trainer.config) {
            bail_input!(
                "{} was changed since {} was written; put it back, or start a new run with --config",
                run.config().display(),
                run.state().display()
            );
        }
        trainer.check_progress(&progress, &run.state())?;
        let epochs = run.read_metrics(progress.epoch)?;
        trainer.resume(&state, progress)?;
        Ok(Self { trainer, run, epochs, test })
    }

    /// Trains to the end, or until `stop`; every epoch is saved.
    pub fn train(&mut self, watch: &mut dyn Watch, stop: &AtomicBool) -> Result<Outcome> {
        let Self { trainer, run, epochs, .. } = self;
        trainer.run(&mut Keeper { run, epochs, watch }, stop)
    }

    /// Scores of the network as it stands on the test samples.
    pub fn test_as_it_is(&mut self) -> Result<Scores> {
        self.trainer.evaluate(self.test.clone())
    }

    /// Tests the network of the chosen epoch and writes `result.json`.
    pub fn finish(self) -> Result<RunResult> {
        let Self { mut trainer, run, test, .. } = self;
        let chosen = open_model(&run.model())?;
        let epoch =
            chosen.description("epoch")?.parse().map_err(|_| input_error!("{} has no epoch", run.model().display()))?;
        load_model(&chosen, &mut trainer.model)?;
        let test = trainer.evaluate(test)?;
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
            run: run.folder().display().to_string(),
        };
        write_whole(&run.result(), (serde_json::to_string_pretty(&result)? + "\n").as_bytes())?;
        Ok(result)
    }
}

/// Saves a training as it goes.
struct Keeper<'a> {
    run: &'a Run,
    epochs: &'a mut Vec<EpochMetrics>,
    watch: &'a mut dyn Watch,
}

impl<B: Backend> Observer<B> for Keeper<'_> {
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        self.watch.step(done, total, epoch, progress);
    }

    fn improved(&mut self, trainer: &Trainer<B>, epoch: u32) -> Result<()> {
        checkpoint::save_model(&self.run.model(), &trainer.model, &trainer.config.to_toml(), epoch)
    }

    fn epoch(&mut self, trainer: &Trainer<B>, metrics: &EpochMetrics, improved: bool) -> Result<()> {
        self.epochs.push(metrics.clone());
        self.run.save_epoch(trainer, self.epochs)?;
        self.watch.epoch(metrics, improved)
    }

    fn checkpoint(&mut self, trainer: &Trainer<B>) -> Result<()> {
        checkpoint::save_state(
            &self.run.state(),
            &trainer.model,
            &trainer.tracker,
            &trainer.progress,
            &trainer.config.to_toml(),
        )
    }
}

/// The largest memory this process has had, in bytes; `None` where the system does not say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
