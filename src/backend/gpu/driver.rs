//! The seam between host code and a device: memory and launches.

use anyhow::Result;

/// A launch's extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block, a multiple of 32.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Launch {
    /// One row of blocks without dynamic shared memory, enough for `items` of which each block takes `per_block`.
    pub fn over(items: usize, per_block: usize, threads: u32) -> Self {
        // More blocks than 32 bits count are more than any device launches.
        let blocks = u32::try_from(items.div_ceil(per_block).max(1)).unwrap_or(u32::MAX);
        Self { grid: [blocks, 1, 1], threads, shared: 0 }
    }
}

/// Device memory.
pub trait Buffer {
    /// Its address on the device, as a parameter struct carries it.
    fn address(&self) -> u64;
    /// Its length in bytes.
    fn len(&self) -> usize;
    /// Whether it holds nothing.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A device.
pub trait Driver {
    type Buffer: Buffer;

    /// Bytes of memory that can still be had; `None` where nobody knows.
    fn available_memory(&self) -> Option<usize>;

    /// Device memory whose content is undefined.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer>;

    /// Copies to the device, from its `offset`-th byte on.
    fn upload(&self, to: &Self::Buffer, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Copies the whole buffer from the device.
    fn download(&self, from: &Self::Buffer) -> Result<Vec<u8>>;

    /// Runs a kernel on its parameter struct.
    ///
    /// # Safety
    /// `params` is the struct that the kernel takes. Every address in it, and in device memory that it leads to, is
    /// that of a buffer with room for all that the kernel reads and writes there. Until the kernel has ended, those
    /// buffers live, and nobody uploads to them, downloads them or launches what touches them from another thread.
    #[allow(unsafe_code)]
    unsafe fn launch(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()>;
}

/// Runs a kernel on its parameter struct, whose buffers the caller holds until the device is done with them.
#[allow(unsafe_code)]
pub(super) fn run<P: super::params::Params>(
    driver: &impl Driver,
    kernel: &str,
    launch: Launch,
    params: &P,
) -> Result<()> {
    // SAFETY: called by the operations of this folder alone. They make the struct that the kernel's name stands for from
    // buffers that they hold or were lent, of the extents that they launch with; a device runs its launches in order, so
    // a buffer that is given back afterwards is not used before they are done.
    unsafe { driver.launch(kernel, launch, bytemuck::bytes_of(params)) }
}
