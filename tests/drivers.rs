//! What a `Driver` promises about order, recording and reading: on the emulator with several random schedules, or with
//! `ADALI_TEST_DEVICE=cuda` on the first NVIDIA card.
#![cfg(feature = "emulator")]

mod launch;
mod promises;
