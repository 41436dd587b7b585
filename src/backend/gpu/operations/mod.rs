//! The operations, each its kernel's parameters and launch.

mod ceiling;
mod conv;
mod conv_grad;
mod integrate_events;
mod neurons;
pub mod step;
pub mod training;
