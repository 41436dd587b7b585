//! The backward pass, from the logits to the input.

use super::conv::{conv_input_gradient, conv_weight_gradient};
use super::loss::vote_backward;
use super::network::Affine;
use super::norm::{batch_backward, standardise_weight_backward};
use super::pool::{avg_pool_backward, dropout, max_pool_backward};
use super::{
    AffineTrace, Forward, Input, Layer, LayerParams, LayerTrace, Network, Norm, Params, Tensor, neuron_backward,
};

/// Gradients of one layer; what the layer lacks is empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LayerGradients {
    /// `[K, C, R, S]` or `[out, in]`.
    pub weight: Tensor,
    /// `[K]`.
    pub bias: Vec<f64>,
    /// `[K]`.
    pub norm_weight: Vec<f64>,
    /// `[K]`.
    pub norm_bias: Vec<f64>,
    /// Of the layer's output (G_S of a spiking layer), `[T, N, K, P, Q]`.
    pub output: Tensor,
    /// Of the current after the norm (G_I of a spiking layer), `[T, N, K, P, Q]`.
    pub current: Tensor,
    /// Of the convolution's output, before a batch norm, `[T, N, K, P, Q]`.
    pub conv_output: Tensor,
}

/// Gradients of every layer, and of the input in its own shape, from those of the logits `[T, N, classes]`.
pub fn backward(
    network: &Network,
    params: &Params,
    input: &Input,
    forward: &Forward,
    logits_gradient: &Tensor,
) -> (Vec<LayerGradients>, Tensor) {
    let last = forward.layers.last().expect("a network has layers");
    let mut above = vote_backward(&last.output.shape, network.vote, logits_gradient);
    let mut gradients = Vec::new();
    for (index, layer) in network.layers.iter().enumerate().rev() {
        let trace = &forward.layers[index];
        let (of_layer, below) = layer_backward(layer, &params.layers[index], trace, above);
        gradients.push(of_layer);
        above = below;
    }
    gradients.reverse();
    (gradients, input.fold_gradient(above))
}

/// Gradients of a layer and of its input, from that of its output.
fn layer_backward(layer: &Layer, params: &LayerParams, trace: &LayerTrace, above: Tensor) -> (LayerGradients, Tensor) {
    let input_shape = trace.input.dims5();
    let mut gradients = LayerGradients::default();
    let below = match layer {
        Layer::MaxPool { .. } => max_pool_backward(&input_shape, &trace.winners, &above),
        Layer::AvgPool { .. } => {
            let window = layer.window().expect("pooling has a window");
            avg_pool_backward(&window, input_shape, &above)
        }
        Layer::Dropout { mask, keep } => dropout(mask, *keep, &above),
        Layer::Conv { .. } | Layer::Linear { .. } => {
            let affine = layer.affine(input_shape).expect("an affine layer");
            let values = trace.affine.as_ref().expect("an affine layer");
            gradients.current = match (affine.spiking, &trace.neuron) {
                (Some((neuron, slopes)), Some(state)) => {
                    neuron_backward(neuron, slopes, &state.membrane, &state.spikes, &above)
                }
                _ => above.clone(),
            };
            affine_backward(&affine, params, &trace.input, values, &mut gradients)
        }
    };
    gradients.output = above;
    (gradients, below)
}

/// Fills in the parameters' gradients from `gradients.current` and returns the input's.
fn affine_backward(
    affine: &Affine<'_>,
    params: &LayerParams,
    input: &Tensor,
    values: &AffineTrace,
    gradients: &mut LayerGradients,
) -> Tensor {
    let filter = &affine.filter;
    gradients.conv_output = match (affine.norm, &values.batch) {
        (Norm::Batch { eps, train }, Some(statistics)) => {
            let gain = &params.norm_weight;
            let x = &values.conv_output;
            let (x_gradient, gain_gradient, bias_gradient) =
                batch_backward(x, statistics, (eps, train), gain, &gradients.current);
            gradients.norm_weight = gain_gradient;
            gradients.norm_bias = bias_gradient;
            x_gradient
        }
        _ => gradients.current.clone(),
    };
    if affine.bias {
        gradients.bias = gradients.conv_output.sum_per_channel();
    }
    gradients.weight = conv_weight_gradient(filter, input, &values.weight, &gradients.conv_output);
    if let Norm::Weight { scale } = affine.norm {
        let gain = &params.norm_weight;
        let (weight_gradient, gain_gradient) =
            standardise_weight_backward(&params.weight, scale, gain, &gradients.weight);
        gradients.weight = weight_gradient;
        gradients.norm_weight = gain_gradient;
        gradients.norm_bias = gradients.current.sum_per_channel();
    }
    conv_input_gradient(filter, input.dims5(), &values.weight, &gradients.conv_output)
}
