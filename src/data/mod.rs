//! Data sets: images and event frames as bytes, in memory, ready for a backend.
//!
//! One file a format: [`digits`] (built in), [`idx`] (the MNIST family), [`cifar`], [`frames`] (event frames), [`events`]
//! (recordings).
//! Each has a parser that takes bytes, never panics, never allocates what a header merely claims, and answers
//! every lie with an [`InputError`](crate::error::InputError). [`split`] holds samples out, [`sampling`] orders
//! and shifts them.

pub mod cifar;
mod classes;
pub mod digits;
pub mod events;
mod files;
pub mod frames;
pub mod idx;
pub mod sampling;
pub mod split;
mod values;

use std::borrow::Cow;
use std::fmt;
use std::path::{Path, PathBuf};

pub use events::integrate::Integration;
pub use sampling::{Augmentation, CounterRng, Placement};
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

    /// Whether a sample has no values; no data set that [`load`] returns has such samples.
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
    /// `[N]`, each below the data set's number of classes.
    pub labels: Vec<u16>,
}

impl Samples {
    /// The number of samples `N`.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// The values of one sample, `[frames][height][width][channels]`; panics when `index` is not below `N`.
    pub fn sample(&self, index: usize) -> Cow<'_, [u8]> {
        self.values.sample(index, self.shape.len())
    }

    /// The values of all samples.
    pub fn bytes(&self) -> Cow<'_, [u8]> {
        self.values.bytes(self.shape.len())
    }
}

/// A data set, read and checked.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// The source's name, as on the command line.
    pub name: String,
    /// Where it came from, for people: a path, or "built in".
    pub source: String,
    /// One name a class; where the format has none, the class's number.
    pub class_names: Vec<String>,
    /// A byte `b` of channel `c` becomes `(b / full_scale - mean[c]) / deviation[c]`.
    pub full_scale: f32,
    /// `[channels]`, subtracted after the division by `full_scale`.
    pub mean: Vec<f32>,
    /// `[channels]`, divides last.
    pub deviation: Vec<f32>,
    /// What trains; [`split::hold_out`] takes the validation samples from it.
    pub train: Samples,
    /// What is measured, never trained on.
    pub test: Samples,
    /// What a person should know of it that is no error, one line each: what is missing, left out or odd.
    pub notes: Vec<String>,
}

impl Dataset {
    /// The number of classes; labels are below it.
    pub fn classes(&self) -> usize {
        self.class_names.len()
    }
}

/// Whoever waits for a data set.
pub trait LoadWatch: Sync {
    /// So many of all recordings are integrated.
    fn integrated(&self, done: usize, total: usize);
    /// Something that is no error.
    fn note(&self, text: &str);
    /// Whether to stop, with the error [`Interrupted`](crate::error::Interrupted).
    fn stopped(&self) -> bool {
        false
    }
}

/// Nobody.
impl LoadWatch for () {
    fn integrated(&self, _: usize, _: usize) {}
    fn note(&self, _: &str) {}
}

/// A data set that adali can read, as named on the command line and in `config.toml`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataSource {
    /// 1797 handwritten digits of 8x8, built in.
    #[default]
    Digits,
    /// MNIST, four IDX files.
    Mnist,
    /// Fashion-MNIST, four IDX files; found automatically if Debian's dataset-fashion-mnist is installed.
    FashionMnist,
    /// CIFAR-10, the binary version.
    Cifar10,
    /// CIFAR-100 with its fine labels, the binary version.
    Cifar100,
    /// Event frames from one safetensors file.
    Frames,
    /// N-MNIST: recordings of digits seen by a moving sensor; also the format that simulate-events writes.
    NMnist,
    /// CIFAR10-DVS: recordings of images moving in front of a sensor.
    Cifar10Dvs,
    /// DVS128 Gesture: recordings of eleven gestures.
    DvsGesture,
}

impl DataSource {
    /// The name on the command line and in `config.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Digits => "digits",
            Self::Mnist => "mnist",
            Self::FashionMnist => "fashion-mnist",
            Self::Cifar10 => "cifar10",
            Self::Cifar100 => "cifar100",
            Self::Frames => "frames",
            Self::NMnist => "n-mnist",
            Self::Cifar10Dvs => "cifar10-dvs",
            Self::DvsGesture => "dvs-gesture",
        }
    }

    /// What to do to have this data set, as the end of an error's sentence.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Digits => "leave out --data-dir",
            Self::Mnist => {
                "put train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and \
                 t10k-labels-idx1-ubyte (plain or .gz) into one folder and name it with --data-dir"
            }
            Self::FashionMnist => {
                "run `apt-get install dataset-fashion-mnist`, or name the folder of its four IDX files with --data-dir"
            }
            Self::Cifar10 => {
                "unpack the binary version, cifar-10-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, \
                 and name its folder with --data-dir"
            }
            Self::Cifar100 => {
                "unpack the binary version, cifar-100-binary.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html, \
                 and name its folder with --data-dir"
            }
            Self::Frames => {
                "write train.frames, train.labels, test.frames and test.labels into one safetensors file and name it \
                 with --data-dir"
            }
            Self::NMnist => {
                "unpack Train.zip and Test.zip of https://www.garrickorchard.com/datasets/n-mnist into one folder, or \
                 make such a folder with `adali simulate-events`, and name it with --data-dir"
            }
            Self::Cifar10Dvs => {
                "unpack the ten archives of https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671 into one \
                 folder, which then holds airplane, automobile, …, and name it with --data-dir"
            }
            Self::DvsGesture => {
                "unpack DvsGesture.tar.gz of https://research.ibm.com/interactive/dvsgesture/ and name its folder, which \
                 holds trials_to_train.txt, with --data-dir"
            }
        }
    }

    /// Whether samples are recordings of events, which are integrated into frames.
    pub fn is_events(self) -> bool {
        matches!(self, Self::NMnist | Self::Cifar10Dvs | Self::DvsGesture)
    }

    /// `dir`, or the place where this data set is looked for without one.
    fn place(self, dir: Option<&Path>) -> Option<&Path> {
        dir.or((self == Self::FashionMnist).then(|| Path::new(idx::SYSTEM_FASHION_MNIST)))
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
    /// Inside the program.
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

/// Reads a data set from `dir` (`--data-dir`), or from where it is found without one; recordings are integrated as
/// usual, and nothing is cached.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) for whatever is wrong with the folder or its files.
pub fn load(source: DataSource, dir: Option<&Path>) -> anyhow::Result<Dataset> {
    load_frames(source, dir, &Integration::default(), None, &())
}

/// As [`load`]; recordings of events become frames as `integration` says, which are kept in the folder `cache`, and
/// `watch` hears the notes.
pub fn load_frames(
    source: DataSource,
    dir: Option<&Path>,
    integration: &Integration,
    cache: Option<&Path>,
    watch: &dyn LoadWatch,
) -> anyhow::Result<Dataset> {
    let mut data = read(source, dir, integration, cache, watch)?;
    classes::check(&mut data)?;
    data.notes.iter().for_each(|note| watch.note(note));
    Ok(data)
}

/// The data set as its files are.
fn read(
    source: DataSource,
    dir: Option<&Path>,
    integration: &Integration,
    cache: Option<&Path>,
    watch: &dyn LoadWatch,
) -> anyhow::Result<Dataset> {
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
    match source {
        DataSource::Digits => digits::load(),
        DataSource::Mnist | DataSource::FashionMnist => idx::load(source, place),
        DataSource::Cifar10 | DataSource::Cifar100 => cifar::load(source, place),
        DataSource::Frames => frames::load(place),
        DataSource::NMnist | DataSource::Cifar10Dvs | DataSource::DvsGesture => {
            events::set::load(source, place, integration, cache, watch)
        }
    }
}

/// Where [`load`] would read a data set from, if all of its files are there; opens none of them.
pub fn find(source: DataSource, dir: Option<&Path>) -> Option<Found> {
    if source == DataSource::Digits {
        return Some(Found::BuiltIn);
    }
    let place = source.place(dir)?;
    let path = match source {
        DataSource::Digits => None,
        DataSource::Mnist | DataSource::FashionMnist => idx::find(source, place),
        DataSource::Cifar10 | DataSource::Cifar100 => cifar::find(source, place),
        DataSource::Frames => frames::find(place),
        DataSource::NMnist | DataSource::Cifar10Dvs | DataSource::DvsGesture => events::recordings::find(source, place),
    };
    path.map(Found::At)
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
        assert_eq!(cases, 9);
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
        assert_eq!(cases, 7);
        let error = load(DataSource::FashionMnist, Some(Path::new("/nowhere"))).unwrap_err();
        assert!(error.to_string().contains("apt-get install dataset-fashion-mnist"), "{error}");
        assert!(load(DataSource::Digits, Some(Path::new("/"))).is_err());
        assert_eq!(find(DataSource::Digits, None), Some(Found::BuiltIn));
    }
}
