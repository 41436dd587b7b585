//! Turns layers as configured into populations and projections with every extent known, or into an error that names the
//! layer.
//!
//! A population of neurons receives the sum of one or more projections. Each projection comes from the input or from a
//! population before it.

mod builder;
#[cfg(test)]
mod tests;

pub use crate::backend::shape::Volume;
use crate::backend::shape::{Conv, InputKind, Pool, PoolKind};
use crate::bail_input;
use crate::network::spec::{Combination, InputMode, NetworkSpec, Norm, Synapse};
use anyhow::Result;

/// A network with every extent known.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: usize,
    pub input: Volume,
    /// Whether the input is the same at every step.
    pub direct: bool,
    /// Steps of the input: 1 if it is the same at every step.
    pub input_steps: usize,
    /// In order; the last one is the readout.
    pub populations: Vec<Population>,
    pub classes: usize,
    /// Each class is the mean of this many outputs of the last population.
    pub vote: usize,
    /// Whether currents are computed again in the backward pass instead of kept; the results are the same.
    pub recompute: bool,
}

/// What is summed, the neurons that receive the sum, and what is done to their spikes; or to the sum, if it has no neurons.
#[derive(Clone, Debug)]
pub struct Population {
    /// Index of its layer in the configuration.
    pub index: usize,
    /// Its name in the configuration, if it has one.
    pub name: Option<String>,
    /// 1 to 3; the first is the layer's own convolution, or what a layer of neurons alone reads.
    pub projections: Vec<Projection>,
    /// Of the summed currents.
    pub volume: Volume,
    /// Steps of the summed currents: 1 if they are the same at every step.
    pub current_steps: usize,
    pub sum_norm: Norm,
    pub sum_scale: f32,
    /// Whether other populations read its summed currents.
    pub hands_on_currents: bool,
    /// Whether it has neurons.
    pub spiking: bool,
    /// The population whose output is combined with its spikes.
    pub combine: Option<(usize, Combination)>,
    pub pool: Option<Pool>,
    /// Share of values zeroed after the pool.
    pub dropout: Option<f32>,
}

/// One summand of a population's currents.
#[derive(Clone, Debug)]
pub struct Projection {
    pub source: Source,
    /// An average pool of the source, before the convolution.
    pub pool: Option<Pool>,
    /// `None`: the source's values as they are.
    pub convolution: Option<Convolution>,
    /// Steps of its currents.
    pub steps: usize,
    /// Constant factor.
    pub scale: f32,
    /// The first value of a learned factor.
    pub gain: Option<f32>,
}

/// What a projection reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Input,
    /// A population's output.
    Output(usize),
    /// A population's summed currents.
    Currents(usize),
}

/// A convolution or linear layer with its norm.
#[derive(Clone, Debug)]
pub struct Convolution {
    /// In checkpoints and messages.
    pub name: String,
    /// Decides its first values.
    pub seed: u64,
    pub conv: Conv,
    pub synapse: Synapse,
    /// Whether it was written as `linear` or `readout`: weights are then `[out, in]` in files.
    pub linear: bool,
}

impl Convolution {
    /// Extents of its weight in files.
    pub fn weight_shape(&self) -> Vec<usize> {
        let conv = &self.conv;
        if self.linear {
            vec![conv.output.c, conv.fan_in()]
        } else {
            vec![conv.output.c, conv.input.c, conv.kernel.h, conv.kernel.w]
        }
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        let vectors = self.synapse.has_bias() as usize + 2 * (self.synapse.norm != Norm::None) as usize;
        self.conv.output.c * (self.conv.fan_in() + vectors)
    }
}

impl Projection {
    /// Whether its convolution ends in a batch norm.
    pub fn has_batch_norm(&self) -> bool {
        self.convolution.as_ref().is_some_and(|convolution| convolution.synapse.norm == Norm::Batch)
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        usize::from(self.gain.is_some()) + self.convolution.as_ref().map_or(0, Convolution::parameters)
    }

    /// Whether nothing multiplies it.
    pub fn is_plain(&self) -> bool {
        self.scale == 1.0 && self.gain.is_none()
    }
}

impl Population {
    /// Its name in checkpoints, metrics and messages.
    pub fn label(&self) -> String {
        format!("layers.{}", self.index)
    }

    /// Whether it is a readout without neurons.
    pub fn is_linear_readout(&self) -> bool {
        !self.spiking && !self.hands_on_currents
    }

    /// Whether the convolution's output is all that its neurons receive, so that both can be one operation.
    pub fn is_single(&self) -> bool {
        self.projections.len() == 1
            && self.projections[0].convolution.is_some()
            && self.projections[0].is_plain()
            && !self.hands_on_currents
            && self.sum_norm == Norm::None
    }

    /// Whether a batch norm lies directly before the neurons: that of the sum, or of a single convolution.
    pub fn has_batch_norm(&self) -> bool {
        self.sum_norm == Norm::Batch || self.is_single() && self.projections[0].has_batch_norm()
    }

    /// Whether its output is dense: currents, counts, or the means of an average pool.
    pub fn is_dense(&self) -> bool {
        !self.spiking
            || matches!(self.combine, Some((_, Combination::Add)))
            || self.pool.is_some_and(|pool| pool.kind == PoolKind::Avg)
    }

    /// Steps of its output in a network of `steps` steps.
    pub fn output_steps(&self, steps: usize) -> usize {
        if self.spiking { steps } else { self.current_steps }
    }

    /// Extents of its output.
    pub fn output(&self) -> Volume {
        self.pool.map_or(self.volume, |pool| pool.output)
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        let of_norm = if self.sum_norm == Norm::Batch { 2 * self.volume.c } else { 0 };
        of_norm + self.projections.iter().map(Projection::parameters).sum::<usize>()
    }
}

/// The most steps a network may have.
const MAX_STEPS: usize = 1024;

impl Plan {
    /// Infers every extent of `spec` for samples of extent `input`.
    ///
    /// # Errors
    /// If a layer cannot follow the one before it, or what it adds does not fit; the message names the layer and both extents.
    pub fn new(spec: &NetworkSpec, input: Volume) -> Result<Self> {
        spec.neuron.neuron()?;
        if spec.steps == 0 || spec.steps > MAX_STEPS {
            bail_input!("steps {} must be between 1 and {MAX_STEPS}", spec.steps);
        }
        if let Some(k) = spec.surrogate.sharpness
            && !(k > 0.0 && k.is_finite())
        {
            bail_input!("surrogate sharpness {k} must be a finite number above 0");
        }
        if input.values() == 0 {
            bail_input!("input {input} is empty");
        }
        let direct = spec.input == InputMode::Direct;
        let input_steps = if direct { 1 } else { spec.steps };
        let (populations, classes, vote) = builder::build(spec, input, input_steps)?;
        let plan = Self { steps: spec.steps, input, direct, input_steps, populations, classes, vote, recompute: false };
        plan.check_readers()?;
        Ok(plan)
    }

    /// Every population but the readout must be read: otherwise its neurons have no effect.
    fn check_readers(&self) -> Result<()> {
        for (i, population) in self.populations.iter().enumerate().rev().skip(1) {
            if self.readers(i) == 0 {
                bail_input!(
                    "layer {}: no layer reads its output; remove it, or name it in from = of a later layer",
                    population.index
                );
            }
        }
        Ok(())
    }

    /// How many projections and combinations read a population's output.
    pub fn readers(&self, i: usize) -> usize {
        let reads = |p: &Population| {
            let projections = p.projections.iter().filter(|projection| projection.source == Source::Output(i)).count();
            projections + usize::from(p.combine.is_some_and(|(other, _)| other == i))
        };
        self.populations[i + 1..].iter().map(reads).sum()
    }

    /// Every convolution, in order.
    pub fn convolutions(&self) -> impl Iterator<Item = &Convolution> {
        self.populations.iter().flat_map(|p| &p.projections).filter_map(|projection| projection.convolution.as_ref())
    }

    /// Extents and kind of what a projection reads, before a pool of its own.
    pub fn reads(&self, source: Source) -> (Volume, InputKind) {
        reads(self.input, &self.populations, source)
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        self.populations.iter().map(Population::parameters).sum()
    }
}

fn reads(input: Volume, populations: &[Population], source: Source) -> (Volume, InputKind) {
    match source {
        Source::Input => (input, InputKind::Image),
        Source::Output(i) => {
            let population = &populations[i];
            (population.output(), if population.is_dense() { InputKind::Dense } else { InputKind::Spikes })
        }
        Source::Currents(i) => (populations[i].volume, InputKind::Dense),
    }
}
