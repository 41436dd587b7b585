//! AdaLi's bounds of the populations, and the histograms that move them.

use super::Model;
use crate::autotune::Tuning;
use crate::backend::{Backend, Histograms};
use crate::surrogate::Bounds;
use anyhow::Result;

impl<B: Backend> Model<B> {
    /// AdaLi's bounds of a population: one, or one per channel.
    pub fn bounds(&self, population: usize) -> Result<Vec<Bounds>> {
        self.backend.read_bounds(&self.populations[population].neurons.bounds)
    }

    /// The first bounds of a population, from which auto-init follows its schedule.
    pub fn start_bounds(&self, population: usize) -> Result<Vec<Bounds>> {
        self.backend.read_bounds(&self.populations[population].neurons.start)
    }

    /// Sets the bounds of a population, and those it started from: one, or one per channel.
    pub fn set_bounds(&mut self, population: usize, bounds: &[Bounds], start: &[Bounds]) -> Result<()> {
        let Self { backend, populations, plan, neuron, version, .. } = self;
        debug_assert!(bounds.len() == 1 || bounds.len() == plan.populations[population].volume.c);
        let neurons = &mut populations[population].neurons;
        for (windows, bounds) in [(&mut neurons.bounds, bounds), (&mut neurons.start, start)] {
            if backend.read_bounds(windows)?.len() == bounds.len() {
                backend.write_bounds(windows, bounds)?;
            } else {
                *windows = backend.bounds(bounds, neuron.threshold)?;
                *version += 1;
            }
        }
        Ok(())
    }

    /// From now on counts into one histogram per population, or one per channel, each with its own bounds; the histograms start
    /// empty, and the bounds are those of the rectangle.
    pub fn set_histograms(&mut self, per_channel: bool) -> Result<()> {
        self.version += 1;
        for (population, state) in self.plan.populations.iter().zip(&mut self.populations) {
            let count = if per_channel { population.volume.c } else { 1 };
            let (bounds, neurons) = (vec![Bounds::RECTANGLE; count], &mut state.neurons);
            let before = self.backend.read_bounds(&neurons.bounds)?.len();
            if before == count {
                self.backend.write_bounds(&mut neurons.bounds, &bounds)?;
                self.backend.write_bounds(&mut neurons.start, &bounds)?;
                self.backend.write_counts(&mut neurons.counts, &Histograms::empty(count))?;
                continue;
            }
            let windows = || self.backend.bounds(&bounds, self.neuron.threshold);
            (neurons.bounds, neurons.start) = (windows()?, windows()?);
            neurons.counts = self.backend.counts(count)?;
            let tables = self.memory.tables + self.backend.counts_size(count);
            self.memory.tables = tables.saturating_sub(self.backend.counts_size(before));
        }
        Ok(())
    }

    /// Histograms of a population: one, or one per channel.
    pub fn histograms(&self, population: usize) -> Result<Histograms> {
        self.backend.read_counts(&self.populations[population].neurons.counts)
    }

    /// Replaces the histograms of a population by the same number of others.
    pub fn set_histograms_of(&mut self, population: usize, histograms: &Histograms) -> Result<()> {
        self.backend.write_counts(&mut self.populations[population].neurons.counts, histograms)
    }

    /// Adds what the populations have counted since the last call to their histograms; a potential that is not finite is recorded
    /// in the totals, with its layer counted among the those that spike.
    pub fn collect_counts(&mut self) -> Result<()> {
        let spiking = self.populations.iter_mut().filter(|state| state.neurons.spikes.is_some());
        let mut counts: Vec<_> = spiking.map(|state| &mut state.neurons.counts).collect();
        self.backend.collect_counts(&mut counts, &self.batch, &mut self.tally)
    }

    /// Moves the bounds of all populations: by the schedule alone, or also by their histograms.
    pub fn tune_bounds(&mut self, tuning: &Tuning, by_histograms: bool) -> Result<()> {
        if by_histograms && tuning.spec.pooled {
            let spiking = self.populations.iter_mut().filter(|state| state.neurons.spikes.is_some());
            self.backend.merge_counts(&mut spiking.map(|state| &mut state.neurons.counts).collect::<Vec<_>>())?;
        }
        for state in self.populations.iter_mut().filter(|state| state.neurons.spikes.is_some()) {
            let neurons = &mut state.neurons;
            let counts = by_histograms.then_some(&mut neurons.counts);
            self.backend.tune_bounds(tuning, &self.batch, counts, &mut neurons.start, &mut neurons.bounds)?;
        }
        Ok(())
    }
}
