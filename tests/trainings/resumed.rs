//! Trainings that are stopped or killed, then resumed: the result is the same.

use super::training::{Seen, assert_same, config, digits, gpu, network, run, second, train};
use crate::process::card::with_card;
use crate::process::{bytes, command, finish, run as ended};
use adali::autotune::{BoundsMode, BoundsSpec};
use adali::backend::gpu::Precision;
use adali::data::Augmentation;
use adali::train::checkpoint::open_state;
use adali::train::optimizer::Optimizer;
use adali::train::{Outcome, Trainer};
use std::time::{Duration, Instant};
use tempfile::TempDir;

#[test]
fn a_training_that_stopped_goes_on_with_the_same_bits() {
    let home = TempDir::new().unwrap();
    let track = BoundsSpec { mode: BoundsMode::AutoTrack, ..BoundsSpec::default() };
    let every = BoundsSpec { update_every: 3, ..track };
    let init = BoundsSpec { mode: BoundsMode::AutoInit, per_step: true, per_channel: true, ..track };
    let mut cases = 0;
    for (precision, bounds, optimizer, stop_at) in [
        (Precision::Bf16, every, Optimizer::Sgd, (1, 2)),
        (Precision::F16, BoundsSpec { per_channel: true, ..every }, Optimizer::Adamw, (2, 1)),
        (Precision::Bf16, init, Optimizer::Adam, (1, 3)),
        (Precision::F32, track, Optimizer::Sgd, (1, 4)),
    ] {
        let dropout = "[[layers]]\ntype = \"dropout\"\nprobability = 0.25\n";
        let mut config = config(network(2, "direct", "batch", &(second("batch") + dropout)), bounds);
        config.data.augmentation = Augmentation { crop_padding: 1, flip: true, ..Augmentation::default() };
        config.data.augmentation.resized_crop = precision == Precision::F32;
        if config.data.augmentation.resized_crop {
            config.data.augmentation.crop_padding = 0;
        }
        config.training.batch = 8;
        config.training.optimizer = optimizer;
        config.training.learning_rate = 0.003;
        let data = || digits(32, 1);
        let whole = train(gpu(precision, true, 0, None), &config, data());

        let path = home.path().join("state.safetensors");
        let mut first = Trainer::new(gpu(precision, true, 1, None), config.clone(), &mut data()).unwrap();
        let mut seen = Seen { stop_at: Some(stop_at), save: Some(path.clone()), ..Seen::default() };
        assert_eq!(run(&mut first, &mut seen).unwrap(), Outcome::Interrupted);
        let (state, progress) = open_state(&path).unwrap();
        // A stop after the last step of an epoch ends the epoch.
        let within = if stop_at.1 == 4 { (stop_at.0, 0) } else { (stop_at.0 - 1, stop_at.1) };
        assert_eq!((progress.epoch, progress.step), within);
        assert_eq!(progress.totals, first.model.totals().unwrap());
        let mut second = Trainer::new(gpu(precision, true, 2, None), config.clone(), &mut data()).unwrap();
        second.check_progress(&progress, &path).unwrap();
        second.resume(&state, progress).unwrap();
        let mut seen = Seen::default();
        assert_eq!(run(&mut second, &mut seen).unwrap(), Outcome::Finished);
        assert_same((&whole.0, &whole.1), (&second, &seen), &format!("{precision:?}, {bounds:?}, {stop_at:?}"));
        cases += 1;
    }
    assert_eq!(cases, 4);
}

#[test]
fn a_process_that_was_killed_goes_on_with_the_same_bytes() {
    let home = TempDir::new().unwrap();
    let arguments = "train --device cuda --quiet --channels 4 --steps 2 --epochs 2 --batch 8 --limit 32 \
        --validation 0.01 --bounds auto-track --optimizer adam --learning-rate 0.003 --checkpoint-every 1 --out";
    // The test part of the digits is evaluated at the end, so the network is as small as possible.
    let on_card = |arguments: &str, seed| with_card(command(home.path(), arguments), home.path(), seed);
    ended(on_card(&format!("{arguments} whole"), 0)).done();
    let mut child = on_card(&format!("{arguments} killed"), 1).spawn().unwrap();
    let (state, begin) = (home.path().join("killed/state.safetensors"), Instant::now());
    let steps = || open_state(&state).map_or(0, |(_, progress)| 4 * progress.epoch as u64 + progress.step);
    while steps() < 2 && begin.elapsed() < Duration::from_secs(60) && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(2));
    }
    child.kill().unwrap();
    let killed = finish(child, "the killed training");
    assert_eq!(killed.code, None, "it ended before it was killed: {killed}");
    let done = steps();
    println!("killed behind step {done} of 8");
    assert!((2..8).contains(&done), "killed behind step {done}");
    ended(on_card("train --quiet --resume killed --device cuda", 2)).done();
    let [a, b] = ["whole", "killed"].map(|run| bytes(home.path().join(run).join("model.safetensors")));
    assert!(a == b, "model.safetensors differs");
}
