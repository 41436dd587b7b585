//! Loss and accuracy without training.

use crate::backend::{Backend, LossSpec, LossSums, Normalisation};
use crate::data::sampling::Placement;
use crate::data::{Dataset, Samples};
use crate::network::Model;
use crate::network::model::Pass;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Over a set of samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scores {
    pub samples: usize,
    /// Mean over samples.
    pub loss: f64,
    /// Share in `[0, 1]`.
    pub accuracy: f64,
}

/// How a data set's bytes become input values.
pub fn normalisation(data: &Dataset) -> Normalisation {
    Normalisation { full_scale: data.full_scale, mean: data.mean.clone(), deviation: data.deviation.clone() }
}

/// Scores of the samples at `indices`; labels are read from `samples`, values from `set`.
pub fn scores<B: Backend>(
    model: &mut Model<B>,
    set: &B::Bytes,
    samples: &Samples,
    normalisation: &Normalisation,
    indices: &[u32],
    loss: &LossSpec,
) -> Result<Scores> {
    let mut sums = LossSums::default();
    for batch in indices.chunks(model.capacity()) {
        let placements = vec![Placement::default(); batch.len()];
        model.gather(set, &samples.shape, normalisation, batch, &placements)?;
        model.forward(Pass::evaluate())?;
        let labels: Vec<u16> = batch.iter().map(|&i| samples.labels[i as usize]).collect();
        sums += model.loss(loss, &labels, false)?;
    }
    let count = indices.len();
    Ok(Scores { samples: count, loss: sums.loss / count as f64, accuracy: sums.correct as f64 / count as f64 })
}
