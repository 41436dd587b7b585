//! `adali compare` as a user runs it: plans, means, failures, kills and resumes, hostile plan files.

use crate::process::{
    Random, adali, assert_no_leftovers, bytes, command, finish, first_line, metrics, result, run, signal, snapshot,
};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

const PLAN: &str = r#"
seeds = [3, 1]
reach = 0.5
training = { epochs = 2, batch = 32 }
data.limit = 256
bounds.mode = "manual"

[[configurations]]
name = "log"

[[configurations]]
name = "track"
bounds.mode = "auto-track"
bounds.target = [0.5, 0.4]
training.learning_rate = 0.05

[[configurations]]
name = "arctan_2"
network.surrogate = { kind = "arctan", sharpness = 2.5 }
"#;

fn write_plan(home: &Path, text: &str) {
    fs::write(home.join("plan.toml"), text).unwrap();
}

fn report(folder: &Path) -> Value {
    serde_json::from_slice(&bytes(folder.join("compare.json"))).unwrap()
}

/// A report without times and system-dependent values.
fn without_times(report: &Value) -> Value {
    const TIMES: [&str; 7] =
        ["step_costs", "images_per_second", "peak_rss_bytes", "seconds", "command", "machine", "run"];
    match report {
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| !TIMES.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), without_times(value))).collect())
        }
        Value::Array(values) => values.iter().map(without_times).collect(),
        other => other.clone(),
    }
}

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-12 * a.abs().max(b.abs())
}

#[test]
fn a_plan_is_trained_and_its_means_are_those_of_the_run_folders() {
    let home = TempDir::new().unwrap();
    write_plan(home.path(), PLAN);
    let ran = adali(home.path(), "compare --plan plan.toml --channels 4 --out both --json");
    let ran = ran.done();
    let folder = home.path().join("both");
    let report = report(&folder);
    assert_eq!(serde_json::from_str::<Value>(ran.out.lines().last().unwrap()).unwrap(), report);
    assert_eq!(report["seeds"], serde_json::json!([3, 1]));
    assert!(report["command"].as_str().unwrap() == "adali compare --plan plan.toml --channels 4 --out both --json");
    let order: Vec<_> = report["runs"].as_array().unwrap().iter().map(|run| run["folder"].as_str().unwrap()).collect();
    let seeds_outermost =
        ["log/seed-3", "track/seed-3", "arctan_2/seed-3", "log/seed-1", "track/seed-1", "arctan_2/seed-1"];
    assert_eq!(order, seeds_outermost);
    let mut cases = 0;
    for (i, name) in ["log", "track", "arctan_2"].into_iter().enumerate() {
        let summary = &report["configurations"][i];
        assert_eq!((&summary["name"], &summary["finished"]), (&name.into(), &2.into()));
        let folders = [3, 1].map(|seed| folder.join(format!("{name}/seed-{seed}")));
        let of_results = |key: &str| folders.clone().map(|run| result(&run)[key].as_f64().unwrap());
        let of_layers = |run: &Path, key: &str| -> f64 {
            let probe: Value = serde_json::from_slice(&bytes(run.join("probe.json"))).unwrap();
            let neurons = |i: usize| probe["layers"][i]["neurons"].as_f64().unwrap();
            let all: f64 = (0..2).map(neurons).sum();
            let last = metrics(run).pop().unwrap();
            (0..2).map(|i| last["layers"][i][key].as_f64().unwrap() * neurons(i) / all).sum()
        };
        for (key, values) in [
            ("test_accuracy", of_results("test_accuracy")),
            ("validation_accuracy", of_results("validation_accuracy")),
            ("mean_slope", folders.clone().map(|run| of_layers(&run, "mean_slope"))),
            ("mean_square_slope", folders.clone().map(|run| of_layers(&run, "mean_square_slope"))),
            ("firing_rate", folders.clone().map(|run| of_layers(&run, "firing_rate"))),
        ] {
            let [a, b] = values;
            let wanted = [
                ("mean", (a + b) / 2.0),
                ("min", a.min(b)),
                ("max", a.max(b)),
                ("deviation", (a - b).abs() / 2f64.sqrt()),
            ];
            for (part, wanted) in wanted {
                let got = summary[key][part].as_f64().unwrap();
                assert!(close(got, wanted) || (got - wanted).abs() < 1e-15, "{name} {key} {part}: {got} and {wanted}");
                cases += 1;
            }
        }
        // Each run is an ordinary run: `eval` gives the same accuracy.
        let said = adali(home.path(), &format!("eval both/{name}/seed-3 --json")).done().json();
        assert_eq!(said["accuracy"].as_f64(), Some(of_results("test_accuracy")[0]));
        let epochs = metrics(&folders[0]).iter().position(|e| e["validation_accuracy"].as_f64() >= Some(0.5));
        assert_eq!(report["runs"][i]["epochs_to_reach"].as_u64(), epochs.map(|epoch| epoch as u64 + 1));
        let probe = &report["runs"][i]["probe"];
        assert_eq!((&probe["samples"], &probe["batches"]), (&28.into(), &4.into()));
        for gradient in probe["gradients"].as_array().unwrap() {
            assert!(gradient["norm"].as_f64().unwrap() > 0.0);
            cases += 1;
        }
        for layer in probe["layers"].as_array().unwrap() {
            let [dead, saturated] = ["dead", "saturated"].map(|key| layer[key].as_f64().unwrap());
            assert!((0.0..=1.0).contains(&dead) && saturated >= 0.0 && dead + saturated <= 1.0);
        }
        assert_eq!(summary["inside"].is_null(), name == "arctan_2");
        let cost = &report["step_costs"]["configurations"][i];
        assert!(cost["step"]["median"].as_f64() > Some(0.0) && cost["backward_share"]["median"].as_f64() < Some(1.0));
    }
    assert_eq!(cases, 3 * (5 * 4 + 3));
    assert_eq!(report["step_costs"]["configurations"][0]["ratio"]["max"], 1.0);
    let config = String::from_utf8(bytes(folder.join("arctan_2/seed-1/config.toml"))).unwrap();
    assert!(config.contains("seed = 1") && config.contains("sharpness = 2.5") && config.contains("channels = 4"));
    for file in ["compare.md", "accuracy.svg", "bounds.svg", "gradients.svg", "cost.svg"] {
        let text = String::from_utf8(bytes(folder.join(file))).unwrap();
        assert!(text.contains("log"), "{file}");
    }
    assert_no_leftovers(&folder);

    // The folder's own plan is complete: resuming gives the same report and has nothing left to do.
    let whole = without_times(&report);
    let before = snapshot(&folder.join("log"));
    adali(home.path(), "compare --resume both --quiet").done();
    assert!(snapshot(&folder.join("log")) == before, "a finished run was touched");
    assert_eq!(without_times(&self::report(&folder)), whole);
    adali(home.path(), "compare --plan both/plan.toml --out again --quiet").done();
    assert_eq!(without_times(&self::report(&home.path().join("again"))), whole);
    adali(home.path(), "compare --plan plan.toml --out both").failed(2, &["both", "--resume", "--force"]);
    assert_eq!(without_times(&self::report(&folder)), whole, "a refused command changed the report");
}

#[test]
fn surrogates_and_seeds_come_from_the_command_line() {
    let home = TempDir::new().unwrap();
    let options = "compare --surrogates adali,rectangle --seeds 2 --seed 5 --epochs 1 --limit 128 --channels 4";
    let ran = adali(home.path(), options).done();
    assert!(ran.out.contains("runs/compare-1: compare.md") && ran.out.contains("configuration  runs"), "{ran}");
    let report = report(&home.path().join("runs/compare-1"));
    let runs = report["runs"].as_array().unwrap();
    let what: Vec<_> =
        runs.iter().map(|run| (run["configuration"].as_str().unwrap(), run["seed"].as_u64().unwrap())).collect();
    assert_eq!(what, [("adali", 5), ("rectangle", 5), ("adali", 6), ("rectangle", 6)]);
    assert_eq!(report["configurations"][1]["configuration"]["network"]["surrogate"]["kind"], "rectangle");
    assert!(report["configurations"][1]["inside"]["mean"].as_f64() > Some(0.0), "the rectangle is a window, too");
    let folder = home.path().join("runs/compare-1");
    assert!(folder.join("bounds.svg").exists());
    let forced = adali(
        home.path(),
        "compare --surrogates arctan --seeds 1 --epochs 1 --limit 64 --out runs/compare-1 --force --quiet",
    );
    assert_eq!(forced.done().out, "");
    assert!(!folder.join("bounds.svg").exists(), "arctan has no bounds");
}

#[test]
fn seeds_added_later_give_what_they_give_at_once() {
    let home = TempDir::new().unwrap();
    let options = "--surrogates adali --seed 5 --epochs 1 --limit 128 --channels 4 --quiet";
    adali(home.path(), &format!("compare {options} --seeds 3 --out once")).done();
    adali(home.path(), &format!("compare {options} --seeds 1 --out grown")).done();
    let first = snapshot(&home.path().join("grown/adali/seed-5"));
    adali(home.path(), "compare --resume grown --seeds 3 --quiet").done();
    assert!(snapshot(&home.path().join("grown/adali/seed-5")) == first, "a finished run was touched");
    let grown = report(&home.path().join("grown"));
    assert_eq!(without_times(&grown), without_times(&report(&home.path().join("once"))));
    assert!(grown["command"].as_str().unwrap().ends_with("&& adali compare --resume grown --seeds 3 --quiet"));
    adali(home.path(), "compare --resume grown --seeds 2").failed(2, &["grown", "3 seeds", "--seeds 2"]);
}

#[test]
fn a_configuration_that_fails_loses_none_of_the_others() {
    let home = TempDir::new().unwrap();
    let plan = "training.epochs = 1\ndata.limit = 256\n[[configurations]]\nname = \"wild\"\ntraining.learning_rate = 1e30\n\
        [[configurations]]\nname = \"good\"\n";
    write_plan(home.path(), plan);
    let ran = adali(home.path(), "compare --plan plan.toml --channels 4 --seeds 2 --out out");
    let ran = ran.failed(1, &["2 of 4 runs failed", "out/compare.md"]);
    assert!(ran.out.matches("failed: ").count() == 2, "{ran}");
    let report = report(&home.path().join("out"));
    let mut cases = 0;
    for run in report["runs"].as_array().unwrap() {
        let wild = run["configuration"] == "wild";
        assert_eq!(run["status"], if wild { "failed" } else { "finished" });
        assert_eq!(wild, run["error"].as_str().is_some_and(|error| error.contains("lower the learning rate")), "{run}");
        cases += 1;
    }
    assert_eq!(cases, 4);
    assert_eq!(report["configurations"][0]["failed"], 2);
    assert!(report["configurations"][0]["test_accuracy"].is_null());
    assert_eq!(report["configurations"][1]["test_accuracy"]["count"], 2);
    let markdown = String::from_utf8(bytes(home.path().join("out/compare.md"))).unwrap();
    assert!(markdown.contains("`wild/seed-0`: ") && markdown.contains("0/2, 2 failed"), "{markdown}");
}

#[test]
fn after_kills_and_interrupts_a_resume_comes_to_the_same_report() {
    let home = TempDir::new().unwrap();
    let mut random = Random::new("after_kills_and_interrupts");
    write_plan(home.path(), &PLAN.replace("epochs = 2", "epochs = 6, checkpoint_every = 2"));
    let begin = std::time::Instant::now();
    adali(home.path(), "compare --plan plan.toml --channels 4 --out whole --quiet").done();
    let time = begin.elapsed().as_micros() as u64;
    let whole = without_times(&report(&home.path().join("whole")));
    let (mut cases, mut kills) = (0, 0);
    for (out, name) in [("killed", "KILL"), ("stopped", "INT")] {
        let place = home.path().join(out).join("plan.toml");
        for _ in 0..4 {
            let arguments = match place.exists() {
                true => format!("compare --resume {out} --quiet"),
                false => format!("compare --plan plan.toml --channels 4 --out {out} --quiet"),
            };
            let child = command(home.path(), &arguments).spawn().unwrap();
            std::thread::sleep(Duration::from_micros(random.below(time / 3)));
            signal(&child, name);
            let ran = finish(child, &arguments);
            match ran.code {
                None => kills += 1,
                Some(130) => {
                    assert!(ran.err.contains(&format!("adali compare --resume {out}")), "{ran}");
                    kills += 1;
                }
                code => assert_eq!(code, Some(0), "{ran}"),
            }
        }
        let last = match place.exists() {
            true => format!("compare --resume {out} --quiet"),
            false => format!("compare --plan plan.toml --channels 4 --out {out} --quiet"),
        };
        adali(home.path(), &last).done();
        assert_eq!(without_times(&report(&home.path().join(out))), whole, "{out}");
        cases += 1;
    }
    assert_eq!(cases, 2);
    assert!(kills >= 3, "{kills} kills came in time");
}

#[test]
fn plans_that_cannot_be_are_refused_before_anything_is_written() {
    let home = TempDir::new().unwrap();
    let one = "[[configurations]]\nname = \"a\"\n";
    let named = |name: &str| format!("[[configurations]]\nname = {name}\n");
    let plans: Vec<(String, &[&str])> = vec![
        (String::new(), &["no configurations"]),
        ("configurations = []".into(), &["0 configurations"]),
        ("configurations = 3".into(), &["line 1", "configurations", "list"]),
        ("configurations = [3]".into(), &["configurations[0]", "not a table"]),
        ("[[configurations]]\nbounds.mode = \"manual\"".into(), &["configurations[0]", "no name"]),
        (named("3"), &["line 2", "the name 3 is not text"]),
        (named("\"\""), &["name \"\""]),
        (named("\"a/b\""), &["a/b"]),
        (named("\"..\""), &["\"..\""]),
        (named("\"/etc\""), &["/etc"]),
        (named("\"a\\\\b\""), &["a\\\\b"]),
        (named("\"a\\u0000\""), &["name"]),
        (named("\"-a\""), &["-a"]),
        (named(&format!("\"{}\"", "x".repeat(300))), &["name", "64"]),
        (format!("{one}{one}"), &["two configurations", "a"]),
        (format!("{one}{}", named("\"A\"")), &["two configurations", "A"]),
        (format!("{one}epoks = 3\n"), &["plan.toml: line 3", "epoks"]),
        (format!("{one}training.epoks = 3\n"), &["line 3", "training.epoks", "did you mean epochs?"]),
        (format!("{one}training.epochs = \"x\"\n"), &["line 3", "training.epochs"]),
        (format!("{one}network.surrogate.kind = \"step\"\n"), &["line 3", "step", "network.surrogate.kind"]),
        (format!("{one}training.epochs = 0\n"), &["configuration a", "epochs 0"]),
        (format!("{one}training.batch = 100000\n"), &["configuration a", "batch 100000"]),
        (format!("{one}bounds.left = [0.0, 1.0]\n"), &["configuration a", "left"]),
        (format!("{one}seed = 3\n"), &["line 3", "seed", "seeds"]),
        (format!("{one}network = 3\n"), &["line 3", "network"]),
        (format!("bound.mode = \"manual\"\n{one}"), &["plan.toml", "bound"]),
        (format!("data.source = 3\n{one}"), &["plan.toml", "data"]),
        (format!("data.sauce = \"digits\"\n{one}"), &["plan.toml", "sauce"]),
        (format!("seeds = []\n{one}"), &["0 seeds"]),
        (format!("seeds = [1, 1]\n{one}"), &["seed 1", "twice"]),
        (format!("seeds = [-1]\n{one}"), &["seeds", "-1"]),
        (format!("seeds = 3\n{one}"), &["seeds", "3"]),
        (format!("reach = 2\n{one}"), &["reach 2"]),
        (format!("reach = \"x\"\n{one}"), &["reach", "x"]),
        ("seeds = [".into(), &["plan.toml", "line 1"]),
    ];
    let mut cases = 0;
    for (plan, parts) in &plans {
        write_plan(home.path(), plan);
        let before = snapshot(home.path());
        adali(home.path(), "compare --plan plan.toml --out out").failed(2, parts);
        assert!(snapshot(home.path()) == before, "{plan:?} left something");
        cases += 1;
    }
    write_plan(home.path(), one);
    for (arguments, parts) in [
        ("--surrogates adali,adali", &["two configurations", "adali"][..]),
        ("--seeds 0", &["--seeds 0"]),
        ("--surrogate arctan", &["--surrogates", "--plan"]),
        ("--reach 0", &["reach 0"]),
        ("--resume nowhere", &["nowhere", "plan.toml"]),
        ("--resume nowhere --seeds 2", &["nowhere", "plan.toml"]),
        ("--plan nowhere.toml", &["nowhere.toml"]),
        ("--cost --firing-rate 1", &["--firing-rate 1"]),
    ] {
        adali(home.path(), &format!("compare {arguments}")).failed(2, parts);
        cases += 1;
    }
    for arguments in [
        "--plan plan.toml --config x.toml",
        "--resume out --epochs 3",
        "--cost --seeds 3",
        "--cost --epochs 3",
        "--resume x --reach 0.5",
    ] {
        run(command(home.path(), &format!("compare {arguments}"))).misused(arguments.split(' ').next().unwrap());
        cases += 1;
    }
    assert_eq!(cases, plans.len() + 8 + 5);
    assert_eq!(snapshot(home.path()).len(), 1);
}

#[test]
fn samples_that_fill_no_batch_are_said() {
    let home = TempDir::new().unwrap();
    let ran = adali(home.path(), "compare --surrogates adali --seeds 1 --channels 4 --epochs 1 --limit 70").done();
    let data =
        "data     digits (built in): 70 to train on (6 per epoch unused: they do not fill a batch of 32), 8 held out";
    assert_eq!(ran.out.lines().filter(|line| *line == data).count(), 1, "{ran}");
}

/// Measurements made before Ctrl-C are written.
#[cfg(unix)]
#[test]
fn costs_that_are_interrupted_are_written() {
    let home = TempDir::new().unwrap();
    let mut child = command(home.path(), "compare --cost --device cpu --out out").spawn().unwrap();
    assert!(first_line(&mut child).starts_with("device"));
    signal(&child, "INT");
    let ran = finish(child, "compare --cost");
    assert!(ran.code == Some(130) && ran.err.starts_with("interrupted after 0 of 3 shapes; "), "{ran}");
    assert!(ran.err.contains("out/cost.json") && ran.err.lines().count() == 1, "{ran}");
    let cost: Value = serde_json::from_slice(&bytes(home.path().join("out/cost.json"))).unwrap();
    assert!(cost["shapes"].as_array().unwrap().is_empty() && cost["command"].is_string(), "{cost}");
}
