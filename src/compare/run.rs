//! Trains every configuration with every seed, each in a run folder of its own.

use crate::backend::Backend;
use crate::compare::plan::Plan;
use crate::compare::probe::{Probe, probe};
use crate::compare::report;
use crate::compare::steps::{StepCosts, step_costs};
use crate::data::Dataset;
use crate::files::{MOST_RECORDS, read_text, write_whole};
use crate::train::metrics::EpochMetrics;
use crate::train::run::Run;
use crate::train::session::{RunResult, Watch};
use crate::train::{Config, Outcome, Session, Trainer};
use crate::{bail_input, input_error};
use anyhow::{Context, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::path::{Path, PathBuf};
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
    folder: PathBuf,
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
    /// Makes a folder; one that already holds a comparison is refused unless `force`, which removes its runs.
    pub fn create(folder: PathBuf, plan: Plan, force: bool) -> Result<Self> {
        let held = [plan_file(&folder), folder.join("config.toml")].into_iter().find(|path| path.exists());
        if let Some(path) = held.filter(|_| !force) {
            bail_input!(
                "{} already holds {}; give another --out, continue a comparison with --resume, or overwrite it with --force",
                folder.display(),
                path.file_name().unwrap_or_default().display()
            );
        }
        let comparison = Self::of(folder, plan);
        for record in &comparison.runs {
            let run = comparison.run_folder(record);
            if run.exists() {
                Run::create(run.clone(), force)?;
                let probe = run.join(PROBE);
                if probe.exists() {
                    fs::remove_file(&probe).with_context(|| format!("cannot remove {}", probe.display()))?;
                }
            }
        }
        for file in report::FILES.map(|name| comparison.folder.join(name)).iter().filter(|file| file.exists()) {
            fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        fs::create_dir_all(&comparison.folder)
            .map_err(|e| input_error!("cannot make {}: {e}", comparison.folder.display()))?;
        write_whole(&plan_file(&comparison.folder), comparison.plan.to_toml().as_bytes())?;
        Ok(comparison)
    }

    /// Opens a folder whose plan has been read from [`plan_file`]; what has finished is read.
    pub fn open(folder: PathBuf, plan: Plan) -> Result<Self> {
        let mut comparison = Self::of(folder, plan);
        for i in 0..comparison.runs.len() {
            comparison.read(i)?;
        }
        Ok(comparison)
    }

    fn of(folder: PathBuf, plan: Plan) -> Self {
        let record = |seed: u64, name: &str| RunRecord {
            configuration: name.to_string(),
            seed,
            folder: format!("{name}/seed-{seed}"),
            status: Status::Pending,
            error: None,
            result: None,
            probe: None,
            epochs: Vec::new(),
        };
        let of_seed = |&seed: &u64| plan.configurations.iter().map(move |c| record(seed, &c.name));
        let runs = plan.seeds.iter().flat_map(of_seed).collect();
        Self { folder, runs, plan, device: String::new(), costs: None, cost_error: None }
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn run_folder(&self, record: &RunRecord) -> PathBuf {
        self.folder.join(&record.folder)
    }

    /// The runs of a configuration, by seed.
    pub fn runs_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a RunRecord> {
        self.runs.iter().filter(move |record| record.configuration == name)
    }

    /// Reads run `i` if it has finished.
    fn read(&mut self, i: usize) -> Result<()> {
        let folder = self.run_folder(&self.runs[i]);
        let run = Run::at(folder.clone());
        if !run.result().exists() || !folder.join(PROBE).exists() {
            return Ok(());
        }
        let result: RunResult = read_json(&run.result())?;
        let epochs = run.read_metrics(result.epochs)?;
        let record = &mut self.runs[i];
        record.probe = Some(read_json(&folder.join(PROBE))?);
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
        let folder = self.run_folder(&self.runs[i]);
        let mut data = load(&config)?;
        let trainer = Trainer::new(backend.clone(), config, &mut data)?;
        let mut session = if folder.join("config.toml").exists() {
            Session::resume(trainer, Run::open(folder.clone())?, data.test, &data.source)?
        } else {
            Session::begin(trainer, Run::create(folder.clone(), false)?, data.test)?
        };
        if session.train(watch, stop)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
        let test = session.test_as_it_is()?;
        let probe = probe(&mut session.trainer, test)?;
        // The result last: with it, the run has finished.
        write_whole(&folder.join(PROBE), (serde_json::to_string_pretty(&probe)? + "\n").as_bytes())?;
        session.finish()?;
        Ok(Outcome::Finished)
    }
}

const PROBE: &str = "probe.json";

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
