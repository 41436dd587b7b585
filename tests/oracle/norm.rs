//! Batch normalisation over T, N, H, W, and scaled weight standardisation.

use super::Tensor;

/// Share of the new statistics in the running ones (PyTorch's default).
pub const MOMENTUM: f64 = 0.1;

/// Added under the root of the weight standardisation.
pub const WEIGHT_EPS: f64 = 1e-4;

/// Statistics of a batch normalisation, each `[C]`.
#[derive(Clone, Debug, PartialEq)]
pub struct BatchStatistics {
    /// Mean used to normalise: the batch's in training, else the running one.
    pub mean: Vec<f64>,
    /// Variance used to normalise: the batch's biased one in training, else the running one.
    pub var: Vec<f64>,
    /// Running mean after this pass.
    pub running_mean: Vec<f64>,
    /// Running variance after this pass, fed by the unbiased variance.
    pub running_var: Vec<f64>,
}

/// Statistics of `x` `[T, N, C, H, W]` in training. Panics with fewer than two values per channel, as PyTorch does.
pub fn training_statistics(x: &Tensor, running_mean: &[f64], running_var: &[f64]) -> BatchStatistics {
    let channels = x.dims5()[2];
    let count = (x.data.len() / channels) as f64;
    assert!(count > 1.0, "batch statistics need more than one value a channel");
    let mean: Vec<f64> = x.sum_per_channel().iter().map(|sum| sum / count).collect();
    let mut squares = vec![0.0; channels];
    for (offset, value) in x.data.iter().enumerate() {
        let c = x.channel(offset);
        squares[c] += (value - mean[c]) * (value - mean[c]);
    }
    let blend = |old: &f64, new: f64| (1.0 - MOMENTUM) * old + MOMENTUM * new;
    BatchStatistics {
        running_mean: running_mean.iter().zip(&mean).map(|(old, new)| blend(old, *new)).collect(),
        running_var: running_var.iter().zip(&squares).map(|(old, square)| blend(old, square / (count - 1.0))).collect(),
        var: squares.iter().map(|square| square / count).collect(),
        mean,
    }
}

/// gain (x - mean) / sqrt(var + eps) + bias, per channel.
pub fn batch_forward(x: &Tensor, statistics: &BatchStatistics, eps: f64, gain: &[f64], bias: &[f64]) -> Tensor {
    let mut y = Tensor::zeros(&x.shape);
    for (offset, value) in x.data.iter().enumerate() {
        let c = x.channel(offset);
        let normal = (value - statistics.mean[c]) / (statistics.var[c] + eps).sqrt();
        y.data[offset] = gain[c] * normal + bias[c];
    }
    y
}

/// Gradients of x `[T, N, C, H, W]`, gain `[C]` and bias `[C]` from that of y.
///
/// With `train` the mean and the variance are functions of x; with m values per channel and n = the normalised x:
///
///     G_x = gain / sqrt(var + eps) (G_y - sum(G_y)/m - n sum(G_y n)/m)
pub fn batch_backward(
    x: &Tensor,
    statistics: &BatchStatistics,
    (eps, train): (f64, bool),
    gain: &[f64],
    y_gradient: &Tensor,
) -> (Tensor, Vec<f64>, Vec<f64>) {
    let channels = x.dims5()[2];
    let count = (x.data.len() / channels) as f64;
    let deviation: Vec<f64> = statistics.var.iter().map(|var| (var + eps).sqrt()).collect();
    let normal = |offset: usize| {
        let c = x.channel(offset);
        (x.data[offset] - statistics.mean[c]) / deviation[c]
    };
    let bias_gradient = y_gradient.sum_per_channel();
    let mut gain_gradient = vec![0.0; channels];
    for (offset, gradient) in y_gradient.data.iter().enumerate() {
        gain_gradient[x.channel(offset)] += gradient * normal(offset);
    }
    let mut x_gradient = Tensor::zeros(&x.shape);
    for (offset, gradient) in y_gradient.data.iter().enumerate() {
        let c = x.channel(offset);
        let through_statistics =
            if train { (bias_gradient[c] + normal(offset) * gain_gradient[c]) / count } else { 0.0 };
        x_gradient.data[offset] = gain[c] / deviation[c] * (gradient - through_statistics);
    }
    (x_gradient, gain_gradient, bias_gradient)
}

/// Mean of a filter, d = sqrt(var * fan_in + 1e-4), and the factor f of the squares in var * fan_in: 1, or, with the
/// sample's variance, which divides by fan_in - 1, fan_in / (fan_in - 1).
fn filter_statistics(filter: &[f64], sample: bool) -> (f64, f64, f64) {
    let fan_in = filter.len() as f64;
    let mean = filter.iter().sum::<f64>() / fan_in;
    let squares = filter.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>();
    // A single weight equals its mean: its squares are 0 whatever multiplies them.
    let f = if sample && filter.len() > 1 { fan_in / (fan_in - 1.0) } else { 1.0 };
    (mean, (f * squares + WEIGHT_EPS).sqrt(), f)
}

/// gain scale (W - mean) / sqrt(var fan_in + 1e-4) for each filter of `weight` `[K, ...]`; `gain` is `[K]`.
pub fn standardise_weight(weight: &Tensor, (scale, sample): (f64, bool), gain: &[f64]) -> Tensor {
    let mut result = Tensor::zeros(&weight.shape);
    let fan_in = weight.data.len() / weight.shape[0];
    for (k, filter) in weight.data.chunks(fan_in).enumerate() {
        let (mean, deviation, _) = filter_statistics(filter, sample);
        for (i, w) in filter.iter().enumerate() {
            result.data[k * fan_in + i] = gain[k] * scale * (w - mean) / deviation;
        }
    }
    result
}

/// Gradients of the raw weight `[K, ...]` and of the gain `[K]` from that of the standardised weight.
///
/// With u = W - mean, d = sqrt(f sum u^2 + 1e-4) and G the gradient of gain scale u / d:
///
///     G_u = gain scale (G / d - f u sum(G u) / d^3)     G_W = G_u - mean(G_u)     G_gain = scale sum(G u) / d
pub fn standardise_weight_backward(
    weight: &Tensor,
    (scale, sample): (f64, bool),
    gain: &[f64],
    gradient: &Tensor,
) -> (Tensor, Vec<f64>) {
    let mut weight_gradient = Tensor::zeros(&weight.shape);
    let mut gain_gradient = vec![0.0; weight.shape[0]];
    let fan_in = weight.data.len() / weight.shape[0];
    for (k, filter) in weight.data.chunks(fan_in).enumerate() {
        let (mean, d, f) = filter_statistics(filter, sample);
        let above = &gradient.data[k * fan_in..(k + 1) * fan_in];
        let inner: f64 = filter.iter().zip(above).map(|(w, g)| (w - mean) * g).sum();
        gain_gradient[k] = scale * inner / d;
        let centred: Vec<f64> = filter
            .iter()
            .zip(above)
            .map(|(w, g)| gain[k] * scale * (g / d - f * (w - mean) * inner / (d * d * d)))
            .collect();
        let mean_gradient = centred.iter().sum::<f64>() / fan_in as f64;
        for (i, g) in centred.iter().enumerate() {
            weight_gradient.data[k * fan_in + i] = g - mean_gradient;
        }
    }
    (weight_gradient, gain_gradient)
}
