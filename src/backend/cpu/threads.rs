//! Per-thread buffers.

use super::source::Source;
use std::cell::RefCell;

/// Buffers that a thread keeps between tasks.
#[derive(Default)]
pub struct Scratch {
    pub values: Vec<f32>,
    pub tile: Vec<f32>,
    pub words: Vec<u32>,
    pub lists: Vec<Vec<u32>>,
    pub sources: Vec<Source>,
}

impl Scratch {
    pub fn sources(&mut self, count: usize) -> &mut [Source] {
        if self.sources.len() < count {
            self.sources.resize_with(count, Default::default);
        }
        &mut self.sources[..count]
    }
}

pub fn with_scratch<R>(f: impl FnOnce(&mut Scratch) -> R) -> R {
    thread_local! {
        static SCRATCH: RefCell<Scratch> = RefCell::default();
    }
    SCRATCH.with_borrow_mut(f)
}
