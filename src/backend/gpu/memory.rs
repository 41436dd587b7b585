//! Tensors on a device, and their orders; see `kernels/README.md`.

use super::driver::run;
use super::params::Params;
use super::params::{self, Places};
use super::precision::Precision;
use super::tile::{Card, GradientClass};
use super::{Buffer, Driver, Launch};
use crate::backend::Neurons;
use crate::backend::shape::{Conv, Span, Volume};
use anyhow::Result;
use std::sync::Arc;

/// Runs a network's operations as kernels, one after the other. A clone is the same device.
pub struct Gpu<D: Driver> {
    pub(super) driver: Arc<D>,
    pub(super) precision: Precision,
    pub(super) card: Card,
    pub(super) name: String,
}

impl<D: Driver> Clone for Gpu<D> {
    fn clone(&self) -> Self {
        let Self { driver, precision, card, name } = self;
        Self { driver: driver.clone(), precision: *precision, card: *card, name: name.clone() }
    }
}

/// Dense numbers.
pub struct Floats<B> {
    pub(super) buffer: B,
    pub(super) stored: Precision,
}

/// A weight in the tensor cores' orders.
pub struct Packed<B> {
    pub(super) forward: Option<B>,
    pub(super) gradient: Vec<(GradientClass, B)>,
}

/// Moments of a convolution's currents, piece by piece.
pub struct Moments<B> {
    /// `[pieces][2][C]` and how many values a channel of each piece has.
    pub(super) pieces: Option<(B, B, u32)>,
}

/// Histograms.
pub struct Counts<B> {
    pub(super) buffer: B,
    pub(super) count: usize,
}

/// Channels with padding.
pub(super) fn padded(channels: usize) -> usize {
    channels.next_multiple_of(32)
}

/// Words of 32 channels.
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

impl<D: Driver> Gpu<D> {
    /// A backend on a device.
    pub fn new(driver: D, card: Card, precision: Precision, name: String) -> Self {
        Self { driver: Arc::new(driver), precision, card, name }
    }

    /// A buffer with these bytes.
    pub(super) fn put<T: bytemuck::NoUninit>(&self, values: &[T]) -> Result<D::Buffer> {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = self.driver.allocate(bytes.len())?;
        self.driver.upload(&buffer, 0, bytes)?;
        Ok(buffer)
    }

    pub(super) fn zeros(&self, bytes: usize) -> Result<D::Buffer> {
        self.put(&vec![0u8; bytes])
    }

    pub(super) fn get<T: bytemuck::Pod>(&self, buffer: &D::Buffer) -> Result<Vec<T>> {
        let bytes = self.driver.download(buffer)?;
        let len = bytes.len() / size_of::<T>();
        let mut values = vec![T::zeroed(); len];
        bytemuck::cast_slice_mut(&mut values).copy_from_slice(&bytes[..len * size_of::<T>()]);
        Ok(values)
    }

    pub(super) fn floats(&self, len: usize, stored: Precision) -> Result<Floats<D::Buffer>> {
        Ok(Floats { buffer: self.zeros(len * stored.bytes())?, stored })
    }

    /// A vector of channels that a kernel writes.
    pub(super) fn channels(&self, channels: usize) -> Result<Floats<D::Buffer>> {
        self.floats(padded(channels), Precision::F32)
    }

    pub(super) fn decode(&self, floats: &Floats<D::Buffer>) -> Result<Vec<f32>> {
        Ok(floats.stored.decode(&self.driver.download(&floats.buffer)?))
    }

    /// Runs a kernel whose name ends in the type that values are stored in.
    pub(super) fn run_stored<P: Params>(&self, kernel: &str, launch: Launch, params: &P) -> Result<()> {
        self.run(&format!("{kernel}_{}", self.precision.name()), launch, params)
    }

    pub(super) fn run<P: Params>(&self, kernel: &str, launch: Launch, params: &P) -> Result<()> {
        run(&*self.driver, kernel, launch, params)
    }

    /// The launch of a kernel that works neuron by neuron: enough blocks for the card, each with several places.
    pub(super) fn over_places(&self, places: Places) -> Launch {
        let down = 64 / places.words.clamp(1, 64);
        let blocks = places.places.div_ceil(down).min(4 * self.card.multiprocessors as u32).max(1);
        Launch { grid: [blocks, places.words.div_ceil(64), 1], threads: 256, shared: 0 }
    }

    /// AdaLi's windows as the kernels read them, one or one a channel, and whether it is one a channel.
    pub(super) fn windows(&self, neurons: &Neurons) -> Result<(D::Buffer, u32)> {
        let threshold = neurons.neuron.threshold;
        let mut windows: Vec<_> = neurons.bounds.iter().map(|b| params::window(b.window(threshold))).collect();
        let each = windows.len() > 1;
        if each {
            let last = windows[windows.len() - 1];
            windows.resize(padded(windows.len()), last);
        }
        Ok((self.put(&windows)?, each.into()))
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
