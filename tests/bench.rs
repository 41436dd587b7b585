//! `adali bench` as a user runs it.

use crate::process::driver::driver;
use crate::process::{adali, bytes, command, run};
use adali::bench::operation::Operation;
use adali::kernels::MODULES;
use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn report(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

#[test]
fn operations_are_timed_and_compared_with_a_baseline() {
    let home = TempDir::new().unwrap();
    let shape = "--shape T=2,N=2,C=33,H=6,W=7 --rounds 2";
    let ran = adali(home.path(), &format!("bench {shape} --device cpu --json first.json --svg roofline.svg")).done();
    assert!(ran.out.contains("ceilings") && ran.out.contains("conv_weight_grad"), "{ran}");
    let first = report(&home.path().join("first.json"));
    let results = first["results"].as_array().unwrap();
    assert_eq!(results.len(), Operation::all().len() - 1, "all but conv_input_grad_lif");
    let drawn = fs::read_to_string(home.path().join("roofline.svg")).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("conv_weight_grad") && drawn.contains("update"));
    for result in results {
        let [min, median, max] = ["min", "median", "max"].map(|part| result["seconds"][part].as_f64().unwrap());
        assert!(0.0 < min && min <= median && median <= max, "{result}");
        assert!(result["compared"].as_u64().unwrap() > 0 && result["floor"].as_f64().unwrap() > 0.0, "{result}");
    }
    // As if everything had taken a thousandth of the time, or a thousand times as long.
    for (factor, said) in [(1e-3, "slower"), (1e3, "faster")] {
        let mut other = first.clone();
        for result in other["results"].as_array_mut().unwrap() {
            for part in ["min", "median", "max"] {
                result["seconds"][part] = (factor * result["seconds"][part].as_f64().unwrap()).into();
            }
        }
        fs::write(home.path().join("other.json"), other.to_string()).unwrap();
        let ran = adali(home.path(), &format!("bench pack_weight pool_of_none {shape} --baseline other.json"));
        ran.failed(2, &["pool_of_none", "max_pool_forward"]);
        let ran =
            adali(home.path(), &format!("bench norm_lif_forward {shape} --device cpu --baseline other.json")).done();
        assert_eq!(ran.out.matches(said).count(), 2, "{ran}");
    }
}

#[test]
fn a_device_is_checked() {
    let home = TempDir::new().unwrap();
    let ran = adali(home.path(), "check --device cpu --json check.json").done();
    assert!(ran.out.contains("norm_lif_forward") && ran.out.contains("checks passed"), "{ran}");
    assert!(!ran.out.contains("FAILED"), "{ran}");
    let report = report(&home.path().join("check.json"));
    let results = report["results"].as_array().unwrap();
    let checked: HashSet<&str> = results.iter().map(|result| result["operation"].as_str().unwrap()).collect();
    let all: HashSet<&str> = Operation::all().iter().map(|operation| operation.name()).collect();
    assert_eq!(all.difference(&checked).collect::<Vec<_>>(), [&"conv_input_grad_lif"], "the CPU has all but this one");
    for result in results {
        assert!(result["compared"].as_u64().unwrap() > 0 && result.get("error").is_none(), "{result}");
    }
    adali(home.path(), "check --device cpu --json check.json").failed(2, &["--force"]);
    adali(home.path(), "check --device cuda:99").failed(2, &["CUDA"]);
    let bf16 = "check --device cpu --precision bf16 --json bf16.json";
    adali(home.path(), bf16).failed(2, &["--precision is for GPUs", "leave it out"]);
    let refused: Value = serde_json::from_slice(&bytes(home.path().join("bf16.json"))).unwrap();
    assert!(refused["error"].as_str().unwrap().contains("--precision") && refused["interrupted"] == false, "{refused}");
}

#[test]
fn surrogates_take_turns() {
    let home = TempDir::new().unwrap();
    let ran = adali(home.path(), "bench --surrogates --shape T=2,N=2,C=8,H=4 --rounds 2 --device cpu --json s.json -q")
        .done();
    assert!(ran.out.is_empty());
    let results = report(&home.path().join("s.json"));
    let results = results["results"].as_array().unwrap();
    assert_eq!(results.len(), Operation::surrogates().len());
    assert!(results[0].get("ratio").is_none());
    assert!(results[1..].iter().all(|result| result["ratio"]["median"].as_f64().unwrap() > 0.0));
}

#[test]
fn whole_steps_are_timed() {
    let home = TempDir::new().unwrap();
    let step = "bench train_step --network digits --input 1x8x8 --batch 8 --surrogate adali,sigmoid --optimizer adam";
    let ran = adali(home.path(), &format!("{step} --device cpu --json s.json")).done();
    assert!(ran.out.contains("images/s"), "{ran}");
    let results = report(&home.path().join("s.json"));
    let results = results["results"].as_array().unwrap();
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|result| result["images_per_second"].as_f64().unwrap() > 0.0));
}

#[test]
fn a_plan_on_paper_measures_nothing() {
    let home = TempDir::new().unwrap();
    let ran = adali(home.path(), "bench --card h100 --shape T=4,N=64,C=64,H=32 --json plan.json");
    if MODULES.is_empty() {
        ran.failed(1, &["nvcc"]);
        return;
    }
    let ran = ran.done();
    assert!(ran.out.contains("not measured") && ran.out.contains("conv_lif_forward_t4_bf16"), "{ran}");
    let plan = report(&home.path().join("plan.json"));
    assert_eq!(plan["measured"], false);
    let plans = plan["plans"].as_array().unwrap();
    assert_eq!(plans.len(), Operation::all().len());
    for plan in plans {
        let launches = plan["launches"].as_array().unwrap();
        assert!(plan["floor"].as_f64().unwrap() > 0.0 && !launches.is_empty(), "{plan}");
        for launch in launches {
            let shares = ["occupancy", "waves"].map(|name| launch[name].as_f64().unwrap());
            assert!(shares.iter().all(|&share| share > 0.0) && launch["registers"].as_u64().unwrap() > 0, "{launch}");
        }
    }
    adali(home.path(), "bench train_step --card h100").failed(2, &["train_step"]);
    adali(home.path(), "bench --card h100 --baseline x.json").misused("--baseline");
}

#[test]
fn what_cannot_be_measured_is_said() {
    let home = TempDir::new().unwrap();
    let bench = |arguments: &str| adali(home.path(), &format!("bench --device cpu {arguments}"));
    bench("--shape T=4,N=2").misused("--shape");
    bench("--shape T=4,N=2,C=3,H=4,Q=1").misused("Q");
    bench("--firing-rate 1.5").failed(2, &["--firing-rate"]);
    bench("--rounds 0").failed(2, &["--rounds"]);
    bench("--baseline none.json").failed(2, &["none.json"]);
    bench("train_step --network nothing").failed(2, &["nothing", "conv2"]);
    bench("train_step --network conv2 --input 1x2x2 --batch 4").failed(2, &[]);
    bench("--shape T=64,N=4096,C=1024,H=16").misused("neuron-steps");
    fs::write(home.path().join("bad.json"), "{}").unwrap();
    bench("--baseline bad.json").failed(2, &["bad.json"]);
}

#[test]
fn a_device_that_computes_nothing_is_found() {
    let home = TempDir::new().unwrap();
    if MODULES.is_empty() {
        eprintln!("left out: a device that computes nothing needs the kernels, and they were built without nvcc");
        return;
    }
    let Some(folder) = driver("nothing.c", "", home.path()) else { return };
    let on_nothing = |arguments: &str| {
        let mut command = command(home.path(), arguments);
        command.env("LD_LIBRARY_PATH", &folder);
        run(command)
    };
    let operations: Vec<_> = Operation::all().iter().map(|operation| operation.name()).collect();
    for operation in operations.iter().chain(&["train_step"]) {
        let shape = "--shape T=2,N=2,C=33,H=6,W=7 --rounds 2";
        on_nothing(&format!("bench {operation} {shape} --device cuda")).failed(1, &["does not compute"]);
    }
    let ran = on_nothing("check --device cuda --json check.json");
    ran.failed(1, &["does not compute", "checks failed"]);
    let report = report(&home.path().join("check.json"));
    let results = report["results"].as_array().unwrap();
    assert!(results.iter().all(|result| result["error"].is_string() && result["compared"] == 0), "{report}");
    for more in ["", " --no-graph", " --precision f16", " --bounds auto-init"] {
        let ran = on_nothing(&format!("train --device cuda --epochs 1 --limit 100 --force --out run{more}"));
        ran.failed(1, &["does not compute"]);
        assert!(!home.path().join("run/model.safetensors").exists(), "a model of nothing is kept");
    }
}
