//! Loss, correct answers and gradient of a batch.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::loss::loss;
use adali::backend::gpu::params::{Loss, LossTotal, Metrics};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Span, Volume};
use adali::backend::{LossSpec, LossSums};

/// Exp and log may differ by one rounding in f64.
const RELATIVE: f64 = 1e-6;
/// The gradient's terms cancel.
const ABSOLUTE: f32 = 1e-12;

/// Loss of a batch on the device, added to the metrics, and optionally its gradient.
fn on_device(
    device: &Device,
    spec: &LossSpec,
    logits: &Tensor,
    labels: &[u16],
    shares: &[f32],
    metrics: Metrics,
    wants_gradient: bool,
) -> (Metrics, Option<Tensor>) {
    let Span { batch, steps } = logits.span;
    let (on_device, labels) = (device.values(Value::F32, logits), device.put(labels));
    let shares = (!shares.is_empty()).then(|| device.put(shares));
    let gradient = wants_gradient.then(|| device.empty_values(Value::F32, logits.span, logits.volume));
    let samples = device.empty(batch * 16);
    let metrics = device.put(&[metrics]);
    let params = Loss {
        logits: on_device.address(),
        labels: labels.address(),
        gradient: address(gradient.as_ref()),
        samples: samples.address(),
        mse: spec.mse,
        label_smoothing: spec.label_smoothing,
        batch: batch as u32,
        steps: steps as u32,
        classes: logits.volume.c as u32,
        tet: spec.tet.into(),
        shares: address(shares.as_ref()),
    };
    device.run("loss", Launch::over(batch, 4, 128), &params);
    let total = LossTotal { samples: samples.address(), metrics: metrics.address(), batch: batch as u32, padding: 0 };
    device.run("loss_total", Launch::over(1, 1, 128), &total);
    let gradient = gradient.map(|gradient| {
        let tensor = device.get_values(Value::F32, &gradient, logits.span, logits.volume);
        assert_eq!(device.get::<f32>(&gradient), tensor.gpu_floats(), "padding is zero");
        tensor
    });
    (device.get::<Metrics>(&metrics)[0], gradient)
}

fn on_cpu(spec: &LossSpec, logits: &Tensor, labels: &[u16], shares: &[f32]) -> (LossSums, Tensor) {
    let floats = logits.cpu_floats();
    let mut gradient = vec![0.0; floats.len()];
    let sums = loss(spec, logits.volume.c, logits.span, &floats, labels, shares, Some(&mut gradient));
    (sums, Tensor::from_cpu_floats(logits.span, logits.volume, &gradient))
}

#[test]
fn losses_match() {
    let mut rng = Rng::fresh("loss");
    let mut cases = 0;
    for classes in [2, 10, 33, 100] {
        for steps in [1, 2, 4, 7] {
            for (mse, label_smoothing) in [(0.0, 0.0), (0.05, 0.1), (1.0, 0.0)] {
                for tet in [false, true] {
                    for batch in [1, 6, 70] {
                        let spec = LossSpec { mse, label_smoothing, tet };
                        let span = Span { batch, steps };
                        // Votes of few spikes, with frequent ties, or arbitrary values.
                        let votes = rng.below(2) == 0;
                        let draw = || if votes { rng.below(5) as f32 / 10.0 } else { 3.0 * rng.normal() as f32 };
                        let logits = Tensor::new(span, Volume { h: 1, w: 1, c: classes }, draw);
                        let labels: Vec<u16> = (0..batch).map(|_| rng.below(classes) as u16).collect();
                        let mixes = rng.below(2) == 0;
                        let shares: Vec<f32> = if mixes {
                            labels.iter().map(|_| rng.uniform(0.0, 1.0) as f32).collect()
                        } else {
                            Vec::new()
                        };
                        let (sums, want) = on_cpu(&spec, &logits, &labels, &shares);
                        let device = Device::new(rng.next_u64());
                        let before = Metrics { loss: 2.0, correct: 10, samples: 1000 };
                        let (metrics, gradient) =
                            on_device(&device, &spec, &logits, &labels, &shares, before, batch != 6);
                        let what = format!("{spec:?} mixes={mixes} N={batch} T={steps} classes={classes}");
                        let loss = metrics.loss - before.loss;
                        assert!(
                            (loss - sums.loss).abs() <= RELATIVE * sums.loss.abs(),
                            "{what}: {loss}, not {}",
                            sums.loss
                        );
                        assert_eq!(metrics.correct, 10 + sums.correct, "{what}");
                        assert_eq!(metrics.samples, 1000 + batch as u64, "{what}");
                        if let Some(gradient) = gradient {
                            assert_close(&what, &gradient.data, &want.data, RELATIVE as f32, ABSOLUTE);
                        }
                        cases += 1;
                    }
                }
            }
        }
    }
    assert_eq!(cases, 4 * 4 * 3 * 2 * 3);
}

#[test]
fn hits_at_ties_and_at_what_is_not_a_number() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    let mut rows = vec![
        vec![0.5, 0.5, 0.1],
        vec![0.1, 0.5, 0.5],
        vec![0.0, -0.0, 0.0],
        vec![-0.0, 0.0, 0.0],
        vec![nan, 1.0, 2.0],
        vec![1.0, nan, 2.0],
        vec![1.0, nan, 0.0],
        vec![nan, nan, nan],
        vec![-inf, -inf, -inf],
        vec![-inf, nan, -inf],
        vec![inf, 0.0, inf],
    ];
    // Ties between classes of different lanes and of the same lane.
    rows.extend([(3, 35), (35, 40), (40, 66), (31, 32)].map(|(a, b)| {
        let mut row = vec![0.0; 70];
        (row[a], row[b]) = (1.0, 1.0);
        row
    }));
    for row in rows {
        let classes = row.len();
        let mut values = row.iter().copied();
        let volume = Volume { h: 1, w: 1, c: classes };
        let logits = Tensor::new(Span { batch: 1, steps: 1 }, volume, || values.next().unwrap());
        for label in 0..classes {
            let spec = LossSpec::default();
            let (sums, _) = on_cpu(&spec, &logits, &[label as u16], &[]);
            let device = Device::new(label as u64);
            let (metrics, _) = on_device(&device, &spec, &logits, &[label as u16], &[], Metrics::default(), false);
            assert_eq!(metrics.correct, sums.correct, "{row:?}, label {label}");
            assert_eq!(metrics.loss.is_finite(), sums.loss.is_finite(), "{row:?}, label {label}");
        }
    }
}
