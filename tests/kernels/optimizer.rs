//! Updates of several tensors in one launch.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::UpdateRule;
use adali::backend::cpu::optimizer::{self, Move};
use adali::backend::gpu::params::{GradientNorm, Optimizer, OptimizerState, TrainedTensor, chunks};
use adali::backend::gpu::{Buffer, Launch};
use std::collections::BTreeSet;

/// Shorter and longer than a chunk, and exactly one and two chunks long.
const LENGTHS: [usize; 7] = [1, 3, 64, 4095, 4096, 4097, 8192];

/// A parameter on the host.
struct Parameter {
    value: Vec<f32>,
    gradient: Vec<f32>,
    first: Vec<f32>,
    second: Vec<f32>,
}

impl Parameter {
    fn arrays(&self) -> [&Vec<f32>; 4] {
        [&self.value, &self.gradient, &self.first, &self.second]
    }
}

fn parameters(rng: &mut Rng, lengths: &[usize]) -> Vec<Parameter> {
    let mut draw = |n: usize| -> Vec<f32> { (0..n).map(|_| rng.normal() as f32).collect() };
    let mut each = |&n: &usize| Parameter {
        value: draw(n),
        gradient: draw(n),
        first: draw(n),
        second: draw(n).iter().map(|x| x * x).collect(),
    };
    lengths.iter().map(&mut each).collect()
}

/// The state before a step.
#[derive(Clone, Copy)]
struct Step {
    number: u64,
    rate: f32,
    state: OptimizerState,
}

/// Parameters in device memory with the tables that the host builds once.
struct Table {
    arrays: Vec<[CudaBuffer; 4]>,
    tensors: CudaBuffer,
    chunks: CudaBuffer,
    chunk_count: usize,
    number: CudaBuffer,
    rate: CudaBuffer,
    state: CudaBuffer,
}

impl Table {
    fn new(device: &Device, parameters: &[Parameter], step: Step) -> Self {
        let arrays: Vec<_> = parameters.iter().map(|p| p.arrays().map(|array| device.put(array))).collect();
        let lengths: Vec<_> = parameters.iter().map(|p| p.value.len()).collect();
        let tensor = |(arrays, &length): (&[CudaBuffer; 4], &usize)| {
            let [value, gradient, first, second] = arrays.each_ref().map(Buffer::address);
            TrainedTensor { value, gradient, first, second, length: length as u32, padding: 0 }
        };
        let tensors: Vec<_> = arrays.iter().zip(&lengths).map(tensor).collect();
        let chunks = chunks(&lengths);
        Self {
            tensors: device.put(&tensors),
            chunk_count: chunks.len(),
            chunks: device.put(&chunks),
            number: device.put(&[step.number]),
            rate: device.put(&[step.rate]),
            state: device.put(&[step.state]),
            arrays,
        }
    }

    /// Computes the norm and clipping into the state.
    fn norm(&self, device: &Device, limit: f64, rule: UpdateRule, growth: u32) -> OptimizerState {
        let (beta1, beta2) = match rule {
            UpdateRule::Sgd { .. } => (0.0, 0.0),
            UpdateRule::Adam { beta1, beta2, .. } => (beta1, beta2),
        };
        let squares = device.empty(8 * self.chunk_count);
        let params = GradientNorm {
            tensors: self.tensors.address(),
            chunks: self.chunks.address(),
            squares: squares.address(),
            state: self.state.address(),
            rate: self.rate.address(),
            step: self.number.address(),
            limit,
            beta1,
            beta2,
            chunk_count: self.chunk_count as u32,
            growth,
        };
        device.run("gradient_squares", Launch::over(self.chunk_count, 1, 256), &params);
        device.run("gradient_norm", Launch::over(1, 1, 256), &params);
        device.get(&self.state)[0]
    }

    fn update(&self, device: &Device, rule: UpdateRule, decay: f32) {
        let tables = Optimizer {
            tensors: self.tensors.address(),
            chunks: self.chunks.address(),
            state: self.state.address(),
            decay,
            ..Optimizer::default()
        };
        let (kernel, params) = match rule {
            UpdateRule::Sgd { momentum } => ("optimizer_sgd", Optimizer { momentum, ..tables }),
            UpdateRule::Adam { beta1, beta2, epsilon, decoupled } => {
                ("optimizer_adam", Optimizer { beta1, beta2, epsilon, decoupled: decoupled.into(), ..tables })
            }
        };
        device.run(kernel, Launch::over(self.chunk_count, 1, 256), &params);
    }

    #[track_caller]
    fn assert_holds(&self, device: &Device, what: &str, parameters: &[Parameter]) {
        for (i, (arrays, parameter)) in self.arrays.iter().zip(parameters).enumerate() {
            for (array, want) in arrays.iter().zip(parameter.arrays()) {
                let (got, want): (Vec<u32>, Vec<u32>) = (device.get(array), want.iter().map(|x| x.to_bits()).collect());
                assert!(got == want, "{what}: tensor {i} differs");
            }
        }
    }
}

fn rules() -> Vec<UpdateRule> {
    let adam = |beta1, decoupled| UpdateRule::Adam { beta1, beta2: 0.999, epsilon: 1e-8, decoupled };
    let sgd = |momentum| UpdateRule::Sgd { momentum };
    vec![sgd(0.0), sgd(0.9), adam(0.9, true), adam(0.9, false), adam(0.0, true)]
}

#[test]
fn updates_match() {
    let mut rng = Rng::fresh("optimizer");
    let mut cases = 0;
    for rule in rules() {
        for decay in [5e-4, 0.0] {
            for (count, clip, loss_scale) in
                [(0, 0.0, 1.0), (1, 1e9, 1.0), (6, 1.5, 1.0), (999, 0.5, 1024.0), (100_000, 2.0, 1.0)]
            {
                let mut parameters = parameters(&mut rng, &LENGTHS);
                // Subnormal numbers and signed zeros must be preserved.
                parameters[2].gradient[..4].copy_from_slice(&[0.0, -0.0, 1e-42, -1e-40]);
                parameters[2].second[..2].fill(0.0);
                let device = Device::new(rng.next_u64());
                let rate = rng.uniform(1e-4, 0.1) as f32;
                let state = OptimizerState { loss_scale, count, ..OptimizerState::default() };
                let table = Table::new(&device, &parameters, Step { number: 1, rate, state });
                let state = table.norm(&device, clip, rule, 0);
                table.update(&device, rule, decay);
                let what = format!("{rule:?} after {count} updates, clipped to {clip}, decay {decay}");

                assert_eq!((state.count, state.finite, state.skipped), (count + 1, 1, 0), "{what}");
                assert_eq!((state.rate, state.loss_scale, state.failed), (rate, loss_scale, 0), "{what}");
                let gradients: Vec<_> = parameters.iter().map(|p| &p.gradient).collect();
                let norm = optimizer::norm(&gradients) / loss_scale as f64;
                assert!((state.norm - norm).abs() <= 1e-12 * norm, "{what}: {} not {norm}", state.norm);
                let scale = if clip > 0.0 && norm > clip { clip / norm } else { 1.0 } / loss_scale as f64;
                assert!(
                    (state.gradient_scale as f64 - scale).abs() <= 1e-7 * scale,
                    "{what}: {}",
                    state.gradient_scale
                );

                for p in &mut parameters {
                    let update = Move {
                        rule,
                        learning_rate: rate,
                        decay,
                        gradient_scale: state.gradient_scale,
                        count: state.count as u64,
                    };
                    let Parameter { value, gradient, first, second } = p;
                    optimizer::update(&update, value, gradient, first, second);
                }
                table.assert_holds(&device, &what, &parameters);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 5 * 2 * 5);
}

#[test]
fn gradients_that_are_not_finite_are_skipped() {
    let mut rng = Rng::fresh("optimizer_skips");
    let mut cases = 0;
    for rule in rules() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            for at in [(0, 0), (4, 4095), (5, 4096)] {
                let mut parameters = parameters(&mut rng, &LENGTHS);
                parameters[at.0].gradient[at.1] = bad;
                let device = Device::new(rng.next_u64());
                let state = OptimizerState { loss_scale: 1.0, count: 3, ..OptimizerState::default() };
                let table = Table::new(&device, &parameters, Step { number: 4, rate: 0.1, state });
                let state = table.norm(&device, 1.0, rule, 0);
                assert_eq!((state.count, state.finite, state.skipped), (3, 0, 1), "{bad} at {at:?}");
                table.update(&device, rule, 0.1);
                table.assert_holds(&device, &format!("{rule:?} {bad} at {at:?}"), &parameters);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 5 * 3 * 3);
}

/// What happens to the loss scale after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Change {
    Doubled,
    Capped,
    Halved,
    ToTheFloor,
    Steady,
    LostAtTheFloor,
    LostFixed,
}

/// The rule of PyTorch's `GradScaler` within its bounds: the change, and the next scale.
fn next_scale(scale: f32, growth: u32, steady: u32, finite: bool) -> (Change, f32) {
    match finite {
        true if growth == 0 || steady < growth => (Change::Steady, scale),
        true if scale >= 16_777_216.0 => (Change::Capped, scale),
        true if scale > 8_388_608.0 => (Change::Capped, 16_777_216.0),
        true => (Change::Doubled, scale * 2.0),
        false if growth == 0 => (Change::LostFixed, scale),
        false if scale == 1.0 => (Change::LostAtTheFloor, scale),
        false if scale < 2.0 => (Change::ToTheFloor, 1.0),
        false => (Change::Halved, scale / 2.0),
    }
}

#[test]
fn loss_scales_follow_the_norms() {
    let mut rng = Rng::fresh("loss_scale");
    let (mut updates, mut seen) = (0, BTreeSet::new());
    for growth in [0, 1, 3] {
        for scale in [1.0, 1.5, 1024.0, 12_582_912.0, 8_388_608.0] {
            for bad in [0.0, 0.2, 0.8] {
                let first = 1 + rng.next_u64() % (1 << 40);
                let mut want = OptimizerState { loss_scale: scale, ..OptimizerState::default() };
                let mut state = want;
                for number in first..first + 30 {
                    let mut parameters = parameters(&mut rng, &[5, 17]);
                    let finite = rng.uniform(0.0, 1.0) >= bad;
                    parameters.iter_mut().flat_map(|p| &mut p.gradient).for_each(|g| *g *= state.loss_scale);
                    if !finite {
                        parameters[rng.below(2)].gradient[rng.below(5)] = [f32::NAN, f32::INFINITY][rng.below(2)];
                    }
                    let gradients: Vec<_> = parameters.iter().map(|p| &p.gradient).collect();
                    let norm = optimizer::norm(&gradients) / f64::from(want.loss_scale);
                    let (made_with, rate) = (want.loss_scale, rng.uniform(1e-4, 0.1) as f32);
                    let clip = if finite { f64::min(1.0, 2.0 / norm) } else { 1.0 };

                    want.norm_sum += if finite { norm } else { 0.0 };
                    want.count += u32::from(finite);
                    want.skipped += u32::from(!finite);
                    want.steady += u32::from(finite);
                    let (change, next) = next_scale(want.loss_scale, growth, want.steady, finite);
                    if matches!(change, Change::LostAtTheFloor | Change::LostFixed) && want.failed == 0 {
                        want.failed = number;
                    }
                    if next != want.loss_scale {
                        (want.loss_scale, want.steady) = (next, 0);
                    }
                    seen.insert(change);

                    let device = Device::new(rng.next_u64());
                    let table = Table::new(&device, &parameters, Step { number, rate, state });
                    state = table.norm(&device, 2.0, UpdateRule::Sgd { momentum: 0.0 }, growth);
                    let what = format!("growth {growth} from {scale}, {bad} bad, step {number}: {change:?}");
                    let integers = |s: &OptimizerState| (s.finite, s.count, s.skipped, s.steady, s.failed);
                    want.finite = finite.into();
                    assert_eq!(integers(&state), integers(&want), "{what}");
                    assert_eq!((state.loss_scale, state.rate), (want.loss_scale, rate), "{what}");
                    assert!((state.norm_sum - want.norm_sum).abs() <= 1e-12 * want.norm_sum, "{what}");
                    if finite {
                        assert!((state.norm - norm).abs() <= 1e-12 * norm, "{what}: {} not {norm}", state.norm);
                        let scaled = f64::from(state.gradient_scale) * f64::from(made_with);
                        assert!((scaled - clip).abs() <= 2e-7, "{what}: {scaled} not {clip}");
                    }
                    updates += 1;
                }
            }
        }
    }
    assert_eq!(updates, 3 * 5 * 3 * 30);
    assert_eq!(seen.len(), 7, "every change was seen: {seen:?}");
}

#[test]
fn norms_are_the_same_in_every_run() {
    let mut rng = Rng::fresh("gradient_norm");
    let parameters = parameters(&mut rng, &[9000, 17, 5000]);
    let state = OptimizerState { loss_scale: 1.0, ..OptimizerState::default() };
    let norm = |seed| {
        let device = Device::new(seed);
        Table::new(&device, &parameters, Step { number: 1, rate: 0.1, state })
            .norm(&device, 1.0, UpdateRule::Sgd { momentum: 0.0 }, 0)
            .norm
            .to_bits()
    };
    assert!((1..10).all(|seed| norm(seed) == norm(0)));
}
