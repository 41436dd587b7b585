//! Shared by the convolution tests: shapes, weights in every order, packing.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::cpu::Cpu;
use adali::backend::gpu::params::PackWeight;
use adali::backend::gpu::tile::{self, Card, GradientClass};
use adali::backend::gpu::{Buffer, Launch};
use adali::backend::shape::{Conv, Extent, InputKind, Volume, output_extent};
use adali::backend::{ConvForward, Storage, Weights};

/// A card with as little shared memory per block as any supported one (8.6, 8.9 and 12.0).
pub const SMALL: Card = Card { multiprocessors: 2, shared: 99 * 1024 };

type Shape = ([usize; 3], [usize; 2], [usize; 2], [usize; 2], usize);

/// `([h, w, c], kernel, stride, padding, filters)`: odd extents, strides that leave pixels untouched, kernels that
/// are not square, several tiles of channels; the last ones are linear.
const SHAPES: [Shape; 8] = [
    ([5, 7, 33], [3, 3], [1, 1], [1, 1], 33),
    ([9, 6, 64], [3, 3], [2, 2], [1, 1], 96),
    ([7, 5, 40], [5, 5], [1, 1], [2, 2], 64),
    ([4, 19, 3], [1, 1], [1, 1], [0, 0], 32),
    ([8, 6, 70], [3, 2], [1, 2], [0, 1], 20),
    ([7, 8, 32], [2, 1], [3, 2], [0, 0], 65),
    ([2, 3, 20], [2, 3], [1, 1], [0, 0], 40),
    ([1, 1, 130], [1, 1], [1, 1], [0, 0], 10),
];

/// All shapes, with the given kind of input.
pub fn shapes(reads: InputKind) -> Vec<Conv> {
    let extent = |[h, w]: [usize; 2]| Extent { h, w };
    let conv = |&([h, w, c], kernel, stride, padding, filters): &Shape| {
        let (kernel, stride, padding) = (extent(kernel), extent(stride), extent(padding));
        let output = Volume {
            h: output_extent(h, kernel.h, stride.h, padding.h).expect("it fits"),
            w: output_extent(w, kernel.w, stride.w, padding.w).expect("it fits"),
            c: filters,
        };
        Conv { reads, input: Volume { h, w, c }, kernel, stride, padding, output }
    };
    SHAPES.iter().map(conv).collect()
}

/// A convolution's weight, `[K, C, R, S]`.
#[derive(Clone)]
pub struct Weight {
    pub conv: Conv,
    pub values: Vec<f32>,
}

/// What a packed weight is for.
pub enum Packing<'a> {
    Spikes,
    Dense,
    Gradient(&'a GradientClass),
}

impl Weight {
    /// Multiples of 1/256 with few bits: any sum of them is exact in f32, in any order, so results can be compared bit by bit.
    pub fn exact(conv: Conv, rng: &mut Rng) -> Self {
        let values = (0..conv.output.c * conv.fan_in()).map(|_| (rng.below(63) as f32 - 31.0) / 256.0).collect();
        Self { conv, values }
    }

    /// Arbitrary values.
    pub fn normal(conv: Conv, rng: &mut Rng) -> Self {
        let scale = 2.0 / (conv.fan_in() as f64).sqrt();
        let values = (0..conv.output.c * conv.fan_in()).map(|_| (scale * rng.normal()) as f32).collect();
        Self { conv, values }
    }

    /// Rounds the values as storing does.
    pub fn rounded(mut self, value: Value) -> Self {
        self.values.iter_mut().for_each(|w| *w = value.round(*w));
        self
    }

    /// Both orders that the CPU backend needs.
    pub fn on_cpu(&self) -> [Vec<f32>; 2] {
        let value = Cpu.weight(&self.conv, &self.values).expect("a weight");
        let mut packed = Cpu.packed(&self.conv).expect("a packed weight");
        Cpu.pack_weight(&self.conv, &value, &mut packed, true).expect("it packs");
        [value, packed]
    }

    /// The device's master copy, `[K][R][S][C]`.
    pub fn on_device(&self, device: &Device) -> CudaBuffer {
        device.put(&in_device_order(&self.conv, &self.values))
    }

    /// Packed by the device for the tensor cores.
    pub fn packed(&self, device: &Device, value: Value, packing: Packing) -> CudaBuffer {
        let conv = &self.conv;
        let master = self.on_device(device);
        let [h, w] = [conv.kernel.h as u32, conv.kernel.w as u32];
        let span = adali::backend::shape::Span { batch: 1, steps: 1 };
        let forward = tile::forward(conv, span);
        let (shape, reads) = match &packing {
            Packing::Spikes => (&forward, 0),
            Packing::Dense => (&forward, 1),
            Packing::Gradient(class) => (&class.shape, 2),
        };
        let first = if let Packing::Gradient(class) = packing { class.first_tap } else { [0, 0] };
        let packed = device.empty(tile::packed_bytes(shape));
        let params = PackWeight {
            weight: master.address(),
            packed: packed.address(),
            filters: conv.output.c as u32,
            channels: conv.input.c as u32,
            all_taps_h: h,
            all_taps_w: w,
            taps_h: shape.taps_h,
            taps_w: shape.taps_w,
            first_h: first[0],
            first_w: first[1],
            step_h: conv.stride.h as u32,
            step_w: conv.stride.w as u32,
            reads,
            flattened: conv.is_linear().into(),
        };
        if !packed.is_empty() {
            let launch = Launch::over(packed.len() / 16, 256, 256);
            device.run(&format!("pack_weight_{}", value.name()), launch, &params);
        }
        packed
    }
}

/// `[K][R][S][C]` from `[K, C, R, S]`.
pub fn in_device_order(conv: &Conv, values: &[f32]) -> Vec<f32> {
    let (taps, channels) = (conv.kernel.h * conv.kernel.w, conv.input.c);
    let mut master = vec![0.0; values.len()];
    for (i, &w) in values.iter().enumerate() {
        let (k, c, tap) = (i / taps / channels, i / taps % channels, i % taps);
        master[(k * taps + tap) * channels + c] = w;
    }
    master
}

/// The CPU backend's weights from [`Weight::on_cpu`].
pub fn cpu_weights([value, packed]: &[Vec<f32>; 2]) -> Weights<'_, Cpu> {
    Weights { value, packed }
}

/// Spikes at a firing rate of about 0.3.
pub fn random_spikes(span: adali::backend::shape::Span, volume: Volume, rng: &mut Rng) -> Tensor {
    Tensor::new(span, volume, || (rng.uniform(0.0, 1.0) < 0.3) as u32 as f32)
}

/// Multiples of 1/8 below 2: exact in every type.
pub fn exact_values(span: adali::backend::shape::Span, volume: Volume, rng: &mut Rng) -> Tensor {
    Tensor::new(span, volume, || (rng.below(31) as f32 - 15.0) / 8.0)
}
