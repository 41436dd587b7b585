//! Slopes, neurons, losses and optimisers of the oracle against cases worked out by hand; a module of `tests/oracle_checks.rs`
//! only.

use crate::oracle::{
    AdamW, AdamWState, Loss, Neuron, Reset, Sgd, Slope, SpikeModel, Tensor, loss_and_gradient, neuron_backward,
    neuron_forward,
};

const MEAN_CE: Loss = Loss { mse: 0.0, tet: false, smoothing: 0.0 };

/// Equal within 1e-12, relative above 1.
#[track_caller]
pub fn assert_close(actual: &[f64], expected: &[f64]) {
    let close = |(a, e): (&f64, &f64)| (a - e).abs() <= 1e-12 * e.abs().max(1.0);
    assert!(actual.len() == expected.len() && actual.iter().zip(expected).all(close), "{actual:?} is not {expected:?}");
}

/// The boundaries of AdaLi, the peaks, and each primitive: 0 to 1, and its derivative the slope.
#[test]
fn slopes_and_their_primitives() {
    let adali = Slope::Adali { left: 0.5, right: 2.0, alpha: 0.25, beta: 0.75 };
    let points = [-0.5 - 1e-12, -0.5, -1e-12, 0.0, 2.0, 2.0 + 1e-12];
    assert_eq!(points.map(|z| adali.slope(z)), [0.0, 0.5, 0.5, 0.375, 0.375, 0.0]);
    assert_eq!(points.map(|z| adali.inside(z)), [false, true, true, true, true, false]);
    assert_eq!(
        [-1.0, -0.5, -0.25, 0.0, 1.0, 2.0, 3.0].map(|z| adali.primitive(z)),
        [0.0, 0.0, 0.125, 0.25, 0.625, 1.0, 1.0]
    );
    assert_eq!([-0.5, 0.0, 0.5, 0.75].map(|z| Slope::rectangle().slope(z)), [1.0, 1.0, 1.0, 0.0]);
    let usual = [4.0, 2.0, 1.0, 2.0];
    let others: [_; 4] = std::array::from_fn(|i| Slope::formula(Slope::FORMULAS[i], usual[i]));
    assert_eq!(others.map(|slope| slope.slope(0.0)), [1.0; 4]);
    assert_close(&others.map(|slope| slope.slope(0.5)), &[0.419_974_341_614_026_1, 0.288_400_439_142_001, 0.5, 0.25]);
    let mut compared = 0;
    for slope in others.into_iter().chain([adali]) {
        assert!(slope.primitive(-1e9).abs() < 1e-8 && (slope.primitive(1e9) - 1.0).abs() < 1e-8);
        for i in -300..300 {
            let z = f64::from(i) / 100.0 + 0.005;
            let difference = (slope.primitive(z + 1e-6) - slope.primitive(z - 1e-6)) / 2e-6;
            assert!((difference - slope.slope(z)).abs() < 1e-8, "{slope:?} at {z}");
            compared += 1;
        }
    }
    assert_eq!(compared, 5 * 600);
}

/// Three steps with theta = 1, lambda = .5, kappa = 2 and g = .5 left, 1.5 right of the threshold.
#[test]
fn three_steps_of_a_neuron() {
    let slopes = [Slope::Adali { left: 0.5, right: 0.5, alpha: 0.25, beta: 0.75 }];
    let hard = Reset::Hard { v_reset: -0.5 };
    // reset, detached, current, H, V, G_I / kappa, for G_S = 1, 2, 4
    let soft_values = ([0.375, 0.4375, 0.1875], [0.75, 1.25, 0.5], [0.75, 0.25, 0.5]);
    let hard_values = ([0.375, 0.4375, 0.4375], [0.75, 1.25, 0.625], [0.75, -0.5, 0.625]);
    let cases = [
        (Reset::Soft, false, soft_values, [1.125, 2.5, 2.0]),
        (Reset::Soft, true, soft_values, [2.5, 4.0, 2.0]),
        (hard, false, hard_values, [0.570_312_5, 0.375, 2.0]),
        (hard, true, hard_values, [2.0, 3.0, 2.0]),
    ];
    for (reset, detached, (current, membrane, after_reset), gradient) in cases {
        let neuron = Neuron { lambda: 0.5, kappa: 2.0, theta: 1.0, reset, detached };
        let steps = |values: [f64; 3]| Tensor::new(&[3, 1, 1, 1, 1], values.to_vec());
        let state = neuron_forward(&neuron, &slopes, &steps(current), SpikeModel::Hard, None);
        assert_eq!(state.membrane.data, membrane);
        assert_eq!(state.spikes.data, [0.0, 1.0, 0.0]);
        assert_eq!(state.after_reset.data, after_reset);
        assert_eq!(state.inside, [true; 3]);
        let above = steps([1.0, 2.0, 4.0]);
        let result = neuron_backward(&neuron, &slopes, &state.membrane, &state.spikes, &above);
        assert_eq!(result.data, gradient.map(|g| 2.0 * g));
    }
}

/// H = theta fires; theta scales z and the slope; each channel has its own bounds.
#[test]
fn threshold_and_channels() {
    let neuron = Neuron { lambda: 1.0, kappa: 1.0, theta: 2.0, reset: Reset::Soft, detached: false };
    let wide = Slope::Adali { left: 1.0, right: 1.0, alpha: 0.5, beta: 0.5 };
    let slopes = [Slope::rectangle(), wide];
    let current = Tensor::new(&[1, 2, 2, 1, 1], vec![2.0, 3.5, 0.75, 0.75]);
    let state = neuron_forward(&neuron, &slopes, &current, SpikeModel::Hard, None);
    assert_eq!(state.spikes.data, [1.0, 1.0, 0.0, 0.0]);
    assert_eq!(state.inside, [true, true, false, true]);
    let above = Tensor::new(&[1, 2, 2, 1, 1], vec![1.0; 4]);
    let gradient = neuron_backward(&neuron, &slopes, &state.membrane, &state.spikes, &above);
    assert_eq!(gradient.data, [0.5, 0.25, 0.0, 0.25]);
}

/// Logits 0 and ln 3: probabilities 1/4 and 3/4.
#[test]
fn losses_by_hand() {
    let ln3 = 3.0_f64.ln();
    let logits = Tensor::new(&[2, 1, 2], vec![0.0, ln3, 0.0, ln3]);
    let (value, gradient) = loss_and_gradient(&MEAN_CE, &logits, &[0]);
    assert_close(&[value], &[4.0_f64.ln()]);
    assert_close(&gradient.data, &[-0.375, 0.375, -0.375, 0.375]);
    let (value, gradient) = loss_and_gradient(&Loss { smoothing: 0.2, ..MEAN_CE }, &logits, &[0]);
    assert_close(&[value], &[0.9 * 4.0_f64.ln() + 0.1 * (4.0_f64 / 3.0).ln()]); // targets .9 and .1
    assert_close(&gradient.data, &[-0.325, 0.325, -0.325, 0.325]);
    let squares = (1.0 + ln3 * ln3) / 2.0;
    let (value, _) = loss_and_gradient(&Loss { mse: 0.25, tet: false, smoothing: 0.2 }, &logits, &[0]);
    assert_close(&[value], &[0.75 * (0.9 * 4.0_f64.ln() + 0.1 * (4.0_f64 / 3.0).ln()) + 0.25 * squares]);
    // steps that differ: the averaged logits are (0, 0), TET averages ln 4 and ln (4/3)
    let logits = Tensor::new(&[2, 1, 2], vec![0.0, ln3, 0.0, -ln3]);
    let (mean, _) = loss_and_gradient(&MEAN_CE, &logits, &[0]);
    let (tet, gradient) = loss_and_gradient(&Loss { tet: true, ..MEAN_CE }, &logits, &[0]);
    assert_close(&[mean, tet], &[2.0_f64.ln(), (4.0_f64.ln() + (4.0_f64 / 3.0).ln()) / 2.0]);
    assert_close(&gradient.data, &[-0.375, 0.375, -0.125, 0.125]);
}

#[test]
fn optimisers_by_hand() {
    let (mut p, mut v) = ([1.0], [0.0]);
    let sgd = Sgd { rate: 0.1, momentum: 0.9, weight_decay: 0.5 };
    sgd.step(&mut p, &[2.0], &mut v); // g = 2.5
    assert_close(&[p[0], v[0]], &[0.75, 2.5]);
    sgd.step(&mut p, &[1.0], &mut v); // g = 1.375, v = 3.625
    assert_close(&[p[0], v[0]], &[0.3875, 3.625]);

    let mut p = [1.0];
    let mut state = AdamWState::new(1);
    let adamw = AdamW { rate: 0.1, beta1: 0.5, beta2: 0.75, eps: 1.0, weight_decay: 0.5 };
    adamw.step(&mut p, &[2.0], &mut state); // corrected means 2 and 4: 1 * .95 - .1 * 2 / 3
    assert_close(&[p[0], state.mean[0], state.square[0]], &[0.95 - 0.2 / 3.0, 1.0, 1.0]);
    let before = p[0];
    adamw.step(&mut p, &[0.0], &mut state); // means .5 and .75, over 1 - .25 and 1 - .5625
    let update = (0.5 / 0.75) / ((0.75_f64 / 0.4375).sqrt() + 1.0);
    assert_close(&[p[0]], &[0.95 * before - 0.1 * update]);
}
