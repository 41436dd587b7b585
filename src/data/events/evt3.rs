//! Prophesee's RAW with EVT 3.0: lines that begin with `%`, then words of 16 bits, little-endian.
//!
//! ```text
//! bits 12-15:  0: bits 0-10 row                          of the events that follow
//!              2: bits 0-10 column, bit 11 ON            an event
//!              3: bits 0-10 first column, bit 11 ON      of the vectors that follow
//!              4: bits 0-11, 5: bits 0-7                 an event for each bit set; the next vector lies behind it
//!              6: bits 0-11 of the time, 8: bits 12-23   others are no events of a pixel
//! ```
//! Times in microseconds; the 24 bits go round every 16.8 s. Format: Prophesee's EVT 3.0.

use super::clock::Clock;
use super::format::prophesee_size;
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// A recording in EVT 3.0.
pub(super) struct Evt3 {
    source: Source,
    size: Option<SensorSize>,
    state: State,
}

/// What words say of the events behind them.
#[derive(Clone, Copy)]
struct State {
    clock: Clock,
    high: u64,
    low: u64,
    y: u16,
    /// Of the next vector.
    x: u16,
    on: bool,
}

impl Evt3 {
    pub fn new(mut source: Source) -> Result<Self> {
        let size = prophesee_size(&source.header_to("% ", "% end")?);
        let state = State { clock: Clock::new(12), high: 0, low: 0, y: 0, x: 0, on: false };
        Ok(Self { source, size, state })
    }
}

impl State {
    #[inline(always)]
    fn word(&mut self, word: u16, events: &mut Vec<Event>) {
        let (bits, low) = (word & 0xfff, word & 0x7ff);
        match word >> 12 {
            0 => self.y = low,
            2 => events.push(Event { time: self.time(), x: low, y: self.y, on: word & 0x800 != 0 }),
            3 => (self.x, self.on) = (low, word & 0x800 != 0),
            4 => self.vector(bits, 12, events),
            5 => self.vector(bits & 0xff, 8, events),
            6 => self.low = bits.into(),
            8 => {
                let high = self.clock.read(bits.into());
                // Until the lower bits follow, they are not those of the time before.
                self.low = if high == self.high { self.low } else { 0 };
                self.high = high;
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn time(&self) -> u64 {
        self.high << 12 | self.low
    }

    #[inline(always)]
    fn vector(&mut self, mut bits: u16, length: u16, events: &mut Vec<Event>) {
        let (time, y, on) = (self.time(), self.y, self.on);
        while bits != 0 {
            let x = self.x.saturating_add(bits.trailing_zeros() as u16);
            events.push(Event { time, x, y, on });
            bits &= bits - 1;
        }
        self.x = self.x.saturating_add(length);
    }
}

impl EventReader for Evt3 {
    fn size(&self) -> Option<SensorSize> {
        self.size
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let mut state = self.state;
        let read = self.source.records("a word", events, |word, events| state.word(u16::from_le_bytes(word), events));
        self.state = state;
        read
    }
}
