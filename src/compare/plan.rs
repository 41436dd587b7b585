//! What is compared: configurations by name, and seeds.

use crate::data::Dataset;
use crate::files::{MOST_SETTINGS, read_text};
use crate::network::spec::NetworkSpec;
use crate::surrogate::{Surrogate, SurrogateKind};
use crate::train::Config;
use crate::train::config::{DataSpec, parse_checked};
use crate::train::schema::Document;
use crate::{bail_input, input_error};
use anyhow::Result;
use std::path::Path;
use toml::{Table, Value};

/// Limit on configurations, and on seeds.
const MOST: usize = 1000;
const LONGEST_NAME: usize = 64;
/// The default validation accuracy whose epoch is reported.
pub const REACH: f64 = 0.9;

/// The folder of a run below its comparison.
pub fn run_folder(name: &str, seed: u64) -> String {
    format!("{name}/seed-{seed}")
}

/// A named configuration; its seed is not used.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    pub name: String,
    pub config: Config,
}

/// A comparison: each configuration is trained with each seed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    pub seeds: Vec<u64>,
    /// Share in `[0, 1]`: the epochs to this validation accuracy are reported.
    pub reach: f64,
    /// The command that started it, for the user.
    pub command: String,
    pub configurations: Vec<Configuration>,
}

impl Plan {
    /// Checks names, seeds and the accuracy to reach.
    pub fn new(seeds: Vec<u64>, reach: f64, command: String, configurations: Vec<Configuration>) -> Result<Self> {
        if configurations.is_empty() || configurations.len() > MOST {
            bail_input!("{} configurations are compared; give 1 to {MOST}", configurations.len());
        }
        if seeds.is_empty() || seeds.len() > MOST {
            bail_input!("{} seeds are compared; give 1 to {MOST}", seeds.len());
        }
        if let Some(seed) = seeds.iter().enumerate().find_map(|(i, seed)| seeds[..i].contains(seed).then_some(seed)) {
            bail_input!("seed {seed} is given twice; give each once");
        }
        if let Some(seed) = seeds.iter().find(|&&seed| seed > i64::MAX as u64) {
            bail_input!("seed {seed} must be at most {}, the largest number of TOML", i64::MAX);
        }
        if !(reach > 0.0 && reach <= 1.0) {
            bail_input!("reach {reach} must be a share above 0 and at most 1");
        }
        for (i, Configuration { name, .. }) in configurations.iter().enumerate() {
            check_name(name)?;
            // Some file systems ignore case.
            if configurations[..i].iter().any(|other| other.name.eq_ignore_ascii_case(name)) {
                bail_input!("two configurations are called {name}; give each a name of its own");
            }
        }
        Ok(Self { seeds, reach, command, configurations })
    }

    /// One configuration per surrogate, otherwise as `base`.
    pub fn of_surrogates(base: &Config, kinds: &[SurrogateKind]) -> Vec<Configuration> {
        let configuration = |&kind: &SurrogateKind| {
            let network = NetworkSpec { surrogate: Surrogate::new(kind), ..base.network.clone() };
            Configuration { name: kind.name().into(), config: Config { network, ..base.clone() } }
        };
        kinds.iter().map(configuration).collect()
    }

    /// As a complete plan file.
    pub fn to_toml(&self) -> String {
        let configurations = self.configurations.iter().map(|configuration| {
            let mut table = configuration.config.to_table();
            table.remove("seed");
            table.insert("name".into(), configuration.name.clone().into());
            Value::Table(table)
        });
        let mut table = Table::new();
        table.insert("configurations".into(), configurations.collect::<Vec<_>>().into());
        table.insert("seeds".into(), self.seeds.iter().map(|&seed| seed as i64).collect::<Vec<_>>().into());
        table.insert("reach".into(), self.reach.into());
        table.insert("command".into(), self.command.clone().into());
        toml::to_string(&table).expect("a table has a TOML form")
    }
}

impl Configuration {
    /// Checks it against the samples it will be trained on.
    ///
    /// # Errors
    /// One sentence that begins with its name.
    pub fn check(&self, data: &Dataset) -> Result<()> {
        let checked = self.config.plan(data).and_then(|_| self.config.split(&data.train.labels));
        checked.map(|_| ()).map_err(|e| input_error!("configuration {}: {e:#}", self.name))
    }
}

/// Refuses names that are not valid folder names everywhere.
fn check_name(name: &str) -> Result<()> {
    let allowed = |c: char| c.is_alphanumeric() || "-_.+=".contains(c);
    let good = name.chars().all(allowed) && name.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    if !good || name.len() > LONGEST_NAME {
        bail_input!(
            "the configuration's name {name:?} becomes a folder; use 1 to {LONGEST_NAME} letters, digits and -_.+=, a letter or digit first"
        );
    }
    Ok(())
}

/// A plan file: a base configuration whose keys are all optional, and what differs from it.
#[derive(Clone, Debug)]
pub struct PlanFile {
    /// The file's name, for errors.
    name: String,
    base: Table,
    pub seeds: Option<Vec<u64>>,
    pub reach: Option<f64>,
    pub command: Option<String>,
    /// Names, and keys that differ.
    configurations: Vec<(String, Table)>,
}

impl PlanFile {
    /// Reads a plan.
    ///
    /// # Errors
    /// One sentence that names the file and the key.
    pub fn read(path: &Path) -> Result<Self> {
        let text = read_text(path, MOST_SETTINGS)?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Like [`PlanFile::read`], from text that `name` stands for in errors.
    pub fn parse(text: &str, name: &str) -> Result<Self> {
        let mut base: Table = parse_checked(Document::Plan, text, name)?;
        let seeds = base.remove("seeds").map(Value::try_into).transpose()?;
        let reach = base.remove("reach").map(Value::try_into).transpose()?;
        let command = base.remove("command").map(Value::try_into).transpose()?;
        let Some(configurations) = base.remove("configurations") else {
            bail_input!("{name} has no configurations; add [[configurations]] with a name and what differs")
        };
        let configurations: Vec<Named> = configurations.try_into()?;
        let configurations = configurations.into_iter().map(|Named { name, differs }| (name, differs)).collect();
        Ok(Self { name: name.into(), base, seeds, reach, command, configurations })
    }

    /// The folders of its runs, relative to the comparison's; the names have been checked.
    pub fn runs(&self) -> Result<Vec<String>> {
        self.configurations.iter().try_for_each(|(name, _)| check_name(name))?;
        let seeds = self.seeds.iter().flatten();
        Ok(seeds.flat_map(|&seed| self.configurations.iter().map(move |(name, _)| run_folder(name, seed))).collect())
    }

    /// The samples that the base names.
    pub fn data(&self) -> Result<DataSpec> {
        let Some(data) = self.base.get("data") else { return Ok(DataSpec::default()) };
        data.clone().try_into().map_err(|e: toml::de::Error| input_error!("{}: data: {}", self.name, e.message()))
    }

    /// The base, with missing keys taken from `usual`.
    pub fn base(&self, usual: &Config) -> Result<Config> {
        onto(usual, &self.base, &self.name)
    }

    /// The configurations, with missing keys taken from `base`.
    pub fn configurations(&self, base: &Config) -> Result<Vec<Configuration>> {
        let configuration = |(name, table): &(String, Table)| {
            let place = format!("{}, configuration {name:?}", self.name);
            Ok(Configuration { name: name.clone(), config: onto(base, table, &place)? })
        };
        self.configurations.iter().map(configuration).collect()
    }
}

/// A configuration of a plan: its name, and the keys that differ.
#[derive(serde::Deserialize)]
struct Named {
    name: String,
    #[serde(flatten)]
    differs: Table,
}

/// `base` with the keys of `changes` replaced.
fn onto(base: &Config, changes: &Table, name: &str) -> Result<Config> {
    let mut table = base.to_table();
    merge(&mut table, changes);
    Config::from_table(&table, name)
}

fn merge(base: &mut Table, changes: &Table) {
    for (key, change) in changes {
        match (base.get_mut(key), change) {
            // A sharpness belongs to its kind of surrogate.
            (Some(Value::Table(below)), Value::Table(change))
                if !(key == "surrogate" && change.contains_key("kind")) =>
            {
                merge(below, change);
            }
            _ => {
                base.insert(key.clone(), change.clone());
            }
        }
    }
}
