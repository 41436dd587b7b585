//! The GPU backend: hand-written CUDA kernels behind a driver seam.
//!
//! A [`Driver`] allocates, copies and launches. [`cuda`] is NVIDIA's, through cudarc; the emulator (feature `emulator`) runs the same kernels on the CPU,
//! compiled by the C++ compiler, and checks every access; kernels and layouts are described in `kernels/README.md`.

mod backend;
pub mod cuda;
mod driver;
#[cfg(feature = "emulator")]
pub mod emulator;
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
