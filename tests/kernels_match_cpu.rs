//! Every CUDA kernel, run on the emulator with several random schedules, against the CPU backend.
#![cfg(feature = "emulator")]

mod kernels;
mod launch;
mod oracle;
