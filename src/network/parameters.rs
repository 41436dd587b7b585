//! A stage's trained values, with their names and initial values.

use crate::backend::shape::Conv;
use crate::backend::{Backend, Trained, stream};
use crate::data::sampling::CounterRng;
use crate::host::zeros;
use crate::network::shapes::Stage;
use crate::network::spec::Norm;
use anyhow::Result;

/// A trained tensor with its gradient and the optimiser's moments, all in the same order.
pub struct Parameter<B: Backend> {
    /// Name in checkpoints, such as `layers.0.weight`.
    pub name: String,
    /// Extents in files.
    pub shape: Vec<usize>,
    /// A weight's convolution, which knows its layout.
    conv: Option<Conv>,
    pub value: B::Floats,
    pub gradient: B::Floats,
    pub first: B::Floats,
    pub second: B::Floats,
}

/// Which of a parameter's four tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Value,
    Gradient,
    /// Momentum, or Adam's first moment.
    First,
    /// Adam's second moment.
    Second,
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
            first: make(&zeros)?,
            second: make(&zeros)?,
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
            Part::First => &self.first,
            Part::Second => &self.second,
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
            Part::First => &mut self.first,
            Part::Second => &mut self.second,
        };
        match &self.conv {
            Some(conv) => backend.write_weight(conv, floats, values),
            None => backend.write_vector(floats, values),
        }
    }

    /// In the form that the optimiser takes.
    pub fn as_trained(&mut self) -> Trained<'_, B> {
        let Self { value, gradient, first, second, .. } = self;
        Trained { value, gradient, first, second }
    }
}

/// The parameters of a stage.
pub struct StageParameters<B: Backend> {
    pub weight: Parameter<B>,
    pub bias: Option<Parameter<B>>,
    pub norm: Option<NormParameters<B>>,
}

/// The parameters of a batch or weight norm; the running statistics are a batch norm's.
pub struct NormParameters<B: Backend> {
    pub gain: Parameter<B>,
    pub bias: Parameter<B>,
    pub running_mean: B::Floats,
    pub running_variance: B::Floats,
}

impl<B: Backend> StageParameters<B> {
    /// Initial values as in PyTorch's layers: weight and bias uniform in `±1/sqrt(fan_in)` (Kaiming uniform with `a =
    /// sqrt(5)`), the norm's gain as configured and its bias 0.
    pub fn new(backend: &B, stage: &Stage, seed: u64) -> Result<Self> {
        let (conv, synapse, name) = (stage.conv, &stage.synapse, stage.name());
        let filters = conv.output.c;
        let rng = CounterRng::new(seed, stream::WEIGHTS).fork(stage.index as u64);
        let bound = 1.0 / (conv.fan_in() as f64).sqrt();
        let draw = |case: u64, count: usize| -> Result<Vec<f32>> {
            let (mut rng, mut values) = (rng.fork(case), zeros(count)?);
            values.iter_mut().for_each(|value| *value = ((2.0 * rng.uniform() - 1.0) * bound) as f32);
            Ok(values)
        };
        let vector =
            |part: &str, values: &[f32]| Parameter::new(backend, format!("{name}.{part}"), vec![filters], None, values);
        let weight = draw(0, filters * conv.fan_in())?;
        Ok(Self {
            weight: Parameter::new(backend, format!("{name}.weight"), stage.weight_shape(), Some(conv), &weight)?,
            bias: if synapse.has_bias() { Some(vector("bias", &draw(1, filters)?)?) } else { None },
            norm: match synapse.norm {
                Norm::None => None,
                Norm::Batch | Norm::Weight => Some(NormParameters {
                    gain: vector("norm.weight", &vec![synapse.norm_gain; filters])?,
                    bias: vector("norm.bias", &vec![0.0; filters])?,
                    running_mean: backend.vector(&vec![0.0; filters])?,
                    running_variance: backend.vector(&vec![1.0; filters])?,
                }),
            },
        })
    }

    /// Its trained parameters in order.
    pub fn trained(&self) -> impl Iterator<Item = &Parameter<B>> {
        let norm = self.norm.iter().flat_map(|norm| [&norm.gain, &norm.bias]);
        std::iter::once(&self.weight).chain(&self.bias).chain(norm)
    }

    /// Like [`StageParameters::trained`], but mutable.
    pub fn trained_mut(&mut self) -> impl Iterator<Item = &mut Parameter<B>> {
        let norm = self.norm.iter_mut().flat_map(|norm| [&mut norm.gain, &mut norm.bias]);
        std::iter::once(&mut self.weight).chain(&mut self.bias).chain(norm)
    }
}
