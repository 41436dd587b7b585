//! The emulator itself: planted faults are caught whatever the schedule, and its instructions compute what CUDA's do.
#![cfg(feature = "emulator")]

mod emulated;
mod launch;
mod oracle;
