//! Files that are either whole or not there, and folders that one process writes at a time.

pub mod lock;
pub mod output;
pub mod place;

use crate::bail_input;
use anyhow::{Context, Result};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use tempfile::NamedTempFile;

/// What the names of our own hidden files and folders begin with.
const HIDDEN: &str = ".adali.";
/// What the names of temporary files end with.
const TEMPORARY: &str = ".tmp";

/// Writes `bytes` to `path`: to a temporary file of its own in the same folder, synced, then renamed. Whatever happens,
/// `path` holds the old bytes or the new ones.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.file_name().is_none() {
        bail_input!("{} does not name a file that could be written", path.display());
    }
    let written = (|| {
        let temporary = filled(path, bytes)?;
        temporary.persist(path).map_err(|e| e.error)?;
        sync_folder(folder_of(path))
    })();
    written.with_context(|| format!("cannot write {}", path.display()))
}

/// A temporary file for `path`, which holds `bytes` on the disk.
fn filled(path: &Path, bytes: &[u8]) -> io::Result<NamedTempFile> {
    let mut temporary = temporary_in(folder_of(path))?;
    temporary.write_all(bytes)?;
    temporary.as_file().sync_all()?;
    Ok(temporary)
}

/// A temporary file that no other process uses; it goes when it is dropped.
fn temporary_in(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(HIDDEN).suffix(TEMPORARY);
    // As any new file, not for its owner alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

/// A rename lasts only once its folder is synced.
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The folder that `path` lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
