//! Tensors on a device and their layouts; see `kernels/README.md`.

use super::memory::{Gpu, Memory};
use super::params::{self, Places};
use super::precision::Precision;
use super::tile::GradientClass;
use super::{Buffer, Driver, Launch};
use crate::backend::Neurons;
use crate::backend::shape::{Conv, Span, Volume};
use crate::histogram::BINS;
use crate::surrogate::Bounds;
use anyhow::Result;

/// Dense numbers.
pub struct Floats<D: Driver> {
    pub(super) memory: Memory<D>,
    pub(super) stored: Precision,
}

/// A weight in the tensor cores' layouts.
pub struct Packed<D: Driver> {
    pub(super) forward: Option<Memory<D>>,
    pub(super) gradient: Vec<(GradientClass, Memory<D>)>,
}

/// A layer's AdaLi bounds in units of the threshold, `[count]`, followed by the windows derived from them in the form that
/// the kernels read: one, or one per channel.
pub struct Windows<D: Driver> {
    pub(super) memory: Memory<D>,
    pub(super) count: usize,
    pub(super) threshold: f32,
}

impl<D: Driver> Windows<D> {
    pub(super) fn address(&self) -> u64 {
        self.memory.address() + (self.count * size_of::<[f32; 4]>()) as u64
    }

    /// Both parts, computed from the bounds.
    fn values(bounds: &[Bounds], threshold: f32) -> Vec<[f32; 4]> {
        let each = |b: &Bounds| [b.left, b.right, b.alpha, b.beta];
        let mut windows: Vec<_> = bounds.iter().map(|b| params::window(b.window(threshold))).collect();
        if windows.len() > 1 {
            let last = windows[windows.len() - 1];
            windows.resize(padded(windows.len()), last);
        }
        bounds.iter().map(each).chain(windows).collect()
    }
}

/// Bytes of a block's private counts for one histogram.
pub const COUNTS: u32 = 4 * (BINS as u32 + 3);

/// Histograms of a layer, `[count][COUNTERS]` each.
pub struct Counts<D: Driver> {
    pub(super) fresh: Memory<D>,
    pub(super) recent: Memory<D>,
    pub(super) epoch: Memory<D>,
    /// `[count]`; one bit per flag.
    pub(super) flags: Memory<D>,
    pub(super) count: usize,
}

/// Channels, padding included.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(32)
}

/// Number of 32-channel words.
pub(super) fn words(channels: usize) -> usize {
    channels.div_ceil(32)
}

pub(super) fn places(span: Span, volume: Volume) -> Places {
    let places = (span.batch * volume.pixels()) as u32;
    Places { places, words: words(volume.c) as u32, steps: span.steps as u32 }
}

/// A convolution as the device runs it: the first one reads unfolded columns.
pub(super) fn lowered(conv: &Conv) -> Conv {
    use crate::backend::shape::{Extent, InputKind};
    if conv.reads != InputKind::Image {
        return *conv;
    }
    let one = Extent::square(1);
    Conv {
        reads: InputKind::Dense,
        input: Volume { c: conv.fan_in(), ..conv.output },
        kernel: one,
        stride: one,
        padding: Extent::square(0),
        output: conv.output,
    }
}

/// Calls `f(position in [K, C, R, S], position in [K][R][S][C])` for every value of a weight.
pub(super) fn each_weight(conv: &Conv, mut f: impl FnMut(usize, usize)) {
    let (taps, channels) = (conv.kernel.h * conv.kernel.w, conv.input.c);
    for k in 0..conv.output.c {
        for c in 0..channels {
            for tap in 0..taps {
                f((k * channels + c) * taps + tap, (k * taps + tap) * channels + c);
            }
        }
    }
}

impl<D: Driver> Gpu<D> {
    /// Floats to keep, all zero.
    pub(super) fn floats(&self, len: usize, stored: Precision) -> Result<Floats<D>> {
        Ok(Floats { memory: self.zeros(len * stored.bytes())?, stored })
    }

    /// Floats for the duration of one operation.
    pub(super) fn borrow_floats(&self, len: usize, stored: Precision) -> Result<Floats<D>> {
        Ok(Floats { memory: self.borrow(len * stored.bytes())?, stored })
    }

    pub(super) fn decode(&self, floats: &Floats<D>) -> Result<Vec<f32>> {
        Ok(floats.stored.decode(&self.get::<u8>(&floats.memory)?))
    }

    pub(super) fn windows_of(&self, bounds: &[Bounds], threshold: f32) -> Result<Windows<D>> {
        let memory = self.put(&Windows::<D>::values(bounds, threshold))?;
        Ok(Windows { memory, count: bounds.len(), threshold })
    }

    pub(super) fn replace_windows(&self, windows: &Windows<D>, bounds: &[Bounds]) -> Result<()> {
        self.write(&windows.memory, 0, &Windows::<D>::values(bounds, windows.threshold))
    }

    pub(super) fn bounds_of(&self, windows: &Windows<D>) -> Result<Vec<Bounds>> {
        let values = self.get::<[f32; 4]>(&windows.memory)?;
        let bounds = |&[left, right, alpha, beta]: &[f32; 4]| Bounds { left, right, alpha, beta };
        Ok(values[..windows.count].iter().map(bounds).collect())
    }

    /// Address of AdaLi's windows, and whether there is one per channel.
    pub(super) fn windows_for(neurons: &Neurons<Self>) -> (u64, u32) {
        (neurons.bounds.address(), (neurons.bounds.count > 1).into())
    }

    /// The launch of a kernel that works neuron by neuron: enough blocks for the card, each with several places.
    pub(super) fn over_places(&self, places: Places) -> Launch {
        let down = 64 / places.words.clamp(1, 64);
        let blocks = places.places.div_ceil(down).min(4 * self.card.multiprocessors as u32).max(1);
        Launch { grid: [blocks, places.words.div_ceil(64), 1], threads: 256, shared: 0 }
    }

    /// `[T, N, C, H, W]` from `value(place in [T][N][H][W] order, channel)`.
    pub(super) fn to_file<V>(span: Span, volume: Volume, value: impl Fn(usize, usize) -> V) -> Vec<V> {
        let pixels = volume.pixels();
        let each = |image: usize, c: usize| (0..pixels).map(move |pixel| (image * pixels + pixel, c));
        let images = 0..span.batch * span.steps;
        images
            .flat_map(|image| (0..volume.c).flat_map(move |c| each(image, c)))
            .map(|(place, c)| value(place, c))
            .collect()
    }
}

/// The address of an operand that may be missing.
pub(super) fn address<B: Buffer>(buffer: Option<&B>) -> u64 {
    buffer.map_or(0, Buffer::address)
}
