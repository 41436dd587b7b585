//! A device's memory: what is kept, what operations borrow while they run, and what a rehearsal would need.

use super::driver::{self, Driver};
use super::params::Params;
use super::precision::Precision;
use super::tile::Card;
use super::{Buffer, Launch};
use anyhow::Result;
use std::sync::{Arc, Mutex, MutexGuard};

/// Memory is handed out in multiples of this, CUDA's alignment.
const ALIGNMENT: usize = 256;

/// Runs a network's operations as kernels, one after the other. Clones share the device.
pub struct Gpu<D: Driver> {
    device: Arc<Device<D>>,
    pub(super) precision: Precision,
    pub(super) card: Card,
    pub(super) name: String,
}

impl<D: Driver> Clone for Gpu<D> {
    fn clone(&self) -> Self {
        let Self { device, precision, card, name } = self;
        Self { device: device.clone(), precision: *precision, card: *card, name: name.clone() }
    }
}

/// State shared by all clones.
struct Device<D: Driver> {
    /// `None` on a rehearsal.
    driver: Option<D>,
    /// Whether repeated operations are recorded.
    graphs: bool,
    working: Mutex<Working<D::Buffer>>,
    rehearsed: Mutex<Rehearsed>,
}

/// Memory that operations borrow: each takes pieces one after the other and has returned them when it ends.
struct Working<B> {
    /// The last is in use; the earlier ones live on because recorded operations may refer to them.
    buffers: Vec<B>,
    /// Bytes handed out, and pieces in use.
    used: usize,
    pieces: usize,
    /// The most bytes ever handed out at once.
    most: usize,
}

/// What a rehearsal was asked for.
#[derive(Clone, Default)]
pub struct Rehearsed {
    /// Bytes of memory kept.
    pub kept: usize,
    /// Kernel and extents of every launch.
    pub launches: Vec<(String, Launch)>,
}

/// Device memory.
pub struct Memory<D: Driver> {
    address: u64,
    len: usize,
    held: Held<D>,
}

enum Held<D: Driver> {
    Own(D::Buffer),
    Piece {
        _given_back: Piece<D>,
    },
    /// On a rehearsal.
    Nothing,
}

/// A piece of the working memory.
struct Piece<D: Driver>(Arc<Device<D>>);

impl<D: Driver> Drop for Piece<D> {
    fn drop(&mut self) {
        let mut working = self.0.working();
        working.pieces -= 1;
        if working.pieces == 0 {
            working.used = 0;
        }
    }
}

impl<D: Driver> Buffer for Memory<D> {
    fn address(&self) -> u64 {
        self.address
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl<D: Driver> Memory<D> {
    /// The driver's own buffer. The host neither writes nor reads pieces of the working memory.
    pub(super) fn buffer(&self) -> Option<&D::Buffer> {
        match &self.held {
            Held::Own(buffer) => Some(buffer),
            Held::Piece { .. } | Held::Nothing => None,
        }
    }
}

impl<D: Driver> Device<D> {
    fn new(driver: Option<D>, graphs: bool) -> Arc<Self> {
        let working = Working { buffers: Vec::new(), used: 0, pieces: 0, most: 0 };
        Arc::new(Self { driver, graphs, working: working.into(), rehearsed: Mutex::default() })
    }

    fn working(&self) -> MutexGuard<'_, Working<D::Buffer>> {
        self.working.lock().expect("nothing panics while it counts")
    }

    fn rehearsed(&self) -> MutexGuard<'_, Rehearsed> {
        self.rehearsed.lock().expect("nothing panics while it counts")
    }
}

impl<D: Driver> Gpu<D> {
    /// A backend on a device. With `graphs`, repeated operations are recorded once and replayed as one.
    pub fn new(driver: D, card: Card, precision: Precision, name: String, graphs: bool) -> Self {
        Self { device: Device::new(Some(driver), graphs), precision, card, name }
    }

    /// A backend without a card, for its [rehearsal](Self::rehearse).
    pub fn on_paper(card: Card, precision: Precision, name: String) -> Self {
        Self { device: Device::new(None, false), precision, card, name }
    }

    /// The same device for a rehearsal, without memory or work.
    pub fn rehearse(&self) -> Self {
        Self { device: Device::new(None, false), ..self.clone() }
    }

    /// What a rehearsal has been asked for so far.
    pub fn rehearsed(&self) -> Rehearsed {
        self.device.rehearsed().clone()
    }

    /// Bytes that a rehearsal has been asked to keep so far.
    pub(super) fn rehearsed_bytes(&self) -> usize {
        self.device.rehearsed().kept
    }

    /// The most bytes that operations have borrowed at once.
    pub(super) fn most_borrowed(&self) -> usize {
        self.device.working().most
    }

    /// The driver; `None` on a rehearsal.
    pub(super) fn driver(&self) -> Option<&D> {
        self.device.driver.as_ref()
    }

    /// Whether repeated operations are recorded.
    pub(super) fn records(&self) -> bool {
        self.device.graphs && self.driver().is_some_and(|driver| !driver.synchronous())
    }

    /// Memory to keep, with undefined content.
    pub(super) fn allocate(&self, bytes: usize) -> Result<Memory<D>> {
        let Some(driver) = self.driver() else {
            let mut rehearsed = self.device.rehearsed();
            let address = (rehearsed.kept + ALIGNMENT) as u64;
            rehearsed.kept += bytes.next_multiple_of(ALIGNMENT);
            return Ok(Memory { address, len: bytes, held: Held::Nothing });
        };
        let buffer = driver.allocate(bytes)?;
        Ok(Memory { address: buffer.address(), len: bytes, held: Held::Own(buffer) })
    }

    /// Reserves working memory if there is less. From then on steps allocate nothing, which a recording would refuse, and it
    /// does not matter when the driver's pool returns memory.
    pub(super) fn set_aside(&self, bytes: usize) -> Result<()> {
        let Some(driver) = self.driver() else { return Ok(()) };
        let mut working = self.device.working();
        if working.pieces == 0 && working.buffers.last().is_none_or(|buffer| buffer.len() < bytes) {
            working.buffers.push(driver.allocate(bytes)?);
        }
        Ok(())
    }

    /// Memory for the duration of one operation, with undefined content; taken from what was set aside if that suffices.
    pub(super) fn borrow(&self, bytes: usize) -> Result<Memory<D>> {
        let mut working = self.device.working();
        let (from, to) = (working.used, working.used + bytes.next_multiple_of(ALIGNMENT));
        working.most = working.most.max(to);
        let base = match (working.buffers.last(), self.driver()) {
            (_, None) => ALIGNMENT as u64,
            (Some(buffer), _) if to <= buffer.len() => buffer.address(),
            _ => {
                drop(working);
                return self.allocate(bytes);
            }
        };
        working.used = to;
        working.pieces += 1;
        let held = Held::Piece { _given_back: Piece(self.device.clone()) };
        Ok(Memory { address: base + from as u64, len: bytes, held })
    }

    pub(super) fn write<T: bytemuck::NoUninit>(&self, to: &Memory<D>, offset: usize, values: &[T]) -> Result<()> {
        match (self.driver(), to.buffer()) {
            (Some(driver), Some(buffer)) => driver.upload(buffer, offset, bytemuck::cast_slice(values)),
            _ => Ok(()),
        }
    }

    /// Memory to keep, with these bytes.
    pub(super) fn put<T: bytemuck::NoUninit>(&self, values: &[T]) -> Result<Memory<D>> {
        let memory = self.allocate(size_of_val(values))?;
        self.write(&memory, 0, values)?;
        Ok(memory)
    }

    /// Memory to keep, all zero.
    pub(super) fn zeros(&self, bytes: usize) -> Result<Memory<D>> {
        let memory = self.allocate(bytes)?;
        if let (Some(driver), Some(buffer)) = (self.driver(), memory.buffer()) {
            driver.clear(buffer)?;
        }
        Ok(memory)
    }

    /// All values; zeros on a rehearsal.
    pub(super) fn get<T: bytemuck::Pod>(&self, from: &Memory<D>) -> Result<Vec<T>> {
        let bytes = match (self.driver(), from.buffer()) {
            (Some(driver), Some(buffer)) => driver.download(buffer)?,
            _ => vec![0; from.len],
        };
        let len = bytes.len() / size_of::<T>();
        let mut values = vec![T::zeroed(); len];
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(&bytes[..len * size_of::<T>()]);
        Ok(values)
    }

    /// Runs a kernel whose name ends in the storage type of the values.
    pub(super) fn run_stored<P: Params>(&self, kernel: &str, launch: Launch, params: &P) -> Result<()> {
        self.run(&format!("{kernel}_{}", self.precision.name()), launch, params)
    }

    pub(super) fn run<P: Params>(&self, kernel: &str, launch: Launch, params: &P) -> Result<()> {
        match self.driver() {
            Some(driver) => driver::run(driver, kernel, launch, params),
            None => {
                self.device.rehearsed().launches.push((kernel.into(), launch));
                Ok(())
            }
        }
    }
}
