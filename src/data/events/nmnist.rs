//! N-MNIST's recordings: 40 bits per event, big-endian.
//!
//! ```text
//! u8 x, u8 y, 1 bit polarity (1 is ON), 23 bits microseconds
//! ```
//! A row of 240 is not an event: the clock has wrapped after 2^13 µs (G. Orchard's Read_Ndataset.m).

use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// The row that stands for an overflow of the clock, and the time that one overflow loses.
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

/// Checks that a file's first events can be N-MNIST's, which has no magic number: almost all times rise, and no row is above
/// the overflow row.
pub(super) fn plausible(source: &mut Source) -> Result<()> {
    let events = source.beginning()?.as_chunks::<5>().0;
    let (mut lost, mut last, mut falls, mut rows) = (0, 0, 0, 0);
    for &[_, y, high, middle, low] in events {
        if y == OVERFLOW_ROW {
            lost += OVERFLOW;
            continue;
        }
        let time = lost + u64::from(u32::from_be_bytes([0, high & 0x7f, middle, low]));
        falls += usize::from(time < last);
        rows += usize::from(y > OVERFLOW_ROW);
        last = time;
    }
    let count = events.len();
    if falls <= 1 + count / 8 && rows == 0 {
        return Ok(());
    }
    Err(crate::input_error!(
        "{} is named like an N-MNIST recording, but of its first {} events {falls} are out of order and {rows} have a row above \
         {OVERFLOW_ROW}; if it is one, use --format n-mnist",
        source.name,
        count
    ))
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
