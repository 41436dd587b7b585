//! AdaLi's bounds of every spiking layer during training: schedule, histograms, updates.

use crate::autotune::{BoundsMode, BoundsSpec, Flag, Histogram, Tuning};
use crate::backend::{Backend, Histograms};
use crate::network::Model;
use crate::surrogate::{Bounds, Schedule};
use anyhow::{Result, bail};

/// The membrane potentials of one spiking layer in the epoch that has just ended.
#[derive(Clone, Debug, Default)]
pub struct LayerTrack {
    /// Index of its population.
    pub population: usize,
    /// Counts over all channels.
    pub histogram: Histogram,
    /// Problems that the last counts revealed.
    pub flags: Vec<Flag>,
}

/// Tracks the bounds of all spiking layers, which the model stores together with their histograms.
#[derive(Clone, Debug)]
pub struct BoundsTracker {
    spec: BoundsSpec,
    /// Whether the surrogate has bounds that move.
    moves: bool,
    epochs: f64,
    pub layers: Vec<LayerTrack>,
}

impl BoundsTracker {
    /// Prepares the model for counting, and sets its bounds to the schedule's first.
    pub fn new<B: Backend>(model: &mut Model<B>, spec: Option<BoundsSpec>, epochs: u32) -> Result<Self> {
        let moves = spec.is_some();
        // Bounds that do not move are those of the rectangle.
        let widths = [Bounds::RECTANGLE.left as f64; 2];
        let fixed = BoundsSpec { schedule: Schedule::Constant, left: widths, right: widths, ..BoundsSpec::default() };
        let spec = spec.unwrap_or(fixed);
        model.set_histograms(spec.per_channel)?;
        let populations: Vec<usize> = model.spiking().map(|(i, _)| i).collect();
        for &population in &populations {
            let first = spec.with_gain(spec.scheduled(None, 1.0, epochs as f64), 1.0, epochs as f64);
            let first = vec![first; model.bounds(population)?.len()];
            model.set_bounds(population, &first, &first)?;
        }
        let layers = populations.into_iter().map(|population| LayerTrack { population, ..LayerTrack::default() });
        Ok(Self { spec, moves, epochs: epochs as f64, layers: layers.collect() })
    }

    fn tuning(&self, first: bool) -> Tuning {
        Tuning { spec: self.spec, epochs: self.epochs, first }
    }

    /// Whether the first bounds need the membrane potentials before the first step.
    pub fn wants_start(&self) -> bool {
        self.moves && (self.spec.mode.tracks() || self.starts())
    }

    /// Whether bounds found before the first step replace the schedule's first values.
    pub fn starts(&self) -> bool {
        self.spec.mode == BoundsMode::AutoInit
    }

    /// Whether the bounds follow the histograms during training.
    pub fn tracks(&self) -> bool {
        self.moves && self.spec.mode.tracks()
    }

    /// Whether the schedule is followed at every step.
    pub fn moves_per_step(&self) -> bool {
        self.moves && self.spec.per_step && !self.spec.mode.tracks()
    }

    /// Steps between updates from the histogram; `None` if updates happen once per epoch or never.
    pub fn update_every(&self) -> Option<u64> {
        (self.tracks() && self.spec.update_every > 0).then_some(self.spec.update_every.into())
    }

    /// Sets the first bounds from the counts taken before the first step.
    ///
    /// # Errors
    /// If a membrane potential is not finite.
    pub fn start<B: Backend>(&self, model: &mut Model<B>) -> Result<()> {
        model.collect_counts()?;
        for layer in &self.layers {
            let potentials: u64 = model.histograms(layer.population)?.epoch.iter().map(|h| h.non_finite).sum();
            if potentials > 0 {
                bail!("{}", not_finite(model, layer.population, potentials, "before the first step"));
            }
        }
        model.tune_bounds(&self.tuning(true), true)?;
        for layer in &self.layers {
            let count = model.bounds(layer.population)?.len();
            model.set_histograms_of(layer.population, &Histograms::empty(count))?;
        }
        Ok(())
    }

    /// Sets the schedule's bounds for the step's position.
    pub fn follow_schedule<B: Backend>(&self, model: &mut Model<B>) -> Result<()> {
        model.tune_bounds(&self.tuning(false), false)
    }

    /// Moves the bounds as their mode requires at the step's position; flags what the histograms reveal.
    pub fn update<B: Backend>(&self, model: &mut Model<B>) -> Result<()> {
        model.tune_bounds(&self.tuning(false), true)
    }

    /// Takes the epoch's histograms and flags from the model and starts new ones there.
    pub fn end_epoch<B: Backend>(&mut self, model: &mut Model<B>) -> Result<()> {
        for layer in &mut self.layers {
            let mut histograms = model.histograms(layer.population)?;
            layer.histogram = Histogram::default();
            for histogram in &mut histograms.epoch {
                layer.histogram.merge(&std::mem::take(histogram));
            }
            layer.flags = histograms.flags.clone();
            model.set_histograms_of(layer.population, &histograms)?;
        }
        Ok(())
    }
}

/// The message that membrane potentials of a population are not finite, and what to do.
pub fn not_finite<B: Backend>(model: &Model<B>, population: usize, potentials: u64, when: &str) -> String {
    format!(
        "{}: {potentials} membrane potentials are not finite {when}; lower the learning rate, clip gradients, or check the data and the weights it started from",
        model.plan().populations[population].label()
    )
}
