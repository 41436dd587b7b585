//! One training step of a drawn network on the CPU backend, every quantity compared with the oracle's.

use super::draw::{Case, Drawn, draw};
use crate::oracle::{LayerGradients, LayerTrace, Rng, Tensor, backward, loss_and_gradient};
use adali::backend::LossSums;
use adali::backend::cpu::Cpu;
use adali::data::Placement;
use adali::network::Model;
use adali::network::model::Pass;
use adali::network::parameters::{Parameter, Part, StageParameters};

/// Of membranes and logits, relative above 1; below the margin that the drawing keeps.
const VALUE_TOLERANCE: f64 = 3e-5;
/// Of a gradient, in the 2-norm.
const GRADIENT_TOLERANCE: f64 = 1e-4;
/// Of a gradient, in units of the sum of the absolute gradients of the layer's outputs: where these cancel, as in
/// front of a batch norm, nothing but rounding is left.
const CANCELLED: f64 = 1e-6;

/// What was compared.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    pub cases: usize,
    /// Times that filters were drawn again.
    pub rounds: usize,
    pub membranes: usize,
    pub spikes: usize,
    pub gradients: usize,
    /// Gradients of whole parameters that are not all zero, of how many.
    pub live: [usize; 2],
    /// Largest errors seen: of a membrane, of a gradient in the 2-norm.
    pub largest: [f64; 2],
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.cases += other.cases;
        self.rounds += other.rounds;
        self.membranes += other.membranes;
        self.spikes += other.spikes;
        self.gradients += other.gradients;
        for i in 0..2 {
            self.live[i] += other.live[i];
            self.largest[i] = self.largest[i].max(other.largest[i]);
        }
    }

    /// Says what was compared, and refuses a comparison of silence with silence.
    #[track_caller]
    pub fn report(&self, name: &str, cases: usize) {
        println!("{name}: {self:?}");
        assert_eq!(self.cases, cases, "{name}: cases");
        let rate = self.spikes as f64 / self.membranes as f64;
        assert!((0.05..0.95).contains(&rate), "{name}: firing rate {rate}");
        assert!(self.live[0] * 10 >= self.live[1] * 9, "{name}: too many gradients are zero: {:?}", self.live);
    }
}

/// The case's training pass.
pub fn pass(case: &Case) -> Pass {
    Pass {
        batch_statistics: case.batch_statistics,
        update_running: case.batch_statistics,
        dropout: case.dropout,
        backward: true,
        histogram: true,
        membranes: true,
    }
}

/// Gathers the batch and runs one pass; with `backward` the loss's gradient too.
pub fn run_model(model: &mut Model<Cpu>, case: &Case, drawn: &Drawn, pass: Pass) -> LossSums {
    let placements = vec![Placement::default(); case.batch];
    model.gather(&drawn.bytes, &drawn.shape, &drawn.normalisation, &drawn.indices(), &placements).expect("a batch");
    model.forward(pass).expect("a forward pass");
    let sums = model.loss(&case.loss, &drawn.model_labels(), pass.backward).expect("a loss");
    if pass.backward {
        model.backward(pass).expect("a backward pass");
    }
    sums
}

/// Leaves the traces of another, full batch in every buffer.
fn make_dirty(model: &mut Model<Cpu>, case: &Case, drawn: &Drawn) {
    let (indices, placements): (Vec<u32>, Vec<_>) =
        (0..case.capacity as u32).map(|n| (n, Placement::default())).unzip();
    model.gather(&drawn.bytes, &drawn.shape, &drawn.normalisation, &indices, &placements).expect("a batch");
    let pass = Pass { update_running: false, dropout: Some(5), ..pass(case) };
    model.forward(pass).expect("a forward pass");
    model.loss(&case.loss, &vec![0; case.capacity], true).expect("a loss");
    model.backward(pass).expect("a backward pass");
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
    // First as inference, where other operations run and nothing is kept; then a training step.
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
        assert_eq!(sums.correct, hits(&drawn), "hits: {case:?}");
    }
    let mut squares = 0.0;
    for ((_, stage), &layer) in model.stage_parameters().zip(&drawn.stages) {
        squares += compare_stage(stage, case, &drawn.forward.layers[layer], &gradients[layer], &mut outcome);
    }
    let (norm, want) = (model.gradient_norm().expect("a norm"), squares.sqrt());
    assert!((norm - want).abs() <= GRADIENT_TOLERANCE * want + 1e-7, "gradient norm {norm}, not {want}: {case:?}");
    outcome
}

fn exactly(got: &[f32], want: &Tensor) -> bool {
    got.len() == want.data.len() && got.iter().zip(&want.data).all(|(&a, &b)| f64::from(a) == b)
}

/// Samples whose first largest logit is the label's.
fn hits(drawn: &Drawn) -> u64 {
    let logits = &drawn.forward.logits;
    let rows = logits.data.chunks(logits.shape[1]);
    let first_largest = |row: &[f64]| (1..row.len()).fold(0, |best, k| if row[k] > row[best] { k } else { best });
    rows.zip(&drawn.labels).filter(|(row, label)| first_largest(row) == **label).count() as u64
}

fn compare_forward(model: &Model<Cpu>, case: &Case, drawn: &Drawn, outcome: &mut Outcome) {
    for (stage, &layer) in drawn.stages.iter().enumerate() {
        let Some(neuron) = &drawn.forward.layers[layer].neuron else {
            assert!(model.read_spikes(stage).expect("spikes").is_none());
            continue;
        };
        let membrane = model.read_membrane(stage).expect("a membrane").expect("asked for");
        let error = values(&format!("membranes of stage {stage}"), case, &membrane, &neuron.membrane.data);
        outcome.largest[0] = outcome.largest[0].max(error);
        let spikes = model.read_spikes(stage).expect("spikes").expect("a stage with neurons");
        let equal = spikes.iter().zip(&neuron.spikes.data).all(|(&a, &b)| f64::from(a) == b);
        assert!(spikes.len() == neuron.spikes.data.len() && equal, "spikes of stage {stage}: {case:?}");
        outcome.membranes += membrane.len();
        outcome.spikes += spikes.iter().filter(|&&s| s == 1).count();
    }
    values("logits", case, &model.read_logits().expect("logits"), &drawn.forward.logits_per_step.data);
}

/// Compares value by value and returns the largest error.
fn values(what: &str, case: &Case, got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len(), "{what}: {case:?}");
    let mut largest = 0.0f64;
    for (i, (&a, &b)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(a) - b).abs() / b.abs().max(1.0);
        assert!(error <= VALUE_TOLERANCE, "{what}: value {i} is {a}, not {b}: {case:?}");
        largest = largest.max(error);
    }
    largest
}

/// Compares a stage's gradients and running statistics, and returns the sum of the gradients' squares.
fn compare_stage(
    stage: &StageParameters<Cpu>,
    case: &Case,
    trace: &LayerTrace,
    wanted: &LayerGradients,
    outcome: &mut Outcome,
) -> f64 {
    let affine = trace.affine.as_ref().expect("a stage has weights");
    let floor = CANCELLED * before_cancelling(trace, wanted);
    let mut compare = |parameter: &Parameter<Cpu>, want: &[f64]| {
        outcome.live[1] += 1;
        let got = parameter.read(&Cpu, Part::Gradient).expect("a gradient");
        assert_eq!(got.len(), want.len(), "{}", parameter.name);
        let norm = want.iter().map(|g| g * g).sum::<f64>();
        let error = got.iter().zip(want).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum::<f64>().sqrt();
        let (name, limit) = (&parameter.name, GRADIENT_TOLERANCE * norm.sqrt() + floor);
        assert!(error <= limit, "gradient of {name} is off by {error:e} of {:e}: {case:?}", norm.sqrt());
        if norm.sqrt() > 100.0 * floor {
            outcome.live[0] += 1;
            outcome.largest[1] = outcome.largest[1].max(error / norm.sqrt());
        }
        outcome.gradients += got.len();
        norm
    };
    let mut squares = compare(&stage.weight, &wanted.weight.data);
    assert_eq!(stage.bias.is_some(), !wanted.bias.is_empty(), "a bias: {case:?}");
    if let Some(bias) = &stage.bias {
        squares += compare(bias, &wanted.bias);
    }
    assert_eq!(stage.norm.is_some(), !wanted.norm_weight.is_empty(), "a norm: {case:?}");
    if let Some(norm) = &stage.norm {
        squares += compare(&norm.gain, &wanted.norm_weight) + compare(&norm.bias, &wanted.norm_bias);
        if let Some(batch) = &affine.batch {
            let channels = batch.mean.len();
            values("running mean", case, &norm.running_mean[..channels], &batch.running_mean);
            values("running variance", case, &norm.running_variance[..channels], &batch.running_var);
        }
    }
    squares
}

/// Sum of the absolute gradients of a layer's currents, scaled as a batch norm scales them.
fn before_cancelling(trace: &LayerTrace, wanted: &LayerGradients) -> f64 {
    let affine = trace.affine.as_ref().expect("a stage has weights");
    let scale = affine.batch.as_ref().map_or(1.0, |batch| {
        let smallest = batch.var.iter().copied().fold(f64::INFINITY, f64::min);
        1.0 / (smallest + 1e-5).sqrt()
    });
    scale.max(1.0) * wanted.current.data.iter().map(|g| g.abs()).sum::<f64>()
}
