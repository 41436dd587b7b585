//! Kernels on the device under test, and the same tensors in the memory orders of both backends.
//!
//! Tests draw tensors in PyTorch's order, `[T, N, C, H, W]`, and hand them to the CPU backend with
//! [`Tensor::cpu_floats`] and to kernels with [`Device::values`].

use crate::launch;
use crate::oracle::Rng;
use adali::backend::Put;
use adali::backend::cpu::layout;
use adali::backend::gpu::cuda::Cuda;
pub use adali::backend::gpu::cuda::CudaBuffer;
use adali::backend::gpu::params::{NeuronConstants, Params, Places};
use adali::backend::gpu::{Buffer, Driver, Launch};
use adali::backend::shape::{Span, Volume};
use adali::neuron::{Neuron, NeuronModel, NeuronSpec, ResetKind};
use adali::surrogate::{Bounds, Surrogate, SurrogateKind};
use half::{bf16, f16};

/// How a kernel stores values; also the suffix of its name.
pub use adali::backend::gpu::Precision as Value;

pub const PUTS: [Put; 2] = [Put::Write, Put::Add];
pub const VALUES: [Value; 3] = [Value::F32, Value::Bf16, Value::F16];
pub const HALVES: [Value; 2] = [Value::Bf16, Value::F16];

/// The effect of storing on values.
pub trait Rounding {
    /// `x` after storing.
    fn round(self, x: f32) -> f32;
    /// Relative distance between neighbouring values.
    fn epsilon(self) -> f32;
}

impl Rounding for Value {
    fn round(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::Bf16 => bf16::from_f32(x).to_f32(),
            Self::F16 => f16::from_f32(x).to_f32(),
        }
    }

    fn epsilon(self) -> f32 {
        match self {
            Self::F32 => f32::EPSILON,
            Self::Bf16 => bf16::EPSILON.to_f32(),
            Self::F16 => f16::EPSILON.to_f32(),
        }
    }
}

/// A device.
pub struct Device {
    driver: Cuda,
}

/// Orders of threads and blocks in which each case runs; fewer where sums are cut off, because the order of blocks does not
/// change how a product is rounded.
pub fn orders() -> usize {
    if launch::cuts_off() { 2 } else { 4 }
}

/// Devices whose threads and blocks run in different orders; each case must give the same result on all of them.
pub fn schedules(rng: &mut Rng) -> impl Iterator<Item = Device> {
    let seeds: Vec<u64> = (0..orders()).map(|_| rng.next_u64()).collect();
    seeds.into_iter().map(Device::new)
}

/// Address 0: a parameter that is not wanted.
pub const NONE: u64 = 0;

impl Device {
    /// The schedule is derived from `seed`.
    pub fn new(seed: u64) -> Self {
        Self { driver: launch::open(seed) }
    }

    pub fn put<T: bytemuck::Pod>(&self, values: &[T]) -> CudaBuffer {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let buffer = self.driver.allocate(bytes.len()).expect("memory");
        self.driver.upload(&buffer, 0, bytes).expect("it fits");
        buffer
    }

    /// Poisoned memory, to be overwritten entirely.
    pub fn empty(&self, bytes: usize) -> CudaBuffer {
        self.driver.allocate(bytes).expect("memory")
    }

    pub fn get<T: bytemuck::Pod>(&self, buffer: &CudaBuffer) -> Vec<T> {
        collect(&self.driver.download(buffer).expect("all of it is written"))
    }

    #[track_caller]
    pub fn run<P: Params>(&self, kernel: &str, launch: Launch, params: &P) {
        self.try_run(kernel, launch, params).unwrap_or_else(|fault| panic!("{fault}"));
    }

    pub fn try_run<P: Params>(&self, kernel: &str, launch: Launch, params: &P) -> anyhow::Result<()> {
        launch::launch(&self.driver, kernel, launch, bytemuck::bytes_of(params))
    }

    /// A tensor as kernels store it, padding zero.
    pub fn values(&self, value: Value, tensor: &Tensor) -> CudaBuffer {
        self.put(&value.encode(&tensor.gpu_floats()))
    }

    /// Memory for values with these extents.
    pub fn empty_values(&self, value: Value, span: Span, volume: Volume) -> CudaBuffer {
        self.empty(span.batch * span.steps * volume.pixels() * padded(volume.c) * value.bytes())
    }

    /// Memory for spikes with these extents.
    pub fn empty_bits(&self, span: Span, volume: Volume) -> CudaBuffer {
        self.empty(span.batch * span.steps * volume.pixels() * words(volume.c) * 4)
    }

    /// A tensor of 0 and 1 as kernels store it.
    pub fn bits(&self, tensor: &Tensor) -> CudaBuffer {
        self.put(&tensor.gpu_bits())
    }

    pub fn get_values(&self, value: Value, buffer: &CudaBuffer, span: Span, volume: Volume) -> Tensor {
        let floats = value.decode(&self.driver.download(buffer).expect("all of it is written"));
        Tensor::from_places(span, volume, |place, c| floats[place * padded(volume.c) + c])
    }

    pub fn get_bits(&self, buffer: &CudaBuffer, span: Span, volume: Volume) -> Tensor {
        let bits: Vec<u32> = self.get(buffer);
        let words = words(volume.c);
        Tensor::from_places(span, volume, |place, c| (bits[place * words + c / 32] >> (c % 32) & 1) as f32)
    }
}

/// Bytes as values, regardless of their alignment.
fn collect<T: bytemuck::Pod>(bytes: &[u8]) -> Vec<T> {
    let mut values = vec![T::zeroed(); bytes.len() / size_of::<T>()];
    bytemuck::cast_slice_mut(&mut values).copy_from_slice(bytes);
    values
}

/// Address of an optional operand.
pub fn address(buffer: Option<&CudaBuffer>) -> u64 {
    buffer.map_or(NONE, Buffer::address)
}

/// Number of channels with padding.
pub fn padded(channels: usize) -> usize {
    channels.next_multiple_of(32)
}

pub fn words(channels: usize) -> usize {
    channels.div_ceil(32)
}

pub fn places(span: Span, volume: Volume) -> Places {
    Places { places: (span.batch * volume.pixels()) as u32, words: words(volume.c) as u32, steps: span.steps as u32 }
}

/// Launch of a kernel that works neuron by neuron, with few blocks, so that each takes several places.
pub fn over_places(places: Places) -> Launch {
    Launch { grid: [2, places.words.div_ceil(64), 1], threads: 256, shared: 0 }
}

/// `[T, N, C, H, W]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    pub span: Span,
    pub volume: Volume,
    pub data: Vec<f32>,
}

impl Tensor {
    pub fn new(span: Span, volume: Volume, mut value: impl FnMut() -> f32) -> Self {
        let data = (0..span.batch * span.steps * volume.values()).map(|_| value()).collect();
        Self { span, volume, data }
    }

    /// From `value(place, channel)` with places in `[T][N][H][W]` order.
    fn from_places(span: Span, volume: Volume, value: impl Fn(usize, usize) -> f32) -> Self {
        let mut place_of = 0;
        let mut tensor = Self::new(span, volume, || 0.0);
        let pixels = volume.pixels();
        for image in tensor.data.chunks_exact_mut(volume.values()) {
            for (c, plane) in image.chunks_exact_mut(pixels).enumerate() {
                plane.iter_mut().enumerate().for_each(|(pixel, x)| *x = value(place_of + pixel, c));
            }
            place_of += pixels;
        }
        tensor
    }

    /// All values of a channel.
    pub fn channel(&self, c: usize) -> impl Iterator<Item = f32> {
        let pixels = self.volume.pixels();
        self.data.chunks_exact(pixels).skip(c).step_by(self.volume.c).flatten().copied()
    }

    /// The value at an image (`[T][N]` order), channel and pixel.
    pub fn at(&self, image: usize, c: usize, pixel: usize) -> f32 {
        self.data[(image * self.volume.c + c) * self.volume.pixels() + pixel]
    }

    pub fn at_mut(&mut self, image: usize, c: usize, pixel: usize) -> &mut f32 {
        &mut self.data[(image * self.volume.c + c) * self.volume.pixels() + pixel]
    }

    /// The sum of two tensors.
    pub fn plus(&self, other: &Self) -> Self {
        let data = self.data.iter().zip(&other.data).map(|(a, b)| a + b).collect();
        Self { data, ..self.clone() }
    }

    /// The tensor after storing.
    pub fn rounded(mut self, value: Value) -> Self {
        self.data.iter_mut().for_each(|x| *x = value.round(*x));
        self
    }

    /// Calls `f(place in [T][N][H][W] order, channel, value)`.
    fn each(&self, mut f: impl FnMut(usize, usize, f32)) {
        let pixels = self.volume.pixels();
        for (image, values) in self.data.chunks_exact(self.volume.values()).enumerate() {
            for (c, plane) in values.chunks_exact(pixels).enumerate() {
                plane.iter().enumerate().for_each(|(pixel, &x)| f(image * pixels + pixel, c, x));
            }
        }
    }

    /// `[T][N][H][W][C to 32]`.
    pub fn gpu_floats(&self) -> Vec<f32> {
        let pitch = padded(self.volume.c);
        let mut floats = vec![0.0; self.span.batch * self.span.steps * self.volume.pixels() * pitch];
        self.each(|place, c, x| floats[place * pitch + c] = x);
        floats
    }

    /// `[T][N][H][W][C/32]`.
    pub fn gpu_bits(&self) -> Vec<u32> {
        let words = words(self.volume.c);
        let mut bits = vec![0; self.span.batch * self.span.steps * self.volume.pixels() * words];
        self.each(|place, c, x| bits[place * words + c / 32] |= u32::from(x == 1.0) << (c % 32));
        bits
    }

    /// The index in the CPU backend's `[N][T][H][W]` order of an index in `[T][N][H][W]`.
    fn cpu_place(&self, place: usize) -> usize {
        let pixels = self.volume.pixels();
        let (image, pixel) = (place / pixels, place % pixels);
        let (t, n) = (image / self.span.batch, image % self.span.batch);
        (n * self.span.steps + t) * pixels + pixel
    }

    pub fn cpu_floats(&self) -> Vec<f32> {
        let pitch = layout::pitch(self.volume.c);
        let mut floats = vec![0.0; self.span.batch * self.span.steps * self.volume.pixels() * pitch];
        self.each(|place, c, x| floats[self.cpu_place(place) * pitch + c] = x);
        floats
    }

    pub fn cpu_bits(&self) -> Vec<u32> {
        let words = layout::words(self.volume.c);
        let mut bits = vec![0; self.span.batch * self.span.steps * self.volume.pixels() * words];
        self.each(|place, c, x| bits[self.cpu_place(place) * words + c / 32] |= u32::from(x == 1.0) << (c % 32));
        bits
    }

    pub fn from_cpu_floats(span: Span, volume: Volume, floats: &[f32]) -> Self {
        let like = Self { span, volume, data: Vec::new() };
        let pitch = layout::pitch(volume.c);
        Self::from_places(span, volume, |place, c| floats[like.cpu_place(place) * pitch + c])
    }

    pub fn from_cpu_bits(span: Span, volume: Volume, bits: &[u32]) -> Self {
        let like = Self { span, volume, data: Vec::new() };
        let words = layout::words(volume.c);
        Self::from_places(span, volume, |place, c| {
            (bits[like.cpu_place(place) * words + c / 32] >> (c % 32) & 1) as f32
        })
    }
}

/// Asserts that two tensors are equal bit by bit.
#[track_caller]
pub fn assert_same(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.data.len(), want.data.len(), "{what}");
    let differ = || got.data.iter().zip(&want.data).enumerate().filter(|(_, (g, w))| g.to_bits() != w.to_bits());
    if let Some((i, (g, w))) = differ().next() {
        panic!("{what}: {} of {} differ, first value {i}: {g}, not {w}", differ().count(), got.data.len());
    }
}

/// Asserts that values agree with the expected ones within `relative` or `absolute`.
#[track_caller]
pub fn assert_close(what: &str, got: &[f32], want: &[f32], relative: f32, absolute: f32) {
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= relative * w.abs() + absolute, "{what}: value {i} is {g}, not {w}");
    }
}

/// Every kind of neuron that the kernels treat differently.
pub fn neurons() -> Vec<Neuron> {
    let mut neurons = Vec::new();
    for reset in [ResetKind::Soft, ResetKind::Hard] {
        for detach_reset in [false, true] {
            let spec = NeuronSpec { reset, detach_reset, threshold: 0.75, v_reset: -0.25, ..NeuronSpec::default() };
            let model = if detach_reset { NeuronModel::If } else { NeuronModel::Lif };
            neurons.push(NeuronSpec { model, ..spec }.neuron().expect("a possible neuron"));
        }
    }
    neurons
}

pub fn constants(neuron: Neuron) -> NeuronConstants {
    neuron.into()
}

/// Every slope that has its own kernels.
pub fn slopes() -> impl Iterator<Item = SurrogateKind> {
    SurrogateKind::all().iter().copied().filter(|&kind| kind != SurrogateKind::Rectangle)
}

pub fn surrogate(kind: SurrogateKind) -> Surrogate {
    Surrogate::new(kind)
}

/// One pair of bounds, or one for each channel with padding.
pub fn bounds(channels: Option<usize>) -> Vec<Bounds> {
    let each = |c: usize| Bounds::new(0.5 + 0.03 * c as f64, 1.0 - 0.01 * c as f64, 0.4);
    (0..channels.map_or(1, padded)).map(|c| each(c % 48)).collect()
}

/// Bounds as the kernels read them.
pub fn windows(device: &Device, bounds: &[Bounds], threshold: f32) -> CudaBuffer {
    let windows: Vec<_> = bounds.iter().map(|b| adali::backend::gpu::params::window(b.window(threshold))).collect();
    device.put(&windows)
}
