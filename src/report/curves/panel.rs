//! One panel: its key, its lines.

use super::super::axis::Axis;
use super::super::style::{Area, Chart, INK, MUTED, Text, draw_in_middle, frame, px, stroke};
use anyhow::Result;
use plotters::element::DashedPathElement;
use plotters::prelude::*;

/// Height of a panel's title and key, in pixels.
const PANEL_HEAD: u32 = 48;
/// Up to this many epochs every value gets a dot.
const MOST_DOTS: usize = 40;

/// One line of a panel. Points are (epoch, value); values that cannot be drawn leave a gap.
pub struct Series {
    pub name: String,
    pub colour: RGBColor,
    pub points: Vec<(f64, f64)>,
}

pub struct Panel {
    pub title: &'static str,
    /// Small text below the title, after the key.
    pub note: String,
    /// Whether its series are named in the panel itself rather than in the key of layers.
    pub own_key: bool,
    pub y: Axis,
    pub series: Vec<Series>,
    /// A point marked with a ring.
    pub best: Option<(f64, f64)>,
}

impl Panel {
    pub fn draw(&self, area: &Area, letter: char, x: &Axis) -> Result<()> {
        let (head, plot) = area.split_vertically(px(f64::from(PANEL_HEAD)));
        Text::PANEL.draw(&head, (16.0, 10.0), &format!("({letter}) {}", self.title))?;
        self.draw_key(&head)?;
        let mut chart = frame(&plot, x, &self.y)?;
        if self.y.crosses_zero() {
            chart.draw_series([PathElement::new([(x.low, 0.0), (x.high, 0.0)], stroke(MUTED, 0.75))])?;
        }
        let mut drawn = 0;
        for (index, series) in self.series.iter().enumerate() {
            let below = self.series[..index].iter().filter(|other| other.hides_under(series)).count();
            drawn += series.draw(&mut chart, &self.y, below)?;
        }
        if let Some((epoch, Some(at))) = self.best.map(|(epoch, value)| (epoch, self.y.place(value))) {
            chart.draw_series([Circle::new((epoch, at), px(5.0), stroke(INK, 1.25))])?;
        }
        if drawn == 0 {
            draw_in_middle(&plot, "no finite value")?;
        }
        Ok(())
    }

    /// The line below the title: the series' names if the panel has its own key, then the note.
    fn draw_key(&self, head: &Area) -> Result<()> {
        const LINE: f64 = 30.0;
        let mut at = 16.0;
        if self.own_key {
            for series in &self.series {
                head.draw(&PathElement::new(
                    [(px(at), px(LINE)), (px(at + 18.0), px(LINE))],
                    stroke(series.colour, 2.0),
                ))?;
                Text::BODY.draw(head, (at + 23.0, LINE), &series.name)?;
                at += 23.0 + Text::BODY.width(&series.name) + 14.0;
            }
        }
        if self.best.is_some() {
            head.draw(&Circle::new((px(at + 5.0), px(LINE)), px(5.0), stroke(INK, 1.25)))?;
            at += 15.0;
        }
        Text::BODY.coloured(MUTED).draw(head, (at, LINE), &self.note)
    }
}

impl Series {
    /// Whether this line would be hidden under `other`.
    fn hides_under(&self, other: &Self) -> bool {
        let near = |a: f64, b: f64| (a - b).abs() <= 1e-3 * a.abs().max(b.abs()) || (a.is_nan() && b.is_nan());
        self.points.iter().zip(&other.points).all(|(a, b)| near(a.1, b.1))
    }

    /// Draws the line, broken where values are missing, and returns how many values it shows. If it covers `below` lines,
    /// it is dashed, with smaller dots, so that they remain visible.
    fn draw(&self, chart: &mut Chart, y: &Axis, below: usize) -> Result<usize> {
        let placed: Vec<Option<(f64, f64)>> =
            self.points.iter().map(|&(epoch, value)| y.place(value).map(|at| (epoch, at))).collect();
        let mut shown = 0;
        for run in placed.split(Option::is_none) {
            let run: Vec<(f64, f64)> = run.iter().copied().flatten().collect();
            let dots = if placed.len() <= MOST_DOTS || run.len() == 1 { run.as_slice() } else { &[] };
            let radius = if run.len() == 1 { 3.0 } else { 2.25 } * 0.6f64.powi(below.min(4) as i32);
            chart.draw_series(dots.iter().map(|&at| Circle::new(at, px(radius), self.colour.filled())))?;
            shown += run.len();
            if run.len() > 1 {
                let line = stroke(self.colour, 1.5);
                match below {
                    0 => chart.draw_series([PathElement::new(run, line)])?,
                    _ => chart.draw_series(std::iter::once(DashedPathElement::new(
                        run,
                        px(6.0),
                        px(6.0 * below as f64),
                        line,
                    )))?,
                };
            }
        }
        Ok(shown)
    }
}
