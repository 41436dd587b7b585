//! DV's AEDAT 4: a FlatBuffer that describes the file, then packets, most of them compressed.
//!
//! ```text
//! #!AER-DAT4.0\r\n
//! u32 length, IOHeader (IOHE): field 0 i32 compression (0 none, 1 and 2 LZ4, 3 and 4 Zstandard), 1 i64 place of the table
//!                              after the packets (-1: none), 2 string: XML that describes the streams
//! packet: i32 stream, i32 length, then, compressed: u32 length, EventPacket (EVTS): field 0 a vector of
//!         i64 microseconds, i16 column, i16 row, bool ON, 3 bytes of padding
//! ```
//! Packets of other kinds are skipped; of several event streams, one is read. Format: iniVation's AEDAT 4. Only the part of
//! FlatBuffers needed here is implemented.

use super::options::ReadOptions;
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;
use std::io::Read;

/// Largest packet that is accepted, compressed or decompressed.
const STORED: usize = 1 << 28;
const PACKET: u64 = 1 << 28;
/// Bytes per event.
const EVENT: usize = 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Compression {
    None,
    Lz4,
    Zstandard,
}

/// A recording in AEDAT 4.
pub(super) struct Aedat4 {
    source: Source,
    compression: Compression,
    /// Where the packets end.
    end: u64,
    /// The event streams that the header lists.
    streams: Vec<Stream>,
    /// The stream that is read, once it is known, and whether it was requested.
    stream: Option<u32>,
    asked: bool,
    found: bool,
    /// The part of the last packet that has not been returned yet.
    packet: Vec<Event>,
    given: usize,
}

/// An event stream.
struct Stream {
    id: u32,
    size: Option<SensorSize>,
}

/// Events returned at a time.
const PIECE: usize = 1 << 16;

impl Aedat4 {
    pub fn new(mut source: Source, options: &ReadOptions) -> Result<Self> {
        if !source.first_line()?.starts_with("#!AER-DAT4") {
            crate::bail_input!("{} does not begin with #!AER-DAT4.0, so it is no AEDAT 4", source.name);
        }
        source.header_to("#", "#!AER-DAT4.0")?;
        let Some(length) = source.take("its header")? else { return source.cut("its header") };
        let length = u32::from_le_bytes(length) as usize;
        if length > STORED {
            crate::bail_input!("{} announces a header of {length} bytes; it is damaged", source.name);
        }
        let header = source.exactly(length, "its header")?;
        let damaged = || crate::input_error!("{} has a header that is no AEDAT 4; it is damaged", source.name);
        let table = Table::root(&header, b"IOHE").ok_or_else(damaged)?;
        let compression = match table.number(0).unwrap_or(0) {
            0 => Compression::None,
            1 | 2 => Compression::Lz4,
            3 | 4 => Compression::Zstandard,
            other => crate::bail_input!("{} is compressed in a way {other} that is not known", source.name),
        };
        let end = table.bytes::<8>(1).map_or(-1, i64::from_le_bytes);
        let streams = table.text(2).as_deref().map(streams_of_events).unwrap_or_default();
        if options.stream.is_some() && !streams.is_empty() && !streams.iter().any(|s| Some(s.id) == options.stream) {
            return Err(super::no_stream(&source.name, options.stream, streams.iter().map(|stream| &stream.id)));
        }
        let stream = options.stream.or(streams.first().map(|stream| stream.id));
        let end = u64::try_from(end).ok().filter(|&end| end > 0).unwrap_or(u64::MAX);
        Ok(Self {
            source,
            compression,
            end,
            streams,
            stream,
            asked: options.stream.is_some(),
            found: false,
            packet: Vec::new(),
            given: 0,
        })
    }

    /// Reads the next packet; `false` at the end.
    fn next_packet(&mut self) -> Result<bool> {
        if self.source.place() >= self.end {
            return Ok(false);
        }
        let Some([a, b, c, d, length @ ..]) = self.source.take::<8>("a packet's header")? else { return Ok(false) };
        let stream = u32::from_le_bytes([a, b, c, d]);
        let place = self.source.place();
        let Some(length) = usize::try_from(i32::from_le_bytes(length)).ok().filter(|&length| length <= STORED) else {
            crate::bail_input!("{} has a packet of an impossible length at byte {place}", self.source.name);
        };
        if self.stream.is_some_and(|read| read != stream) {
            self.source.pass_over(length, "a packet")?;
            return Ok(true);
        }
        let stored = self.source.exactly(length, "a packet")?;
        let name = &self.source.name;
        let bytes = self.compression.unpack(stored).map_err(|error| {
            crate::input_error!("{name} has a packet at byte {place} that cannot be decompressed: {error}")
        })?;
        (self.packet, self.given) = match decode(&bytes) {
            Some(Some(events)) => {
                (self.stream, self.found) = (Some(stream), true);
                (events, 0)
            }
            Some(None) if self.stream.is_none() => return Ok(true),
            Some(None) => {
                crate::bail_input!("{name} has a packet of stream {stream} at byte {place} that is of no events")
            }
            None => crate::bail_input!("{name} has a packet at byte {place} that is no table of events; it is damaged"),
        };
        Ok(true)
    }
}

impl Compression {
    fn unpack(self, stored: Vec<u8>) -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = match self {
            Self::None => return Ok(stored),
            Self::Lz4 => lz4_flex::frame::FrameDecoder::new(&stored[..]).take(PACKET + 1).read_to_end(&mut bytes)?,
            Self::Zstandard => {
                let decoder = ruzstd::decoding::StreamingDecoder::new(&stored[..]).map_err(std::io::Error::other)?;
                decoder.take(PACKET + 1).read_to_end(&mut bytes)?
            }
        };
        if read as u64 > PACKET {
            return Err(std::io::Error::other("it has more than 256 MiB"));
        }
        Ok(bytes)
    }
}

/// The events of a packet, empty for packets of other kinds, `None` if it is damaged.
fn decode(bytes: &[u8]) -> Option<Option<Vec<Event>>> {
    let (length, bytes) = bytes.split_first_chunk()?;
    let bytes = bytes.get(..u32::from_le_bytes(*length) as usize)?;
    if bytes.get(4..8)? != b"EVTS" {
        return Some(None);
    }
    let table = Table::root(bytes, b"EVTS")?;
    let Some(events) = table.vector(0, EVENT) else { return table.field(0).is_none().then(|| Some(Vec::new())) };
    let event = |bytes: &[u8; EVENT]| {
        let [time, place] = [0, 8].map(|at| u64::from_le_bytes(bytes[at..][..8].try_into().expect("eight bytes")));
        Event { time, x: place as u16, y: (place >> 16) as u16, on: place >> 32 & 0xff != 0 }
    };
    Some(Some(events.as_chunks().0.iter().map(event).collect()))
}

/// The event streams in a file's description: nodes named by a number, each before the node with its sizes.
fn streams_of_events(text: &str) -> Vec<Stream> {
    let mut streams: Vec<Stream> = Vec::new();
    // Whether the last numbered node was an event stream.
    let mut inside = false;
    for node in text.split("<node ").skip(1) {
        let value = |key: &str| -> Option<&str> {
            let behind = node.split_once(key)?.1.split_once('>')?.1;
            Some(behind.split_once('<')?.0.trim())
        };
        let name = node.split_once("name=\"").and_then(|(_, rest)| rest.split_once('"'));
        if let Some(id) = name.and_then(|(name, _)| name.parse().ok()) {
            inside = value("key=\"typeIdentifier\"") == Some("EVTS");
            if inside {
                streams.push(Stream { id, size: None });
            }
        }
        let extent = |key: &str| value(key)?.parse::<u64>().ok();
        let size = extent("key=\"sizeX\"").zip(extent("key=\"sizeY\""));
        let size = size.and_then(|(width, height)| SensorSize::stated(width, height));
        if let (true, Some(size), Some(stream)) = (inside, size, streams.last_mut()) {
            stream.size = Some(size);
        }
    }
    streams
}

/// A FlatBuffer table; every access is checked.
struct Table<'a> {
    bytes: &'a [u8],
    at: usize,
}

fn unsigned(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_le_bytes(bytes) as usize)
}

impl<'a> Table<'a> {
    /// The root of a buffer with this identifier.
    fn root(bytes: &'a [u8], mark: &[u8; 4]) -> Option<Self> {
        let at = unsigned(bytes, 0)?;
        (bytes.get(4..8)? == mark && at < bytes.len()).then_some(Self { bytes, at })
    }

    /// Where a field lies, if the table has it.
    fn field(&self, index: usize) -> Option<usize> {
        let back = i32::from_le_bytes(*self.bytes.get(self.at..)?.first_chunk()?);
        let list = usize::try_from(i64::try_from(self.at).ok()? - i64::from(back)).ok()?;
        let short = |at: usize| Some(u16::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?) as usize);
        let place = 4 + 2 * index;
        let offset = if place < short(list)? { short(list + place)? } else { 0 };
        (offset > 0).then_some(self.at + offset)
    }

    fn bytes<const N: usize>(&self, index: usize) -> Option<[u8; N]> {
        self.bytes.get(self.field(index)?..)?.first_chunk().copied()
    }

    fn number(&self, index: usize) -> Option<i32> {
        self.bytes(index).map(i32::from_le_bytes)
    }

    /// A vector of elements of the given number of bytes.
    fn vector(&self, index: usize, size: usize) -> Option<&'a [u8]> {
        let at = self.field(index)?;
        let at = at + unsigned(self.bytes, at)?;
        let length = unsigned(self.bytes, at)?.checked_mul(size)?;
        self.bytes.get(at + 4..)?.get(..length)
    }

    fn text(&self, index: usize) -> Option<String> {
        self.vector(index, 1).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

impl EventReader for Aedat4 {
    fn size(&self) -> Option<SensorSize> {
        self.streams.iter().find(|stream| Some(stream.id) == self.stream)?.size
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        while self.given == self.packet.len() {
            if !self.next_packet()? {
                // If the header lists the streams, it has been looked up there.
                if self.asked && !self.found && self.streams.is_empty() {
                    return Err(super::no_stream(&self.source.name, self.stream, [].iter()));
                }
                return Ok(());
            }
        }
        let rest = &self.packet[self.given..];
        events.extend_from_slice(&rest[..rest.len().min(PIECE)]);
        self.given += events.len();
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        let others = self.streams.iter().map(|stream| &stream.id).filter(|id| Some(**id) != self.stream);
        super::other_streams("the events", others).into_iter().collect()
    }
}
