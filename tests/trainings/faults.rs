//! Trainings that fail: gradients beyond f16, values that are not finite.

use super::training::{Seen, config, digits, gpu, network, run, second};
use adali::autotune::{BoundsMode, BoundsSpec};
use adali::backend::Totals;
use adali::backend::gpu::Gpu;
use adali::backend::gpu::Precision;
use adali::backend::gpu::cuda::Cuda;
use adali::error::InputError;
use adali::network::parameters::Part;
use adali::train::{Config, Outcome, Trainer};

fn trainer(precision: Precision, config: &Config, count: usize) -> Trainer<Gpu<Cuda>> {
    Trainer::new(gpu(precision, true, 2, None), config.clone(), &mut digits(count, 1)).unwrap()
}

fn usual() -> Config {
    config(network(2, "direct", "batch", &second("batch")), BoundsSpec::default())
}

#[test]
fn a_loss_scale_that_is_too_large_is_halved_until_gradients_fit() {
    let mut config = usual();
    config.training.checkpoint_every = 1;
    config.training.epochs = 1;
    let mut cases = 0;
    for (first, skips) in [(65536.0, false), ((1 << 24) as f32, true)] {
        let mut trainer = trainer(Precision::F16, &config, 12 * 14);
        let totals = trainer.model.totals().unwrap();
        assert_eq!((totals.loss_scale, totals.skipped, totals.updates), (65536.0, 0, 0));
        trainer.model.set_totals(&Totals { loss_scale: first, ..totals }).unwrap();
        let mut seen = Seen::default();
        let mut values = super::training::parameter_bits(&trainer, Part::Value);
        assert_eq!(run(&mut trainer, &mut seen).unwrap(), Outcome::Finished);
        let (mut before, mut skipped) = (Totals { loss_scale: first, ..totals }, 0);
        // The last one is from the end of the epoch, after another step.
        for (now, parameters) in seen.totals.iter().zip(&seen.parameters).take(13) {
            if now.skipped > before.skipped {
                assert_eq!((now.skipped, now.updates), (before.skipped + 1, before.updates));
                assert_eq!((now.loss_scale, now.steady), (before.loss_scale / 2.0, 0));
                assert!(*parameters == values, "a step that is skipped moves nothing");
                assert_eq!(now.gradient_norm, before.gradient_norm);
                skipped += 1;
            } else {
                assert_eq!((now.updates, now.loss_scale), (before.updates + 1, before.loss_scale));
                assert!(*parameters != values && now.gradient_norm > before.gradient_norm);
            }
            assert!(now.loss.is_finite() && now.samples == before.samples + 12);
            (before, values) = (*now, parameters.clone());
        }
        println!("scale {first}: {skipped} of 13 steps skipped, {} at the end", before.loss_scale);
        let end = trainer.model.totals().unwrap();
        assert_eq!((end.updates + end.skipped, end.loss_scale), (14, first / 2f32.powi(end.skipped as i32)));
        assert_eq!(end.skipped > 0, skips, "{end:?}");
        assert!(end.updates >= 4 && seen.epochs[0].train_loss < 4.0, "it does not recover: {end:?}");
        cases += 1;
    }
    assert_eq!(cases, 2);
}

/// The error of a training that must fail, and not as a user error.
fn failed(trainer: &mut Trainer<Gpu<Cuda>>) -> String {
    let error = run(trainer, &mut Seen::default()).expect_err("it cannot be trained");
    assert!(!error.is::<InputError>());
    let text = format!("{error:#}");
    println!("{text}");
    assert!(text.lines().count() == 1 && text.contains("lower the learning rate"), "{text}");
    text
}

#[test]
fn a_weight_that_is_not_finite_is_found_with_its_layer_and_step() {
    let track = BoundsSpec { mode: BoundsMode::AutoTrack, ..BoundsSpec::default() };
    let mut cases = 0;
    for (layer, name) in [(0, "layers.0"), (1, "layers.2")] {
        for (precision, norm, bounds, when) in [
            (Precision::Bf16, "none", BoundsSpec::default(), "at step 1 of epoch 1 (step 1 in all)"),
            (Precision::F32, "batch", BoundsSpec::default(), "at step 1 of epoch 1 (step 1 in all)"),
            (Precision::F16, "weight", track, "before the first step"),
        ] {
            let config = config(network(2, "direct", norm, &second(norm)), bounds);
            let mut trainer = trainer(precision, &config, 24);
            let backend = trainer.model.backend().clone();
            let (_, parameters) = trainer.model.populations_mut().nth(layer).unwrap();
            let synapses = parameters.synapses_mut().next().unwrap();
            let mut weight = synapses.weight.read(&backend, Part::Value).unwrap();
            weight[3] = f32::NAN;
            synapses.weight.write(&backend, Part::Value, &weight).unwrap();
            let text = failed(&mut trainer);
            assert!(text.starts_with(name) && text.contains("not finite") && text.contains(when), "{text}");
            cases += 1;
        }
    }
    assert_eq!(cases, 6);
}

#[test]
fn a_learning_rate_far_too_large_is_found_with_its_step() {
    let mut cases = 0;
    for precision in [Precision::Bf16, Precision::F16, Precision::F32] {
        for every in [0, 100] {
            // Without a norm after it, nothing rescales a current.
            let mut config = config(network(2, "direct", "none", ""), BoundsSpec::default());
            config.training.learning_rate = 1e30;
            config.training.histogram_every = every;
            config.training.checkpoint_every = 1;
            let text = failed(&mut trainer(precision, &config, 48));
            let what = ["the loss is", "the gradient's norm is not finite", "membrane potentials are not finite"];
            assert!(what.iter().any(|what| text.contains(what)) && text.contains(" at step "), "{text}");
            cases += 1;
        }
    }
    assert_eq!(cases, 6);
}
