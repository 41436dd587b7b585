//! Votes, loss and its gradient.

use super::layout::{pitch, words};
use crate::backend::shape::Span;
use crate::backend::{LossSpec, LossSums};

/// Fills the rows of `logits`, `[N][T][pitch]`, with `value(sample, step, class)`.
fn each_logit(classes: usize, span: Span, logits: &mut [f32], value: impl Fn(usize, usize, usize) -> f32) {
    let pitch = pitch(classes);
    for (row, logits) in logits[..span.batch * span.steps * pitch].chunks_exact_mut(pitch).enumerate() {
        for (class, logit) in logits[..classes].iter_mut().enumerate() {
            *logit = value(row / span.steps, row % span.steps, class);
        }
    }
}

/// See [`crate::backend::Training::vote_currents`].
pub fn vote_currents(
    classes: usize,
    vote: usize,
    span: Span,
    outputs: &[f32],
    current_steps: usize,
    logits: &mut [f32],
) {
    let pitch = pitch(classes * vote);
    each_logit(classes, span, logits, |n, t, class| {
        let row = n * current_steps + if current_steps == 1 { 0 } else { t };
        outputs[row * pitch + class * vote..][..vote].iter().sum::<f32>() / vote as f32
    });
}

/// See [`crate::backend::Training::vote_spikes`].
pub fn vote_spikes(classes: usize, vote: usize, span: Span, outputs: &[u32], logits: &mut [f32]) {
    let words = words(classes * vote);
    each_logit(classes, span, logits, |n, t, class| {
        let row = &outputs[(n * span.steps + t) * words..][..words];
        let spikes: u32 = (class * vote..(class + 1) * vote).map(|k| row[k / 32] >> (k % 32) & 1).sum();
        spikes as f32 / vote as f32
    });
}

/// See [`crate::backend::Training::vote_backward`].
pub fn vote_backward(
    classes: usize,
    vote: usize,
    span: Span,
    logits_grad: &[f32],
    current_steps: usize,
    outputs_grad: &mut [f32],
) {
    let (pitch_in, pitch_out) = (pitch(classes), pitch(classes * vote));
    let repeats = span.steps / current_steps;
    for (row, out) in outputs_grad[..span.batch * current_steps * pitch_out].chunks_exact_mut(pitch_out).enumerate() {
        out.fill(0.0);
        for (k, out) in out[..classes * vote].iter_mut().enumerate() {
            let logits = (0..repeats).map(|t| logits_grad[(row * repeats + t) * pitch_in + k / vote]);
            *out = logits.sum::<f32>() / vote as f32;
        }
    }
}

/// A sample's label, and with mixup the label of the sample that it is mixed with and its own share.
struct Target {
    label: usize,
    other: usize,
    share: f64,
}

impl Target {
    fn of(n: usize, labels: &[u16], shares: &[f32]) -> Self {
        let label = usize::from(labels[n]);
        match shares.get(n) {
            Some(&share) => Self { label, other: labels[labels.len() - 1 - n].into(), share: share.into() },
            None => Self { label, other: label, share: 1.0 },
        }
    }

    fn at(&self, class: usize) -> f64 {
        let hot = |label: usize, share: f64| if class == label { share } else { 0.0 };
        hot(self.label, self.share) + hot(self.other, 1.0 - self.share)
    }

    fn largest(&self) -> usize {
        if self.share >= 0.5 { self.label } else { self.other }
    }
}

/// See [`crate::backend::Training::loss`]; these are the sums of a batch. `shares` is empty without mixup.
pub fn loss(
    spec: &LossSpec,
    classes: usize,
    span: Span,
    logits: &[f32],
    labels: &[u16],
    shares: &[f32],
    mut grad: Option<&mut [f32]>,
) -> LossSums {
    let pitch = pitch(classes);
    let mut sums = LossSums::default();
    let steps = span.steps as f64;
    let mut gradient = vec![0.0; classes];
    for n in 0..span.batch {
        let target = Target::of(n, &labels[..span.batch], shares);
        let sample = &logits[n * span.steps * pitch..][..span.steps * pitch];
        let mean: Vec<f64> = (0..classes)
            .map(|k| sample.iter().skip(k).step_by(pitch).map(|&x| x as f64).sum::<f64>() / steps)
            .collect();
        // In f32, so that equal votes stay equal: their shares of spikes are rounded before they are summed.
        let rounded: Vec<f32> = mean.iter().map(|&x| x as f32).collect();
        sums.correct += (argmax(&rounded) == target.largest()) as u64;
        if !spec.tet {
            sums.loss += sample_loss(spec, &mean, &target, &mut gradient);
        }
        for t in 0..span.steps {
            if spec.tet {
                let step: Vec<f64> = sample[t * pitch..][..classes].iter().map(|&x| x as f64).collect();
                sums.loss += sample_loss(spec, &step, &target, &mut gradient) / steps;
            }
            if let Some(grad) = &mut grad {
                let row = &mut grad[(n * span.steps + t) * pitch..][..pitch];
                row.fill(0.0);
                for (out, g) in row.iter_mut().zip(&gradient) {
                    *out = (g / (steps * span.batch as f64)) as f32;
                }
            }
        }
    }
    sums
}

/// Index of the first of the largest values.
fn argmax(values: &[f32]) -> usize {
    (1..values.len()).fold(0, |best, k| if values[k] > values[best] { k } else { best })
}

/// One sample's loss on one set of logits, and its gradient: `(1 - m) CE(smoothed) + m mean((x - onehot)^2)`; with mixup,
/// that of both labels by their shares.
fn sample_loss(spec: &LossSpec, logits: &[f64], labels: &Target, gradient: &mut [f64]) -> f64 {
    let classes = logits.len() as f64;
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total: f64 = logits.iter().map(|x| (x - largest).exp()).sum();
    let mut loss = 0.0;
    for (k, &x) in logits.iter().enumerate() {
        let hot = labels.at(k);
        let target = hot * (1.0 - spec.label_smoothing) + spec.label_smoothing / classes;
        let log_share = x - largest - total.ln();
        // hot (x - 1)^2 + (1 - hot) x^2: the squared error, averaged over both labels.
        let square = (x - hot).powi(2) + hot * (1.0 - hot);
        loss += (1.0 - spec.mse) * -target * log_share + spec.mse * square / classes;
        gradient[k] = (1.0 - spec.mse) * (log_share.exp() - target) + spec.mse * 2.0 * (x - hot) / classes;
    }
    loss
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_votes_go_to_the_first_class() {
        // Of 10 votes over 4 steps both classes get 4 spikes, 1 + 3 + 0 + 0 and 2 + 2 + 0 + 0.
        let mut logits = vec![0.0; 4 * pitch(2)];
        for (t, [first, second]) in [[1, 2], [3, 2]].into_iter().enumerate() {
            logits[t * pitch(2)] = first as f32 / 10.0;
            logits[t * pitch(2) + 1] = second as f32 / 10.0;
        }
        let span = Span { batch: 1, steps: 4 };
        for swap in [false, true] {
            if swap {
                logits.chunks_exact_mut(pitch(2)).for_each(|row| row.swap(0, 1));
            }
            for (label, correct) in [(0, 1), (1, 0)] {
                assert_eq!(
                    loss(&LossSpec::default(), 2, span, &logits, &[label], &[], None).correct,
                    correct,
                    "swap {swap}"
                );
            }
        }
    }
}
