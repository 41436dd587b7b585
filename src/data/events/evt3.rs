//! Prophesee's RAW with EVT 3.0: lines that begin with `%`, then words of 16 bits, little-endian.
//!
//! ```text
//! bits 12-15:  0: bits 0-10 row, bit 11 the camera       of the events that follow (0: master, 1: slave)
//!              2: bits 0-10 column, bit 11 ON            an event
//!              3: bits 0-10 first column, bit 11 ON      of the vectors that follow
//!              4: bits 0-11, 5: bits 0-7                 an event for each bit set; the next vector follows it
//!              6: bits 0-11 of the time, 8 (TIME_HIGH): bits 12-23   others are no events of a pixel
//! ```
//! Times are in microseconds; the 24 bits wrap every 16.8 s. Events before the first TIME_HIGH or the first row have no time
//! or row and are left out, as in OpenEB. Of two cameras in one file, one is read. Format: Prophesee's EVT 3.0.

use super::clock::Clock;
use super::format::Format;
use super::options::ReadOptions;
use super::prophesee::Header;
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// A recording in EVT 3.0.
pub(super) struct Evt3 {
    source: Source,
    size: Option<SensorSize>,
    state: State,
    /// The camera that was requested.
    asked: Option<u32>,
    notes: Vec<String>,
}

/// What words say about the events that follow.
#[derive(Clone, Copy)]
struct State {
    clock: Clock,
    high: u64,
    low: u64,
    y: u16,
    /// The first column of the next vector.
    x: u16,
    on: bool,
    /// Whether there has been a time, and a row of each camera.
    timed: bool,
    rows: [bool; 2],
    /// The camera that is read, once it is known, and whether the last row was from it.
    camera: Option<bool>,
    ours: bool,
    /// Whether events are returned: there has been a time and a row of the camera that is read.
    given: bool,
    /// Events without a time or row, and those of the other camera.
    before: u64,
    other: u64,
}

impl Evt3 {
    pub fn new(mut source: Source, options: &ReadOptions) -> Result<Self> {
        if let Some(stream @ 2..) = options.stream {
            crate::bail_input!("--stream {stream}: EVT 3.0 has stream 0, the master camera, and 1, the slave");
        }
        let header = Header::read(&mut source)?;
        let state = State {
            clock: Clock::new(12),
            high: 0,
            low: 0,
            y: 0,
            x: 0,
            on: false,
            timed: false,
            rows: [false; 2],
            camera: options.stream.map(|stream| stream == 1),
            ours: false,
            given: false,
            before: 0,
            other: 0,
        };
        let (size, notes) = (header.size(), header.notes(Format::Evt3));
        Ok(Self { source, size, state, asked: options.stream, notes })
    }
}

impl State {
    #[inline(always)]
    fn word(&mut self, word: u16, events: &mut Vec<Event>) {
        let (bits, low) = (word & 0xfff, word & 0x7ff);
        match word >> 12 {
            0 => {
                let slave = word & 0x800 != 0;
                self.y = low;
                self.rows[usize::from(slave)] = true;
                self.ours = slave == *self.camera.get_or_insert(slave);
                self.given = self.ours && self.timed;
            }
            2 if self.given => events.push(Event { time: self.time(), x: low, y: self.y, on: word & 0x800 != 0 }),
            2 => self.leave_out(1),
            3 => (self.x, self.on) = (low, word & 0x800 != 0),
            4 => self.vector(bits, 12, events),
            5 => self.vector(bits & 0xff, 8, events),
            6 => self.low = bits.into(),
            8 => {
                let high = self.clock.read(bits.into());
                // Until the lower bits follow, those of the previous time do not apply.
                self.low = if high == self.high && self.timed { self.low } else { 0 };
                self.high = high;
                self.timed = true;
                self.given = self.ours;
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
        if !self.given {
            self.leave_out(bits.count_ones());
            bits = 0;
        }
        let (time, y, on) = (self.time(), self.y, self.on);
        while bits != 0 {
            let x = self.x.saturating_add(bits.trailing_zeros() as u16);
            events.push(Event { time, x, y, on });
            bits &= bits - 1;
        }
        self.x = self.x.saturating_add(length);
    }

    #[cold]
    fn leave_out(&mut self, events: u32) {
        let other = self.timed && self.rows.contains(&true) && !self.ours;
        *if other { &mut self.other } else { &mut self.before } += u64::from(events);
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
        if let Some(stream) = self.asked.filter(|&stream| !state.rows[stream as usize])
            && events.is_empty()
            && read.is_ok()
        {
            crate::bail_input!("{} has no stream {stream}; leave --stream out", self.source.name);
        }
        read
    }

    fn notes(&self) -> Vec<String> {
        let State { before, other, camera, .. } = self.state;
        let mut notes = self.notes.clone();
        if before > 0 {
            notes.push(super::before_time(before));
        }
        if other > 0 {
            let (other_is, name) = if camera == Some(true) { (0, "master") } else { (1, "slave") };
            notes.push(format!("{other} events of the {name} camera are left out; --stream {other_is} reads those"));
        }
        notes
    }
}
