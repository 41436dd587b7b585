//! What surrounds the layers of a network: samples, votes and a loss, an optimiser, bounds.

use super::{Activity, BOUNDS, Shifts, randomise, usual_neuron};
use crate::backend::shape::{Conv, Span, Volume};
use crate::backend::{Backend, Normalisation, Step, Trained};
use crate::bench::shape::LayerShape;
use crate::data::SampleShape;
use crate::data::sampling::Augmentation;
use crate::random::CounterRng;
use anyhow::Result;

/// Channels of samples, as of event frames.
pub const SAMPLE_CHANNELS: usize = 2;
/// Full scale, mean and deviation: uniform bytes get mean 0 and deviation 1.
pub const NORMALISATION: [f32; 3] = [255.0, 0.5, 0.29];
/// The step from which placements and masks are drawn, with its learning rate.
pub const STEP: Step<'static> = Step {
    samples: &[],
    labels: &[],
    seed: 7,
    epoch: 1,
    position: 1.0,
    dropout: 11,
    learning_rate: 0.01,
    count: 1,
    augmentation: Augmentation::NONE,
};

/// A data set of random samples, all of them in one batch.
pub struct Samples<B: Backend> {
    pub set: B::Set,
    pub batch: B::Batch,
    /// `[N][T][H][W][C]`.
    pub bytes: Vec<u8>,
    /// Below the number of classes.
    pub labels: Vec<u16>,
}

impl<B: Backend> Samples<B> {
    /// Samples with two channels of this many pixels at every step.
    pub fn new(backend: &B, span: Span, pixels: Volume, classes: usize, seed: u64) -> Result<Self> {
        let mut rng = CounterRng::new(seed, 0);
        let shape = SampleShape { frames: span.steps, height: pixels.h, width: pixels.w, channels: SAMPLE_CHANNELS };
        let bytes: Vec<u8> = (0..span.batch * shape.len()).map(|_| rng.below(256) as u8).collect();
        let labels: Vec<u16> = (0..span.batch).map(|_| rng.below(classes as u64) as u16).collect();
        let [full_scale, mean, std] = NORMALISATION;
        let each = |value: f32| vec![value; SAMPLE_CHANNELS];
        let normalisation = Normalisation { full_scale, mean: each(mean), std: each(std) };
        let mut set = backend.set(bytes.clone().into(), shape, &normalisation, span.batch)?;
        let mut batch = backend.batch(span.batch, 1)?;
        let samples: Vec<u32> = (0..span.batch as u32).collect();
        backend.write_batch(&mut batch, &mut set, &Step { samples: &samples, labels: &labels, ..STEP })?;
        Ok(Self { set, batch, bytes, labels })
    }
}

/// A weight that an optimiser updates.
pub struct Moved<B: Backend> {
    /// The convolution whose weight is updated.
    pub conv: Conv,
    pub start: B::Floats,
    pub value: B::Floats,
    pub gradient: B::Floats,
    pub moment1: B::Floats,
    pub moment2: B::Floats,
    pub optimizer: B::Optimizer,
}

impl<B: Backend> Moved<B> {
    fn new(backend: &B, conv: Conv, seed: u64) -> Result<Self> {
        let mut rng = CounterRng::new(seed, 2);
        let mut weight = || {
            let values: Vec<f32> =
                (0..conv.output.c * conv.fan_in()).map(|_| 2.0 * rng.uniform() as f32 - 1.0).collect();
            backend.weight(&conv, &values)
        };
        let (start, gradient) = (weight()?, weight()?);
        let [mut value, mut moment1, mut moment2] = [weight()?, weight()?, weight()?];
        let parameter =
            Trained { value: &mut value, gradient: &gradient, moment1: &mut moment1, moment2: &mut moment2 };
        let optimizer = backend.optimizer(&[parameter])?;
        Ok(Self { conv, start, value, gradient, moment1, moment2, optimizer })
    }
}

/// Outputs that vote for a class.
pub fn votes(outputs: usize) -> usize {
    if outputs.is_multiple_of(2) { 2 } else { 1 }
}

/// A readout of `K` outputs, `vote` of them per class, with its surroundings.
pub struct Training<B: Backend> {
    pub classes: usize,
    pub vote: usize,
    pub drawn: Samples<B>,
    pub samples: B::Floats,
    /// The readout's neurons.
    pub spikes: Activity<B>,
    /// Its outputs without neurons.
    pub outputs: B::Floats,
    pub logits: B::Floats,
    /// Random logits, the inputs of the loss and of the votes' backward pass.
    pub given_logits: B::Floats,
    pub logits_grad: B::Floats,
    pub tally: B::Tally,
    pub moved: Moved<B>,
    /// The first bounds of auto-init, and the moving ones.
    pub bounds: [B::Bounds; 2],
}

impl<B: Backend> Training<B> {
    /// The surroundings of a layer of this shape.
    pub fn new(backend: &B, shape: LayerShape, rate: f64, shifts: Option<Shifts>, seed: u64) -> Result<Self> {
        let (span, neurons) = (shape.span, shape.neurons());
        let vote = votes(neurons.c);
        let classes = neurons.c / vote;
        let of_channels = |c: usize| Volume { h: 1, w: 1, c };
        let (of_outputs, of_logits) = (of_channels(neurons.c), of_channels(classes));
        let readouts = |volume: Volume, seed: u64| {
            let mut out = backend.readouts(span, volume)?;
            randomise(backend, span, volume, 1.0, seed, &mut out).map(|()| out)
        };
        let windows = || backend.bounds(&[BOUNDS], usual_neuron().threshold);
        Ok(Self {
            classes,
            vote,
            drawn: Samples::new(backend, span, neurons, classes, seed)?,
            samples: backend.samples(span, Volume { c: SAMPLE_CHANNELS, ..neurons })?,
            spikes: Activity::new(backend, span, of_outputs, rate, shifts.map(|shifts| shifts[2]), seed)?,
            outputs: readouts(of_outputs, 3 * seed)?,
            logits: backend.readouts(span, of_logits)?,
            given_logits: readouts(of_logits, 3 * seed + 1)?,
            logits_grad: backend.readouts(span, of_logits)?,
            tally: backend.tally()?,
            moved: Moved::new(backend, shape.convolution(), seed)?,
            bounds: [windows()?, windows()?],
        })
    }
}
