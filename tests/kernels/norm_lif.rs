//! Affine map and neurons over currents in memory.

use super::harness::*;
use crate::oracle::Rng;
use adali::autotune::Histogram;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::NormLif;
use adali::backend::shape::{Span, Volume};
use adali::backend::{Affine, Backend, Neurons, SpikeOutput};
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
    for value in VALUES {
        for neuron in neurons() {
            for (steps, current_steps) in [(1, 1), (4, 4), (7, 7), (5, 1)] {
                for (channels, per_channel) in [(33, false), (64, true), (3, true)] {
                    let (span, volume) = (Span { batch: 2, steps }, Volume { h: 5, w: 7, c: channels });
                    let of_currents = Span { steps: current_steps, ..span };
                    let mut currents = Tensor::new(of_currents, volume, || rng.normal() as f32).rounded(value);
                    currents.data[5] = f32::INFINITY;
                    let scale: Vec<f32> = (0..padded(channels)).map(|_| rng.uniform(0.5, 2.0) as f32).collect();
                    let shift: Vec<f32> = (0..padded(channels)).map(|_| rng.uniform(-0.5, 0.5) as f32).collect();
                    let bounds = bounds(per_channel.then_some(channels));

                    let surrogate = surrogate(SurrogateKind::Adali);
                    let on_cpu = Neurons { neuron, surrogate, bounds: &bounds };
                    let mut spikes = Cpu.spikes(span, volume).unwrap();
                    let mut inside = Cpu.spikes(span, volume).unwrap();
                    let mut membranes = Cpu.activations(span, volume).unwrap();
                    let mut histogram = Cpu.histogram(if per_channel { channels } else { 1 }).unwrap();
                    let affine = Affine::<Cpu> {
                        scale: &Cpu.vector(&scale[..channels]).unwrap(),
                        shift: &Cpu.vector(&shift[..channels]).unwrap(),
                    };
                    let out = SpikeOutput {
                        spikes: &mut spikes,
                        windows: Some(&mut inside),
                        membrane: Some(&mut membranes),
                        histogram: Some(&mut histogram),
                    };
                    let floats = currents.cpu_floats();
                    Cpu.norm_lif_forward(volume, span, &floats, current_steps, affine, &on_cpu, out).unwrap();

                    for device in schedules(&mut rng) {
                        let of_values = device.values(value, &currents);
                        let windows = windows(&device, &bounds, neuron.threshold);
                        let (scale, shift) = (device.put(&scale), device.put(&shift));
                        let (gpu_spikes, gpu_inside) =
                            (device.empty_bits(span, volume), device.empty_bits(span, volume));
                        let gpu_membranes = device.empty_values(value, span, volume);
                        let gpu_counts = device.put(&counts(&vec![Histogram::default(); histogram.len()]));
                        let places = places(span, volume);
                        let params = NormLif {
                            currents: of_values.address(),
                            scale: scale.address(),
                            shift: shift.address(),
                            windows: windows.address(),
                            spikes: gpu_spikes.address(),
                            inside: gpu_inside.address(),
                            membranes: gpu_membranes.address(),
                            histogram: gpu_counts.address(),
                            places,
                            channels: channels as u32,
                            current_steps: current_steps as u32,
                            windows_per_channel: per_channel.into(),
                            histogram_per_channel: per_channel.into(),
                            neuron: constants(neuron),
                            padding: 0,
                        };
                        device.run(&format!("norm_lif_forward_{}", value.name()), over_places(places), &params);

                        let what = format!("{value:?} {neuron:?} T={steps} C={channels}");
                        let got = device.get_bits(&gpu_spikes, span, volume);
                        assert_same(&what, &got, &Tensor::from_cpu_bits(span, volume, &spikes));
                        let got = device.get_bits(&gpu_inside, span, volume);
                        assert_same(&what, &got, &Tensor::from_cpu_bits(span, volume, &inside));
                        let want = Tensor::from_cpu_floats(span, volume, &membranes).rounded(value);
                        assert_same(&what, &device.get_values(value, &gpu_membranes, span, volume), &want);
                        assert_eq!(device.get::<u64>(&gpu_counts), counts(&histogram), "{what}");
                    }
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 4 * 4 * 3);
}
