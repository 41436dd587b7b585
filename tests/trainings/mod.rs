//! Whole trainings on the GPU backend: against the CPU backend, and against themselves with other graphs, schedules, memory and
//! interruptions.

mod against_cpu;
mod faults;
mod resumed;
mod same_bits;
mod training;
