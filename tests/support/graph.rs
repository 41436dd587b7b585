//! A configured network in the oracle's types: every population's parts as layers of their own.

use super::draw::{BATCH_EPS, Case};
use crate::oracle::{self, Join, Layer, Network, Neuron, Reset, Slope, Source, Tensor, Window};
use adali::backend::shape::Extent;
use adali::backend::{dropout_mask, keeps};
use adali::network::spec::{Combination, LayerSpec, Links, Synapse, Take, Variance};
use adali::network::{NetworkSpec, Norm};
use adali::neuron::{NeuronModel, ResetKind};
use adali::surrogate::{Bounds, SurrogateKind};
use std::collections::HashMap;

/// The oracle's network, and where it holds what the model has.
pub struct Graph {
    pub network: Network,
    /// Index of each stage's neurons, or of a readout without neurons.
    pub stages: Vec<usize>,
    /// Layers whose filters decide a stage's membranes of the same channel: its convolutions, and the norm of the sum.
    pub decisive: Vec<Vec<usize>>,
    /// What the model calls each layer that has parameters; others have no name.
    pub names: Vec<String>,
}

/// The case in the oracle's types.
pub fn oracle_network(case: &Case, bounds: &[Vec<Bounds>]) -> Graph {
    let [c, h, w] = case.input;
    let mut builder = Builder {
        case,
        bounds,
        graph: Graph {
            network: Network { layers: Vec::new(), reads: Vec::new(), vote: 1 },
            stages: Vec::new(),
            decisive: Vec::new(),
            names: Vec::new(),
        },
        input: [case.spec.steps, case.batch, c, h, w],
        outputs: Vec::new(),
        sums: Vec::new(),
        stage_of: HashMap::new(),
    };
    for (index, layer) in case.spec.layers.iter().enumerate() {
        builder.add_layer(index, layer);
    }
    builder.graph
}

struct Builder<'a> {
    case: &'a Case,
    bounds: &'a [Vec<Bounds>],
    graph: Graph,
    /// `[T, N, C, H, W]`.
    input: [usize; 5],
    /// What readers of each stage read: its spikes, after pool and dropout.
    outputs: Vec<Source>,
    /// Each stage's summed currents.
    sums: Vec<Source>,
    /// By the layer's name.
    stage_of: HashMap<String, usize>,
}

impl Builder<'_> {
    fn add_layer(&mut self, index: usize, layer: &LayerSpec) {
        let case = self.case;
        match layer {
            LayerSpec::Conv { channels, kernel, stride, padding, synapse, links } => {
                let own = convolution(case, *channels, (*kernel, *stride, *padding), synapse);
                self.population(index, Some(own), links, links.neurons);
            }
            LayerSpec::Linear { features, synapse, links } => {
                self.population(index, Some(linear(case, *features, synapse)), links, links.neurons);
            }
            LayerSpec::Neurons { links } => self.population(index, None, links, links.neurons),
            LayerSpec::Readout { classes, spiking, vote, synapse } => {
                self.graph.network.vote = *vote;
                self.population(index, Some(linear(case, classes * vote, synapse)), &Links::default(), *spiking);
            }
            LayerSpec::MaxPool { kernel, stride, padding } => {
                self.change_output(Layer::MaxPool(window(*kernel, stride.unwrap_or(*kernel), square(*padding))));
            }
            LayerSpec::AvgPool { kernel, stride, padding } => {
                self.change_output(Layer::AvgPool(window(*kernel, stride.unwrap_or(*kernel), square(*padding))));
            }
            LayerSpec::GlobalAvgPool => {
                let [_, _, _, h, w] = self.shape(*self.outputs.last().expect("a layer to pool"));
                self.change_output(Layer::AvgPool(window(Extent { h, w }, Extent { h, w }, 0)));
            }
            LayerSpec::Dropout { probability } => {
                let Some(seed) = case.dropout else { return };
                let stage = self.outputs.len() - 1;
                let mask = mask(dropout_mask(seed, stage), *probability, self.shape(self.outputs[stage]));
                self.change_output(Layer::Dropout { mask, keep: 1.0 - f64::from(*probability) });
            }
        }
    }

    fn population(&mut self, index: usize, own: Option<Layer>, links: &Links, spiking: bool) {
        let name = format!("layers.{index}");
        let stage = self.outputs.len();
        let above = match &links.from {
            Some(from) => Some(self.stage_of[from.as_str()]),
            None => stage.checked_sub(1),
        };
        let from = above.map_or(Source::Input, |above| self.outputs[above]);
        let mut decisive = Vec::new();
        let own = match own {
            Some(layer) => {
                let own = self.add(layer, vec![from], name.clone());
                decisive.push(index_of(own));
                own
            }
            None => {
                let above = above.expect("neurons read a layer");
                decisive.clone_from(&self.graph.decisive[above]);
                from
            }
        };
        let mut summands = vec![self.times(own, links.scale, links.gain, name.clone())];
        for (j, shortcut) in links.shortcuts.iter().enumerate() {
            let name = format!("{name}.shortcuts.{j}");
            let other = self.stage_of[shortcut.from.as_str()];
            let mut value = match shortcut.take {
                Take::Spikes => self.outputs[other],
                Take::Currents => self.sums[other],
            };
            if let Some(pool) = shortcut.pool {
                value = self.add(Layer::AvgPool(window(pool, pool, 0)), vec![value], String::new());
            }
            if let Some(kernel) = shortcut.kernel {
                let channels = self.shape(own)[2];
                let conv =
                    convolution(self.case, channels, (kernel, shortcut.stride, shortcut.padding), &shortcut.synapse);
                value = self.add(conv, vec![value], name.clone());
                decisive.push(index_of(value));
            }
            summands.push(self.times(value, shortcut.scale, shortcut.gain, name));
        }
        let sum = if summands.len() == 1 { summands[0] } else { self.add(Layer::Sum, summands, String::new()) };
        let mut value = sum;
        if links.sum_norm == Norm::Batch {
            let norm = Layer::BatchNorm { eps: BATCH_EPS, train: self.case.batch_statistics };
            value = self.add(norm, vec![value], format!("{name}.sum_norm"));
            decisive.push(index_of(value));
        }
        value = self.times(value, links.sum_scale, None, String::new());
        if spiking {
            let spec = &self.case.spec;
            let (neuron, slopes) = (oracle_neuron(spec), oracle_slopes(spec, &self.bounds[stage]));
            value = self.add(Layer::Neurons { neuron, slopes }, vec![value], String::new());
        }
        self.graph.stages.push(index_of(value));
        self.graph.decisive.push(decisive);
        if let Some(combine) = &links.combine {
            let join = match combine.with {
                Combination::Add => Join::Add,
                Combination::And => Join::And,
                Combination::Iand => Join::AndNot,
            };
            let other = self.outputs[self.stage_of[combine.from.as_str()]];
            value = self.add(Layer::Join(join), vec![value, other], String::new());
        }
        self.outputs.push(value);
        self.sums.push(sum);
        self.stage_of.extend(links.name.clone().map(|name| (name, stage)));
    }

    fn add(&mut self, layer: Layer, reads: Vec<Source>, name: String) -> Source {
        let network = &mut self.graph.network;
        network.layers.push(layer);
        network.reads.push(reads);
        self.graph.names.push(name);
        Source::Layer(network.layers.len() - 1)
    }

    /// A source times a constant and a learned value, if anything.
    fn times(&mut self, source: Source, scale: f32, gain: Option<f32>, name: String) -> Source {
        if scale == 1.0 && gain.is_none() {
            return source;
        }
        self.add(Layer::Factor { by: f64::from(scale), learned: gain.is_some() }, vec![source], name)
    }

    /// A pool or dropout of the last stage's output.
    fn change_output(&mut self, layer: Layer) {
        let last = *self.outputs.last().expect("a layer before it");
        *self.outputs.last_mut().expect("a layer before it") = self.add(layer, vec![last], String::new());
    }

    fn shape(&self, source: Source) -> [usize; 5] {
        match source {
            Source::Input => self.input,
            Source::Layer(i) => self.graph.network.shapes(self.input)[i],
        }
    }
}

fn index_of(source: Source) -> usize {
    match source {
        Source::Layer(i) => i,
        Source::Input => unreachable!("the input is no layer"),
    }
}

fn convolution(
    case: &Case,
    out: usize,
    (kernel, stride, padding): (Extent, Extent, Extent),
    synapse: &Synapse,
) -> Layer {
    Layer::Conv {
        out,
        kernel_h: kernel.h,
        kernel_w: kernel.w,
        stride: square(stride),
        padding: square(padding),
        bias: bias(synapse),
        norm: oracle_norm(case, synapse),
    }
}

fn linear(case: &Case, out: usize, synapse: &Synapse) -> Layer {
    Layer::Linear { out, bias: bias(synapse), norm: oracle_norm(case, synapse) }
}

fn window(kernel: Extent, stride: Extent, padding: usize) -> Window {
    Window { kernel: [kernel.h, kernel.w], stride: [stride.h, stride.w], padding }
}

fn square(extent: Extent) -> usize {
    assert_eq!(extent.h, extent.w, "the oracle knows square strides and paddings only");
    extent.h
}

fn bias(synapse: &Synapse) -> bool {
    synapse.bias.unwrap_or(synapse.norm == Norm::None)
}

fn oracle_norm(case: &Case, synapse: &Synapse) -> oracle::Norm {
    match synapse.norm {
        Norm::None => oracle::Norm::None,
        Norm::Batch => oracle::Norm::Batch { eps: BATCH_EPS, train: case.batch_statistics },
        Norm::Weight => oracle::Norm::Weight {
            scale: f64::from(synapse.weight_scale),
            sample: synapse.weight_variance == Variance::Sample,
        },
    }
}

fn oracle_neuron(spec: &NetworkSpec) -> Neuron {
    let neuron = &spec.neuron;
    let rate = 1.0 / f64::from(neuron.tau);
    let (lambda, kappa) = match neuron.model {
        NeuronModel::If => (1.0, 1.0),
        NeuronModel::Lif => (1.0 - rate, if neuron.decay_input { rate } else { 1.0 }),
    };
    let reset = match neuron.reset {
        ResetKind::Soft => Reset::Soft,
        ResetKind::Hard => Reset::Hard { v_reset: f64::from(neuron.v_reset) },
    };
    Neuron { lambda, kappa, theta: f64::from(neuron.threshold), reset, detached: neuron.detach_reset }
}

fn oracle_slopes(spec: &NetworkSpec, bounds: &[Bounds]) -> Vec<Slope> {
    let adali = |b: &Bounds| {
        let [left, right, alpha, beta] = [b.left, b.right, b.alpha, b.beta].map(f64::from);
        Slope::Adali { left, right, alpha, beta }
    };
    match spec.surrogate.kind {
        SurrogateKind::Adali => bounds.iter().map(adali).collect(),
        SurrogateKind::Rectangle => vec![Slope::rectangle()],
        kind => {
            let k = spec.surrogate.sharpness.or(kind.usual_sharpness()).expect("a formula");
            vec![Slope::formula(kind.name(), f64::from(k))]
        }
    }
}

/// `[N, C, H, W]` of 0 and 1, from the model's own draw, which is in `[N][H][W][C]` order.
fn mask(seed: u64, probability: f32, [_, batch, c, h, w]: [usize; 5]) -> Tensor {
    let mut mask = Tensor::zeros(&[batch, c, h, w]);
    for (index, value) in mask.data.iter_mut().enumerate() {
        let (n, channel, pixel) = (index / (c * h * w), index / (h * w) % c, index % (h * w));
        let place = (n * h * w + pixel) * c + channel;
        *value = f64::from(u8::from(keeps(seed, place as u64, probability)));
    }
    mask
}
