//! Layers as configured, one after another, become populations.

use super::{Convolution, MAX_STEPS, Population, Projection, Source, reads};
use crate::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, Volume, output_extent};
use crate::network::spec::{Combination, LayerSpec, Links, NetworkSpec, Norm, Shortcut, Synapse, Take};
use crate::{bail_input, input_error};
use anyhow::Result;
use std::collections::HashMap;

/// The most values in one activation of one sample; more than that suggests a typing error.
const MAX_VALUES: usize = 1 << 28;
/// The most shortcuts of a layer.
const MAX_SHORTCUTS: usize = 2;

/// The populations of a network, and classes and votes of its readout.
pub fn build(spec: &NetworkSpec, input: Volume, input_steps: usize) -> Result<(Vec<Population>, usize, usize)> {
    let mut builder = Builder { steps: spec.steps, input, input_steps, populations: Vec::new(), names: HashMap::new() };
    let mut readout = None;
    for (index, layer) in spec.layers.iter().enumerate() {
        if readout.is_some() {
            bail_input!("layer {index} comes after the readout, which must be the last layer");
        }
        readout = builder.add(At { index, kind: layer.kind() }, layer)?;
    }
    let (classes, vote) =
        readout.ok_or_else(|| input_error!("the network has no readout; its last layer must be one"))?;
    Ok((builder.populations, classes, vote))
}

/// A layer's place in the configuration, for messages.
#[derive(Clone, Copy)]
struct At {
    index: usize,
    kind: &'static str,
}

impl std::fmt::Display for At {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "layer {} ({})", self.index, self.kind)
    }
}

struct Builder {
    steps: usize,
    input: Volume,
    input_steps: usize,
    populations: Vec<Population>,
    names: HashMap<String, usize>,
}

/// A window as configured: kernel, stride and padding.
type Window = (Extent, Extent, Extent);

impl Builder {
    /// Adds a layer; returns classes and votes of a readout.
    fn add(&mut self, at: At, layer: &LayerSpec) -> Result<Option<(usize, usize)>> {
        match layer {
            LayerSpec::Conv { channels, kernel, stride, padding, synapse, links } => {
                let window = (*kernel, *stride, *padding);
                let source = self.source(at, links.from.as_deref())?;
                let own = self.convolution(at, at.label(), source, None, "channels", *channels, window, *synapse)?;
                self.population(at, own, links.neurons, links)?;
            }
            LayerSpec::Linear { features, synapse, links } => {
                let source = self.source(at, links.from.as_deref())?;
                let own = self.linear(at, "features", source, *features, *synapse)?;
                self.population(at, own, links.neurons, links)?;
            }
            LayerSpec::Neurons { links } => {
                let source = self.source(at, links.from.as_deref())?;
                if source == Source::Input {
                    bail_input!("{at} cannot be the first layer; begin with conv or linear");
                }
                if links.gain.is_some() {
                    bail_input!("{at} has no convolution that gain could multiply; set scale");
                }
                self.population(at, self.as_it_is(source), links.neurons, links)?;
            }
            LayerSpec::MaxPool { kernel, stride, padding } => {
                self.pool(at, PoolKind::Max, |_| (*kernel, stride.unwrap_or(*kernel), *padding))?;
            }
            LayerSpec::AvgPool { kernel, stride, padding } => {
                self.pool(at, PoolKind::Avg, |_| (*kernel, stride.unwrap_or(*kernel), *padding))?;
            }
            LayerSpec::GlobalAvgPool => {
                self.pool(at, PoolKind::Avg, |input| {
                    let all = Extent { h: input.h, w: input.w };
                    (all, all, Extent::square(0))
                })?;
            }
            LayerSpec::Dropout { probability } => {
                if !(0.0..1.0).contains(probability) {
                    bail_input!("{at}: probability {probability} must be at least 0 and below 1");
                }
                let Some(population) = self.populations.last_mut().filter(|population| population.dropout.is_none())
                else {
                    bail_input!("{at} must follow conv, linear, neurons or a pool, and only once");
                };
                if !population.spiking && population.pool.is_none() {
                    bail_input!("{at} follows a layer without neurons; put it after neurons or a pool");
                }
                population.dropout = Some(*probability);
            }
            LayerSpec::Readout { classes, spiking, vote, synapse } => {
                if *classes < 2 || *classes > u16::MAX as usize || *vote == 0 || *vote > 4096 {
                    bail_input!("{at}: classes {classes} must be 2 to 65535 and vote {vote} 1 to 4096");
                }
                if !spiking && synapse.norm == Norm::Batch {
                    bail_input!("{at}: batch norm must be followed by neurons; set spiking = true or norm = \"none\"");
                }
                let source = self.source(at, None)?;
                let own = self.linear(at, "classes x vote", source, classes * vote, *synapse)?;
                self.population(at, own, *spiking, &Links::default())?;
                return Ok(Some((*classes, *vote)));
            }
        }
        Ok(None)
    }

    /// The population of a name.
    fn named(&self, at: At, name: &str) -> Result<usize> {
        self.names.get(name).copied().ok_or_else(|| {
            let mut known: Vec<&str> = self.names.keys().map(String::as_str).collect();
            known.sort_unstable();
            let known = if known.is_empty() {
                "no layer before it has a name".into()
            } else {
                format!("layers before it are named {}", known.join(", "))
            };
            input_error!("{at}: there is no layer \"{name}\" before it; {known}")
        })
    }

    fn source(&self, at: At, from: Option<&str>) -> Result<Source> {
        Ok(match from {
            Some(name) => Source::Output(self.named(at, name)?),
            None => self.populations.len().checked_sub(1).map_or(Source::Input, Source::Output),
        })
    }

    /// Steps of what a source holds.
    fn steps_of(&self, source: Source) -> usize {
        match source {
            Source::Input => self.input_steps,
            Source::Output(i) => self.populations[i].output_steps(self.steps),
            Source::Currents(i) => self.populations[i].current_steps,
        }
    }

    fn convolution(
        &self,
        at: At,
        name: String,
        source: Source,
        pool: Option<Pool>,
        what: &str,
        channels: usize,
        (kernel, stride, padding): Window,
        synapse: Synapse,
    ) -> Result<Projection> {
        check_synapse(at, what, channels, &synapse)?;
        let (input, kind) = match pool {
            Some(pool) => (pool.output, InputKind::Dense),
            None => reads(self.input, &self.populations, source),
        };
        let output = slide(at, input, kernel, stride, padding)?;
        let conv = Conv { reads: kind, input, kernel, stride, padding, output: Volume { c: channels, ..output } };
        check_size(at, conv.output)?;
        let convolution = Convolution { name, seed: at.index as u64, conv, synapse, linear: false };
        Ok(Projection { pool, convolution: Some(convolution), ..self.as_it_is(source) })
    }

    fn linear(&self, at: At, what: &str, source: Source, features: usize, synapse: Synapse) -> Result<Projection> {
        check_synapse(at, what, features, &synapse)?;
        let (input, kind) = reads(self.input, &self.populations, source);
        let (one, none) = (Extent::square(1), Extent::square(0));
        let output = Volume { h: 1, w: 1, c: features };
        let conv =
            Conv { reads: kind, input, kernel: Extent { h: input.h, w: input.w }, stride: one, padding: none, output };
        check_size(at, Volume { h: 1, w: input.values(), c: features })?;
        let convolution = Convolution { name: at.label(), seed: at.index as u64, conv, synapse, linear: true };
        Ok(Projection { convolution: Some(convolution), ..self.as_it_is(source) })
    }

    /// A source's values without a convolution.
    fn as_it_is(&self, source: Source) -> Projection {
        Projection { source, pool: None, convolution: None, steps: self.steps_of(source), scale: 1.0, gain: None }
    }

    fn population(&mut self, at: At, own: Projection, spiking: bool, links: &Links) -> Result<()> {
        let volume = match &own.convolution {
            Some(convolution) => convolution.conv.output,
            None => reads(self.input, &self.populations, own.source).0,
        };
        let mut projections = vec![check_factors(at, Projection { scale: links.scale, gain: links.gain, ..own })?];
        if links.shortcuts.len() > MAX_SHORTCUTS {
            bail_input!("{at}: it has {} shortcuts, but at most {MAX_SHORTCUTS} can be added", links.shortcuts.len());
        }
        for (j, shortcut) in links.shortcuts.iter().enumerate() {
            let name = format!("{}.shortcuts.{j}", at.label());
            projections.push(self.shortcut(at, name, 1 + j, volume, shortcut)?);
        }
        if !(links.sum_scale > 0.0 && links.sum_scale.is_finite()) {
            bail_input!("{at}: sum_scale {} must be a finite number above 0", links.sum_scale);
        }
        if links.sum_norm == Norm::Weight {
            bail_input!("{at}: sum_norm must be \"batch\" or \"none\"; a weight norm belongs to a convolution");
        }
        if !links.neurons && (links.sum_norm, links.sum_scale, &links.combine) != (Norm::None, 1.0, &None) {
            bail_input!("{at}: sum_norm, sum_scale and combine need neurons; leave them out, or neurons = false");
        }
        let combine =
            links.combine.as_ref().map(|combine| self.combine(at, volume, combine.from.as_str(), combine.with));
        let population = Population {
            index: at.index,
            name: links.name.clone(),
            current_steps: projections.iter().map(|projection| projection.steps).max().expect("it has its own"),
            projections,
            volume,
            sum_norm: links.sum_norm,
            sum_scale: links.sum_scale,
            hands_on_currents: !links.neurons,
            spiking,
            combine: combine.transpose()?,
            pool: None,
            dropout: None,
        };
        if let Some(name) = &links.name
            && (name.is_empty() || self.names.insert(name.clone(), self.populations.len()).is_some())
        {
            bail_input!("{at}: the name \"{name}\" is empty or was given to another layer; choose another");
        }
        self.populations.push(population);
        Ok(())
    }

    fn shortcut(
        &mut self,
        at: At,
        name: String,
        number: usize,
        volume: Volume,
        shortcut: &Shortcut,
    ) -> Result<Projection> {
        let from = self.named(at, &shortcut.from)?;
        let other = &self.populations[from];
        let source = match shortcut.take {
            Take::Currents if other.spiking || other.pool.is_some() => Source::Currents(from),
            _ => Source::Output(from),
        };
        let projection = match shortcut.kernel {
            Some(kernel) => {
                let pool = shortcut.pool.map(|pool| self.pool_of_shortcut(at, source, pool)).transpose()?;
                let window = (kernel, shortcut.stride, shortcut.padding);
                let synapse = shortcut.synapse;
                let mut projection = self.convolution(at, name, source, pool, "channels", volume.c, window, synapse)?;
                if let Some(convolution) = &mut projection.convolution {
                    convolution.seed |= (number as u64) << 32;
                }
                projection
            }
            None if shortcut.pool.is_some() || shortcut.synapse != Synapse::default() || shortcut.gain.is_some() => {
                bail_input!(
                    "{at}: the shortcut from \"{}\" has keys of a convolution, but no kernel; set kernel, or leave them out",
                    shortcut.from
                )
            }
            None => self.as_it_is(source),
        };
        let adds = match &projection.convolution {
            Some(convolution) => convolution.conv.output,
            None => reads(self.input, &self.populations, source).0,
        };
        if adds != volume {
            bail_input!(
                "{at}: the shortcut from \"{}\" is {adds}, but the layer is {volume}; give the shortcut a kernel and a stride that fit",
                shortcut.from
            );
        }
        if let Source::Currents(from) = source {
            self.populations[from].hands_on_currents = true;
        }
        check_factors(at, Projection { scale: shortcut.scale, gain: shortcut.gain, ..projection })
    }

    fn pool_of_shortcut(&self, at: At, source: Source, kernel: Extent) -> Result<Pool> {
        let (input, _) = reads(self.input, &self.populations, source);
        let padding = Extent::square(0);
        let output = slide(at, input, kernel, kernel, padding)?;
        Ok(Pool { kind: PoolKind::Avg, input, kernel, stride: kernel, padding, output })
    }

    fn combine(&self, at: At, volume: Volume, from: &str, with: Combination) -> Result<(usize, Combination)> {
        let other = self.named(at, from)?;
        let (output, kind) = reads(self.input, &self.populations, Source::Output(other));
        if output != volume {
            bail_input!(
                "{at}: it is combined with \"{from}\", whose output is {output}, but its own is {volume}; they must be equal"
            );
        }
        if !self.populations[other].spiking {
            bail_input!("{at}: \"{from}\" has no neurons to combine with; name it in a shortcut");
        }
        if with != Combination::Add && kind != InputKind::Spikes {
            bail_input!(
                "{at}: only spikes can be combined by and or iand, but \"{from}\" passes on dense values; use add"
            );
        }
        if with != Combination::Add && self.populations[other].dropout.is_some() {
            bail_input!(
                "{at}: and and iand need spikes that count 1, but a dropout scales those of \"{from}\"; use add"
            );
        }
        Ok((other, with))
    }

    fn pool(&mut self, at: At, kind: PoolKind, window: impl Fn(Volume) -> Window) -> Result<()> {
        let last = self.populations.last_mut();
        let Some(population) = last.filter(|population| population.pool.is_none() && population.dropout.is_none())
        else {
            bail_input!("{at} must directly follow conv, linear or neurons");
        };
        if kind == PoolKind::Max && !population.spiking {
            bail_input!("{at} follows a layer without neurons, but takes the maximum of spikes; use avg_pool");
        }
        if kind == PoolKind::Max && population.combine.is_some() {
            bail_input!("{at} cannot follow a combination; use avg_pool, or pool before it");
        }
        let (kernel, stride, padding) = window(population.volume);
        if padding.h * 2 > kernel.h || padding.w * 2 > kernel.w {
            bail_input!("{at}: padding {padding} must be at most half the kernel {kernel}");
        }
        let input = population.volume;
        let output = slide(at, input, kernel, stride, padding)?;
        population.pool = Some(Pool { kind, input, kernel, stride, padding, output });
        Ok(())
    }
}

impl At {
    fn label(self) -> String {
        format!("layers.{}", self.index)
    }
}

impl LayerSpec {
    /// The value of its key `type`.
    fn kind(&self) -> &'static str {
        match self {
            Self::Conv { .. } => "conv",
            Self::Linear { .. } => "linear",
            Self::Neurons { .. } => "neurons",
            Self::MaxPool { .. } => "max_pool",
            Self::AvgPool { .. } => "avg_pool",
            Self::GlobalAvgPool => "global_avg_pool",
            Self::Dropout { .. } => "dropout",
            Self::Readout { .. } => "readout",
        }
    }
}

/// Refuses factors that are no numbers, and those that a batch norm makes pointless.
fn check_factors(at: At, projection: Projection) -> Result<Projection> {
    if !projection.scale.is_finite() || projection.scale == 0.0 {
        bail_input!("{at}: scale {} must be a finite number other than 0", projection.scale);
    }
    if projection.gain.is_some_and(|gain| !gain.is_finite()) {
        bail_input!("{at}: gain must be a finite number");
    }
    if projection.has_batch_norm() && !projection.is_plain() {
        bail_input!(
            "{at}: scale and gain cannot be combined with a batch norm, whose own gain does the same; use another norm"
        );
    }
    Ok(projection)
}

/// Extents after a window has slid over `input`.
fn slide(at: At, input: Volume, kernel: Extent, stride: Extent, padding: Extent) -> Result<Volume> {
    if kernel.h == 0 || kernel.w == 0 || stride.h == 0 || stride.w == 0 {
        bail_input!("{at}: kernel {kernel} and stride {stride} must be at least 1");
    }
    if padding.h > MAX_STEPS || padding.w > MAX_STEPS {
        bail_input!("{at}: padding {padding} must be at most {MAX_STEPS}");
    }
    let h = output_extent(input.h, kernel.h, stride.h, padding.h);
    let w = output_extent(input.w, kernel.w, stride.w, padding.w);
    let (Some(h), Some(w)) = (h, w) else {
        bail_input!(
            "{at}: its kernel {kernel} does not fit its input {input} with padding {padding}; use a smaller kernel, more padding, or fewer pools before it"
        );
    };
    Ok(Volume { h, w, c: input.c })
}

fn check_synapse(at: At, what: &str, filters: usize, synapse: &Synapse) -> Result<()> {
    if filters == 0 || filters > 1 << 20 {
        bail_input!("{at}: {what} {filters} must be between 1 and {}", 1 << 20);
    }
    if !(synapse.norm_gain >= 0.0 && synapse.norm_gain.is_finite()) {
        bail_input!("{at}: norm_gain {} must be a finite number, at least 0", synapse.norm_gain);
    }
    if !(synapse.weight_scale > 0.0 && synapse.weight_scale.is_finite()) {
        bail_input!("{at}: weight_scale {} must be a finite number above 0", synapse.weight_scale);
    }
    if synapse.norm == Norm::Weight && synapse.bias == Some(true) {
        bail_input!("{at}: weight norm has its own bias; leave bias out");
    }
    Ok(())
}

fn check_size(at: At, volume: Volume) -> Result<()> {
    let values = volume.h.checked_mul(volume.w).and_then(|n| n.checked_mul(volume.c));
    if values.is_none_or(|n| n > MAX_VALUES) {
        bail_input!("{at}: {volume} is more than {MAX_VALUES} values; make it smaller");
    }
    Ok(())
}
