//! `adali network`

use super::options::{megabytes, memory_kinds};
use super::{End, is_quiet, say};
use crate::backend::cpu::Cpu;
use crate::bail_input;
use crate::bench::report::figure;
use crate::bench::table::Table as Columns;
use crate::data::SampleShape;
use crate::files::output::Output;
use crate::network::model::memory::Memory;
use crate::network::presets::{Preset, Size};
use crate::network::spec::{InputMode, NetworkSpec, Norm};
use crate::network::table::{Layer, Table};
use crate::network::{Plan, Volume};
use crate::neuron::{NeuronModel, ResetKind};
use crate::report::populations;
use crate::train::checkpoint::{check_shapes, open_model};
use crate::train::defaults::{Written, preset_for, written_network};
use crate::train::run::RunFiles;
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "\
The columns:
  output  height x width x channels
  params  trained values
  MACs    multiply-adds of a sample over all steps; what reads an image that is
          the same at every step counts once
  ops     additions where a convolution reads spikes, of which a share --rate
          is 1; all multiply-adds where it reads the image or dense values:
          averages, counts, currents
  adali   bytes that the forward pass of a sample leaves for the backward pass
          and other layers, with AdaLi: bits, currents of batch norms and sums,
          dense values
  others  the same with a slope that needs the membranes, as sigmoid and arctan

Examples:
  adali network resnet18-cifar
  adali network vgg11 --norm weight --svg vgg11.svg
  adali network my-network.toml --input 32x32x3
  adali network runs/digits-1 --json";

#[derive(Args)]
pub struct NetworkArguments {
    /// Preset, TOML file of a network or configuration, or run folder.
    #[arg(value_name = "PRESET|FILE|RUN")]
    network: String,
    /// Size of a sample: height, width, channels; with frames in front, as in 16x48x48x2, a sample is that many frames
    /// [default: that of the data; for presets, of the data that they are usually trained on].
    #[arg(long, value_name = "HxWxC", value_parser = sample_shape)]
    input: Option<SampleShape>,
    /// Classes of a preset [default: those of the data that it is usually trained on].
    #[arg(long, value_name = "N")]
    classes: Option<usize>,
    #[command(flatten)]
    size: Size,
    /// Normalisation of every convolution [default: that of the network].
    #[arg(long, value_enum)]
    norm: Option<Norm>,
    /// Share of neuron-steps that spike.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    rate: f64,
    /// Samples per batch, whose memory is planned.
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Draw the populations of neurons and what connects them as SVG in this file [default: none].
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Overwrite the file of --svg.
    #[arg(long, requires = "svg")]
    force: bool,
    /// Print the result as one line of JSON and nothing else.
    #[arg(long)]
    json: bool,
}

/// The largest side of a sample, and the most channels and frames.
const MOST: usize = 4096;
/// Columns of a terminal.
const COLUMNS: usize = 80;
/// Where the texts next to the table begin.
const INDENT: usize = 10;

fn sample_shape(text: &str) -> Result<SampleShape, String> {
    let extents: Option<Vec<usize>> = text.split('x').map(|extent| extent.parse().ok()).collect();
    match extents.as_deref().filter(|extents| extents.iter().all(|extent| (1..=MOST).contains(extent))) {
        Some(&[height, width, channels]) => Ok(SampleShape { frames: 1, height, width, channels }),
        Some(&[frames, height, width, channels]) => Ok(SampleShape { frames, height, width, channels }),
        _ => Err(format!("it is HxWxC, as in 32x32x3, or with frames 16x48x48x2, each from 1 to {MOST}")),
    }
}

/// A network and its samples.
struct Chosen {
    network: NetworkSpec,
    input: Volume,
    /// Where the input's extents and the classes come from.
    because: String,
}

pub fn run(arguments: NetworkArguments) -> Result<End> {
    if !(0.0..=1.0).contains(&arguments.rate) {
        bail_input!("--rate {} must be a share between 0 and 1", arguments.rate);
    }
    if !(1..=65536).contains(&arguments.batch) {
        bail_input!("--batch {} must be between 1 and 65536", arguments.batch);
    }
    let named = Path::new(&arguments.network);
    let svg = arguments.svg.as_deref().map(|path| Output::new("--svg", path, arguments.force, &[named])).transpose()?;
    let Chosen { mut network, input, because } = arguments.choose()?;
    if let Some(norm) = arguments.norm {
        network.set_conv_norm(norm);
    }
    let plan = Plan::new(&network, input)?;
    let table = Table::new(&Cpu, &network, &plan, arguments.rate)?;
    let memory = Memory::plan(&Cpu, &network, &plan, arguments.batch)?;
    if arguments.json {
        say(arguments.as_json(&network, &plan, &table, &memory)?)?;
    } else if !is_quiet() {
        say(arguments.as_text(&network, &plan, &because, &table, &memory))?;
    }
    if let Some(svg) = svg {
        let title = format!("{}, {}, T = {}", arguments.network, extents(input), plan.steps);
        svg.write(populations(&title, &plan)?.as_bytes())?;
    }
    Ok(End::Done)
}

impl NetworkArguments {
    fn choose(&self) -> Result<Chosen> {
        if let Ok(preset) = Preset::from_str(&self.network, true) {
            return self.preset(preset);
        }
        if !self.size.is_usual() || self.classes.is_some() {
            bail_input!(
                "--channels, --blocks and --classes are for presets, but {} is not one; change them in the file",
                self.network
            );
        }
        let path = Path::new(&self.network);
        let run = path.is_dir().then(|| RunFiles::at(path.into()));
        let file = run.as_ref().map_or(path.into(), RunFiles::config);
        let (network, usual) = match written_network(&file)? {
            Written::Network(network) => (network, None),
            Written::Configuration(config) => {
                let data = config.data;
                let shape = data.source.usual_shape(&data.events.unwrap_or_default());
                (config.network, shape.map(|shape| (shape, data.source)))
            }
        };
        let (shape, because) = match (self.input, usual) {
            (Some(shape), _) => (shape, "as --input says".to_string()),
            (None, Some((shape, source))) => (shape, format!("usual for {source}; --input changes them")),
            (None, None) => bail_input!(
                "{} does not say how large a sample is; give its height, width and channels, as in --input 32x32x3",
                file.display()
            ),
        };
        let steps = if network.input == InputMode::Frames { network.steps } else { 1 };
        if shape.frames != 1 && shape.frames != steps {
            bail_input!(
                "a sample has {} frames, but the network in {} reads {steps}; leave the frames out of --input, or change \
                 steps and input in the file",
                shape.frames,
                file.display()
            );
        }
        let input = volume(shape);
        if let Some(model) = run.map(|files| files.model()).filter(|model| model.is_file()) {
            check_shapes(&open_model(&model)?, &Plan::new(&network, input)?)?;
        }
        Ok(Chosen { network, input, because })
    }

    fn preset(&self, preset: Preset) -> Result<Chosen> {
        let (usual, classes) = preset.usual_samples();
        let shape = self.input.unwrap_or(usual);
        let network = preset_for(preset, shape, self.classes.unwrap_or(classes), &self.size)?;
        let usual_for = |option: &str| format!("usual for {}; {option}", self.network);
        let because = match (self.input, self.classes) {
            (Some(_), Some(_)) => "as --input and --classes say".into(),
            (Some(_), None) => format!("classes {} changes them", usual_for("--classes")),
            (None, Some(_)) => format!("extents {} changes them", usual_for("--input")),
            (None, None) => format!("{} and --classes change them", usual_for("--input")),
        };
        Ok(Chosen { network, input: volume(shape), because })
    }

    fn as_text(&self, network: &NetworkSpec, plan: &Plan, because: &str, table: &Table, memory: &Memory) -> String {
        let frames = if plan.direct { "the same at every step" } else { "a frame per step" };
        let text = |head: &str, text: String| wrapped(&format!("{head:INDENT$}"), &text, COLUMNS, INDENT).join("\n");
        let planned = format!(
            "{} for a batch of {} on the CPU (f32, {}): {}",
            megabytes(memory.total()),
            self.batch,
            network.surrogate.kind.name(),
            memory_kinds(memory)
        );
        let input = format!("{}, {frames}; {} classes; {because}", extents(plan.input), plan.classes);
        let head = [
            text("network", format!("{}, T = {}; {}", self.network, plan.steps, neurons(network))),
            text("input", input),
        ];
        let note = format!(
            "MACs: multiply-adds per sample, all steps. ops: additions at a firing rate of {}. adali, others: bytes kept \
             per sample with AdaLi, and with a slope that needs the membranes. --help says more.",
            self.rate
        );
        let note = wrapped("", &note, COLUMNS, 0).join("\n");
        let columns = columns(table);
        format!("{}\n\n{}\n{note}\n\n{}", head.join("\n"), columns.plain(), text("memory", planned))
    }

    fn as_json(&self, network: &NetworkSpec, plan: &Plan, table: &Table, memory: &Memory) -> Result<String> {
        let kinds: serde_json::Map<_, _> =
            memory.kinds().into_iter().map(|(kind, bytes)| (kind.to_string(), bytes.into())).collect();
        let mut value = json!({
            "network": self.network,
            "input": [plan.input.h, plan.input.w, plan.input.c],
            "direct": plan.direct,
            "steps": plan.steps,
            "classes": plan.classes,
            "firing_rate": self.rate,
            "batch": self.batch,
            "surrogate": network.surrogate.kind.name(),
            "memory_bytes": kinds,
        });
        if let (Value::Object(all), Value::Object(figures)) = (&mut value, serde_json::to_value(table)?) {
            all.extend(figures);
        }
        Ok(value.to_string())
    }
}

fn volume(shape: SampleShape) -> Volume {
    Volume { h: shape.height, w: shape.width, c: shape.channels }
}

fn extents(volume: Volume) -> String {
    format!("{}x{}x{}", volume.h, volume.w, volume.c)
}

/// The neurons in words.
fn neurons(network: &NetworkSpec) -> String {
    let neuron = &network.neuron;
    let model = match neuron.model {
        NeuronModel::Lif => format!("LIF neurons, tau = {}", neuron.tau),
        NeuronModel::If => "IF neurons".into(),
    };
    let reset = if neuron.reset == ResetKind::Soft { "soft" } else { "hard" };
    let detached = if neuron.detach_reset { ", detached" } else { "" };
    format!("{model}, {reset}{detached} reset")
}

fn columns(table: &Table) -> Columns {
    let figures = |work: &crate::network::table::Work| {
        [work.parameters as f64, work.multiply_adds as f64, work.synaptic_operations].map(short)
    };
    let bytes = |kept: crate::network::table::Kept| [kept.adali, kept.membranes].map(|bytes| short(bytes as f64));
    let mut rows: Vec<(String, Vec<String>)> = Vec::new();
    for Layer { layer, name, kept_bytes, parts, .. } in &table.layers {
        for (k, part) in parts.iter().enumerate() {
            let name = name.as_ref().map_or(String::new(), |name| format!(" {name}"));
            let what = if k == 0 { format!("{layer}{name} {}", part.what) } else { part.what.clone() };
            let output = part.output.map(|extent| extent.to_string()).join("x");
            let kept = if k == 0 { bytes(*kept_bytes) } else { Default::default() };
            // What has no work of its own shows none.
            let work = if part.work == Default::default() { Default::default() } else { figures(&part.work) };
            let cells = std::iter::once(output).chain(work).chain(kept).collect();
            rows.push((if k == 0 { what } else { format!("  {what}") }, cells));
        }
    }
    let total = std::iter::once(String::new()).chain(figures(&table.work)).chain(bytes(table.kept_bytes)).collect();
    rows.push(("total".into(), total));
    let head = ["layer", "output", "params", "MACs", "ops", "adali", "others"];
    let widest = |column: usize| {
        let cells = rows.iter().map(|(_, cells)| cells[column].chars().count());
        cells.max().unwrap_or(0).max(head[column + 1].len()) + 2
    };
    let room = COLUMNS.saturating_sub((0..head.len() - 1).map(widest).sum()).max(20);
    let mut columns = Columns::new(&head);
    for (what, cells) in rows {
        let indent = what.len() - what.trim_start().len();
        let lines = wrapped(&" ".repeat(indent), &what, room, indent + 2);
        for (k, line) in lines.into_iter().enumerate() {
            let none = vec![String::new(); cells.len()];
            columns.row(std::iter::once(line).chain(if k == 0 { cells.clone() } else { none }));
        }
    }
    columns
}

/// Three digits and the unit.
fn short(number: f64) -> String {
    let units = [(1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")];
    match units.into_iter().find(|(unit, _)| number >= 0.9995 * unit) {
        // Less than 1 only by rounding.
        Some((unit, name)) => figure((number / unit).max(1.0)) + name,
        None => format!("{number:.0}"),
    }
}

/// The words of `text` after `head`, in lines of `width`; all but the first are indented by `indent`.
fn wrapped(head: &str, text: &str, width: usize, indent: usize) -> Vec<String> {
    let mut lines = vec![head.to_string()];
    let mut begins = true;
    for word in text.split_whitespace() {
        // A word that no line can hold is split.
        let letters: Vec<char> = word.chars().collect();
        for piece in letters.chunks(width.saturating_sub(indent).max(1)) {
            let piece: String = piece.iter().collect();
            let last = lines.last_mut().expect("there is one");
            let gap = usize::from(!begins);
            if !begins && last.chars().count() + gap + piece.chars().count() > width {
                lines.push(" ".repeat(indent) + &piece);
            } else {
                last.push_str(&" ".repeat(gap));
                last.push_str(&piece);
            }
            begins = false;
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let numbers = [0.0, 7.0, 999.4, 999.6, 12_345.0, 1_814_073_344.0, 999_999_999.0];
        assert_eq!(numbers.map(short), ["0", "7", "999", "1.00k", "12.3k", "1.81G", "1.00G"]);
    }

    #[test]
    fn long_texts_are_wrapped() {
        assert_eq!(wrapped("head ", "one two three four", 14, 5), ["head one two", "     three", "     four"]);
        assert_eq!(wrapped("", "abcdefghij k", 6, 2), ["abcd", "  efgh", "  ij k"]);
    }

    #[test]
    fn samples_have_three_extents_or_frames_too() {
        let shape = |frames, height, width, channels| Ok(SampleShape { frames, height, width, channels });
        assert_eq!(sample_shape("32x30x3"), shape(1, 32, 30, 3));
        assert_eq!(sample_shape("16x48x48x2"), shape(16, 48, 48, 2));
        for text in ["", "32", "32x32", "0x32x3", "axbxc", "4097x1x1", "1x2x3x4x5", "-1x2x3", "32 x 32 x 3"] {
            assert!(sample_shape(text).unwrap_err().contains("HxWxC"), "{text}");
        }
    }
}
