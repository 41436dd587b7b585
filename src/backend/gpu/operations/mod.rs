//! The operations: each sets its kernel's parameters and launches it.

mod branches;
mod ceiling;
mod conv;
mod conv_grad;
mod integrate_events;
mod neurons;
pub mod step;
pub mod training;
