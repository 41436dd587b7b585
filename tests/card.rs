//! The program on the software GPU (`tests/card`): what it does with `--device cuda`, from the command line on.

use crate::process::card::with_card;
use crate::process::tensors::Tensors;
use crate::process::{Ran, adali, bytes, command, run};
use serde_json::Value;
use std::path::Path;
use tempfile::TempDir;

fn on_card(home: &Path, seed: u64, arguments: &str) -> Ran {
    run(with_card(command(home, arguments), home, seed))
}

/// The losses of each epoch of a run.
fn losses(run: &Path) -> Vec<f64> {
    let metrics = std::fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let loss = |line: &str| serde_json::from_str::<Value>(line).unwrap()["train_loss"].as_f64().unwrap();
    metrics.lines().map(loss).collect()
}

#[test]
fn graphs_and_orders_change_no_byte() {
    let home = TempDir::new().unwrap();
    let mut cases = 0;
    for options in ["", "--precision f16 --bounds auto-track", "--norm weight --surrogate arctan"] {
        let models = [(0, ""), (1, "--no-graph"), (2, "")].map(|(seed, more)| {
            let train =
                format!("train --device cuda --epochs 2 --limit 96 --quiet --out {cases}-{seed} {options} {more}");
            on_card(home.path(), seed, &train).done();
            bytes(home.path().join(format!("{cases}-{seed}/model.safetensors")))
        });
        assert!(models[1] == models[0], "{options}: one by one");
        assert!(models[2] == models[0], "{options}: in another order");
        cases += 1;
    }
    assert_eq!(cases, 3);
}

#[test]
fn losses_are_the_cpus() {
    let home = TempDir::new().unwrap();
    let train = |out: &str, options: &str| {
        on_card(home.path(), 3, &format!("train --epochs 2 --limit 96 --quiet --out {out} {options}")).done();
        losses(&home.path().join(out))
    };
    let cpu = train("cpu", "--device cpu");
    assert_eq!(cpu.len(), 2);
    for (precision, tolerance) in [("f32", 1e-5), ("f16", 2e-2), ("bf16", 2e-2)] {
        let card = train(precision, &format!("--device cuda --precision {precision}"));
        let near = card.iter().zip(&cpu).all(|(card, cpu)| (card - cpu).abs() <= tolerance * cpu.abs());
        assert!(near && card.len() == cpu.len(), "{precision}: {card:?} of {cpu:?}");
    }
}

#[test]
fn every_kind_of_network_and_bounds_trains_as_on_the_cpu() {
    let home = TempDir::new().unwrap();
    adali(home.path(), "simulate-events --data digits --out events --side 10 --limit 40 --quiet").done();
    let csnn = "--network csnn --limit 24 --threshold 0.5";
    let digits = "--limit 24 --threshold 0.1";
    let residual = "--network nf-resnet34 --blocks 1,1 --limit 24 --threshold 0.5";
    let events = "--data n-mnist --data-dir events --network conv2 --limit 24 --threshold 0.5";
    let cases = [
        (csnn, "bf16", "--norm batch --bounds auto-track --per-channel"),
        (csnn, "f16", "--norm weight --bounds auto-init"),
        (events, "bf16", "--norm batch --bounds auto-std"),
        (events, "f16", "--norm weight --bounds auto-mass"),
        (events, "f32", "--norm batch --bounds manual"),
        (digits, "bf16", "--norm weight --bounds auto-symmetric"),
        (digits, "f16", "--norm none --bounds auto-balanced"),
        (residual, "bf16", "--norm weight --bounds auto-track"),
        (residual, "f16", "--norm weight --mixup 0.4 --flip"),
    ];
    let train = |device: &str, out: &str, seed: u64, options: &str| {
        let small =
            "--epochs 2 --channels 8 --steps 2 --batch 12 --validation 0.05 --optimizer adam --learning-rate 0.003";
        let train = format!("train --quiet --cache-dir cache --out {out} {small} {options} {device}");
        on_card(home.path(), seed, &train).done();
        losses(&home.path().join(out))
    };
    for (i, (network, precision, options)) in cases.into_iter().enumerate() {
        let options = format!("{network} {options}");
        let cpu = train("--device cpu", &format!("{i}-cpu"), 0, &options);
        let [graph, eager] = [("graph", 7, ""), ("eager", 8, "--no-graph")].map(|(name, seed, more)| {
            let out = format!("{i}-{name}");
            let seen = train(&format!("--device cuda --precision {precision} {more}"), &out, seed, &options);
            (seen, bytes(home.path().join(out).join("model.safetensors")))
        });
        assert!(graph == eager, "{options}, {precision}: one by one, {:?} and {:?}", graph.0, eager.0);
        // 16-bit storage rounds a current by up to 2^-9 of its value, and a spike that ends up on the other side of the
        // threshold changes what follows; in f32 only the order of sums differs.
        let tolerance = if precision == "f32" { 1e-4 } else { 3e-2 };
        let apart = graph.0.iter().zip(&cpu).map(|(card, cpu)| (card - cpu).abs() / cpu).fold(0.0, f64::max);
        println!("{options}, {precision}: {:?}, apart {apart:.5}", graph.0);
        assert!(cpu.len() == 2 && graph.0.len() == 2, "{options}");
        assert!(apart <= tolerance, "{options}, {precision}: {:?} of {cpu:?}", graph.0);
    }
}

#[test]
fn every_operation_is_right() {
    let home = TempDir::new().unwrap();
    let ran = on_card(home.path(), 5, "check --device cuda --json check.json").done();
    assert!(ran.out.contains("checks passed") && !ran.out.contains("FAILED"), "{ran}");
    let report: Value = serde_json::from_slice(&bytes(home.path().join("check.json"))).unwrap();
    assert_eq!(report["devices"].as_array().unwrap().len(), 3, "f32, bf16 and f16");
    let results = report["results"].as_array().unwrap();
    assert!(results.iter().any(|result| result["operation"] == "conv_input_grad_lif" && result["precision"] == "bf16"));
    assert!(results.iter().all(|result| result["compared"].as_u64().unwrap() > 0));
}

#[test]
fn weights_that_a_precision_cannot_hold_are_refused() {
    let home = TempDir::new().unwrap();
    let train = "train --device cpu --quiet --epochs 1 --limit 64 --channels 4 --steps 2 --norm none --out run";
    adali(home.path(), train).done();
    let path = home.path().join("run/model.safetensors");
    let whole = Tensors::read(&path);
    let mut cases = 0;
    for (weight, refused) in
        [(65504f32, &[][..]), (70000.0, &["f16"]), (130_560.0, &["f16"]), (131_072.0, &["f16", "bf16"])]
    {
        let mut changed = whole.clone();
        changed.poke("layers.4.weight", &weight.to_le_bytes());
        changed.write(&path);
        let eval = |device: &str| on_card(home.path(), 9, &format!("eval run --json --device {device}"));
        let cpu = eval("cpu").done().json()["loss"].as_f64().unwrap();
        for precision in ["f32", "f16", "bf16"] {
            let ran = eval(&format!("cuda --precision {precision}"));
            if refused.contains(&precision) {
                ran.failed(2, &["layers.4.weight holds", "--precision f32", precision]);
            } else {
                let loss = ran.done().json()["loss"].as_f64().unwrap();
                assert!((loss - cpu).abs() <= 1e-2 * cpu, "{weight} in {precision}: {loss} of {cpu}");
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 12);
    // A loss that is not finite is an error, not a score.
    adali(home.path(), &format!("{train} --force --threshold 0.05")).done();
    let mut changed = Tensors::read(&path);
    changed.poke("layers.4.weight", &3e38f32.to_le_bytes().repeat(64));
    changed.write(&path);
    adali(home.path(), "eval run --device cpu").failed(1, &["the loss is NaN"]);
}

#[test]
fn operations_are_benched() {
    let home = TempDir::new().unwrap();
    // The rates that bound all others move so much memory that looking for races would take minutes.
    let bench = "bench update conv_lif_forward --device cuda --rounds 2 --shape T=2,N=2,C=33,H=6,W=7 --json bench.json";
    let mut unchecked = with_card(command(home.path(), bench), home.path(), 4);
    unchecked.env("CARD_CHECK", "0");
    unchecked.env("CARD_REPORT", home.path().join("counts.json"));
    run(unchecked).done();
    let report: Value = serde_json::from_slice(&bytes(home.path().join("bench.json"))).unwrap();
    let results = report["results"].as_array().unwrap();
    assert!(results.len() >= 2 && results.iter().all(|result| result["compared"].as_u64() > Some(0)), "{report}");

    // The counts give estimates for a card with as many multiprocessors.
    let bench = "bench update conv_lif_forward --card h200 --shape T=2,N=2,C=33,H=6,W=7 --counters counts.json";
    let out = adali(home.path(), &format!("{bench} --json plan.json")).done().out;
    let plan: Value = serde_json::from_slice(&bytes(home.path().join("plan.json"))).unwrap();
    let launches: Vec<_> =
        plan["plans"].as_array().unwrap().iter().flat_map(|plan| plan["launches"].as_array().unwrap()).collect();
    assert!(out.contains(&format!("{0} of {0} launches were counted", launches.len())), "{out}");
    let table: Vec<_> = out.lines().skip_while(|line| !line.contains("bound by")).skip(2).map(str::trim).collect();
    for launch in &launches {
        let (kernel, counted) = (launch["kernel"].as_str().unwrap(), &launch["counted"]);
        let row = table.iter().find(|row| row.starts_with(kernel)).unwrap_or_else(|| panic!("no {kernel}: {out}"));
        let bounds = ["issue", "matrix", "shared memory", "device memory"];
        assert!(bounds.iter().any(|bound| row.ends_with(bound)), "{row}");
        let of = |name: &str| counted[name].as_f64().unwrap();
        // At a card's rates, launches this small take microseconds.
        assert!(of("estimate") > 0.0 && of("estimate") < 1e-4, "{kernel}: {counted}");
        assert!(of("sectors_per_access") >= of("least_sectors_per_access"), "{kernel}: {counted}");
        assert_eq!(counted["instructions"]["matrix"].as_f64() > Some(0.0), kernel.starts_with("conv_lif"), "{kernel}");
    }
    adali(home.path(), &bench.replace("counts.json", "bench.json"))
        .failed(2, &["bench.json is not a CARD_REPORT file"]);
}

#[test]
fn a_card_is_named_and_chosen() {
    let home = TempDir::new().unwrap();
    let info = on_card(home.path(), 5, "info").done();
    assert!(info.out.contains("PTX on the CPU, compute capability 9.0, driver 13.0"), "{info}");
    let train = "train --epochs 1 --limit 40 --batch 8 --out";
    let auto = on_card(home.path(), 5, &format!("{train} auto")).done();
    assert!(auto.out.contains("PTX on the CPU (cuda:0)"), "{auto}");
    on_card(home.path(), 5, &format!("{train} second --device cuda:1")).failed(2, &["there is no CUDA card 1"]);
    // The CPU evaluates what a card trained.
    let loss = |ran: Ran| ran.done().json()["loss"].as_f64().unwrap();
    let (card, cpu) = (
        loss(on_card(home.path(), 6, "eval auto --device cuda --precision f32 --json")),
        loss(adali(home.path(), "eval auto --device cpu --json")),
    );
    assert!((card - cpu).abs() <= 1e-5 * cpu, "{card} {cpu}");
}
