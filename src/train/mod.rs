//! Training: configuration, loop, bounds over the epochs, checkpoints, metrics.

mod bounds;
pub mod checkpoint;
pub mod config;
pub mod defaults;
pub mod evaluate;
pub(crate) mod graphs;
pub mod optimizer;
pub mod recipes;
pub mod run;
pub mod schema;
mod session;
mod trainer;

pub use bounds::BoundsTracker;
pub use config::Config;
pub use session::Session;
pub use trainer::{Observer, Outcome, Scored, Trainer};
