//! Prophesee's DAT: lines that begin with `%`, the type and size of an event, then events, little-endian.
//!
//! ```text
//! % Data file containing CD events., % Version 2, % Date …, % Height …, % Width …
//! u8 type (0 or 12: changes of pixels), u8 size (8)
//! u32 microseconds, u32 data: version 2: bits 0-13 column, 14-27 row, 28-31 polarity (1 is ON)
//!                             version 1: bits 0-8 column, 9-16 row, 17 polarity
//! ```
//! Times wrap after 71 minutes. Format: Prophesee's DAT.

use super::clock::Clock;
use super::prophesee::Header;
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// A recording in DAT.
pub(super) struct Dat {
    source: Source,
    size: Option<SensorSize>,
    clock: Clock,
    /// Whether the version is 1.
    old: bool,
    notes: Vec<String>,
}

impl Dat {
    pub fn new(mut source: Source) -> Result<Self> {
        let header = Header::read(&mut source)?;
        match source.take::<2>("the type of its events")? {
            Some([0 | 12, 8]) => {}
            Some([kind, bytes]) => crate::bail_input!(
                "{} has events of type {kind} and {bytes} bytes, but changes of pixels are of type 0 or 12 and 8 bytes",
                source.name
            ),
            None => return source.cut("its header"),
        }
        let mut notes = Vec::new();
        let old = match header.value("version") {
            Some("1") => true,
            Some("2") => false,
            Some(other) => crate::bail_input!("{} is DAT of version {other}, but 1 and 2 are read", source.name),
            None => {
                only_version_2(&mut source)?;
                notes.push("the header names no version of DAT; 2 is assumed, which the events fit".into());
                false
            }
        };
        Ok(Self { source, size: header.size(), clock: Clock::new(32), old, notes })
    }
}

/// Checks that the first events are not of version 1, which leaves the bits from 18 on empty.
fn only_version_2(source: &mut Source) -> Result<()> {
    let events = source.beginning()?.as_chunks::<8>().0;
    let newer = |&[.., c, d]: &[u8; 8]| c >> 2 != 0 || d != 0;
    if events.is_empty() || events.iter().any(newer) {
        return Ok(());
    }
    Err(crate::input_error!(
        "{} names no version, and its events may be of 1 or 2; write `% Version 1` or `% Version 2` into its header",
        source.name
    ))
}

impl EventReader for Dat {
    fn size(&self) -> Option<SensorSize> {
        self.size
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Self { source, clock, old, .. } = self;
        let (wide, high) = if *old { (9, 8) } else { (14, 14) };
        source.records("an event", events, |[a, b, c, d, data @ ..]: [u8; 8], events| {
            let (time, data) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes(data));
            let bits = |first: u32, count: u32| (data >> first & ((1 << count) - 1)) as u16;
            let time = clock.read(time.into());
            events.push(Event { time, x: bits(0, wide), y: bits(wide, high), on: data >> (wide + high) != 0 });
        })
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }
}
