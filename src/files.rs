//! Files written completely or not at all and read within limits, and folders that one process writes at a time.

pub mod lock;
pub mod output;
pub mod place;

use crate::host::reserve;
use crate::{bail_input, input_error};
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// Prefix of the names of our own hidden files and folders.
const HIDDEN: &str = ".adali.";
/// Suffix of the names of temporary files.
const TEMPORARY: &str = ".tmp";

/// Writes `bytes` to `path`, as [`write_whole_with`] does.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_whole_with(path, |out| Ok(out.write_all(bytes)?))
}

/// Lets `fill` write to `path`: to a temporary file in the same folder, which is synced and then renamed. Whatever happens,
/// `path` holds either the old bytes or the new ones.
///
/// # Errors
/// Those of `fill`, and failures to write, with the path's name.
pub fn write_whole_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    if path.file_name().is_none() {
        bail_input!("{} does not name a file that could be written", path.display());
    }
    let written = (|| {
        let temporary = filled(path, fill)?;
        temporary.persist(path).map_err(|e| e.error)?;
        Ok(sync_folder(folder_of(path))?)
    })();
    written.map_err(|error| cannot_write(path, error))
}

/// An error while writing, with the path's name if it is about the file.
fn cannot_write(path: &Path, error: anyhow::Error) -> anyhow::Error {
    if error.is::<io::Error>() { error.context(format!("cannot write {}", path.display())) } else { error }
}

/// A temporary file for `path` that holds on disk what `fill` has written.
fn filled(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<NamedTempFile> {
    let mut temporary = temporary_in(folder_of(path))?;
    fill(&mut temporary)?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

/// A temporary file that no other process uses; removed when dropped.
fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(HIDDEN).suffix(TEMPORARY);
    // Permissions like any new file's, not only for the owner.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// Syncs a folder: only then is a rename durable.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that contains `path`.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// The most bytes of a configuration, a network, a plan, a list of trials, or a benchmark.
pub const MOST_SETTINGS: u64 = 1 << 20;
/// The most bytes of text that the program itself writes: metrics of a hundred thousand epochs.
pub const MOST_RECORDS: u64 = 1 << 28;

/// Opens a regular file: nothing that blocks, like a pipe, or never ends, like a device.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) when there is no such file or it cannot be opened.
pub fn open_regular(path: &Path) -> Result<File> {
    let shown = path.display();
    let refused = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => input_error!("{shown} does not exist"),
        _ => input_error!("{shown} cannot be read: {error}"),
    };
    // Before opening, since opening a pipe blocks; and after, since the file may have been replaced.
    let kind = fs::metadata(path).map_err(refused)?;
    let file = if kind.is_file() { Some(File::open(path).map_err(refused)?) } else { None };
    match file {
        Some(file) if file.metadata().map_err(refused)?.is_file() => Ok(file),
        _ if kind.is_dir() => bail_input!("{shown} is a folder where a file is expected"),
        _ => bail_input!("{shown} is not a regular file; copy it into one"),
    }
}

/// Opens a regular file of at most `most` bytes and returns its length as well.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) when there is no such file, or it is larger.
pub fn open_limited(path: &Path, most: u64) -> Result<(File, u64)> {
    let file = open_regular(path)?;
    let length = file.metadata().map_err(|e| input_error!("{} cannot be read: {e}", path.display()))?.len();
    too_large(path, length, most)?;
    Ok((file, length))
}

fn too_large(path: &Path, found: u64, most: u64) -> Result<()> {
    if found > most {
        bail_input!("{} has {found} bytes, but at most {most} are read; name another file", path.display());
    }
    Ok(())
}

/// The bytes of a regular file of at most `most` bytes.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) when there is no such file, it is larger, or it does not fit in memory.
pub fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>> {
    let shown = path.display();
    let (file, length) = open_limited(path, most)?;
    // A file may grow while it is read.
    let mut bytes = room(length.saturating_add(1), &shown)?;
    file.take(most + 1).read_to_end(&mut bytes).map_err(|e| input_error!("{shown} cannot be read: {e}"))?;
    too_large(path, bytes.len() as u64, most)?;
    Ok(bytes)
}

/// An empty vector with room for the `length` bytes of the file `name`.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) when they do not fit in memory.
pub fn room(length: u64, name: &dyn std::fmt::Display) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    reserve(&mut bytes, length).with_context(|| format!("{name} cannot be read"))?;
    Ok(bytes)
}

/// The text of a regular file of at most `most` bytes, in UTF-8.
///
/// # Errors
/// As [`read_bytes`], or when the bytes are not UTF-8 text.
pub fn read_text(path: &Path, most: u64) -> Result<String> {
    String::from_utf8(read_bytes(path, most)?).map_err(|error| {
        let place = error.utf8_error().valid_up_to();
        input_error!("{} is not text in UTF-8: byte {place} is not part of a character", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;

    fn refused<T: std::fmt::Debug>(read: Result<T>, part: &str) {
        let error = read.unwrap_err();
        assert!(error.is::<InputError>() && error.to_string().contains(part), "{error}");
    }

    #[test]
    fn files_are_read_within_limits() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("x");
        fs::write(&path, "één").unwrap();
        assert_eq!(read_text(&path, 5).unwrap(), "één");
        refused(read_text(&path, 4), "has 5 bytes, but at most 4");
        fs::write(&path, b"ab\xff").unwrap();
        refused(read_text(&path, 5), "byte 2 is not part");
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        refused(read_bytes(&path, MOST_SETTINGS), "has 1099511627776 bytes");
        refused(read_bytes(home.path(), 5), "is a folder");
        refused(read_bytes(&home.path().join("none"), 5), "does not exist");
    }

    #[cfg(unix)]
    #[test]
    fn pipes_and_devices_are_refused_at_once() {
        let home = tempfile::TempDir::new().unwrap();
        let pipe = home.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for path in [&pipe, Path::new("/dev/zero")] {
            refused(read_bytes(path, MOST_RECORDS), "not a regular file");
        }
    }
}
