//! NVIDIA's driver, through cudarc, loaded when the program runs: without one nothing here is touched.
#![allow(unsafe_code)]

use super::{Buffer, Driver, Launch};
use crate::kernels::{ADVICE, COMPILER, MODULES, REPORT};
use anyhow::{Context, Result, anyhow, bail};
use cudarc::driver::sys::{CUdevice_attribute, CUfunction_attribute_enum};
use cudarc::driver::{CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, result, sys};
use cudarc::nvrtc::Ptx;
use std::collections::HashMap;
use std::ffi::c_void;
use std::sync::Arc;

/// The oldest compute capability that the kernels are written for.
const OLDEST: (i32, i32) = (8, 0);

/// A card with all kernels loaded.
pub struct Cuda {
    stream: Arc<CudaStream>,
    functions: HashMap<&'static str, CudaFunction>,
    name: String,
    multiprocessors: usize,
    shared: usize,
}

/// Memory of a card.
pub struct CudaBuffer {
    memory: CudaSlice<u8>,
    address: u64,
    /// What was asked for; a card allocates no empty buffer.
    len: usize,
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
    /// How many cards there are; none without a driver.
    pub fn cards() -> usize {
        // SAFETY: it looks for the driver's library and opens it.
        if !unsafe { sys::is_culib_present() } {
            return 0;
        }
        result::init().and_then(|()| CudaContext::device_count()).map_or(0, |count| count.max(0) as usize)
    }

    /// The cards' names with their compute capability; nothing is loaded.
    pub fn names() -> Vec<String> {
        let name = |ordinal| -> Result<String> {
            let context = CudaContext::new(ordinal)?;
            let (major, minor) = context.compute_capability()?;
            Ok(format!("{}, compute capability {major}.{minor}", context.name()?))
        };
        (0..Self::cards())
            .map(|ordinal| name(ordinal).unwrap_or_else(|error| format!("cannot be opened: {error}")))
            .collect()
    }

    /// Opens card `ordinal` and loads every kernel.
    ///
    /// # Errors
    /// Where the program has no kernels, the machine has no driver or no such card, or the card is too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        if COMPILER.is_none() {
            bail!("cannot use CUDA: {ADVICE}");
        }
        match Self::cards() {
            0 => bail!("cannot use CUDA: this machine has no NVIDIA driver, or no card that it sees"),
            cards if ordinal >= cards => bail!("there is no CUDA card {ordinal}: the last is {}", cards - 1),
            _ => {}
        }
        let context = CudaContext::new(ordinal).with_context(|| format!("cannot open CUDA card {ordinal}"))?;
        let name = format!("{} (cuda:{ordinal})", context.name()?);
        let capability = context.compute_capability()?;
        if capability < OLDEST {
            bail!("{name} has compute capability {}.{}; the kernels need 8.0", capability.0, capability.1);
        }
        // SAFETY: there is one stream, so memory is used in the order in which it is asked for.
        unsafe { context.disable_event_tracking() };
        let attribute = |a| context.attribute(a).map(|value| value as usize);
        let multiprocessors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
        let shared = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let stream = context.new_stream()?;
        let functions = load(&context, &name, shared)?;
        Ok(Self { stream, functions, name, multiprocessors, shared })
    }

    /// The card's name and number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What the convolutions' plans need to know.
    pub fn card(&self) -> super::tile::Card {
        super::tile::Card { multiprocessors: self.multiprocessors, shared: self.shared }
    }
}

/// All kernels by name, each allowed as much shared memory as the card has for a block.
fn load(context: &Arc<CudaContext>, card: &str, shared: usize) -> Result<HashMap<&'static str, CudaFunction>> {
    let mut functions = HashMap::new();
    for module in MODULES {
        let loaded = context
            .load_module(Ptx::from_binary(module.fatbin.to_vec()))
            .map_err(|error| anyhow!("{card} cannot load the kernels of {}: {error}", module.name))?;
        for kernel in REPORT.iter().filter(|kernel| kernel.module == module.name) {
            if functions.contains_key(kernel.kernel) {
                continue; // reported once an architecture
            }
            let function = loaded.load_function(kernel.kernel).with_context(|| format!("kernel {}", kernel.kernel))?;
            let room = shared as i32 - function.shared_size_bytes()?;
            let attribute = CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            function.set_attribute(attribute, room).with_context(|| format!("kernel {}", kernel.kernel))?;
            functions.insert(kernel.kernel, function);
        }
    }
    Ok(functions)
}

impl Driver for Cuda {
    type Buffer = CudaBuffer;

    fn available_memory(&self) -> Option<usize> {
        self.stream.context().mem_get_info().ok().map(|(free, _)| free)
    }

    fn allocate(&self, bytes: usize) -> Result<CudaBuffer> {
        // SAFETY: the content is undefined, as the trait says.
        let memory = unsafe { self.stream.alloc::<u8>(bytes.max(1)) };
        let memory = memory.map_err(|error| anyhow!("{} has no {bytes} bytes of memory left: {error}", self.name))?;
        let address = memory.device_ptr(&self.stream).0;
        Ok(CudaBuffer { memory, address, len: bytes })
    }

    fn upload(&self, to: &CudaBuffer, offset: usize, bytes: &[u8]) -> Result<()> {
        if offset > to.len || bytes.len() > to.len - offset {
            bail!("{} bytes at {offset} do not fit a buffer of {} bytes", bytes.len(), to.len);
        }
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream.context().bind_to_thread()?;
        // SAFETY: the range lies in the buffer; the copy is complete before `bytes` can go.
        unsafe { result::memcpy_htod_async(to.address + offset as u64, bytes, self.stream.cu_stream()) }?;
        Ok(self.stream.synchronize()?)
    }

    fn download(&self, from: &CudaBuffer) -> Result<Vec<u8>> {
        let mut bytes = self.stream.clone_dtoh(&from.memory)?;
        self.stream.synchronize().with_context(|| format!("{} failed", self.name))?;
        bytes.truncate(from.len);
        Ok(bytes)
    }

    unsafe fn launch(&self, kernel: &str, launch: Launch, params: &[u8]) -> Result<()> {
        let Some(function) = self.functions.get(kernel) else { bail!("no kernel is named {kernel}") };
        let Launch { grid: [x, y, z], threads, shared } = launch;
        // The driver copies the parameters before it returns.
        let mut arguments = [params.as_ptr() as *mut c_void];
        let stream = self.stream.cu_stream();
        self.stream.context().bind_to_thread()?;
        // SAFETY: the caller vouches for the parameters; the function is the card's own.
        unsafe {
            result::launch_kernel(function.cu_function(), (x, y, z), (threads, 1, 1), shared, stream, &mut arguments)
        }
        .map_err(|error| anyhow!("{} cannot launch {kernel} with {launch:?}: {error}", self.name))
    }
}
