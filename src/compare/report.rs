//! Reports of a comparison: `compare.json`, `compare.md` and plots, and the table for a terminal.

use crate::bench::table::Table;
use crate::compare::operations::OperationCosts;
use crate::compare::plots;
use crate::compare::record::{Comparison, RunRecord};
use crate::compare::summary::{Spread, Summary, epochs_to_reach, summaries};
use crate::files::write_whole;
use anyhow::Result;
use serde_json::{Value, json};

/// Writes everything that is known so far.
pub fn save(comparison: &Comparison) -> Result<()> {
    let summaries = summaries(comparison);
    let write = |name: &str, text: String| write_whole(&comparison.path().join(name), text.as_bytes());
    write("compare.json", serde_json::to_string_pretty(&json(comparison, &summaries))? + "\n")?;
    let drawn = plots::all(comparison, &summaries)?;
    write("compare.md", markdown(comparison, &summaries, &drawn.iter().map(|plot| plot.0).collect::<Vec<_>>()))?;
    drawn.into_iter().try_for_each(|(name, svg)| write(name, svg))
}

/// Everything: each run, each configuration, costs.
pub fn json(comparison: &Comparison, summaries: &[Summary]) -> Value {
    let plan = &comparison.plan;
    let configurations = plan.configurations.iter().zip(summaries).map(|(configuration, summary)| {
        let mut value = serde_json::to_value(summary).expect("a summary has a JSON form");
        let mut config = serde_json::to_value(&configuration.config).expect("a configuration has a JSON form");
        config.as_object_mut().expect("a configuration is a table").remove("seed");
        value["configuration"] = config;
        value
    });
    json!({
        "command": plan.command,
        "version": env!("CARGO_PKG_VERSION"),
        "machine": machine(),
        "device": comparison.device,
        "seeds": plan.seeds,
        "reach": plan.reach,
        "configurations": configurations.collect::<Vec<_>>(),
        "runs": comparison.runs.iter().map(|record| run_json(record, plan.reach)).collect::<Vec<_>>(),
        "step_costs": comparison.costs,
        "step_costs_error": comparison.cost_error,
    })
}

/// A run. Its `metrics.jsonl` has every layer of every epoch; here only those of the last epoch.
fn run_json(record: &RunRecord, reach: f64) -> Value {
    let over_epochs =
        |value: fn(&crate::metrics::EpochMetrics) -> Value| -> Vec<Value> { record.epochs.iter().map(value).collect() };
    json!({
        "configuration": record.configuration,
        "seed": record.seed,
        "folder": record.folder,
        "status": record.status,
        "error": record.error,
        "epochs_to_reach": epochs_to_reach(&record.epochs, reach),
        "result": record.result,
        "probe": record.probe,
        "train_loss": over_epochs(|e| json!(e.train_loss)),
        "train_accuracy": over_epochs(|e| json!(e.train_accuracy)),
        "validation_loss": over_epochs(|e| json!(e.validation_loss)),
        "validation_accuracy": over_epochs(|e| json!(e.validation_accuracy)),
        "layers": record.epochs.last().map(|e| &e.layers),
    })
}

/// The machine it ran on.
pub fn machine() -> Value {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("model name"))?;
        Some(line.split(": ").nth(1)?.to_string())
    });
    json!({
        "cpu": cpu,
        "cores": std::thread::available_parallelism().map(usize::from).ok(),
        "system": format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
    })
}

/// The machine in one line.
fn machine_line() -> String {
    let machine = machine();
    let cpu = machine["cpu"].as_str().unwrap_or("an unknown processor").to_string();
    format!("{cpu}, {} cores, {}", machine["cores"], machine["system"].as_str().unwrap_or(""))
}

/// `mean ± deviation` of shares in percent.
fn percent(spread: Option<Spread>, decimals: usize) -> String {
    number(spread.map(|s| Spread { mean: 100.0 * s.mean, deviation: s.deviation.map(|d| 100.0 * d), ..s }), decimals)
}

fn number(spread: Option<Spread>, decimals: usize) -> String {
    match spread {
        None => "–".into(),
        Some(Spread { mean, deviation: Some(deviation), .. }) => format!("{mean:.decimals$} ± {deviation:.decimals$}"),
        Some(Spread { mean, .. }) => format!("{mean:.decimals$}"),
    }
}

fn mean_percent(spread: Option<Spread>, decimals: usize) -> String {
    spread.map_or("–".into(), |s| format!("{:.decimals$}", 100.0 * s.mean))
}

fn ends(spread: Option<Spread>) -> String {
    spread.map_or("–".into(), |s| format!("{:.2}–{:.2}", 100.0 * s.min, 100.0 * s.max))
}

fn runs(summary: &Summary) -> String {
    let all = summary.finished + summary.failed + summary.pending;
    let failed = if summary.failed > 0 { format!(", {} failed", summary.failed) } else { String::new() };
    format!("{}/{all}{failed}", summary.finished)
}

/// The results of each configuration.
pub fn accuracy_table(comparison: &Comparison, summaries: &[Summary]) -> Table {
    let reach = format!("epochs to {} %", 100.0 * comparison.plan.reach);
    let mut table = Table::new(&["configuration", "runs", "test %", "min–max", "last test %", "validation %", &reach]);
    for s in summaries {
        let reached = match s.epochs_to_reach {
            Some(spread) if s.reached < s.finished => {
                format!("{} ({}/{})", number(Some(spread), 1), s.reached, s.finished)
            }
            spread => number(spread, 1),
        };
        table.row([
            s.name.clone(),
            runs(s),
            percent(s.test_accuracy, 2),
            ends(s.test_accuracy),
            percent(s.last_test_accuracy, 2),
            percent(s.validation_accuracy, 2),
            reached,
        ]);
    }
    table
}

/// The state of the neurons at the end.
pub fn neuron_table(summaries: &[Summary]) -> Table {
    let names =
        ["configuration", "mean g", "mean g²", "inside %", "fires %", "dead %", "saturated %", "saved B", "memory MB"];
    let mut table = Table::new(&names);
    for s in summaries {
        table.row([
            s.name.clone(),
            s.neurons.mean_slope.map_or("–".into(), |s| format!("{:.3}", s.mean)),
            s.neurons.mean_square_slope.map_or("–".into(), |s| format!("{:.3}", s.mean)),
            mean_percent(s.neurons.inside, 1),
            mean_percent(s.neurons.firing_rate, 1),
            mean_percent(s.neurons.dead, 1),
            mean_percent(s.neurons.saturated, 1),
            s.saved_bytes.map_or("–".into(), |bytes| format!("{bytes:.2}")),
            s.memory_bytes.map_or("–".into(), |bytes| format!("{:.1}", bytes as f64 / 1e6)),
        ]);
    }
    table
}

/// The cost of a step, once it is known.
pub fn cost_table(comparison: &Comparison) -> Option<Table> {
    let costs = comparison.costs.as_ref()?;
    let mut table = Table::new(&[
        "configuration",
        "step ms",
        "min–max",
        "ratio",
        "min–max",
        "forward ms",
        "backward ms",
        "update ms",
        "backward %",
    ]);
    for c in &costs.configurations {
        let ms = |seconds: f64| format!("{:.2}", 1e3 * seconds);
        table.row([
            c.name.clone(),
            ms(c.step.median),
            format!("{}–{}", ms(c.step.min), ms(c.step.max)),
            format!("{:.3}", c.ratio.median),
            format!("{:.2}–{:.2}", c.ratio.min, c.ratio.max),
            ms(c.forward.median),
            ms(c.backward.median),
            ms(c.update.median),
            format!("{:.0}", 100.0 * c.backward_share.median),
        ]);
    }
    Some(table)
}

/// Gradient norms by layer.
fn gradient_table(summaries: &[Summary]) -> Table {
    let mut names: Vec<&str> = Vec::new();
    for layer in summaries.iter().flat_map(|s| &s.layers) {
        if !names.contains(&layer.name.as_str()) {
            names.push(&layer.name);
        }
    }
    let mut table = Table::new(&[&["configuration"], names.as_slice()].concat());
    for s in summaries {
        let norm = |name: &&str| {
            let norm = s.layers.iter().find(|layer| layer.name == **name).and_then(|layer| layer.gradient_norm);
            norm.map_or("–".into(), |s| format!("{:.2e}", s.mean))
        };
        table.row(std::iter::once(s.name.clone()).chain(names.iter().map(norm)));
    }
    table
}

/// The tables shown to the user at the end.
pub fn terminal(comparison: &Comparison) -> String {
    let summaries = summaries(comparison);
    let mut text = accuracy_table(comparison, &summaries).plain();
    text += &format!("\n{}", neuron_table(&summaries).plain());
    if let Some(costs) = cost_table(comparison) {
        // A terminal is narrow: the spread of a step's time and the update are only in compare.md.
        text += &format!("\n{}", costs.without(&[2, 7]).plain());
    }
    text
}

fn markdown(comparison: &Comparison, summaries: &[Summary], plots: &[&str]) -> String {
    let plan = &comparison.plan;
    let seeds: Vec<String> = plan.seeds.iter().map(u64::to_string).collect();
    let mut text = format!(
        "# Comparison\n\n```\n{}\n```\n\n{}; {}; adali {}. Seeds {}. `plan.toml` holds every configuration in full.\n",
        plan.command,
        comparison.device,
        machine_line(),
        env!("CARGO_PKG_VERSION"),
        seeds.join(", ")
    );
    let mut section = |title: &str, table: &Table, note: &str| {
        text += &format!("\n## {title}\n\n{}\n{note}\n", table.markdown());
    };
    section(
        "Accuracy",
        &accuracy_table(comparison, summaries),
        "Mean ± sample standard deviation over seeds. *Test*: the epoch that did best on held-out samples; *last test*: the last epoch.",
    );
    section(
        "Neurons",
        &neuron_table(summaries),
        "Means over seeds and over the neurons of all spiking layers. *g*: the surrogate's slope over z = (H − θ)/θ, averaged over the \
         membrane potentials of the last epoch. *Inside*: potentials in AdaLi's window. *Dead* and *saturated*: neurons that never or \
         always spike on up to 512 samples. *Saved*: bytes kept for the backward pass, a neuron-step. *Memory*: as planned for training.",
    );
    section(
        "Gradient norms",
        &gradient_table(summaries),
        "2-norm of each weight's gradient of the mean loss of a training batch, after the last epoch; mean over batches and seeds.",
    );
    if let (Some(table), Some(costs)) = (cost_table(comparison), &comparison.costs) {
        let rates: Vec<String> = costs.configurations.iter().map(|c| format!("{:.1}", 100.0 * c.firing_rate)).collect();
        let note = format!(
            "Training steps on random samples with the first weights, taking turns; medians over {} rounds. Neurons fired at {} % of \
             their steps. Ratios are taken round by round, to the first configuration.",
            costs.rounds,
            rates.join(", ")
        );
        section("Cost", &table, &note);
    }
    if let Some(error) = &comparison.cost_error {
        text += &format!("\n## Cost\n\nCould not be measured: {error}\n");
    }
    let failed: Vec<&RunRecord> = comparison.runs.iter().filter(|record| record.error.is_some()).collect();
    if !failed.is_empty() {
        text += "\n## Failed\n\n";
        for record in failed {
            text += &format!("- `{}`: {}\n", record.folder, record.error.as_deref().unwrap_or(""));
        }
    }
    for plot in plots {
        text += &format!("\n![{}]({plot})\n", plot.trim_end_matches(".svg"));
    }
    text
}

/// The three tables of `adali compare --cost` for one shape.
pub fn operation_tables(costs: &OperationCosts) -> String {
    let mut text = format!(
        "{} ({:.2} M neuron-steps): {:.1} % fire, {:.1} % inside [-0.5, 0.5]\n",
        costs.shape,
        costs.neuron_steps as f64 / 1e6,
        100.0 * costs.firing_rate,
        100.0 * costs.inside
    );
    let tables = [
        ("what a slope costs: backward pass from currents", &costs.slopes),
        ("what the packed state saves: adali's backward pass", &costs.saved),
        ("what the histogram adds: forward pass of neurons", &costs.histogram),
    ];
    for (title, all) in tables {
        let bytes = all.iter().any(|cost| cost.bytes.is_some());
        let names = ["", "ms", "min–max", "ratio", "min–max", "saved B"];
        let mut table = Table::new(&names[..names.len() - usize::from(!bytes)]);
        for cost in all {
            let ms = |seconds: f64| format!("{:.2}", 1e3 * seconds);
            let mut row = vec![
                cost.name.clone(),
                ms(cost.seconds.median),
                format!("{}–{}", ms(cost.seconds.min), ms(cost.seconds.max)),
                format!("{:.3}", cost.ratio.median),
                format!("{:.2}–{:.2}", cost.ratio.min, cost.ratio.max),
            ];
            row.extend(cost.bytes.map(|bytes| format!("{bytes:.2}")));
            table.row(row);
        }
        text += &format!("\n  {title}\n{}", table.indented(2));
    }
    text
}
