//! `adali train`

use super::options::{load_data, megabytes, on_device, peak_memory};
use super::progress::{Bar, epoch_lines};
pub use super::train_options::TrainArguments;
use super::{End, say};
use crate::backend::Backend;
use crate::data::Dataset;
use crate::train::checkpoint::{self, Progress, load_model, open_model, open_state};
use crate::train::files::write_whole;
use crate::train::metrics::EpochMetrics;
use crate::train::run::Run;
use crate::train::{Config, Observer, Outcome, Trainer};
use crate::{bail_input, input_error};
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
    let data = load_data(config.data.source, config.data.dir.as_deref())?;
    Ok((run, config, data))
}

fn train<B: Backend>(mut trainer: Trainer<B>, run: Run, data: Dataset, arguments: &TrainArguments) -> Result<End> {
    let stop = Arc::new(AtomicBool::new(false));
    let seen = stop.clone();
    ctrlc::set_handler(move || seen.store(true, Ordering::Relaxed)).context("cannot watch for Ctrl-C")?;
    let source = data.source.clone();
    let mut epochs = Vec::new();
    if arguments.resume.is_some() && run.state().exists() {
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
        epochs = run.read_metrics(progress.epoch)?;
        trainer.resume(&state, progress)?;
    } else {
        write_whole(&run.config(), trainer.config.to_toml().as_bytes())?;
    }
    let quiet = arguments.quiet;
    if !quiet {
        introduce(&trainer, &run, &source)?;
    }
    let total = trainer.config.training.epochs;
    let mut watcher = Watcher { run: &run, bar: Bar::new(total, quiet), epochs, quiet, total };
    let outcome = trainer.run(&mut watcher, &stop);
    watcher.bar.clear();
    if outcome? == Outcome::Interrupted {
        let folder = run.folder().display();
        say(format!("interrupted; the state is saved. Continue with: adali train --resume {folder}"))?;
        return Ok(End::Interrupted);
    }
    let chosen = open_model(&run.model())?;
    let epoch: u32 =
        chosen.description("epoch")?.parse().map_err(|_| input_error!("{} has no epoch", run.model().display()))?;
    load_model(&chosen, &mut trainer.model)?;
    let test = trainer.evaluate(data.test)?;
    let result = serde_json::json!({
        "test_accuracy": test.accuracy,
        "test_loss": test.loss,
        "test_samples": test.samples,
        "epoch": epoch,
        "epochs": total,
        "validation_accuracy": trainer.progress.best.map(|best| best.accuracy),
        "parameters": trainer.model.plan().parameters(),
        "images_per_second": median(&trainer.progress.rates),
        "peak_rss_bytes": peak_memory(),
        "device": trainer.model.backend().describe(),
        "run": run.folder().display().to_string(),
    });
    write_whole(&run.result(), (serde_json::to_string_pretty(&result)? + "\n").as_bytes())?;
    if !quiet {
        say(format!(
            "test accuracy {:.2} % (loss {:.4}, {} samples, epoch {epoch}{})",
            100.0 * test.accuracy,
            test.loss,
            test.samples,
            if trainer.progress.best.is_some() { ", chosen on held-out samples" } else { "" },
        ))?;
        say(format!("{}: model, state, metrics, curves.svg, membranes.svg", run.folder().display()))?;
    }
    if arguments.json {
        say(&result)?;
    }
    Ok(End::Done)
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

fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// Shows a training and saves it.
struct Watcher<'a> {
    run: &'a Run,
    bar: Bar,
    epochs: Vec<EpochMetrics>,
    quiet: bool,
    total: u32,
}

impl<B: Backend> Observer<B> for Watcher<'_> {
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        self.bar.step(done, total, epoch, progress);
    }

    fn improved(&mut self, trainer: &Trainer<B>, epoch: u32) -> Result<()> {
        checkpoint::save_model(&self.run.model(), &trainer.model, &trainer.config.to_toml(), epoch)
    }

    fn epoch(&mut self, trainer: &Trainer<B>, metrics: &EpochMetrics, improved: bool) -> Result<()> {
        self.epochs.push(metrics.clone());
        self.run.save_epoch(trainer, &self.epochs)?;
        if self.quiet {
            return Ok(());
        }
        self.bar.suspend(|| say(epoch_lines(metrics, self.total, improved)))
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
