//! A run folder: what a training leaves.
//!
//! | file | holds |
//! |---|---|
//! | `config.toml` | the complete configuration |
//! | `metrics.jsonl` | a line an epoch |
//! | `model.safetensors` | the network of the best epoch on the held-out samples |
//! | `state.safetensors` | where the training stands: all that a resume needs |
//! | `curves.svg`, `membranes.svg` | pictures, drawn anew each epoch |
//! | `result.json` | the end: the test set, looked at once |

use crate::backend::Backend;
use crate::files::write_whole;
use crate::report::{MembranePanel, curves, membranes};
use crate::train::Trainer;
use crate::train::bounds::LayerTrack;
use crate::train::metrics::EpochMetrics;
use crate::{bail_input, input_error};
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// A run folder.
#[derive(Clone, Debug)]
pub struct Run {
    folder: PathBuf,
}

impl Run {
    /// Makes a new folder; one that already holds a run is refused unless `force`, which empties it of its run.
    pub fn create(folder: PathBuf, force: bool) -> Result<Self> {
        let run = Self { folder };
        // The configuration last: without it, what a kill leaves here is no run.
        let pictures = [run.curves(), run.membranes()];
        let files = [run.state(), run.model(), run.metrics(), run.result()].into_iter().chain(pictures);
        for file in files.chain([run.config()]).filter(|file| file.exists()) {
            if !force {
                bail_input!(
                    "{} already holds a run; give another --out, continue it with --resume, or overwrite it with --force",
                    run.folder.display()
                );
            }
            fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))?;
        }
        fs::create_dir_all(&run.folder).map_err(|e| input_error!("cannot make {}: {e}", run.folder.display()))?;
        Ok(run)
    }

    /// A folder that may hold a run.
    pub fn at(folder: PathBuf) -> Self {
        Self { folder }
    }

    /// A folder that a training has left.
    pub fn open(folder: PathBuf) -> Result<Self> {
        let run = Self { folder };
        if !run.config().is_file() {
            bail_input!("{} is not a run folder: it holds no config.toml", run.folder.display());
        }
        Ok(run)
    }

    /// The first of `runs/NAME-1`, `runs/NAME-2`, … that is free.
    pub fn free_folder(name: &str) -> PathBuf {
        (1..)
            .map(|i| Path::new("runs").join(format!("{name}-{i}")))
            .find(|path| !path.exists())
            .expect("numbers do not end")
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
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

    /// The epochs in `metrics.jsonl` up to `epoch`; a last line cut short by a kill is left out.
    pub fn read_metrics(&self, epoch: u32) -> Result<Vec<EpochMetrics>> {
        let text = match fs::read_to_string(self.metrics()) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            Err(e) => bail_input!("cannot read {}: {e}", self.metrics().display()),
        };
        let lines = text.lines().filter_map(|line| serde_json::from_str::<EpochMetrics>(line).ok());
        Ok(lines.filter(|metrics| metrics.epoch <= epoch).collect())
    }

    /// Saves an epoch's metrics and pictures. The model is saved before it and the state behind it, so that a kill
    /// in between repeats the epoch and writes the same bytes.
    pub fn save_epoch<B: Backend>(&self, trainer: &Trainer<B>, epochs: &[EpochMetrics]) -> Result<()> {
        let last = epochs.last().expect("an epoch has just ended");
        let lines: String =
            epochs.iter().map(|e| serde_json::to_string(e).map(|line| line + "\n")).collect::<Result<_, _>>()?;
        write_whole(&self.metrics(), lines.as_bytes())?;
        let title = format!("{} on {}", trainer.title(), trainer.config.data.source.name());
        write_whole(&self.curves(), curves(&title, epochs)?.as_bytes())?;
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
            write_whole(&self.membranes(), membranes(&title, &panels)?.as_bytes())?;
        }
        Ok(())
    }
}
