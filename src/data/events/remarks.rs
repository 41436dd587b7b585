//! Remarks on a data set's recordings: one line per kind, however many files it applies to.

use super::counts::EventCounts;
use super::integrate::FramesBy;
use super::recordings::{Recordings, Trial};
use crate::data::SampleShape;
use crate::data::files::some_of;
use anyhow::Result;
use std::collections::BTreeMap;
use std::path::Path;

/// A frame by time with more than this share of its sample's events is noted, because an outlier among the times may have
/// emptied the others,
const CROWDED_PERCENT: usize = 90;
/// if there are at least this many frames.
const CROWDED_FRAMES: usize = 4;

/// What was noticed while reading a file.
#[derive(Debug, Default)]
pub(super) struct Noticed {
    /// Events that are earlier than the previous one.
    pub late: usize,
    /// The reader's notes.
    pub notes: Vec<String>,
}

/// Collects remarks on a data set.
pub(super) struct Remarks<'a> {
    recordings: &'a Recordings,
    lines: Vec<String>,
}

impl<'a> Remarks<'a> {
    pub fn new(recordings: &'a Recordings) -> Self {
        Self { recordings, lines: Vec::new() }
    }

    /// All remarks.
    pub fn into_lines(self) -> Vec<String> {
        self.lines
    }

    /// Adds remarks on the samples of a part (training, test).
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if none of them has an event.
    pub fn on_samples(
        &mut self,
        part: &str,
        trials: &[Trial],
        counts: &EventCounts,
        shape: SampleShape,
        frames_by: FramesBy,
    ) -> Result<()> {
        let what = if trials.iter().any(|trial| trial.span.is_some()) { "trials" } else { "recordings" };
        let all = trials.len();
        let which = |holds: &dyn Fn(usize) -> bool| -> Vec<&Path> {
            trials.iter().enumerate().filter(|(index, _)| holds(*index)).map(|(_, trial)| &*trial.file).collect()
        };
        let empty = which(&|index| counts.sample(index).is_empty());
        if empty.len() == all {
            crate::bail_input!(
                "{}: none of the {all} {part} {what} has an event; fetch the data set again",
                self.recordings.folder.display()
            );
        }
        self.say(&empty, format!("of {all} {part} {what} have no event, so their frames are empty"));
        if frames_by == FramesBy::Time && shape.frames >= CROWDED_FRAMES {
            let crowded = which(&|index| {
                let frames = counts.per_frame(index, shape);
                frames.iter().max() > Some(&(frames.iter().sum::<usize>() * CROWDED_PERCENT / 100))
            });
            let frames = shape.frames;
            self.say(
                &crowded,
                format!(
                    "of {all} {part} {what} have more than {CROWDED_PERCENT} % of their events in one of {frames} frames; \
                     --frames-by count divides them evenly"
                ),
            );
        }
        Ok(())
    }

    /// Adds remarks on the files of both parts.
    pub fn on_files(&mut self, files: &[(&Path, Noticed)], frames_by: FramesBy) {
        let all = files.len();
        let late: Vec<&Path> = files.iter().filter(|(_, noticed)| noticed.late > 0).map(|(file, _)| *file).collect();
        let events: usize = files.iter().map(|(_, noticed)| noticed.late).sum();
        let order = match frames_by {
            FramesBy::Count => "frames by count take them in the file's order",
            FramesBy::Time => "frames by time take each at its time",
        };
        self.say(&late, format!("of {all} recordings have events out of order ({events} in all); {order}"));
        // The notes of many files differ only in their numbers.
        let mut kinds: BTreeMap<String, (&str, Vec<&Path>)> = BTreeMap::new();
        for (file, note) in files.iter().flat_map(|(file, noticed)| noticed.notes.iter().map(move |note| (*file, note)))
        {
            let kind = note.chars().filter(|c| !c.is_ascii_digit()).collect();
            kinds.entry(kind).or_insert((note, Vec::new())).1.push(file);
        }
        for (note, files) in kinds.into_values() {
            self.say(&files, format!("of {all} recordings: {note}"));
        }
    }

    /// Adds `N what: file, file, …` unless `files` is empty.
    fn say(&mut self, files: &[&Path], what: String) {
        if files.is_empty() {
            return;
        }
        let folder = &self.recordings.folder;
        let names = files.iter().map(|file| file.strip_prefix(folder).unwrap_or(file).display().to_string());
        let names = some_of(&names.collect::<Vec<_>>());
        self.lines.push(format!("{}: {} {what} ({names})", folder.display(), files.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::events::SensorSize;

    const SHAPE: SampleShape = SampleShape { frames: 4, height: 1, width: 1, channels: 2 };

    fn recordings() -> Recordings {
        let trial = |name: &str| Trial { file: Path::new("/set").join(name), label: 0, span: None };
        Recordings {
            folder: "/set".into(),
            class_names: vec!["0".into()],
            size: SensorSize { width: 1, height: 1 },
            train: ["a", "b", "c"].map(trial).into(),
            test: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// Samples given by the number of events in each frame.
    fn counts(samples: &[[usize; 4]]) -> EventCounts {
        let mut counts = EventCounts::default();
        for frames in samples {
            let cells = frames.iter().enumerate().flat_map(|(frame, &n)| vec![2 * frame as u32 + 1; n]);
            counts.push(cells.collect());
        }
        counts
    }

    fn lines(samples: &[[usize; 4]], frames_by: FramesBy) -> Result<Vec<String>> {
        let all = recordings();
        let mut remarks = Remarks::new(&all);
        remarks.on_samples("training", &all.train, &counts(samples), SHAPE, frames_by)?;
        Ok(remarks.into_lines())
    }

    #[test]
    fn samples_without_events_are_counted_and_all_of_them_are_an_error() {
        let some = [2, 2, 2, 2];
        assert_eq!(lines(&[some; 3], FramesBy::Count).unwrap(), [""; 0]);
        let said = lines(&[some, [0; 4], some], FramesBy::Count).unwrap();
        assert_eq!(said[0], "/set: 1 of 3 training recordings have no event, so their frames are empty (b)");
        let error = lines(&[[0; 4]; 3], FramesBy::Count).unwrap_err();
        assert!(error.is::<crate::error::InputError>(), "{error}");
        assert_eq!(error.to_string(), "/set: none of the 3 training recordings has an event; fetch the data set again");
    }

    #[test]
    fn a_frame_with_nearly_all_events_is_said() {
        let samples = [[2, 0, 0, 199], [0; 4], [50, 50, 50, 51]];
        assert_eq!(lines(&samples, FramesBy::Count).unwrap().len(), 1);
        let said = lines(&samples, FramesBy::Time).unwrap();
        assert!(said.len() == 2 && said[1].contains("1 of 3") && said[1].ends_with("(a)"), "{said:?}");
        assert!(said[1].contains("more than 90 % of their events in one of 4 frames"), "{said:?}");
    }

    #[test]
    fn notes_of_many_files_are_one_line() {
        let all = recordings();
        let noticed =
            |late, notes: &[&str]| Noticed { late, notes: notes.iter().map(|note| note.to_string()).collect() };
        let files = [
            (Path::new("/set/a"), noticed(3, &["3 events left out"])),
            (Path::new("/set/b"), noticed(0, &["4 events left out", "another chip"])),
            (Path::new("/set/c"), noticed(1, &[])),
        ];
        let mut remarks = Remarks::new(&all);
        remarks.on_files(&files, FramesBy::Time);
        let out_of_order =
            "/set: 2 of 3 recordings have events out of order (4 in all); frames by time take each at its time (a, c)";
        assert_eq!(
            remarks.into_lines(),
            [
                out_of_order,
                "/set: 2 of 3 recordings: 3 events left out (a, b)",
                "/set: 1 of 3 recordings: another chip (b)"
            ]
        );
    }
}
