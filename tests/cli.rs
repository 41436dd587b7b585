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
mod process {
    #[cfg(kernels)]
    pub mod card;
    pub mod driver;
    mod folders;
    mod program;
    mod random;
    pub mod tensors;

    pub use folders::*;
    pub use program::*;
    pub use random::Random;
}
#[cfg(target_os = "linux")]
mod process_memory;
mod resume;
mod runs;
mod simulated_events;
