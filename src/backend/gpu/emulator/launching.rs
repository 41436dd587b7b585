//! Launches: a coroutine a thread, blocks on all cores.

use super::{Launch, ffi};
use crate::data::sampling::CounterRng;
use anyhow::{Result, bail};
use corosensei::stack::{DefaultStack, Stack};
use corosensei::{Coroutine, Yielder};
use rayon::prelude::*;
use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};

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

/// Tells the scheduler how a coroutine is left. Once, before the first launch.
pub(super) fn start() {
    // SAFETY: no launch reads it before; it is written once.
    unsafe { ffi::adali_emulator_set_yield(switch) }
}

/// The kernel of this name, if it can be launched so.
pub(super) fn kernel(kernel: &str, launch: Launch, params: &[u8]) -> Result<*const c_void> {
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
    Ok(function)
}

/// Runs a kernel, its blocks and threads in an order drawn from `rng`.
pub(super) fn run(kernel: &str, launch: Launch, params: &[u8], mut rng: CounterRng) -> Result<()> {
    let function = self::kernel(kernel, launch, params)?;
    let Launch { grid, threads, shared } = launch;
    let count: u32 = grid.iter().product();
    // SAFETY: the pointers are valid for the call, which copies the parameters; `params` has the kernel's size.
    let handle = Shared(unsafe {
        let block = [threads, 1, 1];
        let (grid, params) = (grid.as_ptr(), params.as_ptr());
        ffi::adali_emulator_launch_begin(function, grid, block.as_ptr(), shared as usize, params, rng.next_u64())
    });
    if handle.pointer().is_null() {
        bail!("the emulator has run as many blocks as it can number in one process");
    }
    let mut blocks: Vec<u32> = (0..count).collect();
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
