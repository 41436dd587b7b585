//! `adali train`

use super::data::load_data;
use super::options::{DeviceOptions, megabytes, memory_kinds, on_device};
use super::progress::{Bar, epoch_lines};
pub use super::train_options::TrainArguments;
use super::{End, is_quiet, note, say, signals};
use crate::backend::Backend;
use crate::data::Dataset;
use crate::error::exit_code;
use crate::files::place::Place;
use crate::input_error;
use crate::metrics::EpochMetrics;
use crate::terminal::shell_word;
use crate::train::checkpoint::{Progress, open_state};
use crate::train::run::{self, Run};
use crate::train::{Config, Observer, Outcome, Scored, Session, Trainer};
use anyhow::{Result, anyhow};

pub fn run(arguments: TrainArguments) -> Result<End> {
    on_device!(arguments.device, |backend| run_on(backend, &arguments))
}

fn run_on<B: Backend>(backend: B, arguments: &TrainArguments) -> Result<End> {
    let (run, trainer, data) = match &arguments.resume {
        Some(folder) => {
            let run = Run::open(folder.clone())?;
            let (config, mut data) = resumed(&run, arguments)?;
            (run, Trainer::new(backend, config, &mut data)?, data)
        }
        None => {
            // Check everything, starting with the folder, before a folder is created or an older run is replaced.
            let inputs = arguments.inputs();
            if let Some(folder) = &arguments.out {
                Place::check(folder, &run::KIND, arguments.force, &inputs)?;
            }
            let (config, mut data) = arguments.configure()?;
            let name = config.data.source.name();
            let trainer = Trainer::new(backend, config, &mut data)?;
            let run = match &arguments.out {
                Some(folder) => Run::create(folder.clone(), arguments.force, &inputs)?,
                None => Run::create_free(name)?,
            };
            (run, trainer, data)
        }
    };
    train(trainer, run, data, arguments)
}

/// The configuration and the data of a resumed run.
fn resumed(run: &Run, arguments: &TrainArguments) -> Result<(Config, Dataset)> {
    let mut config = Config::read(&run.files().config())?;
    if let Some(dir) = &arguments.data.data_dir {
        config.data.dir = Some(dir.clone());
    }
    config.data.cache_dir = arguments.data.cache_dir.clone();
    let data = load_data(&config.data)?;
    Ok((config, data))
}

fn train<B: Backend>(trainer: Trainer<B>, run: Run, data: Dataset, arguments: &TrainArguments) -> Result<End> {
    let stop = signals::watch()?;
    if let Some(text) = run.note() {
        note(text);
    }
    let Dataset { test, source, .. } = data;
    let mut session = match arguments.resume {
        Some(_) => Session::resume(trainer, run, test, &source)?,
        None => Session::begin(trainer, run, test)?,
    };
    // With --json, standard output holds only the result; the bar is on standard error.
    let silent = is_quiet() || arguments.json;
    if !silent {
        introduce(&session.trainer, &session.run, &source, &arguments.device)?;
    }
    let total = session.trainer.config.training.epochs;
    let mut watcher = Watcher { bar: Bar::new(total), silent, total };
    let outcome = session.train(&mut watcher, stop);
    let folder = session.run.folder().to_path_buf();
    let outcome = outcome.map_err(|error| {
        watcher.bar.clear();
        and_saved(error, &session.run)
    })?;
    let result = match outcome {
        Outcome::Finished => session.finish(&mut watcher, stop),
        Outcome::Interrupted => Ok(None),
    };
    watcher.bar.clear();
    let Some(result) = result? else {
        let resume = shell_word(&folder);
        note(format_args!("interrupted; the state is saved. Continue with: adali train --resume {resume}"));
        return Ok(End::Interrupted);
    };
    if !silent {
        say(format!(
            "test accuracy {:.2} % (loss {:.4}, {} samples, epoch {}{})",
            100.0 * result.test_accuracy,
            result.test_loss,
            result.test_samples,
            result.epoch,
            if result.validation_accuracy.is_some() { ", chosen on held-out samples" } else { "" },
        ))?;
        say(format!("{}: model, state, metrics, curves.svg, membranes.svg", folder.display()))?;
    }
    if arguments.json {
        say(serde_json::to_string(&result)?)?;
    }
    Ok(End::Done)
}

/// The error that ended a training, with a note on what has been saved.
fn and_saved(error: anyhow::Error, run: &Run) -> anyhow::Error {
    let folder = run.folder();
    let folder = folder.display();
    let saved = match open_state(&run.files().state()) {
        _ if run.is_staged() => format!("{folder} still holds the run from before"),
        Ok((_, Progress { epoch, step: 0, .. })) => format!("{folder} contains the state saved after epoch {epoch}"),
        Ok((_, Progress { epoch, step, .. })) => {
            format!("{folder} contains the state saved after epoch {epoch}, step {step}")
        }
        Err(_) => format!("{folder} holds no checkpoint yet"),
    };
    match exit_code(&error) {
        1 => anyhow!("{error:#}; {saved}"),
        _ => input_error!("{error:#}; {saved}"),
    }
}

/// Prints what will be trained, on what, and how large it is.
fn introduce<B: Backend>(trainer: &Trainer<B>, run: &Run, source: &str, device: &DeviceOptions) -> Result<()> {
    let (training, held_out) = trainer.split();
    let memory = trainer.memory();
    say(format!("device   {}", device.describe(trainer.model.backend())))?;
    say(format!(
        "data     {} ({source}): {}{}",
        trainer.config.data.source.name(),
        used(training, held_out, trainer.config.training.batch),
        if trainer.is_resident() { "" } else { ", streamed to the device" }
    ))?;
    say(format!("network  {}, {} parameters", trainer.title(), trainer.model.plan().parameters()))?;
    say(format!("memory   {}: {}", megabytes(memory.total()), memory_kinds(&memory)))?;
    let resumed = match (trainer.progress.epoch, trainer.progress.step) {
        (0, 0) => String::new(),
        (epoch, step) => format!(" (continued after epoch {epoch}, step {step})"),
    };
    say(format!("run      {}{resumed}", run.folder().display()))
}

/// How the training samples are used, in words.
pub fn used(training: usize, held_out: usize, batch: usize) -> String {
    let left_over = match training % batch {
        0 => String::new(),
        left => format!(" ({left} per epoch unused: they do not fill a batch of {batch})"),
    };
    format!("{training} to train on{left_over}, {held_out} held out")
}

/// Shows a training.
struct Watcher {
    bar: Bar,
    /// Prints no line per epoch.
    silent: bool,
    total: u32,
}

impl<B: Backend> Observer<B> for Watcher {
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        self.bar.step(done, total, epoch, progress);
    }

    fn scored(&mut self, done: usize, total: usize, what: Scored) {
        self.bar.scored(done, total, what);
    }

    fn saved(&mut self, metrics: &EpochMetrics, improved: bool) -> Result<()> {
        if self.silent {
            return Ok(());
        }
        self.bar.suspend(|| say(epoch_lines(metrics, self.total, improved)))
    }
}
