//! Leaves out and counts events outside the sensor size that their own file states.

use super::{Event, EventReader, SensorSize, outside};
use anyhow::Result;

/// A recording without the events outside the sensor of its header: the end of an EVT 3.0 vector that is wider
/// than the rest of the row, or damage.
pub(super) struct Within {
    reader: Box<dyn EventReader>,
    size: SensorSize,
    outside: u64,
}

impl Within {
    /// `reader` unchanged if it states no size, otherwise limited to that size.
    pub fn stated(reader: Box<dyn EventReader>) -> Box<dyn EventReader> {
        match reader.size() {
            Some(size) => Box::new(Self { reader, size, outside: 0 }),
            None => reader,
        }
    }
}

impl EventReader for Within {
    fn size(&self) -> Option<SensorSize> {
        Some(self.size)
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let size = self.size;
        loop {
            self.reader.read(events)?;
            let before = events.len();
            // A quick check first: usually there are none.
            if events.iter().fold(false, |any, event| any | !size.has(event)) {
                events.retain(|event| size.has(event));
                self.outside += (before - events.len()) as u64;
            }
            if before == 0 || !events.is_empty() {
                return Ok(());
            }
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.reader.notes();
        if self.outside > 0 {
            notes.push(outside(self.outside, self.size));
        }
        notes
    }
}
