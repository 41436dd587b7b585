//! The least reader of N-MNIST's recordings that training needs.

use super::{Event, EventReader, SensorSize};
use crate::data::files;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The row that stands for an overflow of the clock, and what the clock then has lost.
const OVERFLOW_ROW: u8 = 240;
const OVERFLOW: u64 = 1 << 13;
/// Events read at a time.
const PIECE: usize = 1 << 14;

/// A recording in memory.
pub struct NmnistBytes {
    path: PathBuf,
    bytes: Vec<u8>,
    read: usize,
    lost: u64,
}

impl NmnistBytes {
    /// Reads a file.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) when it cannot be read or ends within an event.
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = files::read(path)?;
        if !bytes.len().is_multiple_of(5) {
            crate::bail_input!(
                "{} has {} bytes, but an N-MNIST recording has 5 an event; fetch it again",
                path.display(),
                bytes.len()
            );
        }
        Ok(Self { path: path.to_path_buf(), bytes, read: 0, lost: 0 })
    }
}

impl EventReader for NmnistBytes {
    fn size(&self) -> Option<SensorSize> {
        None
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        let rest = self.bytes.get(self.read..).unwrap_or_default();
        for &[x, y, high, middle, low] in rest.as_chunks().0.iter().take(PIECE) {
            self.read += 5;
            if y == OVERFLOW_ROW {
                self.lost += OVERFLOW;
                continue;
            }
            let time = self.lost + u64::from(u32::from_be_bytes([0, high & 0x7f, middle, low]));
            events.push(Event { time, x: x.into(), y: y.into(), on: high >= 0x80 });
        }
        if events.is_empty() && self.read < self.bytes.len() {
            crate::bail_input!("{} holds {PIECE} overflows of the clock in a row; fetch it again", self.path.display());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::nmnist_writer::encode;
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("x.bin");
        let event = |i: u64| Event { time: 7 * i, x: (i % 34) as u16, y: (i % 33) as u16, on: i.is_multiple_of(3) };
        let written: Vec<Event> = (0..40_000).map(event).collect();
        std::fs::write(&path, encode(&written).unwrap()).unwrap();
        let (mut reader, mut piece, mut read) = (NmnistBytes::open(&path).unwrap(), Vec::new(), Vec::new());
        loop {
            reader.read(&mut piece).unwrap();
            if piece.is_empty() {
                break;
            }
            read.extend_from_slice(&piece);
        }
        assert_eq!(read, written);
        std::fs::write(&path, [1; 7]).unwrap();
        assert!(NmnistBytes::open(&path).err().unwrap().to_string().contains("7 bytes"));
    }
}
