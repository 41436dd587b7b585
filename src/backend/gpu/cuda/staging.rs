//! Page-locked host memory, for copies that run while the host does something else.
#![allow(unsafe_code)]

use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DriverError, result};
use std::sync::{Arc, Mutex};

/// Page-locked memory for one copy at a time.
///
/// All methods except [`Staging::new`] require the context to be current on the thread and bypass cudarc's own checks: an
/// error left there by some `Drop` must not come between a copy and its event.
pub(super) struct Staging {
    at: *mut u8,
    len: usize,
    /// Recorded after each copy.
    copied: CudaEvent,
}

// SAFETY: neither the memory nor the event belongs to a thread.
unsafe impl Send for Staging {}

impl Staging {
    pub(super) fn new(context: &Arc<CudaContext>, bytes: usize) -> Result<Self, DriverError> {
        let copied = context.new_event(None)?;
        let len = bytes.max(1);
        // SAFETY: the context is the thread's, and there is something to allocate.
        let at = unsafe { result::malloc_host(len, 0) }?.cast::<u8>();
        // SAFETY: so much was allocated.
        unsafe { at.write_bytes(0, len) };
        Ok(Self { at, len, copied })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether its last copy is done; true if there was none.
    pub(super) fn done(&self) -> Result<bool, DriverError> {
        self.copied.try_is_complete()
    }

    /// Waits until its last copy is done; returns at once if there was none.
    pub(super) fn wait(&self) -> Result<(), DriverError> {
        // SAFETY: the event lives.
        unsafe { result::event::synchronize(self.copied.cu_event()) }
    }

    /// Its content, once its last copy is done.
    pub(super) fn bytes(&mut self) -> Result<&mut [u8], DriverError> {
        self.wait()?;
        // SAFETY: it is allocated and was zeroed, and the card no longer uses it.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.at, self.len) })
    }

    /// Begins to copy `parts`, one after the other, through its memory from `at` on, to the device address `to`. `bytes` is
    /// their total length, which must fit.
    ///
    /// # Safety
    /// No copy from that part of its memory is under way. The destination is memory of that length until the stream has
    /// passed the copy, and nothing else on the card uses it at the same time.
    pub(super) unsafe fn send(
        &mut self,
        at: usize,
        parts: &[&[u8]],
        bytes: usize,
        to: u64,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        assert!(at <= self.len && bytes <= self.len - at, "{bytes} bytes at {at} of {}", self.len);
        // SAFETY: the range is allocated and was zeroed, and the card does not use it, says the caller.
        let room = unsafe { std::slice::from_raw_parts_mut(self.at.add(at), bytes) };
        let mut filled = 0;
        for part in parts {
            room[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        // SAFETY: the memory is page-locked and lives until the event has been waited for; the caller vouches for `to`.
        unsafe { result::memcpy_htod_async(to, room, stream.cu_stream()) }?;
        record(&self.copied, stream)
    }

    /// Begins to copy `bytes` bytes from the device address `from`.
    ///
    /// # Safety
    /// The source is memory of that length until the stream has passed the copy, and nothing writes to it at the same time.
    pub(super) unsafe fn receive(&mut self, from: u64, bytes: usize, stream: &CudaStream) -> Result<(), DriverError> {
        let to = &mut self.bytes()?[..bytes];
        if !to.is_empty() {
            // SAFETY: as above; nobody looks at the bytes before the event has been waited for.
            unsafe { result::memcpy_dtoh_async(to, from, stream.cu_stream()) }?;
        }
        record(&self.copied, stream)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let context = self.copied.context();
        context.record_err(context.bind_to_thread());
        context.record_err(self.wait());
        // SAFETY: it was allocated by `malloc_host`, and the card no longer uses it.
        context.record_err(unsafe { result::free_host(self.at.cast()) });
    }
}

/// Records in an event how far a stream has got.
pub(super) fn record(event: &CudaEvent, stream: &CudaStream) -> Result<(), DriverError> {
    // SAFETY: both live.
    unsafe { result::event::record(event.cu_event(), stream.cu_stream()) }
}

/// Makes a stream wait for an event; does nothing if the event was never recorded.
pub(super) fn wait_for(stream: &CudaStream, event: &CudaEvent) -> Result<(), DriverError> {
    use cudarc::driver::sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
    // SAFETY: both live.
    unsafe { result::stream::wait_event(stream.cu_stream(), event.cu_event(), CU_EVENT_WAIT_DEFAULT) }
}

/// A slot's memory for copies concurrent with the launches.
pub(super) struct Slot {
    staging: Staging,
    /// Bytes from the start that copies since the last release have taken: they do not wait for each other.
    used: usize,
    /// How far the launches were at the last release.
    released: CudaEvent,
}

impl Slot {
    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Self { staging: Staging::new(context, 0)?, used: 0, released: context.new_event(None)? })
    }

    /// From here on, no launch after those issued to `stream` so far reads what was copied.
    pub(super) fn release(&mut self, stream: &CudaStream) -> Result<(), DriverError> {
        self.used = 0;
        record(&self.released, stream)
    }

    /// Begins to copy `parts` as [`Staging::send`] does, after the launches before the last release.
    ///
    /// # Safety
    /// As for [`Staging::send`], except for the staging memory.
    pub(super) unsafe fn send(
        &mut self,
        parts: &[&[u8]],
        bytes: usize,
        to: u64,
        stream: &CudaStream,
    ) -> Result<(), DriverError> {
        if self.used + bytes > self.staging.len() && self.staging.done()? {
            self.used = 0; // no release needed: somebody has waited
        }
        if self.used + bytes > self.staging.len() {
            // Room for all of them next time. The old memory is freed only after the copies from it.
            self.staging = Staging::new(self.staging.copied.context(), self.used + bytes)?;
            self.used = 0;
        }
        if self.used == 0 {
            self.staging.wait()?;
        }
        wait_for(stream, &self.released)?;
        // SAFETY: what was copied before the last release was waited for, what was copied since lies before this part;
        // the caller vouches for the rest.
        unsafe { self.staging.send(self.used, parts, bytes, to, stream) }?;
        self.used += bytes;
        Ok(())
    }

    /// Makes a stream wait for the last copy.
    pub(super) fn hold_back(&self, stream: &CudaStream) -> Result<(), DriverError> {
        wait_for(stream, &self.staging.copied)
    }
}

/// Memory for copies in order with the launches, one slot after the other; a slot is reused when its copy is done.
pub(super) struct Ring {
    slots: Vec<Staging>,
    next: usize,
}

impl Ring {
    const SLOTS: usize = 8;
    /// Bytes per slot.
    pub(super) const CHUNK: usize = 256 * 1024;

    pub(super) fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let slots = (0..Self::SLOTS).map(|_| Staging::new(context, Self::CHUNK)).collect::<Result<_, _>>()?;
        Ok(Self { slots, next: 0 })
    }

    /// The slot whose last copy is the oldest.
    pub(super) fn next(&mut self) -> &mut Staging {
        let slot = self.next;
        self.next = (slot + 1) % Self::SLOTS;
        &mut self.slots[slot]
    }
}

/// Memory returned by readings, perhaps with a copy still under way.
pub(super) type Pool = Mutex<Vec<Staging>>;

/// A copy to the host.
pub struct CudaReading {
    pub(super) staging: Option<Staging>,
    pub(super) bytes: usize,
    pub(super) pool: Arc<Pool>,
}

impl CudaReading {
    /// Memory for a reading of `bytes` bytes; waits for no copy.
    pub(super) fn new(context: &Arc<CudaContext>, pool: &Arc<Pool>, bytes: usize) -> Result<Self, DriverError> {
        let mut kept = super::lock(pool);
        for i in 0..kept.len() {
            if kept[i].len() >= bytes && kept[i].done()? {
                return Ok(Self { staging: Some(kept.swap_remove(i)), bytes, pool: pool.clone() });
            }
        }
        Ok(Self { staging: Some(Staging::new(context, bytes)?), bytes, pool: pool.clone() })
    }
}

impl Drop for CudaReading {
    fn drop(&mut self) {
        super::lock(&self.pool).extend(self.staging.take());
    }
}
