//! Random tensors of a layer, at a firing rate that is aimed at and measured. No device has a special way of making them:
//! currents are a convolution of random samples.

use super::shape::LayerShape;
use crate::backend::shape::{Conv, Extent, InputKind, Span, Volume};
use crate::backend::{
    Affine, Backend, Input, Neurons, NormGradient, NormState, Normalisation, SpikeOutput, Step, Weights,
};
use crate::data::SampleShape;
use crate::data::sampling::{Augmentation, CounterRng};
use crate::neuron::{Neuron, NeuronSpec};
use crate::surrogate::{Bounds, Surrogate, SurrogateKind};
use anyhow::Result;
use half::bf16;

/// Channels of the samples that currents are made of.
const CHANNELS: usize = 2;
/// Samples in which the firing rate is looked for.
const LOOK: usize = 4;
/// What currents are scaled by.
const SCALE: f32 = 2.0;
/// AdaLi's window.
pub const BOUNDS: Bounds = Bounds::RECTANGLE;

/// A layer's neurons: what enters them, what they do, and the gradients.
pub struct Activity<B: Backend> {
    pub span: Span,
    pub volume: Volume,
    pub currents: B::Floats,
    /// As if a batch norm had found mean 0 and variance 1, with gain 2 and a bias that sets the firing rate.
    pub norm: NormState<B::Floats>,
    /// That bias.
    pub shift: f32,
    pub bounds: B::Windows,
    pub spikes: B::Bits,
    pub windows: B::Bits,
    /// Of the spikes.
    pub gradient: B::Floats,
    /// Of the currents.
    pub currents_grad: B::Floats,
    /// Of the norm.
    pub gain_grad: B::Floats,
    pub bias_grad: B::Floats,
    pub norm_grad: NormGradient<B::Floats>,
    pub counts: B::Counts,
    /// Measured share of neuron-steps that spike.
    pub rate: f64,
}

/// The neuron that is measured where none is asked for: LIF with soft attached reset.
pub fn usual_neuron() -> Neuron {
    NeuronSpec::default().neuron().expect("the usual neuron is sound")
}

impl<B: Backend> Activity<B> {
    /// Neurons of which about the share `rate` spikes: found by trying, or with the shift that was found before.
    pub fn new(backend: &B, span: Span, volume: Volume, rate: f64, shift: Option<f32>, seed: u64) -> Result<Self> {
        let vector = |value: f32| backend.vector(&vec![value; volume.c]);
        let mut activity = Self {
            span,
            volume,
            currents: random(backend, span, volume, 1.0, 2 * seed)?,
            norm: NormState {
                mean: vector(0.0)?,
                inverse_deviation: vector(1.0)?,
                scale: vector(SCALE)?,
                shift: vector(0.0)?,
            },
            shift: 0.0,
            bounds: backend.windows(&[BOUNDS], usual_neuron().threshold)?,
            spikes: backend.spikes(span, volume)?,
            windows: backend.spikes(span, volume)?,
            gradient: random(backend, span, volume, 1e-3, 2 * seed + 1)?,
            currents_grad: backend.activations(span, volume)?,
            gain_grad: vector(0.0)?,
            bias_grad: vector(0.0)?,
            norm_grad: NormGradient { of_gradient: vector(0.0)?, of_current: vector(0.0)?, constant: vector(0.0)? },
            counts: backend.counts(1)?,
            rate: 0.0,
        };
        match shift {
            Some(shift) => activity.set_shift(backend, shift)?,
            None => activity.aim(backend, rate)?,
        }
        activity.fire(backend, usual_neuron(), false)?;
        activity.rate = share(&backend.read_spikes(&activity.spikes, span, volume)?);
        Ok(activity)
    }

    /// Factor and summand of every current.
    pub fn affine(&self) -> [f32; 2] {
        [SCALE, self.shift]
    }

    /// Runs neurons, which leave spikes and windows and, where wanted, their counts.
    pub fn fire(&mut self, backend: &B, neuron: Neuron, histogram: bool) -> Result<()> {
        let Self { span, volume, currents, norm, bounds, spikes, windows, counts, .. } = self;
        let neurons = Neurons { neuron, surrogate: Surrogate::new(SurrogateKind::Adali), bounds: &*bounds };
        let affine = Affine { scale: &norm.scale, shift: &norm.shift };
        let out =
            SpikeOutput { spikes, windows: Some(windows), membrane: None, histogram: histogram.then_some(counts) };
        backend.norm_lif_forward(*volume, *span, currents, span.steps, affine, &neurons, out)
    }

    fn set_shift(&mut self, backend: &B, shift: f32) -> Result<()> {
        self.shift = shift;
        backend.write_vector(&mut self.norm.shift, &vec![shift; self.volume.c])
    }

    /// Moves the shift until about this share of the first samples' neuron-steps spikes.
    fn aim(&mut self, backend: &B, rate: f64) -> Result<()> {
        let whole = self.span;
        self.span.batch = whole.batch.min(LOOK);
        let (mut low, mut high) = (-20.0f32, 20.0f32);
        for _ in 0..14 {
            let middle = low.midpoint(high);
            self.set_shift(backend, middle)?;
            self.fire(backend, usual_neuron(), false)?;
            let spikes = backend.read_spikes(&self.spikes, self.span, self.volume)?;
            if share(&spikes) < rate { low = middle } else { high = middle }
        }
        self.span = whole;
        Ok(())
    }
}

/// Share of bits that are set.
pub fn share(bits: &[u8]) -> f64 {
    bits.iter().filter(|&&bit| bit != 0).count() as f64 / bits.len().max(1) as f64
}

/// A convolution that reads the spikes of one layer and makes the currents of another.
pub struct Synapses<B: Backend> {
    pub conv: Conv,
    pub below: Activity<B>,
    /// `[K, C, R, S]`, each a bf16 number, so that products with spikes are exact on every device.
    pub values: Vec<f32>,
    pub weight: B::Floats,
    pub packed: B::Packed,
    /// [`BIAS`] everywhere, 0 everywhere, and a gain of 1.
    pub bias: B::Floats,
    pub no_bias: B::Floats,
    pub gain: B::Floats,
    pub weight_grad: B::Floats,
    /// What a weight norm makes of the weight.
    pub effective: B::Floats,
    /// Running mean and variance, and what a batch norm finds.
    pub running: [B::Floats; 2],
    pub state: NormState<B::Floats>,
}

/// Of every filter.
pub const BIAS: f32 = 0.5;

/// A layer, with the convolution where that is measured.
pub struct Layer<B: Backend> {
    pub shape: LayerShape,
    pub neurons: Activity<B>,
    pub synapses: Option<Synapses<B>>,
    /// Spikes behind a pool or a dropout, and dense means.
    pub pooled: B::Bits,
    pub means: B::Floats,
}

/// Shifts of a layer's currents that give a firing rate: those of its neurons and of the neurons below.
pub type Shifts = [f32; 2];

impl<B: Backend> Layer<B> {
    /// A layer drawn from `seed`, its firing rate as in [`Activity::new`].
    pub fn new(
        backend: &B,
        shape: LayerShape,
        synapses: bool,
        rate: f64,
        shifts: Option<Shifts>,
        seed: u64,
    ) -> Result<Self> {
        let volume = shape.neurons();
        let neurons = Activity::new(backend, shape.span, volume, rate, shifts.map(|shifts| shifts[0]), 2 * seed)?;
        let synapses = synapses.then(|| Synapses::new(backend, shape, rate, shifts, seed)).transpose()?;
        Ok(Self {
            shape,
            neurons,
            synapses,
            pooled: backend.spikes(shape.span, volume)?,
            means: backend.activations(shape.span, volume)?,
        })
    }

    /// For further layers of the same shape.
    pub fn shifts(&self) -> Shifts {
        [self.neurons.shift, self.synapses.as_ref().map_or(0.0, |synapses| synapses.below.shift)]
    }
}

impl<B: Backend> Synapses<B> {
    fn new(backend: &B, shape: LayerShape, rate: f64, shifts: Option<Shifts>, seed: u64) -> Result<Self> {
        let conv = shape.convolution();
        let below =
            Activity::new(backend, shape.span, shape.input, rate, shifts.map(|shifts| shifts[1]), 2 * seed + 1)?;
        // Currents of deviation 1.
        let bound = (3.0 / (conv.fan_in() as f64 * rate)).sqrt();
        let mut rng = CounterRng::new(seed, 1);
        let mut value = || bf16::from_f64((2.0 * rng.uniform() - 1.0) * bound).to_f32();
        let values: Vec<f32> = (0..conv.output.c * conv.fan_in()).map(|_| value()).collect();
        let weight = backend.weight(&conv, &values)?;
        let mut packed = backend.packed(&conv)?;
        backend.pack_weight(&conv, &weight, &mut packed, true)?;
        let channels = |value: f32| backend.vector(&vec![value; conv.output.c]);
        Ok(Self {
            conv,
            below,
            weight,
            packed,
            bias: channels(BIAS)?,
            no_bias: channels(0.0)?,
            gain: channels(1.0)?,
            weight_grad: backend.weight(&conv, &values)?,
            effective: backend.weight(&conv, &values)?,
            running: [channels(0.0)?, channels(1.0)?],
            state: NormState {
                mean: channels(0.0)?,
                inverse_deviation: channels(0.0)?,
                scale: channels(0.0)?,
                shift: channels(0.0)?,
            },
            values,
        })
    }
}

/// Random values around 0 whose deviation is about `deviation`: a convolution of random samples, which every device has.
pub fn random<B: Backend>(backend: &B, span: Span, volume: Volume, deviation: f64, seed: u64) -> Result<B::Floats> {
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
    let bytes: Vec<u8> = (0..span.batch * samples.len()).map(|_| rng.below(256) as u8).collect();
    // Uniform bytes become values of deviation 1, and so do their weighted sums.
    let even = vec![0.5; CHANNELS];
    let normalisation = Normalisation { full_scale: 255.0, mean: even, deviation: vec![0.29; CHANNELS] };
    let bound = deviation * (3.0 / conv.fan_in() as f64).sqrt();
    let values: Vec<f32> =
        (0..volume.c * conv.fan_in()).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
    let mut set = backend.set(bytes.into(), samples, &normalisation, span.batch)?;
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
    backend.seconds(&mut || Ok(()))?;
    Ok(out)
}
