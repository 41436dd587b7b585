//! `adali events`

use super::progress::target;
use super::{End, is_quiet, say};
use crate::bench::report::figure;
use crate::data::events::EventReader;
use crate::data::events::format::Format;
use crate::data::events::options::ReadOptions;
use crate::data::events::summary::{Frames, Summary};
use crate::files::output::Output;
use crate::report::events;
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

pub const EXAMPLES: &str = "\
Formats are recognised by their first bytes, N-MNIST's .bin and text by name:
  n-mnist  N-MNIST's .bin                     evt2, evt3  Prophesee's RAW
  aedat2   jAER, CIFAR10-DVS                  dat         Prophesee's DAT
  aedat3   cAER, DVS128 Gesture               npz         NumPy's x, y, t, p
  aedat4   DV                                 csv         text: x, y, t, p

Examples:
  adali events Train/3/00001.bin
  adali events user01_natural.aedat --svg gesture.svg   frames, rate over time
  adali events recording.raw --json";

#[derive(Args)]
pub struct EventsArguments {
    /// A recording of events.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Its format [default: the one that is recognised].
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    options: ReadOptions,
    /// Draw frames and the rate over time as SVG in this file [default: none].
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Overwrite the file of --svg.
    #[arg(long, requires = "svg")]
    force: bool,
    /// Frames of --svg, of equal time.
    #[arg(long, value_name = "N", default_value_t = 8)]
    frames: usize,
    /// Read the file once more, only decoding it, and say how long that takes.
    #[arg(long)]
    time: bool,
    /// Print the result as one line of JSON and nothing else.
    #[arg(long)]
    json: bool,
}

/// Cells along the longer side of a picture.
const CELLS: usize = 64;

pub fn run(arguments: EventsArguments) -> Result<End> {
    let EventsArguments { file, format, options, svg, force, frames, time, json } = arguments;
    if !(1..=32).contains(&frames) {
        crate::bail_input!("--frames {frames} must be between 1 and 32");
    }
    let svg = svg.map(|path| Output::new("--svg", &path, force, &[&file])).transpose()?;
    let format = format.map_or_else(|| Format::of(&file), Ok)?;
    let bar = ProgressBar::with_draw_target(None, target());
    bar.set_style(ProgressStyle::with_template("{human_pos} events  {per_sec}  {elapsed}")?);
    let begin = Instant::now();
    let summary = Summary::of(&mut *format.open(&file, &options)?, |events| {
        // Most recordings are read before a bar would be noticed.
        if begin.elapsed() > Duration::from_millis(500) {
            bar.set_position(events);
        }
    });
    bar.finish_and_clear();
    let (summary, seconds) = (summary?, begin.elapsed().as_secs_f64());
    let name = file.display().to_string();
    let decoding = if time { Some(decode(&mut *format.open(&file, &options)?)?) } else { None };
    if json {
        say(as_json(&name, format, &options, &summary, seconds, decoding))?;
    } else if !is_quiet() {
        say(as_text(&name, format, &options, &summary, seconds, decoding))?;
    }
    if let Some(svg) = svg {
        let frames = Frames::of(&mut *format.open(&file, &options)?, &summary, frames, CELLS)?;
        let note = format!("{format}, {} events; blue: OFF prevail, orange: ON", summary.events.total());
        let drawn = events(&name, &note, &frames, summary.duration(), &summary.rate, summary.piece)?;
        svg.write(drawn.as_bytes())?;
    }
    Ok(End::Done)
}

/// Seconds taken by reading.
fn decode(reader: &mut dyn EventReader) -> Result<f64> {
    let (begin, mut events) = (Instant::now(), Vec::new());
    loop {
        reader.read(&mut events)?;
        if events.is_empty() {
            return Ok(begin.elapsed().as_secs_f64());
        }
    }
}

fn as_text(
    name: &str,
    format: Format,
    options: &ReadOptions,
    summary: &Summary,
    seconds: f64,
    decoding: Option<f64>,
) -> String {
    let Summary { events, out_of_order, active, busiest, stated, piece, .. } = summary;
    let total = events.total();
    let share = |part: u64| 100.0 * part as f64 / total.max(1) as f64;
    let mut lines = vec![
        format!("file      {name} ({format})"),
        format!("events    {total}, {:.1} % ON, {out_of_order} out of order", share(events.on)),
    ];
    if let Some((first, last)) = summary.times {
        lines.push(format!("time      {first} to {last} µs: {:.3} s", summary.duration()));
        lines.push(format!(
            "rate      {} thousand events/s, peak {} (over {} ms)",
            figure(summary.mean_rate() / 1e3),
            figure(summary.peak_rate() / 1e3),
            *piece as f64 / 1e3
        ));
    }
    if let Some(size) = summary.size() {
        let how = match (options.sensor, stated) {
            (Some(_), _) => "as --sensor says",
            (None, Some(_)) => "stated",
            (None, None) => "inferred from the events",
        };
        let pixels = u64::from(size.width) * u64::from(size.height);
        lines.push(format!("sensor    {}x{} ({how}), {active} of {pixels} pixels", size.width, size.height));
    }
    if let Some(pixel) = busiest {
        let (x, y, events) = (pixel.x, pixel.y, pixel.events);
        lines.push(format!("busiest   column {x}, row {y}: {events} events, {:.2} %", share(events)));
    }
    let millions = |seconds: f64| figure(total as f64 / seconds / 1e6);
    lines.extend(summary.notes.iter().map(|note| format!("note      {note}")));
    lines.push(format!("read in   {seconds:.3} s, {} million events/s", millions(seconds)));
    if let Some(seconds) = decoding {
        lines.push(format!("decoded   {seconds:.3} s, {} million events/s", millions(seconds)));
    }
    lines.join("\n")
}

fn as_json(
    name: &str,
    format: Format,
    options: &ReadOptions,
    summary: &Summary,
    seconds: f64,
    decoding: Option<f64>,
) -> String {
    let size = summary.size().map(|size| json!({ "width": size.width, "height": size.height }));
    let value = json!({
        "file": name,
        "format": format.name(),
        "events": summary.events.total(),
        "on": summary.events.on,
        "off": summary.events.off,
        "first_us": summary.times.map(|times| times.0),
        "last_us": summary.times.map(|times| times.1),
        "out_of_order": summary.out_of_order,
        "mean_rate": summary.mean_rate(),
        "peak_rate": summary.peak_rate(),
        "rate_piece_us": summary.piece,
        "size": size,
        "size_stated": summary.stated.is_some() && options.sensor.is_none(),
        "active_pixels": summary.active,
        "busiest_pixel": summary.busiest,
        "notes": summary.notes,
        "read_seconds": seconds,
        "decode_seconds": decoding,
    });
    value.to_string()
}
