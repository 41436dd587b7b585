//! A folder that a command fills: claimed by one process, replaced as a whole.
//!
//! When `--force` replaces what the folder holds, the new files are written to its hidden folder `.adali.next` and take the
//! old ones' place at the first checkpoint, in steps that can each be repeated:
//!
//! ```text
//! .adali.next → .adali.commit     from here on the new files count
//! old files are removed           the mark last
//! .adali.commit → .adali.moving
//! each new file is moved up
//! ```
//! The next process that opens the folder completes a replacement that a kill has interrupted: before the first step the
//! folder holds the old files, after it the new ones. Files that are not ours stay.

use super::lock::Lock;
use super::output::same_file;
use super::{HIDDEN, TEMPORARY, sync_folder};
use crate::{bail_input, input_error};
use anyhow::{Context, Result};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

/// What a folder may hold.
#[derive(Debug)]
pub struct Kind {
    /// With article, for messages.
    pub name: &'static str,
    /// Whether the folder's mark is one of ours.
    pub holds: fn(&Path) -> bool,
    /// All files of ours that the folder may hold, the mark last.
    pub files: fn(&Path) -> Vec<PathBuf>,
}

/// A folder in use by this process alone.
#[derive(Debug)]
pub struct Place {
    folder: PathBuf,
    kind: &'static Kind,
    staged: Cell<bool>,
    lock: Lock,
}

/// A hidden file or folder of ours.
pub fn hidden(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{HIDDEN}{name}"))
}

impl Place {
    /// Checks, without changing anything, whether [`Place::claim`] may be called, and returns whether that would replace a
    /// folder of its kind; `inputs` are files that the command reads.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if the folder is a file, is in the way of an input, holds other things,
    /// or holds one of its kind and `force` is not set.
    pub fn check(folder: &Path, kind: &Kind, force: bool, inputs: &[&Path]) -> Result<bool> {
        let name = folder.display();
        if folder.canonicalize().is_ok_and(|found| found.parent().is_none()) {
            bail_input!("{name} is the root of the file system; name a folder of its own");
        }
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries.collect::<io::Result<Vec<_>>>(),
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            Err(e) if e.kind() == ErrorKind::NotADirectory && folder.is_file() => {
                bail_input!("{name} is a file; name a folder for {}", kind.name)
            }
            Err(e) => Err(e),
        };
        let entries = entries.map_err(|e| input_error!("cannot make {name}: {e}"))?;
        let mut names: Vec<_> = entries.iter().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        let half = is_half_replaced(folder);
        let Some(first) = names.iter().find(|name| !name.starts_with(HIDDEN)) else { return Ok(half) };
        if !half && !(kind.holds)(folder) {
            bail_input!("{name} holds {first} and is not the folder of {}; name another folder", kind.name);
        }
        if !force {
            bail_input!(
                "{name} already holds {}; give another --out, continue it with --resume, or overwrite it with --force",
                kind.name
            );
        }
        let ours = (kind.files)(folder);
        if let Some(input) = inputs.iter().find(|input| ours.iter().any(|file| same_file(file, input))) {
            bail_input!("--out {name} would replace {}, which is read; name another folder", input.display());
        }
        Ok(true)
    }

    /// Claims a folder for new content; see [`Place::check`].
    pub fn claim(folder: PathBuf, kind: &'static Kind, force: bool, inputs: &[&Path]) -> Result<Self> {
        Self::check(&folder, kind, force, inputs)?;
        fs::create_dir_all(&folder).map_err(|e| input_error!("cannot make {}: {e}", folder.display()))?;
        let place = Self::enter(folder, kind)?;
        // Once more, now that no other process changes it.
        let replaces = Self::check(&place.folder, kind, force, inputs)?;
        if replaces {
            let below: BTreeSet<_> =
                (kind.files)(&place.folder).iter().filter_map(|file| file.parent()).map(PathBuf::from).collect();
            for folder in below.iter().filter(|below| **below != place.folder && below.is_dir()) {
                Lock::acquire(folder)?;
            }
            let next = hidden(&place.folder, "next");
            fs::create_dir(&next).with_context(|| format!("cannot make {}", next.display()))?;
        }
        place.staged.set(replaces);
        Ok(place)
    }

    /// Claims the first of `runs/NAME-1`, `runs/NAME-2`, … that is free.
    pub fn claim_free(name: &str, kind: &'static Kind) -> Result<Self> {
        let runs = Path::new("runs");
        let cannot = |place: &Path, e: io::Error| input_error!("cannot make {}: {e}", place.display());
        fs::create_dir_all(runs).map_err(|e| cannot(runs, e))?;
        for number in 1.. {
            let folder = runs.join(format!("{name}-{number}"));
            // Only one of two processes creates it.
            match fs::create_dir(&folder) {
                Ok(()) => return Self::claim(folder, kind, false, &[]),
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(cannot(&folder, e)),
            }
        }
        unreachable!("numbers do not end")
    }

    /// Opens a folder whose content is continued.
    pub fn enter(folder: PathBuf, kind: &'static Kind) -> Result<Self> {
        let lock = Lock::acquire(&folder)?;
        settle(&folder, kind).with_context(|| format!("cannot put {} in order", folder.display()))?;
        Ok(Self { folder, kind, staged: Cell::new(false), lock })
    }

    /// Its path.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Where its files are: until the first checkpoint next to those of an old run.
    pub fn path(&self) -> PathBuf {
        if self.staged.get() { hidden(&self.folder, "next") } else { self.folder.clone() }
    }

    /// Whether the old content is still there.
    pub fn is_staged(&self) -> bool {
        self.staged.get()
    }

    /// What the user must know about its lock.
    pub fn note(&self) -> Option<&str> {
        self.lock.note()
    }

    /// Moves the new files into the old ones' place; once that is done, does nothing.
    pub fn commit(&self) -> Result<()> {
        if !self.staged.get() {
            return Ok(());
        }
        let commit = || -> Result<()> {
            fs::rename(hidden(&self.folder, "next"), hidden(&self.folder, "commit"))?;
            self.staged.set(false);
            sync_folder(&self.folder)?;
            settle(&self.folder, self.kind)
        };
        commit().with_context(|| format!("cannot replace what {} held", self.folder.display()))
    }
}

impl Drop for Place {
    /// Removes what was never committed.
    fn drop(&mut self) {
        if self.staged.get() {
            let _ = fs::remove_dir_all(hidden(&self.folder, "next"));
        }
    }
}

/// Completes what a kill has interrupted; the folder must be locked.
fn settle(folder: &Path, kind: &Kind) -> Result<()> {
    let [next, commit, moving] = ["next", "commit", "moving"].map(|step| hidden(folder, step));
    if commit.is_dir() {
        for file in (kind.files)(folder) {
            remove(&file)?;
            // The folders that this leaves empty, except for the locks in them.
            for below in file.ancestors().skip(1).take_while(|below| *below != folder) {
                let _ = fs::remove_dir(below);
            }
        }
        sync_folder(folder)?;
        fs::rename(&commit, &moving)?;
    }
    if moving.is_dir() {
        move_up(&moving, folder)?;
        sync_folder(folder)?;
    }
    if next.is_dir() {
        fs::remove_dir_all(next)?;
    }
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        if text.starts_with(HIDDEN) && text.ends_with(TEMPORARY) {
            remove(&folder.join(name))?;
        }
    }
    Ok(())
}

fn remove(file: &Path) -> io::Result<()> {
    match fs::remove_file(file) {
        Err(e) if ![ErrorKind::NotFound, ErrorKind::NotADirectory].contains(&e.kind()) => Err(e),
        _ => Ok(()),
    }
}

/// Moves everything in `from` into `to`, and removes `from`.
fn move_up(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let path = entry?.path();
        let place = to.join(path.file_name().expect("an entry has a name"));
        if path.is_dir() && place.is_dir() {
            move_up(&path, &place)?;
        } else {
            fs::rename(&path, &place)?;
        }
    }
    fs::remove_dir(from)
}

/// Whether a process is about to replace, or has half replaced, the folder's content.
pub fn is_half_replaced(folder: &Path) -> bool {
    ["commit", "moving"].iter().any(|step| hidden(folder, step).is_dir())
}
