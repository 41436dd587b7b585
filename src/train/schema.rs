//! The keys of a configuration, a network and a plan: what each may hold, with the line number in errors.
//!
//! `docs/configuration.md` shows these tables, and a test compares them with the structs they describe.

mod check;

pub use check::check;

use crate::autotune::BoundsMode;
use crate::data::DataSource;
use crate::data::events::integrate::{FramesBy, Split};
use crate::data::events::options::Sensor;
use crate::network::spec::{Combination, Init, InputMode, Norm, Take, Variance};
use crate::neuron::{NeuronModel, ResetKind};
use crate::surrogate::{Schedule, SurrogateKind};
use crate::train::optimizer::{MemoryUse, Optimizer, RateSchedule};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use std::borrow::Cow;

/// What a key may hold.
#[derive(Clone, Copy)]
pub enum Kind {
    /// A whole number from 0 to this value.
    Whole(u64),
    Number,
    /// This many numbers.
    Numbers(usize),
    /// A number for each channel.
    PerChannel,
    Switch,
    Text,
    /// One of these words.
    Word(fn() -> &'static [&'static str]),
    /// A whole number, or two: height and width.
    Extent,
    /// Whole numbers.
    Seeds,
    Keys(&'static [Key]),
    /// Tables with these keys.
    Tables(&'static [Key]),
    /// Tables, whose key `type` determines the other keys.
    Layers,
    /// Tables with a name and the configuration keys that differ.
    Configurations,
}

/// Whether a key is required.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    Required,
    /// What applies if it is absent, for the user.
    Default(&'static str),
}

/// One key.
#[derive(Clone, Copy)]
pub struct Key {
    pub name: &'static str,
    pub kind: Kind,
    pub presence: Presence,
    /// One sentence for the user.
    pub about: &'static str,
}

/// A kind of file, or of text in place of one.
#[derive(Clone, Copy)]
pub enum Document {
    Configuration,
    Network,
    /// A configuration whose keys are all optional, and what differs from it.
    Plan,
}

const U32: Kind = Kind::Whole(u32::MAX as u64);
/// The largest whole number in TOML.
const COUNT: Kind = Kind::Whole(i64::MAX as u64);
const PAIR: Kind = Kind::Numbers(2);

const fn key(name: &'static str, kind: Kind, default: &'static str, about: &'static str) -> Key {
    Key { name, kind, presence: Presence::Default(default), about }
}

const fn required(name: &'static str, kind: Kind, about: &'static str) -> Key {
    Key { name, kind, presence: Presence::Required, about }
}

/// All keys of several lists.
const fn join<const N: usize>(lists: &[&[Key]]) -> [Key; N] {
    let mut all = [KERNEL; N];
    let (mut list, mut count) = (0, 0);
    while list < lists.len() {
        let mut i = 0;
        while i < lists[list].len() {
            all[count] = lists[list][i];
            (i, count) = (i + 1, count + 1);
        }
        list += 1;
    }
    assert!(count == N, "the array has as many keys as the lists");
    all
}

/// The words that an enum is read from.
pub(super) fn words<E: Deserialize<'static>>() -> &'static [&'static str] {
    let read = E::deserialize(IntoDeserializer::<Expected>::into_deserializer(""));
    read.err().map_or(&[], |Expected(words)| words)
}

/// What serde expected in place of a word that it does not know.
#[derive(Debug, thiserror::Error)]
#[error("expected one of {0:?}")]
struct Expected(&'static [&'static str]);

impl serde::de::Error for Expected {
    fn custom<T>(_: T) -> Self {
        Self(&[])
    }

    fn unknown_variant(_: &str, words: &'static [&'static str]) -> Self {
        Self(words)
    }
}

/// The tables of a configuration.
pub const CONFIGURATION: &[Key] = &[
    key("seed", COUNT, "0", "Decides weights, order of samples, held-out samples, augmentation and dropout."),
    key("data", Kind::Keys(DATA), "all of its defaults", "Which samples."),
    key("training", Kind::Keys(TRAINING), "all of its defaults", "Epochs, batches and the optimiser."),
    key("loss", Kind::Keys(LOSS), "all of its defaults", "What is minimised."),
    key("bounds", Kind::Keys(BOUNDS), "all of its defaults", "How AdaLi's bounds move; ignored by other surrogates."),
    required("network", Kind::Keys(NETWORK), "The network, with the keys of a network file."),
];

/// `[data]`.
pub const DATA: &[Key] = &[
    key("source", Kind::Word(words::<DataSource>), "digits", "The data set."),
    key("dir", Kind::Text, "where the data set usually is", "Folder of its files; for `frames`, the file."),
    key("validation", Kind::Number, "0.1", "Share of the training samples held out to choose the epoch, 0 to 0.5."),
    key("limit", COUNT, "0", "Train on only so many samples; 0 for all."),
    key("augmentation", Kind::Keys(AUGMENTATION), "all of its defaults", "How training samples are varied."),
    key(
        "mean",
        Kind::PerChannel,
        "that of the data set",
        "Subtracted from each channel; of images, values are 0 to 1.",
    ),
    key("std", Kind::PerChannel, "that of the data set", "What each channel is then divided by."),
    key(
        "image_size",
        U32,
        "that of the pictures",
        "Make pictures squares of this side: shorter side resized (bilinear), middle cut out.",
    ),
    key("events", Kind::Keys(EVENTS), "absent", "How recordings of events become frames; absent for other data."),
];

/// `[data.augmentation]`.
pub const AUGMENTATION: &[Key] = &[
    key("crop_padding", U32, "0", "Shift images by up to this many pixels; zeros come in."),
    key("flip", Kind::Switch, "false", "Mirror half of the images left to right."),
    key("roll", U32, "0", "Roll images by up to this many pixels: what leaves on one side comes back on the other."),
    key("drop", Kind::Number, "0.0", "Share of the values set to 0, below 1."),
    key(
        "resized_crop",
        Kind::Switch,
        "false",
        "Replace images by a random part, of 8 to 100 % of the area and 3/4 to 4/3 as wide as high, enlarged (bilinear).",
    ),
    key(
        "auto_augment",
        Kind::Switch,
        "false",
        "Apply AutoAugment's policy for CIFAR-10 to images, after crop and flip.",
    ),
    key(
        "cutout",
        U32,
        "0",
        "Set a square of this many pixels a side, anywhere in the image, to bytes of 0; the last step.",
    ),
    key(
        "mixup",
        Kind::Number,
        "0.0",
        "Mix samples in pairs, and the losses of their labels, by shares from Beta(mixup, mixup); 0 to 1.",
    ),
];

/// `[data.events]`.
pub const EVENTS: &[Key] = &[
    key("frames", COUNT, "16", "Frames of a sample, one for each of the network's steps."),
    key(
        "frames_by",
        Kind::Word(words::<FramesBy>),
        "count",
        "Split recordings into frames of equal event count or equal time.",
    ),
    key("downsample", COUNT, "1", "Sum events over squares of this many pixels per side."),
    key("sensor", Kind::Word(words::<Sensor>), "what the recordings say", "The chip of AEDAT 2.0 recordings."),
    key(
        "split",
        Kind::Word(words::<Split>),
        "name",
        "Which of CIFAR10-DVS train, in each class: the first nine of ten by name, or those with numbers below 900.",
    ),
    key("stream", U32, "the first", "Which of several streams of events, by the file's own number."),
];

/// `[training]`.
pub const TRAINING: &[Key] = &[
    key("epochs", U32, "20", "Epochs, 1 to 1000000."),
    key("batch", COUNT, "64", "Samples in a batch, 1 to 1048576."),
    key("optimizer", Kind::Word(words::<Optimizer>), "sgd", "Optimiser; each as PyTorch defines it."),
    key("learning_rate", Kind::Number, "0.1", "The learning rate at its highest, above 0."),
    key("momentum", Kind::Number, "0.9", "Momentum of `sgd`, below 1."),
    key("betas", PAIR, "[0.9, 0.999]", "Both betas of `adam` and `adamw`, below 1."),
    key("weight_decay", Kind::Number, "0.0001", "Weight decay."),
    key("rate_schedule", Kind::Word(words::<RateSchedule>), "cosine", "How the learning rate moves."),
    key("warmup", Kind::Number, "0.0", "Epochs over which the learning rate rises from 0."),
    key("clip", Kind::Number, "0.0", "Scale gradients down to this norm; 0 for never."),
    key("histogram_every", U32, "0", "Steps between counts of the membrane potentials; 0 for eight counts per epoch."),
    key("checkpoint_every", U32, "0", "Steps between extra checkpoints within an epoch; 0 for none."),
    key(
        "memory",
        Kind::Word(words::<MemoryUse>),
        "full",
        "Whether currents are kept for the backward pass, or computed again; the results are the same.",
    ),
];

/// `[loss]`.
pub const LOSS: &[Key] = &[
    key("mse", Kind::Number, "0.0", "Weight of the mean squared error, 0 to 1; cross-entropy has the rest."),
    key("label_smoothing", Kind::Number, "0.0", "Label smoothing of the cross-entropy, 0 to 1."),
    key("tet", Kind::Switch, "false", "Temporal efficient training: average the loss of every step."),
];

/// `[bounds]`.
pub const BOUNDS: &[Key] = &[
    key("mode", Kind::Word(words::<BoundsMode>), "manual", "What sets the bounds; `manual` is the schedule alone."),
    key("schedule", Kind::Word(words::<Schedule>), "log", "How bounds move from their first to their last value."),
    key("left", PAIR, "[1.5, 0.3]", "Left bound, first and last, in units of the threshold."),
    key("right", PAIR, "[1.5, 0.3]", "Right bound, first and last."),
    key("alpha", Kind::Number, "0.5", "Weight of the left side, between 0 and 1; the right side has the rest."),
    key("target", PAIR, "[0.4, 0.4]", "Share of potentials that automatic bounds keep inside, first and last."),
    key("momentum", Kind::Number, "0.3", "How far one update moves automatic bounds, above 0 and at most 1."),
    key("floor", Kind::Number, "0.25", "Smallest automatic bound."),
    key("ceiling", Kind::Number, "2.5", "Largest automatic bound, at most 4."),
    key(
        "gain",
        PAIR,
        "absent",
        "Scale the slopes so that their mean square follows the log schedule between these widths.",
    ),
    key("per_step", Kind::Switch, "false", "Follow the schedule at every step, not once per epoch."),
    key("update_every", U32, "0", "Steps between automatic updates; 0 for one at the end of each epoch."),
    key("per_channel", Kind::Switch, "false", "Bounds for every channel, not only for every layer."),
    key("pooled", Kind::Switch, "false", "One window for the whole network, from the potentials of all layers."),
    key("delay", Kind::Number, "0.0", "Epochs by which the schedule lags behind, at least 0."),
];

/// `[network]`, and a network file.
pub const NETWORK: &[Key] = &[
    required("steps", COUNT, "Time steps T."),
    required("input", Kind::Word(words::<InputMode>), "`direct` repeats one image; `frames` reads one frame per step."),
    key("neuron", Kind::Keys(NEURON), "all of its defaults", "The neurons of every layer."),
    key("surrogate", Kind::Keys(SURROGATE), "kind = \"adali\"", "The slope that stands for a spike's derivative."),
    required("layers", Kind::Layers, "The layers, one `[[network.layers]]` each; `[[layers]]` in a network file."),
];

/// `[network.neuron]`.
pub const NEURON: &[Key] = &[
    key("model", Kind::Word(words::<NeuronModel>), "lif", "Whether the membrane leaks."),
    key("tau", Kind::Number, "2.0", "Time constant of `lif` in steps, at least 1."),
    key("decay_input", Kind::Switch, "true", "Scale the input of `lif` by 1/tau."),
    key("threshold", Kind::Number, "1.0", "Firing threshold, above 0."),
    key(
        "reset",
        Kind::Word(words::<ResetKind>),
        "soft",
        "What a spike does to the membrane: subtract the threshold, or set it.",
    ),
    key("v_reset", Kind::Number, "0.0", "Where a hard reset leaves the membrane, below the threshold."),
    key("detach_reset", Kind::Switch, "false", "Treat the reset as a constant in the backward pass."),
];

/// `[network.surrogate]`.
pub const SURROGATE: &[Key] = &[
    required("kind", Kind::Word(words::<SurrogateKind>), "Which slope."),
    key("sharpness", Kind::Number, "that of the kind", "Sharpness k; adali and rectangle have none."),
];

const KERNEL: Key = required("kernel", Kind::Extent, "Rows and columns of the kernel.");
const PADDING: Key = key("padding", Kind::Extent, "0", "Zeros around the input.");
const POOL_STRIDE: Key = key("stride", Kind::Extent, "the kernel's extent", "Stride.");
const BIAS: Key = key("bias", Kind::Switch, "true without a norm, else false", "Whether the layer has a bias.");
const NORM: Key = key("norm", Kind::Word(words::<Norm>), "none", "What is done to the output before the neurons.");
const NORM_GAIN: Key =
    key("norm_gain", Kind::Number, "1.0", "First value of the norm's gain; the threshold here is tdBN.");
const WEIGHT_SCALE: Key = key("weight_scale", Kind::Number, "2.5", "Scale of the weight norm.");
const WEIGHT_VARIANCE: Key =
    key("weight_variance", Kind::Word(words::<Variance>), "population", "Variance that the weight norm divides by.");
const INIT: Key = key(
    "init",
    Kind::Word(words::<Init>),
    "pytorch",
    "First values of the weight: PyTorch's uniform ones; normal with standard deviation sqrt(2/fan_out), 1/fan_in or 0.01; \
     or 0. The bias starts at 0 with `small` and `zeros`.",
);
const STRIDE: Key = key("stride", Kind::Extent, "1", "Stride.");
const LAYER_NAME: Key = key("name", Kind::Text, "none", "Name by which later layers refer to this one.");
const FROM: Key = key("from", Kind::Text, "the layer above", "Name of the layer whose output it reads.");
const SHORTCUT_LIST: Key =
    key("shortcuts", Kind::Tables(SHORTCUTS), "none", "Up to two summands that are added to its currents.");
const SCALE: Key = key("scale", Kind::Number, "1.0", "Factor of this summand.");
const GAIN: Key = key("gain", Kind::Number, "none", "First value of a learned factor of the convolution's output.");
const NEURONS_FOLLOW: Key =
    key("neurons", Kind::Switch, "true", "Whether neurons follow; without them the output is the sum of its currents.");
const SUM_NORM: Key = key("sum_norm", Kind::Word(words::<Norm>), "none", "Norm of the sum: `batch` or `none`.");
const SUM_SCALE: Key = key("sum_scale", Kind::Number, "1.0", "Factor of the sum before the neurons.");
const COMBINE_WITH: Key =
    key("combine", Kind::Keys(COMBINE), "none", "Another layer's output that is combined with its spikes.");

/// A shortcut, in a layer's list `shortcuts`.
pub const SHORTCUTS: &[Key] = &[
    required("from", Kind::Text, "Name of the layer it comes from."),
    key("take", Kind::Word(words::<Take>), "spikes", "What it takes from there: its output, or its summed currents."),
    SCALE,
    key("pool", Kind::Extent, "none", "Average pool of this extent and stride before the convolution."),
    key("kernel", Kind::Extent, "none", "Kernel of a convolution; without it, values are added as they are."),
    STRIDE,
    PADDING,
    BIAS,
    NORM,
    NORM_GAIN,
    WEIGHT_SCALE,
    WEIGHT_VARIANCE,
    INIT,
    GAIN,
];

/// A layer's table `combine`.
pub const COMBINE: &[Key] = &[
    required("from", Kind::Text, "Name of the other layer."),
    required("with", Kind::Word(words::<Combination>), "Sum, both, or the other where this layer is silent."),
];

/// Keys of every layer with weights.
const SYNAPSE: [Key; 6] = [BIAS, NORM, NORM_GAIN, WEIGHT_SCALE, WEIGHT_VARIANCE, INIT];
/// Keys of every layer that is a population.
const LINKS: [Key; 7] = [LAYER_NAME, FROM, SHORTCUT_LIST, SCALE, SUM_NORM, SUM_SCALE, COMBINE_WITH];
const CONV: [Key; 19] = join(&[
    &[required("channels", COUNT, "Filters."), KERNEL, STRIDE, PADDING],
    &SYNAPSE,
    &LINKS,
    &[GAIN, NEURONS_FOLLOW],
]);
const LINEAR: [Key; 16] =
    join(&[&[required("features", COUNT, "Outputs.")], &SYNAPSE, &LINKS, &[GAIN, NEURONS_FOLLOW]]);
const NEURONS: [Key; 8] =
    join(&[&LINKS, &[key("neurons", Kind::Switch, "true", "False for a plain sum of what it reads.")]]);
const READOUT: [Key; 9] = join(&[
    &[
        required("classes", COUNT, "Classes."),
        key("spiking", Kind::Switch, "false", "Average the spikes of its neurons, not its output."),
        key("vote", COUNT, "1", "Number of outputs averaged per class."),
    ],
    &SYNAPSE,
]);

/// The types of layers and their keys, without `type` itself.
pub const LAYERS: &[(&str, &[Key])] = &[
    ("conv", &CONV),
    ("linear", &LINEAR),
    ("neurons", &NEURONS),
    ("max_pool", &[KERNEL, POOL_STRIDE, PADDING]),
    ("avg_pool", &[KERNEL, POOL_STRIDE, PADDING]),
    ("global_avg_pool", &[]),
    ("dropout", &[required("probability", Kind::Number, "Share of the values set to 0, below 1.")]),
    ("readout", &READOUT),
];

/// The keys of a plan in addition to those of a configuration.
pub const PLAN: &[Key] = &[
    key("seeds", Kind::Seeds, "[0, 1, 2]", "The seeds; every configuration is trained with each."),
    key("reach", Kind::Number, "0.9", "Report the epochs to this validation accuracy, above 0 and at most 1."),
    key(
        "command",
        Kind::Text,
        "absent",
        "The command that began the comparison; written by `adali compare`, for people.",
    ),
    required("configurations", Kind::Configurations, "What is compared: one `[[configurations]]` each."),
];

impl Kind {
    /// What is allowed, as the end of a sentence.
    pub fn allowed(&self) -> Cow<'static, str> {
        match *self {
            Self::Whole(most) if most == i64::MAX as u64 => "a whole number from 0".into(),
            Self::Whole(most) => format!("a whole number from 0 to {most}").into(),
            Self::Number => "a number".into(),
            Self::Numbers(count) => format!("a list of {count} numbers").into(),
            Self::PerChannel => "a list of numbers, one for each channel".into(),
            Self::Switch => "true or false".into(),
            Self::Text => "text in quotes".into(),
            Self::Word(words) => format!("one of {}", words().join(", ")).into(),
            Self::Extent => "a whole number from 0, or two of them: [height, width]".into(),
            Self::Seeds => "a list of whole numbers from 0; write seeds = [0, 1, 2]".into(),
            Self::Keys(_) => "a table".into(),
            Self::Tables(_) => "a list of tables".into(),
            Self::Layers => "a list of layers; write [[layers]] above the keys of each".into(),
            Self::Configurations => "a list of configurations; write [[configurations]] above the keys of each".into(),
        }
    }
}
