//! CIFAR-10 and CIFAR-100 in their binary version: fixed-size records, no header.
//!
//! ```text
//! CIFAR-10:  u8 label, u8 [3][32][32]
//! CIFAR-100: u8 coarse label, u8 fine label, u8 [3][32][32]       the fine label is used
//! ```
//! Format and data: A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

use super::{DataSource, Dataset, Reader, SampleShape, Samples, files};
use crate::files::{MOST_SETTINGS, open_regular, read_text, room};
use anyhow::Result;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The shape of every CIFAR image.
pub const SHAPE: SampleShape = SampleShape { frames: 1, height: 32, width: 32, channels: 3 };

/// Mean and deviation of each channel over the training images, as commonly used.
const CIFAR10_MEAN: [f32; 3] = [0.4914, 0.4822, 0.4465];
const CIFAR10_DEVIATION: [f32; 3] = [0.2470, 0.2435, 0.2616];
const CIFAR100_MEAN: [f32; 3] = [0.5071, 0.4865, 0.4409];
const CIFAR100_DEVIATION: [f32; 3] = [0.2673, 0.2564, 0.2762];
const CIFAR10_NAMES: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
/// The largest file that is accepted; a complete CIFAR-100 file has 154 MB.
pub const MAX_BYTES: u64 = 1 << 30;
const FINE_NAMES_FILE: &str = "fine_label_names.txt";

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

    fn train_files(self) -> &'static [&'static str] {
        match self {
            Self::Cifar10 => {
                &["data_batch_1.bin", "data_batch_2.bin", "data_batch_3.bin", "data_batch_4.bin", "data_batch_5.bin"]
            }
            Self::Cifar100 => &["train.bin"],
        }
    }

    fn test_file(self) -> &'static str {
        match self {
            Self::Cifar10 => "test_batch.bin",
            Self::Cifar100 => "test.bin",
        }
    }

    /// Images in a complete training and test file; the files have no header that says so.
    fn whole_files(self) -> [u64; 2] {
        match self {
            Self::Cifar10 => [10_000; 2],
            Self::Cifar100 => [50_000, 10_000],
        }
    }

    fn sub_folder(self) -> &'static str {
        match self {
            Self::Cifar10 => "cifar-10-batches-bin",
            Self::Cifar100 => "cifar-100-binary",
        }
    }
}

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
        let label = own[own.len() - 1];
        if usize::from(label) >= variant.classes() {
            crate::bail_input!(
                "{name} gives image {index} the label {label}, but labels must be below {}; unpack the archive again",
                variant.classes()
            );
        }
        labels.push(label.into());
        files::append_channels_last(planes, SHAPE.channels, SHAPE.height * SHAPE.width, values);
    }
    Ok(())
}

fn variant(source: DataSource) -> Variant {
    if source == DataSource::Cifar100 { Variant::Cifar100 } else { Variant::Cifar10 }
}

pub(super) static CIFAR10: Reader = Reader {
    name: "cifar10",
    extents: Some([32, 32, 3]),
    advice: "unpack the binary version, cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, \
                 and name its folder with --data-dir",
    place: None,
    events: false,
    find: |dir| find(DataSource::Cifar10, dir),
    load: |dir, _| load(DataSource::Cifar10, dir),
};

pub(super) static CIFAR100: Reader = Reader {
    name: "cifar100",
    extents: Some([32, 32, 3]),
    advice: "unpack the binary version, cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, \
                 and name its folder with --data-dir",
    place: None,
    events: false,
    find: |dir| find(DataSource::Cifar100, dir),
    load: |dir, _| load(DataSource::Cifar100, dir),
};

/// The folder that [`load`] would read, if it holds all files.
fn find(source: DataSource, dir: &Path) -> Option<PathBuf> {
    let variant = variant(source);
    files::folder(dir, &[variant.sub_folder()], |folder| {
        folder.join(variant.test_file()).exists() && variant.train_files().iter().all(|file| folder.join(file).exists())
    })
}

/// Reads the files from `dir`, or from its sub-folder named as in the archive.
fn load(source: DataSource, dir: &Path) -> Result<Dataset> {
    let variant = variant(source);
    if dir.is_file() {
        crate::bail_input!("{} is a file where a folder is expected; {}", dir.display(), source.advice());
    }
    let holds_a_file = |folder: &Path| {
        variant.train_files().iter().chain([&variant.test_file()]).any(|file| folder.join(file).exists())
    };
    let folder = files::folder(dir, &[variant.sub_folder()], holds_a_file).unwrap_or_else(|| dir.to_path_buf());
    let mut notes = Vec::new();
    let mut part = |names: &[&str], whole: u64| -> Result<Samples> {
        let mut files = Vec::new();
        for name in names {
            let path = folder.join(name);
            if !path.exists() {
                crate::bail_input!(
                    "{} has no {name}, so {source} cannot be read; {}",
                    folder.display(),
                    source.advice()
                );
            }
            let (file, name) = (open_regular(&path)?, path.display().to_string());
            let images = count_records(file.metadata()?.len(), &name, variant)?;
            if images != whole {
                notes.push(format!("{name} holds {images} images, where {source}'s has {whole}"));
            }
            files.push((file, images, name));
        }
        let images: u64 = files.iter().map(|(_, images, _)| images).sum();
        let (mut values, mut labels) = (room(images * SHAPE.len() as u64, &folder.display())?, Vec::new());
        for (file, images, name) in files {
            append_batch(BufReader::new(file), images, &name, variant, &mut values, &mut labels)?;
        }
        Ok(Samples { shape: SHAPE, values: values.into(), labels })
    };
    let [train, test] = variant.whole_files();
    let (train, test) = (part(variant.train_files(), train)?, part(&[variant.test_file()], test)?);
    let (mean, deviation) = match variant {
        Variant::Cifar10 => (CIFAR10_MEAN, CIFAR10_DEVIATION),
        Variant::Cifar100 => (CIFAR100_MEAN, CIFAR100_DEVIATION),
    };
    Ok(Dataset {
        name: source.name().into(),
        source: folder.display().to_string(),
        class_names: match variant {
            Variant::Cifar10 => CIFAR10_NAMES.map(String::from).into(),
            Variant::Cifar100 => fine_names(&folder.join(FINE_NAMES_FILE), variant.classes())?,
        },
        full_scale: 255.0,
        mean: mean.into(),
        deviation: deviation.into(),
        train,
        test,
        notes,
    })
}

/// One name per line, or numbers if there is no such file.
fn fine_names(path: &Path, classes: usize) -> Result<Vec<String>> {
    if !path.exists() {
        return Ok(files::numbered(classes));
    }
    let text = read_text(path, MOST_SETTINGS)?;
    let names: Vec<String> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from).collect();
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
