//! NVIDIA's driver through cudarc, loaded at run time: without a driver, nothing here is used.
#![allow(unsafe_code)]

mod driver;
mod library;
mod recording;
mod staging;

pub use recording::CudaGraph;
pub use staging::CudaReading;

use super::{Buffer, SLOTS};
use crate::kernels::{ADVICE, COMPILER, MODULES, REPORT};
use anyhow::{Result, anyhow, bail};
use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute_enum, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaFunction, CudaSlice, CudaStream, DriverError, result, sys};
use cudarc::nvrtc::Ptx;
use recording::Recording;
use staging::{Pool, Ring, Slot};
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The oldest compute capability that the kernels support.
const OLDEST: (i32, i32) = (8, 0);

/// The oldest CUDA version of a driver; before it, calls may be missing or differ.
const OLDEST_DRIVER: i32 = 12000;

/// The CUDA version that a driver should have: if it is older than the compiler, it may not know the kernels' format.
fn wanted_driver() -> i32 {
    let compiler = COMPILER.unwrap_or_default().trim_start_matches("nvcc ");
    let mut numbers = compiler.split('.').map_while(|number| number.parse::<i32>().ok());
    let compiler = numbers.next().zip(numbers.next()).map_or(0, |(major, minor)| 1000 * major + 10 * minor);
    compiler.max(OLDEST_DRIVER)
}

/// A card with all kernels loaded.
pub struct Cuda {
    /// Launches, and copies in order with them.
    stream: Arc<CudaStream>,
    /// Copies concurrent with them.
    copies: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
    name: String,
    /// Name, number and driver, for error messages.
    described: String,
    multiprocessors: usize,
    shared: usize,
    synchronous: bool,
    recording: Arc<Recording>,
    ring: Mutex<Ring>,
    beside: Mutex<Beside>,
    readings: Arc<Pool>,
}

/// State of uploads that run concurrently with the launches.
struct Beside {
    slots: [Slot; SLOTS],
    /// How far the launches were when a buffer was first copied to.
    first: CudaEvent,
}

impl Beside {
    fn new(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        Ok(Self { slots: [Slot::new(context)?, Slot::new(context)?], first: context.new_event(None)? })
    }
}

/// Memory of a card.
pub struct CudaBuffer {
    memory: Option<Memory>,
    address: u64,
    /// The requested length; a card allocates no empty buffer.
    len: usize,
    /// Whether it was copied to concurrently with the launches.
    beside: AtomicBool,
    recording: Arc<Recording>,
}

/// Memory that is freed in order with the launches, and the context needed for that.
struct Memory(CudaSlice<u8>);

impl Drop for Memory {
    fn drop(&mut self) {
        let context = self.0.context();
        context.record_err(context.bind_to_thread());
    }
}

impl Drop for CudaBuffer {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            self.recording.discard(memory);
        }
    }
}

impl Buffer for CudaBuffer {
    fn address(&self) -> u64 {
        self.address
    }

    fn len(&self) -> usize {
        self.len
    }
}

impl Cuda {
    /// Whether this machine has an NVIDIA driver, usable or not.
    pub fn has_driver() -> bool {
        library::find().unwrap_or(true)
    }

    /// The number of cards, at least one, and the driver's CUDA version.
    fn found() -> Result<(usize, i32)> {
        if !library::find()? {
            bail!("this machine has no NVIDIA driver");
        }
        library::demand(library::VERSION)?;
        let mut driver = 0;
        // SAFETY: the number outlives the call, which needs no context.
        let asked = unsafe { sys::cuDriverGetVersion(&mut driver) }.result();
        asked.map_err(|error| anyhow!("the NVIDIA driver does not report its version: {}", text(error)))?;
        if driver < OLDEST_DRIVER {
            bail!(
                "the NVIDIA driver is too old: it supports CUDA {}, but {} is required; install a newer driver",
                version(driver),
                version(wanted_driver())
            );
        }
        library::demand(library::ALL)?;
        let count = result::init().and_then(|()| CudaContext::device_count());
        let count = count.map_err(|error| {
            anyhow!("the NVIDIA driver (CUDA {}) cannot list its GPUs: {}", version(driver), text(error))
        })?;
        match usize::try_from(count) {
            Ok(count) if count > 0 => Ok((count, driver)),
            _ => bail!("the NVIDIA driver (CUDA {}) finds no GPU", version(driver)),
        }
    }

    /// The cards' names with compute capability, driver and, where it tells them, the highest clocks; loads nothing.
    ///
    /// # Errors
    /// If the machine has no usable card, with the reason.
    pub fn names() -> Result<Vec<String>> {
        let (cards, driver) = Self::found()?;
        let name = |ordinal| -> Result<String, DriverError> {
            let context = CudaContext::new(ordinal)?;
            let (major, minor) = context.compute_capability()?;
            let kilohertz = [
                ("clock", CUdevice_attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE),
                ("memory", CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE),
            ];
            let mut clocks = String::new();
            for (name, attribute) in kilohertz {
                if let rate @ 1.. = context.attribute(attribute)? {
                    clocks += &format!(", {name} {} MHz", rate / 1000);
                }
            }
            let name = context.name()?;
            Ok(format!("{name}, compute capability {major}.{minor}, driver {}{clocks}", version(driver)))
        };
        let name = |ordinal| name(ordinal).unwrap_or_else(|error| format!("cannot be opened: {}", text(error)));
        Ok((0..cards).map(name).collect())
    }

    /// Opens card `ordinal` and loads every kernel. With `ADALI_SYNC=1` in the environment, every launch is waited for.
    ///
    /// # Errors
    /// If the program has no kernels, the machine has no driver or no such card, or either is too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        let (cards, driver) = Self::found().map_err(|error| anyhow!("cannot use CUDA: {error}"))?;
        if COMPILER.is_none() {
            bail!("cannot use CUDA: {ADVICE}");
        }
        if ordinal >= cards {
            bail!("there is no CUDA card {ordinal}: the last is {}", cards - 1);
        }
        let driver_text = version(driver);
        let unusable = |error| anyhow!("CUDA card {ordinal} (driver {driver_text}) cannot be opened: {}", text(error));
        let context = CudaContext::new(ordinal).map_err(unusable)?;
        let card = context.name().map_err(unusable)?;
        let name = format!("{card} (cuda:{ordinal})");
        let described = format!("{card} (cuda:{ordinal}, driver {driver_text})");
        let capability = context.compute_capability().map_err(unusable)?;
        if capability < OLDEST {
            bail!("{name} has compute capability {}.{}; the kernels need 8.0", capability.0, capability.1);
        }
        // SAFETY: memory is allocated, used and freed by one stream, in the order in which it is asked for; where the
        // second one writes to it, `upload_beside` makes each wait for the other.
        unsafe { context.disable_event_tracking() };
        let attribute = |a| context.attribute(a).map(|value| value as usize).map_err(unusable);
        let multiprocessors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let functions = load(&context, &described, driver, shared)?;
        Ok(Self {
            stream: context.new_stream().map_err(unusable)?,
            copies: context.new_stream().map_err(unusable)?,
            functions,
            multiprocessors,
            shared,
            synchronous: std::env::var_os("ADALI_SYNC").is_some_and(|value| !value.is_empty() && value != "0"),
            recording: Arc::default(),
            ring: Mutex::new(Ring::new(&context).map_err(unusable)?),
            beside: Mutex::new(Beside::new(&context).map_err(unusable)?),
            readings: Arc::default(),
            name,
            described,
        })
    }

    /// The card's name and number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What planning convolutions needs to know.
    pub fn card(&self) -> super::tile::Card {
        super::tile::Card { multiprocessors: self.multiprocessors, shared: self.shared }
    }

    /// Makes the card's context current on this thread; `doing` describes the task for an error message.
    fn bind(&self, doing: &str) -> Result<()> {
        self.stream.context().bind_to_thread().map_err(|error| self.explain(error, doing))
    }

    /// The error of a call; its cause may be an earlier launch.
    fn explain(&self, error: DriverError, doing: &str) -> anyhow::Error {
        use CUresult::*;
        let card = &self.described;
        match error.0 {
            CUDA_ERROR_ILLEGAL_ADDRESS
            | CUDA_ERROR_LAUNCH_TIMEOUT
            | CUDA_ERROR_ASSERT
            | CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUDA_ERROR_MISALIGNED_ADDRESS
            | CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUDA_ERROR_INVALID_PC
            | CUDA_ERROR_LAUNCH_FAILED
                if !self.synchronous =>
            {
                anyhow!("{card} failed: {}; run again with ADALI_SYNC=1 to learn in which kernel", text(error))
            }
            _ => anyhow!("{card} cannot {doing}: {}", text(error)),
        }
    }

    /// Waits for a launch if every launch is to be waited for.
    fn settle(&self, kernel: &str) -> Result<()> {
        if self.synchronous {
            let waited = self.stream.synchronize();
            waited.map_err(|error| anyhow!("{} failed in {kernel}: {}", self.described, text(error)))?;
        }
        Ok(())
    }

    /// If launches are being recorded, an error also spoils the recording.
    fn noted<T>(&self, result: Result<T>) -> Result<T> {
        result.inspect_err(|error| self.recording.refuse(error))
    }
}

impl Drop for Cuda {
    fn drop(&mut self) {
        self.recording.abandon(&self.stream);
    }
}

/// A CUDA version in its usual form.
fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

/// An error in words. Call it only if there is a driver, which knows the words.
fn text(error: DriverError) -> String {
    match error.error_string() {
        Ok(words) => format!("{} ({:?})", words.to_string_lossy(), error.0),
        Err(_) => format!("{:?}", error.0),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// All kernels by name, each allowed as much shared memory per block as the card has. This also makes the driver load every
/// kernel now rather than at its first launch, which may be recorded.
fn load(
    context: &Arc<CudaContext>,
    card: &str,
    driver: i32,
    shared: usize,
) -> Result<HashMap<&'static str, CudaFunction>> {
    let needed = if driver < wanted_driver() {
        format!("; the driver supports CUDA {}, but {} or newer is required", version(driver), version(wanted_driver()))
    } else {
        String::new()
    };
    let mut functions = HashMap::new();
    for module in MODULES {
        let unusable =
            |error, what: &str| anyhow!("{card} cannot load {what} of {}: {}{needed}", module.name, text(error));
        let loaded = context
            .load_module(Ptx::from_binary(module.fatbin.to_vec()))
            .map_err(|error| unusable(error, "the kernels"))?;
        for kernel in REPORT.iter().filter(|kernel| kernel.module == module.name) {
            if functions.contains_key(kernel.kernel) {
                continue; // reported once per architecture
            }
            let unusable = |error| unusable(error, kernel.kernel);
            let function = loaded.load_function(kernel.kernel).map_err(unusable)?;
            let room = shared as i32 - function.shared_size_bytes().map_err(unusable)?;
            let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, room).map_err(unusable)?;
            functions.insert(kernel.kernel, function);
        }
    }
    Ok(functions)
}
