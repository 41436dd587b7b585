//! Batches, readout, loss and optimiser.

use super::super::memory::{Gpu, Memory};
use super::super::params::{
    self, GradientNorm, InputBatch, Loss, LossTotal, Placements, TrainedTensor, Vote, VoteBackward, WeightNorm,
    WeightNormBackward,
};
use super::super::precision::Precision;
use super::super::tensors::{Floats, padded};
use super::super::{Buffer, Driver, Launch};
use super::step::{Batch, Set, Tally};
use crate::backend::shape::{Conv, Span};
use crate::backend::{LossSpec, Trained, Training, Update, UpdateRule};
use crate::data::sampling::Augmentation;
use anyhow::Result;

/// Updates with finite gradients after which an f16 loss scale doubles, as in PyTorch's GradScaler.
const LOSS_SCALE_GROWTH: u32 = 2000;

/// The tensors that the optimiser moves.
pub struct Optimizer<D: Driver> {
    tensors: Memory<D>,
    /// `count` pieces of the tensors, one per block, and their sums of squares.
    chunks: Memory<D>,
    squares: Memory<D>,
    count: usize,
}

/// What `loss` writes per sample.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SampleLoss {
    loss: f64,
    correct: u32,
    padding: u32,
}

impl<D: Driver> Gpu<D> {
    fn vote(
        &self,
        kernel: &str,
        (classes, vote): (usize, usize),
        span: Span,
        outputs: u64,
        current_steps: usize,
        logits: &mut Floats<D>,
    ) -> Result<()> {
        let params = Vote {
            outputs,
            logits: logits.memory.address(),
            batch: span.batch as u32,
            steps: span.steps as u32,
            current_steps: current_steps as u32,
            classes: classes as u32,
            vote: vote as u32,
            padding: 0,
        };
        self.run(kernel, Launch::over(span.batch * span.steps * padded(classes), 256, 256), &params)
    }

    /// The tensors' table and their chunks; see `kernels/optimizer.cu`.
    pub(in super::super) fn optimizer_of(&self, parameters: &[Trained<Self>]) -> Result<Optimizer<D>> {
        let length = |parameter: &Trained<Self>| parameter.value.memory.len() / size_of::<f32>();
        let tensor = |parameter: &Trained<Self>| TrainedTensor {
            value: parameter.value.memory.address(),
            gradient: parameter.gradient.memory.address(),
            first: parameter.moment1.memory.address(),
            second: parameter.moment2.memory.address(),
            length: length(parameter) as u32,
            padding: 0,
        };
        let chunks = params::chunks(&parameters.iter().map(length).collect::<Vec<_>>());
        Ok(Optimizer {
            tensors: self.put(&parameters.iter().map(tensor).collect::<Vec<_>>())?,
            squares: self.allocate(chunks.len() * size_of::<f64>())?,
            count: chunks.len(),
            chunks: self.put(&chunks)?,
        })
    }
}

impl<D: Driver> Training for Gpu<D> {
    fn input(&self, set: &Set<D>, batch: &Batch<D>, augmentation: &Augmentation, out: &mut Floats<D>) -> Result<()> {
        let (shape, placements) = (set.shape, batch.placements.address());
        let augmentation = augmentation.after_host();
        let params = Placements {
            seed: batch.seed(),
            epoch: batch.epoch(),
            indices: batch.samples(),
            placements,
            batch: batch.size as u32,
            crop_padding: augmentation.crop_padding,
            flip: augmentation.flip.into(),
            roll: augmentation.roll,
            drop: (augmentation.drop > 0.0).into(),
            padding: 0,
        };
        self.run("placements", Launch::over(batch.size, 256, 256), &params)?;
        let params = InputBatch {
            set: set.address(),
            indices: batch.places(),
            placements,
            table: set.table.address(),
            samples: out.memory.address(),
            dropped: params::dropout_threshold(augmentation.drop),
            batch: batch.size as u32,
            frames: shape.frames as u32,
            height: shape.height as u32,
            width: shape.width as u32,
            channels: shape.channels as u32,
            padding: 0,
            shares: batch.shares(),
        };
        let eights = (shape.height * shape.width * shape.channels).div_ceil(8);
        let launch =
            Launch { shared: 1024 * shape.channels as u32, ..self.over_outputs(eights, batch.size * shape.frames) };
        self.run_stored("input", launch, &params)
    }

    fn weight_norm_forward(
        &self,
        conv: &Conv,
        weight: &Floats<D>,
        gain: &Floats<D>,
        norm: crate::backend::WeightNorm,
        effective: &mut Floats<D>,
    ) -> Result<()> {
        let params = WeightNorm {
            weight: weight.memory.address(),
            gain: gain.memory.address(),
            effective: effective.memory.address(),
            fan_in: conv.fan_in() as u32,
            scale: norm.scale,
            factor: norm.factor(conv.fan_in()),
        };
        self.run("weight_norm_forward", Launch::over(conv.output.c, 1, 256), &params)
    }

    fn weight_norm_backward(
        &self,
        conv: &Conv,
        weight: &Floats<D>,
        gain: &Floats<D>,
        norm: crate::backend::WeightNorm,
        weight_grad: &mut Floats<D>,
        gain_grad: &mut Floats<D>,
    ) -> Result<()> {
        let params = WeightNormBackward {
            weight: weight.memory.address(),
            gain: gain.memory.address(),
            gradient: weight_grad.memory.address(),
            gain_gradient: gain_grad.memory.address(),
            fan_in: conv.fan_in() as u32,
            scale: norm.scale,
            factor: norm.factor(conv.fan_in()),
        };
        self.run("weight_norm_backward", Launch::over(conv.output.c, 1, 256), &params)
    }

    fn vote_currents(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Self::Floats,
        current_steps: usize,
        logits: &mut Self::Floats,
    ) -> Result<()> {
        self.vote("vote_currents", (classes, vote), span, outputs.memory.address(), current_steps, logits)
    }

    fn vote_spikes(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        outputs: &Self::Bits,
        logits: &mut Self::Floats,
    ) -> Result<()> {
        self.vote("vote_spikes", (classes, vote), span, outputs.address(), span.steps, logits)
    }

    fn vote_backward(
        &self,
        classes: usize,
        vote: usize,
        span: Span,
        logits_grad: &Floats<D>,
        tally: &Tally<D>,
        current_steps: usize,
        outputs_grad: &mut Floats<D>,
    ) -> Result<()> {
        let params = VoteBackward {
            logits_gradient: logits_grad.memory.address(),
            outputs_gradient: outputs_grad.memory.address(),
            loss_scale: if self.precision == Precision::F16 { tally.loss_scale() } else { 0 },
            batch: span.batch as u32,
            steps: span.steps as u32,
            current_steps: current_steps as u32,
            classes: classes as u32,
            vote: vote as u32,
            padding: 0,
        };
        let eights = span.batch * current_steps * padded(classes * vote) / 8;
        self.run_stored("vote_backward", Launch::over(eights, 256, 256), &params)
    }

    fn loss(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Floats<D>,
        batch: &Batch<D>,
        grad: Option<&mut Floats<D>>,
        tally: &mut Tally<D>,
    ) -> Result<()> {
        let samples = self.borrow(span.batch * size_of::<SampleLoss>())?;
        let params = Loss {
            logits: logits.memory.address(),
            labels: batch.labels(),
            gradient: grad.map_or(0, |grad| grad.memory.address()),
            samples: samples.address(),
            mse: spec.mse,
            label_smoothing: spec.label_smoothing,
            batch: span.batch as u32,
            steps: span.steps as u32,
            classes: classes as u32,
            tet: spec.tet.into(),
            shares: batch.shares(),
        };
        self.run("loss", Launch::over(span.batch, 4, 128), &params)?;
        let total =
            LossTotal { samples: samples.address(), metrics: tally.metrics(), batch: span.batch as u32, padding: 0 };
        self.run("loss_total", Launch::over(1, 1, 128), &total)
    }

    fn update(
        &self,
        update: &Update,
        batch: &Batch<D>,
        optimizer: &Optimizer<D>,
        _: &mut [Trained<Self>],
        tally: &mut Tally<D>,
    ) -> Result<()> {
        let Optimizer { tensors, chunks, squares, count } = optimizer;
        let (tensors, chunks, state) = (tensors.address(), chunks.address(), tally.optimizer_state());
        let mut params =
            params::Optimizer { tensors, chunks, state, decay: update.decay, ..params::Optimizer::default() };
        let kernel = match update.rule {
            UpdateRule::Sgd { momentum } => {
                params.momentum = momentum;
                "optimizer_sgd"
            }
            UpdateRule::Adam { beta1, beta2, epsilon, decoupled } => {
                (params.beta1, params.beta2, params.epsilon) = (beta1, beta2, epsilon);
                params.decoupled = decoupled.into();
                "optimizer_adam"
            }
        };
        let norm = GradientNorm {
            tensors,
            chunks,
            squares: squares.address(),
            state,
            rate: batch.learning_rate(),
            step: batch.count(),
            limit: update.clip,
            beta1: params.beta1,
            beta2: params.beta2,
            chunk_count: *count as u32,
            growth: if self.precision == Precision::F16 { LOSS_SCALE_GROWTH } else { 0 },
        };
        let each_chunk = Launch::over(*count, 1, 256);
        self.run("gradient_squares", each_chunk, &norm)?;
        self.run("gradient_norm", Launch::over(1, 1, 256), &norm)?;
        self.run(kernel, each_chunk, &params)
    }
}
