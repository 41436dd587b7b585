//! `model.safetensors` (parameters, running statistics, bounds) and `state.safetensors` (everything a resume needs).

use crate::autotune::{BINS, Histogram};
use crate::backend::{Backend, Histograms, Totals};
use crate::files::write_whole_with;
use crate::metrics::Best;
use crate::network::parameters::Part;
use crate::network::{Model, Plan};
use crate::surrogate::Bounds;
use crate::tensors::{TensorFile, Tensors};
use crate::train::bounds::BoundsTracker;
use crate::train::config::Config;
use crate::{bail_input, input_error};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::path::Path;

const MODEL_FORMAT: &str = "adali-model-1";
const STATE_FORMAT: &str = "adali-state-1";
/// Larger than any checkpoint of ours; a larger file was named by mistake.
const MAX_BYTES: u64 = 1 << 36;

/// A checkpoint file, whose tensors are read on demand.
pub struct Checkpoint(TensorFile<'static>);

impl Checkpoint {
    /// Opens a file whose metadata declare `format`.
    fn open(path: &Path, format: &str) -> Result<Self> {
        let file = TensorFile::open_file(path, MAX_BYTES)?;
        if file.descriptions().get("format").map(String::as_str) != Some(format) {
            bail_input!("{} is not a checkpoint of this program: its metadata lack the format {format}", file.name);
        }
        Ok(Self(file))
    }

    /// An entry of its metadata.
    pub fn description(&self, key: &str) -> Result<String> {
        let value = self.0.descriptions().remove(key);
        value.ok_or_else(|| input_error!("{} lacks {key} in its metadata", self.0.name))
    }

    /// An entry of its metadata, parsed as JSON.
    fn json<V: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<V> {
        serde_json::from_str(&self.description(key)?)
            .map_err(|e| input_error!("{}: {key} in its metadata cannot be read: {e}", self.0.name))
    }

    /// The configuration it was trained with.
    pub fn config(&self) -> Result<Config> {
        Config::parse(&self.description("config")?, &format!("the configuration in {}", self.0.name))
    }
}

/// Adds a tensor that must be finite throughout: the file it would replace is worth more than a broken one.
fn push_finite<'a>(
    tensors: &mut Tensors<'a>,
    name: String,
    shape: &[usize],
    read: impl FnOnce() -> Result<Vec<f32>> + 'a,
) {
    let described = name.clone();
    tensors.push(name, shape, move || {
        let values = read()?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            bail!("{described} holds {} at {i}; lower the learning rate or clip gradients", values[i]);
        }
        Ok(values)
    });
}

/// Adds the parameters, running statistics and bounds.
fn push_model<'a, B: Backend>(tensors: &mut Tensors<'a>, model: &'a Model<B>) -> Result<()> {
    let backend = model.backend();
    for (i, (population, parameters)) in model.populations().enumerate() {
        for p in parameters.trained() {
            push_finite(tensors, p.name.clone(), &p.shape, || p.read(backend, Part::Value));
        }
        for norm in parameters.batch_norms() {
            let (Some(running), channels) = (&norm.running, norm.channels()) else { continue };
            for (part, floats) in [("running_mean", &running.mean), ("running_var", &running.variance)] {
                let name = format!("{}.{part}", norm.name);
                push_finite(tensors, name, &[channels], move || backend.read_vector(floats, channels));
            }
        }
        if population.spiking {
            push_bounds(tensors, format!("{}.bounds", population.label()), &model.bounds(i)?);
        }
    }
    Ok(())
}

/// Adds bounds: rows of left, right, alpha, beta, one for the layer or one per channel.
fn push_bounds(tensors: &mut Tensors, name: String, bounds: &[Bounds]) {
    let values: Vec<f32> = bounds.iter().flat_map(|b| [b.left, b.right, b.alpha, b.beta]).collect();
    tensors.push(name, &[bounds.len(), 4], || Ok(values));
}

/// Refuses a model whose weights have other shapes than the convolutions of `plan`: its samples were of another size.
pub fn check_shapes(checkpoint: &Checkpoint, plan: &Plan) -> Result<()> {
    let file = &checkpoint.0;
    for convolution in plan.convolutions() {
        let (name, wanted) = (format!("{}.weight", convolution.name), convolution.weight_shape());
        let found = &file.info(&name)?.shape;
        if *found != wanted {
            bail_input!(
                "{}: {name} is {found:?}, but for samples of {} it would be {wanted:?}; give the size of its samples with \
                 --input",
                file.name,
                plan.input
            );
        }
    }
    Ok(())
}

/// Loads the parameters, running statistics and bounds from a checkpoint.
pub fn load_model<B: Backend>(checkpoint: &Checkpoint, model: &mut Model<B>) -> Result<()> {
    let file = &checkpoint.0;
    let backend = model.backend().clone();
    let largest = backend.largest_weight();
    let mut bounds = Vec::new();
    for (i, (population, parameters)) in model.populations_mut().enumerate() {
        for p in parameters.trained_mut() {
            let values = file.floats(&p.name, &p.shape)?;
            // A weight norm rescales its weights.
            let most = if p.is_multiplied { largest } else { f32::MAX };
            if let Some(value) = values.iter().find(|value| value.abs() > most) {
                bail_input!(
                    "{}: {} holds {value}, and {} takes weights up to {most}; use --precision f32",
                    file.name,
                    p.name,
                    backend.describe()
                );
            }
            p.write(&backend, Part::Value, &values)?;
        }
        for norm in parameters.batch_norms_mut() {
            let get = |part: &str| file.floats(&format!("{}.{part}", norm.name), &[norm.channels()]);
            let (mean, variance) = (get("running_mean")?, get("running_var")?);
            if variance.iter().any(|&v| v < 0.0) {
                bail_input!("{}: {}.running_var holds a variance below 0", file.name, norm.name);
            }
            let Some(running) = &mut norm.running else { continue };
            backend.write_vector(&mut running.mean, &mean)?;
            backend.write_vector(&mut running.variance, &variance)?;
        }
        if population.spiking {
            let name = format!("{}.bounds", population.label());
            bounds.push((i, load_bounds(file, &name, &[1, population.volume.c])?));
        }
    }
    bounds.into_iter().try_for_each(|(i, bounds)| model.set_bounds(i, &bounds, &bounds))
}

/// Bounds of a layer: as many rows as `counts` allows, one for the layer or one per channel.
fn load_bounds(file: &TensorFile, name: &str, counts: &[usize]) -> Result<Vec<Bounds>> {
    let found = file.info(name)?.shape.first().copied();
    let rows = counts.iter().copied().find(|&rows| found == Some(rows)).unwrap_or(counts[0]);
    let values = file.floats(name, &[rows, 4])?;
    let bounds: Vec<Bounds> = values
        .as_chunks::<4>()
        .0
        .iter()
        .map(|&[left, right, alpha, beta]| Bounds { left, right, alpha, beta })
        .collect();
    if bounds.iter().any(|b| b.left <= 0.0 || b.right <= 0.0) {
        bail_input!("{}: {name} holds a width that is not above 0", file.name);
    }
    Ok(bounds)
}

/// Writes `model.safetensors` for evaluation and for Python; with `config` it is complete.
pub fn save_model<B: Backend>(path: &Path, model: &Model<B>, config: &str, epoch: u32) -> Result<()> {
    let mut tensors = Tensors::default();
    push_model(&mut tensors, model)?;
    tensors.describe("format", MODEL_FORMAT);
    tensors.describe("config", config);
    tensors.describe("epoch", epoch.to_string());
    write_whole_with(path, |out| tensors.write(out))
        .with_context(|| format!("the network cannot be saved after epoch {epoch}"))
}

/// Opens a `model.safetensors`.
pub fn open_model(path: &Path) -> Result<Checkpoint> {
    Checkpoint::open(path, MODEL_FORMAT)
}

/// The position of a training.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Epochs done.
    pub epoch: u32,
    /// Steps done in the next one.
    pub step: u64,
    /// Sums over those steps, and the optimiser's state.
    #[serde(flatten)]
    pub totals: Totals,
    /// Seconds spent training in those steps.
    pub seconds: f64,
    pub best: Option<Best>,
    /// Fingerprint of the training samples; a resume with others is refused.
    pub fingerprint: u64,
    /// Training images per second in each finished epoch.
    pub rates: Vec<f64>,
}

/// Writes `state.safetensors`.
pub fn save_state<B: Backend>(
    path: &Path,
    model: &Model<B>,
    tracker: &BoundsTracker,
    progress: &Progress,
    config: &str,
) -> Result<()> {
    let mut tensors = Tensors::default();
    push_moving(&mut tensors, model)?;
    for layer in &tracker.layers {
        let name = model.plan().populations[layer.population].label();
        let Histograms { recent, epoch, flags } = model.histograms(layer.population)?;
        for (what, histograms) in [("epoch", epoch), ("recent", recent)] {
            let counts: Vec<i64> = histograms.iter().flat_map(histogram_values).collect();
            tensors.push(format!("{name}.histogram.{what}"), &[histograms.len(), BINS + 2], || Ok(counts));
        }
        if tracker.starts() {
            push_bounds(&mut tensors, format!("{name}.start"), &model.start_bounds(layer.population)?);
        }
        tensors.describe(format!("{name}.flags"), serde_json::to_string(&flags)?);
    }
    tensors.describe("format", STATE_FORMAT);
    tensors.describe("config", config);
    tensors.describe("progress", serde_json::to_string(progress)?);
    write_whole_with(path, |out| tensors.write(out))
        .with_context(|| format!("the state cannot be saved after epoch {}, step {}", progress.epoch, progress.step))
}

/// Adds the model and the optimiser's moments.
fn push_moving<'a, B: Backend>(tensors: &mut Tensors<'a>, model: &'a Model<B>) -> Result<()> {
    push_model(tensors, model)?;
    for p in model.parameters() {
        for (suffix, part) in MOMENTS {
            push_finite(tensors, format!("{}.{suffix}", p.name), &p.shape, move || p.read(model.backend(), part));
        }
    }
    Ok(())
}

const MOMENTS: [(&str, Part); 2] = [("first_moment", Part::Moment1), ("second_moment", Part::Moment2)];

/// Opens a `state.safetensors` and returns the position of its training.
pub fn open_state(path: &Path) -> Result<(Checkpoint, Progress)> {
    let checkpoint = Checkpoint::open(path, STATE_FORMAT)?;
    let progress = checkpoint.json("progress")?;
    Ok((checkpoint, progress))
}

/// Loads an opened state; the caller handles the position of the training.
pub fn load_state<B: Backend>(checkpoint: &Checkpoint, model: &mut Model<B>, tracker: &BoundsTracker) -> Result<()> {
    load_model(checkpoint, model)?;
    let file = &checkpoint.0;
    let backend = model.backend().clone();
    for (_, parameters) in model.populations_mut() {
        for p in parameters.trained_mut() {
            for (suffix, part) in MOMENTS {
                let values = file.floats(&format!("{}.{suffix}", p.name), &p.shape)?;
                p.write(&backend, part, &values)?;
            }
        }
    }
    for layer in &tracker.layers {
        let name = model.plan().populations[layer.population].label();
        let bounds = model.bounds(layer.population)?;
        let read = |what: &str| load_histograms(file, &format!("{name}.histogram.{what}"), bounds.len());
        let (epoch, recent) = (read("epoch")?, read("recent")?);
        let flags = checkpoint.json(&format!("{name}.flags"))?;
        model.set_histograms_of(layer.population, &Histograms { recent, epoch, flags })?;
        if tracker.starts() {
            let start = load_bounds(file, &format!("{name}.start"), &[bounds.len()])?;
            model.set_bounds(layer.population, &bounds, &start)?;
        }
    }
    Ok(())
}

fn load_histograms(file: &TensorFile, name: &str, count: usize) -> Result<Vec<Histogram>> {
    let counts = file.integers(name, &[count, BINS + 2])?;
    let histogram = |counts: &[i64]| {
        histogram_from(counts).ok_or_else(|| {
            input_error!("{}: {name} holds impossible counts, such as {:?}", file.name, counts.iter().min())
        })
    };
    counts.chunks_exact(BINS + 2).map(histogram).collect()
}

fn histogram_values(histogram: &Histogram) -> impl Iterator<Item = i64> {
    let ends = [histogram.underflow, histogram.overflow];
    histogram.bins.iter().copied().chain(ends).map(|count| count as i64)
}

/// `None` if a count is negative or the sum would overflow.
fn histogram_from(counts: &[i64]) -> Option<Histogram> {
    const MOST: u64 = i64::MAX as u64 >> 16;
    let counts: Vec<u64> = counts.iter().map(|&count| u64::try_from(count).ok()).collect::<Option<_>>()?;
    counts.iter().try_fold(0u64, |sum, &count| sum.checked_add(count).filter(|&sum| sum <= MOST))?;
    let (bins, ends) = counts.split_at(BINS);
    Some(Histogram { bins: bins.to_vec(), underflow: ends[0], overflow: ends[1], non_finite: 0 })
}
