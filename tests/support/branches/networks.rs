//! Whole residual networks, sources of every kind, and layers without neurons.

use super::*;

/// The residual networks of the field, small.
pub fn residual_networks() -> Structures {
    let batch = Norm::Batch;
    let standardised = Synapse { weight_variance: Variance::Sample, ..Synapse::with_norm(Norm::Weight) };
    let (add, nf) = (Combination::Add, |channels, stride| conv_of(channels, [3, 3], stride, 1, standardised));
    let sum_norm = |layer| linked(layer, |links| links.sum_norm = batch);
    let skip = |beta: f32, layer| {
        linked(layer, |links| (links.scale, links.gain, links.sum_scale) = (0.5, Some(0.0), 1.0 / beta))
    };
    vec![
        (
            "resnet",
            vec![
                named("stem", conv(8, 3, 1, 1, batch)),
                conv(8, 3, 1, 1, batch),
                named("block", plus(conv(8, 3, 1, 1, batch), same("stem"))),
                conv(17, 3, 2, 1, batch),
                plus(conv(17, 3, 1, 1, batch), through(same("block"), 1, 2, 0, batch)),
                LayerSpec::GlobalAvgPool,
                readout(3),
            ],
        ),
        (
            "pre-activation",
            vec![
                named("s", sum_norm(conv(8, 3, 1, 1, Norm::None))),
                conv(8, 3, 1, 1, batch),
                named("t", sum_norm(plus(conv(8, 3, 1, 1, Norm::None), same("s")))),
                conv(17, 3, 2, 1, batch),
                sum_norm(plus(conv(17, 3, 1, 1, Norm::None), through(same("t"), 1, 2, 0, Norm::None))),
                avg_pool(4, 4),
                readout(3),
            ],
        ),
        (
            "sew and ms",
            vec![
                named("stem", conv(8, 3, 1, 1, batch)),
                conv(8, 3, 1, 1, batch),
                named("sew", combined(conv(8, 3, 1, 1, batch), add, "stem")),
                named("down", reading("stem", conv(17, 1, 2, 0, batch))),
                reading("sew", conv(17, 3, 2, 1, batch)),
                named("ms", plus(conv(17, 3, 1, 1, batch), currents("down"))),
                conv(17, 3, 1, 1, batch),
                plus(plus(conv(17, 3, 1, 1, batch), currents("ms")), same("down")),
                LayerSpec::GlobalAvgPool,
                readout(3),
            ],
        ),
        (
            "nf",
            vec![
                named("stem", nf(8, 1)),
                nf(8, 1),
                named("block", plus(skip(1.4, nf(8, 1)), currents("stem"))),
                nf(17, 2),
                plus(
                    skip(1.2, nf(17, 1)),
                    Shortcut { synapse: standardised, ..through(same("block"), 1, 2, 0, Norm::None) },
                ),
                LayerSpec::GlobalAvgPool,
                readout(3),
            ],
        ),
    ]
}

/// Sources of every kind, read once or several times.
pub fn sources() -> Structures {
    let none = Norm::None;
    let stem = || named("a", conv(17, 3, 1, 1, none));
    let next = || conv(17, 3, 1, 1, none);
    vec![
        (
            "one layer read by all",
            vec![
                stem(),
                named("b", plus(next(), same("a"))),
                named("c", reading("a", next())),
                plus(plus(reading("a", next()), same("b")), same("c")),
                combined(plus(next(), same("a")), Combination::And, "a"),
                readout(3),
            ],
        ),
        (
            "currents handed on from layer to layer",
            vec![
                stem(),
                named("b", plus(next(), currents("a"))),
                named("c", plus(next(), currents("b"))),
                plus(plus(next(), currents("c")), currents("a")),
                readout(3),
            ],
        ),
        (
            "currents before a pool",
            vec![
                named("a", conv(17, 3, 1, 1, Norm::Batch)),
                max_pool(3, 1, 1),
                plus(next(), currents("a")),
                max_pool(2, 2, 0),
                readout(3),
            ],
        ),
        (
            "spikes after a pool",
            vec![
                stem(),
                max_pool(2, 2, 0),
                plus(next(), same("a")),
                max_pool(3, 1, 1),
                plus(next(), through(same("a"), 3, 1, 1, Norm::Batch)),
                readout(3),
            ],
        ),
        (
            "dropout of a source",
            vec![
                stem(),
                dropout(0.4),
                named("b", plus(plus(next(), same("a")), currents("a"))),
                max_pool(2, 2, 0),
                dropout(0.3),
                plus(plus(next(), same("b")), through(same("b"), 1, 1, 0, none)),
                plus(
                    conv(8, 2, 2, 0, none),
                    Shortcut { pool: Some(Extent::square(2)), ..through(same("b"), 1, 1, 0, none) },
                ),
                readout(3),
            ],
        ),
        (
            "means",
            vec![
                stem(),
                avg_pool(2, 2),
                dropout(0.2),
                plus(plus(next(), same("a")), through(same("a"), 3, 1, 1, none)),
                avg_pool(2, 1),
                linear(11, none),
                readout(3),
            ],
        ),
        (
            "linear layers",
            vec![
                named("a", linear(33, none)),
                dropout(0.3),
                named("b", plus(linear(33, Norm::Batch), same("a"))),
                plus(
                    plus(reading("a", linear(40, none)), through(same("b"), 1, 1, 0, none)),
                    through(currents("b"), 1, 1, 0, Norm::Batch),
                ),
                spiking_readout(3, 5, none),
            ],
        ),
        (
            "linear layers and convolutions",
            vec![
                stem(),
                named("b", linear(20, none)),
                plus(
                    plus(linear(20, Norm::Weight), currents("b")),
                    Shortcut { kernel: Some(Extent { h: 9, w: 8 }), ..through(same("a"), 1, 1, 0, Norm::Batch) },
                ),
                readout(3),
            ],
        ),
    ]
}

/// Convolutions without neurons, and neurons without a convolution.
pub fn without_neurons() -> Structures {
    let none = Norm::None;
    let stem = |norm| named("a", bare(conv(17, 3, 1, 1, norm)));
    let next = |norm| conv(17, 3, 1, 1, norm);
    let scaled = |by, layer| linked(layer, |links| links.sum_scale = by);
    let sum_norm = |layer| linked(layer, |links| links.sum_norm = Norm::Batch);
    let skip = |layer| linked(layer, |links| (links.scale, links.gain) = (0.2, Some(0.0)));
    let pooled = |summand| Shortcut { pool: Some(Extent::square(2)), ..summand };
    let half = |summand| Shortcut { kernel: Some(Extent::square(1)), stride: Extent::square(2), ..summand };
    vec![
        (
            "pools before neurons",
            vec![
                stem(Norm::Batch),
                padded_avg_pool(3, 2, 1),
                named("s", neurons("a")),
                named("b", bare(plus(next(none), same("a")))),
                scaled(0.7, neurons("b")),
                plus(next(none), same("s")),
                padded_avg_pool(3, 1, 1),
                readout(3),
            ],
        ),
        (
            "nf, from end to end",
            vec![
                stem(Norm::Weight),
                padded_avg_pool(3, 1, 1),
                named("a.s", scaled(1.0, neurons("a"))),
                next(Norm::Weight),
                named("b", bare(plus(skip(next(Norm::Weight)), same("a")))),
                named("b.s", scaled(0.9, neurons("b"))),
                conv(17, 3, 2, 1, Norm::Weight),
                bare(plus(skip(next(Norm::Weight)), half(same("b.s")))),
                LayerSpec::GlobalAvgPool,
                readout(3),
            ],
        ),
        (
            "currents before and after a pool",
            vec![
                stem(Norm::Batch),
                avg_pool(2, 2),
                dropout(0.3),
                named("b", next(none)),
                conv(9, 3, 1, 1, none),
                plus(conv(9, 1, 1, 0, none), pooled(through(currents("a"), 1, 1, 0, none))),
                plus(conv(9, 3, 1, 1, none), through(same("b"), 1, 1, 0, Norm::Batch)),
                readout(3),
            ],
        ),
        (
            "convolutions in a row",
            vec![
                stem(none),
                named("b", bare(next(Norm::Batch))),
                bare(plus(plus(conv(9, 3, 2, 1, Norm::Weight), half(currents("a"))), half(same("b")))),
                readout(3),
            ],
        ),
        (
            "neurons of neurons, combined and pooled",
            vec![
                stem(none),
                named("s", sum_norm(neurons("a"))),
                named("t", combined(neurons("s"), Combination::Iand, "s")),
                named("u", combined(plus(neurons("t"), times(0.5, same("a"))), Combination::Add, "t")),
                neurons("u"),
                max_pool(2, 2, 0),
                dropout(0.2),
                readout(3),
            ],
        ),
        (
            "sums of layers, without a convolution or neurons",
            vec![
                named("a", next(none)),
                named("b", bare(next(none))),
                named("c", bare(plus(plus(neurons("a"), same("b")), times(-0.6, same("a"))))),
                plus(neurons("c"), currents("c")),
                readout(3),
            ],
        ),
        (
            "linear layers",
            vec![
                named("a", bare(linear(20, Norm::Batch))),
                named("b", neurons("a")),
                dropout(0.3),
                bare(plus(plus(linear(20, Norm::Weight), same("a")), same("b"))),
                spiking_readout(3, 4, none),
            ],
        ),
    ]
}
