//! Classifies an image of your own with a trained network.
//!
//!     cargo run --release -- train --out runs/digits
//!     cargo run --release --example predict -- runs/digits

use adali::data::load;
use adali::train::checkpoint::{load_model, open_model};
use adali::train::evaluate::normalisation;
use adali::{Cpu, Model};
use anyhow::Context;
use std::path::Path;

/// A seven, 8x8.
const IMAGE: &str = "
    ........
    .######.
    .....##.
    ....##..
    ...##...
    ..##....
    ..##....
    ........";

fn main() -> anyhow::Result<()> {
    let run = std::env::args().nth(1).context("usage: predict RUN-FOLDER")?;
    let checkpoint = open_model(&Path::new(&run).join("model.safetensors"))?;
    let config = checkpoint.config()?;
    // The data set defines the classes and how bytes become input values.
    let data = load(config.data.source, config.data.dir.as_deref())?;
    let mut model = Model::new(Cpu, &config.network, config.plan(&data)?, 1, config.seed)?;
    load_model(&checkpoint, &mut model)?;

    let pixels = IMAGE.chars().filter(|c| !c.is_whitespace());
    let image: Vec<u8> = pixels.map(|c| if c == '#' { data.full_scale as u8 } else { 0 }).collect();
    let logits = model.predict(&image, data.train.shape, &normalisation(&config.data, &data))?;
    let sum: f32 = logits.iter().map(|logit| logit.exp()).sum();
    for (name, logit) in data.class_names.iter().zip(&logits) {
        println!("{name}  {:5.1} %", 100.0 * logit.exp() / sum);
    }
    Ok(())
}
