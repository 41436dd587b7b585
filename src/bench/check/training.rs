//! Operations around the layers of a network.

use super::{Look, PLACES, SMALLEST, STEPS, SUMS};
use crate::backend::shape::Volume;
use crate::backend::{Backend, UpdateRule, dropout_mask, keeps};
use crate::bench::operation::{DROPPED, LOSS, Operation, UPDATE_DECAY, augmentation, tuning};
use crate::bench::reference::{Host, Place, over_channel};
use crate::bench::tensors::{
    Activity, BOUNDS, Layer, NORMALISATION, SAMPLE_CHANNELS, STEP, Training, share, usual_neuron,
};
use crate::data::sampling::placement;
use crate::histogram::Histogram;
use anyhow::{Result, ensure};

/// Whether the dropout of these steps keeps a place; the same at every step.
fn kept(volume: Volume, place: Place) -> bool {
    let index = ((place.n * volume.h + place.y) * volume.w + place.x) * volume.c + place.c;
    keeps(dropout_mask(STEP.dropout, 0), index as u64, DROPPED)
}

impl<B: Backend> Look<'_, B> {
    pub(super) fn training(&self, operation: Operation, layer: &Layer<B>, training: &Training<B>) -> Result<usize> {
        match operation {
            Operation::DropoutSpikes => self.dropout_spikes(layer),
            Operation::DropoutFloats => self.dropout_floats(layer),
            Operation::Input => self.input(training, layer.neurons.volume),
            Operation::VoteCurrents => {
                let outputs = self.floats(&training.outputs, training.spikes.volume)?;
                self.votes(training, |t, place| outputs.at(t, place).into())
            }
            Operation::VoteSpikes => {
                let spikes = self.bits(&training.spikes.spikes, training.spikes.volume)?;
                self.votes(training, |t, place| spikes.at(t, place).into())
            }
            Operation::VoteBackward => self.votes_back(training),
            Operation::Loss => self.loss(training),
            Operation::Update { rule } => self.update(training, rule),
            Operation::MembraneHistogram => self.histogram(&layer.neurons),
            Operation::CollectCounts => self.counts(&layer.neurons),
            _ => self.bounds(&layer.neurons, training),
        }
    }

    fn dropout_spikes(&self, layer: &Layer<B>) -> Result<usize> {
        let volume = layer.neurons.volume;
        let (spikes, found) = (self.bits(&layer.neurons.spikes, volume)?, self.bits(&layer.pooled, volume)?);
        for place in self.places(volume) {
            let t = self.below(self.span.steps);
            let expected = spikes.at(t, place) != 0 && kept(volume, place);
            ensure!((found.at(t, place) != 0) == expected, "{place:?} at step {t} does not become {expected}");
        }
        Ok(super::TRIED)
    }

    fn dropout_floats(&self, layer: &Layer<B>) -> Result<usize> {
        let volume = layer.neurons.volume;
        let (values, found) = (self.floats(&layer.neurons.gradient, volume)?, self.floats(&layer.means, volume)?);
        for place in self.places(volume) {
            let t = self.below(self.span.steps);
            let factor = if kept(volume, place) { 1.0 / (1.0 - f64::from(DROPPED)) } else { 0.0 };
            self.stored_as("the value", t, place, factor * f64::from(values.at(t, place)), found.at(t, place))?;
        }
        Ok(super::TRIED)
    }

    /// Checks that a value is as expected, except for storage rounding and the last digits of f32.
    fn stored_as(&self, what: &str, t: usize, place: Place, expected: f64, found: f32) -> Result<()> {
        let off = (f64::from(found) - expected).abs();
        ensure!(
            off <= self.stored(expected) + 1e-6 * expected.abs() + SMALLEST,
            "{what} at step {t} of {place:?} is {found}, not {expected}"
        );
        Ok(())
    }

    fn input(&self, training: &Training<B>, image: Volume) -> Result<usize> {
        let volume = Volume { c: SAMPLE_CHANNELS, ..image };
        let values = self.backend.read_samples(&training.samples, self.span, volume)?;
        let found = Host { values, span: self.span, volume };
        let [full_scale, mean, std] = NORMALISATION.map(f64::from);
        for place in self.places(volume) {
            let t = self.below(self.span.steps);
            let placed = placement(&augmentation(image), STEP.seed, STEP.epoch, place.n as u32);
            let byte = placed.source(place.y, place.x, volume.h, volume.w).map_or(0, |(y, x)| {
                let row = (place.n * self.span.steps + t) * volume.h + y;
                training.drawn.bytes[(row * volume.w + x) * volume.c + place.c]
            });
            let expected = (f64::from(byte) / full_scale - mean) / std;
            let off = (f64::from(found.at(t, place)) - expected).abs();
            ensure!(
                off <= self.stored(expected) + 1e-6,
                "the input at step {t} of {place:?} is {}, not {expected}",
                found.at(t, place)
            );
        }
        Ok(super::TRIED)
    }

    fn votes(&self, training: &Training<B>, output: impl Fn(usize, Place) -> f64) -> Result<usize> {
        let volume = Volume { h: 1, w: 1, c: training.classes };
        let logits = self.floats(&training.logits, volume)?;
        for place in self.places(volume).take(PLACES) {
            let t = self.below(self.span.steps);
            let first = place.c * training.vote;
            let outputs = (first..first + training.vote).map(|c| output(t, Place { c, ..place }));
            let (sum, size) = outputs.fold((0.0, 0.0), |(sum, size), x: f64| (sum + x, size + x.abs()));
            let (found, expected) = (f64::from(logits.at(t, place)), sum / training.vote as f64);
            ensure!((found - expected).abs() <= 1e-6 * size, "the logit of {place:?} is {found}, not {expected}");
        }
        Ok(PLACES)
    }

    fn votes_back(&self, training: &Training<B>) -> Result<usize> {
        let of_logits = Volume { h: 1, w: 1, c: training.classes };
        let logits_grad = self.floats(&training.given_logits, of_logits)?;
        let found = self.floats(&training.spikes.currents_grad, training.spikes.volume)?;
        let scale = f64::from(self.backend.read_tally(&training.tally)?.loss_scale);
        for place in self.places(training.spikes.volume).take(PLACES) {
            let t = self.below(self.span.steps);
            let of_class = logits_grad.at(t, Place { c: place.c / training.vote, ..place });
            let expected = scale * f64::from(of_class) / training.vote as f64;
            self.stored_as("the gradient", t, place, expected, found.at(t, place))?;
        }
        Ok(PLACES)
    }

    fn loss(&self, training: &Training<B>) -> Result<usize> {
        let volume = Volume { h: 1, w: 1, c: training.classes };
        let logits = self.floats(&training.given_logits, volume)?;
        let gradient = self.floats(&training.logits_grad, volume)?;
        let (steps, classes) = (self.span.steps as f64, training.classes as f64);
        let mut total = 0.0;
        for (n, &label) in training.drawn.labels.iter().enumerate() {
            let place = |c: usize| Place { n, c, y: 0, x: 0 };
            let mean = |c: usize| logits.over_time(place(c)).iter().map(|&x| f64::from(x)).sum::<f64>() / steps;
            let means: Vec<f64> = (0..training.classes).map(mean).collect();
            let partition = means.iter().map(|x| x.exp()).sum::<f64>();
            for (c, x) in means.iter().enumerate() {
                let hot = f64::from(u8::from(c == usize::from(label)));
                let target = (1.0 - LOSS.label_smoothing) * hot + LOSS.label_smoothing / classes;
                total -= (1.0 - LOSS.mse) * target * (x - partition.ln());
                total += LOSS.mse * (x - hot).powi(2) / classes;
                let of_sample =
                    (1.0 - LOSS.mse) * (x.exp() / partition - target) + LOSS.mse * 2.0 * (x - hot) / classes;
                let expected = of_sample / (steps * self.span.batch as f64);
                let found = f64::from(gradient.at(self.below(self.span.steps), place(c)));
                ensure!(
                    (found - expected).abs() <= SUMS * (expected.abs() + 1.0 / (steps * classes)),
                    "the gradient of logit {c} of sample {n} is {found}, not {expected}"
                );
            }
        }
        let totals = self.backend.read_tally(&training.tally)?;
        ensure!(totals.samples as usize == self.span.batch, "{} samples were counted", totals.samples);
        ensure!((totals.loss / total - 1.0).abs() <= SUMS, "the loss is {}, not {total}", totals.loss);
        Ok(self.span.batch * training.classes + 1)
    }

    /// The first update of a weight whose moments are 0.
    fn update(&self, training: &Training<B>, rule: UpdateRule) -> Result<usize> {
        let moved = &training.moved;
        let read = |floats| self.backend.read_weight(&moved.conv, floats);
        let (start, gradient, found) = (read(&moved.start)?, read(&moved.gradient)?, read(&moved.value)?);
        let (rate, decay) = (f64::from(STEP.learning_rate), f64::from(UPDATE_DECAY));
        for _ in 0..PLACES {
            let i = self.below(start.len());
            let (w, g) = (f64::from(start[i]), f64::from(gradient[i]));
            let expected = match rule {
                UpdateRule::Sgd { .. } => w - rate * (g + decay * w),
                UpdateRule::Adam { epsilon, .. } => w - rate * (decay * w + g / (g.abs() + f64::from(epsilon))),
            };
            ensure!((f64::from(found[i]) - expected).abs() <= 1e-6, "weight {i} becomes {}, not {expected}", found[i]);
        }
        Ok(PLACES)
    }

    /// The currents, taken as membranes, are counted one by one; those on the border of a bin may be in either bin.
    fn histogram(&self, neurons: &Activity<B>) -> Result<usize> {
        let values = self.backend.read_activations(&neurons.currents, self.span, neurons.volume)?;
        let threshold = usual_neuron().threshold;
        let mut expected = Histogram::default();
        values.iter().for_each(|h| expected.count((h - threshold) / threshold));
        let found = &self.backend.read_counts(&neurons.counts)?.recent[0];
        ensure!(
            found.total() == expected.total(),
            "{} potentials were counted, not {}",
            found.total(),
            expected.total()
        );
        let apart: u64 = found.bins.iter().zip(&expected.bins).map(|(&a, &b)| a.abs_diff(b)).sum();
        ensure!(apart <= values.len() as u64 / 1000, "{apart} of {} counts are in other bins", values.len());
        Ok(values.len())
    }

    /// Every membrane potential of the layer is counted, and those that spike are counted above the threshold.
    fn counts(&self, neurons: &Activity<B>) -> Result<usize> {
        let counted = self.backend.read_counts(&neurons.counts)?;
        let spikes = self.backend.read_spikes(&neurons.spikes, self.span, neurons.volume)?;
        let windows = self.backend.read_spikes(&neurons.inside, self.span, neurons.volume)?;
        let fired = spikes.iter().filter(|&&spike| spike != 0).count() as u64;
        for histogram in counted.recent.iter().chain(&counted.epoch) {
            ensure!(histogram.total() == spikes.len() as u64, "{} potentials were counted", histogram.total());
            ensure!(histogram.spikes() == fired, "{} spikes were counted, not {fired}", histogram.spikes());
            let (inside, expected) = (histogram.share_inside(BOUNDS.left.into(), BOUNDS.right.into()), share(&windows));
            ensure!((inside - expected).abs() < 0.02, "the share {inside} is inside, not {expected}");
        }
        Ok(2 * spikes.len())
    }

    fn bounds(&self, neurons: &Activity<B>, training: &Training<B>) -> Result<usize> {
        let counted = self.backend.read_counts(&neurons.counts)?;
        let (mut start, mut expected) = (BOUNDS, BOUNDS);
        tuning().apply(Some(&counted.epoch[0]), STEP.position, &mut start, &mut expected);
        let found = self.backend.read_bounds(&training.bounds[1])?[0];
        for (found, expected) in [(found.left, expected.left), (found.right, expected.right)] {
            ensure!((found - expected).abs() <= STEPS as f32 * expected, "a bound is {found}, not {expected}");
        }
        ensure!(counted.recent.iter().all(|histogram| histogram.total() == 0), "the histogram is not emptied");
        Ok(2)
    }

    pub(super) fn bias_grad(&self, neurons: &Activity<B>) -> Result<usize> {
        let gradient = self.floats(&neurons.gradient, neurons.volume)?;
        let found = self.backend.read_vector(&neurons.bias_grad, neurons.volume.c)?;
        for (c, &found) in found.iter().enumerate() {
            let sum = over_channel(&gradient, c, |g| g);
            let off = (f64::from(found) - sum.value).abs();
            ensure!(off <= SUMS * sum.magnitude, "the bias's gradient of channel {c} is {found}, not {}", sum.value);
        }
        Ok(found.len())
    }
}
