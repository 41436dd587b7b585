//! Event recordings of neuromorphic cameras (dynamic vision sensors), read as a stream.
//!
//! An event means that the logarithm of a pixel's light rose (ON) or fell (OFF) by the sensor's contrast threshold.

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

/// One change at one pixel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Microseconds on the recording's own clock.
    pub time: u64,
    /// Column, 0 at the left.
    pub x: u16,
    /// Row, 0 at the top.
    pub y: u16,
    /// Polarity: whether the pixel became brighter.
    pub on: bool,
}

/// The size of a sensor: at most 65536 columns and rows, so that an [`Event`] can address them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SensorSize {
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

impl SensorSize {
    /// The size that a file states, if events can reach all of it.
    fn stated(width: u64, height: u64) -> Option<Self> {
        let side = |extent: u64| u32::try_from(extent).ok().filter(|side| (1..=1 << 16).contains(side));
        Some(Self { width: side(width)?, height: side(height)? })
    }

    /// Whether the pixel of an event lies on the sensor.
    #[inline(always)]
    fn has(self, event: &Event) -> bool {
        u32::from(event.x) < self.width && u32::from(event.y) < self.height
    }
}

/// A recording read piece by piece, in the file's order, in bounded memory.
pub trait EventReader {
    /// The sensor's size, if the file or its format states one.
    fn size(&self) -> Option<SensorSize>;

    /// Empties `events` and fills it with the next events; it stays empty at the end.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) that names the file and the place if the bytes violate the format.
    fn read(&mut self, events: &mut Vec<Event>) -> Result<()>;

    /// What the user should know that is not an error, one sentence each without its full stop: what was assumed, what was
    /// left out, what else the file holds. Complete once the recording has been read to its end.
    fn notes(&self) -> Vec<String> {
        Vec::new()
    }
}

/// The note that events outside the sensor are left out.
fn outside(events: u64, size: SensorSize) -> String {
    format!("{events} events outside of the sensor of {}x{} pixels are left out", size.width, size.height)
}

/// The note that events before the first TIME_HIGH of EVT are left out.
fn before_time(events: u64) -> String {
    format!("{events} events before the first time have none and are left out")
}

/// The error that a recording does not have the requested stream.
fn no_stream<'a>(name: &str, asked: Option<u32>, others: impl Iterator<Item = &'a u32>) -> anyhow::Error {
    let asked = asked.unwrap_or_default();
    crate::input_error!("{name} has no stream {asked} of events; --stream chooses from {}", listed(others))
}

/// The note that the events of other streams are left out, if there are any.
fn other_streams<'a>(what: &str, streams: impl Iterator<Item = &'a u32>) -> Option<String> {
    let streams = listed(streams);
    (streams != "none").then(|| format!("{what} of other streams are left out; --stream reads one of them ({streams})"))
}

/// The first few of some numbers.
fn listed<'a>(numbers: impl Iterator<Item = &'a u32>) -> String {
    let numbers: Vec<_> = numbers.take(8).map(u32::to_string).collect();
    if numbers.is_empty() { "none".into() } else { numbers.join(", ") }
}
