//! Residual networks: stages of blocks, each of two 3x3 convolutions and a shortcut around them.

use super::network;
use crate::backend::shape::{Extent, Volume};
use crate::network::spec::{
    Combination, Combine, Init, InputMode, LayerSpec, Links, NetworkSpec, Norm, Shortcut, Synapse, Take, Variance,
};
use crate::neuron::{NeuronModel, NeuronSpec, ResetKind};

/// The first convolution, which depends on the images.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stem {
    /// 3x3.
    Small,
    /// 7x7 with stride 2.
    Large,
}

impl Stem {
    /// The usual one for images of this extent.
    pub fn of(input: Volume) -> Self {
        if input.h.min(input.w) < 64 { Self::Small } else { Self::Large }
    }

    fn conv(self, channels: usize, synapse: Synapse, links: Links) -> LayerSpec {
        match self {
            Self::Small => conv(channels, 3, 1, synapse, links),
            Self::Large => conv(channels, 7, 2, synapse, links),
        }
    }
}

/// A convolution that keeps the extent but for its stride.
fn conv(channels: usize, kernel: usize, stride: usize, synapse: Synapse, links: Links) -> LayerSpec {
    let (kernel, stride, padding) = (Extent::square(kernel), Extent::square(stride), Extent::square(kernel / 2));
    LayerSpec::Conv { channels, kernel, stride, padding, synapse, links }
}

fn named(name: &str) -> Links {
    Links { name: Some(name.into()), ..Links::default() }
}

fn added(from: &str) -> Shortcut {
    let (stride, padding) = (Extent::square(1), Extent::square(0));
    Shortcut {
        from: from.into(),
        take: Take::Spikes,
        scale: 1.0,
        pool: None,
        kernel: None,
        stride,
        padding,
        synapse: Synapse::default(),
        gain: None,
    }
}

/// The same through a 1x1 convolution.
fn projected(from: &str, stride: usize, synapse: Synapse) -> Shortcut {
    Shortcut { kernel: Some(Extent::square(1)), stride: Extent::square(stride), synapse, ..added(from) }
}

/// One block of a stage: its name, the name of what it reads, its channels and stride, and whether its extents differ from
/// those of what it reads.
struct Block {
    name: String,
    below: String,
    channels: usize,
    stride: usize,
    changes: bool,
}

/// The blocks of all stages, after a layer named `stem` of `channels`; `first` is the stride of the first stage.
fn blocks(stages: &[usize], channels: usize, first: usize) -> impl Iterator<Item = Block> {
    let all = stages.iter().enumerate().flat_map(|(stage, &count)| (0..count).map(move |block| (stage, block)));
    let mut below = ("stem".to_string(), channels);
    all.map(move |(stage, block)| {
        let name = format!("stage{}.{}", stage + 1, block + 1);
        let channels = channels << stage;
        let stride = match (stage, block) {
            (0, 0) => first,
            (_, 0) => 2,
            _ => 1,
        };
        let changes = stride != 1 || below.1 != channels;
        let (below, _) = std::mem::replace(&mut below, (name.clone(), channels));
        Block { name, below, channels, stride, changes }
    })
}

fn finish(classes: usize, synapse: Synapse) -> [LayerSpec; 2] {
    [LayerSpec::GlobalAvgPool, LayerSpec::Readout { classes, spiking: false, vote: 1, synapse }]
}

const IF: NeuronSpec = NeuronSpec {
    model: NeuronModel::If,
    tau: 2.0,
    decay_input: true,
    threshold: 1.0,
    reset: ResetKind::Soft,
    v_reset: 0.0,
    detach_reset: false,
};

/// The neuron of Zheng et al. and Hu et al.: a quarter of the potential stays, and currents count in full.
const LIF: NeuronSpec = NeuronSpec {
    model: NeuronModel::Lif,
    tau: 4.0 / 3.0,
    decay_input: false,
    threshold: 0.5,
    reset: ResetKind::Hard,
    detach_reset: true,
    ..IF
};

fn norm_of(init: Init) -> Synapse {
    Synapse { init, ..Synapse::with_norm(Norm::Batch) }
}

fn bias() -> Synapse {
    Synapse { bias: Some(true), ..Synapse::default() }
}

/// conv, norm, neurons, conv, norm, plus the block's input as it is or through a 1x1 convolution and norm, neurons.
fn spikes_to_currents(layers: &mut Vec<LayerSpec>, block: &Block, synapse: Synapse) {
    let Block { name, below, channels, stride, changes } = block;
    let from = Links { from: Some(below.clone()), ..Links::default() };
    layers.push(conv(*channels, 3, *stride, synapse, from));
    let shortcut = if *changes { projected(below, *stride, synapse) } else { added(below) };
    layers.push(conv(*channels, 3, 1, synapse, Links { shortcuts: vec![shortcut], ..named(name) }));
}

/// The AdaLi authors' network for CIFAR-10.
pub fn basic(classes: usize, channels: usize, stages: &[usize], stem: Stem) -> NetworkSpec {
    let synapse = norm_of(Init::FanOut);
    let mut layers = vec![stem.conv(channels, synapse, named("stem"))];
    blocks(stages, channels, 1).for_each(|block| spikes_to_currents(&mut layers, &block, synapse));
    layers.extend(finish(classes, Synapse { init: Init::FanIn, ..bias() }));
    network(4, InputMode::Direct, IF, layers)
}

/// The AdaLi authors' network for CIFAR-100: neurons and norms come first in a block, and shortcuts leave after them.
pub fn preact(classes: usize, channels: usize, stages: &[usize], stem: Stem) -> NetworkSpec {
    let biased = Synapse { bias: Some(true), init: Init::FanOut, ..Synapse::with_norm(Norm::Batch) };
    let plain = Synapse { norm: Norm::None, ..biased };
    let first = Synapse { bias: None, ..biased };
    let mut layers = vec![stem.conv(channels, first, named("stem"))];
    for Block { name, below, channels, stride, changes } in blocks(stages, channels, 1) {
        layers.push(conv(channels, 3, stride, biased, Links::default()));
        let shortcut = if changes { projected(&below, stride, plain) } else { added(&below) };
        let links = Links { shortcuts: vec![shortcut], sum_norm: Norm::Batch, ..named(&name) };
        layers.push(conv(channels, 3, 1, plain, links));
    }
    layers.extend(finish(classes, bias()));
    network(4, InputMode::Direct, IF, layers)
}

/// Three stages and two fully connected layers (Zheng et al., "Going deeper with directly-trained larger spiking neural
/// networks", 2021).
pub fn resnet19(classes: usize, channels: usize, stages: &[usize], stem: Stem) -> NetworkSpec {
    // Their norm begins with the threshold as its gain.
    let synapse = Synapse { norm_gain: LIF.threshold, ..norm_of(Init::Pytorch) };
    let mut layers = vec![stem.conv(channels, synapse, named("stem"))];
    blocks(stages, channels, 1).for_each(|block| spikes_to_currents(&mut layers, &block, synapse));
    layers.push(LayerSpec::GlobalAvgPool);
    layers.push(LayerSpec::Linear { features: 256, synapse: bias(), links: Links::default() });
    layers.push(LayerSpec::Readout { classes, spiking: false, vote: 1, synapse: bias() });
    network(4, InputMode::Direct, LIF, layers)
}

/// Each block adds its spikes to its input's (Fang et al., "Deep residual learning in spiking neural networks", 2021).
pub fn sew(classes: usize, channels: usize, stages: &[usize], stem: Stem) -> NetworkSpec {
    let synapse = norm_of(Init::Pytorch);
    let mut layers = vec![stem.conv(channels, synapse, named("stem"))];
    if stem == Stem::Large {
        let (kernel, stride) = (Extent::square(3), Some(Extent::square(2)));
        layers.push(LayerSpec::MaxPool { kernel, stride, padding: Extent::square(1) });
    }
    for Block { name, below, channels, stride, changes } in blocks(stages, channels, 1) {
        let mut other = below.clone();
        if changes {
            other = format!("{name}.shortcut");
            let links = Links { from: Some(below.clone()), ..named(&other) };
            layers.push(conv(channels, 1, stride, synapse, links));
        }
        layers.push(conv(channels, 3, stride, synapse, Links { from: Some(below), ..Links::default() }));
        let combine = Some(Combine { from: other, with: Combination::Add });
        layers.push(conv(channels, 3, 1, synapse, Links { combine, ..named(&name) }));
    }
    layers.extend(finish(classes, bias()));
    let neuron = NeuronSpec { reset: ResetKind::Hard, detach_reset: true, ..IF };
    network(4, InputMode::Direct, neuron, layers)
}

/// Each block adds its currents to its input's (Hu et al., "Advancing spiking neural networks towards deep residual
/// learning", 2021). Norms at the end of a block begin with a gain of 0.
pub fn ms(classes: usize, channels: usize, stages: &[usize], stem: Stem) -> NetworkSpec {
    let synapse = Synapse { norm_gain: LIF.threshold, ..norm_of(Init::Pytorch) };
    let mut layers = vec![stem.conv(channels, synapse, named("stem"))];
    let first = if stem == Stem::Large { 2 } else { 1 };
    for Block { name, below, channels, stride, changes } in blocks(stages, channels, first) {
        layers.push(conv(channels, 3, stride, synapse, Links { from: Some(below.clone()), ..Links::default() }));
        let shortcut = if changes { projected(&below, stride, synapse) } else { added(&below) };
        let shortcuts = vec![Shortcut { take: Take::Currents, ..shortcut }];
        let last = Synapse { norm_gain: 0.0, ..synapse };
        layers.push(conv(channels, 3, 1, last, Links { shortcuts, ..named(&name) }));
    }
    layers.extend(finish(classes, bias()));
    network(4, InputMode::Direct, LIF, layers)
}

/// Factor of a block's output in [`nf`].
const NF_BRANCH_SCALE: f32 = 0.2;
/// Factor of spikes before a convolution in [`nf`].
const NF_SPIKE_SCALE: f32 = 2.74;

/// The AdaLi authors' network for Tiny-ImageNet. Each block divides its input by the deviation that it is expected to have
/// (Brock et al., "Characterizing signal propagation to close the performance gap in unnormalized ResNets", 2021).
pub fn nf(classes: usize, channels: usize, stages: &[usize], stem: Stem) -> NetworkSpec {
    let (alpha, of_spikes) = (NF_BRANCH_SCALE, NF_SPIKE_SCALE);
    let synapse = |weight_scale| Synapse {
        weight_scale,
        weight_variance: Variance::Sample,
        init: Init::FanOut,
        ..Synapse::with_norm(Norm::Weight)
    };
    let without_neurons = |name: &str| Links { neurons: false, ..named(name) };
    let mut layers = vec![stem.conv(channels, synapse(1.0), without_neurons("stem"))];
    if stem == Stem::Large {
        let (kernel, stride, padding) = (Extent::square(3), Some(Extent::square(2)), Extent::square(1));
        layers.push(LayerSpec::AvgPool { kernel, stride, padding });
    }
    let mut variance = 1.0f32;
    for Block { name, below, channels, stride, changes } in blocks(stages, channels, 1) {
        let spikes = format!("{name}.spikes");
        let links = Links { from: Some(below.clone()), sum_scale: 1.0 / variance.sqrt(), ..named(&spikes) };
        layers.push(LayerSpec::Neurons { links });
        layers.push(conv(channels, 3, stride, synapse(of_spikes), Links::default()));
        let shortcut = if changes { projected(&spikes, stride, synapse(of_spikes)) } else { added(&below) };
        let links = Links { shortcuts: vec![shortcut], scale: alpha, gain: Some(0.0), ..without_neurons(&name) };
        layers.push(conv(channels, 3, 1, synapse(of_spikes), links));
        variance = if changes { 1.0 } else { variance } + alpha * alpha;
    }
    layers.extend(finish(classes, Synapse { init: Init::Zeros, ..bias() }));
    network(4, InputMode::Direct, IF, layers)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Plan;
    use crate::network::presets::{Preset, Size};

    /// Counts of PyTorch's modules: SpikingJelly's `sew_resnet` and `ms_resnet`, the AdaLi authors' `ResNet_Cifar` and
    /// `PreActResNet`, `VGGSNN` of "Temporal efficient training", and its ResNet-19, but with a stem of 128.
    #[test]
    fn parameters_are_those_of_the_references() {
        let volume = |pixels, c| Volume { h: pixels, w: pixels, c };
        let counts = [
            (Preset::Resnet18Cifar, volume(32, 3), 10, 11_173_962),
            (Preset::Resnet18Preact, volume(32, 3), 10, 11_176_906),
            (Preset::Resnet19, volume(32, 3), 10, 12_697_994),
            (Preset::SewResnet18, volume(224, 3), 1000, 11_689_512),
            (Preset::SewResnet34, volume(224, 3), 1000, 21_797_672),
            (Preset::MsResnet18, volume(224, 3), 1000, 11_693_736),
            (Preset::MsResnet34, volume(224, 3), 1000, 21_801_896),
            (Preset::Vggsnn, volume(48, 2), 10, 9_271_498),
            // The convolutions and norms of SEW-ResNet-34, a gain per block, and a readout of 200 classes.
            (Preset::NfResnet34, volume(224, 3), 200, 21_797_672 - 513_000 + 102_600 + 16),
        ];
        for (preset, input, classes, want) in counts {
            let plan = Plan::new(&preset.network(input, classes, &Size::default()), input).expect("a network");
            assert_eq!(plan.parameters(), want, "{preset:?}");
        }
    }

    #[test]
    fn a_weight_norm_drops_the_biases() {
        let input = Volume { h: 32, w: 32, c: 3 };
        let mut network = Preset::Resnet18Preact.network(input, 10, &Size::wide(16));
        network.set_conv_norm(Norm::Weight);
        Plan::new(&network, input).expect("a network");
    }
}
