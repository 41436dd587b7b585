//! Checks of the oracle itself: its gradients against finite differences, its values against cases worked out by hand.

#[path = "oracle/checks_by_hand.rs"]
mod checks_by_hand;
#[path = "oracle/layers_by_hand.rs"]
mod layers_by_hand;

use crate::oracle::finite_difference::{Case, Report, check};
use crate::oracle::{
    Input, Join, Layer, Loss, Network, Neuron, Norm, Params, Reset, Rng, Slope, Source, SpikeModel, Tensor, Window, run,
};

const MEAN_CE: Loss = Loss { mse: 0.0, tet: false, smoothing: 0.0 };

fn random_adali(rng: &mut Rng) -> Slope {
    let alpha = rng.uniform(0.3, 0.7);
    Slope::Adali { left: rng.uniform(0.3, 1.5), right: rng.uniform(0.3, 1.5), alpha, beta: 1.0 - alpha }
}

/// Slopes of one kind for a layer of `channels` channels.
fn random_slopes(kind: &str, channels: usize, rng: &mut Rng) -> Vec<Slope> {
    match kind {
        "rectangle" => vec![Slope::rectangle()],
        "adali" => vec![random_adali(rng)],
        "adali per channel" => (0..channels).map(|_| random_adali(rng)).collect(),
        formula => vec![Slope::formula(formula, rng.uniform(0.5, 2.0))],
    }
}

fn random_neuron(hard: bool, detached: bool, rng: &mut Rng) -> Neuron {
    let reset = if hard { Reset::Hard { v_reset: rng.uniform(-0.3, 0.3) } } else { Reset::Soft };
    let lambda = rng.uniform(0.5, 1.0);
    Neuron { lambda, kappa: rng.uniform(0.5, 1.5), theta: rng.uniform(0.6, 1.4), reset, detached }
}

fn random_input(shape: [usize; 5], direct: bool, rng: &mut Rng) -> Input {
    let [steps, rest @ ..] = shape;
    let size: usize = rest.iter().product();
    if direct {
        Input::Direct { image: Tensor::new(&rest, rng.uniform_vec(size, -1.0, 1.0)), steps }
    } else {
        Input::Frames(Tensor::new(&shape, rng.uniform_vec(steps * size, -1.0, 1.0)))
    }
}

fn random_case(network: Network, shape: [usize; 5], classes: usize, loss: Loss, rng: &mut Rng) -> Case {
    let [_, batch, channels, height, width] = shape;
    let params = Params::random(&network, [channels, height, width], rng);
    let direct = rng.below(2) == 0;
    let labels = (0..batch).map(|_| rng.below(classes)).collect();
    Case { network, params, input: random_input(shape, direct, rng), labels, loss }
}

/// Every difference must agree, most must be kept, and many gradients must be nonzero.
#[track_caller]
fn assert_agrees(report: &Report) {
    println!("{} compared, {} not zero, {} skipped", report.compared, report.nonzero, report.skipped);
    assert!(report.wrong.is_empty(), "{} wrong: {:#?}", report.wrong.len(), report.wrong);
    assert!(report.skipped * 10 < report.compared, "too many differences meet a kink");
    assert!(report.nonzero * 2 > report.compared, "too many gradients are zero");
}

const NORMS: [Norm; 5] = [
    Norm::None,
    Norm::Batch { eps: 1e-3, train: true },
    Norm::Batch { eps: 1e-5, train: false },
    Norm::Weight { scale: 2.5, sample: false },
    Norm::Weight { scale: 1.5, sample: true },
];

/// One slope with every reset, norm and number of steps, through two spiking layers and a linear readout.
fn check_slope(kind: &str) {
    let mut rng = Rng::fresh(kind);
    let mut report = Report::default();
    let mut cases = 0;
    for (hard, detached) in [(false, false), (false, true), (true, false), (true, true)] {
        for norm in NORMS {
            for steps in [1, 2, 3, 5] {
                let bias = norm == Norm::None || steps % 2 == 1;
                let mut neurons = || Layer::Neurons {
                    neuron: random_neuron(hard, detached, &mut rng),
                    slopes: random_slopes(kind, 3, &mut rng),
                };
                let conv =
                    Layer::Conv { out: 3, kernel_h: 3, kernel_w: 2, stride: 1 + steps % 2, padding: 1, bias, norm };
                let hidden = Layer::Linear { out: 3, bias, norm };
                let readout = Layer::Linear { out: 3, bias: true, norm: Norm::None };
                let network = Network::chain(vec![conv, neurons(), hidden, neurons(), readout], 1);
                let case = random_case(network, [steps, 3, 2, 5, 3], 3, MEAN_CE, &mut rng);
                let found = check(&case, 2, &mut rng);
                assert!(found.wrong.is_empty(), "{:#?} in {:#?}", found.wrong, case.network);
                report.add(found);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 4 * 5 * 4);
    assert_agrees(&report);
}

#[test]
fn gradient_rectangle() {
    check_slope("rectangle");
}

#[test]
fn gradient_adali() {
    check_slope("adali");
}

#[test]
fn gradient_adali_per_channel() {
    check_slope("adali per channel");
}

#[test]
fn gradient_of_formulas() {
    for name in Slope::FORMULAS {
        check_slope(name);
    }
}

/// Max-pooling, dropout and average pooling between spiking convolutions, and a readout of 4 votes.
fn pooled_network(spiking_readout: bool, vote: usize, rng: &mut Rng) -> Network {
    let mut neurons =
        || Layer::Neurons { neuron: random_neuron(false, false, rng), slopes: vec![Slope::Arctan { k: 2.0 }] };
    let conv =
        |out, kernel_h| Layer::Conv { out, kernel_h, kernel_w: 3, stride: 1, padding: 1, bias: true, norm: Norm::None };
    let mask = (0..36).map(|i| f64::from(u8::from(i % 3 != 1))).collect();
    let mut layers = vec![
        conv(2, 1), // 3x5 -> 5x5
        neurons(),
        Layer::MaxPool(Window::square(3, 2, 1)), // -> 3x3
        Layer::Dropout { mask: Tensor::new(&[2, 2, 3, 3], mask), keep: 0.6 },
        conv(3, 3),
        neurons(),
        Layer::AvgPool(Window { kernel: [2, 3], stride: [1, 2], padding: 0 }), // -> 2x1
        Layer::Linear { out: 4 * vote, bias: true, norm: Norm::None },
    ];
    if spiking_readout {
        layers.push(neurons());
    }
    Network::chain(layers, vote)
}

/// Every loss with every readout, over [`pooled_network`]. A smooth max-pool takes the largest value; differences across which
/// the winner changes are skipped like those across a kink.
#[test]
fn gradient_losses_readouts_pools() {
    let mut rng = Rng::fresh("losses, readouts, pools");
    let mut report = Report::default();
    let mut cases = 0;
    for (mse, smoothing) in [(0.0, 0.0), (0.0, 0.1), (1.0, 0.0), (0.3, 0.2)] {
        for tet in [false, true] {
            for (spiking_readout, vote) in [(false, 1), (false, 3), (true, 1), (true, 3)] {
                for steps in [1, 2, 3] {
                    let network = pooled_network(spiking_readout, vote, &mut rng);
                    let loss = Loss { mse, tet, smoothing };
                    let case = random_case(network, [steps, 2, 1, 3, 5], 4, loss, &mut rng);
                    report.add(check(&case, 1, &mut rng));
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 4 * 2 * 4 * 3);
    assert_agrees(&report);
}

/// A stem whose spikes and currents are both read further on; a sum of three with a norm of its own and factors; a join of
/// its spikes with the stem's; and a sum of a convolution and a pooled shortcut, the global mean, a readout.
fn branching_network(norm: Norm, train: bool, join: Join, (hard, detached): (bool, bool), rng: &mut Rng) -> Network {
    let mut neurons = || Layer::Neurons {
        neuron: random_neuron(hard, detached, rng),
        slopes: random_slopes(["adali", "arctan"][rng.below(2)], 3, rng),
    };
    let conv = |kernel, stride, padding| Layer::Conv {
        out: 3,
        kernel_h: kernel,
        kernel_w: kernel,
        stride,
        padding,
        bias: norm == Norm::None,
        norm,
    };
    let mask = (0..120).map(|i| f64::from(u8::from(i % 4 != 1))).collect();
    let of = Source::Layer;
    let (layers, reads) = [
        (conv(3, 1, 1), vec![Source::Input]), // 0: 5x4
        (neurons(), vec![of(0)]),
        (conv(3, 1, 1), vec![of(1)]),
        (Layer::Factor { by: 0.7, learned: true }, vec![of(2)]),
        (Layer::Factor { by: -0.5, learned: false }, vec![of(0)]),
        (Layer::Sum, vec![of(3), of(1), of(4)]), // 5
        (Layer::BatchNorm { eps: 1e-3, train }, vec![of(5)]),
        (Layer::Factor { by: 1.3, learned: false }, vec![of(6)]),
        (neurons(), vec![of(7)]),
        (Layer::Join(join), vec![of(8), of(1)]),
        (Layer::Dropout { mask: Tensor::new(&[2, 3, 5, 4], mask), keep: 0.75 }, vec![of(9)]), // 10
        (Layer::AvgPool(Window::square(2, 2, 0)), vec![of(10)]),
        (conv(1, 1, 0), vec![of(11)]), // 2x2
        (Layer::Factor { by: 1.0, learned: true }, vec![of(12)]),
        (conv(2, 2, 0), vec![of(10)]),
        (Layer::Sum, vec![of(14), of(13)]), // 15
        (neurons(), vec![of(15)]),
        (Layer::AvgPool(Window::square(2, 2, 0)), vec![of(16)]),
        (Layer::Linear { out: 3, bias: true, norm: Norm::None }, vec![of(17)]),
    ]
    .into_iter()
    .unzip();
    Network { layers, reads, vote: 1 }
}

/// Every join with every norm and reset, over [`branching_network`].
#[test]
fn gradient_of_branches() {
    let mut rng = Rng::fresh("branches");
    let mut report = Report::default();
    let mut cases = 0;
    for join in [Join::Add, Join::And, Join::AndNot] {
        for norm in NORMS {
            for reset in [(false, false), (false, true), (true, false), (true, true)] {
                let train = norm != NORMS[2];
                let network = branching_network(norm, train, join, reset, &mut rng);
                let case = random_case(network, [3, 2, 2, 5, 4], 3, MEAN_CE, &mut rng);
                let found = check(&case, 1, &mut rng);
                assert!(found.wrong.is_empty(), "{:#?} in {:#?}", found.wrong, case.network);
                report.add(found);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 3 * 5 * 4);
    assert_agrees(&report);
}

/// Far from every window, smooth and hard spikes are equal, so both forward passes must agree.
#[test]
fn hard_and_smooth_agree_outside_the_windows() {
    let mut rng = Rng::fresh("hard and smooth");
    let narrow = Slope::Adali { left: 1e-9, right: 1e-9, alpha: 0.5, beta: 0.5 };
    let mut cases = 0;
    for (hard, detached) in [(false, false), (false, true), (true, false), (true, true)] {
        let linear = |out| Layer::Linear { out, bias: true, norm: Norm::None };
        let neurons = Layer::Neurons { neuron: random_neuron(hard, detached, &mut rng), slopes: vec![narrow] };
        let layers = vec![linear(40), neurons, linear(3)];
        let case = random_case(Network::chain(layers, 1), [5, 3, 2, 1, 1], 3, MEAN_CE, &mut rng);
        let of = |model| run(&case.network, &case.params, &case.input, &case.labels, &case.loss, model);
        let (hard, smooth) = (of(SpikeModel::Hard), of(SpikeModel::Smooth));
        let state = hard.layers[1].neuron.as_ref().expect("a spiking layer");
        assert!(state.inside.iter().all(|inside| !inside));
        assert!(state.spikes.data.contains(&1.0) && state.spikes.data.contains(&0.0));
        assert_eq!(hard.logits_per_step, smooth.logits_per_step);
        assert_eq!(hard.gradients, smooth.gradients);
        cases += 1;
    }
    assert_eq!(cases, 4);
}
