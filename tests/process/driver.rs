//! Stand-in drivers, from `tests/drivers`.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Builds `libcuda.so.1` from a C file with these definitions, separated by blanks, and returns the folder for
/// `LD_LIBRARY_PATH`; `None`, with a message, if this machine has no C compiler.
pub fn driver(source: &str, definitions: &str, home: &Path) -> Option<PathBuf> {
    let folder = home.join(format!("{source} {definitions}"));
    std::fs::create_dir_all(&folder).unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drivers").join(source);
    let library = folder.join("libcuda.so.1");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-w"]).args(definitions.split_whitespace().map(|name| format!("-D{name}")));
    let Ok(made) = compiler.arg("-o").args([&library, &source]).status() else {
        eprintln!("left out: {} needs a C compiler, and cc is not found", source.display());
        return None;
    };
    assert!(made.success(), "cc cannot compile {}", source.display());
    std::os::unix::fs::symlink("libcuda.so.1", folder.join("libcuda.so")).unwrap();
    Some(folder)
}
