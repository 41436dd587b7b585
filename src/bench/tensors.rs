//! Random tensors of a layer, at a firing rate that is targeted and measured. No device has a special way to make them:
//! currents are a convolution of random samples.

mod branches;
mod training;

use super::shape::{LayerShape, Part};
use crate::backend::shape::{Conv, Extent, InputKind, Span, Volume};
use crate::backend::{Affine, Backend, Input, Neurons, NormState, SpikeOutput, Weights};
use crate::data::sampling::Augmentation;
use crate::neuron::{Neuron, NeuronSpec};
use crate::random::CounterRng;
use crate::surrogate::{Bounds, Surrogate, SurrogateKind};
use anyhow::{Result, ensure};
pub use branches::{Branches, FACTORS};
use half::bf16;
pub use training::{Moved, NORMALISATION, SAMPLE_CHANNELS, STEP, Samples, Training, votes};

/// Samples used to adjust the firing rate.
const LOOK: usize = 4;
/// Standard deviation of the gradients.
const GRADIENT: f64 = 1e-3;
/// The scale of the currents.
const SCALE: f32 = 2.0;
/// AdaLi's window.
pub const BOUNDS: Bounds = Bounds::RECTANGLE;

/// A layer's neurons: their inputs, their outputs and the gradients.
pub struct Activity<B: Backend> {
    pub span: Span,
    pub volume: Volume,
    pub currents: B::Floats,
    /// As if a batch norm had found mean 0 and variance 1, with gain 2 and a bias that sets the firing rate.
    pub norm: NormState<B::Floats>,
    /// That bias.
    pub shift: f32,
    pub bounds: B::Bounds,
    pub spikes: B::Bits,
    pub inside: B::Bits,
    /// Gradient of the spikes.
    pub gradient: B::Floats,
    /// Gradient of the currents.
    pub currents_grad: B::Floats,
    /// Gradients of the norm.
    pub gain_grad: B::Floats,
    pub bias_grad: B::Floats,
    pub counts: B::Counts,
    /// Measured share of neuron-steps that spike.
    pub rate: f64,
}

/// The default neuron: LIF with soft attached reset.
pub fn usual_neuron() -> Neuron {
    NeuronSpec::default().neuron().expect("the usual neuron is sound")
}

impl<B: Backend> Activity<B> {
    /// Neurons about a share `rate` of which spike: found by bisection, or with the given shift.
    pub fn new(backend: &B, span: Span, volume: Volume, rate: f64, shift: Option<f32>, seed: u64) -> Result<Self> {
        let vector = |value: f32| backend.vector(&vec![value; volume.c]);
        let mut activity = Self {
            span,
            volume,
            currents: random(backend, span, volume, 1.0, 2 * seed)?,
            norm: NormState { mean: vector(0.0)?, inv_std: vector(1.0)?, scale: vector(SCALE)?, shift: vector(0.0)? },
            shift: 0.0,
            bounds: backend.bounds(&[BOUNDS], usual_neuron().threshold)?,
            spikes: backend.spikes(span, volume)?,
            inside: backend.spikes(span, volume)?,
            gradient: random(backend, span, volume, GRADIENT, 2 * seed + 1)?,
            currents_grad: backend.activations(span, volume)?,
            gain_grad: vector(0.0)?,
            bias_grad: vector(0.0)?,
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

    /// Scale and offset of every current.
    pub fn affine(&self) -> [f32; 2] {
        [SCALE, self.shift]
    }

    /// Runs the neurons, which write spikes, windows and, if requested, their counts.
    pub fn fire(&mut self, backend: &B, neuron: Neuron, histogram: bool) -> Result<()> {
        let Self { span, volume, currents, norm, bounds, spikes, inside, counts, .. } = self;
        let neurons = Neurons { neuron, surrogate: Surrogate::new(SurrogateKind::Adali), bounds: &*bounds };
        let affine = Affine { scale: &norm.scale, shift: &norm.shift };
        let out = SpikeOutput { spikes, inside: Some(inside), membrane: None, histogram: histogram.then_some(counts) };
        backend.norm_lif_forward(*volume, *span, currents, span.steps, affine, &neurons, out)
    }

    fn set_shift(&mut self, backend: &B, shift: f32) -> Result<()> {
        self.shift = shift;
        backend.write_vector(&mut self.norm.shift, &vec![shift; self.volume.c])
    }

    /// Checks that the device has drawn currents and gradients with the expected deviation and found about the right firing
    /// rate: a device that computes nothing leaves zeros, and operations on zeros give zeros.
    ///
    /// # Errors
    /// What it has drawn instead.
    fn verify(&self, backend: &B, rate: f64) -> Result<()> {
        let values = self.span.batch * self.volume.pixels() * self.volume.c;
        // Statistics of a few values differ from those of many.
        let few = 6.0 / (values as f64).sqrt();
        for (what, floats, asked) in [("currents", &self.currents, 1.0), ("gradients", &self.gradient, GRADIENT)] {
            let drawn = backend.read_activations(floats, self.span, self.volume)?;
            let square = drawn.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / drawn.len() as f64;
            let off = square.sqrt() / asked;
            ensure!(
                off.is_finite() && off > 0.0 && (off > 0.5 - few) && off < 2.0 + few,
                "the {what} were to have a deviation of {asked} and have {:.3e}: the device does not compute",
                square.sqrt()
            );
        }
        let found = self.rate;
        ensure!(
            found <= 2.0 * rate + few && found >= 0.5 * rate - few,
            "{:.1} % of the neurons' steps were to spike, and {:.1} % do: the device does not compute",
            100.0 * rate,
            100.0 * found
        );
        Ok(())
    }

    /// Adjusts the shift until about this share of the first samples' neuron-steps spike.
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

/// A convolution that reads the spikes of one layer and computes the currents of another.
pub struct Synapses<B: Backend> {
    pub conv: Conv,
    pub below: Activity<B>,
    /// `[K, C, R, S]`, each a bf16 number, so that products with spikes are exact on every device.
    pub values: Vec<f32>,
    pub weight: B::Floats,
    pub packed: B::Packed,
    /// Filled with [`BIAS`], with 0, and a gain of 1.
    pub bias: B::Floats,
    pub no_bias: B::Floats,
    pub gain: B::Floats,
    pub weight_grad: B::Floats,
    /// Gradient of an effective weight.
    pub given_grad: B::Floats,
    pub gain_grad: B::Floats,
    /// The weight after the weight norm.
    pub effective: B::Floats,
    /// Running mean and variance, and the result of a batch norm.
    pub running: [B::Floats; 2],
    pub state: NormState<B::Floats>,
}

/// The bias of every filter.
pub const BIAS: f32 = 0.5;

/// A layer, with everything else that is measured with it.
pub struct Layer<B: Backend> {
    pub shape: LayerShape,
    pub neurons: Activity<B>,
    pub synapses: Option<Synapses<B>>,
    pub training: Option<Training<B>>,
    pub branches: Option<Branches<B>>,
    /// Spikes after a pool or dropout, and dense means.
    pub pooled: B::Bits,
    pub means: B::Floats,
}

/// Shifts of currents that give a firing rate: for a layer's neurons, the neurons below, and a readout's neurons.
pub type Shifts = [f32; 3];

impl<B: Backend> Layer<B> {
    /// A layer with these parts and its neurons, drawn from `seed`, with the firing rate of [`Activity::new`].
    pub fn new(
        backend: &B,
        shape: LayerShape,
        parts: &[Part],
        rate: f64,
        shifts: Option<Shifts>,
        seed: u64,
    ) -> Result<Self> {
        let volume = shape.neurons();
        let neurons = Activity::new(backend, shape.span, volume, rate, shifts.map(|shifts| shifts[0]), 2 * seed)?;
        let has = |part: Part| parts.contains(&part);
        let synapses = has(Part::Synapses).then(|| Synapses::new(backend, shape, rate, shifts, seed)).transpose()?;
        let training = has(Part::Training).then(|| Training::new(backend, shape, rate, shifts, seed)).transpose()?;
        let branches = || Branches::new(backend, volume, backend.spikes(shape.span, volume)?);
        Ok(Self {
            shape,
            neurons,
            synapses,
            training,
            branches: has(Part::Branches).then(branches).transpose()?,
            pooled: backend.spikes(shape.span, volume)?,
            means: backend.activations(shape.span, volume)?,
        })
    }

    /// Approximate bytes of device memory for such a layer, without the per-channel values.
    pub fn size(backend: &B, shape: LayerShape, parts: &[Part]) -> usize {
        let (span, conv) = (shape.span, shape.convolution());
        let activity = |volume| 3 * backend.floats_size(span, volume) + 2 * backend.bits_size(span, volume);
        let has = |part: Part| usize::from(parts.contains(&part));
        let weight = backend.weight_size(&conv);
        let synapses = activity(shape.input) + 4 * weight + backend.packed_size(&conv);
        let training = 5 * weight + backend.samples_size(span, Volume { c: SAMPLE_CHANNELS, ..shape.neurons() });
        let neurons = activity(shape.neurons()) + 2 * backend.floats_size(span, shape.neurons());
        let branches = backend.bits_size(span, shape.neurons());
        neurons + has(Part::Synapses) * synapses + has(Part::Training) * training + has(Part::Branches) * branches
    }

    /// Checks that the device has drawn the right values, as [`Activity`] does.
    pub fn verify(&self, backend: &B, rate: f64) -> Result<()> {
        let below = self.synapses.as_ref().map(|synapses| &synapses.below);
        let readout = self.training.as_ref().map(|training| &training.spikes);
        [Some(&self.neurons), below, readout].into_iter().flatten().try_for_each(|a| a.verify(backend, rate))
    }

    /// The shifts, for further layers of the same shape.
    pub fn shifts(&self) -> Shifts {
        let below = self.synapses.as_ref().map_or(0.0, |synapses| synapses.below.shift);
        [self.neurons.shift, below, self.training.as_ref().map_or(0.0, |training| training.spikes.shift)]
    }
}

impl<B: Backend> Synapses<B> {
    fn new(backend: &B, shape: LayerShape, rate: f64, shifts: Option<Shifts>, seed: u64) -> Result<Self> {
        let conv = shape.convolution();
        let below =
            Activity::new(backend, shape.span, shape.input, rate, shifts.map(|shifts| shifts[1]), 2 * seed + 1)?;
        // Currents with deviation 1.
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
            given_grad: backend.weight(&conv, &values.iter().rev().copied().collect::<Vec<_>>())?,
            gain_grad: channels(0.0)?,
            effective: backend.weight(&conv, &values)?,
            running: [channels(0.0)?, channels(1.0)?],
            state: NormState {
                mean: channels(0.0)?,
                inv_std: channels(0.0)?,
                scale: channels(0.0)?,
                shift: channels(0.0)?,
            },
            values,
        })
    }
}

/// Writes random values with mean 0 and standard deviation `std`, nearly, to `out`: a convolution of random samples, which
/// every device has.
pub fn randomise<B: Backend>(
    backend: &B,
    span: Span,
    volume: Volume,
    std: f64,
    seed: u64,
    out: &mut B::Floats,
) -> Result<()> {
    let input = Volume { c: SAMPLE_CHANNELS, ..volume };
    // Padding would count as values of 0 where an image is one pixel wide.
    let [h, w] = [volume.h, volume.w].map(|side| if side == 1 { 1 } else { 3 });
    let conv = Conv {
        reads: InputKind::Image,
        input,
        kernel: Extent { h, w },
        stride: Extent::square(1),
        padding: Extent { h: h / 2, w: w / 2 },
        output: volume,
    };
    let Samples { mut set, mut batch, .. } = Samples::new(backend, span, volume, 1, seed)?;
    let mut gathered = backend.samples(span, input)?;
    backend.input(&set, &batch, &Augmentation::default(), &mut gathered)?;
    backend.release_batch(&mut batch, &mut set)?;
    // Normalised samples have deviation 1, and so do their weighted sums.
    let bound = std * (3.0 / conv.fan_in() as f64).sqrt();
    let mut rng = CounterRng::new(seed, 3);
    let values: Vec<f32> =
        (0..volume.c * conv.fan_in()).map(|_| ((2.0 * rng.uniform() - 1.0) * bound) as f32).collect();
    let weight = backend.weight(&conv, &values)?;
    let mut packed = backend.packed(&conv)?;
    backend.pack_weight(&conv, &weight, &mut packed, false)?;
    let bias = backend.vector(&vec![0.0; volume.c])?;
    let weights = Weights { value: &weight, packed: &packed };
    backend.conv_current(&conv, span, Input::Dense(&gathered), weights, &bias, out)?;
    // The tensors used to make it are freed on return.
    backend.seconds(&mut || Ok(())).map(drop)
}

/// The same in new activations.
pub fn random<B: Backend>(backend: &B, span: Span, volume: Volume, std: f64, seed: u64) -> Result<B::Floats> {
    let mut out = backend.activations(span, volume)?;
    randomise(backend, span, volume, std, seed, &mut out)?;
    Ok(out)
}
