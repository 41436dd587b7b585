//! Trains every configuration with every seed, each in a run folder of its own.

use crate::backend::Backend;
use crate::compare::plan::{Plan, PlanFile};
use crate::compare::probe::{Probe, probe};
use crate::compare::report;
use crate::compare::steps::{StepCosts, step_costs};
use crate::data::Dataset;
use crate::error::Interrupted;
use crate::files::lock;
use crate::files::place::{Kind, Place, is_half_replaced};
use crate::files::{MOST_RECORDS, read_text, write_whole};
use crate::metrics::EpochMetrics;
use crate::train::run::{self, Run, RunFiles};
use crate::train::session::{RunResult, Watch};
use crate::train::{Config, Outcome, Session, Trainer};
use crate::{bail_input, input_error};
use anyhow::Result;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::AtomicBool;

/// How far a run has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Status {
    /// Not begun in this comparison, or begun and interrupted.
    Pending,
    Finished,
    Failed,
}

/// One configuration with one seed.
#[derive(Clone, Debug)]
pub struct RunRecord {
    pub configuration: String,
    pub seed: u64,
    /// Below the comparison's folder.
    pub folder: String,
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    pub result: Option<RunResult>,
    pub probe: Option<Probe>,
    pub epochs: Vec<EpochMetrics>,
}

/// Whoever looks at a comparison.
pub trait Spectator: Watch {
    /// Before run `index`, from 0, which trains for so many epochs.
    fn begin(&mut self, record: &RunRecord, index: usize, epochs: u32);
    /// When a run has finished or failed, and the report holds it.
    fn end(&mut self, record: &RunRecord) -> Result<()>;
}

/// A comparison and its folder.
pub struct Comparison {
    place: Rc<Place>,
    pub plan: Plan,
    /// Seeds outermost, so that a comparison cut short is balanced.
    pub runs: Vec<RunRecord>,
    /// The device, once it is known.
    pub device: String,
    pub costs: Option<StepCosts>,
    /// Why there are none.
    pub cost_error: Option<String>,
}

impl Comparison {
    /// Takes a folder for a new comparison. One that it holds is replaced, at the first checkpoint, with `force` alone;
    /// `inputs` are files that the command reads.
    pub fn create(folder: PathBuf, plan: Plan, force: bool, inputs: &[&Path]) -> Result<Self> {
        Self::begin(Place::claim(folder, &KIND, force, inputs)?, plan)
    }

    /// Takes the first of `runs/compare-1`, `runs/compare-2`, … that is free.
    pub fn create_free(plan: Plan) -> Result<Self> {
        Self::begin(Place::claim_free("compare", &KIND)?, plan)
    }

    fn begin(place: Place, plan: Plan) -> Result<Self> {
        let comparison = Self::of(place, plan);
        comparison.save_plan()?;
        Ok(comparison)
    }

    /// Takes a comparison's folder, to go on there; its plan can then be read from [`plan_file`].
    pub fn enter(folder: &Path) -> Result<Place> {
        let path = plan_file(folder);
        if !path.is_file() && !is_half_replaced(folder) {
            bail_input!("{} is not a comparison's folder: it holds no plan.toml", folder.display());
        }
        Place::enter(folder.into(), &KIND)
    }

    /// Opens what [`Comparison::enter`] took; what has finished is read.
    pub fn open(place: Place, plan: Plan) -> Result<Self> {
        let mut comparison = Self::of(place, plan);
        for i in 0..comparison.runs.len() {
            comparison.read(i)?;
        }
        Ok(comparison)
    }

    /// Writes the plan, which may have grown.
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

    /// Its folder, for people.
    pub fn folder(&self) -> &Path {
        self.place.folder()
    }

    /// Where its files are: until the first checkpoint beside those of an old run.
    pub fn path(&self) -> PathBuf {
        self.place.path()
    }

    /// Whether the comparison that it replaces is still there.
    pub fn is_staged(&self) -> bool {
        self.place.is_staged()
    }

    /// What a person must know of its lock.
    pub fn note(&self) -> Option<&str> {
        self.place.note()
    }

    /// The runs of a configuration, by seed.
    pub fn runs_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a RunRecord> {
        self.runs.iter().filter(move |record| record.configuration == name)
    }

    /// Reads run `i` if it has finished.
    fn read(&mut self, i: usize) -> Result<()> {
        let files = RunFiles::at(self.path().join(&self.runs[i].folder));
        if !files.result().exists() || !files.probe().exists() {
            return Ok(());
        }
        files.check()?;
        let config = Config::read(&files.config())?;
        let chosen = &self.plan.configurations[i % self.plan.configurations.len()];
        if !config.same_training(&Config { seed: self.runs[i].seed, ..chosen.config.clone() }) {
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

    /// Trains what has not finished, or until `stop`; after every run the report is written. A run that fails is noted
    /// and the others go on. `load` reads a configuration's data set.
    pub fn run<B: Backend>(
        &mut self,
        backend: &B,
        load: &dyn Fn(&Config) -> Result<Dataset>,
        spectator: &mut dyn Spectator,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        self.device = backend.describe();
        report::save(self)?;
        for i in 0..self.runs.len() {
            if self.runs[i].status == Status::Finished {
                continue;
            }
            let chosen = &self.plan.configurations[i % self.plan.configurations.len()];
            let config = Config { seed: self.runs[i].seed, ..chosen.config.clone() };
            spectator.begin(&self.runs[i], i, config.training.epochs);
            match self.train(backend, config, i, load, spectator, stop) {
                Ok(Outcome::Interrupted) => {
                    report::save(self)?;
                    return Ok(Outcome::Interrupted);
                }
                Ok(Outcome::Finished) => self.read(i)?,
                Err(error) if error.is::<Interrupted>() => return Ok(Outcome::Interrupted),
                Err(error) => {
                    let record = &mut self.runs[i];
                    (record.status, record.error) = (Status::Failed, Some(format!("{error:#}")));
                }
            }
            report::save(self)?;
            spectator.end(&self.runs[i])?;
        }
        Ok(Outcome::Finished)
    }

    /// Times training steps of all configurations and adds them to the report.
    pub fn measure<B: Backend>(
        &mut self,
        backend: &B,
        load: &dyn Fn(&Config) -> Result<Dataset>,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        match step_costs(backend, &self.plan, load, stop) {
            Ok(None) => return Ok(Outcome::Interrupted),
            Ok(costs) => self.costs = costs,
            Err(error) if error.is::<Interrupted>() => return Ok(Outcome::Interrupted),
            Err(error) => self.cost_error = Some(format!("{error:#}")),
        }
        report::save(self)?;
        Ok(Outcome::Finished)
    }

    fn train<B: Backend>(
        &self,
        backend: &B,
        config: Config,
        i: usize,
        load: &dyn Fn(&Config) -> Result<Dataset>,
        watch: &mut dyn Spectator,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let mut data = load(&config)?;
        let trainer = Trainer::new(backend.clone(), config, &mut data)?;
        let run = Run::within(&self.place, &self.runs[i].folder)?;
        let mut session = match run.files().config().exists() {
            true => Session::resume(trainer, run, data.test, &data.source)?,
            false => Session::begin(trainer, run, data.test)?,
        };
        if session.train(watch, stop)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
        let Some(test) = session.test_as_it_is(watch, stop)? else { return Ok(Outcome::Interrupted) };
        let Some(probe) = probe(&mut session.trainer, test, stop)? else { return Ok(Outcome::Interrupted) };
        // The result last: with it, the run has finished.
        write_whole(&session.run.files().probe(), (serde_json::to_string_pretty(&probe)? + "\n").as_bytes())?;
        Ok(if session.finish(watch, stop)?.is_some() { Outcome::Finished } else { Outcome::Interrupted })
    }
}

/// A comparison, as what a folder may hold.
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
        runs.chain(report::FILES.map(|name| folder.join(name))).chain([plan_file(folder)]).collect()
    },
};

/// Where a run lies below its comparison.
pub fn run_folder(name: &str, seed: u64) -> String {
    format!("{name}/seed-{seed}")
}

/// Where a comparison's plan lies.
pub fn plan_file(folder: &Path) -> PathBuf {
    folder.join("plan.toml")
}

fn read_json<V: DeserializeOwned>(path: &Path) -> Result<V> {
    let text = read_text(path, MOST_RECORDS)?;
    serde_json::from_str(&text)
        .map_err(|e| input_error!("{} is damaged: {e}; remove it to end its run again", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::data::sampling::epoch_order;
    use crate::data::{DataSource, load};
    use crate::network::Volume;
    use crate::network::parameters::Part;
    use crate::network::presets::Preset;
    use crate::surrogate::SurrogateKind;
    use crate::train::config::{DataSpec, TrainingSpec};

    #[test]
    fn configurations_begin_with_the_same_weights_and_see_the_same_batches() {
        let mut base = Config {
            seed: 0,
            data: DataSpec::default(),
            training: TrainingSpec { batch: 32, ..TrainingSpec::default() },
            loss: Default::default(),
            bounds: Default::default(),
            network: Preset::Digits.network(Volume { h: 8, w: 8, c: 1 }, 10, None),
        };
        (base.data.augmentation.crop_padding, base.data.augmentation.flip, base.data.limit) = (2, true, 200);
        let kinds = [SurrogateKind::Adali, SurrogateKind::Sigmoid, SurrogateKind::Triangle];
        let mut configurations = Plan::of_surrogates(&base, &kinds);
        configurations[2].config.training.learning_rate = 0.5;
        let mut cases = 0;
        for seed in [0, 7] {
            let mut seen: Vec<Vec<Vec<f32>>> = Vec::new();
            for configuration in &configurations {
                let config = Config { seed, ..configuration.config.clone() };
                let mut data = load(DataSource::Digits, None).unwrap();
                let mut trainer = Trainer::new(Cpu, config, &mut data).unwrap();
                let weights = trainer.model.parameters().map(|p| p.read(&Cpu, Part::Value).unwrap());
                let mut values: Vec<Vec<f32>> = weights.collect();
                for epoch in 1..=2 {
                    let order = epoch_order(&trainer.training, seed, epoch);
                    for batch in order.chunks_exact(trainer.config.training.batch) {
                        trainer.write_batch(batch, epoch, epoch.into(), 1, 0.0).unwrap();
                        trainer.model.gather(&trainer.set, &trainer.config.data.augmentation).unwrap();
                        values.push(trainer.model.read_input().unwrap());
                        cases += 1;
                    }
                }
                seen.push(values);
            }
            assert!(seen[0] == seen[1] && seen[0] == seen[2]);
            assert!(seen[0].last() != seen[0].get(seen[0].len() - 2), "batches differ from each other");
        }
        assert_eq!(cases, 2 * 3 * 2 * 6);
    }
}
