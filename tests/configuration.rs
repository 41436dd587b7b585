//! The keys of a configuration: the schema, the structs behind it and `docs/configuration.md` agree, and errors in a file are
//! reported with their place and reason.

use adali::autotune::{BoundsMode, BoundsSpec};
use adali::backend::LossSpec;
use adali::backend::shape::Extent;
use adali::compare::plan::PlanFile;
use adali::data::events::integrate::{FramesBy, Split};
use adali::data::events::options::Sensor;
use adali::data::sampling::Augmentation;
use adali::data::{DataSource, Integration};
use adali::network::spec::{
    Combination, Combine, Init, InputMode, LayerSpec, Links, NetworkSpec, Norm, Shortcut, Synapse, Take, Variance,
};
use adali::neuron::{NeuronModel, NeuronSpec, ResetKind};
use adali::surrogate::{Schedule, Surrogate, SurrogateKind};
use adali::train::Config;
use adali::train::config::{DataSpec, parse_checked};
use adali::train::optimizer::{MemoryUse, Optimizer, RateSchedule, TrainingSpec};
use adali::train::schema::{
    AUGMENTATION, BOUNDS, COMBINE, CONFIGURATION, DATA, Document, EVENTS, Key, Kind, LAYERS, LOSS, NETWORK, NEURON,
    PLAN, Presence, SHORTCUTS, SURROGATE, TRAINING,
};
use std::fmt::Write;
use toml::{Table, Value};

/// A configuration with every key. No `..`: a field that is added must be added here.
fn everything() -> Config {
    let synapse = Synapse {
        bias: Some(true),
        norm: Norm::Batch,
        norm_gain: 1.0,
        weight_scale: 2.5,
        weight_variance: Variance::Sample,
        init: Init::FanOut,
    };
    let extent = Extent::square(2);
    let shortcut = Shortcut {
        from: "a".into(),
        take: Take::Currents,
        scale: 0.5,
        pool: Some(extent),
        kernel: Some(extent),
        stride: extent,
        padding: extent,
        synapse,
        gain: Some(0.5),
    };
    let links = Links {
        name: Some("b".into()),
        from: Some("a".into()),
        shortcuts: vec![shortcut],
        scale: 0.5,
        gain: Some(0.5),
        neurons: false,
        sum_norm: Norm::Batch,
        sum_scale: 0.5,
        combine: Some(Combine { from: "a".into(), with: Combination::Add }),
    };
    Config {
        seed: 1,
        data: DataSpec {
            source: DataSource::NMnist,
            dir: Some("data".into()),
            validation: 0.1,
            limit: 1,
            augmentation: Augmentation {
                crop_padding: 1,
                flip: true,
                roll: 1,
                drop: 0.1,
                resized_crop: true,
                auto_augment: true,
                cutout: 1,
                mixup: 0.5,
            },
            mean: Some(vec![0.1]),
            std: Some(vec![0.1]),
            image_size: Some(8),
            events: Some(Integration {
                frames: 4,
                frames_by: FramesBy::Time,
                downsample: 1,
                sensor: Some(Sensor::Davis240),
                stream: Some(1),
                split: Split::Number,
            }),
            cache_dir: None,
        },
        training: TrainingSpec {
            epochs: 1,
            batch: 2,
            optimizer: Optimizer::Adam,
            learning_rate: 0.1,
            momentum: 0.1,
            betas: [0.9, 0.99],
            weight_decay: 0.1,
            rate_schedule: RateSchedule::Constant,
            warmup: 0.1,
            clip: 0.1,
            histogram_every: 1,
            checkpoint_every: 1,
            memory: MemoryUse::Low,
        },
        loss: LossSpec { mse: 0.1, label_smoothing: 0.1, tet: true },
        bounds: BoundsSpec {
            mode: BoundsMode::AutoTrack,
            schedule: Schedule::Linear,
            left: [1.0, 0.5],
            right: [1.0, 0.5],
            alpha: 0.5,
            target: [0.4, 0.4],
            momentum: 0.3,
            floor: 0.2,
            ceiling: 2.0,
            gain: Some([1.0, 0.5]),
            per_step: true,
            update_every: 1,
            per_channel: true,
            pooled: true,
            delay: 1.0,
        },
        network: NetworkSpec {
            steps: 4,
            input: InputMode::Frames,
            neuron: NeuronSpec {
                model: NeuronModel::If,
                tau: 1.1,
                decay_input: false,
                threshold: 0.5,
                reset: ResetKind::Hard,
                v_reset: 0.1,
                detach_reset: true,
            },
            surrogate: Surrogate { kind: SurrogateKind::Sigmoid, sharpness: Some(3.3) },
            layers: vec![
                LayerSpec::Conv {
                    channels: 2,
                    kernel: extent,
                    stride: extent,
                    padding: extent,
                    synapse,
                    links: links.clone(),
                },
                LayerSpec::Linear { features: 2, synapse, links: links.clone() },
                LayerSpec::Neurons { links: Links { gain: None, ..links } },
                LayerSpec::MaxPool { kernel: extent, stride: Some(extent), padding: extent },
                LayerSpec::AvgPool { kernel: extent, stride: Some(extent), padding: extent },
                LayerSpec::GlobalAvgPool,
                LayerSpec::Dropout { probability: 0.1 },
                LayerSpec::Readout { classes: 2, spiking: true, vote: 2, synapse },
            ],
        },
    }
}

/// Every table of a configuration: its title in the docs and its keys.
fn tables() -> Vec<(String, &'static [Key])> {
    let titled = [
        ("A configuration", CONFIGURATION),
        ("`[data]`", DATA),
        ("`[data.augmentation]`", AUGMENTATION),
        ("`[data.events]`", EVENTS),
        ("`[training]`", TRAINING),
        ("`[loss]`", LOSS),
        ("`[bounds]`", BOUNDS),
        ("`[network]`", NETWORK),
        ("`[network.neuron]`", NEURON),
        ("`[network.surrogate]`", SURROGATE),
    ];
    let layers = LAYERS.iter().map(|(kind, keys)| (format!("`type = \"{kind}\"`"), *keys));
    let titled = titled.map(|(title, keys)| (title.to_string(), keys));
    let links = [("`shortcuts` of a layer", SHORTCUTS), ("`combine` of a layer", COMBINE)];
    let links = links.map(|(title, keys)| (title.to_string(), keys));
    titled.into_iter().chain(layers).chain(links).chain([("A plan".to_string(), PLAN)]).collect()
}

fn names(keys: &[Key]) -> Vec<&str> {
    let mut names: Vec<_> = keys.iter().map(|key| key.name).collect();
    names.sort();
    names
}

fn assert_same_keys(keys: &[Key], table: &Table, place: &str) {
    let mut written: Vec<_> = table.keys().map(String::as_str).filter(|name| *name != "type").collect();
    written.sort();
    assert_eq!(written, names(keys), "{place}");
    for key in keys {
        if let Kind::Keys(below) = key.kind {
            assert_same_keys(below, table[key.name].as_table().unwrap(), key.name);
        }
        if let Kind::Tables(below) = key.kind {
            assert_same_keys(below, table[key.name][0].as_table().unwrap(), key.name);
        }
    }
}

#[test]
fn the_schema_has_the_keys_of_the_structs_and_no_other() {
    let config = everything();
    let table = config.to_table();
    assert_same_keys(CONFIGURATION, &table, "a configuration");
    let layers = table["network"]["layers"].as_array().unwrap();
    assert_eq!(layers.len(), LAYERS.len());
    for (layer, (kind, keys)) in layers.iter().zip(LAYERS) {
        assert_eq!(layer["type"].as_str(), Some(*kind));
        assert_same_keys(keys, layer.as_table().unwrap(), kind);
    }
    assert_eq!(Config::parse(&config.to_toml(), "x").unwrap(), config);
    // 32-bit numbers are written as they were given, wherever they appear.
    assert!(config.to_table().to_string().contains("tau = 1.1\n"), "{table}");
}

#[test]
fn words_and_defaults_are_those_of_the_structs() {
    let mut cases = 0;
    let layers = "[[layers]]\ntype = \"readout\"\nclasses = 2\n";
    let network = format!("steps = 4\ninput = \"direct\"\n{layers}").replace("layers", "network.layers");
    let usual = Config::parse(&format!("[network]\n{network}"), "x").unwrap().to_table();
    let at = |path: &str| path.split('.').try_fold(&Value::Table(usual.clone()), |at, key| at.get(key)).cloned();
    for (prefix, keys) in [
        ("", CONFIGURATION),
        ("data.", DATA),
        ("data.augmentation.", AUGMENTATION),
        ("training.", TRAINING),
        ("loss.", LOSS),
        ("bounds.", BOUNDS),
        ("network.neuron.", NEURON),
    ] {
        for key in keys {
            let path = format!("{prefix}{}", key.name);
            if let (Presence::Default(default), Some(value)) = (key.presence, at(&path)) {
                if matches!(key.kind, Kind::Keys(_)) {
                    continue;
                }
                assert_eq!(value.as_str().map_or(value.to_string(), String::from), default, "{path}");
                cases += 1;
            }
        }
    }
    for (title, keys) in tables() {
        for key in keys {
            let Kind::Word(words) = key.kind else { continue };
            let word = |word: &&str| {
                let given = format!("{} = {word:?}", key.name);
                let text = everything().to_toml();
                let lines = text.lines().map(|line| match line.starts_with(&format!("{} = ", key.name)) {
                    true => given.as_str(),
                    false => line,
                });
                let text: String = lines.collect::<Vec<_>>().join("\n");
                // `mode` and `kind` occur once, `norm` in three layers: all accept every word.
                assert!(Config::parse(&text, "x").is_ok(), "{title}: {given}");
                1
            };
            cases += words().iter().map(word).sum::<usize>();
        }
    }
    assert!(cases == 147, "{cases}");
}

/// The tables of `docs/configuration.md`.
fn document() -> String {
    let mut text = String::new();
    for (title, keys) in tables() {
        let _ = write!(text, "### {title}\n\n| key | value | default | |\n|---|---|---|---|\n");
        for key in keys {
            let default = match key.presence {
                Presence::Required => "must be given".to_string(),
                Presence::Default(words) if words.contains(' ') && !words.starts_with('[') => words.to_string(),
                Presence::Default(value) => format!("`{value}`"),
            };
            let allowed = match key.kind {
                Kind::Word(words) => words().iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", "),
                kind => kind.allowed().split(';').next().unwrap().to_string(),
            };
            let _ = writeln!(text, "| `{}` | {allowed} | {default} | {} |", key.name, key.about);
        }
        text.push('\n');
    }
    text
}

#[test]
fn the_docs_list_every_key() {
    let docs = include_str!("../docs/configuration.md");
    let (_, listed) = docs.split_once("<!-- from the code -->\n").expect("the mark before the tables");
    let (listed, _) = listed.split_once("<!-- to here -->").expect("the mark after the tables");
    let document = document();
    assert!(listed.trim() == document.trim(), "put these tables into docs/configuration.md:\n{document}");
}

const LAYER: &str = "[[layers]]\ntype = \"linear\"\nfeatures = 4\n";
const READOUT: &str = "[[layers]]\ntype = \"readout\"\nclasses = 10\n";

fn network(change: (&str, &str)) -> String {
    let text = format!("steps = 4\ninput = \"direct\"\n[neuron]\ntau = 2.0\n{LAYER}{LAYER}{READOUT}");
    assert!(text.contains(change.0));
    text.replacen(change.0, change.1, 1)
}

#[test]
fn errors_name_the_line_the_value_and_what_is_allowed() {
    let mut cases = 0;
    for (change, parts) in [
        (("steps = 4", "steps = -4"), &["line 1: steps = -4 is not a whole number from 0"][..]),
        (("steps = 4", "steps = 4.5"), &["line 1: steps = 4.5 is not a whole number"]),
        (("steps = 4", "steps = 99999999999999999999"), &["line 1: steps = 99999999999999999999 is not a whole"]),
        (("steps = 4\n", ""), &["line 1: the file needs steps, a whole number"]),
        (("steps = 4", "stpes = 4"), &["line 1: nothing is called stpes; did you mean steps?"]),
        (("steps = 4", "steps = 4\nzebra = 4"), &["line 2: nothing is called zebra; there are steps, input, neuron"]),
        (("\"direct\"", "\"video\""), &["line 2: input = \"video\" is not one of direct, frames"]),
        (("\"direct\"", "3"), &["line 2: input = 3 is not one of direct, frames"]),
        (("tau = 2.0", "tau = \"2\""), &["line 4: neuron.tau = \"2\" is not a number"]),
        (("tau = 2.0", "detach_reset = 1"), &["line 4: neuron.detach_reset = 1 is not true or false"]),
        (("tau = 2.0", "tua = 2.0"), &["line 4: nothing is called neuron.tua; did you mean tau?"]),
        (
            (LAYER, &LAYER.replace("features", "channels")),
            &["line 5: layers[0] (linear) needs features", "nothing is called layers[0] (linear).channels"],
        ),
        ((LAYER, "[[layers]]\ntype = \"linear\"\n"), &["line 5: layers[0] (linear) needs features, a whole number"]),
        ((LAYER, "[[layers]]\ntype = \"dense\"\n"), &["line 6: layers[0].type = \"dense\" is not one of conv, linear"]),
        ((LAYER, "[[layers]]\n"), &["line 5: layers[0] needs type, one of conv, linear"]),
        (
            (LAYER, "[[layers]]\ntype = \"max_pool\"\nkernel = \"big\"\n"),
            &["line 7: layers[0] (max_pool).kernel = \"big\" is not a whole number from 0, or two of them"],
        ),
        (
            (LAYER, "[[layers]]\ntype = \"max_pool\"\nkernel = [1, 2, 3]\n"),
            &["line 7: layers[0] (max_pool).kernel = [1, 2, 3] is not a whole"],
        ),
        (("[neuron]\ntau = 2.0\n", "neuron = 5\n"), &["line 3: neuron = 5 is not a table"]),
        (("steps = 4", "steps = = 4"), &["line 1: "]),
        (("steps = 4", "steps = 4\nsteps = 5"), &["line 2: "]),
    ] {
        let text = network(change);
        let error = parse_checked::<NetworkSpec>(Document::Network, &text, "net.toml").unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("net.toml: line ") && !message.contains('\n'), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
        for jargon in ["untagged", "variant", "expected struct", "missing field", "invalid type", "`"] {
            assert!(!message.contains(jargon), "{message}");
        }
        assert_eq!(adali::error::exit_code(&error), 2);
        cases += 1;
    }
    assert_eq!(cases, 20);
    parse_checked::<NetworkSpec>(Document::Network, &network(("", "")), "net.toml").unwrap();
}

#[test]
fn the_line_of_a_layer_is_its_own() {
    let text = include_str!("cases/toml-wrong-line/linear-missing-features.toml");
    let error = parse_checked::<NetworkSpec>(Document::Network, text, "x.toml").unwrap_err().to_string();
    assert!(error.contains("line 26: layers[3] (linear) needs features, a whole number from 0; nothing is called layers[3] (linear).channels"), "{error}");
    let text = text.replace("channels = 20\n", "");
    let error = parse_checked::<NetworkSpec>(Document::Network, &text, "x.toml").unwrap_err().to_string();
    assert!(error.contains("line 26: layers[3] (linear) needs features"), "{error}");
}

#[test]
fn plans_are_checked_to_the_last_configuration() {
    let good =
        "seeds = [0, 1]\n[[configurations]]\nname = \"a\"\n[[configurations]]\nname = \"b\"\ntraining.epochs = 2\n";
    PlanFile::parse(good, "plan.toml").unwrap();
    for (change, part) in [
        (("seeds = [0, 1]", "seeds = [0, -1]"), "line 1: seeds = [0, -1] is not a list of whole numbers from 0"),
        (("seeds", "sedes"), "line 1: nothing is called sedes; did you mean seeds?"),
        (("epochs = 2", "epochs = \"2\""), "line 6: configurations[1].training.epochs = \"2\" is not a whole number"),
        (
            ("epochs = 2", "epocs = 2"),
            "line 6: nothing is called configurations[1].training.epocs; did you mean epochs?",
        ),
        (("name = \"b\"", "name = 3"), "line 5: configurations[1]: the name 3 is not text"),
        (("name = \"b\"\n", ""), "line 4: configurations[1] has no name"),
        (("name = \"b\"", "name = \"b\"\nseed = 3"), "line 6: configurations[1]: seed is not a configuration's"),
    ] {
        let message = PlanFile::parse(&good.replacen(change.0, change.1, 1), "plan.toml").unwrap_err().to_string();
        assert!(message.contains(part), "{part}: {message}");
    }
}
