//! Votes and their gradients.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::cpu::loss::vote_backward;
use adali::backend::gpu::params::{Vote, VoteBackward};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Span, Volume};
use adali::backend::{Storage, Training, cpu::layout};

/// Numbers of classes, and of outputs per class.
const VOTES: [(usize, usize); 5] = [(10, 10), (3, 1), (33, 3), (2, 70), (64, 1)];
const STEPS: [usize; 4] = [1, 2, 4, 7];

fn flat(c: usize) -> Volume {
    Volume { h: 1, w: 1, c }
}

#[test]
fn votes_match() {
    let mut rng = Rng::fresh("votes");
    let mut cases = 0;
    for (classes, vote) in VOTES {
        for steps in STEPS {
            for batch in [1, 5] {
                let span = Span { batch, steps };
                let device = Device::new(rng.next_u64());
                let logits_as_on_cpu = |logits: &[f32]| Tensor::from_cpu_floats(span, flat(classes), logits);
                let run = |kernel: &str, outputs: u64, current_steps: usize| {
                    let logits = device.empty_values(Value::F32, span, flat(classes));
                    let params = Vote {
                        outputs,
                        logits: logits.address(),
                        batch: batch as u32,
                        steps: steps as u32,
                        current_steps: current_steps as u32,
                        classes: classes as u32,
                        vote: vote as u32,
                        padding: 0,
                    };
                    device.run(kernel, Launch::over(batch * steps * padded(classes), 256, 256), &params);
                    // Padding is zero.
                    let tensor = device.get_values(Value::F32, &logits, span, flat(classes));
                    assert_eq!(device.get::<f32>(&logits), tensor.gpu_floats());
                    tensor
                };
                let mut want = Cpu.activations(span, flat(classes)).unwrap();

                for current_steps in [1, steps] {
                    let of_currents = Span { steps: current_steps, ..span };
                    let outputs = Tensor::new(of_currents, flat(classes * vote), || rng.normal() as f32);
                    let floats = outputs.cpu_floats();
                    Cpu.vote_currents(classes, vote, span, &floats, current_steps, &mut want).unwrap();
                    let on_device = device.values(Value::F32, &outputs);
                    let got = run("vote_currents", on_device.address(), current_steps);
                    assert_same("vote_currents", &got, &logits_as_on_cpu(&want));
                    cases += 1;
                }

                let spikes = Tensor::new(span, flat(classes * vote), || rng.below(2) as f32);
                Cpu.vote_spikes(classes, vote, span, &spikes.cpu_bits(), &mut want).unwrap();
                let on_device = device.bits(&spikes);
                let got = run("vote_spikes", on_device.address(), steps);
                assert_same("vote_spikes", &got, &logits_as_on_cpu(&want));
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 5 * 4 * 2 * 3);
}

#[test]
fn vote_backward_matches() {
    let mut rng = Rng::fresh("vote_backward");
    let mut cases = 0;
    for value in VALUES {
        for (classes, vote) in VOTES {
            for (steps, current_steps) in [(1, 1), (2, 1), (2, 2), (4, 4), (7, 1), (7, 7)] {
                for scale in [None, Some(256.0f32)] {
                    let (batch, outputs) = (3, flat(classes * vote));
                    let (span, of_currents) = (Span { batch, steps }, Span { batch, steps: current_steps });
                    let gradient = Tensor::new(span, flat(classes), || rng.normal() as f32);
                    let mut want = vec![f32::NAN; batch * current_steps * layout::pitch(outputs.c)];
                    vote_backward(classes, vote, span, &gradient.cpu_floats(), current_steps, &mut want);
                    let mut want = Tensor::from_cpu_floats(of_currents, outputs, &want);
                    want.data.iter_mut().for_each(|x| *x = value.round(*x * scale.unwrap_or(1.0)));

                    let device = Device::new(rng.next_u64());
                    let logits_gradient = device.values(Value::F32, &gradient);
                    let outputs_gradient = device.empty_values(value, of_currents, outputs);
                    let loss_scale = scale.map(|scale| device.put(&[scale]));
                    let params = VoteBackward {
                        logits_gradient: logits_gradient.address(),
                        outputs_gradient: outputs_gradient.address(),
                        loss_scale: address(loss_scale.as_ref()),
                        batch: batch as u32,
                        steps: steps as u32,
                        current_steps: current_steps as u32,
                        classes: classes as u32,
                        vote: vote as u32,
                        padding: 0,
                    };
                    let launch = Launch::over(batch * current_steps * padded(outputs.c) / 8, 256, 256);
                    device.run(&format!("vote_backward_{}", value.name()), launch, &params);
                    let what = format!("{value:?} {classes}x{vote} T={steps}/{current_steps}");
                    assert_same(&what, &device.get_values(value, &outputs_gradient, of_currents, outputs), &want);
                    let all = value.decode(&device.get::<u8>(&outputs_gradient));
                    assert_eq!(all, want.gpu_floats(), "{what}: padding is zero");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 5 * 6 * 2);
}
