//! An event recording: frames of it, and its rate over time.

use super::axis::Axis;
use super::style::{INK, MUTED, SILENT, SPIKING, Text, frame, page, px, stroke};
use crate::data::events::summary::{Frames, Polarities};
use anyhow::Result;
use plotters::prelude::*;

/// Width of the page, height of its head and of the rate plot, in pixels.
const WIDTH: f64 = 940.0;
const HEAD: f64 = 62.0;
const PLOT: f64 = 240.0;
const GAP: f64 = 8.0;
/// Space below a frame's picture.
const FOOT: f64 = 18.0;

/// Draws frames in a row, blue where OFF and orange where ON events prevail, above the rate of each polarity; `seconds`
/// is the time from the first to the last event, `piece` the microseconds per entry of `rate`.
pub fn events(
    title: &str,
    note: &str,
    frames: &Frames,
    seconds: f64,
    rate: &[Polarities],
    piece: u64,
) -> Result<String> {
    let count = frames.values.len().max(1) as f64;
    let side = (WIDTH - 32.0 - GAP * (count - 1.0)) / count;
    // Pictures keep the sensor's aspect ratio.
    let cell = side / frames.width.max(frames.height) as f64;
    let high = cell * frames.height as f64;
    let height = HEAD + high + FOOT + PLOT;
    page(WIDTH as u32, height as u32, |area| {
        Text::TITLE.draw(area, (16.0, 24.0), &Text::TITLE.fit(title, WIDTH - 32.0))?;
        let small = Text::BODY.coloured(MUTED);
        small.draw(area, (16.0, 46.0), &small.fit(note, WIDTH - 32.0))?;
        for (i, values) in frames.values.iter().enumerate() {
            let left = 16.0 + i as f64 * (side + GAP);
            picture(area, (left, HEAD), cell, frames.width, values)?;
            let corners = [(px(left), px(HEAD)), (px(left + cell * frames.width as f64), px(HEAD + high))];
            area.draw(&Rectangle::new(corners, stroke(MUTED, 0.75)))?;
            let from = format!("from {:.3} s", seconds * i as f64 / count);
            Text::NOTE.draw(area, (left, HEAD + high + 10.0), &Text::NOTE.fit(&from, side))?;
        }
        let (_, plot) = area.split_vertically(px(HEAD + high + FOOT));
        rates(&plot, rate, piece)
    })
}

/// One frame: strong colours where there are many events, on this frame's own scale.
fn picture(area: &super::style::Area, (left, top): (f64, f64), cell: f64, width: usize, values: &[i64]) -> Result<()> {
    let mut sizes: Vec<u64> = values.iter().map(|value| value.unsigned_abs()).filter(|&size| size > 0).collect();
    sizes.sort_unstable();
    // A few busy pixels must not make all others pale.
    let Some(&full) = sizes.get(sizes.len() * 95 / 100) else { return Ok(()) };
    for (i, &value) in values.iter().enumerate().filter(|cell| *cell.1 != 0) {
        let colour = if value > 0 { SPIKING } else { SILENT };
        let share = (value.unsigned_abs() as f64 / full as f64).min(1.0);
        let (x, y) = (left + cell * (i % width) as f64, top + cell * (i / width) as f64);
        let corners = [(px(x), px(y)), (px(x + cell), px(y + cell))];
        area.draw(&Rectangle::new(corners, colour.mix(0.25 + 0.75 * share).filled()))?;
    }
    Ok(())
}

/// The rate of ON and OFF events over time.
fn rates(area: &super::style::Area, rate: &[Polarities], piece: u64) -> Result<()> {
    let width = piece as f64 / 1e6;
    let curve = |get: fn(&Polarities) -> u64| -> Vec<(f64, f64)> {
        rate.iter().enumerate().map(|(i, piece)| ((i as f64 + 0.5) * width, get(piece) as f64 / width / 1e3)).collect()
    };
    let curves = [("OFF", SILENT, curve(|p| p.off)), ("ON", SPIKING, curve(|p| p.on))];
    let points = || curves.iter().flat_map(|curve| &curve.2);
    let x = Axis::around("seconds from the first event", points().map(|p| p.0).chain([0.0]), (0.0, f64::INFINITY));
    let y = Axis::around("thousand events/s", points().map(|p| p.1).chain([0.0]), (0.0, f64::INFINITY));
    let mut chart = frame(area, &x, &y)?;
    for (i, (name, colour, points)) in curves.iter().enumerate() {
        chart.draw_series([PathElement::new(points.clone(), stroke(*colour, 1.5))])?;
        let at = 90.0 + 60.0 * i as f64;
        area.draw(&PathElement::new([(px(at), px(8.0)), (px(at + 16.0), px(8.0))], stroke(*colour, 3.0)))?;
        Text::BODY.coloured(INK).draw(area, (at + 21.0, 8.0), name)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::assert_well_formed;

    #[test]
    fn full_and_empty_recordings_are_drawn() {
        let full = Frames { width: 3, height: 2, values: vec![vec![0, 1, -2, 0, 50, 0]; 4] };
        let rate = [Polarities { off: 1, on: 2 }, Polarities { off: 0, on: 7 }];
        let svg = events("a <recording>", "a note", &full, 0.3, &rate, 1000).unwrap();
        assert_well_formed(&svg);
        assert!(svg.contains("from 0.225 s") && svg.contains("ON"));
        let empty = Frames { width: 1, height: 1, values: vec![vec![0]] };
        assert_well_formed(&events("empty", "", &empty, 0.0, &[], 1000).unwrap());
    }
}
