//! `adali simulate-events`

use super::data::load_data;
use super::options::start_threads;
use super::signals;
use super::{End, note, say};
use crate::data::DataSource;
use crate::data::events::pixel::PixelModel;
use crate::data::events::simulate::{Simulation, Written};
use crate::train::config::DataSpec;
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::path::PathBuf;
use std::time::Instant;

pub const EXAMPLES: &str = "\
Each image moves before the sensor along the three saccades of N-MNIST, 100 ms each. What a pixel sees is sampled every
millisecond; events come when its logarithm, linear between, crosses the pixel's threshold. The same seed gives the same
bytes, whatever the number of threads.

Examples:
  adali simulate-events --data digits --out events/digits
  adali simulate-events --data fashion-mnist --limit 5000 --out events/fashion
  adali train --data n-mnist --data-dir events/fashion";

#[derive(Args)]
pub struct SimulateArguments {
    /// Images to show.
    #[arg(long, value_enum)]
    data: DataSource,
    /// Folder of the images, if not where they usually are.
    #[arg(long, value_name = "PATH")]
    data_dir: Option<PathBuf>,
    /// Folder to write: Train/CLASS/00001.bin, Test/CLASS/00001.bin, simulation.toml.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
    /// Overwrite the recordings in --out.
    #[arg(long)]
    force: bool,
    /// Use so many images of each part only, from the first on; 0 for all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    limit: usize,
    /// Of the pixels' thresholds and of noise.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Rows and columns of the sensor; the image takes 28/34 of them.
    #[arg(long, value_name = "PIXELS", default_value_t = 34)]
    side: u16,
    /// Threshold: the change of the natural logarithm of light that makes an event.
    #[arg(long, default_value_t = PixelModel::default().contrast)]
    contrast: f64,
    /// Standard deviation of the thresholds over pixels, as a share.
    #[arg(long, value_name = "SHARE", default_value_t = PixelModel::default().mismatch)]
    mismatch: f64,
    /// Microseconds after an event in which a pixel is blind.
    #[arg(long, value_name = "MICROSECONDS", default_value_t = PixelModel::default().refractory)]
    refractory: u64,
    /// Events of background noise of a pixel in a second.
    #[arg(long, value_name = "HERTZ", default_value_t = PixelModel::default().noise)]
    noise: f64,
    /// Light of a black pixel, where a white one's is 1 more.
    #[arg(long, value_name = "LIGHT", default_value_t = PixelModel::default().dark)]
    dark: f64,
    /// Threads; 0 for one a core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Nothing but errors, and what --json prints.
    #[arg(long, short)]
    quiet: bool,
    /// Print what was written as one line of JSON, and nothing else.
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
    let bar = bar((simulation.count(&data.train) + simulation.count(&data.test)) as u64, arguments.quiet);
    let begin = Instant::now();
    let written = simulation.write(&data, &arguments.out, arguments.force, &|| bar.inc(1), stop);
    bar.finish_and_clear();
    let Some(written) = written? else {
        note("interrupted; nothing was written");
        return Ok(End::Interrupted);
    };
    if arguments.json {
        say(serde_json::to_string(&written)?)?;
    } else if !arguments.quiet {
        say(summary(&written, begin.elapsed().as_secs_f64(), &arguments.out.display().to_string()))?;
    }
    Ok(End::Done)
}

fn bar(length: u64, quiet: bool) -> ProgressBar {
    let target = if quiet { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr_with_hz(8) };
    let style = ProgressStyle::with_template("{bar:10} {pos}/{len} recordings  {eta} left");
    ProgressBar::with_draw_target(Some(length), target)
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
