//! The GPU backend, on the software GPU with several random orders, or with `ADALI_TEST_DEVICE=cuda RUST_TEST_THREADS=1` on
//! the first NVIDIA GPU: driver guarantees, every kernel against the CPU backend, networks against it for a few steps, and
//! whole trainings.
#![cfg(kernels)]

mod kernels;
mod launch;
mod memory;
mod networks;
mod oracle {
    mod rng;
    pub use rng::Rng;
}
mod process {
    pub mod card;
    mod program;
    pub use program::*;
}
mod promises;
mod support {
    pub mod layers;
    mod sized;
    pub mod structures;
    pub use sized::Case;
}
mod trainings;
