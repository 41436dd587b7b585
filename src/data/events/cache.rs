//! Integrated recordings, kept in a file so that the next start takes seconds.
//!
//! A safetensors file followed by four bytes, the little-endian CRC-32 of everything before them:
//!
//! ```text
//! train.counts, test.counts   u8 [bytes]   samples as EventCounts::pack writes them, one after the other
//! train.ends, test.ends       i64 [N]      where each ends
//! train.labels, test.labels   i64 [N]
//! metadata                    key, name, source, shape, class names, notes
//! ```
//! The key covers everything the frames depend on: the files with their sizes and times, the integration options, and
//! this program's version, whose readers may differ from those of others. Two processes may write the same file: each writes
//! its own complete copy and moves it into place, and both copies are the same.

use super::counts::EventCounts;
use crate::data::{Dataset, SampleShape, Samples, Values};
use crate::files::{read_bytes, write_whole_with};
use crate::tensors::{TensorFile, Tensors};
use anyhow::{Context, Result, bail};
use flate2::CrcWriter;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

/// Changed whenever the meaning of the frames or of their file changes between versions of the program.
const FORMAT: &str = "2";
/// Largest file that is accepted.
const MAX_BYTES: u64 = 1 << 38;
const PARTS: [&str; 2] = ["train", "test"];

/// A hash of everything the frames of a data set depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(u64);

impl Key {
    /// The key of `settings` and of the sizes and times of `files`.
    ///
    /// # Errors
    /// If a file is missing.
    pub fn new<'a>(settings: &str, files: impl IntoIterator<Item = &'a Path>) -> Result<Self> {
        let mut key = Self(0xcbf2_9ce4_8422_2325);
        key.add(FORMAT.as_bytes());
        key.add(env!("CARGO_PKG_VERSION").as_bytes());
        key.add(settings.as_bytes());
        for file in files {
            let known =
                fs::metadata(file).map_err(|e| crate::input_error!("{} cannot be read: {e}", file.display()))?;
            let time = known.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            key.add(file.as_os_str().as_encoded_bytes());
            key.add(&known.len().to_le_bytes());
            key.add(&time.map_or(0, |time| time.as_nanos()).to_le_bytes());
        }
        Ok(key)
    }

    /// FNV-1a, followed by the length, so that two neighbours are not hashed like their concatenation.
    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes.iter().copied().chain((bytes.len() as u64).to_le_bytes()) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Where caches are kept unless `--cache-dir` is given: `$XDG_CACHE_HOME/adali` or `~/.cache/adali`.
pub fn usual_folder() -> Option<PathBuf> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")));
    folder.map(|folder| folder.join("adali"))
}

/// Reads what [`write()`] wrote; `None` if there is no such file.
///
/// # Errors
/// What is wrong with the file, worded to follow its name.
pub fn read(path: &Path, key: Key) -> Result<Option<Dataset>> {
    if !path.exists() {
        return Ok(None);
    }
    let bytes = read_bytes(path, MAX_BYTES).context("cannot be read")?;
    decode(&bytes, key).map(Some).context("is damaged")
}

fn decode(bytes: &[u8], key: Key) -> Result<Dataset> {
    let Some((content, sum)) = bytes.split_last_chunk() else { bail!("it has {} bytes", bytes.len()) };
    if checksum(content) != u32::from_le_bytes(*sum) {
        bail!("its checksum is wrong");
    }
    let file = TensorFile::open(content, "it")?;
    let about = file.descriptions();
    let text = |name: &str| about.get(name).with_context(|| format!("it does not say its {name}"));
    if *text("key")? != key.to_string() {
        bail!("it is of other recordings");
    }
    let class_names: Vec<String> = serde_json::from_str(text("class names")?)?;
    let [frames, height, width, channels] = serde_json::from_str(text("shape")?)?;
    let shape = SampleShape { frames, height, width, channels };
    let [train, test] = PARTS.map(|part| read_part(&file, part, shape, class_names.len()));
    let (name, source) = (text("name")?.clone(), text("source")?.clone());
    let notes = serde_json::from_str(text("notes")?)?;
    Ok(dataset(name, source, class_names, [train?, test?], notes))
}

/// A data set of event frames, whose values are event counts.
pub fn dataset(
    name: String,
    source: String,
    class_names: Vec<String>,
    [train, test]: [Samples; 2],
    notes: Vec<String>,
) -> Dataset {
    let channels = train.shape.channels;
    let (mean, std) = (vec![0.0; channels], vec![1.0; channels]);
    Dataset { name, source, class_names, full_scale: 1.0, mean, std, train, test, notes }
}

fn read_part(file: &TensorFile, part: &str, shape: SampleShape, classes: usize) -> Result<Samples> {
    let (_, packed) = file.tensor(&format!("{part}.counts"))?;
    let (ends, _) = file.tensor(&format!("{part}.ends"))?;
    let count = ends.shape.iter().product();
    let ends = file.integers(&format!("{part}.ends"), &[count])?;
    let cells = shape.frames.checked_mul(shape.height).and_then(|n| n.checked_mul(shape.width));
    let cells = cells.and_then(|n| n.checked_mul(shape.channels)).context("its shape overflows")?;
    let label = |label: i64| u16::try_from(label).ok().filter(|&label| usize::from(label) < classes);
    let labels = file.integers(&format!("{part}.labels"), &[count])?.into_iter().map(label);
    let labels = labels.collect::<Option<Vec<u16>>>().context("it has a label without a class")?;
    let mut counts = EventCounts::default();
    let mut start = 0;
    for end in ends {
        let sample = usize::try_from(end).ok().and_then(|end| packed.get(start..end));
        let sample = sample.with_context(|| format!("a sample ends at {end}"))?;
        counts.unpack(sample, cells)?;
        start += sample.len();
    }
    Ok(Samples { shape, values: counts.into(), labels })
}

/// Stores a data set of counts in `path`, completely or not at all.
///
/// # Errors
/// If the file cannot be written.
pub fn write(path: &Path, key: Key, data: &Dataset) -> Result<()> {
    let mut tensors = Tensors::default();
    for (part, samples) in PARTS.iter().zip([&data.train, &data.test]) {
        let Values::Counts(counts) = &samples.values else { bail!("{} is not of events", data.name) };
        let (mut packed, mut ends) = (Vec::new(), Vec::new());
        for index in 0..counts.len() {
            counts.pack(index, &mut packed);
            ends.push(packed.len() as i64);
        }
        let labels: Vec<i64> = samples.labels.iter().map(|&label| label.into()).collect();
        tensors.push(format!("{part}.counts"), &[packed.len()], || Ok(packed));
        tensors.push(format!("{part}.ends"), &[ends.len()], || Ok(ends));
        tensors.push(format!("{part}.labels"), &[labels.len()], || Ok(labels));
    }
    let SampleShape { frames, height, width, channels } = data.train.shape;
    tensors.describe("name", &data.name);
    tensors.describe("source", &data.source);
    tensors.describe("key", key.to_string());
    tensors.describe("shape", serde_json::to_string(&[frames, height, width, channels])?);
    tensors.describe("class names", serde_json::to_string(&data.class_names)?);
    tensors.describe("notes", serde_json::to_string(&data.notes)?);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    write_whole_with(path, |out| {
        let mut summed = CrcWriter::new(out);
        tensors.write(&mut summed)?;
        let sum = summed.crc().sum();
        Ok(summed.into_inner().write_all(&sum.to_le_bytes())?)
    })
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::CounterRng;

    const SHAPE: SampleShape = SampleShape { frames: 2, height: 3, width: 4, channels: 2 };

    fn some() -> Dataset {
        let mut rng = CounterRng::new(1, 99);
        let mut part = |samples: usize| {
            let mut counts = EventCounts::default();
            for _ in 0..samples {
                counts.push((0..30).map(|_| rng.below(SHAPE.len() as u64) as u32).collect());
            }
            Samples { shape: SHAPE, values: counts.into(), labels: (0..samples as u16).map(|i| i % 3).collect() }
        };
        let names = ["a", "b", "c"].map(String::from).into();
        dataset("n-mnist".into(), "there".into(), names, [part(7), part(4)], vec!["odd".into()])
    }

    fn same(a: &Dataset, b: &Dataset) -> bool {
        let parts = |data: &Dataset| [data.train.clone(), data.test.clone()].map(|p| (p.shape, p.values, p.labels));
        let about = |data: &Dataset| [&data.class_names, &data.notes].map(Vec::clone);
        (&a.name, &a.source, about(a), parts(a)) == (&b.name, &b.source, about(b), parts(b))
    }

    #[test]
    fn a_cache_comes_back_and_damage_is_noticed() {
        let home = tempfile::TempDir::new().unwrap();
        let (path, key, data) = (home.path().join("deep/er/x.cache"), Key(7), some());
        assert!(read(&path, key).unwrap().is_none());
        write(&path, key, &data).unwrap();
        assert!(same(&read(&path, key).unwrap().unwrap(), &data));
        assert_eq!(format!("{:#}", read(&path, Key(8)).unwrap_err()), "is damaged: it is of other recordings");
        assert!(format!("{:#}", read(home.path(), key).unwrap_err()).contains("is a folder"));
        let good = fs::read(&path).unwrap();
        let mut refused = 0;
        for at in 0..good.len() {
            for bit in [0, 7] {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(&path, &bad).unwrap();
                assert!(read(&path, key).is_err(), "bit {bit} of byte {at}");
                refused += 1;
            }
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).unwrap();
            assert!(read(&path, key).is_err(), "{length} bytes");
            refused += 1;
        }
        assert_eq!(refused, 3 * good.len());
    }

    #[test]
    fn lies_under_a_right_checksum_are_refused() {
        let home = tempfile::TempDir::new().unwrap();
        let (path, key) = (home.path().join("x.cache"), Key(7));
        let mut cases = 0;
        type Lie = fn(&mut Dataset);
        let lies: [(Lie, &str); 3] = [
            (|data| data.train.labels[2] = 3, "without a class"),
            (|data| data.train.shape.frames = 1, "in cell"),
            (|data| data.train.shape.height = usize::MAX, "overflows"),
        ];
        for (lie, part) in lies {
            let mut data = some();
            lie(&mut data);
            write(&path, key, &data).unwrap();
            let error = format!("{:#}", read(&path, key).unwrap_err());
            assert!(error.contains(part), "{error}");
            cases += 1;
        }
        assert_eq!(cases, 3);
    }

    #[test]
    fn a_key_follows_the_settings_and_the_files() {
        let home = tempfile::TempDir::new().unwrap();
        let [a, b] = ["a", "b"].map(|name| home.path().join(name));
        fs::write(&a, "x").unwrap();
        fs::write(&b, "x").unwrap();
        let key = |settings: &str, files: &[&PathBuf]| Key::new(settings, files.iter().map(|p| p.as_path())).unwrap();
        let mut keys = vec![key("s", &[&a, &b]), key("t", &[&a, &b]), key("s", &[&a]), key("s", &[&b, &a])];
        assert_eq!(keys[0], key("s", &[&a, &b]));
        fs::write(&b, "xy").unwrap();
        keys.push(key("s", &[&a, &b]));
        let file = fs::File::open(&b).unwrap();
        file.set_modified(UNIX_EPOCH + std::time::Duration::from_secs(5)).unwrap();
        keys.push(key("s", &[&a, &b]));
        for (i, key) in keys.iter().enumerate() {
            assert!(!keys[..i].contains(key), "{i}");
        }
        assert!(Key::new("s", [Path::new("/nowhere")]).is_err());
    }
}
