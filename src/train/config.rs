//! Everything a training depends on, as written to a run folder's `config.toml`.

use crate::autotune::BoundsSpec;
use crate::backend::LossSpec;
use crate::data::sampling::{Augmentation, epoch_order};
use crate::data::split::hold_out;
use crate::data::{DataSource, Dataset, Integration};
use crate::files::{MOST_SETTINGS, read_text};
use crate::network::spec::{InputMode, NetworkSpec};
use crate::network::{Plan, Volume};
use crate::surrogate::{Surrogate, SurrogateKind};
use crate::train::optimizer::{MemoryUse, TrainingSpec};
use crate::train::schema::{self, Document};
use crate::{bail_input, input_error};
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// A complete configuration: the same configuration produces the same bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// Seed of the weights, sample order, held-out samples, augmentation and dropout.
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub data: DataSpec,
    #[serde(default)]
    pub training: TrainingSpec,
    #[serde(default)]
    pub loss: LossSpec,
    #[serde(default)]
    pub bounds: BoundsSpec,
    pub network: NetworkSpec,
}

/// The samples.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DataSpec {
    pub source: DataSource,
    /// The folder of its files, if not the source's usual one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dir: Option<PathBuf>,
    /// Share of the training samples in use that is held out to choose the epoch, in `[0, 0.5]`.
    pub validation: f64,
    /// Train on only this many samples, drawn by the seed, with proportionally fewer held out; 0 for all.
    pub limit: usize,
    pub augmentation: Augmentation,
    /// Subtracted from each channel, and what it is then divided by, in place of the data set's own; see
    /// [`Normalisation`](crate::backend::Normalisation).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<Vec<f32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<Vec<f32>>,
    /// The side in pixels of the squares that pictures of `image-folder` and `tiny-imagenet` become, if they are resized.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<u32>,
    /// How event recordings become frames; absent for other data.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub events: Option<Integration>,
    /// The folder for integrated recordings, if not the usual one; not part of a configuration.
    #[serde(skip)]
    pub cache_dir: Option<PathBuf>,
}

impl Default for DataSpec {
    fn default() -> Self {
        Self {
            source: DataSource::Digits,
            dir: None,
            validation: 0.1,
            limit: 0,
            augmentation: Augmentation::default(),
            mean: None,
            std: None,
            image_size: None,
            events: None,
            cache_dir: None,
        }
    }
}

impl DataSpec {
    /// Refuses means and deviations that do not fit the channels.
    fn check_normalisation(&self, channels: usize) -> Result<()> {
        for (name, values) in [("mean", &self.mean), ("std", &self.std)] {
            let Some(values) = values else { continue };
            if values.len() != channels {
                bail_input!(
                    "data {name} = {values:?} has {} values, but the samples have {channels} channels; give one for each",
                    values.len()
                );
            }
            if !values.iter().all(|value| value.is_finite() && (name == "mean" || *value > 0.0)) {
                let above = if name == "mean" { "" } else { " above 0" };
                bail_input!("data {name} = {values:?} must be finite numbers{above}");
            }
        }
        Ok(())
    }
}

impl Config {
    /// Reads a configuration and refuses unknown keys.
    ///
    /// # Errors
    /// One sentence that names the file and the key or value.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path, MOST_SETTINGS)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Like [`Config::read`], from text that `name` stands for in errors.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        parse_checked(Document::Configuration, text, name)
    }

    /// From a table whose parts were checked when they were read; `name` stands for it in errors.
    pub fn from_table(table: &toml::Table, name: &str) -> Result<Self> {
        let value = toml::Value::Table(table.clone()).try_into();
        value.map_err(|e: toml::de::Error| input_error!("{name}: {}", e.message().trim_end()))
    }

    /// Whether both describe the same training; the location of the data does not matter.
    pub fn same_training(&self, other: &Self) -> bool {
        let DataSpec { dir, cache_dir, .. } = other.data.clone();
        let here = DataSpec { dir, cache_dir, ..self.data.clone() };
        Self { data: here, ..self.clone() } == *other
    }

    /// As complete TOML: every default is written out.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("every field has a TOML form")
    }

    /// As a TOML table, with numbers as written rather than widened from 32 bits.
    pub fn to_table(&self) -> toml::Table {
        toml::from_str(&self.to_toml()).expect("TOML that was just written")
    }

    /// Checks the configuration against the data and infers every extent of the network.
    pub fn plan(&self, data: &Dataset) -> Result<Plan> {
        self.training.validate()?;
        self.bounds.validate()?;
        self.check_writable()?;
        let shape = data.train.shape;
        self.data.augmentation.validate(shape)?;
        if self.data.augmentation.auto_augment && data.full_scale != 255.0 {
            bail_input!(
                "auto_augment is for images with bytes from 0 to 255, but those of {} end at {}; leave it out",
                data.name,
                data.full_scale
            );
        }
        self.data.check_normalisation(shape.channels)?;
        for (name, value) in [("mse", self.loss.mse), ("label_smoothing", self.loss.label_smoothing)] {
            if !(0.0..=1.0).contains(&value) {
                bail_input!("loss {name} {value} must be between 0 and 1");
            }
        }
        match self.network.input {
            InputMode::Direct if shape.frames > 1 => bail_input!(
                "{} has {} frames a sample, but the network reads one image (input = \"direct\"); set input = \"frames\"",
                data.name,
                shape.frames
            ),
            InputMode::Frames if shape.frames != self.network.steps => bail_input!(
                "{} has {} frames a sample, but the network has {} steps and reads a frame each; set steps = {} or input = \"direct\"",
                data.name,
                shape.frames,
                self.network.steps,
                shape.frames
            ),
            _ => {}
        }
        let mut plan = Plan::new(&self.network, Volume { h: shape.height, w: shape.width, c: shape.channels })?;
        plan.recompute = self.training.memory == MemoryUse::Low;
        if plan.classes != data.classes() {
            bail_input!("the readout has {} classes, but {} has {}", plan.classes, data.name, data.classes());
        }
        Ok(plan)
    }

    /// Indices of the samples to train on and of those held out; the share of held-out samples also holds under a limit.
    ///
    /// # Errors
    /// If the share cannot be held out.
    pub fn parts(&self, labels: &[u16]) -> Result<(Vec<u32>, Vec<u32>)> {
        let DataSpec { validation: share, limit, .. } = self.data;
        let (training, validation) = hold_out(labels, share, self.seed)?;
        if limit == 0 || limit >= training.len() {
            return Ok((training, validation));
        }
        let some_of = |samples: &[u32], count| {
            let mut some = epoch_order(samples, self.seed, 0);
            some.truncate(count);
            some.sort_unstable();
            some
        };
        // With n samples trained on, the share of (n + held) is held out. At least one sample chooses the epoch.
        let held = if share > 0.0 { ((limit as f64 * share / (1.0 - share)).round() as usize).max(1) } else { 0 };
        Ok((some_of(&training, limit), some_of(&validation, held)))
    }

    /// Like [`Config::parts`], for a training.
    ///
    /// # Errors
    /// Also if there are fewer training samples than a batch takes.
    pub fn split(&self, labels: &[u16]) -> Result<(Vec<u32>, Vec<u32>)> {
        let (training, validation) = self.parts(labels)?;
        let batch = self.training.batch;
        if training.len() < batch {
            bail_input!("batch {batch} is larger than the {} training samples; use a smaller batch", training.len());
        }
        if batch == 1 && self.data.augmentation.mixup > 0.0 {
            bail_input!("mixup mixes the samples of a batch in pairs, but batch is 1; use a larger batch");
        }
        Ok((training, validation))
    }

    /// Refuses values that `config.toml` or the f32 of a checkpoint cannot hold.
    fn check_writable(&self) -> Result<()> {
        for (name, value) in [("seed", self.seed), ("limit", self.data.limit as u64)] {
            if value > i64::MAX as u64 {
                bail_input!("{name} {value} must be at most {}, the largest number of TOML", i64::MAX);
            }
        }
        if let Some(dir) = self.data.dir.as_ref().filter(|dir| dir.to_str().is_none()) {
            bail_input!("the data's path {} is not UTF-8, so config.toml cannot hold it; rename it", dir.display());
        }
        for (name, pair) in [("left", self.bounds.left), ("right", self.bounds.right)] {
            if !pair.iter().all(|&width| (width as f32).is_normal()) {
                bail_input!("bounds {name} = {pair:?} must be between {} and {}", f32::MIN_POSITIVE, f32::MAX);
            }
        }
        Ok(())
    }

    /// The bounds' specification for AdaLi; the rectangle's bounds never move.
    pub fn effective_bounds(&self) -> Option<BoundsSpec> {
        match self.network.surrogate.kind {
            SurrogateKind::Adali => Some(self.bounds),
            _ => None,
        }
    }

    /// The surrogate.
    pub fn surrogate(&self) -> Surrogate {
        self.network.surrogate
    }
}

/// Parses TOML into `V` after checking every key of the `document`; `name` stands for the text in errors.
pub fn parse_checked<V: for<'de> Deserialize<'de>>(document: Document, text: &str, name: &str) -> Result<V> {
    schema::check(document, text, name)?;
    toml::from_str(text).map_err(|e| input_error!("{name}: {}", e.message().trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::presets::{Preset, Size};

    fn config() -> Config {
        Config {
            seed: 7,
            data: DataSpec::default(),
            training: TrainingSpec::default(),
            loss: LossSpec::default(),
            bounds: BoundsSpec::default(),
            network: Preset::Digits.network(Volume { h: 8, w: 8, c: 1 }, 10, &Size::default()),
        }
    }

    #[test]
    fn a_configuration_survives_its_file() {
        for preset in [Preset::Digits, Preset::Csnn, Preset::Vgg11, Preset::DvsGestureNet] {
            let network = preset.network(Volume { h: 128, w: 128, c: 2 }, 11, &Size::default());
            let written = Config { network, ..config() };
            assert_eq!(Config::parse(&written.to_toml(), "x").unwrap(), written);
        }
    }

    #[test]
    fn the_held_out_part_is_its_share_of_what_is_used() {
        let labels: Vec<u16> = (0..1000).map(|i| i % 10).collect();
        let mut cases = 0;
        for share in [0.0, 0.1, 0.25, 0.5] {
            let with = |limit| {
                let data = DataSpec { validation: share, limit, ..DataSpec::default() };
                Config { data, ..config() }.parts(&labels).unwrap()
            };
            let (all, all_held) = with(0);
            assert_eq!((all.len() + all_held.len(), all_held.len()), (1000, (1000.0 * share) as usize));
            for limit in [1, 4, 90, 300] {
                let (training, held) = with(limit);
                assert_eq!(training.len(), limit);
                let used = (limit + held.len()) as f64;
                assert!((held.len() as f64 - share * used).abs() < 1.0, "{} of {used} at {share}", held.len());
                assert_eq!(held.is_empty(), share == 0.0);
                // A subset of what a run of an older version held out: no sample moves between the two parts.
                assert!(training.is_sorted() && training.iter().all(|sample| all.binary_search(sample).is_ok()));
                assert!(held.is_sorted() && held.iter().all(|sample| all_held.binary_search(sample).is_ok()));
                cases += 1;
            }
            assert_eq!(
                (with(1000), with(all.len())),
                ((all.clone(), all_held.clone()), (all.clone(), all_held.clone()))
            );
        }
        assert_eq!(cases, 16);
        assert_eq!(
            Config { data: DataSpec { limit: 90, ..DataSpec::default() }, ..config() }.parts(&labels).unwrap().1.len(),
            10
        );
    }

    #[test]
    fn a_batch_fits_the_samples_and_mixup() {
        let split = |batch, mixup| {
            let data = DataSpec { augmentation: Augmentation { mixup, ..Augmentation::NONE }, ..DataSpec::default() };
            let training = TrainingSpec { batch, ..TrainingSpec::default() };
            Config { data, training, ..config() }.split(&[0; 20])
        };
        assert!(split(1, 0.0).is_ok() && split(2, 0.5).is_ok());
        for (refused, part) in [(split(19, 0.0), "larger than the 18"), (split(1, 0.5), "mixup mixes")] {
            let error = refused.unwrap_err();
            assert!(error.is::<crate::error::InputError>() && error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn normalisation_and_augmentation_fit_the_samples() {
        let data = crate::data::load(DataSource::Digits, None).unwrap();
        let with = |mean: Option<&[f32]>, std: Option<&[f32]>, auto_augment| {
            let augmentation = Augmentation { auto_augment, ..Augmentation::NONE };
            let [mean, std] = [mean, std].map(|values| values.map(<[f32]>::to_vec));
            Config { data: DataSpec { mean, std, augmentation, ..DataSpec::default() }, ..config() }
        };
        let given = with(Some(&[0.25]), Some(&[0.5]), false);
        given.plan(&data).unwrap();
        assert_eq!(Config::parse(&given.to_toml(), "x").unwrap(), given);
        let normalisation = crate::train::evaluate::normalisation(&given.data, &data);
        assert_eq!(normalisation.table()[..2], [-0.5, 2.0 * (1.0 / data.full_scale - 0.25)]);
        let own = crate::train::evaluate::normalisation(&config().data, &data);
        assert_eq!((own.mean, own.std), (data.mean.clone(), data.std.clone()));
        for (bad, part) in [
            (
                with(Some(&[0.1; 3]), None, false),
                "mean = [0.1, 0.1, 0.1] has 3 values, but the samples have 1 channels",
            ),
            (with(None, Some(&[]), false), "std = [] has 0 values"),
            (with(None, Some(&[0.0]), false), "std = [0.0] must be finite numbers above 0"),
            (with(Some(&[f32::NAN]), None, false), "mean = [NaN] must be finite numbers"),
            (with(None, None, true), "but those of digits end at 16"),
        ] {
            let error = bad.plan(&data).unwrap_err();
            assert!(error.is::<crate::error::InputError>() && error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn misspelt_keys_are_named() {
        let text = config().to_toml();
        for (good, bad, path) in [
            ("epochs", "epoks", "training.epoks; did you mean epochs?"),
            ("kernel = 3", "kernel = 3\nkernal = 3", "network.layers[0] (conv).kernal; did you mean kernel?"),
            ("seed", "seeed", "line 1: nothing is called seeed; did you mean seed?"),
        ] {
            let error = Config::parse(&text.replacen(good, bad, 1), "x.toml").unwrap_err().to_string();
            assert!(error.contains(path) && error.contains("x.toml"), "{error}");
        }
    }
}
