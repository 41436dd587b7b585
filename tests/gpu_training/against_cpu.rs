//! On the emulator in f32 against the CPU: every way in which bounds move, every surrogate, norms and inputs.

use crate::training::{Seen, config, digits, gpu, network, second, train};
use adali::autotune::{BoundsMode, BoundsSpec};
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Precision;
use adali::data::Augmentation;
use adali::network::NetworkSpec;
use adali::surrogate::{Schedule, Surrogate, SurrogateKind};
use adali::train::Config;
use adali::train::config::Optimizer;

/// Batches of an epoch.
const STEPS: usize = 3;

/// Differences of two trainings: of the losses of the first epoch, step by step, relative to them; of everything else.
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
            assert!(a.train_loss.is_finite() && a.gradient_norm > 0.0);
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

    /// Sums in another order; then a spike or two at the threshold that flip.
    fn check(&self, name: &str) {
        assert!(self.first_steps < 1e-5, "{name}: the first losses are {} apart", self.first_steps);
        assert!(
            self.loss < 2e-3 && self.gradient_norm < 2e-2 && self.accuracy <= 1.0 / 36.0 + 1e-9,
            "{name}: {self:?}"
        );
        assert!(self.bounds < 5e-3 && self.rate < 1e-3 && self.inside < 5e-3, "{name}: {self:?}");
    }
}

/// Trains on both and compares.
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
        ("auto-symmetric, per channel", BoundsSpec { per_channel: true, ..bounds(BoundsMode::AutoSymmetric) }),
    ];
    let (mut cases, mut worst) = (0, Apart::default());
    for (name, bounds) in modes {
        worst = worst.largest(compare(name, config(direct("batch"), bounds), 1));
        cases += 1;
    }
    println!("largest: {worst:?}");
    assert_eq!(cases, 11);
}

#[test]
fn networks_train_as_on_the_cpu() {
    let (mut cases, mut worst) = (0, Apart::default());
    let mut case = |name: &str, config: Config, frames: usize| {
        worst = worst.largest(compare(name, config, frames));
        cases += 1;
    };
    for kind in [SurrogateKind::Rectangle, SurrogateKind::Sigmoid, SurrogateKind::Arctan, SurrogateKind::Triangle] {
        let network = NetworkSpec { surrogate: Surrogate::new(kind), ..direct("batch") };
        case(kind.name(), config(network, BoundsSpec::default()), 1);
    }
    for norm in ["none", "weight"] {
        case(norm, config(direct(norm), bounds(BoundsMode::AutoTrack)), 1);
    }
    let middle = "[[layers]]\ntype = \"dropout\"\nprobability = 0.25\n[[layers]]\ntype = \"linear\"\nfeatures = 20\n";
    let mut frames = config(network(3, "frames", "batch", middle), bounds(BoundsMode::AutoTrack));
    frames.data.augmentation = Augmentation { crop_padding: 1, flip: true };
    frames.training.optimizer = Optimizer::Adamw;
    frames.training.learning_rate = 0.002;
    frames.training.clip = 0.5;
    case("frames, dropout, augmentation, adamw, clipped", frames, 3);
    println!("largest: {worst:?}");
    assert_eq!(cases, 7);
}
