//! A population's trained values, with their names and initial values.

use crate::backend::shape::Conv;
use crate::backend::{Backend, Trained};
use crate::host::zeros;
use crate::network::plan::{Convolution, Population, Projection};
use crate::network::spec::{Init, Norm};
use crate::random::{CounterRng, stream};
use anyhow::Result;

/// A trained tensor with its gradient and the optimiser's moments, all in the same order.
pub struct Parameter<B: Backend> {
    /// Name in checkpoints, such as `layers.0.weight`.
    pub name: String,
    /// Extents in files.
    pub shape: Vec<usize>,
    /// Whether a convolution multiplies by it as it is; a weight norm rescales its weights.
    pub is_multiplied: bool,
    /// A weight's convolution, which knows its layout.
    conv: Option<Conv>,
    pub value: B::Floats,
    pub gradient: B::Floats,
    pub moment1: B::Floats,
    pub moment2: B::Floats,
}

/// Which of a parameter's four tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Value,
    Gradient,
    /// Momentum, or Adam's first moment.
    Moment1,
    /// Adam's second moment.
    Moment2,
}

impl<B: Backend> Parameter<B> {
    fn new(backend: &B, name: String, shape: Vec<usize>, conv: Option<Conv>, values: &[f32]) -> Result<Self> {
        let make = |values: &[f32]| match &conv {
            Some(conv) => backend.weight(conv, values),
            None => backend.vector(values),
        };
        let zeros = zeros(values.len())?;
        Ok(Self {
            value: make(values)?,
            gradient: make(&zeros)?,
            moment1: make(&zeros)?,
            moment2: make(&zeros)?,
            is_multiplied: conv.is_some(),
            name,
            shape,
            conv,
        })
    }

    /// Number of values.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// One of its tensors in file order.
    pub fn read(&self, backend: &B, part: Part) -> Result<Vec<f32>> {
        let floats = match part {
            Part::Value => &self.value,
            Part::Gradient => &self.gradient,
            Part::Moment1 => &self.moment1,
            Part::Moment2 => &self.moment2,
        };
        match &self.conv {
            Some(conv) => backend.read_weight(conv, floats),
            None => backend.read_vector(floats, self.count()),
        }
    }

    /// Whether it is the weight of a convolution.
    pub fn is_weight(&self) -> bool {
        self.conv.is_some()
    }

    /// Replaces one of its tensors by values in file order.
    pub fn write(&mut self, backend: &B, part: Part, values: &[f32]) -> Result<()> {
        debug_assert_eq!(values.len(), self.count());
        let floats = match part {
            Part::Value => &mut self.value,
            Part::Gradient => &mut self.gradient,
            Part::Moment1 => &mut self.moment1,
            Part::Moment2 => &mut self.moment2,
        };
        match &self.conv {
            Some(conv) => backend.write_weight(conv, floats, values),
            None => backend.write_vector(floats, values),
        }
    }

    /// In the form that the optimiser takes.
    pub fn as_trained(&mut self) -> Trained<'_, B> {
        let Self { value, gradient, moment1, moment2, .. } = self;
        Trained { value, gradient, moment1, moment2 }
    }
}

/// The parameters of a population.
pub struct PopulationParameters<B: Backend> {
    pub projections: Vec<ProjectionParameters<B>>,
    /// Of the sum.
    pub sum_norm: Option<NormParameters<B>>,
}

/// The parameters of a projection.
pub struct ProjectionParameters<B: Backend> {
    pub synapses: Option<SynapseParameters<B>>,
    /// A learned factor.
    pub gain: Option<Parameter<B>>,
}

/// The parameters of a convolution or linear layer.
pub struct SynapseParameters<B: Backend> {
    pub weight: Parameter<B>,
    pub bias: Option<Parameter<B>>,
    pub norm: Option<NormParameters<B>>,
}

/// The parameters of a batch or weight norm.
pub struct NormParameters<B: Backend> {
    /// Before the names of its tensors.
    pub name: String,
    pub gain: Parameter<B>,
    pub bias: Parameter<B>,
    /// A batch norm's.
    pub running: Option<Running<B>>,
}

/// A batch norm's running statistics.
pub struct Running<B: Backend> {
    pub mean: B::Floats,
    pub variance: B::Floats,
}

impl<B: Backend> NormParameters<B> {
    /// A norm over `channels` that begins with this gain and a bias of 0.
    fn new(backend: &B, name: String, channels: usize, gain: f32, running: bool) -> Result<Self> {
        let vector = |part: &str, value: f32| {
            Parameter::new(backend, format!("{name}.{part}"), vec![channels], None, &vec![value; channels])
        };
        let (gain, bias) = (vector("weight", gain)?, vector("bias", 0.0)?);
        let statistic = |value: f32| backend.vector(&vec![value; channels]);
        let running =
            running.then(|| Ok::<_, anyhow::Error>(Running { mean: statistic(0.0)?, variance: statistic(1.0)? }));
        Ok(Self { gain, bias, running: running.transpose()?, name })
    }

    /// Number of channels.
    pub fn channels(&self) -> usize {
        self.gain.count()
    }
}

impl<B: Backend> SynapseParameters<B> {
    /// First values as [`Init`] says.
    fn new(backend: &B, convolution: &Convolution, seed: u64) -> Result<Self> {
        let Convolution { conv, synapse, name, .. } = convolution;
        let filters = conv.output.c;
        let rng = CounterRng::new(seed, stream::WEIGHTS).fork(convolution.seed);
        let bound = 1.0 / (conv.fan_in() as f64).sqrt();
        let fan_out = (conv.kernel.h * conv.kernel.w * filters) as f64;
        let draw = |case: u64, count: usize, init: Init| -> Result<Vec<f32>> {
            let (mut rng, mut values) = (rng.fork(case), zeros(count)?);
            values.iter_mut().for_each(|x| {
                let value = match init {
                    Init::Pytorch => (2.0 * rng.uniform() - 1.0) * bound,
                    Init::FanOut => rng.normal_pair()[0] * (2.0 / fan_out).sqrt(),
                    Init::FanIn => rng.normal_pair()[0] / conv.fan_in() as f64,
                    Init::Small => rng.normal_pair()[0] * 0.01,
                    Init::Zeros => 0.0,
                };
                *x = value as f32;
            });
            Ok(values)
        };
        let weight = draw(0, filters * conv.fan_in(), synapse.init)?;
        let of_bias = if matches!(synapse.init, Init::Small | Init::Zeros) { Init::Zeros } else { Init::Pytorch };
        let bias = |values: &[f32]| Parameter::new(backend, format!("{name}.bias"), vec![filters], None, values);
        let norm =
            |running: bool| NormParameters::new(backend, format!("{name}.norm"), filters, synapse.norm_gain, running);
        let weight =
            Parameter::new(backend, format!("{name}.weight"), convolution.weight_shape(), Some(*conv), &weight)?;
        Ok(Self {
            weight: Parameter { is_multiplied: synapse.norm != Norm::Weight, ..weight },
            bias: if synapse.has_bias() { Some(bias(&draw(1, filters, of_bias)?)?) } else { None },
            norm: match synapse.norm {
                Norm::None => None,
                norm_kind => Some(norm(norm_kind == Norm::Batch)?),
            },
        })
    }

    /// The bias that the convolution adds: its own, or that of a weight norm.
    pub fn bias(&self) -> Option<&Parameter<B>> {
        let of_norm = self.norm.as_ref().filter(|norm| norm.running.is_none()).map(|norm| &norm.bias);
        self.bias.as_ref().or(of_norm)
    }

    /// Like [`SynapseParameters::bias`], but mutable.
    pub fn bias_mut(&mut self) -> Option<&mut Parameter<B>> {
        let of_norm = self.norm.as_mut().filter(|norm| norm.running.is_none()).map(|norm| &mut norm.bias);
        self.bias.as_mut().or(of_norm)
    }
}

impl<B: Backend> PopulationParameters<B> {
    /// With their first values.
    pub fn new(backend: &B, population: &Population, seed: u64) -> Result<Self> {
        let label = population.label();
        let gain = |name: &str, value| Parameter::new(backend, format!("{name}.gain"), vec![1], None, &[value]);
        let projection = |projection: &Projection| {
            let convolution = projection.convolution.as_ref();
            let name = convolution.map_or(label.as_str(), |convolution| &convolution.name);
            Ok(ProjectionParameters {
                synapses: convolution.map(|c| SynapseParameters::new(backend, c, seed)).transpose()?,
                gain: projection.gain.map(|value| gain(name, value)).transpose()?,
            })
        };
        let sum_norm = population.sum_norm == Norm::Batch;
        let sum_norm =
            sum_norm.then(|| NormParameters::new(backend, format!("{label}.sum_norm"), population.volume.c, 1.0, true));
        Ok(Self {
            projections: population.projections.iter().map(projection).collect::<Result<_>>()?,
            sum_norm: sum_norm.transpose()?,
        })
    }

    /// All that is trained, in order.
    pub fn trained(&self) -> impl Iterator<Item = &Parameter<B>> {
        let projections = self.projections.iter().flat_map(|projection| {
            let synapses = projection.synapses.iter().flat_map(|s| {
                let norm = s.norm.iter().flat_map(|n| [&n.gain, &n.bias]);
                std::iter::once(&s.weight).chain(&s.bias).chain(norm)
            });
            synapses.chain(&projection.gain)
        });
        projections.chain(self.sum_norm.iter().flat_map(|n| [&n.gain, &n.bias]))
    }

    /// Like [`PopulationParameters::trained`], but mutable.
    pub fn trained_mut(&mut self) -> impl Iterator<Item = &mut Parameter<B>> {
        let projections = self.projections.iter_mut().flat_map(|projection| {
            let synapses = projection.synapses.iter_mut().flat_map(|s| {
                let norm = s.norm.iter_mut().flat_map(|n| [&mut n.gain, &mut n.bias]);
                std::iter::once(&mut s.weight).chain(&mut s.bias).chain(norm)
            });
            synapses.chain(&mut projection.gain)
        });
        projections.chain(self.sum_norm.iter_mut().flat_map(|n| [&mut n.gain, &mut n.bias]))
    }

    /// Every convolution's parameters, in order.
    pub fn synapses(&self) -> impl Iterator<Item = &SynapseParameters<B>> {
        self.projections.iter().filter_map(|projection| projection.synapses.as_ref())
    }

    /// Like [`PopulationParameters::synapses`], but mutable.
    pub fn synapses_mut(&mut self) -> impl Iterator<Item = &mut SynapseParameters<B>> {
        self.projections.iter_mut().filter_map(|projection| projection.synapses.as_mut())
    }

    /// The batch norms, in order.
    pub fn batch_norms(&self) -> impl Iterator<Item = &NormParameters<B>> {
        self.synapses().filter_map(|s| s.norm.as_ref()).chain(&self.sum_norm).filter(|norm| norm.running.is_some())
    }

    /// Like [`PopulationParameters::batch_norms`], but mutable.
    pub fn batch_norms_mut(&mut self) -> impl Iterator<Item = &mut NormParameters<B>> {
        let synapses = self.projections.iter_mut().filter_map(|projection| projection.synapses.as_mut());
        synapses.filter_map(|s| s.norm.as_mut()).chain(&mut self.sum_norm).filter(|norm| norm.running.is_some())
    }
}
