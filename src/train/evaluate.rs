//! Loss and accuracy without training.

use crate::backend::{Backend, LossSpec, Normalisation, Step, Totals};
use crate::data::sampling::Augmentation;
use crate::data::{Dataset, Samples};
use crate::network::Model;
use crate::network::model::Pass;
use crate::train::config::DataSpec;
use crate::train::graphs::{Graphs, Repeated};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::ops::ControlFlow;

/// Loss and accuracy over a set of samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub samples: usize,
    /// Mean over samples.
    pub loss: f64,
    /// Share in `[0, 1]`.
    pub accuracy: f64,
}

/// How a data set's bytes become input values: with the configured means and deviations, or its own.
pub fn normalisation(spec: &DataSpec, data: &Dataset) -> Normalisation {
    let of = |given: &Option<Vec<f32>>, own: &[f32]| given.clone().unwrap_or(own.to_vec());
    let (mean, std) = (of(&spec.mean, &data.mean), of(&spec.std, &data.std));
    Normalisation { full_scale: data.full_scale, mean, std }
}

/// A callback that learns after every batch how many of all samples are done, and decides whether to go on.
pub type Waiting<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Scores of the samples of `set` at `indices`; `labels` are those of all samples. The model's totals are unchanged.
/// `None` if `waiting` stopped it.
pub fn scores<B: Backend>(
    model: &mut Model<B>,
    graphs: &mut Graphs<B>,
    set: &mut B::Set,
    labels: &[u16],
    indices: &[u32],
    loss: &LossSpec,
    waiting: &mut Waiting,
) -> Result<Option<Scores>> {
    let before = model.totals()?;
    model.set_totals(&Totals::default())?;
    let (mut done, mut flow) = (0, ControlFlow::Continue(()));
    for batch in indices.chunks(model.capacity()) {
        let labels: Vec<u16> = batch.iter().map(|&i| labels[i as usize]).collect();
        model.write_batch(set, &Step::evaluate(batch, &labels))?;
        graphs.run(model, Repeated::Evaluate, |model| {
            model.gather(set, &Augmentation::default())?;
            model.forward(Pass::evaluate())?;
            model.loss(loss, false)
        })?;
        model.release_batch(set)?;
        done += batch.len();
        flow = waiting(done, indices.len());
        if flow.is_break() {
            break;
        }
    }
    let totals = model.totals()?;
    model.set_totals(&before)?;
    if flow.is_break() {
        return Ok(None);
    }
    let count = indices.len();
    totals.ensure_counted(count as u64)?;
    Ok(Some(Scores {
        samples: count,
        loss: totals.loss / count as f64,
        accuracy: totals.correct as f64 / count as f64,
    }))
}

/// Scores of the samples at `indices`; `None` if `waiting` stopped it.
pub fn sample_scores<B: Backend>(
    model: &mut Model<B>,
    samples: Samples,
    normalisation: &Normalisation,
    indices: &[u32],
    loss: &LossSpec,
    waiting: &mut Waiting,
) -> Result<Option<Scores>> {
    let Samples { shape, values, labels } = samples;
    let mut set = model.backend().set(values, shape, normalisation, model.capacity())?;
    scores(model, &mut Graphs::default(), &mut set, &labels, indices, loss, waiting)
}
