//! The same network on the same batches with several configurations and seeds: what each achieves and what it costs.
//!
//! [`plan`] states what is compared, `run` trains it, [`record`] stores it, `probe` examines trained networks, `steps`
//! times training steps, [`operations`] single operations, [`summary`] computes means over seeds, [`report`] writes everything
//! down.

pub mod operations;
pub mod plan;
mod plots;
mod probe;
pub mod record;
pub mod report;
mod run;
mod steps;
pub mod summary;
pub mod train_step;

pub use plan::{Configuration, Plan};
pub use record::Comparison;
