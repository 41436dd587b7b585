//! Sums of currents, and their neurons.

use super::branches::{channels, exact, extents, spikes, with_padding};
use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::{SumCurrents, SumLif, Summand as GpuSummand};
use adali::backend::shape::{Span, Volume};
use adali::backend::{Affine, Branches, Input, NeuronLayers, Neurons, SpikeOutput, Storage, Summand};
use adali::histogram::Histogram;
use adali::surrogate::SurrogateKind;

/// One summand on the host.
struct Given {
    values: Tensor,
    /// What a spike counts for, if they are spikes.
    of_spike: Option<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Given {
    fn new(span: Span, volume: Volume, bits: bool, rng: &mut Rng) -> Self {
        Self {
            values: if bits { spikes(span, volume, rng) } else { exact(span, volume, rng) },
            of_spike: bits.then_some(1.5),
            scale: channels(rng, volume),
            shift: channels(rng, volume),
        }
    }
}

/// The layers' summands: one to three, of spikes and values, of one step and of all.
fn given(span: Span, volume: Volume, count: usize, rng: &mut Rng) -> Vec<Given> {
    let one = Span { steps: 1, ..span };
    let kinds = [(span, false), (span, true), (one, false)];
    let first = rng.below(3);
    (0..count).map(|k| kinds[(first + k) % 3]).map(|(span, bits)| Given::new(span, volume, bits, rng)).collect()
}

fn steps_of(given: &[Given]) -> usize {
    given.iter().map(|given| given.values.span.steps).max().unwrap()
}

/// The sum on the CPU, as kernels store it.
fn sum(given: &[Given], volume: Volume, span: Span) -> Tensor {
    let span = Span { steps: steps_of(given), ..span };
    let held: Vec<_> = given
        .iter()
        .map(|given| {
            let vector = |values: &[f32]| Cpu.vector(values).unwrap();
            (given.values.cpu_floats(), given.values.cpu_bits(), vector(&given.scale), vector(&given.shift))
        })
        .collect();
    let summands: Vec<Summand<Cpu>> = held
        .iter()
        .zip(given)
        .map(|((values, bits, scale, shift), given)| Summand {
            input: given.of_spike.map_or(Input::Dense(values), |scale| Input::Spikes { bits, scale }),
            steps: given.values.span.steps,
            affine: Affine { scale, shift },
        })
        .collect();
    let mut sum = Cpu.activations(span, volume).unwrap();
    Cpu.sum_currents(volume, span, &summands, &mut sum).unwrap();
    Tensor::from_cpu_floats(span, volume, &sum)
}

/// The summands on a device, with the buffers that they point to.
fn on_device(
    device: &Device,
    value: Value,
    given: &[Given],
    volume: Volume,
    span: Span,
    sum: u64,
) -> (SumCurrents, Vec<CudaBuffer>) {
    let mut held = Vec::new();
    let mut summands = [GpuSummand::default(); 3];
    for (summand, given) in summands.iter_mut().zip(given) {
        let bits = given.of_spike.is_some();
        let values = if bits { device.bits(&given.values) } else { device.values(value, &given.values) };
        let vectors = [&given.scale, &given.shift].map(|values| device.put(&with_padding(values)));
        *summand = GpuSummand {
            values: if bits { NONE } else { values.address() },
            spikes: if bits { values.address() } else { NONE },
            scale: vectors[0].address(),
            shift: vectors[1].address(),
            steps: given.values.span.steps as u32,
            of_spike: given.of_spike.unwrap_or(1.0),
        };
        held.push(values);
        held.extend(vectors);
    }
    let (count, steps) = (given.len() as u32, steps_of(given) as u32);
    (SumCurrents { summands, sum, places: places(span, volume), count, steps, padding: 0 }, held)
}

#[test]
fn sum_currents_matches() {
    let mut rng = Rng::fresh("sum_currents");
    let mut cases = 0;
    for value in VALUES {
        for (span, volume) in extents() {
            for count in 1..=3 {
                let given = given(span, volume, count, &mut rng);
                let want = sum(&given, volume, span).rounded(value);
                let device = Device::new(rng.next_u64());
                let out = device.empty_values(value, want.span, volume);
                let (params, _held) = on_device(&device, value, &given, volume, span, out.address());
                device.run(&format!("sum_currents_{}", value.name()), over_places(params.places), &params);
                let what = format!("{value:?} {span:?} {volume:?} {count}");
                assert_same(&what, &device.get_values(value, &out, want.span, volume), &want);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * 16 * 3);
}

#[test]
fn sum_lif_forward_matches() {
    let mut rng = Rng::fresh("sum_lif_forward");
    let mut cases = 0;
    for value in VALUES {
        for (i, (span, volume)) in extents().into_iter().enumerate() {
            for count in 1..=3 {
                let (keeps, counted, neuron) = (rng.below(2) == 1, rng.below(2) == 1, neurons()[(i + count) % 4]);
                let given = given(span, volume, count, &mut rng);
                let exact = sum(&given, volume, span);
                // Neurons see the sum as it is kept.
                let want_sum = if keeps { exact.rounded(value) } else { exact };
                let ones = Cpu.vector(&vec![1.0; volume.c]).unwrap();
                let zeros = Cpu.vector(&vec![0.0; volume.c]).unwrap();
                let bounds = bounds(None);
                let of = Neurons { neuron, surrogate: surrogate(SurrogateKind::Adali), bounds: &bounds };
                let (mut fired, mut inside) = (Cpu.spikes(span, volume).unwrap(), Cpu.spikes(span, volume).unwrap());
                let mut counts = Cpu.counts(1).unwrap();
                let out = SpikeOutput {
                    spikes: &mut fired,
                    inside: Some(&mut inside),
                    membrane: None,
                    histogram: Some(&mut counts),
                };
                let affine = Affine { scale: &ones, shift: &zeros };
                let (currents, steps) = (want_sum.cpu_floats(), want_sum.span.steps);
                Cpu.norm_lif_forward(volume, span, &currents, steps, affine, &of, out).unwrap();

                let device = Device::new(rng.next_u64());
                let windows = windows(&device, &bounds, neuron.threshold);
                let kept = device.empty_values(value, want_sum.span, volume);
                let (on_fired, on_inside) = (device.empty_bits(span, volume), device.empty_bits(span, volume));
                let histogram = device.put(&vec![0u64; adali::histogram::BINS + 3]);
                let address = if keeps { kept.address() } else { NONE };
                let (input, _held) = on_device(&device, value, &given, volume, span, address);
                let mut launch = over_places(input.places);
                launch.shared = if counted { (adali::histogram::BINS + 3) as u32 * 4 } else { 0 };
                let params = SumLif {
                    input,
                    windows: windows.address(),
                    spikes: on_fired.address(),
                    inside: on_inside.address(),
                    membranes: NONE,
                    histogram: if counted { histogram.address() } else { NONE },
                    places: input.places,
                    channels: volume.c as u32,
                    windows_per_channel: 0,
                    histogram_per_channel: 0,
                    neuron: constants(neuron),
                };
                device.run(&format!("sum_lif_forward_{}", value.name()), launch, &params);
                let what = format!("{value:?} {span:?} {volume:?} {count} kept {keeps} counted {counted}");
                let bits = |bits: &[u32]| Tensor::from_cpu_bits(span, volume, bits);
                assert_same(&what, &device.get_bits(&on_fired, span, volume), &bits(&fired));
                assert_same(&what, &device.get_bits(&on_inside, span, volume), &bits(&inside));
                if keeps {
                    assert_same(&what, &device.get_values(value, &kept, want_sum.span, volume), &want_sum);
                }
                if counted {
                    let Histogram { bins, underflow, overflow, non_finite } = &counts.fresh[0];
                    let want = [&bins[..], &[*underflow, *overflow, *non_finite]].concat();
                    assert_eq!(device.get::<u64>(&histogram), want, "{what}");
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * 16 * 3);
}
