//! Convolution and neurons in one kernel. Weights are exact, so currents are equal, and spikes must be too.

use super::convolution::*;
use super::harness::*;
use super::norm_lif::counts;
use crate::oracle::Rng;
use adali::autotune::Histogram;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::ConvLif;
use adali::backend::gpu::tile::{self, Epilogue, Source, Unroll};
use adali::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, Span, Volume};
use adali::backend::{Affine, ConvForward, Input, NeuronLayers, Neurons, SpikeOutput, Storage};
use adali::neuron::Neuron;
use adali::surrogate::SurrogateKind;

struct Case {
    conv: Conv,
    span: Span,
    value: Value,
    neuron: Neuron,
    /// Bounds and histogram for every channel.
    per_channel: bool,
    /// Affine map, window bits, membranes, histogram: all or none.
    everything: bool,
}

impl Case {
    /// Runs the case on both sides and compares every output; returns the share of spikes.
    fn check(&self, rng: &mut Rng) -> f32 {
        let &Self { conv, span, value, neuron, per_channel, everything } = self;
        let direct = conv.reads != InputKind::Spikes;
        let of_input = Span { steps: if direct { 1 } else { span.steps }, ..span };
        let volume = conv.output;
        let x = if direct { exact_values(of_input, conv.input, rng) } else { random_spikes(span, conv.input, rng) };
        let weight = Weight::exact(conv, rng);
        let exact = |rng: &mut Rng, low: f64, high: f64| (rng.uniform(low, high) * 64.0).round() as f32 / 64.0;
        let scale: Vec<f32> =
            (0..padded(volume.c)).map(|_| if everything { exact(rng, 0.5, 2.0) } else { 1.0 }).collect();
        let shift: Vec<f32> = (0..padded(volume.c)).map(|_| exact(rng, -0.5, 1.5)).collect();
        let bounds = bounds(per_channel.then_some(volume.c));

        let on_cpu = Neurons { neuron, surrogate: surrogate(SurrogateKind::Adali), bounds: &bounds };
        let (mut spikes, mut inside) = (Cpu.spikes(span, volume).unwrap(), Cpu.spikes(span, volume).unwrap());
        let mut membranes = Cpu.activations(span, volume).unwrap();
        let mut histogram = Cpu.counts(if per_channel { volume.c } else { 1 }).unwrap();
        let out = SpikeOutput {
            spikes: &mut spikes,
            inside: Some(&mut inside),
            membrane: Some(&mut membranes),
            histogram: Some(&mut histogram),
        };
        let affine = Affine::<Cpu> {
            scale: &Cpu.vector(&scale[..volume.c]).unwrap(),
            shift: &Cpu.vector(&shift[..volume.c]).unwrap(),
        };
        let zeros = Cpu.vector(&vec![0.0; volume.c]).unwrap();
        let weights = weight.on_cpu();
        let (floats, bits) = (x.cpu_floats(), x.cpu_bits());
        let input = if direct { Input::Dense(&floats) } else { Input::Spikes { bits: &bits, scale: 1.0 } };
        let steps = of_input.steps;
        Cpu.conv_lif_forward(&conv, span, input, steps, cpu_weights(&weights), &zeros, affine, &on_cpu, out, None)
            .unwrap();
        let want = Tensor::from_cpu_bits(span, volume, &spikes);

        let pooled = (volume.h > 1 && volume.w > 1 && everything).then_some(Volume {
            h: volume.h / 2,
            w: volume.w / 2,
            ..volume
        });
        for device in schedules(rng) {
            let source = if direct { device.values(value, &x) } else { device.bits(&x) };
            let packed = weight.packed(&device, value, if direct { Packing::Dense } else { Packing::Spikes });
            let shape = tile::forward(&conv, of_input);
            let (unroll, kind) =
                if direct { (Unroll::T1, Source::Dense) } else { (Unroll::for_neurons(span.steps), Source::Spikes) };
            let epilogue = Epilogue::Neurons { pooled: pooled.is_some() };
            let tile::Plan { tile, launch, .. } = tile::plan(&shape, unroll, kind, epilogue, SMALL).unwrap();
            let windows = windows(&device, &bounds, neuron.threshold);
            let (gpu_scale, gpu_shift) = (device.put(&scale), device.put(&shift));
            let gpu_spikes = device.empty_bits(span, volume);
            let gpu_inside = everything.then(|| device.empty_bits(span, volume));
            let gpu_pooled = pooled.map(|volume| device.empty_bits(span, volume));
            let gpu_membranes = everything.then(|| device.empty_values(value, span, volume));
            let gpu_counts =
                everything.then(|| device.put(&counts(&vec![Histogram::default(); histogram.fresh.len()])));
            let params = ConvLif {
                source: source.address(),
                weights: packed.address(),
                scale: if everything { gpu_scale.address() } else { NONE },
                shift: gpu_shift.address(),
                windows: windows.address(),
                spikes: gpu_spikes.address(),
                inside: address(gpu_inside.as_ref()),
                pooled: address(gpu_pooled.as_ref()),
                membranes: address(gpu_membranes.as_ref()),
                histogram: address(gpu_counts.as_ref()),
                shape,
                tile,
                neuron_steps: span.steps as u32,
                channels: volume.c as u32,
                windows_per_channel: per_channel.into(),
                histogram_per_channel: per_channel.into(),
                neuron: constants(neuron),
            };
            let kernel = format!("conv_lif_forward_{}_{}", if direct { "direct" } else { unroll.name() }, value.name());
            device.run(&kernel, launch, &params);

            let what = format!("{kernel} {conv:?} T={} {neuron:?} {tile:?}", span.steps);
            assert_same(&what, &device.get_bits(&gpu_spikes, span, volume), &want);
            if let Some(gpu_inside) = gpu_inside {
                let want = Tensor::from_cpu_bits(span, volume, &inside);
                assert_same(&what, &device.get_bits(&gpu_inside, span, volume), &want);
            }
            if let Some((gpu_pooled, output)) = gpu_pooled.zip(pooled) {
                let two = Extent::square(2);
                let pool = Pool {
                    kind: PoolKind::Max,
                    input: volume,
                    kernel: two,
                    stride: two,
                    padding: Extent::square(0),
                    output,
                };
                let mut pooled = Cpu.spikes(span, output).unwrap();
                Cpu.max_pool_forward(&pool, span, &spikes, &mut pooled).unwrap();
                let want = Tensor::from_cpu_bits(span, output, &pooled);
                assert_same(&what, &device.get_bits(&gpu_pooled, span, output), &want);
            }
            if let Some(gpu_membranes) = gpu_membranes {
                let want = Tensor::from_cpu_floats(span, volume, &membranes).rounded(value);
                assert_same(&what, &device.get_values(value, &gpu_membranes, span, volume), &want);
            }
            if let Some(gpu_counts) = gpu_counts {
                assert_eq!(device.get::<u64>(&gpu_counts), counts(&histogram.fresh), "{what}");
            }
        }
        want.data.iter().sum::<f32>() / want.data.len() as f32
    }
}

#[test]
fn conv_lif_forward_matches() {
    let mut rng = Rng::fresh("conv_lif_forward");
    let (mut cases, mut rate) = (0, 0.0);
    let neurons = neurons();
    for conv in shapes(InputKind::Spikes) {
        for (i, steps) in [1, 2, 3, 4, 5, 7, 8, 12, 16].into_iter().enumerate() {
            for everything in [false, true] {
                let value = HALVES[(cases / 2) % 2];
                let neuron = neurons[cases % 4];
                let span = Span { batch: 1 + (i % 3), steps };
                rate += Case { conv, span, value, neuron, per_channel: cases % 3 == 0, everything }.check(&mut rng);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 8 * 9 * 2);
    assert!((0.1..0.9).contains(&(rate / cases as f32)), "neither silent nor saturated: {}", rate / cases as f32);
}

#[test]
fn conv_lif_forward_of_a_constant_input_matches() {
    let mut rng = Rng::fresh("conv_lif_forward, direct");
    let (mut cases, mut rate) = (0, 0.0);
    let neurons = neurons();
    for conv in shapes(InputKind::Dense) {
        for (i, steps) in [1, 4, 7].into_iter().enumerate() {
            for everything in [false, true] {
                let value = HALVES[cases % 2];
                let neuron = neurons[(cases / 2) % 4];
                let span = Span { batch: 1 + i, steps };
                rate += Case { conv, span, value, neuron, per_channel: cases % 3 == 0, everything }.check(&mut rng);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 8 * 3 * 2);
    assert!((0.1..0.9).contains(&(rate / cases as f32)), "neither silent nor saturated: {}", rate / cases as f32);
}
