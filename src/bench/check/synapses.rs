//! Convolutions and operations on their weights.

use super::{DECIDED, Look, PLACES, STEPS, SUMS, TRIED};
use crate::backend::{Backend, NormState};
use crate::bench::operation::WEIGHT_SCALE;
use crate::bench::reference::{Host, Place, Sum, back, convolve, convolve_back, fire, over_channel, reached};
use crate::bench::tensors::{Activity, BIAS, Synapses, usual_neuron};
use crate::surrogate::SurrogateKind;
use anyhow::{Result, ensure};

/// How far a batch moves the running statistics.
const RUNNING: f64 = 0.1;
/// Places of a weight's gradient, each a sum over all positions, samples and steps.
const WEIGHTS: usize = 4;

impl<B: Backend> Look<'_, B> {
    pub(super) fn conv_forward(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let spikes = self.bits(&synapses.below.spikes, synapses.below.volume)?;
        self.spikes(above, |place| {
            let current = |t| convolve(&synapses.conv, &synapses.values, &spikes, t, place).value as f32 + BIAS;
            (0..self.span.steps).map(current).collect()
        })
    }

    pub(super) fn currents(&self, synapses: &Synapses<B>, above: &Activity<B>, bias: f32) -> Result<usize> {
        let spikes = self.bits(&synapses.below.spikes, synapses.below.volume)?;
        let currents = self.floats(&above.currents_grad, above.volume)?;
        for place in self.places(above.volume).take(PLACES) {
            let t = self.below(self.span.steps);
            let mut sum = convolve(&synapses.conv, &synapses.values, &spikes, t, place);
            sum.add(bias.into());
            self.sum("the current", place, sum, currents.at(t, place))?;
        }
        Ok(PLACES)
    }

    /// Compares a stored sum.
    pub(super) fn sum(&self, what: &str, place: Place, sum: Sum, found: f32) -> Result<()> {
        let off = (f64::from(found) - sum.value).abs();
        ensure!(
            off <= SUMS * sum.magnitude + self.stored(sum.value),
            "{what} at {place:?} is {found}, not {}",
            sum.value
        );
        Ok(())
    }

    pub(super) fn batch_norm(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let compared = self.currents(synapses, above, 0.0)?;
        let currents = self.floats(&above.currents_grad, above.volume)?;
        let Synapses { gain, bias, running, state, .. } = synapses;
        Ok(compared + self.statistics(&currents, [gain, bias], running, state)?)
    }

    /// Checks what a batch norm with this gain and bias has computed for one channel, and how far its running statistics
    /// have moved from 0 and 1.
    pub(super) fn statistics(
        &self,
        currents: &Host<f32>,
        [gain, bias]: [&B::Floats; 2],
        [running_mean, running_variance]: &[B::Floats; 2],
        state: &NormState<B::Floats>,
    ) -> Result<usize> {
        let channel = self.below(currents.volume.c);
        let count = (currents.values.len() / currents.volume.c) as f64;
        let mean = over_channel(currents, channel, |x| x).value / count;
        let variance = over_channel(currents, channel, |x| (x - mean) * (x - mean)).value / count;
        let read =
            |floats| self.backend.read_vector(floats, currents.volume.c).map(|values| f64::from(values[channel]));
        let (allowed, std) = (SUMS.max(self.backend.rounding()), variance.sqrt());
        let (inv_std, unbiased) = (1.0 / (variance + 1e-5).sqrt(), variance * count / (count - 1.0).max(1.0));
        let [gain, bias] = [read(gain)?, read(bias)?];
        let scale = gain * inv_std;
        for (what, found, expected, magnitude) in [
            ("mean", &state.mean, mean, std + mean.abs()),
            ("inverse deviation", &state.inv_std, inv_std, 10.0 * inv_std),
            ("scale", &state.scale, scale, 10.0 * scale.abs()),
            ("shift", &state.shift, bias - mean * scale, bias.abs() + (std + 11.0 * mean.abs()) * scale.abs()),
            ("running mean", running_mean, RUNNING * mean, RUNNING * (std + mean.abs())),
            ("running variance", running_variance, 1.0 + RUNNING * (unbiased - 1.0), 1.0 + unbiased),
        ] {
            let found = read(found)?;
            ensure!(
                (found - expected).abs() <= allowed * magnitude,
                "the {what} of channel {channel} is {found}, not {expected}"
            );
        }
        Ok(6)
    }

    pub(super) fn input_grad(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let gradient = self.floats(&above.gradient, above.volume)?;
        let found = self.floats(&synapses.below.currents_grad, synapses.below.volume)?;
        for place in self.places(synapses.below.volume).take(PLACES) {
            let t = self.below(self.span.steps);
            let sum = convolve_back(&synapses.conv, &synapses.values, &gradient, t, place);
            self.sum("the gradient", place, sum, found.at(t, place))?;
        }
        Ok(PLACES)
    }

    pub(super) fn input_grad_lif(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let below = &synapses.below;
        let gradient = self.floats(&above.gradient, above.volume)?;
        let currents = self.floats(&below.currents, below.volume)?;
        let found = self.floats(&below.currents_grad, below.volume)?;
        let ([scale, shift], neuron) = (below.affine(), usual_neuron());
        let mut decided = 0;
        for place in self.places(below.volume) {
            if decided == PLACES {
                break;
            }
            let currents: Vec<f32> = currents.over_time(place).iter().map(|i| scale.mul_add(*i, shift)).collect();
            let Some(steps) = fire(&neuron, &currents, self.near()) else { continue };
            let of_spikes = |t| convolve_back(&synapses.conv, &synapses.values, &gradient, t, place).value;
            let of_spikes: Vec<f64> = (0..self.span.steps).map(of_spikes).collect();
            decided += 1;
            let (expected, terms) = back(&neuron, SurrogateKind::Adali, &steps, &of_spikes);
            self.gradients(place, &expected, terms, &found.over_time(place))?;
        }
        ensure!(decided >= DECIDED, "{decided} of {TRIED} neurons are far enough from an edge to be compared");
        Ok(decided * self.span.steps)
    }

    pub(super) fn weight_grad(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let Synapses { conv, below, .. } = synapses;
        let spikes = self.bits(&below.spikes, below.volume)?;
        let gradient = self.floats(&above.gradient, above.volume)?;
        let found = self.backend.read_weight(conv, &synapses.weight_grad)?;
        for _ in 0..WEIGHTS {
            let (k, c) = (self.below(conv.output.c), self.below(conv.input.c));
            let (r, s) = (self.below(conv.kernel.h), self.below(conv.kernel.w));
            let mut sum = Sum::default();
            for t in 0..self.span.steps {
                for n in 0..self.span.batch {
                    for (p, y) in reached(conv.output.h, conv.stride.h, r, conv.padding.h, conv.input.h) {
                        for (q, x) in reached(conv.output.w, conv.stride.w, s, conv.padding.w, conv.input.w) {
                            if spikes.at(t, Place { n, c, y, x }) != 0 {
                                sum.add(gradient.at(t, Place { n, c: k, y: p, x: q }).into());
                            }
                        }
                    }
                }
            }
            let found = found[((k * conv.input.c + c) * conv.kernel.h + r) * conv.kernel.w + s];
            let off = (f64::from(found) - sum.value).abs();
            ensure!(
                off <= SUMS * sum.magnitude,
                "the gradient of weight {k}, {c}, {r}, {s} is {found}, not {}",
                sum.value
            );
        }
        Ok(WEIGHTS)
    }

    /// A filter of `weights`, its mean and the inverse root of `variance x fan-in + 1e-4`.
    fn filter(&self, weights: &[f32], filter: usize, fan_in: usize) -> (Vec<f64>, f64, f64) {
        let weights: Vec<f64> = weights[filter * fan_in..][..fan_in].iter().map(|&w| w.into()).collect();
        let mean = weights.iter().sum::<f64>() / fan_in as f64;
        let variance = weights.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>() / fan_in as f64;
        (weights, mean, 1.0 / (variance * fan_in as f64 + 1e-4).sqrt())
    }

    pub(super) fn weight_norm(&self, synapses: &Synapses<B>) -> Result<usize> {
        let fan_in = synapses.conv.fan_in();
        let found = self.backend.read_weight(&synapses.conv, &synapses.effective)?;
        let filter = self.below(synapses.conv.output.c);
        let (weights, mean, inverse) = self.filter(&synapses.values, filter, fan_in);
        let scale = f64::from(WEIGHT_SCALE) * inverse;
        for (&found, weight) in found[filter * fan_in..].iter().zip(weights) {
            let expected = scale * (weight - mean);
            ensure!(
                (f64::from(found) - expected).abs() <= STEPS * (expected.abs() + scale * mean.abs()),
                "a weight of filter {filter} becomes {found}, not {expected}"
            );
        }
        Ok(fan_in)
    }

    pub(super) fn weight_norm_back(&self, synapses: &Synapses<B>) -> Result<usize> {
        let fan_in = synapses.conv.fan_in();
        let found = self.backend.read_weight(&synapses.conv, &synapses.weight_grad)?;
        let gains = self.backend.read_vector(&synapses.gain_grad, synapses.conv.output.c)?;
        let filter = self.below(synapses.conv.output.c);
        let (weights, mean, inverse) = self.filter(&synapses.values, filter, fan_in);
        let given = self.backend.read_weight(&synapses.conv, &synapses.given_grad)?;
        let (given, of_mean, _) = self.filter(&given, filter, fan_in);
        let scale = f64::from(WEIGHT_SCALE);
        let mut along = Sum::default();
        weights.iter().zip(&given).for_each(|(w, g)| along.add(g * (w - mean) * inverse));
        ensure!(
            (f64::from(gains[filter]) - scale * along.value).abs() <= SUMS * scale * along.magnitude,
            "the gain's gradient of filter {filter} is {}, not {}",
            gains[filter],
            scale * along.value
        );
        for ((&found, weight), given) in found[filter * fan_in..].iter().zip(&weights).zip(given) {
            let terms = [given, of_mean, (weight - mean) * inverse * along.value];
            let expected = scale * inverse * (terms[0] - terms[1] - terms[2]);
            let size: f64 = terms.iter().map(|term| term.abs()).sum();
            ensure!(
                (f64::from(found) - expected).abs() <= SUMS * scale * inverse * size,
                "the gradient of a weight of filter {filter} is {found}, not {expected}"
            );
        }
        Ok(fan_in + 1)
    }
}
