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
        Self { grid: [items.div_ceil(per_block).max(1) as u32, 1, 1], threads, shared: 0 }
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

    /// Device memory whose content is undefined.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer>;

    /// Copies to the device, from its `offset`-th byte on.
    fn upload(&self, to: &Self::Buffer, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Copies the whole buffer from the device.
    fn download(&self, from: &Self::Buffer) -> Result<Vec<u8>>;

    /// Runs a kernel on its parameter struct.
    fn launch(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()>;
}
