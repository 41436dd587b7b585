//! Networks that branch; part of `tests/network_matches_oracle.rs`.

use super::within;
use crate::oracle::Rng;
use crate::support::branches::{COUNT, branches, random_synapse, vary_norms};
use crate::support::layers::{
    avg_pool, combined, conv, currents, dropout, linear, linked, max_pool, named, network, plus, random_neuron,
    readout, same, spiking_readout, through,
};
use crate::support::lists::random_input;
use crate::support::structures::{RESETS, vary};
use crate::support::{Case, Outcome, can_be_drawn, check, suits_batch_statistics};
use adali::backend::shape::Extent;
use adali::network::spec::{Combination, LayerSpec, Links, Shortcut, Take};
use adali::network::{Norm, Plan, Volume};
use adali::surrogate::{Surrogate, SurrogateKind};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use rayon::prelude::*;
use std::cell::RefCell;

/// Every structure as it is written, then with random norms.
#[test]
fn branching_structures_match() {
    let mut rng = Rng::fresh("branching structures");
    let mut outcome = Outcome::default();
    let mut cases = 0;
    for (name, layers) in branches() {
        for batch in [5, 1, 2, 3] {
            let mut layers = layers.clone();
            if batch < 5 {
                vary_norms(&mut layers, &mut rng);
            }
            let mut spec = vary(network(1 + rng.below(5), layers), &mut rng);
            spec.input = random_input(&mut rng);
            let mut case = Case::new(spec, [3, 9, 8], batch);
            case.capacity = batch + rng.below(3);
            case.per_channel = rng.below(2) == 0;
            // A batch norm after a linear layer needs a few values per channel.
            case.batch_statistics = batch * case.spec.steps >= 8;
            case.batch_statistics = case.batch_statistics && suits_batch_statistics(&case, &mut rng.clone());
            outcome.add(within(name, &case, &mut rng));
            cases += 1;
        }
    }
    assert_eq!(cases, 4 * COUNT);
    outcome.report("branching structures", cases);
}

/// One slope with every reset, combination, norm of the sum and number of steps: spikes and currents of a stem are added to a
/// second layer, and the stem's spikes are combined with its.
fn check_slope(kind: SurrogateKind) {
    let name = format!("branching matrix {}", kind.name());
    let mut rng = Rng::fresh(&name);
    let mut outcome = Outcome::default();
    let mut cases = 0;
    for (reset, detach) in RESETS {
        for with in [Combination::Add, Combination::And, Combination::Iand] {
            for sum_norm in [Norm::None, Norm::Batch] {
                for steps in [1, 2, 4, 7] {
                    let next = plus(plus(conv(33, 3, 1, 1, Norm::None), same("a")), currents("a"));
                    let next = linked(combined(next, with, "a"), |links| links.sum_norm = sum_norm);
                    let layers =
                        vec![named("a", conv(33, 3, 1, 1, Norm::None)), next, LayerSpec::GlobalAvgPool, readout(3)];
                    let mut spec = network(steps, layers);
                    spec.input = random_input(&mut rng);
                    spec.neuron = random_neuron(reset, detach, &mut rng);
                    spec.surrogate = Surrogate::new(kind);
                    let case = Case { batch_statistics: steps % 2 == 0, ..Case::new(spec, [3, 5, 7], 2) };
                    outcome.add(check(&case, &mut rng));
                    cases += 1;
                }
            }
        }
    }
    outcome.report(&name, cases);
}

#[test]
fn branching_matrix_of_every_slope() {
    SurrogateKind::all().par_iter().for_each(|&kind| check_slope(kind));
}

/// A convolution or linear layer with what is added to it and what follows it; everything that does not fit is changed or left
/// out.
#[derive(Clone, Debug)]
struct Block {
    /// Filters, kernel, stride, padding; 0 filters: as many values as another layer has, so that these can be added.
    own: (usize, [usize; 2], usize, usize),
    linear: bool,
    form: Form,
    /// Which layer it reads, if not the one above.
    from: Option<usize>,
    shortcuts: Vec<Way>,
    sum: (Option<f32>, bool, f32),
    combine: Option<(usize, usize)>,
    /// 0: none, 1: max, 2: mean, 3: of everything; kernel, stride.
    pool: (usize, usize, usize),
    dropout: Option<f32>,
}

/// Whether a layer has a convolution and neurons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Both,
    Convolution,
    Neurons,
}

/// A shortcut: which layer, its currents or spikes, whether through a convolution, with which pool, stride and padding, and its
/// factors.
#[derive(Clone, Debug)]
struct Way {
    from: usize,
    take: Take,
    convolve: bool,
    pool: Option<[usize; 2]>,
    stride: usize,
    padding: usize,
    scale: f32,
    gain: bool,
}

#[derive(Clone, Debug)]
struct Genes {
    blocks: Vec<Block>,
    spiking_readout: bool,
    /// C, H, W.
    input: [usize; 3],
    /// T, batch, spare capacity of the model.
    sizes: [usize; 3],
    seed: u64,
}

fn genes() -> impl Strategy<Value = Genes> {
    let scale = || prop_oneof![3 => Just(1.0f32), 1 => Just(0.5), 1 => Just(-0.7), 1 => Just(1.6)];
    let take = prop_oneof![Just(Take::Spikes), Just(Take::Currents)];
    let pool = proptest::option::weighted(0.3, [1..4usize, 1..4usize]);
    let way = (any::<u8>(), take, any::<bool>(), pool, 1..3usize, 0..3usize, scale(), proptest::bool::weighted(0.2));
    let way = way.prop_map(|(from, take, convolve, pool, stride, padding, scale, gain)| {
        let from = usize::from(from);
        Way { from, take, convolve, pool, stride, padding, scale, gain }
    });
    let filters = prop_oneof![2 => Just(0usize), 1 => 1..41usize, 1 => prop_oneof![Just(17usize), Just(33), Just(40)]];
    let own = (filters, [1..4usize, 1..4usize], 1..3usize, 0..3usize);
    let factors = (
        proptest::option::weighted(0.2, scale()),
        proptest::bool::weighted(0.2),
        prop_oneof![
            2 => Just(1.0f32),
            1 => Just(0.6),
            1 => Just(1.7)
        ],
    );
    let block = (
        own,
        (
            proptest::bool::weighted(0.15),
            prop_oneof![6 => Just(Form::Both), 2 => Just(Form::Convolution), 2 => Just(Form::Neurons)],
        ),
        proptest::option::weighted(0.25, 0..8usize),
        proptest::collection::vec(way, 0..3),
        factors,
        proptest::option::weighted(0.4, (0..8usize, 0..3usize)),
        (prop_oneof![5 => Just(0usize), 2 => Just(1), 2 => Just(2), 1 => Just(3)], 1..4usize, 1..3usize),
        proptest::option::weighted(0.2, 0.0f32..0.5),
    );
    let block = block.prop_map(|(own, (linear, form), from, shortcuts, sum, combine, pool, dropout)| Block {
        own,
        linear,
        form,
        from,
        shortcuts,
        sum,
        combine,
        pool,
        dropout,
    });
    let blocks = proptest::collection::vec(block, 2..5);
    (blocks, any::<bool>(), [1..5usize, 4..9usize, 4..9usize], [1..6usize, 1..5usize, 0..3usize], any::<u64>())
        .prop_map(|(blocks, spiking_readout, input, sizes, seed)| Genes { blocks, spiking_readout, input, sizes, seed })
}

/// What readers of a layer find.
#[derive(Clone, Copy)]
struct Extents {
    /// Of its neurons: C, H, W.
    neurons: [usize; 3],
    /// Of its output.
    output: [usize; 3],
    /// Whether its output is spikes that count 1.
    spikes: bool,
    /// Whether it has no neurons.
    bare: bool,
}

impl Extents {
    fn of(&self, take: Take) -> [usize; 3] {
        match take {
            Take::Spikes => self.output,
            Take::Currents => self.neurons,
        }
    }
}

/// A kernel, stride and padding, as wished as far as possible, from one height and width to another.
fn fit(from: [usize; 2], to: [usize; 2], stride: usize, padding: usize) -> ([usize; 2], usize, usize) {
    let kernel = |stride: usize, padding: usize| {
        let of = |axis: usize| (from[axis] + 2 * padding).checked_sub((to[axis] - 1) * stride).filter(|&k| k > 0);
        Some([of(0)?, of(1)?])
    };
    let wished = [(stride, padding), (1, padding)].into_iter().chain((0..).map(|padding| (1, padding)));
    let mut possible = wished.filter_map(|(stride, padding)| Some((kernel(stride, padding)?, stride, padding)));
    possible.next().expect("enough padding fits any extent")
}

impl Genes {
    fn layers(&self, rng: &mut Rng) -> Vec<LayerSpec> {
        let mut layers = Vec::new();
        let mut placed: Vec<Extents> = Vec::new();
        for block in &self.blocks {
            let extents = self.place(block, &placed, &mut layers, rng);
            placed.push(extents);
        }
        layers.push(if self.spiking_readout { spiking_readout(3, 2, Norm::None) } else { readout(4) });
        layers
    }

    fn place(&self, block: &Block, placed: &[Extents], layers: &mut Vec<LayerSpec>, rng: &mut Rng) -> Extents {
        let name = |i: usize| format!("p{i}");
        let count = placed.len();
        let from = block.from.filter(|_| count > 1).map(|from| from % count);
        let input = match from.or(count.checked_sub(1)) {
            Some(from) => placed[from].output,
            None => self.input,
        };
        // Neurons alone cannot be first, nor is there a gain without a convolution.
        let form = if block.form == Form::Neurons && count == 0 { Form::Both } else { block.form };
        let bare = form == Form::Convolution;
        let plain = block.sum.0.is_none();
        // The layer itself, like one that may be added.
        let like = block.shortcuts.first().filter(|_| count > 0).map(|way| placed[way.from % count].of(way.take));
        let (filters, wished, stride, padding) = block.own;
        let (own, volume) = match (like, filters) {
            _ if form == Form::Neurons => (LayerSpec::Neurons { links: Links::default() }, input),
            (Some([c, 1, 1]), 0) => (linear(c, Norm::None), [c, 1, 1]),
            (Some([c, h, w]), 0) => {
                let (kernel, stride, padding) = fit([input[1], input[2]], [h, w], stride, padding);
                (convolve(c, kernel, stride, padding), [c, h, w])
            }
            (_, filters) if block.linear => (linear(filters.max(1), Norm::None), [filters.max(1), 1, 1]),
            (_, filters) => {
                let kernel = [0, 1].map(|axis| wished[axis].min(input[axis + 1] + 2 * padding));
                let extent = |axis: usize| (input[axis + 1] + 2 * padding - kernel[axis]) / stride + 1;
                (convolve(filters.max(1), kernel, stride, padding), [filters.max(1), extent(0), extent(1)])
            }
        };
        let own = set_synapse(own, plain, rng);
        let mut shortcuts: Vec<Shortcut> =
            block.shortcuts.iter().filter_map(|way| self.shortcut(way, placed, volume, rng)).collect();
        if from.is_some_and(|from| from + 1 != count) {
            // The layer above must be read as well.
            let above = Way {
                from: count - 1,
                take: Take::Spikes,
                convolve: true,
                pool: None,
                stride: 1,
                padding: 0,
                scale: 1.0,
                gain: false,
            };
            shortcuts.truncate(1);
            shortcuts.extend(self.shortcut(&above, placed, volume, rng));
        }
        let combine = block.combine.filter(|_| count > 0 && !bare).and_then(|(other, with)| {
            let fits = |other: &Extents| other.output == volume && !other.bare;
            let others = (0..count).filter(|&i| fits(&placed[i])).collect::<Vec<_>>();
            let &other = others.get(other % others.len().max(1))?;
            let with = [Combination::And, Combination::Iand, Combination::Add][with];
            Some((other, if placed[other].spikes { with } else { Combination::Add }))
        });
        let mut spikes = !bare && combine.is_none_or(|(_, with)| with != Combination::Add);
        let own = linked(own, |links| {
            let scale = block.sum.0.unwrap_or(1.0);
            let gain = block.sum.0.filter(|_| form != Form::Neurons).map(|_| 1.0);
            let sum_norm = if block.sum.1 && !bare { Norm::Batch } else { Norm::None };
            let sum_scale = if bare { 1.0 } else { block.sum.2 };
            let (name, from) = (Some(name(count)), from.map(name));
            *links = Links { name, from, shortcuts, scale, gain, neurons: !bare, sum_norm, sum_scale, combine: None };
        });
        layers.push(match combine {
            Some((other, with)) => combined(own, with, &name(other)),
            None => own,
        });
        let mut output = volume;
        let (kind, kernel, stride) = block.pool;
        let kernel = kernel.min(volume[1]).min(volume[2]);
        let pooled = [0, 1].map(|axis| (volume[axis + 1] - kernel) / stride + 1);
        let mut pools = true;
        match kind {
            1 if combine.is_none() && !bare => {
                layers.push(max_pool(kernel, stride, 0));
                output = [volume[0], pooled[0], pooled[1]];
            }
            2 => {
                layers.push(avg_pool(kernel, stride));
                (output, spikes) = ([volume[0], pooled[0], pooled[1]], false);
            }
            3 => {
                layers.push(LayerSpec::GlobalAvgPool);
                (output, spikes) = ([volume[0], 1, 1], false);
            }
            _ => pools = false,
        }
        if let Some(probability) = block.dropout.filter(|_| pools || !bare) {
            layers.push(dropout(probability));
            spikes = false;
        }
        Extents { neurons: volume, output, spikes, bare }
    }

    fn shortcut(&self, way: &Way, placed: &[Extents], to: [usize; 3], rng: &mut Rng) -> Option<Shortcut> {
        let from = way.from % placed.len().max(1);
        let source = placed.get(from)?.of(way.take);
        let summand = Shortcut { take: way.take, scale: way.scale, ..same(&format!("p{from}")) };
        if source == to && !way.convolve {
            return Some(summand);
        }
        let pool = way.pool.map(|[h, w]| [h.min(source[1]), w.min(source[2])]);
        let [ph, pw] = pool.unwrap_or([1, 1]);
        let (kernel, stride, padding) = fit([source[1] / ph, source[2] / pw], [to[1], to[2]], way.stride, way.padding);
        let synapse = random_synapse(way.scale == 1.0 && !way.gain, rng);
        Some(Shortcut {
            pool: pool.map(|[h, w]| Extent { h, w }),
            kernel: Some(Extent { h: kernel[0], w: kernel[1] }),
            gain: way.gain.then_some(1.0),
            synapse,
            ..through(summand, 1, stride, padding, Norm::None)
        })
    }

    fn case(&self, rng: &mut Rng) -> Case {
        let [steps, batch, room] = self.sizes;
        let mut spec = vary(network(steps, self.layers(rng)), rng);
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

fn convolve(channels: usize, [h, w]: [usize; 2], stride: usize, padding: usize) -> LayerSpec {
    let (mut layer, of) = (conv(channels, 1, stride, padding, Norm::None), Extent { h, w });
    if let LayerSpec::Conv { kernel, .. } = &mut layer {
        *kernel = of;
    }
    layer
}

fn set_synapse(mut layer: LayerSpec, plain: bool, rng: &mut Rng) -> LayerSpec {
    if let LayerSpec::Conv { synapse, .. } | LayerSpec::Linear { synapse, .. } = &mut layer {
        *synapse = random_synapse(plain, rng);
    }
    layer
}

#[test]
fn random_branching_networks_match() {
    const CASES: u32 = 96;
    let mut rng = Rng::fresh("random branching networks");
    let seed: Vec<u8> = (0..4).flat_map(|_| rng.next_u64().to_le_bytes()).collect();
    let max_global_rejects = CASES;
    let config = Config {
        cases: CASES,
        max_global_rejects,
        failure_persistence: None,
        max_shrink_iters: 30,
        ..Config::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
    let outcome = RefCell::new(Outcome::default());
    let result = runner.run(&genes(), |genes| {
        let mut rng = Rng::new(genes.seed);
        let mut case = genes.case(&mut rng);
        case.batch_statistics = case.batch_statistics && suits_batch_statistics(&case, &mut rng.clone());
        // Of some, too many membranes depend on values that no redrawn filter changes.
        prop_assume!(can_be_drawn(&case, &mut rng.clone()));
        let found = check(&case, &mut rng);
        outcome.borrow_mut().add(found);
        Ok(())
    });
    result.unwrap_or_else(|error| panic!("{error}"));
    // In one network, all layers before the norm of a sum may be excused.
    outcome.borrow().report_random("random branching networks", CASES as usize, 16);
}
