//! The formats of recordings.

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
pub enum Format {
    /// N-MNIST's .bin.
    NMnist,
    /// jAER's AEDAT 2.0, as CIFAR10-DVS has it.
    Aedat2,
    /// cAER's AEDAT 3.1, as DVS128 Gesture has it.
    Aedat3,
    /// DV's AEDAT 4.
    Aedat4,
    /// Prophesee's RAW with EVT 2.0.
    Evt2,
    /// Prophesee's RAW with EVT 3.0.
    Evt3,
    /// Prophesee's DAT.
    Dat,
    /// NumPy's archive of x, y, t and p.
    Npz,
    /// Text: x, y, t, p.
    Csv,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 9] = [
        Self::NMnist,
        Self::Aedat2,
        Self::Aedat3,
        Self::Aedat4,
        Self::Evt2,
        Self::Evt3,
        Self::Dat,
        Self::Npz,
        Self::Csv,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::NMnist => "n-mnist",
            Self::Aedat2 => "aedat2",
            Self::Aedat3 => "aedat3",
            Self::Aedat4 => "aedat4",
            Self::Evt2 => "evt2",
            Self::Evt3 => "evt3",
            Self::Dat => "dat",
            Self::Npz => "npz",
            Self::Csv => "csv",
        }
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_format_has_one_name() {
        assert_eq!(Format::value_variants(), Format::ALL);
        for format in Format::value_variants() {
            assert_eq!(format.to_possible_value().unwrap().get_name(), format.name());
        }
    }
}
