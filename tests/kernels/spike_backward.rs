//! Neurons backward in time, after every kind of pool.

use super::harness::*;
use crate::launch;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::params::{self, SpikeBackward};
use adali::backend::gpu::tile::Card;
use adali::backend::gpu::{Buffer, Gpu, Precision};
use adali::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, Span, Volume, output_extent};
use adali::backend::{
    Affine, Backend, Input, NeuronLayers, Neurons, Put, Saved, SpikeOutput, Storage, Weights, bits_suffice,
};
use adali::neuron::{Neuron, NeuronModel, NeuronSpec, ResetKind};
use adali::surrogate::{Bounds, SurrogateKind};

/// Extents of a layer.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    steps: usize,
    current_steps: usize,
    volume: Volume,
    pool: Option<Pool>,
    /// Whether each channel has its own window.
    per_channel: bool,
}

/// Odd shapes, steps and pools; 70 channels leave threads idle, 2080 take two blocks.
pub fn cases() -> [Case; 6] {
    let volume = |c| Volume { h: 5, w: 7, c };
    let (square, none) = (Extent::square, Extent::square(0));
    let plain = Case { steps: 1, current_steps: 1, volume: volume(3), pool: None, per_channel: false };
    let case = |steps, pool: Pool| Case { steps, current_steps: steps, volume: pool.input, pool: Some(pool), ..plain };
    let overlapping = pool(PoolKind::Max, volume(33), square(3), Extent { h: 1, w: 2 }, square(1));
    [
        plain,
        Case { steps: 7, current_steps: 7, volume: volume(70), per_channel: true, ..plain },
        Case { steps: 2, current_steps: 2, volume: Volume { h: 1, w: 2, c: 2080 }, ..plain },
        case(2, pool(PoolKind::Max, volume(64), square(2), square(2), none)),
        Case { current_steps: 1, per_channel: true, ..case(4, overlapping) },
        case(4, pool(PoolKind::Avg, volume(3), Extent { h: 3, w: 2 }, Extent { h: 2, w: 1 }, square(1))),
    ]
}

fn pool(kind: PoolKind, input: Volume, kernel: Extent, stride: Extent, padding: Extent) -> Pool {
    let extent = |input, kernel, stride, padding| output_extent(input, kernel, stride, padding).expect("it fits");
    let h = extent(input.h, kernel.h, stride.h, padding.h);
    let w = extent(input.w, kernel.w, stride.w, padding.w);
    Pool { kind, input, kernel, stride, padding, output: Volume { h, w, c: input.c } }
}

/// A layer after its forward pass on the CPU, with the gradient of its output.
pub struct Layer {
    pub span: Span,
    pub volume: Volume,
    pub neuron: Neuron,
    pub bounds: Vec<Bounds>,
    pub kind: SurrogateKind,
    pub current_steps: usize,
    pub pool: Option<Pool>,
    pub scale: Vec<f32>,
    pub shift: Vec<f32>,
    pub currents: Tensor,
    pub spikes: Tensor,
    pub inside: Tensor,
    pub membranes: Tensor,
    /// The gradient of the pooled spikes.
    pub gradient: Tensor,
}

impl Layer {
    /// Currents and gradient as `value` stores them.
    pub fn new(rng: &mut Rng, value: Value, neuron: Neuron, kind: SurrogateKind, case: &Case) -> Self {
        let &Case { steps, current_steps, volume, pool, per_channel } = case;
        let (span, channels) = (Span { batch: 2, steps }, volume.c);
        let of_currents = Span { steps: current_steps, ..span };
        let currents = Tensor::new(of_currents, volume, || rng.normal() as f32).rounded(value);
        let pooled = pool.map_or(volume, |pool| pool.output);
        let gradient = Tensor::new(span, pooled, || rng.normal() as f32).rounded(value);
        let mut layer = Self {
            span,
            volume,
            neuron,
            bounds: bounds(per_channel.then_some(channels)),
            kind,
            current_steps,
            pool,
            scale: (0..channels).map(|_| rng.uniform(0.5, 2.0) as f32).collect(),
            shift: (0..channels).map(|_| rng.uniform(-0.5, 0.5) as f32).collect(),
            spikes: currents.clone(),
            inside: currents.clone(),
            membranes: currents.clone(),
            currents,
            gradient,
        };
        layer.forward();
        layer
    }

    /// Spikes, windows and membranes on the CPU.
    pub fn forward(&mut self) {
        let (span, volume) = (self.span, self.volume);
        let mut spikes = Cpu.spikes(span, volume).unwrap();
        let mut inside = Cpu.spikes(span, volume).unwrap();
        let mut membranes = Cpu.activations(span, volume).unwrap();
        let out = SpikeOutput {
            spikes: &mut spikes,
            inside: Some(&mut inside),
            membrane: Some(&mut membranes),
            histogram: None,
        };
        let (scale, shift) = (Cpu.vector(&self.scale).unwrap(), Cpu.vector(&self.shift).unwrap());
        let affine = Affine::<Cpu> { scale: &scale, shift: &shift };
        let currents = self.currents.cpu_floats();
        Cpu.norm_lif_forward(volume, span, &currents, self.current_steps, affine, &self.neurons(), out).unwrap();
        self.spikes = Tensor::from_cpu_bits(span, volume, &spikes);
        self.inside = Tensor::from_cpu_bits(span, volume, &inside);
        self.membranes = Tensor::from_cpu_floats(span, volume, &membranes);
    }

    pub fn neurons(&self) -> Neurons<'_, Cpu> {
        Neurons { neuron: self.neuron, surrogate: surrogate(self.kind), bounds: &self.bounds }
    }

    /// The gradient of the currents on the CPU, from bits or from recomputed membranes.
    pub fn backward(&self, bits: bool) -> Tensor {
        let (spikes, windows, currents) = (self.spikes.cpu_bits(), self.inside.cpu_bits(), self.currents.cpu_floats());
        let (scale, shift) = (Cpu.vector(&self.scale).unwrap(), Cpu.vector(&self.shift).unwrap());
        let affine = Affine { scale: &scale, shift: &shift };
        let saved = if bits {
            Saved::Bits { spikes: &spikes, inside: &windows }
        } else {
            Saved::Currents { currents: &currents, steps: self.current_steps, affine, spikes: &spikes }
        };
        on_cpu(&self.neurons(), self, saved, self.current_steps)
    }

    /// The gradient of the spikes themselves: that of the currents of neurons whose derivatives are all 1.
    fn unpooled(&self) -> Tensor {
        let spec = NeuronSpec { model: NeuronModel::Lif, tau: 1.0, detach_reset: true, ..NeuronSpec::default() };
        let neuron = spec.neuron().unwrap();
        let bounds = vec![Bounds::new(0.5, 0.5, 0.5)];
        let neurons = Neurons { neuron, surrogate: surrogate(SurrogateKind::Adali), bounds: &bounds };
        let mut everywhere = self.spikes.clone();
        everywhere.data.fill(1.0);
        let (spikes, windows) = (self.spikes.cpu_bits(), everywhere.cpu_bits());
        on_cpu(&neurons, self, Saved::Bits { spikes: &spikes, inside: &windows }, self.span.steps)
    }

    /// [`Layer::backward`] from these membranes, in the CPU's own order of arithmetic. The forward pass decided on which side
    /// of AdaLi's window a neuron is: rounding a stored membrane may move it to the other.
    fn backward_from(&self, membranes: &Tensor) -> Tensor {
        let (neuron, slope) = (self.neuron, surrogate(self.kind).slope(self.neuron.threshold));
        let (unpooled, steps) = (self.unpooled(), self.span.steps);
        let mut out = Tensor::new(Span { steps: self.current_steps, ..self.span }, self.volume, || 0.0);
        let step = self.span.batch * self.volume.values();
        for i in 0..step {
            let window = self.bounds[i / self.volume.pixels() % self.volume.c % self.bounds.len()];
            let window = window.window(neuron.threshold);
            let mut g_v = 0.0;
            for t in (0..steps).rev() {
                let (h, spike) = (membranes.data[t * step + i], self.spikes.data[t * step + i] == 1.0);
                let d = h - neuron.threshold;
                let side = if spike { window.slope_right } else { window.slope_left };
                let g = slope.at(d).unwrap_or(if self.inside.data[t * step + i] == 0.0 { 0.0 } else { side });
                let derivative = match (neuron.reset, neuron.detach) {
                    (ResetKind::Soft, false) => neuron.reset_derivative::<false, false>(h, spike, g),
                    (ResetKind::Soft, true) => neuron.reset_derivative::<false, true>(h, spike, g),
                    (ResetKind::Hard, false) => neuron.reset_derivative::<true, false>(h, spike, g),
                    (ResetKind::Hard, true) => neuron.reset_derivative::<true, true>(h, spike, g),
                };
                let g_h = unpooled.data[t * step + i].mul_add(g, g_v * derivative);
                g_v = neuron.leak * g_h;
                if self.current_steps == 1 {
                    out.data[i] += neuron.gain * g_h;
                } else {
                    out.data[t * step + i] = neuron.gain * g_h;
                }
            }
        }
        out
    }
}

fn on_cpu(neurons: &Neurons<Cpu>, layer: &Layer, saved: Saved<Cpu>, steps: usize) -> Tensor {
    let (span, volume) = (layer.span, layer.volume);
    let of_currents = Span { steps, ..span };
    let mut out = Cpu.activations(of_currents, volume).unwrap();
    let (gradient, pool) = (layer.gradient.cpu_floats(), layer.pool.as_ref());
    Cpu.spike_backward(volume, span, neurons, saved, pool, &gradient, steps, Put::Write, &mut out, None).unwrap();
    Tensor::from_cpu_floats(of_currents, volume, &out)
}

/// Runs a kernel on the results of the forward pass; the gradient is added to `before` if that is given.
pub fn on_gpu(seed: u64, value: Value, layer: &Layer, bits: bool, before: Option<&Tensor>) -> Tensor {
    let device = Device::new(seed);
    let (neuron, volume, span) = (layer.neuron, layer.volume, layer.span);
    let of_currents = Span { steps: layer.current_steps, ..span };
    let (number, slope, constants_of_slope) = params::slope(&surrogate(layer.kind), neuron.threshold);
    let gradient = device.values(value, &layer.gradient);
    let spikes = device.bits(&layer.spikes);
    let inside = (number == 0).then(|| device.bits(&layer.inside));
    let membranes = (!bits).then(|| device.values(value, &layer.membranes));
    let windows = (number == 0).then(|| windows(&device, &layer.bounds, neuron.threshold));
    let out = match before {
        Some(before) => device.values(value, before),
        None => device.empty_values(value, of_currents, volume),
    };
    let places = places(span, volume);
    let params = SpikeBackward {
        gradient: gradient.address(),
        spikes: spikes.address(),
        inside: address(inside.as_ref()),
        membranes: address(membranes.as_ref()),
        windows: address(windows.as_ref()),
        out: out.address(),
        places,
        pool: layer.pool.as_ref().map(Into::into).unwrap_or_default(),
        neuron: constants(neuron),
        slope: constants_of_slope,
        windows_per_channel: (layer.bounds.len() > 1).into(),
        current_steps: layer.current_steps as u32,
        add: before.is_some().into(),
    };
    let reset = if neuron.reset == ResetKind::Hard { "hard" } else { "soft" };
    let detach = if neuron.detach { "detached" } else { "attached" };
    let form = if bits { "bits" } else { "membrane" };
    let kernel = format!("spike_backward_{slope}_{reset}_{detach}_{form}_{}", value.name());
    device.run(&kernel, over_places(places), &params);
    device.get_values(value, &out, of_currents, volume)
}

#[test]
fn spike_backward_matches() {
    let mut rng = Rng::fresh("spike_backward");
    let mut count = 0;
    for value in VALUES {
        for neuron in neurons() {
            for kind in slopes() {
                for case in cases() {
                    let what = format!("{value:?} {neuron:?} {kind:?} {case:?}");
                    let bits_suffice = bits_suffice(&neuron, &surrogate(kind));
                    let layer = Layer::new(&mut rng, value, neuron, kind, &case);
                    let stored = layer.membranes.clone().rounded(value);
                    let want = layer.backward_from(&stored);
                    if value == Value::F32 {
                        assert_same(&what, &want, &layer.backward(false));
                    }
                    let before = Tensor::new(want.span, want.volume, || rng.normal() as f32).rounded(value);
                    let forms = [(false, Some(want)), (true, bits_suffice.then(|| layer.backward(true)))];
                    for (bits, want) in forms.into_iter().filter_map(|(bits, want)| Some((bits, want?))) {
                        for (before, want) in [(Some(&before), before.plus(&want)), (None, want)] {
                            let got = on_gpu(rng.next_u64(), value, &layer, bits, before);
                            let what = format!("{what} bits {bits} added {}", before.is_some());
                            assert_same(&what, &got, &want.rounded(value));
                            count += 1;
                        }
                    }
                }
            }
        }
    }
    assert_eq!(count, 2 * 3 * (4 * slopes().count() + 3) * 6);
}

/// Neurons with a hard attached reset keep their membranes. Those so close to the threshold or an end of the window that 16
/// bits would move them to the other side have the slope of their own side, whatever the device stores.
#[test]
fn stored_membranes_change_no_side() {
    let spec = NeuronSpec { tau: 1.15, reset: ResetKind::Hard, ..NeuronSpec::default() };
    let neuron = spec.neuron().unwrap();
    // Currents that 16 bits represent exactly, and the potentials they lead to: just below the threshold, just outside and just
    // inside the ends of the window.
    let near = |current: f32, bounds: Bounds, slope: f32| (vec![current; 3], bounds, slope);
    let charged = |current: f32| neuron.gain * current - neuron.threshold;
    let bounds = |left: f32, right: f32| Bounds { left, right, alpha: 0.2, beta: 0.8 };
    let (low, high) = (0.753_906_25f32, 1.7421875f32);
    let [at_low, at_high] = [low, high].map(charged);
    let cases = [
        near(1.1484375, bounds(1.0, 1.0), 0.2),
        near(low, bounds(-at_low * 0.9999, 1.0), 0.0),
        near(low, bounds(-at_low * 1.0001, 1.0), 0.2 / (-at_low * 1.0001)),
        near(high, bounds(1.0, at_high * 0.9999), 0.0),
        near(high, bounds(1.0, at_high * 1.0001), 0.8 / (at_high * 1.0001)),
    ];
    let mut rng = Rng::fresh("stored membranes");
    for precision in [Precision::F32, Precision::Bf16, Precision::F16] {
        for (currents, bounds, slope) in &cases {
            let driver = launch::open(rng.next_u64());
            let card = launch::card(&driver, Card { multiprocessors: 2, shared: 99 * 1024 });
            let gpu = Gpu::new(driver, card, precision, "under test".into(), false);
            let got = gradient_of(&gpu, neuron, *bounds, currents);
            let on_cpu = gradient_of(&Cpu, neuron, *bounds, currents);
            let want = neuron.gain * slope;
            for (got, cpu) in got.iter().zip(&on_cpu) {
                assert!((cpu - want).abs() <= 1e-6 * want, "on the CPU {cpu}, not {want}");
                assert!((got - want).abs() <= 0.004 * want, "{precision:?} {currents:?} {bounds:?}: {got}, not {want}");
            }
        }
    }
}

/// The gradient of currents at a single step, if the gradient of the spikes is 1.
fn gradient_of<B: Backend>(backend: &B, neuron: Neuron, bounds: Bounds, currents: &[f32]) -> Vec<f32> {
    let (volume, span) = (Volume { h: 1, w: 1, c: currents.len() }, Span { batch: 1, steps: 1 });
    // Each channel's current is its bias.
    let conv = Conv {
        reads: InputKind::Dense,
        input: volume,
        kernel: Extent::square(1),
        stride: Extent::square(1),
        padding: Extent::square(0),
        output: volume,
    };
    let weight = backend.weight(&conv, &vec![0.0; currents.len() * currents.len()]).unwrap();
    let mut packed = backend.packed(&conv).unwrap();
    backend.pack_weight(&conv, &weight, &mut packed, false).unwrap();
    let filled = |values: &[f32]| {
        let (none, bias) = (backend.activations(span, volume).unwrap(), backend.vector(values).unwrap());
        let mut out = backend.activations(span, volume).unwrap();
        let weights = Weights { value: &weight, packed: &packed };
        backend.conv_current(&conv, span, Input::Dense(&none), weights, &bias, &mut out).unwrap();
        out
    };
    let (entered, of_spikes) = (filled(currents), filled(&vec![1.0; currents.len()]));
    let windows = backend.bounds(&[bounds], neuron.threshold).unwrap();
    let neurons = Neurons { neuron, surrogate: surrogate(SurrogateKind::Adali), bounds: &windows };
    let [scale, shift] = [1.0, 0.0].map(|value| backend.vector(&vec![value; currents.len()]).unwrap());
    let affine = Affine { scale: &scale, shift: &shift };
    let mut spikes = backend.spikes(span, volume).unwrap();
    let out = SpikeOutput { spikes: &mut spikes, inside: None, membrane: None, histogram: None };
    backend.norm_lif_forward(volume, span, &entered, 1, affine, &neurons, out).unwrap();
    let saved = Saved::Currents { currents: &entered, steps: 1, affine, spikes: &spikes };
    let mut gradient = backend.activations(span, volume).unwrap();
    backend
        .spike_backward(volume, span, &neurons, saved, None, &of_spikes, 1, Put::Write, &mut gradient, None)
        .unwrap();
    backend.read_activations(&gradient, span, volume).unwrap()
}
