//! Which recordings a data set consists of: files, labels, and where in a file a sample lies.
//!
//! ```text
//! n-mnist       Train/<class>/*.bin, Test/<class>/*.bin          classes 0, 1, … as folders
//! cifar10-dvs   airplane/*.aedat, automobile/*.aedat, …          no official test part
//! dvs-gesture   trials_to_train.txt, trials_to_test.txt, user…_….aedat, user…_…_labels.csv
//! ```
//! Each is also found in the sub-folder `extract` (for dvs-gesture `extract/DvsGesture`, or `DvsGesture`), where
//! SpikingJelly unpacks it.

use super::SensorSize;
use super::simulate::DESCRIPTION;
use crate::data::{DataSource, files};
use crate::files::{MOST_SETTINGS, read_text};
use anyhow::Result;
use std::path::{Path, PathBuf};

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The recording.
    pub file: PathBuf,
    /// The class.
    pub label: u16,
    /// Its part of the recording, from the first microsecond up to the second; all of it without.
    pub span: Option<(u64, u64)>,
}

/// A data set before its events are read.
#[derive(Clone, Debug)]
pub struct Recordings {
    /// Where they were found.
    pub folder: PathBuf,
    /// One a class.
    pub class_names: Vec<String>,
    /// Of all recordings.
    pub size: SensorSize,
    /// Samples of one file are neighbours.
    pub train: Vec<Trial>,
    /// As `train`.
    pub test: Vec<Trial>,
}

/// N-MNIST's sensor, and that of the other two.
const NMNIST_SIZE: SensorSize = SensorSize { width: 34, height: 34 };
const DVS128: SensorSize = SensorSize { width: 128, height: 128 };
/// Of each class of CIFAR10-DVS, in percent, rounded up.
const TRAIN_PERCENT: usize = 90;
const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/// Labels 1 to 11 of the gestures' tables.
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
const GESTURE_LISTS: [&str; 2] = ["trials_to_train.txt", "trials_to_test.txt"];

/// The folder of [`list`], if it looks like one.
pub fn find(source: DataSource, dir: &Path) -> Option<PathBuf> {
    let (sub_folders, marks): (&[&str], &[&str]) = match source {
        DataSource::NMnist => (&["extract"], &["Train", "Test"]),
        DataSource::Cifar10Dvs => (&["extract"], &CIFAR10),
        _ => (&["DvsGesture", "extract/DvsGesture"], &GESTURE_LISTS),
    };
    files::folder(dir, sub_folders, |folder| marks.iter().all(|mark| folder.join(mark).exists()))
}

/// The recordings of a data set of events.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) when the folder is not laid out as above.
pub fn list(source: DataSource, dir: &Path) -> Result<Recordings> {
    let Some(folder) = find(source, dir) else {
        crate::bail_input!("{} does not hold {source}; {}", dir.display(), source.advice());
    };
    match source {
        DataSource::NMnist => nmnist(folder),
        DataSource::Cifar10Dvs => cifar10_dvs(folder),
        _ => dvs_gesture(folder),
    }
}

fn nmnist(folder: PathBuf) -> Result<Recordings> {
    let [train, test] = ["Train", "Test"].map(|part| folder.join(part));
    let classes = (0..).take_while(|class| train.join(class.to_string()).is_dir()).count();
    if classes == 0 {
        crate::bail_input!("{} has no folder 0; name the classes' folders 0, 1, …", train.display());
    }
    // A class may be empty: a simulation of few images has not all of them.
    let part = |part: &Path| -> Result<Vec<Trial>> {
        let all = (0..classes).map(|class| of_class(&part.join(class.to_string()), "bin", class));
        some(all.collect::<Result<Vec<_>>>()?.concat(), part)
    };
    let (train, test, size) = (part(&train)?, part(&test)?, nmnist_size(&folder)?);
    Ok(Recordings { folder, class_names: files::numbered(classes), size, train, test })
}

/// The sensor that a simulation says it had, or N-MNIST's.
fn nmnist_size(folder: &Path) -> Result<SensorSize> {
    #[derive(serde::Deserialize)]
    struct Side {
        side: u16,
    }
    let path = folder.join(DESCRIPTION);
    if !path.exists() {
        return Ok(NMNIST_SIZE);
    }
    let side = toml::from_str::<Side>(&read_text(&path, MOST_SETTINGS)?);
    let Side { side } = side.map_err(|error| {
        crate::input_error!("{} does not say the sensor's side ({}); simulate again", path.display(), error.message())
    })?;
    Ok(SensorSize { width: side, height: side })
}

/// Of each class, in the order of the files' names, the first nine of ten train, as SpikingJelly's
/// `split_to_train_test_set` divides them.
fn cifar10_dvs(folder: PathBuf) -> Result<Recordings> {
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (class, name) in CIFAR10.iter().enumerate() {
        let own = folder.join(name);
        let mut all = some(of_class(&own, "aedat", class)?, &own)?;
        test.extend(all.split_off((all.len() * TRAIN_PERCENT).div_ceil(100)));
        train.extend(all);
    }
    Ok(Recordings { folder, class_names: CIFAR10.map(String::from).into(), size: DVS128, train, test })
}

/// The files of one class, by name.
fn of_class(folder: &Path, extension: &str, class: usize) -> Result<Vec<Trial>> {
    let refused = |error: std::io::Error| crate::input_error!("{} cannot be read: {error}", folder.display());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(refused)? {
        let path = entry.map_err(refused)?.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files.sort_unstable();
    Ok(files.into_iter().map(|file| Trial { file, label: class as u16, span: None }).collect())
}

/// The trials of `folder`, of which there must be some.
fn some(trials: Vec<Trial>, folder: &Path) -> Result<Vec<Trial>> {
    if trials.is_empty() {
        crate::bail_input!("{} holds no recording; unpack the data set again", folder.display());
    }
    Ok(trials)
}

fn dvs_gesture(folder: PathBuf) -> Result<Recordings> {
    let [train, test] = GESTURE_LISTS.map(|list| gesture_trials(&folder, list));
    let class_names = GESTURES.map(|name| name.replace('_', " ")).into();
    Ok(Recordings { class_names, size: DVS128, train: train?, test: test?, folder })
}

/// The trials of the recordings that `list` names; the only place where a gesture's table is read.
fn gesture_trials(folder: &Path, list: &str) -> Result<Vec<Trial>> {
    let text = |path: &Path| read_text(path, MOST_SETTINGS);
    let list = folder.join(list);
    let mut trials = Vec::new();
    for name in text(&list)?.lines().map(str::trim).filter(|name| !name.is_empty()) {
        let Some(stem) = name.strip_suffix(".aedat") else {
            crate::bail_input!("{} names {name}, but recordings end in .aedat; unpack it again", list.display());
        };
        let (file, table) = (folder.join(name), folder.join(format!("{stem}_labels.csv")));
        for (line, row) in text(&table)?.lines().enumerate().skip(1).filter(|(_, row)| !row.trim().is_empty()) {
            let numbers: Option<Vec<u64>> = row.split(',').map(|number| number.trim().parse().ok()).collect();
            let (label, start, end) = match numbers.as_deref() {
                Some(&[label @ 1..=11, start, end]) if start < end => (label as u16 - 1, start, end),
                _ => crate::bail_input!(
                    "{}: line {} is not a class of 1 to 11, a start and a later end in microseconds: {row}",
                    table.display(),
                    line + 1
                ),
            };
            trials.push(Trial { file: file.clone(), label, span: Some((start, end)) });
        }
    }
    if trials.is_empty() {
        crate::bail_input!("{} names no trial; unpack the data set again", list.display());
    }
    Ok(trials)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use tempfile::TempDir;

    fn touch(root: &Path, names: &[String]) {
        for name in names {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
    }

    fn refused(source: DataSource, dir: &Path, part: &str) {
        let error = list(source, dir).unwrap_err();
        assert!(error.is::<crate::error::InputError>() && error.to_string().contains(part), "{error}");
    }

    #[test]
    fn nine_of_ten_of_each_class_of_cifar10_dvs_train() {
        let home = TempDir::new().unwrap();
        refused(DataSource::Cifar10Dvs, home.path(), "does not hold cifar10-dvs");
        let root = home.path().join("extract");
        for (class, name) in CIFAR10.iter().enumerate() {
            let files: Vec<_> = (0..11 + class).map(|i| format!("{name}/cifar10_{name}_{i}.aedat")).collect();
            touch(&root, &files);
        }
        touch(&root, &["bird/readme.txt".into()]);
        let all = list(DataSource::Cifar10Dvs, home.path()).unwrap();
        let count = |part: &[Trial], label| part.iter().filter(|trial| trial.label == label).count();
        for class in 0..10 {
            let total = 11 + usize::from(class);
            assert_eq!(count(&all.train, class), (total * 9).div_ceil(10));
            assert_eq!(count(&all.test, class), total - (total * 9).div_ceil(10));
        }
        // By name: 10 comes before 2.
        let names: Vec<_> = all.train[..3].iter().map(|t| t.file.file_stem().unwrap().to_owned()).collect();
        assert_eq!(names, ["cifar10_airplane_0", "cifar10_airplane_1", "cifar10_airplane_10"]);
        fs::remove_dir_all(root.join("frog")).unwrap();
        fs::create_dir(root.join("frog")).unwrap();
        refused(DataSource::Cifar10Dvs, home.path(), "frog holds no recording");
    }

    #[test]
    fn n_mnist_is_found_by_its_folders() {
        let home = TempDir::new().unwrap();
        let root = home.path();
        touch(root, &["Train/1/00003.bin".into(), "Test/0/00001.bin".into(), "Test/1/00002.bin".into()]);
        refused(DataSource::NMnist, root, "no folder 0");
        touch(root, &["Train/0/00009.bin".into(), "Train/0/00008.bin".into()]);
        let all = list(DataSource::NMnist, root).unwrap();
        let labels = |part: &[Trial]| part.iter().map(|trial| trial.label).collect::<Vec<_>>();
        assert_eq!((labels(&all.train), labels(&all.test), all.size), (vec![0, 0, 1], vec![0, 1], NMNIST_SIZE));
        assert!(all.train[0].file.ends_with("Train/0/00008.bin"));
        fs::create_dir(root.join("Train/2")).unwrap();
        refused(DataSource::NMnist, root, "Test/2 cannot be read");
        fs::create_dir(root.join("Test/2")).unwrap();
        assert_eq!(list(DataSource::NMnist, root).unwrap().class_names, ["0", "1", "2"]);
        fs::write(root.join(DESCRIPTION), "side = 60").unwrap();
        assert_eq!(list(DataSource::NMnist, root).unwrap().size, SensorSize { width: 60, height: 60 });
        fs::write(root.join(DESCRIPTION), "side = -1").unwrap();
        refused(DataSource::NMnist, root, "simulate again");
        for recording in &all.test {
            fs::remove_file(&recording.file).unwrap();
        }
        refused(DataSource::NMnist, root, "Test holds no recording");
    }

    #[test]
    fn gestures_are_parts_of_recordings() {
        let home = TempDir::new().unwrap();
        let root = home.path().join("DvsGesture");
        fs::create_dir(&root).unwrap();
        let write = |name: &str, text: &str| fs::write(root.join(name), text).unwrap();
        write("trials_to_train.txt", "user01_led.aedat\n\n");
        write("trials_to_test.txt", "user02_led.aedat");
        write("user01_led_labels.csv", "class,startTime_usec,endTime_usec\n1,10,20\n11,30,45\n");
        write("user02_led_labels.csv", "class,startTime_usec,endTime_usec\r\n2,1,2\r\n");
        let all = list(DataSource::DvsGesture, home.path()).unwrap();
        let parts: Vec<_> = all.train.iter().map(|trial| (trial.label, trial.span)).collect();
        assert_eq!(parts, [(0, Some((10, 20))), (10, Some((30, 45)))]);
        assert_eq!((all.test.len(), all.class_names.len()), (1, 11));
        for bad in ["12,1,2", "0,1,2", "1,2,2", "1,2", "1,2,3,4", "one,2,3"] {
            write("user02_led_labels.csv", &format!("class,start,end\n{bad}\n"));
            refused(DataSource::DvsGesture, &root, "line 2");
        }
        write("trials_to_test.txt", "user02_led.dat");
        refused(DataSource::DvsGesture, &root, "end in .aedat");
        write("trials_to_test.txt", "\n");
        refused(DataSource::DvsGesture, &root, "names no trial");
    }
}
