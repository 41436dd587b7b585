//! A whole training step of a network on the CPU backend against the f64 oracle: membranes, spikes, logits, loss
//! and the gradient of every parameter.

mod oracle;
mod support;

use adali::backend::LossSpec;
use adali::network::spec::{LayerSpec, Synapse};
use adali::network::{InputMode, NetworkSpec, Norm};
use adali::neuron::ResetKind;
use adali::surrogate::{Surrogate, SurrogateKind};
use oracle::Rng;
use support::layers::{
    avg_pool, conv, conv_of, dropout, linear, max_pool, network, random_input, random_neuron, readout, spiking_readout,
};
use support::{Case, Outcome, check};

const RESETS: [(ResetKind, bool); 4] =
    [(ResetKind::Soft, false), (ResetKind::Soft, true), (ResetKind::Hard, false), (ResetKind::Hard, true)];
/// With whether a batch norm uses the batch's statistics.
const NORMS: [(Norm, bool); 4] = [(Norm::None, true), (Norm::Batch, true), (Norm::Batch, false), (Norm::Weight, true)];
const SURROGATES: [SurrogateKind; 5] = [
    SurrogateKind::Adali,
    SurrogateKind::Rectangle,
    SurrogateKind::Sigmoid,
    SurrogateKind::Arctan,
    SurrogateKind::Triangle,
];
/// On both sides of 16, 32 and 64, where lanes and words end.
const CHANNELS: [usize; 11] = [1, 2, 3, 16, 17, 31, 32, 33, 48, 64, 65];
const STEPS: [usize; 7] = [1, 2, 3, 4, 7, 8, 16];

/// One slope with every reset, norm and number of steps: 3x5x7 through two convolutions of 33 filters.
fn check_slope(kind: SurrogateKind, per_channel: bool) {
    let name = format!("matrix {}{}", kind.name(), if per_channel { " per channel" } else { "" });
    let mut rng = Rng::fresh(&name);
    let mut outcome = Outcome::default();
    for (reset, detach) in RESETS {
        for (norm, batch_statistics) in NORMS {
            for steps in STEPS {
                let layers = vec![conv(33, 3, 1, 1, norm), max_pool(2, 2, 0), conv(33, 3, 1, 1, norm), readout(3)];
                let mut spec = network(steps, layers);
                spec.input = random_input(&mut rng);
                spec.neuron = random_neuron(reset, detach, &mut rng);
                spec.surrogate = Surrogate::new(kind);
                let case = Case { batch_statistics, per_channel, ..Case::new(spec, [3, 5, 7], 2) };
                outcome.add(check(&case, &mut rng));
            }
        }
    }
    outcome.report(&name, 4 * 4 * 7);
}

#[test]
fn matrix_adali() {
    check_slope(SurrogateKind::Adali, false);
}

#[test]
fn matrix_adali_per_channel() {
    check_slope(SurrogateKind::Adali, true);
}

#[test]
fn matrix_rectangle() {
    check_slope(SurrogateKind::Rectangle, false);
}

#[test]
fn matrix_sigmoid() {
    check_slope(SurrogateKind::Sigmoid, false);
}

#[test]
fn matrix_arctan() {
    check_slope(SurrogateKind::Arctan, false);
}

#[test]
fn matrix_triangle() {
    check_slope(SurrogateKind::Triangle, false);
}

/// A random neuron of any reset, and a random surrogate.
fn vary(mut spec: NetworkSpec, rng: &mut Rng) -> NetworkSpec {
    let (reset, detach) = RESETS[rng.below(4)];
    spec.neuron = random_neuron(reset, detach, rng);
    spec.surrogate = Surrogate::new(SURROGATES[rng.below(5)]);
    if rng.below(3) == 0 && spec.surrogate.needs_membrane() {
        spec.surrogate.sharpness = Some(rng.uniform(0.7, 3.0) as f32);
    }
    spec
}

/// Layers for an input of 3x9x8, each with several draws of everything else.
fn structures() -> Vec<(&'static str, Vec<LayerSpec>)> {
    let none = Norm::None;
    let both = Synapse { bias: Some(true), ..Synapse::with_norm(Norm::Batch) };
    let neither = Synapse { bias: Some(false), ..Synapse::default() };
    let mut all = vec![
        ("stride 2", vec![conv(8, 3, 2, 1, none), conv(9, 3, 2, 0, none), readout(3)]),
        ("kernels 1 and 7", vec![conv(17, 1, 1, 0, none), conv(5, 7, 1, 3, none), readout(3)]),
        ("padding 3 around a small kernel", vec![conv(4, 3, 2, 3, none), conv(5, 1, 2, 2, none), readout(2)]),
        ("3x5 and 5x1", vec![conv_of(6, [3, 5], 1, 2, neither), conv_of(7, [5, 1], 2, 1, both), readout(4)]),
        (
            "overlapping max-pools",
            vec![conv(5, 3, 1, 1, none), max_pool(3, 2, 1), conv(34, 3, 1, 1, none), max_pool(3, 1, 1), readout(3)],
        ),
        (
            "ragged pools",
            vec![conv(5, 2, 1, 0, none), max_pool(3, 3, 0), conv(6, 2, 1, 1, none), avg_pool(2, 2), readout(3)],
        ),
        (
            "pools with gaps",
            vec![conv(5, 3, 1, 1, none), max_pool(2, 3, 0), conv(6, 3, 1, 1, none), avg_pool(1, 2), readout(3)],
        ),
        (
            "avg-pool into a convolution",
            vec![
                conv(18, 3, 1, 1, none),
                avg_pool(2, 2),
                conv(19, 3, 1, 1, none),
                avg_pool(3, 1),
                conv(3, 2, 1, 0, none),
                readout(3),
            ],
        ),
        (
            "avg-pool into a linear layer",
            vec![conv(19, 3, 2, 1, none), avg_pool(2, 2), linear(33, none), linear(18, none), readout(5)],
        ),
        ("linear alone", vec![linear(40, none), linear(33, Norm::Weight), readout(4)]),
        ("readout alone", vec![readout(5)]),
        ("convolution that is linear", vec![conv_of(20, [9, 8], 1, 0, neither), conv(7, 1, 1, 0, none), readout(3)]),
        ("spiking readout, votes", vec![conv(6, 3, 2, 1, none), spiking_readout(3, 12, none)]),
        (
            "spiking readout, batch norm",
            vec![conv(6, 3, 2, 1, none), max_pool(2, 2, 0), spiking_readout(3, 5, Norm::Batch)],
        ),
        ("spiking readout alone", vec![spiking_readout(2, 3, Norm::Weight)]),
        (
            "votes of currents, weight norm",
            vec![
                conv(6, 3, 2, 1, none),
                LayerSpec::Readout { classes: 3, spiking: false, vote: 7, synapse: Synapse::with_norm(Norm::Weight) },
            ],
        ),
        (
            "dropout on spikes",
            vec![
                conv(33, 3, 2, 1, none),
                dropout(0.4),
                conv(6, 3, 1, 1, none),
                max_pool(2, 2, 0),
                dropout(0.3),
                linear(20, none),
                dropout(0.5),
                readout(3),
            ],
        ),
        (
            "dropout on means",
            vec![
                conv(18, 3, 1, 1, none),
                avg_pool(2, 2),
                dropout(0.4),
                conv(6, 3, 1, 1, none),
                avg_pool(2, 2),
                dropout(0.2),
                readout(3),
            ],
        ),
        ("dropout of nothing", vec![conv(4, 3, 2, 1, none), dropout(0.0), readout(3)]),
        (
            "norms in turn",
            vec![
                conv(12, 3, 1, 1, Norm::Batch),
                max_pool(2, 2, 0),
                conv_of(12, [3, 3], 1, 1, both),
                conv(12, 3, 2, 0, Norm::Weight),
                linear(11, Norm::Weight),
                spiking_readout(3, 2, none),
            ],
        ),
    ];
    // Every count of channels on either side of a spike, dense and image input.
    for (channels, next) in CHANNELS.into_iter().zip(CHANNELS.into_iter().cycle().skip(4)) {
        let layers = vec![conv(channels, 3, 2, 1, none), conv(next, 3, 1, 0, none), linear(channels, none), readout(3)];
        all.push(("channels", layers));
        let layers = vec![conv(channels, 2, 2, 0, none), avg_pool(2, 1), conv(next, 2, 1, 0, none), readout(3)];
        all.push(("channels behind a mean", layers));
    }
    all
}

#[test]
fn structures_match() {
    let mut rng = Rng::fresh("structures");
    let mut outcome = Outcome::default();
    let mut cases = 0;
    for (name, layers) in structures() {
        for batch in [1, 2, 3, 5] {
            let mut spec = vary(network(1 + rng.below(5), layers.clone()), &mut rng);
            spec.input = random_input(&mut rng);
            let mut case = Case::new(spec, [3, 9, 8], batch);
            case.capacity = batch + rng.below(3);
            case.per_channel = rng.below(2) == 0;
            // A batch norm behind a linear layer needs a few values a channel.
            case.batch_statistics = batch * case.spec.steps >= 8;
            outcome.add(within(name, &case, &mut rng));
            cases += 1;
        }
    }
    assert_eq!(cases, 4 * (20 + 2 * CHANNELS.len()));
    outcome.report("structures", cases);
}

/// Names the structure where the comparison panics.
fn within(name: &str, case: &Case, rng: &mut Rng) -> Outcome {
    let seed = rng.next_u64();
    let run = std::panic::AssertUnwindSafe(|| check(case, &mut Rng::new(seed)));
    std::panic::catch_unwind(run).unwrap_or_else(|cause| {
        println!("structure {name:?}");
        std::panic::resume_unwind(cause)
    })
}

#[test]
fn input_channels_match() {
    let mut rng = Rng::fresh("input channels");
    let mut outcome = Outcome::default();
    for channels in CHANNELS {
        for linear_first in [false, true] {
            let first = if linear_first { linear(17, Norm::None) } else { conv(17, 3, 1, 1, Norm::None) };
            let mut spec = vary(network(3, vec![first, readout(3)]), &mut rng);
            spec.input = random_input(&mut rng);
            outcome.add(check(&Case::new(spec, [channels, 3, 4], 3), &mut rng));
        }
    }
    outcome.report("input channels", 2 * CHANNELS.len());
}

#[test]
fn losses_match() {
    let mut rng = Rng::fresh("losses");
    let mut outcome = Outcome::default();
    for (mse, label_smoothing) in [(0.0, 0.0), (0.0, 0.1), (1.0, 0.0), (0.05, 0.0), (0.3, 0.2)] {
        for tet in [false, true] {
            for last in [readout(17), spiking_readout(5, 4, Norm::None)] {
                for steps in [1, 4, 6] {
                    let mut spec = vary(network(steps, vec![conv(8, 3, 1, 1, Norm::None), last.clone()]), &mut rng);
                    spec.input = random_input(&mut rng);
                    let loss = LossSpec { mse, label_smoothing, tet };
                    outcome.add(check(&Case { loss, ..Case::new(spec, [2, 4, 5], 5) }, &mut rng));
                }
            }
        }
    }
    outcome.report("losses", 5 * 2 * 2 * 3);
}

/// A direct input and a readout without layers between: the logits are of one step, the loss of all.
#[test]
fn direct_readout_matches() {
    let mut rng = Rng::fresh("direct readout");
    let mut compared = 0;
    for tet in [false, true] {
        for (vote, steps) in [(1, 1), (1, 5), (3, 4)] {
            let synapse = Synapse::default();
            let mut spec = network(steps, vec![LayerSpec::Readout { classes: 4, spiking: false, vote, synapse }]);
            spec.input = InputMode::Direct;
            let loss = LossSpec { tet, ..LossSpec::default() };
            compared += check(&Case { loss, ..Case::new(spec, [2, 4, 5], 3) }, &mut rng).gradients;
        }
    }
    assert_eq!(compared, 2 * 41 * (4 + 4 + 12));
}
