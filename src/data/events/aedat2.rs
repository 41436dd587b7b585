//! jAER's AEDAT 2.0: lines that begin with `#`, then an address and a time for each event, big-endian.
//!
//! ```text
//! #!AER-DAT2.0, # …          lines that end in \r\n
//! u32 address, u32 microseconds
//! DVS128:   address bit 0: 0 is ON; bits 1-7: 127 - row; bits 8-14: 127 - column; bit 15: no event of a pixel
//! DAVIS240, DAVIS346 (where a line names one): bit 31: no event of a pixel; bit 11: 1 is ON; bits 12-21: width - 1 - x;
//!           bits 22-30: height - 1 - y
//! ```
//! DVS128 as SpikingJelly reads CIFAR10-DVS, whose images are upright so.

use super::clock::Clock;
use super::options::{ReadOptions, Sensor as Chip};
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// How a sensor's addresses are made up.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sensor {
    Dvs128,
    Davis(SensorSize),
}

/// A recording in AEDAT 2.0.
pub(super) struct Aedat2 {
    source: Source,
    sensor: Sensor,
    clock: Clock,
}

impl Aedat2 {
    pub fn new(mut source: Source, options: &ReadOptions) -> Result<Self> {
        let lines = source.header("#")?;
        if !lines.first().is_some_and(|line| line.starts_with("#!AER-DAT2")) {
            crate::bail_input!("{} does not begin with #!AER-DAT2.0, so it is no AEDAT 2.0", source.name);
        }
        let names = |name: &str| lines.iter().any(|line| line.to_ascii_uppercase().contains(name));
        let sensor = match options.sensor {
            Some(Chip::Dvs128) => Sensor::Dvs128,
            Some(chip) => Sensor::Davis(chip.size()),
            None if names("DAVIS240") => Sensor::Davis(Chip::Davis240.size()),
            None if names("DAVIS346") => Sensor::Davis(Chip::Davis346.size()),
            None => Sensor::Dvs128,
        };
        Ok(Self { source, sensor, clock: Clock::new(32) })
    }
}

impl Sensor {
    fn size(self) -> SensorSize {
        match self {
            Self::Dvs128 => SensorSize { width: 128, height: 128 },
            Self::Davis(size) => size,
        }
    }

    /// Column, row and polarity; none for what is no event of a pixel of the sensor.
    #[inline(always)]
    fn decode(self, address: u32) -> Option<(u16, u16, bool)> {
        let bits = |first: u32, count: u32| (address >> first & ((1 << count) - 1)) as u16;
        match self {
            Self::Dvs128 if bits(15, 1) == 1 => None,
            Self::Dvs128 => Some((127 - bits(8, 7), 127 - bits(1, 7), bits(0, 1) == 0)),
            Self::Davis(_) if bits(31, 1) == 1 => None,
            Self::Davis(SensorSize { width, height }) => {
                let (x, y) = (bits(12, 10), bits(22, 9));
                Some(((width - 1).checked_sub(x)?, (height - 1).checked_sub(y)?, bits(11, 1) == 1))
            }
        }
    }
}

impl EventReader for Aedat2 {
    fn size(&self) -> Option<SensorSize> {
        Some(self.sensor.size())
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let Self { source, sensor, clock } = self;
        source.records("an event", events, |[a, b, c, d, time @ ..]: [u8; 8], events| {
            let time = clock.read(u32::from_be_bytes(time).into());
            if let Some((x, y, on)) = sensor.decode(u32::from_be_bytes([a, b, c, d])) {
                events.push(Event { time, x, y, on });
            }
        })
    }
}
