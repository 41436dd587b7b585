//! The formats of recordings, and which one a file has.

use super::options::ReadOptions;
use super::source::Source;
use super::{EventReader, aedat2, aedat3, aedat4, csv, dat, evt2, evt3, nmnist, npz};
use anyhow::Result;
use std::io::Cursor;
use std::path::Path;

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum)]
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

    /// The format that a file's first bytes show, or where they cannot, its name.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) when neither does.
    pub fn of(path: &Path) -> Result<Self> {
        let mut source = Source::open(path)?;
        let ahead = source.ahead(4)?;
        let first = ahead.first().copied();
        if ahead.starts_with(b"PK\x03\x04") {
            return Ok(Self::Npz);
        }
        let header = if first == Some(b'#') || first == Some(b'%') { Some(source.first_line()?) } else { None };
        let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
        match (header.as_deref(), extension.as_deref()) {
            (Some(line), _) if line.starts_with("#!AER-DAT2") => Ok(Self::Aedat2),
            (Some(line), _) if line.starts_with("#!AER-DAT3") => Ok(Self::Aedat3),
            (Some(line), _) if line.starts_with("#!AER-DAT4") => Ok(Self::Aedat4),
            (Some(line), _) if line.starts_with('%') => prophesee(&mut source),
            (_, Some("csv" | "txt")) => Ok(Self::Csv),
            (None, Some("bin")) => Ok(Self::NMnist),
            _ => Err(crate::input_error!(
                "{} is no recording that is recognised; say which it is with --format",
                source.name
            )),
        }
    }

    /// Opens a recording.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) when the file cannot be read or its beginning is not of this format.
    pub fn open(self, path: &Path, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
        match self {
            Self::Npz => npz::open(Source::file(path)?, path.display().to_string(), options),
            _ => self.decode(Source::open(path)?, options),
        }
    }

    /// A recording in memory; `name` stands for the file's in errors.
    ///
    /// # Errors
    /// As [`Format::open`].
    pub fn open_bytes(self, bytes: Vec<u8>, name: &str, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
        let bytes = Cursor::new(bytes);
        match self {
            Self::Npz => npz::open(bytes, name.into(), options),
            _ => self.decode(Source::of(Box::new(bytes), name.into()), options),
        }
    }

    fn decode(self, source: Source, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
        Ok(match self {
            Self::NMnist => Box::new(nmnist::Nmnist::new(source)),
            Self::Aedat2 => Box::new(aedat2::Aedat2::new(source, options)?),
            Self::Aedat3 => Box::new(aedat3::Aedat3::new(source)?),
            Self::Aedat4 => Box::new(aedat4::Aedat4::new(source)?),
            Self::Evt2 => Box::new(evt2::Evt2::new(source)?),
            Self::Evt3 => Box::new(evt3::Evt3::new(source)?),
            Self::Dat => Box::new(dat::Dat::new(source)?),
            Self::Csv => Box::new(csv::Csv::new(source, options)?),
            Self::Npz => unreachable!("an archive is not read forwards"),
        })
    }
}

impl std::fmt::Display for Format {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// Opens a recording of whatever format it has.
///
/// # Errors
/// As [`Format::of`] and [`Format::open`].
pub fn open(path: &Path, options: &ReadOptions) -> Result<Box<dyn EventReader>> {
    Format::of(path)?.open(path, options)
}

/// Which of Prophesee's formats a header announces: `% evt 3.0`, `% format EVT3;…`, else DAT.
fn prophesee(source: &mut Source) -> Result<Format> {
    for line in source.header("% ")? {
        let line = line.trim_start_matches(['%', ' ']).to_ascii_lowercase();
        let kind = line.strip_prefix("evt ").or_else(|| line.strip_prefix("format ")).unwrap_or_default();
        match kind.split(';').next().unwrap_or_default() {
            "3.0" | "evt3" => return Ok(Format::Evt3),
            "2.0" | "evt2" => return Ok(Format::Evt2),
            "" => {}
            other => crate::bail_input!(
                "{} is a RAW recording of {other}, but EVT 2.0 and 3.0 are read; convert it to EVT 3.0",
                source.name
            ),
        }
    }
    Ok(Format::Dat)
}

/// What headers say of a sensor: `% geometry 1280x720`, `% format EVT3;width=1280;height=720`, `% Width 1280`.
pub(super) fn prophesee_size(lines: &[String]) -> Option<super::SensorSize> {
    let text = lines.join(";").to_ascii_lowercase();
    let number = |text: &str| -> Option<u16> {
        let digits: String = text.trim_start_matches([' ', '=']).chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|&n| n > 0)
    };
    let after = |name: &str| text.split(name).skip(1).find_map(number);
    if let (Some(width), Some(height)) = (after("width"), after("height")) {
        return Some(super::SensorSize { width, height });
    }
    let (width, rest) = text.split("geometry").nth(1)?.trim_start().split_once('x')?;
    Some(super::SensorSize { width: number(width)?, height: number(rest)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_format_has_one_name() {
        for format in Format::value_variants() {
            assert_eq!(format.to_possible_value().unwrap().get_name(), format.name());
        }
    }

    #[test]
    fn files_are_recognised() {
        let home = tempfile::TempDir::new().unwrap();
        let cases: [(&str, &[u8], Option<Format>); 14] = [
            ("a.aedat", b"#!AER-DAT2.0\r\n# x\r\n", Some(Format::Aedat2)),
            ("b.aedat", b"#!AER-DAT3.1\r\n", Some(Format::Aedat3)),
            ("c.aedat4", b"#!AER-DAT4.0\r\n\x20\0\0\0", Some(Format::Aedat4)),
            ("d.raw", b"% date x\n% evt 3.0\n\x01\x80", Some(Format::Evt3)),
            ("e.raw", b"% format EVT3;width=1280;height=720\n% end\n", Some(Format::Evt3)),
            ("f.raw", b"% evt 2.0\n", Some(Format::Evt2)),
            ("g.raw", b"% format EVT2;width=640;height=480\n% end\n", Some(Format::Evt2)),
            ("h.raw", b"% evt 2.1\n", None),
            ("i.dat", b"% Data file containing CD events.\n% Version 2\n\x0c\x08", Some(Format::Dat)),
            ("j.npz", b"PK\x03\x04", Some(Format::Npz)),
            ("k.csv", b"x,y,t,p\n", Some(Format::Csv)),
            ("l.csv", b"# a comment\nx,y,t,p\n", Some(Format::Csv)),
            ("m.bin", b"\x01\x02\x03\x04\x05", Some(Format::NMnist)),
            ("n.xyz", b"\x01\x02\x03\x04\x05", None),
        ];
        for (name, bytes, expected) in cases {
            let path = home.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(Format::of(&path).ok(), expected, "{name}");
        }
    }

    #[test]
    fn sizes_are_read_from_headers() {
        let size = |lines: &[&str]| {
            prophesee_size(&lines.iter().map(|line| line.to_string()).collect::<Vec<_>>()).map(|s| (s.width, s.height))
        };
        assert_eq!(size(&["% format EVT3;width=1280;height=720"]), Some((1280, 720)));
        assert_eq!(size(&["% geometry 640x480", "% evt 3.0"]), Some((640, 480)));
        assert_eq!(size(&["% Height 240", "% Width 304"]), Some((304, 240)));
        assert_eq!(size(&["% Width 304"]), None);
        assert_eq!(size(&[]), None);
    }
}
