//! NVIDIA drivers that are present but unusable: the problem is reported and the CPU is used instead.

use crate::process::driver::driver;
use crate::process::{Ran, adali, command, run};
use adali::backend::gpu::cuda::Cuda;
use adali::kernels::COMPILER;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn with_driver(home: &Path, folder: &Path, arguments: &str) -> Ran {
    let mut command = command(home, arguments);
    command.env("LD_LIBRARY_PATH", folder);
    run(command)
}

/// Checks that the driver's fault is named: by `info`, which continues; by a training, which uses the CPU; and by a training
/// with `--device cuda`, which is refused.
fn is_said(home: &Path, folder: &Path, said: &str) {
    let info = with_driver(home, folder, "info").done();
    assert!(info.out.lines().any(|line| line.starts_with("cuda ") && line.contains(said)), "{said}: {info}");
    let json = with_driver(home, folder, "info --json").done().json();
    assert!(json["cuda_error"].as_str().unwrap().contains(said), "{said}: {json}");
    let short = "--limit 64 --epochs 1 --force --out run";
    let trained = with_driver(home, folder, &format!("train {short}"));
    assert!(trained.code == Some(0) && trained.err.lines().count() == 1, "{said}: {trained}");
    assert!(trained.err.starts_with("note: ") && trained.err.contains("using the CPU"), "{said}: {trained}");
    assert!(trained.err.contains(said) && trained.out.starts_with("device   cpu ("), "{said}: {trained}");
    with_driver(home, folder, &format!("train --device cuda {short}")).failed(2, &["cannot use CUDA", said]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_driver_of_no_use_is_said_and_the_cpu_trains() {
    let home = TempDir::new().unwrap();
    let home = home.path();
    // What remains in a container that was built for GPUs and runs without one.
    let empty = home.join("empty");
    fs::create_dir(&empty).unwrap();
    fs::write(empty.join("libcuda.so.1"), "").unwrap();
    is_said(home, &empty, "libcuda.so.1: file too short");
    for (definitions, said) in [
        ("INIT=100", "cannot list its GPUs: an error of the stand-in (CUDA_ERROR_NO_DEVICE)"),
        ("INIT=803", "cannot list its GPUs: an error of the stand-in (CUDA_ERROR_SYSTEM_DRIVER_MISMATCH)"),
        ("INIT=999", "cannot list its GPUs: an error of the stand-in (CUDA_ERROR_UNKNOWN)"),
        ("CARDS=0", "finds no GPU"),
        ("VERSION=11080", "the NVIDIA driver is too old: it supports CUDA 11.8"),
        ("cuGraphUpload=absent", "lacks the function cuGraphUpload"),
        ("cuDriverGetVersion=absent", "lacks the function cuDriverGetVersion"),
    ] {
        let Some(folder) = driver("nothing.c", definitions, home) else { return };
        is_said(home, &folder, said);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn each_function_that_is_missing_is_named() {
    let home = TempDir::new().unwrap();
    let source = include_str!("drivers/nothing.c");
    let functions: Vec<_> = source.lines().filter_map(|line| line.strip_prefix("Result ")?.split('(').next()).collect();
    assert!(functions.len() > 40, "{functions:?}");
    for function in functions {
        let Some(folder) = driver("nothing.c", &format!("{function}=absent"), home.path()) else { return };
        let info = with_driver(home.path(), &folder, "info").done();
        assert!(info.out.contains(&format!("lacks the function {function};")), "{function}: {info}");
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_clocks_are_said() {
    let home = TempDir::new().unwrap();
    let Some(folder) = driver("nothing.c", "", home.path()) else { return };
    // Without kernels, a note says that the card cannot be used.
    let info = with_driver(home.path(), &folder, "info");
    assert!(info.code == Some(0) && info.out.contains(", clock 1980 MHz, memory 3201 MHz"), "{info}");
}

/// The kernels' format, not a number in the source, decides which driver is required.
#[test]
#[cfg(target_os = "linux")]
fn the_version_that_is_needed_is_that_of_the_compiler() {
    let Some(compiler) = COMPILER else {
        eprintln!(
            "left out: which driver the kernels need is known only with kernels, and they were built without nvcc"
        );
        return;
    };
    let home = TempDir::new().unwrap();
    let numbers: Vec<&str> = compiler.trim_start_matches("nvcc ").split('.').collect();
    let needed = format!("but {}.{}", numbers[0], numbers[1]);
    let train = "train --device cuda --limit 64 --epochs 1 --out run";
    for definitions in ["VERSION=11080", "VERSION=12000 LOAD=222"] {
        let Some(folder) = driver("nothing.c", definitions, home.path()) else { return };
        with_driver(home.path(), &folder, train).failed(2, &[&needed]);
    }
    let Some(folder) = driver("nothing.c", "LOAD=222", home.path()) else { return };
    let refused = with_driver(home.path(), &folder, train).failed(2, &["CUDA_ERROR_UNSUPPORTED_PTX_VERSION"]);
    assert!(!refused.err.contains("is required"), "this driver is new enough: {refused}");
}

#[test]
fn without_a_driver_the_device_line_says_so() {
    if Cuda::has_driver() {
        eprintln!("left out: this machine has an NVIDIA driver");
        return;
    }
    let home = TempDir::new().unwrap();
    let none = "; no NVIDIA driver found";
    for (device, said) in [("auto", true), ("cpu", false)] {
        let train = format!("train --device {device} --limit 64 --epochs 1 --force --out run");
        let trained = adali(home.path(), &train).done();
        assert_eq!(trained.out.lines().next().unwrap().ends_with(none), said, "{trained}");
    }
    let info = adali(home.path(), "info").done();
    assert!(info.out.contains("\ncuda           none: this machine has no NVIDIA driver\n"), "{info}");
    adali(home.path(), "train --device cuda --out run").failed(2, &["this machine has no NVIDIA driver"]);
}
