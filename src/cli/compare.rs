//! `adali compare`

mod cost;
mod show;

use super::data::{DataOptions, load_data};
use super::options::on_device;
use super::train::{TrainArguments, used};
use super::train_options::NOT_WITH_RESUME;
use super::{End, command_line, is_quiet, note, say, signals};
use crate::backend::Backend;
use crate::bail_input;
use crate::compare::plan::{PlanFile, REACH};
use crate::compare::record::{KIND, Status, plan_file};
use crate::compare::summary::summaries;
use crate::compare::{Comparison, Configuration, Plan, report};
use crate::data::Dataset;
use crate::files::place::Place;
use crate::surrogate::SurrogateKind;
use crate::terminal::shell_word;
use crate::train::config::DataSpec;
use crate::train::{Config, Outcome};
use anyhow::{Result, bail};
use clap::{Arg, Args};
use show::Show;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const COMPARE: &str = "Comparison";
const SEEDS: usize = 3;
const SURROGATES: [SurrogateKind; 3] = [SurrogateKind::Adali, SurrogateKind::Sigmoid, SurrogateKind::Arctan];
const MOST_SEEDS: usize = 1000;

pub const EXAMPLES: &str = "\
Examples:
  adali compare                   digits, 3 surrogates, 3 seeds: half a minute
  adali compare --surrogates adali,rectangle --data fashion-mnist --epochs 5
  adali compare --plan bounds.toml --out runs/bounds
  adali compare --resume runs/bounds            after Ctrl-C or a kill
  adali compare --resume runs/bounds --seeds 5  more seeds for the same
  adali compare --cost            what slopes, packed state and histograms cost

A plan is a configuration, with the keys of a run folder's config.toml, all of
them optional, and the configurations that differ from it:
  seeds = [0, 1, 2]
  training.epochs = 10

  [[configurations]]
  name = \"log\"

  [[configurations]]
  name = \"histogram\"
  bounds.mode = \"auto-track\"
  bounds.target = [0.4, 0.4]

  [[configurations]]
  name = \"arctan\"
  network.surrogate.kind = \"arctan\"
  training.learning_rate = 0.05

Options such as --epochs change what they differ from. Each run is a run folder,
OUT/NAME/seed-N.";

/// Help for options whose meaning differs from `adali train`.
pub fn out_help(arg: Arg) -> Arg {
    arg.help("Folder to write [default: runs/compare-1, -2, …]")
}
pub fn resume_help(arg: Arg) -> Arg {
    arg.help("Continue the comparison in this folder, with its own settings but for --seeds [default: a new one]")
}
pub fn force_help(arg: Arg) -> Arg {
    arg.help("Overwrite the comparison in --out")
}
pub fn seed_help(arg: Arg) -> Arg {
    arg.help("The first seed; the others follow it [default: 0]").long_help(None)
}

/// All that says what to train.
fn not_with_cost() -> impl Iterator<Item = &'static str> {
    let of_training = NOT_WITH_RESUME.iter().copied().filter(|id| !["out", "force"].contains(id));
    of_training.chain(["plan", "resume", "surrogates", "seeds", "reach"])
}

#[derive(Args)]
pub struct CompareArguments {
    /// Surrogates to compare [default: adali,sigmoid,arctan].
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND,KIND,…", help_heading = COMPARE, conflicts_with_all = ["plan", "resume"])]
    surrogates: Option<Vec<SurrogateKind>>,
    /// Compare the configurations of this file; see --help [default: none].
    #[arg(long, value_name = "FILE", help_heading = COMPARE, conflicts_with_all = ["config", "resume"])]
    plan: Option<PathBuf>,
    /// Number of seeds for each configuration; with --resume, the new total [default: 3, or those of the plan].
    #[arg(long, value_name = "N", help_heading = COMPARE)]
    seeds: Option<usize>,
    /// Report how many epochs reach this validation accuracy, a share [default: 0.9].
    #[arg(long, value_name = "SHARE", help_heading = COMPARE, conflicts_with = "resume")]
    reach: Option<f64>,
    /// Train nothing; time single operations on random data of several shapes, and write cost.json if --out is given.
    #[arg(long, help_heading = COMPARE, conflicts_with_all = not_with_cost())]
    cost: bool,
    /// Share of neuron-steps that spike in the data of --cost.
    #[arg(long, value_name = "SHARE", default_value_t = 0.1, help_heading = COMPARE, requires = "cost")]
    firing_rate: f64,
    #[command(flatten)]
    train: TrainArguments,
}

pub fn run(arguments: CompareArguments) -> Result<End> {
    on_device!(arguments.train.device, |backend| match arguments.cost {
        true => cost::costs(&backend, &arguments),
        false => compare(&backend, &arguments),
    })
}

fn compare<B: Backend>(backend: &B, arguments: &CompareArguments) -> Result<End> {
    let (mut comparison, samples, stop) = match &arguments.train.resume {
        Some(folder) => {
            let place = Comparison::enter(folder)?;
            let plan = resumed_plan(folder, &arguments.train.data, arguments.seeds)?;
            let samples = check(&plan)?;
            let stop = signals::watch()?;
            let comparison = Comparison::open(place, plan)?;
            if arguments.seeds.is_some() {
                comparison.save_plan()?;
            }
            (comparison, samples, stop)
        }
        None => {
            let inputs: Vec<&Path> = arguments.plan.as_deref().into_iter().chain(arguments.train.inputs()).collect();
            let (out, force) = (&arguments.train.out, arguments.train.force);
            if let Some(folder) = out {
                Place::check(folder, &KIND, force, &inputs)?;
            }
            let plan = arguments.new_plan()?;
            let samples = check(&plan)?;
            let stop = signals::watch()?;
            let comparison = match out {
                Some(folder) => Comparison::create(folder.clone(), plan, force, &inputs)?,
                None => Comparison::create_free(plan)?,
            };
            (comparison, samples, stop)
        }
    };
    if let Some(text) = comparison.note() {
        note(text);
    }
    let quiet = is_quiet() || arguments.train.json;
    let folder = comparison.folder().display().to_string();
    if !quiet {
        introduce(&comparison, &samples, &arguments.train.device.describe(backend))?;
    }
    let mut show = Show::new(&comparison, quiet);
    let load = |config: &Config| load_data(&config.data);
    let outcome = run_all(&mut comparison, backend, &load, &mut show, stop);
    show.bar.finish_and_clear();
    if outcome? == Outcome::Interrupted {
        let folder = shell_word(comparison.folder());
        match comparison.is_staged() {
            true => note(format_args!(
                "interrupted before the first checkpoint; {folder} still holds the comparison from before"
            )),
            false => {
                note(format_args!("interrupted; everything is saved. Continue with: adali compare --resume {folder}"));
            }
        }
        return Ok(End::Interrupted);
    }
    if !quiet {
        say(format!("\n{}", report::terminal(&comparison)))?;
        if !comparison.is_staged() {
            say(format!("{folder}: compare.md, compare.json, plots, and a run folder for each run"))?;
        }
    }
    if arguments.train.json {
        say(serde_json::to_string(&report::json(&comparison, &summaries(&comparison)))?)?;
    }
    if let Some(error) = &comparison.cost_error {
        bail!("the steps could not be timed: {error}");
    }
    let failed = comparison.runs.iter().filter(|record| record.status == Status::Failed);
    let first = failed.clone().find_map(|record| record.error.as_deref());
    match failed.count() {
        0 => Ok(End::Done),
        failed if comparison.is_staged() => bail!(
            "all {failed} runs failed ({}); {folder} still holds the comparison from before",
            first.unwrap_or_default()
        ),
        failed => bail!("{failed} of {} runs failed; {folder}/compare.md says why", comparison.runs.len()),
    }
}

/// Trains the unfinished runs, and times the steps of all configurations.
fn run_all<B: Backend>(
    comparison: &mut Comparison,
    backend: &B,
    load: &dyn Fn(&Config) -> Result<Dataset>,
    show: &mut Show,
    stop: &AtomicBool,
) -> Result<Outcome> {
    for i in comparison.unfinished(backend)? {
        show.begin(&comparison.runs[i], i, comparison.configuration(i).training.epochs);
        if comparison.train(i, backend, load, show, stop)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
        show.end(&comparison.runs[i])?;
    }
    show.measure();
    comparison.measure(backend, load, stop)
}

impl CompareArguments {
    /// What is compared if nothing is resumed.
    fn new_plan(&self) -> Result<Plan> {
        let given = self.plan.as_deref().map(PlanFile::read).transpose()?;
        let Some(file) = given else {
            if self.train.chooses_surrogate() {
                bail_input!(
                    "--surrogate and --sharpness would make all configurations the same; name several with --surrogates, or use --plan"
                );
            }
            let (base, _) = self.train.configure()?;
            let kinds = self.surrogates.as_deref().unwrap_or(&SURROGATES);
            return self.plan_of(&base, None, None, Plan::of_surrogates(&base, kinds));
        };
        let (base, _) = self.train.configure_onto(file.data()?, |usual| file.base(&usual))?;
        self.plan_of(&base, file.seeds.clone(), file.reach, file.configurations(&base)?)
    }

    /// The seeds from the options, else from the plan, else the default ones.
    fn plan_of(
        &self,
        base: &Config,
        seeds: Option<Vec<u64>>,
        reach: Option<f64>,
        configurations: Vec<Configuration>,
    ) -> Result<Plan> {
        let chosen = self.seeds.is_some() || self.train.chooses_seed();
        let count = self.seeds.unwrap_or(SEEDS);
        if count == 0 || count > MOST_SEEDS {
            bail_input!("--seeds {count} must be between 1 and {MOST_SEEDS}");
        }
        let following = || (0..count as u64).map(|i| base.seed.saturating_add(i)).collect();
        let seeds = seeds.filter(|_| !chosen).unwrap_or_else(following);
        let reach = self.reach.or(reach).unwrap_or(REACH);
        Plan::new(seeds, reach, command_line(), configurations)
    }
}

/// The plan of a comparison's folder, extended to `count` seeds if given; its samples may have moved.
fn resumed_plan(folder: &Path, moved: &DataOptions, count: Option<usize>) -> Result<Plan> {
    let path = plan_file(folder);
    let file = PlanFile::read(&path)?;
    let spec = DataSpec::default();
    let data = load_data(&spec)?;
    let base = file.base(&Config::for_data(spec, &data)?)?;
    let mut configurations = file.configurations(&base)?;
    for configuration in &mut configurations {
        let data = &mut configuration.config.data;
        data.dir = moved.data_dir.clone().or(data.dir.take());
        data.cache_dir = moved.cache_dir.clone();
    }
    let Some(mut seeds) = file.seeds else { bail_input!("{} has no seeds; put the old file back", path.display()) };
    let mut command = file.command.unwrap_or_default();
    let held = seeds.len();
    if let Some(count) = count.filter(|&count| count != held) {
        if !(held..=MOST_SEEDS).contains(&count) {
            bail_input!(
                "{} compares {held} seeds, and --seeds {count} can only make them more, up to {MOST_SEEDS}",
                folder.display()
            );
        }
        let next = seeds.iter().max().map_or(0, |last| last.saturating_add(1));
        seeds.extend((next..).take(count - held));
        command = format!("{command} && {}", command_line());
    }
    Plan::new(seeds, file.reach.unwrap_or(REACH), command, configurations)
}

/// Checks every configuration before anything is written; returns how they use the samples, without duplicates.
fn check(plan: &Plan) -> Result<Vec<String>> {
    let mut known: Option<(DataSpec, Dataset)> = None;
    let mut samples = Vec::new();
    for configuration in &plan.configurations {
        let spec = &configuration.config.data;
        let data = match known.take() {
            Some((last, data)) if last.source == spec.source && last.dir == spec.dir && last.events == spec.events => {
                data
            }
            _ => load_data(spec)?,
        };
        configuration.check(&data)?;
        let (training, held_out) = configuration.config.parts(&data.train.labels)?;
        let used = used(training.len(), held_out.len(), configuration.config.training.batch);
        let line = format!("{} ({}): {used}", spec.source.name(), data.source);
        if !samples.contains(&line) {
            samples.push(line);
        }
        known = Some((spec.clone(), data));
    }
    Ok(samples)
}

fn introduce(comparison: &Comparison, samples: &[String], device: &str) -> Result<()> {
    let plan = &comparison.plan;
    let names: Vec<&str> = plan.configurations.iter().map(|c| c.name.as_str()).collect();
    let seeds: Vec<String> = plan.seeds.iter().map(u64::to_string).collect();
    say(format!("device   {device}"))?;
    say(format!("compare  {}", names.join(", ")))?;
    for line in samples {
        say(format!("data     {line}"))?;
    }
    say(format!("seeds    {}", seeds.join(", ")))?;
    say(format!("runs     {} in {}", comparison.runs.len(), comparison.folder().display()))
}
