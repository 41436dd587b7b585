//! The device's peak rates.

use super::super::memory::Gpu;
use super::super::params::{CopyMemory, MatrixRate};
use super::super::precision::Precision;
use super::super::tensors::Floats;
use super::super::{Buffer, Driver, Launch};
use crate::backend::Rates;
use anyhow::Result;

/// As in `kernels/ceiling.cu`: products in flight per warp, vectors copied per thread, threads per block.
const CHAINS: usize = 8;
const TURNS: usize = 4;
const THREADS: usize = 256;
/// Blocks per multiprocessor.
const BLOCKS: usize = 2;

impl<D: Driver> Rates for Gpu<D> {
    fn copy(&self, from: &Floats<D>, to: &mut Floats<D>) -> Result<usize> {
        let bytes = from.memory.len().min(to.memory.len());
        let params = CopyMemory { from: from.memory.address(), to: to.memory.address(), bytes: bytes as u64 };
        self.run("copy_memory", Launch::over(bytes.div_ceil(16), TURNS * THREADS, THREADS as u32), &params)?;
        Ok(bytes)
    }

    /// Matrix products on every multiprocessor; returns the number of floating-point operations.
    fn multiply(&self, rounds: u32) -> Result<f64> {
        let threads = self.card.multiprocessors * BLOCKS * THREADS;
        let out = self.borrow_floats(threads, Precision::F32)?;
        let params = MatrixRate { out: out.memory.address(), rounds, seed: 1 };
        let kernel = format!("matrix_rate_{}", self.precision.name());
        self.run(&kernel, Launch::over(threads, THREADS, THREADS as u32), &params)?;
        let per_round = match self.precision {
            Precision::F32 => threads * 2 * CHAINS,
            Precision::Bf16 | Precision::F16 => threads / 32 * CHAINS * 16 * 8 * 16,
        };
        Ok(2.0 * per_round as f64 * f64::from(rounds))
    }
}
