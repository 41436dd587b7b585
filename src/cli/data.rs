//! Which data a command uses, and progress while they load.

use super::note;
use super::progress::target;
use super::signals::STOP;
use crate::bail_input;
use crate::data::events::cache::usual_folder;
use crate::data::events::integrate::{FramesBy, Split};
use crate::data::events::options::Sensor;
use crate::data::{DataSource, Dataset, Integration, LoadWatch, Request, load_as};
use crate::train::Config;
use crate::train::config::DataSpec;
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, PoisonError};

/// Another place for the data than the one in a configuration.
#[derive(Args)]
pub struct DataOptions {
    /// Data set [default: that of the configuration, or digits].
    #[arg(long, value_enum)]
    pub data: Option<DataSource>,
    /// Folder (for frames: file) of the data set [default: where it usually is; adali info says where].
    #[arg(long, value_name = "PATH")]
    pub data_dir: Option<PathBuf>,
    /// Cache folder for event frames; can be deleted at any time
    /// [default: $XDG_CACHE_HOME/adali or ~/.cache/adali].
    #[arg(long, value_name = "FOLDER")]
    pub cache_dir: Option<PathBuf>,
}

impl DataOptions {
    /// Points a trained configuration to these data.
    pub fn change(&self, config: &mut Config) {
        let data = &mut config.data;
        data.source = self.data.unwrap_or(data.source);
        data.dir = self.data_dir.clone().or(data.dir.take());
        data.cache_dir = self.cache_dir.clone();
        if data.source.is_events() && data.events.is_none() {
            data.events = Some(Integration { frames: config.network.steps, ..Integration::default() });
        }
    }
}

/// How recordings of events become frames.
#[derive(Args)]
pub struct FrameOptions {
    /// How a recording of events is cut into frames [default: count].
    #[arg(long, value_enum, help_heading = "Training")]
    frames_by: Option<FramesBy>,
    /// Sum the events over squares of this many pixels a side [default: 1; 3 for cifar10-dvs].
    #[arg(long, value_name = "PIXELS", help_heading = "Training")]
    downsample: Option<usize>,
    /// Sensor of cifar10-dvs's recordings [default: the one that their headers name, or dvs128].
    #[arg(long, value_enum, value_name = "CHIP", help_heading = "Training")]
    sensor: Option<Sensor>,
    /// Number of the source to read, where dvs-gesture's recordings have several [default: the first].
    #[arg(long, value_name = "N", help_heading = "Training")]
    stream: Option<u32>,
    /// How cifar10-dvs, which has no official test part, is divided into training and test [default: name].
    #[arg(long, value_enum, help_heading = "Training")]
    split: Option<Split>,
}

impl FrameOptions {
    /// How the recordings of `spec` become `steps` frames; `None` for other data.
    ///
    /// # Errors
    /// If an option is given that does not apply to the data.
    pub fn integration(&self, spec: &DataSpec, steps: Option<usize>) -> Result<Option<Integration>> {
        if self.sensor.is_some() && spec.source != DataSource::Cifar10Dvs {
            bail_input!(
                "--sensor is for recordings in AEDAT 2.0, as cifar10-dvs has them, but the data set is {}",
                spec.source
            );
        }
        if self.stream.is_some() && spec.source != DataSource::DvsGesture {
            bail_input!(
                "--stream is for recordings of several sources, as dvs-gesture's, but the data set is {}",
                spec.source
            );
        }
        if self.split.is_some() && spec.source != DataSource::Cifar10Dvs {
            bail_input!(
                "--split is for cifar10-dvs, which has no official test part, but the data set is {}",
                spec.source
            );
        }
        if !spec.source.is_events() {
            if self.frames_by.is_some() || self.downsample.is_some() {
                bail_input!("--frames-by and --downsample are for recordings of events, which {} is not", spec.source);
            }
            return Ok(None);
        }
        // The authors reduce CIFAR10-DVS from 128 to 48 pixels; 43 is the nearest that whole pixels give.
        let downsample = if spec.source == DataSource::Cifar10Dvs { 3 } else { 1 };
        let known = spec.events.unwrap_or(Integration { downsample, ..Integration::default() });
        Ok(Some(Integration {
            frames: steps.unwrap_or(known.frames),
            frames_by: self.frames_by.unwrap_or(known.frames_by),
            downsample: self.downsample.unwrap_or(known.downsample),
            sensor: self.sensor.or(known.sensor),
            stream: self.stream.or(known.stream),
            split: self.split.unwrap_or(known.split),
        }))
    }
}

/// Loads the data of a configuration; a bar shows the progress of integration.
pub fn load_data(spec: &DataSpec) -> Result<Dataset> {
    let usual = usual_folder();
    let cache = spec.cache_dir.as_deref().or(usual.as_deref());
    let waiting = Waiting(ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()));
    let integration = spec.events.unwrap_or_default();
    let request = Request { integration, image_size: spec.image_size, cache, watch: &waiting };
    let data = load_as(spec.source, spec.dir.as_deref(), &request);
    waiting.0.finish_and_clear();
    data
}

struct Waiting(ProgressBar);

impl LoadWatch for Waiting {
    fn integrated(&self, done: usize, total: usize) {
        if self.0.length() != Some(total as u64) {
            let style = ProgressStyle::with_template("{bar:10} {pos}/{len} files  {eta} left");
            self.0.set_style(style.expect("the template is well-formed").progress_chars("━╸─"));
            self.0.set_length(total as u64);
            self.0.set_draw_target(target());
        }
        self.0.set_position(done as u64);
    }

    fn note(&self, text: &str) {
        // A comparison loads its data for every run, but a note is shown only once.
        static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
        if SAID.lock().unwrap_or_else(PoisonError::into_inner).insert(text.into()) {
            self.0.suspend(|| note(format_args!("note: {text}")));
        }
    }

    fn stopped(&self) -> bool {
        STOP.load(Ordering::Relaxed)
    }
}
