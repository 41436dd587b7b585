//! `adali bench`

mod measured;
mod paper;

use super::End;
use super::options::{DeviceOptions, on_device};
use super::signals;
use crate::backend::shape::Volume;
use crate::bail_input;
use crate::bench::card::NamedCard;
use crate::bench::operation::Operation;
use crate::bench::report::Report;
use crate::bench::shape::{LAYERS, LayerShape, NEURONS, Part};
use crate::bench::timing::ROUNDS;
use crate::compare::train_step::{ImageShape, Stepped};
use crate::files::output::Output;
use crate::network::presets::{Preset, Size};
use crate::surrogate::SurrogateKind;
use crate::train::defaults::network_file;
use crate::train::optimizer::{Optimizer, TrainingSpec};
use anyhow::Result;
use clap::{Args, ValueEnum};
use measured::Bench;
use paper::on_paper;
use std::path::{Path, PathBuf};

pub const EXAMPLES: &str = "\
Operations:
  synapses  conv_lif_forward, conv_current, conv_batch_norm, conv_input_grad,
            conv_input_grad_lif (cards), conv_weight_grad, pack_weight,
            weight_norm_forward, weight_norm_backward
  neurons   norm_lif_forward, spike_backward, norm_spike_backward,
            max_pool_forward, avg_pool_forward, bias_grad
  branches  sum_lif_forward, sum_currents, batch_norm_statistics,
            norm_backward, pass_gradient, gain_forward, gain_backward,
            and_spikes, mask_gradient, add_spikes, avg_pool_backward
  training  input, dropout_spikes, dropout_floats, vote_currents, vote_spikes,
            vote_backward, loss, update, membrane_histogram,
            collect_counts, tune_bounds;
            train_step, a whole step of --network

The columns:
  µs        median of one call over the rounds, on copies of the tensors that
            together do not fit a cache
  GB/s      the tensors, each read or written once, divided by the time; so are
            the GFLOP/s of convolutions
  floor µs  what that takes at the rates of a copy and of products in registers,
            which are measured first; on the CPU, which skips silent inputs,
            only products with spikes count
  of it %   the floor divided by the time
On a card there are also the registers of the kernel that takes most. --card has
other columns: the blocks of a launch, the waves in which the card runs them,
and the instructions of the kernel's main loop next to those with a matrix
product (with cuobjdump).
Every result is first compared with plain loops in f64; a wrong one is an error
and is not timed.

Examples:
  adali bench                         every operation, three shapes: minutes
  adali bench conv_lif_forward --shape T=4,N=64,C=128,H=14
  adali bench --surrogates            what a slope costs, in identical kernels
  adali bench train_step --network conv2 --input 1x28x28 --surrogate arctan
  adali bench --card h100             a plan on paper: floors, launches
  adali bench --json before.json      then, after a change:
  adali bench --baseline before.json  what moved by more than the spread";

/// The CPU measures this many times fewer samples of the default shapes.
const CPU_SHARE: usize = 8;

#[derive(Args)]
pub struct BenchArguments {
    /// Operations to time; --help lists them [default: all but train_step].
    #[arg(value_name = "OPERATION")]
    operations: Vec<String>,
    /// A layer: T steps, N samples, C x H x W in, K filters; W, K, kernel and stride have usual values; may be given
    /// several times [default: three usual layers].
    #[arg(long, value_name = "T=4,N=64,C=64,H=32,…")]
    shape: Vec<LayerShape>,
    /// Time all predefined shapes, including 2^20 neurons over 4 to 32 steps.
    #[arg(long, conflicts_with = "shape")]
    all: bool,
    /// Compare surrogates and resets in the backward pass of neurons, in turns.
    #[arg(long, conflicts_with = "operations")]
    surrogates: bool,
    /// Share of neuron-steps that spike.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1)]
    firing_rate: f64,
    /// Number of rounds; each takes a few hundredths of a second per operation.
    #[arg(long, value_name = "N", default_value_t = ROUNDS)]
    rounds: usize,
    /// Do not measure; estimate what the kernels need on this GPU from the compiler's report and the data sheet
    /// [default: measure].
    #[arg(long, value_enum, conflicts_with_all = ["baseline", "rounds"])]
    card: Option<NamedCard>,
    /// Add instruction counts and a time estimate per launch, from a report of the software GPU [default: none].
    ///
    /// CARD_REPORT=FILE writes such a report; see tests/card/README.md. It is used for launches of the same extents.
    #[arg(long, value_name = "FILE", requires = "card")]
    counters: Option<PathBuf>,
    /// Mark what is slower or faster than in this file, which --json wrote before [default: none].
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Write all figures to this file, after Ctrl-C too [default: none].
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw a roofline plot of all figures as SVG [default: none].
    #[arg(long, value_name = "FILE", conflicts_with = "card")]
    svg: Option<PathBuf>,
    /// Overwrite the files of --json and --svg.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    device: DeviceOptions,
    #[command(flatten)]
    step: StepOptions,
}

/// Of `train_step`.
#[derive(Args)]
#[command(next_help_heading = "train_step")]
struct StepOptions {
    /// Preset or TOML file.
    #[arg(long, value_name = "PRESET|FILE", default_value = "conv2")]
    network: String,
    /// Samples per step.
    #[arg(long, value_name = "N", default_value_t = 64)]
    batch: usize,
    /// Size of a sample: channels, rows, columns.
    #[arg(long, value_name = "CxHxW", default_value = "1x28x28")]
    input: ImageShape,
    /// Surrogates, in turns.
    #[arg(long, value_enum, value_delimiter = ',', default_value = "adali")]
    surrogate: Vec<SurrogateKind>,
    /// Optimiser.
    #[arg(long, value_enum, default_value = "sgd")]
    optimizer: Optimizer,
}

pub fn run(arguments: BenchArguments) -> Result<End> {
    if !(arguments.firing_rate > 0.0 && arguments.firing_rate < 1.0) {
        bail_input!("--firing-rate {} must be a share above 0 and below 1", arguments.firing_rate);
    }
    if !(1..=1000).contains(&arguments.rounds) {
        bail_input!("--rounds {} must be between 1 and 1000", arguments.rounds);
    }
    let operations = arguments.operations()?;
    let (json, svg) = arguments.outputs()?;
    if let Some(card) = arguments.card {
        return on_paper(&arguments, card, &operations, json);
    }
    let baseline = arguments.baseline.as_deref().map(Report::read).transpose()?;
    let stepped = arguments.steps().then(|| arguments.step.stepped()).transpose()?;
    let stop = signals::watch()?;
    on_device!(arguments.device, |backend| {
        let mut bench =
            Bench { arguments: &arguments, backend: &backend, baseline: baseline.as_ref(), json, svg, stop };
        bench.run(&operations, stepped.as_ref())
    })
}

impl BenchArguments {
    /// The destinations of --json and --svg.
    fn outputs(&self) -> Result<(Option<Output>, Option<Output>)> {
        let inputs: Vec<&Path> = self.baseline.as_deref().into_iter().chain([Path::new(&self.step.network)]).collect();
        let output = |option, path: &Option<PathBuf>, inputs: &[&Path]| {
            path.as_deref().map(|path| Output::new(option, path, self.force, inputs)).transpose()
        };
        let json = output("--json", &self.json, &inputs)?;
        let written = json.as_ref().map(Output::path);
        let svg = output("--svg", &self.svg, &inputs.into_iter().chain(written).collect::<Vec<_>>())?;
        Ok((json, svg))
    }

    fn steps(&self) -> bool {
        self.operations.iter().any(|name| name == "train_step")
    }

    /// The requested backend operations.
    fn operations(&self) -> Result<Vec<Operation>> {
        if self.surrogates {
            return Ok(Operation::surrogates());
        }
        let all = Operation::all();
        if let Some(unknown) =
            self.operations.iter().find(|name| *name != "train_step" && !all.iter().any(|known| known.name() == **name))
        {
            let mut known: Vec<_> = all.iter().map(|operation| operation.name()).collect();
            known.dedup();
            bail_input!("there is no operation {unknown}; there are {} and train_step", known.join(", "));
        }
        let wanted = |operation: &Operation| self.operations.iter().any(|name| name == operation.name());
        Ok(all.into_iter().filter(|operation| self.operations.is_empty() || wanted(operation)).collect())
    }

    /// Shapes, and what is measured on each.
    fn cases(&self, operations: &[Operation], on_cpu: bool) -> Vec<(LayerShape, Vec<Operation>)> {
        let fewer = |mut shape: LayerShape| {
            if on_cpu {
                shape.span.batch = (shape.span.batch / CPU_SHARE).max(1);
            }
            shape
        };
        let layers: Vec<LayerShape> = match self.shape.is_empty() {
            false => self.shape.clone(),
            true if self.all => LAYERS.map(fewer).into(),
            true => LAYERS[..3].iter().copied().map(fewer).collect(),
        };
        let mut cases: Vec<_> = layers.into_iter().map(|shape| (shape, operations.to_vec())).collect();
        if self.all {
            let of_neurons: Vec<_> =
                operations.iter().copied().filter(|operation| operation.part() == Part::Neurons).collect();
            cases.extend(NEURONS.map(|shape| (fewer(shape), of_neurons.clone())));
        }
        cases.retain(|(_, operations)| !operations.is_empty());
        cases
    }
}

impl StepOptions {
    fn stepped(&self) -> Result<Stepped> {
        let volume = Volume { h: self.input.height, w: self.input.width, c: self.input.channels };
        let network = match Preset::from_str(&self.network, true) {
            Ok(preset) => preset.network(volume, 10, &Size::default()),
            Err(_) => network_file(&self.network)?,
        };
        if !(1..=65536).contains(&self.batch) {
            bail_input!("--batch {} must be between 1 and 65536", self.batch);
        }
        let training = TrainingSpec { optimizer: self.optimizer, ..TrainingSpec::default() };
        Ok(Stepped { network, input: self.input, batch: self.batch, training })
    }
}
