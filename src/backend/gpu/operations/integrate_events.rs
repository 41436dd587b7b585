//! A data set's bytes on the device.

use super::super::memory::{Gpu, Memory};
use super::super::params::IntegrateEvents;
use super::super::{Buffer, Driver, Launch};
use crate::data::Values;
use crate::data::events::counts::EventCounts;
use anyhow::Result;

/// Entries copied to the device at a time, or more for a sample that has more: 16 MB.
const PIECE: usize = 1 << 22;

impl<D: Driver> Gpu<D> {
    /// The bytes of samples of `len` values. Of event frames, only non-zero values are copied to the device.
    pub(in super::super) fn frames(&self, values: &Values, len: usize) -> Result<Memory<D>> {
        match values {
            Values::Bytes(bytes) => self.put(bytes),
            Values::Counts(counts) => self.integrate_events(counts, len),
        }
    }

    fn integrate_events(&self, counts: &EventCounts, cells: usize) -> Result<Memory<D>> {
        // Whole words, because the kernel adds to words.
        let frames = self.zeros((counts.len() * cells).next_multiple_of(size_of::<u32>()))?;
        let (mut first, mut start) = (0, 0);
        while first < counts.len() {
            let fit = counts.ends()[first..].partition_point(|&end| end - start <= PIECE).max(1);
            let ends: Vec<u32> = counts.ends()[first..first + fit].iter().map(|&end| (end - start) as u32).collect();
            let end = start + ends.last().map_or(0, |&end| end as usize);
            if end > start {
                let (entries, of_samples) = (self.put(&counts.entries()[start..end])?, self.put(&ends)?);
                let params = IntegrateEvents {
                    entries: entries.address(),
                    ends: of_samples.address(),
                    frames: frames.address(),
                    first: first as u64,
                    samples: fit as u32,
                    cells: cells as u32,
                };
                self.run("integrate_events", Launch::over(fit, 1, 256), &params)?;
            }
            (first, start) = (first + fit, end);
        }
        Ok(frames)
    }
}
