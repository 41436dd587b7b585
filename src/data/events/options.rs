//! What the user can state about a recording if its file does not.

use super::SensorSize;
use super::columns::Columns;
use serde::{Deserialize, Serialize};

/// The chip of an AEDAT 2.0 recording, which decides what its addresses mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Sensor {
    /// 128x128.
    Dvs128,
    /// 128x128, with the addresses of the DAVIS.
    Davis128,
    /// 208x192.
    Davis208,
    /// 240x180; DAVIS240 A, B and C.
    Davis240,
    /// 346x260.
    Davis346,
    /// 640x480.
    Davis640,
}

impl Sensor {
    /// Every sensor.
    pub(super) const ALL: [Self; 6] =
        [Self::Dvs128, Self::Davis128, Self::Davis208, Self::Davis240, Self::Davis346, Self::Davis640];

    /// The name on the command line and in `config.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Dvs128 => "dvs128",
            Self::Davis128 => "davis128",
            Self::Davis208 => "davis208",
            Self::Davis240 => "davis240",
            Self::Davis346 => "davis346",
            Self::Davis640 => "davis640",
        }
    }

    /// The size of the sensor.
    pub fn size(self) -> SensorSize {
        let (width, height) = match self {
            Self::Dvs128 | Self::Davis128 => (128, 128),
            Self::Davis208 => (208, 192),
            Self::Davis240 => (240, 180),
            Self::Davis346 => (346, 260),
            Self::Davis640 => (640, 480),
        };
        SensorSize { width, height }
    }
}

impl std::fmt::Display for Sensor {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// How to read a recording where its file leaves a choice; nothing given, the file decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct ReadOptions {
    /// The sensor of an AEDAT 2.0 recording [default: the one that its header names].
    #[cfg_attr(feature = "cli", arg(long, value_enum, value_name = "CHIP"))]
    pub sensor: Option<Sensor>,
    /// The stream of events to read, by the file's own number, where there are several [default: the first].
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub stream: Option<u32>,
    /// The columns of a text or of an array without names, such as t_s,x,y,p; t_s, t_ms, t_us and t_ns give the unit, _
    /// is any other column [default: as a header line or the values tell].
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAMES"))]
    pub columns: Option<Columns>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_sensor_has_one_name() {
        for sensor in Sensor::value_variants() {
            assert!(Sensor::ALL.contains(sensor));
            assert_eq!(sensor.to_possible_value().unwrap().get_name(), sensor.name());
            assert_eq!(serde_json::to_value(sensor).unwrap(), sensor.name());
        }
    }
}
