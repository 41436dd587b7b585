//! Kernels of `kernels/emulator/tests/`.

mod instructions;
mod order;
mod planted;

use crate::launch::launch;
use adali::backend::gpu::emulator::{Emulator, EmulatorBuffer};
use adali::backend::gpu::{Buffer, Driver, Launch};
use bytemuck::Pod;

/// One row of blocks.
fn blocks(count: u32, threads: u32) -> Launch {
    Launch { grid: [count, 1, 1], threads, shared: 0 }
}

fn upload<T: Pod>(device: &Emulator, values: &[T]) -> EmulatorBuffer {
    let bytes: &[u8] = bytemuck::cast_slice(values);
    let buffer = device.allocate(bytes.len()).expect("memory");
    device.upload(&buffer, 0, bytes).expect("it fits");
    buffer
}
