//! The program as it is, `--device cuda`, on the card made of software (`tests/card`): the driver's calls through cudarc,
//! and the PTX that nvcc wrote.
//!
//! Left out, and said so, where the program was built without nvcc.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// A folder with the driver, built once; none where there are no kernels.
static DRIVER: LazyLock<Option<PathBuf>> = LazyLock::new(|| {
    if adali::kernels::MODULES.is_empty() {
        eprintln!("LEFT OUT: built without nvcc, so nothing runs on the card made of software; `make cuda` fetches it");
        return None;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let mut command = Command::new(env!("CARGO"));
    command.args(["build", "--release", "--locked", "--package", "card"]).current_dir(root);
    let built = command.output().expect("cargo runs");
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let folder = target.join("card");
    std::fs::create_dir_all(&folder).expect("a folder");
    let library = folder.join(format!("libcuda.{}", std::process::id()));
    std::fs::copy(target.join("release/libcard.so"), &library).expect("the library is there");
    std::fs::rename(library, folder.join("libcuda.so.1")).expect("the folder is ours");
    Some(folder)
});

fn train(driver: &Path, out: &Path, seed: u32, options: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_adali"));
    command.args("train --epochs 2 --limit 96 --quiet --out".split(' ')).arg(out);
    command.args(options.split_whitespace());
    command.env("LD_LIBRARY_PATH", driver).env("CARD_SEED", seed.to_string()).output().expect("adali runs")
}

/// The weights and the loss of each epoch after a training that went well.
#[track_caller]
fn trained(driver: &Path, seed: u32, options: &str) -> (Vec<u8>, Vec<f64>) {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("run");
    let output = train(driver, &out, seed, options);
    assert!(output.status.success(), "{options}: {}", String::from_utf8_lossy(&output.stderr));
    let metrics = std::fs::read_to_string(out.join("metrics.jsonl")).expect("metrics");
    let loss = |line: &str| serde_json::from_str::<serde_json::Value>(line).expect("JSON")["train_loss"].as_f64();
    let losses: Vec<f64> = metrics.lines().filter_map(loss).collect();
    assert!(!losses.is_empty() && losses.iter().all(|loss| loss.is_finite()), "{options}: {metrics}");
    (std::fs::read(out.join("model.safetensors")).expect("a model"), losses)
}

#[test]
fn graphs_and_orders_change_nothing() {
    let Some(driver) = &*DRIVER else { return };
    for options in ["", "--precision f16", "--norm weight"] {
        let options = format!("--device cuda {options}");
        let (model, _) = trained(driver, 0, &options);
        assert!(trained(driver, 1, &format!("{options} --no-graph")).0 == model, "{options}: eager");
        assert!(trained(driver, 2, &options).0 == model, "{options}: another order");
    }
}

#[test]
fn losses_are_the_cpus() {
    let Some(driver) = &*DRIVER else { return };
    for (options, tolerance) in [("--precision f32", 1e-5), ("", 2e-2)] {
        let (_, card) = trained(driver, 3, &format!("--device cuda {options}"));
        let (_, cpu) = trained(driver, 3, "--device cpu");
        assert_eq!(card.len(), cpu.len());
        for (card, cpu) in card.iter().zip(&cpu) {
            assert!((card - cpu).abs() <= tolerance * cpu.abs(), "{options}: {card} of {cpu}");
        }
    }
}
