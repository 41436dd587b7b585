//! What single operations cost, on random data at a stated firing rate, without any training: three questions that must
//! not be mixed into one number.
//!
//! 1. What a slope costs: the same backward pass of neurons on the same tensors, with the membranes computed again from
//!    the currents, for every surrogate.
//! 2. What the packed state saves: AdaLi's backward pass from spike and window bits against the one from currents.
//! 3. What a histogram of the membrane potentials adds to the forward pass of neurons.

use crate::backend::shape::{Conv, Extent, InputKind, Span, Volume};
use crate::backend::{Affine, Backend, Input, Neurons, Normalisation, Saved, SpikeOutput, Step, Weights};
use crate::compare::timing::{ROUNDS, Timing, repetitions, seconds, take_turns};
use crate::data::SampleShape;
use crate::data::sampling::{Augmentation, CounterRng};
use crate::neuron::{Neuron, NeuronSpec};
use crate::surrogate::{Bounds, Surrogate, SurrogateKind};
use anyhow::Result;
use serde::Serialize;
use std::sync::atomic::AtomicBool;

/// Seconds that an operation's turn should take.
const TURN: f64 = 0.02;
/// Channels of the random samples from which currents are made.
const CHANNELS: usize = 2;
/// Samples in which the firing rate is looked for.
const LOOK: usize = 4;
const KINDS: [SurrogateKind; 4] =
    [SurrogateKind::Adali, SurrogateKind::Sigmoid, SurrogateKind::Arctan, SurrogateKind::Triangle];

/// The shape of a layer's activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    pub span: Span,
    pub volume: Volume,
}

/// Early and late layers of image networks, and one of event frames.
pub const SHAPES: [LayerShape; 3] = [
    LayerShape { span: Span { steps: 4, batch: 64 }, volume: Volume { h: 28, w: 28, c: 32 } },
    LayerShape { span: Span { steps: 4, batch: 32 }, volume: Volume { h: 14, w: 14, c: 128 } },
    LayerShape { span: Span { steps: 16, batch: 16 }, volume: Volume { h: 16, w: 16, c: 64 } },
];

impl LayerShape {
    /// Neurons times steps times samples.
    pub fn neuron_steps(&self) -> usize {
        self.span.batch * self.span.steps * self.volume.values()
    }
}

impl std::fmt::Display for LayerShape {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { span, volume } = self;
        write!(f, "T = {}, N = {}, {}x{}x{}", span.steps, span.batch, volume.h, volume.w, volume.c)
    }
}

/// The three answers for one shape.
#[derive(Clone, Debug, Serialize)]
pub struct OperationCosts {
    /// Steps, samples, height x width x channels.
    pub shape: String,
    /// Neurons times steps times samples.
    pub neuron_steps: usize,
    pub rounds: usize,
    /// Measured share of neuron-steps that spike.
    pub firing_rate: f64,
    /// Measured share of neuron-steps inside AdaLi's window, `[-0.5, 0.5]`.
    pub inside: f64,
    /// Backward pass from currents, by surrogate.
    pub slopes: Vec<Cost>,
    /// AdaLi's backward pass from currents and from bits.
    pub saved: Vec<Cost>,
    /// Forward pass without and with a histogram.
    pub histogram: Vec<Cost>,
}

/// One alternative.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub name: String,
    /// Of one call, in seconds.
    pub seconds: Timing,
    /// To the first alternative, round by round.
    pub ratio: Timing,
    /// Bytes kept from the forward pass, a neuron-step; where that is the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<f64>,
}

/// Measures one shape; `firing_rate` is asked for, the one found is reported. `None` where `stop` was set.
pub fn operation_costs<B: Backend>(
    backend: &B,
    shape: LayerShape,
    firing_rate: f64,
    stop: &AtomicBool,
) -> Result<Option<OperationCosts>> {
    let mut bench = Bench::new(backend, shape)?;
    let firing = bench.aim(firing_rate)?;
    let LayerShape { span, volume } = shape;
    let slopes = KINDS.map(|kind| (kind.name(), Work::Backward { kind, bits: false }));
    let adali = SurrogateKind::Adali;
    let saved = [
        ("currents", Work::Backward { kind: adali, bits: false }),
        ("bits", Work::Backward { kind: adali, bits: true }),
    ];
    let histogram = [("without", Work::Forward { histogram: false }), ("with", Work::Forward { histogram: true })];
    let Some(slopes) = bench.costs(&slopes, stop)? else { return Ok(None) };
    let Some(mut saved) = bench.costs(&saved, stop)? else { return Ok(None) };
    let Some(histogram) = bench.costs(&histogram, stop)? else { return Ok(None) };
    let bits = backend.bits_size(span, volume);
    let per_neuron_step = |bytes: usize| bytes as f64 / shape.neuron_steps() as f64;
    saved[0].bytes = Some(per_neuron_step(backend.floats_size(span, volume) + bits));
    saved[1].bytes = Some(per_neuron_step(2 * bits));
    Ok(Some(OperationCosts {
        shape: shape.to_string(),
        neuron_steps: shape.neuron_steps(),
        rounds: ROUNDS,
        firing_rate: firing,
        inside: bench.share(&bench.windows, span.batch)?,
        slopes,
        saved,
        histogram,
    }))
}

/// An operation to be timed.
#[derive(Clone, Copy, Debug)]
enum Work {
    Backward { kind: SurrogateKind, bits: bool },
    Forward { histogram: bool },
}

/// The tensors of one layer.
struct Bench<B: Backend> {
    backend: B,
    shape: LayerShape,
    neuron: Neuron,
    bounds: B::Windows,
    currents: B::Floats,
    scale: B::Floats,
    shift: B::Floats,
    spikes: B::Bits,
    windows: B::Bits,
    /// Of the spikes.
    gradient: B::Floats,
    out: B::Floats,
    counts: B::Counts,
    tally: B::Tally,
}

impl<B: Backend> Bench<B> {
    fn new(backend: &B, shape: LayerShape) -> Result<Self> {
        let LayerShape { span, volume } = shape;
        let neuron = NeuronSpec::default().neuron()?;
        Ok(Self {
            bounds: backend.windows(&[Bounds::RECTANGLE], neuron.threshold)?,
            currents: random(backend, shape, 1.0, 1)?,
            scale: backend.vector(&vec![2.0; volume.c])?,
            shift: backend.vector(&vec![0.0; volume.c])?,
            spikes: backend.spikes(span, volume)?,
            windows: backend.spikes(span, volume)?,
            gradient: random(backend, shape, 1e-3, 2)?,
            out: backend.activations(span, volume)?,
            counts: backend.counts(1)?,
            tally: backend.tally()?,
            backend: backend.clone(),
            shape,
            neuron,
        })
    }

    /// Shifts the currents until about this share of neuron-steps spikes; the share of all samples.
    fn aim(&mut self, wanted: f64) -> Result<f64> {
        let whole = self.shape.span;
        let channels = self.shape.volume.c;
        let (mut low, mut high) = (-20.0f32, 20.0f32);
        for _ in 0..14 {
            let middle = low.midpoint(high);
            self.backend.write_vector(&mut self.shift, &vec![middle; channels])?;
            self.shape.span.batch = whole.batch.min(LOOK);
            let looked = self.run(Work::Forward { histogram: false });
            self.shape.span = whole;
            looked?;
            if self.share(&self.spikes, whole.batch.min(LOOK))? < wanted {
                low = middle;
            } else {
                high = middle;
            }
        }
        self.run(Work::Forward { histogram: false })?;
        self.share(&self.spikes, whole.batch)
    }

    /// Share of the first `batch` samples' bits that are set.
    fn share(&self, bits: &B::Bits, batch: usize) -> Result<f64> {
        let bits = self.backend.read_spikes(bits, Span { batch, ..self.shape.span }, self.shape.volume)?;
        let set = bits.iter().filter(|&&bit| bit != 0).count();
        Ok(set as f64 / bits.len() as f64)
    }

    fn run(&mut self, work: Work) -> Result<()> {
        let Self { backend, neuron, bounds, currents, spikes, windows, out, .. } = self;
        let LayerShape { span, volume } = self.shape;
        let affine = Affine { scale: &self.scale, shift: &self.shift };
        let neurons = |kind| Neurons { neuron: *neuron, surrogate: Surrogate::new(kind), bounds };
        match work {
            Work::Backward { kind, bits } => {
                let saved = match bits {
                    true => Saved::Bits { spikes, windows },
                    false => Saved::Currents { currents, steps: span.steps, affine, spikes },
                };
                let gradient = &self.gradient;
                backend.spike_backward(volume, span, &neurons(kind), saved, None, gradient, span.steps, out, None)
            }
            Work::Forward { histogram } => {
                let histogram = histogram.then_some(&mut self.counts);
                let out = SpikeOutput { spikes, windows: Some(windows), membrane: None, histogram };
                let neurons = neurons(SurrogateKind::Adali);
                backend.norm_lif_forward(volume, span, currents, span.steps, affine, &neurons, out)
            }
        }
    }

    fn timed(&mut self, work: Work, calls: usize) -> Result<f64> {
        let total = seconds(|| {
            (0..calls).try_for_each(|_| self.run(work))?;
            self.wait()
        })?;
        Ok(total / calls as f64)
    }

    fn wait(&self) -> Result<()> {
        self.backend.read_tally(&self.tally).map(|_| ())
    }

    fn costs(&mut self, alternatives: &[(&str, Work)], stop: &AtomicBool) -> Result<Option<Vec<Cost>>> {
        let mut calls = Vec::new();
        for &(_, work) in alternatives {
            self.timed(work, 1)?;
            calls.push(repetitions(self.timed(work, 1)?, TURN));
        }
        let times = take_turns(calls.len(), ROUNDS, stop, |i| Ok([self.timed(alternatives[i].1, calls[i])?]))?;
        Ok(times.map(|times| {
            let cost = |((name, _), [seconds]): (&(&str, Work), &[Vec<f64>; 1])| Cost {
                name: name.to_string(),
                seconds: Timing::of(seconds),
                ratio: Timing::of_ratios(seconds, &times[0][0]),
                bytes: None,
            };
            alternatives.iter().zip(&times).map(cost).collect()
        }))
    }
}

/// Random values around 0 whose deviation is about `deviation`: a convolution of random samples, which every device has.
fn random<B: Backend>(backend: &B, shape: LayerShape, deviation: f64, seed: u64) -> Result<B::Floats> {
    let LayerShape { span, volume } = shape;
    let input = Volume { c: CHANNELS, ..volume };
    let conv = Conv {
        reads: InputKind::Image,
        input,
        kernel: Extent::square(3),
        stride: Extent::square(1),
        padding: Extent::square(1),
        output: volume,
    };
    let mut rng = CounterRng::new(seed, 0);
    let samples = SampleShape { frames: span.steps, height: volume.h, width: volume.w, channels: CHANNELS };
    let bytes = (0..span.batch * samples.len()).map(|_| rng.below(256) as u8).collect();
    // Uniform bytes become values of deviation 1, and so do their weighted sums.
    let even = vec![0.5; CHANNELS];
    let normalisation = Normalisation { full_scale: 255.0, mean: even, deviation: vec![0.29; CHANNELS] };
    let bound = deviation * (3.0 / conv.fan_in() as f64).sqrt();
    let values: Vec<f32> =
        (0..volume.c * conv.fan_in()).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
    let mut set = backend.set(bytes, samples, &normalisation, span.batch)?;
    let mut batch = backend.batch(span.batch, 1)?;
    let (indices, labels): (Vec<u32>, _) = ((0..span.batch as u32).collect(), vec![0; span.batch]);
    backend.write_batch(&mut batch, &mut set, &Step::evaluate(&indices, &labels))?;
    let mut gathered = backend.samples(span, input)?;
    backend.input(&set, &batch, &Augmentation::default(), &mut gathered)?;
    backend.release_batch(&mut batch, &mut set)?;
    let weight = backend.weight(&conv, &values)?;
    let mut packed = backend.packed(&conv)?;
    backend.pack_weight(&conv, &weight, &mut packed, false)?;
    let bias = backend.vector(&vec![0.0; volume.c])?;
    let mut out = backend.activations(span, volume)?;
    let weights = Weights { value: &weight, packed: &packed };
    backend.conv_current(&conv, span, Input::Dense(&gathered), weights, &bias, &mut out)?;
    // The tensors that made it go away when this returns.
    backend.read_tally(&backend.tally()?)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    #[test]
    fn a_small_shape_answers_all_three_questions() {
        let shape = LayerShape { span: Span { batch: 5, steps: 3 }, volume: Volume { h: 6, w: 7, c: 33 } };
        let mut cases = 0;
        for wanted in [0.02, 0.2, 0.5] {
            let costs = operation_costs(&Cpu, shape, wanted, &AtomicBool::new(false)).unwrap().unwrap();
            assert!((costs.firing_rate - wanted).abs() < 0.2 * wanted, "{costs:?}");
            assert!(costs.inside > 0.0 && costs.inside < 0.7, "{costs:?}");
            let names = |costs: &[Cost]| costs.iter().map(|cost| cost.name.clone()).collect::<Vec<_>>().join(" ");
            assert_eq!(names(&costs.slopes), "adali sigmoid arctan triangle");
            assert_eq!((names(&costs.saved), names(&costs.histogram)), ("currents bits".into(), "without with".into()));
            for all in [&costs.slopes, &costs.saved, &costs.histogram] {
                assert_eq!(all[0].ratio, Timing { median: 1.0, min: 1.0, max: 1.0 });
                assert!(all.iter().all(|cost| cost.seconds.min > 0.0 && cost.seconds.max >= cost.seconds.median));
                cases += all.len();
            }
            assert!(costs.saved[1].bytes.unwrap() < 0.25 * costs.saved[0].bytes.unwrap());
        }
        assert_eq!(cases, 24);
    }
}
