//! The operations, each its kernel's parameters and launch.

mod conv;
mod neurons;
mod training;
