//! The operations that are measured: what each runs, and the least that it must move and compute. They are those of a training
//! step, except for a norm with running statistics, which is one value per channel.

mod branches;
mod run;
mod work;

use super::shape::Part;
use super::tensors::usual_neuron;
use crate::backend::{UpdateRule, bits_suffice};
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{Surrogate, SurrogateKind};
pub use run::{LOSS, UPDATE_DECAY, augmentation, tuning};
pub use work::Work;

/// Scale of the weight norm; no time depends on it.
pub const WEIGHT_SCALE: f32 = 2.0;
/// Share of values that dropout drops.
pub const DROPPED: f32 = 0.25;
pub const SGD: UpdateRule = UpdateRule::Sgd { momentum: 0.9 };
pub const ADAMW: UpdateRule = UpdateRule::Adam { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, decoupled: true };

/// A backend operation, with the settings other than the shape that affect its cost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    ConvCurrent,
    ConvBatchNorm,
    ConvLifForward,
    ConvInputGrad,
    ConvInputGradLif,
    ConvWeightGrad,
    PackWeight,
    WeightNormForward,
    NormLifForward {
        histogram: bool,
    },
    /// From bits if they suffice and `bits` is set, otherwise from the currents.
    SpikeBackward {
        kind: SurrogateKind,
        neuron: Neuron,
        bits: bool,
    },
    NormSpikeBackward {
        kind: SurrogateKind,
    },
    MaxPoolForward,
    AvgPoolForward,
    AvgPoolBackward,
    SumLifForward,
    SumCurrents,
    BatchNormStatistics,
    NormBackward,
    PassGradient,
    GainForward,
    GainBackward,
    AndSpikes,
    MaskGradient,
    AddSpikes,
    DropoutSpikes,
    DropoutFloats,
    BiasGrad,
    WeightNormBackward,
    Input,
    VoteCurrents,
    VoteSpikes,
    VoteBackward,
    Loss,
    Update {
        rule: UpdateRule,
    },
    MembraneHistogram,
    CollectCounts,
    TuneBounds,
}

impl Operation {
    /// The default operations.
    pub fn all() -> Vec<Self> {
        let neuron = usual_neuron();
        let backward = |kind, bits| Self::SpikeBackward { kind, neuron, bits };
        vec![
            Self::ConvLifForward,
            Self::ConvCurrent,
            Self::ConvBatchNorm,
            Self::ConvInputGrad,
            Self::ConvInputGradLif,
            Self::ConvWeightGrad,
            Self::PackWeight,
            Self::WeightNormForward,
            Self::WeightNormBackward,
            Self::NormLifForward { histogram: false },
            Self::NormLifForward { histogram: true },
            backward(SurrogateKind::Adali, true),
            backward(SurrogateKind::Arctan, false),
            Self::NormSpikeBackward { kind: SurrogateKind::Adali },
            Self::NormSpikeBackward { kind: SurrogateKind::Arctan },
            Self::MaxPoolForward,
            Self::AvgPoolForward,
            Self::AvgPoolBackward,
            Self::SumLifForward,
            Self::SumCurrents,
            Self::BatchNormStatistics,
            Self::NormBackward,
            Self::PassGradient,
            Self::GainForward,
            Self::GainBackward,
            Self::AndSpikes,
            Self::MaskGradient,
            Self::AddSpikes,
            Self::DropoutSpikes,
            Self::DropoutFloats,
            Self::BiasGrad,
            Self::Input,
            Self::VoteCurrents,
            Self::VoteSpikes,
            Self::VoteBackward,
            Self::Loss,
            Self::Update { rule: SGD },
            Self::Update { rule: ADAMW },
            Self::MembraneHistogram,
            Self::CollectCounts,
            Self::TuneBounds,
        ]
    }

    /// Every surrogate with every reset: the backward pass of neurons in otherwise identical kernels.
    pub fn surrogates() -> Vec<Self> {
        let resets = [ResetKind::Soft, ResetKind::Hard];
        let neurons = resets.into_iter().flat_map(|reset| [false, true].map(|detach| (reset, detach)));
        let neuron = |(reset, detach)| Neuron { reset, detach, ..usual_neuron() };
        let kinds: Vec<_> = [(SurrogateKind::Adali, true)]
            .into_iter()
            .chain(SurrogateKind::all().iter().map(|&kind| (kind, false)))
            .collect();
        let of = |neuron: Neuron| {
            kinds.clone().into_iter().map(move |(kind, bits)| Self::SpikeBackward { kind, neuron, bits })
        };
        // Leave out bits where they do not suffice.
        let other =
            |operation: &Self| !matches!(operation, Self::SpikeBackward { bits: true, .. }) || operation.reads_bits();
        neurons.map(neuron).flat_map(of).filter(other).collect()
    }

    /// The parts of a layer that the operations need.
    pub fn parts(operations: &[Self]) -> Vec<Part> {
        operations.iter().map(|operation| operation.part()).collect()
    }

    /// Its name in the backend and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::ConvCurrent => "conv_current",
            Self::ConvBatchNorm => "conv_batch_norm",
            Self::ConvLifForward => "conv_lif_forward",
            Self::ConvInputGrad => "conv_input_grad",
            Self::ConvInputGradLif => "conv_input_grad_lif",
            Self::ConvWeightGrad => "conv_weight_grad",
            Self::PackWeight => "pack_weight",
            Self::WeightNormForward => "weight_norm_forward",
            Self::NormLifForward { .. } => "norm_lif_forward",
            Self::SpikeBackward { .. } => "spike_backward",
            Self::NormSpikeBackward { .. } => "norm_spike_backward",
            Self::MaxPoolForward => "max_pool_forward",
            Self::AvgPoolForward => "avg_pool_forward",
            Self::AvgPoolBackward => "avg_pool_backward",
            Self::SumLifForward => "sum_lif_forward",
            Self::SumCurrents => "sum_currents",
            Self::BatchNormStatistics => "batch_norm_statistics",
            Self::NormBackward => "norm_backward",
            Self::PassGradient => "pass_gradient",
            Self::GainForward => "gain_forward",
            Self::GainBackward => "gain_backward",
            Self::AndSpikes => "and_spikes",
            Self::MaskGradient => "mask_gradient",
            Self::AddSpikes => "add_spikes",
            Self::DropoutSpikes => "dropout_spikes",
            Self::DropoutFloats => "dropout_floats",
            Self::BiasGrad => "bias_grad",
            Self::WeightNormBackward => "weight_norm_backward",
            Self::Input => "input",
            Self::VoteCurrents => "vote_currents",
            Self::VoteSpikes => "vote_spikes",
            Self::VoteBackward => "vote_backward",
            Self::Loss => "loss",
            Self::Update { .. } => "update",
            Self::MembraneHistogram => "membrane_histogram",
            Self::CollectCounts => "collect_counts",
            Self::TuneBounds => "tune_bounds",
        }
    }

    /// Distinguishes operations of the same name; empty if there is only one.
    pub fn variant(self) -> String {
        match self {
            Self::NormLifForward { histogram: true } => "with histogram".into(),
            Self::SpikeBackward { kind, neuron, .. } => {
                let from = if self.reads_bits() { "bits" } else { "currents" };
                let mut text = format!("{} from {from}", kind.name());
                if neuron.reset == ResetKind::Hard {
                    text += ", hard";
                }
                if neuron.detach {
                    text += ", detached";
                }
                text
            }
            Self::NormSpikeBackward { kind } => kind.name().into(),
            Self::Update { rule: UpdateRule::Sgd { .. } } => "sgd".into(),
            Self::Update { rule: UpdateRule::Adam { .. } } => "adamw".into(),
            _ => String::new(),
        }
    }

    /// The part of a layer it works on.
    pub fn part(self) -> Part {
        use Operation::*;
        match self {
            ConvCurrent | ConvBatchNorm | ConvLifForward | ConvInputGrad | ConvInputGradLif | ConvWeightGrad
            | PackWeight | WeightNormForward | WeightNormBackward => Part::Synapses,
            NormLifForward { .. }
            | SpikeBackward { .. }
            | NormSpikeBackward { .. }
            | MaxPoolForward
            | AvgPoolForward
            | BiasGrad => Part::Neurons,
            DropoutSpikes
            | DropoutFloats
            | Input
            | VoteCurrents
            | VoteSpikes
            | VoteBackward
            | Loss
            | Update { .. }
            | MembraneHistogram
            | CollectCounts
            | TuneBounds => Part::Training,
            AvgPoolBackward | SumLifForward | SumCurrents | BatchNormStatistics | NormBackward | PassGradient
            | GainForward | GainBackward | AndSpikes | MaskGradient | AddSpikes => Part::Branches,
        }
    }

    /// Whether it changes its operands, so that it must be prepared again for every timed call.
    pub fn consumes(self) -> bool {
        matches!(self, Self::DropoutFloats | Self::WeightNormBackward | Self::CollectCounts | Self::TuneBounds)
    }

    fn reads_bits(self) -> bool {
        match self {
            Self::SpikeBackward { kind, neuron, bits } => bits && bits_suffice(&neuron, &Surrogate::new(kind)),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_surrogate_with_every_reset_that_its_bits_allow() {
        let names: Vec<String> = Operation::surrogates().iter().map(|operation| operation.variant()).collect();
        assert_eq!(names.len(), 4 * (SurrogateKind::all().len() + 1) - 1);
        assert_eq!(&names[..2], ["adali from bits", "adali from currents"]);
        assert!(!names.contains(&"adali from bits, hard".to_string()));
        assert!(names.contains(&"sigmoid from currents, hard, detached".to_string()));
    }
}
