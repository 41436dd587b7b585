//! Opening recordings: finds the format of a file and its reader.

use super::format::Format;
use super::options::ReadOptions;
use super::source::Source;
use super::within::Within;
use super::{EventReader, aedat2, aedat3, aedat4, csv, dat, evt2, evt3, nmnist, npz, recognise};
use anyhow::Result;
use std::io::Cursor;
use std::path::Path;

impl Format {
    /// The format shown by a file's first bytes, or by its name if they do not tell.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if neither does.
    pub fn of(path: &Path) -> Result<Self> {
        recognise::format(path)
    }

    /// Opens a recording.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if the file cannot be read or its beginning is not in this format.
    pub fn open(self, path: &Path, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
        self.takes(options, &path.display())?;
        match self {
            Self::Npz => npz::open(Source::file(path)?, path.display().to_string(), options),
            _ => self.decode(Source::open(path)?, options),
        }
    }

    /// Opens a recording in memory; `name` replaces the file's name in errors.
    ///
    /// # Errors
    /// Those of [`Format::open`].
    pub fn open_bytes(self, bytes: Vec<u8>, name: &str, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
        self.takes(options, &name)?;
        let bytes = Cursor::new(bytes);
        match self {
            Self::Npz => npz::open(bytes, name.into(), options),
            _ => self.decode(Source::of(Box::new(bytes), name.into()), options),
        }
    }

    /// Refuses options that the format has no use for, so that none is ignored silently.
    fn takes(self, options: &ReadOptions, name: &dyn std::fmt::Display) -> Result<()> {
        if options.sensor.is_some() && self != Self::Aedat2 {
            crate::bail_input!("--sensor is for recordings in aedat2, but {name} is in {self}; leave it out");
        }
        if options.stream.is_some() && !matches!(self, Self::Aedat3 | Self::Aedat4 | Self::Evt3) {
            crate::bail_input!("--stream is for aedat3, aedat4 and evt3, but {name} is in {self}; leave it out");
        }
        Ok(())
    }

    fn decode(self, source: Source, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
        Ok(match self {
            Self::NMnist => Box::new(nmnist::Nmnist::new(source)),
            Self::Aedat2 => Box::new(aedat2::Aedat2::new(source, options)?),
            Self::Aedat3 => Box::new(aedat3::Aedat3::new(source, options)?),
            Self::Aedat4 => Within::stated(Box::new(aedat4::Aedat4::new(source, options)?)),
            Self::Evt2 => Within::stated(Box::new(evt2::Evt2::new(source)?)),
            Self::Evt3 => Within::stated(Box::new(evt3::Evt3::new(source, options)?)),
            Self::Dat => Within::stated(Box::new(dat::Dat::new(source)?)),
            Self::Csv => Box::new(csv::Csv::new(source, options)?),
            Self::Npz => unreachable!("an archive is not read forwards"),
        })
    }
}

/// Opens a recording, whatever its format.
///
/// # Errors
/// Those of [`Format::of`] and [`Format::open`].
pub fn open(path: &Path, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
    Format::of(path)?.open(path, options)
}
