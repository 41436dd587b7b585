//! The emulator's driver: kernels compiled for the CPU, a coroutine a CUDA thread, every access checked.
//!
//! `kernels/emulator/` holds the scheduler and the checks; here are the coroutines it schedules and the memory it
//! hands out. Blocks run on all cores in an order drawn from the seed, as do the threads of a block.
#![allow(unsafe_code)]

mod ffi;
mod launching;

use super::driver::{exists, fits};
use super::{Buffer, Driver, Launch, SLOTS};
use crate::data::sampling::CounterRng;
use anyhow::{Result, bail};
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Instant;

/// The emulated device.
pub struct Emulator {
    /// From which the order of blocks and threads of every launch is drawn.
    seed: u64,
    launches: AtomicU64,
    readings: AtomicU64,
    /// Bytes of memory, if they are counted, and how many buffers have.
    limit: Option<usize>,
    used: Arc<AtomicUsize>,
    slots: Mutex<[Slot; SLOTS]>,
    recording: Mutex<Option<Recording>>,
}

/// A slot of uploads beside the launches: whether it was filled, and then a launch made, since it was last released.
#[derive(Clone, Copy, Default)]
struct Slot {
    filled: bool,
    launched: bool,
}

/// What is recorded, and why it is of no use.
#[derive(Default)]
struct Recording {
    steps: Vec<Step>,
    refused: Option<String>,
}

/// A recorded launch or clear.
enum Step {
    Launch { kernel: String, launch: Launch, params: Vec<u8> },
    Clear { at: usize, bytes: usize },
}

/// Recorded launches.
pub struct EmulatorGraph {
    steps: Vec<Step>,
}

/// A copy to the host.
pub struct EmulatorReading {
    bytes: Option<Vec<u8>>,
    /// How often it is still asked for in vain.
    in_vain: u64,
}

/// The stream of [`CounterRng`] for readings; launches have those from 0 on.
const READINGS: u64 = u64::MAX;

/// Memory of the emulated device. One thread at a time uses it: it is not `Sync`.
#[derive(Debug)]
pub struct EmulatorBuffer {
    at: *mut u8,
    len: usize,
    used: Arc<AtomicUsize>,
}

// SAFETY: the memory belongs to no thread.
unsafe impl Send for EmulatorBuffer {}

impl Buffer for EmulatorBuffer {
    fn address(&self) -> u64 {
        self.at as u64
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Drop for EmulatorBuffer {
    fn drop(&mut self) {
        // SAFETY: the address came from adali_emulator_allocate and is freed here alone.
        unsafe { ffi::adali_emulator_free(self.at.cast()) }
        self.used.fetch_sub(self.len, Ordering::Relaxed);
    }
}

/// A parameter struct as the kernels' side lays it out.
#[derive(Debug, PartialEq, Eq)]
pub struct StructLayout {
    pub name: String,
    pub size: usize,
    /// Name, offset and size.
    pub fields: Vec<(String, usize, usize)>,
}

impl Emulator {
    /// A device whose schedules are drawn from `seed`.
    ///
    /// # Panics
    /// If two of the kernels that were compiled in share a name.
    pub fn new(seed: u64) -> Self {
        Self::with_memory(seed, None)
    }

    /// The same with so many bytes of memory; without a limit, what the machine has.
    ///
    /// # Panics
    /// As [`Emulator::new`].
    pub fn with_memory(seed: u64, limit: Option<usize>) -> Self {
        static START: Once = Once::new();
        START.call_once(|| {
            if let Some(name) = first_repeated(Self::kernels()) {
                panic!("two kernels are named {name}");
            }
            launching::start();
        });
        Self {
            seed,
            launches: AtomicU64::new(0),
            readings: AtomicU64::new(0),
            limit,
            used: Arc::default(),
            slots: Mutex::default(),
            recording: Mutex::default(),
        }
    }

    /// Names of all kernels that were compiled in.
    pub fn kernels() -> Vec<String> {
        // SAFETY: the call only reads a table; a name is a constant string.
        let name = |i| unsafe { ffi::adali_emulator_kernel_name(i).as_ref().map(|name| CStr::from_ptr(name)) };
        (0..).map_while(name).map(|name| name.to_string_lossy().into_owned()).collect()
    }

    /// All parameter structs as the kernels lay them out.
    pub fn layouts() -> Vec<StructLayout> {
        let mut layouts = Vec::new();
        loop {
            let mut size = 0;
            // SAFETY: the call only reads a table; a name is a constant string; `size` outlives the call.
            let name =
                unsafe { ffi::adali_emulator_layout(layouts.len(), &mut size).as_ref().map(|n| CStr::from_ptr(n)) };
            let Some(name) = name else { return layouts };
            let field = |f| {
                let (mut offset, mut size) = (0, 0);
                // SAFETY: as above; the struct exists.
                let name = unsafe { ffi::adali_emulator_field(layouts.len(), f, &mut offset, &mut size).as_ref()? };
                // SAFETY: a constant string.
                Some((unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned(), offset, size))
            };
            let fields = (0..).map_while(field).collect();
            layouts.push(StructLayout { name: name.to_string_lossy().into_owned(), size, fields });
        }
    }
}

impl Emulator {
    /// Runs a kernel with the next schedule.
    fn run(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()> {
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        launching::run(kernel, launch, params, CounterRng::new(self.seed, number))
    }

    /// Zeroes memory; an error where nothing of that extent is allocated there.
    fn zero(at: *mut u8, bytes: usize) -> Result<()> {
        // SAFETY: the call looks for the address among the allocated ones.
        if !unsafe { ffi::adali_emulator_host_wrote(at.cast(), bytes) } {
            bail!("{bytes} bytes are cleared where no buffer lies any more");
        }
        // SAFETY: the range lies in an allocated buffer, as was just found; no launch uses it now, by `launch`'s and
        // `replay`'s contracts.
        unsafe { at.write_bytes(0, bytes) };
        Ok(())
    }

    /// That nothing is being recorded.
    fn idle(&self, what: &str) -> Result<()> {
        match *lock(&self.recording) {
            Some(_) => bail!("{what} cannot be recorded, only launches and clears"),
            None => Ok(()),
        }
    }

    /// Records a step, if there is a recording: then the result of checking it is given back.
    fn recorded(&self, step: impl FnOnce() -> Result<Step>) -> Option<Result<()>> {
        let mut recording = lock(&self.recording);
        let recording = recording.as_mut()?;
        Some(match step() {
            Ok(step) => {
                recording.steps.push(step);
                Ok(())
            }
            Err(error) => {
                recording.refused.get_or_insert_with(|| format!("{error:#}"));
                Err(error)
            }
        })
    }

    /// All launches are over, as they are here on return; until the next, slots can be filled as they are.
    fn waited(&self) {
        lock(&self.slots).iter_mut().for_each(|slot| slot.launched = false);
    }

    fn launched(&self) {
        lock(&self.slots).iter_mut().for_each(|slot| slot.launched = slot.filled);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Driver for Emulator {
    type Buffer = EmulatorBuffer;
    type Graph = EmulatorGraph;
    type Reading = EmulatorReading;

    fn available_memory(&self) -> Option<usize> {
        self.limit.map(|limit| limit.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    fn allocate(&self, bytes: usize) -> Result<EmulatorBuffer> {
        self.idle("an allocation")?;
        let limit = self.limit.unwrap_or(usize::MAX);
        let more = |used: usize| used.checked_add(bytes).filter(|&used| used <= limit);
        if let Err(used) = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more) {
            bail!("the emulator has no {bytes} bytes of memory: {} of {limit} are left", limit.saturating_sub(used));
        }
        // SAFETY: any size may be asked for.
        let at = unsafe { ffi::adali_emulator_allocate(bytes) };
        if at.is_null() {
            self.used.fetch_sub(bytes, Ordering::Relaxed);
            bail!("the emulator has no {bytes} bytes of memory left");
        }
        Ok(EmulatorBuffer { at: at.cast(), len: bytes, used: self.used.clone() })
    }

    fn clear(&self, buffer: &EmulatorBuffer) -> Result<()> {
        let step = Step::Clear { at: buffer.at as usize, bytes: buffer.len };
        self.recorded(|| Ok(step)).unwrap_or_else(|| Self::zero(buffer.at, buffer.len))
    }

    fn upload(&self, to: &EmulatorBuffer, offset: usize, bytes: &[u8]) -> Result<()> {
        self.idle("an upload")?;
        fits(bytes.len(), offset, to.len)?;
        // SAFETY: the range lies in the buffer, which is this thread's: no launch uses it now, by `launch`'s contract,
        // and launches are complete on return.
        let known = unsafe {
            let at = to.at.add(offset);
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), at, bytes.len());
            ffi::adali_emulator_host_wrote(at.cast(), bytes.len())
        };
        assert!(known, "the emulator knows its own buffers");
        Ok(())
    }

    /// Copies at once. A slot that was filled, then followed by a launch, then neither released nor waited for, is not
    /// filled again: on a card the copy could overtake the launch.
    fn upload_beside(&self, slot: usize, to: &EmulatorBuffer, offset: usize, parts: &[&[u8]]) -> Result<()> {
        self.idle("an upload")?;
        exists(slot)?;
        let bytes = parts.concat();
        fits(bytes.len(), offset, to.len)?;
        if lock(&self.slots)[slot].launched {
            bail!("slot {slot} is filled again, but was not released after the launches that may read it");
        }
        self.upload(to, offset, &bytes)?;
        lock(&self.slots)[slot].filled = true;
        Ok(())
    }

    fn release(&self, slot: usize) -> Result<()> {
        self.idle("a release")?;
        exists(slot)?;
        lock(&self.slots)[slot] = Slot::default();
        Ok(())
    }

    fn download(&self, from: &EmulatorBuffer) -> Result<Vec<u8>> {
        self.idle("a download")?;
        self.waited();
        // SAFETY: the buffer is alive.
        let written = unsafe { ffi::adali_emulator_written(from.at.cast(), from.len) };
        if written < from.len {
            bail!("byte {written} of a buffer of {} bytes is read back, but nothing has written it", from.len);
        }
        // SAFETY: all of it is allocated and written, and no launch uses it now, as above.
        Ok(unsafe { std::slice::from_raw_parts(from.at, from.len) }.to_vec())
    }

    /// Copies at once, and keeps the bytes until they have been asked for a few times.
    fn start_reading(&self, from: &EmulatorBuffer) -> Result<EmulatorReading> {
        self.idle("a reading")?;
        let slots = *lock(&self.slots);
        let bytes = self.download(from)?;
        *lock(&self.slots) = slots; // a card waits for nothing here
        let number = self.readings.fetch_add(1, Ordering::Relaxed);
        let in_vain = CounterRng::new(self.seed, READINGS).fork(number).below(3);
        Ok(EmulatorReading { bytes: Some(bytes), in_vain })
    }

    fn finish_reading(&self, reading: &mut EmulatorReading) -> Result<Option<Vec<u8>>> {
        self.idle("a reading")?;
        if reading.bytes.is_none() {
            bail!("a reading is finished once only");
        }
        if reading.in_vain > 0 {
            reading.in_vain -= 1;
            return Ok(None);
        }
        Ok(reading.bytes.take())
    }

    fn synchronize(&self) -> Result<()> {
        self.idle("waiting")?;
        self.waited();
        Ok(())
    }

    fn seconds(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        self.synchronize()?;
        let begin = Instant::now();
        work()?;
        Ok(begin.elapsed().as_secs_f64())
    }

    fn synchronous(&self) -> bool {
        false
    }

    /// The emulator checks the parameters' size and every access before it is made: of the contract, what the caller
    /// must see to is that buffers live, and are no other thread's, until the call returns.
    unsafe fn launch(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()> {
        let step = || {
            launching::kernel(kernel, launch, params)?;
            Ok(Step::Launch { kernel: kernel.into(), launch, params: params.to_vec() })
        };
        if let Some(recorded) = self.recorded(step) {
            return recorded;
        }
        self.run(kernel, launch, params)?;
        self.launched();
        Ok(())
    }

    fn begin_recording(&self) -> Result<()> {
        self.idle("a recording")?;
        *lock(&self.recording) = Some(Recording::default());
        Ok(())
    }

    fn end_recording(&self) -> Result<EmulatorGraph> {
        let Some(Recording { steps, refused }) = lock(&self.recording).take() else { bail!("nothing is recorded") };
        match refused {
            Some(error) => bail!("the recording failed: {error}"),
            None => Ok(EmulatorGraph { steps }),
        }
    }

    /// Each launch of a graph has another schedule each time.
    unsafe fn replay(&self, graph: &EmulatorGraph) -> Result<()> {
        self.idle("a replay")?;
        for step in &graph.steps {
            match step {
                Step::Launch { kernel, launch, params } => self.run(kernel, *launch, params)?,
                Step::Clear { at, bytes } => Self::zero(*at as *mut u8, *bytes)?,
            }
        }
        self.launched();
        Ok(())
    }
}

/// The first name that comes twice.
fn first_repeated(mut names: Vec<String>) -> Option<String> {
    names.sort();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_that_share_a_name_are_found() {
        let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        assert_eq!(first_repeated(names(&["input", "loss", "input_f16"])), None);
        assert_eq!(first_repeated(names(&["loss", "input", "loss"])), Some("loss".to_string()));
        assert!(Emulator::kernels().len() > 100, "{:?}", Emulator::kernels());
        assert_eq!(first_repeated(Emulator::kernels()), None);
    }
}
