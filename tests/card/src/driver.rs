//! The driver calls that the crate cudarc makes. What a capture forbids is refused.
#![allow(non_snake_case)]
// SAFETY of all: the caller keeps the driver's contract; handles are pointers that these functions gave.
#![allow(clippy::missing_safety_doc)]

use crate::device::{Device, Function, Handle, Host, Moment, Work, sum};
use crate::fatbin;
use crate::lower::lower;
use crate::memory;
use crate::parse::Module;
use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

type R = c_int;
const OK: R = 0;
const INVALID_VALUE: R = 1;
const OUT_OF_MEMORY: R = 2;
const INVALID_DEVICE: R = 101;
const INVALID_CONTEXT: R = 201;
const INVALID_IMAGE: R = 200;
const INVALID_PTX: R = 218;
const NOT_FOUND: R = 500;
const NOT_READY: R = 600;
const LAUNCH_FAILED: R = 719;
const CAPTURE_UNSUPPORTED: R = 900;
const CAPTURE_INVALIDATED: R = 901;

/// The properties that the stand-in reports.
const SHARED_OPTIN: u32 = 232_448;
const MULTIPROCESSORS: c_int = 132;

fn say(text: std::fmt::Arguments) {
    eprintln!("card: {text}");
}

macro_rules! say {
    ($($word:tt)*) => { say(format_args!($($word)*)) };
}

thread_local! {
    static CURRENT: Cell<*const Device> = const { Cell::new(null()) };
    static CAPTURING: Cell<*mut Stream> = const { Cell::new(null_mut()) };
}

pub struct Stream {
    device: &'static Device,
    number: usize,
    capturing: bool,
    broken: bool,
    nodes: Vec<Work>,
    _handle: Handle,
}

impl Stream {
    fn new(device: &'static Device, number: usize, capturing: bool) -> Stream {
        Stream { device, number, capturing, broken: false, nodes: Vec::new(), _handle: Handle::new(device, "stream") }
    }
}

#[derive(Clone)]
pub struct Graph {
    nodes: Vec<Work>,
    _handle: Handle,
}

pub struct Event {
    device: &'static Device,
    timing: bool,
    moment: Arc<Moment>,
    _handle: Handle,
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

/// The thread's device; an error if it has none, or after a fault.
fn current(name: &str) -> Result<&'static Device, R> {
    // SAFETY: what was set was given by `cuDevicePrimaryCtxRetain`: a device, which lives as long as the process.
    let Some(device) = (unsafe { CURRENT.get().as_ref() }) else {
        say!("{name} without a current context");
        return Err(INVALID_CONTEXT);
    };
    match device.fault() {
        None => Ok(device),
        Some(_) => Err(LAUNCH_FAILED),
    }
}

fn code(result: Result<(), R>) -> R {
    result.err().unwrap_or(OK)
}

/// A driver call, with the error that its body returns.
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

/// The device and number of a stream; for the default stream, the thread's device.
unsafe fn place(stream: *mut Stream, name: &str) -> Result<(&'static Device, usize), R> {
    // SAFETY: null, or a stream that this driver gave.
    match unsafe { stream.as_ref() } {
        None => Ok((current(name)?, 0)),
        Some(stream) => Ok((stream.device, stream.number)),
    }
}

/// Queues the work, or adds it to the stream's capture.
unsafe fn submit(stream: *mut Stream, work: Work) -> Result<(), R> {
    // SAFETY: as above.
    unsafe {
        if !stream.is_null() && (*stream).capturing {
            (*stream).nodes.push(work);
            return Ok(());
        }
        let (device, number) = place(stream, "work in the default stream")?;
        device.submit(number, work);
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
unsafe fn finish(stream: *mut Stream) -> Result<(), R> {
    // SAFETY: the caller's.
    let (device, number) = unsafe { place(stream, "waiting for the default stream") }?;
    device.finish(number);
    Ok(())
}

fn allocate(device: &Device, bytes: usize) -> Result<u64, R> {
    if bytes == 0 {
        return Err(INVALID_VALUE);
    }
    if bytes > device.available() {
        return Err(OUT_OF_MEMORY);
    }
    memory::allocate(bytes, &device.used).ok_or(OUT_OF_MEMORY)
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
        Device::numbered(ordinal).ok_or(INVALID_DEVICE)?;
        *device = ordinal;
    }
    cuDeviceGetCount(count: *mut c_int) { *count = Device::count() as c_int; }
    cuDeviceGetName(name: *mut c_char, length: c_int, _device: c_int) {
        let text = b"PTX on the CPU\0";
        std::ptr::copy_nonoverlapping(text.as_ptr().cast(), name, text.len().min(length as usize));
    }
    cuDeviceGetAttribute(value: *mut c_int, attribute: c_int, _device: c_int) {
        *value = match attribute {
            13 | 36 => 0, // the clocks of multiprocessors and memory: it has none
            16 => MULTIPROCESSORS,
            75 => 9,
            76 => 0,
            97 => SHARED_OPTIN as c_int,
            115 => 1,
            _ => { say!("attribute {attribute} is not known"); 0 }
        };
    }
    cuDevicePrimaryCtxRetain(context: *mut *const Device, ordinal: c_int) {
        let device = Device::numbered(ordinal).ok_or(INVALID_DEVICE)?;
        device.held.fetch_add(1, Ordering::Relaxed);
        *context = device;
    }
    cuDevicePrimaryCtxRelease_v2(ordinal: c_int) { Device::numbered(ordinal).ok_or(INVALID_DEVICE)?.release(); }
    cuCtxGetCurrent(context: *mut *const Device) { *context = CURRENT.get(); }
    cuCtxSetCurrent(context: *const Device) { CURRENT.set(context); }
    cuCtxSynchronize() {
        unsafe_call("cuCtxSynchronize")?;
        current("cuCtxSynchronize")?.finish_all();
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
        let loaded: LoadedModule = *module;
        if !loaded.functions.contains_key(&*name) { return Err(NOT_FOUND); }
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
        let device = current("cuMemAllocAsync")?;
        not_captured(stream, "cuMemAllocAsync")?;
        *address = allocate(device, bytes)?;
        submit(stream, Work::Allocated { address: *address })?;
    }
    cuMemFreeAsync(address: u64, stream: *mut Stream) {
        not_captured(stream, "cuMemFreeAsync")?;
        submit(stream, Work::Free { address })?;
    }
    cuMemAlloc_v2(address: *mut u64, bytes: usize) {
        unsafe_call("cuMemAlloc")?;
        *address = allocate(current("cuMemAlloc")?, bytes)?;
    }
    cuMemFree_v2(address: u64) {
        unsafe_call("cuMemFree")?;
        current("cuMemFree")?.finish_all();
        if !memory::free(address) { return Err(INVALID_VALUE); }
    }
    cuMemGetInfo_v2(free: *mut usize, total: *mut usize) {
        let device = current("cuMemGetInfo")?;
        *total = device.memory;
        *free = device.available();
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
        current("cuMemFreeHost")?.finish_all();
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
            // The driver returns only once the copy is done.
            finish(stream)?;
            current("cuMemcpyDtoHAsync")?;
        }
    }
    cuMemsetD8Async(address: u64, value: u8, bytes: usize, stream: *mut Stream) {
        current("cuMemsetD8Async")?;
        submit(stream, Work::Set { address, value, bytes })?;
    }

    cuStreamCreate(stream: *mut *mut Stream, _flags: c_uint) {
        unsafe_call("cuStreamCreate")?;
        let device = current("cuStreamCreate")?;
        *stream = Box::into_raw(Box::new(Stream::new(device, device.stream(), false)));
    }
    cuStreamDestroy_v2(stream: *mut Stream) { drop(Box::from_raw(stream)); }
    cuStreamSynchronize(stream: *mut Stream) {
        unsafe_call("cuStreamSynchronize")?;
        not_captured(stream, "cuStreamSynchronize")?;
        finish(stream)?;
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
        *stream = Stream::new((*stream).device, (*stream).number, true);
        CAPTURING.set(stream);
    }
    cuStreamEndCapture(stream: *mut Stream, graph: *mut *mut Graph) {
        if !(*stream).capturing { return Err(CAPTURE_INVALIDATED); }
        CAPTURING.set(null_mut());
        let after = Stream::new((*stream).device, (*stream).number, false);
        let Stream { broken, nodes, .. } = std::mem::replace(&mut *stream, after);
        if broken { *graph = null_mut(); return Err(CAPTURE_INVALIDATED); }
        *graph = Box::into_raw(Box::new(Graph { nodes, _handle: Handle::new((*stream).device, "graph") }));
    }

    cuEventCreate(event: *mut *mut Event, flags: c_uint) {
        unsafe_call("cuEventCreate")?;
        let device = current("cuEventCreate")?;
        let _handle = Handle::new(device, "event");
        *event = Box::into_raw(Box::new(Event { device, timing: flags & 2 == 0, moment: Arc::default(), _handle }));
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
        let Event { device, moment, .. } = &*event;
        let generation = moment.asked.load(Ordering::Relaxed);
        if !moment.reached(generation) {
            device.proceed();
            return Err(NOT_READY);
        }
        device.reach(moment, generation);
    }
    cuEventSynchronize(event: *mut Event) {
        unsafe_call("cuEventSynchronize")?;
        let Event { device, moment, .. } = &*event;
        device.reach(moment, moment.asked.load(Ordering::Relaxed));
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
        *made = Box::into_raw(Box::new((*graph).clone()));
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
            INVALID_DEVICE => c"invalid device ordinal",
            INVALID_PTX => c"a PTX JIT compilation failed",
            LAUNCH_FAILED => {
                CURRENT.get().as_ref().and_then(Device::fault).map_or(c"unspecified launch failure", CString::as_c_str)
            }
            CAPTURE_UNSUPPORTED => c"operation not permitted when stream is capturing",
            CAPTURE_INVALIDATED => c"operation failed due to a previous error during capture",
            NOT_FOUND => c"named symbol not found",
            _ => c"an error of the stand-in",
        };
        *text = words.as_ptr();
    }
    cuGetErrorName(_error: R, text: *mut *const c_char) { *text = c"CUDA_ERROR".as_ptr(); }
}
