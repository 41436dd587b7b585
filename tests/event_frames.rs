//! Event recordings as a user handles them: integrated, cached, trained on; with bad input too.

use crate::process::{Ran, adali, assert_same, bytes, command, finish, metrics, result, run};
use crate::simulated_events::simulate;
use adali::data::events::integrate::FramesBy;
use adali::data::{DataSource, Integration, Request, load_as};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The arguments of a training on `events` with its cache in `cache`.
fn training(out: &str, more: &str) -> String {
    format!(
        "train --data n-mnist --data-dir events --cache-dir cache --out {out} --channels 8 --epochs 2 --batch 8 --quiet \
         {more}"
    )
}

/// Checks that a command succeeded and printed exactly these notes on standard error, each identified by a part of it.
fn noted(ran: Ran, parts: &[&str]) -> Ran {
    let lines: Vec<&str> = ran.err.lines().collect();
    let said = lines.len() == parts.len() && lines.iter().zip(parts).all(|(line, part)| line.contains(part));
    assert!(ran.code == Some(0) && said && lines.iter().all(|line| line.starts_with("note: ")), "{parts:?}: {ran}");
    ran
}

/// A recording in the format of N-MNIST with one event per microsecond.
fn write_recording(path: &Path, events: u8) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, (0..events).flat_map(|i| [i % 30, 5, 0x80, 0, i]).collect::<Vec<u8>>()).unwrap();
}

fn caches(cwd: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(cwd.join("cache")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn the_second_start_reads_the_cache_and_trains_the_same() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    simulate(cwd, "events", "").done();
    adali(cwd, &training("first", "--flip --roll 2 --drop 0.1")).done();
    let [cache] = &caches(cwd)[..] else { panic!("{:?}", caches(cwd)) };
    let kept = bytes(cache);
    // Recordings with changed bytes but the old size and time: only the cache has the original data.
    let recording = cwd.join("events/Train/0/00001.bin");
    let (good, time) = (bytes(&recording), fs::metadata(&recording).unwrap().modified().unwrap());
    let rewrite = |bytes: &[u8]| {
        fs::write(&recording, bytes).unwrap();
        fs::File::options().write(true).open(&recording).unwrap().set_modified(time).unwrap();
    };
    rewrite(&vec![255; good.len()]);
    adali(cwd, &training("second", "--flip --roll 2 --drop 0.1 --threads 1")).done();
    assert_same(&cwd.join("first"), &cwd.join("second"), "from the cache");
    assert_eq!(bytes(cwd.join("first/config.toml")), bytes(cwd.join("second/config.toml")));
    rewrite(&good);
    // A damaged cache is reported and rebuilt.
    for damage in [&kept[..kept.len() / 2], &[], &kept.iter().map(|byte| byte ^ 1).collect::<Vec<_>>()] {
        fs::write(cache, damage).unwrap();
        noted(adali(cwd, &training("third", "--force --flip --roll 2 --drop 0.1")), &["damaged"]);
        assert!(bytes(cache) == kept, "the cache was not made again");
        assert_same(&cwd.join("first"), &cwd.join("third"), "with a damaged cache");
    }
    // Another integration makes another cache; so do other recordings.
    adali(cwd, &training("time", "--frames-by time")).done();
    adali(cwd, &training("few", "--steps 4 --downsample 2")).done();
    assert_eq!(caches(cwd).len(), 3);
    fs::write(cwd.join("events/Train/0/99999.bin"), &good).unwrap();
    adali(cwd, &training("more", "--steps 4 --downsample 2")).done();
    assert_eq!(caches(cwd).len(), 4);
    let text = String::from_utf8(bytes(cwd.join("few/config.toml"))).unwrap();
    for line in ["[data.events]", "frames = 4", "frames_by = \"count\"", "downsample = 2", "steps = 4", "mse = 0.05"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(!text.contains("cache"), "{text}");
    crate::process::assert_no_leftovers(cwd);
}

#[test]
fn a_cache_that_cannot_be_written_is_only_said() {
    let home = TempDir::new().unwrap();
    simulate(home.path(), "events", "").done();
    fs::write(home.path().join("cache"), "a file").unwrap();
    let ran = adali(home.path(), &training("run", ""));
    let said = ran.err.lines().count() <= 2 && ran.err.contains("not kept for the next time");
    assert!(ran.code == Some(0) && said, "{ran}");
    assert_eq!(metrics(&home.path().join("run")).len(), 2);
}

#[test]
fn without_cache_dir_the_cache_is_where_the_system_keeps_such() {
    let home = TempDir::new().unwrap();
    simulate(home.path(), "events", "").done();
    let mut cases = 0;
    for (variables, place) in
        [(&["XDG_CACHE_HOME", "HOME"][..], "XDG_CACHE_HOME/adali"), (&["HOME"], "HOME/.cache/adali")]
    {
        let arguments = training("run", "--force").replace("--cache-dir cache ", "");
        let mut command = command(home.path(), &arguments);
        command.env_remove("XDG_CACHE_HOME");
        for variable in variables {
            command.env(variable, home.path().join(variable));
        }
        run(command).done();
        assert_eq!(fs::read_dir(home.path().join(place)).unwrap().count(), 1, "{place}");
        cases += 1;
    }
    assert_eq!(cases, 2);
}

#[test]
fn other_commands_know_recordings() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    simulate(cwd, "events", "").done();
    adali(cwd, &training("run", "--steps 5")).done();
    let scores = adali(cwd, "eval run --json --cache-dir cache").done().json();
    assert_eq!(scores["accuracy"], result(&cwd.join("run"))["test_accuracy"]);
    adali(cwd, "inspect run --out tensors.safetensors --cache-dir cache").done();
    let found = adali(cwd, "info --json --data-dir events").done().json();
    let at = found["data"]["n-mnist"].as_str().unwrap();
    assert_eq!((at, &found["data"]["dvs-gesture"]), ("events", &serde_json::Value::Null));
    adali(cwd, "train --resume run --quiet --cache-dir cache").done();
    adali(
        cwd,
        "compare --data n-mnist --data-dir events --cache-dir cache --surrogates adali,arctan --seeds 1 --channels 8 \
                --epochs 1 --batch 8 --out compared --quiet",
    )
    .done();
    assert_eq!(caches(cwd).len(), 2, "T = 5 and T = 16");
}

#[test]
fn bad_recordings_and_folders_are_named() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    let train = |more: &str| adali(cwd, &format!("train --quiet --cache-dir cache {more}"));
    train("--data n-mnist").failed(2, &["n-mnist is not built in", "simulate-events"]);
    train("--data n-mnist --data-dir nowhere").failed(2, &["nowhere does not exist"]);
    for (source, part) in
        [("n-mnist", "Train.zip"), ("cifar10-dvs", "figshare"), ("dvs-gesture", "trials_to_train.txt")]
    {
        train(&format!("--data {source} --data-dir .")).failed(2, &["does not hold", source, part]);
    }
    train("--data digits --downsample 2").failed(2, &["--downsample", "digits"]);
    train("--data digits --frames-by time").failed(2, &["--frames-by", "digits"]);
    train("--data digits --crop 1 --roll 1").failed(2, &["crop padding 1", "roll 1"]);
    train("--data digits --roll 8").failed(2, &["roll 8", "8"]);
    train("--data digits --drop 1").failed(2, &["drop 1"]);
    simulate(cwd, "events", "").done();
    train("--data n-mnist --data-dir events --steps 0").failed(2, &["frames 0", "4096"]);
    train("--data n-mnist --data-dir events --downsample 17").failed(2, &["downsample 17", "16"]);
    let recording = cwd.join("events/Test/0/77777.bin");
    fs::write(&recording, [20, 3, 0, 0, 0]).unwrap();
    train("--data n-mnist --data-dir events").failed(2, &["77777.bin", "column 20, row 3", "16x16"]);
    fs::write(&recording, [1, 3, 0, 0]).unwrap();
    train("--data n-mnist --data-dir events").failed(2, &["77777.bin", "ends within an event"]);
    fs::write(cwd.join("events/simulation.toml"), "side = 34").unwrap();
    fs::write(&recording, []).unwrap();
    let ran = train("--data n-mnist --data-dir events --epochs 1 --batch 8 --channels 8 --out run");
    let ran = noted(ran, &["1 of 41 test recordings have no event, so their frames are empty (Test/0/77777.bin)"]);
    assert!(
        ran.out.is_empty() && cwd.join("run/result.json").exists(),
        "an empty recording is a sample of zeros: {ran}"
    );
    assert_eq!(caches(cwd).len(), 1, "what failed is not cached");
}

#[test]
fn the_presets_for_recordings_train_to_the_end() {
    let home = TempDir::new().unwrap();
    adali(home.path(), "simulate-events --data digits --limit 12 --side 32 --out events").done();
    let mut cases = 0;
    for more in [
        "--network vgg11 --downsample 2",
        "--network vgg11 --downsample 2 --norm weight",
        "--network vgg11 --downsample 2 --norm none",
        "--network dvs-gesture-net --channels 8",
        "--network conv2 --channels 8",
    ] {
        let arguments = format!(
            "train --data n-mnist --data-dir events --cache-dir cache --force --out run --neuron if --epochs 1 --batch 4 \
             --limit 8 --validation 0 --quiet {more}"
        );
        // So few images do not cover all classes.
        noted(adali(home.path(), &arguments), &["no training sample of class 4, 9, but", "no test sample of class"]);
        assert_eq!(result(&home.path().join("run"))["test_samples"], 12);
        let text = String::from_utf8(bytes(home.path().join("run/config.toml"))).unwrap();
        assert!(text.contains("steps = 16") && text.contains("input = \"frames\""), "{text}");
        cases += 1;
    }
    assert_eq!(cases, 5);
}

#[test]
fn frames_by_time_span_all_events_and_disorder_is_said() {
    let case = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/frames-by-time-outlier");
    let by_time = Integration { frames: 4, frames_by: FramesBy::Time, ..Integration::default() };
    let data =
        load_as(DataSource::NMnist, Some(&case), &Request { integration: by_time, ..Request::default() }).unwrap();
    let mut cases = 0;
    for part in [&data.train, &data.test] {
        for index in 0..part.len() {
            let sample = part.sample(index);
            let frames = sample.chunks(34 * 34 * 2).map(|frame| frame.iter().map(|&n| u32::from(n)).sum());
            let frames: Vec<u32> = frames.collect();
            assert!(frames.iter().all(|events| (30..80).contains(events)), "{frames:?}");
            assert_eq!(frames.iter().sum::<u32>(), 201);
            cases += 1;
        }
    }
    assert_eq!(cases, 6);
    assert!(
        data.notes.len() == 1 && data.notes[0].contains("6 of 6 recordings have events out of order"),
        "{:?}",
        data.notes
    );

    let home = TempDir::new().unwrap();
    let train = format!(
        "train --data n-mnist --data-dir {} --cache-dir cache --channels 4 --steps 4 --epochs 1 --batch 2 --validation 0 \
         --quiet --force --out run",
        case.display()
    );
    // A second start, from the cache, prints the note again.
    for _ in 0..2 {
        noted(adali(home.path(), &format!("{train} --frames-by time")), &["frames by time take each at its time"]);
    }
    noted(adali(home.path(), &train), &["6 of 6 recordings have events out of order (6 in all)"]);
}

#[test]
fn recordings_without_events_are_counted_and_all_of_them_are_an_error() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    for (part, class, number) in ["Train", "Test"].into_iter().flat_map(|part| (0..6).map(move |i| (part, i % 2, i))) {
        write_recording(&cwd.join(format!("events/{part}/{class}/{number}.bin")), if number < 4 { 0 } else { 200 });
    }
    let train = training("run", "--batch 2 --epochs 1 --validation 0 --force").replace("--epochs 2 --batch 8 ", "");
    noted(adali(cwd, &train), &["4 of 6 training recordings have no event", "4 of 6 test recordings have no event"]);
    write_recording(&cwd.join("events/Test/0/4.bin"), 0);
    write_recording(&cwd.join("events/Test/1/5.bin"), 0);
    adali(cwd, &train).failed(2, &["none of the 6 test recordings has an event"]);
    for number in 0..6 {
        write_recording(&cwd.join(format!("events/Train/{}/{number}.bin", number % 2)), 0);
    }
    adali(cwd, &train).failed(2, &["none of the 6 training recordings has an event"]);
    assert_eq!(caches(cwd).len(), 1, "what failed is not cached");
}

#[test]
fn folders_of_recordings_as_people_have_them() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    let train = training("run", "--batch 2 --epochs 1 --force").replace("--epochs 2 --batch 8 ", "");
    for (part, class) in [("train", 0), ("train", 1), ("test", 0), ("test", 1)] {
        for number in 0..4 {
            write_recording(&cwd.join(format!("events/{part}/{class}/{number}.BIN")), 100);
            write_recording(&cwd.join(format!("events/{part}/{class}/._{number}.BIN")), 3);
        }
        write_recording(&cwd.join(format!("events/__MACOSX/{part}/{class}/._0.BIN")), 3);
    }
    adali(cwd, &train).done();
    assert_eq!(result(&cwd.join("run"))["test_samples"], 8);
    fs::write(cwd.join("events/train/1/notes.txt"), "").unwrap();
    fs::create_dir_all(cwd.join("events/validation/0")).unwrap();
    noted(adali(cwd, &train), &["validation, train/1/notes.txt are not used"]);
    // The test part has a class that the training part lacks, and vice versa.
    write_recording(&cwd.join("events/test/2/0.BIN"), 100);
    adali(cwd, &train).failed(2, &["events/train has no folder 2", "events/test"]);
    fs::rename(cwd.join("events/test/2"), cwd.join("events/train/2")).unwrap();
    adali(cwd, &train).failed(2, &["events/test has no folder 2"]);
    fs::create_dir(cwd.join("events/test/2")).unwrap();
    noted(adali(cwd, &train), &["are not used", "no test sample of class 2"]);
    fs::remove_dir_all(cwd.join("events/test")).unwrap();
    adali(cwd, &train).failed(2, &["has no Test, so n-mnist is not complete"]);
}

#[test]
fn two_processes_share_a_cache() {
    // ADALI_PAIRS=20 for more; CI has little time.
    let pairs: usize = std::env::var("ADALI_PAIRS").map_or(5, |pairs| pairs.parse().unwrap());
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    simulate(cwd, "events", "").done();
    adali(cwd, &training("run", "--epochs 1").replace("--epochs 2 ", "")).done();
    let [cache] = &caches(cwd)[..] else { panic!("{:?}", caches(cwd)) };
    let kept = bytes(cache);
    let eval = "eval run --json --cache-dir cache --threads 1";
    let expected = adali(cwd, eval).done().out;
    for pair in 0..pairs {
        fs::remove_file(cache).unwrap();
        let started = [(); 2].map(|()| command(cwd, eval).spawn().unwrap());
        for child in started {
            let ran = finish(child, eval).done();
            assert_eq!(ran.out, expected, "pair {pair}");
        }
        assert_eq!(caches(cwd), std::slice::from_ref(cache), "pair {pair}");
        assert!(bytes(cache) == kept, "pair {pair}");
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_only_said() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    simulate(cwd, "events", "").done();
    adali(cwd, &training("run", "")).done();
    let [cache] = &caches(cwd)[..] else { panic!("{:?}", caches(cwd)) };
    assert!(fs::metadata(cache).unwrap().len() > 8192);
    fs::remove_file(cache).unwrap();
    // Limits file size to 8 KiB and ignores the signal, so that writes fail.
    let mut shell = std::process::Command::new("sh");
    shell.current_dir(cwd).args(["-c", "trap '' XFSZ; ulimit -f 16; exec \"$0\" eval run --json --cache-dir cache"]);
    shell.arg(env!("CARGO_BIN_EXE_adali")).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let ran = noted(run(shell), &["the frames are not kept for the next time"]);
    assert_eq!(ran.json()["accuracy"], result(&cwd.join("run"))["test_accuracy"]);
    assert_eq!(caches(cwd), [""; 0].map(PathBuf::from), "something was left");
}

#[test]
fn a_network_that_is_named_is_the_only_one_that_counts() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    for class in ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"] {
        for number in 0..10 {
            let path = cwd.join(format!("dvs/{class}/{number}.aedat"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            // Addresses of a DVS128, big-endian: y in bits 8 to 14, x in bits 1 to 7, the polarity in bit 0.
            let event = |i: u32| [((i % 128) << 8) | ((i % 100) << 1) | (i % 2), i].map(u32::to_be_bytes).concat();
            let header = b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n".to_vec();
            fs::write(path, [header, (0..50).flat_map(event).collect()].concat()).unwrap();
        }
    }
    let train = "train --data cifar10-dvs --data-dir dvs --cache-dir cache --channels 2 --epochs 1 --quiet --batch 8";
    adali(cwd, &format!("{train} --network conv2 --out run")).done();
    adali(cwd, &format!("{train} --network conv2 --norm weight --out weight")).done();
    adali(cwd, train).failed(2, &["--channels 2", "network vgg11", "--network"]);
    adali(cwd, &format!("{train} --network vgg11")).failed(2, &["--channels 2", "network vgg11"]);
    assert_eq!(fs::read_dir(cwd).unwrap().count(), 4, "dvs, cache and two runs");
}

#[test]
fn the_samples_that_are_used_are_said() {
    let home = TempDir::new().unwrap();
    let cwd = home.path();
    let train = |more: &str| adali(cwd, &format!("train --force --out run --channels 4 --epochs 1 {more}")).done().out;
    for (more, said) in [
        ("", "1294 to train on (14 per epoch unused: they do not fill a batch of 32), 144 held out"),
        ("--batch 1294", "1294 to train on, 144 held out"),
        ("--limit 90 --batch 20", "90 to train on (10 per epoch unused: they do not fill a batch of 20), 10 held out"),
        ("--limit 90 --batch 30 --validation 0.25", "90 to train on, 30 held out"),
        ("--limit 90 --batch 30 --validation 0", "90 to train on, 0 held out"),
    ] {
        let out = train(more);
        assert!(out.contains(&format!("data     digits (built in): {said}\n")), "{more}: {out}");
    }
    // `eval` uses the same parts.
    train("--limit 90 --batch 30");
    let scores = |part: &str| adali(cwd, &format!("eval run --json --part {part}")).done().json();
    assert_eq!((&scores("training")["samples"], &scores("test")["samples"]), (&90.into(), &359.into()));
    let held = scores("validation");
    assert_eq!((&held["samples"], &held["accuracy"]), (&10.into(), &result(&cwd.join("run"))["validation_accuracy"]));
}
