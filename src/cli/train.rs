//! `adali train`

use super::options::{DataOptions, DeviceOptions, load_data, megabytes, peak_memory};
use super::progress::{Bar, epoch_lines};
use super::{End, say};
use crate::autotune::{BoundsMode, BoundsSpec};
use crate::backend::cpu::Cpu;
use crate::backend::{Backend, LossSpec};
use crate::data::{DataSource, Dataset};
use crate::network::Volume;
use crate::network::presets::Preset;
use crate::network::spec::{InputMode, NetworkSpec, Norm};
use crate::neuron::{NeuronModel, ResetKind};
use crate::surrogate::{Schedule, Surrogate, SurrogateKind};
use crate::train::checkpoint::{self, Progress, load_model, load_state, open_model, open_state};
use crate::train::config::{DataSpec, Optimizer, RateSchedule, TrainingSpec, parse_strict};
use crate::train::files::write_whole;
use crate::train::metrics::EpochMetrics;
use crate::train::run::Run;
use crate::train::{Config, Observer, Outcome, Trainer};
use crate::{bail_input, input_error};
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const RUN: &str = "Run";
const NETWORK: &str = "Network";
const SURROGATE: &str = "Surrogate and AdaLi's bounds (in units of the threshold)";
const TRAINING: &str = "Training";
/// All that a run's own configuration says: given beside `--resume`, it would be ignored.
const NOT_WITH_RESUME: &[&str] = &[
    "data",
    "config",
    "out",
    "force",
    "seed",
    "network",
    "channels",
    "steps",
    "norm",
    "neuron",
    "tau",
    "threshold",
    "reset",
    "detach_reset",
    "surrogate",
    "sharpness",
    "bounds",
    "bounds_schedule",
    "left",
    "right",
    "alpha",
    "target",
    "per_channel",
    "epochs",
    "batch",
    "optimizer",
    "learning_rate",
    "weight_decay",
    "momentum",
    "rate_schedule",
    "warmup",
    "clip",
    "mse",
    "label_smoothing",
    "tet",
    "crop",
    "flip",
    "validation",
    "limit",
    "checkpoint_every",
];

#[derive(Args)]
pub struct TrainArguments {
    #[command(flatten)]
    data: DataOptions,
    #[command(flatten)]
    device: DeviceOptions,

    /// Start from this configuration (TOML); other options change it. A run folder's config.toml reruns exactly.
    #[arg(long, value_name = "FILE", help_heading = RUN)]
    config: Option<PathBuf>,
    /// Run folder to write [default: runs/DATA-1, -2, …].
    #[arg(long, value_name = "FOLDER", help_heading = RUN)]
    out: Option<PathBuf>,
    /// Overwrite the run in --out.
    #[arg(long, help_heading = RUN)]
    force: bool,
    /// Continue an interrupted run from its folder; everything else comes from there.
    #[arg(long, value_name = "FOLDER", help_heading = RUN, conflicts_with_all = NOT_WITH_RESUME)]
    resume: Option<PathBuf>,
    /// Of weights, order of samples, held-out samples, augmentation and dropout [default: 0].
    #[arg(long, help_heading = RUN)]
    seed: Option<u64>,
    /// No progress and no lines for each epoch.
    #[arg(long, short, help_heading = RUN)]
    quiet: bool,
    /// Print the result as JSON in the last line.
    #[arg(long, help_heading = RUN)]
    json: bool,

    /// Preset (digits, csnn, conv2, vgg11, dvs-gesture-net) or a TOML file with steps, input and layers
    /// [default: digits for digits, conv2 for other images, dvs-gesture-net for frames].
    #[arg(long, value_name = "PRESET|FILE", help_heading = NETWORK)]
    network: Option<String>,
    /// Width of the preset's convolutions.
    #[arg(long, value_name = "C", help_heading = NETWORK)]
    channels: Option<usize>,
    /// Time steps T.
    #[arg(long, value_name = "T", help_heading = NETWORK)]
    steps: Option<usize>,
    /// Norm of every convolution.
    #[arg(long, value_enum, help_heading = NETWORK)]
    norm: Option<Norm>,
    /// Neuron model.
    #[arg(long, value_enum, help_heading = NETWORK)]
    neuron: Option<NeuronModel>,
    /// Time constant of LIF neurons, in steps.
    #[arg(long, help_heading = NETWORK)]
    tau: Option<f32>,
    /// Firing threshold.
    #[arg(long, help_heading = NETWORK)]
    threshold: Option<f32>,
    /// What a spike does to the membrane.
    #[arg(long, value_enum, help_heading = NETWORK)]
    reset: Option<ResetKind>,
    /// Treat the reset as a constant in the backward pass.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = NETWORK)]
    detach_reset: Option<bool>,

    /// Slope that stands in for the spike's derivative [default: adali].
    #[arg(long, value_enum, help_heading = SURROGATE)]
    surrogate: Option<SurrogateKind>,
    /// Sharpness k of sigmoid (4), arctan (2) or triangle (1).
    #[arg(long, value_name = "K", help_heading = SURROGATE)]
    sharpness: Option<f32>,
    /// Who sets AdaLi's bounds.
    #[arg(long, value_enum, help_heading = SURROGATE)]
    bounds: Option<BoundsMode>,
    /// How manual bounds move from W0 to W1.
    #[arg(long, value_enum, help_heading = SURROGATE)]
    bounds_schedule: Option<Schedule>,
    /// Left bound, first and last.
    #[arg(long, num_args = 2, value_names = ["W0", "W1"], help_heading = SURROGATE)]
    left: Option<Vec<f64>>,
    /// Right bound, first and last.
    #[arg(long, num_args = 2, value_names = ["W0", "W1"], help_heading = SURROGATE)]
    right: Option<Vec<f64>>,
    /// Weight of the left side; the right side's is one minus it.
    #[arg(long, help_heading = SURROGATE)]
    alpha: Option<f64>,
    /// Share of membrane potentials that automatic bounds keep inside, first and last.
    #[arg(long, num_args = 2, value_names = ["P0", "P1"], help_heading = SURROGATE)]
    target: Option<Vec<f64>>,
    /// Bounds for every channel, not only for every layer.
    #[arg(long, help_heading = SURROGATE)]
    per_channel: bool,

    /// Epochs.
    #[arg(long, help_heading = TRAINING)]
    epochs: Option<u32>,
    /// Samples in a batch.
    #[arg(long, help_heading = TRAINING)]
    batch: Option<usize>,
    /// Optimiser.
    #[arg(long, value_enum, help_heading = TRAINING)]
    optimizer: Option<Optimizer>,
    /// Learning rate at its highest [default: 0.1 for sgd, 0.001 for adam and adamw].
    #[arg(long, value_name = "RATE", help_heading = TRAINING)]
    learning_rate: Option<f64>,
    /// Weight decay.
    #[arg(long, help_heading = TRAINING)]
    weight_decay: Option<f64>,
    /// Momentum of SGD.
    #[arg(long, help_heading = TRAINING)]
    momentum: Option<f64>,
    /// How the learning rate moves.
    #[arg(long, value_enum, help_heading = TRAINING)]
    rate_schedule: Option<RateSchedule>,
    /// Epochs over which the learning rate rises.
    #[arg(long, value_name = "EPOCHS", help_heading = TRAINING)]
    warmup: Option<f64>,
    /// Scale gradients down to this norm; 0 for never.
    #[arg(long, value_name = "NORM", help_heading = TRAINING)]
    clip: Option<f64>,
    /// Weight of the mean squared error in the loss.
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    mse: Option<f64>,
    /// Label smoothing of the cross-entropy.
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    label_smoothing: Option<f64>,
    /// Temporal efficient training: the loss of every step, averaged.
    #[arg(long, help_heading = TRAINING)]
    tet: bool,
    /// Shift training images by up to this many pixels.
    #[arg(long, value_name = "PIXELS", help_heading = TRAINING)]
    crop: Option<u32>,
    /// Mirror half of the training images.
    #[arg(long, help_heading = TRAINING)]
    flip: bool,
    /// Share of the training samples held out to choose the epoch.
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    validation: Option<f64>,
    /// Train on so many samples only; 0 for all.
    #[arg(long, value_name = "N", help_heading = TRAINING)]
    limit: Option<usize>,
    /// Steps between checkpoints, besides the one after each epoch.
    #[arg(long, value_name = "STEPS", help_heading = TRAINING)]
    checkpoint_every: Option<u32>,
}

/// The part of a network file that `--network FILE` reads.
type NetworkFile = NetworkSpec;

impl TrainArguments {
    /// The configuration to start from, and its data.
    fn configure(&self) -> Result<(Config, Dataset)> {
        let given = self.config.as_deref().map(Config::read).transpose()?;
        let mut spec = given.as_ref().map(|c| c.data.clone()).unwrap_or_default();
        if let Some(source) = self.data.data {
            spec = DataSpec { source, dir: None, ..spec };
        }
        spec.dir = self.data.data_dir.clone().or(spec.dir);
        let data = load_data(spec.source, spec.dir.as_deref())?;
        let mut config = match given {
            Some(config) => Config { data: spec, ..config },
            None => defaults(spec, &data, self.channels)?,
        };
        if let Some(network) = &self.network {
            config.network = self.network(network, &data)?;
        } else if self.channels.is_some() && self.config.is_some() {
            bail_input!("--channels chooses the width of a preset; name the preset with --network");
        }
        self.change(&mut config);
        Ok((config, data))
    }

    fn network(&self, name: &str, data: &Dataset) -> Result<NetworkSpec> {
        if let Ok(preset) = Preset::from_str(name, true) {
            return preset_network(preset, data, self.channels);
        }
        let presets: Vec<_> = Preset::value_variants().iter().filter_map(|p| p.to_possible_value()).collect();
        let presets: Vec<_> = presets.iter().map(|value| value.get_name()).collect();
        let text = std::fs::read_to_string(name).map_err(|e| {
            input_error!(
                "--network {name} is neither a preset ({}) nor a file that can be read: {e}",
                presets.join(", ")
            )
        })?;
        if self.channels.is_some() {
            bail_input!("--channels chooses the width of a preset, but --network {name} is a file");
        }
        parse_strict::<NetworkFile>(&text, name)
    }

    /// Applies every option that was given.
    fn change(&self, config: &mut Config) {
        fn set<V: Clone>(target: &mut V, given: &Option<V>) {
            if let Some(value) = given {
                *target = value.clone();
            }
        }
        fn set_pair(target: &mut [f64; 2], given: &Option<Vec<f64>>) {
            if let Some(&[first, last]) = given.as_deref() {
                *target = [first, last];
            }
        }
        set(&mut config.seed, &self.seed);
        let network = &mut config.network;
        set(&mut network.steps, &self.steps);
        if let Some(norm) = self.norm {
            network.set_conv_norm(norm);
        }
        let neuron = &mut network.neuron;
        set(&mut neuron.model, &self.neuron);
        set(&mut neuron.tau, &self.tau);
        set(&mut neuron.threshold, &self.threshold);
        set(&mut neuron.reset, &self.reset);
        set(&mut neuron.detach_reset, &self.detach_reset);
        if let Some(kind) = self.surrogate {
            network.surrogate = Surrogate::new(kind);
        }
        if self.sharpness.is_some() {
            network.surrogate.sharpness = self.sharpness;
        }
        let bounds = &mut config.bounds;
        set(&mut bounds.mode, &self.bounds);
        set(&mut bounds.schedule, &self.bounds_schedule);
        set_pair(&mut bounds.left, &self.left);
        set_pair(&mut bounds.right, &self.right);
        set(&mut bounds.alpha, &self.alpha);
        set_pair(&mut bounds.target, &self.target);
        bounds.per_channel |= self.per_channel;
        let training = &mut config.training;
        set(&mut training.epochs, &self.epochs);
        set(&mut training.batch, &self.batch);
        if let Some(optimizer) = self.optimizer.filter(|&o| o != training.optimizer) {
            training.optimizer = optimizer;
            training.learning_rate = usual_rate(optimizer);
        }
        set(&mut training.learning_rate, &self.learning_rate);
        set(&mut training.weight_decay, &self.weight_decay);
        set(&mut training.momentum, &self.momentum);
        set(&mut training.rate_schedule, &self.rate_schedule);
        set(&mut training.warmup, &self.warmup);
        set(&mut training.clip, &self.clip);
        set(&mut training.checkpoint_every, &self.checkpoint_every);
        set(&mut config.loss.mse, &self.mse);
        set(&mut config.loss.label_smoothing, &self.label_smoothing);
        config.loss.tet |= self.tet;
        set(&mut config.data.augmentation.crop_padding, &self.crop);
        config.data.augmentation.flip |= self.flip;
        set(&mut config.data.validation, &self.validation);
        set(&mut config.data.limit, &self.limit);
    }
}

fn usual_rate(optimizer: Optimizer) -> f64 {
    match optimizer {
        Optimizer::Sgd => 0.1,
        Optimizer::Adam | Optimizer::Adamw => 0.001,
    }
}

/// What is trained when nothing is said.
fn defaults(data: DataSpec, set: &Dataset, channels: Option<usize>) -> Result<Config> {
    let preset = match data.source {
        DataSource::Digits => Preset::Digits,
        DataSource::Frames => Preset::DvsGestureNet,
        _ => Preset::Conv2,
    };
    let training = match data.source {
        DataSource::Digits => TrainingSpec { batch: 32, ..TrainingSpec::default() },
        _ => TrainingSpec::default(),
    };
    let network = preset_network(preset, set, channels)?;
    Ok(Config { seed: 0, data, training, loss: LossSpec::default(), bounds: BoundsSpec::default(), network })
}

/// A preset fitted to the data: frames set the input and the steps.
fn preset_network(preset: Preset, data: &Dataset, channels: Option<usize>) -> Result<NetworkSpec> {
    if channels.is_some() && preset == Preset::Vgg11 {
        bail_input!("--channels does not apply to vgg11, whose widths are fixed");
    }
    let shape = data.train.shape;
    let volume = Volume { h: shape.height, w: shape.width, c: shape.channels };
    let mut network = preset.network(volume, data.classes(), channels);
    if shape.frames > 1 {
        (network.input, network.steps) = (InputMode::Frames, shape.frames);
    } else {
        network.input = InputMode::Direct;
    }
    Ok(network)
}

pub fn run(arguments: TrainArguments) -> Result<End> {
    let backend = arguments.device.open()?;
    let (run, trainer, data) = match &arguments.resume {
        Some(folder) => {
            let (run, config, mut data) = resumed(folder.clone(), &arguments)?;
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
    train(trainer, run, data, &arguments)
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

fn train(mut trainer: Trainer<Cpu>, run: Run, data: Dataset, arguments: &TrainArguments) -> Result<End> {
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
        trainer.check_progress(&progress, &run.state())?;
        load_state(&state, &mut trainer.model, &mut trainer.tracker)?;
        epochs = run.read_metrics(progress.epoch)?;
        trainer.progress = progress;
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
fn introduce(trainer: &Trainer<Cpu>, run: &Run, source: &str) -> Result<()> {
    let (training, held_out) = trainer.split();
    let memory = trainer.model.memory();
    say(format!("device   {}", trainer.model.backend().describe()))?;
    say(format!(
        "data     {} ({source}): {training} to train on, {held_out} held out",
        trainer.config.data.source.name()
    ))?;
    say(format!("network  {}, {} parameters", trainer.title(), trainer.model.plan().parameters()))?;
    say(format!(
        "memory   {}: parameters {}, spikes and windows {}, currents {}, activations {}",
        megabytes(memory.total()),
        megabytes(memory.parameters),
        megabytes(memory.bits),
        megabytes(memory.currents),
        megabytes(memory.activations)
    ))?;
    let resumed = match (trainer.progress.epoch, trainer.progress.step) {
        (0, 0) => String::new(),
        (epoch, step) => format!(" (continued behind epoch {epoch}, step {step})"),
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
