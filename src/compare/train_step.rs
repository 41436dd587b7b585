//! A whole training step of a network, timed as one operation.

use crate::backend::Backend;
use crate::bench::record::Record;
use crate::compare::plan::REACH;
use crate::compare::steps::step_costs;
use crate::compare::{Configuration, Plan};
use crate::data::{Dataset, SampleShape, Samples};
use crate::input_error;
use crate::network::spec::{InputMode, NetworkSpec};
use crate::surrogate::{Surrogate, SurrogateKind};
use crate::train::Config;
use crate::train::config::DataSpec;
use crate::train::optimizer::TrainingSpec;
use anyhow::Result;
use std::sync::atomic::AtomicBool;

/// The extents of an image, `CxHxW` as PyTorch writes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageShape {
    pub channels: usize,
    pub height: usize,
    pub width: usize,
}

impl std::fmt::Display for ImageShape {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}x{}x{}", self.channels, self.height, self.width)
    }
}

impl std::str::FromStr for ImageShape {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let sides: Option<Vec<usize>> = text.split('x').map(|side| side.parse().ok()).collect();
        match sides.as_deref() {
            Some(&[channels, height, width]) if [channels, height, width].iter().all(|n| (1..=4096).contains(n)) => {
                Ok(Self { channels, height, width })
            }
            _ => Err(input_error!("input {text:?} is not CxHxW, as in 3x64x64, each at most 4096")),
        }
    }
}

/// What to step.
pub struct Stepped {
    pub network: NetworkSpec,
    pub input: ImageShape,
    pub batch: usize,
    pub training: TrainingSpec,
}

/// Times training steps on random samples with each of the surrogates, which take turns; `None` if `stop` was set.
pub fn train_steps<B: Backend>(
    backend: &B,
    stepped: &Stepped,
    kinds: &[SurrogateKind],
    stop: &AtomicBool,
) -> Result<Option<Vec<Record>>> {
    let Stepped { network, input, batch, training } = stepped;
    let configuration = |&kind: &SurrogateKind| {
        let network = NetworkSpec { surrogate: Surrogate::new(kind), ..network.clone() };
        let training = TrainingSpec { batch: *batch, ..*training };
        let config = Config {
            seed: 0,
            data: DataSpec::default(),
            training,
            loss: Default::default(),
            bounds: Default::default(),
            network,
        };
        Configuration { name: kind.name().into(), config }
    };
    let configurations: Vec<Configuration> = kinds.iter().map(configuration).collect();
    let classes = network.classes().ok_or_else(|| input_error!("the network's last layer is no readout"))?;
    let data = samples_of(network, *input, classes);
    for configuration in &configurations {
        configuration.config.plan(&data)?;
    }
    let plan = Plan::new(vec![0], REACH, String::new(), configurations)?;
    let Some(costs) = step_costs(backend, &plan, &|_: &Config| Ok(data.clone()), stop)? else { return Ok(None) };
    let record = |cost: &crate::compare::steps::StepCost| Record {
        operation: "train_step".into(),
        variant: cost.name.clone(),
        shape: format!("N={batch},input={input},T={}", network.steps),
        copies: 1,
        firing_rate: cost.firing_rate,
        compared: 0,
        seconds: cost.step,
        ratio: (cost.name != costs.configurations[0].name).then_some(cost.ratio),
        bytes: 0.0,
        flops: 0.0,
        floor: 0.0,
        registers: None,
        images_per_second: Some(*batch as f64 / cost.step.median),
    };
    Ok(Some(costs.configurations.iter().map(record).collect()))
}

/// A data set without samples; only its shape is used.
fn samples_of(network: &NetworkSpec, input: ImageShape, classes: usize) -> Dataset {
    let frames = if network.input == InputMode::Frames { network.steps } else { 1 };
    let shape = SampleShape { frames, height: input.height, width: input.width, channels: input.channels };
    let none = Samples { shape, values: Vec::new().into(), labels: Vec::new() };
    Dataset {
        name: "random".into(),
        source: "random".into(),
        class_names: (0..classes).map(|class| class.to_string()).collect(),
        full_scale: 255.0,
        mean: vec![0.5; input.channels],
        std: vec![0.29; input.channels],
        train: none.clone(),
        test: none,
        notes: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;

    #[test]
    fn a_network_steps_with_every_surrogate() {
        let text = std::fs::read_to_string("docs/study/networks/depth-2.toml").unwrap();
        let network = NetworkSpec { steps: 2, ..toml::from_str(&text).unwrap() };
        let stepped = Stepped { network, input: "3x8x8".parse().unwrap(), batch: 4, training: TrainingSpec::default() };
        let kinds = [SurrogateKind::Adali, SurrogateKind::Arctan];
        let records = train_steps(&Cpu, &stepped, &kinds, &AtomicBool::new(false)).unwrap().unwrap();
        assert_eq!(records.len(), 2);
        assert!(records.iter().all(|record| record.images_per_second.unwrap() > 0.0));
        assert!(records[0].ratio.is_none() && records[1].ratio.is_some());
    }

    #[test]
    fn an_input_is_three_numbers() {
        assert_eq!("3x64x32".parse::<ImageShape>().unwrap(), ImageShape { channels: 3, height: 64, width: 32 });
        for wrong in ["", "3x64", "3x64x64x1", "0x1x1", "ax1x1", "3x64x5000"] {
            assert!(wrong.parse::<ImageShape>().is_err(), "{wrong}");
        }
    }
}
