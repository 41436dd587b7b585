//! Turns layers as configured into stages with every extent known, or into an error that names the layer.

pub use crate::backend::shape::Volume;
use crate::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, output_extent};
use crate::network::spec::{InputMode, LayerSpec, NetworkSpec, Norm, Synapse};
use crate::{bail_input, input_error};
use anyhow::Result;

/// A network with every extent known.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: usize,
    pub input: Volume,
    /// Whether the input is the same at every step.
    pub direct: bool,
    /// In order; the last one is the readout.
    pub stages: Vec<Stage>,
    pub classes: usize,
    /// Each class is the mean of this many outputs of the last stage.
    pub vote: usize,
}

/// A convolution or linear layer with everything up to the next one.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Index in the configured layers; its parameters are named `layers.{index}.…`.
    pub index: usize,
    pub conv: Conv,
    pub synapse: Synapse,
    /// Whether it was written as `linear` or `readout`: weights are then `[out, in]` in files.
    pub linear: bool,
    /// Whether neurons follow.
    pub spiking: bool,
    pub pool: Option<Pool>,
    /// Share of values zeroed after the pool.
    pub dropout: Option<f32>,
}

impl Stage {
    /// Its name in checkpoints, metrics and messages.
    pub fn name(&self) -> String {
        format!("layers.{}", self.index)
    }

    /// Whether its norm keeps running statistics.
    pub fn has_running_statistics(&self) -> bool {
        self.synapse.norm == Norm::Batch
    }

    /// Extents of the next stage's input.
    pub fn output(&self) -> Volume {
        self.pool.map_or(self.conv.output, |pool| pool.output)
    }

    /// Extents of its weight in files.
    pub fn weight_shape(&self) -> Vec<usize> {
        let conv = &self.conv;
        if self.linear {
            vec![conv.output.c, conv.fan_in()]
        } else {
            vec![conv.output.c, conv.input.c, conv.kernel.h, conv.kernel.w]
        }
    }

    /// How the next stage reads it.
    fn read_as(&self) -> InputKind {
        match self.pool {
            Some(Pool { kind: PoolKind::Avg, .. }) => InputKind::Dense,
            _ => InputKind::Spikes,
        }
    }
}

/// The most steps a network may have.
const MAX_STEPS: usize = 1024;
/// The most values in one activation of one sample; more than that suggests a typing error.
const MAX_VALUES: usize = 1 << 28;

impl Plan {
    /// Infers every extent of `spec` for samples of extent `input`.
    ///
    /// # Errors
    /// If a layer cannot follow the one before it; the message names the layer and both extents.
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
        let mut stages: Vec<Stage> = Vec::new();
        let mut readout = None;
        for (index, layer) in spec.layers.iter().enumerate() {
            if readout.is_some() {
                bail_input!("layer {index} comes after the readout, which must be the last layer");
            }
            match layer {
                LayerSpec::Conv { channels, kernel, stride, padding, synapse } => {
                    let below = reads(&stages, input);
                    stages.push(convolution(index, below, *channels, *kernel, *stride, *padding, *synapse)?);
                }
                LayerSpec::Linear { features, synapse } => {
                    stages.push(linear(index, "features", reads(&stages, input), *features, *synapse)?);
                }
                LayerSpec::MaxPool { kernel, stride, padding } => {
                    let pool = (PoolKind::Max, *kernel, stride.unwrap_or(*kernel), *padding);
                    add_pool(index, stages.last_mut(), pool)?;
                }
                LayerSpec::AvgPool { kernel, stride } => {
                    let pool = (PoolKind::Avg, *kernel, stride.unwrap_or(*kernel), Extent::square(0));
                    add_pool(index, stages.last_mut(), pool)?;
                }
                LayerSpec::Dropout { probability } => {
                    if !(0.0..1.0).contains(probability) {
                        bail_input!(
                            "layer {index} (dropout): probability {probability} must be at least 0 and below 1"
                        );
                    }
                    let Some(stage) = stages.last_mut().filter(|stage| stage.dropout.is_none()) else {
                        bail_input!("layer {index} (dropout) must follow conv, linear or a pool, and only once");
                    };
                    stage.dropout = Some(*probability);
                }
                LayerSpec::Readout { classes, spiking, vote, synapse } => {
                    if *classes < 2 || *classes > u16::MAX as usize || *vote == 0 || *vote > 4096 {
                        bail_input!(
                            "layer {index} (readout): classes {classes} must be 2 to 65535 and vote {vote} 1 to 4096"
                        );
                    }
                    let mut stage = linear(index, "classes x vote", reads(&stages, input), classes * vote, *synapse)?;
                    stage.spiking = *spiking;
                    if !spiking && synapse.norm == Norm::Batch {
                        bail_input!(
                            "layer {index} (readout): batch norm must be followed by neurons; set spiking = true or norm = \"none\""
                        );
                    }
                    stages.push(stage);
                    readout = Some((*classes, *vote));
                }
            }
        }
        let (classes, vote) =
            readout.ok_or_else(|| input_error!("the network has no readout; its last layer must be one"))?;
        Ok(Self { steps: spec.steps, input, direct: spec.input == InputMode::Direct, stages, classes, vote })
    }

    /// Steps of the currents that stage `i` computes: 1 if its input is constant, else `T`.
    pub fn current_steps(&self, i: usize) -> usize {
        if i == 0 && self.direct { 1 } else { self.steps }
    }

    /// Number of trained values.
    pub fn parameters(&self) -> usize {
        let per_stage = |stage: &Stage| {
            let filters = stage.conv.output.c;
            let vectors = stage.synapse.has_bias() as usize + 2 * (stage.synapse.norm != Norm::None) as usize;
            filters * (stage.conv.fan_in() + vectors)
        };
        self.stages.iter().map(per_stage).sum()
    }
}

/// What a new stage reads.
fn reads(stages: &[Stage], input: Volume) -> (Volume, InputKind) {
    stages.last().map_or((input, InputKind::Image), |stage| (stage.output(), stage.read_as()))
}

fn convolution(
    index: usize,
    (input, reads): (Volume, InputKind),
    channels: usize,
    kernel: Extent,
    stride: Extent,
    padding: Extent,
    synapse: Synapse,
) -> Result<Stage> {
    check_synapse(index, "conv", "channels", channels, &synapse)?;
    let output = slide(index, "conv", input, kernel, stride, padding)?;
    let conv = Conv { reads, input, kernel, stride, padding, output: Volume { c: channels, ..output } };
    check_size(index, conv.output)?;
    Ok(Stage { index, conv, synapse, linear: false, spiking: true, pool: None, dropout: None })
}

fn linear(
    index: usize,
    what: &str,
    (input, reads): (Volume, InputKind),
    features: usize,
    synapse: Synapse,
) -> Result<Stage> {
    check_synapse(index, "linear", what, features, &synapse)?;
    let kernel = Extent { h: input.h, w: input.w };
    let output = Volume { h: 1, w: 1, c: features };
    let conv = Conv { reads, input, kernel, stride: Extent::square(1), padding: Extent::square(0), output };
    check_size(index, Volume { h: 1, w: input.values(), c: features })?;
    Ok(Stage { index, conv, synapse, linear: true, spiking: true, pool: None, dropout: None })
}

fn add_pool(index: usize, below: Option<&mut Stage>, pool: (PoolKind, Extent, Extent, Extent)) -> Result<()> {
    let (kind, kernel, stride, padding) = pool;
    let name = if kind == PoolKind::Max { "max_pool" } else { "avg_pool" };
    let Some(stage) = below.filter(|stage| stage.pool.is_none() && stage.dropout.is_none()) else {
        bail_input!("layer {index} ({name}) must directly follow conv or linear");
    };
    if padding.h * 2 > kernel.h || padding.w * 2 > kernel.w {
        bail_input!("layer {index} ({name}): padding {padding} must be at most half the kernel {kernel}");
    }
    let input = stage.conv.output;
    let output = slide(index, name, input, kernel, stride, padding)?;
    stage.pool = Some(Pool { kind, input, kernel, stride, padding, output });
    Ok(())
}

/// Extents after a window has slid over `input`.
fn slide(index: usize, name: &str, input: Volume, kernel: Extent, stride: Extent, padding: Extent) -> Result<Volume> {
    if kernel.h == 0 || kernel.w == 0 || stride.h == 0 || stride.w == 0 {
        bail_input!("layer {index} ({name}): kernel {kernel} and stride {stride} must be at least 1");
    }
    if padding.h > MAX_STEPS || padding.w > MAX_STEPS {
        bail_input!("layer {index} ({name}): padding {padding} must be at most {MAX_STEPS}");
    }
    let h = output_extent(input.h, kernel.h, stride.h, padding.h);
    let w = output_extent(input.w, kernel.w, stride.w, padding.w);
    let (Some(h), Some(w)) = (h, w) else {
        bail_input!(
            "layer {index} ({name}): its kernel {kernel} does not fit its input {input} with padding {padding}; use a smaller kernel, more padding, or fewer pools before it"
        );
    };
    Ok(Volume { h, w, c: input.c })
}

fn check_synapse(index: usize, name: &str, what: &str, filters: usize, synapse: &Synapse) -> Result<()> {
    if filters == 0 || filters > 1 << 20 {
        bail_input!("layer {index} ({name}): {what} {filters} must be between 1 and {}", 1 << 20);
    }
    for (what, value) in [("norm_gain", synapse.norm_gain), ("weight_scale", synapse.weight_scale)] {
        if !(value > 0.0 && value.is_finite()) {
            bail_input!("layer {index} ({name}): {what} {value} must be a finite number above 0");
        }
    }
    if synapse.norm == Norm::Weight && synapse.bias == Some(true) {
        bail_input!("layer {index} ({name}): weight norm has its own bias; leave bias out");
    }
    Ok(())
}

fn check_size(index: usize, volume: Volume) -> Result<()> {
    let values = volume.h.checked_mul(volume.w).and_then(|n| n.checked_mul(volume.c));
    if values.is_none_or(|n| n > MAX_VALUES) {
        bail_input!("layer {index}: {volume} is more than {MAX_VALUES} values; make it smaller");
    }
    Ok(())
}
