//! Stand-in drivers, from `tests/drivers`, and the software GPU.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A command that finds the software GPU (`tests/card`) in place of NVIDIA's driver, unless `ADALI_TEST_DEVICE` asks for the
/// real one; the order of its work is derived from `seed`.
#[cfg(kernels)]
pub fn with_card(mut command: Command, home: &Path, seed: u64) -> Command {
    if std::env::var_os("ADALI_TEST_DEVICE").is_none() {
        let folder = home.join("card");
        let library = std::env::current_exe().unwrap().with_file_name("libcard.so");
        if !folder.exists() {
            std::fs::create_dir(&folder).unwrap();
            for name in ["libcuda.so", "libcuda.so.1"] {
                std::os::unix::fs::symlink(&library, folder.join(name)).unwrap();
            }
        }
        command.env("LD_LIBRARY_PATH", folder).env("CARD_SEED", seed.to_string());
    }
    command
}

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
