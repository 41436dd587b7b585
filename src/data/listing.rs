//! Folder listings: names are matched ignoring case, and files that operating systems add are left out.

use super::files::some_of;
use anyhow::Result;
use std::path::{Path, PathBuf};

/// The folder that macOS adds to archives, with a copy of every name.
const MACOS: &str = "__MACOSX";

/// The entries of a folder by name. Hidden ones (`.name`, and so macOS's `._name`) and `__MACOSX` are left out.
pub(super) struct Listing {
    pub folder: PathBuf,
    pub folders: Vec<PathBuf>,
    pub files: Vec<PathBuf>,
}

impl Listing {
    /// Reads a folder.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if it cannot be read.
    pub fn of(folder: &Path) -> Result<Self> {
        let refused = |error: std::io::Error| crate::input_error!("{} cannot be read: {error}", folder.display());
        let (mut folders, mut files) = (Vec::new(), Vec::new());
        for entry in std::fs::read_dir(folder).map_err(refused)? {
            let path = entry.map_err(refused)?.path();
            let name = name(&path);
            if !name.starts_with('.') && name != MACOS {
                if path.is_dir() { &mut folders } else { &mut files }.push(path);
            }
        }
        folders.sort_unstable();
        files.sort_unstable();
        Ok(Self { folder: folder.to_path_buf(), folders, files })
    }

    /// The sub-folder with this name, ignoring case.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if there are two, `Train` and `train`.
    pub fn folder(&self, wanted: &str) -> Result<Option<&Path>> {
        let mut found = self.folders.iter().filter(|path| is_called(path, wanted));
        let first = found.next();
        if let (Some(first), Some(second)) = (first, found.next()) {
            crate::bail_input!(
                "{} has both {} and {}, which differ in case alone; keep one of them",
                self.folder.display(),
                name(first),
                name(second)
            );
        }
        Ok(first.map(PathBuf::as_path))
    }

    /// The file with this name, ignoring case; the first of several.
    pub fn file(&self, wanted: &str) -> Option<&Path> {
        self.files.iter().find(|path| is_called(path, wanted)).map(PathBuf::as_path)
    }

    /// Takes out the files with this extension, ignoring case.
    pub fn take_files(&mut self, extension: &str) -> Vec<PathBuf> {
        self.files.extract_if(.., |path| has_extension(path, extension)).collect()
    }
}

/// The last part of a path.
pub(super) fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a file or folder has this name, ignoring case.
pub(super) fn is_called(path: &Path, wanted: &str) -> bool {
    name(path).eq_ignore_ascii_case(wanted)
}

/// Whether a file's name ends with this, ignoring case.
pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// A note about what is not used, if anything.
pub(super) fn note_unused(folder: &Path, unused: &[PathBuf]) -> Vec<String> {
    if unused.is_empty() {
        return Vec::new();
    }
    let below = |path: &PathBuf| path.strip_prefix(folder).unwrap_or(path).display().to_string();
    let names: Vec<String> = unused.iter().map(below).collect();
    let (is, they) = if unused.len() == 1 { ("is", "it is") } else { ("are", "they are") };
    vec![format!("{}: {} {is} not used; {they} no part of the data set's layout", folder.display(), some_of(&names))]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn names_count_in_any_case_and_hidden_ones_do_not() {
        let home = tempfile::TempDir::new().unwrap();
        let root = home.path();
        for folder in ["train", "__MACOSX", ".git", "b.bin"] {
            fs::create_dir(root.join(folder)).unwrap();
        }
        for file in ["2.BIN", "1.bin", "._1.bin", ".hidden.bin", "3.txt"] {
            fs::write(root.join(file), "").unwrap();
        }
        let mut listing = Listing::of(root).unwrap();
        let names = |paths: &[PathBuf]| paths.iter().map(|path| name(path)).collect::<Vec<_>>();
        assert_eq!(names(&listing.folders), ["b.bin", "train"]);
        assert_eq!(listing.folder("Train").unwrap(), Some(&*root.join("train")));
        assert_eq!((listing.folder("Test").unwrap(), listing.file("3.TXT")), (None, Some(&*root.join("3.txt"))));
        assert_eq!(names(&listing.take_files("bin")), ["1.bin", "2.BIN"]);
        assert_eq!(names(&listing.files), ["3.txt"]);
        fs::create_dir(root.join("Train")).unwrap();
        // A file system that ignores case has created none.
        if fs::read_dir(root).unwrap().count() > 9 {
            let error = Listing::of(root).unwrap().folder("TRAIN").unwrap_err();
            assert!(error.to_string().contains("both Train and train"), "{error}");
        }
        assert!(Listing::of(&root.join("nowhere")).is_err());
    }
}
