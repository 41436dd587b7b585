//! Recognises a file by its first bytes: a supported recording, or something else, with advice to the user.

use super::format::Format;
use super::nmnist;
use super::prophesee::Header;
use super::source::Source;
use anyhow::Result;
use std::path::Path;

/// First bytes of files that are not supported recordings, what they are, and what to do.
const OTHERS: [(&[u8], &str, &str); 16] = [
    (
        b"\x89HDF\r\n\x1a\n",
        "an HDF5 file",
        "save its x, y, t and p with numpy.savez(\"events.npz\", x=x, y=y, t=t, p=p)",
    ),
    (b"\x93NUMPY", "a single NumPy array", "save it as an archive, numpy.savez(\"events.npz\", events=array)"),
    (b"Event Stream", "an Event Stream (.es)", "convert it with faery or loris to csv or dat"),
    (b"\x1f\x8b", "compressed with gzip", "unpack it with gunzip"),
    (b"BZh", "compressed with bzip2", "unpack it with bunzip2"),
    (b"\xfd7zXZ\0", "compressed with xz", "unpack it with unxz"),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", "unpack it with unzstd"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it"),
    (b"Rar!\x1a\x07", "a RAR archive", "unpack it"),
    (b"version https://git-lfs", "a git-lfs pointer and not the recording itself", "fetch that with git lfs pull"),
    (b"#!AER-DAT1", "of AEDAT 1.0", "convert it to AEDAT 4 with DV, or save it as AEDAT 2.0 with jAER"),
    (b"#!AER-DAT3.0", "of AEDAT 3.0, whose rows count from below", "convert it to AEDAT 4 with DV"),
    (b"#ROSBAG", "a ROS bag", "convert it with faery or metavision to csv or dat"),
    (b"MATLAB 5.0", "a MATLAB file", "save its x, y, t and p with numpy.savez(\"events.npz\", x=x, y=y, t=t, p=p)"),
    (b"\x89PNG", "a picture", "name a recording"),
    (b"SQLite format 3", "a database", "name a recording"),
];

/// The format shown by a file's first bytes, or by its name if they do not tell; see [`Format::of`].
pub(super) fn format(path: &Path) -> Result<Format> {
    let mut source = Source::open(path)?;
    let ahead = source.ahead(24)?;
    if let Some((_, is, advice)) = OTHERS.iter().find(|(mark, ..)| ahead.starts_with(mark)) {
        crate::bail_input!("{} is {is}; {advice}", source.name);
    }
    if ahead.starts_with(b"PK\x03\x04") {
        return Ok(Format::Npz);
    }
    let header = if matches!(ahead.first(), Some(b'#' | b'%')) { Some(source.first_line()?) } else { None };
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    match (header.as_deref(), extension.as_deref()) {
        (Some(line), _) if line.starts_with("#!AER-DAT2") => Ok(Format::Aedat2),
        (Some(line), _) if line.starts_with("#!AER-DAT3") => Ok(Format::Aedat3),
        (Some(line), _) if line.starts_with("#!AER-DAT4") => Ok(Format::Aedat4),
        (Some(line), extension) if line.starts_with('%') => {
            let name = source.name.clone();
            Header::read(&mut source)?.format(&name, extension)
        }
        (_, Some("csv" | "txt")) => Ok(Format::Csv),
        (_, Some("bin")) => nmnist::plausible(&mut source).map(|()| Format::NMnist),
        (_, Some("aedat")) => Err(crate::input_error!(
            "{} does not begin with #!AER-DAT, so it is of AEDAT 1.0 or damaged; convert it to AEDAT 4 with DV",
            source.name
        )),
        _ => Err(crate::input_error!(
            "{} is no recording that is recognised; say which it is with --format",
            source.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_recognised() {
        let home = tempfile::TempDir::new().unwrap();
        let cases: [(&str, &[u8], Option<Format>); 17] = [
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
            // The first event is in column 35.
            ("o.bin", b"#\x02\x03\x04\x05", Some(Format::NMnist)),
            ("n.xyz", b"\x01\x02\x03\x04\x05", None),
            ("p.dat", b"\x0c\x08\0\0\0\0\0\0\0\0", None),
            ("q.csv", b"%geometry:640,480\n1,2,1,3\n", Some(Format::Csv)),
        ];
        for (name, bytes, expected) in cases {
            let path = home.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            assert_eq!(format(&path).ok(), expected, "{name}");
        }
    }

    #[test]
    fn what_is_no_recording_is_named_whatever_its_name() {
        let home = tempfile::TempDir::new().unwrap();
        for (mark, is, advice) in OTHERS {
            for name in ["x.csv", "x.bin", "x.raw", "x"] {
                let path = home.path().join(name);
                std::fs::write(&path, mark).unwrap();
                let error = format(&path).unwrap_err();
                assert!(error.is::<crate::error::InputError>());
                assert!(error.to_string().contains(is) && error.to_string().contains(advice), "{error}");
            }
        }
    }
}
