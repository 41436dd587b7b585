//! The forward pass, which keeps all intermediate values.

use super::conv::conv_forward;
use super::loss::{mean_over_steps, vote_forward};
use super::network::Affine;
use super::norm::{batch_forward, standardise_weight, training_statistics};
use super::pool::{avg_pool_forward, dropout, max_pool_forward};
use super::{
    BatchStatistics, Input, Join, Layer, LayerParams, Network, NeuronTrace, Norm, Params, Source, SpikeModel, Tensor,
    neuron_forward,
};

/// What a forward pass computed.
#[derive(Clone, Debug)]
pub struct Forward {
    /// The input of every step, `[T, N, C, H, W]`.
    pub input: Tensor,
    /// One entry per layer of the network.
    pub layers: Vec<LayerTrace>,
    /// `[T, N, classes]`.
    pub logits_per_step: Tensor,
    /// `[N, classes]`.
    pub logits: Tensor,
}

impl Forward {
    /// The values of a source, `[T, N, C, H, W]`.
    pub fn values(&self, source: Source) -> &Tensor {
        values(source, &self.input, &self.layers)
    }
}

fn values<'a>(source: Source, input: &'a Tensor, layers: &'a [LayerTrace]) -> &'a Tensor {
    match source {
        Source::Input => input,
        Source::Layer(i) => &layers[i].output,
    }
}

/// What one layer computed.
#[derive(Clone, Debug, Default)]
pub struct LayerTrace {
    /// Currents, spikes or pooled values, `[T, N, K, P, Q]`.
    pub output: Tensor,
    /// Of a convolution, a linear layer or a batch norm.
    pub affine: Option<AffineTrace>,
    /// Of neurons.
    pub neuron: Option<NeuronTrace>,
    /// Of max-pooling: the input offset each output was taken from; otherwise empty.
    pub winners: Vec<usize>,
}

/// What a convolution, a linear layer or a batch norm computed.
#[derive(Clone, Debug)]
pub struct AffineTrace {
    /// The weight convolved with: the raw or the standardised one, in the shape of the raw one; empty in a batch norm alone.
    pub weight: Tensor,
    /// Convolution plus layer bias, before a batch norm and before the norm's bias, `[T, N, K, P, Q]`.
    pub conv_output: Tensor,
    /// Of a batch norm.
    pub batch: Option<BatchStatistics>,
}

/// Runs the network. `frozen` gives the spikes that the resets of detached neurons use in place of their own
/// (see [`neuron_forward`]); it is for finite differences only.
pub fn forward(
    network: &Network,
    params: &Params,
    input: &Input,
    model: SpikeModel,
    frozen: Option<&Forward>,
) -> Forward {
    assert_eq!(network.layers.len(), params.layers.len(), "parameters for each layer");
    let input = input.unrolled();
    let mut layers: Vec<LayerTrace> = Vec::new();
    for (index, layer) in network.layers.iter().enumerate() {
        let frozen_neuron = frozen.and_then(|pass| pass.layers[index].neuron.as_ref());
        let frozen_spikes = frozen_neuron.map(|neuron| &neuron.spikes);
        let read: Vec<&Tensor> = network.reads[index].iter().map(|&source| values(source, &input, &layers)).collect();
        let trace = layer_forward(layer, &params.layers[index], &read, model, frozen_spikes);
        layers.push(trace);
    }
    let logits_per_step = vote_forward(&layers.last().expect("a network has layers").output, network.vote);
    Forward { input, layers, logits: mean_over_steps(&logits_per_step), logits_per_step }
}

fn layer_forward(
    layer: &Layer,
    params: &LayerParams,
    read: &[&Tensor],
    model: SpikeModel,
    frozen_spikes: Option<&Tensor>,
) -> LayerTrace {
    let mut trace = LayerTrace::default();
    match (layer, read) {
        (Layer::MaxPool(window), [x]) => (trace.output, trace.winners) = max_pool_forward(window, x),
        (Layer::AvgPool(window), [x]) => trace.output = avg_pool_forward(window, x),
        (Layer::Dropout { mask, keep }, [x]) => trace.output = dropout(mask, *keep, x),
        (Layer::Conv { .. } | Layer::Linear { .. }, [x]) => {
            let affine = layer.affine(x.dims5()).expect("an affine layer");
            let (current, values) = affine_forward(&affine, params, x);
            (trace.output, trace.affine) = (current, Some(values));
        }
        (Layer::BatchNorm { eps, train }, [x]) => {
            let (y, statistics) = normalise(x, params, *eps, *train);
            trace.output = y;
            let (weight, conv_output) = (Tensor::default(), (*x).clone());
            trace.affine = Some(AffineTrace { weight, conv_output, batch: Some(statistics) });
        }
        (Layer::Factor { by, learned }, [x]) => {
            let learned = if *learned { params.factor[0] } else { 1.0 };
            trace.output = x.times(by * learned);
        }
        (Layer::Sum, [first, others @ ..]) => {
            trace.output = (*first).clone();
            others.iter().for_each(|other| trace.output.add(other));
        }
        (Layer::Neurons { neuron, slopes }, [x]) => {
            let values = neuron_forward(neuron, slopes, x, model, frozen_spikes);
            trace.output = values.spikes.clone();
            trace.neuron = Some(values);
        }
        (Layer::Join(join), [own, other]) => {
            trace.output = own.with(other, |a, b| match join {
                Join::Add => a + b,
                Join::And => a * b,
                Join::AndNot => (1.0 - a) * b,
            });
        }
        _ => panic!("{layer:?} cannot read {} layers", read.len()),
    }
    trace
}

fn affine_forward(affine: &Affine, params: &LayerParams, input: &Tensor) -> (Tensor, AffineTrace) {
    let fan_in = input.dims5()[2] * affine.filter.kernel_h * affine.filter.kernel_w;
    assert_eq!(params.weight.data.len(), affine.filter.out * fan_in, "size of the weight");
    let weight = match affine.norm {
        Norm::Weight { scale, sample } => standardise_weight(&params.weight, (scale, sample), &params.norm_weight),
        _ => params.weight.clone(),
    };
    let mut conv_output = conv_forward(&affine.filter, input, &weight);
    if affine.bias {
        add_per_channel(&mut conv_output, &params.bias);
    }
    let mut batch = None;
    let current = match affine.norm {
        Norm::None => conv_output.clone(),
        Norm::Weight { .. } => {
            let mut current = conv_output.clone();
            add_per_channel(&mut current, &params.norm_bias);
            current
        }
        Norm::Batch { eps, train } => {
            let (current, statistics) = normalise(&conv_output, params, eps, train);
            batch = Some(statistics);
            current
        }
    };
    (current, AffineTrace { weight, conv_output, batch })
}

/// A batch norm with the batch's or the running statistics.
fn normalise(x: &Tensor, params: &LayerParams, eps: f64, train: bool) -> (Tensor, BatchStatistics) {
    let (mean, var) = (&params.running_mean, &params.running_var);
    let statistics = if train {
        training_statistics(x, mean, var)
    } else {
        let (mean, var) = (mean.clone(), var.clone());
        BatchStatistics { running_mean: mean.clone(), running_var: var.clone(), mean, var }
    };
    (batch_forward(x, &statistics, eps, &params.norm_weight, &params.norm_bias), statistics)
}

/// x + bias, with `x` `[T, N, C, H, W]` and `bias` `[C]`.
fn add_per_channel(x: &mut Tensor, bias: &[f64]) {
    for offset in 0..x.data.len() {
        let channel = x.channel(offset);
        x.data[offset] += bias[channel];
    }
}
