//! Histograms of the membrane potential, one panel per layer, with the surrogate's window over them.

use super::axis::{Axis, MINUS};
use super::style::{
    Area, Chart, INK, MUTED, SILENT, SPIKING, Text, WINDOW, draw_in_middle, frame, page, percent, px, stroke,
};
use crate::autotune::{BINS, Histogram, RANGE};
use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// Columns of the drawing; each holds `BINS / COLUMNS` bins.
const COLUMNS: usize = 128;
const COLUMN_WIDTH: f64 = 2.0 * RANGE / COLUMNS as f64;
/// The axis may cut off up to this many columns that stand out.
const MOST_CUT: usize = 4;
/// They are cut if the highest exceeds the rest by this factor …
const CUT_ABOVE: f64 = 3.0;
/// … and the columns not adjacent to them hold at least this share of the samples.
const CUT_REST: f64 = 0.01;
/// Head of the page and height of a panel's axes in pixels; a panel's own head grows with its notes.
const PAGE_HEAD: f64 = 70.0;
const PLOT_HEIGHT: f64 = 220.0;
const NOTE_LINE: f64 = 14.0;

/// One layer's panel.
#[derive(Clone, Debug)]
pub struct MembranePanel<'a> {
    /// The layer's name.
    pub name: String,
    /// Its potentials `z = (H - theta)/theta`.
    pub histogram: &'a Histogram,
    /// Left and right bound in units of the threshold, both positive; absent for surrogates other than AdaLi.
    pub bounds: Option<(f64, f64)>,
    /// Problems of the layer; see [`Flag::name`](crate::autotune::Flag::name).
    pub flags: Vec<String>,
}

/// Draws the distribution of each layer's membrane potential relative to the threshold as an SVG document: density
/// over `z`, the threshold, AdaLi's window, firing rate and share inside.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if there are no layers.
pub fn membranes(title: &str, layers: &[MembranePanel]) -> Result<String> {
    if layers.is_empty() {
        crate::bail_input!("there is no spiking layer to plot: the network needs at least one");
    }
    let (columns, width) = match layers.len() {
        1 => (1, 680.0),
        2..=4 => (2, 460.0),
        5..=9 => (3, 400.0),
        _ => (4, 380.0),
    };
    let panels: Vec<Panel> = layers.iter().map(Panel::new).collect();
    let notes = panels.iter().map(|panel| panel.notes.len()).max().unwrap_or(0);
    let head = 54.0 + NOTE_LINE * notes as f64;
    let height = head + PLOT_HEIGHT + 16.0;
    let page_size = (columns as f64 * width, PAGE_HEAD + layers.len().div_ceil(columns) as f64 * height);
    page(page_size.0 as u32, page_size.1 as u32, |area| {
        Text::TITLE.draw(area, (16.0, 24.0), &Text::TITLE.fit(title, page_size.0 - 32.0))?;
        draw_key(area, layers.iter().any(|layer| window(layer).is_some()))?;
        for (index, panel) in panels.iter().enumerate() {
            let corner = ((index % columns) as f64 * width, PAGE_HEAD + (index / columns) as f64 * height);
            let cell = area.clone().shrink((px(corner.0), px(corner.1)), (px(width) as u32, px(height - 16.0) as u32));
            panel.draw(&cell, width, head)?;
        }
        Ok(())
    })
}

/// The bounds, if they can be drawn.
fn window(layer: &MembranePanel) -> Option<(f64, f64)> {
    layer.bounds.filter(|b| b.0 >= 0.0 && b.1 >= 0.0 && b.0.is_finite() && b.1.is_finite())
}

/// The meaning of the colours, for all panels.
fn draw_key(area: &Area, has_window: bool) -> Result<()> {
    const LINE: f64 = 48.0;
    let window = format!("window [{MINUS}L, R]");
    let entries = [
        ("below the threshold", SILENT.filled(), true),
        ("at or above: spikes", SPIKING.filled(), true),
        (window.as_str(), WINDOW.mix(0.25).filled(), has_window),
    ];
    let mut x = 16.0;
    for (name, style, _) in entries.into_iter().filter(|entry| entry.2) {
        area.draw(&Rectangle::new([(px(x), px(LINE - 5.0)), (px(x + 14.0), px(LINE + 5.0))], style))?;
        Text::BODY.draw(area, (x + 19.0, LINE), name)?;
        x += 19.0 + Text::BODY.width(name) + 14.0;
    }
    let formula = format!("z = (H {MINUS} θ)/θ before reset");
    Text::BODY.coloured(MUTED).draw(area, (x, LINE), &formula)
}

/// A layer with the computed content of its panel.
struct Panel<'a> {
    layer: &'a MembranePanel<'a>,
    density: Vec<f64>,
    /// Upper end of the density axis.
    top: f64,
    /// Lines of small text below the sub-title.
    notes: Vec<String>,
}

impl<'a> Panel<'a> {
    fn new(layer: &'a MembranePanel<'a>) -> Self {
        let histogram = layer.histogram;
        let total = histogram.total().max(1) as f64;
        let counts = histogram.bins.chunks(BINS / COLUMNS).map(|bins| bins.iter().sum::<u64>() as f64);
        let density: Vec<f64> = counts.map(|count| count / (total * COLUMN_WIDTH)).collect();
        let (top, cut) = top_of(&density);
        let mut notes = Vec::new();
        let share = |count: u64| percent(count as f64 / total);
        let mut beyond = Vec::new();
        if histogram.underflow > 0 {
            beyond.push(format!("{} below {MINUS}{RANGE}", share(histogram.underflow)));
        }
        if histogram.overflow > 0 {
            beyond.push(format!("{} above {RANGE}", share(histogram.overflow)));
        }
        if histogram.non_finite > 0 {
            beyond.push(format!("{} not finite", histogram.non_finite));
        }
        if !beyond.is_empty() {
            notes.push(format!("not drawn: {}", beyond.join(", ")));
        }
        if let Some(column) = cut {
            let from = column as f64 * COLUMN_WIDTH - RANGE;
            let range = format!("[{from:.2}, {:.2})", from + COLUMN_WIDTH).replace('-', MINUS);
            let held = percent(density[column] * COLUMN_WIDTH);
            notes.push(format!("axis cut (▲): peak {:.1}, {held} of samples in {range}", density[column]));
        }
        Self { layer, density, top, notes }
    }

    fn draw(&self, cell: &Area, width: f64, head: f64) -> Result<()> {
        let (head_area, plot) = cell.split_vertically(px(head));
        self.draw_head(&head_area, width)?;
        let x = Axis::fixed("membrane potential relative to threshold, z", -RANGE, RANGE, 9);
        let y = Axis::fixed("density per unit of z", 0.0, self.top, 5);
        let mut chart = frame(&plot, &x, &y)?;
        if self.density.iter().all(|&d| d == 0.0) {
            let sampled = self.layer.histogram.total() > 0;
            return draw_in_middle(
                &plot,
                if sampled { "every sample lies beyond the axis" } else { "nothing sampled" },
            );
        }
        for (columns, colour) in [(0..COLUMNS / 2, SILENT), (COLUMNS / 2..COLUMNS, SPIKING)] {
            let (fill, outline) = (self.steps(columns.clone(), true), self.steps(columns, false));
            chart.draw_series([Polygon::new(fill, colour.mix(0.75).filled())])?;
            chart.draw_series([PathElement::new(outline, stroke(INK, 0.75))])?;
        }
        if let Some(bounds) = window(self.layer) {
            self.draw_window(&mut chart, bounds)?;
        }
        chart.draw_series([self.upright(0.0, INK)])?;
        let cut = (0..self.density.len()).filter(|&column| self.density[column] > self.top);
        let marks = cut.map(|column| ((column as f64 + 0.5) * COLUMN_WIDTH - RANGE, 0.965 * self.top));
        chart.draw_series(marks.map(|at| TriangleMarker::new(at, px(4.0), INK.filled())))?;
        let pixel = |z: f64| f64::from(chart.backend_coord(&(z, 0.0)).0 - plot.get_base_pixel().0) / f64::from(px(1.0));
        self.draw_labels(&head_area, (width, head - 8.0), &pixel)
    }

    /// A line over the whole height at `z`.
    fn upright(&self, z: f64, colour: RGBColor) -> PathElement<(f64, f64)> {
        PathElement::new([(z, 0.0), (z, self.top)], stroke(colour, 1.5))
    }

    /// The shaded window with a line at each bound that lies on the axis.
    fn draw_window(&self, chart: &mut Chart, (left, right): (f64, f64)) -> Result<()> {
        let corners = [((-left).max(-RANGE), 0.0), (right.min(RANGE), self.top)];
        chart.draw_series([Rectangle::new(corners, WINDOW.mix(0.18).filled())])?;
        let edges = [-left, right].into_iter().filter(|z| z.abs() < RANGE);
        chart.draw_series(edges.map(|z| self.upright(z, WINDOW)))?;
        Ok(())
    }

    /// The bounds and the threshold, written above the plot; `pixel` gives the position of a `z`.
    fn draw_labels(&self, head: &Area, (width, y): (f64, f64), pixel: &dyn Fn(f64) -> f64) -> Result<()> {
        const MARGIN: f64 = 8.0;
        let label = Text::BODY.coloured(WINDOW);
        let mut free = f64::INFINITY;
        if let Some((left, right)) = window(self.layer) {
            let text = format!("{MINUS}L = {MINUS}{left:.2}");
            let at = pixel(-left).max(MARGIN + label.width(&text));
            label.anchored(HPos::Right).draw(head, (at - 2.0, y), &text)?;
            let text = format!("R = {right:.2}");
            let at = pixel(right).min(width - MARGIN - label.width(&text));
            label.draw(head, (at + 2.0, y), &text)?;
            free = left.min(right) * (pixel(1.0) - pixel(0.0));
        }
        // Between them, only if it does not touch them.
        if free > 5.0 { Text::BODY.anchored(HPos::Center).draw(head, (pixel(0.0), y), "θ") } else { Ok(()) }
    }

    /// Name and flags, firing rate and share inside, notes.
    fn draw_head(&self, area: &Area, width: f64) -> Result<()> {
        let flags = Text::FLAG.fit(&self.layer.flags.join(", "), 0.5 * width);
        let room = width - 48.0 - Text::FLAG.width(&flags);
        Text::PANEL.draw(area, (16.0, 10.0), &Text::PANEL.fit(&self.layer.name, room))?;
        Text::FLAG.anchored(HPos::Right).draw(area, (width - 14.0, 10.0), &flags)?;
        let histogram = self.layer.histogram;
        if histogram.total() > 0 {
            let mut text = format!("firing rate {}", percent(histogram.firing_rate()));
            if let Some((left, right)) = window(self.layer) {
                text += &format!(", {} inside the window", percent(histogram.share_inside(left, right)));
            }
            Text::BODY.draw(area, (16.0, 28.0), &text)?;
        }
        for (line, note) in self.notes.iter().enumerate() {
            Text::NOTE.draw(area, (16.0, 43.0 + NOTE_LINE * line as f64), &Text::NOTE.fit(note, width - 24.0))?;
        }
        Ok(())
    }

    /// The outline of some columns, cut at the top of the axis, down to the axis at the ends if `closed`.
    fn steps(&self, columns: std::ops::Range<usize>, closed: bool) -> Vec<(f64, f64)> {
        let edge = |column: usize| column as f64 * COLUMN_WIDTH - RANGE;
        let mut points = Vec::new();
        for column in columns.clone() {
            let height = self.density[column].min(self.top);
            points.extend([(edge(column), height), (edge(column + 1), height)]);
        }
        if closed {
            points.extend([(edge(columns.end), 0.0), (edge(columns.start), 0.0)]);
        }
        points
    }
}

/// Upper end of the density axis, and the highest column if the axis cuts off a few that stand out.
fn top_of(density: &[f64]) -> (f64, Option<usize>) {
    let mut order: Vec<usize> = (0..density.len()).collect();
    order.sort_by(|&a, &b| density[b].total_cmp(&density[a]));
    let highest = density[order[0]];
    if highest == 0.0 {
        return (1.0, None);
    }
    // The largest drop in height among the first few columns separates the peaks from the rest.
    let fall = |&k: &usize| density[order[k]] / density[order[k + 1]].max(1e-9 * highest);
    let kept = (0..MOST_CUT).max_by(|a, b| fall(a).total_cmp(&fall(b))).map_or(0, |k| k + 1);
    let (peaks, reference) = (&order[..kept], density[order[kept]]);
    // A narrow distribution has only flanks next to the peak and is shown whole.
    let apart = |column: &usize| peaks.iter().all(|peak| peak.abs_diff(*column) > 1);
    let rest: f64 = order[kept..].iter().filter(|&c| apart(c)).map(|&c| density[c] * COLUMN_WIDTH).sum();
    if highest > CUT_ABOVE * reference && rest >= CUT_REST {
        return (1.25 * reference, Some(order[0]));
    }
    (1.08 * highest, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::assert_well_formed;

    /// Triangular over `(-2, 1)` around -0.5.
    fn broad() -> Histogram {
        let mut histogram = Histogram::default();
        for i in 0..100 {
            for j in 0..100 {
                histogram.count((i + j) as f32 * 0.015 - 1.985);
            }
        }
        histogram
    }

    fn panel(histogram: &Histogram, bounds: Option<(f64, f64)>) -> MembranePanel<'_> {
        MembranePanel { name: "layers.3".into(), histogram, bounds, flags: vec!["thin".into()] }
    }

    fn drawn(layers: &[MembranePanel]) -> String {
        let svg = membranes("<membranes>", layers).unwrap();
        assert_well_formed(&svg);
        svg
    }

    #[test]
    fn a_panel_shows_window_rates_and_flags() {
        let mut histogram = broad();
        histogram.overflow = 10_000;
        histogram.non_finite = 7;
        let svg = drawn(&[panel(&histogram, Some((0.52, 0.41)))]);
        for text in [
            "&lt;membranes&gt;",
            "layers.3",
            "thin",
            "−L = −0.52",
            "R = 0.41",
            "θ",
            "firing rate 61.",
            "inside the window",
            "not drawn: 50.0 % above 4, 7 not finite",
            "membrane potential relative to threshold, z",
            "density per unit of z",
        ] {
            assert!(svg.contains(text), "{text}");
        }
        let svg = drawn(&[panel(&histogram, None)]);
        assert!(!svg.contains("inside") && !svg.contains("window"));
    }

    #[test]
    fn every_layer_has_a_panel() {
        let histogram = broad();
        for count in [1, 2, 5, 12] {
            let layers: Vec<_> = (0..count).map(|_| panel(&histogram, Some((0.5, 0.5)))).collect();
            let svg = drawn(&layers);
            assert_eq!(svg.matches("layers.3").count(), count);
            assert_eq!(svg.matches("density per unit of z").count(), count);
        }
    }

    #[test]
    fn density_integrates_to_the_share_that_is_drawn() {
        let mut histogram = broad();
        histogram.underflow = histogram.total();
        let layer = panel(&histogram, None);
        let area: f64 = Panel::new(&layer).density.iter().map(|d| d * COLUMN_WIDTH).sum();
        assert!((area - 0.5).abs() < 1e-12);
    }

    #[test]
    fn a_spike_is_cut_and_a_narrow_distribution_is_not() {
        let mut spiked = broad();
        let highest = |h: &Histogram| Panel::new(&panel(h, None)).density.into_iter().fold(0.0, f64::max);
        for _ in 0..90_000 {
            spiked.count(-1.0);
        }
        let layer = panel(&spiked, None);
        assert!(Panel::new(&layer).top < 0.1 * highest(&spiked));
        assert!(drawn(&[layer]).contains("% of samples in [−1.00, −0.94)"));

        let mut narrow = Histogram::default();
        for i in 0..1000 {
            narrow.count(-1.0 + 0.0001 * i as f32);
        }
        for histogram in [&narrow, &broad()] {
            let layer = panel(histogram, None);
            assert!(Panel::new(&layer).top > highest(histogram));
            assert!(!drawn(&[layer]).contains("axis cut"));
        }
    }

    #[test]
    fn degenerate_layers_are_drawn_and_none_is_an_error() {
        let empty = Histogram::default();
        assert!(drawn(&[panel(&empty, Some((0.5, 0.5)))]).contains("nothing sampled"));
        let beyond = Histogram { underflow: 5, ..Histogram::default() };
        assert!(drawn(&[panel(&beyond, Some((0.5, 0.5)))]).contains("every sample lies beyond the axis"));
        let histogram = broad();
        for bounds in [(f64::NAN, 1.0), (9.0, 1e9), (0.0, 0.0), (-1.0, 1.0), (f64::INFINITY, 1.0)] {
            drawn(&[panel(&histogram, Some(bounds))]);
        }
        assert!(membranes("empty", &[]).unwrap_err().is::<crate::error::InputError>());
    }
}
