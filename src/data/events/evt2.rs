//! Prophesee's RAW with EVT 2.0: lines that begin with `%`, then words of 32 bits, little-endian.
//!
//! ```text
//! bits 28-31: 0 OFF or 1 ON: bits 22-27 the time's lowest six, 11-21 column, 0-10 row
//!             8 (TIME_HIGH): bits 0-27 the time's higher bits; others are no events of a pixel
//! ```
//! Times are in microseconds; the 34 bits wrap after 4.8 hours. Events before the first TIME_HIGH have no time and are left
//! out, as in OpenEB. Format: Prophesee's EVT 2.0.

use super::clock::Clock;
use super::format::Format;
use super::prophesee::Header;
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// A recording in EVT 2.0.
pub(super) struct Evt2 {
    source: Source,
    size: Option<SensorSize>,
    clock: Clock,
    /// The time without its lowest six bits, once it is known.
    high: Option<u64>,
    /// Events before that.
    before: u64,
    notes: Vec<String>,
}

impl Evt2 {
    pub fn new(mut source: Source) -> Result<Self> {
        let header = Header::read(&mut source)?;
        let (size, notes) = (header.size(), header.notes(Format::Evt2));
        Ok(Self { source, size, clock: Clock::new(28), high: None, before: 0, notes })
    }
}

impl EventReader for Evt2 {
    fn size(&self) -> Option<SensorSize> {
        self.size
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Self { source, clock, high, before, .. } = self;
        source.records("a word", events, |word, events| {
            let word = u32::from_le_bytes(word);
            match (word >> 28, *high) {
                (on @ (0 | 1), Some(high)) => events.push(Event {
                    time: high | u64::from(word >> 22 & 0x3f),
                    x: (word >> 11 & 0x7ff) as u16,
                    y: (word & 0x7ff) as u16,
                    on: on == 1,
                }),
                (0 | 1, None) => *before += 1,
                (8, _) => *high = Some(clock.read((word & 0xfff_ffff).into()) << 6),
                _ => {}
            }
        })
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.before > 0 {
            notes.push(super::before_time(self.before));
        }
        notes
    }
}
