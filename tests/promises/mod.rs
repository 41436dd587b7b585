//! Devices, and launches whose result shows how often and on which data they ran.

mod copies;
mod memory;
mod recording;

use crate::launch::{self, on_card, replay};
use adali::backend::gpu::cuda::Cuda;
use adali::backend::gpu::params::FoldAffine;
use adali::backend::gpu::{Buffer, Driver, Launch, SLOTS};
use std::time::{Duration, Instant};

const SEEDS: u64 = 4;

/// Runs a case on several devices; it returns its number of checks, which must be the same on each.
fn on_each_device(case: fn(&Cuda) -> usize, count: usize) {
    let ran: Vec<usize> = (0..SEEDS).map(|seed| case(&launch::open(seed))).collect();
    assert_eq!(ran, [count; SEEDS as usize]);
}

/// Numbers to which each launch adds another.
struct Sums<'d, D: Driver> {
    driver: &'d D,
    ones: D::Buffer,
    added: D::Buffer,
    sums: D::Buffer,
    unused: D::Buffer,
    count: usize,
}

impl<'d, D: Driver> Sums<'d, D> {
    /// `count` numbers, initially 0.
    fn new(driver: &'d D, count: usize) -> Self {
        let put = |values: Vec<f32>| put(driver, bytemuck::cast_slice(&values));
        let added = (0..count).map(|i| i as f32 + 1.0).collect();
        let sums = put(vec![0.0; count]);
        Self { driver, ones: put(vec![1.0; count]), added: put(added), sums, unused: put(vec![0.0; count]), count }
    }

    fn add(&self) {
        self.add_from(&self.added);
    }

    fn add_from(&self, added: &D::Buffer) {
        let params = FoldAffine {
            scale: self.ones.address(),
            shift: self.sums.address(),
            bias: added.address(),
            folded_scale: self.unused.address(),
            folded_shift: self.sums.address(),
            channels: self.count as u32,
            dropout: 1.0,
        };
        let extents = Launch::over(self.count, 256, 256);
        launch::launch(self.driver, "fold_affine", extents, bytemuck::bytes_of(&params)).expect("a launch");
    }

    /// The sums after `launches` launches.
    fn after(&self, launches: usize) -> Vec<u8> {
        let sums: Vec<f32> = (0..self.count).map(|i| launches as f32 * (i as f32 + 1.0)).collect();
        bytemuck::cast_slice(&sums).to_vec()
    }

    fn read(&self) -> Vec<u8> {
        self.driver.download(&self.sums).expect("the sums")
    }

    fn record(&self, recorded: impl FnOnce()) -> D::Graph {
        self.driver.begin_recording().expect("a recording");
        recorded();
        self.driver.end_recording().expect("a graph")
    }
}

fn put<D: Driver>(driver: &D, bytes: &[u8]) -> D::Buffer {
    let buffer = driver.allocate(bytes.len()).expect("memory");
    driver.upload(&buffer, 0, bytes).expect("an upload");
    buffer
}

/// Bytes that differ with seed and position.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| (seed * 31 + i * 7 + i / 251) as u8).collect()
}

/// The bytes of a reading, once they have arrived.
fn finish<D: Driver>(driver: &D, reading: &mut D::Reading) -> Vec<u8> {
    let begun = Instant::now();
    loop {
        if let Some(bytes) = driver.finish_reading(reading).expect("no fault") {
            return bytes;
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "a reading arrives");
    }
}
