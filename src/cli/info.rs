//! `adali info`

use super::options::DeviceOptions;
use super::{End, say};
use crate::backend::Backend;
use crate::data::{DataSource, find};
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

#[derive(Args)]
pub struct InfoArguments {
    /// Look for data sets in this folder too.
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

pub fn run(arguments: InfoArguments) -> Result<End> {
    let backend = arguments.device.open()?;
    let sources: Vec<_> = DataSource::value_variants()
        .iter()
        .map(|&source| {
            let found =
                arguments.data_dir.as_deref().and_then(|dir| find(source, Some(dir))).or_else(|| find(source, None));
            (source, found.map(|found| found.to_string()))
        })
        .collect();
    if arguments.json {
        let data: serde_json::Map<_, _> =
            sources.iter().map(|(source, found)| (source.name().to_string(), found.clone().into())).collect();
        let info = serde_json::json!({
            "version": env!("CARGO_PKG_VERSION"),
            "devices": [backend.describe()],
            "data": data,
        });
        say(info)?;
        return Ok(End::Done);
    }
    say(format!("adali {}", env!("CARGO_PKG_VERSION")))?;
    say(format!("device         {}", backend.describe()))?;
    for (source, found) in sources {
        let found = found.unwrap_or_else(|| format!("not found: {}", source.advice()));
        say(format!("{:14} {found}", source.name()))?;
    }
    Ok(End::Done)
}
