//! cAER's AEDAT 3.1: lines that begin with `#`, then packets of events, little-endian.
//!
//! ```text
//! #!AER-DAT3.1, # …, #!END-HEADER          lines that end in \r\n
//! packet: i16 type (1: polarity), i16 source, i32 size of an event, i32 offset of its time, i32 overflows of the clock,
//!         i32 capacity, i32 events, i32 valid events; then capacity events
//! polarity event: u32 data (bit 0: valid; bit 1: ON; bits 2-16: row; bits 17-31: column), i32 microseconds
//! ```
//! Each overflow stands for 2^31 µs. Packets of other types are skipped; of several sources, one is read. Format:
//! iniVation's AEDAT 3.1.

use super::options::ReadOptions;
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;
use std::collections::BTreeMap;

const POLARITY: i16 = 1;
/// The type bit that marks a compressed packet.
const COMPRESSED: i16 = i16::MIN;
/// Bytes of a polarity event.
const EVENT: usize = 8;
/// Largest packet that is accepted.
const PACKET: usize = 1 << 28;

/// A recording in AEDAT 3.1.
pub(super) struct Aedat3 {
    source: Source,
    /// Events and empty slots left in a packet of polarities, and the overflows of its clock.
    left: usize,
    empty: usize,
    overflows: u64,
    /// The source that is read, once it is known, whether it was requested, and the valid events of the others.
    stream: Option<u32>,
    asked: bool,
    found: bool,
    others: BTreeMap<u32, u64>,
}

impl Aedat3 {
    pub fn new(mut source: Source, options: &ReadOptions) -> Result<Self> {
        let first = source.first_line()?;
        if !first.starts_with("#!AER-DAT3") {
            crate::bail_input!("{} does not begin with #!AER-DAT3.1, so it is no AEDAT 3.1", source.name);
        }
        source.header_to("#", "#!END-HEADER")?;
        Ok(Self {
            source,
            left: 0,
            empty: 0,
            overflows: 0,
            stream: options.stream,
            asked: options.stream.is_some(),
            found: false,
            others: BTreeMap::new(),
        })
    }

    /// Skips to the next packet of polarities; `false` at the end of the file.
    fn next_packet(&mut self) -> Result<bool> {
        self.source.pass_over(self.empty, "a packet")?;
        self.empty = 0;
        while let Some(header) = self.source.take::<28>("a packet's header")? {
            let number = |at: usize| i32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
            let [kind, stream] = [0, 2].map(|at| i16::from_le_bytes([header[at], header[at + 1]]));
            let stream = u32::from(stream.cast_unsigned());
            let [size, overflows, capacity, events] = [4, 12, 16, 20].map(|at| usize::try_from(number(at)).ok());
            let length = size.zip(capacity).and_then(|(size, capacity)| size.checked_mul(capacity));
            let (Some(overflows), Some(capacity), Some(events), Some(length)) = (overflows, capacity, events, length)
            else {
                crate::bail_input!(
                    "{} has a packet of negative extents at byte {}",
                    self.source.name,
                    self.source.place()
                );
            };
            if events > capacity || length > PACKET || kind == POLARITY && size != Some(EVENT) {
                crate::bail_input!(
                    "{} has a packet of type {kind} with {events} of {capacity} events in {length} bytes at byte {}, which \
                     AEDAT 3.1 does not know; it is damaged",
                    self.source.name,
                    self.source.place()
                );
            }
            if kind == POLARITY | COMPRESSED {
                crate::bail_input!(
                    "{} has compressed packets, which are not read; convert it with DV",
                    self.source.name
                );
            }
            if kind == POLARITY && stream != *self.stream.get_or_insert(stream) {
                // An identifier has 16 bits, so there are not many of these.
                *self.others.entry(stream).or_default() += events as u64;
            } else if kind == POLARITY {
                self.found = true;
                (self.left, self.empty, self.overflows) = (events, EVENT * (capacity - events), overflows as u64);
                return Ok(true);
            }
            self.source.pass_over(length, "a packet")?;
        }
        if self.asked && !self.found {
            return Err(super::no_stream(&self.source.name, self.stream, self.others.keys()));
        }
        Ok(false)
    }
}

impl EventReader for Aedat3 {
    fn size(&self) -> Option<SensorSize> {
        None
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        while events.is_empty() {
            if self.left == 0 {
                if !self.next_packet()? {
                    return Ok(());
                }
                continue;
            }
            let (whole, _) = self.source.ahead_in::<EVENT>()?;
            let count = whole.len().min(self.left);
            if count == 0 {
                return self.source.cut("a packet");
            }
            for &[a, b, c, d, time @ ..] in &whole[..count] {
                let data = u32::from_le_bytes([a, b, c, d]);
                if data & 1 == 1 {
                    let time = self.overflows << 31 | u64::from(u32::from_le_bytes(time) & 0x7fff_ffff);
                    events.push(Event {
                        time,
                        x: (data >> 17) as u16,
                        y: (data >> 2 & 0x7fff) as u16,
                        on: data & 2 != 0,
                    });
                }
            }
            self.left -= count;
            self.source.pass(count * EVENT);
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        let others: u64 = self.others.values().sum();
        super::other_streams(&format!("{others} events"), self.others.keys()).into_iter().collect()
    }
}
