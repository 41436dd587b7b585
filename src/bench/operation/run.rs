//! One call of each operation.

use super::{DROPPED, Operation, Part, WEIGHT_SCALE};
use crate::autotune::{BoundsMode, BoundsSpec, Tuning};
use crate::backend::shape::{PoolKind, Span, Volume};
use crate::backend::{
    Affine, Backend, BatchNorm, Below, Histograms, Input, LossSpec, Neurons, NormBackward, Put, Saved, SpikeOutput,
    Totals, Trained, Update, WeightNorm, Weights, bits_suffice,
};
use crate::bench::tensors::{Activity, Layer, Moved, Synapses, Training, usual_neuron};
use crate::data::sampling::Augmentation;
use crate::neuron::Neuron;
use crate::surrogate::{Surrogate, SurrogateKind};
use anyhow::Result;

/// Cross-entropy and mean squared error of averaged logits.
pub const LOSS: LossSpec = LossSpec { mse: 0.5, label_smoothing: 0.1, tet: false };
const WEIGHT_NORM: WeightNorm = WeightNorm { scale: WEIGHT_SCALE, sample_variance: false };
/// Weight decay.
pub const UPDATE_DECAY: f32 = 1e-4;

/// Augmentation of the samples: shifted by up to a pixel, if there is more than one, and flipped.
pub fn augmentation(image: Volume) -> Augmentation {
    Augmentation { crop_padding: (image.h.min(image.w) > 1).into(), flip: true, ..Augmentation::default() }
}

/// Bounds taken from the histogram.
pub fn tuning() -> Tuning {
    Tuning { spec: BoundsSpec { mode: BoundsMode::AutoTrack, ..BoundsSpec::default() }, epochs: 1.0, first: true }
}

impl Operation {
    /// Writes the operation's inputs to the layer: for a backward pass, the spikes of the same neurons.
    pub fn prepare<B: Backend>(self, backend: &B, layer: &mut Layer<B>) -> Result<()> {
        let neuron = if let Self::SpikeBackward { neuron, .. } = self { neuron } else { usual_neuron() };
        layer.neurons.fire(backend, neuron, false)?;
        self.prepare_branches(backend, layer)?;
        match (self, &mut layer.synapses, &mut layer.training) {
            (Self::ConvBatchNorm, Some(synapses), _) => {
                let Synapses { no_bias, gain, running: [mean, variance], .. } = synapses;
                backend.copy(no_bias, mean)?;
                backend.copy(gain, variance).map(drop)
            }
            (Self::WeightNormBackward, Some(synapses), _) => {
                backend.copy(&synapses.given_grad, &mut synapses.weight_grad).map(drop)
            }
            (_, _, Some(training)) => self.prepare_training(backend, &mut layer.neurons, &mut layer.means, training),
            _ => Ok(()),
        }
    }

    /// Runs it once; `false` if the device does not have the operation.
    pub fn run<B: Backend>(self, backend: &B, layer: &mut Layer<B>) -> Result<bool> {
        let span = layer.shape.span;
        match self.part() {
            Part::Synapses => {
                let synapses = layer.synapses.as_mut().expect("a layer for convolutions has synapses");
                return self.run_synapses(backend, span, synapses, &mut layer.neurons);
            }
            Part::Training => return self.run_training(backend, layer).map(|()| true),
            Part::Branches => return self.run_branches(backend, layer).map(|()| true),
            Part::Neurons => {}
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
                let input = Input::Spikes { bits: &layer.neurons.spikes, scale: 1.0 };
                backend.avg_pool_forward(&pool, span, input, &mut layer.means)?;
            }
            Self::BiasGrad => {
                backend.bias_grad(volume, span, &layer.neurons.gradient, &mut layer.neurons.bias_grad)?;
            }
            _ => unreachable!("no operation of neurons"),
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
        let weights = Weights { value: &*weight, packed: &*packed };
        let gradient = &above.gradient;
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
                    inside: Some(&mut above.inside),
                    membrane: None,
                    histogram: None,
                };
                backend.conv_lif_forward(conv, span, input, span.steps, weights, bias, affine, &neurons, out, None)?;
            }
            Self::ConvInputGrad => {
                backend.conv_input_grad(conv, span, gradient, weights, Put::Write, &mut below.currents_grad)?
            }
            Self::ConvInputGradLif => {
                let Activity { volume, bounds, spikes, inside, currents_grad, .. } = below;
                let neurons =
                    Neurons { neuron: usual_neuron(), surrogate: Surrogate::new(SurrogateKind::Adali), bounds };
                let below = Below {
                    volume: *volume,
                    neurons,
                    spikes,
                    inside,
                    pool: None,
                    current_steps: span.steps,
                    bias_grad: None,
                };
                return backend.conv_input_grad_lif(conv, span, gradient, weights, below, currents_grad);
            }
            Self::ConvWeightGrad => backend.conv_weight_grad(conv, span, input, gradient, weight_grad)?,
            Self::PackWeight => backend.pack_weight(conv, weight, packed, true)?,
            Self::WeightNormForward => backend.weight_norm_forward(conv, weight, gain, WEIGHT_NORM, effective)?,
            Self::WeightNormBackward => {
                let gain_grad = &mut synapses.gain_grad;
                backend.weight_norm_backward(conv, weight, gain, WEIGHT_NORM, weight_grad, gain_grad)?;
            }
            _ => unreachable!("no operation of synapses"),
        }
        Ok(true)
    }

    fn prepare_training<B: Backend>(
        self,
        backend: &B,
        neurons: &mut Activity<B>,
        values: &mut B::Floats,
        training: &mut Training<B>,
    ) -> Result<()> {
        let Training { tally, moved, drawn, .. } = training;
        match self {
            Self::DropoutFloats => backend.copy(&neurons.gradient, values).map(drop),
            Self::Loss => backend.write_tally(tally, &Totals::default()),
            Self::Update { .. } => {
                backend.write_tally(tally, &Totals::default())?;
                backend.copy(&moved.start, &mut moved.value)?;
                let zeros = vec![0.0; moved.conv.output.c * moved.conv.fan_in()];
                backend.write_weight(&moved.conv, &mut moved.moment1, &zeros)?;
                backend.write_weight(&moved.conv, &mut moved.moment2, &zeros)
            }
            Self::MembraneHistogram => backend.write_counts(&mut neurons.counts, &Histograms::empty(1)),
            Self::CollectCounts | Self::TuneBounds => {
                backend.write_counts(&mut neurons.counts, &Histograms::empty(1))?;
                neurons.fire(backend, usual_neuron(), true)?;
                if self == Self::TuneBounds {
                    backend.collect_counts(&mut [&mut neurons.counts], &drawn.batch, tally)?;
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn run_training<B: Backend>(self, backend: &B, layer: &mut Layer<B>) -> Result<()> {
        let Layer { shape, neurons, training, pooled, means, .. } = layer;
        let (span, volume) = (shape.span, neurons.volume);
        let training = training.as_mut().expect("a layer for a training step has what that needs");
        let Training { drawn, samples, outputs, spikes, logits, logits_grad, given_logits, .. } = training;
        let (classes, vote, batch, tally) = (training.classes, training.vote, &drawn.batch, &mut training.tally);
        match self {
            Self::DropoutSpikes => backend.dropout_spikes(volume, span, DROPPED, batch, 0, &neurons.spikes, pooled),
            Self::DropoutFloats => backend.dropout_floats(volume, span, DROPPED, batch, 0, means),
            Self::Input => backend.input(&drawn.set, batch, &augmentation(volume), samples),
            Self::VoteCurrents => backend.vote_currents(classes, vote, span, outputs, span.steps, logits),
            Self::VoteSpikes => backend.vote_spikes(classes, vote, span, &spikes.spikes, logits),
            Self::VoteBackward => {
                let out = &mut spikes.currents_grad;
                backend.vote_backward(classes, vote, span, given_logits, tally, span.steps, out)
            }
            Self::Loss => backend.loss(&LOSS, classes, span, given_logits, batch, Some(logits_grad), tally),
            Self::Update { rule } => {
                let update = Update { rule, decay: UPDATE_DECAY, clip: 0.0 };
                let Moved { value, gradient, moment1, moment2, optimizer, .. } = &mut training.moved;
                backend.update(&update, batch, optimizer, &mut [Trained { value, gradient, moment1, moment2 }], tally)
            }
            Self::MembraneHistogram => {
                let Activity { currents, counts, .. } = neurons;
                backend.membrane_histogram(volume, span, currents, usual_neuron().threshold, counts)
            }
            Self::CollectCounts => backend.collect_counts(&mut [&mut neurons.counts], batch, tally),
            Self::TuneBounds => {
                let [start, bounds] = &mut training.bounds;
                backend.tune_bounds(&tuning(), batch, Some(&mut neurons.counts), start, bounds)
            }
            _ => unreachable!("no operation around a layer"),
        }
    }
}

impl<B: Backend> Activity<B> {
    fn backward(&mut self, backend: &B, kind: SurrogateKind, neuron: Neuron, bits: bool) -> Result<()> {
        let Self { span, volume, currents, norm, bounds, spikes, inside, gradient, currents_grad, .. } = self;
        let neurons = Neurons { neuron, surrogate: Surrogate::new(kind), bounds: &*bounds };
        let affine = Affine { scale: &norm.scale, shift: &norm.shift };
        let saved = match bits {
            true => Saved::Bits { spikes, inside },
            false => Saved::Currents { currents, steps: span.steps, affine, spikes },
        };
        let (steps, put) = (span.steps, Put::Write);
        backend.spike_backward(*volume, *span, &neurons, saved, None, gradient, steps, put, currents_grad, None)
    }

    fn norm_backward(&mut self, backend: &B, kind: SurrogateKind) -> Result<()> {
        let Self { span, volume, currents, norm, bounds, spikes, inside, gradient, currents_grad, .. } = self;
        let neurons = Neurons { neuron: usual_neuron(), surrogate: Surrogate::new(kind), bounds: &*bounds };
        let affine = Affine { scale: &norm.scale, shift: &norm.shift };
        let saved = match bits_suffice(&neurons.neuron, &neurons.surrogate) {
            true => Saved::Bits { spikes, inside },
            false => Saved::Currents { currents, steps: span.steps, affine, spikes },
        };
        let norm = NormBackward {
            currents,
            current_steps: span.steps,
            state: norm,
            batch: true,
            gain_grad: &mut self.gain_grad,
            bias_grad: &mut self.bias_grad,
            current_bias_grad: None,
        };
        backend.norm_spike_backward(*volume, *span, &neurons, saved, None, gradient, norm, currents_grad)
    }
}
