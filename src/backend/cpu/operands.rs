//! Operands in the form that the CPU's operations read.

use super::Cpu;
use super::layout::pitch;
use super::simd::lanes;
use super::simd::simd;
use crate::backend::{CurrentGradient, Input, Neurons, NormGradient};
use crate::host::zeros;
use anyhow::Result;
use std::borrow::Cow;

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

/// The gradient of a convolution's output; a batch norm's backward pass is applied on reading.
pub struct Gradient<'a> {
    pub values: &'a [f32],
    pub norm: Option<(&'a [f32], &'a NormGradient<Vec<f32>>)>,
}

impl<'a> From<CurrentGradient<'a, Cpu>> for Gradient<'a> {
    fn from(gradient: CurrentGradient<'a, Cpu>) -> Self {
        let norm = gradient.norm.map(|(currents, norm)| (currents.as_slice(), norm));
        Self { values: gradient.gradient, norm }
    }
}

impl Gradient<'_> {
    /// Reads all channels of the pixel whose values start at `at`.
    #[inline(always)]
    pub fn read(&self, at: usize, to: &mut [f32]) {
        let Some((currents, norm)) = self.norm else {
            to.copy_from_slice(&self.values[at..][..to.len()]);
            return;
        };
        for (first, to) in to.as_chunks_mut::<16>().0.iter_mut().enumerate() {
            let first = 16 * first;
            let (g, y) = (lanes::<16>(self.values, at + first), lanes::<16>(currents, at + first));
            let (of_gradient, of_current) =
                (lanes::<16>(&norm.of_gradient, first), lanes::<16>(&norm.of_current, first));
            let constant = lanes::<16>(&norm.constant, first);
            for i in 0..16 {
                to[i] = of_gradient[i].mul_add(g[i], of_current[i].mul_add(y[i], constant[i]));
            }
        }
    }

    /// Reads image `image`: `len` values, `pitch` per pixel.
    pub fn image(&self, image: usize, len: usize, pitch: usize, to: &mut Vec<f32>) {
        to.resize(len, 0.0);
        simd(
            #[inline(always)]
            || {
                for (pixel, to) in to.chunks_exact_mut(pitch).enumerate() {
                    self.read(image * len + pixel * pitch, to);
                }
            },
        );
    }

    /// All of it, for linear layers, which read it more than once.
    pub fn whole(&self, len: usize, pitch: usize) -> Result<Cow<'_, [f32]>> {
        if self.norm.is_none() {
            return Ok(Cow::Borrowed(self.values));
        }
        let mut values = zeros(len)?;
        self.image(0, len, pitch, &mut values);
        Ok(Cow::Owned(values))
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
