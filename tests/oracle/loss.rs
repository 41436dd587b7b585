//! From the last layer's output to the loss, and back.

use super::Tensor;

/// (1 - mse) cross-entropy + mse mean squared error to one-hot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Loss {
    /// Weight of the squared error, in [0, 1].
    pub mse: f64,
    /// Averages the loss of each step's logits over the steps, instead of taking the loss of the averaged logits.
    pub tet: bool,
    /// Label smoothing of the cross-entropy, as PyTorch: target = (1 - smoothing) one-hot + smoothing / classes.
    pub smoothing: f64,
}

/// Averages groups of `vote` consecutive outputs: `[T, N, D, 1, 1]` (or any C, H, W of product D)
/// -> `[T, N, D / vote]`.
pub fn vote_forward(output: &Tensor, vote: usize) -> Tensor {
    let [steps, batch, channels, height, width] = output.dims5();
    let outputs = channels * height * width;
    assert_eq!(outputs % vote, 0, "{outputs} outputs do not split into votes of {vote}");
    let groups = output.data.chunks(vote);
    let logits = groups.map(|group| group.iter().sum::<f64>() / vote as f64);
    Tensor::new(&[steps, batch, outputs / vote], logits.collect())
}

/// Gradient of the output, of the given shape, from that of the logits of each step.
pub fn vote_backward(output_shape: &[usize], vote: usize, logits_gradient: &Tensor) -> Tensor {
    let mut gradient = Tensor::zeros(output_shape);
    for (i, g) in gradient.data.iter_mut().enumerate() {
        *g = logits_gradient.data[i / vote] / vote as f64;
    }
    gradient
}

/// Mean over the steps: `[T, N, classes]` -> `[N, classes]`.
pub fn mean_over_steps(logits_per_step: &Tensor) -> Tensor {
    let steps = logits_per_step.shape[0];
    let mut mean = Tensor::zeros(&logits_per_step.shape[1..]);
    for step in logits_per_step.data.chunks(mean.data.len()) {
        for (m, logit) in mean.data.iter_mut().zip(step) {
            *m += logit / steps as f64;
        }
    }
    mean
}

/// The loss, and its gradient with respect to the logits of each step, `[T, N, classes]`.
pub fn loss_and_gradient(loss: &Loss, logits_per_step: &Tensor, labels: &[usize]) -> (f64, Tensor) {
    let steps = logits_per_step.shape[0];
    let classes = logits_per_step.shape[2];
    assert_eq!(logits_per_step.shape[1], labels.len(), "one label a sample");
    let mut total = 0.0;
    let mut gradient = Vec::new();
    if loss.tet {
        for logits in logits_per_step.data.chunks(labels.len() * classes) {
            let (value, above) = batch_loss(loss, logits, labels, classes);
            total += value / steps as f64;
            gradient.extend(above.iter().map(|g| g / steps as f64));
        }
    } else {
        let logits = mean_over_steps(logits_per_step);
        let (value, above) = batch_loss(loss, &logits.data, labels, classes);
        total = value;
        for _ in 0..steps {
            gradient.extend(above.iter().map(|g| g / steps as f64));
        }
    }
    (total, Tensor::new(&logits_per_step.shape, gradient))
}

/// The loss of one set of logits `[N, classes]`, and its gradient.
fn batch_loss(loss: &Loss, logits: &[f64], labels: &[usize], classes: usize) -> (f64, Vec<f64>) {
    let batch = labels.len() as f64;
    let mut total = 0.0;
    let mut gradient = Vec::new();
    for (row, &label) in logits.chunks(classes).zip(labels) {
        assert!(label < classes, "label {label} of {classes} classes");
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let partition: f64 = row.iter().map(|logit| (logit - largest).exp()).sum();
        for (class, logit) in row.iter().enumerate() {
            let log_probability = logit - largest - partition.ln();
            let one_hot = f64::from(u8::from(class == label));
            let target = (1.0 - loss.smoothing) * one_hot + loss.smoothing / classes as f64;
            let error = logit - one_hot;
            let squares = classes as f64;
            total += (1.0 - loss.mse) * -target * log_probability + loss.mse * error * error / squares;
            gradient
                .push(((1.0 - loss.mse) * (log_probability.exp() - target) + loss.mse * 2.0 * error / squares) / batch);
        }
    }
    (total / batch, gradient)
}
