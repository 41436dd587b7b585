//! Benchmark results: one JSON file, tables, and changes since an earlier file.

use super::ceilings::Ceilings;
use super::record::{Failure, Record};
use crate::bench::table::Table;
use crate::files::{MOST_SETTINGS, read_text};
use crate::input_error;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// A run of the benchmarks.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    pub command: String,
    pub version: String,
    pub machine: serde_json::Value,
    pub device: String,
    /// The CUDA compiler that built the kernels.
    pub compiler: Option<String>,
    /// Seconds since 1970.
    pub time: u64,
    pub ceilings: Ceilings,
    pub results: Vec<Record>,
    /// Operations that could not be timed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

/// How an operation's time differs from an earlier one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// Every round is slower than any before; ratio of the medians.
    Slower(f64),
    Faster(f64),
    /// The spreads overlap.
    Within(f64),
}

impl Report {
    /// Reads an earlier file.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path, MOST_SETTINGS)?;
        serde_json::from_str(&text)
            .map_err(|e| input_error!("{} is not what `adali bench --json` writes: {e}", path.display()))
    }

    pub fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string_pretty(self).context("a report has a JSON form")? + "\n")
    }

    /// The same operation at the same shape.
    fn of(&self, record: &Record) -> Option<&Record> {
        let same =
            |r: &&Record| (&r.operation, &r.variant, &r.shape) == (&record.operation, &record.variant, &record.shape);
        self.results.iter().find(same)
    }

    /// How a record differs from this report's record of the same operation and shape, if there is one.
    pub fn change(&self, record: &Record) -> Option<Change> {
        let (now, before) = (&record.seconds, &self.of(record)?.seconds);
        let ratio = now.median / before.median;
        Some(match () {
            () if now.min > before.max => Change::Slower(ratio),
            () if now.max < before.min => Change::Faster(ratio),
            () => Change::Within(ratio),
        })
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Slower(ratio) => write!(f, "slower {ratio:.2}"),
            Self::Faster(ratio) => write!(f, "faster {ratio:.2}"),
            Self::Within(ratio) => write!(f, "{ratio:.2}"),
        }
    }
}

/// Records of one shape as a table.
pub fn table(records: &[Record], baseline: Option<&Report>) -> Table {
    let head =
        ["operation", "µs", "min–max", "MB", "GB/s", "GFLOP/s", "floor µs", "of it %", "registers", "ratio", "before"];
    let mut table = Table::new(&head);
    for record in records {
        let seconds = &record.seconds;
        let rate = |amount: f64| if amount > 0.0 { figure(amount / seconds.median / 1e9) } else { "–".into() };
        let name = [record.operation.as_str(), record.variant.as_str()].join(" ");
        table.row([
            name.trim_end().to_string(),
            figure(1e6 * seconds.median),
            format!("{}–{}", figure(1e6 * seconds.min), figure(1e6 * seconds.max)),
            if record.bytes > 0.0 { figure(record.bytes / 1e6) } else { "–".into() },
            rate(record.bytes),
            rate(record.flops),
            if record.floor > 0.0 { figure(1e6 * record.floor) } else { "–".into() },
            if record.floor > 0.0 { format!("{:.0}", 100.0 * record.share()) } else { "–".into() },
            record.registers.map_or("–".into(), |registers| registers.to_string()),
            record.ratio.map_or("–".into(), |ratio| format!("{:.2}", ratio.median)),
            baseline
                .map_or("–".into(), |report| report.change(record).map_or("new".into(), |change| change.to_string())),
        ]);
    }
    let none = |has: fn(&Record) -> bool| !records.iter().any(has);
    let unused = [
        (5, none(|record| record.flops > 0.0)),
        (8, none(|record| record.registers.is_some())),
        (9, none(|record| record.ratio.is_some())),
        (10, baseline.is_none()),
    ];
    table.without(&unused.iter().filter(|column| column.1).map(|column| column.0).collect::<Vec<_>>())
}

/// Three significant digits.
pub fn figure(x: f64) -> String {
    match x.abs() {
        x if x >= 100.0 => format!("{x:.0}"),
        x if x >= 10.0 => format!("{x:.1}"),
        x if x >= 1.0 => format!("{x:.2}"),
        _ => format!("{x:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::timing::Timing;

    fn record(min: f64, median: f64, max: f64) -> Record {
        Record {
            operation: "conv_current".into(),
            variant: String::new(),
            shape: "T=4,N=64,C=32,H=14".into(),
            copies: 3,
            firing_rate: 0.1,
            compared: 64,
            seconds: Timing { median, min, max },
            ratio: None,
            bytes: 1e6,
            flops: 2e9,
            floor: 5e-4,
            registers: None,
            images_per_second: None,
        }
    }

    fn report(results: Vec<Record>) -> Report {
        let ceilings = Ceilings { copy: 1e10, products: 1e11 };
        let [command, version, device] = [(); 3].map(|()| String::new());
        let machine = serde_json::Value::Null;
        Report { command, version, machine, device, compiler: None, time: 0, ceilings, results, failures: Vec::new() }
    }

    #[test]
    fn only_what_moved_beyond_the_spread_is_marked() {
        let before = report(vec![record(0.9e-3, 1.0e-3, 1.1e-3)]);
        assert_eq!(before.change(&record(1.0e-3, 1.2e-3, 1.5e-3)), Some(Change::Within(1.2)));
        assert!(matches!(before.change(&record(1.2e-3, 1.3e-3, 1.5e-3)), Some(Change::Slower(_))));
        assert!(matches!(before.change(&record(0.5e-3, 0.6e-3, 0.8e-3)), Some(Change::Faster(_))));
        let other = Record { shape: "T=1,N=1,C=1,H=1".into(), ..record(1.0, 1.0, 1.0) };
        assert_eq!(before.change(&other), None);
    }

    #[test]
    fn a_report_comes_back_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("bench.json");
        let written = report(vec![record(0.9e-3, 1.0e-3, 1.1e-3)]);
        std::fs::write(&path, written.to_json().unwrap()).unwrap();
        assert_eq!(Report::read(&path).unwrap().to_json().unwrap(), written.to_json().unwrap());
        std::fs::write(&path, "{\"results\": 3}").unwrap();
        assert!(Report::read(&path).unwrap_err().to_string().contains("adali bench --json"));
    }

    #[test]
    fn columns_without_a_figure_are_left_out() {
        let text = table(&[record(0.9e-3, 1.0e-3, 1.1e-3)], None).plain();
        assert!(text.contains("1000") && text.contains("2000") && text.contains(" 50"), "{text}");
        assert!(!text.contains("before") && !text.contains(" ratio"), "{text}");
    }
}
