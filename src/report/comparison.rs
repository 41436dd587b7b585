//! Figures that compare several trainings: lines with bands over seeds, points with their spread.

use super::axis::Axis;
use super::style::{Area, Chart, INK, MUTED, Text, depth_colour, draw_in_middle, frame, page, px, stroke};
use anyhow::Result;
use plotters::coord::CoordTranslate;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

/// Width of a panel next to others and of a single one, the height of its axes, and of the page's head, in pixels.
const PANEL: f64 = 470.0;
const ALONE: f64 = 580.0;
/// Height of a panel's title; a single panel leaves it to the page.
const TITLE: f64 = 18.0;
const PLOT: f64 = 260.0;
const PAGE_HEAD: f64 = 44.0;
const KEY_LINE: f64 = 16.0;
const BAND: f64 = 0.16;
/// Lines with up to this many points get dots.
const MOST_DOTS: usize = 40;
/// Okabe and Ito's colours, those that are well visible on white.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(34, 34, 34),
];

/// The colour of a series.
#[derive(Clone, Copy, Debug)]
pub enum Colour {
    /// Index among things of a kind: distinct colours.
    Kind(usize),
    /// Index among layers: from dark to light.
    Layer { index: usize, count: usize },
}

impl Colour {
    fn rgb(self) -> RGBColor {
        match self {
            Self::Kind(index) => COLOURS[index % COLOURS.len()],
            Self::Layer { index, count } => depth_colour(index, count),
        }
    }

    /// How often the colours have been used up: a repeated colour gets other dashes and marks.
    fn round(self) -> usize {
        match self {
            Self::Kind(index) => index / COLOURS.len(),
            Self::Layer { .. } => 0,
        }
    }
}

/// A value with the ends of its spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spanned {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

/// A point in a panel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    pub x: Spanned,
    pub y: Spanned,
}

impl Place {
    /// A value at an exact `x`.
    pub fn at(x: f64, y: Spanned) -> Self {
        Self { x: Spanned { low: x, middle: x, high: x }, y }
    }
}

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// A line with a band around it, and dots if they are few.
    Curve,
    /// Each point with its spread as a cross.
    Points,
    /// A thin line.
    Limit,
}

/// A series of points.
#[derive(Clone, Debug)]
pub struct Series {
    /// Name in the key; empty for a further line of the previous series.
    pub name: String,
    pub colour: Colour,
    pub shown: Shown,
    pub places: Vec<Place>,
}

/// What the horizontal axis of a panel shows.
#[derive(Clone, Debug)]
pub enum Horizontal {
    /// Whole numbers from 1.
    Epochs,
    /// Names at 0, 1, 2, …
    Names(Vec<String>),
    /// A quantity, from 0, with its unit.
    Quantity(String),
    /// A quantity with its unit, logarithmic; the vertical axis is too.
    Decades(String),
}

/// A part of a figure.
#[derive(Clone, Debug)]
pub struct Panel {
    pub title: String,
    /// Small text below the title.
    pub note: String,
    pub x: Horizontal,
    /// Quantity and unit.
    pub y: String,
    /// Limits of the quantity, such as 0 and 100 for percent.
    pub limits: (f64, f64),
    /// Whether the vertical axis may be logarithmic.
    pub decades: bool,
    pub series: Vec<Series>,
}

/// Draws the panels as an SVG document, two per row; a single panel has only the page's title.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if there is no panel.
pub fn panels(title: &str, panels: &[Panel]) -> Result<String> {
    if panels.is_empty() {
        crate::bail_input!("there is no panel to draw");
    }
    let alone = panels.len() == 1;
    let (columns, width) = if alone { (1, ALONE) } else { (2, PANEL) };
    let head = panels.iter().map(|panel| panel.head(width)).fold(0.0, f64::max) - if alone { TITLE } else { 0.0 };
    let height = head + PLOT;
    let rows = panels.len().div_ceil(columns);
    let (wide, high) = (columns as f64 * width, PAGE_HEAD + rows as f64 * height + 6.0);
    page(wide as u32, high as u32, |area| {
        Text::TITLE.draw(area, (16.0, 24.0), &Text::TITLE.fit(title, wide - 32.0))?;
        panels.iter().enumerate().try_for_each(|(i, panel)| {
            let corner = ((i % columns) as f64 * width, PAGE_HEAD + (i / columns) as f64 * height);
            let cell = area.clone().shrink((px(corner.0), px(corner.1)), (px(width) as u32, px(height) as u32));
            let title = (!alone).then(|| format!("({}) {}", letter(i), panel.title));
            panel.draw(&cell, title.as_deref(), (width, head))
        })
    })
}

/// a … z, then numbers.
fn letter(index: usize) -> String {
    match u8::try_from(index) {
        Ok(index) if index < 26 => char::from(b'a' + index).to_string(),
        _ => (index + 1).to_string(),
    }
}

impl Panel {
    /// The position of each named series in the key: its line and its left end.
    fn key(&self, panel: f64) -> Vec<(usize, f64, &Series)> {
        let (mut line, mut at) = (0, 16.0);
        let named = self.series.iter().filter(|series| !series.name.is_empty());
        named
            .map(|series| {
                let width = 23.0 + Text::BODY.width(&series.name) + 14.0;
                if at > 16.0 && at + width > panel - 8.0 {
                    (line, at) = (line + 1, 16.0);
                }
                let place = (line, at, series);
                at += width;
                place
            })
            .collect()
    }

    /// Height above the axes in a panel of this width, in pixels.
    fn head(&self, width: f64) -> f64 {
        let lines = self.key(width).last().map_or(0, |last| last.0 + 1);
        40.0 + KEY_LINE * lines as f64 + 8.0
    }

    fn axes(&self) -> (Axis, Axis) {
        let places = || self.series.iter().flat_map(|series| &series.places);
        let over = |get: fn(&Place) -> Spanned| places().map(get).flat_map(|s| [s.low, s.middle, s.high]);
        let x = match &self.x {
            Horizontal::Epochs => {
                let last = places().map(|place| place.x.high).fold(1.0, f64::max);
                Axis::counting("epoch", 1, last as u32)
            }
            Horizontal::Names(names) => {
                let mut axis = Axis::counting("", 0, names.len().saturating_sub(1) as u32);
                // Names that would overlap are left out.
                let longest = names.iter().map(|name| Text::BODY.width(name)).fold(0.0, f64::max);
                let every = ((longest + 8.0) * names.len() as f64 / (PANEL - 80.0)).ceil().max(1.0) as usize;
                let shown = names.iter().enumerate().step_by(every);
                axis.ticks = shown.map(|(i, name)| (i as f64, Text::BODY.fit(name, 200.0))).collect();
                (axis.low, axis.high) = (-0.3, names.len() as f64 - 0.7);
                axis
            }
            Horizontal::Quantity(name) => Axis::around(name, over(|place| place.x).chain([0.0]), (0.0, f64::INFINITY)),
            Horizontal::Decades(name) => Axis::logarithmic(name, over(|place| place.x)),
        };
        let y = match self.decades {
            _ if matches!(self.x, Horizontal::Decades(_)) => Axis::logarithmic(&self.y, over(|place| place.y)),
            true => Axis::around_loss(&self.y, over(|place| place.y).collect::<Vec<_>>().into_iter()),
            false => Axis::around(&self.y, over(|place| place.y), self.limits),
        };
        (x, y)
    }

    fn draw(&self, area: &Area, title: Option<&str>, (width, head): (f64, f64)) -> Result<()> {
        let (head, plot) = area.split_vertically(px(head));
        let mut line = 10.0;
        if let Some(title) = title {
            Text::PANEL.draw(&head, (16.0, line), &Text::PANEL.fit(title, width - 32.0))?;
            line += TITLE;
        }
        let note = Text::BODY.coloured(MUTED);
        note.draw(&head, (16.0, line), &note.fit(&self.note, width - 24.0))?;
        for (row, at, series) in self.key(width) {
            let y = line + TITLE + KEY_LINE * row as f64;
            let line = [(px(at), px(y)), (px(at + 18.0), px(y))];
            match series.shown {
                Shown::Curve => path(&head, line.to_vec(), series.colour, 2.0)?,
                Shown::Points => mark(&head, (px(at + 9.0), px(y)), series.colour)?,
                Shown::Limit => head.draw(&PathElement::new(line, stroke(MUTED, 1.0)))?,
            }
            Text::BODY.draw(&head, (at + 23.0, y), &Text::BODY.fit(&series.name, width - 60.0))?;
        }
        let (x, y) = self.axes();
        let mut chart = frame(&plot, &x, &y)?;
        if y.crosses_zero() {
            chart.draw_series([PathElement::new([(x.low, 0.0), (x.high, 0.0)], stroke(MUTED, 0.75))])?;
        }
        let mut drawn = 0;
        for series in &self.series {
            drawn += series.draw(&mut chart, &x, &y)?;
        }
        if drawn == 0 { draw_in_middle(&plot, "no finite value") } else { Ok(()) }
    }
}

/// A line, dashed once the colours repeat.
fn path<C: CoordTranslate>(
    area: &DrawingArea<SVGBackend, C>,
    line: Vec<C::From>,
    colour: Colour,
    width: f64,
) -> Result<()>
where
    C::From: Clone,
{
    let style = stroke(colour.rgb(), width);
    let (dash, gap) = match colour.round() {
        0 => return Ok(area.draw(&PathElement::new(line, style))?),
        1 => (6.0, 3.0),
        _ => (1.5, 3.0),
    };
    Ok(area.draw(&DashedPathElement::new(line, px(dash), px(gap), style))?)
}

/// A disc; once the colours repeat, a triangle and then a cross.
fn mark<C: CoordTranslate>(area: &DrawingArea<SVGBackend, C>, at: C::From, colour: Colour) -> Result<()>
where
    C::From: Clone,
{
    let fill = colour.rgb().filled();
    match colour.round() {
        0 => {
            area.draw(&Circle::new(at.clone(), px(4.0), fill))?;
            area.draw(&Circle::new(at, px(4.0), stroke(INK, 0.5)))?;
        }
        1 => area.draw(&TriangleMarker::new(at, px(5.0), fill))?,
        _ => area.draw(&Cross::new(at, px(4.0), stroke(colour.rgb(), 2.0)))?,
    }
    Ok(())
}

impl Series {
    /// Draws it and returns how many points it shows.
    fn draw(&self, chart: &mut Chart, x: &Axis, y: &Axis) -> Result<usize> {
        let colour = self.colour.rgb();
        let spread = |axis: &Axis, s: Spanned| {
            let middle = axis.place(s.middle)?;
            Some([axis.place(s.low).unwrap_or(middle), middle, axis.place(s.high).unwrap_or(middle)])
        };
        let placed: Vec<_> = self.places.iter().map(|place| Some((spread(x, place.x)?, spread(y, place.y)?))).collect();
        let mut shown = 0;
        for run in placed.split(Option::is_none) {
            let run: Vec<([f64; 3], [f64; 3])> = run.iter().copied().flatten().collect();
            shown += run.len();
            let line: Vec<(f64, f64)> = run.iter().map(|(x, y)| (x[1], y[1])).collect();
            let area = chart.plotting_area();
            if self.shown == Shown::Points || run.len() == 1 {
                for (x, y) in &run {
                    for bar in [[(x[0], y[1]), (x[2], y[1])], [(x[1], y[0]), (x[1], y[2])]] {
                        area.draw(&PathElement::new(bar, stroke(colour, 1.25)))?;
                    }
                    mark(area, (x[1], y[1]), self.colour)?;
                }
                continue;
            }
            if self.shown == Shown::Limit {
                area.draw(&PathElement::new(line, stroke(MUTED, 1.0)))?;
                continue;
            }
            let below = run.iter().rev().map(|(x, y)| (x[1], y[0]));
            let band: Vec<_> = run.iter().map(|(x, y)| (x[1], y[2])).chain(below).collect();
            if run.iter().any(|(_, y)| y[0] < y[2]) {
                area.draw(&Polygon::new(band, colour.mix(BAND).filled()))?;
            }
            path(area, line.clone(), self.colour, 1.5)?;
            if run.len() <= MOST_DOTS {
                line.iter().try_for_each(|&at| area.draw(&Circle::new(at, px(2.0), colour.filled())))?;
            }
        }
        Ok(shown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::assert_well_formed;

    fn span(middle: f64) -> Spanned {
        Spanned { low: middle - 1.0, middle, high: middle + 1.0 }
    }

    fn panel(x: Horizontal, shown: Shown, names: &[&str]) -> Panel {
        let series = |(i, name): (usize, &&str)| Series {
            name: name.to_string(),
            colour: Colour::Kind(i),
            shown,
            places: (1..=3).map(|x| Place::at(x.into(), span(50.0 + (x * i as i32) as f64))).collect(),
        };
        let series = names.iter().enumerate().map(series).collect();
        let text = |text: &str| text.to_string();
        let limits = (0.0, 100.0);
        Panel { title: text("A & B"), note: text("a note"), x, y: text("y in %"), limits, decades: false, series }
    }

    #[test]
    fn every_kind_of_panel_is_well_formed() {
        let mut cases = 0;
        for shown in [Shown::Curve, Shown::Points, Shown::Limit] {
            for x in [
                Horizontal::Epochs,
                Horizontal::Names(vec!["layers.0 <".into(), "layers.1".into(), "c".into(), "d".into()]),
                Horizontal::Quantity("step time in ms".into()),
                Horizontal::Decades("operations per byte".into()),
            ] {
                for names in [&["one", "two"][..], &["a"], &[]] {
                    let svg = panels("a <title>", &[panel(x.clone(), shown, names), panel(x.clone(), shown, names)]);
                    let svg = svg.unwrap();
                    assert_well_formed(&svg);
                    assert_eq!(svg.contains("no finite value"), names.is_empty());
                    assert_eq!(svg.contains("<polygon"), shown == Shown::Curve && !names.is_empty());
                    assert!(names.iter().all(|name| svg.contains(name)));
                    cases += 1;
                }
            }
        }
        assert_eq!(cases, 36);
        assert!(panels("none", &[]).is_err());
    }

    #[test]
    fn values_that_are_not_finite_leave_gaps() {
        let mut one = panel(Horizontal::Epochs, Shown::Curve, &["a"]);
        one.series[0].places[1].y.middle = f64::NAN;
        assert_well_formed(&panels("gap", &[one]).unwrap());
    }

    #[test]
    fn a_long_key_takes_several_lines() {
        let names: Vec<String> = (0..20).map(|i| format!("configuration-{i}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let panel = panel(Horizontal::Epochs, Shown::Curve, &names);
        assert!(panel.key(PANEL).last().unwrap().0 >= 5 && panel.head(PANEL) > 120.0);
    }
}
