//! Options that several commands share.

use crate::backend::cpu::Cpu;
use crate::bail_input;
use crate::data::{DataSource, Dataset, load};
use crate::train::checkpoint::{Checkpoint, open_model};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Where to compute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Device {
    /// The fastest there is.
    Auto,
    /// All cores of the processor.
    Cpu,
}

/// Device and threads.
#[derive(Args)]
pub struct DeviceOptions {
    /// Where to compute.
    #[arg(long, value_enum, default_value = "auto")]
    pub device: Device,
    /// Threads; 0 for one a core. The results are the same for any number.
    #[arg(long, default_value_t = 0, value_name = "N")]
    pub threads: usize,
}

impl DeviceOptions {
    /// Sets the threads up and opens the device.
    pub fn open(&self) -> Result<Cpu> {
        if self.threads > 1024 {
            bail_input!("threads {} must be at most 1024", self.threads);
        }
        rayon::ThreadPoolBuilder::new().num_threads(self.threads).build_global()?;
        match self.device {
            Device::Auto | Device::Cpu => Ok(Cpu),
        }
    }
}

/// Another place for the data than the one in a configuration.
#[derive(Args)]
pub struct DataOptions {
    /// Data set, if not that of the configuration.
    #[arg(long, value_enum)]
    pub data: Option<DataSource>,
    /// Folder (for `frames`: file) of the data set, if not where it usually is.
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
}

/// Loads a data set and says where it came from.
pub fn load_data(source: DataSource, dir: Option<&Path>) -> Result<Dataset> {
    load(source, dir)
}

/// The model of a run folder or the model file itself.
pub fn open_trained(path: &Path) -> Result<Checkpoint> {
    if path.is_dir() { open_model(&path.join("model.safetensors")) } else { open_model(path) }
}

/// Bytes for people.
pub fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// The largest memory this process has had, in bytes; `None` where the system does not say.
pub fn peak_memory() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok().map(|kilobytes| kilobytes * 1024)
}
