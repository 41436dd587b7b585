//! An event data set, integrated into frames: read from its cache, or from its files and then cached.

use super::cache::{self, Key};
use super::counts::EventCounts;
use super::integrate::Integration;
use super::options::{ReadOptions, Sensor};
use super::recordings::{Recordings, Trial, find, list};
use super::remarks::{Noticed, Remarks};
use super::{Event, SensorSize};
use crate::data::{DataSource, Dataset, LoadWatch, Reader, Request, SampleShape, Samples};
use crate::error::Interrupted;
use anyhow::Result;
use rayon::prelude::*;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

pub(in crate::data) static N_MNIST: Reader = Reader {
    name: "n-mnist",
    extents: Some([34, 34, 2]),
    advice: "unpack Train.zip and Test.zip of https://www.garrickorchard.com/datasets/n-mnist into one folder, or \
                 make such a folder with `adali simulate-events`, and name it with --data-dir",
    place: None,
    events: true,
    find: |dir| find(DataSource::NMnist, dir),
    load: |dir, request| load(DataSource::NMnist, dir, request),
};

pub(in crate::data) static CIFAR10_DVS: Reader = Reader {
    name: "cifar10-dvs",
    extents: Some([128, 128, 2]),
    advice: "unpack the ten archives of https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 into one \
                 folder, which then holds airplane, automobile, …, and name it with --data-dir",
    place: None,
    events: true,
    find: |dir| find(DataSource::Cifar10Dvs, dir),
    load: |dir, request| load(DataSource::Cifar10Dvs, dir, request),
};

pub(in crate::data) static DVS_GESTURE: Reader = Reader {
    name: "dvs-gesture",
    extents: Some([128, 128, 2]),
    advice: "unpack DvsGesture.tar.gz of https://research.ibm.com/interactive/dvsgesture/ and name its folder, which \
                 holds trials_to_train.txt, with --data-dir",
    place: None,
    events: true,
    find: |dir| find(DataSource::DvsGesture, dir),
    load: |dir, request| load(DataSource::DvsGesture, dir, request),
};

/// Reads the recordings of `source` below `dir` as frames; `cache` is the cache folder, if any.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) for anything wrong with the folder or a recording. A cache that is
/// damaged or cannot be written is only noted.
fn load(source: DataSource, dir: &Path, &Request { integration, cache, watch, .. }: &Request) -> Result<Dataset> {
    // One key per folder, whatever path names it.
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    let mut recordings = list(source, &dir, integration.split)?;
    // The recordings may be of another camera, in the data set's layout.
    recordings.size = integration.sensor.map_or(recordings.size, Sensor::size);
    let mut data = of_recordings(source, &recordings, &integration, cache, watch)?;
    // Other content of the folder may have changed since the frames were cached.
    data.notes.splice(0..0, recordings.notes);
    Ok(data)
}

/// The frames of the listed recordings, with what was noticed in them.
fn of_recordings(
    source: DataSource,
    recordings: &Recordings,
    integration: &Integration,
    cache: Option<&Path>,
    watch: &dyn LoadWatch,
) -> Result<Dataset> {
    let shape = integration.shape(recordings.size)?;
    let Some(cache) = cache else { return integrate(source, recordings, integration, shape, watch) };
    let key = key(source, recordings, integration)?;
    let path = cache.join(format!("{source}-{key}.frames"));
    match cache::read(&path, key) {
        Ok(Some(data)) => return Ok(data),
        Ok(None) => {}
        Err(error) => watch.note(&format!("the cache {} {error:#}; it is rebuilt", path.display())),
    }
    let data = integrate(source, recordings, integration, shape, watch)?;
    if let Err(error) = cache::write(&path, key, &data) {
        watch.note(&format!("the frames are not kept for the next time: {error:#}"));
    }
    Ok(data)
}

/// A key of everything the frames depend on: the options, and the recordings with their labels and time spans.
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
    let parts = [("training", &recordings.train), ("test", &recordings.test)];
    let total = parts.iter().map(|(_, trials)| by_file(trials).count()).sum();
    let (done, mut remarks, mut noticed) = (AtomicUsize::new(0), Remarks::new(recordings), Vec::new());
    let mut samples = Vec::new();
    for (part, trials) in parts {
        let files: Vec<&[Trial]> = by_file(trials).collect();
        let read: Vec<(EventCounts, Noticed)> = files
            .par_iter()
            .map(|trials| {
                if watch.stopped() {
                    return Err(Interrupted.into());
                }
                let read = of_file(trials, recordings.size, integration, shape);
                watch.integrated(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                read
            })
            .collect::<Result<_>>()?;
        let mut counts = EventCounts::default();
        read.iter().for_each(|(of_file, _)| counts.append(of_file));
        remarks.on_samples(part, trials, &counts, shape, integration.frames_by)?;
        noticed.extend(files.iter().zip(read).map(|(trials, (_, noticed))| (&*trials[0].file, noticed)));
        let labels = trials.iter().map(|trial| trial.label).collect();
        samples.push(Samples { shape, values: counts.into(), labels });
    }
    remarks.on_files(&noticed, integration.frames_by);
    let samples = samples.try_into().expect("one for each of the two parts");
    let (folder, class_names) = (recordings.folder.display().to_string(), recordings.class_names.clone());
    Ok(cache::dataset(source.name().into(), folder, class_names, samples, remarks.into_lines()))
}

/// The frames of the trials of one file, which is read once, and what was noticed.
fn of_file(
    trials: &[Trial],
    size: SensorSize,
    integration: &Integration,
    shape: SampleShape,
) -> Result<(EventCounts, Noticed)> {
    let file = &trials[0].file;
    let options = ReadOptions { sensor: integration.sensor, stream: integration.stream, ..ReadOptions::default() };
    let mut reader = super::open(file, &options)?;
    let mut events: Vec<Vec<Event>> = vec![Vec::new(); trials.len()];
    let (mut piece, mut late, mut before) = (Vec::new(), 0, 0);
    loop {
        reader.read(&mut piece)?;
        if piece.is_empty() {
            break;
        }
        if let Some(event) = piece.iter().find(|event| !size.has(event)) {
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
        for event in &piece {
            late += usize::from(event.time < before);
            before = event.time;
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
    Ok((counts, Noticed { late, notes: reader.notes() }))
}
