//! Folders shared by two processes, files that must not be overwritten, runs that are replaced, readers that disappear.

use crate::process::{
    Ran, Random, adali, assert_same, bytes, command, copy, finish, first_line, result, signal, snapshot, tiny, train,
    write_images,
};
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Pairs of processes; `ADALI_TEST_PAIRS` for more.
fn pairs() -> u64 {
    std::env::var("ADALI_TEST_PAIRS").ok().map_or(4, |text| text.parse().expect("ADALI_TEST_PAIRS is a number"))
}

fn begin(home: &Path, arguments: &str) -> Child {
    command(home, arguments).spawn().unwrap()
}

/// Waits until a file exists.
fn wait_for(file: &Path) {
    let begin = Instant::now();
    while !file.exists() {
        assert!(begin.elapsed() < Duration::from_secs(60), "{} never came", file.display());
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn in_use(ran: Ran, pid: u32) -> Ran {
    ran.failed(2, &["is in use by process", &pid.to_string(), "begun", "adali train"])
}

#[test]
fn two_trainings_in_one_folder_leave_one_run() {
    let home = TempDir::new().unwrap();
    let mut random = Random::new("two_trainings_in_one_folder");
    for seed in [0, 5] {
        train(home.path(), &format!("s{seed}"), &format!("--epochs 6 --threads 1 --seed {seed}"));
    }
    let (mut refused, mut after) = (0, 0);
    for _ in 0..pairs() {
        let forced = |seed| tiny("two", &format!("--force --epochs 6 --threads 1 --seed {seed}"));
        let first = begin(home.path(), &forced(0));
        std::thread::sleep(Duration::from_millis(random.below(150)));
        let second = begin(home.path(), &forced(5));
        let ends = [finish(first, "first"), finish(second, "second")];
        for ran in &ends {
            assert!(ran.code == Some(0) || (ran.code == Some(2) && ran.err.contains("in use by")), "{ran}");
        }
        let done: Vec<_> =
            ends.iter().zip(["s0", "s5"]).filter(|(ran, _)| ran.code == Some(0)).map(|end| end.1).collect();
        assert!(!done.is_empty(), "both were refused");
        (refused, after) = (refused + 2 - done.len(), after + usize::from(done.len() == 2));
        let seed = bytes(home.path().join("two/config.toml")).starts_with(b"seed = 5");
        let left = if seed { "s5" } else { "s0" };
        assert!(done.contains(&left));
        assert_same(&home.path().join(left), &home.path().join("two"), "two trainings at once");
        assert_eq!(snapshot(&home.path().join("two")).len(), 8);
        adali(home.path(), "eval two").done();
    }
    eprintln!("{} pairs: {refused} refused, {after} one after the other", pairs());
    assert!(refused > 0);
}

#[test]
fn who_works_in_a_folder_is_said() {
    let home = TempDir::new().unwrap();
    let whole = train(home.path(), "whole", "--epochs 400");
    let child = begin(home.path(), &tiny("run", "--epochs 400"));
    wait_for(&home.path().join("run/state.safetensors"));
    for other in [tiny("run", "--force"), "train --resume run".into(), "compare --resume run".into()] {
        let ran = adali(home.path(), &other);
        if other.starts_with("train") { drop(in_use(ran, child.id())) } else { drop(ran.failed(2, &["comparison"])) }
    }
    adali(home.path(), "eval run").done();
    adali(home.path(), &tiny("run", "")).failed(2, &["already holds a run"]);
    finish(child, "the first").done();
    assert_same(&whole, &home.path().join("run"), "others came");
    // Two runs without --out choose different folders.
    let both = [0, 1].map(|_| begin(home.path(), "train --quiet --channels 8 --epochs 1 --limit 64"));
    both.into_iter().for_each(|child| drop(finish(child, "without --out").done()));
    assert_eq!(fs::read_dir(home.path().join("runs")).unwrap().count(), 2);
}

#[test]
fn files_of_different_runs_are_refused() {
    let home = TempDir::new().unwrap();
    let a = train(home.path(), "a", "--seed 0");
    let b = train(home.path(), "b", "--seed 5");
    let mut cases = 0;
    for file in ["config.toml", "model.safetensors", "state.safetensors", "metrics.jsonl", "result.json"] {
        let mixed = home.path().join(format!("mixed-{cases}"));
        copy(&a, &mixed);
        fs::copy(b.join(file), mixed.join(file)).unwrap();
        let before = snapshot(&mixed);
        for said in ["eval", "inspect", "train --resume"] {
            let mut parts = vec!["files of different runs", file];
            if said.contains("resume") && file == "config.toml" {
                parts = vec!["different runs"];
            }
            adali(home.path(), &format!("{said} mixed-{cases}")).failed(2, &parts);
        }
        assert!(snapshot(&mixed) == before);
        adali(home.path(), &format!("eval mixed-{cases}/model.safetensors")).done();
        cases += 1;
    }
    // Files of older versions do not identify their run.
    let old = home.path().join("old");
    copy(&a, &old);
    let unsigned = |file: &str| String::from_utf8(bytes(a.join(file))).unwrap();
    let config: String =
        unsigned("config.toml").lines().filter(|line| !line.starts_with('#')).map(|l| l.to_string() + "\n").collect();
    fs::write(old.join("config.toml"), config).unwrap();
    let mut result: serde_json::Value = serde_json::from_str(&unsigned("result.json")).unwrap();
    result.as_object_mut().unwrap().remove("identity").unwrap();
    fs::write(old.join("result.json"), result.to_string()).unwrap();
    for file in ["model.safetensors", "state.safetensors"] {
        let mut tensors = crate::process::tensors::Tensors::read(&old.join(file));
        let text = tensors.descriptions["config"].as_str().unwrap().split("# adali").next().unwrap().to_string();
        tensors.descriptions.insert("config".into(), json!(text));
        tensors.write(&old.join(file));
    }
    adali(home.path(), "eval old").done();
    adali(home.path(), "train --quiet --resume old").done();
    adali(home.path(), "eval old").done();
    assert_eq!(cases, 5);
}

#[test]
fn a_forced_training_keeps_the_old_run_until_it_has_a_checkpoint() {
    let home = TempDir::new().unwrap();
    let mut random = Random::new("a_forced_training_keeps_the_old_run");
    let old = train(home.path(), "old", "");
    let new = train(home.path(), "new", "--epochs 8 --seed 3");
    let run = home.path().join("run");
    copy(&old, &run);
    fs::write(run.join("notes.txt"), "mine").unwrap();
    // It fails before its first checkpoint.
    let said = adali(home.path(), &tiny("run", "--force --learning-rate 1e30"))
        .failed(1, &["run still holds the run from before"]);
    assert!(said.err.contains("lower the learning rate"), "{said}");
    assert_same(&old, &run, "the new one failed");
    // A kill at any moment leaves either the old run or the new one.
    let (mut kept, mut replaced) = (0, 0);
    for _ in 0..12 {
        let mut child = begin(home.path(), &tiny("run", "--force --epochs 8 --seed 3"));
        std::thread::sleep(Duration::from_micros(random.below(250_000)));
        child.kill().unwrap();
        finish(child, "killed");
        adali(home.path(), "eval run").done();
        if bytes(run.join("config.toml")) == bytes(old.join("config.toml")) {
            // The next training removes leftovers of a kill; this comparison needs them gone now.
            if run.join(".adali.next").exists() {
                fs::remove_dir_all(run.join(".adali.next")).unwrap();
            }
            assert_same(&old, &run, "killed before the first checkpoint");
            kept += 1;
        } else {
            adali(home.path(), "train --quiet --resume run").done();
            assert_same(&new, &run, "killed and continued");
            fs::remove_dir_all(&run).unwrap();
            copy(&old, &run);
            fs::write(run.join("notes.txt"), "mine").unwrap();
            replaced += 1;
        }
        assert_eq!(bytes(run.join("notes.txt")), b"mine");
    }
    eprintln!("{kept} kept, {replaced} replaced");
    // A kill in the middle of the exchange, at each of its steps.
    for (step, moved) in [("next", 0), ("commit", 0), ("moving", 0), ("moving", 3)] {
        fs::remove_dir_all(&run).unwrap();
        copy(&old, &run);
        let staged = run.join(format!(".adali.{step}"));
        copy(&new, &staged);
        if step == "moving" {
            for (i, name) in snapshot(&new).into_keys().filter(|name| !name.starts_with('.')).enumerate() {
                fs::remove_file(run.join(&name)).unwrap();
                if i < moved {
                    fs::rename(staged.join(&name), run.join(&name)).unwrap();
                }
            }
        }
        adali(home.path(), "eval run").done();
        adali(home.path(), "train --quiet --resume run").done();
        assert_same(if step == "next" { &old } else { &new }, &run, step);
        assert!(snapshot(&run).keys().all(|name| !name.starts_with(".adali.") || name == ".adali.lock"), "{step}");
    }
}

#[test]
fn folders_of_others_and_inputs_are_never_replaced() {
    let home = TempDir::new().unwrap();
    train(home.path(), "run", "");
    fs::create_dir(home.path().join("work")).unwrap();
    fs::write(home.path().join("work/config.toml"), "[package]\nname = \"mine\"\n").unwrap();
    fs::write(home.path().join("work/plan.toml"), "monday = \"rest\"\n").unwrap();
    fs::write(home.path().join("file"), "mine").unwrap();
    fs::copy(home.path().join("run/config.toml"), home.path().join("net.toml")).unwrap();
    let before = snapshot(home.path());
    let mut cases = 0;
    for force in ["", " --force"] {
        for command in ["train --epochs 1 --limit 64", "compare --seeds 1 --epochs 1 --limit 64"] {
            for (out, parts) in [
                ("/", &["root of the file system"][..]),
                ("work", &["work holds config.toml", "name another folder"]),
                ("file", &["file is a file"]),
                ("file/x", &["cannot make file/x"]),
            ] {
                adali(home.path(), &format!("{command} --out {out}{force}")).failed(2, parts);
                cases += 1;
            }
        }
        adali(home.path(), &format!("compare --seeds 1 --out run{force}")).failed(2, &["run holds config.toml"]);
        cases += 1;
    }
    adali(home.path(), "train --config run/config.toml --out run --force")
        .failed(2, &["run/config.toml, which is read"]);
    assert!(snapshot(home.path()) == before);
    assert_eq!(cases, 18);
}

#[test]
fn a_file_of_the_users_is_not_overwritten() {
    let home = TempDir::new().unwrap();
    let plain = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases/svg-over-the-recording/r.npz");
    fs::copy(plain, home.path().join("r.npz")).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink("r.npz", home.path().join("link.npz")).unwrap();
    fs::write(home.path().join("old"), "mine").unwrap();
    train(home.path(), "run", "");
    let before = snapshot(home.path());
    let mut cases = 0;
    for (arguments, parts) in [
        ("events r.npz --svg r.npz", &["--svg r.npz", "never overwritten"][..]),
        ("events r.npz --svg r.npz --force", &["--svg r.npz", "never overwritten"]),
        ("events r.npz --svg link.npz --force", &["--svg link.npz", "never overwritten"]),
        ("events link.npz --svg ./r.npz --force", &["never overwritten"]),
        ("events r.npz --svg old", &["old exists", "--force"]),
        ("events r.npz --svg nowhere/x", &["no folder nowhere"]),
        ("bench update --json old", &["old exists", "--force"]),
        ("bench update --json nowhere/x", &["no folder nowhere"]),
        ("bench update --json x --svg x", &["x itself"]),
        ("bench update --json /dev/null --force", &["no regular file"]),
        ("inspect run --out run/metrics.jsonl --force", &["never overwritten"]),
    ] {
        adali(home.path(), arguments).failed(2, parts);
        assert!(snapshot(home.path()) == before, "{arguments} changed something");
        cases += 1;
    }
    adali(home.path(), "events r.npz --svg old --force").done();
    assert!(bytes(home.path().join("old")).starts_with(b"<svg"));
    assert_eq!(cases, 11);
}

#[test]
fn a_training_whose_reader_leaves_goes_on_to_its_result() {
    let home = TempDir::new().unwrap();
    let whole = train(home.path(), "whole", "--epochs 8");
    let mut child = begin(home.path(), &tiny("run", "--epochs 8 --json").replace("--quiet ", ""));
    first_line(&mut child);
    // Both standard output and standard error are closed.
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(finish(child, "its reader left").code, Some(0));
    assert_same(&whole, &home.path().join("run"), "its reader left");
    let mut child =
        begin(home.path(), "compare --surrogates adali --seeds 1 --epochs 2 --limit 128 --channels 4 --out both");
    first_line(&mut child);
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(finish(child, "its reader left").code, Some(0));
    assert!(home.path().join("both/adali/seed-0/result.json").exists());
}

/// 64 training images and many test images.
fn write_many(folder: &Path, count: u32) {
    write_images(folder);
    for (part, header, each) in [("images-idx3", vec![0x803, count, 8, 8], 64), ("labels-idx1", vec![0x801, count], 1)]
    {
        let header = header.into_iter().flat_map(u32::to_be_bytes);
        let values = (0..count as usize * each).map(|i| (i % 10) as u8);
        fs::write(folder.join(format!("t10k-{part}-ubyte")), header.chain(values).collect::<Vec<_>>()).unwrap();
    }
}

#[test]
fn a_signal_in_the_final_test_is_answered_and_the_test_continued() {
    let home = TempDir::new().unwrap();
    write_many(&home.path().join("images"), 40_000);
    let data = "--data mnist --data-dir images --batch 16 --limit 0 --epochs 1 --channels 32 --threads 1";
    let whole = train(home.path(), "whole", data);
    // Under nohup the program ignores HUP, as it should.
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    let names = if ignored.is_some_and(|mask| mask & 1 == 1) { &["INT", "TERM"][..] } else { &["INT", "TERM", "HUP"] };
    for &name in names {
        let child = begin(home.path(), &tiny(name, data));
        wait_for(&home.path().join(name).join("state.safetensors"));
        std::thread::sleep(Duration::from_millis(100));
        assert!(!home.path().join(name).join("result.json").exists(), "the test was too short");
        let asked = Instant::now();
        signal(&child, name);
        let ran = finish(child, name);
        assert!(asked.elapsed() < Duration::from_secs(2), "{name} was answered after {:?}", asked.elapsed());
        assert!(ran.code == Some(130) && ran.err.contains(&format!("adali train --resume {name}")), "{ran}");
        assert!(!home.path().join(name).join("result.json").exists());
        adali(home.path(), &format!("train --quiet --resume {name}")).done();
        assert_same(&whole, &home.path().join(name), name);
    }
    assert_eq!(result(&whole)["test_samples"], 40_000);
}

#[test]
fn a_second_interrupt_ends_at_once_and_loses_no_checkpoint() {
    let home = TempDir::new().unwrap();
    let child = begin(home.path(), &tiny("run", "--epochs 100000"));
    wait_for(&home.path().join("run/state.safetensors"));
    // A signal that a wrapper sends twice at once counts as one.
    signal(&child, "INT");
    signal(&child, "INT");
    let ran = finish(child, "twice at once");
    assert!(ran.code == Some(130) && ran.err.contains("adali train --resume run"), "{ran}");
    let mut child = begin(home.path(), "bench train_step --network vgg11 --input 3x64x64 --batch 512 --threads 1");
    first_line(&mut child);
    std::thread::sleep(Duration::from_millis(1500));
    signal(&child, "INT");
    std::thread::sleep(Duration::from_millis(600));
    if child.try_wait().unwrap().is_none() {
        signal(&child, "INT");
    }
    let asked = Instant::now();
    assert_eq!(finish(child, "a second interrupt").code, Some(130));
    assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
}

/// A comparison that takes less than a second.
fn small(out: &str, more: &str) -> String {
    format!("compare --seeds 2 --epochs 2 --limit 128 --channels 4 --quiet --out {out} {more}")
}

#[test]
fn a_forced_comparison_keeps_the_old_one_until_it_has_a_checkpoint() {
    let home = TempDir::new().unwrap();
    let mut random = Random::new("a_forced_comparison");
    adali(home.path(), &small("out", "--surrogates adali,sigmoid")).done();
    let out = home.path().join("out");
    fs::write(out.join("notes.txt"), "mine").unwrap();
    let before = snapshot(&out);
    let failed = small("out", "--surrogates arctan --learning-rate 1e30 --force");
    adali(home.path(), &failed).failed(1, &["all 2 runs failed", "lower the learning rate", "out still holds"]);
    assert!(snapshot(&out) == before, "the old comparison was changed");
    let (mut kept, mut replaced) = (0, 0);
    for _ in 0..6 {
        let mut child = begin(home.path(), &small("out", "--surrogates arctan,triangle --force"));
        std::thread::sleep(Duration::from_micros(random.below(250_000)));
        child.kill().unwrap();
        finish(child, "killed");
        let again = adali(home.path(), "compare --resume out --json").done();
        let report: serde_json::Value = serde_json::from_str(again.out.lines().last().unwrap()).unwrap();
        let first = report["configurations"][0]["name"].as_str().unwrap().to_string();
        assert_eq!(report["configurations"][1]["finished"], 2);
        assert_eq!(bytes(out.join("notes.txt")), b"mine");
        let folders = ["adali", "sigmoid", "arctan", "triangle"].map(|name| out.join(name).exists());
        if first == "adali" {
            assert_eq!(folders, [true, true, false, false]);
            kept += 1;
        } else {
            assert_eq!(folders, [false, false, true, true]);
            adali(home.path(), &small("out", "--surrogates adali,sigmoid --force")).done();
            replaced += 1;
        }
    }
    eprintln!("{kept} kept, {replaced} replaced");
    // Only one comparison per folder at a time.
    let child =
        begin(home.path(), &small("out", "--surrogates arctan --force --epochs 200").replacen("--epochs 2 ", "", 1));
    wait_for(&out.join("arctan/seed-0/state.safetensors"));
    let pid = child.id().to_string();
    for other in [small("out", "--force"), "compare --resume out".into(), "train --resume out/arctan/seed-0".into()] {
        adali(home.path(), &other).failed(2, &["in use by process", &pid, "adali compare"]);
    }
    signal(&child, "INT");
    assert_eq!(finish(child, "interrupted").code, Some(130));
}
