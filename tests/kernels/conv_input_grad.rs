//! Input gradients, alone and fused with the neurons of the layer below. Weights and gradients are exact.

use super::conv_current::{naive, naive_launch};
use super::convolution::*;
use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::{ConvInputGrad, ConvNaive};
use adali::backend::gpu::tile::{self, Epilogue, Source, Unroll};
use adali::backend::shape::{Conv, InputKind, Span, Volume};
use adali::backend::{ConvBackward, Put, bits_suffice};
use adali::neuron::{Neuron, ResetKind};
use adali::surrogate::SurrogateKind;

/// The CPU backend's gradient of the input, written over `before` or added to it.
fn on_cpu(weight: &Weight, span: Span, gradient: &Tensor, put: Put, before: &Tensor) -> Tensor {
    let conv = &weight.conv;
    let (weights, gradient) = (weight.on_cpu(), gradient.cpu_floats());
    let mut input_grad = before.cpu_floats();
    Cpu.conv_input_grad(conv, span, &gradient, cpu_weights(&weights), put, &mut input_grad).unwrap();
    Tensor::from_cpu_floats(span, conv.input, &input_grad)
}

#[test]
fn conv_input_grad_matches() {
    let mut rng = Rng::fresh("conv_input_grad");
    let mut cases = 0;
    for conv in shapes(InputKind::Dense) {
        for (batch, steps) in [(3, 1), (2, 4), (1, 7), (2, 8)] {
            let (span, value) = (Span { batch, steps }, HALVES[cases % 2]);
            let (weight, gradient) = (Weight::exact(conv, &mut rng), exact_values(span, conv.output, &mut rng));
            let before = exact_values(span, conv.input, &mut rng);
            // Rounded before it is added, and the sum once more.
            let written = on_cpu(&weight, span, &gradient, Put::Write, &before).rounded(value);
            let wants = [(Put::Add, before.plus(&written).rounded(value)), (Put::Write, written)];
            for (device, (put, want)) in schedules(&mut rng).zip(wants.iter().cycle()) {
                let of_currents = device.values(value, &gradient);
                let out = device.values(value, &before);
                let unroll = Unroll::for_currents(steps);
                let images = if unroll == Unroll::T4 { span } else { Span { batch: batch * steps, steps: 1 } };
                for class in tile::input_gradient(&conv, images) {
                    let packed = weight.packed(&device, value, Packing::Gradient(&class));
                    let plan = tile::plan(&class.shape, unroll, Source::Dense, Epilogue::Store, SMALL).unwrap();
                    let params = ConvInputGrad {
                        gradient: of_currents.address(),
                        weights: packed.address(),
                        out: out.address(),
                        shape: class.shape,
                        tile: plan.tile,
                        add: (*put == Put::Add).into(),
                        ..ConvInputGrad::default()
                    };
                    device.run(&format!("conv_input_grad_{}_{}", unroll.name(), value.name()), plan.launch, &params);
                }
                let got = device.get_values(value, &out, span, conv.input);
                assert_same(&format!("{conv:?} {span:?} {put:?}"), &got, want);
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 8 * 4);
}

#[test]
fn conv_input_grad_naive_matches() {
    let mut rng = Rng::fresh("conv_input_grad_naive");
    let mut cases = 0;
    for conv in shapes(InputKind::Dense) {
        for value in VALUES {
            let span = Span { batch: 2, steps: 2 };
            let (weight, gradient) = (Weight::exact(conv, &mut rng), exact_values(span, conv.output, &mut rng));
            let before = exact_values(span, conv.input, &mut rng);
            let wants = PUTS.map(|put| (put, on_cpu(&weight, span, &gradient, put, &before).rounded(value)));
            for (device, (put, want)) in schedules(&mut rng).zip(wants.iter().cycle()) {
                let (master, of_currents) = (weight.on_device(&device), device.values(value, &gradient));
                let out = device.values(value, &before);
                let params = ConvNaive {
                    gradient: of_currents.address(),
                    weight: master.address(),
                    out: out.address(),
                    add: (*put == Put::Add).into(),
                    ..naive(&conv, span)
                };
                device.run(&format!("conv_input_grad_naive_{}", value.name()), naive_launch(), &params);
                let got = device.get_values(value, &out, span, conv.input);
                assert_same(&format!("{conv:?} {put:?}"), &got, want);
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 8 * 3);
}

/// What lies between the neurons below and the convolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Between {
    Nothing,
    Max,
    Avg,
}

/// Gradient of neurons' spikes from that of their 2x2 pool.
fn unpool(between: Between, pooled: &Tensor, spikes: &Tensor) -> Tensor {
    let Volume { w, c, .. } = spikes.volume;
    let mut gradient = Tensor::new(spikes.span, spikes.volume, || 0.0);
    for image in 0..spikes.span.batch * spikes.span.steps {
        for (c, window) in (0..c).flat_map(|c| (0..pooled.volume.pixels()).map(move |window| (c, window))) {
            let first = window / pooled.volume.w * 2 * w + window % pooled.volume.w * 2;
            let members = [first, first + 1, first + w, first + w + 1];
            let above = pooled.at(image, c, window);
            if between == Between::Max {
                let winner = members.into_iter().find(|&pixel| spikes.at(image, c, pixel) == 1.0).unwrap_or(first);
                *gradient.at_mut(image, c, winner) = above;
            } else {
                members.into_iter().for_each(|pixel| *gradient.at_mut(image, c, pixel) = above * 0.25);
            }
        }
    }
    gradient
}

/// The neurons below, after the forward pass.
struct Below {
    neuron: Neuron,
    per_channel: bool,
    spikes: Tensor,
    inside: Tensor,
}

impl Below {
    /// Neurons backward with the mathematics of `neuron` and `surrogate`, one at a time.
    fn back(&self, gradient: &Tensor, sum_steps: bool) -> Tensor {
        let (Span { batch, steps }, volume) = (gradient.span, gradient.volume);
        let neuron = &self.neuron;
        let bounds = bounds(self.per_channel.then_some(volume.c));
        let derivative = match (neuron.reset, neuron.detach) {
            (ResetKind::Soft, false) => Neuron::reset_derivative::<false, false>,
            (ResetKind::Soft, true) => Neuron::reset_derivative::<false, true>,
            (ResetKind::Hard, false) => Neuron::reset_derivative::<true, false>,
            (ResetKind::Hard, true) => Neuron::reset_derivative::<true, true>,
        };
        let mut out = Tensor::new(Span { batch, steps: if sum_steps { 1 } else { steps } }, volume, || 0.0);
        for n in 0..batch {
            for (c, pixel) in (0..volume.c).flat_map(|c| (0..volume.pixels()).map(move |pixel| (c, pixel))) {
                let window = bounds[if self.per_channel { c } else { 0 }].window(neuron.threshold);
                let (mut g_v, mut sum) = (0.0, 0.0);
                for t in (0..steps).rev() {
                    let image = t * batch + n;
                    let spike = self.spikes.at(image, c, pixel) == 1.0;
                    let side = if spike { window.slope_right } else { window.slope_left };
                    let g = self.inside.at(image, c, pixel) * side;
                    let g_s = gradient.at(image, c, pixel);
                    let g_h = g_s.mul_add(g, g_v * derivative(neuron, 0.0, spike, g));
                    g_v = neuron.leak * g_h;
                    sum += neuron.gain * g_h;
                    if !sum_steps {
                        *out.at_mut(image, c, pixel) = neuron.gain * g_h;
                    }
                }
                if sum_steps {
                    *out.at_mut(n, c, pixel) = sum;
                }
            }
        }
        out
    }
}

fn check_fused(conv: Conv, span: Span, value: Value, between: Between, neuron: Neuron, rng: &mut Rng) {
    let pool = between != Between::Nothing;
    let volume = if pool { Volume { h: 2 * conv.input.h, w: 2 * conv.input.w, ..conv.input } } else { conv.input };
    let (weight, gradient) = (Weight::exact(conv, rng), exact_values(span, conv.output, rng));
    let unroll = Unroll::for_neurons(span.steps);
    let sum_steps = span.steps <= unroll.steps() && rng.below(3) == 0;
    let spikes = random_spikes(span, volume, rng);
    let below = Below { neuron, per_channel: rng.below(2) == 0, inside: random_spikes(span, volume, rng), spikes };
    let nothing = Tensor::new(span, conv.input, || 0.0);
    let of_spikes = on_cpu(&weight, span, &gradient, Put::Write, &nothing).rounded(value);
    let of_spikes = if pool { unpool(between, &of_spikes, &below.spikes) } else { of_spikes };
    let want = below.back(&of_spikes, sum_steps).rounded(value);

    for device in schedules(rng) {
        let of_currents = device.values(value, &gradient);
        let (spikes, inside) = (device.bits(&below.spikes), device.bits(&below.inside));
        let windows = windows(&device, &bounds(below.per_channel.then_some(volume.c)), neuron.threshold);
        let out = device.empty_values(value, want.span, volume);
        let kernel = format!("conv_input_grad_lif_{}_{}", unroll.name(), value.name());
        for class in tile::input_gradient(&conv, span) {
            let packed = weight.packed(&device, value, Packing::Gradient(&class));
            let plan =
                tile::plan(&class.shape, unroll, Source::Dense, Epilogue::NeuronsBack { pool, sum_steps }, SMALL)
                    .unwrap();
            let params = ConvInputGrad {
                gradient: of_currents.address(),
                weights: packed.address(),
                out: out.address(),
                spikes: spikes.address(),
                inside: inside.address(),
                windows: windows.address(),
                shape: class.shape,
                tile: plan.tile,
                pool: between as u32,
                sum_steps: sum_steps.into(),
                windows_per_channel: below.per_channel.into(),
                neuron: constants(neuron),
                below_h: conv.input.h as u32,
                below_w: conv.input.w as u32,
                below_words: words(conv.input.c) as u32,
                carry: plan.carry,
                add: 0,
            };
            device.run(&kernel, plan.launch, &params);
        }
        let what = format!("{kernel} {conv:?} {span:?} {between:?} {neuron:?} sums {sum_steps}");
        assert_same(&what, &device.get_values(value, &out, want.span, volume), &want);
    }
}

#[test]
fn conv_input_grad_lif_matches() {
    let mut rng = Rng::fresh("conv_input_grad_lif");
    let neurons: Vec<_> =
        neurons().into_iter().filter(|neuron| bits_suffice(neuron, &surrogate(SurrogateKind::Adali))).collect();
    let mut cases = 0;
    for conv in shapes(InputKind::Dense) {
        for (i, steps) in [1, 2, 3, 4, 5, 8, 12, 16].into_iter().enumerate() {
            for between in [Between::Nothing, Between::Max, Between::Avg] {
                // Kernels with a pool hold all steps at once.
                if between != Between::Nothing && steps > 4 {
                    continue;
                }
                let (value, neuron) = (HALVES[cases % 2], neurons[cases / 2 % 3]);
                let span = Span { batch: 1 + i % 2, steps };
                check_fused(conv, span, value, between, neuron, &mut rng);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 8 * (8 + 4 + 4));
}
