//! `adali check`

use super::options::{Device, DeviceOptions, Opened, Stored};
use super::progress::target;
use super::{End, command_line, is_quiet, say, signals};
use crate::backend::Backend;
use crate::backend::gpu::Precision;
use crate::backend::gpu::cuda::Cuda;
use crate::backend::shape::Volume;
use crate::bail_input;
use crate::bench::measure::Copies;
use crate::bench::operation::Operation;
use crate::bench::shape::{LayerShape, Part};
use crate::compare::report::machine;
use crate::files::output::Output;
use crate::kernels::COMPILER;
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use serde_json::json;
use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

pub const AFTER_HELP: &str = "\
Runs every operation on random tensors of several shapes, including odd extents,
and compares the results with plain loops in f64 at random positions. A GPU is
checked in each of its precisions: f32 (plain kernels), bf16 and f16 (tensor
cores).

Run this first on a new machine. If it fails, report what --json writes: the
device, its driver, the compiler of the kernels, and each error.

Examples:
  adali check                         the first GPU, or the CPU if there is none
  adali check --device cuda:1 --json check.json

Exit codes: 0 all is right, 1 a result is wrong, 2 the device or an option
cannot be used, 130 interrupted.";

#[derive(Args)]
pub struct CheckArguments {
    /// Device to check: auto, cpu, cuda or cuda:1; auto is the first CUDA GPU, or the CPU if there is none.
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: Device,
    /// Check only this precision of a GPU [default: all].
    #[arg(long, value_enum)]
    precision: Option<Stored>,
    /// Number of threads, 0 for one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
    /// Write all results to this file, after a failure too [default: none].
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Overwrite the file of --json.
    #[arg(long)]
    force: bool,
}

/// Odd extents, words that are mostly padding, one step, several blocks, a stride, a linear layer.
const SHAPES: [LayerShape; 5] = [
    LayerShape { input: Volume { h: 7, w: 5, c: 33 }, ..LayerShape::conv(4, 2, 33, 7, 40) },
    LayerShape { stride: 2, ..LayerShape::conv(1, 3, 64, 9, 96) },
    LayerShape { kernel: 5, ..LayerShape::conv(7, 1, 17, 6, 33) },
    LayerShape::conv(2, 4, 64, 16, 64),
    LayerShape::linear(4, 64, 300, 130),
];
/// Share of neuron-steps that spike.
const RATE: f64 = 0.2;

/// One operation on one shape.
#[derive(Debug, Serialize)]
struct Checked {
    operation: String,
    variant: String,
    precision: &'static str,
    shape: String,
    /// Values that were compared; 0 if it failed.
    compared: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

pub fn run(arguments: CheckArguments) -> Result<End> {
    let json = arguments.json.as_deref().map(|path| Output::new("--json", path, arguments.force, &[])).transpose()?;
    let stop = signals::watch()?;
    let began = Instant::now();
    let mut checker = Checker { results: Vec::new(), devices: Vec::new(), stop };
    let checked = arguments.devices().and_then(|devices| checker.check_all(&devices));
    let seconds = began.elapsed().as_secs_f64();
    if let Some(json) = &json {
        json.write(checker.report(seconds, checked.as_ref().err()).to_string().as_bytes())?;
    }
    checked?;
    if checker.stopped() {
        return Ok(End::Interrupted);
    }
    let all = checker.results.len();
    let failed: Vec<_> = checker.results.iter().filter(|result| result.error.is_some()).collect();
    if let Some(Checked { operation, shape, error: Some(error), .. }) = failed.first() {
        bail!("{} of {all} checks failed, first {operation} at {shape}: {error}", failed.len());
    }
    tell(format_args!("{all} checks passed in {seconds:.1} s"))?;
    Ok(End::Done)
}

fn tell(text: std::fmt::Arguments) -> Result<()> {
    if is_quiet() { Ok(()) } else { say(text) }
}

impl CheckArguments {
    /// One opening of the device per precision.
    fn devices(&self) -> Result<Vec<DeviceOptions>> {
        let on_card = match self.device {
            Device::Cpu => false,
            Device::Auto => Cuda::has_driver(),
            Device::Cuda(_) => true,
        };
        let precisions = match self.precision {
            Some(precision) if !on_card && precision != Stored::F32 => {
                bail_input!(
                    "--precision is for GPUs, and the CPU computes in f32; leave it out, or choose a GPU with --device"
                )
            }
            Some(precision) => vec![precision],
            None if on_card => Stored::value_variants().to_vec(),
            None => vec![Stored::F32],
        };
        let of = |precision| DeviceOptions { device: self.device, precision, no_graph: true, threads: self.threads };
        Ok(precisions.into_iter().map(of).collect())
    }
}

struct Checker<'a> {
    results: Vec<Checked>,
    devices: Vec<String>,
    stop: &'a AtomicBool,
}

impl Checker<'_> {
    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn check_all(&mut self, devices: &[DeviceOptions]) -> Result<()> {
        let cpu = devices[0].on_cpu()?;
        for options in devices {
            match options.open_after(cpu)? {
                Opened::Cuda(backend) => self.check(&*backend, Precision::from(options.precision).name(), options)?,
                Opened::Cpu(backend) => return self.check(&backend, Precision::F32.name(), options),
            }
            if self.stopped() {
                break;
            }
        }
        Ok(())
    }

    /// Checks every operation on every shape, and prints one line per operation.
    fn check<B: Backend>(&mut self, backend: &B, precision: &'static str, options: &DeviceOptions) -> Result<()> {
        let device = options.describe(backend);
        tell(format_args!("device    {device}"))?;
        self.devices.push(device);
        let mut operations = Operation::all();
        operations
            .extend(Operation::surrogates().into_iter().filter(|operation| !Operation::all().contains(operation)));
        let bar = ProgressBar::with_draw_target(Some((SHAPES.len() * operations.len()) as u64), target());
        bar.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}").expect("a valid template"));
        let first = self.results.len();
        for shape in SHAPES {
            for part in Part::ALL {
                let of_part: Vec<_> = operations.iter().copied().filter(|operation| operation.part() == part).collect();
                self.check_part(backend, precision, shape, &of_part, &bar);
                if self.stopped() {
                    bar.finish_and_clear();
                    return Ok(());
                }
            }
        }
        bar.finish_and_clear();
        let mut said = HashSet::new();
        operations.iter().try_for_each(|operation| self.show(operation, &self.results[first..], &mut said))
    }

    fn check_part<B: Backend>(
        &mut self,
        backend: &B,
        precision: &'static str,
        shape: LayerShape,
        operations: &[Operation],
        bar: &ProgressBar,
    ) {
        let mut copies = Copies::new(backend, shape, operations, RATE, 1);
        for operation in operations {
            bar.set_message(operation.name());
            bar.inc(1);
            if self.stopped() {
                return;
            }
            let checked = match &mut copies {
                Ok(copies) => copies.checked(*operation).map_err(|error| format!("{error:#}")),
                Err(error) => Err(format!("its tensors cannot be made: {error:#}")),
            };
            let (compared, error) = match checked {
                Ok(None) => continue,
                Ok(Some(compared)) => (compared, None),
                Err(error) => (0, Some(error)),
            };
            let (operation, variant) = (operation.name().to_string(), operation.variant());
            self.results.push(Checked { operation, variant, precision, shape: shape.to_string(), compared, error });
        }
    }

    /// Prints an operation's results; an error that several have is printed once.
    fn show<'r>(
        &self,
        operation: &Operation,
        results: &'r [Checked],
        said: &mut HashSet<(&'r str, &'r str)>,
    ) -> Result<()> {
        let variant = operation.variant();
        let own = || results.iter().filter(|r| r.operation == operation.name() && r.variant == variant);
        if own().next().is_none() {
            return Ok(());
        }
        let name = format!("{} {variant}", operation.name());
        let failed: Vec<&Checked> = own().filter(|result| result.error.is_some()).collect();
        let compared: usize = own().map(|result| result.compared).sum();
        let verdict = if failed.is_empty() { "ok" } else { "FAILED" };
        tell(format_args!("  {:<54} {compared:>7} values  {verdict}", name.trim_end()))?;
        for Checked { shape, error, .. } in failed {
            let error = error.as_deref().unwrap_or_default();
            if said.insert((shape, error)) {
                tell(format_args!("    at {shape}: {error}"))?;
            }
        }
        Ok(())
    }

    /// With what kept the checks from their end, if something did.
    fn report(&self, seconds: f64, error: Option<&anyhow::Error>) -> serde_json::Value {
        let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        json!({
            "command": command_line(),
            "version": env!("CARGO_PKG_VERSION"),
            "machine": machine(),
            "devices": self.devices,
            "gpus": Cuda::names().unwrap_or_default(),
            "compiler": COMPILER,
            "time": time.map_or(0, |time| time.as_secs()),
            "seconds": seconds,
            "interrupted": self.stopped(),
            "error": error.map(|error| format!("{error:#}")),
            "results": self.results,
        })
    }
}
