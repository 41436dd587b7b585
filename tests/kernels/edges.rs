//! AdaLi where rounding would decide: membranes closer to the threshold and to the ends of the window than 16 bits can
//! distinguish.

use super::harness::*;
use super::norm_lif_backward::{self, Channels, Form};
use super::spike_backward::{Layer, on_gpu};
use crate::oracle::Rng;
use adali::backend::bits_suffice;
use adali::backend::shape::{Span, Volume};
use adali::neuron::Neuron;
use adali::surrogate::{Bounds, SurrogateKind};

const BOUNDS: (f64, f64, f64) = (0.5, 1.0, 0.2);

/// One step, whose membranes lie around the threshold (channel 0), the window's lower end (1) and its upper end (2): three
/// below, one at it and three above, 2^-20 or 2^-21 apart. In 16 bits all seven are equal.
fn layer(rng: &mut Rng, value: Value, neuron: Neuron) -> Layer {
    let (span, volume) = (Span { batch: 2, steps: 1 }, Volume { h: 1, w: 7, c: 3 });
    let mut pixel = 0;
    let currents = Tensor::new(span, volume, || {
        pixel += 1;
        ((pixel - 1) % 7 - 3) as f32 * 2f32.powi(-20)
    });
    let bounds = Bounds::new(BOUNDS.0, BOUNDS.1, BOUNDS.2);
    let window = bounds.window(neuron.threshold);
    let edges = [neuron.threshold, neuron.threshold - window.left, neuron.threshold + window.right];
    let mut layer = Layer {
        span,
        volume,
        neuron,
        bounds: vec![bounds],
        kind: SurrogateKind::Adali,
        current_steps: 1,
        pool: None,
        scale: vec![1.0; 3],
        shift: edges.iter().map(|edge| edge / neuron.gain).collect(),
        spikes: currents.clone(),
        inside: currents.clone(),
        membranes: currents.clone(),
        gradient: Tensor::new(span, volume, || rng.normal() as f32).rounded(value),
        currents,
    };
    layer.forward();
    for (i, (membrane, current)) in layer.membranes.data.iter().zip(&layer.currents.data).enumerate() {
        let edge = edges[i / 7 % 3];
        assert_eq!(*membrane - edge, neuron.gain * current, "membranes are exact in f32");
        assert!(value == Value::F32 || value.round(*membrane) == edge, "{membrane} is not stored as {edge}");
    }
    layer
}

/// The gradient of the currents by the definition of AdaLi: `alpha/L` on `[-L, 0)`, `beta/R` on `[0, R]`.
fn gradient(layer: &Layer) -> Tensor {
    let window = layer.bounds[0].window(layer.neuron.threshold);
    let mut out = layer.gradient.clone();
    for (i, g) in out.data.iter_mut().enumerate() {
        let slope = match (i / 7 % 3, i % 7) {
            (0, ..3) | (1, 3..) => window.slope_left,
            (0, _) | (2, ..=3) => window.slope_right,
            _ => 0.0,
        };
        *g = layer.neuron.gain * g.mul_add(slope, 0.0);
    }
    out
}

#[test]
fn rounding_moves_no_membrane_across_an_edge() {
    let mut rng = Rng::fresh("edges");
    let mut cases = 0;
    for value in VALUES {
        for neuron in neurons() {
            let layer = layer(&mut rng, value, neuron);
            let want = gradient(&layer);
            let what = format!("{value:?} {neuron:?}");
            assert_same(&format!("CPU {what}"), &layer.backward(false), &want);
            let bits_suffice = bits_suffice(&neuron, &surrogate(SurrogateKind::Adali));
            for bits in [false, true] {
                if bits && !bits_suffice {
                    continue;
                }
                let got = on_gpu(rng.next_u64(), value, &layer, bits, None);
                assert_same(&format!("spike_backward {what} bits {bits}"), &got, &want.clone().rounded(value));
                cases += 1;
            }
            let channels = Channels::new(&mut rng, layer.volume.c);
            for form in [Form::Bits, Form::Currents, Form::CurrentsLong] {
                if form == Form::Bits && !bits_suffice {
                    continue;
                }
                let (_, got) = norm_lif_backward::on_gpu(rng.next_u64(), value, &layer, &channels, form);
                let want = channels.apply(&layer, &want).rounded(value);
                assert_same(&format!("norm_lif_backward {what} {form:?}"), &got, &want);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * (4 * 3 + 3 * 2));
}
