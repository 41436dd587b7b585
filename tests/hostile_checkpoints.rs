//! Unusable checkpoints, configurations, networks, data and arguments: one line, exit code 2, nothing lost.

use crate::process::tensors::Tensors;
use crate::process::{Random, adali, bytes, copy, snapshot, tiny, train, write_images, write_network};
use safetensors::tensor::Dtype;
use serde_json::json;
use std::fs;
use std::path::Path;
use tempfile::TempDir;

/// Checks that a command refuses, names `parts`, and changes no file.
fn refused(home: &Path, arguments: &str, parts: &[&str]) {
    let before = snapshot(home);
    adali(home, arguments).failed(2, parts);
    assert!(snapshot(home) == before, "{arguments}: a file was changed or made");
}

#[test]
fn arguments_that_cannot_be_used_leave_nothing_behind() {
    let home = TempDir::new().unwrap();
    train(home.path(), "run", "");
    fs::create_dir(home.path().join("models")).unwrap();
    fs::write(home.path().join("models/model.safetensors"), b"precious").unwrap();
    let mut cases = 0;
    for (arguments, parts) in [
        ("--out run", &["run already holds a run", "--resume", "--force"][..]),
        ("--out models", &["models holds model.safetensors", "not the folder of a run"]),
        ("--out models --force", &["models holds model.safetensors", "not the folder of a run"]),
        ("--out run/config.toml/x", &["cannot make run/config.toml/x"]),
        ("--out run --force --batch 5000", &["batch 5000", "256"]),
        ("--out run --force --validation 0.9", &["validation share 0.9"]),
        ("--batch 5000", &["batch 5000", "256"]),
        ("--batch 0", &["batch 0"]),
        ("--limit 20", &["batch 32", "20"]),
        ("--limit 18446744073709551615", &["limit 18446744073709551615"]),
        ("--seed 9223372036854775808", &["seed 9223372036854775808"]),
        ("--epochs 0", &["epochs 0"]),
        ("--epochs 4000000000", &["epochs 4000000000"]),
        ("--validation 0.9", &["validation share 0.9"]),
        ("--validation NaN", &["validation share NaN"]),
        ("--validation 0.0001", &["validation share 0.0001"]),
        ("--learning-rate=-1", &["learning_rate -1"]),
        ("--learning-rate 0", &["learning_rate 0"]),
        ("--learning-rate NaN", &["learning_rate NaN"]),
        ("--learning-rate inf", &["learning_rate inf"]),
        ("--momentum 1", &["momentum 1"]),
        ("--momentum NaN", &["momentum NaN"]),
        ("--weight-decay=-0.1", &["weight_decay -0.1"]),
        ("--warmup 2", &["warmup 2"]),
        ("--clip NaN", &["clip NaN"]),
        ("--mse 1.5", &["mse 1.5"]),
        ("--label-smoothing NaN", &["label_smoothing NaN"]),
        ("--threads 5000", &["threads 5000", "1024"]),
        ("--threads 0 --steps 0", &["steps 0"]),
        ("--steps 2000", &["steps 2000", "1024"]),
        ("--tau 0.5", &["tau 0.5"]),
        ("--tau NaN", &["tau NaN"]),
        ("--threshold 0", &["threshold 0"]),
        ("--threshold inf", &["threshold inf"]),
        ("--left NaN 1", &["left", "NaN"]),
        ("--right 0 1", &["right"]),
        ("--left 1e300 1", &["left", "1e300"]),
        ("--right 1 1e-320", &["right", "1e-320"]),
        ("--alpha NaN", &["alpha NaN"]),
        ("--target 0.5 NaN", &["target", "NaN"]),
        ("--surrogate sigmoid --sharpness=-2", &["sharpness -2"]),
        ("--surrogate arctan --sharpness NaN", &["sharpness NaN"]),
        ("--crop 8", &["crop padding 8"]),
        ("--crop 4294967295", &["crop padding 4294967295"]),
        ("--channels 0", &["channels 0"]),
        ("--channels 2000000", &["channels 2000000"]),
        ("--network vgg11 --channels 8", &["--channels", "vgg11"]),
        ("--network vgg11", &["layer", "does not fit"]),
        ("--network nonsense", &["--network nonsense", "conv2", "vgg11"]),
        ("--network models", &["--network models"]),
        ("--network run/model.safetensors", &["--network run/model.safetensors"]),
        ("--config nowhere.toml", &["nowhere.toml"]),
        ("--config run/config.toml --channels 8", &["--network"]),
        ("--config run/model.safetensors", &["run/model.safetensors"]),
        ("--data digits --data-dir models", &["built in"]),
        ("--data mnist", &["--data-dir"]),
        ("--data mnist --data-dir nowhere", &["nowhere does not exist"]),
        ("--data mnist --data-dir models", &["models"]),
        ("--data mnist --data-dir run/config.toml", &["run/config.toml is a file"]),
        ("--data frames --data-dir run/model.safetensors", &["train.frames"]),
        ("--data frames --data-dir /dev/zero", &["/dev/zero", "regular file"]),
    ] {
        let out = if arguments.contains("--out") { String::new() } else { "new".into() };
        let arguments = tiny(&out, arguments).replace("--out  ", "");
        refused(home.path(), &arguments, parts);
        cases += 1;
    }
    for arguments in [
        "--bounds wide",
        "--surrogate step",
        "--optimizer lion",
        "--norm layer",
        "--neuron izhikevich",
        "--reset none",
        "--rate-schedule linear",
        "--data imagenet",
        "--device tpu",
        "--epochs -1",
        "--epochs many",
        "--left 1",
        "--batch 1e3",
        "--seed -1",
        "--threads -1",
        "--learning-rate",
        "--nonsense",
        "--out",
    ] {
        let before = snapshot(home.path());
        adali(home.path(), &format!("train {arguments}")).misused(arguments);
        assert!(snapshot(home.path()) == before, "{arguments}");
        cases += 1;
    }
    for (arguments, parts) in [
        ("eval run --batch 0", &["batch 0"][..]),
        ("eval run --batch 65537", &["batch 65537"]),
        ("eval run --threads 5000", &["threads 5000"]),
        ("eval run --data mnist", &["mnist"]),
        ("inspect run --samples 359", &["sample 359", "359"]),
        ("inspect run --part training --samples 1438", &["sample 1438"]),
        ("inspect run --threads 5000", &["threads 5000"]),
        ("info --threads 5000", &["threads 5000"]),
    ] {
        refused(home.path(), arguments, parts);
        cases += 1;
    }
    assert_eq!(cases, 61 + 18 + 8);
}

#[test]
fn networks_and_configurations_that_cannot_be_are_named() {
    let home = TempDir::new().unwrap();
    let run = train(home.path(), "run", "");
    let network = home.path().join("network.toml");
    let readout = "[[layers]]\ntype = \"readout\"\nclasses = 10\n";
    let (two, none) = (format!("{readout}{readout}"), String::new());
    let mut cases = 0;
    for (from, to, parts) in [
        ("steps = 3", "stepz = 3", &["network.toml", "line ", "stepz"][..]),
        ("padding = 1", "paddding = 1", &["paddding"]),
        ("kernel = 3", "kernel = 11", &["layer 0 (conv)", "11", "does not fit"]),
        ("kernel = 3", "kernel = 0", &["layer 0 (conv)", "at least 1"]),
        ("kernel = 3", "kernel = -3", &["line "]),
        ("kernel = 3", "kernel = 9223372036854775807", &["layer 0 (conv)"]),
        ("kernel = 2", "kernel = 9", &["layer 1 (max_pool)", "does not fit"]),
        ("channels = 8", "channels = 0", &["layer 0 (conv)", "channels 0"]),
        ("features = 24", "features = 9223372036854775807", &["layer 3"]),
        ("probability = 0.25", "probability = 1.0", &["layer 2 (dropout)"]),
        ("probability = 0.25", "probability = nan", &["layer 2 (dropout)", "NaN"]),
        ("classes = 10", "classes = 11", &["11 classes", "10"]),
        ("classes = 10", "classes = 1", &["classes 1"]),
        ("classes = 10", "classes = 10\nvote = 0", &["vote 0"]),
        ("input = \"direct\"", "input = \"frames\"", &["1 frames", "3 steps"]),
        ("input = \"direct\"", "input = \"video\"", &["line 2", "video"]),
        ("type = \"linear\"", "type = \"lineal\"", &["lineal"]),
        ("norm = \"batch\"", "norm = \"batch\"\nnorm_gain = nan", &["norm_gain NaN"]),
        (readout, &two, &["layer 6", "after the readout"]),
        (readout, &none, &["no readout"]),
    ] {
        write_network(&network, (from, to));
        refused(home.path(), &tiny("new", "--network network.toml"), parts);
        cases += 1;
    }
    let config = String::from_utf8(bytes(run.join("config.toml"))).unwrap();
    for (from, to, parts) in [
        ("betas = [0.9, 0.999]", "betas = [nan, 0.999]", &["betas NaN"][..]),
        ("betas = [0.9, 0.999]", "betas = [-0.5, 0.999]", &["betas -0.5"]),
        ("epochs = 2", "epoks = 2", &["config.toml", "line ", "epoks"]),
        ("mode = \"manual\"", "mode = \"manuel\"", &["manuel"]),
        ("momentum = 0.3", "momentum = 0.0", &["bounds momentum 0"]),
        ("floor = 0.25", "floor = nan", &["floor NaN"]),
        ("v_reset = 0.0", "v_rest = 0.0", &["v_rest"]),
        ("source = \"digits\"", "source = 3", &["line 4"]),
    ] {
        assert!(config.contains(from), "{from}");
        fs::write(home.path().join("config.toml"), config.replacen(from, to, 1)).unwrap();
        refused(home.path(), "train --quiet --out new --config config.toml", parts);
        cases += 1;
    }
    assert_eq!(cases, 20 + 8);
}

#[test]
fn data_that_cannot_be_read_leave_nothing_behind() {
    let home = TempDir::new().unwrap();
    let images = home.path().join("images");
    write_images(&images);
    let names: Vec<_> = snapshot(&images).into_keys().collect();
    let mut cases = 0;
    for name in &names {
        let file = images.join(name);
        let good = bytes(&file);
        for bad in [&good[..good.len() - 1], &good[..5], &[], b"something else entirely"] {
            fs::write(&file, bad).unwrap();
            refused(home.path(), &tiny("new", "--data mnist --data-dir images --limit 0 --batch 16"), &[name]);
            cases += 1;
        }
        fs::remove_file(&file).unwrap();
        refused(home.path(), &tiny("new", "--data mnist --data-dir images"), &["images"]);
        fs::write(&file, good).unwrap();
        cases += 1;
    }
    assert_eq!(cases, 20);
    adali(home.path(), &tiny("new", "--data mnist --data-dir images --limit 0 --batch 16")).done();
}

#[test]
fn model_files_that_are_damaged_or_foreign_are_refused() {
    let home = TempDir::new().unwrap();
    let run = train(home.path(), "run", "");
    let other = train(home.path(), "other", "--channels 12");
    let good = bytes(run.join("model.safetensors"));
    let bad = home.path().join("bad.safetensors");
    let mut random = Random::new("model_files_that_are_damaged");
    let mut cases = 0;
    let mut check = |parts: &[&str]| {
        refused(home.path(), "eval bad.safetensors", parts);
        refused(home.path(), "inspect bad.safetensors --out x", parts);
        cases += 1;
    };
    check(&["bad.safetensors does not exist"]);
    let noise: Vec<u8> = (0..5000).map(|_| random.below(256) as u8).collect();
    for bytes in [vec![], good[..7].to_vec(), noise, vec![0; 100], vec![0xff; 100], bytes(run.join("curves.svg"))] {
        fs::write(&bad, bytes).unwrap();
        check(&["bad.safetensors"]);
    }
    for _ in 0..20 {
        fs::write(&bad, &good[..random.below(good.len() as u64) as usize]).unwrap();
        check(&["bad.safetensors"]);
    }
    fs::write(&bad, [&good[..], b"x"].concat()).unwrap();
    check(&["bad.safetensors", "damaged"]);
    fs::write(&bad, bytes(run.join("state.safetensors"))).unwrap();
    check(&["bad.safetensors", "adali-model-1"]);
    let mut change = |what: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut tensors = Tensors::read(&run.join("model.safetensors"));
        what(&mut tensors);
        tensors.write(&bad);
        check(parts);
    };
    let config = || Tensors::read(&run.join("model.safetensors")).descriptions["config"].as_str().unwrap().to_string();
    let weight = "layers.0.weight";
    change(&|t| t.descriptions.clear(), &["adali-model-1"]);
    change(&|t| drop(t.descriptions.remove("config")), &["lacks config"]);
    change(&|t| drop(t.descriptions.insert("config".into(), "x".into())), &["configuration in bad.safetensors"]);
    change(&|t| drop(t.descriptions.insert("config".into(), config().replace("seed", "sead").into())), &["sead"]);
    change(&|t| t.all = Tensors::read(&other.join("model.safetensors")).all, &[weight, "[12, 1, 3, 3]"]);
    change(&|t| drop(t.all.remove("layers.4.bias")), &["no tensor layers.4.bias"]);
    change(&|t| t.poke(weight, &f32::NAN.to_le_bytes()), &[weight, "NaN"]);
    change(&|t| t.poke("layers.4.bias", &f32::INFINITY.to_le_bytes()), &["layers.4.bias", "inf"]);
    change(&|t| t.replace(weight, Dtype::F64, &[8, 1, 3, 3]), &[weight, "F64"]);
    change(&|t| t.replace(weight, Dtype::I32, &[8, 1, 3, 3]), &[weight, "I32"]);
    change(&|t| t.replace(weight, Dtype::F32, &[1, 8, 3, 3]), &[weight, "[1, 8, 3, 3]"]);
    change(&|t| t.replace(weight, Dtype::F32, &[0]), &[weight, "[0]"]);
    let bounds = "layers.0.bounds";
    change(&|t| t.poke(bounds, &0f32.to_le_bytes()), &[bounds, "above 0"]);
    change(&|t| t.poke(bounds, &(-1f32).to_le_bytes()), &[bounds, "above 0"]);
    change(&|t| t.poke(bounds, &f32::NAN.to_le_bytes()), &[bounds, "NaN"]);
    change(&|t| t.replace(bounds, Dtype::F32, &[3, 4]), &[bounds, "[3, 4]"]);
    change(&|t| t.replace(bounds, Dtype::F32, &[4]), &[bounds, "[4]"]);
    change(&|t| t.replace(bounds, Dtype::F32, &[]), &[bounds, "[]"]);
    let variance = "layers.2.norm.running_var";
    change(&|t| t.poke(variance, &(-1f32).to_le_bytes()), &[variance]);
    change(&|t| t.poke("layers.2.norm.running_mean", &f32::NAN.to_le_bytes()), &["running_mean", "NaN"]);
    fs::remove_file(&bad).unwrap();
    for (arguments, parts) in [("eval /dev/zero", "regular file"), ("eval .", "model.safetensors")] {
        refused(home.path(), arguments, &[parts]);
        cases += 1;
    }
    assert_eq!(cases, 1 + 6 + 20 + 2 + 20 + 2);
    // A flipped bit may go unnoticed, but must never cause a panic.
    for _ in 0..40 {
        let mut bytes = good.clone();
        bytes[random.below(good.len() as u64) as usize] ^= 1 << random.below(8);
        fs::write(&bad, bytes).unwrap();
        let ran = adali(home.path(), "eval bad.safetensors");
        assert!(ran.code == Some(0) || ran.code == Some(2), "{ran}");
    }
}

#[test]
fn states_that_are_damaged_or_lie_are_refused() {
    let home = TempDir::new().unwrap();
    let mut cases = 0;
    for (name, variant) in
        [("layer", "--bounds auto-track"), ("channel", "--bounds auto-init --per-channel --optimizer adam")]
    {
        let whole = train(home.path(), name, variant);
        let bad = home.path().join("bad");
        let mut change = |what: &dyn Fn(&mut Tensors), parts: &[&str]| {
            copy(&whole, &bad);
            let mut tensors = Tensors::read(&whole.join("state.safetensors"));
            what(&mut tensors);
            tensors.write(&bad.join("state.safetensors"));
            refused(home.path(), "train --quiet --resume bad", parts);
            fs::remove_dir_all(&bad).unwrap();
            cases += 1;
        };
        for (key, value) in [
            ("epoch", json!(3)),
            ("epoch", json!(u32::MAX)),
            ("step", json!(8)),
            ("step", json!(u64::MAX)),
            ("step", json!(1)),
            ("samples", json!(u64::MAX)),
            ("correct", json!(5)),
        ] {
            change(&|t| t.set_progress(key, value.clone()), &["bad/state.safetensors", "epoch"]);
        }
        for (key, value) in [
            ("updates", json!(u64::MAX)),
            ("skipped", json!(u32::MAX)),
            ("loss_scale", json!(0.0)),
            ("loss_scale", json!(-1024.0)),
            ("loss_scale", json!(1e39)),
        ] {
            change(&|t| t.set_progress(key, value.clone()), &["bad/state.safetensors", "impossible totals"]);
        }
        for (key, value) in [("updates", json!(-1)), ("loss_scale", json!(null)), ("steady", json!(1.5))] {
            change(&|t| t.set_progress(key, value.clone()), &["progress", "cannot be read"]);
        }
        for (key, value) in [("epoch", json!(-1)), ("loss", json!(null)), ("rates", json!("x")), ("best", json!(3))] {
            change(&|t| t.set_progress(key, value.clone()), &["progress", "cannot be read"]);
        }
        change(&|t| t.set_progress("fingerprint", json!(1)), &["other samples"]);
        change(&|t| drop(t.descriptions.remove("progress")), &["lacks progress"]);
        change(&|t| drop(t.descriptions.insert("format".into(), "adali-model-1".into())), &["adali-state-1"]);
        change(&|t| drop(t.descriptions.insert("layers.0.flags".into(), "?".into())), &["layers.0.flags"]);
        let counts = "layers.0.histogram.recent";
        change(&|t| t.poke(counts, &(-1i64).to_le_bytes()), &[counts]);
        change(&|t| t.poke(counts, &[i64::MAX.to_le_bytes(); 3].concat()), &[counts]);
        change(&|t| t.replace(counts, Dtype::I64, &[1, 3]), &[counts, "[1, 3]"]);
        change(&|t| t.poke("layers.0.weight.first_moment", &f32::NAN.to_le_bytes()), &["first_moment", "NaN"]);
        change(&|t| drop(t.all.remove("layers.0.weight.second_moment")), &["second_moment"]);
        if name == "channel" {
            for rows in [1, 3] {
                change(&|t| t.replace("layers.0.start", Dtype::F32, &[rows, 4]), &["layers.0.start"]);
            }
        }
        for file in ["state.safetensors", "model.safetensors"] {
            copy(&whole, &bad);
            fs::write(bad.join(file), b"nothing").unwrap();
            refused(home.path(), "train --quiet --resume bad", &[file]);
            fs::remove_dir_all(&bad).unwrap();
            cases += 1;
        }
    }
    assert_eq!(cases, 2 * (7 + 5 + 3 + 4 + 4 + 5 + 2) + 2);
}
