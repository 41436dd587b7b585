//! Networks by name.

mod residual;

use crate::backend::shape::{Extent, Volume};
use crate::bail_input;
use crate::data::SampleShape;
use crate::network::spec::{InputMode, LayerSpec, Links, NetworkSpec, Norm, Synapse};
use crate::neuron::{NeuronModel, NeuronSpec, ResetKind};
use crate::surrogate::{Surrogate, SurrogateKind};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// A network by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Preset {
    /// Two convolutions for the built-in 8x8 digits.
    Digits,
    /// SpikingJelly's Fashion-MNIST network: two convolutions of 128, IF neurons, two fully connected layers, T = 4.
    Csnn,
    /// Two convolutions of `--channels` with LIF neurons and max-pools, a linear readout, T = 4.
    Conv2,
    /// VGG-11 as the AdaLi authors use it, with average pools and batch norm, but for the readout's input.
    Vgg11,
    /// SpikingJelly's network for DVS128 Gesture: five convolutions, two fully connected layers, voting.
    DvsGestureNet,
    /// VGG of event-based studies: eight convolutions with average pools, T = 10.
    Vggsnn,
    /// ResNet-18 for small images, as the AdaLi authors use it for CIFAR-10: IF neurons, spikes added to currents.
    Resnet18Cifar,
    /// ResNet-18 with norms before the neurons, as the AdaLi authors use it for CIFAR-100: IF neurons.
    Resnet18Preact,
    /// ResNet-19 of studies on CIFAR: three stages of 128 to 512 channels and two fully connected layers.
    Resnet19,
    /// SEW-ResNet-18: each block adds its spikes to those before it; hard, detached resets, IF neurons.
    SewResnet18,
    /// SEW-ResNet-34.
    SewResnet34,
    /// MS-ResNet-18: each block adds its currents to those before it.
    MsResnet18,
    /// MS-ResNet-34.
    MsResnet34,
    /// ResNet-34 without normalised activations, as the AdaLi authors use it for Tiny-ImageNet: IF neurons, standardised
    /// weights, and currents that only the blocks' neurons turn into spikes.
    NfResnet34,
}

/// Width and depth of a preset; what is absent is as usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct Size {
    /// Width of the preset's convolutions [default: that of the preset].
    #[cfg_attr(feature = "cli", arg(long, value_name = "C"))]
    pub channels: Option<usize>,
    /// Depth of a residual preset: the blocks of each stage, such as 2,2,2,2 [default: those of the preset].
    #[cfg_attr(feature = "cli", arg(long, value_name = "N,N,...", value_delimiter = ','))]
    pub blocks: Option<Vec<usize>>,
}

/// The most stages of a residual preset, whose widths double from one to the next.
const MOST_STAGES: usize = 6;
/// The most blocks of a stage.
const MOST_BLOCKS: usize = 256;

impl Size {
    /// The usual depth, but this width.
    pub fn wide(channels: usize) -> Self {
        Self { channels: Some(channels), ..Self::default() }
    }

    /// Whether neither is given.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Refuses what a preset cannot be.
    ///
    /// # Errors
    /// A sentence that says which of its sizes can be chosen.
    pub fn check(&self, preset: Preset) -> Result<()> {
        if let Some(channels) = self.channels.filter(|_| preset == Preset::Vgg11) {
            bail_input!(
                "--channels {channels} does not apply to the network vgg11, whose widths are fixed; choose another with --network"
            );
        }
        let Some(blocks) = &self.blocks else { return Ok(()) };
        if preset.blocks().is_none() {
            bail_input!(
                "--blocks is for residual networks, such as resnet18-cifar; leave it out, or choose one of them"
            );
        }
        if !(1..=MOST_STAGES).contains(&blocks.len()) || blocks.iter().any(|count| !(1..=MOST_BLOCKS).contains(count)) {
            bail_input!(
                "--blocks needs 1 to {MOST_STAGES} numbers between 1 and {MOST_BLOCKS}, such as 2,2,2,2, not {blocks:?}"
            );
        }
        Ok(())
    }
}

impl Preset {
    /// The extents and the number of classes of the data that it is usually trained on.
    pub fn usual_samples(self) -> (SampleShape, usize) {
        let (frames, side, channels, classes) = match self {
            Self::Digits => (1, 8, 1, 10),
            Self::Csnn | Self::Conv2 => (1, 28, 1, 10),
            Self::Vgg11 => (16, 48, 2, 10),
            Self::DvsGestureNet => (16, 128, 2, 11),
            Self::Vggsnn => (10, 48, 2, 10),
            Self::Resnet18Cifar | Self::Resnet18Preact | Self::Resnet19 => (1, 32, 3, 10),
            Self::NfResnet34 => (1, 224, 3, 200),
            Self::SewResnet18 | Self::SewResnet34 | Self::MsResnet18 | Self::MsResnet34 => (1, 224, 3, 1000),
        };
        (SampleShape { frames, height: side, width: side, channels }, classes)
    }

    /// Blocks of the stages of a residual network.
    pub fn blocks(self) -> Option<&'static [usize]> {
        match self {
            Self::Digits | Self::Csnn | Self::Conv2 | Self::Vgg11 | Self::DvsGestureNet | Self::Vggsnn => None,
            Self::Resnet18Cifar | Self::Resnet18Preact | Self::SewResnet18 | Self::MsResnet18 => Some(&[2, 2, 2, 2]),
            Self::SewResnet34 | Self::MsResnet34 | Self::NfResnet34 => Some(&[3, 4, 6, 3]),
            Self::Resnet19 => Some(&[3, 3, 2]),
        }
    }

    /// The network for samples of extent `input` in `classes` classes.
    ///
    /// `channels` replaces the width of the convolutions of `digits` (32), `conv2` (32), `csnn` (128) and
    /// `dvs-gesture-net` (128), and that of the first stage of the others (64; `resnet19` 128), whose further stages are
    /// multiples of it; `blocks` replaces the depth of residual ones. Call [`Size::check`] first: what a preset does not have
    /// is not used. ResNets begin with a 7x7 convolution of stride 2 for inputs of at least 64x64 pixels, else with a
    /// 3x3 one of stride 1.
    pub fn network(self, input: Volume, classes: usize, size: &Size) -> NetworkSpec {
        let width = |usual: usize| size.channels.unwrap_or(usual);
        let (blocks, stem) = (size.blocks.as_deref().or(self.blocks()).unwrap_or_default(), residual::Stem::of(input));
        let lif = NeuronSpec::default();
        let hard = NeuronSpec { reset: ResetKind::Hard, ..lif };
        let batch = Synapse::with_norm(Norm::Batch);
        match self {
            Self::Digits | Self::Conv2 => {
                let mut layers = Vec::new();
                for _ in 0..2 {
                    layers.extend([conv3(width(32), batch), max_pool2()]);
                }
                layers.push(readout(classes, true));
                network(4, InputMode::Direct, lif, layers)
            }
            Self::Csnn => {
                let neuron = NeuronSpec { model: NeuronModel::If, ..hard };
                let mut layers = Vec::new();
                for _ in 0..2 {
                    layers.extend([conv3(width(128), batch), max_pool2()]);
                }
                layers.push(LayerSpec::Linear { features: 2048, synapse: no_bias(), links: Links::default() });
                layers.push(LayerSpec::Readout { classes, spiking: true, vote: 1, synapse: no_bias() });
                network(4, InputMode::Direct, neuron, layers)
            }
            Self::Vgg11 => {
                let mut layers = Vec::new();
                for block in [&[64][..], &[128], &[256, 256], &[512, 512], &[512, 512]] {
                    layers.extend(block.iter().map(|&channels| biased_conv3(channels)));
                    layers.push(avg_pool(Extent::square(2)));
                }
                // With the authors' 48x48 pixels the last pool leaves one pixel, which they repeat 49 times for the readout;
                // here a larger pool leaves one pixel of any extent, and the readout reads it once.
                let last = |extent: usize| (extent / 16 / 2 * 2).max(1);
                *layers.last_mut().expect("blocks were just pushed") =
                    avg_pool(Extent { h: last(input.h), w: last(input.w) });
                layers.push(readout(classes, true));
                network(4, InputMode::Direct, lif, layers)
            }
            Self::DvsGestureNet => {
                let mut layers = Vec::new();
                for _ in 0..5 {
                    layers.extend([conv3(width(128), batch), max_pool2()]);
                }
                layers.push(LayerSpec::Dropout { probability: 0.5 });
                layers.push(LayerSpec::Linear { features: 512, synapse: Synapse::default(), links: Links::default() });
                layers.push(LayerSpec::Dropout { probability: 0.5 });
                layers.push(LayerSpec::Readout { classes, spiking: true, vote: 10, synapse: Synapse::default() });
                network(16, InputMode::Frames, NeuronSpec { detach_reset: true, ..hard }, layers)
            }
            Self::Vggsnn => {
                let base = width(64);
                let mut layers = Vec::new();
                for block in [&[1, 2][..], &[4, 4], &[8, 8], &[8, 8]] {
                    layers.extend(block.iter().map(|&multiple| biased_conv3(multiple * base)));
                    layers.push(avg_pool(Extent::square(2)));
                }
                layers.push(readout(classes, true));
                network(10, InputMode::Frames, NeuronSpec { decay_input: false, ..hard }, layers)
            }
            Self::Resnet18Cifar => residual::basic(classes, width(64), blocks, stem),
            Self::Resnet18Preact => residual::preact(classes, width(64), blocks, stem),
            Self::Resnet19 => residual::resnet19(classes, width(128), blocks, stem),
            Self::SewResnet18 | Self::SewResnet34 => residual::sew(classes, width(64), blocks, stem),
            Self::MsResnet18 | Self::MsResnet34 => residual::ms(classes, width(64), blocks, stem),
            Self::NfResnet34 => residual::nf(classes, width(64), blocks, stem),
        }
    }
}

fn network(steps: usize, input: InputMode, neuron: NeuronSpec, layers: Vec<LayerSpec>) -> NetworkSpec {
    NetworkSpec { steps, input, neuron, surrogate: Surrogate::new(SurrogateKind::Adali), layers }
}

/// A 3x3 convolution that keeps the extent.
fn conv3(channels: usize, synapse: Synapse) -> LayerSpec {
    let (kernel, one) = (Extent::square(3), Extent::square(1));
    LayerSpec::Conv { channels, kernel, stride: one, padding: one, synapse, links: Links::default() }
}

/// The same with a batch norm and a bias before it.
fn biased_conv3(channels: usize) -> LayerSpec {
    conv3(channels, Synapse { bias: Some(true), ..Synapse::with_norm(Norm::Batch) })
}

fn max_pool2() -> LayerSpec {
    LayerSpec::MaxPool { kernel: Extent::square(2), stride: None, padding: Extent::square(0) }
}

fn avg_pool(kernel: Extent) -> LayerSpec {
    LayerSpec::AvgPool { kernel, stride: None, padding: Extent::square(0) }
}

fn no_bias() -> Synapse {
    Synapse { bias: Some(false), ..Synapse::default() }
}

/// A linear readout: the mean of its output over the steps.
fn readout(classes: usize, bias: bool) -> LayerSpec {
    LayerSpec::Readout { classes, spiking: false, vote: 1, synapse: Synapse { bias: Some(bias), ..Synapse::default() } }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Plan;
    use clap::ValueEnum;

    #[test]
    fn every_preset_fits_its_usual_samples() {
        for preset in Preset::value_variants() {
            let (shape, classes) = preset.usual_samples();
            let input = Volume { h: shape.height, w: shape.width, c: shape.channels };
            let plan = Plan::new(&preset.network(input, classes, &Size::default()), input);
            assert_eq!(plan.unwrap_or_else(|error| panic!("{preset:?}: {error}")).classes, classes);
        }
    }

    #[test]
    fn every_preset_takes_every_norm() {
        let input = Volume { h: 32, w: 32, c: 2 };
        let mut cases = 0;
        for preset in Preset::value_variants() {
            for norm in [Norm::Batch, Norm::Weight, Norm::None] {
                let mut network = preset.network(input, 11, &Size::default());
                network.set_conv_norm(norm);
                if (*preset, norm) == (Preset::NfResnet34, Norm::Batch) {
                    let error = Plan::new(&network, input).unwrap_err().to_string();
                    assert!(error.contains("scale and gain cannot be combined with a batch norm"), "{error}");
                    continue;
                }
                let plan = Plan::new(&network, input).unwrap_or_else(|error| panic!("{preset:?}, {norm:?}: {error}"));
                let convolutions: Vec<_> = plan.convolutions().filter(|convolution| !convolution.linear).collect();
                assert!(!convolutions.is_empty() && convolutions.iter().all(|stage| stage.synapse.norm == norm));
                // Without a norm nothing else moves a convolution's output.
                assert!(norm != Norm::None || convolutions.iter().all(|stage| stage.synapse.has_bias()), "{preset:?}");
                cases += 1;
            }
        }
        assert_eq!(cases, 3 * Preset::value_variants().len() - 1);
    }
}
