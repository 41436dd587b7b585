//! `adali compare --cost`

use super::super::{End, command_line, is_quiet, note, say, signals};
use super::CompareArguments;
use crate::backend::Backend;
use crate::bail_input;
use crate::compare::operations::{SHAPES, operation_costs};
use crate::compare::report;
use crate::files::output::Output;
use anyhow::Result;
use std::path::PathBuf;

/// Times single operations, and writes the table.
pub fn costs<B: Backend>(backend: &B, arguments: &CompareArguments) -> Result<End> {
    let rate = arguments.firing_rate;
    if !(rate > 0.0 && rate < 1.0) {
        bail_input!("--firing-rate {rate} must be a share above 0 and below 1");
    }
    let output = |folder: &PathBuf| {
        std::fs::create_dir_all(folder).map_err(|e| crate::input_error!("cannot make {}: {e}", folder.display()))?;
        Output::new("--out", &folder.join("cost.json"), arguments.train.force, &[])
    };
    let out = arguments.train.out.as_ref().map(output).transpose()?;
    let stop = signals::watch()?;
    let quiet = is_quiet() || arguments.train.json;
    if !quiet {
        say(format!("device   {}", arguments.train.device.describe(backend)))?;
    }
    let mut all = Vec::new();
    for shape in SHAPES {
        let Some(costs) = operation_costs(backend, shape, rate, stop)? else { break };
        if !quiet {
            say(format!("\n{}", report::operation_tables(&costs)))?;
        }
        all.push(costs);
    }
    let measured = all.len();
    let json = serde_json::json!({
        "command": command_line(),
        "version": env!("CARGO_PKG_VERSION"),
        "machine": report::machine(),
        "device": backend.describe(),
        "shapes": all,
    });
    if let Some(out) = &out {
        out.write((serde_json::to_string_pretty(&json)? + "\n").as_bytes())?;
    }
    if arguments.train.json {
        say(&json)?;
    }
    if measured < SHAPES.len() {
        let kept = out.map_or(String::new(), |out| format!("; {} has what was measured", out.path().display()));
        note(format_args!("interrupted after {measured} of {} shapes{kept}", SHAPES.len()));
        return Ok(End::Interrupted);
    }
    Ok(End::Done)
}
