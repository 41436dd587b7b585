//! Where networks branch: gradients that are passed on, added and masked, and average pools of values.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::params::{
    AndSpikes, AvgPoolBackward, GainBackward, GainForward, MaskGradient, NormLifBackward, PassGradient, PoolForward,
};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Extent, Pool, PoolKind, Span, Volume};
use adali::backend::{Branches, Input, NeuronLayers, Put, Storage};

/// Extents with odd sizes; 2080 channels take two blocks.
pub fn extents() -> Vec<(Span, Volume)> {
    let mut all = Vec::new();
    for steps in [1, 2, 4, 5] {
        for (h, w, c) in [(5, 7, 3), (3, 5, 33), (5, 2, 64), (1, 1, 2080)] {
            all.push((Span { batch: 2, steps }, Volume { h, w, c }));
        }
    }
    all
}

/// Values that 16 bits hold exactly, so that sums of a few of them are exact in f32.
pub fn exact(span: Span, volume: Volume, rng: &mut Rng) -> Tensor {
    Tensor::new(span, volume, || rng.below(65) as f32 / 16.0 - 2.0)
}

pub fn spikes(span: Span, volume: Volume, rng: &mut Rng) -> Tensor {
    Tensor::new(span, volume, || rng.below(2) as f32)
}

pub fn with_padding(values: &[f32]) -> Vec<f32> {
    [values, &vec![0.0; padded(values.len()) - values.len()]].concat()
}

pub fn channels(rng: &mut Rng, volume: Volume) -> Vec<f32> {
    (0..volume.c).map(|_| rng.below(9) as f32 / 4.0 - 1.0).collect()
}

/// A result on the CPU, started from `before` if it is added to.
fn on_cpu(put: Put, before: &Tensor, operation: impl FnOnce(Put, &mut Vec<f32>)) -> Tensor {
    let mut to = before.cpu_floats();
    operation(put, &mut to);
    Tensor::from_cpu_floats(before.span, before.volume, &to)
}

#[test]
fn pass_gradient_matches() {
    let mut rng = Rng::fresh("pass_gradient");
    let mut cases = 0;
    for value in VALUES {
        for (span, volume) in extents() {
            for put in PUTS {
                for steps in [1, span.steps] {
                    let of_result = Span { steps, ..span };
                    let (gradient, before) = (exact(span, volume, &mut rng), exact(of_result, volume, &mut rng));
                    let scale = channels(&mut rng, volume);
                    let of_cpu = (gradient.cpu_floats(), Cpu.vector(&scale).unwrap());
                    let want = on_cpu(put, &before, |put, to| {
                        Cpu.pass_gradient(volume, span, &of_cpu.0, &of_cpu.1, steps, put, to).unwrap();
                    });
                    let device = Device::new(rng.next_u64());
                    let (from, to) = (device.values(value, &gradient), device.values(value, &before));
                    let scale = device.put(&with_padding(&scale));
                    let params = PassGradient {
                        gradient: from.address(),
                        scale: scale.address(),
                        to: to.address(),
                        places: places(span, volume),
                        steps: steps as u32,
                        add: put.into(),
                        padding: 0,
                    };
                    device.run(&format!("pass_gradient_{}", value.name()), over_places(params.places), &params);
                    let what = format!("{value:?} {span:?} {volume:?} {put:?} to {steps}");
                    assert_same(&what, &device.get_values(value, &to, of_result, volume), &want.rounded(value));
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 16 * 2 * 2);
}

#[test]
fn masks_match() {
    let mut rng = Rng::fresh("masks");
    let mut cases = 0;
    for (span, volume) in extents() {
        for inverted in [false, true] {
            let (own, other) = (spikes(span, volume, &mut rng), spikes(span, volume, &mut rng));
            let mut both = Cpu.spikes(span, volume).unwrap();
            Cpu.and_spikes(volume, span, &own.cpu_bits(), inverted, &other.cpu_bits(), &mut both).unwrap();
            let device = Device::new(rng.next_u64());
            let [on_own, on_other] = [&own, &other].map(|spikes| device.bits(spikes));
            let out = device.empty_bits(span, volume);
            let words = (span.batch * span.steps * volume.pixels() * words(volume.c)) as u64;
            let params = AndSpikes {
                own: on_own.address(),
                other: on_other.address(),
                out: out.address(),
                words,
                inverted: inverted.into(),
                padding: 0,
            };
            device.run("and_spikes", Launch::over(words as usize, 1024, 256), &params);
            let what = format!("{span:?} {volume:?} inverted {inverted}");
            assert_same(&what, &device.get_bits(&out, span, volume), &Tensor::from_cpu_bits(span, volume, &both));
            for value in VALUES {
                for put in PUTS {
                    let (gradient, before) = (exact(span, volume, &mut rng), exact(span, volume, &mut rng));
                    let (of_cpu, mask) = (gradient.cpu_floats(), own.cpu_bits());
                    let want = on_cpu(put, &before, |put, to| {
                        Cpu.mask_gradient(volume, span, &of_cpu, &mask, inverted, -0.5, put, to).unwrap();
                    });
                    let (from, to) = (device.values(value, &gradient), device.values(value, &before));
                    let params = MaskGradient {
                        gradient: from.address(),
                        mask: on_own.address(),
                        to: to.address(),
                        places: places(span, volume),
                        inverted: inverted.into(),
                        add: put.into(),
                        scale: -0.5,
                    };
                    device.run(&format!("mask_gradient_{}", value.name()), over_places(params.places), &params);
                    let got = device.get_values(value, &to, span, volume);
                    assert_same(&format!("{what} {value:?} {put:?}"), &got, &want.rounded(value));
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 16 * 2 * 3 * 2);
}

#[test]
fn gains_match() {
    let mut rng = Rng::fresh("gains");
    let mut cases = 0;
    for value in VALUES {
        for (span, volume) in extents() {
            for current_steps in [1, span.steps] {
                let gradient = exact(span, volume, &mut rng);
                let currents = exact(Span { steps: current_steps, ..span }, volume, &mut rng);
                let mut want = Cpu.vector(&[0.0]).unwrap();
                let (of_gradient, of_currents) = (gradient.cpu_floats(), currents.cpu_floats());
                Cpu.gain_backward(volume, span, &of_gradient, &of_currents, current_steps, 0.2, &mut want).unwrap();
                let device = Device::new(rng.next_u64());
                let (from, y) = (device.values(value, &gradient), device.values(value, &currents));
                let places = places(span, volume);
                let launch = over_places(places);
                let pieces = launch.grid[0] * launch.grid[1];
                let (partial, grad) = (device.empty(8 * pieces as usize), device.put(&[7.0f32; 32]));
                let params = GainBackward {
                    gradient: from.address(),
                    currents: y.address(),
                    partial: partial.address(),
                    gain_gradient: grad.address(),
                    places,
                    channels: volume.c as u32,
                    current_steps: current_steps as u32,
                    pieces,
                    scale: 0.2,
                    padding: 0,
                };
                device.run(&format!("gain_backward_{}", value.name()), launch, &params);
                device.run("gain_sum", Launch::over(1, 1, 32), &params);
                let got = device.get::<f32>(&grad);
                // The products and their sums are exact in f64.
                assert_eq!(got[0].to_bits(), want[0].to_bits(), "{value:?} {span:?} {volume:?} {current_steps}");
                assert!(got[1..].iter().all(|&x| x == 7.0), "only one value is written");
                let (gain, out) = (device.put(&[0.75f32; 32]), device.empty(4 * padded(volume.c)));
                let params = GainForward {
                    gain: gain.address(),
                    out: out.address(),
                    channels: padded(volume.c) as u32,
                    scale: 0.2,
                };
                device.run("gain_forward", Launch::over(padded(volume.c), 256, 256), &params);
                assert!(device.get::<f32>(&out).iter().all(|&x| x == 0.2f32 * 0.75), "{volume:?}");
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * 16 * 2);
}

#[test]
fn average_pools_of_values_match() {
    let mut rng = Rng::fresh("average pools of values");
    let mut cases = 0;
    for value in VALUES {
        for channels in [3, 33, 64] {
            for (kernel, stride) in [([2, 2], [2, 2]), ([3, 2], [1, 2]), ([5, 7], [5, 7]), ([1, 1], [2, 3])] {
                for put in PUTS {
                    let [kernel, stride] = [kernel, stride].map(|[h, w]| Extent { h, w });
                    let (input, padding) = (Volume { h: 5, w: 7, c: channels }, Extent::square(0));
                    let out = |input, kernel, stride| (input - kernel) / stride + 1;
                    let output = Volume {
                        h: out(input.h, kernel.h, stride.h),
                        w: out(input.w, kernel.w, stride.w),
                        c: channels,
                    };
                    let pool = Pool { kind: PoolKind::Avg, input, kernel, stride, padding, output };
                    let span = Span { batch: 3, steps: 2 };
                    let x = exact(span, input, &mut rng);
                    let mut want = Cpu.activations(span, output).unwrap();
                    Cpu.avg_pool_forward(&pool, span, Input::Dense(&x.cpu_floats()), &mut want).unwrap();
                    let want = Tensor::from_cpu_floats(span, output, &want).rounded(value);
                    let device = Device::new(rng.next_u64());
                    let (from, to) = (device.values(value, &x), device.empty_values(value, span, output));
                    let params = PoolForward {
                        input: from.address(),
                        pooled: to.address(),
                        pool: (&pool).into(),
                        images: (span.batch * span.steps) as u32,
                        words: words(channels) as u32,
                        share: 1.0 / (kernel.h * kernel.w) as f32,
                        padding: 0,
                    };
                    let outputs = 4 * output.pixels() * words(channels);
                    let launch = Launch { grid: [outputs.div_ceil(64) as u32, 2, 1], threads: 64, shared: 0 };
                    device.run(&format!("avg_pool_values_{}", value.name()), launch, &params);
                    let what = format!("{value:?} {pool:?} {put:?}");
                    assert_same(&what, &device.get_values(value, &to, span, output), &want);

                    let (gradient, before) = (exact(span, output, &mut rng), exact(span, input, &mut rng));
                    let of_cpu = gradient.cpu_floats();
                    let want = on_cpu(put, &before, |put, to| {
                        Cpu.avg_pool_backward(&pool, span, &of_cpu, put, to).unwrap();
                    });
                    let (from, to) = (device.values(value, &gradient), device.values(value, &before));
                    let params = AvgPoolBackward {
                        gradient: from.address(),
                        out: to.address(),
                        places: places(span, input),
                        pool: (&pool).into(),
                        add: put.into(),
                    };
                    device.run(&format!("avg_pool_backward_{}", value.name()), over_places(params.places), &params);
                    let got = device.get_values(value, &to, span, input);
                    // The CPU adds window by window to what is there, the kernel adds the windows first.
                    let off = 4.0 * value.epsilon();
                    assert_close(&what, &got.data, &want.data, off, off);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 3 * 4 * 2);
}

/// A norm's backward pass alone: the two kernels against the same formula.
#[test]
fn norm_backward_matches() {
    let mut rng = Rng::fresh("norm_backward");
    let mut cases = 0;
    for value in VALUES {
        for (span, volume) in extents() {
            for current_steps in [1, span.steps] {
                let of_currents = Span { steps: current_steps, ..span };
                let (gradient, currents) = (exact(span, volume, &mut rng), exact(of_currents, volume, &mut rng));
                let [mean, inv_std, of_gradient, of_current, constant] = [(); 5].map(|()| channels(&mut rng, volume));
                // The gradient that a current receives: summed if it stands for all steps.
                let mut summed = Tensor::new(of_currents, volume, || 0.0);
                let each = summed.data.len();
                gradient.data.iter().enumerate().for_each(|(i, g)| summed.data[i % each] += g);
                let pitch = padded(volume.c);
                let (mut sums, mut want) = (vec![[0.0f64; 2]; 2 * pitch], summed.clone());
                for (i, (g, y)) in want.data.iter_mut().zip(&currents.data).enumerate() {
                    let c = i / volume.pixels() % volume.c;
                    let product = f64::from(*g) * f64::from(y - mean[c]) * f64::from(inv_std[c]);
                    for (sum, x) in [(c, f64::from(*g)), (pitch + c, product)] {
                        sums[sum][0] += x;
                        sums[sum][1] += x.abs();
                    }
                    *g = of_gradient[c].mul_add(*g, of_current[c].mul_add(*y, constant[c]));
                }
                let device = Device::new(rng.next_u64());
                let (from, y) = (device.values(value, &gradient), device.values(value, &currents));
                let vectors = [&mean, &inv_std, &of_gradient, &of_current, &constant];
                let vectors = vectors.map(|values| device.put(&with_padding(values)));
                let places = places(span, volume);
                let launch = over_places(places);
                let partial = device.empty(launch.grid[0] as usize * 2 * pitch * 4);
                let out = device.empty_values(value, of_currents, volume);
                let [mean, inv_std, of_gradient, of_current, constant] = vectors.each_ref().map(Buffer::address);
                let params = NormLifBackward {
                    currents: y.address(),
                    gradient: from.address(),
                    places,
                    current_steps: current_steps as u32,
                    ..NormLifBackward::default()
                };
                let reduce = NormLifBackward { mean, inv_std, sums: partial.address(), ..params };
                let shared = 16 * launch.threads * 4;
                device.run(&format!("norm_reduce_{}", value.name()), Launch { shared, ..launch }, &reduce);
                let apply = NormLifBackward { of_gradient, of_current, constant, out: out.address(), ..params };
                device.run(&format!("norm_apply_{}", value.name()), launch, &apply);
                let what = format!("{value:?} {span:?} {volume:?} {current_steps}");
                assert_same(&what, &device.get_values(value, &out, of_currents, volume), &want.rounded(value));
                let partial = device.get::<f32>(&partial);
                for (i, [want, size]) in sums.into_iter().enumerate() {
                    let got: f64 = partial.iter().skip(i).step_by(2 * pitch).map(|&x| f64::from(x)).sum();
                    assert!((got - want).abs() <= 2e-6 * size, "{what}: sum {i} is {got}, not {want}");
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * 16 * 2);
}
