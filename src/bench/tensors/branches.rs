//! What operations where networks branch read and write besides a layer's neurons.

use crate::backend::shape::Volume;
use crate::backend::{Backend, BatchNorm, NormState};
use anyhow::Result;

/// The constant factor, the learned one, and what multiplies a summand: their product.
pub const FACTORS: [f32; 2] = [0.5, 1.5];

/// Another layer's spikes, the batch norm of a sum, and a learned factor.
pub struct Branches<B: Backend> {
    pub channels: usize,
    /// The spikes of the layer's neurons whose membranes are inside the window.
    pub other: B::Bits,
    /// Gain and bias of the norm.
    pub affine: [B::Floats; 2],
    pub running: [B::Floats; 2],
    pub state: NormState<B::Floats>,
    pub gain: B::Floats,
    pub gain_grad: B::Floats,
    /// The factor of each channel.
    pub factor: B::Floats,
    pub ones: B::Floats,
    pub zeros: B::Floats,
}

impl<B: Backend> Branches<B> {
    /// For neurons of this volume; `other` is to be written.
    pub fn new(backend: &B, volume: Volume, other: B::Bits) -> Result<Self> {
        let vector = |value: f32| backend.vector(&vec![value; volume.c]);
        let state = NormState { mean: vector(0.0)?, inv_std: vector(0.0)?, scale: vector(0.0)?, shift: vector(0.0)? };
        Ok(Self {
            channels: volume.c,
            other,
            affine: [vector(1.0)?, vector(0.0)?],
            running: [vector(0.0)?, vector(1.0)?],
            state,
            gain: backend.vector(&[FACTORS[1]])?,
            gain_grad: backend.vector(&[0.0])?,
            factor: vector(0.0)?,
            ones: vector(1.0)?,
            zeros: vector(0.0)?,
        })
    }

    /// The norm as the operations take it, and where its result goes.
    pub fn norm(&mut self) -> (BatchNorm<'_, B>, &mut NormState<B::Floats>) {
        let Self { channels, affine: [gain, bias], running: [running_mean, running_variance], state, .. } = self;
        (BatchNorm { channels: *channels, gain, bias, running_mean, running_variance }, state)
    }
}
