//! Whole trainings on the GPU backend, run on the emulator: against the CPU backend, and against themselves with other
//! graphs, schedules, memory and interruptions.
#![cfg(feature = "emulator")]

mod process;

#[path = "gpu_training/against_cpu.rs"]
mod against_cpu;
#[path = "gpu_training/faults.rs"]
mod faults;
#[path = "gpu_training/resumed.rs"]
mod resumed;
#[path = "gpu_training/same_bits.rs"]
mod same_bits;
#[path = "gpu_training/training.rs"]
mod training;
