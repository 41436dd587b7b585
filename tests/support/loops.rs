//! Convolutions and pools whose two axes differ, which the oracle does not cover: naive loops in f64.

use adali::backend::shape::{Conv, Extent, InputKind, Pool, PoolKind, Span, Volume, output_extent};

/// A window that slides over a volume.
#[derive(Clone, Copy, Debug)]
pub struct Sliding {
    pub input: Volume,
    pub kernel: Extent,
    pub stride: Extent,
    pub padding: Extent,
}

impl Sliding {
    /// Output extents, if the window fits.
    pub fn output(&self, c: usize) -> Option<Volume> {
        let Self { input, kernel, stride, padding } = *self;
        let h = output_extent(input.h, kernel.h, stride.h, padding.h)?;
        let w = output_extent(input.w, kernel.w, stride.w, padding.w)?;
        Some(Volume { h, w, c })
    }

    pub fn conv(&self, reads: InputKind, filters: usize) -> Option<Conv> {
        let Self { input, kernel, stride, padding } = *self;
        Some(Conv { reads, input, kernel, stride, padding, output: self.output(filters)? })
    }

    pub fn pool(&self, kind: PoolKind) -> Option<Pool> {
        let Self { input, kernel, stride, padding } = *self;
        Some(Pool { kind, input, kernel, stride, padding, output: self.output(input.c)? })
    }

    /// `(output pixel, input pixel, tap)` for every tap inside the image, window by window, row by row.
    pub fn taps(&self) -> Vec<(usize, usize, usize)> {
        let output = self.output(1).expect("it fits");
        let mut taps = Vec::new();
        for (p, q) in (0..output.h).flat_map(|p| (0..output.w).map(move |q| (p, q))) {
            for (r, s) in (0..self.kernel.h).flat_map(|r| (0..self.kernel.w).map(move |s| (r, s))) {
                let y = (p * self.stride.h + r) as isize - self.padding.h as isize;
                let x = (q * self.stride.w + s) as isize - self.padding.w as isize;
                if (0..self.input.h as isize).contains(&y) && (0..self.input.w as isize).contains(&x) {
                    let pixel = y as usize * self.input.w + x as usize;
                    taps.push((p * output.w + q, pixel, r * self.kernel.w + s));
                }
            }
        }
        taps
    }
}

/// A convolution's output, and the gradients of weight and input, for `[images][C][pixels]` and `[K][C][taps]`.
pub fn convolve(
    sliding: &Sliding,
    filters: usize,
    images: usize,
    [x, weight, bias, gradient]: [&[f64]; 4],
) -> [Vec<f64>; 3] {
    let (channels, pixels) = (sliding.input.c, sliding.input.pixels());
    let taps_per_filter = sliding.kernel.h * sliding.kernel.w;
    let outputs = sliding.output(1).expect("it fits").pixels();
    let mut y: Vec<f64> = (0..images * filters * outputs).map(|i| bias[i / outputs % filters]).collect();
    let (mut of_weight, mut of_x) = (vec![0.0; weight.len()], vec![0.0; x.len()]);
    for &(o, i, tap) in &sliding.taps() {
        for image in 0..images {
            for k in 0..filters {
                for c in 0..channels {
                    let to = (image * filters + k) * outputs + o;
                    let from = (image * channels + c) * pixels + i;
                    let by = (k * channels + c) * taps_per_filter + tap;
                    y[to] += x[from] * weight[by];
                    of_weight[by] += gradient[to] * x[from];
                    of_x[from] += gradient[to] * weight[by];
                }
            }
        }
    }
    [y, of_weight, of_x]
}

/// A pool's output over `[images][C][pixels]`, and the gradient of its input.
pub fn pool(pool: &Pool, images: usize, x: &[f64], gradient: &[f64]) -> [Vec<f64>; 2] {
    let Pool { input, kernel, stride, padding, .. } = *pool;
    let taps = Sliding { input, kernel, stride, padding }.taps();
    let (pixels, outputs) = (input.pixels(), pool.output.pixels());
    let (mut y, mut of_x) = (vec![0.0; images * input.c * outputs], vec![0.0; x.len()]);
    for plane in 0..images * input.c {
        for o in 0..outputs {
            let members = taps.iter().filter(|tap| tap.0 == o).map(|tap| plane * pixels + tap.1);
            let (members, above) = (members.collect::<Vec<usize>>(), gradient[plane * outputs + o]);
            if pool.kind == PoolKind::Max {
                let winner = members.iter().copied().find(|&i| x[i] == 1.0).unwrap_or(members[0]);
                y[plane * outputs + o] = x[winner];
                of_x[winner] += above;
            } else {
                let share = 1.0 / (kernel.h * kernel.w) as f64;
                y[plane * outputs + o] = members.iter().map(|&i| x[i] * share).sum();
                members.iter().for_each(|&i| of_x[i] += above * share);
            }
        }
    }
    [y, of_x]
}

/// `[N][T][H][W][pitch]` from `[T, N, C, H, W]`: the CPU backend's order.
pub fn to_floats(span: Span, volume: Volume, pitch: usize, values: &[f64]) -> Vec<f32> {
    let mut floats = vec![0.0; span.batch * span.steps * volume.pixels() * pitch];
    each_place(span, volume, |file, pixel, c| floats[pixel * pitch + c] = values[file] as f32);
    floats
}

/// `[N][T][H][W][C/32]` from `[T, N, C, H, W]` of 0 and 1: the CPU backend's order.
pub fn to_bits(span: Span, volume: Volume, values: &[f64]) -> Vec<u32> {
    let words = volume.c.div_ceil(32);
    let mut bits = vec![0; span.batch * span.steps * volume.pixels() * words];
    each_place(span, volume, |file, pixel, c| {
        bits[pixel * words + c / 32] |= u32::from(values[file] == 1.0) << (c % 32)
    });
    bits
}

fn each_place(span: Span, volume: Volume, mut f: impl FnMut(usize, usize, usize)) {
    let mut file = 0;
    for (t, n) in (0..span.steps).flat_map(|t| (0..span.batch).map(move |n| (t, n))) {
        for (c, pixel) in (0..volume.c).flat_map(|c| (0..volume.pixels()).map(move |pixel| (c, pixel))) {
            f(file, (n * span.steps + t) * volume.pixels() + pixel, c);
            file += 1;
        }
    }
}
