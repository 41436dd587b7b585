//! A data set of recordings, integrated into frames: from its cache, or from its files and then into its cache.

use super::cache::{self, Key};
use super::counts::EventCounts;
use super::format;
use super::integrate::Integration;
use super::options::{ReadOptions, Sensor};
use super::recordings::{Recordings, Trial, list};
use super::{Event, SensorSize};
use crate::data::{DataSource, Dataset, SampleShape, Samples, Values};
use anyhow::Result;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Sentences of readers that are told.
const NOTES: usize = 4;

/// Whoever waits for a data set.
pub trait LoadWatch: Sync {
    /// So many of all recordings are integrated.
    fn integrated(&self, done: usize, total: usize);
    /// Something that is no error.
    fn note(&self, text: &str);
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
    let mut recordings = list(source, &dir)?;
    // Recordings of another camera in the data set's layout.
    recordings.size = integration.sensor.map_or(recordings.size, Sensor::size);
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
        let counts: Vec<(EventCounts, Vec<String>)> = files
            .par_iter()
            .map(|trials| {
                let counts = of_file(trials, recordings.size, integration, shape);
                watch.integrated(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                counts
            })
            .collect::<Result<_>>()?;
        let mut all = EventCounts::default();
        counts.iter().for_each(|(counts, _)| all.append(counts));
        tell(files, counts.iter().map(|(_, notes)| &notes[..]), watch);
        let labels = files.iter().flat_map(|trials| trials.iter().map(|trial| trial.label)).collect();
        Ok(Samples { shape, values: Values::Counts(all), labels })
    };
    let (train, test) = (part(&train)?, part(&test)?);
    let folder = recordings.folder.display().to_string();
    Ok(cache::dataset(source.name().into(), folder, recordings.class_names.clone(), train, test))
}

/// The frames of the trials of one file, which is read once.
fn of_file(
    trials: &[Trial],
    size: SensorSize,
    integration: &Integration,
    shape: SampleShape,
) -> Result<(EventCounts, Vec<String>)> {
    let file = &trials[0].file;
    let options = ReadOptions { sensor: integration.sensor, stream: integration.stream };
    let mut reader = format::open(file, &options)?;
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
    Ok((counts, reader.notes()))
}

/// Tells what readers say of their recordings, each sentence once.
fn tell<'a>(files: &[&[Trial]], notes: impl Iterator<Item = &'a [String]>, watch: &dyn LoadWatch) {
    let mut said: BTreeMap<&str, (usize, &Path)> = BTreeMap::new();
    for (trials, notes) in files.iter().zip(notes) {
        for note in notes {
            said.entry(note).or_insert((0, &trials[0].file)).0 += 1;
        }
    }
    for (note, (count, first)) in said.iter().take(NOTES) {
        match count {
            1 => watch.note(&format!("{}: {note}", first.display())),
            _ => watch.note(&format!(
                "{note} (in {count} of {} recordings, the first: {})",
                files.len(),
                first.display()
            )),
        }
    }
    if said.len() > NOTES {
        watch.note(&format!("{} more notes of this kind; adali events FILE shows those of a file", said.len() - NOTES));
    }
}
