//! The interface between host code and a device: memory and launches.

use anyhow::{Result, bail};

/// A launch's extents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in x, y and z.
    pub grid: [u32; 3],
    /// Threads per block, a multiple of 32.
    pub threads: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
}

impl Launch {
    /// A one-dimensional grid without dynamic shared memory, with enough blocks for `items` at `per_block` each.
    pub fn over(items: usize, per_block: usize, threads: u32) -> Self {
        // More blocks than fit in 32 bits are more than any device launches.
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

/// Slots of [`Driver::upload_beside`]: one is read while the other is filled.
pub const SLOTS: usize = 2;

/// A device. It runs launches in the order in which they are made; copies and clears of a buffer keep that order, except for
/// [`Driver::upload_beside`]. [`Driver::download`] and [`Driver::synchronize`] wait for launches; uploads wait at most until
/// earlier ones have left the host.
///
/// Launches can be recorded and then repeated as one. During a recording only the recording thread uses the device, and
/// everything but [`Driver::launch`], [`Driver::clear`] and [`Driver::end_recording`] is refused, without an effect on the
/// recording; buffers may be dropped.
pub trait Driver {
    type Buffer: Buffer;
    /// Recorded launches that can be repeated.
    type Graph;
    /// A copy to the host that is under way.
    type Reading;

    /// Bytes of memory still available; `None` if unknown.
    fn available_memory(&self) -> Option<usize>;

    /// Device memory with undefined content.
    fn allocate(&self, bytes: usize) -> Result<Self::Buffer>;

    /// Fills a buffer with zero bytes, in order with the launches.
    fn clear(&self, buffer: &Self::Buffer) -> Result<()>;

    /// Copies to the buffer from its `offset`-th byte on, in order with the launches. `bytes` may change as soon as it
    /// returns.
    fn upload(&self, to: &Self::Buffer, offset: usize, bytes: &[u8]) -> Result<()>;

    /// Copies `parts`, one after the other, to the buffer from its `offset`-th byte on, concurrently with launches: after
    /// those made before the last [`release`](Self::release) of the slot, before those made from now on. It does not wait
    /// for those in between, which must not touch these bytes: release a slot after the last launch that reads it and before
    /// it is filled again. The first copy to a buffer comes after all launches, clears and uploads so far.
    ///
    /// `slot` is below [`SLOTS`]. The `parts` may change as soon as it returns; for that, after a release, it waits until
    /// the slot's copies before the release have left the host.
    fn upload_beside(&self, slot: usize, to: &Self::Buffer, offset: usize, parts: &[&[u8]]) -> Result<()>;

    /// From here on, no launch reads what [`upload_beside`](Self::upload_beside) brought to this slot.
    fn release(&self, slot: usize) -> Result<()>;

    /// Copies the whole buffer from the device; waits for all earlier launches.
    fn download(&self, from: &Self::Buffer) -> Result<Vec<u8>>;

    /// Begins to copy a whole buffer to the host, in order with the launches: later ones may change it.
    fn start_reading(&self, from: &Self::Buffer) -> Result<Self::Reading>;

    /// The bytes, once they have arrived and only once; `None` before that. Never waits.
    fn finish_reading(&self, reading: &mut Self::Reading) -> Result<Option<Vec<u8>>>;

    /// Waits for all launches.
    fn synchronize(&self) -> Result<()>;

    /// Seconds from the first launch of `work` to the end of the last, which is waited for. Not allowed during a recording.
    fn seconds(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64>;

    /// Registers per thread of a kernel; `None` if the device has none.
    fn registers(&self, _kernel: &str) -> Option<u32> {
        None
    }

    /// Whether every launch is waited for (`ADALI_SYNC=1`); then nothing can be recorded.
    fn synchronous(&self) -> bool;

    /// Runs a kernel with a copy of its parameter struct.
    ///
    /// # Safety
    /// `params` is the struct that the kernel takes. Every address in it, and in device memory that it leads to, belongs to
    /// a buffer with room for all that the kernel reads and writes there. Until the kernel has ended, those buffers live,
    /// and no other thread uploads to them, downloads them or launches work that touches them.
    #[allow(unsafe_code)]
    unsafe fn launch(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()>;

    /// From here to [`end_recording`](Self::end_recording), launches and clears are recorded but not executed.
    fn begin_recording(&self) -> Result<()>;

    /// Ends the recording in any case and returns it, or an error if one of its launches was refused.
    fn end_recording(&self) -> Result<Self::Graph>;

    /// Repeats a graph's launches and clears with their original parameters, in order with other launches.
    ///
    /// # Safety
    /// As for [`launch`](Self::launch), for every launch in it; the buffers that it clears live too.
    #[allow(unsafe_code)]
    unsafe fn replay(&self, graph: &Self::Graph) -> Result<()>;
}

/// Checks that `bytes` bytes at `offset` lie in a buffer of `len`.
pub(super) fn fits(bytes: usize, offset: usize, len: usize) -> Result<()> {
    if offset > len || bytes > len - offset {
        bail!("{bytes} bytes at {offset} do not fit a buffer of {len} bytes");
    }
    Ok(())
}

/// Checks that there is such a slot.
pub(super) fn exists(slot: usize) -> Result<()> {
    if slot >= SLOTS {
        bail!("there is no slot {slot}: there are {SLOTS}");
    }
    Ok(())
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

/// Repeats a graph's launches, on buffers that the caller still holds.
#[allow(unsafe_code)]
pub(super) fn replay<D: Driver>(driver: &D, graph: &D::Graph) -> Result<()> {
    // SAFETY: called by the operations of this folder alone. They recorded the graph's launches with `run`, as sound as
    // any there, and keep every buffer that these touch for as long as they keep the graph.
    unsafe { driver.replay(graph) }
}
