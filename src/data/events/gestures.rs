//! DVS128 Gesture: recordings of many trials each, whose classes and times are listed in tables.
//!
//! ```text
//! trials_to_train.txt, trials_to_test.txt   a recording's name per line: user01_fluorescent.aedat
//! user01_fluorescent_labels.csv             class,startTime_usec,endTime_usec, then a trial per line; classes 1 to 11
//! ```

use super::trials::{DVS128, Recordings, Trial, beside};
use crate::data::files::some_of;
use crate::data::listing::{Listing, note_unused};
use crate::files::{MOST_SETTINGS, read_text};
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Labels 1 to 11 of the tables.
const GESTURES: [&str; 11] = [
    "hand_clapping",
    "right_hand_wave",
    "left_hand_wave",
    "right_arm_clockwise",
    "right_arm_counter_clockwise",
    "left_arm_clockwise",
    "left_arm_counter_clockwise",
    "arm_roll",
    "air_drums",
    "air_guitar",
    "other_gestures",
];
/// Which recordings are for training and which for the test.
pub(super) const GESTURE_LISTS: [&str; 2] = ["trials_to_train.txt", "trials_to_test.txt"];

/// The recordings named by the two lists, with their trials.
pub(super) fn dvs_gesture(folder: PathBuf) -> Result<Recordings> {
    let root = Listing::of(&folder)?;
    let mut tables = Tables::new(&root);
    let [train, test] = GESTURE_LISTS.map(|list| tables.trials(list));
    let (train, test) = (train?, test?);
    let mut notes = note_unused(&folder, &beside(&root, "aedat", |path| tables.read.contains(path)));
    for (names, what) in [
        (&tables.again, "recordings are listed again, so their trials count twice, or are tested after they trained"),
        (&tables.bare, "tables have no header line, so the first line is taken for a trial"),
        (&tables.empty, "tables have no trial, so the recording is not used"),
    ] {
        if !names.is_empty() {
            let (here, count, all) = (folder.display(), names.len(), tables.read.len());
            notes.push(format!("{here}: {count} of {all} {what} ({})", some_of(names)));
        }
    }
    let class_names = GESTURES.map(|name| name.replace('_', " ")).into();
    Ok(Recordings { class_names, size: DVS128, train, test, folder, notes })
}

/// The trial tables that the lists refer to.
struct Tables<'a> {
    root: &'a Listing,
    /// Recordings whose table has been read.
    read: BTreeSet<PathBuf>,
    /// Recordings that are listed twice.
    again: Vec<String>,
    /// Tables without a header line, and those without a trial.
    bare: Vec<String>,
    empty: Vec<String>,
}

impl<'a> Tables<'a> {
    fn new(root: &'a Listing) -> Self {
        Self { root, read: BTreeSet::new(), again: Vec::new(), bare: Vec::new(), empty: Vec::new() }
    }

    /// The trials of the recordings in `list`.
    fn trials(&mut self, list: &str) -> Result<Vec<Trial>> {
        let list = self.root.file(list).map_or_else(|| self.root.folder.join(list), Path::to_path_buf);
        let text = text(&list)?;
        let mut trials = Vec::new();
        for name in text.lines().map(str::trim).filter(|name| !name.is_empty()) {
            let stem = name.rsplit_once('.').filter(|(_, end)| end.eq_ignore_ascii_case("aedat")).map(|(stem, _)| stem);
            let Some(stem) = stem else {
                crate::bail_input!("{} names {name}, but recordings end in .aedat; unpack it again", list.display());
            };
            let table = format!("{stem}_labels.csv");
            let [file, table] = [name, &table].map(|wanted| {
                self.root.file(wanted).map(Path::to_path_buf).ok_or_else(|| {
                    crate::input_error!(
                        "{} names {name}, but {} has no {wanted}; unpack the data set again",
                        list.display(),
                        self.root.folder.display()
                    )
                })
            });
            let (file, table) = (file?, table?);
            if !self.read.insert(file.clone()) {
                self.again.push(name.to_string());
            }
            trials.extend(self.table(&file, &table)?);
        }
        if trials.is_empty() {
            crate::bail_input!("{} names no trial; unpack the data set again", list.display());
        }
        Ok(trials)
    }

    /// The trials of a recording; the only place where a gesture's table is read.
    fn table(&mut self, file: &Path, table: &Path) -> Result<Vec<Trial>> {
        let name = || table.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let text = text(table)?;
        let mut rows = text.lines().enumerate().filter(|(_, row)| !row.trim().is_empty()).peekable();
        if rows.next_if(|(_, row)| is_header(row)).is_none() && rows.peek().is_some() {
            self.bare.push(name());
        }
        let trial = |(line, row): (usize, &str)| {
            let numbers: Option<Vec<u64>> = row.split(',').map(|number| number.trim().parse().ok()).collect();
            match numbers.as_deref() {
                Some(&[label @ 1..=11, start, end]) if start < end => {
                    Ok(Trial { file: file.to_path_buf(), label: label as u16 - 1, span: Some((start, end)) })
                }
                _ => Err(crate::input_error!(
                    "{}: line {} is not a class of 1 to 11, a start and a later end in microseconds: {row}",
                    table.display(),
                    line + 1
                )),
            }
        };
        let trials: Vec<Trial> = rows.map(trial).collect::<Result<_>>()?;
        if trials.is_empty() {
            self.empty.push(name());
        }
        Ok(trials)
    }
}

/// Whether this is `class,startTime_usec,endTime_usec`; the columns must be in this order.
fn is_header(row: &str) -> bool {
    let names = row.split(',').map(|name| name.trim().to_ascii_lowercase());
    let begins = ["class", "start", "end"];
    names.clone().count() == begins.len() && names.zip(begins).all(|(name, begin)| name.starts_with(begin))
}

/// A file's text without the byte order mark that some editors put first.
fn text(path: &Path) -> Result<String> {
    let text = read_text(path, MOST_SETTINGS)?;
    Ok(text.strip_prefix('\u{feff}').map(String::from).unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    const HEADER: &str = "class,startTime_usec,endTime_usec";

    /// A folder with one recording for training and one for the test.
    struct Gestures(TempDir);

    impl Gestures {
        fn new() -> Self {
            let gestures = Self(TempDir::new().unwrap());
            gestures.write("trials_to_train.txt", "user01_led.aedat\n\n");
            gestures.write("trials_to_test.txt", "user02_led.aedat");
            gestures.write("user01_led.aedat", "");
            gestures.write("user02_led.aedat", "");
            gestures.write("user01_led_labels.csv", &format!("{HEADER}\n1,10,20\n11,30,45\n"));
            gestures.write("user02_led_labels.csv", &format!("{HEADER}\r\n2,1,2\r\n"));
            gestures
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.0.path().join(name), text).unwrap();
        }

        fn list(&self) -> Result<Recordings> {
            dvs_gesture(self.0.path().into())
        }

        fn refused(&self, part: &str) {
            let error = self.list().unwrap_err();
            assert!(error.is::<crate::error::InputError>() && error.to_string().contains(part), "{error}");
        }

        /// The one note.
        fn noted(&self, part: &str) -> Recordings {
            let all = self.list().unwrap();
            assert!(all.notes.len() == 1 && all.notes[0].contains(part), "{part}: {:?}", all.notes);
            all
        }
    }

    fn spans(trials: &[Trial]) -> Vec<(u16, u64, u64)> {
        trials.iter().filter_map(|trial| trial.span.map(|(start, end)| (trial.label, start, end))).collect()
    }

    #[test]
    fn gestures_are_parts_of_recordings() {
        let all = Gestures::new().list().unwrap();
        assert_eq!(spans(&all.train), [(0, 10, 20), (10, 30, 45)]);
        assert_eq!(spans(&all.test), [(1, 1, 2)]);
        assert_eq!((all.class_names.len(), all.notes), (11, vec![]));
    }

    #[test]
    fn a_table_without_a_header_line_keeps_its_first_trial() {
        let gestures = Gestures::new();
        gestures.write("user01_led_labels.csv", "\u{feff}1,10,20\n11,30,45\n");
        let all = gestures.noted("1 of 2 tables have no header line");
        assert_eq!(spans(&all.train), [(0, 10, 20), (10, 30, 45)]);
        gestures.write("user01_led_labels.csv", &format!("\u{feff}{HEADER}\n1,10,20\n"));
        assert_eq!(spans(&gestures.list().unwrap().train), [(0, 10, 20)]);
        for bad in ["startTime_usec,endTime_usec,class\n1,10,20", "label 1,10,20\n1,30,40", "class\n1,10,20"] {
            gestures.write("user01_led_labels.csv", bad);
            gestures.refused("user01_led_labels.csv: line 1 is not a class");
        }
    }

    #[test]
    fn bad_rows_are_named() {
        let gestures = Gestures::new();
        for bad in ["12,1,2", "0,1,2", "1,2,2", "1,2", "1,2,3,4", "one,2,3"] {
            gestures.write("user02_led_labels.csv", &format!("class,start,end\n{bad}\n"));
            gestures.refused("line 2");
        }
    }

    #[test]
    fn lists_and_files_must_agree() {
        let gestures = Gestures::new();
        gestures.write("user03_led.aedat", "");
        gestures.write("._user04_led.aedat", "");
        gestures.noted("user03_led.aedat is not used");
        gestures.write("trials_to_train.txt", "user01_led.aedat\nuser03_led.aedat\n");
        gestures.refused("names user03_led.aedat, but");
        gestures.refused("has no user03_led_labels.csv");
        gestures.write("user03_led_labels.csv", HEADER);
        let all = gestures.noted("1 of 3 tables have no trial");
        assert_eq!(spans(&all.train).len(), 2);
        fs::remove_file(gestures.0.path().join("user03_led.aedat")).unwrap();
        gestures.refused("has no user03_led.aedat");
        gestures.write("trials_to_train.txt", "user01_led.aedat\nuser02_led.aedat\n");
        let all = gestures.list().unwrap();
        assert!(all.notes.iter().any(|note| note.contains("1 of 2 recordings are listed again")), "{:?}", all.notes);
        gestures.write("trials_to_train.txt", "user01_led.dat");
        gestures.refused("end in .aedat");
        gestures.write("trials_to_train.txt", "\n");
        gestures.refused("names no trial");
    }
}
