//! In f32 against the CPU: every bounds mode, every surrogate, norms and inputs.

use super::training::{Seen, config, digits, gpu, network, second, train};
use crate::oracle::Rng;
use adali::autotune::{BoundsMode, BoundsSpec};
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Precision;
use adali::data::Augmentation;
use adali::network::NetworkSpec;
use adali::surrogate::{Schedule, Surrogate, SurrogateKind};
use adali::train::Config;
use adali::train::optimizer::Optimizer;

/// Batches per epoch.
const STEPS: usize = 3;

/// Differences between two trainings: of the first epoch's losses, step by step and relative, and of everything else.
#[derive(Clone, Copy, Debug, Default)]
struct Apart {
    first_steps: f64,
    loss: f64,
    accuracy: f64,
    gradient_norm: f64,
    bounds: f64,
    rate: f64,
    inside: f64,
}

impl Apart {
    fn of(gpu: &Seen, cpu: &Seen) -> Self {
        let relative = |a: f64, b: f64| (a - b).abs() / b.abs().max(1e-9);
        let mut apart = Self::default();
        let larger = |apart: &mut f64, now: f64| *apart = apart.max(now);
        assert_eq!((gpu.losses.len(), cpu.losses.len()), (2 * (STEPS - 1), 2 * (STEPS - 1)));
        for (a, b) in gpu.losses.iter().zip(&cpu.losses).take(STEPS - 1) {
            larger(&mut apart.first_steps, relative(*a, *b));
        }
        assert_eq!((gpu.epochs.len(), cpu.epochs.len()), (2, 2));
        for (a, b) in gpu.epochs.iter().zip(&cpu.epochs) {
            assert_eq!((a.epoch, a.learning_rate), (b.epoch, b.learning_rate));
            let rates: Vec<f64> = a.layers.iter().map(|layer| layer.firing_rate).collect();
            println!("epoch {}: loss {:.4}, gradient {:.4}, rates {rates:.3?}", a.epoch, a.train_loss, a.gradient_norm);
            assert!(a.train_loss.is_finite() && a.gradient_norm > 0.0);
            assert!(rates.iter().all(|rate| (0.002..0.98).contains(rate)), "a silent network shows little: {rates:?}");
            larger(&mut apart.loss, relative(a.train_loss, b.train_loss));
            larger(&mut apart.accuracy, (a.train_accuracy - b.train_accuracy).abs());
            larger(&mut apart.gradient_norm, relative(a.gradient_norm, b.gradient_norm));
            assert_eq!(a.layers.len(), b.layers.len());
            for (a, b) in a.layers.iter().zip(&b.layers) {
                assert_eq!((&a.name, &a.flags, a.bounds.is_some()), (&b.name, &b.flags, b.bounds.is_some()));
                larger(&mut apart.rate, (a.firing_rate - b.firing_rate).abs());
                if let (Some(a), Some(b)) = (a.bounds, b.bounds) {
                    for (a, b) in [(a.left, b.left), (a.right, b.right), (a.alpha, b.alpha), (a.beta, b.beta)] {
                        larger(&mut apart.bounds, (a - b).abs());
                    }
                }
                assert_eq!(a.inside.is_some(), b.inside.is_some());
                larger(&mut apart.inside, (a.inside.unwrap_or(0.0) - b.inside.unwrap_or(0.0)).abs());
            }
        }
        apart
    }

    fn largest(self, other: Self) -> Self {
        Self {
            first_steps: self.first_steps.max(other.first_steps),
            loss: self.loss.max(other.loss),
            accuracy: self.accuracy.max(other.accuracy),
            gradient_norm: self.gradient_norm.max(other.gradient_norm),
            bounds: self.bounds.max(other.bounds),
            rate: self.rate.max(other.rate),
            inside: self.inside.max(other.inside),
        }
    }

    /// Whether all of it can come from a different order of sums.
    fn is_rounding(&self) -> bool {
        let exact = self.accuracy == 0.0 && self.rate == 0.0 && self.inside < 1e-9;
        exact && self.first_steps < 1e-6 && self.loss < 1e-6 && self.gradient_norm < 1e-5 && self.bounds < 1e-6
    }

    /// Bounds the effect of a potential that ends up on the other side of the threshold or a window edge, and its consequences.
    fn check(&self, name: &str) {
        assert!(self.first_steps < 5e-3 && self.loss < 1e-2 && self.gradient_norm < 5e-2, "{name}: {self:?}");
        assert!(self.accuracy < 2.1 / 36.0 && self.bounds < 2e-2, "{name}: {self:?}");
        assert!(self.rate < 5e-3 && self.inside < 1e-2, "{name}: {self:?}");
    }
}

/// The outcome of a test's cases.
struct Cases {
    random: Rng,
    count: usize,
    rounding: usize,
    worst: Apart,
}

impl Cases {
    fn new(test: &str) -> Self {
        Self { random: Rng::fresh(test), count: 0, rounding: 0, worst: Apart::default() }
    }

    fn case(&mut self, name: &str, mut config: Config, frames: usize) {
        config.seed = self.random.next_u64() >> 2;
        let apart = compare(name, config, frames);
        self.worst = self.worst.largest(apart);
        self.rounding += usize::from(apart.is_rounding());
        self.count += 1;
    }

    /// Most trainings must be equal except for rounding.
    fn finish(self, count: usize) {
        let Self { rounding, worst, .. } = self;
        println!("{rounding} of {count} cases differ by rounding alone; largest: {worst:?}");
        assert_eq!(self.count, count);
        assert!(3 * rounding >= 2 * count, "{rounding} of {count} cases");
    }
}

/// Trains on both backends and compares.
fn compare(name: &str, config: Config, frames: usize) -> Apart {
    let mut config = config;
    config.training.checkpoint_every = 1;
    let data = || digits(STEPS * config.training.batch, frames);
    let (_, cpu) = train(Cpu, &config, data());
    let (trainer, gpu) = train(gpu(Precision::F32, true, 1, None), &config, data());
    assert_eq!(trainer.epoch_steps(), STEPS as u64);
    let apart = Apart::of(&gpu, &cpu);
    println!("{name}: {apart:?}");
    apart.check(name);
    apart
}

fn direct(norm: &str) -> NetworkSpec {
    network(2, "direct", norm, &second(norm))
}

fn bounds(mode: BoundsMode) -> BoundsSpec {
    BoundsSpec { mode, ..BoundsSpec::default() }
}

#[test]
fn bounds_move_as_on_the_cpu() {
    let usual = BoundsSpec::default();
    let track = bounds(BoundsMode::AutoTrack);
    let modes = [
        ("manual, log", usual),
        ("manual, linear", BoundsSpec { schedule: Schedule::Linear, ..usual }),
        ("manual, sqrt, per step", BoundsSpec { schedule: Schedule::Sqrt, per_step: true, alpha: 0.3, ..usual }),
        ("auto-init", bounds(BoundsMode::AutoInit)),
        (
            "auto-init, per step and channel",
            BoundsSpec { per_step: true, per_channel: true, ..bounds(BoundsMode::AutoInit) },
        ),
        ("auto-track", track),
        ("auto-track, every 2", BoundsSpec { update_every: 2, ..track }),
        ("auto-track, every 1, per channel", BoundsSpec { update_every: 1, per_channel: true, ..track }),
        ("auto-mass", BoundsSpec { left: [1.5, 0.4], right: [1.0, 0.3], ..bounds(BoundsMode::AutoMass) }),
        ("auto-symmetric", bounds(BoundsMode::AutoSymmetric)),
        ("auto-balanced", bounds(BoundsMode::AutoBalanced)),
        ("auto-track, pooled", BoundsSpec { pooled: true, ..track }),
        ("auto-symmetric, per channel", BoundsSpec { per_channel: true, ..bounds(BoundsMode::AutoSymmetric) }),
    ];
    let mut cases = Cases::new("bounds_move_as_on_the_cpu");
    for (name, bounds) in modes {
        cases.case(name, config(direct("batch"), bounds), 1);
    }
    cases.finish(13);
}

#[test]
fn networks_train_as_on_the_cpu() {
    let mut cases = Cases::new("networks_train_as_on_the_cpu");
    let kinds = &SurrogateKind::all()[1..]; // the other trainings use AdaLi
    for &kind in kinds {
        let network = NetworkSpec { surrogate: Surrogate::new(kind), ..direct("batch") };
        cases.case(kind.name(), config(network, BoundsSpec::default()), 1);
    }
    for norm in ["none", "weight"] {
        cases.case(norm, config(direct(norm), bounds(BoundsMode::AutoTrack)), 1);
    }
    let middle = "[[layers]]\ntype = \"dropout\"\nprobability = 0.25\n[[layers]]\ntype = \"linear\"\nfeatures = 20\n";
    let mut frames = config(network(3, "frames", "batch", middle), bounds(BoundsMode::AutoTrack));
    frames.data.augmentation = Augmentation { crop_padding: 1, flip: true, drop: 0.1, ..Augmentation::default() };
    frames.training.optimizer = Optimizer::Adamw;
    frames.training.learning_rate = 0.002;
    frames.training.clip = 0.5;
    cases.case("frames, dropout, augmentation, adamw, clipped", frames, 3);
    let mut prepared = config(direct("batch"), bounds(BoundsMode::AutoTrack));
    prepared.data.augmentation =
        Augmentation { resized_crop: true, flip: true, cutout: 3, drop: 0.1, ..Augmentation::NONE };
    cases.case("samples prepared by the host", prepared, 1);
    cases.finish(4 + kinds.len());
}
