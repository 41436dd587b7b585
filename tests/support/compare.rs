//! One training step of a drawn network on the CPU backend, with every quantity compared with the oracle's.

use super::draw::{Case, Drawn, amplification, amplifications, draw, largest, parameter_names, values_mut};
use crate::oracle::{
    Layer, LayerGradients, LayerParams, LayerTrace, Rng, Source, SpikeModel, Tensor, backward, backward_rounded,
    forward, loss_and_gradient,
};
use adali::backend::cpu::Cpu;
use adali::backend::{LossSums, Step, Update, UpdateRule};
use adali::data::Augmentation;
use adali::network::Model;
use adali::network::model::Pass;
use adali::network::parameters::{NormParameters, Parameter, Part};
use std::collections::HashMap;

/// For membranes, logits and the loss, in units of the largest of them (or 1; a membrane that falls far and comes back carries
/// the rounding errors made on the way) times a batch norm's amplification of rounding errors.
const VALUE_TOLERANCE: f64 = 2e-5;
/// For a gradient, in the 2-norm.
const GRADIENT_TOLERANCE: f64 = 1e-4;
/// For a gradient, in units of the sum of the absolute gradients of the layer's outputs: where these cancel, as before a batch
/// norm, mostly rounding errors are left.
const CANCELLED: f64 = 3e-6;
/// For a gradient that exceeds both: in units of its change in f64 when every parameter and every layer's gradient is rounded
/// once. In 3 of 20000 random
/// networks the CPU was off by up to 12 of these.
const ROUNDINGS: f64 = 40.0;
/// What a slope on an edge may add to a gradient, as a share of the whole gradient's norm.
const ON_AN_EDGE: f64 = 1e-6;

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub cases: usize,
    /// How many times filters were redrawn.
    pub rounds: usize,
    pub membranes: usize,
    pub spikes: usize,
    pub gradients: usize,
    /// Gradients of whole parameters that are not all zero, and of how many.
    pub live: [usize; 2],
    /// Gradients within [`ROUNDINGS`] only.
    pub excused: usize,
    /// Largest errors seen: of a membrane, in units of the layer's largest; of a gradient, in the 2-norm.
    pub largest: [f64; 2],
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.rounds += other.rounds;
        self.membranes += other.membranes;
        self.spikes += other.spikes;
        self.gradients += other.gradients;
        self.excused += other.excused;
        for i in 0..2 {
            self.live[i] += other.live[i];
            self.largest[i] = self.largest[i].max(other.largest[i]);
        }
    }

    /// Prints what was compared, and fails unless enough neurons fire and enough gradients are nonzero.
    #[track_caller]
    pub fn report(&self, name: &str, cases: usize) {
        assert!(self.live[0] * 4 >= self.live[1] * 3, "{name}: too many gradients are zero: {:?}", self.live);
        self.report_random(name, cases, 4 + self.live[1] / 500);
    }

    /// The same for networks that nobody chose, of which more are silent somewhere, so that a smaller share of the gradients
    /// must be nonzero; up to `excused` gradients may be mostly rounding.
    #[track_caller]
    pub fn report_random(&self, name: &str, cases: usize, excused: usize) {
        println!("{name}: {self:?}");
        assert_eq!(self.cases, cases, "{name}: cases");
        let rate = self.spikes as f64 / self.membranes as f64;
        assert!((0.05..0.95).contains(&rate), "{name}: firing rate {rate}");
        assert!(self.live[0] * 3 >= self.live[1] * 2, "{name}: too many gradients are zero: {:?}", self.live);
        assert!(self.excused <= excused, "{name}: {} gradients are mostly rounding", self.excused);
    }
}

/// The case's training pass.
pub fn pass(case: &Case) -> Pass {
    Pass {
        batch_statistics: case.batch_statistics,
        update_running: case.batch_statistics,
        dropout: case.dropout.is_some(),
        backward: true,
        histogram: true,
        membranes: true,
    }
}

/// Gathers the batch and runs one pass, with `backward` including the loss's gradient.
pub fn run_model(model: &mut Model<Cpu>, case: &Case, drawn: &Drawn, pass: Pass) -> LossSums {
    run_model_at(model, case, drawn, pass, 0.0)
}

/// The same in a step of learning rate `rate`.
pub fn run_model_at(model: &mut Model<Cpu>, case: &Case, drawn: &Drawn, pass: Pass, rate: f32) -> LossSums {
    let (samples, labels) = (drawn.indices(), drawn.model_labels());
    let dropout = case.dropout.unwrap_or_default();
    run_step(model, case, drawn, pass, &Step { dropout, learning_rate: rate, ..Step::evaluate(&samples, &labels) })
}

fn run_step(model: &mut Model<Cpu>, case: &Case, drawn: &Drawn, pass: Pass, step: &Step) -> LossSums {
    let mut set = drawn.set(case);
    empty_sums(model);
    model.write_batch(&mut set, step).expect("a batch");
    model.gather(&set, &Augmentation::default()).expect("samples");
    model.forward(pass).expect("a forward pass");
    model.loss(&case.loss, pass.backward).expect("a loss");
    if pass.backward {
        model.backward(pass).expect("a backward pass");
    }
    model.release_batch(&mut set).expect("a batch");
    let totals = model.totals().expect("sums");
    assert_eq!(totals.samples, step.samples.len() as u64, "{case:?}");
    LossSums { loss: totals.loss, correct: totals.correct }
}

/// Clears the sums and keeps the optimiser's state.
fn empty_sums(model: &mut Model<Cpu>) {
    let totals = model.totals().expect("sums").next_epoch();
    model.set_totals(&totals).expect("sums");
}

/// The norm of all gradients, which an update adds to the sums; the update uses the rate 0 left by [`run_model`], so no
/// parameter moves.
pub fn gradient_norm(model: &mut Model<Cpu>) -> f64 {
    let values = |model: &Model<Cpu>| -> Vec<Vec<f32>> {
        model.parameters().map(|p| p.read(model.backend(), Part::Value).expect("values")).collect()
    };
    empty_sums(model);
    let (before, updates) = (values(model), model.totals().expect("sums").updates);
    let update = Update { rule: UpdateRule::Sgd { momentum: 0.0 }, decay: 0.0, clip: 0.0 };
    model.update(&update).expect("an update");
    let totals = model.totals().expect("sums");
    assert_eq!((totals.updates, totals.skipped), (updates + 1, 0), "a gradient is not finite");
    assert!(values(model) == before, "the rate is 0");
    totals.gradient_norm
}

/// Fills every buffer with the traces of another, full batch.
fn make_dirty(model: &mut Model<Cpu>, case: &Case, drawn: &Drawn) {
    let (samples, labels): (Vec<u32>, Vec<u16>) = (0..case.capacity as u32).map(|n| (n, 0)).unzip();
    let pass = Pass { update_running: false, dropout: true, ..pass(case) };
    run_step(model, case, drawn, pass, &Step { dropout: 5, ..Step::evaluate(&samples, &labels) });
}

/// Draws the case and compares inference and a training step; panics where they differ.
pub fn check(case: &Case, rng: &mut Rng) -> Outcome {
    let drawn = draw(case, rng);
    let mut outcome = Outcome { cases: 1, rounds: drawn.rounds, ..Outcome::default() };
    let (loss, logits_gradient) = loss_and_gradient(&case.oracle_loss(), &drawn.forward.logits_per_step, &drawn.labels);
    let (gradients, _) = backward(&drawn.network, &drawn.params, &drawn.input, &drawn.forward, &logits_gradient);

    let mut model = drawn.model(case);
    make_dirty(&mut model, case, &drawn);
    let train = pass(case);
    // First as inference, which runs other operations and keeps nothing; then a training step.
    for pass in [Pass { backward: false, update_running: false, ..train }, train] {
        let sums = run_model(&mut model, case, &drawn, pass);
        let input = match &drawn.input {
            crate::oracle::Input::Direct { image, .. } => image,
            crate::oracle::Input::Frames(frames) => frames,
        };
        assert!(exactly(&model.read_input().expect("input"), input), "the input: {case:?}");
        compare_forward(&model, case, &drawn, &mut outcome);
        let mean = sums.loss / case.batch as f64;
        assert!((mean - loss).abs() <= VALUE_TOLERANCE * loss.abs().max(1.0), "loss {mean}, not {loss}: {case:?}");
        let [sure, possible] = correct(&drawn);
        assert!(
            (sure..=possible).contains(&sums.correct),
            "{} correct, not {sure} to {possible}: {case:?}",
            sums.correct
        );
    }
    let (squares, missed) = compare_gradients(&model, case, &drawn, &gradients, &mut outcome);
    compare_running(&model, case, &drawn);
    // Two norms differ by at most the norm of the difference.
    let excused: f64 = missed.iter().map(|miss| miss.error).sum();
    if !missed.is_empty() {
        let moved = moved_by_rounding(case, &drawn, &gradients, rng);
        for Miss { layer, kind, name, error, norm } in missed {
            // A slope that is 0 from an edge on is not quite 0 where a potential on the edge is rounded.
            let limit = ROUNDINGS * moved[layer][kind] + ON_AN_EDGE * squares.sqrt();
            assert!(error <= limit, "gradient of {name} is off by {error:e} of {norm:e}: {case:?}");
            outcome.excused += 1;
        }
    }
    let (norm, want) = (gradient_norm(&mut model), squares.sqrt());
    let read = |p: &Parameter<Cpu>| p.read(model.backend(), Part::Gradient).expect("a gradient");
    let held: f64 = model.parameters().flat_map(read).map(|g| f64::from(g).powi(2)).sum();
    assert!(
        (norm - held.sqrt()).abs() <= 1e-9 * norm,
        "padding holds a gradient: {norm}, not {}: {case:?}",
        held.sqrt()
    );
    let limit = GRADIENT_TOLERANCE * want + excused + 1e-7;
    assert!((norm - want).abs() <= limit, "gradient norm {norm}, not {want}: {case:?}");
    outcome
}

fn exactly(got: &[f32], want: &Tensor) -> bool {
    got.len() == want.data.len() && got.iter().zip(&want.data).all(|(&a, &b)| f64::from(a) == b)
}

/// How many samples have the label's logit as the largest: certainly, and if rounding breaks ties (votes often tie).
fn correct(drawn: &Drawn) -> [u64; 2] {
    let logits = &drawn.forward.logits;
    let rows = logits.data.chunks(logits.shape[1]).zip(&drawn.labels);
    let leads = rows.map(|(row, &label)| {
        let others = row.iter().enumerate().filter(|(class, _)| *class != label);
        row[label] - others.fold(f64::NEG_INFINITY, |largest, (_, logit)| largest.max(*logit))
    });
    leads.fold([0, 0], |[sure, possible], lead| [sure + u64::from(lead > 1e-5), possible + u64::from(lead > -1e-5)])
}

fn compare_forward(model: &Model<Cpu>, case: &Case, drawn: &Drawn, outcome: &mut Outcome) {
    let amplified = amplifications(&drawn.network, &drawn.forward);
    for (stage, &layer) in drawn.stages.iter().enumerate() {
        let Some(neuron) = &drawn.forward.layers[layer].neuron else {
            assert!(model.read_spikes(stage).expect("spikes").is_none());
            continue;
        };
        let membrane = model.read_membrane(stage).expect("a membrane").expect("asked for");
        let unit = largest(&amplified[layer]);
        let error = values(&format!("membranes of stage {stage}"), case, unit, &membrane, &neuron.membrane.data);
        outcome.largest[0] = outcome.largest[0].max(error);
        let spikes = model.read_spikes(stage).expect("spikes").expect("a stage with neurons");
        let equal = spikes.iter().zip(&neuron.spikes.data).all(|(&a, &b)| f64::from(a) == b);
        assert!(spikes.len() == neuron.spikes.data.len() && equal, "spikes of stage {stage}: {case:?}");
        outcome.membranes += membrane.len();
        outcome.spikes += spikes.iter().filter(|&&s| s == 1).count();
    }
    values("logits", case, 1.0, &model.read_logits().expect("logits"), &drawn.forward.logits_per_step.data);
}

/// Compares value by value, in units of the largest value but at least `unit`, and returns the largest error.
fn values(what: &str, case: &Case, unit: f64, got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}: {case:?}");
    let unit = unit.max(largest(want)).max(1.0);
    let mut worst = 0.0f64;
    for (i, (&a, &b)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(a) - b).abs() / unit;
        assert!(error <= VALUE_TOLERANCE, "{what}: value {i} is {a}, not {b}: {case:?}");
        worst = worst.max(error);
    }
    worst
}

/// Compares the gradient of every parameter, and returns the sum of the oracle's squares and what exceeds the tolerances.
fn compare_gradients(
    model: &Model<Cpu>,
    case: &Case,
    drawn: &Drawn,
    wanted: &[LayerGradients],
    outcome: &mut Outcome,
) -> (f64, Vec<Miss>) {
    let (floors, normalised) = cancelled(drawn, wanted);
    let mut expected = HashMap::new();
    for (layer, gradients) in wanted.iter().enumerate() {
        let names = parameter_names(&drawn.names[layer], &drawn.network.layers[layer]);
        for (kind, (name, want)) in names.into_iter().zip(kinds(gradients)).enumerate() {
            if !want.is_empty() {
                expected.insert(name, (layer, kind, want));
            }
        }
    }
    let (mut squares, mut missed) = (0.0, Vec::new());
    for parameter in model.parameters() {
        let name = &parameter.name;
        let (layer, kind, want) = expected.remove(name).unwrap_or_else(|| panic!("{name} is unknown: {case:?}"));
        let floor = CANCELLED * floors[layer][kind];
        // A norm of the sum takes away what a bias adds.
        let counts = !(normalised[layer] && [1, 3].contains(&kind));
        outcome.live[1] += usize::from(counts);
        let got = parameter.read(&Cpu, Part::Gradient).expect("a gradient");
        assert_eq!(got.len(), want.len(), "{name}");
        let norm = want.iter().map(|g| g * g).sum::<f64>();
        let error = got.iter().zip(want).map(|(&a, &b)| (f64::from(a) - b).powi(2)).sum::<f64>().sqrt();
        let limit = GRADIENT_TOLERANCE * norm.sqrt() + floor;
        if error.is_nan() || error > limit {
            missed.push(Miss { layer, kind, name: name.clone(), error, norm: norm.sqrt() });
        }
        if norm.sqrt() > 100.0 * floor {
            outcome.live[0] += usize::from(counts);
            outcome.largest[1] = outcome.largest[1].max(error / norm.sqrt());
        }
        outcome.gradients += got.len();
        squares += norm;
    }
    assert!(expected.is_empty(), "the model has no {:?}: {case:?}", expected.keys());
    (squares, missed)
}

/// Compares every batch norm's running statistics.
fn compare_running(model: &Model<Cpu>, case: &Case, drawn: &Drawn) {
    let norms = model.populations().flat_map(|(_, parameters)| parameters.batch_norms());
    let norms: HashMap<&str, &NormParameters<Cpu>> = norms.map(|norm| (&norm.gain.name[..], norm)).collect();
    let mut compared = 0;
    for (layer, trace) in drawn.forward.layers.iter().enumerate() {
        let Some(batch) = trace.affine.as_ref().and_then(|affine| affine.batch.as_ref()) else { continue };
        let [_, _, name, ..] = parameter_names(&drawn.names[layer], &drawn.network.layers[layer]);
        let running = norms[&name[..]].running.as_ref().expect("a batch norm has running statistics");
        let channels = batch.mean.len();
        values(&format!("running mean of {name}"), case, 1.0, &running.mean[..channels], &batch.running_mean);
        values(&format!("running variance of {name}"), case, 1.0, &running.variance[..channels], &batch.running_var);
        compared += 1;
    }
    assert_eq!(compared, norms.len(), "batch norms: {case:?}");
}

/// A gradient beyond the tolerances; `kind` is its index in [`kinds`].
struct Miss {
    layer: usize,
    kind: usize,
    name: String,
    error: f64,
    norm: f64,
}

/// A layer's gradients by kind.
fn kinds(gradients: &LayerGradients) -> [&[f64]; 5] {
    let LayerGradients { weight, bias, norm_weight, norm_bias, factor, .. } = gradients;
    [&weight.data, bias, norm_weight, norm_bias, factor]
}

/// How much the oracle's gradients of each layer and kind change when every parameter, every normalised current and every
/// layer's gradient changes by one rounding in f32.
fn moved_by_rounding(case: &Case, drawn: &Drawn, gradients: &[LayerGradients], rng: &mut Rng) -> Vec<[f64; 5]> {
    let mut moved = vec![[0.0f64; 5]; gradients.len()];
    for _ in 0..4 {
        let mut params = drawn.params.clone();
        for value in params.layers.iter_mut().flat_map(values_mut).flatten() {
            *value *= 1.0 + rng.uniform(-1.2e-7, 1.2e-7);
        }
        // A batch norm's currents by an amplified rounding; otherwise a channel of variance 0 would seem exact.
        for (params, trace) in params.layers.iter_mut().zip(&drawn.forward.layers) {
            let channels = params.norm_bias.len();
            let amplified = amplification(trace, &vec![0.0; channels]).unwrap_or_else(|| vec![1.0; channels]);
            for (bias, factor) in params.norm_bias.iter_mut().zip(amplified) {
                *bias += factor * rng.uniform(-1.2e-7, 1.2e-7);
            }
        }
        let pass = forward(&drawn.network, &params, &drawn.input, SpikeModel::Hard, None);
        let (_, above) = loss_and_gradient(&case.oracle_loss(), &pass.logits_per_step, &drawn.labels);
        let round = |gradient: &mut Tensor| {
            gradient.data.iter_mut().for_each(|g| *g *= 1.0 + rng.uniform(-1.2e-7, 1.2e-7));
        };
        let (others, _) = backward_rounded(&drawn.network, &params, &drawn.input, &pass, &above, round);
        for (moved, (a, b)) in moved.iter_mut().zip(others.iter().zip(gradients)) {
            for (moved, (a, b)) in moved.iter_mut().zip(kinds(a).into_iter().zip(kinds(b))) {
                let distance = a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f64>().sqrt();
                *moved = moved.max(distance);
            }
        }
    }
    moved
}

/// What remains of a gradient of each layer and kind, in units of a rounding error, if it cancels: the sum of the absolute
/// gradients of the layer's outputs, and of those further on that a sum, factor or batch norm passes to it unchanged but for a
/// constant, each as its norm scales them. A factor's own gradient sums products with what it multiplies. Also whether a batch
/// norm follows each layer that way.
fn cancelled(drawn: &Drawn, wanted: &[LayerGradients]) -> (Vec<[f64; 5]>, Vec<bool>) {
    let network = &drawn.network;
    let mut passed = vec![0.0; wanted.len()];
    let mut floors = vec![[0.0; 5]; wanted.len()];
    let mut normalised = vec![false; wanted.len()];
    for (layer, reads) in network.reads.iter().enumerate().rev() {
        let (trace, params) = (&drawn.forward.layers[layer], &drawn.params.layers[layer]);
        let own = before_cancelling(trace, params, &wanted[layer]).max(passed[layer] * scaled_by(trace, params));
        floors[layer] = [own; 5];
        let passes = match &network.layers[layer] {
            Layer::Factor { by, .. } => {
                let x = drawn.forward.values(reads[0]);
                let products = wanted[layer].output.with(x, |g, x| (by * g * x).abs());
                floors[layer][4] = products.data.iter().sum::<f64>().max(passed[layer] * largest(&x.data));
                by.abs() * params.factor.first().map_or(1.0, |gain| gain.abs())
            }
            Layer::Sum | Layer::BatchNorm { .. } => 1.0,
            _ => continue,
        };
        for source in reads {
            if let Source::Layer(i) = *source {
                passed[i] += passes * own;
                normalised[i] |= normalised[layer] || matches!(network.layers[layer], Layer::BatchNorm { .. });
            }
        }
    }
    (floors, normalised)
}

/// The factor by which a batch norm enlarges a gradient or its rounding errors, and a weight norm those of its weight.
fn scaled_by(trace: &LayerTrace, params: &LayerParams) -> f64 {
    let deviations = trace.affine.iter().filter_map(|affine| affine.batch.as_ref()).flat_map(|batch| &batch.var);
    let amplified = amplification(trace, &vec![0.0; params.norm_bias.len()]).map_or(1.0, |factors| largest(&factors));
    let enlarged = deviations.map(|var| 1.0 / (var + 1e-5).sqrt()).fold(amplified.max(1.0), f64::max);
    // A weight norm stretches each filter about its mean.
    let is_weight_norm = !params.norm_weight.is_empty() && params.running_mean.is_empty();
    if !is_weight_norm {
        return enlarged;
    }
    let fan_in = params.weight.data.len() / params.weight.shape[0];
    let spread = |filter: &[f64]| {
        let mean = filter.iter().sum::<f64>() / fan_in as f64;
        (filter.iter().map(|w| (w - mean).powi(2)).sum::<f64>() + 1e-4).sqrt()
    };
    params.weight.data.chunks(fan_in).map(|filter| 5.0 / spread(filter)).fold(enlarged, f64::max)
}

/// Sum of the absolute gradients of a layer's output, scaled as its norm scales them.
fn before_cancelling(trace: &LayerTrace, params: &LayerParams, wanted: &LayerGradients) -> f64 {
    scaled_by(trace, params) * wanted.output.data.iter().map(|g| g.abs()).sum::<f64>()
}
