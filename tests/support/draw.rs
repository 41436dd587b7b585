//! A configured network with random parameters and data, for both the model and the oracle.

use super::graph::{Graph, oracle_network};
use crate::oracle::network::{Input, Layer, LayerParams, Network, Params};
use crate::oracle::neuron::slope_of;
use crate::oracle::{Forward, LayerTrace, Loss, Norm, Rng, Slope, Source, SpikeModel, Tensor, forward};
use adali::backend::cpu::{Cpu, Set};
use adali::backend::{LossSpec, Normalisation, Storage};
use adali::data::SampleShape;
use adali::network::parameters::{Parameter, Part};
use adali::network::{InputMode, Model, NetworkSpec, Plan, Volume};
use adali::surrogate::{Bounds, SurrogateKind};
use std::collections::HashMap;

/// No membrane of a drawn network is closer than this to the threshold or to an edge of the window, in units of the threshold:
/// rounding cannot flip a spike.
pub const MARGIN: f64 = 1e-4;
/// How many times single filters are redrawn at most.
const MAX_ROUNDS: usize = 300;
const MAX_DRAWS: usize = 5;
/// PyTorch's epsilon, added to a batch's variance.
pub const BATCH_EPS: f64 = 1e-5;

/// What to compare.
#[derive(Clone, Debug)]
pub struct Case {
    pub spec: NetworkSpec,
    /// C, H, W.
    pub input: [usize; 3],
    pub batch: usize,
    /// Capacity of the model, at least `batch`.
    pub capacity: usize,
    pub loss: LossSpec,
    /// Batch norms use the batch's statistics; otherwise the running ones.
    pub batch_statistics: bool,
    /// Seed of the masks.
    pub dropout: Option<u64>,
    /// Separate bounds for each channel.
    pub per_channel: bool,
}

impl Case {
    /// A training step with cross-entropy; dropouts on.
    pub fn new(spec: NetworkSpec, input: [usize; 3], batch: usize) -> Self {
        Self {
            spec,
            input,
            batch,
            capacity: batch,
            loss: LossSpec::default(),
            batch_statistics: true,
            dropout: Some(77),
            per_channel: false,
        }
    }

    pub fn plan(&self) -> Plan {
        let [c, h, w] = self.input;
        Plan::new(&self.spec, Volume { h, w, c }).expect("a possible network")
    }

    /// The loss in the oracle's types.
    pub fn oracle_loss(&self) -> Loss {
        Loss { mse: self.loss.mse, tet: self.loss.tet, smoothing: self.loss.label_smoothing }
    }
}

/// A case with all its random values.
pub struct Drawn {
    pub network: Network,
    pub params: Params,
    pub input: Input,
    pub labels: Vec<usize>,
    /// What the oracle's forward pass computes from them.
    pub forward: Forward,
    /// Index in `network` of each stage's neurons, or of a readout without neurons.
    pub stages: Vec<usize>,
    /// What the model calls each of `network`'s layers that has parameters; others have no name.
    pub names: Vec<String>,
    pub bounds: Vec<Vec<Bounds>>,
    /// `capacity` unused samples, then the batch's in reverse order.
    pub bytes: Vec<u8>,
    pub shape: SampleShape,
    pub normalisation: Normalisation,
    /// How many times filters were redrawn.
    pub rounds: usize,
}

/// Draws parameters and data; filters with a membrane within [`MARGIN`] of an edge are redrawn, and everything if that does
/// not help.
pub fn draw(case: &Case, rng: &mut Rng) -> Drawn {
    let drawn = (0..MAX_DRAWS).find_map(|_| try_draw(case, rng));
    drawn.unwrap_or_else(|| panic!("some layers keep membranes near an edge: {case:?}"))
}

/// Whether [`draw`] keeps all membranes away from the edges.
pub fn can_be_drawn(case: &Case, rng: &mut Rng) -> bool {
    try_draw(case, rng).is_some()
}

/// Whether batch norms can use the batch's statistics: not if they are mostly rounding errors.
pub fn suits_batch_statistics(case: &Case, rng: &mut Rng) -> bool {
    let case = Case { batch_statistics: true, ..case.clone() };
    try_draw(&case, rng).is_some_and(|drawn| !drawn.is_degenerate())
}

/// [`draw`], unless membranes stay near an edge.
fn try_draw(case: &Case, rng: &mut Rng) -> Option<Drawn> {
    let plan = case.plan();
    let bounds: Vec<Vec<Bounds>> = plan
        .populations
        .iter()
        .map(|stage| match case.spec.surrogate.kind {
            SurrogateKind::Adali => {
                let count = if case.per_channel { stage.volume.c } else { 1 };
                let mut one = || Bounds::new(rng.uniform(0.3, 1.5), rng.uniform(0.3, 1.5), rng.uniform(0.3, 0.7));
                (0..count).map(|_| one()).collect()
            }
            _ => vec![Bounds::RECTANGLE],
        })
        .collect();
    let Graph { network, stages, decisive, names } = oracle_network(case, &bounds);
    let (bytes, shape, normalisation, input) = draw_input(case, rng);
    let labels = (0..case.batch).map(|_| rng.below(plan.classes)).collect();
    let mut params = rounded(Params::random(&network, case.input, rng));
    let mut rounds = 0;
    let forward = loop {
        let pass = forward(&network, &params, &input, SpikeModel::Hard, None);
        let Some((layers, filters)) = near_an_edge(&network, &params, &pass, (&stages, &decisive)) else { break pass };
        rounds += 1;
        if rounds > MAX_ROUNDS {
            return None;
        }
        let fresh = rounded(Params::random(&network, case.input, rng));
        for (layer, filter) in layers.into_iter().flat_map(|layer| filters.iter().map(move |&filter| (layer, filter))) {
            replace_filter(&mut params.layers[layer], &fresh.layers[layer], filter);
        }
    };
    Some(Drawn { network, params, input, labels, forward, stages, names, bounds, bytes, shape, normalisation, rounds })
}

/// Bytes `[sample][T][H][W][C]`, and the oracle's exact values of the batch.
fn draw_input(case: &Case, rng: &mut Rng) -> (Vec<u8>, SampleShape, Normalisation, Input) {
    let [c, h, w] = case.input;
    let frames = if case.spec.input == InputMode::Direct { 1 } else { case.spec.steps };
    let shape = SampleShape { frames, height: h, width: w, channels: c };
    let samples = case.capacity + case.batch;
    let bytes: Vec<u8> = (0..samples * shape.len()).map(|_| rng.below(256) as u8).collect();
    // Powers of two and short fractions: every value is exact in f32.
    let mean: Vec<f32> = (0..c).map(|_| [0.75, 1.0, 1.25][rng.below(3)]).collect();
    let std: Vec<f32> = (0..c).map(|_| [0.5, 1.0, 2.0][rng.below(3)]).collect();
    let mut values = Tensor::zeros(&[frames, case.batch, c, h, w]);
    for (index, value) in values.data.iter_mut().enumerate() {
        let (pixel, channel) = (index % (h * w), index / (h * w) % c);
        let (n, t) = (index / (c * h * w) % case.batch, index / (c * h * w) / case.batch);
        let sample = samples - 1 - n;
        let byte = bytes[((sample * frames + t) * h * w + pixel) * c + channel];
        *value = (f64::from(byte) / 128.0 - f64::from(mean[channel])) / f64::from(std[channel]);
    }
    let input = match case.spec.input {
        InputMode::Direct => {
            Input::Direct { image: Tensor::new(&[case.batch, c, h, w], values.data), steps: case.spec.steps }
        }
        InputMode::Frames => Input::Frames(values),
    };
    (bytes, shape, Normalisation { full_scale: 128.0, mean, std }, input)
}

/// The first layers of which filters are to be redrawn, and these filters: those that cause membranes near an edge, or whose
/// weights are nearly equal, from which a weight norm gets values with few accurate digits.
fn near_an_edge(
    network: &Network,
    params: &Params,
    pass: &Forward,
    (stages, decisive): (&[usize], &[Vec<usize>]),
) -> Option<(Vec<usize>, Vec<usize>)> {
    let amplifications = amplifications(network, pass);
    let of_layer = |(index, layer): (usize, &Layer)| {
        let alike = all_but_equal(layer, &params.layers[index]);
        if !alike.is_empty() {
            return Some((vec![index], alike));
        }
        let (Layer::Neurons { neuron, slopes }, Some(state)) = (layer, &pass.layers[index].neuron) else { return None };
        let stage = stages.iter().position(|&at| at == index).expect("neurons belong to a stage");
        let membrane = &state.membrane;
        let mut filters: Vec<usize> = (0..membrane.data.len())
            .filter(|&offset| {
                let margin = MARGIN.max(1e-5 * amplifications[index][membrane.channel(offset)]);
                let z = neuron.z(membrane.data[offset]);
                let at_edge = match *slope_of(slopes, membrane.channel(offset)) {
                    Slope::Adali { left, right, .. } => (z + left).abs().min((z - right).abs()) < margin,
                    _ => false,
                };
                at_edge || z.abs() < margin
            })
            .map(|offset| membrane.channel(offset))
            .collect();
        filters.sort_unstable();
        filters.dedup();
        (!filters.is_empty()).then_some((decisive[stage].clone(), filters))
    };
    network.layers.iter().enumerate().find_map(of_layer)
}

/// Filters of a weight norm that vary by less than a twentieth of their largest weight.
fn all_but_equal(layer: &Layer, params: &LayerParams) -> Vec<usize> {
    let (Layer::Conv { norm, .. } | Layer::Linear { norm, .. }) = layer else { return Vec::new() };
    let fan_in = params.weight.data.len() / params.weight.shape[0];
    if !matches!(norm, Norm::Weight { .. }) || fan_in == 1 {
        return Vec::new();
    }
    let close = |filter: &[f64]| {
        let mean = filter.iter().sum::<f64>() / fan_in as f64;
        let largest = filter.iter().fold(0.0f64, |largest, w| largest.max(w.abs()));
        filter.iter().map(|w| (w - mean).powi(2)).sum::<f64>().sqrt() < 0.05 * largest
    };
    params.weight.data.chunks(fan_in).enumerate().filter(|(_, filter)| close(filter)).map(|(k, _)| k).collect()
}

/// The factor by which a batch norm amplifies relative rounding errors of its input, per channel, and errors `inherited` by the
/// input, in the same unit; `None` without a batch norm.
pub fn amplification(trace: &LayerTrace, inherited: &[f64]) -> Option<Vec<f64>> {
    let affine = trace.affine.as_ref()?;
    let (x, batch) = (&affine.conv_output, affine.batch.as_ref()?);
    let mut factors = vec![1.0f64; x.dims5()[2]];
    for (offset, value) in x.data.iter().enumerate() {
        let c = x.channel(offset);
        factors[c] = factors[c].max((2.0 * value.abs() + inherited[c]) / (batch.var[c] + BATCH_EPS).sqrt());
    }
    Some(factors)
}

/// Rounding errors of each layer's output per channel, for neurons of their membranes, in units of what is usual (1): what batch
/// norms since the last spikes have amplified.
pub fn amplifications(network: &Network, pass: &Forward) -> Vec<Vec<f64>> {
    let mut all: Vec<Vec<f64>> = Vec::new();
    for (index, layer) in network.layers.iter().enumerate() {
        let trace = &pass.layers[index];
        let mut inherited = vec![0.0f64; trace.output.dims5()[2]];
        for source in &network.reads[index] {
            let Source::Layer(i) = *source else { continue };
            if matches!(network.layers[i], Layer::Neurons { .. }) {
                continue; // spikes are exact
            }
            // A convolution mixes the errors of all channels; drawn filters have norms of a few units, of which 1e-5 in
            // the margin leaves room for a hundred rounding errors each.
            let mixes = matches!(layer, Layer::Conv { .. } | Layer::Linear { .. });
            for (c, error) in inherited.iter_mut().enumerate() {
                *error = error.max(if mixes { largest(&all[i]) } else { all[i][c] });
            }
        }
        let usual = || inherited.iter().map(|error| error.max(1.0)).collect();
        all.push(amplification(trace, &inherited).unwrap_or_else(usual));
    }
    all
}

/// The largest magnitude.
pub fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |largest, x| largest.max(x.abs()))
}

/// Every kind of values of a layer.
pub fn values_mut(params: &mut LayerParams) -> [&mut Vec<f64>; 7] {
    let LayerParams { weight, bias, norm_weight, norm_bias, factor, running_mean, running_var } = params;
    [&mut weight.data, bias, norm_weight, norm_bias, factor, running_mean, running_var]
}

/// What the model calls the parameters of a layer named `name`, in the order of [`values_mut`].
pub fn parameter_names(name: &str, layer: &Layer) -> [String; 5] {
    let norm = if matches!(layer, Layer::BatchNorm { .. }) { name.to_owned() } else { format!("{name}.norm") };
    [
        format!("{name}.weight"),
        format!("{name}.bias"),
        format!("{norm}.weight"),
        format!("{norm}.bias"),
        format!("{name}.gain"),
    ]
}

/// The trained ones of [`values_mut`].
fn parameter_values(params: &LayerParams) -> [&Vec<f64>; 5] {
    let LayerParams { weight, bias, norm_weight, norm_bias, factor, .. } = params;
    [&weight.data, bias, norm_weight, norm_bias, factor]
}

/// Rounds every value to f32.
fn rounded(mut params: Params) -> Params {
    for value in params.layers.iter_mut().flat_map(values_mut).flatten() {
        *value = f64::from(*value as f32);
    }
    params
}

/// Takes one filter's values, including running statistics, from `fresh`.
fn replace_filter(params: &mut LayerParams, fresh: &LayerParams, filter: usize) {
    let filters = params.weight.shape.first().copied().unwrap_or(params.norm_bias.len());
    let mut fresh = fresh.clone();
    for (old, new) in values_mut(params).into_iter().zip(values_mut(&mut fresh)) {
        let len = old.len() / filters;
        old[filter * len..][..len].copy_from_slice(&new[filter * len..][..len]);
    }
}

impl Drawn {
    /// Whether a batch norm has a channel that hardly varies: its gradients are then mostly rounding errors.
    fn is_degenerate(&self) -> bool {
        amplifications(&self.network, &self.forward).into_iter().flatten().fold(1.0, f64::max) > 50.0
    }

    /// The model with these parameters, bounds and batch.
    pub fn model(&self, case: &Case) -> Model<Cpu> {
        let mut model = Model::new(Cpu, &case.spec, case.plan(), case.capacity, 1).expect("a model");
        let mut drawn: HashMap<String, &Vec<f64>> = self.parameters(&self.params.layers, parameter_values).collect();
        let mut running: HashMap<String, &LayerParams> = HashMap::new();
        for (i, params) in self.params.layers.iter().enumerate().filter(|(_, params)| !params.running_mean.is_empty()) {
            let [_, _, weight, ..] = parameter_names(&self.names[i], &self.network.layers[i]);
            running.insert(weight, params);
        }
        for (_, parameters) in model.populations_mut() {
            for parameter in parameters.trained_mut() {
                let values = drawn.remove(&parameter.name);
                write(parameter, values.unwrap_or_else(|| panic!("the oracle has no {}: {case:?}", parameter.name)));
            }
            for norm in parameters.batch_norms_mut() {
                let of = running.remove(&norm.gain.name).expect("the oracle has this batch norm");
                let values = norm.running.as_mut().expect("a batch norm has running statistics");
                (values.mean, values.variance) = (padded(&of.running_mean), padded(&of.running_var));
            }
        }
        assert!(drawn.is_empty() && running.is_empty(), "the model has no {:?}: {case:?}", drawn.keys());
        self.set_bounds(&mut model);
        model
    }

    /// Every parameter's name in the model, and what `values` takes from its layer's entry in `layers`, in the order of
    /// [`values_mut`]; those that the layer lacks are left out.
    pub fn parameters<'a, L>(
        &'a self,
        layers: &'a [L],
        values: impl Fn(&'a L) -> [&'a Vec<f64>; 5] + 'a,
    ) -> impl Iterator<Item = (String, &'a Vec<f64>)> {
        let named = move |i: usize| parameter_names(&self.names[i], &self.network.layers[i]).into_iter();
        let of_layer = move |(i, layer)| named(i).zip(values(layer)).filter(|(_, values)| !values.is_empty());
        layers.iter().enumerate().flat_map(of_layer)
    }

    /// Sets these bounds in the model.
    pub fn set_bounds(&self, model: &mut Model<Cpu>) {
        for (stage, bounds) in self.bounds.iter().enumerate() {
            model.set_bounds(stage, bounds, bounds).expect("bounds");
        }
    }

    /// The samples.
    pub fn set(&self, case: &Case) -> Set {
        Cpu.set(self.bytes.clone().into(), self.shape, &self.normalisation, case.capacity).expect("memory")
    }

    /// Indices of the batch's samples in `bytes`.
    pub fn indices(&self) -> Vec<u32> {
        let samples = (self.bytes.len() / self.shape.len()) as u32;
        (0..self.labels.len() as u32).map(|n| samples - 1 - n).collect()
    }

    /// Labels as the model takes them.
    pub fn model_labels(&self) -> Vec<u16> {
        self.labels.iter().map(|&label| label as u16).collect()
    }
}

/// Values in f32.
pub fn floats(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

fn padded(values: &[f64]) -> Vec<f32> {
    Cpu.vector(&floats(values)).expect("memory")
}

fn write(parameter: &mut Parameter<Cpu>, values: &[f64]) {
    assert_eq!(parameter.count(), values.len(), "{}", parameter.name);
    parameter.write(&Cpu, Part::Value, &floats(values)).expect("memory");
}
