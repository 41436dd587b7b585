//! AdaLi's bounds of every spiking layer through a training: schedule, histograms, updates.

use crate::autotune::{BoundsMode, BoundsSpec, Flag, Histogram};
use crate::backend::Backend;
use crate::network::Model;
use crate::surrogate::Bounds;
use anyhow::{Result, bail};

/// What the membrane potentials of one spiking layer have shown, and where its bounds started.
#[derive(Clone, Debug, Default)]
pub struct LayerTrack {
    /// Index of its stage.
    pub stage: usize,
    /// Counts of the current epoch: one histogram, or one a channel.
    pub epoch: Vec<Histogram>,
    /// Counts since the last update of the bounds.
    pub recent: Vec<Histogram>,
    /// Bounds that auto-init found, which stand for the schedule's first values.
    pub start: Option<Vec<Bounds>>,
    /// What the last counts showed to be wrong.
    pub flags: Vec<Flag>,
}

impl LayerTrack {
    /// The epoch's counts of all channels together.
    pub fn histogram(&self) -> Histogram {
        let mut sum = Histogram::default();
        self.epoch.iter().for_each(|h| sum.merge(h));
        sum
    }
}

/// Follows the bounds of all spiking layers.
#[derive(Clone, Debug)]
pub struct BoundsTracker {
    spec: BoundsSpec,
    /// Whether the surrogate has bounds that move.
    moves: bool,
    epochs: f64,
    pub layers: Vec<LayerTrack>,
}

impl BoundsTracker {
    /// Sets the model up to count, and its bounds to the schedule's first.
    pub fn new<B: Backend>(model: &mut Model<B>, spec: Option<BoundsSpec>, epochs: u32) -> Result<Self> {
        let moves = spec.is_some();
        let spec = spec.unwrap_or_default();
        let per_channel = moves && spec.per_channel;
        model.set_histograms(per_channel)?;
        let stages: Vec<(usize, usize)> =
            model.spiking_stages().map(|(i, stage)| (i, if per_channel { stage.conv.output.c } else { 1 })).collect();
        let mut layers = Vec::with_capacity(stages.len());
        for (stage, count) in stages {
            let empty = vec![Histogram::default(); count];
            layers.push(LayerTrack { stage, epoch: empty.clone(), recent: empty, ..LayerTrack::default() });
            if moves {
                model.set_bounds(stage, vec![spec.scheduled(None, 1.0, epochs as f64); count]);
            }
        }
        Ok(Self { spec, moves, epochs: epochs as f64, layers })
    }

    /// Whether the first bounds want a look at the membrane potentials before the first step.
    pub fn wants_start(&self) -> bool {
        self.moves && (self.spec.mode.tracks() || self.spec.mode == BoundsMode::AutoInit)
    }

    /// Takes what the model has counted since the last call.
    ///
    /// # Errors
    /// Where a membrane potential is not finite; `when` says at which step.
    pub fn collect<B: Backend>(&mut self, model: &mut Model<B>, when: &str) -> Result<()> {
        for layer in &mut self.layers {
            let counted = model.take_histogram(layer.stage)?;
            for (i, histogram) in counted.iter().enumerate() {
                if histogram.non_finite > 0 {
                    bail!(
                        "{}: {} membrane potentials are not finite {when}; lower the learning rate, clip gradients, or check the data and the weights it started from",
                        model.plan().stages[layer.stage].name(),
                        histogram.non_finite
                    );
                }
                layer.epoch[i].merge(histogram);
                layer.recent[i].merge(histogram);
            }
        }
        Ok(())
    }

    /// The first bounds, from what was counted before the first step.
    pub fn start<B: Backend>(&mut self, model: &mut Model<B>) {
        let (spec, epochs) = (self.spec, self.epochs);
        for layer in &mut self.layers {
            let scheduled = spec.scheduled(None, 1.0, epochs);
            let tuned = layer.recent.iter().map(|h| spec.tune(h, None, scheduled, spec.target_at(1.0, epochs)));
            let (bounds, flags): (Vec<Bounds>, Vec<_>) = tuned.unzip();
            layer.flags = merge_flags(flags);
            layer.start = (spec.mode == BoundsMode::AutoInit).then(|| bounds.clone());
            model.set_bounds(layer.stage, bounds);
            layer.clear_recent();
            layer.clear_epoch();
        }
    }

    /// The schedule's bounds at a (fractional) epoch, for the modes that follow it.
    pub fn follow_schedule<B: Backend>(&self, model: &mut Model<B>, epoch: f64) {
        if !self.moves || self.spec.mode.tracks() {
            return;
        }
        for layer in &self.layers {
            let bounds = (0..layer.epoch.len())
                .map(|i| self.spec.scheduled(layer.start.as_ref().map(|start| start[i]), epoch, self.epochs))
                .collect();
            model.set_bounds(layer.stage, bounds);
        }
    }

    /// Whether the schedule is followed at every step.
    pub fn moves_per_step(&self) -> bool {
        self.moves && self.spec.per_step && !self.spec.mode.tracks()
    }

    /// Steps between updates from the histogram; `None` when it is once an epoch or never.
    pub fn update_every(&self) -> Option<u64> {
        (self.moves && self.spec.mode.tracks() && self.spec.update_every > 0).then_some(self.spec.update_every.into())
    }

    /// Moves the bounds from the counts since the last update, for the modes that track; notes the flags for all.
    pub fn update<B: Backend>(&mut self, model: &mut Model<B>, epoch: f64) {
        let (spec, epochs) = (self.spec, self.epochs);
        for layer in &mut self.layers {
            if self.moves && spec.mode.tracks() {
                let scheduled = spec.scheduled(None, epoch, epochs);
                let target = spec.target_at(epoch, epochs);
                let tuned = layer
                    .recent
                    .iter()
                    .zip(model.bounds(layer.stage))
                    .map(|(h, &old)| spec.tune(h, Some(old), scheduled, target));
                let (bounds, flags): (Vec<Bounds>, Vec<_>) = tuned.unzip();
                model.set_bounds(layer.stage, bounds);
                layer.flags = merge_flags(flags);
            } else {
                layer.flags = spec.diagnose(&layer.histogram()).into_iter().collect();
            }
            layer.clear_recent();
        }
    }

    /// Forgets the epoch's counts.
    pub fn end_epoch(&mut self) {
        self.layers.iter_mut().for_each(LayerTrack::clear_epoch);
    }
}

impl LayerTrack {
    fn clear_epoch(&mut self) {
        self.epoch.iter_mut().for_each(|h| *h = Histogram::default());
    }

    fn clear_recent(&mut self) {
        self.recent.iter_mut().for_each(|h| *h = Histogram::default());
    }
}

fn merge_flags(flags: Vec<Vec<Flag>>) -> Vec<Flag> {
    let mut merged: Vec<Flag> = Vec::new();
    for flag in flags.into_iter().flatten() {
        if !merged.contains(&flag) {
            merged.push(flag);
        }
    }
    merged
}
