//! Options of `adali train` and the configuration they make.

use super::data::{DataOptions, FrameOptions, load_data};
use super::options::DeviceOptions;
use super::sample_options::{SampleOptions, set};
use crate::autotune::BoundsMode;
use crate::bail_input;
use crate::data::Dataset;
use crate::network::presets::{Preset, Size};
use crate::network::spec::{NetworkSpec, Norm};
use crate::neuron::{NeuronModel, ResetKind};
use crate::surrogate::{Schedule, Surrogate, SurrogateKind};
use crate::train::Config;
use crate::train::config::DataSpec;
use crate::train::defaults::{defaults, network_file, preset_network, usual_preset, usual_rate};
use crate::train::optimizer::{MemoryUse, Optimizer, RateSchedule};
use crate::train::recipes::Recipe;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

const RUN: &str = "Run";
const NETWORK: &str = "Network";
const SURROGATE: &str = "Surrogate and AdaLi's bounds (in units of the threshold)";
const TRAINING: &str = "Training";
/// Options that a run's own configuration already fixes: given with `--resume`, they would be ignored.
pub const NOT_WITH_RESUME: &[&str] = &[
    "data",
    "config",
    "out",
    "force",
    "seed",
    "network",
    "channels",
    "blocks",
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
    "gain",
    "per_channel",
    "pooled",
    "recipe",
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
    "roll",
    "drop",
    "resized_crop",
    "auto_augment",
    "cutout",
    "image_size",
    "mixup",
    "mean",
    "std",
    "frames_by",
    "downsample",
    "sensor",
    "stream",
    "split",
    "validation",
    "limit",
    "checkpoint_every",
    "memory",
];

#[derive(Args)]
pub struct TrainArguments {
    #[command(flatten)]
    pub data: DataOptions,
    #[command(flatten)]
    pub device: DeviceOptions,

    /// Start from this configuration (TOML); other options change it [default: none].
    ///
    /// The config.toml of a run folder repeats that run exactly. docs/configuration.md lists every key.
    #[arg(long, value_name = "FILE", help_heading = RUN)]
    config: Option<PathBuf>,
    /// Start from an experiment of the AdaLi authors; other options change it [default: none].
    ///
    /// A recipe sets data, augmentation, network, neurons, batch, rate and loss, but not --epochs and --data-dir. The
    /// config.toml of the run shows every value. docs/authors.md says where ours differ from theirs.
    #[arg(long, value_name = "NAME", help_heading = RUN, conflicts_with = "config")]
    recipe: Option<Recipe>,
    /// Run folder to write [default: runs/DATA-1, -2, …].
    #[arg(long, value_name = "FOLDER", help_heading = RUN)]
    pub out: Option<PathBuf>,
    /// Overwrite the run in --out.
    #[arg(long, help_heading = RUN)]
    pub force: bool,
    /// Continue the interrupted run in this folder, with its own settings [default: a new run].
    #[arg(long, value_name = "FOLDER", help_heading = RUN, conflicts_with_all = NOT_WITH_RESUME)]
    pub resume: Option<PathBuf>,
    /// Seed of everything that is random [default: 0].
    ///
    /// It decides the weights, the order of samples, the held-out samples, augmentation and dropout.
    #[arg(long, help_heading = RUN)]
    seed: Option<u64>,
    /// Print the result as one line of JSON and nothing else.
    #[arg(long, help_heading = RUN)]
    pub json: bool,

    /// Preset, such as conv2, vgg11 or resnet18-cifar, or a TOML file [default: by the data].
    ///
    /// The default is digits for digits, conv2 for other images and n-mnist, dvs-gesture-net for frames and dvs-gesture, and
    /// vgg11 for cifar10-dvs. Further presets: csnn, vggsnn, resnet18-cifar, resnet18-preact, resnet19, sew-resnet18,
    /// sew-resnet34, ms-resnet18, ms-resnet34, nf-resnet34; see docs/networks.md. A file holds steps, input and layers;
    /// docs/configuration.md lists every key.
    #[arg(long, value_name = "PRESET|FILE", help_heading = NETWORK)]
    network: Option<String>,
    #[command(flatten, next_help_heading = NETWORK)]
    size: Size,
    /// Time steps T, and frames of a recording of events [default: that of the preset; 16 for recordings].
    #[arg(long, value_name = "T", help_heading = NETWORK)]
    steps: Option<usize>,
    /// Normalisation of every convolution [default: that of the network].
    #[arg(long, value_enum, help_heading = NETWORK)]
    norm: Option<Norm>,
    /// Neuron model [default: that of the network; lif in files].
    #[arg(long, value_enum, help_heading = NETWORK)]
    neuron: Option<NeuronModel>,
    /// Time constant of LIF neurons, in steps [default: that of the network; 2 in files].
    #[arg(long, help_heading = NETWORK)]
    tau: Option<f32>,
    /// Firing threshold [default: that of the network; 1 in files].
    #[arg(long, help_heading = NETWORK)]
    threshold: Option<f32>,
    /// What a spike does to the membrane [default: that of the network; soft in files].
    #[arg(long, value_enum, help_heading = NETWORK)]
    reset: Option<ResetKind>,
    /// Treat the reset as a constant in the backward pass [default: that of the network; false in files].
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", help_heading = NETWORK)]
    detach_reset: Option<bool>,

    /// Slope that stands in for the spike's derivative [default: adali].
    #[arg(long, value_enum, help_heading = SURROGATE)]
    surrogate: Option<SurrogateKind>,
    /// Sharpness k of the surrogate [default: as --surrogate says].
    #[arg(long, value_name = "K", help_heading = SURROGATE)]
    sharpness: Option<f32>,
    /// What sets AdaLi's bounds [default: manual].
    #[arg(long, value_enum, help_heading = SURROGATE)]
    bounds: Option<BoundsMode>,
    /// How manual bounds move from W0 to W1 [default: log].
    #[arg(long, value_enum, help_heading = SURROGATE)]
    bounds_schedule: Option<Schedule>,
    /// Left bound, first and last [default: 1.5 0.3].
    #[arg(long, num_args = 2, value_names = ["W0", "W1"], help_heading = SURROGATE)]
    left: Option<Vec<f64>>,
    /// Right bound, first and last [default: 1.5 0.3].
    #[arg(long, num_args = 2, value_names = ["W0", "W1"], help_heading = SURROGATE)]
    right: Option<Vec<f64>>,
    /// Weight of the left side; the right side gets the rest [default: 0.5].
    #[arg(long, help_heading = SURROGATE)]
    alpha: Option<f64>,
    /// Share of membrane potentials that automatic bounds keep inside, first and last [default: 0.4 0.4].
    #[arg(long, num_args = 2, value_names = ["P0", "P1"], help_heading = SURROGATE)]
    target: Option<Vec<f64>>,
    /// Scale AdaLi's slopes so that their mean square follows the log schedule from W0 to W1, independently of
    /// the bounds; a control for experiments [default: no scaling].
    #[arg(long, num_args = 2, value_names = ["W0", "W1"], help_heading = SURROGATE)]
    gain: Option<Vec<f64>>,
    /// Separate bounds for every channel [default: for every layer].
    #[arg(long, help_heading = SURROGATE)]
    per_channel: bool,
    /// One window for the whole network, from the potentials of all layers together [default: one per layer].
    #[arg(long, conflicts_with = "per_channel", help_heading = SURROGATE)]
    pooled: bool,

    /// Epochs [default: 20].
    #[arg(long, help_heading = TRAINING)]
    epochs: Option<u32>,
    /// Samples per batch [default: 64; 32 for digits and dvs-gesture].
    #[arg(long, help_heading = TRAINING)]
    batch: Option<usize>,
    /// Optimiser [default: sgd].
    #[arg(long, value_enum, help_heading = TRAINING)]
    optimizer: Option<Optimizer>,
    /// Peak learning rate [default: 0.1 for sgd, 0.001 for adam and adamw].
    #[arg(long, value_name = "RATE", help_heading = TRAINING)]
    learning_rate: Option<f64>,
    /// Weight decay [default: 0.0001].
    #[arg(long, help_heading = TRAINING)]
    weight_decay: Option<f64>,
    /// Momentum of SGD [default: 0.9].
    #[arg(long, help_heading = TRAINING)]
    momentum: Option<f64>,
    /// How the learning rate moves [default: cosine].
    #[arg(long, value_enum, help_heading = TRAINING)]
    rate_schedule: Option<RateSchedule>,
    /// Epochs over which the learning rate rises [default: 0].
    #[arg(long, value_name = "EPOCHS", help_heading = TRAINING)]
    warmup: Option<f64>,
    /// Scale gradients down to this norm; 0 for never [default: 0].
    #[arg(long, value_name = "NORM", help_heading = TRAINING)]
    clip: Option<f64>,
    /// Weight of the mean squared error in the loss [default: 0; 0.05 for recordings of events].
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    mse: Option<f64>,
    /// Label smoothing of the cross-entropy [default: 0].
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    label_smoothing: Option<f64>,
    /// Temporal efficient training: the loss of every step, averaged [default: the loss of the average].
    #[arg(long, help_heading = TRAINING)]
    tet: bool,
    #[command(flatten)]
    samples: SampleOptions,
    #[command(flatten)]
    frames: FrameOptions,
    /// Share of the training samples in use that is held out to choose the best epoch [default: 0.1].
    #[arg(long, value_name = "SHARE", help_heading = TRAINING)]
    validation: Option<f64>,
    /// Train on only this many samples; the held-out set shrinks in proportion; 0 for all [default: 0].
    #[arg(long, value_name = "N", help_heading = TRAINING)]
    limit: Option<usize>,
    /// Steps between extra checkpoints within an epoch; 0 for none [default: 0].
    #[arg(long, value_name = "STEPS", help_heading = TRAINING)]
    checkpoint_every: Option<u32>,
    /// Keep the currents for the backward pass, or compute them again [default: full].
    ///
    /// With low, a step takes less memory and more time, and gives the same result. It is about the currents before a batch
    /// norm and those of surrogates that need the membrane potential; docs/results.md has figures.
    #[arg(long, value_enum, help_heading = TRAINING)]
    memory: Option<MemoryUse>,
}

impl TrainArguments {
    /// The configuration to start from, and its data.
    pub fn configure(&self) -> Result<(Config, Dataset)> {
        let given = self.config.as_deref().map(Config::read).transpose()?;
        let spec = given.as_ref().map(|c| c.data.clone()).unwrap_or_default();
        self.configure_onto(spec, |usual| Ok(given.unwrap_or(usual)))
    }

    /// Like [`TrainArguments::configure`], but `base` makes the starting configuration from the default one
    /// for the samples of `spec`.
    pub fn configure_onto(
        &self,
        mut spec: DataSpec,
        base: impl FnOnce(Config) -> Result<Config>,
    ) -> Result<(Config, Dataset)> {
        if let Some(recipe) = self.recipe {
            spec = recipe.data();
        }
        if let Some(source) = self.data.data {
            spec = DataSpec { source, dir: None, ..spec };
        }
        // Absolute, so that the configuration works from any folder.
        spec.dir = self.data.data_dir.as_ref().map(|dir| dir.canonicalize().unwrap_or(dir.clone())).or(spec.dir);
        spec.cache_dir = self.data.cache_dir.clone();
        spec.image_size = self.samples.image_size(&spec)?;
        spec.events = self.frames.integration(&spec, self.steps)?;
        let data = load_data(&spec)?;
        if !self.size.is_usual() && self.network.is_none() && self.config.is_some() {
            bail_input!("--channels and --blocks choose the size of a preset; name the preset with --network");
        }
        // The default network may not fit if another one is named.
        let usual = || self.recipe.map_or_else(|| usual_preset(spec.source), Recipe::preset);
        let mut network = match &self.network {
            Some(name) => self.network(name, &data)?,
            None => preset_network(usual(), &data, &self.size)?,
        };
        let is_usual = self.network.as_deref().is_none_or(|name| Preset::from_str(name, true) == Ok(usual()));
        if let Some(recipe) = self.recipe.filter(|_| is_usual) {
            recipe.adapt(&mut network);
        }
        let mut usual = defaults(spec.clone(), network);
        if let Some(recipe) = self.recipe {
            recipe.apply(&mut usual);
        }
        let network = self.network.is_some().then(|| usual.network.clone());
        let mut config = Config { data: spec, ..base(usual)? };
        if let Some(network) = network {
            config.network = network;
        }
        self.change(&mut config);
        Ok((config, data))
    }

    /// The files that determine what to train.
    pub fn inputs(&self) -> Vec<&Path> {
        let network = self.network.as_deref().map(Path::new).filter(|path| path.is_file());
        self.config.as_deref().into_iter().chain(network).collect()
    }

    /// Whether `--surrogate` or `--sharpness` is given.
    pub fn chooses_surrogate(&self) -> bool {
        self.surrogate.is_some() || self.sharpness.is_some()
    }

    /// Whether `--seed` is given.
    pub fn chooses_seed(&self) -> bool {
        self.seed.is_some()
    }

    fn network(&self, name: &str, data: &Dataset) -> Result<NetworkSpec> {
        if let Ok(preset) = Preset::from_str(name, true) {
            return preset_network(preset, data, &self.size);
        }
        let network = network_file(name)?;
        if !self.size.is_usual() {
            bail_input!("--channels and --blocks choose the size of a preset, but --network {name} is a file");
        }
        Ok(network)
    }

    /// Applies every option that was given.
    fn change(&self, config: &mut Config) {
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
        if let Some(gain) = &self.gain {
            bounds.gain = Some([gain[0], gain[1]]);
        }
        bounds.per_channel |= self.per_channel;
        bounds.pooled |= self.pooled;
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
        set(&mut training.memory, &self.memory);
        set(&mut config.loss.mse, &self.mse);
        set(&mut config.loss.label_smoothing, &self.label_smoothing);
        config.loss.tet |= self.tet;
        self.samples.change(&mut config.data);
        set(&mut config.data.validation, &self.validation);
        set(&mut config.data.limit, &self.limit);
    }
}
