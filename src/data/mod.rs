//! Data sets: images and event frames as bytes, in memory, ready for a backend.
//!
//! One file per format: [`digits`] (built in), [`idx`] (the MNIST family), [`cifar`], [`images`] (JPEG
//! and PNG), [`frames`] (event frames), [`events`]
//! (recordings).
//! Each has a parser that takes bytes, never panics, never allocates what a header merely claims, and reports
//! bad input as an [`InputError`](crate::error::InputError). [`split`] holds samples out, [`sampling`] orders
//! and shifts them, [`augment`] prepares those that need more than a shift, with [`auto_augment`] and [`image_ops`].

pub mod augment;
pub mod auto_augment;
pub mod cifar;
mod classes;
pub mod digits;
pub mod events;
mod files;
pub mod frames;
pub mod idx;
pub mod image_ops;
pub mod images;
mod listing;
pub mod mixup;
mod pickle;
pub mod sampling;
pub mod split;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

pub use events::integrate::Integration;
pub use sampling::{Augmentation, Placement};
pub use values::Values;

/// The extents of one sample: `[frames][height][width][channels]`; images have one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SampleShape {
    /// Time steps.
    pub frames: usize,
    /// Rows of a frame.
    pub height: usize,
    /// Columns of a frame.
    pub width: usize,
    /// Colours, or event polarities.
    pub channels: usize,
}

impl SampleShape {
    /// Values in one sample.
    pub fn len(&self) -> usize {
        self.frames * self.height * self.width * self.channels
    }

    /// Whether a sample has no values; never true for a data set from [`load`].
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl fmt::Display for SampleShape {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}x{}x{}x{}", self.frames, self.height, self.width, self.channels)
    }
}

/// One part (training or test) of a data set.
#[derive(Clone, Debug)]
pub struct Samples {
    /// The extents of each sample.
    pub shape: SampleShape,
    /// `[N][frames][height][width][channels]`, channels last whatever the file's order was.
    pub values: Values,
    /// `[N]`, each below the number of classes.
    pub labels: Vec<u16>,
}

impl Samples {
    /// The number of samples `N`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The values of one sample, `[frames][height][width][channels]`. Panics if `index` is not below `N`.
    pub fn sample(&self, index: usize) -> Cow<'_, [u8]> {
        self.values.sample(index, self.shape.len())
    }

    /// The values of all samples.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        self.values.bytes(self.shape.len())
    }
}

/// A data set that has been read and checked.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The source's name, as on the command line.
    pub name: String,
    /// Where it was read from, for messages: a path, or "built in".
    pub source: String,
    /// One name per class; the class's number if the format has no names.
    pub class_names: Vec<String>,
    /// A byte `b` of channel `c` becomes `(b / full_scale - mean[c]) / std[c]`.
    pub full_scale: f32,
    /// `[channels]`, subtracted after dividing by `full_scale`.
    pub mean: Vec<f32>,
    /// `[channels]`, the last divisor.
    pub std: Vec<f32>,
    /// The training samples; [`split::hold_out`] takes the validation samples from them.
    pub train: Samples,
    /// The test samples, never trained on.
    pub test: Samples,
    /// What the user should know that is not an error, one line each: what is missing, left out or odd.
    pub notes: Vec<String>,
}

impl Dataset {
    /// The number of classes; labels are below it.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }
}

/// Receives progress and notes while a data set loads.
pub trait LoadWatch: Sync {
    /// This many of all recordings have been integrated.
    fn integrated(&self, done: usize, total: usize);
    /// Something worth knowing that is not an error.
    fn note(&self, text: &str);
    /// Whether to stop, with the error [`Interrupted`](crate::error::Interrupted).
    fn stopped(&self) -> bool {
        false
    }
}

/// Ignores everything.
impl LoadWatch for () {
    fn integrated(&self, _: usize, _: usize) {}
    fn note(&self, _: &str) {}
}

/// A data set that adali can read, as named on the command line and in `config.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum DataSource {
    /// 1797 handwritten digits of 8x8, built in.
    #[default]
    Digits,
    /// MNIST, four IDX files.
    Mnist,
    /// Fashion-MNIST, four IDX files; found automatically if Debian's dataset-fashion-mnist is installed.
    FashionMnist,
    /// CIFAR-10, the binary or the Python version.
    Cifar10,
    /// CIFAR-100 with its fine labels, the binary or the Python version.
    Cifar100,
    /// Pictures in folders: train/CLASS/*.jpg and test/CLASS/*.jpg (or val; also .jpeg and .png).
    ImageFolder,
    /// Tiny-ImageNet, 200 classes of 64x64.
    TinyImagenet,
    /// Event frames from one safetensors file.
    Frames,
    /// N-MNIST: recordings of digits seen by a moving sensor; also the format that simulate-events writes.
    NMnist,
    /// CIFAR10-DVS: recordings of images moving in front of a sensor.
    Cifar10Dvs,
    /// DVS128 Gesture: recordings of eleven gestures.
    DvsGesture,
}

/// How a data set is found and read. The file of each reader has one for every data set that it reads.
pub(crate) struct Reader {
    /// The name on the command line and in `config.toml`.
    pub name: &'static str,
    /// The usual height, width and channels of a sample, for recordings before `downsample`; `None` if only the file says.
    pub extents: Option<[usize; 3]>,
    /// How to get the data set, as the end of an error's sentence.
    pub advice: &'static str,
    /// Where it is looked for if no folder is given.
    pub place: Option<&'static str>,
    /// Whether samples are event recordings, which are integrated into frames.
    pub events: bool,
    /// The folder or file that `load` would read, if everything it needs is there.
    pub find: fn(&Path) -> Option<PathBuf>,
    pub load: fn(&Path, &Request) -> anyhow::Result<Dataset>,
}

/// What some data sets can be asked for; see [`load_as`].
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// How recordings become frames.
    pub integration: Integration,
    /// The side of the squares that pictures become; `None` if they have all the same size.
    pub image_size: Option<u32>,
    /// The folder for frames of recordings.
    pub cache: Option<&'a Path>,
    /// Receives progress and the notes.
    pub watch: &'a dyn LoadWatch,
}

impl Default for Request<'_> {
    fn default() -> Self {
        Self { integration: Integration::default(), image_size: None, cache: None, watch: &() }
    }
}

impl DataSource {
    fn reader(self) -> &'static Reader {
        match self {
            Self::Digits => &digits::READER,
            Self::Mnist => &idx::MNIST,
            Self::FashionMnist => &idx::FASHION_MNIST,
            Self::Cifar10 => &cifar::CIFAR10,
            Self::Cifar100 => &cifar::CIFAR100,
            Self::ImageFolder => &images::IMAGE_FOLDER,
            Self::TinyImagenet => &images::TINY_IMAGENET,
            Self::Frames => &frames::FRAMES,
            Self::NMnist => &events::set::N_MNIST,
            Self::Cifar10Dvs => &events::set::CIFAR10_DVS,
            Self::DvsGesture => &events::set::DVS_GESTURE,
        }
    }

    /// The name on the command line and in `config.toml`.
    pub fn name(self) -> &'static str {
        self.reader().name
    }

    /// How to get this data set, as the end of an error's sentence.
    pub fn advice(self) -> &'static str {
        self.reader().advice
    }

    /// Whether samples are event recordings, which are integrated into frames.
    pub fn is_events(self) -> bool {
        self.reader().events
    }

    /// Whether samples are pictures of any size, which can be made as large as [`Request::image_size`] says.
    pub fn is_pictures(self) -> bool {
        matches!(self, Self::ImageFolder | Self::TinyImagenet)
    }

    /// The extents that its samples usually have, without reading it; `None` if only its file says.
    pub fn usual_shape(self, integration: &Integration) -> Option<SampleShape> {
        let [height, width, channels] = self.reader().extents?;
        if !self.is_events() {
            return Some(SampleShape { frames: 1, height, width, channels });
        }
        let [height, width] = [height, width].map(|extent| extent.div_ceil(integration.downsample.max(1)));
        Some(SampleShape { frames: integration.frames, height, width, channels })
    }

    /// `dir`, or where this data set is looked for if there is none.
    fn place(self, dir: Option<&Path>) -> Option<&Path> {
        dir.or(self.reader().place.map(Path::new))
    }
}

impl fmt::Display for DataSource {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a data set was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Built into the program.
    BuiltIn,
    /// In this folder, or, for [`DataSource::Frames`], in this file.
    At(PathBuf),
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::BuiltIn => f.pad("built in"),
            Self::At(path) => path.display().fmt(f),
        }
    }
}

/// Reads a data set from `dir` (`--data-dir`) or from its usual place; recordings are integrated with the default
/// options, and nothing is cached.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) for anything wrong with the folder or its files.
pub fn load(source: DataSource, dir: Option<&Path>) -> anyhow::Result<Dataset> {
    load_as(source, dir, &Request::default())
}

/// Like [`load`], but with what is asked for.
///
/// # Errors
/// Also if the data set cannot be had like that.
pub fn load_as(source: DataSource, dir: Option<&Path>, request: &Request) -> anyhow::Result<Dataset> {
    if let Some(side) = request.image_size.filter(|_| !source.is_pictures()) {
        crate::bail_input!("image size {side} is for image-folder and tiny-imagenet, but the data set is {source}");
    }
    let mut data = read(source, dir, request)?;
    classes::check(&mut data)?;
    data.notes.iter().for_each(|note| request.watch.note(note));
    Ok(data)
}

/// The data set as stored in its files.
fn read(source: DataSource, dir: Option<&Path>, request: &Request) -> anyhow::Result<Dataset> {
    if source == DataSource::Digits {
        return match dir {
            None => digits::load(),
            Some(dir) => Err(crate::input_error!(
                "the data set digits is built in and reads no folder, but --data-dir is {}; {}",
                dir.display(),
                source.advice()
            )),
        };
    }
    let Some(place) = source.place(dir) else {
        crate::bail_input!("the data set {source} is not built in; {}", source.advice());
    };
    if !place.exists() {
        crate::bail_input!("{} does not exist, so {source} cannot be read; {}", place.display(), source.advice());
    }
    (source.reader().load)(place, request)
}

/// Where [`load`] would read a data set from, if all its files are there; does not open them.
pub fn find(source: DataSource, dir: Option<&Path>) -> Option<Found> {
    if source == DataSource::Digits {
        return Some(Found::BuiltIn);
    }
    (source.reader().find)(source.place(dir)?).map(Found::At)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum;

    #[test]
    fn a_source_has_one_name_everywhere() {
        let mut cases = 0;
        for &source in DataSource::value_variants() {
            let name = source.name();
            assert_eq!(source.to_possible_value().unwrap().get_name(), name);
            assert_eq!(serde_json::to_string(&source).unwrap(), format!("\"{name}\""));
            assert_eq!(serde_json::from_str::<DataSource>(&format!("\"{name}\"")).unwrap(), source);
            cases += 1;
        }
        assert_eq!(cases, 11);
    }

    #[test]
    fn usual_shapes_are_those_of_the_data() {
        let usual = |source: DataSource| source.usual_shape(&Integration { downsample: 3, ..Integration::default() });
        assert_eq!(usual(DataSource::Digits), Some(load(DataSource::Digits, None).unwrap().train.shape));
        assert_eq!(usual(DataSource::Cifar100), Some(cifar::SHAPE));
        assert_eq!(usual(DataSource::Cifar10Dvs).unwrap().to_string(), "16x43x43x2");
        assert_eq!(usual(DataSource::Frames), None);
    }

    #[test]
    fn without_a_folder_the_error_says_what_to_do() {
        let mut cases = 0;
        let built_in = [DataSource::Digits, DataSource::FashionMnist];
        for &source in DataSource::value_variants().iter().filter(|source| !built_in.contains(source)) {
            let error = load(source, None).unwrap_err();
            assert_eq!(crate::error::exit_code(&error), 2);
            assert!(error.to_string().contains(source.advice()), "{error}");
            assert_eq!(find(source, None), None);
            cases += 1;
        }
        assert_eq!(cases, 9);
        let error = load(DataSource::FashionMnist, Some(Path::new("/nowhere"))).unwrap_err();
        assert!(error.to_string().contains("apt-get install dataset-fashion-mnist"), "{error}");
        assert!(load(DataSource::Digits, Some(Path::new("/"))).is_err());
        assert_eq!(find(DataSource::Digits, None), Some(Found::BuiltIn));
    }
}
