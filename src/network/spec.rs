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

/// One layer. `conv` and `linear` layers are followed by neurons; pools and dropouts act on their spikes.
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
    },
    /// Fully connected over the flattened input (in C, H, W order), norm, neurons.
    Linear {
        features: usize,
        #[serde(flatten)]
        synapse: Synapse,
    },
    /// Maximum of spikes: a bitwise OR. Directly after `conv` or `linear`.
    MaxPool {
        kernel: Extent,
        /// The kernel's extent if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Extent>,
        #[serde(default = "zero")]
        padding: Extent,
    },
    /// Mean of spikes: dense values. Directly after `conv` or `linear`.
    AvgPool {
        kernel: Extent,
        /// The kernel's extent if absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stride: Option<Extent>,
    },
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
}

/// The weight norm's scale `s` \[ours: the value of the first trials\].
pub const WEIGHT_SCALE: f32 = 2.5;

impl Default for Synapse {
    fn default() -> Self {
        Self { bias: None, norm: Norm::None, norm_gain: 1.0, weight_scale: WEIGHT_SCALE }
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
fn no_norm() -> Norm {
    Norm::None
}
fn unit() -> f32 {
    1.0
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

    /// Sets the norm of every `conv` layer; with weight norm, which has a bias itself, an explicit `bias = true` is dropped.
    pub fn set_conv_norm(&mut self, norm: Norm) {
        for layer in &mut self.layers {
            if let LayerSpec::Conv { synapse, .. } = layer {
                synapse.norm = norm;
                if norm == Norm::Weight {
                    synapse.bias = synapse.bias.filter(|&bias| !bias);
                }
            }
        }
    }
}
