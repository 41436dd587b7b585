//! What a training tells.

use super::Trainer;
use crate::backend::Backend;
use crate::metrics::EpochMetrics;
use crate::train::checkpoint::Progress;
use anyhow::Result;

/// Receives the events of a training: a progress bar, a run folder. Each does nothing unless it is implemented.
pub trait Observer<B: Backend> {
    /// After every step; `done` of `total` in this epoch.
    fn step(&mut self, _done: u64, _total: u64, _epoch: u32, _progress: &Progress) {}
    /// While samples are scored without training on them.
    fn scored(&mut self, _done: usize, _total: usize, _what: Scored) {}
    /// The network is the best so far on the held-out samples, or nothing is held out.
    fn improved(&mut self, _trainer: &Trainer<B>, _epoch: u32) -> Result<()> {
        Ok(())
    }
    /// After every epoch.
    fn epoch(&mut self, _trainer: &Trainer<B>, _metrics: &EpochMetrics, _improved: bool) -> Result<()> {
        Ok(())
    }
    /// A checkpoint is due: after every epoch, after a configured number of steps, or when the training stops early.
    fn checkpoint(&mut self, _trainer: &Trainer<B>) -> Result<()> {
        Ok(())
    }
    /// After every epoch, once everything is saved.
    fn saved(&mut self, _metrics: &EpochMetrics, _improved: bool) -> Result<()> {
        Ok(())
    }
}

/// Nothing is shown or saved, and the last network is kept.
impl<B: Backend> Observer<B> for () {}

/// Samples that are scored without training on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scored {
    /// After this epoch.
    HeldOut(u32),
    Test,
}
