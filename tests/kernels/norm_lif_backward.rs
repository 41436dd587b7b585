//! Batch norm and neurons backward, in two passes.

use super::harness::*;
use super::spike_backward::{Layer, cases};
use crate::oracle::Rng;
use adali::backend::bits_suffice;
use adali::backend::gpu::params::{self, NormLifBackward};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::Span;

/// Batch norm's parameters and statistics of each channel.
pub struct Channels {
    mean: Vec<f32>,
    inv_std: Vec<f32>,
    of_gradient: Vec<f32>,
    of_current: Vec<f32>,
    constant: Vec<f32>,
}

impl Channels {
    pub fn new(rng: &mut Rng, channels: usize) -> Self {
        let mut draw =
            |low, high| with_padding(&(0..channels).map(|_| rng.uniform(low, high) as f32).collect::<Vec<_>>());
        Self {
            mean: draw(-0.5, 0.5),
            inv_std: draw(0.5, 2.0),
            of_gradient: draw(0.5, 2.0),
            of_current: draw(-0.1, 0.1),
            constant: draw(-0.1, 0.1),
        }
    }

    /// The expected result of reduce, with the sum of the absolute values it adds.
    fn sums(&self, layer: &Layer, gradient: &Tensor) -> Vec<[f64; 2]> {
        let (channels, pixels) = (layer.volume.c, layer.volume.pixels());
        let mut sums = vec![[0.0; 2]; 2 * padded(channels)];
        for (i, (&g, &y)) in gradient.data.iter().zip(&layer.currents.data).enumerate() {
            let c = i / pixels % channels;
            let normalised = (y as f64 - self.mean[c] as f64) * self.inv_std[c] as f64;
            for (sum, x) in [(c, g as f64), (padded(channels) + c, g as f64 * normalised)] {
                sums[sum][0] += x;
                sums[sum][1] += x.abs();
            }
        }
        sums
    }

    /// The gradient of the currents before the norm.
    pub fn apply(&self, layer: &Layer, gradient: &Tensor) -> Tensor {
        let mut out = gradient.clone();
        for (i, (x, y)) in out.data.iter_mut().zip(&layer.currents.data).enumerate() {
            let c = i / layer.volume.pixels() % layer.volume.c;
            *x = self.of_gradient[c].mul_add(*x, self.of_current[c].mul_add(*y, self.constant[c]));
        }
        out
    }
}

fn with_padding(values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    values.resize(padded(values.len()), 0.0);
    values
}

/// The data that the kernels start from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    Bits,
    Currents,
    /// With membranes in global memory.
    CurrentsLong,
}

/// Partial sums and applied gradient.
pub fn on_gpu(seed: u64, value: Value, layer: &Layer, channels: &Channels, form: Form) -> (Vec<f32>, Tensor) {
    let device = Device::new(seed);
    let bits = form == Form::Bits;
    let (neuron, volume, span) = (layer.neuron, layer.volume, layer.span);
    let of_currents = Span { steps: layer.current_steps, ..span };
    let (slope_kind, _, slope) = params::slope(&surrogate(layer.kind), neuron.threshold);
    let currents = device.values(value, &layer.currents);
    let gradient = device.values(value, &layer.gradient);
    let spikes = (bits || layer.pool.is_some()).then(|| device.bits(&layer.spikes));
    let inside = bits.then(|| device.bits(&layer.inside));
    let windows = (slope_kind == 0).then(|| windows(&device, &layer.bounds, neuron.threshold));
    let affine = (!bits).then(|| [&layer.scale, &layer.shift].map(|v| device.put(&with_padding(v))));
    let [mean, inv_std, of_gradient, of_current, constant] =
        [&channels.mean, &channels.inv_std, &channels.of_gradient, &channels.of_current, &channels.constant]
            .map(|values| device.put(values));
    let places = places(span, volume);
    let launch = over_places(places);
    let sums = device.empty(launch.grid[0] as usize * 2 * padded(volume.c) * 4);
    let out = device.empty_values(value, of_currents, volume);
    let step = 8 * launch.threads * 4;
    let membranes = span.steps * step as usize;
    let blocks = (launch.grid[0] * launch.grid[1]) as usize;
    let long = (form == Form::CurrentsLong).then(|| device.empty(blocks * membranes));
    let params = NormLifBackward {
        membranes: address(long.as_ref()),
        currents: currents.address(),
        gradient: gradient.address(),
        spikes: address(spikes.as_ref()),
        inside: address(inside.as_ref()),
        windows: address(windows.as_ref()),
        scale: affine.as_ref().map_or(NONE, |[scale, _]| scale.address()),
        shift: affine.as_ref().map_or(NONE, |[_, shift]| shift.address()),
        places,
        pool: layer.pool.as_ref().map(Into::into).unwrap_or_default(),
        neuron: constants(neuron),
        slope,
        slope_kind,
        windows_per_channel: (layer.bounds.len() > 1).into(),
        current_steps: layer.current_steps as u32,
        ..NormLifBackward::default()
    };
    let (state, membranes) = match form {
        Form::Bits => ("bits", 0),
        Form::Currents => ("currents", membranes as u32),
        Form::CurrentsLong => ("currents_long", 0),
    };
    let reduce = NormLifBackward { mean: mean.address(), inv_std: inv_std.address(), sums: sums.address(), ..params };
    let shared = membranes.max(2 * step);
    device.run(&format!("norm_lif_reduce_{state}_{}", value.name()), Launch { shared, ..launch }, &reduce);
    let apply = NormLifBackward {
        of_gradient: of_gradient.address(),
        of_current: of_current.address(),
        constant: constant.address(),
        out: out.address(),
        ..params
    };
    device.run(&format!("norm_lif_apply_{state}_{}", value.name()), Launch { shared: membranes, ..launch }, &apply);
    (device.get(&sums), device.get_values(value, &out, of_currents, volume))
}

#[test]
fn norm_lif_backward_matches() {
    let mut rng = Rng::fresh("norm_lif_backward");
    let mut count = 0;
    for value in VALUES {
        for neuron in neurons() {
            for kind in slopes() {
                for case in cases() {
                    let layer = Layer::new(&mut rng, value, neuron, kind, &case);
                    let channels = Channels::new(&mut rng, layer.volume.c);
                    for form in [Form::Bits, Form::Currents, Form::CurrentsLong] {
                        let bits = form == Form::Bits;
                        if bits && !bits_suffice(&layer.neuron, &surrogate(layer.kind)) {
                            continue;
                        }
                        let what = format!("{value:?} {neuron:?} {kind:?} {case:?} {form:?}");
                        let gradient = layer.backward(bits);
                        let (partial, applied) = on_gpu(rng.next_u64(), value, &layer, &channels, form);
                        let want = channels.apply(&layer, &gradient).rounded(value);
                        assert_same(&what, &applied, &want);
                        let want = channels.sums(&layer, &gradient);
                        for (i, [want, size]) in want.iter().enumerate() {
                            let got: f64 = partial.chunks_exact(sums_of_block(&layer)).map(|p| p[i] as f64).sum();
                            assert!((got - want).abs() <= 2e-6 * size, "{what}: sum {i} is {got}, not {want}");
                        }
                        count += 1;
                    }
                }
            }
        }
    }
    assert_eq!(count, 3 * (2 * 4 * slopes().count() + 3) * 6);
}

/// Number of values in one block's sums.
fn sums_of_block(layer: &Layer) -> usize {
    2 * padded(layer.volume.c)
}
