//! Simulated recordings: their bytes, their folder, what is refused.

use crate::process::{Ran, adali, bytes, command, finish, signal, snapshot, write_images};
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

/// Simulates small recordings of the built-in digits into `out`.
pub fn simulate(cwd: &Path, out: &str, more: &str) -> Ran {
    adali(cwd, &format!("simulate-events --data digits --limit 40 --side 16 --out {out} {more}"))
}

#[test]
fn the_same_seed_gives_the_same_recordings_for_any_number_of_threads() {
    let home = TempDir::new().unwrap();
    let written = simulate(home.path(), "one", "--threads 1 --json").done().json();
    assert_eq!(written["recordings"], 80);
    let files = snapshot(&home.path().join("one"));
    let recordings: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".bin")).collect();
    let total: usize = recordings.iter().map(|(_, bytes)| bytes.len()).sum();
    assert_eq!((recordings.len(), written["bytes"].as_u64().unwrap()), (80, total as u64));
    assert_eq!(written["events"].as_u64().unwrap() * 5, total as u64);
    assert!(total > 80 * 1000 && written["on"].as_u64().unwrap() * 10 > total as u64 / 5 * 4);
    // The digits' first image is a 0.
    assert!(files.contains_key("Train/0/00001.bin") && files.contains_key("Test/9/") && files.len() == 80 + 22 + 2);
    for (out, more, same) in [
        ("three", "--threads 3", true),
        ("forced", "", true),
        ("forced", "--force", true),
        ("seed", "--seed 1", false),
        ("quiet", "--noise 0", false),
        ("coarse", "--contrast 0.5", false),
    ] {
        simulate(home.path(), out, more).done();
        assert_eq!(snapshot(&home.path().join(out)) == files, same, "{more}");
    }
    let about = String::from_utf8(bytes(home.path().join("seed/simulation.toml"))).unwrap();
    for line in ["seed = 1", "side = 16", "images = \"digits\"", "contrast = 0.4"] {
        assert!(about.contains(line), "{about}");
    }
}

#[test]
fn recordings_are_not_overwritten_and_bad_options_are_refused() {
    let home = TempDir::new().unwrap();
    simulate(home.path(), "events", "").done();
    let before = snapshot(home.path());
    simulate(home.path(), "events", "--seed 1").failed(2, &["events/Train exists", "--force"]);
    for (more, parts) in [
        ("--contrast 0", &["contrast 0", "0.01"][..]),
        ("--contrast nan", &["contrast NaN"]),
        ("--mismatch 0.6", &["mismatch 0.6"]),
        ("--refractory 1000001", &["refractory 1000001"]),
        ("--noise=-1", &["noise -1"]),
        ("--dark 0", &["dark 0"]),
        ("--side 7", &["side 7", "8 and 240"]),
        ("--side 241", &["side 241"]),
        ("--threads 1025", &["threads 1025"]),
        ("--seed 9223372036854775808", &["seed 9223372036854775808"]),
        ("--data mnist", &["mnist", "--data-dir"]),
    ] {
        let arguments = format!("simulate-events --out other --data digits {more}");
        let arguments = arguments.replace("--data digits --data mnist", "--data mnist");
        adali(home.path(), &arguments).failed(2, parts);
    }
    fs::write(home.path().join("file"), "").unwrap();
    simulate(home.path(), "file", "").failed(2, &["file is a file", "--out"]);
    fs::remove_file(home.path().join("file")).unwrap();
    // Recordings of a camera have no description, and --force does not replace them.
    fs::create_dir_all(home.path().join("camera/Train/0")).unwrap();
    fs::write(home.path().join("camera/Train/0/1.bin"), [1; 45]).unwrap();
    simulate(home.path(), "camera", "--force")
        .failed(2, &["camera/Train exists and was not simulated", "another --out"]);
    assert_eq!(bytes(home.path().join("camera/Train/0/1.bin")).len(), 45);
    fs::remove_dir_all(home.path().join("camera")).unwrap();
    assert!(snapshot(home.path()) == before, "something was written");
}

#[cfg(unix)]
#[test]
fn a_simulation_that_is_stopped_leaves_nothing() {
    let home = TempDir::new().unwrap();
    simulate(home.path(), "events", "").done();
    let before = snapshot(home.path());
    let mut stopped = 0;
    for (out, more) in [("events", "--force"), ("fresh", "")] {
        let arguments = format!("simulate-events --data digits --side 64 --out {out} {more}");
        let child = command(home.path(), &arguments).spawn().unwrap();
        while !home.path().join(out).join(".adali.next/Train/0").exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
        signal(&child, "INT");
        let ran = finish(child, &arguments);
        assert!(ran.code == Some(130) && ran.err.contains("nothing was written"), "{ran}");
        stopped += 1;
    }
    assert_eq!(stopped, 2);
    assert!(snapshot(home.path()) == before, "something was left");
}

#[cfg(unix)]
#[test]
fn two_simulations_do_not_share_a_folder() {
    let home = TempDir::new().unwrap();
    let slow = "simulate-events --data digits --side 64 --out events";
    let child = command(home.path(), slow).spawn().unwrap();
    while !home.path().join("events/.adali.next/Train/0").exists() {
        std::thread::sleep(Duration::from_millis(1));
    }
    let holder = format!("process {}", child.id());
    simulate(home.path(), "events", "").failed(2, &["events is in use by", &holder]);
    simulate(home.path(), "events", "--force").failed(2, &["events is in use by", &holder]);
    signal(&child, "KILL");
    finish(child, slow);
    // Leftovers of a kill do not get in the way, and are not taken for recordings.
    assert!(!home.path().join("events/Train").exists());
    simulate(home.path(), "events", "").done();
    assert!(!home.path().join("events/.adali.next").exists());
    // Killed while the new recordings replaced the old ones: half of them, and the description in the hidden folder.
    fs::create_dir(home.path().join("events/.adali.next")).unwrap();
    fs::rename(home.path().join("events/simulation.toml"), home.path().join("events/.adali.next/simulation.toml"))
        .unwrap();
    fs::remove_dir_all(home.path().join("events/Test")).unwrap();
    simulate(home.path(), "events", "").failed(2, &["events/Train exists", "--force"]);
    simulate(home.path(), "events", "--force").done();
    assert!(home.path().join("events/Test/9").exists() && home.path().join("events/simulation.toml").exists());
}

#[test]
fn colours_and_other_images_can_be_shown() {
    let home = TempDir::new().unwrap();
    write_images(&home.path().join("images"));
    adali(home.path(), "simulate-events --data mnist --data-dir images --side 20 --out events").done();
    let files = snapshot(&home.path().join("events"));
    assert_eq!(files.keys().filter(|name| name.ends_with(".bin")).count(), 84);
}
