//! Curves over the epochs: loss, accuracy, firing rates and, for AdaLi, bounds and share inside the window.

mod panel;

use super::axis::{Axis, MINUS, plottable};
use super::style::{Area, MUTED, TRAIN, Text, VALIDATION, depth_colour, page, px, stroke};
use crate::metrics::Best;
use crate::metrics::{EpochMetrics, LayerMetrics};
use anyhow::Result;
use panel::{Panel, Series};
use plotters::prelude::*;
use std::collections::BTreeMap;

/// Size of a panel, and where the panels begin, in pixels.
const PANEL: (u32, u32) = (420, 310);
const PAGE_HEAD: u32 = 44;
/// Draws loss, accuracy and each layer's firing rate over the epochs as an SVG document, and for AdaLi each layer's
/// bounds and its share inside the window. A repeated epoch replaces the earlier one (resumed runs).
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if there are no epochs.
pub fn curves(title: &str, epochs: &[EpochMetrics]) -> Result<String> {
    let epochs: Vec<&EpochMetrics> =
        epochs.iter().map(|e| (e.epoch, e)).collect::<BTreeMap<_, _>>().into_values().collect();
    let (Some(first), Some(last)) = (epochs.first(), epochs.last()) else {
        crate::bail_input!("there is no epoch to plot: train for at least one epoch first");
    };
    let x = Axis::counting("epoch", first.epoch, last.epoch);
    let layers = layer_names(&epochs);
    let mut panels = training_panels(&epochs);
    panels.extend(layer_panels(&epochs, &layers));
    let cells = panels.len() as u32 + u32::from(!layers.is_empty());
    let columns = if cells <= 4 { 2 } else { 3 };
    let (width, height) = (columns * PANEL.0, PAGE_HEAD + cells.div_ceil(columns) * PANEL.1 + 6);
    page(width, height, |area| {
        Text::TITLE.draw(area, (16.0, 24.0), &Text::TITLE.fit(title, f64::from(width) - 32.0))?;
        let cell = |index: usize| {
            let (column, row) = (index as u32 % columns, index as u32 / columns);
            let corner = (f64::from(column * PANEL.0), f64::from(PAGE_HEAD + row * PANEL.1));
            let size = (px(f64::from(PANEL.0)) as u32, px(f64::from(PANEL.1)) as u32);
            area.clone().shrink((px(corner.0), px(corner.1)), size)
        };
        for (index, panel) in panels.iter().enumerate() {
            panel.draw(&cell(index), (b'a' + index as u8) as char, &x)?;
        }
        if layers.is_empty() { Ok(()) } else { draw_layers(&cell(panels.len()), &layers, last) }
    })
}

/// Names of the layers in order of appearance.
fn layer_names(epochs: &[&EpochMetrics]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for layer in epochs.iter().flat_map(|epoch| &epoch.layers) {
        if !names.contains(&layer.name) {
            names.push(layer.name.clone());
        }
    }
    names
}

/// One value per epoch; missing values are NaN.
fn over_epochs(
    name: &str,
    colour: RGBColor,
    epochs: &[&EpochMetrics],
    value: impl Fn(&EpochMetrics) -> Option<f64>,
) -> Series {
    let points = epochs.iter().map(|e| (f64::from(e.epoch), value(e).unwrap_or(f64::NAN))).collect();
    Series { name: name.into(), colour, points }
}

fn values(series: &[Series]) -> impl Iterator<Item = f64> + Clone {
    series.iter().flat_map(|series| &series.points).map(|point| point.1)
}

/// Loss and accuracy, for training and, if there is one, for validation.
fn training_panels(epochs: &[&EpochMetrics]) -> Vec<Panel> {
    let mut loss = vec![over_epochs("train", TRAIN, epochs, |e| Some(e.train_loss))];
    let mut accuracy = vec![over_epochs("train", TRAIN, epochs, |e| Some(100.0 * e.train_accuracy))];
    let mut best = None;
    if epochs.iter().any(|e| e.validation_loss.is_some() || e.validation_accuracy.is_some()) {
        loss.push(over_epochs("validation", VALIDATION, epochs, |e| e.validation_loss));
        let validation = over_epochs("validation", VALIDATION, epochs, |e| e.validation_accuracy.map(|a| 100.0 * a));
        best = chosen(epochs).map(|best| (f64::from(best.epoch), 100.0 * best.accuracy));
        accuracy.push(validation);
    }
    let losses = epochs.iter().flat_map(|e| [Some(e.train_loss), e.validation_loss]).flatten();
    let missing = match losses.filter(|&loss| !plottable(loss)).count() {
        0 => String::new(),
        1 => "1 value not finite".into(),
        missing => format!("{missing} values not finite"),
    };
    let marked = best.map_or_else(String::new, |(epoch, value)| format!("saved: {value:.2} % (epoch {epoch})"));
    let loss_axis = Axis::around_loss("loss", values(&loss));
    let accuracy_axis = Axis::around("accuracy in %", values(&accuracy), (0.0, 100.0));
    let panel = |title, note, y, series, best| Panel { title, note, own_key: true, y, series, best };
    vec![panel("Loss", missing, loss_axis, loss, None), panel("Accuracy", marked, accuracy_axis, accuracy, best)]
}

/// The epoch whose network was saved, by the rule of the training itself.
fn chosen(epochs: &[&EpochMetrics]) -> Option<Best> {
    let scored = epochs.iter().filter_map(|e| {
        Some(Best {
            epoch: e.epoch,
            accuracy: e.validation_accuracy?,
            loss: e.validation_loss.unwrap_or(f64::INFINITY),
        })
    });
    let drawn = scored.filter(|score| plottable(score.accuracy));
    drawn.reduce(|best, now| if now.beats(&best) { now } else { best })
}

/// One line per layer: firing rates, then the AdaLi-only quantities.
fn layer_panels(epochs: &[&EpochMetrics], layers: &[String]) -> Vec<Panel> {
    let per_layer = |value: &dyn Fn(&LayerMetrics) -> Option<f64>| -> Vec<Series> {
        let of = |name: &str, e: &EpochMetrics| e.layers.iter().find(|layer| layer.name == name).and_then(value);
        let colours = (0..layers.len()).map(|index| depth_colour(index, layers.len()));
        layers.iter().zip(colours).map(|(name, colour)| over_epochs(name, colour, epochs, |e| of(name, e))).collect()
    };
    let panel = |title, note, unit: &str, limits, series: Vec<Series>| {
        let y = Axis::around(unit, values(&series).chain([0.0]), limits);
        Panel { title, note, own_key: false, y, series, best: None }
    };
    const PERCENT: (f64, f64) = (0.0, 100.0);
    const ANY: (f64, f64) = (f64::NEG_INFINITY, f64::INFINITY);
    let measured = |what: fn(&LayerMetrics) -> bool| epochs.iter().flat_map(|e| &e.layers).any(what);
    let mut panels = Vec::new();
    if !layers.is_empty() {
        let rates = per_layer(&|layer| Some(100.0 * layer.firing_rate));
        panels.push(panel(
            "Firing rate",
            "share of neuron-steps that spike".into(),
            "firing rate in %",
            PERCENT,
            rates,
        ));
    }
    if measured(|layer| layer.bounds.is_some()) {
        let mut bounds = per_layer(&|layer| layer.bounds.map(|b| -b.left));
        bounds.extend(per_layer(&|layer| layer.bounds.map(|b| b.right)));
        let note = format!("+R above 0, {MINUS}L below 0; 0 is the threshold");
        panels.push(panel("Bounds", note, "bound in units of the threshold", ANY, bounds));
    }
    if measured(|layer| layer.inside.is_some()) {
        let inside = per_layer(&|layer| layer.inside.map(|share| 100.0 * share));
        let note = format!("share of neuron-steps with the membrane in [{MINUS}L, R]");
        panels.push(panel("Inside the window", note, "share inside in %", PERCENT, inside));
    }
    panels
}

/// The key of layers for all panels with one line per layer, with the flags of the last epoch.
fn draw_layers(area: &Area, layers: &[String], last: &EpochMetrics) -> Result<()> {
    const ROWS: usize = 13;
    const ROW: f64 = 18.0;
    Text::PANEL.draw(area, (16.0, 10.0), "Layers")?;
    let flagged = last.layers.iter().any(|layer| !layer.flags.is_empty());
    let top = if flagged { 54.0 } else { 34.0 };
    if flagged {
        let note = format!("with their flags in epoch {}", last.epoch);
        Text::BODY.coloured(MUTED).draw(area, (16.0, 30.0), &note)?;
    }
    let width = f64::from(PANEL.0 - 16) / layers.len().div_ceil(ROWS) as f64;
    for (index, name) in layers.iter().enumerate() {
        let (x, y) = (16.0 + width * (index / ROWS) as f64, top + ROW * (index % ROWS) as f64);
        let line =
            PathElement::new([(px(x), px(y)), (px(x + 18.0), px(y))], stroke(depth_colour(index, layers.len()), 3.0));
        area.draw(&line)?;
        let name_shown = Text::BODY.fit(name, width - 36.0);
        Text::BODY.draw(area, (x + 24.0, y), &name_shown)?;
        if let Some(layer) = last.layers.iter().find(|layer| layer.name == *name) {
            let from = 24.0 + Text::BODY.width(&name_shown) + 10.0;
            let flags = Text::FLAG.fit(&layer.flags.join(", "), width - from);
            Text::FLAG.draw(area, (x + from, y), &flags)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::BoundsMetrics;
    use crate::report::tests::assert_well_formed;

    fn layer(index: u32, bounded: bool) -> LayerMetrics {
        LayerMetrics {
            name: format!("layers.{index}"),
            bounds: bounded.then_some(BoundsMetrics { left: 0.8, right: 0.4, alpha: 0.5, beta: 0.5 }),
            firing_rate: 0.1 / f64::from(index + 1),
            inside: bounded.then_some(0.4),
            mean_slope: Some(0.3),
            mean_square_slope: Some(0.2),
            flags: if index == 1 { vec!["dead".into()] } else { Vec::new() },
        }
    }

    fn epochs(count: u32, layers: u32, bounded: bool, validation: bool) -> Vec<EpochMetrics> {
        let epoch = |epoch: u32| EpochMetrics {
            epoch,
            train_loss: 2.0 / f64::from(epoch),
            train_accuracy: 0.9,
            validation_loss: validation.then_some(1.0),
            validation_accuracy: validation.then_some(if epoch == 3 { 0.875 } else { 0.75 }),
            learning_rate: 0.1,
            gradient_norm: 1.0,
            images_per_second: 1.0,
            seconds: 1.0,
            layers: (0..layers).map(|index| layer(index, bounded)).collect(),
        };
        (1..=count).map(epoch).collect()
    }

    fn drawn(epochs: &[EpochMetrics]) -> String {
        let svg = curves("a <title> & more", epochs).unwrap();
        assert_well_formed(&svg);
        svg
    }

    #[test]
    fn of_equal_accuracies_the_lower_loss_was_saved_then_the_earlier_epoch() {
        let mut epochs = epochs(4, 1, true, true);
        for (losses, saved) in [([0.9, 0.7, 0.5, 0.6], 3), ([0.5, 0.7, 0.5, 0.5], 1), ([0.9, f64::NAN, 0.8, 0.8], 3)] {
            for (epoch, loss) in epochs.iter_mut().zip(losses) {
                (epoch.validation_accuracy, epoch.validation_loss) = (Some(0.875), Some(loss));
            }
            let of: Vec<_> = epochs.iter().collect();
            assert_eq!(chosen(&of).map(|best| best.epoch), Some(saved), "{losses:?}");
            assert!(drawn(&epochs).contains(&format!("saved: 87.50 % (epoch {saved})")), "{losses:?}");
        }
    }

    #[test]
    fn adali_has_five_panels_and_a_key_of_layers() {
        let svg = drawn(&epochs(5, 2, true, true));
        for text in [
            "a &lt;title&gt; &amp; more",
            "(a) Loss",
            "(b) Accuracy",
            "(c) Firing rate",
            "(d) Bounds",
            "(e) Inside the window",
            "accuracy in %",
            "firing rate in %",
            "bound in units of the threshold",
            "share inside in %",
            "validation",
            "saved: 87.50 % (epoch 3)",
            "layers.0",
            "layers.1",
            "dead",
        ] {
            assert!(svg.contains(text), "{text}");
        }
    }

    #[test]
    fn what_was_not_measured_is_not_drawn() {
        let svg = drawn(&epochs(5, 2, false, false));
        for text in ["Bounds", "Inside", "validation", "saved"] {
            assert!(!svg.contains(text), "{text}");
        }
        assert!(!drawn(&epochs(5, 0, false, true)).contains("Layers"));
    }

    #[test]
    fn one_epoch_is_dots_and_many_are_lines() {
        let one = drawn(&epochs(1, 1, true, true));
        // Loss 2, accuracy 2, the ring twice, firing rate, two bounds, share inside.
        assert_eq!(one.matches("<circle").count(), 10);
        let many = drawn(&epochs(500, 12, true, true));
        assert_eq!(many.matches("<circle").count(), 2);
    }

    #[test]
    fn values_that_are_not_finite_leave_gaps() {
        let mut some = epochs(60, 1, true, true);
        some[20].train_loss = f64::NAN;
        some[30].validation_loss = Some(f64::INFINITY);
        some[40].layers.clear();
        assert!(drawn(&some).contains("2 values not finite"));
        let mut none = epochs(3, 1, true, true);
        for epoch in &mut none {
            epoch.train_loss = f64::NAN;
            epoch.validation_loss = None;
            epoch.validation_accuracy = Some(f64::NAN);
            epoch.layers[0].firing_rate = f64::NEG_INFINITY;
        }
        let svg = drawn(&none);
        assert!(svg.contains("no finite value") && !svg.contains("saved"));
    }

    #[test]
    fn repeated_epochs_are_drawn_once_and_none_is_an_error() {
        let twice = [epochs(4, 1, true, true), epochs(4, 1, true, true)].concat();
        assert_eq!(drawn(&twice), drawn(&epochs(4, 1, true, true)));
        assert!(curves("empty", &[]).unwrap_err().is::<crate::error::InputError>());
    }
}
