//! Affine map and neurons over currents in memory.

use super::harness::*;
use crate::oracle::Rng;
use adali::autotune::Histogram;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::NormLif;
use adali::backend::shape::{Span, Volume};
use adali::backend::{Affine, NeuronLayers, Neurons, SpikeOutput, Storage};
use adali::surrogate::SurrogateKind;

/// Counts as the kernels store them.
pub fn counts(histograms: &[Histogram]) -> Vec<u64> {
    let each = |h: &Histogram| [h.bins.clone(), vec![h.underflow, h.overflow, h.non_finite]].concat();
    histograms.iter().flat_map(each).collect()
}

#[test]
fn norm_lif_forward_matches() {
    let mut rng = Rng::fresh("norm_lif_forward");
    let mut cases = 0;
    // Steps; channels; whether each channel has its own window, and its own histogram. 2080 channels take two blocks.
    let (odd, wide) = (Volume { h: 5, w: 7, c: 0 }, Volume { h: 1, w: 2, c: 2080 });
    let spans = [(1, 1), (3, 3), (4, 4), (7, 7), (8, 8), (5, 1)];
    let layers = [(33, false, true), (64, true, false), (3, true, true)];
    // Detaching only affects the backward pass: a soft reset with leak and a hard one without cover everything.
    let [soft, _, _, hard] = neurons()[..] else { panic!("four neurons") };
    let mut extents = Vec::new();
    for steps in spans {
        extents.extend(layers.map(|(c, windows, histograms)| (steps, Volume { c, ..odd }, windows, histograms)));
    }
    extents.push(((3, 3), wide, true, false));
    for value in VALUES {
        for neuron in [soft, hard] {
            for &((steps, current_steps), volume, window_each, histogram_each) in &extents {
                let (span, channels) = (Span { batch: 2, steps }, volume.c);
                let of_currents = Span { steps: current_steps, ..span };
                let mut currents = Tensor::new(of_currents, volume, || rng.normal() as f32).rounded(value);
                currents.data[5] = f32::INFINITY;
                let scale: Vec<f32> = (0..padded(channels)).map(|_| rng.uniform(0.5, 2.0) as f32).collect();
                let shift: Vec<f32> = (0..padded(channels)).map(|_| rng.uniform(-0.5, 0.5) as f32).collect();
                let bounds = bounds(window_each.then_some(channels));

                let surrogate = surrogate(SurrogateKind::Adali);
                let on_cpu = Neurons { neuron, surrogate, bounds: &bounds };
                let mut spikes = Cpu.spikes(span, volume).unwrap();
                let mut inside = Cpu.spikes(span, volume).unwrap();
                let mut membranes = Cpu.activations(span, volume).unwrap();
                let mut histogram = Cpu.counts(if histogram_each { channels } else { 1 }).unwrap();
                let affine = Affine::<Cpu> {
                    scale: &Cpu.vector(&scale[..channels]).unwrap(),
                    shift: &Cpu.vector(&shift[..channels]).unwrap(),
                };
                let out = SpikeOutput {
                    spikes: &mut spikes,
                    inside: Some(&mut inside),
                    membrane: Some(&mut membranes),
                    histogram: Some(&mut histogram),
                };
                let floats = currents.cpu_floats();
                Cpu.norm_lif_forward(volume, span, &floats, current_steps, affine, &on_cpu, out).unwrap();

                let want_membranes = Tensor::from_cpu_floats(span, volume, &membranes).rounded(value);
                let empty = counts(&vec![Histogram::default(); histogram.fresh.len()]);
                for counted in [false, true, false, true] {
                    let device = Device::new(rng.next_u64());
                    let of_values = device.values(value, &currents);
                    let windows = windows(&device, &bounds, neuron.threshold);
                    let (scale, shift) = (device.put(&scale), device.put(&shift));
                    let [gpu_spikes, gpu_inside] = std::array::from_fn(|_| device.empty_bits(span, volume));
                    let gpu_membranes = device.empty_values(value, span, volume);
                    let gpu_counts = counted.then(|| device.put(&empty));
                    let places = places(span, volume);
                    let histogram_each = counted && histogram_each;
                    let params = NormLif {
                        currents: of_values.address(),
                        scale: scale.address(),
                        shift: shift.address(),
                        windows: windows.address(),
                        spikes: gpu_spikes.address(),
                        inside: gpu_inside.address(),
                        membranes: gpu_membranes.address(),
                        histogram: address(gpu_counts.as_ref()),
                        places,
                        channels: channels as u32,
                        current_steps: current_steps as u32,
                        windows_per_channel: window_each.into(),
                        histogram_per_channel: histogram_each.into(),
                        neuron: constants(neuron),
                        padding: 0,
                    };
                    let mut launch = over_places(places);
                    if histogram_each {
                        launch.grid[1] = places.words;
                    }
                    let private = if histogram_each { 32 } else { u32::from(counted) };
                    launch.shared = private * 515 * 4;
                    device.run(&format!("norm_lif_forward_{}", value.name()), launch, &params);

                    let what = format!("{value:?} {neuron:?} {span:?} {volume:?} counted {counted}");
                    let got = device.get_bits(&gpu_spikes, span, volume);
                    assert_same(&what, &got, &Tensor::from_cpu_bits(span, volume, &spikes));
                    let got = device.get_bits(&gpu_inside, span, volume);
                    assert_same(&what, &got, &Tensor::from_cpu_bits(span, volume, &inside));
                    assert_same(&what, &device.get_values(value, &gpu_membranes, span, volume), &want_membranes);
                    if let Some(gpu_counts) = gpu_counts {
                        assert_eq!(device.get::<u64>(&gpu_counts), counts(&histogram.fresh), "{what}");
                    }
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 2 * (6 * 3 + 1) * 4);
}
