//! Plain loops in f64 over tensors on the host, one place at a time.

use super::tensors::BOUNDS;
use crate::backend::shape::{Conv, Span, Volume};
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{Surrogate, SurrogateKind};

/// A tensor on the host, `[T, N, C, H, W]`.
pub struct Host<T> {
    pub values: Vec<T>,
    pub span: Span,
    pub volume: Volume,
}

impl<T: Copy> Host<T> {
    pub fn at(&self, t: usize, place: Place) -> T {
        let Volume { h, w, c } = self.volume;
        self.values[(((t * self.span.batch + place.n) * c + place.c) * h + place.y) * w + place.x]
    }

    pub fn over_time(&self, place: Place) -> Vec<T> {
        (0..self.span.steps).map(|t| self.at(t, place)).collect()
    }
}

/// One neuron of one sample.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub n: usize,
    pub c: usize,
    pub y: usize,
    pub x: usize,
}

/// A sum, and the sum of its terms' magnitudes.
#[derive(Clone, Copy, Default)]
pub struct Sum {
    pub value: f64,
    pub magnitude: f64,
}

impl Sum {
    pub fn add(&mut self, term: f64) {
        self.value += term;
        self.magnitude += term.abs();
    }
}

/// `f` summed over a channel.
pub fn over_channel(values: &Host<f32>, channel: usize, f: impl Fn(f64) -> f64) -> Sum {
    over_channel_of_both(values, values, channel, |x, _| f(x))
}

/// The same of two tensors' values.
pub fn over_channel_of_both(a: &Host<f32>, b: &Host<f32>, channel: usize, f: impl Fn(f64, f64) -> f64) -> Sum {
    let pixels = a.volume.pixels();
    let mut sum = Sum::default();
    let of_channel = |image: usize, values: &Host<f32>| image * values.volume.values() + channel * pixels;
    for image in 0..a.values.len() / a.volume.values() {
        let (a, b) = (&a.values[of_channel(image, a)..][..pixels], &b.values[of_channel(image, b)..][..pixels]);
        a.iter().zip(b).for_each(|(&x, &y)| sum.add(f(x.into(), y.into())));
    }
    sum
}

/// Outputs, and the inputs that they reach with one tap.
pub fn reached(
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
pub fn convolve(conv: &Conv, weights: &[f32], spikes: &Host<u8>, t: usize, place: Place) -> Sum {
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
pub fn convolve_back(conv: &Conv, weights: &[f32], gradient: &Host<f32>, t: usize, place: Place) -> Sum {
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

pub fn weight(conv: &Conv, weights: &[f32], k: usize, c: usize, r: usize, s: usize) -> f64 {
    weights[((k * conv.input.c + c) * conv.kernel.h + r) * conv.kernel.w + s].into()
}

/// The state of a neuron at a step.
pub struct Fired {
    pub membrane: f32,
    pub spike: bool,
    pub inside: bool,
}

/// A neuron run over its currents; `None` if rounding could change its behaviour.
pub fn fire(neuron: &Neuron, currents: &[f32], near: f32) -> Option<Vec<Fired>> {
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

/// The gradient of a neuron's currents from that of its spikes, and the largest magnitude of its terms if every slope were 1:
/// rounding a membrane of magnitude 2 changes a slope by at most 4 roundings.
pub fn back(neuron: &Neuron, kind: SurrogateKind, steps: &[Fired], gradient: &[f64]) -> (Vec<f64>, f64) {
    let slope = Surrogate::new(kind).slope(neuron.threshold);
    let window = BOUNDS.window(neuron.threshold);
    let (mut later, mut terms) = (0.0f64, 0.0f64);
    let mut out = vec![0.0; steps.len()];
    for (t, step) in steps.iter().enumerate().rev() {
        let d = step.membrane - neuron.threshold;
        let side = if step.spike { window.slope_right } else { window.slope_left };
        let g = slope.at(d).unwrap_or(if step.inside { side } else { 0.0 });
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
