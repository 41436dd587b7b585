//! The least work of an operation.

use super::Operation;
use crate::backend::shape::{PoolKind, Volume};
use crate::backend::{Backend, UpdateRule};
use crate::bench::tensors::{Layer, SAMPLE_CHANNELS, votes};
use crate::histogram::BINS;

/// Bytes of a histogram: its bins, and the counts outside of them.
const COUNTERS: f64 = (8 * (BINS + 3)) as f64;

/// The least work of an operation, whatever the implementation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Read and written, each tensor once.
    pub bytes: f64,
    /// Floating-point operations of convolutions; other operations are not counted.
    pub flops: f64,
}

impl Operation {
    /// The least that it must move and compute with this backend's storage of tensors.
    pub fn work<B: Backend>(self, backend: &B, layer: &Layer<B>) -> Work {
        let shape = &layer.shape;
        let (span, conv, neurons) = (shape.span, shape.convolution(), shape.neurons());
        let bits = |volume: Volume| backend.bits_size(span, volume) as f64;
        let floats = |volume: Volume| backend.floats_size(span, volume) as f64;
        let (packed, weight) = (backend.packed_size(&conv) as f64, backend.weight_size(&conv) as f64);
        let packed = if packed > 0.0 { packed } else { weight };
        let readouts = |volume: Volume| backend.readouts_size(span, volume) as f64;
        let outputs = Volume { h: 1, w: 1, c: neurons.c };
        let logits = Volume { c: neurons.c / votes(neurons.c), ..outputs };
        let (read, written) = (bits(shape.input), floats(neurons));
        let bytes = match self {
            Self::ConvCurrent | Self::ConvBatchNorm => read + packed + written,
            Self::ConvLifForward => read + packed + 2.0 * bits(neurons),
            Self::ConvInputGrad => written + packed + floats(shape.input),
            Self::ConvInputGradLif => written + packed + 2.0 * read + floats(shape.input),
            Self::ConvWeightGrad => written + read + weight,
            Self::PackWeight => weight + packed,
            Self::WeightNormForward => 2.0 * weight,
            Self::WeightNormBackward => 3.0 * weight,
            Self::NormLifForward { .. } => floats(neurons) + 2.0 * bits(neurons),
            Self::SpikeBackward { .. } if self.reads_bits() => 2.0 * floats(neurons) + 2.0 * bits(neurons),
            // Spikes are read along with the currents.
            Self::SpikeBackward { .. } | Self::NormSpikeBackward { .. } => 3.0 * floats(neurons) + bits(neurons),
            Self::MaxPoolForward => bits(neurons) + bits(shape.pool(PoolKind::Max).output),
            Self::AvgPoolForward => bits(neurons) + floats(shape.pool(PoolKind::Avg).output),
            Self::AvgPoolBackward => floats(shape.pool(PoolKind::Avg).output) + floats(neurons),
            // A convolution's currents, and another layer's spikes.
            Self::SumLifForward => floats(neurons) + 3.0 * bits(neurons),
            Self::SumCurrents => 2.0 * floats(neurons) + bits(neurons),
            Self::BatchNormStatistics => floats(neurons),
            // The sums over a channel come first, so the gradient and the currents are needed twice.
            Self::NormBackward => 3.0 * floats(neurons),
            Self::PassGradient => 2.0 * floats(neurons),
            Self::GainForward => backend.vector_size(neurons.c) as f64,
            Self::GainBackward => 2.0 * floats(neurons),
            Self::AndSpikes => 3.0 * bits(neurons),
            Self::MaskGradient => 2.0 * floats(neurons) + bits(neurons),
            Self::AddSpikes => 2.0 * bits(neurons) + floats(neurons),
            Self::DropoutSpikes => 2.0 * bits(neurons),
            Self::DropoutFloats => 2.0 * floats(neurons),
            Self::BiasGrad => floats(neurons),
            Self::Input => {
                let samples = Volume { c: SAMPLE_CHANNELS, ..neurons };
                (span.batch * span.steps * samples.values() + backend.samples_size(span, samples)) as f64
            }
            Self::VoteCurrents => readouts(outputs) + readouts(logits),
            Self::VoteSpikes => bits(outputs) + readouts(logits),
            Self::VoteBackward => readouts(logits) + floats(outputs),
            Self::Loss => 2.0 * readouts(logits),
            // Values and moments are read and written.
            Self::Update { rule: UpdateRule::Sgd { .. } } => 5.0 * weight,
            Self::Update { rule: UpdateRule::Adam { .. } } => 7.0 * weight,
            Self::MembraneHistogram => floats(neurons),
            // New counts go into two histograms, one of which moves the bounds; each is emptied.
            Self::CollectCounts => 6.0 * COUNTERS,
            Self::TuneBounds => 2.0 * COUNTERS,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Cpu;
    use crate::bench::shape::LayerShape;

    #[test]
    fn work_counts_every_tensor_once() {
        let shape = LayerShape::conv(4, 2, 32, 8, 64);
        let layer = Layer::new(&Cpu, shape, &Operation::parts(&Operation::all()), 0.1, None, 1).unwrap();
        let steps = 4.0 * 2.0 * 64.0;
        let work = |operation: Operation| operation.work(&Cpu, &layer);
        let forward = work(Operation::ConvLifForward);
        assert_eq!(forward.bytes, steps * (4.0 + 2.0 * 8.0) + 4.0 * 9.0 * 32.0 * 64.0);
        let rate = layer.synapses.as_ref().unwrap().below.rate;
        assert!((forward.flops / (2.0 * steps * 64.0 * 9.0 * 32.0 * rate) - 1.0).abs() < 1e-9);
        let backward = work(Operation::SpikeBackward {
            kind: crate::surrogate::SurrogateKind::Adali,
            neuron: crate::bench::tensors::usual_neuron(),
            bits: true,
        });
        assert_eq!((backward.bytes, backward.flops), (steps * (2.0 * 256.0 + 2.0 * 8.0), 0.0));
    }
}
