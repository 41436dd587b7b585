//! The operations, each its kernel's parameters and launch.

mod conv;
mod neurons;
pub mod step;
pub mod training;
