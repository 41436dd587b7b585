//! CIFAR-10 and CIFAR-100 in their binary version, fixed-size records without a header, or their Python version, pickles.
//!
//! ```text
//! CIFAR-10:  u8 label, u8 [3][32][32]
//! CIFAR-100: u8 coarse label, u8 fine label, u8 [3][32][32]       the fine label is used
//! pickles:   {"data": u8 [N][3 x 32 x 32], "labels" or "fine_labels": [N]}
//! ```
//! Format and data: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

use super::{DataSource, Dataset, Reader, SampleShape, Samples, files, pickle};
use crate::files::{MOST_SETTINGS, open_regular, read_bytes, read_text, room};
use crate::host::reserve;
use anyhow::Result;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The shape of every CIFAR image.
pub const SHAPE: SampleShape = SampleShape { frames: 1, height: 32, width: 32, channels: 3 };

/// Mean and deviation of each channel over the training images, as commonly used.
const CIFAR10_MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];
const CIFAR10_STD: [f32; 3] = [0.2470, 0.2435, 0.2616];
const CIFAR100_MEAN: [f32; 3] = [0.5071, 0.4865, 0.4409];
const CIFAR100_STD: [f32; 3] = [0.2673, 0.2564, 0.2762];
const CIFAR10_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/// The largest file that is accepted; a complete CIFAR-100 file has 154 MB.
pub const MAX_BYTES: u64 = 1 << 30;
const FINE_NAMES_FILE: &str = "fine_label_names.txt";
const FINE_NAMES_PICKLE: &str = "meta";

/// Which of the two sets a file belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// One label per record, ten classes.
    Cifar10,
    /// A coarse and a fine label per record, a hundred classes.
    Cifar100,
}

impl Variant {
    /// The number of classes.
    pub fn classes(self) -> usize {
        match self {
            Self::Cifar10 => 10,
            Self::Cifar100 => 100,
        }
    }

    /// Label bytes before the pixels; the last one is used.
    fn label_bytes(self) -> usize {
        match self {
            Self::Cifar10 => 1,
            Self::Cifar100 => 2,
        }
    }

    /// The files of a version, without the ending that all of the binary version have.
    fn train_files(self) -> &'static [&'static str] {
        match self {
            Self::Cifar10 => &["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5"],
            Self::Cifar100 => &["train"],
        }
    }

    fn test_file(self) -> &'static str {
        match self {
            Self::Cifar10 => "test_batch",
            Self::Cifar100 => "test",
        }
    }

    /// The key of the labels in pickles.
    fn label_key(self) -> &'static str {
        match self {
            Self::Cifar10 => "labels",
            Self::Cifar100 => "fine_labels",
        }
    }

    /// Images in a complete training and test file; the files have no header that says so.
    fn whole_files(self) -> [u64; 2] {
        match self {
            Self::Cifar10 => [10_000; 2],
            Self::Cifar100 => [50_000, 10_000],
        }
    }

    /// The folders in the archives of the two versions.
    fn sub_folders(self) -> [&'static str; 2] {
        match self {
            Self::Cifar10 => ["cifar-10-batches-bin", "cifar-10-batches-py"],
            Self::Cifar100 => ["cifar-100-binary", "cifar-100-python"],
        }
    }
}

/// The endings of the files of the binary and of the Python version.
const ENDINGS: [&str; 2] = [".bin", ""];
const BINARY: &str = ENDINGS[0];

/// Parses the bytes of one file, which must be a whole number of records; `name` is the file's name in errors.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if there is no record, a partial record, or a label out of
/// range.
pub fn parse_batch(bytes: &[u8], name: &str, variant: Variant) -> Result<Samples> {
    let images = count_records(bytes.len() as u64, name, variant)?;
    let (mut values, mut labels) = (room(images * SHAPE.len() as u64, &name)?, Vec::new());
    append_batch(bytes, images, name, variant, &mut values, &mut labels)?;
    Ok(Samples { shape: SHAPE, values: values.into(), labels })
}

/// The images in a file of `length` bytes.
fn count_records(length: u64, name: &str, variant: Variant) -> Result<u64> {
    let record = (variant.label_bytes() + SHAPE.len()) as u64;
    if length == 0 {
        crate::bail_input!("{name} holds no images; unpack the archive again");
    }
    if !length.is_multiple_of(record) {
        crate::bail_input!(
            "{name} has {length} bytes, {} more than {} records of {record}, so it is damaged or not the binary \
             version; unpack the archive again",
            length % record,
            length / record
        );
    }
    if length > MAX_BYTES {
        crate::bail_input!("{name} has {length} bytes, but at most {MAX_BYTES} are read; name another file");
    }
    Ok(length / record)
}

/// Appends the values and labels of `images` records.
fn append_batch(
    mut records: impl Read,
    images: u64,
    name: &str,
    variant: Variant,
    values: &mut Vec<u8>,
    labels: &mut Vec<u16>,
) -> Result<()> {
    let mut record = vec![0; variant.label_bytes() + SHAPE.len()];
    for index in 0..images {
        records.read_exact(&mut record).map_err(|error| crate::input_error!("{name} cannot be read: {error}"))?;
        let (own, planes) = record.split_at(variant.label_bytes());
        labels.push(checked_label(own[own.len() - 1].into(), index, name, variant)?);
        files::append_channels_last(planes, SHAPE.channels, SHAPE.height * SHAPE.width, values);
    }
    Ok(())
}

fn checked_label(label: i64, index: u64, name: &str, variant: Variant) -> Result<u16> {
    u16::try_from(label).ok().filter(|&label| usize::from(label) < variant.classes()).ok_or_else(|| {
        crate::input_error!(
            "{name} gives image {index} the label {label}, but labels must be below {}; unpack the archive again",
            variant.classes()
        )
    })
}

/// Parses the bytes of a file of the Python version; `name` is the file's name in errors.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if it is no pickle or does not hold images and labels.
pub fn parse_pickle(bytes: &[u8], name: &str, variant: Variant) -> Result<Samples> {
    let (mut values, mut labels) = (Vec::new(), Vec::new());
    append_pickle(bytes, name, variant, &mut values, &mut labels)?;
    Ok(Samples { shape: SHAPE, values: values.into(), labels })
}

/// Appends the values and labels of a pickle.
fn append_pickle(
    bytes: &[u8],
    name: &str,
    variant: Variant,
    values: &mut Vec<u8>,
    labels: &mut Vec<u16>,
) -> Result<()> {
    let (pickle, key) = (pickle::parse(bytes, name)?, variant.label_key());
    let (Some(array), Some(given)) = (pickle.array("data"), pickle.numbers(key)) else {
        crate::bail_input!(
            "{name} does not hold \"data\", a NumPy array of bytes, and \"{key}\", a list of numbers; unpack the archive \
             again"
        );
    };
    if array.columns != SHAPE.len() || array.rows != given.len() || array.rows == 0 {
        crate::bail_input!(
            "{name} holds {} images of {} bytes and {} labels, but each image has {} bytes and a label; unpack the archive \
             again",
            array.rows,
            array.columns,
            given.len(),
            SHAPE.len()
        );
    }
    for (label, index) in given.into_iter().zip(0..) {
        labels.push(checked_label(label, index, name, variant)?);
    }
    reserve(values, array.bytes.len())?;
    let area = SHAPE.height * SHAPE.width;
    if array.by_column {
        for image in 0..array.rows {
            let planes: Vec<u8> = array.bytes.iter().skip(image).step_by(array.rows).copied().collect();
            files::append_channels_last(&planes, SHAPE.channels, area, values);
        }
    } else {
        files::append_channels_last(array.bytes, SHAPE.channels, area, values);
    }
    Ok(())
}

fn variant(source: DataSource) -> Variant {
    if source == DataSource::Cifar100 { Variant::Cifar100 } else { Variant::Cifar10 }
}

pub(super) static CIFAR10: Reader = Reader {
    name: "cifar10",
    extents: Some([32, 32, 3]),
    advice: "unpack the binary version, cifar-10-binary.tar.gz, or the Python version, cifar-10-python.tar.gz, from \
                 https://www.cs.toronto.edu/~kriz/cifar.html, and name its folder with --data-dir",
    place: None,
    events: false,
    find: |dir| find(DataSource::Cifar10, dir),
    load: |dir, _| load(DataSource::Cifar10, dir),
};

pub(super) static CIFAR100: Reader = Reader {
    name: "cifar100",
    extents: Some([32, 32, 3]),
    advice: "unpack the binary version, cifar-100-binary.tar.gz, or the Python version, cifar-100-python.tar.gz, from \
                 https://www.cs.toronto.edu/~kriz/cifar.html, and name its folder with --data-dir",
    place: None,
    events: false,
    find: |dir| find(DataSource::Cifar100, dir),
    load: |dir, _| load(DataSource::Cifar100, dir),
};

/// A folder with files of a version, and their ending; the first for which `fits` of the files that are there and of all.
fn place(variant: Variant, dir: &Path, fits: fn(usize, usize) -> bool) -> Option<(PathBuf, &'static str)> {
    let names = || variant.train_files().iter().copied().chain([variant.test_file()]);
    let of_version = |ending: &'static str| {
        let is_there = |path: PathBuf| if ending == BINARY { path.exists() } else { path.is_file() };
        let there = |folder: &Path| names().filter(|name| is_there(folder.join(format!("{name}{ending}")))).count();
        let folder = files::folder(dir, &variant.sub_folders(), |folder| fits(there(folder), names().count()))?;
        Some((folder, ending))
    };
    ENDINGS.into_iter().find_map(of_version)
}

/// The folder that [`load`] would read, if it holds all files.
fn find(source: DataSource, dir: &Path) -> Option<PathBuf> {
    place(variant(source), dir, |there, all| there == all).map(|(folder, _)| folder)
}

/// Reads the files from `dir`, or from its sub-folder named as in the archive.
fn load(source: DataSource, dir: &Path) -> Result<Dataset> {
    let variant = variant(source);
    if dir.is_file() {
        crate::bail_input!("{} is a file where a folder is expected; {}", dir.display(), source.advice());
    }
    // A version that is complete is preferred to one of which there are some files.
    let found = place(variant, dir, |there, all| there == all).or_else(|| place(variant, dir, |there, _| there > 0));
    let (folder, ending) = found.unwrap_or_else(|| (dir.to_path_buf(), BINARY));
    let mut notes = Vec::new();
    let mut part = |names: &[&str], whole: u64| -> Result<Samples> {
        let mut files = Vec::new();
        for name in names {
            let path = folder.join(format!("{name}{ending}"));
            if !path.exists() {
                crate::bail_input!(
                    "{} has no {name}{ending}, so {source} cannot be read; {}",
                    folder.display(),
                    source.advice()
                );
            }
            files.push((path.display().to_string(), path));
        }
        let read = if ending == BINARY { records } else { pickles };
        let (values, labels, images) = read(&files, variant, &folder)?;
        for ((name, _), images) in files.iter().zip(images).filter(|(_, images)| *images != whole) {
            notes.push(format!("{name} holds {images} images, where {source}'s has {whole}"));
        }
        Ok(Samples { shape: SHAPE, values: values.into(), labels })
    };
    let [train, test] = variant.whole_files();
    let (train, test) = (part(variant.train_files(), train)?, part(&[variant.test_file()], test)?);
    let (mean, std) = match variant {
        Variant::Cifar10 => (CIFAR10_MEAN, CIFAR10_STD),
        Variant::Cifar100 => (CIFAR100_MEAN, CIFAR100_STD),
    };
    Ok(Dataset {
        name: source.name().into(),
        source: folder.display().to_string(),
        class_names: match variant {
            Variant::Cifar10 => CIFAR10_NAMES.map(String::from).into(),
            Variant::Cifar100 => fine_names(&folder, ending, variant.classes())?,
        },
        full_scale: 255.0,
        mean: mean.into(),
        std: std.into(),
        train,
        test,
        notes,
    })
}

/// Values and labels of several files, and the number of images in each.
type Parts = (Vec<u8>, Vec<u16>, Vec<u64>);

fn records(files: &[(String, PathBuf)], variant: Variant, folder: &Path) -> Result<Parts> {
    let mut opened = Vec::new();
    for (name, path) in files {
        let file = open_regular(path)?;
        opened.push((count_records(file.metadata()?.len(), name, variant)?, file));
    }
    let images: Vec<u64> = opened.iter().map(|(images, _)| *images).collect();
    let bytes = images.iter().sum::<u64>() * SHAPE.len() as u64;
    let (mut values, mut labels) = (room(bytes, &folder.display())?, Vec::new());
    for ((images, file), (name, _)) in opened.into_iter().zip(files) {
        append_batch(BufReader::new(file), images, name, variant, &mut values, &mut labels)?;
    }
    Ok((values, labels, images))
}

fn pickles(files: &[(String, PathBuf)], variant: Variant, _: &Path) -> Result<Parts> {
    let (mut values, mut labels, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for (name, path) in files {
        let before = labels.len();
        append_pickle(&read_bytes(path, MAX_BYTES)?, name, variant, &mut values, &mut labels)?;
        images.push((labels.len() - before) as u64);
    }
    Ok((values, labels, images))
}

/// The names in a text, one per line, or in a pickle; numbers if there is no such file.
fn fine_names(folder: &Path, ending: &str, classes: usize) -> Result<Vec<String>> {
    let path = folder.join(if ending == BINARY { FINE_NAMES_FILE } else { FINE_NAMES_PICKLE });
    if !path.exists() {
        return Ok(files::numbered(classes));
    }
    let names: Vec<String> = if ending == BINARY {
        let text = read_text(&path, MOST_SETTINGS)?;
        text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect()
    } else {
        let name = path.display().to_string();
        pickle::parse(&read_bytes(&path, MOST_SETTINGS)?, &name)?.texts("fine_label_names").unwrap_or_default()
    };
    if names.len() != classes {
        crate::bail_input!(
            "{} holds {} names, but there are {classes} classes; delete it or unpack the archive again",
            path.display(),
            names.len()
        );
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;

    #[test]
    fn records_become_channels_last() {
        let mut cases = 0;
        for (variant, labels) in [(Variant::Cifar10, &[7u8][..]), (Variant::Cifar100, &[3, 93])] {
            let record = [labels, &[10; 1024], &[20; 1024], &[30; 1024]].concat();
            let samples = parse_batch(&record.repeat(2), "x", variant).unwrap();
            let label = u16::from(*labels.last().unwrap());
            assert_eq!(*samples.bytes(), [10, 20, 30].repeat(2 * 1024));
            assert_eq!((samples.labels, samples.shape), (vec![label; 2], SHAPE));
            cases += 1;
        }
        assert_eq!(cases, 2);
    }

    #[test]
    fn damaged_records_are_refused() {
        let mut cases = 0;
        for variant in [Variant::Cifar10, Variant::Cifar100] {
            let len = variant.label_bytes() + SHAPE.len();
            let out_of_range = vec![variant.classes() as u8; len];
            let refused = [
                (vec![], "no images"),
                (vec![0; len - 1], "more than 0 records"),
                (vec![0; len + 1], "1 more than 1 records"),
                (out_of_range, "labels must be below"),
            ];
            for (bytes, part) in refused {
                let error = parse_batch(&bytes, "the file", variant).unwrap_err();
                assert!(error.is::<InputError>() && error.to_string().contains(part), "{error}");
                cases += 1;
            }
        }
        assert_eq!(cases, 8);
    }
}
