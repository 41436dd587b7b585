//! Small trainings on digits, and their results.

use crate::launch;
use adali::autotune::BoundsSpec;
use adali::backend::gpu::cuda::Cuda;
use adali::backend::gpu::tile::Card;
use adali::backend::gpu::{Gpu, Precision, RESERVE};
use adali::backend::{Backend, LossSpec, Totals};
use adali::data::{DataSource, Dataset, load};
use adali::metrics::EpochMetrics;
use adali::network::NetworkSpec;
use adali::network::parameters::Part;
use adali::train::checkpoint::Progress;
use adali::train::config::{DataSpec, parse_checked};
use adali::train::optimizer::TrainingSpec;
use adali::train::schema::Document;
use adali::train::{Config, Observer, Outcome, Trainer};
use anyhow::Result;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};

/// The device under test, with `memory` bytes if the test can choose; the order of its work is derived from `schedule`.
pub fn gpu(precision: Precision, graphs: bool, schedule: u64, memory: Option<usize>) -> Gpu<Cuda> {
    let driver = memory.map_or_else(|| launch::open(schedule), |bytes| launch::open_with(schedule, bytes + RESERVE));
    let card = launch::card(&driver, Card { multiprocessors: 2, shared: 227 * 1024 });
    Gpu::new(driver, card, precision, "under test".into(), graphs)
}

/// A convolution with 8 channels and this norm, a pool, the layers of `middle`, a readout; `input` is direct or frames.
pub fn network(steps: usize, input: &str, norm: &str, middle: &str) -> NetworkSpec {
    let threshold = if norm == "none" { 0.1 } else { 0.4 };
    let text = format!(
        "steps = {steps}\ninput = \"{input}\"\n[neuron]\nthreshold = {threshold}\n\
        [[layers]]\ntype = \"conv\"\nchannels = 8\nkernel = 3\npadding = 1\nnorm = \"{norm}\"\n\
        [[layers]]\ntype = \"max_pool\"\nkernel = 2\n\
        {middle}[[layers]]\ntype = \"readout\"\nclasses = 10\n"
    );
    parse_checked(Document::Network, &text, "the network").unwrap()
}

/// Another convolution, with the same norm.
pub fn second(norm: &str) -> String {
    format!("[[layers]]\ntype = \"conv\"\nchannels = 10\nkernel = 3\npadding = 1\nnorm = \"{norm}\"\n")
}

/// Two epochs of a few steps over all given digits, with the same weights each time.
pub fn config(network: NetworkSpec, bounds: BoundsSpec) -> Config {
    Config {
        seed: 5,
        data: DataSpec { validation: 0.0, ..DataSpec::default() },
        training: TrainingSpec { epochs: 2, batch: 12, learning_rate: 0.05, ..TrainingSpec::default() },
        loss: LossSpec::default(),
        bounds,
        network,
    }
}

/// The first digits; as frames, with their bytes shifted from frame to frame.
pub fn digits(count: usize, frames: usize) -> Dataset {
    let mut data = load(DataSource::Digits, None).unwrap();
    for samples in [&mut data.train, &mut data.test] {
        let count = count.min(samples.len());
        let bytes = samples.bytes().into_owned();
        let images = bytes.chunks_exact(64).take(count);
        let frame = |image: &[u8], t: usize| image.iter().cycle().skip(t).take(64).copied().collect::<Vec<u8>>();
        let frames_of = |image| (0..frames).flat_map(move |t| frame(image, t));
        samples.values = images.flat_map(frames_of).collect::<Vec<u8>>().into();
        samples.labels.truncate(count);
        samples.shape.frames = frames;
    }
    data
}

/// What is observed of a training, and when it is told to stop or to save.
#[derive(Default)]
pub struct Seen {
    pub epochs: Vec<EpochMetrics>,
    /// Mean losses of the epoch so far, at every checkpoint within an epoch.
    pub losses: Vec<f64>,
    pub totals: Vec<Totals>,
    /// Bits of all parameters at every checkpoint.
    pub parameters: Vec<Vec<u32>>,
    /// Epoch and step after which to stop, and where the state is saved.
    pub stop_at: Option<(u32, u64)>,
    pub save: Option<PathBuf>,
    pub stop: AtomicBool,
}

/// The observer's part: `AtomicBool` is shared with the trainer.
struct Watcher<'a>(&'a mut Seen, &'a AtomicBool);

impl<B: Backend> Observer<B> for Watcher<'_> {
    fn step(&mut self, done: u64, _: u64, epoch: u32, _: &Progress) {
        if self.0.stop_at == Some((epoch, done)) {
            self.1.store(true, Ordering::Relaxed);
        }
    }

    fn epoch(&mut self, _: &Trainer<B>, metrics: &EpochMetrics, _: bool) -> Result<()> {
        let timeless = EpochMetrics { seconds: 0.0, images_per_second: 0.0, ..metrics.clone() };
        self.0.epochs.push(timeless);
        Ok(())
    }

    fn checkpoint(&mut self, trainer: &Trainer<B>) -> Result<()> {
        let totals = trainer.progress.totals;
        if totals.samples > 0 {
            self.0.losses.push(totals.loss / totals.samples as f64);
        }
        self.0.totals.push(totals);
        self.0.parameters.push(parameter_bits(trainer, Part::Value));
        let Some(path) = &self.0.save else { return Ok(()) };
        let Trainer { model, tracker, progress, config, .. } = trainer;
        adali::train::checkpoint::save_state(path, model, tracker, progress, &config.to_toml())
    }
}

/// Trains from the current position of `trainer`.
pub fn run<B: Backend>(trainer: &mut Trainer<B>, seen: &mut Seen) -> Result<Outcome> {
    let stop = std::mem::take(&mut seen.stop);
    trainer.run(&mut Watcher(seen, &stop), &stop)
}

/// Trains from start to end.
pub fn train<B: Backend>(backend: B, config: &Config, mut data: Dataset) -> (Trainer<B>, Seen) {
    let mut trainer = Trainer::new(backend, config.clone(), &mut data).unwrap();
    let mut seen = Seen::default();
    assert_eq!(run(&mut trainer, &mut seen).unwrap(), Outcome::Finished);
    (trainer, seen)
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

/// The given part of every parameter, concatenated.
pub fn parameter_bits<B: Backend>(trainer: &Trainer<B>, part: Part) -> Vec<u32> {
    let backend = trainer.model.backend();
    trainer.model.parameters().flat_map(|p| bits(p.read(backend, part).unwrap())).collect()
}

/// The complete state of a training, as named bits.
pub fn state<B: Backend>(trainer: &Trainer<B>) -> Vec<(String, Vec<u32>)> {
    let model = &trainer.model;
    let parts = [Part::Value, Part::Gradient, Part::Moment1, Part::Moment2];
    let mut state: Vec<_> = parts.map(|part| (format!("{part:?}"), parameter_bits(trainer, part))).into();
    for norm in model.populations().flat_map(|(_, parameters)| parameters.batch_norms()) {
        let running = norm.running.as_ref().unwrap();
        for (what, floats) in [("mean", &running.mean), ("variance", &running.variance)] {
            let values = model.backend().read_vector(floats, norm.channels()).unwrap();
            state.push((format!("{}, running {what}", norm.name), bits(values)));
        }
    }
    for layer in &trainer.tracker.layers {
        let name = model.plan().populations[layer.population].label();
        let start = trainer.tracker.starts().then(|| ("start", model.start_bounds(layer.population)));
        for (what, bounds) in [("bounds", model.bounds(layer.population))].into_iter().chain(start) {
            let values = bounds.unwrap().iter().flat_map(|b| [b.left, b.right, b.alpha, b.beta]).collect();
            state.push((format!("{name}, {what}"), bits(values)));
        }
        let histograms = model.histograms(layer.population).unwrap();
        let counts = |histograms: &[adali::histogram::Histogram]| {
            let each = histograms.iter().flat_map(|h| h.bins.iter().copied().chain([h.underflow, h.overflow]));
            each.map(|count| count as u32).collect::<Vec<_>>()
        };
        state.push((format!("{name}, recent counts"), counts(&histograms.recent)));
        state.push((format!("{name}, counts"), counts(&histograms.epoch)));
        state.push((format!("{name}, counts of the last epoch"), counts(std::slice::from_ref(&layer.histogram))));
        state.push((format!("{name}, flags"), vec![histograms.flags.len() as u32, layer.flags.len() as u32]));
    }
    state
}

/// Checks that two trainings have equal results, bit by bit; metrics are compared over the last epochs seen by both.
pub fn assert_same<A: Backend, B: Backend>(a: (&Trainer<A>, &Seen), b: (&Trainer<B>, &Seen), what: &str) {
    let (ours, theirs) = (state(a.0), state(b.0));
    assert_eq!(ours.len(), theirs.len(), "{what}");
    for ((name, ours), (other, theirs)) in ours.iter().zip(&theirs) {
        assert_eq!((name, ours.len()), (other, theirs.len()), "{what}");
        let first = ours.iter().zip(theirs).position(|(a, b)| a != b);
        assert_eq!(first, None, "{what}: {name} differs");
    }
    assert_eq!(a.0.model.totals().unwrap(), b.0.model.totals().unwrap(), "{what}: totals");
    let common = a.1.epochs.len().min(b.1.epochs.len());
    assert!(common > 0, "{what}: no epoch to compare");
    let last = |seen: &Seen| seen.epochs[seen.epochs.len() - common..].to_vec();
    assert_eq!(last(a.1), last(b.1), "{what}: metrics");
}
