//! Convolutions and pools whose two axes differ in everything.

use crate::oracle::Rng;
use crate::support;
use crate::support::loops::{Sliding, convolve, pool, to_bits, to_floats};
use adali::backend::cpu::Cpu;
use adali::backend::cpu::layout::pitch;
use adali::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, Span, Volume};
use adali::backend::{ConvBackward, ConvForward, Input, NeuronLayers, Neurons, Put, Saved, Storage, Weights};
use adali::neuron::{Neuron, ResetKind};
use adali::surrogate::{Bounds, Surrogate, SurrogateKind};

fn random_extent(rng: &mut Rng, low: usize, high: usize) -> Extent {
    let mut side = || low + rng.below(high + 1 - low);
    Extent { h: side(), w: side() }
}

#[track_caller]
fn assert_all_near(what: &str, got: &[f32], want: &[f64]) {
    assert_eq!(got.len(), want.len(), "{what}");
    let unit = want.iter().fold(1.0f64, |unit, x| unit.max(x.abs()));
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*a) - b).abs() < 1e-5 * unit, "{what}: value {i} is {a}, not {b}");
    }
}

/// Convolutions over images, spikes and dense activations, with everything different along the two axes.
#[test]
fn convolutions_of_any_extents_match() {
    let mut rng = Rng::fresh("convolutions of any extents");
    let mut compared = 0;
    while compared < 300 {
        let reads = [InputKind::Image, InputKind::Spikes, InputKind::Dense][compared % 3];
        let input = Volume { h: 1 + rng.below(8), w: 1 + rng.below(8), c: 1 + rng.below(40) };
        let kernel = random_extent(&mut rng, 1, 5);
        let (stride, padding) = (random_extent(&mut rng, 1, 4), random_extent(&mut rng, 0, 4));
        let filters = 1 + rng.below(40);
        let sliding = Sliding { input, kernel, stride, padding };
        let Some(conv) = sliding.conv(reads, filters) else { continue };
        check_convolution(&conv, &sliding, &mut rng);
        compared += 1;
    }
    assert_eq!(compared, 300);
}

fn check_convolution(conv: &Conv, sliding: &Sliding, rng: &mut Rng) {
    let span = Span { batch: 1 + rng.below(3), steps: 1 + rng.below(3) };
    let (images, scale) = (span.batch * span.steps, if conv.reads == InputKind::Spikes { 1.25 } else { 1.0 });
    let rounded = |values: Vec<f64>| -> Vec<f64> { values.into_iter().map(|x| f64::from(x as f32)).collect() };
    let mut draw = |count| rounded(rng.uniform_vec(count, -1.0, 1.0));
    let mut x = draw(images * conv.input.values());
    if conv.reads == InputKind::Spikes {
        x.iter_mut().for_each(|x| *x = f64::from(u8::from(*x > 0.4)));
    }
    let (weight, bias) = (draw(conv.output.c * conv.fan_in()), draw(conv.output.c));
    let above = draw(images * conv.output.values());
    let scaled: Vec<f64> = x.iter().map(|x| scale * x).collect();
    let [y, of_weight, of_x] = convolve(sliding, conv.output.c, images, [&scaled, &weight, &bias, &above]);

    let bits = to_bits(span, conv.input, &x);
    let width = if conv.reads == InputKind::Image { conv.input.c } else { pitch(conv.input.c) };
    let dense = to_floats(span, conv.input, width, &x);
    let input = || -> Input<Cpu> {
        match conv.reads {
            InputKind::Spikes => Input::Spikes { bits: &bits, scale: scale as f32 },
            _ => Input::Dense(&dense),
        }
    };
    let value = Cpu.weight(conv, &support::draw::floats(&weight)).expect("a weight");
    let mut packed = Cpu.packed(conv).expect("a weight");
    Cpu.pack_weight(conv, &value, &mut packed, true).expect("a weight");
    let weights = || Weights { value: &value, packed: &packed };
    let bias = Cpu.vector(&support::draw::floats(&bias)).expect("a bias");
    let mut currents = vec![f32::NAN; images * conv.output.pixels() * pitch(conv.output.c)];
    Cpu.conv_current(conv, span, input(), weights(), &bias, &mut currents).expect("currents");
    let got = Cpu.read_activations(&currents, span, conv.output).expect("currents");
    assert_all_near(&format!("currents of {conv:?}"), &got, &y);

    let above = to_floats(span, conv.output, pitch(conv.output.c), &above);
    let mut weight_grad = vec![f32::NAN; value.len()];
    Cpu.conv_weight_grad(conv, span, input(), &above, &mut weight_grad).expect("a gradient");
    let got = Cpu.read_weight(conv, &weight_grad).expect("a gradient");
    assert_all_near(&format!("weight gradient of {conv:?}"), &got, &of_weight);
    if conv.reads != InputKind::Image {
        let mut input_grad = vec![f32::NAN; images * conv.input.pixels() * pitch(conv.input.c)];
        Cpu.conv_input_grad(conv, span, &above, weights(), Put::Write, &mut input_grad).expect("a gradient");
        let read = |floats: &Vec<f32>| Cpu.read_activations(floats, span, conv.input).expect("a gradient");
        assert_all_near(&format!("input gradient of {conv:?}"), &read(&input_grad), &of_x);
        Cpu.conv_input_grad(conv, span, &above, weights(), Put::Add, &mut input_grad).expect("a gradient");
        let twice: Vec<f64> = of_x.iter().map(|x| 2.0 * x).collect();
        assert_all_near(&format!("input gradient of {conv:?}, added"), &read(&input_grad), &twice);
    }
}

/// Pools with everything different along the two axes; the neurons' slope is 1 everywhere, nothing carries over.
#[test]
fn pools_of_any_extents_match() {
    let mut rng = Rng::fresh("pools of any extents");
    let mut compared = 0;
    while compared < 200 {
        let kind = if compared % 2 == 0 { PoolKind::Max } else { PoolKind::Avg };
        let input = Volume { h: 1 + rng.below(9), w: 1 + rng.below(9), c: 1 + rng.below(40) };
        let (kernel, stride) = (random_extent(&mut rng, 1, 4), random_extent(&mut rng, 1, 4));
        let half = |side: usize, rng: &mut Rng| if kind == PoolKind::Max { rng.below(side / 2 + 1) } else { 0 };
        let padding = Extent { h: half(kernel.h, &mut rng), w: half(kernel.w, &mut rng) };
        let Some(pool) = (Sliding { input, kernel, stride, padding }).pool(kind) else { continue };
        check_pool(&pool, &mut rng);
        compared += 1;
    }
    assert_eq!(compared, 200);
}

fn check_pool(shape: &Pool, rng: &mut Rng) {
    let span = Span { batch: 1 + rng.below(3), steps: 1 + rng.below(3) };
    let images = span.batch * span.steps;
    let x: Vec<f64> = (0..images * shape.input.values()).map(|_| f64::from(u8::from(rng.below(3) == 0))).collect();
    let above = rng.uniform_vec(images * shape.output.values(), -1.0, 1.0);
    let [y, of_x] = pool(shape, images, &x, &above);
    let spikes = to_bits(span, shape.input, &x);
    let what = format!("{shape:?}");
    if shape.kind == PoolKind::Max {
        let mut pooled = vec![u32::MAX; to_bits(span, shape.output, &y).len()];
        Cpu.max_pool_forward(shape, span, &spikes, &mut pooled).expect("a pool");
        assert_eq!(pooled, to_bits(span, shape.output, &y), "{what}");
    } else {
        let mut pooled = vec![f32::NAN; images * shape.output.pixels() * pitch(shape.input.c)];
        Cpu.avg_pool_forward(shape, span, Input::Spikes { bits: &spikes, scale: 1.0 }, &mut pooled).expect("a pool");
        assert_all_near(&what, &Cpu.read_activations(&pooled, span, shape.output).expect("means"), &y);
    }
    let (reset, v_reset) = (ResetKind::Soft, 0.0);
    let neuron = Neuron { leak: 0.0, gain: 1.0, threshold: 1.0, reset, v_reset, detach: true };
    let bounds = vec![Bounds::RECTANGLE];
    let neurons: Neurons<Cpu> =
        Neurons { neuron, surrogate: Surrogate::new(SurrogateKind::Rectangle), bounds: &bounds };
    let windows = vec![u32::MAX; spikes.len()];
    let saved: Saved<Cpu> = Saved::Bits { spikes: &spikes, inside: &windows };
    let above = to_floats(span, shape.output, pitch(shape.input.c), &above);
    let mut out = vec![f32::NAN; images * shape.input.pixels() * pitch(shape.input.c)];
    let (volume, steps) = (shape.input, span.steps);
    Cpu.spike_backward(volume, span, &neurons, saved, Some(shape), &above, steps, Put::Write, &mut out, None)
        .expect("a gradient");
    assert_all_near(&what, &Cpu.read_activations(&out, span, shape.input).expect("a gradient"), &of_x);
}
