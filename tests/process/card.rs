//! The software GPU.

use std::path::Path;
use std::process::Command;

/// A command that finds the software GPU (`tests/card`) in place of NVIDIA's driver, unless `ADALI_TEST_DEVICE` asks for the
/// real one; the order of its work is derived from `seed`.
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
