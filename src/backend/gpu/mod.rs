//! The GPU backend: hand-written CUDA kernels behind a driver interface.
//!
//! A [`Driver`] allocates, copies and launches. [`cuda`] is NVIDIA's, through cudarc; a rehearsal counts memory and
//! launches without one. Kernels and layouts are described in `kernels/README.md`.

mod backend;
pub mod cuda;
mod driver;
pub mod geometry;
mod memory;
mod operations;
pub mod params;
mod precision;
mod storage;
mod tensors;
pub mod tile;

pub use driver::{Buffer, Driver, Launch, SLOTS};
pub use memory::Gpu;
pub use precision::Precision;
pub use storage::RESERVE;
