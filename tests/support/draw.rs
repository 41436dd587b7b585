//! A configured network with random parameters and data, for both the model and the oracle.

use crate::oracle::network::{Input, Layer, LayerParams, Network, Params};
use crate::oracle::neuron::slope_of;
use crate::oracle::{Forward, LayerTrace, Loss, Neuron, Reset, Rng, Slope, SpikeModel, Tensor, forward};
use adali::backend::cpu::{Cpu, Set};
use adali::backend::shape::Extent;
use adali::backend::{LossSpec, Normalisation, Storage, dropout_mask, keeps};
use adali::data::SampleShape;
use adali::network::parameters::{Parameter, Part};
use adali::network::spec::{LayerSpec, Synapse};
use adali::network::{InputMode, Model, NetworkSpec, Norm, Plan, Volume};
use adali::neuron::{NeuronModel, ResetKind};
use adali::surrogate::{Bounds, SurrogateKind};

/// No membrane of a drawn network is closer than this to the threshold or to an edge of the window, in units of the threshold:
/// rounding cannot flip a spike.
pub const MARGIN: f64 = 1e-4;
/// How many times single filters are redrawn at most.
const MAX_ROUNDS: usize = 300;
/// PyTorch's epsilon, added to a batch's variance.
const BATCH_EPS: f64 = 1e-5;

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
    /// Index of each stage's layer in `network`.
    pub stages: Vec<usize>,
    pub bounds: Vec<Vec<Bounds>>,
    /// `capacity` unused samples, then the batch's in reverse order.
    pub bytes: Vec<u8>,
    pub shape: SampleShape,
    pub normalisation: Normalisation,
    /// How many times filters were redrawn.
    pub rounds: usize,
}

/// Draws parameters and data; filters with a membrane within [`MARGIN`] of an edge are redrawn.
pub fn draw(case: &Case, rng: &mut Rng) -> Drawn {
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
    let (network, stages) = oracle_network(case, &bounds);
    let (bytes, shape, normalisation, input) = draw_input(case, rng);
    let labels = (0..case.batch).map(|_| rng.below(plan.classes)).collect();
    let mut params = rounded(Params::random(&network, case.input, rng));
    let mut rounds = 0;
    let forward = loop {
        let pass = forward(&network, &params, &input, SpikeModel::Hard, None);
        let Some((layer, filters)) = near_an_edge(&network, &params, &pass) else { break pass };
        rounds += 1;
        assert!(rounds <= MAX_ROUNDS, "layer {layer} keeps membranes near an edge: {case:?}");
        let fresh = rounded(Params::random(&network, case.input, rng));
        for filter in filters {
            replace_filter(&mut params.layers[layer], &fresh.layers[layer], filter);
        }
    };
    Drawn { network, params, input, labels, forward, stages, bounds, bytes, shape, normalisation, rounds }
}

/// The case in the oracle's types, and the index of each stage's layer.
fn oracle_network(case: &Case, bounds: &[Vec<Bounds>]) -> (Network, Vec<usize>) {
    let spec = &case.spec;
    let [c, h, w] = case.input;
    let mut shape = [spec.steps, case.batch, c, h, w];
    let (mut layers, mut stages, mut vote) = (Vec::<Layer>::new(), Vec::new(), 1);
    for layer in &spec.layers {
        let neurons = |stages: &[usize]| Some((oracle_neuron(spec), oracle_slopes(spec, &bounds[stages.len()])));
        let next = match layer.clone() {
            LayerSpec::Conv { channels, kernel, stride, padding, synapse, .. } => Layer::Conv {
                out: channels,
                kernel_h: kernel.h,
                kernel_w: kernel.w,
                stride: square(stride),
                padding: square(padding),
                bias: bias(&synapse),
                norm: oracle_norm(case, &synapse),
                spiking: neurons(&stages),
            },
            LayerSpec::Linear { features, synapse, .. } => Layer::Linear {
                out: features,
                bias: bias(&synapse),
                norm: oracle_norm(case, &synapse),
                spiking: neurons(&stages),
            },
            LayerSpec::Readout { classes, spiking, vote: votes, synapse } => {
                vote = votes;
                let spiking = if spiking { neurons(&stages) } else { None };
                let norm = oracle_norm(case, &synapse);
                Layer::Linear { out: classes * votes, bias: bias(&synapse), norm, spiking }
            }
            LayerSpec::MaxPool { kernel, stride, padding } => Layer::MaxPool {
                kernel: square(kernel),
                stride: square(stride.unwrap_or(kernel)),
                padding: square(padding),
            },
            LayerSpec::AvgPool { kernel, stride } => {
                Layer::AvgPool { kernel: square(kernel), stride: square(stride.unwrap_or(kernel)) }
            }
            LayerSpec::GlobalAvgPool => Layer::AvgPool { kernel: shape[3], stride: shape[3] },
            LayerSpec::Dropout { probability } => match case.dropout {
                Some(seed) => {
                    let mask = mask(dropout_mask(seed, stages.len() - 1), probability, shape);
                    Layer::Dropout { mask, keep: 1.0 - f64::from(probability) }
                }
                None => continue,
            },
        };
        if matches!(next, Layer::Conv { .. } | Layer::Linear { .. }) {
            stages.push(layers.len());
        }
        shape = next.output_shape(shape);
        layers.push(next);
    }
    (Network { layers, vote }, stages)
}

fn square(extent: Extent) -> usize {
    assert_eq!(extent.h, extent.w, "the oracle knows square strides, paddings and pools only");
    extent.h
}

fn bias(synapse: &Synapse) -> bool {
    synapse.bias.unwrap_or(synapse.norm == Norm::None)
}

fn oracle_norm(case: &Case, synapse: &Synapse) -> crate::oracle::Norm {
    match synapse.norm {
        Norm::None => crate::oracle::Norm::None,
        Norm::Batch => crate::oracle::Norm::Batch { eps: BATCH_EPS, train: case.batch_statistics },
        Norm::Weight => crate::oracle::Norm::Weight { scale: f64::from(synapse.weight_scale) },
    }
}

fn oracle_neuron(spec: &NetworkSpec) -> Neuron {
    let neuron = &spec.neuron;
    let rate = 1.0 / f64::from(neuron.tau);
    let (lambda, kappa) = match neuron.model {
        NeuronModel::If => (1.0, 1.0),
        NeuronModel::Lif => (1.0 - rate, if neuron.decay_input { rate } else { 1.0 }),
    };
    let reset = match neuron.reset {
        ResetKind::Soft => Reset::Soft,
        ResetKind::Hard => Reset::Hard { v_reset: f64::from(neuron.v_reset) },
    };
    Neuron { lambda, kappa, theta: f64::from(neuron.threshold), reset, detached: neuron.detach_reset }
}

fn oracle_slopes(spec: &NetworkSpec, bounds: &[Bounds]) -> Vec<Slope> {
    let adali = |b: &Bounds| {
        let [left, right, alpha, beta] = [b.left, b.right, b.alpha, b.beta].map(f64::from);
        Slope::Adali { left, right, alpha, beta }
    };
    match spec.surrogate.kind {
        SurrogateKind::Adali => bounds.iter().map(adali).collect(),
        SurrogateKind::Rectangle => vec![Slope::rectangle()],
        kind => {
            let k = spec.surrogate.sharpness.or(kind.usual_sharpness()).expect("a formula");
            vec![Slope::formula(kind.name(), f64::from(k))]
        }
    }
}

/// `[N, C, H, W]` of 0 and 1, from the model's own draw, which is in `[N][H][W][C]` order.
fn mask(seed: u64, probability: f32, [_, batch, c, h, w]: [usize; 5]) -> Tensor {
    let mut mask = Tensor::zeros(&[batch, c, h, w]);
    for (index, value) in mask.data.iter_mut().enumerate() {
        let (n, channel, pixel) = (index / (c * h * w), index / (h * w) % c, index % (h * w));
        let place = (n * h * w + pixel) * c + channel;
        *value = f64::from(u8::from(keeps(seed, place as u64, probability)));
    }
    mask
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
    let deviation: Vec<f32> = (0..c).map(|_| [0.5, 1.0, 2.0][rng.below(3)]).collect();
    let mut values = Tensor::zeros(&[frames, case.batch, c, h, w]);
    for (index, value) in values.data.iter_mut().enumerate() {
        let (pixel, channel) = (index % (h * w), index / (h * w) % c);
        let (n, t) = (index / (c * h * w) % case.batch, index / (c * h * w) / case.batch);
        let sample = samples - 1 - n;
        let byte = bytes[((sample * frames + t) * h * w + pixel) * c + channel];
        *value = (f64::from(byte) / 128.0 - f64::from(mean[channel])) / f64::from(deviation[channel]);
    }
    let input = match case.spec.input {
        InputMode::Direct => {
            Input::Direct { image: Tensor::new(&[case.batch, c, h, w], values.data), steps: case.spec.steps }
        }
        InputMode::Frames => Input::Frames(values),
    };
    (bytes, shape, Normalisation { full_scale: 128.0, mean, deviation }, input)
}

/// The first layer with membranes near an edge, and the filters that caused them. They include filters whose weights are nearly
/// equal, from which a weight norm gets values with few accurate digits.
fn near_an_edge(network: &Network, params: &Params, pass: &Forward) -> Option<(usize, Vec<usize>)> {
    let of_layer = |(index, layer): (usize, &Layer)| {
        let (Layer::Conv { spiking, .. } | Layer::Linear { spiking, .. }) = layer else { return None };
        let (neuron, slopes) = spiking.as_ref()?;
        let membrane = &pass.layers[index].neuron.as_ref()?.membrane;
        let amplification = amplification(&pass.layers[index]);
        let mut filters: Vec<usize> = (0..membrane.data.len())
            .filter(|&offset| {
                let margin = MARGIN.max(1e-5 * amplification[membrane.channel(offset)]);
                let z = neuron.z(membrane.data[offset]);
                let at_edge = match *slope_of(slopes, membrane.channel(offset)) {
                    Slope::Adali { left, right, .. } => (z + left).abs().min((z - right).abs()) < margin,
                    _ => false,
                };
                at_edge || z.abs() < margin
            })
            .map(|offset| membrane.channel(offset))
            .collect();
        filters.extend(all_but_equal(layer, &params.layers[index]));
        filters.sort_unstable();
        filters.dedup();
        (!filters.is_empty()).then_some((index, filters))
    };
    network.layers.iter().enumerate().find_map(of_layer)
}

/// Filters of a weight norm that vary by less than a twentieth of their largest weight.
fn all_but_equal(layer: &Layer, params: &LayerParams) -> Vec<usize> {
    let (Layer::Conv { norm, .. } | Layer::Linear { norm, .. }) = layer else { return Vec::new() };
    let fan_in = params.weight.data.len() / params.weight.shape[0];
    if !matches!(norm, crate::oracle::Norm::Weight { .. }) || fan_in == 1 {
        return Vec::new();
    }
    let close = |filter: &[f64]| {
        let mean = filter.iter().sum::<f64>() / fan_in as f64;
        let largest = filter.iter().fold(0.0f64, |largest, w| largest.max(w.abs()));
        filter.iter().map(|w| (w - mean).powi(2)).sum::<f64>().sqrt() < 0.05 * largest
    };
    params.weight.data.chunks(fan_in).enumerate().filter(|(_, filter)| close(filter)).map(|(k, _)| k).collect()
}

/// The factor by which a batch norm amplifies relative rounding errors of its input, per channel: 1 without a batch norm.
pub fn amplification(trace: &LayerTrace) -> Vec<f64> {
    let affine = trace.affine.as_ref().expect("a layer with weights");
    let x = &affine.conv_output;
    let mut factors = vec![1.0f64; x.dims5()[2]];
    if let Some(batch) = &affine.batch {
        for (offset, value) in x.data.iter().enumerate() {
            let c = x.channel(offset);
            factors[c] = factors[c].max(2.0 * value.abs() / (batch.var[c] + BATCH_EPS).sqrt());
        }
    }
    factors
}

/// Every kind of values of a layer.
pub fn values_mut(params: &mut LayerParams) -> [&mut Vec<f64>; 6] {
    let LayerParams { weight, bias, norm_weight, norm_bias, running_mean, running_var } = params;
    [&mut weight.data, bias, norm_weight, norm_bias, running_mean, running_var]
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
    let filters = params.weight.shape[0];
    let mut fresh = fresh.clone();
    for (old, new) in values_mut(params).into_iter().zip(values_mut(&mut fresh)) {
        let len = old.len() / filters;
        old[filter * len..][..len].copy_from_slice(&new[filter * len..][..len]);
    }
}

impl Drawn {
    /// Whether a batch norm has a channel that hardly varies: its gradients are then mostly rounding errors.
    pub fn is_degenerate(&self) -> bool {
        let factors = self.stages.iter().flat_map(|&layer| amplification(&self.forward.layers[layer]));
        factors.fold(1.0, f64::max) > 50.0
    }

    /// The model with these parameters, bounds and batch.
    pub fn model(&self, case: &Case) -> Model<Cpu> {
        let mut model = Model::new(Cpu, &case.spec, case.plan(), case.capacity, 1).expect("a model");
        let synapses = model.populations_mut().flat_map(|(_, parameters)| parameters.synapses_mut());
        for (stage, &layer) in synapses.zip(&self.stages) {
            let params = &self.params.layers[layer];
            write(&mut stage.weight, &params.weight.data);
            if let Some(bias) = &mut stage.bias {
                write(bias, &params.bias);
            }
            if let Some(norm) = &mut stage.norm {
                write(&mut norm.gain, &params.norm_weight);
                write(&mut norm.bias, &params.norm_bias);
                if let Some(running) = &mut norm.running {
                    running.mean = padded(&params.running_mean);
                    running.variance = padded(&params.running_var);
                }
            }
        }
        self.set_bounds(&mut model);
        model
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
