//! Description of a network, its parameters and its input.

use super::pool::Window;
use super::{Filter, Neuron, Rng, Slope, Tensor};

/// Normalisation between a convolution or linear layer and its neurons.
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
    },
}

/// One layer.
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
        /// Neurons and their slope: one, or one per channel. None: the output is the current.
        spiking: Option<(Neuron, Vec<Slope>)>,
    },
    /// Linear layer on the flattened input (C, H, W order), weight `[out, in]`.
    Linear {
        /// Outputs.
        out: usize,
        /// A bias `[out]`, before the norm.
        bias: bool,
        /// Normalisation.
        norm: Norm,
        /// As for a convolution.
        spiking: Option<(Neuron, Vec<Slope>)>,
    },
    /// Maximum of square windows: the OR of spikes.
    MaxPool {
        /// Rows and columns of the window.
        kernel: usize,
        /// Stride, both axes.
        stride: usize,
        /// Padding, never chosen.
        padding: usize,
    },
    /// Mean of square windows.
    AvgPool {
        /// Rows and columns of the window.
        kernel: usize,
        /// Stride, both axes.
        stride: usize,
    },
    /// x mask / keep, the same mask at every step.
    Dropout {
        /// `[N, C, H, W]` of 0 and 1.
        mask: Tensor,
        /// Probability of a 1.
        keep: f64,
    },
}

/// A network: its layers, then groups of `vote` consecutive outputs averaged into a logit.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    /// Layers, first to last.
    pub layers: Vec<Layer>,
    /// Outputs per logit, 1 for none.
    pub vote: usize,
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
pub struct Affine<'a> {
    /// Geometry; a linear layer's kernel covers the whole input.
    pub filter: Filter,
    /// Whether there is a bias before the norm.
    pub bias: bool,
    /// Normalisation.
    pub norm: Norm,
    /// Neurons and slopes.
    pub spiking: Option<&'a (Neuron, Vec<Slope>)>,
}

impl Layer {
    /// This layer as a convolution of an input `[T, N, C, H, W]`; None for pooling and dropout.
    pub fn affine(&self, [_, _, _, height, width]: [usize; 5]) -> Option<Affine<'_>> {
        match self {
            Self::Conv { out, kernel_h, kernel_w, stride, padding, bias, norm, spiking } => Some(Affine {
                filter: Filter {
                    out: *out,
                    kernel_h: *kernel_h,
                    kernel_w: *kernel_w,
                    stride: *stride,
                    padding: *padding,
                },
                bias: *bias,
                norm: *norm,
                spiking: spiking.as_ref(),
            }),
            Self::Linear { out, bias, norm, spiking } => Some(Affine {
                filter: Filter { out: *out, kernel_h: height, kernel_w: width, stride: 1, padding: 0 },
                bias: *bias,
                norm: *norm,
                spiking: spiking.as_ref(),
            }),
            _ => None,
        }
    }

    /// The window of a pooling layer.
    pub fn window(&self) -> Option<Window> {
        let (kernel, stride, padding) = match *self {
            Self::MaxPool { kernel, stride, padding } => (kernel, stride, padding),
            Self::AvgPool { kernel, stride } => (kernel, stride, 0),
            _ => return None,
        };
        Some(Window { kernel, stride, padding })
    }

    /// Output shape for an input shape, both `[T, N, C, H, W]`.
    pub fn output_shape(&self, input: [usize; 5]) -> [usize; 5] {
        match (self.affine(input), self.window()) {
            (Some(affine), _) => affine.filter.output_shape(input),
            (None, Some(window)) => window.output_shape(input),
            (None, None) => input,
        }
    }
}

impl Params {
    /// Random parameters for an input of shape `[C, H, W]`, sized so that a good share of neurons fire at thresholds near 1.
    pub fn random(network: &Network, [channels, height, width]: [usize; 3], rng: &mut Rng) -> Self {
        let mut shape = [1, 1, channels, height, width];
        let mut layers = Vec::new();
        for layer in &network.layers {
            layers.push(match layer.affine(shape) {
                Some(affine) => LayerParams::random(layer, &affine, shape[2], rng),
                None => LayerParams::default(),
            });
            shape = layer.output_shape(shape);
        }
        Self { layers }
    }
}

impl LayerParams {
    fn random(layer: &Layer, affine: &Affine<'_>, channels: usize, rng: &mut Rng) -> Self {
        let filter = &affine.filter;
        let out = filter.out;
        let fan_in = channels * filter.kernel_h * filter.kernel_w;
        let weight_shape = match layer {
            Layer::Linear { .. } => vec![out, fan_in],
            _ => vec![out, channels, filter.kernel_h, filter.kernel_w],
        };
        let deviation = (2.0 / fan_in as f64).sqrt();
        let weight = (0..out * fan_in).map(|_| deviation * rng.normal()).collect();
        let mut params = Self { weight: Tensor::new(&weight_shape, weight), ..Self::default() };
        if affine.bias {
            params.bias = rng.uniform_vec(out, 0.0, 1.0);
        }
        if affine.norm != Norm::None {
            params.norm_weight = rng.uniform_vec(out, 0.5, 1.5);
            params.norm_bias = rng.uniform_vec(out, 0.0, 1.0);
        }
        if matches!(affine.norm, Norm::Batch { .. }) {
            params.running_mean = rng.uniform_vec(out, -0.3, 0.3);
            params.running_var = rng.uniform_vec(out, 0.5, 1.5);
        }
        params
    }
}
