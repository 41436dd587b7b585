//! The same network on the same batches with several configurations and seeds: what each comes to and what it costs.
//!
//! [`plan`] says what is compared, [`run`] trains it, [`record`] keeps it, [`probe`] looks at trained networks, [`steps`] times training
//! steps, [`operations`] single operations, [`summary`] takes means over seeds, [`report`] writes it all down.

pub mod operations;
pub mod plan;
pub mod plots;
pub mod probe;
pub mod record;
pub mod report;
pub mod run;
pub mod steps;
pub mod summary;
pub mod train_step;

pub use plan::{Configuration, Plan};
pub use record::Comparison;
