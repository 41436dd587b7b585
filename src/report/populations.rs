//! A network as a picture: populations of neurons from top to bottom, and the projections between them.

use super::style::{Area, INK, MUTED, SILENT, Text, VALIDATION, page, px, stroke};
use crate::network::plan::{Plan, Population, Projection, Source};
use crate::network::spec::{Combination, Norm};
use crate::network::table::{after_spikes, factors, synapses};
use anyhow::Result;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// Height of the page's head, and extents of a box and of the space around it, in pixels.
const HEAD: f64 = 74.0;
const BOX: f64 = 280.0;
const LINE: f64 = 15.0;
const RADIUS: f64 = 8.0;
const MARGIN: f64 = 24.0;
/// Between the lines that pass a box.
const LANE: f64 = 18.0;
/// From one box's output down to where its reader's line begins.
const GAP: f64 = 12.0;
/// The least width of the page, for its head.
const WIDTH: f64 = 620.0;

/// Draws `plan`: a box for each population, solid lines for convolutions, dashed ones for what is passed on as it is.
pub fn populations(title: &str, plan: &Plan) -> Result<String> {
    let rows = rows(plan);
    let mut wires = wires(plan);
    let ends: Vec<(f64, f64)> = wires.iter().map(|wire| (wire.begin(&rows), wire.end(&rows))).collect();
    let [left, right] = [Side::Left, Side::Right].map(|side| assign_lanes(&mut wires, &ends, side) as f64 * LANE);
    let (before, after) = (MARGIN + left, MARGIN + right);
    let width = (before + BOX + after).max(WIDTH);
    let centre = before + BOX / 2.0 + ((width - before - BOX - after) / 2.0).floor();
    let height = rows.last().map_or(HEAD, |row| row.bottom) + MARGIN;
    page(width.ceil() as u32, height.ceil() as u32, |area| {
        Text::TITLE.draw(area, (16.0, 24.0), &Text::TITLE.fit(title, width - 32.0))?;
        draw_key(area)?;
        let picture = Picture { area, centre };
        let input = format!("input {}x{}x{}", plan.input.h, plan.input.w, plan.input.c);
        let frames = if plan.direct { "the same at every step" } else { "a frame per step" };
        picture.draw_box((HEAD, HEAD + box_height(2)), &[input, frames.into()], false)?;
        for (wire, &ends) in wires.iter().zip(&ends) {
            picture.draw_wire(wire, ends)?;
        }
        for (i, row) in rows.iter().enumerate() {
            picture.draw_row(plan, i, row, if i == 0 { HEAD + box_height(2) } else { rows[i - 1].junction })?;
        }
        Ok(())
    })
}

/// The meaning of the lines.
fn draw_key(area: &Area) -> Result<()> {
    const Y: f64 = 50.0;
    let mut x = 16.0;
    for (name, colour, dashed) in [
        ("convolution or linear", INK, false),
        ("as it is", INK, true),
        ("currents before the neurons", VALIDATION, true),
        ("Σ of currents", INK, false),
    ] {
        if !name.starts_with('Σ') {
            draw_line(area, &[(x, Y), (x + 24.0, Y)], colour, dashed)?;
            x += 30.0;
        }
        Text::BODY.draw(area, (x, Y), name)?;
        x += Text::BODY.width(name) + 12.0;
    }
    Ok(())
}

/// Where the parts of a population are, from top to bottom.
struct Row {
    /// Where a line of its own convolution from further above arrives.
    join: f64,
    /// The sum of several projections.
    sum: Option<f64>,
    /// Where its currents leave.
    currents: f64,
    top: f64,
    bottom: f64,
    combination: Option<f64>,
    /// Where its output leaves.
    junction: f64,
}

fn rows(plan: &Plan) -> Vec<Row> {
    let mut y = HEAD + box_height(2);
    let place = |population: &Population| {
        let join = y + GAP;
        let sum = (population.projections.len() > 1).then_some(join + 34.0);
        let above = sum.map_or(join + 22.0, |sum| sum + RADIUS);
        let currents = above + 8.0;
        let top = above + if population.hands_on_currents { 22.0 } else { 12.0 };
        let bottom = top + box_height(texts(population).len());
        let combination = population.combine.map(|_| bottom + 10.0 + RADIUS);
        let junction = combination.map_or(bottom, |at| at + RADIUS) + 8.0;
        y = junction;
        Row { join, sum, currents, top, bottom, combination, junction }
    };
    plan.populations.iter().map(place).collect()
}

fn box_height(lines: usize) -> f64 {
    10.0 + LINE * lines as f64
}

/// What a box says.
fn texts(population: &Population) -> Vec<String> {
    let name = population.name.as_ref().map_or(String::new(), |name| format!("  {name}"));
    let volume = population.volume;
    let what = match (population.spiking, population.is_linear_readout()) {
        (true, _) => "neurons",
        (false, true) => "outputs, no neurons",
        (false, false) => "currents, no neurons",
    };
    let mut texts = vec![format!("{}{name}", population.label())];
    if population.sum_norm == Norm::Batch {
        texts.push("batch norm of the sum".into());
    }
    if population.sum_scale != 1.0 {
        texts.push(format!("sum x {}", population.sum_scale));
    }
    texts.push(format!("{}x{}x{}: {} {what}", volume.h, volume.w, volume.c, volume.values()));
    let after = after_spikes(population);
    if !after.is_empty() {
        let output = population.output();
        texts.push(format!("{}: {}x{}x{}", after.join(", "), output.h, output.w, output.c));
    }
    texts
}

/// What a line of a projection says.
fn label(projection: &Projection) -> String {
    synapses_and_norm(projection) + &factors(projection)
}

fn synapses_and_norm(projection: &Projection) -> String {
    let norm = match projection.convolution.as_ref().map(|convolution| convolution.synapse.norm) {
        Some(Norm::Batch) => ", batch norm",
        Some(Norm::Weight) => ", weight norm",
        Some(Norm::None) | None => "",
    };
    format!("{}{norm}", synapses(projection))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Left,
    Right,
}

/// A line that passes boxes on one side.
struct Wire {
    side: Side,
    lane: usize,
    source: Source,
    target: usize,
    to: Target,
    dashed: bool,
    label: String,
}

/// Where a wire ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Target {
    /// Above the label of the own convolution.
    Join,
    Sum,
    Combination,
}

impl Wire {
    fn begin(&self, rows: &[Row]) -> f64 {
        match self.source {
            Source::Input => HEAD + box_height(2),
            Source::Output(i) => rows[i].junction,
            Source::Currents(i) => rows[i].currents,
        }
    }

    fn end(&self, rows: &[Row]) -> f64 {
        let row = &rows[self.target];
        match self.to {
            Target::Join => row.join,
            Target::Sum => row.sum.unwrap_or(row.join),
            Target::Combination => row.combination.unwrap_or(row.bottom),
        }
    }

    fn colour(&self) -> RGBColor {
        if matches!(self.source, Source::Currents(_)) { VALIDATION } else { INK }
    }
}

/// The source directly above a population.
fn above(i: usize) -> Source {
    i.checked_sub(1).map_or(Source::Input, Source::Output)
}

/// All that does not come straight from the box above.
fn wires(plan: &Plan) -> Vec<Wire> {
    let mut wires = Vec::new();
    for (target, population) in plan.populations.iter().enumerate() {
        for (k, projection) in population.projections.iter().enumerate() {
            let (side, to) = match k {
                0 => (Side::Left, Target::Join),
                1 => (Side::Right, Target::Sum),
                _ => (Side::Left, Target::Sum),
            };
            // The label of a layer's own convolution stands at the arrow.
            let label = if k == 0 { String::new() } else { label(projection) };
            let (source, dashed) = (projection.source, projection.convolution.is_none());
            if k > 0 || source != above(target) {
                wires.push(Wire { side, lane: 0, source, target, to, dashed, label });
            }
        }
        if let Some((other, _)) = population.combine {
            let (source, to, label) = (Source::Output(other), Target::Combination, String::new());
            wires.push(Wire { side: Side::Right, lane: 0, source, target, to, dashed: true, label });
        }
    }
    wires
}

/// Gives each wire of a side a lane that no other one uses at the same height, short ones first; returns the number of
/// lanes.
fn assign_lanes(wires: &mut [Wire], ends: &[(f64, f64)], side: Side) -> usize {
    let mut order: Vec<usize> = (0..wires.len()).filter(|&i| wires[i].side == side).collect();
    order.sort_by(|&a, &b| (ends[a].1 - ends[a].0).total_cmp(&(ends[b].1 - ends[b].0)));
    let mut lanes: Vec<Vec<(f64, f64)>> = Vec::new();
    for i in order {
        let (begin, end) = ends[i];
        let free = |lane: &Vec<(f64, f64)>| lane.iter().all(|&(from, to)| end <= from || to <= begin);
        let lane = lanes.iter().position(free).unwrap_or_else(|| {
            lanes.push(Vec::new());
            lanes.len() - 1
        });
        lanes[lane].push((begin, end));
        wires[i].lane = lane;
    }
    lanes.len()
}

struct Picture<'a, 'b> {
    area: &'a Area<'b>,
    /// Of the boxes.
    centre: f64,
}

impl Picture<'_, '_> {
    fn draw_row(&self, plan: &Plan, i: usize, row: &Row, above_y: f64) -> Result<()> {
        let (population, centre) = (&plan.populations[i], self.centre);
        let own = &population.projections[0];
        let begin = if own.source == above(i) { above_y } else { row.join };
        self.draw_arrow(begin, row.sum.map_or(row.top, |sum| sum - RADIUS), own.convolution.is_none())?;
        let note = Text::NOTE.anchored(HPos::Right);
        for (line, text) in [synapses_and_norm(own), factors(own).trim().into()].iter().enumerate() {
            let y = row.join + 10.0 + 13.0 * line as f64;
            note.draw(self.area, (centre - 8.0, y), &note.fit(text, BOX / 2.0))?;
        }
        if let Some(sum) = row.sum {
            self.draw_arrow(sum + RADIUS, row.top, false)?;
            self.draw_circle(sum, "Σ")?;
        }
        self.draw_box((row.top, row.bottom), &texts(population), population.spiking)?;
        if i + 1 == plan.populations.len() {
            return Ok(());
        }
        draw_line(self.area, &[(centre, row.bottom), (centre, row.junction)], INK, false)?;
        match (row.combination, population.combine) {
            (Some(at), Some((_, with))) => self.draw_circle(at, symbol(with)),
            _ => Ok(()),
        }
    }

    fn draw_wire(&self, wire: &Wire, (begin, end): (f64, f64)) -> Result<()> {
        let outward = if wire.side == Side::Left { -1.0 } else { 1.0 };
        let lane = self.centre + outward * (BOX / 2.0 + LANE * (wire.lane + 1) as f64 - 4.0);
        let touch = if wire.to == Target::Join { 0.0 } else { RADIUS };
        let at = self.centre + outward * touch;
        let points = [(self.centre, begin), (lane, begin), (lane, end), (at, end)];
        draw_line(self.area, &points, wire.colour(), wire.dashed)?;
        if wire.to != Target::Join {
            let wings = [(at, end), (at + outward * 7.0, end - 3.5), (at + outward * 7.0, end + 3.5)];
            self.area.draw(&Polygon::new(wings.map(scaled), wire.colour().filled()))?;
        }
        let anchor = if wire.side == Side::Left { HPos::Right } else { HPos::Left };
        let note = Text::NOTE.anchored(anchor);
        note.draw(self.area, (at + outward * 12.0, end - 8.0), &note.fit(&wire.label, BOX / 2.0))
    }

    fn draw_arrow(&self, from: f64, to: f64, dashed: bool) -> Result<()> {
        draw_line(self.area, &[(self.centre, from), (self.centre, to)], INK, dashed)?;
        let wings = [(self.centre, to), (self.centre - 3.5, to - 7.0), (self.centre + 3.5, to - 7.0)];
        Ok(self.area.draw(&Polygon::new(wings.map(scaled), INK.filled()))?)
    }

    fn draw_circle(&self, y: f64, symbol: &str) -> Result<()> {
        let at = scaled((self.centre, y));
        self.area.draw(&Circle::new(at, px(RADIUS), WHITE.filled()))?;
        self.area.draw(&Circle::new(at, px(RADIUS), stroke(INK, 1.0)))?;
        Text::BODY.anchored(HPos::Center).draw(self.area, (self.centre, y), symbol)
    }

    /// A box with lines of text, the first one bold.
    fn draw_box(&self, (top, bottom): (f64, f64), lines: &[String], spiking: bool) -> Result<()> {
        let corners = [(self.centre - BOX / 2.0, top), (self.centre + BOX / 2.0, bottom)].map(scaled);
        let fill = if spiking { SILENT.mix(0.25).filled() } else { WHITE.filled() };
        self.area.draw(&Rectangle::new(corners, fill))?;
        self.area.draw(&Rectangle::new(corners, stroke(MUTED, 1.0)))?;
        for (k, line) in lines.iter().enumerate() {
            let text = if k == 0 { Text { bold: true, ..Text::BODY } } else { Text::BODY }.anchored(HPos::Center);
            let y = top + 5.0 + LINE * (k as f64 + 0.5);
            text.draw(self.area, (self.centre, y), &text.fit(line, BOX - 12.0))?;
        }
        Ok(())
    }
}

/// The symbol of a combination.
fn symbol(with: Combination) -> &'static str {
    match with {
        Combination::Add => "+",
        Combination::And => "∧",
        Combination::Iand => "¬∧",
    }
}

fn scaled((x, y): (f64, f64)) -> (i32, i32) {
    (px(x), px(y))
}

fn draw_line(area: &Area, points: &[(f64, f64)], colour: RGBColor, dashed: bool) -> Result<()> {
    let (points, style) = (points.iter().copied().map(scaled), stroke(colour, 1.25));
    match dashed {
        true => area.draw(&DashedPathElement::new(points, px(5.0), px(4.0), style))?,
        false => area.draw(&PathElement::new(points.collect::<Vec<_>>(), style))?,
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Volume;
    use crate::network::presets::{Preset, Size};
    use crate::report::tests::assert_well_formed;
    use clap::ValueEnum;

    fn plan(preset: Preset) -> Plan {
        let (shape, classes) = preset.usual_samples();
        let input = Volume { h: shape.height, w: shape.width, c: shape.channels };
        Plan::new(&preset.network(input, classes, &Size::default()), input).expect("a network")
    }

    #[test]
    fn every_preset_is_drawn() {
        for &preset in Preset::value_variants() {
            let plan = plan(preset);
            let svg = populations("a <network>", &plan).unwrap();
            assert_well_formed(&svg);
            for population in &plan.populations {
                assert!(svg.contains(&format!("{} neurons", population.volume.values())) || !population.spiking);
            }
        }
    }

    #[test]
    fn lines_of_a_side_do_not_lie_on_each_other() {
        let mut pairs = 0;
        for &preset in Preset::value_variants() {
            let plan = plan(preset);
            let (rows, mut wires) = (rows(&plan), wires(&plan));
            let ends: Vec<_> = wires.iter().map(|wire| (wire.begin(&rows), wire.end(&rows))).collect();
            for side in [Side::Left, Side::Right] {
                assign_lanes(&mut wires, &ends, side);
            }
            for (a, b) in (0..wires.len()).flat_map(|b| (0..b).map(move |a| (a, b))) {
                if wires[a].side == wires[b].side && wires[a].lane == wires[b].lane {
                    assert!(ends[a].1 <= ends[b].0 || ends[b].1 <= ends[a].0, "{preset:?}");
                    pairs += 1;
                }
            }
        }
        assert!(pairs > 100, "{pairs}");
    }
}
