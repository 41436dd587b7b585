//! The forward pass, which keeps all intermediate values.

use super::conv::conv_forward;
use super::loss::{mean_over_steps, vote_forward};
use super::network::Affine;
use super::norm::{batch_forward, standardise_weight, training_statistics};
use super::pool::{avg_pool_forward, dropout, max_pool_forward};
use super::{
    BatchStatistics, Input, Layer, LayerParams, Network, NeuronTrace, Norm, Params, SpikeModel, Tensor, neuron_forward,
};

/// What a forward pass computed.
#[derive(Clone, Debug)]
pub struct Forward {
    /// One entry per layer of the network.
    pub layers: Vec<LayerTrace>,
    /// `[T, N, classes]`.
    pub logits_per_step: Tensor,
    /// `[N, classes]`.
    pub logits: Tensor,
}

/// What one layer computed.
#[derive(Clone, Debug)]
pub struct LayerTrace {
    /// `[T, N, C, H, W]`.
    pub input: Tensor,
    /// Spikes, currents or pooled values, `[T, N, K, P, Q]`.
    pub output: Tensor,
    /// Of a convolution or linear layer.
    pub affine: Option<AffineTrace>,
    /// Of a spiking layer.
    pub neuron: Option<NeuronTrace>,
    /// Of max-pooling: the input offset each output was taken from; otherwise empty.
    pub winners: Vec<usize>,
}

/// What a convolution or linear layer computed before its neurons.
#[derive(Clone, Debug)]
pub struct AffineTrace {
    /// The weight convolved with: the raw or the standardised one, in the shape of the raw one.
    pub weight: Tensor,
    /// Convolution plus layer bias, before a batch norm and before the norm's bias, `[T, N, K, P, Q]`.
    pub conv_output: Tensor,
    /// After the norm: the neurons' input current, `[T, N, K, P, Q]`.
    pub current: Tensor,
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
    let mut value = input.unrolled();
    let mut layers = Vec::new();
    for (index, layer) in network.layers.iter().enumerate() {
        let frozen_neuron = frozen.and_then(|pass| pass.layers[index].neuron.as_ref());
        let frozen_spikes = frozen_neuron.map(|neuron| &neuron.spikes);
        let trace = layer_forward(layer, &params.layers[index], value, model, frozen_spikes);
        value = trace.output.clone();
        layers.push(trace);
    }
    let logits_per_step = vote_forward(&value, network.vote);
    Forward { layers, logits: mean_over_steps(&logits_per_step), logits_per_step }
}

fn layer_forward(
    layer: &Layer,
    params: &LayerParams,
    input: Tensor,
    model: SpikeModel,
    frozen_spikes: Option<&Tensor>,
) -> LayerTrace {
    let mut trace = LayerTrace { output: Tensor::default(), affine: None, neuron: None, winners: Vec::new(), input };
    let input = &trace.input;
    match layer {
        Layer::MaxPool { .. } => {
            let window = layer.window().expect("pooling has a window");
            (trace.output, trace.winners) = max_pool_forward(&window, input);
        }
        Layer::AvgPool { .. } => {
            let window = layer.window().expect("pooling has a window");
            trace.output = avg_pool_forward(&window, input);
        }
        Layer::Dropout { mask, keep } => trace.output = dropout(mask, *keep, input),
        Layer::Conv { .. } | Layer::Linear { .. } => {
            let affine = layer.affine(input.dims5()).expect("an affine layer");
            let values = affine_forward(&affine, params, input);
            trace.output = values.current.clone();
            if let Some((neuron, slopes)) = affine.spiking {
                let values = neuron_forward(neuron, slopes, &values.current, model, frozen_spikes);
                trace.output = values.spikes.clone();
                trace.neuron = Some(values);
            }
            trace.affine = Some(values);
        }
    }
    trace
}

fn affine_forward(affine: &Affine<'_>, params: &LayerParams, input: &Tensor) -> AffineTrace {
    let fan_in = input.dims5()[2] * affine.filter.kernel_h * affine.filter.kernel_w;
    assert_eq!(params.weight.data.len(), affine.filter.out * fan_in, "size of the weight");
    let weight = match affine.norm {
        Norm::Weight { scale } => standardise_weight(&params.weight, scale, &params.norm_weight),
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
            let (mean, var) = (&params.running_mean, &params.running_var);
            let statistics = if train {
                training_statistics(&conv_output, mean, var)
            } else {
                BatchStatistics {
                    mean: mean.clone(),
                    var: var.clone(),
                    running_mean: mean.clone(),
                    running_var: var.clone(),
                }
            };
            let (gain, bias) = (&params.norm_weight, &params.norm_bias);
            let current = batch_forward(&conv_output, &statistics, eps, gain, bias);
            batch = Some(statistics);
            current
        }
    };
    AffineTrace { weight, conv_output, current, batch }
}

/// x + bias, with `x` `[T, N, C, H, W]` and `bias` `[C]`.
fn add_per_channel(x: &mut Tensor, bias: &[f64]) {
    for offset in 0..x.data.len() {
        let channel = x.channel(offset);
        x.data[offset] += bias[channel];
    }
}
