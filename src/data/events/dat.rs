//! Prophesee's DAT: lines that begin with `%`, the type and size of an event, then events, little-endian.
//!
//! ```text
//! % Data file containing CD events., % Version 2, % Date …, % Height …, % Width …
//! u8 type (0 or 12: changes of pixels), u8 size (8)
//! u32 microseconds, u32 data: bits 0-13 column, 14-27 row, 28-31 polarity (1 is ON)
//! ```
//! Times go round after 71 minutes. Format: Prophesee's DAT.

use super::clock::Clock;
use super::format::prophesee_size;
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// A recording in DAT.
pub(super) struct Dat {
    source: Source,
    size: Option<SensorSize>,
    clock: Clock,
}

impl Dat {
    pub fn new(mut source: Source) -> Result<Self> {
        let size = prophesee_size(&source.header("% ")?);
        match source.take::<2>("the type of its events")? {
            Some([0 | 12, 8]) => Ok(Self { source, size, clock: Clock::new(32) }),
            Some([kind, bytes]) => Err(crate::input_error!(
                "{} has events of type {kind} and {bytes} bytes, but changes of pixels are of type 0 or 12 and 8 bytes",
                source.name
            )),
            None => source.cut("its header"),
        }
    }
}

impl EventReader for Dat {
    fn size(&self) -> Option<SensorSize> {
        self.size
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Self { source, clock, .. } = self;
        source.records("an event", events, |[a, b, c, d, data @ ..]: [u8; 8], events| {
            let (time, data) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(data));
            let time = clock.read(time.into());
            events.push(Event {
                time,
                x: (data & 0x3fff) as u16,
                y: (data >> 14 & 0x3fff) as u16,
                on: data >> 28 != 0,
            });
        })
    }
}
