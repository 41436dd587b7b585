//! A run folder: the files that a training writes.
//!
//! | file | holds |
//! |---|---|
//! | `config.toml` | the complete configuration |
//! | `metrics.jsonl` | one line per epoch |
//! | `model.safetensors` | the network of the best epoch on the held-out samples |
//! | `state.safetensors` | the position of the training: everything a resume needs |
//! | `curves.svg`, `membranes.svg` | plots, redrawn each epoch |
//! | `result.json` | the final result on the test set, which is used only once |

use crate::backend::Backend;
use crate::bail_input;
use crate::files::lock::Lock;
use crate::files::place::{Kind, Place, is_half_replaced};
use crate::files::{MOST_RECORDS, MOST_SETTINGS, read_bytes, read_text, write_whole};
use crate::metrics::EpochMetrics;
use crate::report::{MembranePanel, curves, membranes};
use crate::tensors::read_descriptions;
use crate::train::bounds::LayerTrack;
use crate::train::{Config, Trainer};
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// The files of a run in a folder. `probe.json` belongs to a comparison.
pub static KIND: Kind = Kind {
    name: "a run",
    holds: |folder| {
        let config = folder.join(MARK);
        identity_in(&read_text(&config, MOST_SETTINGS).unwrap_or_default()).is_some() || Config::read(&config).is_ok()
    },
    files: |folder| FILES.iter().map(|name| folder.join(name)).collect(),
};

const MARK: &str = "config.toml";
/// All files that a run may have, the mark last.
pub const FILES: [&str; 8] = [
    "result.json",
    "probe.json",
    "state.safetensors",
    "model.safetensors",
    "metrics.jsonl",
    "curves.svg",
    "membranes.svg",
    MARK,
];

/// Starts the last line of a configuration written by a run; the run's identity follows.
const IDENTITY: &str = "# adali run ";

/// The configuration as stored in a run's files. They all carry the same identity, derived from the
/// configuration and the samples: repeating the run gives the same identity and the same bytes.
pub fn signed(config: &Config, identity: &str) -> String {
    format!("{}{IDENTITY}{identity}\n", config.to_toml())
}

/// The identity of a run with this configuration, on samples with this fingerprint. The location of the data does not matter.
pub fn identity(config: &Config, fingerprint: u64) -> String {
    let mut config = config.clone();
    config.data.dir = None;
    let bytes = config.to_toml().into_bytes().into_iter().chain(fingerprint.to_le_bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{hash:016x}")
}

/// The identity that a configuration carries.
pub fn identity_in(text: &str) -> Option<String> {
    text.lines().rev().find_map(|line| Some(line.strip_prefix(IDENTITY)?.trim().to_string()))
}

/// The content of `result.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunResult {
    /// Accuracy of the chosen epoch's network, in `[0, 1]`.
    pub test_accuracy: f64,
    /// Mean over the test samples.
    pub test_loss: f64,
    pub test_samples: usize,
    /// The chosen epoch: the best on held-out samples, or the last.
    pub epoch: u32,
    pub epochs: u32,
    /// Accuracy in the chosen epoch; absent without held-out samples.
    pub validation_accuracy: Option<f64>,
    pub parameters: usize,
    /// Median over epochs; training only.
    pub images_per_second: Option<f64>,
    /// Peak memory of the process so far, in bytes.
    pub peak_rss_bytes: Option<u64>,
    pub device: String,
    /// The run's identity; older versions wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// The run folder.
    pub run: String,
}

/// A run that only this process writes.
#[derive(Debug)]
pub struct Run {
    place: Rc<Place>,
    /// Its folder below the place.
    below: PathBuf,
    /// The lock of a folder below the place.
    _lock: Option<Lock>,
}

impl Run {
    /// Claims a folder for a new run. Existing content is replaced, at the first checkpoint, only with `force`; `inputs` are
    /// files that the command reads.
    pub fn create(folder: PathBuf, force: bool, inputs: &[&Path]) -> Result<Self> {
        Ok(Self::at(Place::claim(folder, &KIND, force, inputs)?))
    }

    /// Claims the first free folder of `runs/NAME-1`, `runs/NAME-2`, ….
    pub fn create_free(name: &str) -> Result<Self> {
        Ok(Self::at(Place::claim_free(name, &KIND)?))
    }

    /// Claims the folder of an earlier training in order to continue it.
    pub fn open(folder: PathBuf) -> Result<Self> {
        if !folder.join(MARK).is_file() && !is_half_replaced(&folder) {
            bail_input!("{} is not a run folder: it holds no {MARK}", folder.display());
        }
        Ok(Self::at(Place::enter(folder, &KIND)?))
    }

    fn at(place: Place) -> Self {
        Self { place: Rc::new(place), below: PathBuf::new(), _lock: None }
    }

    /// Claims a folder below a place, whether new or existing.
    pub fn within(place: &Rc<Place>, below: &str) -> Result<Self> {
        let folder = place.path().join(below);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        // Puts the folder in order in case it was used as a run of its own.
        drop(Place::enter(folder.clone(), &KIND)?);
        let lock = Lock::acquire(&folder)?;
        Ok(Self { place: place.clone(), below: below.into(), _lock: Some(lock) })
    }

    /// Its folder, for messages.
    pub fn folder(&self) -> PathBuf {
        match self.below.as_os_str().is_empty() {
            true => self.place.folder().to_path_buf(),
            false => self.place.folder().join(&self.below),
        }
    }

    /// Its files: until the first checkpoint they are next to those of an old run.
    pub fn files(&self) -> RunFiles {
        match self.below.as_os_str().is_empty() {
            true => RunFiles::at(self.place.path()),
            false => RunFiles::at(self.place.path().join(&self.below)),
        }
    }

    /// Called when a checkpoint has been saved: the run replaces the old one.
    pub fn commit(&self) -> Result<()> {
        self.place.commit()
    }

    /// Whether the run to be replaced is still there.
    pub fn is_staged(&self) -> bool {
        self.place.is_staged()
    }

    /// What the user must know about its lock.
    pub fn note(&self) -> Option<&str> {
        self.place.note()
    }
}

/// The files of a run.
#[derive(Clone, Debug)]
pub struct RunFiles {
    folder: PathBuf,
}

/// A line of `metrics.jsonl`.
#[derive(Serialize, Deserialize)]
struct Line<M> {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<String>,
    #[serde(flatten)]
    metrics: M,
}

impl RunFiles {
    /// The files of a folder that may hold a run.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// `config.toml`.
    pub fn config(&self) -> PathBuf {
        self.folder.join("config.toml")
    }

    /// `model.safetensors`.
    pub fn model(&self) -> PathBuf {
        self.folder.join("model.safetensors")
    }

    /// `state.safetensors`.
    pub fn state(&self) -> PathBuf {
        self.folder.join("state.safetensors")
    }

    /// `metrics.jsonl`.
    pub fn metrics(&self) -> PathBuf {
        self.folder.join("metrics.jsonl")
    }

    /// `result.json`.
    pub fn result(&self) -> PathBuf {
        self.folder.join("result.json")
    }

    /// `curves.svg`.
    pub fn curves(&self) -> PathBuf {
        self.folder.join("curves.svg")
    }

    /// `membranes.svg`.
    pub fn membranes(&self) -> PathBuf {
        self.folder.join("membranes.svg")
    }

    /// `probe.json`.
    pub fn probe(&self) -> PathBuf {
        self.folder.join("probe.json")
    }

    /// Checks that all files are from one run, as far as they tell; files of older versions do not.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) that names two files of different runs, or states that the run is being
    /// replaced.
    pub fn check(&self) -> Result<()> {
        let name = self.folder.display();
        if is_half_replaced(&self.folder) {
            // If no process is at work, it was killed while replacing.
            drop(Place::enter(self.folder.clone(), &KIND)?);
        }
        let of_config = read_text(&self.config(), MOST_SETTINGS).ok().and_then(|text| identity_in(&text));
        let of_tensors = |path: &Path| read_descriptions(path).ok().and_then(|about| identity_in(about.get("config")?));
        let text = read_text(&self.metrics(), MOST_RECORDS).unwrap_or_default();
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line<serde::de::IgnoredAny>>(line).ok());
        let result = read_bytes(&self.result(), MOST_SETTINGS)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<RunResult>(&bytes).ok());
        let found = [
            (self.config(), of_config),
            (self.model(), of_tensors(&self.model())),
            (self.state(), of_tensors(&self.state())),
            (self.result(), result.and_then(|result| result.identity)),
        ];
        let all = found.into_iter().chain(lines.map(|line| (self.metrics(), line.identity)));
        let mut first: Option<(PathBuf, String)> = None;
        for (file, identity) in all.filter_map(|(file, identity)| Some((file, identity?))) {
            match &first {
                Some((other, known)) if *known != identity => bail_input!(
                    "{name} holds files of different runs: {} is of {known}, {} of {identity}; put the files of one run \
                     back, or name the model.safetensors itself",
                    other.display(),
                    file.display()
                ),
                Some(_) => {}
                None => first = Some((file, identity)),
            }
        }
        Ok(())
    }

    /// The epochs in `metrics.jsonl` up to `epoch`; a last line cut short by a kill is left out.
    pub fn read_metrics(&self, epoch: u32) -> Result<Vec<EpochMetrics>> {
        let path = self.metrics();
        let text = if path.exists() { read_text(&path, MOST_RECORDS)? } else { String::new() };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line<EpochMetrics>>(line).ok());
        Ok(lines.map(|line| line.metrics).filter(|metrics| metrics.epoch <= epoch).collect())
    }

    /// Saves an epoch's metrics and plots. The model is saved before them and the state after them, so that a run killed
    /// in between repeats the epoch and writes the same bytes.
    pub fn save_epoch<B: Backend>(&self, trainer: &Trainer<B>, epochs: &[EpochMetrics], identity: &str) -> Result<()> {
        let last = epochs.last().expect("an epoch has just ended");
        let line = |metrics| serde_json::to_string(&Line { identity: Some(identity.to_string()), metrics });
        let lines: String = epochs.iter().map(|e| line(e).map(|line| line + "\n")).collect::<Result<_, _>>()?;
        write_whole(&self.metrics(), lines.as_bytes())?;
        let title = format!("{} on {}", trainer.title(), trainer.config.data.source.name());
        write_whole(&self.curves(), described(curves(&title, epochs)?, identity).as_bytes())?;
        let panels: Vec<MembranePanel> = last
            .layers
            .iter()
            .zip(&trainer.tracker.layers)
            .map(|(layer, LayerTrack { histogram, .. })| MembranePanel {
                name: layer.name.clone(),
                histogram,
                bounds: layer.bounds.map(|b| (b.left, b.right)),
                flags: layer.flags.clone(),
            })
            .collect();
        if !panels.is_empty() {
            let data = trainer.config.data.source.name();
            let title = format!("Membranes in epoch {}: {} on {data}", last.epoch, trainer.surrogate());
            write_whole(&self.membranes(), described(membranes(&title, &panels)?, identity).as_bytes())?;
        }
        Ok(())
    }
}

/// A plot that carries the run's identity.
fn described(svg: String, identity: &str) -> String {
    svg.replacen('>', &format!("><desc>adali run {identity}</desc>"), 1)
}
