//! Training: configuration, loop, bounds over the epochs, checkpoints, metrics.

pub mod bounds;
pub mod checkpoint;
pub mod config;
pub mod defaults;
pub mod evaluate;
pub mod graphs;
pub mod optimizer;
pub mod run;
pub mod schema;
pub mod session;
pub mod trainer;

pub use config::Config;
pub use session::Session;
pub use trainer::{Observer, Outcome, Scored, Trainer};
