//! The program as a user runs it, and the files that it reads and writes.

mod bench;
#[cfg(unix)]
mod build_script;
mod camera_files;
#[cfg(kernels)]
mod card;
mod commands;
mod compare;
mod drivers;
mod event_files;
mod event_frames;
mod event_tables;
mod hostile_checkpoints;
mod messages;
#[cfg(target_os = "linux")]
mod mutated_files;
#[cfg(target_os = "linux")]
#[path = "support/pickles.rs"]
mod pickles;
mod process;
#[cfg(target_os = "linux")]
mod process_memory;
mod resume;
#[allow(dead_code)] // these tests use only part of it
#[path = "oracle/rng.rs"]
mod rng;
mod runs;
