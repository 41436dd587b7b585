//! `adali eval`

use super::data::{DataOptions, load_data};
use super::options::{DeviceOptions, on_device, open_trained};
use super::progress::Bar;
use super::{End, is_quiet, say};
use crate::backend::Backend;
use crate::bail_input;
use crate::data::Samples;
use crate::network::Model;
use crate::train::Scored;
use crate::train::checkpoint::load_model;
use crate::train::evaluate::{normalisation, sample_scores};
use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Which samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    Test,
    /// Held out of the training samples, as when it was trained.
    Validation,
    /// Trained on.
    Training,
}

#[derive(Args)]
pub struct EvalArguments {
    /// Run folder, or a model.safetensors.
    run: PathBuf,
    /// Samples to evaluate.
    #[arg(long, value_enum, default_value = "test")]
    part: Part,
    /// Samples per batch; it changes only time and memory.
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Print the result as one line of JSON and nothing else.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    data: DataOptions,
    #[command(flatten)]
    device: DeviceOptions,
}

pub fn run(arguments: EvalArguments) -> Result<End> {
    on_device!(arguments.device, |backend| run_on(backend, arguments))
}

fn run_on<B: Backend>(backend: B, arguments: EvalArguments) -> Result<End> {
    let checkpoint = open_trained(&arguments.run)?;
    let mut config = checkpoint.config()?;
    arguments.data.change(&mut config);
    if arguments.batch == 0 || arguments.batch > 1 << 16 {
        bail_input!("batch {} must be between 1 and 65536", arguments.batch);
    }
    let data = load_data(&config.data)?;
    let plan = config.plan(&data)?;
    let batch = arguments.batch.min(data.train.len().max(data.test.len()));
    let mut model = Model::new(backend, &config.network, plan, batch, config.seed)?;
    load_model(&checkpoint, &mut model)?;
    let normalisation = normalisation(&config.data, &data);
    let (samples, indices): (Samples, Vec<u32>) = match arguments.part {
        Part::Test => {
            let all = (0..data.test.len() as u32).collect();
            (data.test, all)
        }
        part => {
            let (training, validation) = config.parts(&data.train.labels)?;
            (data.train, if part == Part::Training { training } else { validation })
        }
    };
    if indices.is_empty() {
        bail_input!("no sample was held out (validation = 0); evaluate --part test or training");
    }
    let mut bar = Bar::new(1);
    let mut waiting = |done: usize, of: usize| {
        bar.scored(done, of, Scored::Test);
        ControlFlow::Continue(())
    };
    let scores = sample_scores(&mut model, samples, &normalisation, &indices, &config.loss, &mut waiting);
    bar.clear();
    // Ctrl-C ends the process, as there is nothing to save.
    let Some(scores) = scores? else { return Ok(End::Interrupted) };
    if !scores.loss.is_finite() {
        bail!("the loss is {}: weights or inputs are too large for {}", scores.loss, model.backend().describe());
    }
    if arguments.json {
        say(serde_json::to_string(&scores)?)?;
    } else if !is_quiet() {
        say(format!(
            "{} accuracy {:.2} % (loss {:.4}, {} samples of {})",
            arguments.part.to_possible_value().map(|v| v.get_name().to_string()).unwrap_or_default(),
            100.0 * scores.accuracy,
            scores.loss,
            scores.samples,
            data.name
        ))?;
    }
    Ok(End::Done)
}
