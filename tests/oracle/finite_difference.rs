//! Checks the gradients of [`run`] in the smooth spike model against central differences of the loss.
//!
//! The loss is smooth only between the kinks of the slopes' integrals and the changes of a max-pool's winner. Every forward
//! pass therefore yields a signature (the piece on which each neuron-step lies, and each winner); a difference counts only if
//! the signature is the same at both ends and in between. Detached resets are frozen at the spikes of the base point.

use super::neuron::slope_of;
use super::{
    Forward, Input, Layer, LayerGradients, Loss, Network, Params, Rng, SpikeModel, Tensor, forward, loss_and_gradient,
    run,
};

/// A network with everything needed to compute a loss.
#[derive(Clone, Debug)]
pub struct Case {
    /// The network.
    pub network: Network,
    /// Its parameters.
    pub params: Params,
    /// Its input.
    pub input: Input,
    /// N class numbers.
    pub labels: Vec<usize>,
    /// The loss.
    pub loss: Loss,
}

/// The result of a check.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Differences compared.
    pub compared: usize,
    /// How many of those have a nonzero gradient.
    pub nonzero: usize,
    /// Differences with a kink at every step size.
    pub skipped: usize,
    /// Descriptions of differences that agree at no step size.
    pub wrong: Vec<String>,
}

impl Report {
    /// Adds another report's counts and errors.
    pub fn add(&mut self, other: Report) {
        self.compared += other.compared;
        self.nonzero += other.nonzero;
        self.skipped += other.skipped;
        self.wrong.extend(other.wrong);
    }
}

/// A variable to differentiate with respect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// The input.
    Input,
    /// The weight of a layer.
    Weight(usize),
    /// The bias of a layer.
    Bias(usize),
    /// The norm's gain of a layer.
    NormWeight(usize),
    /// The norm's bias of a layer.
    NormBias(usize),
    /// The learned value of a factor.
    Factor(usize),
}

/// Step sizes, tried in turn until one agrees: truncation, rounding and kinks need different ones.
const STEPS: [f64; 3] = [1e-5, 1e-6, 1e-4];

/// Largest error, as a share of the tensor's largest gradient.
const TOLERANCE: f64 = 1e-6;

/// Largest error where the gradients are tiny (rounding of the loss over the step).
const FLOOR: f64 = 1e-9;

/// Compares, for the input and each parameter tensor, `coordinates` random entries and one random direction.
pub fn check(case: &Case, coordinates: usize, rng: &mut Rng) -> Report {
    let trace = run(&case.network, &case.params, &case.input, &case.labels, &case.loss, SpikeModel::Smooth);
    let base = smooth_forward(case, None);
    let mut report = Report::default();
    for slot in slots(case.network.layers.len()) {
        let gradient = gradient_of(&trace.gradients, &trace.input_gradient, slot);
        let size = values_mut(&mut case.clone(), slot).len();
        assert_eq!(size, gradient.len(), "{slot:?}: size of the gradient");
        if size == 0 {
            continue;
        }
        let scale = gradient.iter().fold(0.0, |scale: f64, g| scale.max(g.abs()));
        for trial in 0..=coordinates {
            let mut direction = vec![0.0; size];
            if trial == coordinates {
                direction = unit_direction(size, rng);
            } else {
                direction[rng.below(size)] = 1.0;
            }
            let expected = direction.iter().zip(gradient).map(|(d, g)| d * g).sum();
            compare(case, &base, slot, &direction, (expected, scale), &mut report);
        }
    }
    report
}

fn compare(
    case: &Case,
    base: &Forward,
    slot: Slot,
    direction: &[f64],
    (expected, scale): (f64, f64),
    report: &mut Report,
) {
    let signature_at_base = signature(&case.network, base);
    let mut wrong = None;
    for step in STEPS {
        let mut ends = [0.0; 2];
        let mut smooth = true;
        for (end, sign) in ends.iter_mut().zip([1.0, -1.0]) {
            let mut moved = case.clone();
            for (value, d) in values_mut(&mut moved, slot).iter_mut().zip(direction) {
                *value += sign * step * d;
            }
            let pass = smooth_forward(&moved, Some(base));
            smooth &= signature(&case.network, &pass) == signature_at_base;
            *end = loss_and_gradient(&case.loss, &pass.logits_per_step, &case.labels).0;
        }
        if !smooth {
            continue;
        }
        let difference = (ends[0] - ends[1]) / (2.0 * step);
        if (difference - expected).abs() <= TOLERANCE * scale.max(expected.abs()) + FLOOR {
            report.compared += 1;
            report.nonzero += usize::from(expected.abs() > 1e3 * FLOOR);
            return;
        }
        wrong = Some(format!("{slot:?}: gradient {expected}, difference {difference} over {step}"));
    }
    match wrong {
        Some(text) => report.wrong.push(text),
        None => report.skipped += 1,
    }
}

fn smooth_forward(case: &Case, frozen: Option<&Forward>) -> Forward {
    forward(&case.network, &case.params, &case.input, SpikeModel::Smooth, frozen)
}

/// The smooth piece of the loss that a forward pass lies on.
fn signature(network: &Network, pass: &Forward) -> Vec<usize> {
    let mut signature = Vec::new();
    for (layer, trace) in network.layers.iter().zip(&pass.layers) {
        signature.extend(&trace.winners);
        if let (Layer::Neurons { neuron, slopes }, Some(state)) = (layer, &trace.neuron) {
            for (offset, h) in state.membrane.data.iter().enumerate() {
                let slope = slope_of(slopes, state.membrane.channel(offset));
                signature.push(slope.piece(neuron.z(*h)));
            }
        }
    }
    signature
}

fn slots(layers: usize) -> Vec<Slot> {
    let of_layer = |l| [Slot::Weight(l), Slot::Bias(l), Slot::NormWeight(l), Slot::NormBias(l), Slot::Factor(l)];
    let mut all = vec![Slot::Input];
    all.extend((0..layers).flat_map(of_layer));
    all
}

fn values_mut(case: &mut Case, slot: Slot) -> &mut Vec<f64> {
    let layers = &mut case.params.layers;
    match slot {
        Slot::Input => case.input.values_mut(),
        Slot::Weight(l) => &mut layers[l].weight.data,
        Slot::Bias(l) => &mut layers[l].bias,
        Slot::NormWeight(l) => &mut layers[l].norm_weight,
        Slot::NormBias(l) => &mut layers[l].norm_bias,
        Slot::Factor(l) => &mut layers[l].factor,
    }
}

fn gradient_of<'a>(layers: &'a [LayerGradients], input: &'a Tensor, slot: Slot) -> &'a [f64] {
    match slot {
        Slot::Input => &input.data,
        Slot::Weight(l) => &layers[l].weight.data,
        Slot::Bias(l) => &layers[l].bias,
        Slot::NormWeight(l) => &layers[l].norm_weight,
        Slot::NormBias(l) => &layers[l].norm_bias,
        Slot::Factor(l) => &layers[l].factor,
    }
}

fn unit_direction(size: usize, rng: &mut Rng) -> Vec<f64> {
    let direction: Vec<f64> = (0..size).map(|_| rng.normal()).collect();
    let length = direction.iter().map(|d| d * d).sum::<f64>().sqrt();
    direction.iter().map(|d| d / length).collect()
}
