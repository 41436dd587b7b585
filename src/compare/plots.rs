//! The figures of a comparison.

use crate::compare::record::{Comparison, RunRecord};
use crate::compare::summary::{Spread, Summary};
use crate::metrics::{EpochMetrics, LayerMetrics};
use crate::report::comparison::{Colour, Horizontal, Panel, Place, Series, Shown, Spanned, panels};
use anyhow::Result;

const PERCENT: (f64, f64) = (0.0, 100.0);
const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);

/// Names and SVG documents of everything that can be drawn so far.
pub fn all(comparison: &Comparison, summaries: &[Summary]) -> Result<Vec<(&'static str, String)>> {
    let mut drawn = Vec::new();
    if comparison.runs.iter().any(|record| !record.epochs.is_empty()) {
        drawn.push(("accuracy.svg", accuracy(comparison)?));
        let bounded = bounds(comparison);
        if !bounded.is_empty() {
            drawn.push(("bounds.svg", panels("AdaLi's bounds over the epochs", &bounded)?));
        }
        drawn.push(("gradients.svg", gradients(comparison, summaries)?));
    }
    if let Some(svg) = cost(comparison, summaries)? {
        drawn.push(("cost.svg", svg));
    }
    Ok(drawn)
}

fn spanned(spread: Spread) -> Spanned {
    Spanned { low: spread.min, middle: spread.mean, high: spread.max }
}

fn scaled(spread: Spread, by: f64) -> Spanned {
    Spanned { low: by * spread.min, middle: by * spread.mean, high: by * spread.max }
}

/// A value over the epochs, with its spread over the runs that have it.
fn over_epochs(runs: &[&RunRecord], value: impl Fn(&EpochMetrics) -> Option<f64>) -> Vec<Place> {
    let last = runs.iter().map(|run| run.epochs.len()).max().unwrap_or(0);
    let place = |i: usize| {
        let values = runs.iter().filter_map(|run| run.epochs.get(i)).filter_map(&value);
        let values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
        Spread::of(values).map(|spread| Place::at((i + 1) as f64, spanned(spread)))
    };
    (0..last).filter_map(place).collect()
}

fn seeds(comparison: &Comparison) -> String {
    match comparison.plan.seeds.len() {
        1 => "one seed".into(),
        count => format!("mean and range over {count} seeds"),
    }
}

fn accuracy(comparison: &Comparison) -> Result<String> {
    let lines = |value: &dyn Fn(&EpochMetrics) -> Option<f64>| -> Vec<Series> {
        let configurations = comparison.plan.configurations.iter().enumerate();
        let line = |(i, configuration): (usize, &crate::compare::Configuration)| {
            let runs: Vec<&RunRecord> = comparison.runs_of(&configuration.name).collect();
            let places = over_epochs(&runs, value);
            Series { name: configuration.name.clone(), colour: Colour::Kind(i), shown: Shown::Curve, places }
        };
        configurations.map(line).collect()
    };
    let held_out = lines(&|e| e.validation_accuracy.map(|a| 100.0 * a));
    let (title, series) = match held_out.iter().any(|series| !series.places.is_empty()) {
        true => ("Validation accuracy", held_out),
        false => ("Training accuracy", lines(&|e| Some(100.0 * e.train_accuracy))),
    };
    let panel = |title: &str, y: &str, limits, decades, series| Panel {
        title: title.into(),
        note: seeds(comparison),
        x: Horizontal::Epochs,
        y: y.into(),
        limits,
        decades,
        series,
    };
    let loss = lines(&|e| Some(e.train_loss));
    panels(
        "Accuracy and loss over the epochs",
        &[
            panel(title, "accuracy in %", PERCENT, false, series),
            panel("Training loss", "loss", (0.0, f64::INFINITY), true, loss),
        ],
    )
}

/// Bounds and share inside, for every configuration that has bounds.
fn bounds(comparison: &Comparison) -> Vec<Panel> {
    let mut drawn = Vec::new();
    for configuration in &comparison.plan.configurations {
        let runs: Vec<&RunRecord> = comparison.runs_of(&configuration.name).collect();
        let Some(layers) = runs.iter().find_map(|run| run.epochs.first()).map(|epoch| &epoch.layers) else { continue };
        if !layers.iter().any(|layer| layer.bounds.is_some()) {
            continue;
        }
        let lines = |named: bool, value: &dyn Fn(&LayerMetrics) -> Option<f64>| {
            let line = |(index, layer): (usize, &LayerMetrics)| Series {
                name: if named { layer.name.clone() } else { String::new() },
                colour: Colour::Layer { index, count: layers.len() },
                shown: Shown::Curve,
                places: over_epochs(&runs, |e| e.layers.get(index).and_then(value)),
            };
            layers.iter().enumerate().map(line).collect::<Vec<_>>()
        };
        let mut bounds = lines(true, &|layer| layer.bounds.map(|b| b.right));
        bounds.extend(lines(false, &|layer| layer.bounds.map(|b| -b.left)));
        let panel = |what: &str, note: &str, y: &str, limits, series| Panel {
            title: format!("{}: {what}", configuration.name),
            note: format!("{note}; {}", seeds(comparison)),
            x: Horizontal::Epochs,
            y: y.into(),
            limits,
            decades: false,
            series,
        };
        drawn.push(panel("bounds", "+R above 0, −L below 0", "bound in units of the threshold", ANY, bounds));
        let inside = lines(true, &|layer| layer.inside.map(|share| 100.0 * share));
        drawn.push(panel("inside", "potentials in [−L, R]", "share inside in %", PERCENT, inside));
    }
    drawn
}

fn gradients(comparison: &Comparison, summaries: &[Summary]) -> Result<String> {
    let mut names: Vec<String> = Vec::new();
    for layer in summaries.iter().flat_map(|summary| &summary.layers) {
        if !names.contains(&layer.name) {
            names.push(layer.name.clone());
        }
    }
    let line = |(i, summary): (usize, &Summary)| {
        let place = |layer: &crate::compare::summary::LayerSummary| {
            let at = names.iter().position(|name| *name == layer.name)?;
            Some(Place::at(at as f64, spanned(layer.gradient_norm?)))
        };
        let places = summary.layers.iter().filter_map(place).collect();
        Series { name: summary.name.clone(), colour: Colour::Kind(i), shown: Shown::Curve, places }
    };
    let panel = Panel {
        title: "Gradient norm by layer".into(),
        note: format!("after the last epoch; {}", seeds(comparison)),
        x: Horizontal::Names(names.clone()),
        y: "2-norm of the weight's gradient".into(),
        limits: (0.0, f64::INFINITY),
        decades: true,
        series: summaries.iter().enumerate().map(line).collect(),
    };
    panels("Gradient norm by layer", &[panel])
}

fn cost(comparison: &Comparison, summaries: &[Summary]) -> Result<Option<String>> {
    let Some(costs) = &comparison.costs else { return Ok(None) };
    let point = |(i, (summary, cost)): (usize, (&Summary, &crate::compare::steps::StepCost))| {
        let ms = |seconds: f64| 1e3 * seconds;
        let x = Spanned { low: ms(cost.step.min), middle: ms(cost.step.median), high: ms(cost.step.max) };
        let places = summary.test_accuracy.map(|accuracy| Place { x, y: scaled(accuracy, 100.0) });
        let name = summary.name.clone();
        Series { name, colour: Colour::Kind(i), shown: Shown::Points, places: places.into_iter().collect() }
    };
    let panel = Panel {
        title: "Cost against accuracy".into(),
        note: format!("step: median and range over {} rounds; accuracy: {}", costs.rounds, seeds(comparison)),
        x: Horizontal::Quantity("training step in ms".into()),
        y: "test accuracy in %".into(),
        limits: PERCENT,
        decades: false,
        series: summaries.iter().zip(&costs.configurations).enumerate().map(point).collect(),
    };
    panels("Cost against accuracy", &[panel]).map(Some)
}
