//! What the timing of operations gives.

use super::operation::Operation;
use super::shape::LayerShape;
use super::timing::Timing;
use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};

/// The measurement of an operation at a shape.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    pub operation: String,
    /// Distinguishes operations of the same name.
    pub variant: String,
    pub shape: String,
    /// Copies of the tensors that took turns.
    pub copies: usize,
    /// Share of neuron-steps that spike in the operation's input.
    pub firing_rate: f64,
    /// Values that were compared with the reference, all of them correct.
    pub compared: usize,
    /// Seconds per call.
    pub seconds: Timing,
    /// Ratio to the first operation that took turns with it, round by round.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ratio: Option<Timing>,
    /// The least that it must move and compute.
    pub bytes: f64,
    pub flops: f64,
    /// The least seconds for that.
    pub floor: f64,
    /// Registers per thread, of the kernel with the most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registers: Option<u32>,
    /// Only if a step of a network was timed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub images_per_second: Option<f64>,
}

impl Record {
    /// The floor as a share of the time.
    pub fn share(&self) -> f64 {
        self.floor / self.seconds.median
    }
}

/// An operation that could not be timed: its result is wrong, or the device reported an error.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    pub operation: String,
    pub variant: String,
    pub shape: String,
    pub error: String,
}

impl Failure {
    pub fn of(operation: Operation, shape: LayerShape, error: &anyhow::Error) -> Self {
        Self {
            operation: operation.name().into(),
            variant: operation.variant(),
            shape: shape.to_string(),
            error: format!("{error:#}"),
        }
    }
}

/// Results of operations at a shape.
#[derive(Debug, Default)]
pub struct Measured {
    pub records: Vec<Record>,
    pub failures: Vec<Failure>,
}

impl Measured {
    /// Adds other results.
    pub fn extend(&mut self, others: Self) {
        self.records.extend(others.records);
        self.failures.extend(others.failures);
    }

    /// The records, if all operations were correct.
    ///
    /// # Errors
    /// The first failure.
    pub fn sound(self) -> Result<Vec<Record>> {
        match self.failures.first() {
            Some(Failure { operation, variant, shape, error }) => bail!("{operation} {variant} at {shape}: {error}"),
            None => Ok(self.records),
        }
    }
}
