//! jAER's AEDAT 2.0: lines that begin with `#`, then an address and a time for each event, big-endian.
//!
//! ```text
//! #!AER-DAT2.0, # …, #End Of ASCII Header (often left out)          lines that end in \r\n
//! u32 address, u32 microseconds
//! DVS128:  bit 0: 0 is ON; bits 1-7: 127 - row; bits 8-14: 127 - column; bits 15, 31: no event of a pixel
//! DAVIS:   bit 31: a sample of a frame or of the IMU; bit 10: another special event; else bit 11: 1 is ON;
//!          bits 12-21: width - 1 - column; bits 22-30: height - 1 - row
//! ```
//! The chip decides which layout applies. It is named by the line `# AEChip: …` or by `--sensor`, or shows in the addresses: a
//! DVS128 sets none of bits 16-30, a DAVIS none of bits 0-9. Sources: iniVation's AEDAT 2.0 and jAER's `DavisChip`; DVS128 as
//! SpikingJelly reads CIFAR10-DVS, which shows its images upright.

use super::clock::Clock;
use super::options::{ReadOptions, Sensor};
use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// A recording in AEDAT 2.0.
pub(super) struct Aedat2 {
    source: Source,
    sensor: Sensor,
    /// Whether the header or the user named the sensor.
    named: bool,
    clock: Clock,
    notes: Vec<String>,
    /// Pixel events: inside the sensor, and outside.
    inside: u64,
    outside: u64,
}

/// The meaning of an address.
enum Meaning {
    Pixel {
        x: u16,
        y: u16,
        on: bool,
    },
    /// A pixel outside the sensor.
    Outside,
    /// An address that the sensor cannot send.
    Foreign,
    /// An input signal, or a sample of a frame or of the IMU.
    Other,
}

impl Aedat2 {
    pub fn new(mut source: Source, options: &ReadOptions) -> Result<Self> {
        let lines = source.header_to("#", "#End Of ASCII Header")?;
        if !lines.first().is_some_and(|line| line.starts_with("#!AER-DAT2")) {
            crate::bail_input!("{} does not begin with #!AER-DAT2.0, so it is no AEDAT 2.0", source.name);
        }
        let mut notes = Vec::new();
        let chip = lines.iter().find_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix("AEChip:"));
        let chip = chip.map(|class| class.trim().rsplit('.').next().unwrap_or_default());
        let sensor = match (options.sensor, chip) {
            (Some(sensor), None) => sensor,
            (Some(sensor), Some(chip)) => {
                if sensor_of(chip) != Some(sensor) {
                    notes.push(format!("the header names the chip {chip}; read as {sensor}, as --sensor says"));
                }
                sensor
            }
            (None, Some(chip)) => sensor_of(chip).ok_or_else(|| {
                crate::input_error!(
                    "{} is of the chip {chip}, whose addresses are not known; if another chip has the same, name that with \
                     --sensor ({})",
                    source.name,
                    all_sensors()
                )
            })?,
            (None, None) => {
                only_dvs128(&mut source)?;
                notes.push("the header names no chip; DVS128 is assumed, which all addresses fit".into());
                Sensor::Dvs128
            }
        };
        let named = options.sensor.is_some() || chip.is_some();
        Ok(Self { source, sensor, named, clock: Clock::new(32), notes, inside: 0, outside: 0 })
    }

    /// The error for an address of more than 16 bits, which is not from a DVS128.
    fn foreign(&self, address: u32) -> anyhow::Error {
        crate::input_error!(
            "{} has the address {address:#010x} of more than 16 bits, so it is not of a DVS128; say which chip it is of with \
             --sensor ({})",
            self.source.name,
            all_sensors()
        )
    }
}

/// The sensor of a chip by its name in jAER; chips with another address layout are left out.
fn sensor_of(class: &str) -> Option<Sensor> {
    let class = class.to_ascii_lowercase();
    match class.as_str() {
        "dvs128" | "tmpdiff128" => Some(Sensor::Dvs128),
        "davis192pixelparade" => Some(Sensor::Davis208),
        _ => Sensor::ALL.into_iter().find(|s| *s != Sensor::Dvs128 && class.starts_with(s.name())),
    }
}

fn all_sensors() -> String {
    Sensor::ALL.iter().map(|sensor| sensor.name()).collect::<Vec<_>>().join(", ")
}

/// Checks that the first addresses of a file are a DVS128's and cannot be a DAVIS's.
fn only_dvs128(source: &mut Source) -> Result<()> {
    let (mut pixels, mut dvs128, mut davis, mut x, mut y) = (0, 0, 0, 0, 0);
    for &[a, b, c, d, ..] in source.beginning()?.as_chunks::<8>().0 {
        let address = u32::from_be_bytes([a, b, c, d]);
        if address >> 31 == 0 {
            pixels += 1;
            dvs128 += u64::from(address >> 16 == 0);
            // Bits 0-9 of a special event give its kind.
            davis += u64::from(address & 0x3ff == 0 || address & 0x400 != 0);
            if address & 0x400 == 0 {
                (x, y) = (x.max(address >> 12 & 0x3ff), y.max(address >> 22));
            }
        }
    }
    if dvs128 == pixels && (davis < pixels || pixels == 0) {
        return Ok(());
    }
    let holds = |sensor: &&Sensor| {
        let SensorSize { width, height } = sensor.size();
        **sensor != Sensor::Dvs128 && width > x && height > y
    };
    let fit: Vec<_> = Sensor::ALL.iter().filter(holds).map(|sensor| sensor.name()).collect();
    let why = match (dvs128 == pixels, davis == pixels) {
        (true, _) => "its addresses may be a DVS128's or a DAVIS's".to_string(),
        (false, true) => format!("its addresses are those of a DAVIS of at least {}x{} pixels", x + 1, y + 1),
        (false, false) => "its addresses are neither a DVS128's nor a DAVIS's".to_string(),
    };
    Err(crate::input_error!(
        "{} does not name its chip, and {why}; say which it is with --sensor ({})",
        source.name,
        if fit.is_empty() || davis < pixels { all_sensors() } else { fit.join(", ") }
    ))
}

/// What an address means for a sensor.
#[inline(always)]
fn decode(sensor: Sensor, size: SensorSize, address: u32) -> Meaning {
    let bits = |first: u32, count: u32| (address >> first & ((1 << count) - 1)) as u16;
    if sensor == Sensor::Dvs128 {
        return match () {
            () if address >> 31 == 1 => Meaning::Other,
            () if address >> 16 != 0 => Meaning::Foreign,
            () if bits(15, 1) == 1 => Meaning::Other,
            () => Meaning::Pixel { x: 127 - bits(8, 7), y: 127 - bits(1, 7), on: bits(0, 1) == 0 },
        };
    }
    let (x, y) = (bits(12, 10), bits(22, 9));
    match () {
        () if address >> 31 == 1 || bits(10, 1) == 1 => Meaning::Other,
        () if u32::from(x) >= size.width || u32::from(y) >= size.height => Meaning::Outside,
        // No DAVIS has more than 640 columns.
        () => Meaning::Pixel { x: (size.width - 1) as u16 - x, y: (size.height - 1) as u16 - y, on: bits(11, 1) == 1 },
    }
}

impl EventReader for Aedat2 {
    fn size(&self) -> Option<SensorSize> {
        self.named.then(|| self.sensor.size())
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        let (sensor, size, mut foreign) = (self.sensor, self.sensor.size(), None);
        let Self { source, clock, outside, .. } = self;
        source.records("an event", events, |[a, b, c, d, time @ ..]: [u8; 8], events| {
            let time = clock.read(u32::from_be_bytes(time).into());
            let address = u32::from_be_bytes([a, b, c, d]);
            match decode(sensor, size, address) {
                Meaning::Pixel { x, y, on } => events.push(Event { time, x, y, on }),
                Meaning::Outside => *outside += 1,
                Meaning::Foreign => foreign = foreign.or(Some(address)),
                Meaning::Other => {}
            }
        })?;
        if let Some(address) = foreign {
            return Err(self.foreign(address));
        }
        self.inside += events.len() as u64;
        // A camera has few glitches; with another chip many events lie outside.
        if events.is_empty() && self.outside > self.inside / 99 {
            crate::bail_input!(
                "{} has {} of {} events outside of the {}x{} pixels of {sensor}; say which chip it is of with --sensor ({})",
                self.source.name,
                self.outside,
                self.outside + self.inside,
                size.width,
                size.height,
                all_sensors()
            );
        }
        Ok(())
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = self.notes.clone();
        if self.outside > 0 {
            notes.push(super::outside(self.outside, self.sensor.size()));
        }
        notes
    }
}
