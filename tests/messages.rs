//! Messages to the user: one line that names what is wrong, with no control characters.

use crate::process::{adali, bytes, command, run, snapshot};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn cases() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

#[test]
fn nothing_from_outside_commands_the_terminal() {
    let home = TempDir::new().unwrap();
    let escapes = cases().join("terminal-escapes");
    fs::create_dir_all(home.path().join("a\u{1b}[31m\u{202e}b")).unwrap();
    let mut seen = 0;
    for words in [
        vec!["events".into(), escapes.join("escape.csv").display().to_string()],
        vec!["train".into(), "--network".into(), escapes.join("key.toml").display().to_string()],
        vec!["train".into(), "--network".into(), escapes.join("val.toml").display().to_string()],
        vec!["train".into(), "--network".into(), "a\u{1b}[31m\u{7}\n".into()],
        vec!["train".into(), "--config".into(), "\u{202e}lmot.gifnoc".into()],
        vec!["train".into(), "--epochs".into(), "\u{1b}]0;x\u{7}".into()],
        vec!["\u{1b}[2J".into()],
        vec!["eval".into(), "a\u{1b}[31m\u{202e}b".into()],
        vec!["train".into(), "--resume".into(), "a\u{1b}[31m\u{202e}b".into()],
        vec!["info".into(), "--sass".into(), "\u{9b}31m".into()],
        vec!["bench".into(), "\u{1b}[31m".into()],
    ] {
        let mut command = command(home.path(), "");
        command.args(&words);
        let ran = run(command);
        assert_eq!(ran.code, Some(2), "{words:?}: {ran}");
        let raw = |c: char| (c.is_control() && c != '\n') || ('\u{202a}'..='\u{202e}').contains(&c);
        assert!(!ran.err.contains(raw) && !ran.out.contains(raw), "{words:?}: {:?}", ran.err);
        let by_clap = ran.err.contains("--help");
        assert!(by_clap || ran.err.trim_end().lines().count() == 1, "{words:?}: {:?}", ran.err);
        seen += usize::from(
            ["\\u001b", "\\u202e", "\\u009b", "\\u{1b}", "\\u{9b}"].iter().any(|escape| ran.err.contains(escape)),
        );
    }
    // clap drops escape sequences from what it quotes.
    assert_eq!(seen, 9);
}

#[test]
fn negative_values_name_their_option() {
    let home = TempDir::new().unwrap();
    let mut cases = 0;
    for (line, option) in [
        ("train --epochs -1", "--epochs"),
        ("train --seed -1", "--seed"),
        ("train --batch -64", "--batch"),
        ("train --limit -1", "--limit"),
        ("train --threads -1", "--threads"),
        ("inspect x --samples -1,2", "--samples"),
        ("eval x --batch -2", "--batch"),
        ("bench --rounds -1", "--rounds"),
        ("compare --seeds -1", "--seeds"),
        ("simulate-events --data digits --out o --limit -1", "--limit"),
        ("events x --frames -1", "--frames"),
        ("train --learning-rate -0.1", "learning_rate -0.1"),
        ("train --learning-rate -1e-3", "learning_rate -0.001"),
        ("train --tau -.5", "tau -0.5"),
        ("train --left -1 2", "left = [-1.0, 2.0]"),
    ] {
        let ran = adali(home.path(), line);
        assert_eq!(ran.code, Some(2), "{line}: {ran}");
        assert!(ran.err.contains(option) && !ran.err.contains("unexpected"), "{line}: {ran}");
        cases += 1;
    }
    assert_eq!(cases, 15);
    assert!(fs::read_dir(home.path()).unwrap().next().is_none());
}

#[test]
fn json_is_one_line_and_quiet_is_none() {
    let home = TempDir::new().unwrap();
    let tiny = "--channels 4 --epochs 1 --limit 64 --threads 1";
    let train = format!("train {tiny} --out");
    let compare = format!("compare {tiny} --surrogates adali --seeds 1 --out");
    let simulate = "simulate-events --data digits --limit 2 --out";
    let mut cases = 0;
    for (line, json, quiet) in [
        (train.as_str(), "a b", Some("c")),
        (compare.as_str(), "d", Some("e")),
        (simulate, "f", Some("g")),
        ("eval", "a b", None),
        ("info --device cpu --data-dir", "f", None),
    ] {
        let words = |more: &[&str]| {
            let mut command = command(home.path(), line);
            command.args(more);
            run(command).done()
        };
        let ran = words(&[json, "--json"]);
        assert_eq!(ran.out.lines().count(), 1, "{ran}");
        serde_json::from_str::<serde_json::Value>(&ran.out).unwrap();
        if let Some(quiet) = quiet {
            assert_eq!(words(&[quiet, "--quiet"]).out, "", "{line}");
        }
        cases += 1;
    }
    assert_eq!(cases, 5);
}

#[test]
fn a_bench_that_could_not_be_written_measures_nothing() {
    let home = TempDir::new().unwrap();
    for option in ["--json", "--svg"] {
        let ran = adali(home.path(), &format!("bench {option} no/such/x")).failed(2, &["no/such"]);
        assert!(ran.out.is_empty(), "{ran}");
        adali(home.path(), &format!("bench {option} /")).failed(2, &["is a folder"]);
    }
}

/// `--quiet` keeps what `--json` prints, and notes and errors.
#[test]
fn quiet_means_the_same_everywhere() {
    let home = TempDir::new().unwrap();
    let simulate = "simulate-events --data digits --limit 2 --out";
    let train = "train --channels 4 --epochs 1 --limit 64 --out";
    for line in [&format!("{simulate} events"), &format!("{train} run")] {
        assert!(adali(home.path(), &format!("{line} --quiet")).done().out.is_empty(), "{line}");
    }
    let mut recordings = snapshot(&home.path().join("events")).into_keys().filter(|name| name.ends_with(".bin"));
    let events = format!("events events/{}", recordings.next().unwrap());
    let compare = "compare --surrogates adali --seeds 1 --channels 4 --epochs 1 --limit 64 --out";
    for (line, again) in [
        (&*events, &*events),
        ("eval run", "eval run"),
        ("network digits", "network digits"),
        ("info", "info"),
        ("info --kernels", "info --kernels"),
        (&format!("{simulate} e2"), &format!("{simulate} e3")),
        (&format!("{train} r2"), &format!("{train} r3")),
        (&format!("{compare} c2"), &format!("{compare} c3")),
    ] {
        let quiet = adali(home.path(), &format!("{line} -q")).done();
        assert!(quiet.out.is_empty(), "{quiet}");
        let json = adali(home.path(), &format!("-q {again} --json")).done();
        assert!(json.out.lines().count() == 1 && json.json().is_object(), "{json}");
    }
    let inspect = adali(home.path(), "inspect run -q").done();
    assert!(inspect.out.is_empty() && home.path().join("inspect.safetensors").exists(), "{inspect}");
    adali(home.path(), "eval nowhere -q").failed(2, &["nowhere"]);
}

#[test]
fn short_help_fits_a_screen_and_long_help_has_every_option() {
    let home = TempDir::new().unwrap();
    let mut cases = 0;
    for name in ["", "train", "compare", "bench", "eval", "events", "simulate-events", "inspect", "network", "info"] {
        let help = |option: &str| {
            let mut command = command(home.path(), &format!("{name} {option}"));
            command.env("COLUMNS", "80");
            run(command).done().out
        };
        let [short, long] = ["-h", "--help"].map(help);
        assert!(short.lines().count() <= 41, "{name}: {} lines:\n{short}", short.lines().count());
        for text in [&short, &long] {
            assert!(!text.contains('`') && !text.contains("\\["), "{name}: {text}");
        }
        cases += 1;
    }
    assert_eq!(cases, 10);
}

#[test]
fn a_run_that_is_damaged_is_an_input_error() {
    let home = TempDir::new().unwrap();
    adali(home.path(), "train --channels 4 --epochs 2 --limit 64 --quiet --out run").done();
    let mut cases = 0;
    for file in ["config.toml", "model.safetensors", "state.safetensors", "metrics.jsonl", "result.json"] {
        let path = home.path().join("run").join(file);
        let good = bytes(&path);
        for bad in [&b""[..], b"{", b"\xff\xfe\x00", &good[..good.len() / 2]] {
            fs::write(&path, bad).unwrap();
            for line in ["eval run", "train --quiet --resume run"] {
                let ran = adali(home.path(), line);
                // Damage to a file that a command does not read cannot make it fail.
                assert!(matches!(ran.code, Some(0 | 2)), "{file}, {line}: {ran}");
                cases += 1;
            }
        }
        fs::write(&path, good).unwrap();
    }
    assert_eq!(cases, 40);
}
