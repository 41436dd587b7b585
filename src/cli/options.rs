//! Options that several commands share.

use super::note;
use crate::backend::Storage;
use crate::backend::cpu::Cpu;
use crate::backend::gpu::cuda::Cuda;
use crate::backend::gpu::{Gpu, Precision};
use crate::host::{Limit, available};
use crate::network::model::memory::Memory;
use crate::train::checkpoint::{Checkpoint, open_model};
use crate::train::run::RunFiles;
use crate::{bail_input, input_error};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::Path;

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    Auto,
    Cpu,
    /// An NVIDIA card by number.
    Cuda(usize),
}

impl std::str::FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let card = text.strip_prefix("cuda:").map(|number| number.parse());
        match (text, card) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            ("cuda", _) => Ok(Self::Cuda(0)),
            (_, Some(Ok(card))) => Ok(Self::Cuda(card)),
            _ => Err("it is auto, cpu, cuda or cuda:1 (a card by number)".into()),
        }
    }
}

/// What a device stores activations and gradients in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Stored {
    /// 16 bits, on tensor cores.
    Bf16,
    /// 16 bits, more precision and less range; gradients are scaled dynamically.
    F16,
    /// 32 bits, slow reference kernels, for comparison with the CPU.
    F32,
}

impl From<Stored> for Precision {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::Bf16 => Self::Bf16,
            Stored::F16 => Self::F16,
            Stored::F32 => Self::F32,
        }
    }
}

/// Device and threads.
#[derive(Args)]
pub struct DeviceOptions {
    /// Device to compute on: auto, cpu, cuda or cuda:1.
    ///
    /// auto uses the first usable CUDA GPU, otherwise the CPU, and prints the reason; cuda:1 selects a GPU by number.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    pub device: Device,
    /// Format in which a CUDA card stores numbers; the CPU computes in f32.
    #[arg(long, value_enum, default_value = "bf16")]
    pub precision: Stored,
    /// Launch the CUDA kernels one by one instead of as graphs: slower, with the same results.
    #[arg(long)]
    pub no_graph: bool,
    /// Number of threads, 0 for one per core; the results do not depend on it.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
}

/// An opened device.
pub enum Opened {
    Cpu(Cpu),
    Cuda(Box<Gpu<Cuda>>),
}

/// Opens the device chosen by the options as `$backend` and evaluates `$body` with it.
macro_rules! on_device {
    ($options:expr, |$backend:ident| $body:expr) => {
        match $options.open()? {
            $crate::cli::options::Opened::Cpu($backend) => $body,
            $crate::cli::options::Opened::Cuda(backend) => {
                let $backend = *backend;
                $body
            }
        }
    };
}
pub(super) use on_device;

impl DeviceOptions {
    /// Starts the threads and opens the device.
    pub fn open(&self) -> Result<Opened> {
        self.open_after(self.on_cpu()?)
    }

    /// Opens the device once the threads have started.
    pub fn open_after(&self, cpu: Cpu) -> Result<Opened> {
        let precision = self.precision.into();
        match self.device {
            Device::Cpu => Ok(Opened::Cpu(cpu)),
            Device::Auto if !Cuda::has_driver() => Ok(Opened::Cpu(cpu)),
            Device::Auto => self.open_card(0, precision).or_else(|error| {
                note(format_args!("note: {error:#}; using the CPU"));
                Ok(Opened::Cpu(cpu))
            }),
            Device::Cuda(ordinal) => self.open_card(ordinal, precision).map_err(|error| input_error!("{error:#}")),
        }
    }

    /// The CPU with its threads.
    pub fn on_cpu(&self) -> Result<Cpu> {
        start_threads(self.threads)?;
        Ok(Cpu)
    }

    /// Describes the opened device; if it was chosen automatically, also why it is not a GPU.
    pub fn describe(&self, opened: &impl Storage) -> String {
        let why = if self.device == Device::Auto && !Cuda::has_driver() { "; no NVIDIA driver found" } else { "" };
        format!("{}{why}", opened.describe())
    }

    fn open_card(&self, ordinal: usize, precision: Precision) -> Result<Opened> {
        let cuda = Cuda::open(ordinal)?;
        let (card, name) = (cuda.card(), cuda.name().to_string());
        Ok(Opened::Cuda(Box::new(Gpu::new(cuda, card, precision, name, !self.no_graph))))
    }
}

/// Stack size of a thread in bytes, the usual one.
const STACK: usize = 2 << 20;
/// Further address space per thread in bytes: guard pages and what the libraries keep.
const THREAD: usize = 128 << 10;
/// Address space in bytes for small allocations, which must not fail: that would end the program.
const SMALL: usize = 8 << 20;

/// Starts the compute threads; 0 for one per core.
///
/// # Errors
/// If there are too many, or the system does not start that many.
pub fn start_threads(threads: usize) -> Result<()> {
    if threads > 1024 {
        bail_input!("--threads {threads} must be at most 1024");
    }
    let wanted = if threads == 0 { "one thread per core".into() } else { format!("{threads} threads") };
    let count = if threads == 0 { std::thread::available_parallelism().map_or(1, usize::from) } else { threads };
    // Checked before the first one starts: afterwards there may be no memory left to report it.
    let needed = count * (STACK + THREAD) + SMALL;
    match available() {
        Some((left, limit)) if matches!(limit, Limit::Addresses | Limit::Data) && left < needed => bail_input!(
            "cannot start {wanted}: the program then needs {} of memory, but {} are left {limit}; give fewer --threads, or \
             raise the limit",
            megabytes(needed),
            megabytes(left)
        ),
        _ => {}
    }
    let started = rayon::ThreadPoolBuilder::new().num_threads(threads).stack_size(STACK).build_global();
    started.map_err(|e| {
        let why = std::error::Error::source(&e).map_or(e.to_string(), |source| source.to_string());
        input_error!("cannot start {wanted}: {why}; give fewer --threads, or raise the limits on processes and addresses (ulimit -u, ulimit -v)")
    })
}

/// The model of a run folder, whose files must be from one run, or the model file itself.
pub fn open_trained(path: &Path) -> Result<Checkpoint> {
    if !path.is_dir() {
        return open_model(path);
    }
    let files = RunFiles::at(path.into());
    files.check()?;
    open_model(&files.model())
}

/// Bytes in readable form.
pub fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// Memory by kind in readable form.
pub fn memory_kinds(memory: &Memory) -> String {
    let kinds = memory.kinds().into_iter().filter(|(_, bytes)| *bytes > 0);
    kinds.map(|(kind, bytes)| format!("{kind} {}", megabytes(bytes))).collect::<Vec<_>>().join(", ")
}
