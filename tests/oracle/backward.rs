//! The backward pass, from the logits to the input: every layer adds its share to the gradients of what it reads.

use super::conv::{conv_input_gradient, conv_weight_gradient};
use super::loss::vote_backward;
use super::network::Affine;
use super::norm::{batch_backward, standardise_weight_backward};
use super::pool::{avg_pool_backward, dropout, max_pool_backward};
use super::{
    AffineTrace, Forward, Input, Join, Layer, LayerParams, LayerTrace, Network, Norm, Params, Source, Tensor,
    neuron_backward,
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
    /// Of the learned value of a factor, one.
    pub factor: Vec<f64>,
    /// Of the layer's output, summed over its readers, `[T, N, K, P, Q]`.
    pub output: Tensor,
}

/// Gradients of every layer, and of the input in its own shape, from those of the logits `[T, N, classes]`.
pub fn backward(
    network: &Network,
    params: &Params,
    input: &Input,
    forward: &Forward,
    logits_gradient: &Tensor,
) -> (Vec<LayerGradients>, Tensor) {
    backward_rounded(network, params, input, forward, logits_gradient, |_| {})
}

/// [`backward`], with `round` applied to the gradient of every layer's output.
pub fn backward_rounded(
    network: &Network,
    params: &Params,
    input: &Input,
    forward: &Forward,
    logits_gradient: &Tensor,
    mut round: impl FnMut(&mut Tensor),
) -> (Vec<LayerGradients>, Tensor) {
    let mut of_input = Tensor::zeros(&forward.input.shape);
    let mut of_outputs: Vec<Tensor> = forward.layers.iter().map(|trace| Tensor::zeros(&trace.output.shape)).collect();
    let last = of_outputs.last_mut().expect("a network has layers");
    *last = vote_backward(&last.shape, network.vote, logits_gradient);
    let mut gradients = Vec::new();
    for (index, layer) in network.layers.iter().enumerate().rev() {
        let reads = &network.reads[index];
        let read: Vec<&Tensor> = reads.iter().map(|&source| forward.values(source)).collect();
        let mut above = std::mem::take(&mut of_outputs[index]);
        round(&mut above);
        let (of_layer, below) = layer_backward(layer, &params.layers[index], &read, &forward.layers[index], above);
        assert_eq!(below.len(), reads.len(), "a gradient for everything that {layer:?} reads");
        for (source, gradient) in reads.iter().zip(&below) {
            match *source {
                Source::Input => of_input.add(gradient),
                Source::Layer(i) => of_outputs[i].add(gradient),
            }
        }
        gradients.push(of_layer);
    }
    gradients.reverse();
    (gradients, input.fold_gradient(of_input))
}

/// Gradients of a layer and of everything it reads, from that of its output.
fn layer_backward(
    layer: &Layer,
    params: &LayerParams,
    read: &[&Tensor],
    trace: &LayerTrace,
    above: Tensor,
) -> (LayerGradients, Vec<Tensor>) {
    let x = read[0];
    let mut gradients = LayerGradients { output: above, ..LayerGradients::default() };
    let above = &gradients.output;
    let below = match layer {
        Layer::MaxPool(_) => vec![max_pool_backward(&x.shape, &trace.winners, above)],
        Layer::AvgPool(window) => vec![avg_pool_backward(window, x.dims5(), above)],
        Layer::Dropout { mask, keep } => vec![dropout(mask, *keep, above)],
        Layer::Conv { .. } | Layer::Linear { .. } => {
            let affine = layer.affine(x.dims5()).expect("an affine layer");
            let values = trace.affine.as_ref().expect("an affine layer");
            vec![affine_backward(&affine, params, x, values, &mut gradients)]
        }
        Layer::BatchNorm { eps, train } => {
            let statistics = trace.affine.as_ref().and_then(|values| values.batch.as_ref()).expect("a batch norm");
            let gain = &params.norm_weight;
            let (below, gain, bias) = batch_backward(x, statistics, (*eps, *train), gain, above);
            (gradients.norm_weight, gradients.norm_bias) = (gain, bias);
            vec![below]
        }
        Layer::Factor { by, learned } => {
            let mut factor = *by;
            if *learned {
                gradients.factor = vec![by * above.with(x, |g, x| g * x).data.iter().sum::<f64>()];
                factor *= params.factor[0];
            }
            vec![above.times(factor)]
        }
        Layer::Sum => read.iter().map(|_| above.clone()).collect(),
        Layer::Neurons { neuron, slopes } => {
            let state = trace.neuron.as_ref().expect("neurons");
            vec![neuron_backward(neuron, slopes, &state.membrane, &state.spikes, above)]
        }
        Layer::Join(join) => {
            let (own, other) = (read[0], read[1]);
            match join {
                Join::Add => vec![above.clone(), above.clone()],
                Join::And => vec![above.with(other, |g, b| g * b), above.with(own, |g, a| g * a)],
                Join::AndNot => vec![above.with(other, |g, b| -g * b), above.with(own, |g, a| g * (1.0 - a))],
            }
        }
    };
    (gradients, below)
}

/// Fills in the parameters' gradients from `gradients.output` and returns the input's.
fn affine_backward(
    affine: &Affine,
    params: &LayerParams,
    input: &Tensor,
    values: &AffineTrace,
    gradients: &mut LayerGradients,
) -> Tensor {
    let filter = &affine.filter;
    let of_convolution = match (affine.norm, &values.batch) {
        (Norm::Batch { eps, train }, Some(statistics)) => {
            let gain = &params.norm_weight;
            let x = &values.conv_output;
            let (x_gradient, gain_gradient, bias_gradient) =
                batch_backward(x, statistics, (eps, train), gain, &gradients.output);
            gradients.norm_weight = gain_gradient;
            gradients.norm_bias = bias_gradient;
            x_gradient
        }
        _ => gradients.output.clone(),
    };
    if affine.bias {
        gradients.bias = of_convolution.sum_per_channel();
    }
    gradients.weight = conv_weight_gradient(filter, input, &values.weight, &of_convolution);
    if let Norm::Weight { scale, sample } = affine.norm {
        let gain = &params.norm_weight;
        let (weight_gradient, gain_gradient) =
            standardise_weight_backward(&params.weight, (scale, sample), gain, &gradients.weight);
        gradients.weight = weight_gradient;
        gradients.norm_weight = gain_gradient;
        gradients.norm_bias = gradients.output.sum_per_channel();
    }
    conv_input_gradient(filter, input.dims5(), &values.weight, &of_convolution)
}
