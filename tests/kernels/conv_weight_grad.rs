//! Weight and bias gradients, on tensor cores and naively.

use super::conv_current::{naive, naive_launch};
use super::convolution::*;
use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::params::{ConvNaive, ConvWeightGrad, ReduceSums};
use adali::backend::gpu::tile::{self, Card, Source};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Conv, InputKind, Span};
use adali::backend::{ConvBackward, Input, Storage};

/// The CPU backend's gradient of the weight, in the device's order.
fn on_cpu(conv: &Conv, span: Span, x: &Tensor, gradient: &Tensor, dropout: f32) -> Vec<f32> {
    let (floats, bits, of_currents) = (x.cpu_floats(), x.cpu_bits(), gradient.cpu_floats());
    let spikes = conv.reads == InputKind::Spikes;
    let input = if spikes { Input::Spikes { bits: &bits, scale: dropout } } else { Input::Dense(&floats) };
    let mut weight_grad = Cpu.weight(conv, &vec![0.0; conv.output.c * conv.fan_in()]).unwrap();
    Cpu.conv_weight_grad(conv, span, input, &of_currents, &mut weight_grad).unwrap();
    let values = Cpu.read_weight(conv, &weight_grad).unwrap();
    in_device_order(conv, &values)
}

fn check(conv: Conv, span: Span, value: Value, multiprocessors: usize, rng: &mut Rng) {
    let spikes = conv.reads == InputKind::Spikes;
    let x = if spikes { random_spikes(span, conv.input, rng) } else { exact_values(span, conv.input, rng) };
    let gradient = exact_values(span, conv.output, rng);
    let dropout = if spikes { 1.5 } else { 1.0 };
    let want = on_cpu(&conv, span, &x, &gradient, dropout);

    for device in schedules(rng) {
        let source = if spikes { device.bits(&x) } else { device.values(value, &x) };
        let of_currents = device.values(value, &gradient);
        let shape = tile::forward(&conv, Span { batch: span.batch * span.steps, steps: 1 });
        let kind = if spikes { Source::Spikes } else { Source::Dense };
        let plan = tile::plan_weight_grad(&shape, kind, Card { multiprocessors, ..SMALL }).unwrap();
        let splits = plan.launch.grid[0];
        let partial = device.empty(splits as usize * want.len() * 4);
        let params = ConvWeightGrad {
            gradient: of_currents.address(),
            source: source.address(),
            partial: partial.address(),
            shape,
            tile: plan.tile,
            filters: conv.output.c as u32,
            channels: conv.input.c as u32,
            all_taps: (conv.kernel.h * conv.kernel.w) as u32,
            pixel_words: words(conv.input.c) as u32,
            words_staged: plan.words_staged,
            dropout,
        };
        let name = if spikes { "spikes" } else { "dense" };
        let kernel = format!("conv_weight_grad_{name}_{}", value.name());
        device.run(&kernel, plan.launch, &params);
        let weight_grad = device.empty(4 * want.len());
        let params =
            ReduceSums { partial: partial.address(), sums: weight_grad.address(), count: want.len() as u32, splits };
        device.run("reduce_sums", Launch { grid: [2, 1, 1], threads: 256, shared: 0 }, &params);
        let what = format!("{kernel} {conv:?} {span:?} {plan:?}");
        assert_close(&what, &device.get::<f32>(&weight_grad), &want, 0.0, 0.0);
    }
}

#[test]
fn conv_weight_grad_matches() {
    let mut rng = Rng::fresh("conv_weight_grad");
    let mut cases = 0;
    for reads in [InputKind::Spikes, InputKind::Dense] {
        for conv in shapes(reads) {
            for (batch, steps) in [(1, 1), (2, 4), (5, 7)] {
                for multiprocessors in [1, 12] {
                    let span = Span { batch, steps };
                    check(conv, span, HALVES[cases % 2], multiprocessors, &mut rng);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 2 * 8 * 3 * 2);
}

#[test]
fn conv_weight_grad_naive_matches() {
    let mut rng = Rng::fresh("conv_weight_grad_naive");
    let mut cases = 0;
    for reads in [InputKind::Spikes, InputKind::Dense] {
        for conv in shapes(reads) {
            let (span, value) = (Span { batch: 2, steps: 3 }, VALUES[cases % 3]);
            let spikes = reads == InputKind::Spikes;
            let x = if spikes {
                random_spikes(span, conv.input, &mut rng)
            } else {
                exact_values(span, conv.input, &mut rng)
            };
            let gradient = exact_values(span, conv.output, &mut rng);
            let want = on_cpu(&conv, span, &x, &gradient, 1.0);
            for device in schedules(&mut rng) {
                let source = if spikes { device.bits(&x) } else { device.values(value, &x) };
                let of_currents = device.values(value, &gradient);
                let weight_grad = device.empty(4 * want.len());
                let params = ConvNaive {
                    source: source.address(),
                    gradient: of_currents.address(),
                    weight_grad: weight_grad.address(),
                    ..naive(&conv, span)
                };
                device.run(&format!("conv_weight_grad_naive_{}", value.name()), naive_launch(), &params);
                assert_close("weight", &device.get::<f32>(&weight_grad), &want, 0.0, 0.0);
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 2 * 8);
}
