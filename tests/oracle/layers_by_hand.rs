//! Layers of the oracle against cases worked out by hand; a module of `tests/oracle_checks.rs` only.

use super::checks_by_hand::assert_close;
use crate::oracle::conv::conv_forward;
use crate::oracle::norm::{batch_forward, standardise_weight, training_statistics};
use crate::oracle::pool::{Window, avg_pool_backward, avg_pool_forward, dropout, max_pool_backward, max_pool_forward};
use crate::oracle::{
    Filter, Input, Join, Layer, LayerParams, Loss, Network, Norm, Params, Source, SpikeModel, Tensor, run,
};

/// Two channels of 2x3, kernel 2x1, stride 2, padding 1: only the products inside the image.
#[test]
fn convolution_by_hand() {
    let filter = Filter { out: 1, kernel_h: 2, kernel_w: 1, stride: 2, padding: 1 };
    let input = Tensor::new(&[1, 1, 2, 2, 3], (1..=12).map(f64::from).collect());
    let weight = Tensor::new(&[1, 2, 2, 1], vec![1.0, 10.0, 100.0, 1000.0]);
    // rows -1, 0 then 1, 2; columns -1, 1, 3; channel 0 holds 1..6, channel 1 holds 7..12
    let output = conv_forward(&filter, &input, &weight);
    assert_eq!(output.shape, [1, 1, 1, 2, 3]);
    assert_eq!(output.data, [0.0, 20.0 + 8000.0, 0.0, 0.0, 5.0 + 1100.0, 0.0]);
}

/// A linear layer reads its columns in C, H, W order; its gradients, vote and the mean over T by hand.
#[test]
fn linear_vote_and_direct_input() {
    let linear = Layer::Linear { out: 4, bias: true, norm: Norm::None };
    let mut weight = vec![0.0; 16];
    weight[..4].copy_from_slice(&[1.0, 10.0, 100.0, 1000.0]);
    let params =
        LayerParams { weight: Tensor::new(&[4, 4], weight), bias: vec![0.0, 1.0, 2.0, 4.0], ..LayerParams::default() };
    let image = Tensor::new(&[1, 2, 1, 2], vec![1.0, 2.0, 3.0, 4.0]);
    let network = Network::chain(vec![linear], 2);
    let loss = Loss { mse: 1.0, tet: false, smoothing: 0.0 };
    let input = Input::Direct { image, steps: 2 };
    let trace = run(&network, &Params { layers: vec![params] }, &input, &[1], &loss, SpikeModel::Hard);
    assert_eq!(trace.logits.data, [2161.0, 3.0]); // (4321 + 1)/2 and (2 + 4)/2
    assert_eq!(trace.logits_per_step.data, [2161.0, 3.0, 2161.0, 3.0]);
    assert_eq!(trace.loss, (2161.0 * 2161.0 + 4.0) / 2.0);
    assert_eq!(trace.gradients[0].bias, [1080.5, 1080.5, 1.0, 1.0]);
    assert_eq!(trace.gradients[0].weight.data[4..12], [1080.5, 2161.0, 3241.5, 4322.0, 1.0, 2.0, 3.0, 4.0]);
    assert_eq!(trace.input_gradient.data, [1080.5, 10805.0, 108_050.0, 1_080_500.0]);
}

#[test]
fn pools_and_dropout_by_hand() {
    let spikes = Tensor::new(&[1, 1, 1, 3, 3], vec![0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]);
    let above = Tensor::new(&[1, 1, 1, 2, 2], vec![1.0, 2.0, 4.0, 8.0]);
    let (or, winners) = max_pool_forward(&Window::square(2, 1, 0), &spikes);
    assert_eq!(or.data, [1.0, 1.0, 0.0, 1.0]);
    assert_eq!(winners, [1, 1, 3, 5]); // the third window is silent: its first position
    let gradient = max_pool_backward(&spikes.shape, &winners, &above);
    assert_eq!(gradient.data, [0.0, 3.0, 0.0, 4.0, 0.0, 8.0, 0.0, 0.0, 0.0]);
    let (padded, winners) = max_pool_forward(&Window::square(2, 2, 1), &spikes);
    assert_eq!(padded.data, [0.0, 1.0, 0.0, 1.0]);
    assert_eq!(winners, [0, 1, 3, 5]); // padding is never chosen

    let window = Window::square(2, 1, 0);
    assert_eq!(avg_pool_forward(&window, &spikes).data, [0.25, 0.5, 0.0, 0.25]);
    let gradient = avg_pool_backward(&window, spikes.dims5(), &above);
    assert_eq!(gradient.data, [0.25, 0.75, 0.5, 1.25, 3.75, 2.5, 1.0, 3.0, 2.0]);

    let x = Tensor::new(&[2, 1, 2, 1, 1], vec![1.0, 2.0, 3.0, 4.0]);
    let mask = Tensor::new(&[1, 2, 1, 1], vec![0.0, 1.0]);
    assert_eq!(dropout(&mask, 0.5, &x).data, [0.0, 4.0, 0.0, 8.0]);
}

/// Channel 0 holds 1, 3, 5, 7 over T and N; channel 1 is constant.
#[test]
fn norms_by_hand() {
    let x = Tensor::new(&[2, 2, 2, 1, 1], vec![1.0, 2.0, 3.0, 2.0, 5.0, 2.0, 7.0, 2.0]);
    let statistics = training_statistics(&x, &[1.0, 0.0], &[2.0, 1.0]);
    assert_eq!((&statistics.mean[..], &statistics.var[..]), (&[4.0, 2.0][..], &[5.0, 0.0][..]));
    assert_close(&statistics.running_mean, &[0.9 + 0.4, 0.2]);
    assert_close(&statistics.running_var, &[1.8 + 2.0 / 3.0, 0.9]); // unbiased: 20 / 3
    let y = batch_forward(&x, &statistics, 4.0, &[3.0, 3.0], &[0.5, 0.25]);
    assert_close(&y.data, &[-2.5, 0.25, -0.5, 0.25, 1.5, 0.25, 3.5, 0.25]);

    let weight = Tensor::new(&[2, 2], vec![3.0, 1.0, 5.0, 5.0]); // var * fan_in = 2, then 0
    let root = 2.0001_f64.sqrt();
    let effective = |sample| standardise_weight(&weight, (2.5, sample), &[2.0, 1.0]).data;
    assert_close(&effective(false), &[5.0 / root, -5.0 / root, 0.0, 0.0]);
    let root = 4.0001_f64.sqrt(); // over one value less: var * fan_in = 4
    assert_close(&effective(true), &[5.0 / root, -5.0 / root, 0.0, 0.0]);
}

/// Both values of both inputs, joined in every way; then 2 gain a + b + b, with the gain's gradient.
#[test]
fn joins_sums_and_factors_by_hand() {
    let inputs = Input::Frames(Tensor::new(&[1, 4, 2, 1, 1], vec![0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0]));
    let pick = Layer::Linear { out: 1, bias: false, norm: Norm::None };
    let picks =
        |weight: [f64; 2]| LayerParams { weight: Tensor::new(&[1, 2], weight.to_vec()), ..LayerParams::default() };
    let (a, b) = (Source::Layer(0), Source::Layer(1));
    let squares = Loss { mse: 1.0, tet: false, smoothing: 0.0 };
    let run_on = |mut layers: Vec<Layer>, reads: Vec<Vec<Source>>, factor: Option<f64>| {
        layers.splice(0..0, [pick.clone(), pick.clone()]);
        let reads = [vec![vec![Source::Input]; 2], reads].concat();
        let mut params = Params { layers: vec![LayerParams::default(); layers.len()] };
        (params.layers[0], params.layers[1]) = (picks([1.0, 0.0]), picks([0.0, 1.0]));
        params.layers[2].factor.extend(factor);
        run(&Network { layers, reads, vote: 1 }, &params, &inputs, &[0; 4], &squares, SpikeModel::Hard)
    };
    let joined =
        [(Join::Add, [0.0, 1.0, 1.0, 2.0]), (Join::And, [0.0, 0.0, 0.0, 1.0]), (Join::AndNot, [0.0, 1.0, 0.0, 0.0])];
    for (join, want) in joined {
        let trace = run_on(vec![Layer::Join(join)], vec![vec![a, b]], None);
        assert_eq!(trace.logits.data, want, "{join:?}");
    }
    let layers = vec![Layer::Factor { by: 2.0, learned: true }, Layer::Sum];
    let trace = run_on(layers, vec![vec![a], vec![Source::Layer(2), b, b]], Some(1.5));
    assert_eq!(trace.logits.data, [0.0, 2.0, 3.0, 5.0]);
    // Squares of the distances to 1, over 4 samples: gradients 2 (-1, 1, 2, 4) / 4.
    assert_eq!(trace.gradients[3].output.data, [-0.5, 0.5, 1.0, 2.0]);
    assert_eq!(trace.gradients[2].factor, [2.0 * 3.0]);
    assert_eq!(trace.gradients[1].output.data, [-1.0, 1.0, 2.0, 4.0]);
    assert_eq!(trace.gradients[0].output.data, [-1.5, 1.5, 3.0, 6.0]);
}
