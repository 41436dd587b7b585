//! The recordings of a data set: files, labels, and where in a file a sample lies.
//!
//! ```text
//! n-mnist       Train/<class>/*.bin, Test/<class>/*.bin          classes 0, 1, … as folders
//! cifar10-dvs   airplane/*.aedat, automobile/*.aedat, …          no official test part
//! dvs-gesture   trials_to_train.txt, trials_to_test.txt, user…_….aedat, user…_…_labels.csv
//! ```
//! Each is also found in the sub-folder `extract` (for dvs-gesture `extract/DvsGesture`, or `DvsGesture`), where
//! SpikingJelly unpacks it. Names are matched ignoring case; hidden files are ignored. Missing files are an error, unused ones
//! are noted.

use super::SensorSize;
use super::gestures::{GESTURE_LISTS, dvs_gesture};
use super::integrate::Split;
use super::simulate::DESCRIPTION;
use super::trials::{DVS128, beside};
pub use super::trials::{Recordings, Trial};
use crate::data::DataSource;
use crate::data::files::{self, some_of};
use crate::data::listing::{Listing, is_called, name, note_unused};
use crate::files::{MOST_SETTINGS, read_text};
use anyhow::Result;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// N-MNIST's sensor.
const NMNIST_SIZE: SensorSize = SensorSize { width: 34, height: 34 };
/// The folders of N-MNIST.
const PARTS: [&str; 2] = ["Train", "Test"];
/// Share of each class of CIFAR10-DVS that is for training, in percent, rounded up.
const TRAIN_PERCENT: usize = 90;
/// The first number that is for the test, if numbers decide.
const FIRST_TEST: u32 = 900;
const CIFAR10: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

/// The folder for [`list`], if everything required is there.
pub fn find(source: DataSource, dir: &Path) -> Option<PathBuf> {
    places(source, dir).find(|(_, missing)| missing.is_empty()).map(|(folder, _)| folder)
}

/// The folders in which a data set may be, each with what it lacks.
fn places(source: DataSource, dir: &Path) -> impl Iterator<Item = (PathBuf, Vec<&'static str>)> {
    let (sub_folders, marks) = layout(source);
    let folders = std::iter::once(dir.to_path_buf()).chain(sub_folders.iter().map(|sub| dir.join(sub)));
    folders.filter_map(move |folder| {
        let Listing { folders, files, .. } = Listing::of(&folder).ok()?;
        let is_there = |mark: &str| folders.iter().chain(&files).any(|path| is_called(path, mark));
        let missing = marks.iter().copied().filter(|mark| !is_there(mark)).collect();
        Some((folder, missing))
    })
}

/// Where a data set may be below its folder, and what must be there.
fn layout(source: DataSource) -> (&'static [&'static str], &'static [&'static str]) {
    match source {
        DataSource::NMnist => (&["extract"], &PARTS),
        DataSource::Cifar10Dvs => (&["extract"], &CIFAR10),
        _ => (&["DvsGesture", "extract/DvsGesture"], &GESTURE_LISTS),
    }
}

/// The recordings of an event data set.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if the folder is not laid out as above.
pub fn list(source: DataSource, dir: &Path, split: Split) -> Result<Recordings> {
    let best = places(source, dir).min_by_key(|(_, missing)| missing.len());
    let Some((folder, missing)) = best.filter(|(_, missing)| missing.len() < layout(source).1.len()) else {
        crate::bail_input!("{} does not hold {source}; {}", dir.display(), source.advice());
    };
    if !missing.is_empty() {
        crate::bail_input!(
            "{} has no {}, so {source} is not complete; {}",
            folder.display(),
            missing.join(", "),
            source.advice()
        );
    }
    match source {
        DataSource::NMnist => nmnist(folder),
        DataSource::Cifar10Dvs => cifar10_dvs(folder, split),
        _ => dvs_gesture(folder),
    }
}

fn nmnist(folder: PathBuf) -> Result<Recordings> {
    let root = Listing::of(&folder)?;
    let mut unused = beside(&root, "bin", |path| PARTS.iter().any(|part| is_called(path, part)));
    let [train, test] = PARTS.map(|part| -> Result<Listing> {
        let part = root.folder(part)?.map_or_else(|| folder.join(part), Path::to_path_buf);
        Listing::of(&part)
    });
    let parts = [train?, test?];
    let classes = classes(&parts)?;
    let [train, test] = parts.map(|part| -> Result<Vec<Trial>> {
        unused.extend(part.files);
        unused.extend(part.folders.iter().filter(|path| class_of(path).is_none()).cloned());
        // A class may be empty: a simulation of few images does not have all of them.
        let all = (0..classes).map(|class| of_class(&part.folder.join(class.to_string()), "bin", class, &mut unused));
        some(all.collect::<Result<Vec<_>>>()?.concat(), &part.folder)
    });
    let (train, test, size) = (train?, test?, nmnist_size(&folder)?);
    let notes = note_unused(&folder, &unused);
    Ok(Recordings { folder, class_names: files::numbered(classes), size, train, test, notes })
}

/// The class that a folder stands for.
fn class_of(folder: &Path) -> Option<u16> {
    let name = name(folder);
    name.parse().ok().filter(|class: &u16| class.to_string() == name)
}

/// The number of classes, each of which must have a folder in both parts.
fn classes([train, test]: &[Listing; 2]) -> Result<usize> {
    let of = |part: &Listing| part.folders.iter().filter_map(|path| class_of(path)).collect::<BTreeSet<u16>>();
    let (in_train, in_test) = (of(train), of(test));
    let classes = in_train.union(&in_test).max().map_or(1, |&last| usize::from(last) + 1);
    for (part, own, other) in [(train, &in_train, test), (test, &in_test, train)] {
        let missing = (0..classes).filter(|class| !own.contains(&(*class as u16))).map(|class| class.to_string());
        let missing: Vec<String> = missing.collect();
        if !missing.is_empty() {
            crate::bail_input!(
                "{} has no folder {}; it and {} need one folder for each class, named 0, 1, … without gaps (a class \
                 without recordings may have an empty one)",
                part.folder.display(),
                some_of(&missing),
                other.folder.display()
            );
        }
    }
    Ok(classes)
}

/// The sensor size stated by a simulation, or N-MNIST's.
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
    Ok(SensorSize { width: side.into(), height: side.into() })
}

/// Divided in each class: by name, the first nine out of ten in the order of file names are for training, as in SpikingJelly's
/// `split_to_train_test_set`; by number, those below 900, as in the AdaLi authors' code.
fn cifar10_dvs(folder: PathBuf, split: Split) -> Result<Recordings> {
    let root = Listing::of(&folder)?;
    let mut unused = beside(&root, "aedat", |path| CIFAR10.iter().any(|class| is_called(path, class)));
    let (mut train, mut test) = (Vec::new(), Vec::new());
    for (class, name) in CIFAR10.iter().enumerate() {
        let own = root.folder(name)?.map_or_else(|| folder.join(name), Path::to_path_buf);
        let mut all = some(of_class(&own, "aedat", class, &mut unused)?, &own)?;
        match split {
            Split::Name => test.extend(all.split_off((all.len() * TRAIN_PERCENT).div_ceil(100))),
            Split::Number => {
                let mut later = Vec::new();
                for trial in std::mem::take(&mut all) {
                    if number(&trial.file)? < FIRST_TEST { &mut all } else { &mut later }.push(trial);
                }
                test.extend(later);
            }
        }
        train.extend(all);
    }
    let notes = note_unused(&folder, &unused);
    Ok(Recordings { folder, class_names: CIFAR10.map(String::from).into(), size: DVS128, train, test, notes })
}

/// The number at the end of a recording's name, `cifar10_airplane_17.aedat`.
fn number(file: &Path) -> Result<u32> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    let digits = stem.len() - stem.trim_end_matches(|c: char| c.is_ascii_digit()).len();
    stem[stem.len() - digits..].parse().map_err(|_| {
        crate::input_error!(
            "{} has no number at the end of its name, by which a split could tell its part; split by name",
            file.display()
        )
    })
}

/// The files of one class, by name; anything else in its folder is added to `unused`.
fn of_class(folder: &Path, extension: &str, class: usize, unused: &mut Vec<PathBuf>) -> Result<Vec<Trial>> {
    let mut listing = Listing::of(folder)?;
    let files = listing.take_files(extension);
    unused.extend(listing.files.into_iter().chain(listing.folders));
    Ok(files.into_iter().map(|file| Trial { file, label: class as u16, span: None }).collect())
}

/// The trials of `folder`, of which there must be some.
fn some(trials: Vec<Trial>, folder: &Path) -> Result<Vec<Trial>> {
    if trials.is_empty() {
        crate::bail_input!("{} holds no recording; unpack the data set again", folder.display());
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
        let error = list(source, dir, Split::Name).unwrap_err();
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
        let all = list(DataSource::Cifar10Dvs, home.path(), Split::Name).unwrap();
        assert_eq!(all.notes, [""; 0]);
        let count = |part: &[Trial], label| part.iter().filter(|trial| trial.label == label).count();
        for class in 0..10 {
            let total = 11 + usize::from(class);
            assert_eq!(count(&all.train, class), (total * 9).div_ceil(10));
            assert_eq!(count(&all.test, class), total - (total * 9).div_ceil(10));
        }
        // Sorted by name: 10 comes before 2.
        let names: Vec<_> = all.train[..3].iter().map(|t| t.file.file_stem().unwrap().to_owned()).collect();
        assert_eq!(names, ["cifar10_airplane_0", "cifar10_airplane_1", "cifar10_airplane_10"]);
        fs::remove_dir_all(root.join("frog")).unwrap();
        fs::create_dir(root.join("frog")).unwrap();
        refused(DataSource::Cifar10Dvs, home.path(), "frog holds no recording");
        fs::remove_dir(root.join("frog")).unwrap();
        refused(DataSource::Cifar10Dvs, home.path(), "has no frog, so cifar10-dvs is not complete");
        assert_eq!(find(DataSource::Cifar10Dvs, home.path()), None);
    }

    #[test]
    fn numbers_divide_cifar10_dvs_if_asked() {
        let home = TempDir::new().unwrap();
        for name in CIFAR10 {
            touch(home.path(), &[0, 7, 899, 900, 999].map(|i| format!("{name}/cifar10_{name}_{i}.aedat")));
        }
        let all = list(DataSource::Cifar10Dvs, home.path(), Split::Number).unwrap();
        let names = |part: &[Trial]| part.iter().map(|trial| name(&trial.file)).collect::<Vec<_>>();
        assert_eq!((all.train.len(), all.test.len()), (30, 20));
        assert_eq!(names(&all.train[..3]), [0, 7, 899].map(|i| format!("cifar10_airplane_{i}.aedat")));
        assert_eq!(names(&all.test[18..]), [900, 999].map(|i| format!("cifar10_truck_{i}.aedat")));
        touch(home.path(), &["bird/a.aedat".into()]);
        let error = list(DataSource::Cifar10Dvs, home.path(), Split::Number).unwrap_err();
        assert!(error.to_string().contains("bird/a.aedat has no number at the end of its name"), "{error}");
    }

    #[test]
    fn names_count_in_any_case_and_what_is_not_used_is_said() {
        let home = TempDir::new().unwrap();
        let root = home.path();
        for part in ["train", "TEST"] {
            let names = ["0/1.bin", "0/2.BIN", "0/._1.bin", "0/.DS_Store", "1/3.Bin", "__MACOSX/0/._1.bin"];
            touch(root, &names.map(|name| format!("{part}/{name}")));
        }
        touch(root, &["__MACOSX/train/0/._1.bin".into(), "README.md".into()]);
        assert_eq!(find(DataSource::NMnist, root), Some(root.into()));
        let all = list(DataSource::NMnist, root, Split::Name).unwrap();
        assert_eq!((all.train.len(), all.test.len(), &all.notes[..]), (3, 3, &[][..]));
        touch(root, &["train/0/notes.txt".into()]);
        let notes = list(DataSource::NMnist, root, Split::Name).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("train/0/notes.txt is not used"), "{notes:?}");
        let more = ["valid/0/1.bin", "train/5.bin", "train/00/1.bin", "train/1/x/1.bin", "9.bin"];
        touch(root, &more.map(String::from));
        let notes = list(DataSource::NMnist, root, Split::Name).unwrap().notes;
        assert!(notes.len() == 1 && notes[0].contains("and 3 more are not used"), "{notes:?}");
        touch(root, &["Train/0/1.bin".into()]);
        refused(DataSource::NMnist, root, "both Train and train");

        let home = TempDir::new().unwrap();
        for name in CIFAR10 {
            let class = name.to_ascii_uppercase();
            touch(home.path(), &[format!("{class}/0.AEDAT"), format!("{class}/._0.aedat")]);
        }
        touch(home.path(), &["lion/0.aedat".into(), "bird/readme.txt".into()]);
        refused(DataSource::Cifar10Dvs, home.path(), "both BIRD and bird");
        fs::remove_dir_all(home.path().join("bird")).unwrap();
        let all = list(DataSource::Cifar10Dvs, home.path(), Split::Name).unwrap();
        assert_eq!((all.train.len(), all.test.len()), (10, 0));
        assert!(all.notes.len() == 1 && all.notes[0].contains("lion is not used"), "{:?}", all.notes);
    }

    #[test]
    fn n_mnist_is_found_by_its_folders() {
        let home = TempDir::new().unwrap();
        let root = home.path();
        touch(root, &["Train/1/00003.bin".into(), "Test/0/00001.bin".into(), "Test/1/00002.bin".into()]);
        refused(DataSource::NMnist, root, "Train has no folder 0");
        touch(root, &["Train/0/00009.bin".into(), "Train/0/00008.bin".into()]);
        let all = list(DataSource::NMnist, root, Split::Name).unwrap();
        let labels = |part: &[Trial]| part.iter().map(|trial| trial.label).collect::<Vec<_>>();
        assert_eq!((labels(&all.train), labels(&all.test), all.size), (vec![0, 0, 1], vec![0, 1], NMNIST_SIZE));
        assert!(all.train[0].file.ends_with("Train/0/00008.bin"));
        fs::create_dir(root.join("Train/2")).unwrap();
        refused(DataSource::NMnist, root, "Test has no folder 2");
        fs::create_dir_all(root.join("Test/2")).unwrap();
        assert_eq!(list(DataSource::NMnist, root, Split::Name).unwrap().class_names, ["0", "1", "2"]);
        fs::write(root.join(DESCRIPTION), "side = 60").unwrap();
        assert_eq!(list(DataSource::NMnist, root, Split::Name).unwrap().size, SensorSize { width: 60, height: 60 });
        fs::write(root.join(DESCRIPTION), "side = -1").unwrap();
        refused(DataSource::NMnist, root, "simulate again");
        for recording in &all.test {
            fs::remove_file(&recording.file).unwrap();
        }
        refused(DataSource::NMnist, root, "Test holds no recording");
    }

    #[test]
    fn a_missing_class_or_part_is_an_error() {
        let home = TempDir::new().unwrap();
        let root = home.path();
        let all = ["Train", "Test"].map(|part| (0..6).map(move |class| format!("{part}/{class}/1.bin")));
        touch(root, &all.into_iter().flatten().collect::<Vec<_>>());
        assert_eq!(list(DataSource::NMnist, root, Split::Name).unwrap().class_names.len(), 6);
        fs::remove_dir_all(root.join("Train/2")).unwrap();
        refused(DataSource::NMnist, root, "Train has no folder 2;");
        fs::remove_dir_all(root.join("Test/2")).unwrap();
        refused(DataSource::NMnist, root, "Train has no folder 2;");
        for class in [2, 3, 4, 5] {
            let _ = fs::remove_dir_all(root.join(format!("Train/{class}")));
        }
        refused(DataSource::NMnist, root, "Train has no folder 2, 3, 4 and 1 more;");
        for class in 0..2 {
            fs::remove_dir_all(root.join(format!("Train/{class}"))).unwrap();
        }
        refused(DataSource::NMnist, root, "Train has no folder 0, 1, 2 and 3 more;");
        fs::remove_dir(root.join("Train")).unwrap();
        refused(DataSource::NMnist, root, "has no Train, so n-mnist is not complete");
        fs::remove_dir_all(root.join("Test")).unwrap();
        refused(DataSource::NMnist, root, "does not hold n-mnist");
    }
}
