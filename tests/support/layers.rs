//! Short names for configured layers and neurons.

use crate::oracle::Rng;
use adali::backend::shape::Extent;
use adali::network::spec::{Combination, Combine, LayerSpec, Links, Shortcut, Synapse, Take};
use adali::network::{InputMode, NetworkSpec, Norm};
use adali::neuron::{NeuronModel, NeuronSpec, ResetKind};
use adali::surrogate::{Surrogate, SurrogateKind};

/// A convolution of square kernel.
pub fn conv(channels: usize, kernel: usize, stride: usize, padding: usize, norm: Norm) -> LayerSpec {
    conv_of(channels, [kernel, kernel], stride, padding, Synapse::with_norm(norm))
}

/// A convolution with everything specified.
pub fn conv_of(channels: usize, [h, w]: [usize; 2], stride: usize, padding: usize, synapse: Synapse) -> LayerSpec {
    let (stride, padding) = (Extent::square(stride), Extent::square(padding));
    LayerSpec::Conv { channels, kernel: Extent { h, w }, stride, padding, synapse, links: Links::default() }
}

/// A hidden linear layer.
pub fn linear(features: usize, norm: Norm) -> LayerSpec {
    LayerSpec::Linear { features, synapse: Synapse::with_norm(norm), links: Links::default() }
}

/// Neurons that receive another layer's output.
pub fn neurons(from: &str) -> LayerSpec {
    LayerSpec::Neurons { links: Links { from: Some(from.into()), ..Links::default() } }
}

/// A layer without neurons.
pub fn bare(layer: LayerSpec) -> LayerSpec {
    linked(layer, |links| links.neurons = false)
}

/// A layer with other links.
pub fn linked(mut layer: LayerSpec, change: impl FnOnce(&mut Links)) -> LayerSpec {
    match &mut layer {
        LayerSpec::Conv { links, .. } | LayerSpec::Linear { links, .. } | LayerSpec::Neurons { links } => change(links),
        _ => panic!("only layers with neurons of their own have links"),
    }
    layer
}

/// A layer that others can name.
pub fn named(name: &str, layer: LayerSpec) -> LayerSpec {
    linked(layer, |links| links.name = Some(name.into()))
}

/// A layer that reads another than the one above.
pub fn reading(from: &str, layer: LayerSpec) -> LayerSpec {
    linked(layer, |links| links.from = Some(from.into()))
}

/// A layer with one more summand.
pub fn plus(layer: LayerSpec, shortcut: Shortcut) -> LayerSpec {
    linked(layer, |links| links.shortcuts.push(shortcut))
}

/// A layer whose spikes are combined with another's output.
pub fn combined(layer: LayerSpec, with: Combination, from: &str) -> LayerSpec {
    linked(layer, |links| links.combine = Some(Combine { from: from.into(), with }))
}

/// Another layer's spikes as a summand.
pub fn same(from: &str) -> Shortcut {
    let (stride, padding) = (Extent::square(1), Extent::square(0));
    let (pool, kernel, synapse, gain) = (None, None, Synapse::default(), None);
    Shortcut { from: from.into(), take: Take::Spikes, scale: 1.0, pool, kernel, stride, padding, synapse, gain }
}

/// Another layer's summed currents as a summand.
pub fn currents(from: &str) -> Shortcut {
    Shortcut { take: Take::Currents, ..same(from) }
}

/// A summand through a convolution of square kernel.
pub fn through(summand: Shortcut, kernel: usize, stride: usize, padding: usize, norm: Norm) -> Shortcut {
    let (kernel, synapse) = (Some(Extent::square(kernel)), Synapse::with_norm(norm));
    Shortcut { kernel, stride: Extent::square(stride), padding: Extent::square(padding), synapse, ..summand }
}

/// A summand times a constant.
pub fn times(scale: f32, summand: Shortcut) -> Shortcut {
    Shortcut { scale, ..summand }
}

/// A max-pool.
pub fn max_pool(kernel: usize, stride: usize, padding: usize) -> LayerSpec {
    let [kernel, stride, padding] = [kernel, stride, padding].map(Extent::square);
    LayerSpec::MaxPool { kernel, stride: Some(stride), padding }
}

/// An average pool.
pub fn avg_pool(kernel: usize, stride: usize) -> LayerSpec {
    padded_avg_pool(kernel, stride, 0)
}

/// An average pool in which zeros around the input count.
pub fn padded_avg_pool(kernel: usize, stride: usize, padding: usize) -> LayerSpec {
    let [kernel, stride, padding] = [kernel, stride, padding].map(Extent::square);
    LayerSpec::AvgPool { kernel, stride: Some(stride), padding }
}

/// A dropout.
pub fn dropout(probability: f32) -> LayerSpec {
    LayerSpec::Dropout { probability }
}

/// A linear readout.
pub fn readout(classes: usize) -> LayerSpec {
    LayerSpec::Readout { classes, spiking: false, vote: 1, synapse: Synapse::default() }
}

/// A spiking readout with votes.
pub fn spiking_readout(classes: usize, vote: usize, norm: Norm) -> LayerSpec {
    LayerSpec::Readout { classes, spiking: true, vote, synapse: Synapse::with_norm(norm) }
}

/// A network of AdaLi neurons with the usual constants, fed frames.
pub fn network(steps: usize, layers: Vec<LayerSpec>) -> NetworkSpec {
    let surrogate = Surrogate::new(SurrogateKind::Adali);
    NetworkSpec { steps, input: InputMode::Frames, neuron: NeuronSpec::default(), surrogate, layers }
}

/// A neuron with the given reset and all other constants random.
pub fn random_neuron(reset: ResetKind, detach_reset: bool, rng: &mut Rng) -> NeuronSpec {
    let sign = if rng.below(2) == 0 { 1.0 } else { -1.0 };
    NeuronSpec {
        model: if rng.below(3) == 0 { NeuronModel::If } else { NeuronModel::Lif },
        tau: rng.uniform(1.0, 4.0) as f32,
        decay_input: rng.below(2) == 0,
        threshold: rng.uniform(0.5, 1.4) as f32,
        reset,
        v_reset: (sign * rng.uniform(0.05, 0.35)) as f32,
        detach_reset,
    }
}
