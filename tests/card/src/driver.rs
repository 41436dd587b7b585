//! The driver's calls that the crate cudarc makes. Everything is done at once, in the order of the calls; what a capture
//! forbids is refused.
#![allow(non_snake_case)]
// SAFETY of all: the caller keeps the driver's contract; handles are pointers that these functions gave.
#![allow(clippy::missing_safety_doc)]

use crate::checker::{self, Kind};
use crate::exec::{self, Worker};
use crate::fatbin;
use crate::lower::{Kernel, lower};
use crate::memory;
use crate::order::{self, Clock};
use crate::parse::Module;
use crate::profile;
use crate::settings;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr::null_mut;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, OnceLock};
use std::time::Instant;

type R = c_int;
const OK: R = 0;
const INVALID_VALUE: R = 1;
const OUT_OF_MEMORY: R = 2;
const INVALID_CONTEXT: R = 201;
const INVALID_IMAGE: R = 200;
const INVALID_PTX: R = 218;
const NOT_FOUND: R = 500;
const NOT_READY: R = 600;
const LAUNCH_FAILED: R = 719;
const CAPTURE_UNSUPPORTED: R = 900;
const CAPTURE_INVALIDATED: R = 901;

/// What the stand-in claims to be.
const SHARED_OPTIN: u32 = 232_448;
const MULTIPROCESSORS: c_int = 132;

fn say(text: std::fmt::Arguments) {
    eprintln!("card: {text}");
}

macro_rules! say {
    ($($word:tt)*) => { say(format_args!($($word)*)) };
}

/// A fault stays: the error of every later call, and its text.
static STICKY: AtomicI32 = AtomicI32::new(OK);
static FAULT: OnceLock<CString> = OnceLock::new();

/// Something is wrong: it is printed, and every later call fails with it.
fn fail(fault: impl std::fmt::Display) {
    let fault = fault.to_string();
    say!("{fault}");
    FAULT.get_or_init(|| CString::new(fault).unwrap_or_default());
    STICKY.store(LAUNCH_FAILED, Ordering::Relaxed);
}

/// The first fault so far.
pub fn fault() -> Option<String> {
    FAULT.get().map(|fault| fault.to_string_lossy().into_owned())
}

thread_local! {
    static CURRENT: Cell<*mut c_void> = const { Cell::new(null_mut()) };
    static CAPTURING: Cell<*mut Stream> = const { Cell::new(null_mut()) };
}

#[derive(Default)]
pub struct Stream {
    number: u64,
    capturing: bool,
    broken: bool,
    nodes: Vec<Work>,
}

#[derive(Clone)]
enum Work {
    Launch { function: &'static Function, grid: [u32; 3], block: [u32; 3], dynamic: u32, parameters: Vec<u8> },
    Set { address: u64, value: u8, bytes: usize },
    Upload { to: u64, from: Host, bytes: usize },
    Download { to: u64, from: u64, bytes: usize },
    Allocated { address: u64 },
    Free { address: u64 },
    Record { event: Arc<Moment>, generation: u64 },
    Wait { event: Arc<Moment>, generation: u64 },
}

/// Where an upload reads: memory that is page-locked when it is done, any other when it is asked for.
#[derive(Clone)]
enum Host {
    /// Its address, and a sum over its bytes when it was asked for.
    Later(u64, u64),
    Now(Vec<u8>),
}

pub struct Graph {
    nodes: Vec<Work>,
}

pub struct Event {
    timing: bool,
    moment: Arc<Moment>,
}

#[derive(Default)]
struct Moment {
    /// How often it was asked to be recorded, and the last that is done.
    asked: AtomicU64,
    done: AtomicU64,
    at: Mutex<Option<Instant>>,
    /// What it is behind.
    clock: Mutex<Clock>,
}

impl Moment {
    fn reached(&self, generation: u64) -> bool {
        self.done.load(Ordering::Relaxed) >= generation
    }
}

/// What streams still have to do. Work is done late, the streams interleaved at random.
#[derive(Default)]
struct Queues {
    queues: BTreeMap<u64, VecDeque<(u32, Work)>>,
    seed: u64,
}

static QUEUES: LazyLock<Mutex<Queues>> = LazyLock::new(|| {
    let seed = settings::seed().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    Mutex::new(Queues { queues: BTreeMap::new(), seed })
});
static STREAMS: AtomicU64 = AtomicU64::new(1);

fn queues() -> MutexGuard<'static, Queues> {
    QUEUES.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Queues {
    fn below(&mut self, bound: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        (self.seed >> 32) % bound
    }

    /// Does the first work of some stream that need not wait.
    fn step(&mut self) -> bool {
        let ready = |(number, queue): (&u64, &VecDeque<(u32, Work)>)| match &queue.front()?.1 {
            Work::Wait { event, generation } if !event.reached(*generation) => None,
            _ => Some(*number),
        };
        let ready: Vec<u64> = self.queues.iter().filter_map(ready).collect();
        if ready.is_empty() {
            return false;
        }
        let number = ready[self.below(ready.len() as u64) as usize];
        let queue = self.queues.get_mut(&number).expect("a queue");
        let (run, work) = queue.pop_front().expect("work");
        if queue.is_empty() {
            self.queues.remove(&number);
        }
        // A fault shows at a later call.
        if let Err(fault) = execute(run, &work) {
            fail(fault);
        }
        true
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            if !self.step() {
                say!("streams wait for events that nothing records");
                break;
            }
        }
    }

    fn drain(&mut self) {
        self.until(|queues| queues.queues.is_empty());
    }
}

pub struct Function {
    kernel: Kernel,
    limit: AtomicI32,
}

type LoadedModule = &'static Module<'static>;

/// Modules by a hash of their fatbin: a program may load each several times.
static MODULES: LazyLock<Mutex<HashMap<u64, LoadedModule>>> = LazyLock::new(Mutex::default);

static FUNCTIONS: LazyLock<Mutex<HashMap<(usize, String), &'static Function>>> = LazyLock::new(Mutex::default);

/// The PTX in the image.
fn module(image: &[u8]) -> Result<LoadedModule, String> {
    let mut hasher = DefaultHasher::new();
    image.hash(&mut hasher);
    let mut modules = MODULES.lock().unwrap();
    if let Some(known) = modules.get(&hasher.finish()) {
        return Ok(known);
    }
    let module = Module::parse(fatbin::ptx(image)?.leak())?;
    let module: LoadedModule = Box::leak(Box::new(module));
    modules.insert(hasher.finish(), module);
    Ok(module)
}

static WORKERS: LazyLock<Mutex<Vec<Worker>>> = LazyLock::new(|| {
    let seed = |number: u64| settings::seed().wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number;
    let worker = |number| Worker::new(profile::wanted(), Some(seed(number)), checker::wanted());
    Mutex::new((0..settings::threads() as u64).map(worker).collect())
});

/// A call that a thread may not make while it captures.
fn unsafe_call(name: &str) -> Result<(), R> {
    let stream = CAPTURING.get();
    if stream.is_null() {
        return Ok(());
    }
    say!("{name} while the thread captures");
    unsafe { (*stream).broken = true };
    Err(CAPTURE_UNSUPPORTED)
}

fn current(name: &str) -> Result<(), R> {
    if CURRENT.get().is_null() {
        say!("{name} without a current context");
        return Err(INVALID_CONTEXT);
    }
    match STICKY.load(Ordering::Relaxed) {
        OK => Ok(()),
        error => Err(error),
    }
}

fn code(result: Result<(), R>) -> R {
    result.err().unwrap_or(OK)
}

/// A driver's call: what the body returns as the error.
macro_rules! calls {
    ($($name:ident($($argument:ident: $kind:ty),*) $body:block)*) => {
        $(#[unsafe(no_mangle)]
        pub unsafe extern "C" fn $name($($argument: $kind),*) -> R {
            #[allow(unused_unsafe)]
            let run = || -> Result<(), R> { unsafe { $body } Ok(()) };
            code(run())
        })*
    };
}

/// A sum over memory of the host, to see whether it changes.
fn sum(address: u64, bytes: usize) -> u64 {
    // SAFETY: the caller of the copy keeps it until the copy is done.
    let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, bytes) };
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// Does it. An error is a fault's text.
fn execute(run: u32, work: &Work) -> Result<(), String> {
    let inside = |address: u64, bytes: usize, what: &str, kind| {
        if !memory::holds(address, bytes) {
            return Err(format!("{what} of {bytes} bytes, {}", memory::describe(address)));
        }
        checker::host_touches(run, address, bytes, kind)
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
                    return Err(format!("page-locked memory of {bytes} bytes was changed before its copy was done"));
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
            if let Some((start, end)) = memory::range(*address) {
                checker::host_touches(run, start, (end - start) as usize, Kind::Write)?;
            }
            if !memory::free(*address) {
                return Err("a free of what is not allocated".into());
            }
        }
        Work::Record { event, generation } => {
            *event.at.lock().unwrap() = Some(Instant::now());
            event.done.fetch_max(*generation, Ordering::Relaxed);
        }
        Work::Wait { .. } => {}
        Work::Launch { function, grid, block, dynamic, parameters } => {
            let mut workers = WORKERS.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let (grid, block, dynamic) = (*grid, *block, *dynamic);
            let launch = exec::Launch { kernel: &function.kernel, grid, block, dynamic, parameters, run };
            let start = Instant::now();
            let result = exec::run(&launch, &mut workers);
            profile::record(&function.kernel, start.elapsed(), &workers, grid.iter().product());
            result.map_err(|fault| format!("{fault}; grid {grid:?}, block {block:?}, dynamic {dynamic}"))?;
        }
    }
    Ok(())
}

/// Does it later, or keeps it in the stream's capture.
unsafe fn submit(stream: *mut Stream, work: Work) -> Result<(), R> {
    let number = match stream.is_null() {
        true => 0,
        // SAFETY of both: a stream that this driver gave.
        false if unsafe { (*stream).capturing } => {
            unsafe { (*stream).nodes.push(work) };
            return Ok(());
        }
        false => unsafe { (*stream).number },
    };
    let mut queues = queues();
    let mut clocks = order::clocks();
    if let Work::Wait { event, .. } = &work {
        clocks.wait(number, &event.clock.lock().unwrap());
    }
    let run = clocks.begin(number);
    if let Work::Record { event, .. } = &work {
        *event.clock.lock().unwrap() = clocks.of(number);
    }
    drop(clocks);
    queues.queues.entry(number).or_default().push_back((run, work));
    for _ in 0..queues.below(3) {
        queues.step();
    }
    Ok(())
}

unsafe fn not_captured(stream: *mut Stream, name: &str) -> Result<(), R> {
    if !stream.is_null() && unsafe { (*stream).capturing } {
        say!("{name} on a stream that captures");
        unsafe { (*stream).broken = true };
        return Err(CAPTURE_UNSUPPORTED);
    }
    Ok(())
}

/// Waits for all work of a stream.
unsafe fn finish(stream: *mut Stream) {
    // SAFETY: a stream that this driver gave.
    let number = if stream.is_null() { 0 } else { unsafe { (*stream).number } };
    queues().until(|queues| !queues.queues.contains_key(&number));
    let mut clocks = order::clocks();
    let clock = clocks.of(number);
    clocks.host_waits(&clock);
}

/// Waits for all work of all streams.
fn finish_all() {
    queues().drain();
    order::clocks().host_waits_for_all();
}

fn page_locked(address: u64, bytes: usize) -> bool {
    let pinned = PINNED.lock().unwrap();
    let nearest = pinned.range(..=address).next_back();
    nearest.is_some_and(|(&start, &length)| address + bytes as u64 <= start + length as u64)
}

/// Page-locked memory: address and bytes.
static PINNED: Mutex<BTreeMap<u64, usize>> = Mutex::new(BTreeMap::new());

calls! {
    cuInit(_flags: c_uint) {}
    cuDriverGetVersion(version: *mut c_int) { *version = 13000; }
    cuDeviceGet(device: *mut c_int, ordinal: c_int) {
        *device = ordinal;
        if ordinal != 0 { return Err(101); }
    }
    cuDeviceGetCount(count: *mut c_int) { *count = 1; }
    cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) {
        let text = b"PTX on the CPU\0";
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len().min(length as usize));
    }
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        *value = match attribute {
            16 => MULTIPROCESSORS,
            75 => 9,
            76 => 0,
            97 => SHARED_OPTIN as c_int,
            115 => 1,
            _ => { say!("attribute {attribute} is not known"); 0 }
        };
    }
    cuDevicePrimaryCtxRetain(context: *mut *mut c_void, _device: c_int) { *context = (&raw const STICKY) as *mut c_void; }
    cuDevicePrimaryCtxRelease_v2(_device: c_int) {}
    cuCtxGetCurrent(context: *mut *mut c_void) { *context = CURRENT.get(); }
    cuCtxSetCurrent(context: *mut c_void) { CURRENT.set(context); }
    cuCtxSynchronize() {
        unsafe_call("cuCtxSynchronize")?;
        finish_all();
        current("cuCtxSynchronize")?;
    }

    cuModuleLoadData(module: *mut *mut LoadedModule, image: *const c_void) {
        unsafe_call("cuModuleLoadData")?;
        current("cuModuleLoadData")?;
        let length = fatbin::length(image.cast()).ok_or(INVALID_IMAGE)?;
        let loaded = crate::driver::module(std::slice::from_raw_parts(image.cast(), length));
        *module = Box::into_raw(Box::new(loaded.map_err(|error| { say!("{error}"); INVALID_IMAGE })?));
    }
    cuModuleUnload(module: *mut LoadedModule) { unsafe_call("cuModuleUnload")?; drop(Box::from_raw(module)); }
    cuModuleGetFunction(function: *mut *const Function, module: *mut LoadedModule, name: *const c_char) {
        unsafe_call("cuModuleGetFunction")?;
        current("cuModuleGetFunction")?;
        let name = CStr::from_ptr(name).to_string_lossy();
        let key = (*module as *const Module as usize, name.to_string());
        let mut functions = FUNCTIONS.lock().unwrap();
        if let Some(known) = functions.get(&key) {
            *function = *known;
            return Ok(());
        }
        if !(**module).functions.contains_key(&*name) { return Err(NOT_FOUND); }
        let kernel = lower(*module, &name).map_err(|error| { say!("{error}"); INVALID_PTX })?;
        let made: &'static Function = Box::leak(Box::new(Function { kernel, limit: AtomicI32::new(49152) }));
        functions.insert(key, made);
        *function = made;
    }
    cuFuncGetAttribute(value: *mut c_int, attribute: c_int, function: *const Function) {
        *value = match attribute {
            0 => (*function).kernel.max_threads as c_int,
            1 => (*function).kernel.shared as c_int,
            4 => 64,
            _ => 0,
        };
    }
    cuFuncSetAttribute(function: *const Function, attribute: c_int, value: c_int) {
        unsafe_call("cuFuncSetAttribute")?;
        if attribute != 8 || value < 0 || value as u32 + (*function).kernel.shared > SHARED_OPTIN {
            say!("attribute {attribute} of {} cannot be {value}", (*function).kernel.name);
            return Err(INVALID_VALUE);
        }
        (*function).limit.store(value, Ordering::Relaxed);
    }
    cuLaunchKernel(function: *const Function, gx: c_uint, gy: c_uint, gz: c_uint, bx: c_uint, by: c_uint, bz: c_uint,
                   dynamic: c_uint, stream: *mut Stream, arguments: *const *const u8, _extra: *mut c_void) {
        current("cuLaunchKernel")?;
        let function: &'static Function = &*function;
        let (kernel, limit) = (&function.kernel, function.limit.load(Ordering::Relaxed) as u32);
        let threads = bx as u64 * by as u64 * bz as u64;
        if gx == 0 || gy == 0 || gz == 0 || gx > i32::MAX as u32 || gy > 65535 || gz > 65535 || threads == 0
            || threads > kernel.max_threads as u64 || dynamic > limit {
            say!("bad launch of {}: grid {gx} {gy} {gz}, block {bx} {by} {bz}, shared {dynamic} of {limit}", kernel.name);
            return Err(INVALID_VALUE);
        }
        let mut parameters = vec![0; kernel.parameter_bytes as usize];
        for (number, &(offset, bytes)) in kernel.parameters.iter().enumerate() {
            let from = *arguments.add(number);
            std::ptr::copy_nonoverlapping(from, parameters.as_mut_ptr().add(offset as usize), bytes as usize);
        }
        submit(stream, Work::Launch { function, grid: [gx, gy, gz], block: [bx, by, bz], dynamic, parameters })?;
    }

    cuMemAllocAsync(address: *mut u64, bytes: usize, stream: *mut Stream) {
        current("cuMemAllocAsync")?;
        not_captured(stream, "cuMemAllocAsync")?;
        if bytes == 0 { return Err(INVALID_VALUE); }
        if bytes > memory::available() { return Err(OUT_OF_MEMORY); }
        *address = memory::allocate(bytes).ok_or(OUT_OF_MEMORY)?;
        submit(stream, Work::Allocated { address: *address })?;
    }
    cuMemFreeAsync(address: u64, stream: *mut Stream) {
        not_captured(stream, "cuMemFreeAsync")?;
        submit(stream, Work::Free { address })?;
    }
    cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        unsafe_call("cuMemAlloc")?;
        current("cuMemAlloc")?;
        *address = memory::allocate(bytes).ok_or(OUT_OF_MEMORY)?;
    }
    cuMemFree_v2(address: u64) {
        unsafe_call("cuMemFree")?;
        finish_all();
        if !memory::free(address) { return Err(INVALID_VALUE); }
    }
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        current("cuMemGetInfo")?;
        *total = memory::TOTAL;
        *free = memory::available();
    }
    cuMemHostAlloc(pointer: *mut *mut c_void, bytes: usize, _flags: c_uint) {
        unsafe_call("cuMemHostAlloc")?;
        current("cuMemHostAlloc")?;
        let layout = std::alloc::Layout::from_size_align(bytes.max(1), 4096).map_err(|_| INVALID_VALUE)?;
        let made = std::alloc::alloc(layout);
        if made.is_null() { return Err(OUT_OF_MEMORY); }
        PINNED.lock().unwrap().insert(made as u64, bytes);
        *pointer = made.cast();
    }
    cuMemFreeHost(pointer: *mut c_void) {
        unsafe_call("cuMemFreeHost")?;
        finish_all();
        let Some(bytes) = PINNED.lock().unwrap().remove(&(pointer as u64)) else {
            say!("a free of host memory that is not allocated");
            return Err(INVALID_VALUE);
        };
        std::alloc::dealloc(pointer.cast(), std::alloc::Layout::from_size_align(bytes.max(1), 4096).unwrap());
    }
    cuMemcpyHtoDAsync_v2(to: u64, from: *const u8, bytes: usize, stream: *mut Stream) {
        current("cuMemcpyHtoDAsync")?;
        not_captured(stream, "cuMemcpyHtoDAsync")?;
        let from = if page_locked(from as u64, bytes) {
            Host::Later(from as u64, sum(from as u64, bytes))
        } else {
            Host::Now(std::slice::from_raw_parts(from, bytes).to_vec())
        };
        submit(stream, Work::Upload { to, from, bytes })?;
    }
    cuMemcpyDtoHAsync_v2(to: *mut u8, from: u64, bytes: usize, stream: *mut Stream) {
        current("cuMemcpyDtoHAsync")?;
        not_captured(stream, "cuMemcpyDtoHAsync")?;
        submit(stream, Work::Download { to: to as u64, from, bytes })?;
        if !page_locked(to as u64, bytes) {
            // The driver returns only when it is done.
            finish(stream);
            current("cuMemcpyDtoHAsync")?;
        }
    }
    cuMemsetD8Async(address: u64, value: u8, bytes: usize, stream: *mut Stream) {
        current("cuMemsetD8Async")?;
        submit(stream, Work::Set { address, value, bytes })?;
    }

    cuStreamCreate(stream: *mut *mut Stream, _flags: c_uint) {
        unsafe_call("cuStreamCreate")?;
        current("cuStreamCreate")?;
        *stream = Box::into_raw(Box::new(Stream { number: STREAMS.fetch_add(1, Ordering::Relaxed), ..Stream::default() }));
    }
    cuStreamDestroy_v2(stream: *mut Stream) { drop(Box::from_raw(stream)); }
    cuStreamSynchronize(stream: *mut Stream) {
        unsafe_call("cuStreamSynchronize")?;
        not_captured(stream, "cuStreamSynchronize")?;
        finish(stream);
        current("cuStreamSynchronize")?;
    }
    cuStreamWaitEvent(stream: *mut Stream, event: *mut Event, _flags: c_uint) {
        not_captured(stream, "cuStreamWaitEvent")?;
        let event = (*event).moment.clone();
        let generation = event.asked.load(Ordering::Relaxed);
        submit(stream, Work::Wait { event, generation })?;
    }
    cuStreamBeginCapture_v2(stream: *mut Stream, mode: c_int) {
        current("cuStreamBeginCapture")?;
        if (*stream).capturing || mode != 1 { say!("a capture in mode {mode}"); return Err(CAPTURE_UNSUPPORTED); }
        *stream = Stream { capturing: true, number: (*stream).number, ..Stream::default() };
        CAPTURING.set(stream);
    }
    cuStreamEndCapture(stream: *mut Stream, graph: *mut *mut Graph) {
        if !(*stream).capturing { return Err(CAPTURE_INVALIDATED); }
        CAPTURING.set(null_mut());
        let number = (*stream).number;
        let Stream { broken, nodes, .. } = std::mem::replace(&mut *stream, Stream { number, ..Stream::default() });
        if broken { *graph = null_mut(); return Err(CAPTURE_INVALIDATED); }
        *graph = Box::into_raw(Box::new(Graph { nodes }));
    }

    cuEventCreate(event: *mut *mut Event, flags: c_uint) {
        unsafe_call("cuEventCreate")?;
        current("cuEventCreate")?;
        *event = Box::into_raw(Box::new(Event { timing: flags & 2 == 0, moment: Arc::default() }));
    }
    cuEventDestroy_v2(event: *mut Event) { drop(Box::from_raw(event)); }
    cuEventRecord(event: *mut Event, stream: *mut Stream) {
        current("cuEventRecord")?;
        not_captured(stream, "cuEventRecord")?;
        let event = (*event).moment.clone();
        let generation = event.asked.fetch_add(1, Ordering::Relaxed) + 1;
        submit(stream, Work::Record { event, generation })?;
    }
    cuEventQuery(event: *mut Event) {
        unsafe_call("cuEventQuery")?;
        current("cuEventQuery")?;
        let event = &(*event).moment;
        if !event.reached(event.asked.load(Ordering::Relaxed)) {
            queues().step();
            return Err(NOT_READY);
        }
        order::clocks().host_waits(&event.clock.lock().unwrap());
    }
    cuEventSynchronize(event: *mut Event) {
        unsafe_call("cuEventSynchronize")?;
        let event = &(*event).moment;
        let generation = event.asked.load(Ordering::Relaxed);
        queues().until(|_| event.reached(generation));
        order::clocks().host_waits(&event.clock.lock().unwrap());
        current("cuEventSynchronize")?;
    }
    cuEventElapsedTime(milliseconds: *mut f32, from: *mut Event, to: *mut Event) {
        if !(*from).timing || !(*to).timing { say!("the time between events without timing"); return Err(400); }
        let (from, to) = (&*from, &*to);
        let (Some(from), Some(to)) = (*from.moment.at.lock().unwrap(), *to.moment.at.lock().unwrap()) else { return Err(400) };
        *milliseconds = to.duration_since(from).as_secs_f32() * 1e3;
    }

    cuGraphInstantiateWithFlags(made: *mut *mut Graph, graph: *mut Graph, _flags: u64) {
        unsafe_call("cuGraphInstantiate")?;
        *made = Box::into_raw(Box::new(Graph { nodes: (*graph).nodes.clone() }));
    }
    cuGraphUpload(_graph: *mut Graph, stream: *mut Stream) { not_captured(stream, "cuGraphUpload")?; }
    cuGraphLaunch(graph: *mut Graph, stream: *mut Stream) {
        current("cuGraphLaunch")?;
        not_captured(stream, "cuGraphLaunch")?;
        for node in &(*graph).nodes {
            submit(stream, node.clone())?;
        }
    }
    cuGraphDestroy(graph: *mut Graph) { drop(Box::from_raw(graph)); }
    cuGraphExecDestroy(graph: *mut Graph) { drop(Box::from_raw(graph)); }

    cuGetErrorString(error: R, text: *mut *const c_char) {
        let words: &CStr = match error {
            OK => c"no error",
            INVALID_VALUE => c"invalid argument",
            OUT_OF_MEMORY => c"out of memory",
            101 => c"invalid device ordinal",
            INVALID_PTX => c"a PTX JIT compilation failed",
            LAUNCH_FAILED => FAULT.get().map_or(c"unspecified launch failure", CString::as_c_str),
            CAPTURE_UNSUPPORTED => c"operation not permitted when stream is capturing",
            CAPTURE_INVALIDATED => c"operation failed due to a previous error during capture",
            NOT_FOUND => c"named symbol not found",
            _ => c"an error of the stand-in",
        };
        *text = words.as_ptr();
    }
    cuGetErrorName(_error: R, text: *mut *const c_char) { *text = c"CUDA_ERROR".as_ptr(); }
}
