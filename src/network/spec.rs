//! Networks as they are written in TOML.

use crate::backend::shape::Extent;
use crate::neuron::NeuronSpec;
use crate::surrogate::{Surrogate, SurrogateKind};
use serde::{Deserialize, Serialize};

/// A network: how it reads its input, its neurons, and its layers in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkSpec {
    /// Time steps `T`.
    pub steps: usize,
    pub input: InputMode,
    #[serde(default)]
    pub neuron: NeuronSpec,
    #[serde(default = "adali")]
    pub surrogate: Surrogate,
    pub layers: Vec<LayerSpec>,
}

fn adali() -> Surrogate {
    Surrogate::new(SurrogateKind::Adali)
}

/// How a sample reaches the first layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum InputMode {
    /// An image is the same current at every step, so the first layer is computed once, not `T` times.
    Direct,
    /// A sample is `T` frames, one a step.
    Frames,
}

/// What is done to the output of a convolution or linear layer before its neurons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Norm {
    /// Batch normalisation, statistics over `T, N, H, W` per channel.
    #[cfg_attr(feature = "cli", value(help = "Batch normalisation, over time, samples and pixels of a channel"))]
    Batch,
    /// Scaled weight standardisation per filter: acts on the weights alone.
    Weight,
    None,
}

/// How a layer is connected to others than its neighbours.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Links {
    /// A name by which other layers refer to this one and to the pools and dropouts that follow it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The layer whose output it reads, instead of the one above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// What is added to its currents; at most two.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shortcuts: Vec<Shortcut>,
    /// Factor of its own currents among the summands.
    #[serde(default = "unit", skip_serializing_if = "is_unit")]
    pub scale: f32,
    /// The first value of a learned factor of its own currents, in addition to `scale`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f32>,
    /// Whether neurons follow. Without them the output is the sum of its currents.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub neurons: bool,
    /// A norm of the sum, before the neurons.
    #[serde(default = "no_norm", skip_serializing_if = "is_no_norm")]
    pub sum_norm: Norm,
    /// Factor of the sum before the neurons.
    #[serde(default = "unit", skip_serializing_if = "is_unit")]
    pub sum_scale: f32,
    /// The output of another layer that is combined with its spikes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub combine: Option<Combine>,
}

impl Default for Links {
    fn default() -> Self {
        Self {
            name: None,
            from: None,
            shortcuts: Vec::new(),
            scale: 1.0,
            gain: None,
            neurons: true,
            sum_norm: Norm::None,
            sum_scale: 1.0,
            combine: None,
        }
    }
}

/// One more summand of a layer's currents: another layer's spikes or currents, as they are or through a convolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Shortcut {
    /// The name of the layer it comes from.
    pub from: String,
    #[serde(default)]
    pub take: Take,
    /// Factor of the summand.
    #[serde(default = "unit", skip_serializing_if = "is_unit")]
    pub scale: f32,
    /// An average pool of this extent and stride before the convolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<Extent>,
    /// The convolution's kernel; without it, there is no convolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel: Option<Extent>,
    #[serde(default = "one")]
    pub stride: Extent,
    #[serde(default = "zero")]
    pub padding: Extent,
    /// Of the convolution.
    #[serde(flatten)]
    pub synapse: Synapse,
    /// The first value of a learned factor of the convolution's output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gain: Option<f32>,
}

/// What a shortcut takes from a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Take {
    /// Its output: the spikes, after any pool and dropout.
    #[default]
    Spikes,
    /// The sum of its currents, before `sum_norm`, `sum_scale` and the neurons.
    Currents,
}

/// Another layer's output, combined with a layer's spikes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Combine {
    /// The name of the other layer.
    pub from: String,
    pub with: Combination,
}

/// How two layers' outputs become one (Fang et al., "Deep residual learning in spiking neural networks", 2021).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Combination {
    /// The sum: small counts, stored as dense values.
    Add,
    /// Spikes where both spike.
    And,
    /// Spikes of the other where this layer is silent.
    Iand,
}

/// Which variance of a filter the weight norm divides by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Variance {
    /// The mean of squares, as in scaled weight standardisation.
    #[default]
    Population,
    /// The sum of squares over one less than the fan-in, as `torch.var`.
    Sample,
}

/// First values of a weight; a bias is drawn as PyTorch does, or 0 with `zeros` and `small`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Init {
    /// As PyTorch's layers: uniform in `±1/sqrt(fan_in)`.
    #[default]
    Pytorch,
    /// Normal with standard deviation `sqrt(2/fan_out)`, where `fan_out` is kernel extent times filters.
    FanOut,
    /// Normal with standard deviation `1/fan_in`.
    FanIn,
    /// Normal with standard deviation 0.01; the bias is 0.
    Small,
    /// All 0, the bias as well.
    Zeros,
}

/// One layer. `conv` and `linear` layers are followed by neurons, unless these are left out; pools and dropouts act on their
/// output.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum LayerSpec {
    /// Convolution, norm, neurons.
    Conv {
        channels: usize,
        kernel: Extent,
        #[serde(default = "one")]
        stride: Extent,
        #[serde(default = "zero")]
        padding: Extent,
        #[serde(flatten)]
        synapse: Synapse,
        #[serde(flatten)]
        links: Links,
    },
    /// Fully connected over the flattened input (in C, H, W order), norm, neurons.
    Linear {
        features: usize,
        #[serde(flatten)]
        synapse: Synapse,
        #[serde(flatten)]
        links: Links,
    },
    /// Neurons that receive another layer's output as it is.
    Neurons {
        #[serde(flatten)]
        links: Links,
    },
    /// Maximum of spikes: a bitwise OR. Directly after a layer with neurons.
    MaxPool {
        kernel: Extent,
        /// The kernel's extent if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Extent>,
        #[serde(default = "zero")]
        padding: Extent,
    },
    /// Mean of each window, where padding counts as 0: dense values. Directly after `conv`, `linear` or `neurons`.
    AvgPool {
        kernel: Extent,
        /// The kernel's extent if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Extent>,
        #[serde(default = "zero", skip_serializing_if = "is_zero")]
        padding: Extent,
    },
    /// Mean of all pixels. Directly after `conv`, `linear` or `neurons`.
    GlobalAvgPool,
    /// Zeroes a share of the values, the same ones at every step, and scales the others by `1/(1-p)`.
    Dropout {
        /// The share zeroed, in `[0, 1)`.
        probability: f32,
    },
    /// The last layer: a linear layer whose output, or whose neurons' spikes, are averaged over the steps.
    Readout {
        classes: usize,
        /// Average the spikes of its neurons instead of its output.
        #[serde(default)]
        spiking: bool,
        /// Each class is the mean of this many outputs.
        #[serde(default = "one_vote")]
        vote: usize,
        #[serde(flatten)]
        synapse: Synapse,
    },
}

/// What convolutions and linear layers have in common.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Synapse {
    /// Add a bias to the output. By default yes, unless a norm follows, which has its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<bool>,
    #[serde(default = "no_norm")]
    pub norm: Norm,
    /// Initial value of the norm's gain; `threshold` here is what tdBN does.
    #[serde(default = "unit")]
    pub norm_gain: f32,
    /// `s` of the weight norm.
    #[serde(default = "weight_scale")]
    pub weight_scale: f32,
    #[serde(default, skip_serializing_if = "is_default")]
    pub weight_variance: Variance,
    #[serde(default, skip_serializing_if = "is_default")]
    pub init: Init,
}

/// The weight norm's scale `s` \[ours: the value of the first trials\].
pub const WEIGHT_SCALE: f32 = 2.5;

impl Default for Synapse {
    fn default() -> Self {
        Self {
            bias: None,
            norm: Norm::None,
            norm_gain: 1.0,
            weight_scale: WEIGHT_SCALE,
            weight_variance: Variance::default(),
            init: Init::default(),
        }
    }
}

impl Synapse {
    /// A synapse with this norm and defaults otherwise.
    pub fn with_norm(norm: Norm) -> Self {
        Self { norm, ..Self::default() }
    }

    /// Whether the layer has a bias of its own.
    pub fn has_bias(&self) -> bool {
        self.bias.unwrap_or(self.norm == Norm::None)
    }
}

fn one() -> Extent {
    Extent::square(1)
}
fn zero() -> Extent {
    Extent::square(0)
}
fn one_vote() -> usize {
    1
}
fn is_zero(extent: &Extent) -> bool {
    *extent == zero()
}
fn yes() -> bool {
    true
}
fn is_yes(value: &bool) -> bool {
    *value
}
fn no_norm() -> Norm {
    Norm::None
}
fn unit() -> f32 {
    1.0
}
fn is_unit(value: &f32) -> bool {
    *value == 1.0
}
fn is_no_norm(norm: &Norm) -> bool {
    *norm == Norm::None
}
fn is_default<V: Default + PartialEq>(value: &V) -> bool {
    *value == V::default()
}
fn weight_scale() -> f32 {
    WEIGHT_SCALE
}

impl NetworkSpec {
    /// Classes of the readout, which is the last layer of every network.
    pub fn classes(&self) -> Option<usize> {
        match self.layers.last() {
            Some(LayerSpec::Readout { classes, .. }) => Some(*classes),
            _ => None,
        }
    }

    /// Sets the norm of every `conv` layer and of the convolutions of shortcuts; a norm of a sum stays. With weight norm, which has a bias itself, an explicit `bias = true` is dropped.
    pub fn set_conv_norm(&mut self, norm: Norm) {
        let set = |synapse: &mut Synapse| {
            synapse.norm = norm;
            if norm == Norm::Weight {
                synapse.bias = synapse.bias.filter(|&bias| !bias);
            }
        };
        for layer in &mut self.layers {
            if let LayerSpec::Conv { synapse, links, .. } = layer {
                set(synapse);
                links.shortcuts.iter_mut().filter(|s| s.kernel.is_some()).for_each(|s| set(&mut s.synapse));
            }
        }
    }
}
