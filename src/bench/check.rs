//! Whether an operation's result is right: at places drawn anew, plain loops over the very tensors that were timed, in f64
//! and with the neurons' mathematics of [`crate::neuron`] and [`crate::surrogate`].
//!
//! Rounding is the only licence. Where it can flip a spike or a window's bit, that neuron is left undecided; most must not
//! be.

use super::operation::{Operation, WEIGHT_SCALE};
use super::tensors::{Activity, BIAS, BOUNDS, Layer, Synapses, usual_neuron};
use crate::backend::shape::{Conv, PoolKind, Span, Volume};
use crate::backend::{Backend, NormGradient};
use crate::data::sampling::CounterRng;
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{MembraneSlope, Slope, Surrogate, SurrogateKind};
use anyhow::{Result, bail, ensure};

/// Places that are looked at, and how many of them must be decided.
const PLACES: usize = 64;
const DECIDED: usize = 40;
/// Places that are tried for that.
const TRIED: usize = 32 * PLACES;
/// Places of a weight's gradient, each a sum over everything.
const WEIGHTS: usize = 4;
/// What a sum of f32 may be off by, relative to the sum of magnitudes.
const SUMS: f64 = 1e-5;
/// What a neuron's gradient may be off by, relative to the largest of its terms.
const STEPS: f64 = 1e-4;
/// How near an edge, relative to the membrane, a neuron is undecided.
const NEAR: f32 = 1e-4;

/// Checks what the operation has just left in the layer; how many values were compared.
///
/// # Errors
/// What differs and by how much.
pub fn check<B: Backend>(operation: Operation, backend: &B, layer: &mut Layer<B>, seed: u64) -> Result<usize> {
    let look = Look { backend, span: layer.shape.span, rng: CounterRng::new(seed, 2).into() };
    if operation == Operation::PackWeight {
        // The order is the device's affair; a convolution that reads it tells.
        Operation::ConvCurrent.run(backend, layer)?;
    }
    let above = &layer.neurons;
    match (operation, &layer.synapses) {
        (Operation::NormLifForward { .. }, _) => look.forward(above),
        (Operation::SpikeBackward { kind, neuron, .. }, _) => look.backward(above, kind, neuron, None),
        (Operation::NormSpikeBackward { kind }, _) => look.norm_backward(above, kind),
        (Operation::MaxPoolForward | Operation::AvgPoolForward, _) => look.pool(layer, operation),
        (_, None) => bail!("a layer without synapses"),
        (Operation::ConvCurrent | Operation::PackWeight, Some(synapses)) => look.currents(synapses, above, BIAS),
        (Operation::ConvBatchNorm, Some(synapses)) => look.batch_norm(synapses, above),
        (Operation::ConvLifForward, Some(synapses)) => look.conv_forward(synapses, above),
        (Operation::ConvInputGrad, Some(synapses)) => look.input_grad(synapses, above),
        (Operation::ConvInputGradLif, Some(synapses)) => look.input_grad_lif(synapses, above),
        (Operation::ConvWeightGrad, Some(synapses)) => look.weight_grad(synapses, above),
        (Operation::WeightNormForward, Some(synapses)) => look.weight_norm(synapses),
    }
}

/// A tensor on the host, `[T, N, C, H, W]`.
struct Host<T> {
    values: Vec<T>,
    span: Span,
    volume: Volume,
}

impl<T: Copy> Host<T> {
    fn at(&self, t: usize, place: Place) -> T {
        let Volume { h, w, c } = self.volume;
        self.values[(((t * self.span.batch + place.n) * c + place.c) * h + place.y) * w + place.x]
    }

    fn over_time(&self, place: Place) -> Vec<T> {
        (0..self.span.steps).map(|t| self.at(t, place)).collect()
    }
}

/// One neuron of one sample.
#[derive(Clone, Copy, Debug)]
struct Place {
    n: usize,
    c: usize,
    y: usize,
    x: usize,
}

/// A sum, and that of its terms' magnitudes.
#[derive(Clone, Copy, Default)]
struct Sum {
    value: f64,
    magnitude: f64,
}

impl Sum {
    fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
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

    /// What storing a value may change it by.
    fn stored(&self, value: f64) -> f64 {
        1.01 * self.backend.rounding() * value.abs()
    }

    /// How near an edge a neuron is undecided whose membrane a device may keep as it stores activations.
    fn near(&self) -> f32 {
        NEAR.max(2.0 * self.backend.rounding() as f32)
    }

    fn forward(&self, neurons: &Activity<B>) -> Result<usize> {
        let currents = self.floats(&neurons.currents, neurons.volume)?;
        let [scale, shift] = neurons.affine();
        self.spikes(neurons, |place| currents.over_time(place).iter().map(|i| scale.mul_add(*i, shift)).collect())
    }

    fn conv_forward(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let spikes = self.bits(&synapses.below.spikes, synapses.below.volume)?;
        self.spikes(above, |place| {
            let current = |t| convolve(&synapses.conv, &synapses.values, &spikes, t, place).value as f32 + BIAS;
            (0..self.span.steps).map(current).collect()
        })
    }

    /// Compares spikes and windows with those of the usual neurons on these currents.
    fn spikes(&self, neurons: &Activity<B>, currents: impl Fn(Place) -> Vec<f32>) -> Result<usize> {
        let spikes = self.bits(&neurons.spikes, neurons.volume)?;
        let windows = self.bits(&neurons.windows, neurons.volume)?;
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

    /// `norm` maps a gradient and a current to the gradient that is expected, per channel.
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

    /// Compares a neuron's gradients, sums of which the largest terms are `terms`: a device may keep membranes as it stores
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

    /// A device leaves the norm to the convolutions that follow, or applies it at once.
    fn norm_backward(&self, neurons: &Activity<B>, kind: SurrogateKind) -> Result<usize> {
        let channels = neurons.volume.c;
        let read = |floats| self.backend.read_vector(floats, channels);
        let NormGradient { of_gradient, of_current, constant } = &neurons.norm_grad;
        let norm = [read(of_gradient)?, read(of_current)?, read(constant)?];
        let [gain_grad, bias_grad] = [read(&neurons.gain_grad)?, read(&neurons.bias_grad)?];
        // The norm's own mean is 0 and its variance 1.
        let scale = neurons.affine()[0];
        let count = (self.span.batch * self.span.steps * neurons.volume.pixels()) as f32;
        for c in 0..channels {
            let expected = [scale, -scale * gain_grad[c] / count, -scale * bias_grad[c] / count];
            let found = norm.each_ref().map(|values| values[c]);
            let close = |(a, b): (&f32, &f32)| (a - b).abs() <= STEPS as f32 * b.abs() + f32::MIN_POSITIVE;
            ensure!(found.iter().zip(&expected).all(close), "channel {c}'s norm is {found:?}, not {expected:?}");
        }
        let Ok(compared) = self.backward(neurons, kind, usual_neuron(), None) else {
            return Ok(3 * channels + self.backward(neurons, kind, usual_neuron(), Some(&norm))?);
        };
        let gradient = self.floats(&neurons.currents_grad, neurons.volume)?;
        let channel = self.below(channels);
        let sum = over_channel(&gradient, channel, |g| g);
        let off = (f64::from(bias_grad[channel]) - sum.value).abs();
        ensure!(
            off <= (STEPS + self.backend.rounding()) * sum.magnitude,
            "the bias's gradient of channel {channel} is {}, not {}",
            bias_grad[channel],
            sum.value
        );
        Ok(3 * channels + compared + 1)
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

    fn currents(&self, synapses: &Synapses<B>, above: &Activity<B>, bias: f32) -> Result<usize> {
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
    fn sum(&self, what: &str, place: Place, sum: Sum, found: f32) -> Result<()> {
        let off = (f64::from(found) - sum.value).abs();
        ensure!(
            off <= SUMS * sum.magnitude + self.stored(sum.value),
            "{what} at {place:?} is {found}, not {}",
            sum.value
        );
        Ok(())
    }

    fn batch_norm(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let compared = self.currents(synapses, above, 0.0)?;
        let currents = self.floats(&above.currents_grad, above.volume)?;
        let channel = self.below(above.volume.c);
        let count = (currents.values.len() / above.volume.c) as f64;
        let mean = over_channel(&currents, channel, |x| x).value / count;
        let variance = over_channel(&currents, channel, |x| (x - mean) * (x - mean)).value / count;
        let read = |floats| self.backend.read_vector(floats, above.volume.c).map(|values| f64::from(values[channel]));
        let (found, inverse) = (read(&synapses.state.mean)?, read(&synapses.state.inverse_deviation)?);
        let allowed = SUMS.max(self.backend.rounding());
        let deviation = variance.sqrt();
        ensure!(
            (found - mean).abs() <= allowed * (deviation + mean.abs()),
            "the mean of channel {channel} is {found}, not {mean}"
        );
        let expected = 1.0 / (variance + 1e-5).sqrt();
        ensure!(
            (inverse / expected - 1.0).abs() <= 10.0 * allowed,
            "the inverse deviation of channel {channel} is {inverse}, not {expected}"
        );
        Ok(compared + 2)
    }

    fn input_grad(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
        let gradient = self.floats(&above.gradient, above.volume)?;
        let found = self.floats(&synapses.below.currents_grad, synapses.below.volume)?;
        for place in self.places(synapses.below.volume).take(PLACES) {
            let t = self.below(self.span.steps);
            let sum = convolve_back(&synapses.conv, &synapses.values, &gradient, t, place);
            self.sum("the gradient", place, sum, found.at(t, place))?;
        }
        Ok(PLACES)
    }

    fn input_grad_lif(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
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

    fn weight_grad(&self, synapses: &Synapses<B>, above: &Activity<B>) -> Result<usize> {
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

    fn weight_norm(&self, synapses: &Synapses<B>) -> Result<usize> {
        let fan_in = synapses.conv.fan_in();
        let found = self.backend.read_weight(&synapses.conv, &synapses.effective)?;
        let filter = self.below(synapses.conv.output.c);
        let of_filter = filter * fan_in..(filter + 1) * fan_in;
        let weights: Vec<f64> = synapses.values[of_filter.clone()].iter().map(|&w| w.into()).collect();
        let mean = weights.iter().sum::<f64>() / fan_in as f64;
        let variance = weights.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>() / fan_in as f64;
        let scale = f64::from(WEIGHT_SCALE) / (variance * fan_in as f64 + 1e-4).sqrt();
        for (&found, weight) in found[of_filter].iter().zip(weights) {
            let expected = scale * (weight - mean);
            ensure!(
                (f64::from(found) - expected).abs() <= STEPS * (expected.abs() + scale * mean.abs()),
                "a weight of filter {filter} becomes {found}, not {expected}"
            );
        }
        Ok(fan_in)
    }
}

/// `f` summed over a channel.
fn over_channel(values: &Host<f32>, channel: usize, f: impl Fn(f64) -> f64) -> Sum {
    let pixels = values.volume.pixels();
    let mut sum = Sum::default();
    for image in values.values.chunks_exact(values.volume.values()) {
        image[channel * pixels..][..pixels].iter().for_each(|&x| sum.add(f(x.into())));
    }
    sum
}

/// Outputs and the inputs that they reach with one tap.
fn reached(
    outputs: usize,
    stride: usize,
    tap: usize,
    padding: usize,
    inputs: usize,
) -> impl Iterator<Item = (usize, usize)> + Clone {
    let input = move |output: usize| (output * stride + tap).checked_sub(padding).filter(|&input| input < inputs);
    (0..outputs).filter_map(move |output| input(output).map(|input| (output, input)))
}

/// A neuron's current without a bias.
fn convolve(conv: &Conv, weights: &[f32], spikes: &Host<u8>, t: usize, place: Place) -> Sum {
    let mut sum = Sum::default();
    for r in 0..conv.kernel.h {
        let Some((_, y)) =
            reached(conv.output.h, conv.stride.h, r, conv.padding.h, conv.input.h).find(|at| at.0 == place.y)
        else {
            continue;
        };
        for s in 0..conv.kernel.w {
            let columns = reached(conv.output.w, conv.stride.w, s, conv.padding.w, conv.input.w);
            let Some((_, x)) = columns.clone().find(|at| at.0 == place.x) else { continue };
            for c in 0..conv.input.c {
                if spikes.at(t, Place { n: place.n, c, y, x }) != 0 {
                    sum.add(weight(conv, weights, place.c, c, r, s));
                }
            }
        }
    }
    sum
}

/// The gradient of an input.
fn convolve_back(conv: &Conv, weights: &[f32], gradient: &Host<f32>, t: usize, place: Place) -> Sum {
    let mut sum = Sum::default();
    for r in 0..conv.kernel.h {
        let rows = reached(conv.output.h, conv.stride.h, r, conv.padding.h, conv.input.h);
        for (p, _) in rows.filter(|at| at.1 == place.y) {
            for s in 0..conv.kernel.w {
                let columns = reached(conv.output.w, conv.stride.w, s, conv.padding.w, conv.input.w);
                for (q, _) in columns.filter(|at| at.1 == place.x) {
                    for k in 0..conv.output.c {
                        let gradient = f64::from(gradient.at(t, Place { n: place.n, c: k, y: p, x: q }));
                        sum.add(gradient * weight(conv, weights, k, place.c, r, s));
                    }
                }
            }
        }
    }
    sum
}

fn weight(conv: &Conv, weights: &[f32], k: usize, c: usize, r: usize, s: usize) -> f64 {
    weights[((k * conv.input.c + c) * conv.kernel.h + r) * conv.kernel.w + s].into()
}

/// What a neuron does at a step.
struct Fired {
    membrane: f32,
    spike: bool,
    inside: bool,
}

/// A neuron over its currents; `None` where rounding could change what it does.
fn fire(neuron: &Neuron, currents: &[f32], near: f32) -> Option<Vec<Fired>> {
    let window = BOUNDS.window(neuron.threshold);
    let mut v = 0.0;
    let step = |&current: &f32| {
        let membrane = neuron.charge(v, current);
        let d = membrane - neuron.threshold;
        let edges = [d, d + window.left, d - window.right];
        if edges.iter().any(|edge| edge.abs() < near * (neuron.threshold + membrane.abs())) {
            return None;
        }
        let spike = d >= 0.0;
        v = match neuron.reset {
            ResetKind::Soft => neuron.reset::<false>(membrane, spike),
            ResetKind::Hard => neuron.reset::<true>(membrane, spike),
        };
        Some(Fired { membrane, spike, inside: d >= -window.left && d <= window.right })
    };
    currents.iter().map(step).collect()
}

/// The gradient of a neuron's currents from that of its spikes, and the largest magnitude of its terms, were every slope 1: a
/// membrane of magnitude 2 that was rounded changes a slope by at most 4 roundings.
fn back(neuron: &Neuron, kind: SurrogateKind, steps: &[Fired], gradient: &[f64]) -> (Vec<f64>, f64) {
    let slope = Surrogate::new(kind).slope(neuron.threshold);
    let window = BOUNDS.window(neuron.threshold);
    let (mut later, mut terms) = (0.0f64, 0.0f64);
    let mut out = vec![0.0; steps.len()];
    for (t, step) in steps.iter().enumerate().rev() {
        let d = step.membrane - neuron.threshold;
        let g = match slope {
            Slope::Window if !step.inside => 0.0,
            Slope::Window => {
                if step.spike {
                    window.slope_right
                } else {
                    window.slope_left
                }
            }
            Slope::Sigmoid(slope) => slope.at(d),
            Slope::Arctan(slope) => slope.at(d),
            Slope::Triangle(slope) => slope.at(d),
        };
        let kept = match (neuron.reset, neuron.detach) {
            (ResetKind::Soft, false) => neuron.reset_derivative::<false, false>(step.membrane, step.spike, g),
            (ResetKind::Soft, true) => neuron.reset_derivative::<false, true>(step.membrane, step.spike, g),
            (ResetKind::Hard, false) => neuron.reset_derivative::<true, false>(step.membrane, step.spike, g),
            (ResetKind::Hard, true) => neuron.reset_derivative::<true, true>(step.membrane, step.spike, g),
        };
        let (own, carried) = (gradient[t] * f64::from(g), later * f64::from(kept));
        terms = terms.max(gradient[t].abs()).max(carried.abs());
        let of_membrane = own + carried;
        out[t] = f64::from(neuron.gain) * of_membrane;
        later = f64::from(neuron.leak) * of_membrane;
    }
    (out, terms)
}
