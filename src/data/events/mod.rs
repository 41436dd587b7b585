//! Event recordings of neuromorphic cameras (dynamic vision sensors), read as a stream.
//!
//! An event says that the logarithm of a pixel's light rose (ON) or fell (OFF) by the sensor's contrast threshold.

mod aedat2;
mod aedat3;
mod aedat4;
mod archive;
pub mod cache;
mod clock;
pub mod columns;
pub mod counts;
mod csv;
mod dat;
mod evt2;
mod evt3;
pub mod format;
mod gestures;
pub mod integrate;
mod listing;
mod nmnist;
pub mod nmnist_writer;
mod npy;
mod npz;
mod open;
pub mod options;
pub mod pixel;
mod prophesee;
mod recognise;
pub mod recordings;
mod remarks;
pub mod saccade;
pub mod set;
pub mod simulate;
mod source;
pub mod summary;
mod text;
mod trials;
mod within;

pub use open::open;

use anyhow::Result;

/// One change of one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds on the recording's own clock.
    pub time: u64,
    /// Column, 0 at the left.
    pub x: u16,
    /// Row, 0 at the top.
    pub y: u16,
    /// Polarity: whether it became brighter.
    pub on: bool,
}

/// The pixels of a sensor: at most 65536 in a row or a column, as an [`Event`] counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SensorSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl SensorSize {
    /// What a file states, if events can reach all of it.
    fn stated(width: u64, height: u64) -> Option<Self> {
        let side = |extent: u64| u32::try_from(extent).ok().filter(|side| (1..=1 << 16).contains(side));
        Some(Self { width: side(width)?, height: side(height)? })
    }

    /// Whether the pixel of an event is one of it.
    #[inline(always)]
    fn has(self, event: &Event) -> bool {
        u32::from(event.x) < self.width && u32::from(event.y) < self.height
    }
}

/// A recording that is read piece by piece, in the file's order, in bounded memory.
pub trait EventReader {
    /// The sensor's size, where the file or its format states one.
    fn size(&self) -> Option<SensorSize>;

    /// Empties `events` and fills it with the next events; none are left when it stays empty.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) that names the file and the place when the bytes break the format.
    fn read(&mut self, events: &mut Vec<Event>) -> Result<()>;

    /// What a person should know that is no error, one sentence each without its full stop: what was assumed, what was
    /// left out, what else the file holds. Complete once the recording has been read to its end.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// That events outside of the sensor are left out.
fn outside(events: u64, size: SensorSize) -> String {
    format!("{events} events outside of the sensor of {}x{} pixels are left out", size.width, size.height)
}

/// That events before the first TIME_HIGH of EVT are left out.
fn before_time(events: u64) -> String {
    format!("{events} events before the first time have none and are left out")
}

/// That a recording does not have the stream that was asked for.
fn no_stream<'a>(name: &str, asked: Option<u32>, others: impl Iterator<Item = &'a u32>) -> anyhow::Error {
    let asked = asked.unwrap_or_default();
    crate::input_error!("{name} has no stream {asked} of events; --stream chooses from {}", listed(others))
}

/// That the events of other streams are left out, if there are such streams.
fn other_streams<'a>(what: &str, streams: impl Iterator<Item = &'a u32>) -> Option<String> {
    let streams = listed(streams);
    (streams != "none").then(|| format!("{what} of other streams are left out; --stream reads one of them ({streams})"))
}

/// The first few of some numbers.
fn listed<'a>(numbers: impl Iterator<Item = &'a u32>) -> String {
    let numbers: Vec<_> = numbers.take(8).map(u32::to_string).collect();
    if numbers.is_empty() { "none".into() } else { numbers.join(", ") }
}
