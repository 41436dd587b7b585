//! A command's output file: checked before the work begins, so that nothing is lost at the end.

use super::{cannot_write, filled, folder_of, sync_folder, temporary_in};
use crate::bail_input;
use anyhow::{Context, Result};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Where a result goes.
#[derive(Clone, Debug)]
pub struct Output {
    path: PathBuf,
    force: bool,
}

impl Output {
    /// `option` is the option that named `path`; `inputs` are the files and folders that the command reads, and its other
    /// outputs.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if `path` is an input or exists inside one, if it exists and `force` is
    /// not set, or if it is not a regular file or has no folder.
    pub fn new(option: &str, path: &Path, force: bool, inputs: &[&Path]) -> Result<Self> {
        let name = path.display();
        if path.is_dir() || path.file_name().is_none() {
            bail_input!("{option} {name} is a folder; name a file to write");
        }
        if !folder_of(path).is_dir() {
            bail_input!("{option} {name}: there is no folder {}; make it first", folder_of(path).display());
        }
        for input in inputs {
            if same_file(path, input) {
                bail_input!(
                    "{option} {name} is {} itself, which is never overwritten; name another file",
                    input.display()
                );
            }
            if path.exists() && input.is_dir() && lies_in(path, input) {
                bail_input!(
                    "{option} {name} exists in {}, which is read and never changed; name another file",
                    input.display()
                );
            }
        }
        match path.symlink_metadata() {
            Ok(found) if !found.is_file() && !path.is_file() => {
                bail_input!("{option} {name} is no regular file; name another file");
            }
            Ok(_) if !force => bail_input!("{name} exists; overwrite it with --force or give another {option}"),
            _ => {}
        }
        temporary_in(folder_of(path)).with_context(|| format!("cannot write {name}"))?;
        Ok(Self { path: path.into(), force })
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the whole file. Without `force`, a file that has appeared there since is left alone.
    pub fn write(&self, bytes: &[u8]) -> Result<()> {
        self.write_with(|out| Ok(out.write_all(bytes)?))
    }

    /// Like [`Output::write`], with what `fill` writes.
    pub fn write_with(&self, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let Self { path, force } = self;
        let written = (|| {
            let temporary = filled(path, fill)?;
            // Where links cannot be made, this only checks once more.
            let placed = if *force { temporary.persist(path) } else { temporary.persist_noclobber(path) };
            match placed {
                Ok(_) => {}
                Err(e) if e.error.kind() != ErrorKind::AlreadyExists && !path.exists() => {
                    e.file.persist(path).map_err(|e| e.error)?;
                }
                Err(e) => return Err(e.error.into()),
            }
            Ok(sync_folder(folder_of(path))?)
        })();
        written.map_err(|error| cannot_write(path, error))
    }
}

/// Whether both names lead to the same file, through links and relative names, or would once it exists.
pub fn same_file(a: &Path, b: &Path) -> bool {
    match (identity(a), identity(b)) {
        (Some(a), Some(b)) => a == b,
        (None, None) => place(a).is_some_and(|a| Some(a) == place(b)),
        _ => false,
    }
}

#[cfg(unix)]
fn identity(path: &Path) -> Option<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    path.metadata().ok().map(|found| (found.dev(), found.ino()))
}

#[cfg(not(unix))]
fn identity(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok()
}

/// Where a file that does not exist would be.
fn place(path: &Path) -> Option<PathBuf> {
    Some(folder_of(path).canonicalize().ok()?.join(path.file_name()?))
}

fn lies_in(path: &Path, folder: &Path) -> bool {
    match (path.canonicalize(), folder.canonicalize()) {
        (Ok(path), Ok(folder)) => path.starts_with(folder),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[cfg(unix)]
    #[test]
    fn an_input_is_never_an_output() {
        use std::os::unix::fs::symlink;
        let home = tempfile::TempDir::new().unwrap();
        let at = |name: &str| home.path().join(name);
        fs::create_dir(at("data")).unwrap();
        for file in ["input", "old", "data/a"] {
            fs::write(at(file), file).unwrap();
        }
        symlink(at("input"), at("link")).unwrap();
        symlink(at("data"), at("linked")).unwrap();
        fs::hard_link(at("input"), at("hard")).unwrap();
        symlink("/dev/null", at("null")).unwrap();
        let (input, data) = (at("input"), at("data"));
        let new = |name: &str, force: bool| Output::new("--out", &at(name), force, &[&input, &data]);
        let mut cases = 0;
        for force in [false, true] {
            for name in
                ["input", "link", "hard", "data/../input", "linked/../input", "data", "data/a", "linked/a", "null"]
            {
                let refused = new(name, force).unwrap_err();
                assert!(crate::error::exit_code(&refused) == 2 && refused.to_string().contains("--out"), "{refused}");
                cases += 1;
            }
            for name in ["nowhere/x", "..", "/"] {
                assert_eq!(crate::error::exit_code(&new(name, force).unwrap_err()), 2);
                cases += 1;
            }
            assert_eq!(new("old", force).is_ok(), force);
            new("data/new", force).unwrap();
            cases += 2;
        }
        assert_eq!(cases, 28);
        let fresh = new("fresh", false).unwrap();
        assert!(Output::new("--svg", &at("fresh"), true, &[fresh.path()]).is_err(), "two outputs in one file");
        fresh.write(b"1").unwrap();
        assert!(fresh.write(b"2").is_err(), "it came there since");
        assert_eq!(fs::read(at("fresh")).unwrap(), b"1");
        new("old", true).unwrap().write(b"new").unwrap();
        assert_eq!(fs::read(at("old")).unwrap(), b"new");
        assert_eq!(fs::read(at("hard")).unwrap(), b"input");
        assert!(
            fs::read_dir(home.path()).unwrap().all(|e| !e.unwrap().file_name().to_string_lossy().ends_with(".tmp"))
        );
    }
}
