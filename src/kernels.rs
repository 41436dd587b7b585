//! The CUDA kernels in this program, the compiler's report on them, and how many of their threads fit on a multiprocessor.
//!
//! `build.rs` compiles each `kernels/*.cu` to a module and fails if a kernel spills. Without nvcc there are none:
//! [`COMPILER`] is `None`, [`MODULES`] and [`REPORT`] are empty.

pub mod sass;

/// A compiled `kernels/{name}.cu`.
pub struct Module {
    pub name: &'static str,
    /// Native code for every architecture of the build, and PTX of the lowest, which drivers compile for later cards.
    pub fatbin: &'static [u8],
}

/// A kernel's resources on one architecture, as ptxas reports them.
pub struct Resources {
    pub kernel: &'static str,
    /// The name of its [`Module`].
    pub module: &'static str,
    /// Compute capability without the dot, such as `80` or `90a`.
    pub arch: &'static str,
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Bytes of local memory per thread: arrays indexed at run time, calls, spills.
    pub stack: u32,
    /// Bytes written to local memory because registers ran out.
    pub spill_stores: u32,
    /// Bytes read back from there.
    pub spill_loads: u32,
    /// Bytes of static shared memory per block; the launch chooses the dynamic shared memory.
    pub shared: u32,
    /// Bytes of constant memory, arguments included; 0 for sm_90 and later, where ptxas does not report it.
    pub constant: u32,
    /// The most threads a block may have (`__launch_bounds__`), if the kernel says so.
    pub threads: Option<u32>,
}

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// What a program without kernels tells its user.
pub const ADVICE: &str = "this program was built without nvcc and has no kernels; \
    `make cuda` fetches nvcc from PyPI into .cuda; then build again (ADALI_REQUIRE_CUDA=1 makes sure)";

impl Resources {
    /// Bytes of local memory per thread: its stack frame, with what is spilled there.
    pub fn local_bytes(&self) -> u32 {
        self.stack.max(self.spill_stores).max(self.spill_loads)
    }

    /// Occupancy with blocks of the launch bound's size and `dynamic_shared` more bytes of shared memory. `None` if the
    /// kernel has no launch bound or the architecture is unknown to [`Multiprocessor::of`].
    pub fn occupancy(&self, dynamic_shared: u32) -> Option<Occupancy> {
        let multiprocessor = Multiprocessor::of(self.arch)?;
        Some(multiprocessor.occupancy(self.threads?, self.registers, self.shared + dynamic_shared))
    }
}

/// What one streaming multiprocessor (SM) holds at once (CUDA programming guide, compute capabilities).
#[derive(Clone, Copy, Debug)]
pub struct Multiprocessor {
    pub max_warps: u32,
    pub max_blocks: u32,
    /// Bytes of shared memory of the SM.
    pub shared: u32,
    /// The most bytes that a block can ask for.
    pub shared_per_block: u32,
}

/// Blocks and warps that a multiprocessor holds at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// 0 if not even one block fits.
    pub blocks: u32,
    pub warps: u32,
    pub max_warps: u32,
    pub limit: Limit,
}

/// What runs out first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    Warps,
    Blocks,
    Registers,
    SharedMemory,
}

impl Limit {
    pub fn name(self) -> &'static str {
        match self {
            Limit::Warps => "warps",
            Limit::Blocks => "blocks",
            Limit::Registers => "registers",
            Limit::SharedMemory => "shared memory",
        }
    }
}

impl Occupancy {
    /// The warps that the multiprocessor holds as a fraction of those it could hold, from 0 to 1.
    pub fn fraction(self) -> f64 {
        f64::from(self.warps) / f64::from(self.max_warps)
    }
}

impl Multiprocessor {
    /// Registers of a multiprocessor, and the most that a block can have.
    pub const REGISTERS: u32 = 65536;
    /// A warp's registers are allocated in units of this many.
    const REGISTER_UNIT: u32 = 256;
    /// A multiprocessor has four parts; each has a quarter of the registers, and a warp lives in one.
    const PARTS: u32 = 4;
    /// A block's shared memory is allocated in units of this many bytes.
    const SHARED_UNIT: u32 = 128;
    /// Bytes of shared memory that the system takes for itself, per block.
    const SHARED_RESERVED: u32 = 1024;

    /// The multiprocessor of an architecture such as `90` or `90a`; `None` if it is not known here.
    pub fn of(arch: &str) -> Option<Multiprocessor> {
        let (max_warps, max_blocks, kilobytes) = match arch.trim_end_matches(|c: char| c.is_ascii_lowercase()) {
            "80" => (64, 32, 164),
            "86" => (48, 16, 100),
            "89" => (48, 24, 100),
            "90" | "100" => (64, 32, 228),
            "120" => (48, 24, 100),
            _ => return None,
        };
        let shared = kilobytes * 1024;
        Some(Multiprocessor { max_warps, max_blocks, shared, shared_per_block: shared - Self::SHARED_RESERVED })
    }

    /// How many blocks one multiprocessor holds at once, each of `threads` threads with `registers` registers and of
    /// `shared` bytes of shared memory.
    pub fn occupancy(self, threads: u32, registers: u32, shared: u32) -> Occupancy {
        let warps = threads.div_ceil(32).max(1);
        let warp_registers = (registers.max(1) * 32).next_multiple_of(Self::REGISTER_UNIT);
        // A launch is refused as if every part held as many warps as the fullest.
        let launches = warps.next_multiple_of(Self::PARTS) * warp_registers <= Self::REGISTERS;
        let resident_warps = Self::REGISTERS / Self::PARTS / warp_registers * Self::PARTS;
        let by_registers = if launches { resident_warps / warps } else { 0 };
        let block_shared = (shared + Self::SHARED_RESERVED).next_multiple_of(Self::SHARED_UNIT);
        let by_shared = if shared <= self.shared_per_block { self.shared / block_shared } else { 0 };
        let limits = [
            (self.max_warps / warps, Limit::Warps),
            (self.max_blocks, Limit::Blocks),
            (by_registers, Limit::Registers),
            (by_shared, Limit::SharedMemory),
        ];
        let (blocks, limit) = limits.into_iter().min_by_key(|(blocks, _)| *blocks).expect("four limits");
        Occupancy { blocks, warps: blocks * warps, max_warps: self.max_warps, limit }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(arch: &str, threads: u32, registers: u32, shared: u32) -> (u32, Limit) {
        let occupancy = Multiprocessor::of(arch).unwrap().occupancy(threads, registers, shared);
        (occupancy.blocks, occupancy.limit)
    }

    /// Against `cuda_occupancy.h` of CUDA 13.0.
    #[test]
    fn known_occupancies() {
        let occupancy = Multiprocessor::of("90a").unwrap().occupancy(256, 191, 0);
        assert_eq!(occupancy, Occupancy { blocks: 1, warps: 8, max_warps: 64, limit: Limit::Registers });
        assert_eq!(occupancy.fraction(), 0.125);
        assert_eq!(blocks("90", 256, 32, 0), (8, Limit::Warps));
        assert_eq!(blocks("80", 32, 24, 0), (32, Limit::Blocks));
        assert_eq!(blocks("86", 32, 24, 0), (16, Limit::Blocks));
        assert_eq!(blocks("89", 32, 24, 0), (24, Limit::Blocks));
        assert_eq!(blocks("120", 256, 40, 0), (6, Limit::Warps));
        assert_eq!(blocks("100", 128, 168, 0), (3, Limit::Registers));
        assert_eq!(blocks("80", 128, 64, 48 * 1024), (3, Limit::SharedMemory));
        assert_eq!(blocks("90", 128, 64, 227 * 1024), (1, Limit::SharedMemory));
    }

    #[test]
    fn too_large_a_block_does_not_fit() {
        assert_eq!(blocks("90", 128, 64, 227 * 1024 + 1), (0, Limit::SharedMemory));
        assert_eq!(blocks("90", 1024, 72, 0), (0, Limit::Registers));
        assert_eq!(blocks("90", 288, 192, 0), (0, Limit::Registers));
    }

    #[test]
    fn unknown_architecture_or_block_has_no_occupancy() {
        assert!(Multiprocessor::of("75").is_none());
        let kernel = Resources {
            kernel: "k",
            module: "m",
            arch: "90",
            registers: 32,
            stack: 0,
            spill_stores: 0,
            spill_loads: 0,
            shared: 0,
            constant: 0,
            threads: None,
        };
        assert_eq!(kernel.occupancy(0), None);
    }

    /// What `build.rs` wrote is consistent, and only naive kernels spill.
    #[test]
    fn report_belongs_to_the_modules() {
        assert!(COMPILER.is_some() || MODULES.is_empty());
        for kernel in REPORT {
            assert!(MODULES.iter().any(|module| module.name == kernel.module), "{}", kernel.kernel);
            assert!(kernel.registers > 0, "{}", kernel.kernel);
            assert!(kernel.local_bytes() == 0 || kernel.kernel.contains("_naive"), "{}", kernel.kernel);
        }
    }
}
