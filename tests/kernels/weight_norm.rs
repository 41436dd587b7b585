//! Weight norm and its gradients.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::{Cpu, layout};
use adali::backend::gpu::params::{WeightNorm, WeightNormBackward};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Conv, Extent, InputKind, Volume};
use adali::backend::{Storage, Training};

/// Sums of f64 in another order, then one rounding to f32; gradients cancel, so their tolerance is relative to the largest.
const RELATIVE: f32 = 1e-6;

fn conv(k: usize, c: usize, kernel: Extent, reads: InputKind) -> Conv {
    let input = Volume { h: kernel.h, w: kernel.w, c };
    let output = Volume { h: 1, w: 1, c: k };
    Conv { reads, input, kernel, stride: Extent::square(1), padding: Extent::square(0), output }
}

/// `[K][R][S][C]` from `[K, C, R, S]`, and back.
fn each_weight(conv: &Conv, mut f: impl FnMut(usize, usize)) {
    let (channels, taps) = (conv.input.c, conv.kernel.h * conv.kernel.w);
    for k in 0..conv.output.c {
        for c in 0..channels {
            (0..taps).for_each(|tap| f((k * taps + tap) * channels + c, (k * channels + c) * taps + tap));
        }
    }
}

fn to_gpu(conv: &Conv, file: &[f32]) -> Vec<f32> {
    let mut weight = vec![0.0; file.len()];
    each_weight(conv, |gpu, cpu| weight[gpu] = file[cpu]);
    weight
}

fn to_file(conv: &Conv, weight: &[f32]) -> Vec<f32> {
    let mut file = vec![0.0; weight.len()];
    each_weight(conv, |gpu, cpu| file[cpu] = weight[gpu]);
    file
}

#[test]
fn weight_norms_match() {
    let mut rng = Rng::fresh("weight_norm");
    let mut cases = 0;
    for (c, reads) in [(1, InputKind::Image), (3, InputKind::Image), (33, InputKind::Spikes), (64, InputKind::Dense)] {
        for kernel in [Extent::square(1), Extent::square(3), Extent { h: 2, w: 5 }] {
            for k in [1, 10, 33] {
                // Arbitrary weights, weights that differ little from their mean, and equal ones.
                for (mean, spread) in [(0.0, 1.0), (3.0, 1e-4), (0.5, 0.0)] {
                    let conv = conv(k, c, kernel, reads);
                    let mut draw = |n: usize, mean: f64, spread: f64| -> Vec<f32> {
                        (0..n).map(|_| (mean + spread * rng.normal()) as f32).collect()
                    };
                    let (file, gain) = (draw(k * conv.fan_in(), mean, spread), draw(k, 1.0, 0.2));
                    let gradient = draw(file.len(), 0.1, 1.0);
                    let norm = adali::backend::WeightNorm { scale: 2.5, sample_variance: cases % 2 == 1 };
                    let factor = norm.factor(conv.fan_in());

                    let weight = Cpu.weight(&conv, &file).expect("a weight");
                    let cpu_gain = Cpu.vector(&gain).unwrap();
                    let mut effective = weight.clone();
                    Cpu.weight_norm_forward(&conv, &weight, &cpu_gain, norm, &mut effective).unwrap();
                    let mut weight_grad = Cpu.weight(&conv, &gradient).expect("a gradient");
                    let mut gain_grad = Cpu.vector(&gain).unwrap();
                    Cpu.weight_norm_backward(&conv, &weight, &cpu_gain, norm, &mut weight_grad, &mut gain_grad)
                        .unwrap();

                    let device = Device::new(cases as u64);
                    let on_device = device.put(&to_gpu(&conv, &file));
                    let gpu_gain = device.put(&[gain, vec![0.0; padded(k) - k]].concat());
                    let gpu_effective = device.empty(4 * file.len());
                    let params = WeightNorm {
                        weight: on_device.address(),
                        gain: gpu_gain.address(),
                        effective: gpu_effective.address(),
                        fan_in: conv.fan_in() as u32,
                        scale: norm.scale,
                        factor,
                    };
                    device.run("weight_norm_forward", Launch::over(k, 1, 256), &params);
                    let gpu_gradient = device.put(&to_gpu(&conv, &gradient));
                    let gain_gradient = device.empty(4 * padded(k));
                    let params = WeightNormBackward {
                        weight: on_device.address(),
                        gain: gpu_gain.address(),
                        gradient: gpu_gradient.address(),
                        gain_gradient: gain_gradient.address(),
                        fan_in: conv.fan_in() as u32,
                        scale: norm.scale,
                        factor,
                    };
                    device.run("weight_norm_backward", Launch::over(k, 1, 256), &params);

                    let what = format!("K={k} C={c} {kernel:?} mean {mean} spread {spread}");
                    let largest = |values: &[f32]| values.iter().fold(0.0f32, |most, x| most.max(x.abs()));
                    let close = |name: &str, got: &[f32], want: &[f32]| {
                        let absolute = RELATIVE * largest(want);
                        assert_close(&format!("{name}, {what}"), got, want, RELATIVE, absolute);
                    };
                    let got = to_file(&conv, &device.get(&gpu_effective));
                    close("effective", &got, &layout::weight_to_file(&conv, &effective).expect("a weight"));
                    let got = to_file(&conv, &device.get(&gpu_gradient));
                    close("gradient", &got, &layout::weight_to_file(&conv, &weight_grad).expect("a gradient"));
                    let got: Vec<f32> = device.get(&gain_gradient);
                    close("gain's gradient", &got[..k], &gain_grad[..k]);
                    assert!(got[k..].iter().all(|&x| x == 0.0), "{what}: padding is zero");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 4 * 3 * 3 * 3);
}
