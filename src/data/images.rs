//! Pictures in folders, JPEG or PNG, as red, green and blue.
//!
//! ```text
//! image-folder    train/<class>/*.jpg, and test or val/<class>/*.jpg         also .jpeg, .png; classes in order of their names
//! tiny-imagenet   train/<wnid>/images/*.JPEG, val/images/*.JPEG, val/val_annotations.txt      test has no labels
//! ```
//! Pictures that differ in size are resized, shorter side first, and cut to a square in the middle, as by torchvision's `Resize`
//! and `CenterCrop` (with Pillow's bilinear filter).

use super::files::{self, some_of};
use super::image_ops::Image;
use super::listing::{Listing, has_extension, is_called, name, note_unused};
use super::{DataSource, Dataset, LoadWatch, Reader, Request, SampleShape, Samples};
use crate::error::Interrupted;
use crate::files::{read_bytes, read_text, room};
use anyhow::Result;
use image::{DynamicImage, ImageDecoder, ImageReader};
use rayon::prelude::*;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

const EXTENSIONS: [&str; 3] = ["jpg", "jpeg", "png"];
/// The largest file of a picture, and its most pixels: in all, and for each byte of the file, so that a small file cannot
/// claim much memory. A blank picture has about 1000 pixels to the byte.
const MAX_FILE: u64 = 1 << 26;
const MAX_PIXELS: u64 = 1 << 26;
const MAX_PIXELS_PER_BYTE: u64 = 1 << 12;
/// The largest side of a sample.
const MAX_SIDE: usize = 4096;
/// The largest list of labels; Tiny-ImageNet's has half a megabyte.
const MAX_LIST: u64 = 1 << 26;
/// Mean and deviation of each channel: ImageNet's, as torchvision's networks use them, and Tiny-ImageNet's.
const IMAGENET: [[f32; 3]; 2] = [[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]];
const TINY_IMAGENET_VALUES: [[f32; 3]; 2] = [[0.4802, 0.4481, 0.3975], [0.2770, 0.2691, 0.2821]];
/// Tiny-ImageNet's files.
const TINY_FOLDER: &str = "tiny-imagenet-200";
const ANNOTATIONS: &str = "val_annotations.txt";

pub(super) static IMAGE_FOLDER: Reader = Reader {
    name: "image-folder",
    extents: None,
    advice: "make a folder with train/CLASS/*.jpg and test/CLASS/*.jpg (or val; also .jpeg and .png), and name it with \
             --data-dir",
    place: None,
    events: false,
    find: |dir| holds_pictures(dir).then(|| dir.to_path_buf()),
    load: |dir, request| load(DataSource::ImageFolder, dir, request),
};

pub(super) static TINY_IMAGENET: Reader = Reader {
    name: "tiny-imagenet",
    extents: Some([64, 64, 3]),
    advice: "unpack tiny-imagenet-200.zip from http://cs231n.stanford.edu/tiny-imagenet-200.zip and name its folder with \
             --data-dir",
    place: None,
    events: false,
    find: tiny_folder,
    load: |dir, request| load(DataSource::TinyImagenet, dir, request),
};

/// Pictures with their labels.
type Labelled = Vec<(PathBuf, u16)>;

/// The pictures of a data set.
struct Pictures {
    folder: PathBuf,
    class_names: Vec<String>,
    train: Labelled,
    test: Labelled,
    /// Files that are not read.
    unused: Vec<PathBuf>,
    notes: Vec<String>,
}

fn load(source: DataSource, dir: &Path, request: &Request) -> Result<Dataset> {
    if dir.is_file() {
        crate::bail_input!("{} is a file where a folder is expected; {}", dir.display(), source.advice());
    }
    let tiny = source == DataSource::TinyImagenet;
    let Pictures { folder, class_names, train, test, unused, mut notes } =
        if tiny { tiny_imagenet(dir)? } else { image_folder(dir)? };
    let decoding = Decoding::new(&train, request.image_size)?;
    let (done, total) = (AtomicUsize::new(0), train.len() + test.len());
    let read = |pictures| decoding.samples(pictures, &folder, request.watch, &done, total);
    let (train, test) = (read(train)?, read(test)?);
    notes.extend(note_unused(&folder, &unused));
    let [mean, std] = if tiny { TINY_IMAGENET_VALUES } else { IMAGENET };
    Ok(Dataset {
        name: source.name().into(),
        source: folder.display().to_string(),
        class_names,
        full_scale: 255.0,
        mean: mean.into(),
        std: std.into(),
        train,
        test,
        notes,
    })
}

/// The folders of training and test pictures; `None` if one is missing. A folder `test` comes before `val`.
fn parts(dir: &Path) -> Result<Option<[PathBuf; 2]>> {
    let listing = Listing::of(dir)?;
    let Some(train) = listing.folder("train")? else { return Ok(None) };
    let test = match listing.folder("test")? {
        Some(test) => Some(test),
        None => listing.folder("val")?,
    };
    Ok(test.map(|test| [train, test].map(Path::to_path_buf)))
}

/// Whether there are both parts, and pictures to train on: other data sets have such folders too.
fn holds_pictures(dir: &Path) -> bool {
    let Ok(Some([train, _])) = parts(dir) else { return false };
    let Ok(train) = Listing::of(&train) else { return false };
    train.folders.iter().any(|class| pictures_in(class, &mut Vec::new()).is_ok_and(|pictures| !pictures.is_empty()))
}

fn image_folder(dir: &Path) -> Result<Pictures> {
    let source = DataSource::ImageFolder;
    let Some(parts) = parts(dir)? else {
        crate::bail_input!("{} has no folder train, or none of test and val; {}", dir.display(), source.advice());
    };
    let [train, test] = parts.map(|part| Listing::of(&part));
    let [train, test] = [train?, test?];
    let (class_names, training) = (class_names(&train, source)?, train.folder.clone());
    let top = Listing::of(dir)?;
    let beside = top.folders.iter().filter(|folder| ![&train.folder, &test.folder].contains(folder));
    let mut unused: Vec<PathBuf> = beside.chain(&top.files).cloned().collect();
    let mut pictures = |part: Listing| -> Result<Labelled> {
        let mut labelled = Vec::new();
        for folder in &part.folders {
            let Ok(class) = class_names.binary_search(&name(folder)) else {
                crate::bail_input!(
                    "{} is no class of {}, which has {}; give both the same classes",
                    folder.display(),
                    training.display(),
                    some_of(&class_names)
                );
            };
            labelled.extend(pictures_in(folder, &mut unused)?.into_iter().map(|picture| (picture, class as u16)));
        }
        unused.extend(part.files);
        Ok(labelled)
    };
    let is_val = is_called(&test.folder, "val");
    let (train, test) = (pictures(train)?, pictures(test)?);
    let note = format!("{}: there is no folder test, so the pictures of val are the test samples", dir.display());
    let notes = if is_val { vec![note] } else { Vec::new() };
    Ok(Pictures { folder: dir.to_path_buf(), class_names, train, test, unused, notes })
}

fn tiny_folder(dir: &Path) -> Option<PathBuf> {
    files::folder(dir, &[TINY_FOLDER], |folder| {
        folder.join("train").is_dir() && folder.join("val").join(ANNOTATIONS).is_file()
    })
}

fn tiny_imagenet(dir: &Path) -> Result<Pictures> {
    let source = DataSource::TinyImagenet;
    let Some(folder) = tiny_folder(dir) else {
        crate::bail_input!("{} has no train or no val/{ANNOTATIONS}; {}", dir.display(), source.advice());
    };
    let listing = Listing::of(&folder.join("train"))?;
    let class_names = class_names(&listing, source)?;
    let (mut train, mut unused) = (Vec::new(), listing.files);
    for (class, own) in listing.folders.iter().enumerate() {
        // Beside the pictures there are boxes around what they show, which nothing here needs.
        let pictures = pictures_in(&own.join("images"), &mut unused)?;
        train.extend(pictures.into_iter().map(|picture| (picture, class as u16)));
    }
    let (list, images) = (folder.join("val").join(ANNOTATIONS), folder.join("val").join("images"));
    let mut test = Vec::new();
    for (line, text) in read_text(&list, MAX_LIST)?.lines().enumerate().filter(|(_, text)| !text.trim().is_empty()) {
        let mut words = text.split('\t');
        let (picture, wnid) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let class = class_names.binary_search_by(|class| class[..].cmp(wnid));
        // A name with folders could lead anywhere.
        let (Ok(class), true) = (class, Path::new(picture).file_name().is_some_and(|name| name == picture)) else {
            crate::bail_input!(
                "{} has in line {} not the name of a picture, a tab and a class, one of {}; unpack the archive again",
                list.display(),
                line + 1,
                some_of(&class_names)
            );
        };
        test.push((images.join(picture), class as u16));
    }
    Ok(Pictures { folder, class_names, train, test, unused, notes: Vec::new() })
}

/// The names of the folders of a part, which is sorted.
fn class_names(part: &Listing, source: DataSource) -> Result<Vec<String>> {
    if part.folders.is_empty() || part.folders.len() > 1 << 16 {
        crate::bail_input!(
            "{} has {} folders, but needs one for each class, 1 to {}; {}",
            part.folder.display(),
            part.folders.len(),
            1 << 16,
            source.advice()
        );
    }
    Ok(part.folders.iter().map(|folder| name(folder)).collect())
}

/// The pictures of a folder, by name; everything else is added to `unused`.
fn pictures_in(folder: &Path, unused: &mut Vec<PathBuf>) -> Result<Vec<PathBuf>> {
    let listing = Listing::of(folder)?;
    let is_picture = |path: &PathBuf| EXTENSIONS.iter().any(|extension| has_extension(path, extension));
    let (pictures, others): (Vec<_>, Vec<_>) = listing.files.into_iter().partition(is_picture);
    unused.extend(others.into_iter().chain(listing.folders));
    Ok(pictures)
}

/// How pictures become samples.
struct Decoding {
    height: usize,
    width: usize,
    /// Whether they are resized and cut; otherwise all must have this size.
    resize: bool,
    /// The picture that gives the size.
    first: PathBuf,
}

impl Decoding {
    fn new(train: &Labelled, side: Option<u32>) -> Result<Self> {
        let Some((first, _)) = train.first() else {
            // The caller's check names the part that is empty.
            return Ok(Self { height: 1, width: 1, resize: false, first: PathBuf::new() });
        };
        let (height, width) = match side {
            Some(side) => (side as usize, side as usize),
            None => {
                let image = decode(first)?;
                (image.height, image.width)
            }
        };
        if height.min(width) == 0 || height.max(width) > MAX_SIDE {
            crate::bail_input!(
                "samples of {height}x{width} pixels cannot be used; set --image-size to a side from 1 to {MAX_SIDE}"
            );
        }
        Ok(Self { height, width, resize: side.is_some(), first: first.clone() })
    }

    fn shape(&self) -> SampleShape {
        SampleShape { frames: 1, height: self.height, width: self.width, channels: 3 }
    }

    fn samples(
        &self,
        pictures: Labelled,
        folder: &Path,
        watch: &dyn LoadWatch,
        done: &AtomicUsize,
        total: usize,
    ) -> Result<Samples> {
        /// Pictures that wait for their place, at most.
        const AT_ONCE: usize = 256;
        let shape = self.shape();
        let mut values = room(pictures.len() as u64 * shape.len() as u64, &folder.display())?;
        for some in pictures.chunks(AT_ONCE) {
            let read = |(path, _): &(PathBuf, u16)| {
                if watch.stopped() {
                    return Err(Interrupted.into());
                }
                let bytes = self.sample(path);
                watch.integrated(done.fetch_add(1, Ordering::Relaxed) + 1, total);
                bytes
            };
            let read: Vec<Vec<u8>> = some.par_iter().map(read).collect::<Result<_>>()?;
            read.iter().for_each(|bytes| values.extend_from_slice(bytes));
        }
        let labels = pictures.into_iter().map(|(_, label)| label).collect();
        Ok(Samples { shape, values: values.into(), labels })
    }

    fn sample(&self, path: &Path) -> Result<Vec<u8>> {
        let image = decode(path)?;
        if !self.resize {
            if (image.height, image.width) != (self.height, self.width) {
                crate::bail_input!(
                    "{} has {}x{} pixels, but {} has {}x{}; give all the same size with --image-size",
                    path.display(),
                    image.height,
                    image.width,
                    self.first.display(),
                    self.height,
                    self.width
                );
            }
            return Ok(image.bytes);
        }
        let (side, shorter) = (self.height, image.height.min(image.width));
        let [height, width] = [image.height, image.width].map(|extent| side * extent / shorter);
        let image = image.resize(height, width);
        let [top, left] = [height, width].map(|extent| ((extent - side) as f64 / 2.0).round_ties_even() as usize);
        Ok(image.crop(top, left, side, side).bytes)
    }
}

/// A picture in red, green and blue; an alpha channel is left out, and so is the orientation that a camera notes.
fn decode(path: &Path) -> Result<Image> {
    parse(&read_bytes(path, MAX_FILE)?, &path.display().to_string())
}

/// Reads the bytes of a JPEG or PNG file; `name` is the file's name in errors.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if it is damaged, or claims too many pixels for its size.
pub fn parse(bytes: &[u8], name: &str) -> Result<Image> {
    let refused = |error: &dyn std::fmt::Display| {
        let line = error.to_string().replace('\n', " ");
        crate::input_error!("{name} is not a whole picture in JPEG or PNG ({}); replace it", line.trim())
    };
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| refused(&error))?;
    let decoder = reader.into_decoder().map_err(|error| refused(&error))?;
    let (width, height) = decoder.dimensions();
    let (pixels, most) = (u64::from(width) * u64::from(height), bytes.len() as u64 * MAX_PIXELS_PER_BYTE);
    if pixels == 0 || pixels > most.min(MAX_PIXELS) {
        crate::bail_input!(
            "{name} claims {width}x{height} pixels in {} bytes, but 1 to {} are read; replace it",
            bytes.len(),
            most.min(MAX_PIXELS)
        );
    }
    if !ends(bytes) {
        return Err(refused(&"it ends too early"));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(|error| refused(&error))?.into_rgb8();
    Ok(Image { height: height as usize, width: width as usize, channels: 3, bytes: image.into_raw() })
}

/// The first bytes of a JPEG file.
const JPEG: [u8; 2] = [0xff, 0xd8];

/// The last chunk of a PNG file.
const PNG_END: &[u8; 8] = b"IEND\xaeB`\x82";

/// Whether the file goes on to its end: a JPEG's last scan to its mark, as the decoder fills what is missing with grey.
fn ends(bytes: &[u8]) -> bool {
    if !bytes.starts_with(&JPEG) {
        return bytes.windows(PNG_END.len()).rev().any(|chunk| chunk == PNG_END);
    }
    let last = |mark: u8| bytes.windows(2).rposition(|pair| pair == [0xff, mark]);
    last(0xd9).is_some_and(|end| last(0xda).is_some_and(|scan| scan < end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};

    fn png(bytes: &[u8], width: u32, color: ExtendedColorType) -> Vec<u8> {
        let mut out = Vec::new();
        let each = usize::from(color.bits_per_pixel()) / 8;
        let height = (bytes.len() / each) as u32 / width;
        PngEncoder::new(&mut out).write_image(bytes, width, height, color).unwrap();
        out
    }

    fn parse_any(bytes: &[u8]) -> Result<Image> {
        parse(bytes, "the file")
    }

    #[test]
    fn every_kind_of_picture_becomes_red_green_and_blue() {
        let grey = parse_any(&png(&[1, 2, 3, 4, 5, 6], 3, ExtendedColorType::L8)).unwrap();
        assert_eq!((grey.height, grey.width, grey.channels), (2, 3, 3));
        assert_eq!(grey.bytes[..6], [1, 1, 1, 2, 2, 2]);
        let alpha = parse_any(&png(&[1, 2, 3, 0, 4, 5, 6, 255], 2, ExtendedColorType::Rgba8)).unwrap();
        assert_eq!(alpha.bytes, [1, 2, 3, 4, 5, 6]);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, 100)
            .encode(&[200; 3 * 16 * 9], 16, 9, ExtendedColorType::Rgb8)
            .unwrap();
        let flat = parse_any(&jpeg).unwrap();
        assert!(flat.height == 9 && flat.bytes.iter().all(|byte| byte.abs_diff(200) <= 1), "{flat:?}");
        for end in [0, 1, 20, jpeg.len() / 2, jpeg.len() - 1] {
            let error = parse_any(&jpeg[..end]).unwrap_err();
            assert!(error.is::<crate::error::InputError>(), "{error}");
        }
    }

    #[test]
    fn a_small_file_cannot_claim_much_memory() {
        let mut small = png(&[7; 3], 1, ExtendedColorType::Rgb8);
        let header = small.windows(4).position(|four| four == b"IHDR").unwrap();
        small[header + 4..][..8].copy_from_slice(&[0, 0, 200, 0, 0, 0, 200, 0]);
        let crc = flate2_crc(&small[header..][..17]);
        small[header + 17..][..4].copy_from_slice(&crc.to_be_bytes());
        let error = parse_any(&small).unwrap_err();
        assert!(error.to_string().contains("51200x51200"), "{error}");
    }

    fn flate2_crc(bytes: &[u8]) -> u32 {
        let mut crc = flate2::Crc::new();
        crc.update(bytes);
        crc.sum()
    }
}
