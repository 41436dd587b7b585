//! One call of each operation where networks branch.

use super::Operation;
use crate::backend::shape::PoolKind;
use crate::backend::{Affine, Backend, Input, Neurons, NormBackward, Put, SpikeOutput, Summand};
use crate::bench::tensors::{Activity, Branches, FACTORS, Layer, usual_neuron};
use crate::surrogate::{Surrogate, SurrogateKind};
use anyhow::Result;

impl Operation {
    pub(super) fn prepare_branches<B: Backend>(self, backend: &B, layer: &mut Layer<B>) -> Result<()> {
        let Layer { shape, neurons, branches: Some(branches), means, .. } = layer else { return Ok(()) };
        let Activity { volume, spikes, inside, .. } = neurons;
        backend.and_spikes(*volume, shape.span, spikes, false, inside, &mut branches.other)?;
        if self == Self::AvgPoolBackward {
            let input = Input::Spikes { bits: spikes, scale: 1.0 };
            backend.avg_pool_forward(&shape.pool(PoolKind::Avg), shape.span, input, means)?;
        }
        if self == Self::PassGradient {
            let Branches { gain, factor, .. } = branches;
            backend.gain_forward(gain, FACTORS[0], volume.c, factor)?;
        }
        if self == Self::BatchNormStatistics {
            let Branches { ones, zeros, running: [mean, variance], .. } = branches;
            backend.copy(zeros, mean)?;
            backend.copy(ones, variance)?;
        }
        Ok(())
    }

    pub(super) fn run_branches<B: Backend>(self, backend: &B, layer: &mut Layer<B>) -> Result<()> {
        let Layer { shape, neurons, branches, pooled, means, .. } = layer;
        let branches = branches.as_mut().expect("a layer that branches has what that needs");
        let Activity { span, volume, currents, norm, bounds, spikes, inside, gradient, currents_grad, .. } = neurons;
        let (span, volume, steps) = (*span, *volume, span.steps);
        if self == Self::BatchNormStatistics {
            let (norm, state) = branches.norm();
            return backend.batch_norm_statistics(volume, span, currents, steps, norm, true, state);
        }
        let Branches { other, gain, gain_grad, factor, ones, zeros, .. } = branches;
        let of_currents = Affine { scale: &norm.scale, shift: &norm.shift };
        let summands = [
            Summand { input: Input::Dense(currents), steps, affine: of_currents },
            Summand {
                input: Input::Spikes { bits: other, scale: 1.0 },
                steps,
                affine: Affine { scale: ones, shift: zeros },
            },
        ];
        match self {
            Self::SumLifForward => {
                let surrogate = Surrogate::new(SurrogateKind::Adali);
                let neurons = Neurons { neuron: usual_neuron(), surrogate, bounds: &*bounds };
                let out = SpikeOutput { spikes, inside: Some(inside), membrane: None, histogram: None };
                backend.sum_lif_forward(volume, span, &summands, None, &neurons, out)
            }
            Self::SumCurrents => backend.sum_currents(volume, span, &summands, currents_grad),
            Self::NormBackward => {
                let norm = NormBackward {
                    currents,
                    current_steps: steps,
                    state: norm,
                    batch: true,
                    gain_grad: &mut neurons.gain_grad,
                    bias_grad: &mut neurons.bias_grad,
                    current_bias_grad: None,
                };
                backend.norm_backward(volume, span, gradient, norm, currents_grad)
            }
            Self::PassGradient => {
                backend.pass_gradient(volume, span, gradient, factor, steps, Put::Write, currents_grad)
            }
            Self::GainForward => backend.gain_forward(gain, FACTORS[0], volume.c, factor),
            Self::GainBackward => backend.gain_backward(volume, span, gradient, currents, steps, FACTORS[0], gain_grad),
            Self::AndSpikes => backend.and_spikes(volume, span, spikes, true, inside, pooled),
            Self::MaskGradient => {
                backend.mask_gradient(volume, span, gradient, other, false, 1.0, Put::Write, currents_grad)
            }
            Self::AddSpikes => {
                let other = Input::Spikes { bits: other, scale: 1.0 };
                backend.add_spikes(volume, span, spikes, other, means)
            }
            Self::AvgPoolBackward => {
                backend.avg_pool_backward(&shape.pool(PoolKind::Avg), span, means, Put::Write, currents_grad)
            }
            _ => unreachable!("no operation of branches"),
        }
    }
}
