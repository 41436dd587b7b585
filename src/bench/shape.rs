//! Layer shapes, and the table of those that are measured.

use crate::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, Span, Volume};
use crate::input_error;

/// A layer: `N` samples of `T` steps of `H x W x C` spikes, a convolution with `K` filters that keeps their extents
/// (divided by the stride), and its neurons. A linear layer is a convolution of a 1x1 image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerShape {
    pub span: Span,
    /// The convolution's input.
    pub input: Volume,
    /// `K`: channels of the layer's neurons.
    pub filters: usize,
    pub kernel: usize,
    pub stride: usize,
}

/// Largest extent of a shape, and most neuron-steps.
const LARGEST: usize = 1 << 24;
const MOST: usize = 1 << 32;

impl LayerShape {
    /// A 3x3 convolution of square images.
    pub const fn conv(steps: usize, batch: usize, c: usize, side: usize, filters: usize) -> Self {
        let input = Volume { h: side, w: side, c };
        Self { span: Span { steps, batch }, input, filters, kernel: 3, stride: 1 }
    }

    /// A linear layer.
    pub const fn linear(steps: usize, batch: usize, inputs: usize, outputs: usize) -> Self {
        Self { kernel: 1, ..Self::conv(steps, batch, inputs, 1, outputs) }
    }

    /// The same with another number of steps.
    pub const fn over(self, steps: usize) -> Self {
        Self { span: Span { steps, batch: self.span.batch }, ..self }
    }

    /// The convolution.
    pub fn convolution(&self) -> Conv {
        let padding = self.kernel / 2;
        let side = |side: usize| (side + 2 * padding - self.kernel) / self.stride + 1;
        Conv {
            reads: InputKind::Spikes,
            input: self.input,
            kernel: Extent::square(self.kernel),
            stride: Extent::square(self.stride),
            padding: Extent::square(padding),
            output: Volume { h: side(self.input.h), w: side(self.input.w), c: self.filters },
        }
    }

    /// A 2x2 pool after the neurons, or a pool of the whole image if that is smaller.
    pub fn pool(&self, kind: PoolKind) -> Pool {
        let input = self.neurons();
        let kernel = Extent { h: input.h.min(2), w: input.w.min(2) };
        let output = Volume { h: input.h / kernel.h, w: input.w / kernel.w, c: input.c };
        Pool { kind, input, kernel, stride: kernel, padding: Extent::square(0), output }
    }

    /// The layer's neurons.
    pub fn neurons(&self) -> Volume {
        self.convolution().output
    }

    /// Neurons times steps times samples.
    pub fn neuron_steps(&self) -> usize {
        self.span.batch * self.span.steps * self.neurons().values()
    }

    /// Multiply-adds of the convolution over all steps and samples, including those with padding.
    pub fn multiply_adds(&self) -> f64 {
        self.neuron_steps() as f64 * self.convolution().fan_in() as f64
    }
}

impl std::fmt::Display for LayerShape {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        let Self { span, input, filters, kernel, stride } = self;
        write!(f, "T={},N={},C={},H={},W={}", span.steps, span.batch, input.c, input.h, input.w)?;
        write!(f, ",K={filters},kernel={kernel}")?;
        if *stride == 1 { Ok(()) } else { write!(f, ",stride={stride}") }
    }
}

impl std::str::FromStr for LayerShape {
    type Err = anyhow::Error;

    /// `T=4,N=64,C=64,H=32` and, if not the default, `W` (as H), `K` (as C), `kernel` (3, or 1 for one pixel), `stride` (1).
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = ["T", "N", "C", "H", "W", "K", "kernel", "stride"];
        let mut values = [None; 8];
        for part in text.split(',') {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let Some(place) = names.iter().position(|known| *known == name.trim()) else {
                return Err(input_error!("shape {text:?}: {name:?} is none of {}", names.join(", ")));
            };
            let value: Option<usize> = value.trim().parse().ok().filter(|n| (1..=LARGEST).contains(n));
            let value =
                value.ok_or_else(|| input_error!("shape {text:?}: {part:?} is no number from 1 to {LARGEST}"))?;
            if values[place].replace(value).is_some() {
                return Err(input_error!("shape {text:?} says {} twice", names[place]));
            }
        }
        let [t, n, c, h, w, k, kernel, stride] = values;
        let (Some(steps), Some(batch), Some(c), Some(h)) = (t, n, c, h) else {
            return Err(input_error!("shape {text:?} must say at least T, N, C and H, as in T=4,N=64,C=64,H=32"));
        };
        let input = Volume { h, w: w.unwrap_or(h), c };
        let kernel = kernel.unwrap_or(if input.pixels() == 1 { 1 } else { 3 });
        let stride = stride.unwrap_or(1);
        if kernel % 2 == 0 || kernel > 7 || stride > 2 {
            return Err(input_error!("shape {text:?}: the kernel is 1, 3, 5 or 7, the stride 1 or 2"));
        }
        let filters = k.unwrap_or(c);
        let sizes = [steps, batch, input.h, input.w, c.max(filters)];
        if sizes.iter().try_fold(1usize, |all, &n| all.checked_mul(n)).is_none_or(|all| all > MOST) {
            return Err(input_error!("shape {text:?} has more than {MOST} neuron-steps"));
        }
        if c * filters * kernel * kernel > LARGEST * 8 {
            return Err(input_error!("shape {text:?} has more than {} weights", LARGEST * 8));
        }
        Ok(Self { span: Span { steps, batch }, input, filters, kernel, stride })
    }
}

/// Layers of the presets, and blocks of image networks: 64 to 512 channels at 64x64 to 8x8.
pub const LAYERS: [LayerShape; 8] = [
    LayerShape::conv(4, 64, 32, 14, 32),
    LayerShape::conv(4, 64, 128, 14, 128),
    LayerShape::linear(4, 64, 6272, 2048),
    LayerShape::conv(16, 16, 128, 32, 128),
    LayerShape::conv(4, 64, 64, 64, 64),
    LayerShape::conv(4, 64, 128, 32, 128),
    LayerShape::conv(4, 64, 256, 16, 256),
    LayerShape::conv(4, 64, 512, 8, 512),
];

/// Neurons only: 2^20 of them, and 64 samples of 65536, over 4 to 32 steps.
pub const NEURONS: [LayerShape; 8] = {
    let few = LayerShape::linear(4, 1024, 1024, 1024);
    let many = LayerShape::conv(4, 64, 64, 32, 64);
    [few.over(4), few.over(8), few.over(16), few.over(32), many.over(4), many.over(8), many.over(16), many.over(32)]
};
/// The part of a layer that an operation works on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A convolution; a shape's `C`, `K` and kernel matter.
    Synapses,
    /// Neurons only.
    Neurons,
    /// What surrounds the layers of a network.
    Training,
    /// Sums, combinations and learned factors of branching networks, with their gradients.
    Branches,
}

impl Part {
    pub const ALL: [Self; 4] = [Self::Synapses, Self::Neurons, Self::Branches, Self::Training];
}
