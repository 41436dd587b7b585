//! Whole experiments by name: data, network, neurons and training as others have published them.

use crate::data::events::integrate::Split;
use crate::data::sampling::Augmentation;
use crate::data::{DataSource, Integration};
use crate::network::presets::Preset;
use crate::network::spec::{Init, LayerSpec, Links, NetworkSpec};
use crate::neuron::{NeuronModel, ResetKind};
use crate::surrogate::{Surrogate, SurrogateKind};
use crate::train::Config;
use crate::train::config::DataSpec;
use serde::{Deserialize, Serialize};

/// An experiment of the AdaLi authors (paran-ia/AdaLi, README of 2024-09-27). See `docs/authors.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Recipe {
    /// CIFAR-10 with ResNet-18.
    AuthorsCifar10,
    /// CIFAR-100 with a pre-activation ResNet-18.
    AuthorsCifar100,
    /// CIFAR10-DVS with VGG-11.
    AuthorsCifar10Dvs,
    /// DVS128 Gesture with SpikingJelly's network.
    AuthorsDvsGesture,
    /// Tiny-ImageNet with a ResNet-34 without normalised activations.
    AuthorsTinyImagenet,
}

impl Recipe {
    /// Its samples.
    pub fn data(self) -> DataSpec {
        let source = match self {
            Self::AuthorsCifar10 => DataSource::Cifar10,
            Self::AuthorsCifar100 => DataSource::Cifar100,
            Self::AuthorsCifar10Dvs => DataSource::Cifar10Dvs,
            Self::AuthorsDvsGesture => DataSource::DvsGesture,
            Self::AuthorsTinyImagenet => DataSource::TinyImagenet,
        };
        let usual = DataSpec { source, validation: 0.0, ..DataSpec::default() };
        let flip = Augmentation { flip: true, ..Augmentation::default() };
        let images = |mean: [f32; 3], std: [f32; 3]| DataSpec {
            augmentation: Augmentation { crop_padding: 4, auto_augment: true, ..flip },
            mean: Some(mean.into()),
            std: Some(std.into()),
            ..usual.clone()
        };
        match self {
            Self::AuthorsCifar10 => images([0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]),
            Self::AuthorsCifar100 => images([0.5071, 0.4867, 0.4408], [0.2675, 0.2565, 0.2761]),
            // They scale from 128 to 48 pixels; 43 is the nearest that whole pixels give.
            Self::AuthorsCifar10Dvs => {
                let events = Integration { downsample: 3, split: Split::Number, ..Integration::default() };
                DataSpec { events: Some(events), ..usual }
            }
            Self::AuthorsDvsGesture => usual,
            Self::AuthorsTinyImagenet => DataSpec {
                augmentation: Augmentation { resized_crop: true, ..flip },
                image_size: Some(224),
                ..images([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
            },
        }
    }

    /// Its network.
    pub fn preset(self) -> Preset {
        match self {
            Self::AuthorsCifar10 => Preset::Resnet18Cifar,
            Self::AuthorsCifar100 => Preset::Resnet18Preact,
            Self::AuthorsCifar10Dvs => Preset::Vgg11,
            Self::AuthorsDvsGesture => Preset::DvsGestureNet,
            Self::AuthorsTinyImagenet => Preset::NfResnet34,
        }
    }

    /// Changes its preset to the authors' form. Their VGG-11 has torchvision's first values, and copies its last pixel 49
    /// times for the readout. One weight that reads 7 times the pixel starts with the same standard deviation and learns at
    /// the same rate as the sum of those 49 weights.
    pub fn adapt(self, network: &mut NetworkSpec) {
        if self != Self::AuthorsCifar10Dvs {
            return;
        }
        for layer in &mut network.layers {
            match layer {
                LayerSpec::Conv { synapse, .. } => synapse.init = Init::FanOut,
                LayerSpec::Readout { synapse, .. } => synapse.init = Init::Small,
                _ => {}
            }
        }
        let links = Links { neurons: false, scale: 7.0, ..Links::default() };
        network.layers.insert(network.layers.len() - 1, LayerSpec::Neurons { links });
    }

    /// Sets everything else.
    pub fn apply(self, config: &mut Config) {
        let (model, batch, rate, mse) = match self {
            Self::AuthorsCifar10 | Self::AuthorsCifar100 | Self::AuthorsTinyImagenet => {
                (NeuronModel::If, 128, 0.1, 0.0)
            }
            Self::AuthorsCifar10Dvs => (NeuronModel::If, 32, 0.05, 0.05),
            Self::AuthorsDvsGesture => (NeuronModel::Lif, 16, 0.1, 0.2),
        };
        config.training.batch = batch;
        config.training.learning_rate = rate;
        config.loss.mse = mse;
        config.bounds.delay = 1.0;
        config.network.surrogate = Surrogate::new(SurrogateKind::Adali);
        let neuron = &mut config.network.neuron;
        neuron.model = model;
        neuron.reset = ResetKind::Soft;
        neuron.detach_reset = false;
        if model == NeuronModel::Lif {
            neuron.tau = 1.1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::SampleShape;
    use crate::network::presets::Size;
    use crate::network::{Plan, Volume};
    use crate::train::defaults::{defaults, preset_for};

    /// A recipe's configuration, and the number of its parameters, for its usual samples.
    fn prepared(recipe: Recipe) -> (Config, usize) {
        let (frames, side, channels, classes) = match recipe {
            Recipe::AuthorsCifar10 => (1, 32, 3, 10),
            Recipe::AuthorsCifar100 => (1, 32, 3, 100),
            Recipe::AuthorsCifar10Dvs => (16, 43, 2, 10),
            Recipe::AuthorsDvsGesture => (16, 128, 2, 11),
            Recipe::AuthorsTinyImagenet => (1, 224, 3, 200),
        };
        let shape = SampleShape { frames, height: side, width: side, channels };
        let mut network = preset_for(recipe.preset(), shape, classes, &Size::default()).unwrap();
        let before = network.clone();
        recipe.adapt(&mut network);
        assert_eq!(network == before, recipe != Recipe::AuthorsCifar10Dvs, "{recipe:?}");
        let mut config = defaults(recipe.data(), network);
        recipe.apply(&mut config);
        let plan = Plan::new(&config.network, Volume { h: side, w: side, c: channels }).unwrap();
        recipe.data().augmentation.validate(shape).unwrap();
        (config, plan.parameters())
    }

    #[test]
    fn every_recipe_is_the_authors_experiment() {
        for (recipe, model, steps, batch, rate, mse, parameters) in [
            (Recipe::AuthorsCifar10, NeuronModel::If, 4, 128, 0.1, 0.0, 11_173_962),
            (Recipe::AuthorsCifar100, NeuronModel::If, 4, 128, 0.1, 0.0, 11_223_076),
            (Recipe::AuthorsCifar10Dvs, NeuronModel::If, 16, 32, 0.05, 0.05, 9_230_538),
            (Recipe::AuthorsDvsGesture, NeuronModel::Lif, 16, 16, 0.1, 0.2, 1_698_926),
            (Recipe::AuthorsTinyImagenet, NeuronModel::If, 4, 128, 0.1, 0.0, 21_387_288),
        ] {
            let (config, found) = prepared(recipe);
            let Config { network, training, loss, bounds, data, .. } = &config;
            assert_eq!((network.neuron.model, network.steps, training.batch), (model, steps, batch), "{recipe:?}");
            assert_eq!((training.learning_rate, loss.mse, data.validation), (rate, mse, 0.0), "{recipe:?}");
            assert_eq!((bounds.delay, bounds.left, bounds.right), (1.0, [1.5, 0.3], [1.5, 0.3]), "{recipe:?}");
            assert_eq!((network.neuron.reset, network.neuron.detach_reset), (ResetKind::Soft, false), "{recipe:?}");
            assert_eq!(found, parameters, "{recipe:?}");
            assert_eq!(Config::parse(&config.to_toml(), "x").unwrap(), config);
        }
    }

    #[test]
    fn the_authors_vgg_11_reads_its_last_pixel_seven_times() {
        let (config, _) = prepared(Recipe::AuthorsCifar10Dvs);
        let mut layers = config.network.layers.iter().rev();
        let Some(LayerSpec::Readout { synapse, .. }) = layers.next() else { panic!("a readout") };
        assert_eq!(synapse.init, Init::Small);
        let Some(LayerSpec::Neurons { links }) = layers.next() else { panic!("a sum") };
        assert!(!links.neurons && links.scale == 7.0);
        let of_convolution =
            |layer: &LayerSpec| if let LayerSpec::Conv { synapse, .. } = layer { Some(synapse.init) } else { None };
        assert_eq!(layers.filter_map(of_convolution).collect::<Vec<_>>(), [Init::FanOut; 8]);
    }
}
