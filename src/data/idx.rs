//! The MNIST family: images and labels in IDX files, plain or gzip-compressed.
//!
//! ```text
//! images: u32 0x00000803, u32 N, u32 height, u32 width, u8 [N][height][width]       all big-endian
//! labels: u32 0x00000801, u32 N, u8 [N]
//! ```
//! Format: Y. LeCun, C. Cortes and C. Burges, "The MNIST database".

use super::{DataSource, Dataset, Reader, SampleShape, Samples, files};
use crate::files::{open_regular, room};
use anyhow::Result;
use flate2::read::MultiGzDecoder;
use std::fs::File;
use std::io::{BufRead, BufReader, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// Where Debian's package dataset-fashion-mnist puts its files.
pub const SYSTEM_FASHION_MNIST: &str = "/usr/share/datasets/fashion-mnist";
/// Largest height and width of an image.
pub const MAX_SIDE: u32 = 4096;
/// Most values in a file.
pub const MAX_VALUES: u64 = 1 << 33;
/// Digits or clothes.
pub const CLASSES: usize = 10;

const IMAGES_MAGIC: u32 = 0x0803;
const LABELS_MAGIC: u32 = 0x0801;
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];
const FASHION: [&str; CLASSES] =
    ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"];

/// Greyscale images `[N][height][width]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Images {
    /// Rows, 1 … [`MAX_SIDE`].
    pub height: usize,
    /// Columns, 1 … [`MAX_SIDE`].
    pub width: usize,
    /// `[N][height][width]`, with at least one image.
    pub pixels: Vec<u8>,
}

impl Images {
    /// The number of images `N`.
    pub fn count(&self) -> usize {
        self.pixels.len() / (self.height * self.width)
    }
}

/// Parses the bytes of an image file, plain or gzip; `name` is the file's name in errors.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if the bytes are not exactly what their header announces.
pub fn parse_images(bytes: &[u8], name: &str) -> Result<Images> {
    images(Source::new(bytes, bytes.len() as u64, name)?)
}

fn images(mut source: Source) -> Result<Images> {
    let name = source.name;
    let [count, height, width] = source.header(IMAGES_MAGIC)?;
    if count == 0 {
        crate::bail_input!("{name} holds no images; use a file with at least one");
    }
    if height == 0 || width == 0 || height > MAX_SIDE || width > MAX_SIDE {
        crate::bail_input!(
            "{name} announces images of {height}x{width}, but each side must be 1 to {MAX_SIDE}; check the file"
        );
    }
    let values = u64::from(count) * u64::from(height) * u64::from(width);
    if values > MAX_VALUES {
        crate::bail_input!(
            "{name} announces {count} images of {height}x{width}, {values} values, but at most {MAX_VALUES} are read; \
             check the file"
        );
    }
    Ok(Images { height: height as usize, width: width as usize, pixels: source.body(values)? })
}

/// Parses the bytes of a label file, plain or gzip; `name` is the file's name in errors.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if the bytes are not exactly what their header announces, or a
/// label is not below `classes`.
pub fn parse_labels(bytes: &[u8], name: &str, classes: usize) -> Result<Vec<u16>> {
    labels(Source::new(bytes, bytes.len() as u64, name)?, classes)
}

fn labels(mut source: Source, classes: usize) -> Result<Vec<u16>> {
    let name = source.name;
    let [count] = source.header(LABELS_MAGIC)?;
    if count == 0 {
        crate::bail_input!("{name} holds no labels; use a file with at least one");
    }
    let labels = source.body(count.into())?;
    if let Some(index) = labels.iter().position(|&label| usize::from(label) >= classes) {
        crate::bail_input!(
            "{name} gives sample {index} the label {}, but labels must be below {classes}; use a data set of \
             {classes} classes",
            labels[index]
        );
    }
    Ok(labels.into_iter().map(u16::from).collect())
}

/// The content of one IDX file, decompressed as it is read.
struct Source<'a> {
    name: &'a str,
    content: Box<dyn Read + 'a>,
    /// Bytes of content not read yet, if the file's length tells (with gzip it does not).
    left: Option<u64>,
}

impl<'a> Source<'a> {
    /// A file of `length` bytes.
    fn new(mut file: impl BufRead + 'a, length: u64, name: &'a str) -> Result<Self> {
        let first = file.fill_buf().map_err(|error| crate::input_error!("{name} cannot be read: {error}"))?;
        Ok(if first.starts_with(&GZIP_MAGIC) {
            Self { name, content: Box::new(MultiGzDecoder::new(file)), left: None }
        } else {
            Self { name, content: Box::new(file), left: Some(length) }
        })
    }

    /// The `D` extents after the magic number, which must be `magic`.
    fn header<const D: usize>(&mut self, magic: u32) -> Result<[u32; D]> {
        let name = self.name;
        let bytes = self.read(4 + 4 * D as u64)?;
        let word = |index: usize| bytes.get(4 * index..4 * index + 4)?.try_into().ok().map(u32::from_be_bytes);
        match word(0) {
            Some(found) if found == magic => {}
            Some(LABELS_MAGIC) => crate::bail_input!(
                "{name} holds labels where images are expected; the image and label files may be swapped, rename them"
            ),
            Some(IMAGES_MAGIC) => crate::bail_input!(
                "{name} holds images where labels are expected; the image and label files may be swapped, rename them"
            ),
            Some(found) => crate::bail_input!(
                "{name} starts with 0x{found:08x}, but an IDX file of this kind starts with 0x{magic:08x} (or gzip's \
                 0x1f8b); fetch the file again"
            ),
            None => {}
        }
        let mut extents = [0; D];
        for (index, extent) in extents.iter_mut().enumerate() {
            let Some(value) = word(index + 1) else {
                crate::bail_input!(
                    "{name} is truncated: its content ends after {} bytes, inside the header of {} bytes; fetch the \
                     file again",
                    bytes.len(),
                    4 + 4 * D
                );
            };
            *extent = value;
        }
        Ok(extents)
    }

    /// The rest of the content, which must be `expected` bytes; checked before reading if the file's length tells.
    /// Never holds more than one byte beyond them, and never more than exist, whatever the header announces.
    fn body(&mut self, expected: u64) -> Result<Vec<u8>> {
        if let Some(left) = self.left {
            self.check(left, expected)?;
        }
        let bytes = self.read(expected + 1)?;
        self.check(bytes.len() as u64, expected)?;
        Ok(bytes)
    }

    fn check(&self, found: u64, expected: u64) -> Result<()> {
        let name = self.name;
        if found < expected {
            crate::bail_input!(
                "{name} is truncated: its header announces {expected} bytes of data, but {found} follow; fetch the \
                 file again"
            );
        }
        if found > expected {
            crate::bail_input!(
                "{name} goes on after the {expected} bytes of data that its header announces; fetch the file again"
            );
        }
        Ok(())
    }

    /// Up to `limit` bytes.
    fn read(&mut self, limit: u64) -> Result<Vec<u8>> {
        let name = self.name;
        let mut bytes = room(self.left.map_or(0, |left| left.min(limit)), &name)?;
        self.content.as_mut().take(limit).read_to_end(&mut bytes).map_err(|error| match error.kind() {
            ErrorKind::UnexpectedEof => {
                crate::input_error!(
                    "{name} is truncated: its gzip data ends after {} bytes of content; fetch the file again",
                    bytes.len()
                )
            }
            ErrorKind::OutOfMemory => {
                crate::input_error!("{name} does not fit into memory, {}; use a smaller file", crate::host::left())
            }
            _ if self.left.is_some() => crate::input_error!("{name} cannot be read: {error}"),
            _ => crate::input_error!("{name} is not valid gzip ({error}); fetch the file again"),
        })?;
        self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
        Ok(bytes)
    }
}

fn open<'a>(path: &Path, name: &'a str) -> Result<Source<'a>> {
    let file: File = open_regular(path)?;
    let length = file.metadata()?.len();
    Source::new(BufReader::new(file), length, name)
}

pub(super) static MNIST: Reader = Reader {
    name: "mnist",
    extents: Some([28, 28, 1]),
    advice: "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte (plain or .gz) into one folder and name it with --data-dir",
    place: None,
    events: false,
    find: |dir| find(DataSource::Mnist, dir),
    load: |dir, _| load(DataSource::Mnist, dir),
};

pub(super) static FASHION_MNIST: Reader = Reader {
    name: "fashion-mnist",
    extents: Some([28, 28, 1]),
    advice: "run `apt-get install dataset-fashion-mnist`, or name the folder of its four IDX files with --data-dir",
    place: Some(SYSTEM_FASHION_MNIST),
    events: false,
    find: |dir| find(DataSource::FashionMnist, dir),
    load: |dir, _| load(DataSource::FashionMnist, dir),
};

/// The folder that [`load`] would read, if it holds all four files.
fn find(source: DataSource, dir: &Path) -> Option<PathBuf> {
    files::folder(dir, sub_folders(source), |folder| {
        ["train", "t10k"].iter().all(|part| KINDS.iter().all(|kind| present(folder, part, kind).is_some()))
    })
}

/// Reads the four files from `dir` or from the sub-folder that torchvision creates.
fn load(source: DataSource, dir: &Path) -> Result<Dataset> {
    if dir.is_file() {
        crate::bail_input!("{} is a file where a folder is expected; {}", dir.display(), source.advice());
    }
    let folder = files::folder(dir, sub_folders(source), |folder| present(folder, "train", KINDS[0]).is_some());
    let folder = folder.unwrap_or_else(|| dir.to_path_buf());
    let (train, train_file) = load_part(source, &folder, "train")?;
    let (test, test_file) = load_part(source, &folder, "t10k")?;
    if train.shape != test.shape {
        crate::bail_input!(
            "{} holds images of {}x{}, but {} of {}x{}; use two parts of one data set",
            test_file.display(),
            test.shape.height,
            test.shape.width,
            train_file.display(),
            train.shape.height,
            train.shape.width
        );
    }
    Ok(Dataset {
        name: source.name().into(),
        source: folder.display().to_string(),
        class_names: match source {
            DataSource::FashionMnist => FASHION.map(String::from).into(),
            _ => files::numbered(CLASSES),
        },
        full_scale: 255.0,
        mean: vec![0.0],
        std: vec![1.0],
        train,
        test,
        notes: Vec::new(),
    })
}

/// The samples of one part, and the path of its image file.
fn load_part(source: DataSource, folder: &Path, part: &str) -> Result<(Samples, PathBuf)> {
    let [image_file, label_file] = KINDS.map(|kind| {
        present(folder, part, kind).ok_or_else(|| {
            crate::input_error!(
                "{} has no {part}-{kind}-ubyte, plain or .gz, so {source} cannot be read; {}",
                folder.display(),
                source.advice()
            )
        })
    });
    let (image_file, label_file) = (image_file?, label_file?);
    let [image_name, label_name] = [&image_file, &label_file].map(|file| file.display().to_string());
    let images = images(open(&image_file, &image_name)?)?;
    let labels = labels(open(&label_file, &label_name)?, CLASSES)?;
    if images.count() != labels.len() {
        crate::bail_input!(
            "{} holds {} images, but {} holds {} labels; use two files that belong together",
            image_file.display(),
            images.count(),
            label_file.display(),
            labels.len()
        );
    }
    let shape = SampleShape { frames: 1, height: images.height, width: images.width, channels: 1 };
    Ok((Samples { shape, values: images.pixels.into(), labels }, image_file))
}

/// The two kinds of file, as they appear in the middle of file names.
const KINDS: [&str; 2] = ["images-idx3", "labels-idx1"];

/// The file of a part and kind, under any of its usual names.
fn present(folder: &Path, part: &str, kind: &str) -> Option<PathBuf> {
    let dotted = kind.replace('-', ".");
    [kind, &dotted]
        .iter()
        .flat_map(|kind| ["", ".gz"].map(|end| folder.join(format!("{part}-{kind}-ubyte{end}"))))
        .find(|path| path.exists())
}

/// Where torchvision keeps the files below its root.
fn sub_folders(source: DataSource) -> &'static [&'static str] {
    match source {
        DataSource::FashionMnist => &["FashionMNIST/raw"],
        _ => &["MNIST/raw"],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;

    fn images(count: u32, height: u32, width: u32, body: usize) -> Vec<u8> {
        let words = [IMAGES_MAGIC, count, height, width].map(u32::to_be_bytes);
        words.concat().into_iter().chain((0..body).map(|i| i as u8)).collect()
    }

    #[test]
    fn a_plain_image_file_is_read() {
        let read = parse_images(&images(2, 2, 3, 12), "x").unwrap();
        assert_eq!(read, Images { height: 2, width: 3, pixels: (0..12).collect() });
        assert_eq!(read.count(), 2);
        let labels = [&LABELS_MAGIC.to_be_bytes()[..], &3u32.to_be_bytes(), &[7, 0, 9]].concat();
        assert_eq!(parse_labels(&labels, "x", 10).unwrap(), [7, 0, 9]);
    }

    #[test]
    fn a_lying_header_is_refused() {
        let refused = [
            (images(0, 2, 3, 0), "no images"),
            (images(1, 0, 3, 0), "0x3"),
            (images(1, 4097, 1, 4097), "1 to 4096"),
            (images(u32::MAX, 28, 28, 784), "at most"),
            (images(10_000_000, 28, 28, 784), "but 784 follow"),
            (images(1, 2, 3, 5), "but 5 follow"),
            (images(1, 2, 3, 7), "goes on after the 6 bytes"),
            (images(1, 2, 3, 0)[..15].to_vec(), "inside the header of 16"),
            (vec![], "inside the header of 16"),
            (vec![0, 0, 13, 3, 0, 0, 0, 1], "0x00000d03"),
            (LABELS_MAGIC.to_be_bytes().to_vec(), "swapped"),
        ];
        let mut cases = 0;
        for (bytes, part) in refused {
            let error = parse_images(&bytes, "the file").unwrap_err();
            assert!(error.is::<InputError>(), "{error}");
            assert!(error.to_string().contains(part) && error.to_string().contains("the file"), "{error}");
            cases += 1;
        }
        assert_eq!(cases, 11);
    }
}
