//! A comparison's folder: its plan, its runs and their results.

use crate::compare::plan::{Plan, PlanFile, run_folder};
use crate::compare::probe::Probe;
use crate::compare::steps::StepCosts;
use crate::files::lock;
use crate::files::place::{Kind, Place, is_half_replaced};
use crate::files::{MOST_RECORDS, read_text, write_whole};
use crate::metrics::EpochMetrics;
use crate::train::Config;
use crate::train::run::{self, RunFiles, RunResult};
use crate::{bail_input, input_error};
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Files of a comparison alongside the runs' folders.
pub const FILES: [&str; 6] = ["compare.json", "compare.md", "accuracy.svg", "bounds.svg", "gradients.svg", "cost.svg"];

/// The state of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Not started in this comparison, or interrupted.
    Pending,
    Finished,
    Failed,
}

/// One configuration with one seed.
#[derive(Clone, Debug)]
pub struct RunRecord {
    pub configuration: String,
    pub seed: u64,
    /// Relative to the comparison's folder.
    pub folder: String,
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    pub result: Option<RunResult>,
    pub probe: Option<Probe>,
    pub epochs: Vec<EpochMetrics>,
}

/// A comparison and its folder.
pub struct Comparison {
    pub(super) place: Rc<Place>,
    pub plan: Plan,
    /// Seeds outermost, so that an interrupted comparison is balanced.
    pub runs: Vec<RunRecord>,
    /// The device, once it is known.
    pub device: String,
    pub costs: Option<StepCosts>,
    /// Why there are none.
    pub cost_error: Option<String>,
}

impl Comparison {
    /// Claims a folder for a new comparison. An existing one is replaced, at the first checkpoint, only with `force`;
    /// `inputs` are files that the command reads.
    pub fn create(folder: PathBuf, plan: Plan, force: bool, inputs: &[&Path]) -> Result<Self> {
        Self::begin(Place::claim(folder, &KIND, force, inputs)?, plan)
    }

    /// Claims the first free folder of `runs/compare-1`, `runs/compare-2`, ….
    pub fn create_free(plan: Plan) -> Result<Self> {
        Self::begin(Place::claim_free("compare", &KIND)?, plan)
    }

    fn begin(place: Place, plan: Plan) -> Result<Self> {
        let comparison = Self::of(place, plan);
        comparison.save_plan()?;
        Ok(comparison)
    }

    /// Claims a comparison's folder in order to continue it; its plan can then be read from [`plan_file`].
    pub fn enter(folder: &Path) -> Result<Place> {
        let path = plan_file(folder);
        if !path.is_file() && !is_half_replaced(folder) {
            bail_input!("{} is not a comparison's folder: it holds no plan.toml", folder.display());
        }
        Place::enter(folder.into(), &KIND)
    }

    /// Opens a place from [`Comparison::enter`] and reads the finished runs.
    pub fn open(place: Place, plan: Plan) -> Result<Self> {
        let mut comparison = Self::of(place, plan);
        for i in 0..comparison.runs.len() {
            comparison.read(i)?;
        }
        Ok(comparison)
    }

    /// Writes the plan, which may have been extended.
    pub fn save_plan(&self) -> Result<()> {
        write_whole(&plan_file(&self.path()), self.plan.to_toml().as_bytes())
    }

    fn of(place: Place, plan: Plan) -> Self {
        let record = |seed: u64, name: &str| RunRecord {
            configuration: name.to_string(),
            seed,
            folder: run_folder(name, seed),
            status: Status::Pending,
            error: None,
            result: None,
            probe: None,
            epochs: Vec::new(),
        };
        let of_seed = |&seed: &u64| plan.configurations.iter().map(move |c| record(seed, &c.name));
        let runs = plan.seeds.iter().flat_map(of_seed).collect();
        Self { place: Rc::new(place), runs, plan, device: String::new(), costs: None, cost_error: None }
    }

    /// Its folder, for messages.
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// The location of its files: until the first checkpoint they are next to those of an old run.
    pub fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// Whether the comparison to be replaced is still there.
    pub fn is_staged(&self) -> bool {
        self.place.is_staged()
    }

    /// What the user must know about its lock.
    pub fn note(&self) -> Option<&str> {
        self.place.note()
    }

    /// The configuration of run `i`, with its seed.
    pub fn configuration(&self, i: usize) -> Config {
        let configurations = &self.plan.configurations;
        Config { seed: self.runs[i].seed, ..configurations[i % configurations.len()].config.clone() }
    }

    /// The runs of a configuration, by seed.
    pub fn runs_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a RunRecord> {
        self.runs.iter().filter(move |record| record.configuration == name)
    }

    /// Reads run `i` if it has finished.
    pub(super) fn read(&mut self, i: usize) -> Result<()> {
        let files = RunFiles::at(self.path().join(&self.runs[i].folder));
        if !files.result().exists() || !files.probe().exists() {
            return Ok(());
        }
        files.check()?;
        let config = Config::read(&files.config())?;
        if !config.same_training(&self.configuration(i)) {
            bail_input!(
                "{} is not what {} says of this run; put the files of one comparison back",
                files.config().display(),
                plan_file(&self.path()).display()
            );
        }
        let result: RunResult = read_json(&files.result())?;
        let epochs = files.read_metrics(result.epochs)?;
        let record = &mut self.runs[i];
        record.probe = Some(read_json(&files.probe())?);
        (record.result, record.epochs, record.status) = (Some(result), epochs, Status::Finished);
        Ok(())
    }
}

/// The files of a comparison in a folder.
pub static KIND: Kind = Kind {
    name: "a comparison",
    holds: |folder| PlanFile::read(&plan_file(folder)).is_ok_and(|plan| plan.runs().is_ok()),
    files: |folder| {
        let plan = PlanFile::read(&plan_file(folder)).and_then(|plan| plan.runs());
        let of_run = |run: String| {
            let names = run::FILES.into_iter().chain([lock::LOCK]);
            names.map(|name| folder.join(&run).join(name)).collect::<Vec<_>>()
        };
        let runs = plan.unwrap_or_default().into_iter().flat_map(of_run);
        runs.chain(FILES.map(|name| folder.join(name))).chain([plan_file(folder)]).collect()
    },
};

/// The location of a comparison's plan.
pub fn plan_file(folder: &Path) -> PathBuf {
    folder.join("plan.toml")
}

fn read_json<V: DeserializeOwned>(path: &Path) -> Result<V> {
    let text = read_text(path, MOST_RECORDS)?;
    serde_json::from_str(&text)
        .map_err(|e| input_error!("{} is damaged: {e}; remove it to end its run again", path.display()))
}
