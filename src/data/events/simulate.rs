//! An event data set simulated from images and written in N-MNIST's layout.
//!
//! ```text
//! Train/<class>/00001.bin, Test/<class>/00001.bin   numbered like the images, from 1
//! simulation.toml                                   what it was made from
//! ```

use super::nmnist_writer::{MAX_ROWS, encode};
use super::pixel::{PixelModel, Sensor};
use super::saccade::{STEP, STEPS, Scene};
use super::{Event, SensorSize};
use crate::data::{Dataset, Samples};
use crate::files::lock::{LOCK, Lock};
use crate::files::place::hidden;
use crate::files::write_whole;
use crate::random::{CounterRng, stream};
use anyhow::{Context, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The folders of the training and the test recordings.
pub const PARTS: [&str; 2] = ["Train", "Test"];
/// The file that describes how a folder was made.
pub const DESCRIPTION: &str = "simulation.toml";
/// The hidden folder in which recordings are staged.
const STAGE: &str = "next";
/// Fewest rows of a sensor.
const LEAST_SIDE: u16 = 8;

/// Options of a simulation.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Simulation {
    /// Seed of the thresholds and the noise.
    pub seed: u64,
    /// Rows and columns of the sensor.
    pub side: u16,
    /// Images used from each part, starting with the first; 0 for all.
    pub limit: usize,
    /// The sensor's pixels.
    pub pixels: PixelModel,
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Written {
    /// Recordings in both parts.
    pub recordings: u64,
    /// Total events.
    pub events: u64,
    /// ON events among them.
    pub on: u64,
    /// Bytes of all recordings.
    pub bytes: u64,
}

/// The description of a simulated folder.
#[derive(Serialize)]
struct Description<'a> {
    version: &'static str,
    images: &'a str,
    classes: &'a [String],
    #[serde(flatten)]
    simulation: Simulation,
}

impl Simulation {
    /// Checks the ranges.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) that names the value and its limits.
    pub fn validate(&self) -> Result<()> {
        self.pixels.validate()?;
        if !(LEAST_SIDE..=MAX_ROWS).contains(&self.side) {
            crate::bail_input!("side {} must be between {LEAST_SIDE} and {MAX_ROWS}", self.side);
        }
        if self.seed > i64::MAX as u64 {
            crate::bail_input!("seed {} must be at most {}, the largest number of TOML", self.seed, i64::MAX);
        }
        Ok(())
    }

    /// The number of images used from a part.
    pub fn count(&self, part: &Samples) -> usize {
        if self.limit == 0 { part.len() } else { self.limit.min(part.len()) }
    }

    /// The recording of image `index` of `part` (0 training, 1 test): a function of the seed, the image and its index.
    pub fn record(
        &self,
        sensor: &Sensor,
        image: &[f32],
        (height, width): (usize, usize),
        part: usize,
        index: usize,
    ) -> Vec<Event> {
        let scene = Scene::new(image, height, width, self.side);
        let rng = CounterRng::new(self.seed, stream::SENSOR_NOISE).fork(part as u64).fork(index as u64);
        sensor.record(STEP, STEPS, |y, x, i| scene.light(y, x, i), &rng)
    }

    /// Simulates a recording of each image and writes all of them below `out`; `None` if `stop` was set, which leaves
    /// `out` unchanged. `done` is called after each recording. The bytes do not depend on the number of threads.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if the samples are not images, or if `out` holds recordings and
    /// `force` is not set.
    pub fn write(
        &self,
        data: &Dataset,
        out: &Path,
        force: bool,
        done: &(dyn Fn() + Sync),
        stop: &AtomicBool,
    ) -> Result<Option<Written>> {
        self.validate()?;
        let shape = data.train.shape;
        if shape.frames != 1 || ![1, 3].contains(&shape.channels) {
            crate::bail_input!("{} holds samples of {shape}, but events are simulated from images", data.name);
        }
        if out.is_file() {
            crate::bail_input!("{} is a file where a folder is expected; give another --out", out.display());
        }
        may_replace(out, force)?;
        let failed = || format!("cannot write below {}", out.display());
        let fresh = !out.exists();
        fs::create_dir_all(out).with_context(failed)?;
        let _lock = Lock::acquire(out)?;
        // Check again now that nobody else can write there.
        may_replace(out, force)?;
        let staged = hidden(out, STAGE);
        let clear = || if staged.exists() { fs::remove_dir_all(&staged) } else { Ok(()) };
        clear().with_context(failed)?;
        let written = self.write_parts(data, &PARTS.map(|part| staged.join(part)), done, stop);
        if !matches!(written, Ok(Some(_))) {
            // The original error says more than a failure to clean up.
            let _ = clear();
            if fresh {
                let _ = fs::remove_file(out.join(LOCK)).and_then(|()| fs::remove_dir(out));
            }
            return written.with_context(failed);
        }
        let (version, images, classes) = (env!("CARGO_PKG_VERSION"), &data.name[..], &data.class_names[..]);
        let description = toml::to_string(&Description { version, images, classes, simulation: *self })?;
        write_whole(&staged.join(DESCRIPTION), description.as_bytes())?;
        replace(out, &staged).with_context(failed)?;
        clear().with_context(failed)?;
        written
    }

    fn write_parts(
        &self,
        data: &Dataset,
        folders: &[PathBuf; 2],
        done: &(dyn Fn() + Sync),
        stop: &AtomicBool,
    ) -> Result<Option<Written>> {
        let size = SensorSize { width: self.side.into(), height: self.side.into() };
        let sensor = Sensor::new(self.pixels, size, self.seed);
        let (events, on, bytes) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
        let mut recordings = 0;
        for (part, (samples, folder)) in [&data.train, &data.test].into_iter().zip(folders).enumerate() {
            for class in 0..data.classes() {
                fs::create_dir_all(folder.join(class.to_string()))?;
            }
            let extents = (samples.shape.height, samples.shape.width);
            (0..self.count(samples)).into_par_iter().try_for_each(|index| -> Result<()> {
                if stop.load(Ordering::Relaxed) {
                    return Ok(());
                }
                let recording = self.record(&sensor, &grey(samples, index, data.full_scale), extents, part, index);
                let file = encode(&recording)?;
                let name = format!("{}/{:05}.bin", samples.labels[index], index + 1);
                fs::write(folder.join(name), &file)?;
                events.fetch_add(recording.len() as u64, Ordering::Relaxed);
                on.fetch_add(recording.iter().filter(|event| event.on).count() as u64, Ordering::Relaxed);
                bytes.fetch_add(file.len() as u64, Ordering::Relaxed);
                done();
                Ok(())
            })?;
            recordings += self.count(samples) as u64;
        }
        if stop.load(Ordering::Relaxed) {
            return Ok(None);
        }
        let [events, on, bytes] = [events, on, bytes].map(AtomicU64::into_inner);
        Ok(Some(Written { recordings, events, on, bytes }))
    }
}

/// Checks that a folder has no recordings, or only simulated ones with `force` set.
fn may_replace(out: &Path, force: bool) -> Result<()> {
    let names = PARTS.iter().copied().chain([DESCRIPTION]);
    let Some(path) = names.map(|name| out.join(name)).find(|path| path.exists()) else { return Ok(()) };
    // If a run is killed while the new recordings move into place, the description is still next to the new ones.
    if !out.join(DESCRIPTION).is_file() && !hidden(out, STAGE).join(DESCRIPTION).is_file() {
        crate::bail_input!(
            "{} exists and was not simulated: {} has no {DESCRIPTION}; give another --out",
            path.display(),
            out.display()
        );
    }
    if !force {
        crate::bail_input!("{} exists; overwrite it with --force or give another --out", path.display());
    }
    Ok(())
}

/// Moves the new recordings and finally their description into place; the old recordings go where
/// the new ones were.
fn replace(out: &Path, staged: &Path) -> io::Result<()> {
    if out.join(DESCRIPTION).exists() {
        fs::remove_file(out.join(DESCRIPTION))?;
    }
    for part in PARTS {
        let (place, new) = (out.join(part), staged.join(part));
        if place.exists() {
            fs::rename(&place, staged.join(format!("old-{part}")))?;
        }
        fs::rename(new, place)?;
    }
    fs::rename(staged.join(DESCRIPTION), out.join(DESCRIPTION))
}

/// An image in greyscale, 0 to 1; colours weighted as in Rec. 601.
fn grey(samples: &Samples, index: usize, full_scale: f32) -> Vec<f32> {
    let weights: &[f32] = if samples.shape.channels == 3 { &[0.299, 0.587, 0.114] } else { &[1.0] };
    let grey = |pixel: &[u8]| pixel.iter().zip(weights).map(|(&value, weight)| weight * f32::from(value)).sum::<f32>();
    samples.sample(index).chunks_exact(weights.len()).map(|pixel| grey(pixel) / full_scale).collect()
}
