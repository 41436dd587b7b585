//! The progress of a comparison.

use super::super::progress::{line, message_bar, room, time_left};
use super::super::say;
use crate::backend::Backend;
use crate::compare::Comparison;
use crate::compare::record::RunRecord;
use crate::train::checkpoint::Progress;
use crate::train::{Observer, Scored};
use anyhow::Result;
use indicatif::ProgressBar;
use std::time::Instant;

/// Shows a comparison: one bar for everything, one line per run.
pub struct Show {
    pub bar: ProgressBar,
    quiet: bool,
    runs: usize,
    /// Width of the longest name.
    width: usize,
    /// Index of the current run.
    index: usize,
    epochs: u32,
    /// When the first run of this process began, and the share that was done before.
    begun: Option<(Instant, f64)>,
    /// Name of the current run.
    head: String,
}

impl Show {
    pub fn new(comparison: &Comparison, quiet: bool) -> Self {
        let (bar, runs) = (message_bar(), comparison.runs.len());
        let width = comparison.plan.configurations.iter().map(|c| c.name.chars().count()).max().unwrap_or(0);
        Self { bar, quiet, runs, width, index: 0, head: String::new(), epochs: 1, begun: None }
    }

    /// Called when all runs have ended.
    pub fn measure(&self) {
        self.bar.set_message(line("all runs", 1.0, &["timing steps".into()], room()));
        self.bar.tick();
    }
}

impl<B: Backend> Observer<B> for Show {
    fn step(&mut self, done: u64, total: u64, epoch: u32, progress: &Progress) {
        let of_run = (f64::from(epoch - 1) + done as f64 / total as f64) / f64::from(self.epochs);
        let share = (self.index as f64 + of_run) / self.runs as f64;
        let totals = &progress.totals;
        let accuracy = 100.0 * totals.correct as f64 / totals.samples.max(1) as f64;
        let (begin, before) = self.begun.unwrap_or((Instant::now(), 0.0));
        let fields = [
            format!("epoch {epoch}/{}", self.epochs),
            format!("{accuracy:.2} %"),
            time_left(begin, (share - before) / (1.0 - before)),
        ];
        self.bar.set_message(line(&self.head, share, &fields, room()));
    }

    fn scored(&mut self, done: usize, total: usize, what: Scored) {
        let what = match what {
            Scored::HeldOut(epoch) => format!("epoch {epoch}/{}  held out", self.epochs),
            Scored::Test => "test".into(),
        };
        let share = self.index as f64 / self.runs as f64;
        self.bar.set_message(line(&self.head, share, &[format!("{what} {done}/{total}")], room()));
    }
}

impl Show {
    /// Before run `index`, which trains for this many epochs.
    pub fn begin(&mut self, record: &RunRecord, index: usize, epochs: u32) {
        (self.index, self.epochs) = (index, epochs);
        let share = index as f64 / self.runs as f64;
        self.begun.get_or_insert_with(|| (Instant::now(), share));
        let (runs, name) = (self.runs, &record.configuration);
        self.head = format!("run {}/{runs}  {name}  seed {}", index + 1, record.seed);
        self.bar.set_message(line(&self.head, share, &[], room()));
    }

    /// When a run has finished or failed.
    pub fn end(&mut self, record: &RunRecord) -> Result<()> {
        if self.quiet {
            return Ok(());
        }
        let came_to = match (&record.result, &record.probe, &record.error) {
            (Some(result), Some(probe), _) => format!(
                "test accuracy {:6.2} % (epoch {}), {:6.2} % (last epoch)",
                100.0 * result.test_accuracy,
                result.epoch,
                100.0 * probe.test.accuracy
            ),
            (_, _, error) => format!("failed: {}", error.as_deref().unwrap_or("")),
        };
        let (name, seed, width) = (&record.configuration, record.seed, self.width);
        self.bar.suspend(|| say(format!("{name:<width$}  seed {seed}  {came_to}")))
    }
}
