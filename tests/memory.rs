//! Memory and launches of the GPU backend, known from a dry run before anything is allocated: what is planned is what is used,
//! every launch is valid on a card, and a batch that is too large is refused with one that fits.

use crate::oracle::Rng;
use crate::process::card::with_card;
use crate::process::{command, run};
use adali::autotune::{BoundsMode, BoundsSpec, Tuning};
use adali::backend::gpu::cuda::Cuda;
use adali::backend::gpu::tile::Card;
use adali::backend::gpu::{Gpu, Launch, Precision, RESERVE};
use adali::backend::shape::Volume;
use adali::backend::{Backend, LossSpec, Normalisation, Step, Storage, Update, UpdateRule};
use adali::data::{Augmentation, SampleShape};
use adali::error::{InputError, exit_code};
use adali::kernels::REPORT;
use adali::network::model::Pass;
use adali::network::model::memory::Memory;
use adali::network::presets::{Preset, Size};
use adali::network::{InputMode, Model, NetworkSpec, Norm, Plan};
use adali::surrogate::{Surrogate, SurrogateKind};
use std::collections::{BTreeMap, BTreeSet};

const PRESETS: [(Preset, Volume, usize); 5] = [
    (Preset::Digits, Volume { h: 8, w: 8, c: 1 }, 10),
    (Preset::Conv2, Volume { h: 28, w: 28, c: 1 }, 10),
    (Preset::Csnn, Volume { h: 28, w: 28, c: 1 }, 10),
    (Preset::Vgg11, Volume { h: 32, w: 32, c: 3 }, 10),
    (Preset::DvsGestureNet, Volume { h: 128, w: 128, c: 2 }, 11),
];
/// Compute capability, multiprocessors, KB of shared memory per block.
const CARDS: [(&str, usize, usize); 5] =
    [("80", 108, 163), ("86", 84, 99), ("90", 132, 227), ("100", 148, 227), ("120", 170, 99)];
const H100: Card = Card { multiprocessors: 132, shared: 227 * 1024 };
/// Enough bytes of memory for everything.
const LARGE: usize = 1 << 40;
const SMALL: Card = Card { multiprocessors: 2, shared: 227 * 1024 };

fn gpu(card: Card, precision: Precision, memory: usize) -> Gpu<Cuda> {
    Gpu::new(crate::launch::open_with(0, memory + RESERVE), card, precision, "under test".into(), true)
}

fn network(preset: Preset, input: Volume, classes: usize) -> (NetworkSpec, Plan) {
    let spec = preset.network(input, classes, &Size::default());
    let plan = Plan::new(&spec, input).unwrap();
    (spec, plan)
}

/// Optionally a training step of `size` samples, and an evaluation of as many, over samples of zeros.
fn steps<B: Backend>(model: &mut Model<B>, size: usize, train: bool) {
    let (input, frames) = (model.plan().input, if model.plan().direct { 1 } else { model.plan().steps });
    let shape = SampleShape { frames, height: input.h, width: input.w, channels: input.c };
    let normalisation = Normalisation { full_scale: 1.0, mean: vec![0.0; input.c], std: vec![1.0; input.c] };
    let backend = model.backend().clone();
    let mut set = backend.set(vec![0; shape.len()].into(), shape, &normalisation, model.capacity()).unwrap();
    let (samples, labels) = (vec![0; size], vec![0; size]);
    let step = Step { learning_rate: 0.1, count: 1, ..Step::evaluate(&samples, &labels) };
    let tuning = |mode| Tuning { spec: BoundsSpec { mode, ..BoundsSpec::default() }, epochs: 1.0, first: false };
    model.write_batch(&mut set, &step).unwrap();
    if train {
        for rule in [
            UpdateRule::Sgd { momentum: 0.9 },
            UpdateRule::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decoupled: true },
        ] {
            model.tune_bounds(&tuning(BoundsMode::Manual), false).unwrap();
            model.gather(&set, &Augmentation { crop_padding: 1, flip: true, ..Augmentation::default() }).unwrap();
            model.forward(Pass::train(true)).unwrap();
            model.collect_counts().unwrap();
            model.loss(&LossSpec::default(), true).unwrap();
            model.backward(Pass::train(true)).unwrap();
            model.update(&Update { rule, decay: 1e-4, clip: 1.0 }).unwrap();
            model.tune_bounds(&tuning(BoundsMode::AutoTrack), true).unwrap();
        }
    }
    model.gather(&set, &Augmentation::default()).unwrap();
    model.forward(Pass::evaluate()).unwrap();
    model.loss(&LossSpec::default(), false).unwrap();
    model.release_batch(&mut set).unwrap();
}

#[test]
fn what_is_planned_is_what_is_taken() {
    let mut cases = 0;
    for (preset, input, classes) in PRESETS {
        let (spec, mut plan) = network(preset, input, classes);
        let of_bf16 = [(1, false), (16, true), (64, false), (64, true), (256, false)];
        for (precision, batches) in [(Precision::Bf16, &of_bf16[..]), (Precision::F32, &[(7, true), (64, false)])] {
            for &(batch, recompute) in batches {
                plan.recompute = recompute;
                let rehearsal = gpu(H100, precision, LARGE).rehearse();
                let planned = Memory::plan(&rehearsal, &spec, &plan, batch).unwrap();
                assert_eq!(rehearsal.rehearsed().kept, 0, "planning takes nothing");
                let mut model = Model::new(rehearsal.clone(), &spec, plan.clone(), batch, 0).unwrap();
                assert_eq!(model.memory(), planned);
                let taken = rehearsal.rehearsed().kept + planned.working;
                let total = planned.total();
                println!("{preset:?} {precision:?} batch {batch}: {total} planned, {taken} taken; {planned:?}");
                let apart = total.abs_diff(taken);
                assert!(apart <= (taken / 100).max(1_000_000), "{apart} bytes apart");
                assert!(total >= taken, "{} too few", taken - total);
                // The remainder, `tables`, is small: nothing large is hidden in it.
                assert!(planned.tables <= (taken / 50).max(512 * 1024), "{} bytes of tables", planned.tables);
                // The reserved memory also suffices for smaller batches.
                for size in [1, batch / 3, batch / 2 + 1, batch].into_iter().filter(|&size| size > 0) {
                    steps(&mut model, size, size == batch);
                    let most = model.backend().working_memory();
                    assert!(most <= planned.working, "size {size} of {batch}: {most} > {}", planned.working);
                }
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 35);
}

/// A kernel's maximum threads, and its static shared memory, as reported by the compiler.
fn bounds() -> BTreeMap<&'static str, (u32, u32)> {
    let mut bounds = BTreeMap::new();
    for kernel in REPORT {
        let bound = bounds.entry(kernel.kernel).or_insert((1024, 0));
        *bound = (bound.0.min(kernel.threads.unwrap_or(1024)), bound.1.max(kernel.shared));
    }
    bounds
}

/// What is wrong with a launch on a card.
fn complaint(launch: &Launch, (threads, declared): (u32, u32), card: Card) -> Option<&'static str> {
    let Launch { grid: [x, y, z], .. } = *launch;
    if x == 0 || y == 0 || z == 0 || x > i32::MAX as u32 || y > 65535 || z > 65535 {
        return Some("grid");
    }
    if launch.threads == 0 || launch.threads > threads || !launch.threads.is_multiple_of(32) {
        return Some("threads");
    }
    ((launch.shared + declared) as usize > card.shared).then_some("shared memory")
}

#[test]
fn every_launch_is_one_that_a_card_accepts() {
    let launch = |grid, threads, shared| Launch { grid, threads, shared };
    let planted = [
        (launch([0, 1, 1], 32, 0), "grid"),
        (launch([1 << 31, 1, 1], 32, 0), "grid"),
        (launch([1, 65536, 1], 32, 0), "grid"),
        (launch([1, 1, 65536], 32, 0), "grid"),
        (launch([1, 1, 1], 48, 0), "threads"),
        (launch([1, 1, 1], 288, 0), "threads"),
        (launch([1, 1, 1], 256, H100.shared as u32 - 99), "shared memory"),
    ];
    assert!(planted.iter().all(|(launch, what)| complaint(launch, (256, 100), H100) == Some(what)));
    assert_eq!(complaint(&launch([1, 1, 1], 256, H100.shared as u32 - 100), (256, 100), H100), None);

    let mut looked = Looked::new();
    let precisions = [Precision::Bf16, Precision::F16, Precision::F32];
    for (preset, input, classes) in PRESETS {
        let spec = preset.network(input, classes, &Size::default());
        looked.at(&spec, input, &CARDS, &precisions, &[1, 7, 64, 256]);
    }
    // Other norms and a surrogate that needs the membranes, on the smaller networks.
    let mut others = 0;
    for (preset, input, classes) in PRESETS.into_iter().filter(|(preset, ..)| *preset != Preset::Csnn) {
        for (norm, surrogate) in [
            (Norm::Batch, SurrogateKind::Arctan),
            (Norm::Weight, SurrogateKind::Adali),
            (Norm::None, SurrogateKind::Adali),
            (Norm::None, SurrogateKind::Triangle),
        ] {
            if preset == Preset::Vgg11 && norm == Norm::Weight {
                continue; // its convolutions have biases of their own
            }
            let mut spec = preset.network(input, classes, &Size::wide(40));
            spec.set_conv_norm(norm);
            spec.surrogate = Surrogate::new(surrogate);
            looked.at(&spec, input, &[CARDS[1], CARDS[2]], &[Precision::Bf16, Precision::F32], &[5, 64]);
            others += 2 * 2 * 2;
        }
    }
    // Few and many steps.
    for (steps, input_mode) in
        [1, 3, 100, 1024].into_iter().flat_map(|n| [(n, InputMode::Direct), (n, InputMode::Frames)])
    {
        let (preset, input, classes) = PRESETS[0];
        let spec = NetworkSpec { steps, input: input_mode, ..preset.network(input, classes, &Size::default()) };
        looked.at(&spec, input, &[CARDS[1], CARDS[2]], &[Precision::Bf16, Precision::F32], &[2, 64]);
        others += 2 * 2 * 2;
    }
    // Membranes of more steps than shared memory holds, recomputed after a batch norm.
    let (preset, input, classes) = PRESETS[0];
    let mut spec = NetworkSpec { steps: 100, ..preset.network(input, classes, &Size::default()) };
    spec.surrogate = Surrogate::new(SurrogateKind::Arctan);
    looked.at(&spec, input, &[CARDS[1], CARDS[2]], &[Precision::Bf16, Precision::F32], &[2, 64]);
    others += 2 * 2 * 2;
    assert!(looked.kernels.contains("norm_lif_apply_currents_long_bf16"));
    let Looked { cases, launches, kernels, most, .. } = looked;
    println!("{launches} launches of {} kernels; the largest grid and shared memory: {most:?}", kernels.len());
    assert_eq!((cases, others), (5 * 5 * 3 * 4 + others, 192));
    assert!(launches > 30 * cases && kernels.len() > 80, "{launches} launches of {} kernels", kernels.len());
}

/// Checks that the launches of training steps and evaluations are valid on their card.
struct Looked {
    bounds: BTreeMap<&'static str, (u32, u32)>,
    cases: usize,
    launches: usize,
    kernels: BTreeSet<String>,
    /// The largest grid, and the most shared memory.
    most: [u32; 4],
}

impl Looked {
    fn new() -> Self {
        Self { bounds: bounds(), cases: 0, launches: 0, kernels: BTreeSet::new(), most: [0; 4] }
    }

    /// On all `cards`, with all `precisions` and `batches`.
    fn at(
        &mut self,
        spec: &NetworkSpec,
        input: Volume,
        cards: &[(&str, usize, usize)],
        precisions: &[Precision],
        batches: &[usize],
    ) {
        let plan = Plan::new(spec, input).unwrap();
        let most = *batches.iter().max().unwrap();
        for (&(arch, multiprocessors, kilobytes), &precision) in
            cards.iter().flat_map(|card| precisions.iter().map(move |precision| (card, precision)))
        {
            let card = Card { multiprocessors, shared: kilobytes * 1024 };
            let rehearsal = gpu(card, precision, LARGE).rehearse();
            // From here on only the batch size matters: one model for all.
            let mut model = Model::new(rehearsal.clone(), spec, plan.clone(), most, 0).unwrap();
            for &batch in batches {
                let before = rehearsal.rehearsed().launches.len();
                steps(&mut model, batch, true);
                let all = rehearsal.rehearsed().launches;
                assert!(all.len() > before + 30, "{} launches", all.len() - before);
                for (kernel, launch) in &all[before..] {
                    let what = format!("{input}, sm_{arch}, {precision:?}, batch {batch}: {kernel} {launch:?}");
                    self.look(kernel, launch, card, &what);
                }
                self.cases += 1;
            }
        }
    }

    fn look(&mut self, kernel: &str, launch: &Launch, card: Card, what: &str) {
        let bound = *self.bounds.get(kernel).unwrap_or_else(|| panic!("there is no kernel {kernel}"));
        let complaint = complaint(launch, bound, card);
        assert_eq!(complaint, None, "{what}, bound {bound:?}");
        let now = [launch.grid[0], launch.grid[1], launch.grid[2], launch.shared + bound.1];
        self.most.iter_mut().zip(now).for_each(|(most, now)| *most = now.max(*most));
        self.launches += 1;
        self.kernels.insert(kernel.into());
    }
}

#[test]
fn nothing_is_packed_or_copied_in_vain() {
    let (spec, plan) = network(PRESETS[0].0, PRESETS[0].1, PRESETS[0].2);
    let (mut summed, mut direct) = (0, 0);
    for multiprocessors in [1, 132] {
        let rehearsal = gpu(Card { multiprocessors, ..H100 }, Precision::Bf16, LARGE).rehearse();
        let mut model = Model::new(rehearsal.clone(), &spec, plan.clone(), 64, 0).unwrap();
        let mut launches = |train| {
            let before = rehearsal.rehearsed().launches.len();
            steps(&mut model, 64, train);
            rehearsal.rehearsed().launches.split_off(before)
        };
        let packed = |all: &[(String, Launch)]| all.iter().filter(|(kernel, _)| kernel == "pack_weight_bf16").count();
        let (evaluation, both) = (launches(false), launches(true));
        assert_eq!(packed(&evaluation), plan.populations.len(), "an evaluation needs no weights of gradients");
        assert!(packed(&both) > 2 * plan.populations.len(), "a training step does");
        for pair in both.windows(2).filter(|pair| pair[0].0.starts_with("conv_weight_grad_")) {
            let splits = pair[0].1.grid[0];
            assert_eq!(pair[1].0 == "reduce_sums", splits > 1, "{pair:?}");
            *if splits > 1 { &mut summed } else { &mut direct } += 1;
        }
    }
    assert!(summed > 0 && direct > 0, "{summed}, {direct}");
}

/// The number after the last "fit is".
fn largest(error: &anyhow::Error) -> Option<usize> {
    error.to_string().split("fit is ").nth(1)?.parse().ok()
}

#[test]
fn a_batch_that_is_too_large_is_refused_with_one_that_fits() {
    let mut rng = Rng::fresh("a_batch_that_is_too_large");
    let (mut cases, mut stepped) = (0, 0);
    for precision in [Precision::Bf16, Precision::F32] {
        let input = Volume { h: 8, w: 8, c: 1 };
        let spec = Preset::Digits.network(input, 10, &Size::wide(8));
        let plan = Plan::new(&spec, input).unwrap();
        let total = |batch| Memory::plan(&gpu(SMALL, precision, LARGE), &spec, &plan, batch).unwrap().total();
        let new = |limit, batch| Model::new(gpu(SMALL, precision, limit), &spec, plan.clone(), batch, 0);
        let (least, most) = (total(1), total(24));
        // At the edge, with nothing left, and at random.
        let somewhere = rng.uniform_vec(6, least as f64, most as f64).into_iter().map(|size| size as usize);
        for limit in [total(5), total(5) - 1, total(24)].into_iter().chain(somewhere) {
            let error = new(limit, 64).err().expect("64 are too many");
            assert!(error.is::<InputError>() && exit_code(&error) == 2, "{error:#}");
            let batch = largest(&error).unwrap_or_else(|| panic!("no batch is named: {error:#}"));
            assert!((1..=24).contains(&batch) && error.to_string().lines().count() == 1, "{error:#}");
            assert_eq!(new(limit, batch + 1).err().and_then(|error| largest(&error)), Some(batch));
            let model = new(limit, batch).unwrap_or_else(|error| panic!("{batch} in {limit}: {error:#}"));
            let (used, most) = (limit - model.backend().available_memory().unwrap(), total(batch));
            assert!(used <= most && most - used < 64 * 1024, "{used} bytes used, {most} planned");
            if stepped < 6 {
                // The samples need extra room.
                let mut model = new(limit + 4096, batch).unwrap();
                let before = model.backend().available_memory();
                steps(&mut model, batch, true);
                assert_eq!(model.backend().available_memory(), before, "a step keeps no memory");
                stepped += 1;
            }
            cases += 1;
        }
        let error = new(least - 1, 64).err().expect("not even one fits");
        assert!(error.is::<InputError>() && error.to_string().contains("no batch would fit"), "{error:#}");
        cases += 1;
    }
    assert_eq!((cases, stepped), (20, 6));
}

#[test]
fn the_program_says_so_in_one_sentence() {
    if crate::launch::on_card() {
        return; // a test cannot choose its memory
    }
    let home = tempfile::TempDir::new().unwrap();
    let train = |memory: usize, arguments: &str| {
        let mut command = with_card(command(home.path(), &format!("train --device cuda {arguments}")), home.path(), 0);
        command.env("CARD_MEMORY", (memory + RESERVE).to_string());
        run(command)
    };
    let mut cases = 0;
    for (memory, batch, parts) in
        [(3_000_000, 256, "the largest batch that would fit is"), (100_000, 64, "no batch would fit")]
    {
        let ran = train(memory, &format!("--out run --limit 256 --epochs 1 --batch {batch}"));
        assert_eq!(ran.err.lines().count(), 1, "{ran}");
        ran.failed(2, &["error: ", parts]);
        assert!(!home.path().join("run").exists(), "nothing is left behind");
        cases += 1;
    }
    assert_eq!(cases, 2);
    // The batch named in the message trains to the end in that memory, samples included.
    let small = "--quiet --epochs 1 --validation 0.01 --channels 4 --steps 1 --bounds auto-track --limit 40 --out run";
    let ran = train(400_000, &format!("{small} --batch 40"));
    let batch = ran.err.trim().split("fit is ").nth(1).unwrap_or_else(|| panic!("no batch is named: {ran}"));
    train(400_000, &format!("{small} --batch {batch}")).done();
}
