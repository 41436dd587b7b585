//! The program on the card made of software (`tests/card`): what it does with `--device cuda`, from the command line on.

use crate::process::driver::with_card;
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
fn operations_are_benched() {
    let home = TempDir::new().unwrap();
    // The rates that bound all others move so much memory that looking for races would take minutes.
    let bench = "bench update conv_lif_forward --device cuda --rounds 2 --shape T=2,N=2,C=33,H=6,W=7 --json bench.json";
    let mut unchecked = with_card(command(home.path(), bench), home.path(), 4);
    unchecked.env("CARD_CHECK", "0");
    run(unchecked).done();
    let report: Value = serde_json::from_slice(&bytes(home.path().join("bench.json"))).unwrap();
    let results = report["results"].as_array().unwrap();
    assert!(results.len() >= 2 && results.iter().all(|result| result["compared"].as_u64() > Some(0)), "{report}");
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
    // What a card trained, the CPU evaluates.
    let loss = |ran: Ran| ran.done().json()["loss"].as_f64().unwrap();
    let (card, cpu) = (
        loss(on_card(home.path(), 6, "eval auto --device cuda --precision f32 --json")),
        loss(adali(home.path(), "eval auto --device cpu --json")),
    );
    assert!((card - cpu).abs() <= 1e-5 * cpu, "{card} {cpu}");
}
