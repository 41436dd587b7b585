//! Parameters of `kernels/ceiling.cu`.

use super::{Field, Params};
use bytemuck::{Pod, Zeroable};

params! {
    /// `copy_memory`
    struct CopyMemory {
        from: u64,
        to: u64,
        bytes: u64,
    }

    /// `matrix_rate`
    struct MatrixRate {
        out: u64,
        rounds: u32,
        /// Seed of the operands.
        seed: u32,
    }
}
