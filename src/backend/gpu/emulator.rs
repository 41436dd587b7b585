//! The emulator's driver: kernels compiled for the CPU, a coroutine a CUDA thread, every access checked.
//!
//! `kernels/emulator/` holds the scheduler and the checks; here are the coroutines it schedules and the memory it
//! hands out. Blocks run on all cores in an order drawn from the seed, as do the threads of a block.
#![allow(unsafe_code)]

use super::{Buffer, Driver, Launch};
use crate::data::sampling::CounterRng;
use anyhow::{Result, bail};
use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, Yielder};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};

/// The scheduler's interface; see `kernels/emulator/schedule.cpp`, `registry.cpp` and `memory.cpp`.
mod ffi {
    use super::{c_char, c_void};

    unsafe extern "C" {
        pub fn adali_emulator_allocate(bytes: usize) -> *mut c_void;
        pub fn adali_emulator_free(at: *mut c_void);
        pub fn adali_emulator_host_wrote(at: *const c_void, bytes: usize) -> bool;
        pub fn adali_emulator_written(at: *const c_void, bytes: usize) -> usize;
        pub fn adali_emulator_set_yield(switch: unsafe extern "C-unwind" fn(*mut c_void));
        pub fn adali_emulator_kernel(name: *const u8, length: usize) -> *const c_void;
        pub fn adali_emulator_kernel_params(kernel: *const c_void) -> usize;
        pub fn adali_emulator_kernel_threads(kernel: *const c_void) -> u32;
        pub fn adali_emulator_kernel_name(i: usize) -> *const c_char;
        pub fn adali_emulator_layout(i: usize, size: *mut usize) -> *const c_char;
        pub fn adali_emulator_field(i: usize, field: usize, offset: *mut usize, size: *mut usize) -> *const c_char;
        pub fn adali_emulator_launch_begin(
            kernel: *const c_void,
            grid: *const u32,
            threads: *const u32,
            shared: usize,
            params: *const u8,
            seed: u64,
        ) -> *mut c_void;
        pub fn adali_emulator_launch_end(launch: *mut c_void, report: *mut c_char, size: usize);
        pub fn adali_emulator_block_begin(launch: *mut c_void, number: u32) -> *mut c_void;
        pub fn adali_emulator_block_next(block: *mut c_void) -> i32;
        pub fn adali_emulator_block_end(block: *mut c_void);
    }
    unsafe extern "C-unwind" {
        pub fn adali_emulator_thread(
            block: *mut c_void,
            index: u32,
            yielder: *mut c_void,
            stack_low: *const c_void,
            stack_high: *const c_void,
        );
    }
}

/// The emulated device.
pub struct Emulator {
    /// From which the order of blocks and threads of every launch is drawn.
    seed: u64,
    launches: AtomicU64,
}

/// Memory of the emulated device. One thread at a time uses it: it is not `Sync`.
#[derive(Debug)]
pub struct EmulatorBuffer {
    at: *mut u8,
    len: usize,
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

type Thread = Coroutine<(), (), (), DefaultStack>;

/// Bytes of stack for an emulated thread.
const STACK: usize = 128 * 1024;
/// Most bytes of shared memory that a block may ask for, as on an H100.
const SHARED: u32 = 227 * 1024;
/// Most blocks in x, as CUDA has it, and in all.
const GRID_X: u32 = i32::MAX as u32;
const BLOCKS: u64 = 1 << 28;

thread_local! {
    /// Stacks to be used again.
    static STACKS: RefCell<Vec<DefaultStack>> = const { RefCell::new(Vec::new()) };
}

/// Leaves the running coroutine.
unsafe extern "C-unwind" fn switch(yielder: *mut c_void) {
    // SAFETY: the scheduler gives back the pointer that the running coroutine's body gave it.
    unsafe { &*yielder.cast::<Yielder<(), ()>>() }.suspend(());
}

/// An opaque pointer that may cross threads: the scheduler locks what its launches share.
#[derive(Clone, Copy)]
struct Shared(*mut c_void);
// SAFETY: a launch's fields are read-only but for its report, which a mutex guards, and an atomic flag; a block stays on
// one thread.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    fn pointer(self) -> *mut c_void {
        self.0
    }
}

impl Emulator {
    /// A device whose schedules are drawn from `seed`.
    ///
    /// # Panics
    /// If two of the kernels that were compiled in share a name.
    pub fn new(seed: u64) -> Self {
        static START: Once = Once::new();
        START.call_once(|| {
            if let Some(name) = first_repeated(Self::kernels()) {
                panic!("two kernels are named {name}");
            }
            // SAFETY: no launch reads it before; it is written once.
            unsafe { ffi::adali_emulator_set_yield(switch) }
        });
        Self { seed, launches: AtomicU64::new(0) }
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

impl Driver for Emulator {
    type Buffer = EmulatorBuffer;

    fn available_memory(&self) -> Option<usize> {
        None
    }

    fn allocate(&self, bytes: usize) -> Result<EmulatorBuffer> {
        // SAFETY: any size may be asked for.
        let at = unsafe { ffi::adali_emulator_allocate(bytes) };
        if at.is_null() {
            bail!("the emulator has no {bytes} bytes of memory left");
        }
        Ok(EmulatorBuffer { at: at.cast(), len: bytes })
    }

    fn upload(&self, to: &EmulatorBuffer, offset: usize, bytes: &[u8]) -> Result<()> {
        if offset > to.len || bytes.len() > to.len - offset {
            bail!("{} bytes at {offset} do not fit a buffer of {} bytes", bytes.len(), to.len);
        }
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

    fn download(&self, from: &EmulatorBuffer) -> Result<Vec<u8>> {
        // SAFETY: the buffer is alive.
        let written = unsafe { ffi::adali_emulator_written(from.at.cast(), from.len) };
        if written < from.len {
            bail!("byte {written} of a buffer of {} bytes is read back, but nothing has written it", from.len);
        }
        // SAFETY: all of it is allocated and written, and no launch uses it now, as above.
        Ok(unsafe { std::slice::from_raw_parts(from.at, from.len) }.to_vec())
    }

    /// The emulator checks the parameters' size and every access before it is made: of the contract, what the caller
    /// must see to is that buffers live, and are no other thread's, until the call returns.
    unsafe fn launch(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()> {
        // SAFETY: the name is valid for the call.
        let function = unsafe { ffi::adali_emulator_kernel(kernel.as_ptr(), kernel.len()) };
        if function.is_null() {
            bail!("no kernel is named {kernel}");
        }
        // SAFETY: the kernel exists.
        let (size, most) =
            unsafe { (ffi::adali_emulator_kernel_params(function), ffi::adali_emulator_kernel_threads(function)) };
        if size != params.len() {
            bail!("kernel {kernel} takes {size} bytes of parameters, not {}", params.len());
        }
        let Launch { grid, threads, shared } = launch;
        if threads == 0 || threads > most || !threads.is_multiple_of(32) {
            bail!("kernel {kernel} cannot run {threads} threads a block: it takes whole warps, at most {most} threads");
        }
        let count: u64 = grid.iter().map(|&extent| u64::from(extent)).fold(1, u64::saturating_mul);
        if grid.contains(&0) || grid[0] > GRID_X || grid[1] > 65535 || grid[2] > 65535 || count > BLOCKS {
            bail!("kernel {kernel} cannot run a grid of {grid:?} blocks");
        }
        if shared > SHARED {
            bail!("kernel {kernel} cannot have {shared} bytes of dynamic shared memory, at most {SHARED}");
        }
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        let mut rng = CounterRng::new(self.seed, number);
        // SAFETY: the pointers are valid for the call, which copies the parameters; `params` has the kernel's size.
        let handle = Shared(unsafe {
            let block = [threads, 1, 1];
            let (grid, params) = (grid.as_ptr(), params.as_ptr());
            ffi::adali_emulator_launch_begin(function, grid, block.as_ptr(), shared as usize, params, rng.next_u64())
        });
        if handle.pointer().is_null() {
            bail!("the emulator has run as many blocks as it can number in one process");
        }
        let mut blocks: Vec<u32> = (0..count as u32).collect();
        rng.shuffle(&mut blocks);
        blocks.par_iter().for_each(|&block| run_block(handle, block, threads));
        let mut report = [0 as c_char; 1024];
        // SAFETY: no block of the launch runs any more; the report is terminated within its size.
        let report = unsafe {
            ffi::adali_emulator_launch_end(handle.pointer(), report.as_mut_ptr(), report.len());
            CStr::from_ptr(report.as_ptr())
        };
        if !report.is_empty() {
            bail!("{}", report.to_string_lossy());
        }
        Ok(())
    }
}

/// The first name that comes twice.
fn first_repeated(mut names: Vec<String>) -> Option<String> {
    names.sort();
    names.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0].clone())
}

/// Runs one block from begin to end on this thread; none after a fault.
fn run_block(launch: Shared, number: u32, count: u32) {
    // SAFETY: the launch is alive until all its blocks are done.
    let block = Shared(unsafe { ffi::adali_emulator_block_begin(launch.pointer(), number) });
    if block.pointer().is_null() {
        return;
    }
    let mut stacks = STACKS.take();
    let mut threads: Vec<Thread> = (0..count)
        .map(|index| {
            let stack = stacks.pop().unwrap_or_else(|| DefaultStack::new(STACK).expect("memory for a stack"));
            let (low, high) = (stack.limit().get(), stack.base().get());
            Thread::with_stack(stack, move |yielder, ()| {
                let yielder = std::ptr::from_ref(yielder) as *mut c_void;
                // SAFETY: the block outlives its coroutines; the bounds are those of the stack it runs on.
                unsafe {
                    ffi::adali_emulator_thread(block.pointer(), index, yielder, low as *const _, high as *const _)
                }
            })
        })
        .collect();
    loop {
        // SAFETY: the block is alive and this thread's own.
        let next = unsafe { ffi::adali_emulator_block_next(block.pointer()) };
        let Ok(next) = usize::try_from(next) else { break };
        threads[next].resume(());
    }
    for mut thread in threads {
        if !thread.done() {
            // SAFETY: after a fault a kernel's frames are left as they are; nothing in them needs to be dropped.
            unsafe { thread.force_reset() };
        }
        stacks.push(thread.into_stack());
    }
    STACKS.set(stacks);
    // SAFETY: no coroutine of the block is left.
    unsafe { ffi::adali_emulator_block_end(block.pointer()) }
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
