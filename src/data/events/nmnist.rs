//! N-MNIST's recordings: 40 bits an event, big-endian.
//!
//! ```text
//! u8 x, u8 y, 1 bit polarity (1 is ON), 23 bits microseconds
//! ```
//! A row of 240 is no event: the clock has gone round after 2^13 µs (G. Orchard's Read_Ndataset.m).

use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// The row that stands for an overflow of the clock, and what the clock then has lost.
pub(super) const OVERFLOW_ROW: u8 = 240;
const OVERFLOW: u64 = 1 << 13;

/// A recording of N-MNIST.
pub(super) struct Nmnist {
    source: Source,
    lost: u64,
}

impl Nmnist {
    pub fn new(source: Source) -> Self {
        Self { source, lost: 0 }
    }
}

impl EventReader for Nmnist {
    fn size(&self) -> Option<SensorSize> {
        None
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Self { source, lost } = self;
        source.records("an event", events, |[x, y, high, middle, low], events| {
            if y == OVERFLOW_ROW {
                *lost += OVERFLOW;
                return;
            }
            let time = *lost + u64::from(u32::from_be_bytes([0, high & 0x7f, middle, low]));
            events.push(Event { time, x: x.into(), y: y.into(), on: high >= 0x80 });
        })
    }
}
