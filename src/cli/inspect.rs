//! `adali inspect`

use super::data::{DataOptions, load_data};
use super::options::{DeviceOptions, on_device, open_trained};
use super::{End, is_quiet, say};
use crate::backend::{Backend, Step};
use crate::bail_input;
use crate::data::sampling::Augmentation;
use crate::files::output::Output;
use crate::network::Model;
use crate::network::model::Pass;
use crate::network::parameters::Part as Tensor;
use crate::tensors::Tensors;
use crate::train::checkpoint::load_model;
use crate::train::evaluate::normalisation;
use crate::train::run;
use anyhow::Result;
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};

/// Which samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Source {
    Test,
    Training,
}

#[derive(Args)]
pub struct InspectArguments {
    /// Run folder, or a model.safetensors. Nothing in it is changed.
    run: PathBuf,
    /// File to write.
    #[arg(long, default_value = "inspect.safetensors", value_name = "FILE")]
    out: PathBuf,
    /// Overwrite --out.
    #[arg(long)]
    force: bool,
    /// Samples by number, such as 0,5,7 [default: the first 8].
    #[arg(long, value_delimiter = ',', value_name = "N,N,…")]
    samples: Option<Vec<u32>>,
    /// Data set part that --samples refers to.
    #[arg(long, value_enum, default_value = "test")]
    part: Source,
    /// Write the gradient of the mean loss for every parameter too.
    #[arg(long)]
    grads: bool,
    /// Use batch statistics in batch norms, as in training; running statistics are not updated, dropout is off.
    #[arg(long)]
    train_mode: bool,
    #[command(flatten)]
    data: DataOptions,
    #[command(flatten)]
    device: DeviceOptions,
}

pub fn run(arguments: InspectArguments) -> Result<End> {
    on_device!(arguments.device, |backend| run_on(backend, arguments))
}

fn run_on<B: Backend>(backend: B, arguments: InspectArguments) -> Result<End> {
    let checkpoint = open_trained(&arguments.run)?;
    let run = arguments.run.as_path();
    let own: Vec<_> = if run.is_dir() { run::FILES.map(|name| run.join(name)).into() } else { vec![run.into()] };
    let inputs: Vec<&Path> = own.iter().map(PathBuf::as_path).chain(arguments.data.data_dir.as_deref()).collect();
    let out = Output::new("--out", &arguments.out, arguments.force, &inputs)?;
    let mut config = checkpoint.config()?;
    arguments.data.change(&mut config);
    let data = load_data(&config.data)?;
    let plan = config.plan(&data)?;
    let normalisation = normalisation(&config.data, &data);
    let samples = match arguments.part {
        Source::Test => data.test,
        Source::Training => data.train,
    };
    let chosen = arguments.samples.unwrap_or_else(|| (0..samples.len().min(8) as u32).collect());
    if let Some(&bad) = chosen.iter().find(|&&i| i as usize >= samples.len()) {
        bail_input!("sample {bad} does not exist; {} has {} there, numbered from 0", data.name, samples.len());
    }
    if chosen.is_empty() || chosen.len() > 4096 {
        bail_input!("{} samples were chosen; choose 1 to 4096", chosen.len());
    }
    let mut model = Model::new(backend, &config.network, plan, chosen.len(), config.seed)?;
    load_model(&checkpoint, &mut model)?;
    let labels: Vec<u16> = chosen.iter().map(|&i| samples.labels[i as usize]).collect();
    let mut set = model.backend().set(samples.values, samples.shape, &normalisation, chosen.len())?;
    model.write_batch(&mut set, &Step::evaluate(&chosen, &labels))?;
    model.gather(&set, &Augmentation::default())?;
    let pass =
        Pass { batch_statistics: arguments.train_mode, backward: arguments.grads, membranes: true, ..Pass::default() };
    model.forward(pass)?;
    model.loss(&config.loss, arguments.grads)?;
    let loss = model.totals()?.loss / labels.len() as f64;
    if arguments.grads {
        model.backward(pass)?;
    }
    let mut tensors = collect(&model, &labels, loss, arguments.grads)?;
    tensors.describe("config", config.to_toml());
    tensors.describe("samples", format!("{chosen:?}"));
    tensors.describe("train_mode", arguments.train_mode.to_string());
    out.write_with(|out| tensors.write(out))?;
    if !is_quiet() {
        say(format!("{}: {} samples, loss {loss:.4}", out.path().display(), labels.len()))?;
    }
    Ok(End::Done)
}

/// `input`, `labels`, `logits`, `logits_per_step`, `spikes.{i}`, `membrane.{i}`, `loss`, `grad.{parameter}`.
fn collect<'a, B: Backend>(model: &'a Model<B>, labels: &[u16], loss: f64, grads: bool) -> Result<Tensors<'a>> {
    let plan = model.plan();
    let (steps, batch, classes) = (plan.steps, labels.len(), plan.classes);
    let input = plan.input;
    let mut tensors = Tensors::default();
    let image = [batch, input.c, input.h, input.w];
    let frames = [steps, batch, input.c, input.h, input.w];
    tensors.push("input", if plan.direct { &image } else { &frames }, || model.read_input());
    let numbers: Vec<i64> = labels.iter().map(|&label| label.into()).collect();
    tensors.push("labels", &[batch], || Ok(numbers));
    let per_step = model.read_logits()?;
    let mean = |i: usize| (0..steps).map(|t| per_step[t * batch * classes + i] as f64).sum::<f64>() / steps as f64;
    let logits: Vec<f32> = (0..batch * classes).map(|i| mean(i) as f32).collect();
    tensors.push("logits", &[batch, classes], || Ok(logits));
    tensors.push("logits_per_step", &[steps, batch, classes], || Ok(per_step));
    tensors.push("loss", &[1], move || Ok([loss as f32]));
    for (i, population) in model.spiking() {
        let output = population.volume;
        let shape = [steps, batch, output.c, output.h, output.w];
        let spikes = move || Ok(model.read_spikes(i)?.unwrap_or_default());
        tensors.push(format!("spikes.{}", population.index), &shape, spikes);
        let membrane = move || Ok(model.read_membrane(i)?.unwrap_or_default());
        tensors.push(format!("membrane.{}", population.index), &shape, membrane);
    }
    if grads {
        for parameter in model.parameters() {
            let read = move || parameter.read(model.backend(), Tensor::Gradient);
            tensors.push(format!("grad.{}", parameter.name), &parameter.shape, read);
        }
    }
    Ok(tensors)
}
