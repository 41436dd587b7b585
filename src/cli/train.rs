//! `adali train`

use super::data::load_data;
use super::options::{megabytes, on_device};
use super::progress::{Bar, epoch_lines};
pub use super::train_options::TrainArguments;
use super::{End, note, say};
use crate::backend::Backend;
use crate::data::Dataset;
use crate::terminal::shell_word;
use crate::train::checkpoint::Progress;
use crate::train::metrics::EpochMetrics;
use crate::train::run::Run;
use crate::train::session::Watch;
use crate::train::{Config, Outcome, Session, Trainer};
use anyhow::{Context, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

pub fn run(arguments: TrainArguments) -> Result<End> {
    on_device!(arguments.device, |backend| run_on(backend, &arguments))
}

fn run_on<B: Backend>(backend: B, arguments: &TrainArguments) -> Result<End> {
    let (run, trainer, data) = match &arguments.resume {
        Some(folder) => {
            let (run, config, mut data) = resumed(folder.clone(), arguments)?;
            (run, Trainer::new(backend, config, &mut data)?, data)
        }
        None => {
            let (config, mut data) = arguments.configure()?;
            let name = config.data.source.name();
            let folder = arguments.out.clone().unwrap_or_else(|| Run::free_folder(name));
            // Everything is checked before a folder is made, or emptied of an older run.
            let trainer = Trainer::new(backend, config, &mut data)?;
            (Run::create(folder, arguments.force)?, trainer, data)
        }
    };
    train(trainer, run, data, arguments)
}

/// A run to be continued: its folder, configuration and data.
fn resumed(folder: PathBuf, arguments: &TrainArguments) -> Result<(Run, Config, Dataset)> {
    let run = Run::open(folder)?;
    let mut config = Config::read(&run.config())?;
    if let Some(dir) = &arguments.data.data_dir {
        config.data.dir = Some(dir.clone());
    }
    config.data.cache_dir = arguments.data.cache_dir.clone();
    let data = load_data(&config.data)?;
    Ok((run, config, data))
}

fn train<B: Backend>(trainer: Trainer<B>, run: Run, data: Dataset, arguments: &TrainArguments) -> Result<End> {
    let stop = stop_on_signal()?;
    let Dataset { test, source, .. } = data;
    let mut session = match arguments.resume {
        Some(_) => Session::resume(trainer, run, test, &source)?,
        None => Session::begin(trainer, run, test)?,
    };
    // With --json, standard output holds the result alone; the bar is on standard error.
    let silent = arguments.quiet || arguments.json;
    if !silent {
        introduce(&session.trainer, &session.run, &source)?;
    }
    let total = session.trainer.config.training.epochs;
    let mut watcher = Watcher { bar: Bar::new(total, arguments.quiet), silent, total };
    let outcome = session.train(&mut watcher, &stop);
    watcher.bar.clear();
    let folder = session.run.folder().display().to_string();
    if outcome? == Outcome::Interrupted {
        let resume = shell_word(session.run.folder());
        note(format_args!("interrupted; the state is saved. Continue with: adali train --resume {resume}"));
        return Ok(End::Interrupted);
    }
    let result = session.finish()?;
    if !silent {
        say(format!(
            "test accuracy {:.2} % (loss {:.4}, {} samples, epoch {}{})",
            100.0 * result.test_accuracy,
            result.test_loss,
            result.test_samples,
            result.epoch,
            if result.validation_accuracy.is_some() { ", chosen on held-out samples" } else { "" },
        ))?;
        say(format!("{folder}: model, state, metrics, curves.svg, membranes.svg"))?;
    }
    if arguments.json {
        say(serde_json::to_string(&result)?)?;
    }
    Ok(End::Done)
}

/// Set once a person or the system asks the process to stop.
pub fn stop_on_signal() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed)).context("cannot watch for Ctrl-C")?;
    Ok(stop)
}

/// Says what will be trained, on what, and how large it is.
fn introduce<B: Backend>(trainer: &Trainer<B>, run: &Run, source: &str) -> Result<()> {
    let (training, held_out) = trainer.split();
    let memory = trainer.model.memory();
    say(format!("device   {}", trainer.model.backend().describe()))?;
    say(format!(
        "data     {} ({source}): {training} to train on, {held_out} held out{}",
        trainer.config.data.source.name(),
        if trainer.is_resident() { "" } else { ", streamed to the device" }
    ))?;
    say(format!("network  {}, {} parameters", trainer.title(), trainer.model.plan().parameters()))?;
    let kinds = [
        ("weights", memory.weights),
        ("optimiser", memory.optimizer),
        ("spikes", memory.spikes),
        ("windows", memory.windows),
        ("currents", memory.currents),
        ("activations", memory.activations),
        ("tables", memory.tables),
        ("working", memory.working),
    ];
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(_, bytes)| *bytes > 0)
        .map(|(kind, bytes)| format!("{kind} {}", megabytes(*bytes)))
        .collect();
    say(format!("memory   {}: {}", megabytes(memory.total()), kinds.join(", ")))?;
    let resumed = match (trainer.progress.epoch, trainer.progress.step) {
        (0, 0) => String::new(),
        (epoch, step) => format!(" (continued after epoch {epoch}, step {step})"),
    };
    say(format!("run      {}{resumed}", run.folder().display()))
}

/// Shows a training.
struct Watcher {
    bar: Bar,
    /// No line for an epoch.
    silent: bool,
    total: u32,
}

impl Watch for Watcher {
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        self.bar.step(done, total, epoch, progress);
    }

    fn epoch(&mut self, metrics: &EpochMetrics, improved: bool) -> Result<()> {
        if self.silent {
            return Ok(());
        }
        self.bar.suspend(|| say(epoch_lines(metrics, self.total, improved)))
    }
}
