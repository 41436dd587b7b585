//! Launches on the emulator.

use adali::backend::gpu::emulator::Emulator;
use adali::backend::gpu::{Driver, Launch};

/// Runs a kernel on buffers that its test holds until this returns, and that no other thread has.
#[allow(unsafe_code)]
pub fn launch(device: &Emulator, kernel: &str, launch: Launch, params: &[u8]) -> anyhow::Result<()> {
    // SAFETY: the emulator checks sizes and addresses; the rest is as said above: each test makes its own buffers, and
    // they live until its end.
    unsafe { device.launch(kernel, launch, params) }
}
