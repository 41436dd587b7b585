//! `adali bench`

use super::compare::command_line;
use super::options::{DeviceOptions, on_device};
use super::progress::target;
use super::signals;
use super::{End, is_quiet, is_unheard, say};
use crate::backend::Backend;
use crate::backend::shape::Volume;
use crate::bench::card::NamedCard;
use crate::bench::counters::Counters;
use crate::bench::measure::{COPIES, Ceilings, Copies, Failure, Measured};
use crate::bench::operation::Operation;
use crate::bench::paper::{Paper, counted, counter_table, table as paper_table};
use crate::bench::report::{Report, figure, table};
use crate::bench::roofline::roofline;
use crate::bench::shape::Part;
use crate::bench::shape::{LAYERS, LayerShape, NEURONS};
use crate::bench::tensors::Layer;
use crate::bench::timing::ROUNDS;
use crate::compare::report::machine;
use crate::compare::train_step::{ImageShape, Stepped, train_steps};
use crate::files::output::Output;
use crate::kernels::COMPILER;
use crate::network::presets::Preset;
use crate::surrogate::SurrogateKind;
use crate::train::config::TrainingSpec;
use crate::train::defaults::network_file;
use crate::train::optimizer::Optimizer;
use crate::{bail_input, input_error};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

pub const EXAMPLES: &str = "\
Operations:
  synapses  conv_lif_forward, conv_current, conv_batch_norm, conv_input_grad,
            conv_input_grad_lif (cards), conv_weight_grad, pack_weight,
            weight_norm_forward, weight_norm_backward
  neurons   norm_lif_forward, spike_backward, norm_spike_backward,
            max_pool_forward, avg_pool_forward, bias_grad
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

/// Prints and writes plans.
fn on_paper(
    arguments: &BenchArguments,
    card: NamedCard,
    operations: &[Operation],
    json: Option<Output>,
) -> Result<End> {
    if operations.is_empty() {
        bail_input!("a plan for a card has no train_step; name operations of a layer, or none for all");
    }
    let precision = arguments.device.precision.into();
    let counters = arguments.counters.as_deref().map(Counters::read).transpose()?;
    let estimates = counters.is_some();
    let mut paper = Paper::new(card, precision, counters)?;
    let (name, Ceilings { copy, products }) = (card.name(), card.ceilings(precision));
    if !is_quiet() {
        let (copy, products) = (figure(copy / 1e9), figure(products / 1e9));
        say(format!("{name}, on paper, not measured: {copy} GB/s, {products} GFLOP/s by its data sheet"))?;
    }
    let mut plans = Vec::new();
    for (shape, operations) in arguments.cases(operations, false) {
        let planned = paper.plan(shape, &operations, arguments.firing_rate)?;
        if !is_quiet() {
            say(format!("\n{shape}\n{}", paper_table(&planned).indented(2).trim_end()))?;
        }
        if estimates && !is_quiet() {
            let (counted, launches) = counted(&planned);
            say(format!(
                "\n{counted} of {launches} launches were counted: thousands of PTX instructions of warps, sectors of 32 bytes and\n\
                 wavefronts per access, each with the minimum, and an estimated (not measured) time\n{}",
                counter_table(&planned).indented(2).trim_end()
            ))?;
        }
        plans.extend(planned);
    }
    if !paper.reads_code() && !is_quiet() {
        say("\nno machine code was looked at: cuobjdump is not found (`make cuda` fetches it)")?;
    }
    if let Some(json) = json {
        let plan = serde_json::json!({
            "command": command_line(),
            "version": env!("CARGO_PKG_VERSION"),
            "card": name,
            "measured": false,
            "compiler": COMPILER,
            "plans": plans,
        });
        json.write((serde_json::to_string_pretty(&plan)? + "\n").as_bytes())?;
    }
    Ok(End::Done)
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
            Ok(preset) => preset.network(volume, 10, None),
            Err(_) => network_file(&self.network)?,
        };
        if !(1..=65536).contains(&self.batch) {
            bail_input!("--batch {} must be between 1 and 65536", self.batch);
        }
        let training = TrainingSpec { optimizer: self.optimizer, ..TrainingSpec::default() };
        Ok(Stepped { network, input: self.input, batch: self.batch, training })
    }
}

struct Bench<'a, B> {
    arguments: &'a BenchArguments,
    backend: &'a B,
    baseline: Option<&'a Report>,
    json: Option<Output>,
    svg: Option<Output>,
    stop: &'a AtomicBool,
}

impl<B: Backend> Bench<'_, B> {
    fn run(&mut self, operations: &[Operation], stepped: Option<&Stepped>) -> Result<End> {
        let ceilings = Ceilings::measure(self.backend)?;
        self.say(|| {
            let device = self.arguments.device.describe(self.backend);
            let (copy, products) = (figure(ceilings.copy / 1e9), figure(ceilings.products / 1e9));
            format!("device    {device}\nceilings  copy {copy} GB/s, products {products} GFLOP/s")
        })?;
        let mut measured = Measured::default();
        let ended = self.measure(operations, stepped, &ceilings, &mut measured);
        let Measured { records: results, failures } = measured;
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let report = Report {
            command: command_line(),
            version: env!("CARGO_PKG_VERSION").into(),
            machine: machine(),
            device: self.backend.describe(),
            compiler: COMPILER.map(String::from),
            time: time.map_or(0, |time| time.as_secs()),
            ceilings,
            results,
            failures,
        };
        if let Some(json) = &self.json {
            json.write(report.to_json()?.as_bytes())?;
        }
        if let Some(svg) = &self.svg {
            svg.write(roofline(&report)?.as_bytes())?;
        }
        ended?;
        let (failed, all) = (report.failures.len(), report.failures.len() + report.results.len());
        if let Some(Failure { operation, error, .. }) = report.failures.first() {
            bail!("{failed} of {all} operations failed, first {operation}: {error}");
        }
        Ok(if self.stop.load(Ordering::Relaxed) { End::Interrupted } else { End::Done })
    }

    fn measure(
        &self,
        operations: &[Operation],
        stepped: Option<&Stepped>,
        ceilings: &Ceilings,
        all: &mut Measured,
    ) -> Result<()> {
        let cases = self.arguments.cases(operations, self.backend.skips_silence());
        if !self.arguments.shape.is_empty() {
            cases.iter().try_for_each(|(shape, operations)| self.fits(*shape, operations))?;
        }
        let bar = self.bar(cases.len());
        for (shape, operations) in cases {
            bar.tick();
            let mut measured = Measured::default();
            for part in [Part::Synapses, Part::Neurons, Part::Training] {
                let of_part: Vec<_> = operations.iter().copied().filter(|operation| operation.part() == part).collect();
                if !of_part.is_empty() {
                    measured.extend(self.operations(shape, &of_part, ceilings).unwrap_or_else(|error| {
                        let failures = of_part.iter().map(|operation| Failure::of(*operation, shape, &error));
                        Measured { records: Vec::new(), failures: failures.collect() }
                    }));
                }
            }
            bar.suspend(|| self.show(&shape.to_string(), &measured))?;
            all.extend(measured);
            bar.inc(1);
            // Without a reader or a file nobody would see the figures.
            if self.stop.load(Ordering::Relaxed) || (is_unheard() && self.json.is_none() && self.svg.is_none()) {
                return Ok(());
            }
        }
        bar.finish_and_clear();
        if let Some(stepped) = stepped
            && let Some(records) = train_steps(self.backend, stepped, &self.arguments.step.surrogate, self.stop)?
        {
            let title = format!("{} ({})", records[0].shape, self.arguments.step.network);
            let measured = Measured { records, failures: Vec::new() };
            self.show(&title, &measured)?;
            all.extend(measured);
        }
        Ok(())
    }

    /// Measures operations on copies of one layer.
    ///
    /// # Errors
    /// If the layer cannot be created, so that no operation can run.
    fn operations(&self, shape: LayerShape, operations: &[Operation], ceilings: &Ceilings) -> Result<Measured> {
        self.fits(shape, operations)?;
        let mut copies = Copies::new(self.backend, shape, operations, self.arguments.firing_rate, COPIES)?;
        // Alternatives that are compared take turns; others run one after the other.
        let together = if self.arguments.surrogates { operations.len() } else { 1 };
        let mut all = Measured::default();
        for operations in operations.chunks(together) {
            match copies.measure(operations, ceilings, self.arguments.rounds, self.stop) {
                Some(measured) => all.extend(measured),
                None => break,
            }
        }
        Ok(all)
    }

    /// A titled table, followed by the failures.
    fn show(&self, title: &str, Measured { records, failures }: &Measured) -> Result<()> {
        let rate = records.first().map_or(String::new(), |first| format!("  {:.1} % spike", 100.0 * first.firing_rate));
        if !records.is_empty() || !failures.is_empty() {
            self.say(|| format!("\n{title}{rate}"))?;
        }
        if !records.is_empty() {
            self.say(|| table(records, self.baseline).indented(2).trim_end().to_string())?;
        }
        for Failure { operation, variant, error, .. } in failures {
            let name = [operation.as_str(), variant.as_str()].join(" ");
            self.say(|| format!("  {}  failed: {error}", name.trim_end()))?;
        }
        for record in records {
            if let Some(images) = record.images_per_second {
                self.say(|| format!("  {}: {images:.0} images/s", record.variant))?;
            }
        }
        Ok(())
    }

    fn say(&self, line: impl FnOnce() -> String) -> Result<()> {
        if is_quiet() { Ok(()) } else { say(line()) }
    }

    fn bar(&self, cases: usize) -> ProgressBar {
        let bar = ProgressBar::with_draw_target(Some(cases as u64), target());
        let style = ProgressStyle::with_template("{bar:10} {pos}/{len}  {elapsed}");
        bar.set_style(style.expect("the template is well-formed").progress_chars("━╸─"));
        bar
    }

    /// Checks that the device has room for one copy of a layer.
    fn fits(&self, shape: LayerShape, operations: &[Operation]) -> Result<()> {
        let needed = Layer::size(self.backend, shape, &Operation::parts(operations));
        match self.backend.available_memory() {
            Some(free) if needed > free => Err(input_error!(
                "shape {shape} needs about {} MB, and {} MB are free; take fewer samples N",
                needed / 1_000_000,
                free / 1_000_000
            )),
            _ => Ok(()),
        }
    }
}
