//! Networks of every structure.

use super::layers::{avg_pool, conv, conv_of, dropout, linear, max_pool, readout, spiking_readout};
use crate::oracle::Rng;
use adali::network::spec::{LayerSpec, Synapse};
use adali::network::{InputMode, Norm};

/// On both sides of 16, 32 and 64, where lanes and words end.
pub const CHANNELS: [usize; 11] = [1, 2, 3, 16, 17, 31, 32, 33, 48, 64, 65];

/// Layers for an input of 3x9x8, each drawn several times with everything else random.
pub fn structures() -> Vec<(&'static str, Vec<LayerSpec>)> {
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
    // Every channel count as input and as output, with spike, dense and image input.
    for (channels, next) in CHANNELS.into_iter().zip(CHANNELS.into_iter().cycle().skip(4)) {
        let layers = vec![conv(channels, 3, 2, 1, none), conv(next, 3, 1, 0, none), linear(channels, none), readout(3)];
        all.push(("channels", layers));
        let layers = vec![conv(channels, 2, 2, 0, none), avg_pool(2, 1), conv(next, 2, 1, 0, none), readout(3)];
        all.push(("channels after a mean", layers));
    }
    all
}

/// Direct or frames.
pub fn random_input(rng: &mut Rng) -> InputMode {
    if rng.below(2) == 0 { InputMode::Direct } else { InputMode::Frames }
}
