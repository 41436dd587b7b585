//! `adali simulate-events`

use super::data::load_data;
use super::options::start_threads;
use super::progress::target;
use super::signals;
use super::{End, is_quiet, note, say};
use crate::data::DataSource;
use crate::data::events::pixel::PixelModel;
use crate::data::events::simulate::{Simulation, Written};
use crate::train::config::DataSpec;
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::time::Instant;

pub const EXAMPLES: &str = "\
Each image moves in front of the sensor along the three saccades of N-MNIST, of
100 ms each. What a pixel sees is sampled every millisecond; an event comes when
its logarithm, linear in between, crosses the pixel's threshold. The same seed
gives the same bytes, whatever the number of threads.

Examples:
  adali simulate-events --data digits --out events/digits
  adali simulate-events --data fashion-mnist --limit 5000 --out events/fashion
  adali train --data n-mnist --data-dir events/fashion";

#[derive(Args)]
pub struct SimulateArguments {
    /// Images to show.
    #[arg(long, value_enum)]
    data: DataSource,
    /// Folder of the images [default: where they usually are; adali info says where].
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Folder to write: Train/CLASS/00001.bin, Test/CLASS/00001.bin, simulation.toml.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Overwrite the recordings in --out.
    #[arg(long)]
    force: bool,
    /// Use only the first N images of each part; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    /// Seed of the pixels' thresholds and of the noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Rows and columns of the sensor; the image covers 28/34 of them.
    #[arg(long, value_name = "PIXELS", default_value_t = 34)]
    side: u16,
    /// Threshold: the change of the natural logarithm of brightness that makes an event.
    #[arg(long, default_value_t = PixelModel::default().contrast)]
    contrast: f64,
    /// Standard deviation of the threshold between pixels, as a share of it.
    #[arg(long, value_name = "SHARE", default_value_t = PixelModel::default().mismatch)]
    mismatch: f64,
    /// Microseconds for which a pixel is blind after an event.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = PixelModel::default().refractory)]
    refractory: u64,
    /// Background noise of a pixel, in events per second.
    #[arg(long, value_name = "HERTZ", default_value_t = PixelModel::default().noise)]
    noise: f64,
    /// Brightness of a black pixel; a white one has 1 more.
    #[arg(long, value_name = "LIGHT", default_value_t = PixelModel::default().dark)]
    dark: f64,
    /// Number of threads, 0 for one per core; the results do not depend on it.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Print what was written as one line of JSON and nothing else.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: SimulateArguments) -> Result<End> {
    start_threads(arguments.threads)?;
    let SimulateArguments { contrast, mismatch, refractory, noise, dark, seed, side, limit, .. } = arguments;
    let pixels = PixelModel { contrast, mismatch, refractory, noise, dark };
    let simulation = Simulation { seed, side, limit, pixels };
    simulation.validate()?;
    let data = load_data(&DataSpec { source: arguments.data, dir: arguments.data_dir, ..DataSpec::default() })?;
    let stop = signals::watch()?;
    let bar = bar((simulation.count(&data.train) + simulation.count(&data.test)) as u64);
    let begin = Instant::now();
    let written = simulation.write(&data, &arguments.out, arguments.force, &|| bar.inc(1), stop);
    bar.finish_and_clear();
    let Some(written) = written? else {
        note("interrupted; nothing was written");
        return Ok(End::Interrupted);
    };
    if arguments.json {
        say(serde_json::to_string(&written)?)?;
    } else if !is_quiet() {
        say(summary(&written, begin.elapsed().as_secs_f64(), &arguments.out.display().to_string()))?;
    }
    Ok(End::Done)
}

fn bar(length: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:10} {pos}/{len} recordings  {eta} left");
    ProgressBar::with_draw_target(Some(length), target())
        .with_style(style.expect("the template is well-formed").progress_chars("━╸─"))
}

fn summary(written: &Written, seconds: f64, out: &str) -> String {
    let &Written { recordings, events, on, bytes } = written;
    format!(
        "{out}: {recordings} recordings, {:.0} events each ({:.1} % ON), {:.1} MB, in {seconds:.1} s",
        events as f64 / recordings.max(1) as f64,
        100.0 * on as f64 / events.max(1) as f64,
        bytes as f64 / 1e6
    )
}
