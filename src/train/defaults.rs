//! What is trained if options say nothing, and networks by name.

use crate::autotune::BoundsSpec;
use crate::backend::LossSpec;
use crate::bail_input;
use crate::data::{DataSource, Dataset, SampleShape};
use crate::files::{MOST_SETTINGS, read_text};
use crate::network::Volume;
use crate::network::presets::{Preset, Size};
use crate::network::spec::{InputMode, NetworkSpec};
use crate::train::Config;
use crate::train::config::{DataSpec, parse_checked};
use crate::train::optimizer::{Optimizer, TrainingSpec};
use crate::train::schema::{Document, words};
use anyhow::{Context, Result};
use std::path::Path;

/// Weight of the mean squared error in the loss for event recordings \[authors: their mix\].
const EVENTS_MSE: f64 = 0.05;

/// The default learning rate of an optimiser.
pub fn usual_rate(optimizer: Optimizer) -> f64 {
    match optimizer {
        Optimizer::Sgd => 0.1,
        Optimizer::Adam | Optimizer::Adamw => 0.001,
    }
}

/// The default network of a data set.
pub fn usual_preset(source: DataSource) -> Preset {
    match source {
        DataSource::Digits => Preset::Digits,
        DataSource::Frames | DataSource::DvsGesture => Preset::DvsGestureNet,
        DataSource::Cifar10Dvs => Preset::Vgg11,
        _ => Preset::Conv2,
    }
}

impl Config {
    /// The default configuration for a data set: its default network and the default options.
    ///
    /// # Errors
    /// If the network does not fit the data.
    pub fn for_data(spec: DataSpec, data: &Dataset) -> Result<Self> {
        let network = preset_network(usual_preset(spec.source), data, &Size::default())?;
        Ok(defaults(spec, network))
    }
}

/// The default configuration for this data and network.
pub fn defaults(data: DataSpec, network: NetworkSpec) -> Config {
    let training = match data.source {
        DataSource::Digits | DataSource::DvsGesture => TrainingSpec { batch: 32, ..TrainingSpec::default() },
        _ => TrainingSpec::default(),
    };
    let mse = if data.source.is_events() { EVENTS_MSE } else { LossSpec::default().mse };
    let loss = LossSpec { mse, ..LossSpec::default() };
    Config { seed: 0, data, training, loss, bounds: BoundsSpec::default(), network }
}

/// A preset fitted to the data.
pub fn preset_network(preset: Preset, data: &Dataset, size: &Size) -> Result<NetworkSpec> {
    preset_for(preset, data.train.shape, data.classes(), size)
}

/// A preset fitted to samples of `shape`: frames determine the input mode and the steps.
pub fn preset_for(preset: Preset, shape: SampleShape, classes: usize, size: &Size) -> Result<NetworkSpec> {
    size.check(preset)?;
    let volume = Volume { h: shape.height, w: shape.width, c: shape.channels };
    let mut network = preset.network(volume, classes, size);
    if shape.frames > 1 {
        (network.input, network.steps) = (InputMode::Frames, shape.frames);
    } else {
        network.input = InputMode::Direct;
    }
    Ok(network)
}

/// What a TOML file says about a network.
pub enum Written {
    Network(NetworkSpec),
    /// A configuration, such as that of a run.
    Configuration(Box<Config>),
}

/// Reads a network or a configuration, which has the key `network`.
///
/// # Errors
/// If there is no such file, or it is neither; the message names the key.
pub fn written_network(path: &Path) -> Result<Written> {
    let name = path.display().to_string();
    if !path.exists() {
        bail_input!(
            "{name} does not exist; name a preset ({}), a TOML file or a run folder",
            words::<Preset>().join(", ")
        );
    }
    let text = read_text(path, MOST_SETTINGS)?;
    // What is no TOML at all is explained as a network.
    let table: toml::Table = toml::from_str(&text).unwrap_or_default();
    if table.contains_key("network") {
        return Ok(Written::Configuration(Box::new(Config::parse(&text, &name)?)));
    }
    Ok(Written::Network(parse_checked(Document::Network, &text, &name)?))
}

/// The network in a file named in place of a preset.
pub fn network_file(name: &str) -> Result<NetworkSpec> {
    let path = Path::new(name);
    if !path.exists() {
        bail_input!("--network {name} is neither a preset ({}) nor a file", words::<Preset>().join(", "));
    }
    let text = read_text(path, MOST_SETTINGS).with_context(|| format!("--network {name}"))?;
    parse_checked(Document::Network, &text, name)
}
