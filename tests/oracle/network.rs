//! Description of a network, its parameters and its input.

use super::pool::Window;
use super::{Filter, Neuron, Rng, Slope, Tensor};

/// Normalisation of a convolution's or linear layer's output.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Norm {
    /// No normalisation.
    None,
    /// Batch normalisation over T, N, H, W.
    Batch {
        /// Added to the variance.
        eps: f64,
        /// Statistics of the batch; otherwise the running ones.
        train: bool,
    },
    /// Scaled weight standardisation, per filter.
    Weight {
        /// The factor s.
        scale: f64,
        /// Divides by one less than the fan-in.
        sample: bool,
    },
}

/// One layer. It reads the input or layers before it, all but [`Layer::Sum`] and [`Layer::Join`] a single one.
#[derive(Clone, Debug, PartialEq)]
pub enum Layer {
    /// Convolution, weight `[K, C, R, S]`.
    Conv {
        /// Output channels K.
        out: usize,
        /// Kernel rows R.
        kernel_h: usize,
        /// Kernel columns S.
        kernel_w: usize,
        /// Stride, both axes.
        stride: usize,
        /// Zero padding, all four sides.
        padding: usize,
        /// A bias `[K]` added to the convolution, before the norm.
        bias: bool,
        /// Normalisation.
        norm: Norm,
    },
    /// Linear layer on the flattened input (C, H, W order), weight `[out, in]`.
    Linear {
        /// Outputs.
        out: usize,
        /// A bias `[out]`, before the norm.
        bias: bool,
        /// Normalisation.
        norm: Norm,
    },
    /// Batch normalisation of whatever it reads.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
        /// Statistics of the batch; otherwise the running ones.
        train: bool,
    },
    /// Multiplies by a constant, and by a learned value as well if `learned`.
    Factor {
        /// The constant.
        by: f64,
        /// Whether there is a learned value.
        learned: bool,
    },
    /// The sum of all that it reads.
    Sum,
    /// Spiking neurons and their slope: one, or one per channel.
    Neurons {
        /// The neuron.
        neuron: Neuron,
        /// Its slopes.
        slopes: Vec<Slope>,
    },
    /// Joins spikes with another layer's output; reads both, in this order.
    Join(Join),
    /// Maximum of windows: the OR of spikes.
    MaxPool(Window),
    /// Mean of windows.
    AvgPool(Window),
    /// x mask / keep, the same mask at every step.
    Dropout {
        /// `[N, C, H, W]` of 0 and 1.
        mask: Tensor,
        /// Probability of a 1.
        keep: f64,
    },
}

/// How spikes a and another output b become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Join {
    /// a + b.
    Add,
    /// a b.
    And,
    /// (1 - a) b.
    AndNot,
}

/// What a layer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The network's input.
    Input,
    /// The output of a layer.
    Layer(usize),
}

/// A network: its layers, then groups of `vote` consecutive outputs of the last one averaged into a logit.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Layers, each after those it reads.
    pub layers: Vec<Layer>,
    /// What each layer reads.
    pub reads: Vec<Vec<Source>>,
    /// Outputs per logit, 1 for none.
    pub vote: usize,
}

impl Network {
    /// A network whose layers each read the one above.
    pub fn chain(layers: Vec<Layer>, vote: usize) -> Self {
        let above = |i: usize| vec![if i == 0 { Source::Input } else { Source::Layer(i - 1) }];
        Self { reads: (0..layers.len()).map(above).collect(), layers, vote }
    }

    /// Output shapes of all layers for an input shape, all `[T, N, C, H, W]`.
    pub fn shapes(&self, input: [usize; 5]) -> Vec<[usize; 5]> {
        let mut shapes: Vec<[usize; 5]> = Vec::new();
        for (layer, reads) in self.layers.iter().zip(&self.reads) {
            shapes.push(layer.output_shape(shape_of(reads[0], input, &shapes)));
        }
        shapes
    }
}

fn shape_of(source: Source, input: [usize; 5], shapes: &[[usize; 5]]) -> [usize; 5] {
    match source {
        Source::Input => input,
        Source::Layer(i) => shapes[i],
    }
}

/// Parameters of one layer; what the layer lacks is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerParams {
    /// `[K, C, R, S]` or `[out, in]`.
    pub weight: Tensor,
    /// `[K]`.
    pub bias: Vec<f64>,
    /// Gain of the norm, `[K]`.
    pub norm_weight: Vec<f64>,
    /// Bias of the norm, `[K]`.
    pub norm_bias: Vec<f64>,
    /// Running mean of a batch norm, `[K]`.
    pub running_mean: Vec<f64>,
    /// Running variance of a batch norm, `[K]`.
    pub running_var: Vec<f64>,
    /// The learned value of a factor, one.
    pub factor: Vec<f64>,
}

/// Parameters of a network, one entry per layer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Params {
    /// One entry per layer.
    pub layers: Vec<LayerParams>,
}

/// Input of a network.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The same image at each of `steps` steps.
    Direct {
        /// `[N, C, H, W]`.
        image: Tensor,
        /// T.
        steps: usize,
    },
    /// One frame per step, `[T, N, C, H, W]`.
    Frames(Tensor),
}

impl Input {
    /// The input of every step, `[T, N, C, H, W]`.
    pub fn unrolled(&self) -> Tensor {
        match self {
            Self::Direct { image, steps } => {
                let shape = [&[*steps], &image.shape[..]].concat();
                Tensor::new(&shape, image.data.repeat(*steps))
            }
            Self::Frames(frames) => frames.clone(),
        }
    }

    /// Gradient of the input as given, from that of [`Input::unrolled`]: summed over T for a direct image.
    pub fn fold_gradient(&self, unrolled: Tensor) -> Tensor {
        match self {
            Self::Direct { image, .. } => {
                let mut gradient = Tensor::zeros(&image.shape);
                for step in unrolled.data.chunks(image.data.len()) {
                    for (sum, g) in gradient.data.iter_mut().zip(step) {
                        *sum += g;
                    }
                }
                gradient
            }
            Self::Frames(_) => unrolled,
        }
    }

    /// The values as given.
    pub fn values_mut(&mut self) -> &mut Vec<f64> {
        match self {
            Self::Direct { image, .. } => &mut image.data,
            Self::Frames(frames) => &mut frames.data,
        }
    }
}

/// What a convolution and a linear layer have in common.
pub struct Affine {
    /// Geometry; a linear layer's kernel covers the whole input.
    pub filter: Filter,
    /// Whether there is a bias before the norm.
    pub bias: bool,
    /// Normalisation.
    pub norm: Norm,
}

impl Layer {
    /// This layer as a convolution of an input `[T, N, C, H, W]`; None for all others.
    pub fn affine(&self, [_, _, _, height, width]: [usize; 5]) -> Option<Affine> {
        match *self {
            Self::Conv { out, kernel_h, kernel_w, stride, padding, bias, norm } => {
                Some(Affine { filter: Filter { out, kernel_h, kernel_w, stride, padding }, bias, norm })
            }
            Self::Linear { out, bias, norm } => {
                let filter = Filter { out, kernel_h: height, kernel_w: width, stride: 1, padding: 0 };
                Some(Affine { filter, bias, norm })
            }
            _ => None,
        }
    }

    /// Output shape for the shape it reads, both `[T, N, C, H, W]`.
    pub fn output_shape(&self, input: [usize; 5]) -> [usize; 5] {
        match self {
            Self::Conv { .. } | Self::Linear { .. } => {
                self.affine(input).expect("an affine layer").filter.output_shape(input)
            }
            Self::MaxPool(window) | Self::AvgPool(window) => window.output_shape(input),
            _ => input,
        }
    }
}

impl Params {
    /// Random parameters for an input of shape `[C, H, W]`, sized so that a good share of neurons fire at thresholds near 1.
    pub fn random(network: &Network, [channels, height, width]: [usize; 3], rng: &mut Rng) -> Self {
        let input = [1, 1, channels, height, width];
        let shapes = network.shapes(input);
        let of_layer = |(layer, reads): (&Layer, &Vec<Source>)| {
            LayerParams::random(layer, shape_of(reads[0], input, &shapes), rng)
        };
        Self { layers: network.layers.iter().zip(&network.reads).map(of_layer).collect() }
    }
}

impl LayerParams {
    fn random(layer: &Layer, input: [usize; 5], rng: &mut Rng) -> Self {
        let mut params = Self::default();
        match layer {
            Layer::Conv { .. } | Layer::Linear { .. } => {
                let affine = layer.affine(input).expect("an affine layer");
                let (filter, channels) = (&affine.filter, input[2]);
                let out = filter.out;
                let fan_in = channels * filter.kernel_h * filter.kernel_w;
                let weight_shape = match layer {
                    Layer::Linear { .. } => vec![out, fan_in],
                    _ => vec![out, channels, filter.kernel_h, filter.kernel_w],
                };
                let deviation = (2.0 / fan_in as f64).sqrt();
                let weight = (0..out * fan_in).map(|_| deviation * rng.normal()).collect();
                params.weight = Tensor::new(&weight_shape, weight);
                if affine.bias {
                    params.bias = rng.uniform_vec(out, 0.0, 1.0);
                }
                params.random_norm(affine.norm, out, rng);
            }
            Layer::BatchNorm { eps, train } => {
                params.random_norm(Norm::Batch { eps: *eps, train: *train }, input[2], rng);
            }
            Layer::Factor { learned: true, .. } => {
                let sign = if rng.below(4) == 0 { -1.0 } else { 1.0 };
                params.factor = vec![sign * rng.uniform(0.4, 1.5)];
            }
            _ => {}
        }
        params
    }

    fn random_norm(&mut self, norm: Norm, channels: usize, rng: &mut Rng) {
        if norm != Norm::None {
            self.norm_weight = rng.uniform_vec(channels, 0.5, 1.5);
            self.norm_bias = rng.uniform_vec(channels, 0.0, 1.0);
        }
        if matches!(norm, Norm::Batch { .. }) {
            self.running_mean = rng.uniform_vec(channels, -0.3, 0.3);
            self.running_var = rng.uniform_vec(channels, 0.5, 1.5);
        }
    }
}
