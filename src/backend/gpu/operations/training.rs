//! Batches, readout, loss and optimiser.

use super::super::memory::{Floats, Gpu, padded};
use super::super::params::{
    self, Chunk, InputBatch, Loss, OPTIMIZER_CHUNK, Optimizer, OptimizerState, TrainedTensor, Vote, VoteBackward,
    WeightNorm, WeightNormBackward,
};
use super::super::{Buffer, Driver, Launch};
use crate::backend::shape::{Conv, Span};
use crate::backend::{LossSpec, LossSums, Normalisation, Trained, Update, UpdateRule};
use crate::data::SampleShape;
use crate::data::sampling::Placement;
use anyhow::Result;

/// What `loss` writes for a sample.
#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct SampleLoss {
    loss: f64,
    correct: u32,
    padding: u32,
}

impl<D: Driver> Gpu<D> {
    pub(in super::super) fn gather(
        &self,
        set: &D::Buffer,
        shape: &SampleShape,
        normalisation: &Normalisation,
        indices: &[u32],
        placements: &[Placement],
        out: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let placements: Vec<params::Placement> = placements.iter().map(|&placement| placement.into()).collect();
        let (table, of_batch) = (self.put(&normalisation.table())?, self.put(indices)?);
        let placements = self.put(&placements)?;
        let params = InputBatch {
            set: set.address(),
            indices: of_batch.address(),
            placements: placements.address(),
            table: table.address(),
            samples: out.buffer.address(),
            batch: indices.len() as u32,
            frames: shape.frames as u32,
            height: shape.height as u32,
            width: shape.width as u32,
            channels: shape.channels as u32,
            padding: 0,
        };
        let eights = (shape.height * shape.width * shape.channels).div_ceil(8);
        let launch =
            Launch { shared: 1024 * shape.channels as u32, ..self.over_outputs(eights, indices.len() * shape.frames) };
        self.run_stored("input", launch, &params)
    }

    pub(in super::super) fn vote(
        &self,
        kernel: &str,
        (classes, vote): (usize, usize),
        span: Span,
        outputs: u64,
        current_steps: usize,
        logits: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let params = Vote {
            outputs,
            logits: logits.buffer.address(),
            batch: span.batch as u32,
            steps: span.steps as u32,
            current_steps: current_steps as u32,
            classes: classes as u32,
            vote: vote as u32,
            padding: 0,
        };
        self.run(kernel, Launch::over(span.batch * span.steps * padded(classes), 256, 256), &params)
    }

    pub(in super::super) fn vote_back(
        &self,
        (classes, vote): (usize, usize),
        span: Span,
        logits_grad: &Floats<D::Buffer>,
        current_steps: usize,
        outputs_grad: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let params = VoteBackward {
            logits_gradient: logits_grad.buffer.address(),
            outputs_gradient: outputs_grad.buffer.address(),
            loss_scale: 0,
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

    pub(in super::super) fn sample_losses(
        &self,
        spec: &LossSpec,
        classes: usize,
        span: Span,
        logits: &Floats<D::Buffer>,
        labels: &[u16],
        grad: Option<&mut Floats<D::Buffer>>,
    ) -> Result<LossSums> {
        let of_batch = self.put(labels)?;
        let samples = self.driver.allocate(span.batch * size_of::<SampleLoss>())?;
        let params = Loss {
            logits: logits.buffer.address(),
            labels: of_batch.address(),
            gradient: grad.map_or(0, |grad| grad.buffer.address()),
            samples: samples.address(),
            mse: spec.mse,
            label_smoothing: spec.label_smoothing,
            batch: span.batch as u32,
            steps: span.steps as u32,
            classes: classes as u32,
            tet: spec.tet.into(),
        };
        self.run("loss", Launch::over(span.batch, 4, 128), &params)?;
        let mut sums = LossSums::default();
        for sample in self.get::<SampleLoss>(&samples)? {
            sums.loss += sample.loss;
            sums.correct += u64::from(sample.correct);
        }
        Ok(sums)
    }

    pub(in super::super) fn standardise(
        &self,
        conv: &Conv,
        weight: &Floats<D::Buffer>,
        gain: &Floats<D::Buffer>,
        scale: f32,
        effective: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let params = WeightNorm {
            weight: weight.buffer.address(),
            gain: gain.buffer.address(),
            effective: effective.buffer.address(),
            fan_in: conv.fan_in() as u32,
            scale,
        };
        self.run("weight_norm_forward", Launch::over(conv.output.c, 1, 256), &params)
    }

    pub(in super::super) fn standardise_back(
        &self,
        conv: &Conv,
        weight: &Floats<D::Buffer>,
        gain: &Floats<D::Buffer>,
        scale: f32,
        weight_grad: &mut Floats<D::Buffer>,
        gain_grad: &mut Floats<D::Buffer>,
    ) -> Result<()> {
        let params = WeightNormBackward {
            weight: weight.buffer.address(),
            gain: gain.buffer.address(),
            gradient: weight_grad.buffer.address(),
            gain_gradient: gain_grad.buffer.address(),
            fan_in: conv.fan_in() as u32,
            scale,
        };
        self.run("weight_norm_backward", Launch::over(conv.output.c, 1, 256), &params)
    }

    /// Moves one parameter.
    pub(in super::super) fn step(&self, update: &Update, parameter: Trained<Self>) -> Result<()> {
        let &Update { rule, rate, decay, gradient_scale, count } = update;
        let len = parameter.value.buffer.len() / 4;
        let tensors = self.put(&[TrainedTensor {
            value: parameter.value.buffer.address(),
            gradient: parameter.gradient.buffer.address(),
            first: parameter.first.buffer.address(),
            second: parameter.second.buffer.address(),
            length: len as u32,
            decay,
        }])?;
        let chunks: Vec<Chunk> = params::chunks(&[len]);
        let of_chunks = self.put(&chunks)?;
        let mut state = OptimizerState {
            rate,
            loss_scale: 1.0,
            gradient_scale,
            finite: 1,
            count: count as u32,
            ..Default::default()
        };
        let mut params = Optimizer { tensors: tensors.address(), chunks: of_chunks.address(), ..Optimizer::default() };
        let kernel = match rule {
            UpdateRule::Sgd { momentum } => {
                params.momentum = momentum;
                "optimizer_sgd"
            }
            UpdateRule::Adam { beta1, beta2, epsilon, decoupled } => {
                (params.beta1, params.beta2, params.epsilon) = (beta1, beta2, epsilon);
                params.decoupled = decoupled.into();
                let correction = |beta: f32| 1.0 - f64::from(beta).powi(count.min(i32::MAX as u64) as i32);
                state.step = (f64::from(rate) / correction(beta1)) as f32;
                state.root = correction(beta2).sqrt() as f32;
                "optimizer_adam"
            }
        };
        let state = self.put(&[state])?;
        params.state = state.address();
        debug_assert!(chunks.len() == len.div_ceil(OPTIMIZER_CHUNK));
        self.run(kernel, Launch::over(chunks.len(), 1, 256), &params)
    }
}
