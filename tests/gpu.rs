//! The GPU backend, on the software GPU with several random orders, or with `ADALI_TEST_DEVICE=cuda RUST_TEST_THREADS=1` on
//! the first NVIDIA GPU: driver guarantees, every kernel against the CPU backend, networks against it for a few steps, and
//! whole trainings.
#![cfg(kernels)]

mod kernels;
mod launch;
mod memory;
mod networks;
#[allow(dead_code, unused_imports)] // these tests use only part of it
mod oracle;
#[allow(dead_code, unused_imports)] // these tests use only part of it
mod process;
mod promises;
#[allow(dead_code, unused_imports)] // these tests use only part of it
mod support;
mod trainings;
