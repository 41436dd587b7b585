//! GPUs by their data sheets.

use super::ceilings::Ceilings;
use crate::backend::gpu::Precision;
use crate::backend::gpu::tile::Card;
use crate::kernels::{Multiprocessor, REPORT, Resources};

/// A card by its data sheet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum NamedCard {
    /// A100 SXM, 80 GB.
    A100,
    /// GeForce RTX 4090.
    Rtx4090,
    /// H100 SXM.
    H100,
    /// H200 SXM.
    H200,
}

impl NamedCard {
    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::A100 => "a100",
            Self::Rtx4090 => "rtx4090",
            Self::H100 => "h100",
            Self::H200 => "h200",
        }
    }

    /// Compute capability, multiprocessors, memory bandwidth in bytes/s, and floating-point operations per second in 16 bits on
    /// tensor cores without sparsity with sums in f32, and in f32 (NVIDIA's data sheets).
    pub(super) fn data(self) -> (&'static str, usize, f64, f64, f64) {
        match self {
            Self::A100 => ("80", 108, 2.039e12, 312e12, 19.5e12),
            Self::Rtx4090 => ("89", 128, 1.008e12, 165.2e12, 82.6e12),
            Self::H100 => ("90", 132, 3.35e12, 989e12, 67e12),
            Self::H200 => ("90", 132, 4.8e12, 989e12, 67e12),
        }
    }

    /// The limits promised by the data sheet.
    pub fn ceilings(self, precision: Precision) -> Ceilings {
        let (_, _, copy, sixteen, single) = self.data();
        Ceilings { copy, products: if precision == Precision::F32 { single } else { sixteen } }
    }

    /// The rates behind an estimate.
    pub fn rates(self) -> Rates {
        let (arch, multiprocessors, memory, products, _) = self.data();
        let multiprocessors = multiprocessors as f64;
        // Per multiprocessor and clock, from the architecture's white paper.
        let (per_clock, reached) = match arch {
            "80" => (2048.0, 1.0),
            "89" => (512.0, 1.0),
            // `mma.sync` reaches less than the Hopper-only instructions (Luo et al., arXiv 2402.13499).
            _ => (4096.0, 0.63),
        };
        Rates { multiprocessors, clock: products / (multiprocessors * per_clock), memory, products: reached * products }
    }

    pub(super) fn card(self) -> Card {
        let (arch, multiprocessors, ..) = self.data();
        let shared = Multiprocessor::of(arch).expect("it is known").shared_per_block as usize;
        Card { multiprocessors, shared }
    }

    /// The compiler's report on a kernel in the code that this GPU runs: for its own capability or an older one of the same
    /// generation.
    pub(super) fn resources(self, kernel: &str) -> Option<&'static Resources> {
        let own = self.data().0;
        let runs = |arch: &str| arch.len() == own.len() && arch[..1] == own[..1] && arch <= own;
        REPORT.iter().filter(|r| r.kernel == kernel && runs(r.arch)).max_by_key(|r| r.arch)
    }
}

/// Rates of a GPU for an estimate.
#[derive(Clone, Copy, Debug)]
pub struct Rates {
    pub multiprocessors: f64,
    /// Clocks per second at which the data sheet's products are reached.
    pub clock: f64,
    /// Bytes per second of device memory.
    pub memory: f64,
    /// Floating-point operations per second in 16 bits that `mma.sync` reaches.
    pub products: f64,
}
