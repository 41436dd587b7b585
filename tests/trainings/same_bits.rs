//! Graphs, the order of work and where the samples are stored change no bit.

use super::training::{Seen, assert_same, config, digits, gpu, network, second, train};
use crate::launch::on_card;
use adali::autotune::{BoundsMode, BoundsSpec};
use adali::backend::cpu::Cpu;
use adali::backend::gpu::Precision;
use adali::backend::gpu::cuda::Cuda;
use adali::backend::gpu::{Gpu, SLOTS};
use adali::backend::{Backend, Storage};
use adali::data::events::counts::EventCounts;
use adali::data::{Augmentation, Dataset, Samples};
use adali::network::NetworkSpec;
use adali::network::presets::{Preset, Size};
use adali::surrogate::{Surrogate, SurrogateKind};
use adali::train::defaults::preset_network;
use adali::train::optimizer::{MemoryUse, Optimizer};
use adali::train::{Config, Trainer};

/// Everything that may depend on a step: dropout, augmentation, bounds that follow the counts, held-out samples in batches of
/// two sizes.
fn everything() -> Config {
    let dropout = "[[layers]]\ntype = \"dropout\"\nprobability = 0.25\n";
    let middle = second("batch") + dropout;
    let bounds =
        BoundsSpec { mode: BoundsMode::AutoTrack, update_every: 2, per_channel: true, ..BoundsSpec::default() };
    let mut config = config(network(2, "direct", "batch", &middle), bounds);
    config.data.validation = 0.25;
    config.data.augmentation = Augmentation { crop_padding: 1, flip: true, ..Augmentation::default() };
    config.training.batch = 8;
    config.training.optimizer = Optimizer::Adamw;
    config.training.learning_rate = 0.003;
    config
}

#[test]
fn graphs_and_schedules_change_no_bit() {
    let data = || digits(44, 1);
    let mut cases = 0;
    for (precision, cutout) in [(Precision::Bf16, 0), (Precision::F16, 0), (Precision::F32, 0), (Precision::Bf16, 3)] {
        let mut config = everything();
        config.data.augmentation.cutout = cutout;
        let eager = train(gpu(precision, false, 0, None), &config, data());
        assert_eq!((eager.0.epoch_steps(), eager.0.split().1 % 8 == 0), (4, false));
        assert_eq!(eager.0.is_resident(), cutout == 0);
        for (graphs, schedule) in [(true, 0), (true, 977)] {
            let other = train(gpu(precision, graphs, schedule, None), &config, data());
            let what = format!("{precision:?}, cutout {cutout}, graphs {graphs}, schedule {schedule}");
            assert_same((&eager.0, &eager.1), (&other.0, &other.1), &what);
            cases += 1;
        }
    }
    assert_eq!(cases, 8);
}

/// A training on a card with `memory` bytes, and how many of them are free at its start.
fn within(memory: usize, graphs: bool, config: &Config, data: &Dataset) -> (Trainer<Gpu<Cuda>>, Seen, usize) {
    let gpu = gpu(Precision::Bf16, graphs, 3, Some(memory));
    let mut data = data.clone();
    let mut trainer = Trainer::new(gpu.clone(), config.clone(), &mut data).unwrap();
    let left = gpu.available_memory().unwrap();
    let mut seen = Seen::default();
    super::training::run(&mut trainer, &mut seen).unwrap();
    assert_eq!(gpu.available_memory().unwrap(), left, "a training keeps no memory");
    (trainer, seen, left)
}

#[test]
fn samples_that_stay_on_the_host_change_no_bit() {
    if on_card() {
        eprintln!("left out on a card: its memory has no limit that a test could set");
        return;
    }
    let mut config = everything();
    config.data.limit = 40;
    config.data.validation = 0.01;
    // The digits many times over: more memory than the rest of the training takes.
    let mut data = digits(1438, 1);
    data.train.values = data.train.bytes().repeat(8).into();
    data.train.labels = data.train.labels.repeat(8);
    let size = data.train.bytes().len();
    let ample = 1 << 24;
    let resident = within(ample, true, &config, &data);
    let scarce = ample - resident.2 - size / 2;
    let mut cases = 0;
    for graphs in [true, false] {
        let streamed = within(scarce, graphs, &config, &data);
        let (here, there) = (ample - resident.2, scarce - streamed.2);
        assert_eq!(here - there, size - SLOTS * config.training.batch * 64, "it was not streamed");
        assert_same((&resident.0, &resident.1), (&streamed.0, &streamed.1), &format!("streamed, graphs {graphs}"));
        cases += 1;
    }
    assert_eq!(cases, 2);
}

/// The same samples, stored as their nonzero entries.
fn as_counts(samples: &mut Samples) {
    let mut counts = EventCounts::default();
    for sample in samples.bytes().chunks_exact(samples.shape.len()) {
        let cells = sample.iter().zip(0..).flat_map(|(&count, cell)| std::iter::repeat_n(cell, count.into()));
        counts.push(cells.collect());
    }
    samples.values = counts.into();
}

#[test]
fn samples_that_are_integrated_on_the_device_change_no_bit() {
    let mut config = everything();
    config.network = network(3, "frames", "batch", &second("batch"));
    config.data.augmentation = Augmentation { flip: true, roll: 2, drop: 0.2, ..Augmentation::default() };
    let bytes = digits(44, 3);
    let mut counts = bytes.clone();
    for part in [&mut counts.train, &mut counts.test] {
        as_counts(part);
    }
    assert!(counts.train.bytes() == bytes.train.bytes());
    let bytes = train(gpu(Precision::Bf16, true, 0, None), &config, bytes);
    let counts = train(gpu(Precision::Bf16, true, 5, None), &config, counts);
    assert!(counts.0.is_resident());
    assert_same((&bytes.0, &bytes.1), (&counts.0, &counts.1), "integrated on the device");
}

/// Trains with kept and with recomputed currents.
fn recompute<B: Backend>(backend: impl Fn() -> B, config: &Config, data: &Dataset, what: &str) {
    let [full, low] = [MemoryUse::Full, MemoryUse::Low].map(|memory| {
        let mut config = config.clone();
        config.training.memory = memory;
        train(backend(), &config, data.clone())
    });
    assert_same((&full.0, &full.1), (&low.0, &low.1), what);
    let [full, low] = [full.0, low.0].map(|trainer| trainer.model.memory().currents);
    assert!(low < full, "{what}: {low} bytes of currents, and {full} if they are kept");
}

#[test]
fn recomputed_currents_change_no_bit() {
    let data = digits(44, 1);
    let preset = |preset: Preset| {
        let size = Size { channels: Some(4), blocks: Some(vec![1, 1]) };
        preset_network(preset, &data, &size).unwrap()
    };
    let with = |norm: &str, kind: SurrogateKind| NetworkSpec {
        surrogate: Surrogate::new(kind),
        ..network(2, "direct", norm, &second(norm))
    };
    let mut cases = 0;
    for (name, network) in [
        ("batch norm", with("batch", SurrogateKind::Adali)),
        ("batch norm, arctan", with("batch", SurrogateKind::Arctan)),
        ("weight norm, arctan", with("weight", SurrogateKind::Arctan)),
        ("no norm, arctan", with("none", SurrogateKind::Arctan)),
        ("resnet18-cifar", preset(Preset::Resnet18Cifar)),
        ("resnet18-preact", preset(Preset::Resnet18Preact)),
        ("nf-resnet34", preset(Preset::NfResnet34)),
        ("ms-resnet18", preset(Preset::MsResnet18)),
    ] {
        let config = Config { network, ..everything() };
        for (precision, graphs) in [(Precision::Bf16, true), (Precision::F32, false)] {
            recompute(|| gpu(precision, graphs, 1, None), &config, &data, &format!("{name}, {precision:?}"));
        }
        recompute(|| Cpu, &config, &data, &format!("{name}, CPU"));
        cases += 1;
    }
    assert_eq!(cases, 8);
}
