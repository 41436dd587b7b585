//! `adali info`

use super::options::{Device, DeviceOptions, on_device};
use super::{End, is_quiet, say};
use crate::backend::Storage;
use crate::backend::gpu::cuda::Cuda;
use crate::bail_input;
use crate::bench::table::Table;
use crate::data::{DataSource, find};
use crate::kernels::sass::{Class, Loop, main_loops};
use crate::kernels::{ADVICE, COMPILER, MODULES, REPORT, Resources};
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

#[derive(Args)]
#[command(after_long_help = AFTER_HELP)]
pub struct InfoArguments {
    /// Look for data sets in this folder too [default: only in the usual places].
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<PathBuf>,
    /// List the CUDA kernels in this program: registers, spills, shared memory, occupancy.
    #[arg(long)]
    kernels: bool,
    /// Count the machine instructions in the main loops of the kernels whose name contains NAME [default: none].
    #[arg(long, value_name = "NAME", conflicts_with = "kernels")]
    sass: Option<String>,
    /// Architecture of --sass.
    #[arg(long, value_name = "ARCH", default_value = "90")]
    arch: String,
    /// Print the result as one line of JSON and nothing else.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceOptions,
}

const AFTER_HELP: &str = "\
The table of --kernels, by kernel and architecture, as the compiler reports it:
  registers  32-bit registers per thread, at most 255; a multiprocessor (SM)
             has 65536
  spill      bytes per thread in slow local memory, for want of registers; 0, or
             the build fails, except in kernels named _naive
  shared     bytes of static shared memory per block; a launch may add to it
  threads    the most threads a block may have (its launch bound)
  occupancy  warps that an SM holds at a time with blocks of that size, of those
  at most    that it could, and what sets the limit; less where a launch adds
             shared memory. Low is not a problem in itself: registers that hold
             a tile of the result help more than waiting warps

The table of --sass (it needs cuobjdump, which make cuda fetches) counts the
instructions of the innermost loop with the most matrix instructions, or of the
longest loop; of the whole kernel where there is no loop. lds and sts load from
and store to shared memory, ldg and stg global memory.

Examples:
  adali info                          devices and data sets
  adali info --kernels                the table
  adali info --kernels --json         the same for programs
  adali info --sass conv_lif_forward  the instructions of these kernels";

pub fn run(arguments: InfoArguments) -> Result<End> {
    match (arguments.kernels, arguments.json) {
        (_, json) if arguments.sass.is_some() => {
            loops(arguments.sass.as_deref().unwrap_or_default(), &arguments.arch, json)?;
        }
        (true, true) => say(kernels_json())?,
        (true, false) => kernel_table()?,
        (false, json) => devices_and_data(&arguments.device, arguments.data_dir.as_deref(), json)?,
    }
    Ok(End::Done)
}

fn devices_and_data(device: &DeviceOptions, data_dir: Option<&Path>, json: bool) -> Result<()> {
    let cards = Cuda::names();
    // Driver problems are reported on a separate line.
    let processor = match (device.device, &cards) {
        (Device::Auto, Err(_)) => device.on_cpu()?.describe(),
        _ => on_device!(device, |backend| backend.describe()),
    };
    let sources: Vec<_> = DataSource::value_variants()
        .iter()
        .map(|&source| {
            let found = data_dir.and_then(|dir| find(source, Some(dir))).or_else(|| find(source, None));
            (source, found.map(|found| found.to_string()))
        })
        .collect();
    let unusable = cards.as_ref().err().map(|error| format!("{error:#}"));
    let cards = cards.unwrap_or_default().into_iter().enumerate().map(|(i, name)| format!("cuda:{i} ({name})"));
    let devices: Vec<String> = std::iter::once(processor).chain(cards).collect();
    if json {
        let data: serde_json::Map<_, _> =
            sources.iter().map(|(source, found)| (source.name().to_string(), found.clone().into())).collect();
        return say(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "devices": devices,
            "cuda_error": unusable,
            "data": data,
        }));
    }
    if is_quiet() {
        return Ok(());
    }
    say(format!("adali {}", env!("CARGO_PKG_VERSION")))?;
    for device in devices {
        say(format!("device         {device}"))?;
    }
    if let Some(error) = unusable {
        say(format!("cuda           none: {error}"))?;
    }
    match COMPILER {
        Some(compiler) => {
            say(format!("kernels        {} CUDA modules, {compiler} (--kernels lists them)", MODULES.len()))?
        }
        None => say(format!("kernels        none: {ADVICE}"))?,
    }
    for (source, found) in sources {
        let found = found.unwrap_or_else(|| format!("not found: {}", source.advice()));
        say(format!("{:14} {found}", source.name()))?;
    }
    Ok(())
}

fn kernel_table() -> Result<()> {
    if is_quiet() {
        return Ok(());
    }
    let Some(compiler) = COMPILER else {
        return say(format!("kernels  none: {ADVICE}"));
    };
    say(format!("{} modules, {compiler}", MODULES.len()))?;
    let width = REPORT.iter().map(|kernel| kernel.kernel.len()).max().unwrap_or(0).max("kernel".len());
    say(format!("{:width$}  arch    registers  spill  shared  threads  occupancy at most", "kernel"))?;
    for kernel in REPORT {
        let Resources { kernel: name, arch, registers, shared, .. } = kernel;
        let arch = format!("sm_{arch}");
        let spill = kernel.local_bytes();
        let threads = kernel.threads.map_or("-".to_string(), |threads| threads.to_string());
        let occupancy = kernel.occupancy(0).map_or("-".to_string(), |occupancy| {
            let (percent, limit) = (100.0 * occupancy.fraction(), occupancy.limit.name());
            format!("{percent:5.1} %  {} of {} warps, {limit}", occupancy.warps, occupancy.max_warps)
        });
        say(format!("{name:width$}  {arch:6}  {registers:9}  {spill:5}  {shared:6}  {threads:>7}  {occupancy}"))?;
    }
    Ok(())
}

/// The main loops of the kernels whose name contains `part`.
fn loops(part: &str, arch: &str, json: bool) -> Result<()> {
    let wanted = |kernel: &&Resources| kernel.kernel.contains(part) && kernel.arch == arch;
    let modules: BTreeSet<&str> = REPORT.iter().filter(wanted).map(|kernel| kernel.module).collect();
    if modules.is_empty() {
        bail_input!(
            "this program has no kernel with {part:?} in its name for sm_{arch}; `adali info --kernels` lists them"
        );
    }
    let mut found = BTreeMap::new();
    for module in MODULES.iter().filter(|module| modules.contains(module.name)) {
        found.extend(main_loops(module, arch)?.into_iter().filter(|(kernel, _)| kernel.contains(part)));
    }
    if json {
        let kernel = |(name, main): (String, Loop)| {
            let classes = main.classes.iter().map(|(class, count)| (class.name().to_string(), Value::from(*count)));
            let whole = json!({ "loop": main.loops, "instructions": main.instructions() });
            let counts = classes.chain(whole.as_object().expect("it is one").clone());
            (name, Value::Object(counts.collect()))
        };
        return say(Value::Object(found.into_iter().map(kernel).collect()));
    }
    if is_quiet() {
        return Ok(());
    }
    let columns = Class::ALL.map(Class::name);
    let mut table = Table::new(&[&["kernel", "", "all"][..], &columns[..]].concat());
    for (name, main) in found {
        let kind = if main.loops { "loop" } else { "whole" };
        let counts = Class::ALL.iter().map(|&class| main.count(class).to_string());
        table.row([name, kind.into(), main.instructions().to_string()].into_iter().chain(counts));
    }
    say(table.plain().trim_end())
}

fn kernels_json() -> Value {
    let kernels: Vec<Value> = REPORT
        .iter()
        .map(|kernel| {
            let occupancy = kernel.occupancy(0);
            json!({
                "kernel": kernel.kernel,
                "module": kernel.module,
                "arch": format!("sm_{}", kernel.arch),
                "registers": kernel.registers,
                "stack_bytes": kernel.stack,
                "spill_store_bytes": kernel.spill_stores,
                "spill_load_bytes": kernel.spill_loads,
                "static_shared_bytes": kernel.shared,
                "constant_bytes": kernel.constant,
                "threads": kernel.threads,
                "blocks_per_sm": occupancy.map(|occupancy| occupancy.blocks),
                "occupancy": occupancy.map(|occupancy| occupancy.fraction()),
                "occupancy_limit": occupancy.map(|occupancy| occupancy.limit.name()),
            })
        })
        .collect();
    json!({ "version": env!("CARGO_PKG_VERSION"), "compiler": COMPILER, "kernels": kernels })
}
