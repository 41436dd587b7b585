//! Events outside of the sensor that their own file states: counted and left out.

use super::{Event, EventReader, SensorSize, outside};
use anyhow::Result;

/// A recording without the events that lie outside of the sensor of its header: the end of a vector of EVT 3.0 that is wider
/// than what is left of the row, or damage.
pub(super) struct Within {
    reader: Box<dyn EventReader>,
    size: SensorSize,
    outside: u64,
}

impl Within {
    /// `reader` as it is, or within the size that it states.
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
            // One quick look first: mostly there are none.
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
