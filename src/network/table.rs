//! What a network takes, layer by layer: trained values, arithmetic, and memory for the backward pass.
//!
//! Arithmetic is that of one sample over all steps; a convolution of an input that is the same at every step counts once.

use crate::backend::shape::{Extent, InputKind, Pool, PoolKind, Span, Volume};
use crate::backend::{Backend, bits_suffice};
use crate::network::model::memory::Memory;
use crate::network::plan::{Convolution, Plan, Population, Projection, Source};
use crate::network::spec::{Combination, NetworkSpec, Norm};
use crate::surrogate::{Surrogate, SurrogateKind};
use anyhow::Result;
use serde::Serialize;

/// A network in figures.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Table {
    pub layers: Vec<Layer>,
    /// Of all layers.
    pub work: Work,
    /// Of all layers.
    pub kept_bytes: Kept,
}

/// A population with what it receives and what is done to its spikes.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Layer {
    /// Its name in checkpoints, such as `layers.3`.
    pub layer: String,
    /// Its name in the configuration, if it has one.
    pub name: Option<String>,
    /// 0 for a layer without neurons.
    pub neurons: usize,
    pub kept_bytes: Kept,
    /// In order; the first is its own convolution, or what it reads as it is.
    pub parts: Vec<Part>,
}

/// A convolution, a norm, a combination, a pool or a dropout.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Part {
    /// Such as `+ conv 1x1/2 of stage1.2`.
    pub what: String,
    /// The layer, or the input, that it reads, if it is a projection or a combination.
    pub from: Option<String>,
    /// Height, width, channels.
    pub output: [usize; 3],
    #[serde(flatten)]
    pub work: Work,
}

/// What a part computes with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Work {
    /// Trained values.
    pub parameters: usize,
    /// Of convolutions, also where an input is 0.
    pub multiply_adds: u64,
    /// Additions of weights for the spikes that are expected, and all multiply-adds where a convolution reads the image or
    /// dense values.
    pub synaptic_operations: f64,
}

/// Bytes that the forward pass of one sample leaves for the backward pass and for other layers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// With AdaLi, whose bits suffice unless the neurons have a hard reset that is not detached.
    pub adali: usize,
    /// With a slope that needs the membranes.
    pub membranes: usize,
}

impl std::ops::AddAssign for Work {
    fn add_assign(&mut self, other: Self) {
        self.parameters += other.parameters;
        self.multiply_adds = self.multiply_adds.saturating_add(other.multiply_adds);
        self.synaptic_operations += other.synaptic_operations;
    }
}

impl Table {
    /// The network of `spec` and its `plan` on `backend`, where a share `rate` of spikes is 1.
    ///
    /// # Errors
    /// If the neurons cannot be used.
    pub fn new<B: Backend>(backend: &B, spec: &NetworkSpec, plan: &Plan, rate: f64) -> Result<Self> {
        let neuron = spec.neuron.neuron()?;
        let suffice = |kind: SurrogateKind| bits_suffice(&neuron, &Surrogate::new(kind));
        let (adali, membranes) = (suffice(SurrogateKind::Adali), suffice(SurrogateKind::Sigmoid));
        let span = Span { batch: 1, steps: plan.steps };
        let mut table = Self { layers: Vec::new(), work: Work::default(), kept_bytes: Kept::default() };
        for (i, population) in plan.populations.iter().enumerate() {
            let kept = |suffice: bool| Memory::of_activations(backend, population, span, suffice).total();
            let layer = Layer {
                layer: population.label(),
                name: population.name.clone(),
                neurons: if population.spiking { population.volume.values() } else { 0 },
                kept_bytes: Kept { adali: kept(adali), membranes: kept(membranes) },
                parts: parts(plan, i, rate),
            };
            layer.parts.iter().for_each(|part| table.work += part.work);
            table.kept_bytes.adali += layer.kept_bytes.adali;
            table.kept_bytes.membranes += layer.kept_bytes.membranes;
            table.layers.push(layer);
        }
        Ok(table)
    }
}

fn parts(plan: &Plan, i: usize, rate: f64) -> Vec<Part> {
    let population = &plan.populations[i];
    let part = |what: String, from: Option<String>, output: Volume, parameters: usize| Part {
        what,
        from,
        output: [output.h, output.w, output.c],
        work: Work { parameters, ..Work::default() },
    };
    let mut parts = Vec::new();
    for (k, projection) in population.projections.iter().enumerate() {
        let what = if k == 0 { own(plan, i) } else { format!("+ {}", shortcut(plan, projection)) };
        let from = Some(source_label(plan, projection.source));
        let mut part = part(what, from, population.volume, projection.parameters());
        part.work.multiply_adds = multiply_adds(projection);
        let reads = projection.convolution.as_ref().map(|convolution| convolution.conv.reads);
        let share = if reads == Some(InputKind::Spikes) { rate } else { 1.0 };
        part.work.synaptic_operations = share * part.work.multiply_adds as f64;
        parts.push(part);
    }
    if population.sum_norm == Norm::Batch {
        parts.push(part("batch norm of the sum".into(), None, population.volume, 2 * population.volume.c));
    }
    if population.sum_scale != 1.0 {
        parts.push(part(format!("sum x {}", population.sum_scale), None, population.volume, 0));
    }
    if let Some((other, with)) = population.combine {
        let source = Source::Output(other);
        let what = format!("{} {}", combination(with), source_name(plan, source));
        parts.push(part(what, Some(source_label(plan, source)), population.volume, 0));
    }
    let after = after_spikes(population);
    parts.extend(after.into_iter().map(|what| part(what, None, population.output(), 0)));
    parts
}

/// For one sample over all steps that it computes.
fn multiply_adds(projection: &Projection) -> u64 {
    let Some(Convolution { conv, .. }) = &projection.convolution else { return 0 };
    let of_step = (conv.output.values() as u64).saturating_mul(conv.fan_in() as u64);
    of_step.saturating_mul(projection.steps as u64)
}

/// A layer's own convolution or what its neurons read, with the source if that is not the layer above.
fn own(plan: &Plan, i: usize) -> String {
    let population = &plan.populations[i];
    let projection = &population.projections[0];
    let above = if i == 0 { Source::Input } else { Source::Output(i - 1) };
    let from = match projection.source {
        source if source == above => String::new(),
        source => format!(" of {}", source_name(plan, source)),
    };
    let what = match projection.convolution {
        Some(_) => synapses(projection),
        None => if population.spiking { "neurons" } else { "sum" }.to_string(),
    };
    format!("{what}{from}{}", factors(projection))
}

fn shortcut(plan: &Plan, projection: &Projection) -> String {
    let synapses = synapses(projection);
    let of = if synapses.is_empty() { "" } else { " of " };
    format!("{synapses}{of}{}{}", source_name(plan, projection.source), factors(projection))
}

/// What a projection does to its source, in a few words; nothing if it passes it on as it is.
pub fn synapses(projection: &Projection) -> String {
    let Some(Convolution { conv, linear, .. }) = &projection.convolution else { return String::new() };
    let pool = projection.pool.map_or_else(String::new, |pool| format!("{}, ", pool_name(&pool)));
    match linear {
        true => format!("{pool}linear"),
        false => format!("{pool}conv {}{}", conv.kernel, over(conv.stride, Extent::square(1))),
    }
}

/// The factors of a projection.
pub fn factors(projection: &Projection) -> String {
    let scale = if projection.scale == 1.0 { String::new() } else { format!(" x {}", projection.scale) };
    if projection.gain.is_some() { format!("{scale} x gain") } else { scale }
}

/// The symbol of a stride other than the `usual` one.
fn over(stride: Extent, usual: Extent) -> String {
    match stride {
        stride if stride == usual => String::new(),
        Extent { h, w } if h == w => format!("/{h}"),
        stride => format!("/{stride}"),
    }
}

fn pool_name(pool: &Pool) -> String {
    let kind = if pool.kind == PoolKind::Max { "max" } else { "avg" };
    format!("{kind} pool {}{}", pool.kernel, over(pool.stride, pool.kernel))
}

fn combination(with: Combination) -> &'static str {
    match with {
        Combination::Add => "add",
        Combination::And => "and",
        Combination::Iand => "iand",
    }
}

/// What is done to a population's spikes before they are read: pool and dropout.
pub fn after_spikes(population: &Population) -> Vec<String> {
    let pool = population.pool.map(|pool| pool_name(&pool));
    pool.into_iter().chain(population.dropout.map(|share| format!("dropout {share}"))).collect()
}

/// A source as a configuration names it.
fn source_name(plan: &Plan, source: Source) -> String {
    let name = |i: usize| plan.populations[i].name.clone().unwrap_or_else(|| plan.populations[i].label());
    match source {
        Source::Input => "input".into(),
        Source::Output(i) => name(i),
        Source::Currents(i) => format!("currents of {}", name(i)),
    }
}

fn source_label(plan: &Plan, source: Source) -> String {
    match source {
        Source::Input => "input".into(),
        Source::Output(i) | Source::Currents(i) => plan.populations[i].label(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::network::presets::{Preset, Size};

    fn table(preset: Preset, change: impl FnOnce(&mut NetworkSpec)) -> (Table, Plan) {
        let (shape, classes) = preset.usual_samples();
        let input = Volume { h: shape.height, w: shape.width, c: shape.channels };
        let mut network = preset.network(input, classes, &Size::default());
        change(&mut network);
        let plan = Plan::new(&network, input).expect("a network");
        (Table::new(&Cpu, &network, &plan, 0.1).expect("a table"), plan)
    }

    /// The count of torchvision's and the CIFAR variant's convolutions and linear layers.
    #[test]
    fn multiply_adds_are_those_of_the_references() {
        for (preset, parameters, multiply_adds) in [
            (Preset::Resnet18Cifar, 11_173_962, 555_422_720),
            (Preset::SewResnet18, 11_689_512, 1_814_073_344),
            (Preset::SewResnet34, 21_797_672, 3_663_761_408),
        ] {
            let (one, plan) = table(preset, |network| network.steps = 1);
            assert_eq!((one.work.parameters, plan.parameters()), (parameters, parameters), "{preset:?}");
            assert_eq!(one.work.multiply_adds, multiply_adds, "{preset:?}");
            // Only the first convolution reads the image, which is the same at every step.
            let (four, _) = table(preset, |network| network.steps = 4);
            let image = one.layers[0].parts[0].work.multiply_adds;
            assert_eq!(four.work.multiply_adds, 4 * (multiply_adds - image) + image, "{preset:?}");
        }
    }

    #[test]
    fn spikes_are_added_at_their_rate() {
        let (table, _) = table(Preset::Resnet18Cifar, |_| {});
        for (i, layer) in table.layers.iter().enumerate() {
            let dense = i == 0 || i == table.layers.len() - 1;
            for Part { what, work, .. } in &layer.parts {
                let share = if dense { 1.0 } else { 0.1 };
                assert_eq!(work.synaptic_operations, share * work.multiply_adds as f64, "{}: {what}", layer.layer);
            }
        }
        let sum: f64 = table.layers.iter().flat_map(|layer| &layer.parts).map(|p| p.work.synaptic_operations).sum();
        assert_eq!(table.work.synaptic_operations, sum);
    }

    /// Two bits per neuron and step with AdaLi; a bit and a current with another slope.
    #[test]
    fn bytes_kept_are_bits_or_membranes() {
        let (table, _) = table(Preset::Conv2, |network| network.set_conv_norm(Norm::Weight));
        let (neurons, pooled) = (28 * 28 * 32, 14 * 14 * 32);
        let first = &table.layers[0];
        assert_eq!(first.neurons, neurons);
        // The image is the same at every step, and so are the currents.
        assert_eq!(first.kept_bytes.adali, 4 * (2 * neurons + pooled) / 8);
        assert_eq!(first.kept_bytes.membranes, 4 * (neurons + pooled) / 8 + 4 * neurons);
        let second = &table.layers[1];
        assert_eq!(second.kept_bytes.membranes - second.kept_bytes.adali, 4 * (4 * pooled - pooled / 8));
        let hard = |network: &mut NetworkSpec| network.neuron.reset = crate::neuron::ResetKind::Hard;
        let (attached, _) = self::table(Preset::Conv2, hard);
        assert_eq!(attached.kept_bytes.adali, attached.kept_bytes.membranes);
    }

    #[test]
    fn parts_name_their_sources() {
        let whats = |preset: Preset, change: fn(&mut NetworkSpec)| -> Vec<String> {
            let (table, _) = table(preset, change);
            table.layers.into_iter().flat_map(|layer| layer.parts).map(|part| part.what).collect()
        };
        for (preset, wanted) in [
            (
                Preset::Resnet18Cifar,
                &["conv 3x3/2", "+ stem", "+ conv 1x1/2 of stage1.2", "avg pool 4x4", "linear"][..],
            ),
            (Preset::Resnet18Preact, &["batch norm of the sum"]),
            (Preset::SewResnet18, &["max pool 3x3/2", "conv 1x1/2", "conv 3x3/2 of stage1.2", "add stage2.1.shortcut"]),
            (Preset::MsResnet18, &["+ currents of stage1.1", "+ conv 1x1/2 of currents of stage1.2"]),
            (Preset::DvsGestureNet, &["dropout 0.5"]),
        ] {
            let found = whats(preset, |_| {});
            wanted.iter().for_each(|what| assert!(found.iter().any(|f| f == what), "{preset:?}: {what}: {found:?}"));
        }
    }
}
