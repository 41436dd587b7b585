//! A device: its memory size, its streams' work, and the sticky fault. Work is done late, with the streams interleaved at
//! random.

use crate::checker::{self, Kind};
use crate::exec::{self, Worker};
use crate::lower::Kernel;
use crate::memory::{self, Extent};
use crate::order::{Clock, Order};
use crate::profile;
use crate::settings;
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};
use std::time::Instant;

/// Memory of the first device in bytes, unless `CARD_MEMORY` is set.
const MEMORY: usize = 64 << 30;

pub struct Device {
    pub memory: usize,
    pub used: Arc<AtomicUsize>,
    pub order: Order,
    /// How many times the device's context is retained.
    pub held: AtomicUsize,
    streams: AtomicUsize,
    queues: Mutex<Queues>,
    fault: OnceLock<CString>,
    /// Number of existing streams, events and graphs, by kind.
    handles: Mutex<BTreeMap<&'static str, usize>>,
}

/// Counts a stream, an event or a graph as long as it exists.
pub struct Handle(&'static Device, &'static str);

impl Handle {
    pub fn new(device: &'static Device, kind: &'static str) -> Self {
        *device.handles().entry(kind).or_default() += 1;
        Self(device, kind)
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        Self::new(self.0, self.1)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        *self.0.handles().entry(self.1).or_default() -= 1;
    }
}

static DEVICES: LazyLock<RwLock<Vec<&'static Device>>> = LazyLock::new(|| {
    let first = Device::new(settings::seed(), settings::memory().unwrap_or(MEMORY));
    RwLock::new(vec![first])
});

/// A kernel, and the limit of dynamic shared memory for its launches, in bytes.
pub struct Function {
    pub kernel: Kernel,
    pub limit: AtomicI32,
}

#[derive(Clone)]
pub enum Work {
    Launch { function: &'static Function, grid: [u32; 3], block: [u32; 3], dynamic: u32, parameters: Vec<u8> },
    Set { address: u64, value: u8, bytes: usize },
    Upload { to: u64, from: Host, bytes: usize },
    Download { to: u64, from: u64, bytes: usize },
    Allocated { address: u64 },
    Free { address: u64 },
    Record { event: Arc<Moment>, generation: u64 },
    Wait { event: Arc<Moment>, generation: u64 },
}

/// Where an upload reads from: page-locked memory is read when the upload is done, other memory when it is requested.
#[derive(Clone)]
pub enum Host {
    /// The address, and a hash of the bytes at the time of the request.
    Later(u64, u64),
    Now(Vec<u8>),
}

/// An event: how often its recording was requested, and the last one done.
#[derive(Default)]
pub struct Moment {
    pub asked: AtomicU64,
    done: AtomicU64,
    pub at: Mutex<Option<Instant>>,
    /// What the event comes after.
    pub clock: Mutex<Clock>,
}

impl Moment {
    pub fn reached(&self, generation: u64) -> bool {
        self.done.load(Ordering::Relaxed) >= generation
    }
}

/// The pending work of all streams, each item with its number, and the workers that do it.
struct Queues {
    queues: BTreeMap<usize, VecDeque<(u32, Work)>>,
    workers: Vec<Worker>,
    random: u64,
}

impl Queues {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) % bound
    }

    /// Takes the first work item of a random stream that need not wait.
    fn next(&mut self) -> Option<(u32, Work)> {
        let ready = |(number, queue): (&usize, &VecDeque<(u32, Work)>)| match &queue.front()?.1 {
            Work::Wait { event, generation } if !event.reached(*generation) => None,
            _ => Some(*number),
        };
        let ready: Vec<usize> = self.queues.iter().filter_map(ready).collect();
        if ready.is_empty() {
            return None;
        }
        let number = ready[self.below(ready.len() as u64) as usize];
        let queue = self.queues.get_mut(&number)?;
        let work = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&number);
        }
        work
    }
}

/// Adds a device with so much memory and an order of work derived from `seed`; returns its number. For tests.
#[unsafe(no_mangle)]
pub extern "C" fn card_add(seed: u64, memory: usize) -> i32 {
    let mut devices = DEVICES.write().unwrap_or_else(PoisonError::into_inner);
    devices.push(Device::new(seed, memory));
    devices.len() as i32 - 1
}

impl Device {
    fn new(seed: u64, memory: usize) -> &'static Device {
        let seed = |number: u64| (seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number) | 1;
        let worker = |number| Worker::new(profile::wanted(), Some(seed(number)), checker::wanted());
        let workers = (0..settings::threads() as u64).map(worker).collect();
        Box::leak(Box::new(Device {
            memory,
            used: Arc::default(),
            order: Order::default(),
            held: AtomicUsize::new(0),
            streams: AtomicUsize::new(1),
            queues: Mutex::new(Queues { queues: BTreeMap::new(), workers, random: seed(0) }),
            fault: OnceLock::new(),
            handles: Mutex::default(),
        }))
    }

    pub fn numbered(ordinal: i32) -> Option<&'static Device> {
        let devices = DEVICES.read().unwrap_or_else(PoisonError::into_inner);
        devices.get(usize::try_from(ordinal).ok()?).copied()
    }

    pub fn count() -> usize {
        DEVICES.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A new stream's number; 0 is the default stream.
    pub fn stream(&self) -> usize {
        self.streams.fetch_add(1, Ordering::Relaxed)
    }

    pub fn available(&self) -> usize {
        self.memory.saturating_sub(self.used.load(Ordering::Relaxed))
    }

    /// Reports a fault: it is printed, and every later call fails with it.
    pub fn fail(&self, fault: impl std::fmt::Display) {
        let fault = fault.to_string();
        eprintln!("card: {fault}");
        self.fault.get_or_init(|| CString::new(fault).unwrap_or_default());
    }

    /// The first fault, if any.
    pub fn fault(&self) -> Option<&CString> {
        self.fault.get()
    }

    fn queues(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does some work, then queues this in a stream: it is not done yet when the call returns.
    pub fn submit(&self, stream: usize, work: Work) {
        let mut queues = self.queues();
        for _ in 0..queues.below(3) {
            self.step(&mut queues);
        }
        if let Work::Wait { event, .. } = &work {
            self.order.wait(stream, &event.clock.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let run = self.order.begin(stream);
        if let Work::Record { event, .. } = &work {
            *event.clock.lock().unwrap_or_else(PoisonError::into_inner) = self.order.of(stream);
        }
        queues.queues.entry(stream).or_default().push_back((run, work));
    }

    /// Does one work item; false if none is ready.
    fn step(&self, queues: &mut Queues) -> bool {
        let Some((run, work)) = queues.next() else { return false };
        // A fault is reported by a later call.
        if let Err(fault) = self.execute(run, &work, &mut queues.workers) {
            self.fail(fault);
        }
        true
    }

    fn until(&self, done: impl Fn(&Queues) -> bool) {
        let mut queues = self.queues();
        while !done(&queues) {
            if !self.step(&mut queues) {
                self.fail("streams wait for events that nothing records");
                break;
            }
        }
    }

    /// Does some work, as if time had passed.
    pub fn proceed(&self) {
        self.step(&mut self.queues());
    }

    /// Waits for all work of a stream.
    pub fn finish(&self, stream: usize) {
        self.until(|queues| !queues.queues.contains_key(&stream));
        self.order.host_waits(&self.order.of(stream));
    }

    /// Waits for all work of all streams.
    pub fn finish_all(&self) {
        self.until(|queues| queues.queues.is_empty());
        self.order.host_waits_for_all();
    }

    /// Waits for an event.
    pub fn reach(&self, event: &Moment, generation: u64) {
        self.until(|_| event.reached(generation));
        self.order.host_waits(&event.clock.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Does the work. An error is the text of a fault.
    fn execute(&self, run: u32, work: &Work, workers: &mut [Worker]) -> Result<(), String> {
        let inside = |address: u64, bytes: usize, what: &str, kind| {
            if !memory::holds(address, bytes) {
                return Err(format!("{what} of {bytes} bytes, {}", memory::describe(address)));
            }
            checker::host_touches(&self.order, run, address, bytes, kind)
        };
        match work {
            Work::Set { address, value, bytes } => {
                inside(*address, *bytes, "a clear", Kind::Write)?;
                // SAFETY: the allocation holds it.
                unsafe { (*address as *mut u8).write_bytes(*value, *bytes) };
            }
            Work::Upload { to, from, bytes } => {
                inside(*to, *bytes, "an upload", Kind::Write)?;
                let from = match from {
                    Host::Later(address, before) if sum(*address, *bytes) != *before => {
                        return Err(format!(
                            "page-locked memory of {bytes} bytes was changed before its copy was done"
                        ));
                    }
                    Host::Later(address, _) => *address as *const u8,
                    Host::Now(copy) => copy.as_ptr(),
                };
                // SAFETY: the allocation holds it; the host's memory is a copy's own, or page-locked and there.
                unsafe { std::ptr::copy_nonoverlapping(from, *to as *mut u8, *bytes) };
            }
            Work::Download { to, from, bytes } => {
                inside(*from, *bytes, "a download", Kind::Read)?;
                // SAFETY: as above.
                unsafe { std::ptr::copy_nonoverlapping(*from as *const u8, *to as *mut u8, *bytes) };
            }
            Work::Allocated { address } => memory::scramble(*address),
            Work::Free { address } => {
                if let Some(Extent { start, end, .. }) = memory::extent(*address) {
                    inside(start, (end - start) as usize, "a free", Kind::Write)?;
                }
                if !memory::free(*address) {
                    return Err("a free of what is not allocated".into());
                }
            }
            Work::Record { event, generation } => {
                *event.at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                event.done.fetch_max(*generation, Ordering::Relaxed);
            }
            Work::Wait { .. } => {}
            Work::Launch { function, grid, block, dynamic, parameters } => {
                let (grid, block, dynamic) = (*grid, *block, *dynamic);
                let (kernel, order) = (&function.kernel, &self.order);
                let start = Instant::now();
                let result = exec::run(&exec::Launch { kernel, grid, block, dynamic, parameters, run, order }, workers);
                profile::record(kernel, grid, block, start.elapsed(), workers);
                result.map_err(|fault| format!("{fault}; grid {grid:?}, block {block:?}, dynamic {dynamic}"))?;
            }
        }
        Ok(())
    }

    fn handles(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Releases the context; the last holder finishes the work, checks for leaks and clears the order.
    pub fn release(&self) {
        if self.held.fetch_sub(1, Ordering::Relaxed) != 1 {
            return;
        }
        self.finish_all();
        let (buffers, bytes) = memory::held(&self.used);
        if buffers > 0 {
            self.fail(format!("the last holder of the context leaves {buffers} buffers of {bytes} bytes"));
        }
        let left = self.handles().iter().find(|(_, count)| **count > 0).map(|(kind, count)| format!("{count} {kind}s"));
        if let Some(left) = left {
            self.fail(format!("the last holder of the context leaves {left}"));
        }
        self.order.clear();
        // A test may open hundreds of devices, which stay.
        self.queues().workers.iter_mut().for_each(Worker::empty);
    }
}

/// A hash of host memory, to detect changes.
pub fn sum(address: u64, bytes: usize) -> u64 {
    // SAFETY: the caller of the copy keeps it until the copy is done.
    let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, bytes) };
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}
