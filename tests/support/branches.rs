//! Networks that branch, of every structure.

mod networks;

use self::networks::{residual_networks, sources, without_neurons};
use super::layers::{
    avg_pool, bare, combined, conv, conv_of, currents, dropout, linear, linked, max_pool, named, neurons,
    padded_avg_pool, plus, reading, readout, same, spiking_readout, through, times,
};
use crate::oracle::Rng;
use adali::backend::shape::Extent;
use adali::network::Norm;
use adali::network::spec::{Combination, LayerSpec, Shortcut, Synapse, Variance};

/// Layers for an input of 3x9x8.
pub fn branches() -> Vec<(&'static str, Vec<LayerSpec>)> {
    let none = Norm::None;
    let all = [sums(), factors_and_norms(), combinations(), residual_networks(), sources(), without_neurons()];
    let mut all: Vec<_> = all.into_iter().flatten().collect();
    // Every kind of summand with channel counts on both sides of 32, where words end, and in words of which most is padding.
    for channels in CHANNELS {
        let stem = named("a", conv(channels, 3, 1, 1, none));
        let second = named("b", plus(plus(conv(channels, 3, 1, 1, none), same("a")), currents("a")));
        let third = plus(plus(conv(channels, 3, 1, 1, none), through(same("a"), 1, 1, 0, none)), currents("b"));
        let fourth = combined(conv(channels, 1, 1, 0, none), Combination::Add, "b");
        all.push(("channels", vec![stem, second, third, fourth, LayerSpec::GlobalAvgPool, readout(3)]));
    }
    all
}

/// Channel counts of [`branches`].
pub const CHANNELS: [usize; 5] = [1, 3, 17, 33, 40];
/// How many networks [`branches`] makes.
pub const COUNT: usize = 9 + 6 + 9 + 4 + 8 + 7 + CHANNELS.len();

type Structures = Vec<(&'static str, Vec<LayerSpec>)>;

/// Every kind of summand, one or two of them.
fn sums() -> Structures {
    let none = Norm::None;
    let stem = |channels| named("a", conv(channels, 3, 1, 1, none));
    let next = |channels| conv(channels, 3, 1, 1, none);
    let halved = conv(33, 2, 2, 0, Norm::Batch);
    let pooled = |extent, summand| Shortcut { pool: Some(extent), ..summand };
    let flat = Extent { h: 9, w: 8 };
    vec![
        ("spikes", vec![stem(17), plus(next(17), same("a")), readout(3)]),
        ("currents", vec![stem(33), plus(next(33), currents("a")), readout(3)]),
        (
            "1x1 convolution",
            vec![stem(17), plus(conv(40, 3, 2, 1, Norm::Batch), through(same("a"), 1, 2, 0, Norm::Batch)), readout(3)],
        ),
        (
            "convolutions of spikes and currents",
            vec![
                stem(5),
                plus(
                    plus(conv(9, 3, 2, 1, none), through(same("a"), 3, 2, 1, Norm::Weight)),
                    through(currents("a"), 1, 2, 0, none),
                ),
                readout(3),
            ],
        ),
        (
            "pool and convolution",
            vec![
                stem(17),
                plus(halved, pooled(Extent::square(2), through(same("a"), 1, 1, 0, Norm::Batch))),
                readout(3),
            ],
        ),
        (
            "pool and convolution with stride, of currents too",
            vec![
                stem(6),
                plus(
                    plus(
                        conv(7, 5, 4, 1, none),
                        pooled(Extent::square(2), through(currents("a"), 3, 2, 1, Norm::Batch)),
                    ),
                    pooled(Extent { h: 4, w: 3 }, through(same("a"), 2, 2, 1, none)),
                ),
                readout(3),
            ],
        ),
        (
            "pool of everything",
            vec![
                stem(6),
                plus(
                    conv_of(20, [9, 8], 1, 0, Synapse::default()),
                    pooled(flat, through(same("a"), 1, 1, 0, Norm::Weight)),
                ),
                readout(3),
            ],
        ),
        (
            "twice from one layer",
            vec![
                stem(17),
                named("b", plus(plus(next(17), same("a")), same("a"))),
                plus(plus(next(17), currents("b")), currents("b")),
                readout(3),
            ],
        ),
        (
            "two convolutions from one layer",
            vec![
                stem(17),
                plus(
                    plus(next(8), through(same("a"), 1, 1, 0, Norm::Batch)),
                    through(same("a"), 3, 1, 1, Norm::Weight),
                ),
                readout(3),
            ],
        ),
    ]
}

fn factors_and_norms() -> Structures {
    let none = Norm::None;
    let stem = || named("a", conv(17, 3, 1, 1, none));
    let next = |norm| conv(17, 3, 1, 1, norm);
    let learned = |summand| Shortcut { gain: Some(0.0), ..summand };
    let gain = |layer| linked(layer, |links| links.gain = Some(1.0));
    let scale = |by, layer| linked(layer, |links| links.scale = by);
    let sum_norm = |layer| linked(layer, |links| links.sum_norm = Norm::Batch);
    let sum_scale = |by, layer| linked(layer, |links| links.sum_scale = by);
    vec![
        (
            "factors of single summands",
            vec![scale(0.7, conv(5, 3, 2, 1, none)), gain(conv(6, 3, 1, 1, Norm::Weight)), readout(3)],
        ),
        (
            "factors of sums",
            vec![
                stem(),
                named("b", plus(plus(scale(0.5, gain(next(none))), times(-0.7, same("a"))), times(1.4, currents("a")))),
                plus(
                    scale(-0.6, next(Norm::Weight)),
                    times(1.3, learned(through(currents("b"), 1, 1, 0, Norm::Weight))),
                ),
                readout(3),
            ],
        ),
        ("scales of sums", vec![sum_scale(0.6, stem()), sum_scale(1.7, plus(next(none), same("a"))), readout(3)]),
        (
            "norms of sums",
            vec![
                sum_norm(stem()),
                sum_norm(plus(next(none), currents("a"))),
                sum_norm(plus(next(Norm::Batch), through(same("a"), 1, 1, 0, none))),
                readout(3),
            ],
        ),
        (
            "norms and scales of sums that are handed on",
            vec![
                sum_scale(0.8, sum_norm(scale(1.3, stem()))),
                named("b", sum_scale(1.2, sum_norm(plus(gain(next(none)), currents("a"))))),
                plus(next(none), currents("b")),
                plus(next(none), times(0.5, currents("b"))),
                readout(3),
            ],
        ),
        (
            "norms of sums of linear layers",
            vec![
                named("a", linear(20, none)),
                named("b", sum_norm(plus(linear(20, none), same("a")))),
                sum_norm(plus(gain(linear(20, Norm::Weight)), currents("b"))),
                spiking_readout(3, 4, Norm::Batch),
            ],
        ),
    ]
}

fn combinations() -> Structures {
    let none = Norm::None;
    let stem = || named("a", conv(33, 3, 1, 1, none));
    let next = || conv(33, 3, 1, 1, none);
    let mut all = Vec::new();
    for (name, with) in [("and", Combination::And), ("iand", Combination::Iand), ("add", Combination::Add)] {
        all.push((name, vec![stem(), combined(next(), with, "a"), conv(6, 3, 2, 1, none), readout(3)]));
        // The other is read again, what results is pooled; and the combined layer is a source itself.
        let second = named("b", combined(plus(next(), currents("a")), with, "a"));
        let third = plus(combined(next(), with, "b"), same("a"));
        let layers = vec![stem(), second, third, avg_pool(2, 2), conv(9, 2, 1, 0, Norm::Batch), readout(3)];
        all.push((name, layers));
    }
    all.extend([
        (
            "pooled spikes combined",
            vec![
                stem(),
                max_pool(2, 2, 0),
                named("b", combined(next(), Combination::Iand, "a")),
                combined(next(), Combination::And, "b"),
                dropout(0.4),
                readout(3),
            ],
        ),
        (
            "counts of three, with dropouts",
            vec![
                stem(),
                dropout(0.3),
                named("b", combined(next(), Combination::Add, "a")),
                combined(plus(next(), same("b")), Combination::Add, "b"),
                LayerSpec::GlobalAvgPool,
                dropout(0.2),
                linear(10, none),
                readout(3),
            ],
        ),
        (
            "means and counts",
            vec![
                stem(),
                avg_pool(3, 1),
                named("b", combined(plus(next(), same("a")), Combination::Add, "a")),
                dropout(0.3),
                plus(conv(12, 3, 2, 1, none), through(same("b"), 1, 2, 0, Norm::Batch)),
                readout(3),
            ],
        ),
    ]);
    all
}

/// Gives every convolution a random norm and bias, as far as its factors allow.
pub fn vary_norms(layers: &mut [LayerSpec], rng: &mut Rng) {
    for layer in layers {
        match layer {
            LayerSpec::Conv { synapse, links, .. } | LayerSpec::Linear { synapse, links, .. } => {
                *synapse = random_synapse(links.scale == 1.0 && links.gain.is_none(), rng);
                for shortcut in links.shortcuts.iter_mut().filter(|shortcut| shortcut.kernel.is_some()) {
                    shortcut.synapse = random_synapse(shortcut.scale == 1.0 && shortcut.gain.is_none(), rng);
                }
            }
            _ => {}
        }
    }
}

/// A synapse of any norm; a batch norm does not go with factors.
pub fn random_synapse(plain: bool, rng: &mut Rng) -> Synapse {
    let norm = [Norm::None, Norm::Weight, Norm::Batch][rng.below(if plain { 3 } else { 2 })];
    let bias = match norm {
        Norm::Weight => None,
        // Before the batch's statistics it has no gradient.
        Norm::Batch => [None, None, None, Some(true)][rng.below(4)],
        Norm::None => [None, Some(false)][rng.below(2)],
    };
    let weight_variance = [Variance::Population, Variance::Sample][rng.below(2)];
    Synapse { bias, weight_variance, ..Synapse::with_norm(norm) }
}
