//! Process memory: a training takes what it plans, for every preset, and if a limit is too low, the program says so in one line
//! and never aborts.

use crate::process::{Ran, command, result, run};
use adali::network::presets::Preset;
use clap::ValueEnum;
use safetensors::tensor::{Dtype, TensorView};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// How far the plan may be from the measurement, as a fraction.
const NEAR: f64 = 0.1;
const MB: f64 = 1e6;

/// Event frames `[T, C, H, W]` of 0 and 1, `train` and `test` samples whose labels cycle through `classes`.
fn write_frames(path: &Path, extents: [usize; 4], classes: usize, [train, test]: [usize; 2]) {
    let mut tensors = Vec::new();
    for (part, count) in [("train", train), ("test", test)] {
        let size = count * extents.iter().product::<usize>();
        let pixels: Vec<u8> =
            (0..size as u64).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61 == 0).into()).collect();
        let labels: Vec<u8> = (0..count).map(|i| (i % classes) as u8).collect();
        tensors.push((format!("{part}.frames"), [&[count][..], &extents].concat(), pixels));
        tensors.push((format!("{part}.labels"), vec![count], labels));
    }
    let views =
        tensors.iter().map(|(name, shape, bytes)| (name, TensorView::new(Dtype::U8, shape.clone(), bytes).unwrap()));
    fs::write(path, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The bytes stated after `word` in the line `memory   20.9 MB: weights 0.1 MB, …` of a training's output.
fn said(out: &str, word: &str) -> f64 {
    let line = out.lines().find(|line| line.starts_with("memory ")).unwrap_or_else(|| panic!("no plan in {out}"));
    let rest = line.split(word).nth(1).unwrap_or_else(|| panic!("no {word} in {line}"));
    MB * rest.split_whitespace().next().unwrap().parse::<f64>().unwrap()
}

/// Runs a command and also returns its peak resident memory as seen by the system, in bytes.
fn watched(mut command: Command) -> (Ran, f64) {
    let what = format!("{command:?}");
    let child = command.spawn().unwrap();
    let status = format!("/proc/{}/status", child.id());
    let watch = std::thread::spawn(move || {
        let mut most = 0;
        loop {
            let text = fs::read_to_string(&status).unwrap_or_default();
            let Some(line) = text.lines().find_map(|line| line.strip_prefix("VmHWM:")) else {
                return 1024.0 * most as f64;
            };
            most = line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap().max(most);
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let ran = crate::process::finish(child, &what);
    (ran, watch.join().unwrap())
}

#[test]
fn what_is_planned_is_what_the_process_takes() {
    let home = TempDir::new().unwrap();
    let mut cases = 0;
    for preset in Preset::value_variants() {
        // Frames, classes, batch; enough samples for two steps and for the held-out part.
        let (extents, classes, batch) = match preset {
            Preset::Digits => ([1, 1, 8, 8], 10, 512),
            Preset::Conv2 => ([1, 1, 28, 28], 10, 64),
            Preset::Csnn => ([1, 1, 28, 28], 10, 8),
            Preset::Vgg11 => ([1, 3, 32, 32], 10, 8),
            Preset::DvsGestureNet => ([16, 2, 32, 32], 11, 4),
            Preset::Vggsnn => ([10, 2, 32, 32], 10, 4),
            // One of each form; the others are built alike.
            Preset::Resnet18Cifar
            | Preset::Resnet18Preact
            | Preset::SewResnet18
            | Preset::MsResnet18
            | Preset::NfResnet34 => ([1, 3, 32, 32], 10, 16),
            Preset::Resnet19 | Preset::SewResnet34 | Preset::MsResnet34 => continue,
        };
        let name = preset.to_possible_value().unwrap().get_name().to_string();
        write_frames(&home.path().join("frames"), extents, classes, [2 * batch + batch.max(2 * classes), 2 * classes]);
        let arguments = format!(
            "train --network {name} --data frames --data-dir frames --out {name} --batch {batch} --limit {} --epochs 1 \
             --threads 2 --device cpu {}",
            2 * batch,
            match preset {
                Preset::MsResnet18 => "--channels 16 --memory low",
                _ if name.contains("resnet") => "--channels 16",
                _ => "",
            }
        );
        let (ran, most) = watched(command(home.path(), &arguments));
        let ran = ran.done();
        let (planned, program) = (said(&ran.out, "memory"), said(&ran.out, "program"));
        let reported = result(&home.path().join(&name))["peak_rss_bytes"].as_f64().unwrap();
        let apart = planned / most - 1.0;
        println!(
            "{name} {batch}: {:.1} MB planned, {:.1} MB measured, {:.1} % apart",
            planned / MB,
            most / MB,
            100.0 * apart
        );
        assert!(apart.abs() <= NEAR, "{name}: {ran}");
        // Plots and the test come last: the peak that the program reports at its end matches the system's.
        assert!((reported / most - 1.0).abs() < 0.02, "{reported} reported, {most} measured");
        // The plan is dominated by the network, not by the program itself.
        assert!(program < planned / 2.0, "{name}: {ran}");
        cases += 1;
    }
    assert_eq!(cases, Preset::value_variants().len() - 3);
}

/// The program under `ulimit -v`, in kilobytes.
fn limited(cwd: &Path, kilobytes: usize, arguments: &str) -> Command {
    let mut shell = Command::new("sh");
    let script = format!("ulimit -c 0; ulimit -v {kilobytes}; exec \"$0\" {arguments}");
    shell.args(["-c", &script, env!("CARGO_BIN_EXE_adali")]).current_dir(cwd).env_remove("RUST_BACKTRACE");
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("MALLOC_ARENA_MAX");
    shell
}

/// The smallest limit, in kilobytes, under which the program loads and reports this refusal itself: below it, the loader or the
/// runtime fails.
fn least(cwd: &Path) -> usize {
    let refuses = |kilobytes: &usize| {
        let out = limited(cwd, *kilobytes, "train --threads 5000").output().unwrap();
        out.status.code() == Some(2) && String::from_utf8_lossy(&out.stderr).starts_with("error: --threads 5000")
    };
    (8_000..100_000).step_by(1_000).find(refuses).unwrap()
}

#[test]
fn a_limit_that_does_not_suffice_is_one_line_and_no_abort() {
    let home = TempDir::new().unwrap();
    let least = least(home.path());
    let mut refused = 0;
    for (network, most) in [("--batch 512 --limit 512", 120_000), ("--batch 512 --limit 512 --channels 128", 400_000)] {
        let train = format!("train -q --force --out run --epochs 1 --threads 2 --device cpu {network}");
        let mut done = 0;
        for share in 0..24 {
            let limit = least + (most - least) * share / 24;
            let ran = run(limited(home.path(), limit, &train));
            if ran.code == Some(0) {
                assert!(ran.err.is_empty(), "{limit}: {ran}");
                done += 1;
            } else {
                ran.failed(2, &["(ulimit -v)"]);
                refused += 1;
            }
            if done == 2 {
                break;
            }
        }
        assert_eq!(done, 2, "{most} kB suffice");
    }
    assert!(refused > 8, "{refused} limits were too small");
}

#[test]
fn the_message_names_what_failed_and_the_largest_batch() {
    let home = TempDir::new().unwrap();
    let least = least(home.path());
    let train = |batch: &str, threads: &str| {
        format!("train -q --out run --epochs 1 --device cpu --limit 512 --batch {batch} --threads {threads}")
    };
    let limit = least + 30_000;
    let ran = run(limited(home.path(), limit, &train("512", "1")));
    let ran = ran.failed(2, &["with a batch of 512 takes", "MB are left of the limit on addresses (ulimit -v)"]);
    assert!(!home.path().join("run").exists(), "nothing is left behind");
    // The batch named in the message trains to the end within that limit.
    let batch = ran.err.trim().split("fit is ").nth(1).unwrap_or_else(|| panic!("no batch is named: {ran}"));
    assert!((2..512).contains(&batch.parse::<usize>().unwrap()), "{ran}");
    run(limited(home.path(), limit, &train(batch, "1"))).done();
    for limit in [least + 10_000, 500_000, 1_000_000, 2_000_000] {
        let ran = run(limited(home.path(), limit, &train("32", "1000")));
        ran.failed(2, &["cannot start 1000 threads", "(ulimit -v)", "fewer --threads"]);
    }
}
