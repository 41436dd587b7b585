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
pub mod options;
pub mod pixel;
pub mod recordings;
mod remarks;
pub mod saccade;
pub mod set;
pub mod simulate;
mod source;
pub mod summary;
mod text;

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

/// The pixels of a sensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SensorSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
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
