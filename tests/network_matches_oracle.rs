//! A whole training step of a network on the CPU backend against the f64 oracle: membranes, spikes, logits, loss
//! and the gradient of every parameter; the same bits for any number of threads; no currents in memory.

mod branches;

use crate::oracle::Rng;
use crate::support::branches::{COUNT, branches};
use crate::support::compare::{gradient_norm, pass};
use crate::support::layers::{
    avg_pool, conv, conv_of, dropout, linear, max_pool, network, random_neuron, readout, spiking_readout,
};
use crate::support::lists::{CHANNELS, random_input, structures};
use crate::support::structures::{RESETS, vary};
use crate::support::{Case, Drawn, Outcome, can_be_drawn, check, draw, run_model, suits_batch_statistics};
use adali::backend::LossSpec;
use adali::backend::cpu::Cpu;
use adali::network::model::{Model, Pass};
use adali::network::parameters::Part;
use adali::network::spec::{LayerSpec, Synapse};
use adali::network::{InputMode, Norm, Plan, Volume};
use adali::neuron::ResetKind;
use adali::surrogate::{Surrogate, SurrogateKind};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rayon::prelude::*;

/// Each with whether a batch norm uses the batch's statistics.
const NORMS: [(Norm, bool); 4] = [(Norm::None, true), (Norm::Batch, true), (Norm::Batch, false), (Norm::Weight, true)];
const STEPS: [usize; 7] = [1, 2, 3, 4, 7, 8, 16];

/// One slope with every reset, norm and number of steps: 3x5x7 through two convolutions of 33 filters.
fn check_slope(kind: SurrogateKind, per_channel: bool) {
    let name = format!("matrix {}{}", kind.name(), if per_channel { " per channel" } else { "" });
    let mut rng = Rng::fresh(&name);
    let mut outcome = Outcome::default();
    for (reset, detach) in RESETS {
        for (norm, batch_statistics) in NORMS {
            for steps in STEPS {
                let layers = vec![conv(33, 3, 1, 1, norm), max_pool(2, 2, 0), conv(33, 3, 1, 1, norm), readout(3)];
                let mut spec = network(steps, layers);
                spec.input = random_input(&mut rng);
                spec.neuron = random_neuron(reset, detach, &mut rng);
                spec.surrogate = Surrogate::new(kind);
                let case = Case { batch_statistics, per_channel, ..Case::new(spec, [3, 5, 7], 2) };
                outcome.add(check(&case, &mut rng));
            }
        }
    }
    outcome.report(&name, 4 * 4 * 7);
}

#[test]
fn matrix_of_every_slope() {
    SurrogateKind::all().par_iter().for_each(|&kind| check_slope(kind, false));
}

#[test]
fn matrix_of_bounds_per_channel() {
    check_slope(SurrogateKind::Adali, true);
}

#[test]
fn structures_match() {
    let mut rng = Rng::fresh("structures");
    let mut outcome = Outcome::default();
    let mut cases = 0;
    for (name, layers) in structures() {
        for batch in [1, 2, 3, 5] {
            let mut spec = vary(network(1 + rng.below(5), layers.clone()), &mut rng);
            spec.input = random_input(&mut rng);
            let mut case = Case::new(spec, [3, 9, 8], batch);
            case.capacity = batch + rng.below(3);
            case.per_channel = rng.below(2) == 0;
            // A batch norm after a linear layer needs a few values per channel.
            case.batch_statistics = batch * case.spec.steps >= 8;
            outcome.add(within(name, &case, &mut rng));
            cases += 1;
        }
    }
    assert_eq!(cases, 4 * (20 + 2 * CHANNELS.len()));
    outcome.report("structures", cases);
}

/// Prints the structure's name if the comparison panics.
fn within(name: &str, case: &Case, rng: &mut Rng) -> Outcome {
    // With few weights, a draw may leave membranes near an edge.
    let seed = (0..8).map(|_| rng.next_u64()).find(|&seed| can_be_drawn(case, &mut Rng::new(seed)));
    let seed = seed.unwrap_or_else(|| panic!("no draw of {name:?} keeps its membranes away from edges"));
    let run = std::panic::AssertUnwindSafe(|| check(case, &mut Rng::new(seed)));
    std::panic::catch_unwind(run).unwrap_or_else(|cause| {
        println!("structure {name:?}");
        std::panic::resume_unwind(cause)
    })
}

#[test]
fn input_channels_match() {
    let mut rng = Rng::fresh("input channels");
    let mut outcome = Outcome::default();
    for channels in CHANNELS {
        for linear_first in [false, true] {
            let first = if linear_first { linear(17, Norm::None) } else { conv(17, 3, 1, 1, Norm::None) };
            let mut spec = vary(network(3, vec![first, readout(3)]), &mut rng);
            spec.input = random_input(&mut rng);
            outcome.add(check(&Case::new(spec, [channels, 3, 4], 3), &mut rng));
        }
    }
    outcome.report("input channels", 2 * CHANNELS.len());
}

#[test]
fn losses_match() {
    let mut rng = Rng::fresh("losses");
    let mut outcome = Outcome::default();
    for (mse, label_smoothing) in [(0.0, 0.0), (0.0, 0.1), (1.0, 0.0), (0.05, 0.0), (0.3, 0.2)] {
        for tet in [false, true] {
            for last in [readout(17), spiking_readout(5, 4, Norm::None)] {
                for steps in [1, 4, 6] {
                    let mut spec = vary(network(steps, vec![conv(8, 3, 1, 1, Norm::None), last.clone()]), &mut rng);
                    spec.input = random_input(&mut rng);
                    let loss = LossSpec { mse, label_smoothing, tet };
                    outcome.add(check(&Case { loss, ..Case::new(spec, [2, 4, 5], 5) }, &mut rng));
                }
            }
        }
    }
    outcome.report("losses", 5 * 2 * 2 * 3);
}

/// A direct input and a readout with no layers between: the logits are of one step, the loss of all steps.
#[test]
fn direct_readout_matches() {
    let mut rng = Rng::fresh("direct readout");
    let mut compared = 0;
    for tet in [false, true] {
        for (vote, steps) in [(1, 1), (1, 5), (3, 4)] {
            let synapse = Synapse::default();
            let mut spec = network(steps, vec![LayerSpec::Readout { classes: 4, spiking: false, vote, synapse }]);
            spec.input = InputMode::Direct;
            let loss = LossSpec { tet, ..LossSpec::default() };
            compared += check(&Case { loss, ..Case::new(spec, [2, 4, 5], 3) }, &mut rng).gradients;
        }
    }
    assert_eq!(compared, 2 * 41 * (4 + 4 + 12));
}

/// A layer with what follows it; extents that do not fit are reduced.
#[derive(Clone, Debug)]
struct Block {
    /// Kernel, stride and padding; `None`: a linear layer.
    conv: Option<([usize; 2], usize, usize)>,
    filters: usize,
    norm: usize,
    /// Whether it is a max-pool; kernel, stride and padding.
    pool: Option<(bool, [usize; 3])>,
    dropout: Option<f32>,
}

/// A whole network, its data and its neurons' seed.
#[derive(Clone, Debug)]
struct Genes {
    blocks: Vec<Block>,
    /// Spiking, vote, classes.
    readout: (bool, usize, usize),
    /// C, H, W.
    input: [usize; 3],
    /// T, batch, spare capacity of the model.
    sizes: [usize; 3],
    seed: u64,
}

fn genes() -> impl Strategy<Value = Genes> {
    let conv = ([1..5usize, 1..5usize], 1..3usize, 0..3usize);
    let conv = proptest::option::weighted(0.7, conv);
    let pool = proptest::option::of((any::<bool>(), [1..4usize, 1..4usize, 0..2usize]));
    let block = (conv, 1..40usize, 0..3usize, pool, proptest::option::weighted(0.3, 0.0f32..0.6));
    let block = block.prop_map(|(conv, filters, norm, pool, dropout)| Block { conv, filters, norm, pool, dropout });
    let readout = (any::<bool>(), 1..4usize, 2..20usize);
    let blocks = proptest::collection::vec(block, 0..4);
    (blocks, readout, [1..6usize, 1..9usize, 1..9usize], [1..7usize, 1..5usize, 0..3usize], any::<u64>())
        .prop_map(|(blocks, readout, input, sizes, seed)| Genes { blocks, readout, input, sizes, seed })
}

impl Genes {
    fn layers(&self) -> Vec<LayerSpec> {
        let [_, mut h, mut w] = self.input;
        let mut layers = Vec::new();
        for block in &self.blocks {
            let norm = [Norm::None, Norm::Batch, Norm::Weight][block.norm];
            if let Some((kernel, stride, padding)) = block.conv {
                let kernel = [kernel[0].min(h + 2 * padding), kernel[1].min(w + 2 * padding)];
                layers.push(conv_of(block.filters, kernel, stride, padding, Synapse::with_norm(norm)));
                h = (h + 2 * padding - kernel[0]) / stride + 1;
                w = (w + 2 * padding - kernel[1]) / stride + 1;
            } else {
                layers.push(linear(block.filters, norm));
                (h, w) = (1, 1);
            }
            if let Some((max, [kernel, stride, padding])) = block.pool {
                let kernel = kernel.min(h).min(w);
                let padding = if max { padding.min(kernel / 2) } else { 0 };
                layers.push(if max { max_pool(kernel, stride, padding) } else { avg_pool(kernel, stride) });
                h = (h + 2 * padding - kernel) / stride + 1;
                w = (w + 2 * padding - kernel) / stride + 1;
            }
            layers.extend(block.dropout.map(dropout));
        }
        let (spiking, vote, classes) = self.readout;
        let synapse = Synapse::default();
        layers.push(LayerSpec::Readout { classes, spiking, vote, synapse });
        layers
    }

    fn case(&self, rng: &mut Rng) -> Case {
        let [steps, batch, room] = self.sizes;
        let mut spec = vary(network(steps, self.layers()), rng);
        spec.input = random_input(rng);
        let [c, h, w] = self.input;
        let plan = Plan::new(&spec, Volume { h, w, c }).expect("a possible network");
        // Over few values, a batch norm's results are mostly rounding errors.
        let fewest = plan.populations.iter().map(|population| batch * steps * population.volume.pixels()).min();
        let batch_statistics = fewest >= Some(16) && rng.below(3) > 0;
        let (capacity, per_channel) = (batch + room, rng.below(2) == 0);
        Case { capacity, per_channel, batch_statistics, ..Case::new(spec, self.input, batch) }
    }
}

#[test]
fn random_networks_match() {
    const CASES: u32 = 128;
    let mut rng = Rng::fresh("random networks");
    let seed: Vec<u8> = (0..4).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    let config = Config { cases: CASES, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = std::cell::RefCell::new(Outcome::default());
    let result = runner.run(&genes(), |genes| {
        let mut rng = Rng::new(genes.seed);
        let mut case = genes.case(&mut rng);
        case.batch_statistics = case.batch_statistics && suits_batch_statistics(&case, &mut rng.clone());
        let found = check(&case, &mut rng);
        outcome.borrow_mut().add(found);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    outcome.borrow().report("random networks", CASES as usize);
}

/// Everything that a training step produces, bit by bit.
fn bits(case: &Case, drawn: &Drawn) -> Vec<u64> {
    let mut model = drawn.model(case);
    let mut bits = Vec::new();
    for pass in [Pass { backward: false, update_running: false, ..pass(case) }, pass(case)] {
        let sums = run_model(&mut model, case, drawn, pass);
        bits.extend([sums.loss.to_bits(), sums.correct]);
        let mut add = |values: Vec<f32>| bits.extend(values.into_iter().map(|x| u64::from(x.to_bits())));
        add(model.read_logits().expect("logits"));
        for stage in 0..drawn.stages.len() {
            add(model.read_membrane(stage).expect("a membrane").unwrap_or_default());
        }
    }
    let mut add = |values: &[f32]| bits.extend(values.iter().map(|x| u64::from(x.to_bits())));
    for parameter in model.parameters() {
        add(&parameter.read(&Cpu, Part::Gradient).expect("a gradient"));
    }
    for norm in model.populations().flat_map(|(_, parameters)| parameters.batch_norms()) {
        let running = norm.running.as_ref().expect("a batch norm has running statistics");
        add(&running.mean);
        add(&running.variance);
    }
    bits.push(gradient_norm(&mut model).to_bits());
    model.collect_counts().expect("counts");
    for stage in 0..drawn.stages.len() {
        for histogram in model.histograms(stage).expect("counts").recent {
            bits.extend(histogram.bins);
        }
    }
    bits
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let mut rng = Rng::fresh("threads");
    let wide = vec![
        conv(40, 3, 1, 1, Norm::Batch),
        max_pool(2, 2, 0),
        conv(70, 3, 1, 1, Norm::Weight),
        linear(300, Norm::Batch),
        linear(65, Norm::None),
        spiking_readout(3, 5, Norm::None),
    ];
    let mut compared = 0;
    let all = structures().into_iter().chain(branches()).chain([("wide", wide)]);
    for (_, layers) in all {
        let case = Case::new(vary(network(3, layers), &mut rng), [3, 9, 8], 7);
        let drawn = draw(&case, &mut rng);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("threads");
            pool.install(|| bits(&case, &drawn))
        };
        let one = run(1);
        for threads in [2, 3, 7] {
            assert!(run(threads) == one, "{threads} threads: {case:?}");
            compared += 1;
        }
    }
    assert_eq!(compared, 3 * (20 + 2 * CHANNELS.len() + COUNT + 1));
}

/// With window bits, only the readout's currents are kept.
#[test]
fn adali_keeps_no_currents() {
    let mut rng = Rng::fresh("memory");
    let mut compared = 0;
    for &kind in SurrogateKind::all() {
        for (reset, detach) in RESETS {
            for norm in [Norm::None, Norm::Batch, Norm::Weight] {
                for spiking in [false, true] {
                    let last = if spiking { spiking_readout(3, 4, Norm::None) } else { readout(3) };
                    let mut spec = network(4, vec![conv(33, 3, 1, 1, norm), max_pool(2, 2, 0), linear(20, norm), last]);
                    spec.neuron = random_neuron(reset, detach, &mut rng);
                    spec.surrogate = Surrogate::new(kind);
                    let case = Case::new(spec, [3, 5, 7], 6);
                    let model = Model::new(Cpu, &case.spec, case.plan(), 6, 1).expect("a model");
                    let floats = |values: usize| 6 * 4 * values * size_of::<f32>();
                    let (hidden, outputs) = (floats(35 * 48 + 32), floats(16));
                    let piecewise = matches!(kind, SurrogateKind::Adali | SurrogateKind::Rectangle);
                    let bits_suffice = piecewise && (reset == ResetKind::Soft || detach);
                    let readout = if spiking && bits_suffice { 0 } else { outputs };
                    let want = readout + if bits_suffice && norm != Norm::Batch { 0 } else { hidden };
                    assert_eq!(model.memory().currents, want, "{kind:?} {reset:?} {detach} {norm:?}");
                    compared += 1;
                }
            }
        }
    }
    assert_eq!(compared, SurrogateKind::all().len() * 4 * 3 * 2);
}
