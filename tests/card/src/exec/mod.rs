//! Runs kernels, one warp at a time. Divergent lanes form groups with a program counter each; the group that is furthest behind
//! runs until it meets another. An instruction that names lanes waits for them.

mod block;
mod copies;
mod exchange;
mod lanes;
mod matrix;
mod memory;
mod warp;

pub use block::Worker;

use crate::lower::Kernel;
use crate::order::Order;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Generic addresses of shared memory have this bit.
pub const SHARED: u64 = 1 << 56;

/// A description of what went wrong.
pub type Fault = String;

pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic: u32,
    pub parameters: &'a [u8],
    /// Its number in the order of the device's work.
    pub run: u32,
    pub order: &'a Order,
}

pub struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 32) * bound as u64 >> 32) as u32
    }
}

pub fn run(launch: &Launch, workers: &mut [Worker]) -> Result<(), Fault> {
    let blocks = launch.grid.iter().map(|&extent| extent as u64).product::<u64>();
    let next = AtomicU64::new(0);
    // Visits blocks in another order: a stride coprime to their number.
    let mut stride = (1, 0);
    if let Some(random) = &mut workers[0].random {
        let steps = [1, 7, 31, 101, 499, 1009, 10007].map(|step: u64| step);
        let step = steps[random.below(7) as usize];
        stride = (if blocks % step == 0 { 1 } else { step }, random.below(blocks.min(1 << 31) as u32) as u64);
    }
    let stop = AtomicBool::new(false);
    let fault = Mutex::new(None);
    let work = |worker: &mut Worker| {
        worker.prepare(launch);
        while !stop.load(Ordering::Relaxed) {
            let block = next.fetch_add(1, Ordering::Relaxed);
            if block >= blocks {
                break;
            }
            if let Err(error) = worker.block(launch, (block * stride.0 + stride.1) % blocks, launch.run) {
                stop.store(true, Ordering::Relaxed);
                fault.lock().unwrap().get_or_insert(error);
            }
        }
    };
    let (first, others) = workers.split_first_mut().expect("a worker");
    if blocks == 1 || others.is_empty() {
        work(first);
    } else {
        std::thread::scope(|scope| {
            for other in others {
                scope.spawn(|| work(other));
            }
            work(first);
        });
    }
    match fault.into_inner().unwrap() {
        Some(error) => Err(error),
        None => Ok(()),
    }
}
