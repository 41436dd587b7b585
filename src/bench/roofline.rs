//! Records as a roofline plot (S. Williams, A. Waterman and D. Patterson, CACM 52, 2009): rates below the limits of the
//! device's memory and arithmetic.

use super::record::Record;
use super::report::{Report, figure};
use super::timing::Timing;
use crate::report::comparison::{Colour, Horizontal, Panel, Place, Series, Shown, Spanned, panels};
use anyhow::Result;

/// Convolutions over their operations per byte, everything else over its bytes; an SVG document.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if no measurement has a floor.
pub fn roofline(report: &Report) -> Result<String> {
    let measured = || report.results.iter().filter(|record| record.bytes > 0.0);
    let (copy, products) = (report.ceilings.copy, report.ceilings.products);
    let note = format!("ceilings: copy {} GB/s, products {} GFLOP/s", figure(copy / 1e9), figure(products / 1e9));
    let panel = |title: &str, x: &str, y: &str, records: Vec<&Record>, point: Point, roof: &dyn Fn(f64) -> f64| Panel {
        title: title.into(),
        note: note.clone(),
        x: Horizontal::Decades(x.into()),
        y: y.into(),
        limits: (0.0, f64::INFINITY),
        decades: true,
        series: series(&records, point, roof),
    };
    let intensity: Point = |record| (record.flops / record.bytes, record.flops / 1e9);
    let size: Point = |record| (record.bytes / 1e6, record.bytes / 1e9);
    let figures = [
        panel(
            "Convolutions",
            "operations per byte",
            "GFLOP/s",
            measured().filter(|record| record.flops > 0.0).collect(),
            intensity,
            &|x| (x * copy).min(products) / 1e9,
        ),
        panel(
            "What memory bounds",
            "MB read and written",
            "GB/s",
            measured().filter(|record| record.flops == 0.0).collect(),
            size,
            &|_| copy / 1e9,
        ),
    ];
    let shown: Vec<Panel> = figures.into_iter().filter(|panel| !panel.series.is_empty()).collect();
    panels(&format!("Operations on {}", report.device), &shown)
}

/// The horizontal position of a record, and the amount of work that gives its rate when divided by its time.
type Point = fn(&Record) -> (f64, f64);

/// The roof, and one series per operation name; empty without records.
fn series(records: &[&Record], point: Point, roof: &dyn Fn(f64) -> f64) -> Vec<Series> {
    let places: Vec<f64> = records.iter().map(|record| point(record).0).collect();
    let (low, high) = places.iter().fold((f64::INFINITY, 0.0f64), |(low, high), &x| (low.min(x), high.max(x)));
    if places.is_empty() {
        return Vec::new();
    }
    let exact = |y: f64| Spanned { low: y, middle: y, high: y };
    // This many points, with straight lines between them, are exact except at the corner.
    let along = (0..=64).map(|i| low / 2.0 * (4.0 * high / low).powf(f64::from(i) / 64.0));
    let limit = Series {
        name: "ceiling".into(),
        colour: Colour::Kind(6),
        shown: Shown::Limit,
        places: along.map(|x| Place::at(x, exact(roof(x)))).collect(),
    };
    let mut names: Vec<&str> = records.iter().map(|record| record.operation.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let each = |(i, name): (usize, &&str)| Series {
        name: name.to_string(),
        // Skips the ceiling's colour.
        colour: Colour::Kind(i + i / 6),
        shown: Shown::Points,
        places: records.iter().filter(|record| record.operation == *name).map(|record| place(record, point)).collect(),
    };
    std::iter::once(limit).chain(names.iter().enumerate().map(each)).collect()
}

fn place(record: &Record, point: Point) -> Place {
    let (x, amount) = point(record);
    let Timing { median, min, max } = record.seconds;
    Place::at(x, Spanned { low: amount / max, middle: amount / median, high: amount / min })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::ceilings::Ceilings;

    #[test]
    fn convolutions_and_the_others_have_a_panel_each() {
        let record = |operation: &str, flops: f64| Record {
            operation: operation.into(),
            variant: String::new(),
            shape: "T=4,N=64,C=32,H=14".into(),
            copies: 3,
            firing_rate: 0.1,
            compared: 64,
            seconds: Timing { median: 1e-3, min: 9e-4, max: 1.5e-3 },
            ratio: None,
            bytes: 1e6,
            flops,
            floor: 5e-4,
            registers: None,
            images_per_second: None,
        };
        let report = |results: Vec<Record>| Report {
            command: String::new(),
            version: String::new(),
            machine: serde_json::Value::Null,
            device: "a device".into(),
            compiler: None,
            time: 0,
            ceilings: Ceilings { copy: 1e10, products: 1e11 },
            results,
            failures: Vec::new(),
        };
        let both = roofline(&report(vec![record("conv_current", 2e9), record("loss", 0.0)])).unwrap();
        assert!(both.contains("a device") && both.contains("Convolutions") && both.contains("What memory bounds"));
        assert!(both.contains("conv_current") && both.contains("loss"));
        // A single panel has only the page's title.
        let one = roofline(&report(vec![record("loss", 0.0)])).unwrap();
        assert!(!one.contains("Convolutions") && one.contains("GB/s"));
        assert!(roofline(&report(vec![])).is_err());
    }
}
