//! The CPU backend: f32, all cores, event-driven wherever a layer reads spikes.
//!
//! Results are bit-identical for any number of threads: a thread owns whole samples or whole output rows, and sums over
//! samples are formed in pieces whose borders depend on extents alone. No `unsafe`: `pulp` chooses the SIMD width at run
//! time, and loops over arrays of constant length are vectorised by the compiler.

mod branches;
mod ceiling;
mod conv;
mod conv_lif;
mod counters;
pub mod dropout;
mod events;
pub mod input;
pub mod integrate_events;
pub mod layout;
mod lif;
mod linear;
pub mod loss;
mod neurons;
pub mod norm;
mod operands;
pub mod optimizer;
mod pool;
mod product;
mod simd;
mod source;
mod spike_backward;
mod step;
mod storage;
mod synapses;
mod threads;
mod working;

use super::Backend;
use anyhow::Result;
use std::time::Instant;
pub use step::{Batch, Counts, Set};

/// Runs on the threads of rayon's current pool.
#[derive(Clone, Copy, Debug)]
pub struct Cpu;

/// A weight in the order in which its input gradient reads it; empty if none is needed.
pub type Transposed = Vec<f32>;

impl Backend for Cpu {
    fn repeat(&self, _: &mut Option<()>, operations: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        operations()
    }

    fn seconds(&self, operations: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        let begin = Instant::now();
        operations()?;
        Ok(begin.elapsed().as_secs_f64())
    }

    fn skips_silence(&self) -> bool {
        true
    }
}
