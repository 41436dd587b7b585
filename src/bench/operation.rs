//! The operations that are measured: what each runs, and the least that it must move and compute.

use super::tensors::{Activity, Layer, Synapses, usual_neuron};
use crate::backend::shape::{PoolKind, Span, Volume};
use crate::backend::{
    Affine, Backend, BatchNorm, Below, CurrentGradient, Input, Neurons, NormBackward, Saved, SpikeOutput, bits_suffice,
};
use crate::neuron::{Neuron, ResetKind};
use crate::surrogate::{Surrogate, SurrogateKind};
use anyhow::Result;

/// Scale of the weight norm, and share that a dropout drops.
pub const WEIGHT_SCALE: f32 = crate::network::spec::WEIGHT_SCALE;

/// An operation of the seam, with what its cost depends on beside the shape.
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
    /// From bits where they suffice and are wanted, else from the currents.
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
}

/// What an operation has to do at least, whoever does it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Read and written, each tensor once.
    pub bytes: f64,
    /// Floating-point operations of convolutions; the others' are not counted.
    pub flops: f64,
}

impl Operation {
    /// All that are measured where none is named.
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
            Self::NormLifForward { histogram: false },
            Self::NormLifForward { histogram: true },
            backward(SurrogateKind::Adali, true),
            backward(SurrogateKind::Arctan, false),
            Self::NormSpikeBackward { kind: SurrogateKind::Adali },
            Self::NormSpikeBackward { kind: SurrogateKind::Arctan },
            Self::MaxPoolForward,
            Self::AvgPoolForward,
        ]
    }

    /// Every surrogate with every reset: the backward pass of neurons in otherwise identical kernels.
    pub fn surrogates() -> Vec<Self> {
        use SurrogateKind::*;
        let resets = [ResetKind::Soft, ResetKind::Hard];
        let neurons = resets.into_iter().flat_map(|reset| [false, true].map(|detach| (reset, detach)));
        let neuron = |(reset, detach)| Neuron { reset, detach, ..usual_neuron() };
        let kinds =
            [(Adali, true), (Adali, false), (Rectangle, false), (Triangle, false), (Arctan, false), (Sigmoid, false)];
        let of = |neuron: Neuron| kinds.map(|(kind, bits)| Self::SpikeBackward { kind, neuron, bits });
        // Bits are no alternative where they do not suffice.
        let other =
            |operation: &Self| !matches!(operation, Self::SpikeBackward { bits: true, .. }) || operation.reads_bits();
        neurons.map(neuron).flat_map(of).filter(other).collect()
    }

    /// Its name in the seam and on the command line.
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
        }
    }

    /// Which of several of one name; empty where there is one.
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
            _ => String::new(),
        }
    }

    /// Whether its work is the convolution's, so that a shape's `C`, `K` and kernel matter to it.
    pub fn of_convolution(self) -> bool {
        use Operation::*;
        matches!(
            self,
            ConvCurrent
                | ConvBatchNorm
                | ConvLifForward
                | ConvInputGrad
                | ConvInputGradLif
                | ConvWeightGrad
                | PackWeight
                | WeightNormForward
        )
    }

    fn reads_bits(self) -> bool {
        match self {
            Self::SpikeBackward { kind, neuron, bits } => bits && bits_suffice(&neuron, &Surrogate::new(kind)),
            _ => false,
        }
    }

    /// Leaves in the layer what its backward pass of neurons would find: the spikes of those very neurons.
    pub fn prepare<B: Backend>(self, backend: &B, layer: &mut Layer<B>) -> Result<()> {
        let neuron = if let Self::SpikeBackward { neuron, .. } = self { neuron } else { usual_neuron() };
        layer.neurons.fire(backend, neuron, false)
    }

    /// Runs it once; `false` where the device has no such operation.
    pub fn run<B: Backend>(self, backend: &B, layer: &mut Layer<B>) -> Result<bool> {
        let span = layer.shape.span;
        if self.of_convolution() {
            let synapses = layer.synapses.as_mut().expect("a layer for convolutions has synapses");
            return self.run_synapses(backend, span, synapses, &mut layer.neurons);
        }
        let Activity { volume, .. } = layer.neurons;
        match self {
            Self::NormLifForward { histogram } => layer.neurons.fire(backend, usual_neuron(), histogram)?,
            Self::SpikeBackward { kind, neuron, .. } => {
                layer.neurons.backward(backend, kind, neuron, self.reads_bits())?
            }
            Self::NormSpikeBackward { kind } => layer.neurons.norm_backward(backend, kind)?,
            Self::MaxPoolForward => {
                let pool = layer.shape.pool(PoolKind::Max);
                backend.max_pool_forward(&pool, span, &layer.neurons.spikes, &mut layer.pooled)?;
            }
            Self::AvgPoolForward => {
                let pool = layer.shape.pool(PoolKind::Avg);
                backend.avg_pool_forward(&pool, span, &layer.neurons.spikes, &mut layer.means)?;
            }
            _ => unreachable!("{volume} is no convolution's"),
        }
        Ok(true)
    }

    fn run_synapses<B: Backend>(
        self,
        backend: &B,
        span: Span,
        synapses: &mut Synapses<B>,
        above: &mut Activity<B>,
    ) -> Result<bool> {
        let Synapses { conv, below, weight, packed, bias, gain, weight_grad, effective, running, .. } = synapses;
        let input = Input::Spikes { bits: &below.spikes, scale: 1.0 };
        let weights = crate::backend::Weights { value: &*weight, packed: &*packed };
        let gradient = CurrentGradient { gradient: &above.gradient, norm: None };
        match self {
            Self::ConvCurrent => backend.conv_current(conv, span, input, weights, bias, &mut above.currents_grad)?,
            Self::ConvBatchNorm => {
                let [running_mean, running_variance] = running;
                let norm = BatchNorm { channels: conv.output.c, gain, bias, running_mean, running_variance };
                let (currents, state) = (&mut above.currents_grad, &mut synapses.state);
                backend.conv_batch_norm(
                    conv,
                    span,
                    input,
                    weights,
                    &synapses.no_bias,
                    currents,
                    span.steps,
                    norm,
                    true,
                    state,
                )?;
            }
            Self::ConvLifForward => {
                let neurons = Neurons {
                    neuron: usual_neuron(),
                    surrogate: Surrogate::new(SurrogateKind::Adali),
                    bounds: &above.bounds,
                };
                let affine = Affine { scale: gain, shift: &synapses.no_bias };
                let out = SpikeOutput {
                    spikes: &mut above.spikes,
                    windows: Some(&mut above.windows),
                    membrane: None,
                    histogram: None,
                };
                backend.conv_lif_forward(conv, span, input, span.steps, weights, bias, affine, &neurons, out, None)?;
            }
            Self::ConvInputGrad => backend.conv_input_grad(conv, span, gradient, weights, &mut below.currents_grad)?,
            Self::ConvInputGradLif => {
                let Activity { volume, bounds, spikes, windows, currents_grad, .. } = below;
                let neurons =
                    Neurons { neuron: usual_neuron(), surrogate: Surrogate::new(SurrogateKind::Adali), bounds };
                let below = Below {
                    volume: *volume,
                    neurons,
                    spikes,
                    windows,
                    pool: None,
                    current_steps: span.steps,
                    bias_grad: None,
                };
                return backend.conv_input_grad_lif(conv, span, gradient, weights, below, currents_grad);
            }
            Self::ConvWeightGrad => backend.conv_weight_grad(conv, span, input, gradient, weight_grad)?,
            Self::PackWeight => backend.pack_weight(conv, weight, packed, true)?,
            Self::WeightNormForward => backend.weight_norm_forward(conv, weight, gain, WEIGHT_SCALE, effective)?,
            _ => unreachable!("no convolution's"),
        }
        Ok(true)
    }

    /// What it must move and compute at least, as this backend stores tensors.
    pub fn work<B: Backend>(self, backend: &B, layer: &Layer<B>) -> Work {
        let shape = &layer.shape;
        let (span, conv, neurons) = (shape.span, shape.convolution(), shape.neurons());
        let bits = |volume: Volume| backend.bits_size(span, volume) as f64;
        let floats = |volume: Volume| backend.floats_size(span, volume) as f64;
        let (packed, weight) = (backend.packed_size(&conv) as f64, backend.weight_size(&conv) as f64);
        let packed = if packed > 0.0 { packed } else { weight };
        let (read, written) = (bits(shape.input), floats(neurons));
        let bytes = match self {
            Self::ConvCurrent | Self::ConvBatchNorm => read + packed + written,
            Self::ConvLifForward => read + packed + 2.0 * bits(neurons),
            Self::ConvInputGrad => written + packed + floats(shape.input),
            Self::ConvInputGradLif => written + packed + 2.0 * read + floats(shape.input),
            Self::ConvWeightGrad => written + read + weight,
            Self::PackWeight => weight + packed,
            Self::WeightNormForward => 2.0 * weight,
            Self::NormLifForward { .. } => floats(neurons) + 2.0 * bits(neurons),
            Self::SpikeBackward { .. } if self.reads_bits() => 2.0 * floats(neurons) + 2.0 * bits(neurons),
            // Spikes are read beside the currents.
            Self::SpikeBackward { .. } | Self::NormSpikeBackward { .. } => 3.0 * floats(neurons) + bits(neurons),
            Self::MaxPoolForward => bits(neurons) + bits(shape.pool(PoolKind::Max).output),
            Self::AvgPoolForward => bits(neurons) + floats(shape.pool(PoolKind::Avg).output),
        };
        let active = match &layer.synapses {
            Some(synapses) if backend.skips_silence() => synapses.below.rate,
            _ => 1.0,
        };
        let flops = 2.0 * shape.multiply_adds();
        let flops = match self {
            Self::ConvCurrent | Self::ConvBatchNorm | Self::ConvLifForward | Self::ConvWeightGrad => active * flops,
            Self::ConvInputGrad | Self::ConvInputGradLif => flops,
            _ => 0.0,
        };
        Work { bytes, flops }
    }
}

impl<B: Backend> Activity<B> {
    fn backward(&mut self, backend: &B, kind: SurrogateKind, neuron: Neuron, bits: bool) -> Result<()> {
        let Self { span, volume, currents, norm, bounds, spikes, windows, gradient, currents_grad, .. } = self;
        let neurons = Neurons { neuron, surrogate: Surrogate::new(kind), bounds: &*bounds };
        let affine = Affine { scale: &norm.scale, shift: &norm.shift };
        let saved = match bits {
            true => Saved::Bits { spikes, windows },
            false => Saved::Currents { currents, steps: span.steps, affine, spikes },
        };
        backend.spike_backward(*volume, *span, &neurons, saved, None, gradient, span.steps, currents_grad, None)
    }

    fn norm_backward(&mut self, backend: &B, kind: SurrogateKind) -> Result<()> {
        let Self { span, volume, currents, norm, bounds, spikes, windows, gradient, currents_grad, .. } = self;
        let neurons = Neurons { neuron: usual_neuron(), surrogate: Surrogate::new(kind), bounds: &*bounds };
        let affine = Affine { scale: &norm.scale, shift: &norm.shift };
        let saved = match bits_suffice(&neurons.neuron, &neurons.surrogate) {
            true => Saved::Bits { spikes, windows },
            false => Saved::Currents { currents, steps: span.steps, affine, spikes },
        };
        let norm = NormBackward {
            currents,
            current_steps: span.steps,
            state: norm,
            batch: true,
            gain_grad: &mut self.gain_grad,
            bias_grad: &mut self.bias_grad,
            gradient: &mut self.norm_grad,
            current_bias_grad: None,
        };
        backend.norm_spike_backward(*volume, *span, &neurons, saved, None, gradient, norm, currents_grad)
    }
}

/// Where the neurons of a shape are all that an operation needs.
pub fn needs_synapses(operations: &[Operation]) -> bool {
    operations.iter().any(|operation| operation.of_convolution())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::bench::shape::LayerShape;

    #[test]
    fn every_surrogate_with_every_reset_that_its_bits_allow() {
        let names: Vec<String> = Operation::surrogates().iter().map(|operation| operation.variant()).collect();
        assert_eq!(names.len(), 4 * 6 - 1);
        assert_eq!(&names[..2], ["adali from bits", "adali from currents"]);
        assert!(!names.contains(&"adali from bits, hard".to_string()));
        assert!(names.contains(&"sigmoid from currents, hard, detached".to_string()));
    }

    #[test]
    fn work_counts_every_tensor_once() {
        let shape = LayerShape::conv(4, 2, 32, 8, 64);
        let layer = Layer::new(&Cpu, shape, true, 0.1, None, 1).unwrap();
        let steps = 4.0 * 2.0 * 64.0;
        let work = |operation: Operation| operation.work(&Cpu, &layer);
        let forward = work(Operation::ConvLifForward);
        assert_eq!(forward.bytes, steps * (4.0 + 2.0 * 8.0) + 4.0 * 9.0 * 32.0 * 64.0);
        let rate = layer.synapses.as_ref().unwrap().below.rate;
        assert!((forward.flops / (2.0 * steps * 64.0 * 9.0 * 32.0 * rate) - 1.0).abs() < 1e-9);
        let backward = work(Operation::all()[10]);
        assert_eq!((backward.bytes, backward.flops), (steps * (2.0 * 256.0 + 2.0 * 8.0), 0.0));
    }
}
