//! Operations on images of bytes `[height][width][channels]`, each with the result of Pillow's, to the byte: a policy that was
//! found with Pillow trains here as it does there. `tests/parity/augmentations.py` writes what `tests/augmentations.rs` compares.

/// An image; a borrowed shape and its own bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    pub height: usize,
    pub width: usize,
    /// 1, grey, or 3, red, green, blue.
    pub channels: usize,
    /// `[height][width][channels]`.
    pub bytes: Vec<u8>,
}

/// Bits behind the binary point of Pillow's coordinates.
const COORDINATE_BITS: u32 = 16;
/// Bits behind the binary point of Pillow's weights when it resizes.
const WEIGHT_BITS: u32 = 32 - 8 - 2;

impl Image {
    fn lines(&self) -> std::slice::ChunksExact<'_, u8> {
        self.bytes.chunks_exact(self.width * self.channels)
    }

    fn pixel(&self, y: usize, x: usize) -> &[u8] {
        &self.bytes[(y * self.width + x) * self.channels..][..self.channels]
    }

    /// Replaces the bytes of each channel by its table.
    fn look_up(&mut self, table: impl Fn(&[u32; 256]) -> [u8; 256]) {
        for channel in 0..self.channels {
            let mut histogram = [0; 256];
            self.bytes.iter().skip(channel).step_by(self.channels).for_each(|&byte| histogram[usize::from(byte)] += 1);
            let table = table(&histogram);
            let bytes = self.bytes.iter_mut().skip(channel).step_by(self.channels);
            bytes.for_each(|byte| *byte = table[usize::from(*byte)]);
        }
    }

    /// Each pixel's brightness in ITU-R 601 weights, as `convert("L")`.
    fn grey(&self) -> Vec<u8> {
        let grey = |pixel: &[u8]| match *pixel {
            [red, green, blue] => {
                let [red, green, blue] = [red, green, blue].map(u32::from);
                ((red * 19_595 + green * 38_470 + blue * 7_471 + 0x8000) >> 16) as u8
            }
            _ => pixel[0],
        };
        self.bytes.chunks_exact(self.channels).map(grey).collect()
    }

    /// `other + factor (self - other)`, rounded down and limited to bytes, as `Image.blend`.
    fn blend(&mut self, other: impl Iterator<Item = u8>, factor: f32) {
        for (byte, other) in self.bytes.iter_mut().zip(other) {
            let difference = f32::from(i16::from(*byte) - i16::from(other));
            *byte = (f32::from(other) + factor * difference) as u8; // limits
        }
    }

    /// `ImageEnhance.Brightness`.
    pub fn brightness(&mut self, factor: f32) {
        self.blend(std::iter::repeat(0), factor);
    }

    /// `ImageEnhance.Color`.
    pub fn color(&mut self, factor: f32) {
        let (grey, channels) = (self.grey(), self.channels);
        self.blend(grey.into_iter().flat_map(|grey| std::iter::repeat_n(grey, channels)), factor);
    }

    /// `ImageEnhance.Contrast`.
    pub fn contrast(&mut self, factor: f32) {
        let grey = self.grey();
        let mean = grey.iter().map(|&grey| u64::from(grey)).sum::<u64>() as f64 / grey.len() as f64;
        self.blend(std::iter::repeat((mean + 0.5) as u8), factor);
    }

    /// `ImageEnhance.Sharpness`: against the mean of 3x3 pixels in which the middle one counts five times. Pixels at the edge
    /// stay.
    pub fn sharpness(&mut self, factor: f32) {
        let mut smooth = self.bytes.clone();
        let line = self.width * self.channels;
        for y in 1..self.height.saturating_sub(1) {
            for i in self.channels..line.saturating_sub(self.channels) {
                let at = y * line + i;
                let around = [at - line, at, at + line].map(|at| {
                    let [left, middle, right] =
                        [at - self.channels, at, at + self.channels].map(|at| u32::from(self.bytes[at]));
                    left + middle + right
                });
                let sum = around.iter().sum::<u32>() + 4 * u32::from(self.bytes[at]);
                smooth[at] = ((2 * sum + 13) / 26) as u8; // 13 is odd, so no tie
            }
        }
        self.blend(smooth.into_iter(), factor);
    }

    /// `ImageOps.posterize`; `bits` from 1 to 8 are kept.
    pub fn posterize(&mut self, bits: u32) {
        let mask = !0 << (8 - bits);
        self.bytes.iter_mut().for_each(|byte| *byte &= mask);
    }

    /// `ImageOps.solarize`: bytes from the threshold on are inverted.
    pub fn solarize(&mut self, threshold: f32) {
        self.bytes.iter_mut().filter(|byte| f32::from(**byte) >= threshold).for_each(|byte| *byte = 255 - *byte);
    }

    /// `ImageOps.invert`.
    pub fn invert(&mut self) {
        self.bytes.iter_mut().for_each(|byte| *byte = 255 - *byte);
    }

    /// `ImageOps.autocontrast`.
    pub fn auto_contrast(&mut self) {
        self.look_up(|histogram| {
            let used = || histogram.iter().enumerate().filter(|(_, count)| **count > 0).map(|(byte, _)| byte as f64);
            let (low, high) = (used().next().unwrap_or(0.0), used().next_back().unwrap_or(0.0));
            let scale = if high > low { 255.0 / (high - low) } else { 1.0 };
            let offset = if high > low { -low * scale } else { 0.0 };
            std::array::from_fn(|byte| (byte as f64 * scale + offset) as u8) // limits
        });
    }

    /// `ImageOps.equalize`.
    pub fn equalize(&mut self) {
        self.look_up(|histogram| {
            let last = histogram.iter().rev().find(|count| **count > 0).copied().unwrap_or(0);
            let step = (histogram.iter().sum::<u32>() - last) / 255;
            let mut below = step / 2;
            std::array::from_fn(|byte| {
                let Some(new) = below.checked_div(step) else { return byte as u8 };
                below += histogram[byte];
                new.min(255) as u8
            })
        });
    }

    /// `Image.transform` by the nearest pixel: the pixel at row `y` and column `x` is read at column `a x + b y + c` and row
    /// `d x + e y + f`; what lies outside is 0. Pixels are squares around `x + 1/2`, `y + 1/2`.
    pub fn affine(&mut self, [a, b, c, d, e, f]: [f64; 6]) {
        let fixed = |value: f64| (value * f64::from(1 << COORDINATE_BITS) + 0.5).floor() as i64;
        let (start_x, start_y) = (fixed(c + a * 0.5 + b * 0.5), fixed(f + d * 0.5 + e * 0.5));
        let [a, b, d, e] = [a, b, d, e].map(fixed);
        let mut out = Vec::with_capacity(self.bytes.len());
        for y in 0..self.height as i64 {
            for x in 0..self.width as i64 {
                let column = (start_x + a * x + b * y) >> COORDINATE_BITS;
                let row = (start_y + d * x + e * y) >> COORDINATE_BITS;
                match (usize::try_from(row), usize::try_from(column)) {
                    (Ok(row), Ok(column)) if row < self.height && column < self.width => {
                        out.extend_from_slice(self.pixel(row, column));
                    }
                    _ => out.resize(out.len() + self.channels, 0),
                }
            }
        }
        self.bytes = out;
    }

    /// `Image.rotate` about the centre, counter-clockwise.
    pub fn rotate(&mut self, degrees: f64) {
        let angle = -degrees.rem_euclid(360.0).to_radians();
        let (sin, cos) = (angle.sin(), angle.cos());
        let (x, y) = (self.width as f64 / 2.0, self.height as f64 / 2.0);
        self.affine([cos, sin, x - cos * x - sin * y, -sin, cos, y + sin * x - cos * y]);
    }

    /// The part of `height` rows and `width` columns from a row and column on. Panics if it is not inside.
    pub fn crop(&self, top: usize, left: usize, height: usize, width: usize) -> Self {
        assert!(top + height <= self.height && left + width <= self.width, "a part of the image");
        let columns = left * self.channels..(left + width) * self.channels;
        let lines = self.lines().skip(top).take(height);
        Self {
            height,
            width,
            channels: self.channels,
            bytes: lines.flat_map(|line| &line[columns.clone()]).copied().collect(),
        }
    }

    /// `Image.resize` with `BILINEAR`: a triangle that covers at least two pixels, and as many as fall on one when it
    /// shrinks. Columns first, as all versions of Pillow up to 11 do.
    pub fn resize(self, height: usize, width: usize) -> Self {
        let wide = if width == self.width { self } else { self.resize_lines(width) };
        if height == wide.height { wide } else { wide.turned().resize_lines(height).turned() }
    }

    /// Rows become columns.
    fn turned(&self) -> Self {
        let pixels = (0..self.width).flat_map(|x| (0..self.height).map(move |y| (y, x)));
        let bytes = pixels.flat_map(|(y, x)| self.pixel(y, x)).copied().collect();
        Self { height: self.width, width: self.height, channels: self.channels, bytes }
    }

    fn resize_lines(&self, width: usize) -> Self {
        let weights = weights(self.width, width);
        let mut bytes = Vec::with_capacity(self.height * width * self.channels);
        for line in self.lines() {
            for (first, weights) in &weights {
                for channel in 0..self.channels {
                    let values = line[first * self.channels + channel..].iter().step_by(self.channels);
                    let sum: i64 = values.zip(weights).map(|(&byte, &weight)| i64::from(byte) * weight).sum();
                    bytes.push(((sum + (1 << (WEIGHT_BITS - 1))) >> WEIGHT_BITS).clamp(0, 255) as u8);
                }
            }
        }
        Self { height: self.height, width, channels: self.channels, bytes }
    }
}

/// For each of `to` pixels, the first of `from` that it is made of, and their weights.
fn weights(from: usize, to: usize) -> Vec<(usize, Vec<i64>)> {
    let scale = from as f64 / to as f64;
    let reach = scale.max(1.0);
    let of = |pixel: usize| {
        let center = (pixel as f64 + 0.5) * scale;
        let first = ((center - reach + 0.5).max(0.0)) as usize;
        let end = ((center + reach + 0.5) as usize).min(from);
        let triangle = |x: usize| (1.0 - ((x as f64 - center + 0.5) * (1.0 / reach)).abs()).max(0.0);
        let sum: f64 = (first..end).map(triangle).sum();
        let fixed = |x| (triangle(x) / sum * f64::from(1 << WEIGHT_BITS) + 0.5) as i64;
        (first, (first..end).map(fixed).collect())
    };
    (0..to).map(of).collect()
}
