//! Checks an operation's result at random places: plain loops in f64 over the same tensors that were timed,
//! with the neurons' mathematics of [`crate::neuron`] and [`crate::surrogate`].
//!
//! Only rounding errors are tolerated. A neuron whose spike or window bit could be flipped by rounding is undecided; most must
//! not be.

mod branches;
mod synapses;
mod training;

use super::operation::Operation;
use super::reference::{Host, Place, back, fire, over_channel_of_both};
use super::shape::Part;
use super::tensors::{Activity, BIAS, Layer, usual_neuron};
use crate::backend::Backend;
use crate::backend::shape::{PoolKind, Span, Volume};
use crate::neuron::Neuron;
use crate::random::CounterRng;
use crate::surrogate::SurrogateKind;
use anyhow::{Result, bail, ensure};

/// Places that are compared, and how many of them must be decided.
const PLACES: usize = 64;
const DECIDED: usize = 40;
/// Places that are tried to find them.
const TRIED: usize = 32 * PLACES;
/// Permitted error of an f32 sum, relative to the sum of magnitudes.
const SUMS: f64 = 1e-5;
/// Permitted error of a neuron's gradient, relative to the largest of its terms.
const STEPS: f64 = 1e-4;
/// Half of the smallest f16: the largest error of small values stored in that format.
const SMALLEST: f64 = 1.0 / (1 << 25) as f64;
/// Distance to an edge, relative to the membrane, below which a neuron is undecided.
const NEAR: f32 = 1e-4;

/// Checks what the operation has just written to the layer; returns how many values were compared.
///
/// # Errors
/// What differs and by how much.
pub fn check<B: Backend>(operation: Operation, backend: &B, layer: &mut Layer<B>, seed: u64) -> Result<usize> {
    let look = Look { backend, span: layer.shape.span, rng: CounterRng::new(seed, 2).into() };
    if operation == Operation::PackWeight {
        // The device chooses the order, so it is checked through a convolution that reads it.
        Operation::ConvCurrent.run(backend, layer)?;
    }
    if let (Operation::MembraneHistogram, Some(training)) = (operation, &mut layer.training) {
        backend.collect_counts(&mut [&mut layer.neurons.counts], &training.drawn.batch, &mut training.tally)?;
    }
    let above = &layer.neurons;
    if let (Part::Training, Some(training)) = (operation.part(), &layer.training) {
        return look.training(operation, layer, training);
    }
    if let (Part::Branches, Some(branches)) = (operation.part(), &layer.branches) {
        return look.branches(operation, layer, branches);
    }
    match (operation, &layer.synapses) {
        (Operation::NormLifForward { .. }, _) => look.forward(above),
        (Operation::SpikeBackward { kind, neuron, .. }, _) => look.backward(above, kind, neuron, None),
        (Operation::NormSpikeBackward { kind }, _) => look.norm_backward(above, kind),
        (Operation::MaxPoolForward | Operation::AvgPoolForward, _) => look.pool(layer, operation),
        (Operation::BiasGrad, _) => look.bias_grad(above),
        (_, None) => bail!("the layer was not made for this operation"),
        (Operation::ConvCurrent | Operation::PackWeight, Some(synapses)) => look.currents(synapses, above, BIAS),
        (Operation::ConvBatchNorm, Some(synapses)) => look.batch_norm(synapses, above),
        (Operation::ConvLifForward, Some(synapses)) => look.conv_forward(synapses, above),
        (Operation::ConvInputGrad, Some(synapses)) => look.input_grad(synapses, above),
        (Operation::ConvInputGradLif, Some(synapses)) => look.input_grad_lif(synapses, above),
        (Operation::ConvWeightGrad, Some(synapses)) => look.weight_grad(synapses, above),
        (Operation::WeightNormForward, Some(synapses)) => look.weight_norm(synapses),
        (Operation::WeightNormBackward, Some(synapses)) => look.weight_norm_back(synapses),
        (_, Some(_)) => bail!("the layer was not made for this operation"),
    }
}

struct Look<'a, B> {
    backend: &'a B,
    span: Span,
    rng: std::cell::RefCell<CounterRng>,
}

impl<B: Backend> Look<'_, B> {
    fn floats(&self, floats: &B::Floats, volume: Volume) -> Result<Host<f32>> {
        let values = self.backend.read_activations(floats, self.span, volume)?;
        Ok(Host { values, span: self.span, volume })
    }

    fn bits(&self, bits: &B::Bits, volume: Volume) -> Result<Host<u8>> {
        let values = self.backend.read_spikes(bits, self.span, volume)?;
        Ok(Host { values, span: self.span, volume })
    }

    fn below(&self, n: usize) -> usize {
        self.rng.borrow_mut().below(n as u64) as usize
    }

    fn places(&self, volume: Volume) -> impl Iterator<Item = Place> {
        let place = move |_| Place {
            n: self.below(self.span.batch),
            c: self.below(volume.c),
            y: self.below(volume.h),
            x: self.below(volume.w),
        };
        (0..TRIED).map(place)
    }

    /// The largest change from storing a value.
    fn stored(&self, value: f64) -> f64 {
        1.01 * self.backend.rounding() * value.abs()
    }

    /// Distance to an edge below which a neuron is undecided if the device may store membranes like activations.
    fn near(&self) -> f32 {
        NEAR.max(2.0 * self.backend.rounding() as f32)
    }

    fn forward(&self, neurons: &Activity<B>) -> Result<usize> {
        let currents = self.floats(&neurons.currents, neurons.volume)?;
        let [scale, shift] = neurons.affine();
        self.spikes(neurons, |place| currents.over_time(place).iter().map(|i| scale.mul_add(*i, shift)).collect())
    }

    /// Compares spikes and windows with those of the default neurons on these currents.
    fn spikes(&self, neurons: &Activity<B>, currents: impl Fn(Place) -> Vec<f32>) -> Result<usize> {
        let spikes = self.bits(&neurons.spikes, neurons.volume)?;
        let windows = self.bits(&neurons.inside, neurons.volume)?;
        let mut decided = 0;
        for place in self.places(neurons.volume) {
            if decided == PLACES {
                break;
            }
            let Some(steps) = fire(&usual_neuron(), &currents(place), NEAR) else { continue };
            decided += 1;
            for (t, step) in steps.iter().enumerate() {
                let found = (spikes.at(t, place) != 0, windows.at(t, place) != 0);
                ensure!(
                    found == (step.spike, step.inside),
                    "at step {t} of {place:?} the membrane is {}: spike and window bit are {found:?}",
                    step.membrane
                );
            }
        }
        ensure!(decided >= DECIDED, "{decided} of {TRIED} neurons are far enough from the threshold to be compared");
        Ok(2 * decided * self.span.steps)
    }

    /// `norm` maps a gradient and a current to the expected gradient, per channel.
    fn backward(
        &self,
        neurons: &Activity<B>,
        kind: SurrogateKind,
        neuron: Neuron,
        norm: Option<&[Vec<f32>; 3]>,
    ) -> Result<usize> {
        let currents = self.floats(&neurons.currents, neurons.volume)?;
        let gradient = self.floats(&neurons.gradient, neurons.volume)?;
        let found = self.floats(&neurons.currents_grad, neurons.volume)?;
        let [scale, shift] = neurons.affine();
        let mut decided = 0;
        for place in self.places(neurons.volume) {
            if decided == PLACES {
                break;
            }
            let entered = currents.over_time(place);
            let currents: Vec<f32> = entered.iter().map(|i| scale.mul_add(*i, shift)).collect();
            let Some(steps) = fire(&neuron, &currents, self.near()) else { continue };
            let gradient: Vec<f64> = gradient.over_time(place).into_iter().map(f64::from).collect();
            decided += 1;
            let (mut expected, terms) = back(&neuron, kind, &steps, &gradient);
            if let Some(norm) = norm {
                let [of_gradient, of_current, constant] = norm.each_ref().map(|values| f64::from(values[place.c]));
                expected
                    .iter_mut()
                    .zip(entered)
                    .for_each(|(g, current)| *g = of_gradient * *g + of_current * f64::from(current) + constant);
            }
            let terms = terms * norm.map_or(1.0, |[of_gradient, ..]| f64::from(of_gradient[place.c]).abs());
            self.gradients(place, &expected, terms, &found.over_time(place))?;
        }
        ensure!(decided >= DECIDED, "{decided} of {TRIED} neurons are far enough from an edge to be compared");
        Ok(decided * self.span.steps)
    }

    /// Compares a neuron's gradients, sums whose largest terms are `terms`: a device may store membranes like
    /// activations.
    fn gradients(&self, place: Place, expected: &[f64], terms: f64, found: &[f32]) -> Result<()> {
        let allowed = STEPS * terms + 4.0 * self.stored(terms);
        for (t, (&expected, &found)) in expected.iter().zip(found).enumerate() {
            let off = (f64::from(found) - expected).abs();
            ensure!(
                off <= allowed + self.stored(expected),
                "the gradient at step {t} of {place:?} is {found}, not {expected}"
            );
        }
        Ok(())
    }

    fn norm_backward(&self, neurons: &Activity<B>, kind: SurrogateKind) -> Result<usize> {
        let channels = neurons.volume.c;
        let read = |floats| self.backend.read_vector(floats, channels);
        let [gain_grad, bias_grad] = [read(&neurons.gain_grad)?, read(&neurons.bias_grad)?];
        // The norm's own mean is 0 and its variance 1.
        let scale = neurons.affine()[0];
        let count = (self.span.batch * self.span.steps * neurons.volume.pixels()) as f32;
        let of = |values: &[f32]| values.iter().map(|value| -scale * value / count).collect::<Vec<f32>>();
        let norm = [vec![scale; channels], of(&gain_grad), of(&bias_grad)];
        let compared = self.backward(neurons, kind, usual_neuron(), Some(&norm))?;
        // The result's sum follows from the bias's gradient, that of its products with the currents from the gain's.
        let gradient = self.floats(&neurons.currents_grad, neurons.volume)?;
        let currents = self.floats(&neurons.currents, neurons.volume)?;
        let channel = self.below(channels);
        let [_, of_current, constant] = norm.each_ref().map(|values| f64::from(values[channel]));
        let sum = |f: &dyn Fn(f64, f64) -> f64| over_channel_of_both(&gradient, &currents, channel, f);
        let (of_bias, of_gain) = (sum(&|g, _| g), sum(&|g, y| g * y));
        let (y, squares) = (sum(&|_, y| y), sum(&|_, y| y * y));
        let scale = f64::from(scale);
        let expected = [
            scale * f64::from(bias_grad[channel]) + of_current * y.value + constant * f64::from(count),
            scale * f64::from(gain_grad[channel]) + of_current * squares.value + constant * y.value,
        ];
        for (what, expected, found) in [("bias", expected[0], of_bias), ("gain", expected[1], of_gain)] {
            let off = (found.value - expected).abs();
            ensure!(
                off <= (STEPS + 2.0 * self.backend.rounding()) * found.magnitude,
                "the gradient of the {what} of channel {channel} does not fit the result: {} instead of {expected}",
                found.value
            );
        }
        Ok(compared + 2)
    }

    fn pool(&self, layer: &Layer<B>, operation: Operation) -> Result<usize> {
        let kind = if operation == Operation::MaxPoolForward { PoolKind::Max } else { PoolKind::Avg };
        let pool = layer.shape.pool(kind);
        let spikes = self.bits(&layer.neurons.spikes, layer.neurons.volume)?;
        let found: Box<dyn Fn(usize, Place) -> f64> = match kind {
            PoolKind::Max => {
                let pooled = self.bits(&layer.pooled, pool.output)?;
                Box::new(move |t, place| f64::from(pooled.at(t, place)))
            }
            PoolKind::Avg => {
                let pooled = self.floats(&layer.means, pool.output)?;
                Box::new(move |t, place| f64::from(pooled.at(t, place)))
            }
        };
        for place in self.places(pool.output).take(PLACES) {
            let t = self.below(self.span.steps);
            let rows = (0..pool.kernel.h).map(|r| place.y * pool.stride.h + r);
            let pixels = rows.flat_map(|y| (0..pool.kernel.w).map(move |s| (y, place.x * pool.stride.w + s)));
            let count: usize = pixels.map(|(y, x)| usize::from(spikes.at(t, Place { y, x, ..place }) != 0)).sum();
            let expected = match kind {
                PoolKind::Max => f64::from(count > 0),
                PoolKind::Avg => count as f64 / (pool.kernel.h * pool.kernel.w) as f64,
            };
            let found = found(t, place);
            ensure!(
                (found - expected).abs() <= self.stored(expected),
                "{place:?} at step {t} is {found}, not {expected}"
            );
        }
        Ok(PLACES)
    }
}
