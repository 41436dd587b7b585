//! Trains every configuration with every seed, each in a run folder of its own.

use crate::backend::Backend;
use crate::compare::probe::probe;
use crate::compare::record::{Comparison, Status};
use crate::compare::report;
use crate::compare::steps::step_costs;
use crate::data::Dataset;
use crate::error::Interrupted;
use crate::files::write_whole;
use crate::train::run::Run;
use crate::train::{Config, Observer, Outcome, Session, Trainer};
use anyhow::Result;
use std::sync::atomic::AtomicBool;

impl Comparison {
    /// The runs that are still to be trained, on this device; the report is written.
    pub fn unfinished<B: Backend>(&mut self, backend: &B) -> Result<Vec<usize>> {
        self.device = backend.describe();
        report::save(self)?;
        Ok((0..self.runs.len()).filter(|&i| self.runs[i].status != Status::Finished).collect())
    }

    /// Trains a run, or until `stop`, and writes the report. If the run fails, that is recorded and no error.
    /// `load` reads a configuration's data set.
    pub fn train<B: Backend>(
        &mut self,
        run: usize,
        backend: &B,
        load: &dyn Fn(&Config) -> Result<Dataset>,
        observer: &mut dyn Observer<B>,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let outcome = self.train_session(run, backend, load, observer, stop);
        match &outcome {
            Ok(Outcome::Finished) => self.read(run)?,
            Ok(Outcome::Interrupted) => {}
            Err(error) if error.is::<Interrupted>() => return Ok(Outcome::Interrupted),
            Err(error) => {
                let record = &mut self.runs[run];
                (record.status, record.error) = (Status::Failed, Some(format!("{error:#}")));
            }
        }
        report::save(self)?;
        Ok(outcome.unwrap_or(Outcome::Finished))
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

    fn train_session<B: Backend>(
        &self,
        run: usize,
        backend: &B,
        load: &dyn Fn(&Config) -> Result<Dataset>,
        observer: &mut dyn Observer<B>,
        stop: &AtomicBool,
    ) -> Result<Outcome> {
        let config = self.configuration(run);
        let mut data = load(&config)?;
        let trainer = Trainer::new(backend.clone(), config, &mut data)?;
        let folder = Run::within(&self.place, &self.runs[run].folder)?;
        let mut session = match folder.files().config().exists() {
            true => Session::resume(trainer, folder, data.test, &data.source)?,
            false => Session::begin(trainer, folder, data.test)?,
        };
        if session.train(observer, stop)? == Outcome::Interrupted {
            return Ok(Outcome::Interrupted);
        }
        let Some(test) = session.test_as_it_is(observer, stop)? else { return Ok(Outcome::Interrupted) };
        let Some(probe) = probe(&mut session.trainer, test, stop)? else { return Ok(Outcome::Interrupted) };
        // The result comes last: with it, the run is finished.
        write_whole(&session.run.files().probe(), (serde_json::to_string_pretty(&probe)? + "\n").as_bytes())?;
        Ok(if session.finish(observer, stop)?.is_some() { Outcome::Finished } else { Outcome::Interrupted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::compare::plan::Plan;
    use crate::data::sampling::epoch_order;
    use crate::data::{DataSource, load};
    use crate::network::Volume;
    use crate::network::parameters::Part;
    use crate::network::presets::{Preset, Size};
    use crate::surrogate::SurrogateKind;
    use crate::train::config::DataSpec;
    use crate::train::optimizer::TrainingSpec;

    #[test]
    fn configurations_begin_with_the_same_weights_and_see_the_same_batches() {
        let mut base = Config {
            seed: 0,
            data: DataSpec::default(),
            training: TrainingSpec { batch: 32, ..TrainingSpec::default() },
            loss: Default::default(),
            bounds: Default::default(),
            network: Preset::Digits.network(Volume { h: 8, w: 8, c: 1 }, 10, &Size::default()),
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
