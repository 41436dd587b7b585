//! A data set of recordings, integrated into frames: from its cache, or from its files and then into its cache.

use super::cache::{self, Key};
use super::counts::EventCounts;
use super::format;
use super::integrate::Integration;
use super::recordings::{Recordings, Trial, list};
use super::{Event, SensorSize};
use crate::data::{DataSource, Dataset, SampleShape, Samples, Values};
use crate::error::Interrupted;
use anyhow::Result;
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Whoever waits for a data set.
pub trait LoadWatch: Sync {
    /// So many of all recordings are integrated.
    fn integrated(&self, done: usize, total: usize);
    /// Something that is no error.
    fn note(&self, text: &str);
    /// Whether to stop, with the error [`Interrupted`].
    fn stopped(&self) -> bool {
        false
    }
}

/// Nobody.
impl LoadWatch for () {
    fn integrated(&self, _: usize, _: usize) {}
    fn note(&self, _: &str) {}
}

/// Reads the recordings of `source` below `dir` as frames; `cache` is the folder where they are kept, if any.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) for whatever is wrong with the folder or a recording. A cache that is
/// damaged or cannot be written is only noted.
pub fn load(
    source: DataSource,
    dir: &Path,
    integration: &Integration,
    cache: Option<&Path>,
    watch: &dyn LoadWatch,
) -> Result<Dataset> {
    // One key for one folder, however it is named.
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let recordings = list(source, &dir)?;
    let shape = integration.shape(recordings.size)?;
    let Some(cache) = cache else { return integrate(source, &recordings, integration, shape, watch) };
    let key = key(source, &recordings, integration)?;
    let path = cache.join(format!("{source}-{key}.frames"));
    match cache::read(&path, key) {
        Ok(Some(data)) => return Ok(data),
        Ok(None) => {}
        Err(error) => watch.note(&format!("{} is damaged ({error:#}) and made again", path.display())),
    }
    let data = integrate(source, &recordings, integration, shape, watch)?;
    if let Err(error) = cache::write(&path, key, &data) {
        watch.note(&format!("the frames are not kept for the next time: {error:#}"));
    }
    Ok(data)
}

/// What the frames depend on: how they are made, and the recordings with their labels and stretches.
fn key(source: DataSource, recordings: &Recordings, integration: &Integration) -> Result<Key> {
    let parts = [&recordings.train, &recordings.test];
    let trials = parts.map(|part| part.iter().map(|trial| (trial.label, trial.span)).collect::<Vec<_>>());
    let settings = format!("{source} {integration:?} {:?} {:?} {trials:?}", recordings.size, recordings.class_names);
    let files = parts.into_iter().flat_map(|part| by_file(part).map(|trials| trials[0].file.as_path()));
    Key::new(&settings, files)
}

/// The trials of each file.
fn by_file(trials: &[Trial]) -> impl Iterator<Item = &[Trial]> {
    trials.chunk_by(|a, b| a.file == b.file)
}

fn integrate(
    source: DataSource,
    recordings: &Recordings,
    integration: &Integration,
    shape: SampleShape,
    watch: &dyn LoadWatch,
) -> Result<Dataset> {
    let [train, test] = [&recordings.train, &recordings.test].map(|part| by_file(part).collect::<Vec<_>>());
    let (done, total) = (AtomicUsize::new(0), train.len() + test.len());
    let part = |files: &[&[Trial]]| -> Result<Samples> {
        let counts: Vec<EventCounts> = files
            .par_iter()
            .map(|trials| {
                if watch.stopped() {
                    return Err(Interrupted.into());
                }
                let counts = of_file(trials, recordings.size, integration, shape);
                watch.integrated(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                counts
            })
            .collect::<Result<_>>()?;
        let mut all = EventCounts::default();
        counts.iter().for_each(|counts| all.append(counts));
        let labels = files.iter().flat_map(|trials| trials.iter().map(|trial| trial.label)).collect();
        Ok(Samples { shape, values: Values::Counts(all), labels })
    };
    let (train, test) = (part(&train)?, part(&test)?);
    let folder = recordings.folder.display().to_string();
    Ok(cache::dataset(source.name().into(), folder, recordings.class_names.clone(), train, test))
}

/// The frames of the trials of one file, which is read once.
fn of_file(trials: &[Trial], size: SensorSize, integration: &Integration, shape: SampleShape) -> Result<EventCounts> {
    let file = &trials[0].file;
    let mut reader = format::open(file)?;
    let mut events: Vec<Vec<Event>> = vec![Vec::new(); trials.len()];
    let mut piece = Vec::new();
    loop {
        reader.read(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        if let Some(event) = piece.iter().find(|event| event.x >= size.width || event.y >= size.height) {
            crate::bail_input!(
                "{} has an event at column {}, row {}, outside of the sensor of {}x{} (columns x rows); use recordings \
                 of this data set",
                file.display(),
                event.x,
                event.y,
                size.width,
                size.height
            );
        }
        for (trial, events) in trials.iter().zip(&mut events) {
            match trial.span {
                None => events.extend_from_slice(&piece),
                Some((start, end)) => events.extend(piece.iter().filter(|e| (start..end).contains(&e.time))),
            }
        }
    }
    let mut counts = EventCounts::default();
    events.iter().for_each(|events| integration.add(events, shape, &mut counts));
    Ok(counts)
}
