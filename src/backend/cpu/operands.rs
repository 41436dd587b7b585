//! Operands in the form that the CPU's operations read.

use super::Cpu;
use super::layout::pitch;
use crate::backend::{Input, Neurons};

/// A weight in both orders.
pub struct Weight<'a> {
    pub forward: &'a [f32],
    pub transposed: &'a [f32],
}

pub type CpuWeights<'a> = crate::backend::Weights<'a, Cpu>;

impl<'a> CpuWeights<'a> {
    pub fn get(&self) -> Weight<'a> {
        Weight { forward: self.value, transposed: self.packed }
    }
}

/// What a convolution reads.
pub enum CpuInput<'a> {
    Dense(&'a [f32]),
    Spikes { bits: &'a [u32], scale: f32 },
}

impl<'a> From<Input<'a, Cpu>> for CpuInput<'a> {
    fn from(input: Input<'a, Cpu>) -> Self {
        match input {
            Input::Dense(values) => Self::Dense(values),
            Input::Spikes { bits, scale } => Self::Spikes { bits, scale },
        }
    }
}

impl CpuInput<'_> {
    pub fn scale(&self) -> f32 {
        match self {
            Self::Dense(_) => 1.0,
            Self::Spikes { scale, .. } => *scale,
        }
    }
}

/// AdaLi's windows of a layer, one value per channel; padding has a window too, which passes no gradient.
pub struct WindowTable {
    pub left: Vec<f32>,
    pub right: Vec<f32>,
    pub slope_left: Vec<f32>,
    pub slope_right: Vec<f32>,
}

impl WindowTable {
    pub fn new(neurons: &Neurons<Cpu>, channels: usize) -> Self {
        let windows: Vec<_> = (0..pitch(channels))
            .map(|c| neurons.bounds[c.min(neurons.bounds.len() - 1)].window(neurons.neuron.threshold))
            .collect();
        Self {
            left: windows.iter().map(|w| w.left).collect(),
            right: windows.iter().map(|w| w.right).collect(),
            slope_left: windows.iter().map(|w| w.slope_left).collect(),
            slope_right: windows.iter().map(|w| w.slope_right).collect(),
        }
    }
}
