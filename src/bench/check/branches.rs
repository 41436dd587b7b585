//! Operations where networks branch.

use super::{Look, PLACES, SMALLEST, SUMS};
use crate::backend::Backend;
use crate::backend::shape::PoolKind;
use crate::bench::operation::Operation;
use crate::bench::reference::{Host, Place, over_channel, over_channel_of_both};
use crate::bench::tensors::{Activity, Branches, FACTORS, Layer};
use anyhow::{Result, bail, ensure};

impl<B: Backend> Look<'_, B> {
    pub(super) fn branches(&self, operation: Operation, layer: &Layer<B>, branches: &Branches<B>) -> Result<usize> {
        let neurons = &layer.neurons;
        let floats = |floats| self.floats(floats, neurons.volume);
        let bits = |bits| self.bits(bits, neurons.volume);
        let [scale, shift] = neurons.affine();
        match operation {
            Operation::SumLifForward => {
                let (currents, other) = (floats(&neurons.currents)?, bits(&branches.other)?);
                let sum = |(current, spike): (f32, u8)| scale.mul_add(current, shift) + f32::from(spike);
                self.spikes(neurons, |place| {
                    currents.over_time(place).into_iter().zip(other.over_time(place)).map(sum).collect()
                })
            }
            Operation::SumCurrents => {
                let (currents, other) = (floats(&neurons.currents)?, bits(&branches.other)?);
                self.each(&floats(&neurons.currents_grad)?, |t, place| {
                    let current = f64::from(scale) * f64::from(currents.at(t, place));
                    let terms = [current, f64::from(shift), f64::from(other.at(t, place))];
                    (terms.iter().sum(), terms.iter().map(|term| term.abs()).sum())
                })
            }
            Operation::BatchNormStatistics => {
                let Branches { affine: [gain, bias], running, state, .. } = branches;
                self.statistics(&floats(&neurons.currents)?, [gain, bias], running, state)
            }
            Operation::NormBackward => self.norm_alone(neurons),
            Operation::PassGradient => {
                let gradient = floats(&neurons.gradient)?;
                let factor = f64::from(FACTORS[0] * FACTORS[1]);
                self.each(&floats(&neurons.currents_grad)?, |t, place| alone(factor * f64::from(gradient.at(t, place))))
            }
            Operation::GainForward => {
                let expected = FACTORS[0] * FACTORS[1];
                let found = self.backend.read_vector(&branches.factor, branches.channels)?;
                ensure!(found.iter().all(|&x| x == expected), "a factor of {found:?} is not {expected}");
                Ok(found.len())
            }
            Operation::GainBackward => {
                let (gradient, currents) = (floats(&neurons.gradient)?, floats(&neurons.currents)?);
                let (mut value, mut magnitude) = (0.0, 0.0);
                for c in 0..neurons.volume.c {
                    let sum = over_channel_of_both(&gradient, &currents, c, |g, y| f64::from(FACTORS[0]) * g * y);
                    (value, magnitude) = (value + sum.value, magnitude + sum.magnitude);
                }
                let found = f64::from(self.backend.read_vector(&branches.gain_grad, 1)?[0]);
                let off = (found - value).abs();
                ensure!(off <= SUMS * magnitude, "the gain's gradient is {found}, not {value}");
                Ok(1)
            }
            Operation::AndSpikes => {
                let (own, other) = (bits(&neurons.spikes)?, bits(&neurons.inside)?);
                let found = bits(&layer.pooled)?;
                for place in self.places(neurons.volume) {
                    let t = self.below(self.span.steps);
                    let expected = own.at(t, place) == 0 && other.at(t, place) != 0;
                    ensure!((found.at(t, place) != 0) == expected, "{place:?} at step {t} is not {expected}");
                }
                Ok(super::TRIED)
            }
            Operation::MaskGradient => {
                let (gradient, mask) = (floats(&neurons.gradient)?, bits(&branches.other)?);
                self.each(&floats(&neurons.currents_grad)?, |t, place| {
                    alone(if mask.at(t, place) != 0 { gradient.at(t, place).into() } else { 0.0 })
                })
            }
            Operation::AddSpikes => {
                let (own, other) = (bits(&neurons.spikes)?, bits(&branches.other)?);
                self.each(&floats(&layer.means)?, |t, place| alone((own.at(t, place) + other.at(t, place)).into()))
            }
            Operation::AvgPoolBackward => {
                let pool = layer.shape.pool(PoolKind::Avg);
                let pooled = self.floats(&layer.means, pool.output)?;
                let places = (pool.kernel.h * pool.kernel.w) as f64;
                self.each(&floats(&neurons.currents_grad)?, |t, place| {
                    let (y, x) = (place.y / pool.stride.h, place.x / pool.stride.w);
                    // Rows and columns that fill no window have no gradient.
                    let covered = y < pool.output.h && x < pool.output.w;
                    alone(if covered { f64::from(pooled.at(t, Place { y, x, ..place })) / places } else { 0.0 })
                })
            }
            _ => bail!("the layer was not made for this operation"),
        }
    }

    /// Compares values at random places with what `expected` says, each with the magnitude of its terms.
    fn each(&self, found: &Host<f32>, expected: impl Fn(usize, Place) -> (f64, f64)) -> Result<usize> {
        for place in self.places(found.volume).take(PLACES) {
            let t = self.below(self.span.steps);
            let ((expected, magnitude), found) = (expected(t, place), f64::from(found.at(t, place)));
            ensure!(
                (found - expected).abs() <= self.stored(expected) + SUMS * magnitude + SMALLEST,
                "the value at step {t} of {place:?} is {found}, not {expected}"
            );
        }
        Ok(PLACES)
    }

    /// A batch norm's backward pass; its own mean is 0 and its variance 1.
    fn norm_alone(&self, neurons: &Activity<B>) -> Result<usize> {
        let read = |floats| self.backend.read_vector(floats, neurons.volume.c);
        let [gain_grad, bias_grad] = [read(&neurons.gain_grad)?, read(&neurons.bias_grad)?];
        let gradient = self.floats(&neurons.gradient, neurons.volume)?;
        let currents = self.floats(&neurons.currents, neurons.volume)?;
        for c in 0..neurons.volume.c {
            let of_gain = over_channel_of_both(&gradient, &currents, c, |g, y| g * y);
            let of_bias = over_channel(&gradient, c, |g| g);
            for (what, found, sum) in [("gain", gain_grad[c], of_gain), ("bias", bias_grad[c], of_bias)] {
                let off = (f64::from(found) - sum.value).abs();
                ensure!(off <= SUMS * sum.magnitude, "the gradient of the {what} of channel {c} is {found}");
            }
        }
        let scale = f64::from(neurons.affine()[0]);
        let count = (self.span.batch * self.span.steps * neurons.volume.pixels()) as f64;
        self.each(&self.floats(&neurons.currents_grad, neurons.volume)?, |t, place| {
            let [of_gain, of_bias] = [&gain_grad, &bias_grad].map(|sums| f64::from(sums[place.c]) / count);
            let terms = [gradient.at(t, place).into(), -of_bias, -of_gain * f64::from(currents.at(t, place))];
            (scale * terms.iter().sum::<f64>(), scale * terms.iter().map(|term: &f64| term.abs()).sum::<f64>())
        })
    }
}

/// A value of a single term.
fn alone(value: f64) -> (f64, f64) {
    (value, value.abs())
}
