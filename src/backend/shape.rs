//! Extents of tensors, convolutions and pools, the same for every backend.

use serde::{Deserialize, Serialize};

/// A pair `[height, width]`; one number stands for both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "OneOrTwo", into = "OneOrTwo")]
pub struct Extent {
    pub h: usize,
    pub w: usize,
}

impl Extent {
    /// The same in both directions.
    pub const fn square(n: usize) -> Self {
        Self { h: n, w: n }
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}x{}", self.h, self.w)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum OneOrTwo {
    One(usize),
    Two([usize; 2]),
}

impl From<OneOrTwo> for Extent {
    fn from(value: OneOrTwo) -> Self {
        match value {
            OneOrTwo::One(n) => Self::square(n),
            OneOrTwo::Two([h, w]) => Self { h, w },
        }
    }
}

impl From<Extent> for OneOrTwo {
    fn from(e: Extent) -> Self {
        if e.h == e.w { Self::One(e.h) } else { Self::Two([e.h, e.w]) }
    }
}

/// The extents of an activation at one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Volume {
    pub h: usize,
    pub w: usize,
    pub c: usize,
}

impl Volume {
    /// Height times width.
    pub fn pixels(&self) -> usize {
        self.h * self.w
    }

    /// Values at one step.
    pub fn values(&self) -> usize {
        self.pixels() * self.c
    }
}

impl std::fmt::Display for Volume {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        write!(f, "{}x{}x{} (height x width x channels)", self.h, self.w, self.c)
    }
}

/// How many samples and steps an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub batch: usize,
    pub steps: usize,
}

/// A convolution's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Samples as gathered.
    Image,
    /// Bit-packed spikes.
    Spikes,
    /// Dense activations of the layer below (after an average pool).
    Dense,
}

/// A convolution. A linear layer is one whose kernel is its whole input: `output` is then 1x1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conv {
    pub reads: InputKind,
    pub input: Volume,
    pub kernel: Extent,
    pub stride: Extent,
    pub padding: Extent,
    pub output: Volume,
}

impl Conv {
    /// Whether the kernel covers the whole input exactly once.
    pub fn is_linear(&self) -> bool {
        self.output.pixels() == 1
            && self.padding == Extent::square(0)
            && self.kernel.h == self.input.h
            && self.kernel.w == self.input.w
    }

    /// Weights of one filter.
    pub fn fan_in(&self) -> usize {
        self.kernel.h * self.kernel.w * self.input.c
    }
}

/// Kind of pooling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// Bitwise OR of spikes.
    Max,
    /// Mean of spikes.
    Avg,
}

/// A pooling layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    pub kind: PoolKind,
    pub input: Volume,
    pub kernel: Extent,
    pub stride: Extent,
    pub padding: Extent,
    pub output: Volume,
}

/// Output extent of a window of `kernel` moved by `stride` over `input` with `padding` on both ends; `None` if it does not
/// fit even once.
pub fn output_extent(input: usize, kernel: usize, stride: usize, padding: usize) -> Option<usize> {
    (input + 2 * padding).checked_sub(kernel).map(|rest| rest / stride + 1)
}
