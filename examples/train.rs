//! Trains a custom network on the built-in digits and leaves a run folder, as `adali train` does.
//!
//!     cargo run --release --example train -- FOLDER        # default: runs/example

use adali::data::load;
use adali::train::config::{DataSpec, parse_checked};
use adali::train::run::Run;
use adali::train::schema::Document;
use adali::train::{Outcome, Session, Trainer};
use adali::{Config, Cpu, DataSource};
use std::sync::atomic::AtomicBool;

/// The same format as a file for `adali train --network`; docs/configuration.md lists every key.
const NETWORK: &str = "
    steps = 4
    input = \"direct\"

    [neuron]
    tau = 2.0
    reset = \"soft\"

    [surrogate]
    kind = \"adali\"

    [[layers]]
    type = \"conv\"
    channels = 24
    kernel = 3
    padding = 1
    norm = \"batch\"

    [[layers]]
    type = \"max_pool\"
    kernel = 2

    [[layers]]
    type = \"readout\"
    classes = 10
";

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or("runs/example".into());
    let mut data = load(DataSource::Digits, None)?;
    let test = data.test.clone();
    let config = Config {
        network: parse_checked(Document::Network, NETWORK, "the network of this example")?,
        ..Config::for_data(DataSpec::default(), &data)?
    };
    let trainer = Trainer::new(Cpu, config, &mut data)?;
    println!("{}", trainer.title());

    let run = Run::create(folder.into(), false, &[])?;
    let stop = AtomicBool::new(false); // set it from a signal handler: the training then saves and ends
    let mut session = Session::begin(trainer, run, test)?;
    if session.train(&mut (), &stop)? == Outcome::Finished {
        let result = session.finish(&mut (), &stop)?.expect("nobody sets `stop`");
        println!("test accuracy {:.2} %, saved in {}", 100.0 * result.test_accuracy, result.run);
    }
    Ok(())
}
