//! Trainings that are killed, interrupted, out of disk space or left without a reader, then resumed: the result is the same.

use crate::process::tensors::Tensors;
use crate::process::{
    Random, adali, assert_no_leftovers, assert_same, bytes, command, copy, finish, first_line, run, signal, snapshot,
    tiny, train, write_images, write_network,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Bounds modes, surrogates, optimisers, dropout and augmentation: everything that a state must hold.
const VARIANTS: [&str; 8] = [
    "",
    "--bounds auto-track --optimizer adam --learning-rate 0.002 --checkpoint-every 1",
    "--bounds auto-init --per-channel --checkpoint-every 3",
    "--bounds auto-symmetric --per-channel --crop 2 --flip --checkpoint-every 1",
    "--surrogate arctan --optimizer adamw --checkpoint-every 1",
    "--network dropout.toml --crop 1 --flip --cutout 3 --checkpoint-every 2",
    "--config steps.toml --checkpoint-every 1",
    "--bounds auto-mass --norm weight --tet --warmup 1 --clip 1 --validation 0",
];

/// The files that the variants name; `steps.toml` moves bounds at every third step.
fn write_variants(home: &Path) {
    write_network(&home.join("dropout.toml"), ("", ""));
    let plain = train(home, "plain", "--bounds auto-track --epochs 8");
    let config = String::from_utf8(bytes(plain.join("config.toml"))).unwrap();
    fs::write(home.join("steps.toml"), config.replace("update_every = 0", "update_every = 3")).unwrap();
}

/// The command that starts a training in `out`, or resumes the one there.
fn begin_or_resume(home: &Path, out: &str, variant: &str) -> String {
    if home.join(out).join("config.toml").exists() {
        format!("train --quiet --resume {out}")
    } else {
        tiny(out, &format!("{variant} --epochs 8"))
    }
}

#[test]
fn a_training_killed_at_any_moment_ends_with_the_same_bytes() {
    let home = TempDir::new().unwrap();
    let mut random = Random::new("a_training_killed_at_any_moment");
    write_variants(home.path());
    let (mut cases, mut kills, mut resumed) = (0, 0, 0);
    for (i, variant) in VARIANTS.iter().enumerate() {
        let begin = std::time::Instant::now();
        let whole = train(home.path(), &format!("whole-{i}"), &format!("{variant} --epochs 8"));
        let time = begin.elapsed().as_micros() as u64;
        let out = format!("killed-{i}");
        for _ in 0..6 {
            let arguments = begin_or_resume(home.path(), &out, variant);
            resumed += arguments.contains("--resume") as u32;
            let mut child = command(home.path(), &arguments).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.below(time / 3)));
            child.kill().unwrap();
            kills += (finish(child, &arguments).code.is_none()) as u32;
        }
        adali(home.path(), &begin_or_resume(home.path(), &out, variant)).done();
        assert_same(&whole, &home.path().join(&out), variant);
        cases += 1;
    }
    assert_eq!(cases, 8);
    assert!(kills >= 16 && resumed >= 8, "{kills} kills, {resumed} resumes: the kills came too late or too early");
}

/// Starts or resumes a training and sends it a signal; returns whether it was still running.
fn interrupt(home: &Path, out: &str, variant: &str, name: &str, wait: u64) -> bool {
    let arguments = begin_or_resume(home, out, &format!("{variant} --limit 0")).replace("--quiet ", "");
    let mut child = command(home, &arguments).spawn().unwrap();
    // It handles signals from its first line on; earlier ones end it before it has touched anything.
    assert!(first_line(&mut child).starts_with("device"));
    std::thread::sleep(Duration::from_millis(wait));
    if child.try_wait().unwrap().is_none() {
        signal(&child, name);
    }
    let ran = finish(child, &arguments);
    if ran.code == Some(0) {
        return false;
    }
    assert_eq!(ran.code, Some(130), "{name}: {ran}");
    assert!(ran.err.contains("interrupted") && ran.err.contains(&format!("adali train --resume {out}")), "{ran}");
    true
}

#[test]
fn a_signal_saves_the_state_in_the_middle_of_an_epoch() {
    let home = TempDir::new().unwrap();
    let mut random = Random::new("a_signal_saves_the_state");
    write_variants(home.path());
    let (mut interrupted, mut within) = (0, 0);
    for (i, variant) in VARIANTS.iter().enumerate().filter(|(_, variant)| !variant.contains("--config")) {
        let whole = train(home.path(), &format!("whole-{i}"), &format!("{variant} --epochs 8 --limit 0"));
        let out = format!("stopped-{i}");
        for name in ["INT", "TERM"] {
            if interrupt(home.path(), &out, variant, name, random.below(40)) {
                let progress = Tensors::read(&home.path().join(&out).join("state.safetensors")).progress();
                within += (progress["step"].as_u64().unwrap() > 0) as u32;
                interrupted += 1;
            }
        }
        // The number of threads may change in between.
        adali(home.path(), &format!("train --quiet --threads 1 --resume {out}")).done();
        assert_same(&whole, &home.path().join(&out), variant);
    }
    assert!(interrupted >= 10 && within >= 6, "{interrupted} of 14 interrupted, {within} within an epoch");
}

#[test]
fn a_finished_run_says_its_result_again() {
    let home = TempDir::new().unwrap();
    let folder = train(home.path(), "run", "");
    let before = snapshot(&folder);
    let accuracy = crate::process::result(&folder)["test_accuracy"].as_f64().unwrap();
    for _ in 0..2 {
        let ran = adali(home.path(), "train --resume run").done();
        assert!(ran.out.contains(&format!("test accuracy {:.2} %", 100.0 * accuracy)), "{ran}");
        assert_eq!(adali(home.path(), "train --json --resume run").done().json()["test_accuracy"], accuracy);
    }
    // Its memory use may differ.
    let without_result = |mut files: std::collections::BTreeMap<_, _>| files.remove("result.json").map(|_| files);
    assert!(without_result(before.clone()) == without_result(snapshot(&folder)));
    // Before the first checkpoint there is only the configuration: the training starts over.
    let fresh = home.path().join("fresh");
    fs::create_dir(&fresh).unwrap();
    fs::write(fresh.join("config.toml"), &before["config.toml"]).unwrap();
    adali(home.path(), "train --quiet --resume fresh").done();
    assert_same(&folder, &fresh, "from config.toml alone");
}

#[test]
fn what_cannot_be_continued_is_refused_and_left_as_it_is() {
    let home = TempDir::new().unwrap();
    write_images(&home.path().join("images"));
    train(home.path(), "run", "--data mnist --data-dir images --batch 16 --limit 0");
    let mut cases = 0;
    let mut refused = |folder: &str, parts: &[&str]| {
        let before = snapshot(home.path());
        adali(home.path(), &format!("train --quiet --resume {folder}")).failed(2, parts);
        assert!(snapshot(home.path()) == before, "{folder} was changed");
        cases += 1;
    };
    refused("nowhere", &["nowhere", "config.toml"]);
    refused("images/train-images-idx3-ubyte", &["is not a run folder"]);
    refused("images", &["is not a run folder"]);
    let images = home.path().join("images/train-images-idx3-ubyte");
    let labels = home.path().join("images/train-labels-idx1-ubyte");
    for (file, position) in [(&images, 16), (&images, 16 + 64 * 64 - 1), (&labels, 8)] {
        let good = bytes(file);
        let mut bad = good.clone();
        bad[position] ^= 1;
        fs::write(file, bad).unwrap();
        refused("run", &["other samples", "run"]);
        fs::write(file, &good[..position]).unwrap();
        refused("run", &["truncated", file.file_name().unwrap().to_str().unwrap()]);
        fs::write(file, good).unwrap();
    }
    fs::rename(home.path().join("images"), home.path().join("moved")).unwrap();
    refused("run", &["images", "does not exist"]);
    adali(home.path(), "train --quiet --resume run --data-dir moved").done();
    let config = String::from_utf8(bytes(home.path().join("run/config.toml"))).unwrap();
    for (from, to, parts) in [
        ("[data]", "[data]\nepoks = 3", &["epoks", "line "][..]),
        ("seed = 0", "seed = ", &["line 1"]),
        ("epochs = 2", "epochs = 1", &["was changed since"]),
        ("channels = 8", "channels = 9", &["was changed since"]),
        ("kernel = 2", "kernel = 99", &["layer 1", "99"]),
        ("kind = \"adali\"", "kind = \"adaly\"", &["adaly"]),
        ("per_channel = false", "per_channel = true", &["was changed since"]),
    ] {
        assert!(config.contains(from), "{from}");
        let changed = config.replacen(from, to, 1).replace("/images\"", "/moved\"");
        fs::write(home.path().join("run/config.toml"), changed).unwrap();
        refused("run", parts);
    }
    fs::write(home.path().join("run/config.toml"), config).unwrap();
    for more in
        ["--epochs 3", "--learning-rate 1", "--crop 1", "--bounds manual", "--data digits", "--batch 2", "--tet"]
    {
        adali(home.path(), &format!("train --resume run {more}")).misused("--resume");
        cases += 1;
    }
    assert_eq!(cases, 3 + 6 + 1 + 7 + 7);
}

#[test]
fn a_reader_that_leaves_and_a_full_output_are_no_panic() {
    let home = TempDir::new().unwrap();
    let whole = train(home.path(), "whole", "--epochs 8");
    let mut cases = 0;
    for arguments in [tiny("run", "--epochs 8").replace("--quiet ", ""), "info".into(), "train --help".into()] {
        let mut child = command(home.path(), &arguments).spawn().unwrap();
        assert!(!first_line(&mut child).is_empty());
        drop(child.stdout.take());
        finish(child, &arguments).done();
        cases += 1;
    }
    adali(home.path(), "train --quiet --resume run").done();
    assert_same(&whole, &home.path().join("run"), "its reader left");
    for arguments in ["eval whole", "inspect whole", "info --json", "train --resume whole"] {
        let mut full = command(home.path(), arguments);
        full.stdout(Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap()));
        run(full).failed(1, &["standard output", "No space left"]);
        cases += 1;
    }
    assert_eq!(cases, 7);
}

/// A small separate file system, unmounted at the end.
struct Disk(PathBuf);

impl Disk {
    /// `None` if this process may not mount one.
    fn mount(place: PathBuf, size: &str) -> Option<Self> {
        fs::create_dir(&place).unwrap();
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", size, "tmpfs"]).arg(&place).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(place));
        }
        assert!(std::env::var_os("ADALI_REQUIRE_TMPFS").is_none(), "ADALI_REQUIRE_TMPFS: cannot mount a tmpfs");
        eprintln!("SKIPPED: a tmpfs cannot be mounted here, so full and read-only disks are not tested");
        None
    }

    fn remount(&self, option: &str) {
        let option = format!("remount,{option}");
        assert!(Command::new("mount").args(["-o", &option]).arg(&self.0).status().unwrap().success());
    }

    /// Fills it, leaving `free` bytes.
    fn fill(&self, free: usize) {
        use std::io::Write;
        let mut ballast = fs::File::create(self.0.join("ballast")).unwrap();
        let mut size = 0;
        while ballast.write_all(&[0; 4096]).is_ok() {
            size += 4096;
        }
        ballast.set_len(u64::try_from(size).unwrap().saturating_sub(free as u64)).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_or_read_only_disk_costs_nothing_that_was_saved() {
    let home = TempDir::new().unwrap();
    let Some(disk) = Disk::mount(home.path().join("disk"), "size=2m") else { return };
    let whole = train(home.path(), "whole", "--epochs 8 --limit 0");
    while !interrupt(home.path(), "stopped", "", "INT", 0) {
        fs::remove_dir_all(home.path().join("stopped")).unwrap();
    }
    let stopped = home.path().join("stopped");
    let run = disk.0.join("run");
    let mut cases = 0;
    for free in [0, 4096, 16 << 10, 48 << 10] {
        copy(&stopped, &run);
        let state = bytes(run.join("state.safetensors"));
        disk.fill(free);
        let ran = adali(home.path(), "train --quiet --resume disk/run").failed(1, &["cannot write", "No space left"]);
        assert!(ran.err.contains("disk/run/"), "{ran}");
        assert_no_leftovers(&run);
        assert!(Tensors::read(&run.join("state.safetensors")).progress()["epoch"].is_u64());
        assert!(free > 0 || bytes(run.join("state.safetensors")) == state, "the state changed without room for one");
        if free == 0 {
            adali(home.path(), &tiny("disk/new", "")).failed(1, &["disk/new", "No space left"]);
            adali(home.path(), "inspect whole --out disk/x").failed(1, &["cannot write disk/x", "No space left"]);
            assert!(!disk.0.join("x").exists());
            fs::remove_dir_all(disk.0.join("new")).unwrap();
            cases += 2;
        }
        fs::remove_file(disk.0.join("ballast")).unwrap();
        adali(home.path(), "train --quiet --resume disk/run").done();
        assert_same(&whole, &run, &format!("{free} bytes were free"));
        fs::remove_dir_all(&run).unwrap();
        cases += 1;
    }
    copy(&stopped, &run);
    let before = snapshot(&disk.0);
    disk.remount("ro");
    adali(home.path(), "train --quiet --resume disk/run").failed(1, &["cannot write disk/run/", "Read-only"]);
    adali(home.path(), &tiny("disk/new", "")).failed(2, &["cannot make disk/new", "Read-only"]);
    adali(home.path(), "inspect whole --out disk/x").failed(1, &["cannot write disk/x", "Read-only"]);
    assert!(snapshot(&disk.0) == before);
    disk.remount("rw");
    adali(home.path(), "train --quiet --resume disk/run").done();
    assert_same(&whole, &run, "the disk was read-only");
    assert_eq!(cases + 4, 10);
}
