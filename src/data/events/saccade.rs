//! An image that moves in front of a sensor as in N-MNIST: three saccades along a triangle.
//!
//! Orchard et al. moved the sensor in front of a screen, down to the right, up to the right and back, in 100 ms each (G.
//! Orchard, A. Jayawant, G. Cohen and N. Thakor, "Converting static image datasets to spiking neuromorphic datasets
//! using saccades", Front. Neurosci. 2015). Here the image moves, each time along half a cosine from rest to rest \[ours\].

/// Saccades per recording.
pub const SACCADES: usize = 3;
/// Microseconds per saccade.
pub const SACCADE: u64 = 100_000;
/// Microseconds between two samples of the light.
pub const STEP: u64 = 1000;
/// Samples after the first.
pub const STEPS: usize = SACCADES * (SACCADE / STEP) as usize;
/// The share of the sensor's side over which an image moves: 34 pixels less the 28 of the image.
pub const TRAVEL: f64 = 6.0 / 34.0;

/// The corners of the path, in units of the travel: columns, rows.
const CORNERS: [(f64, f64); SACCADES + 1] = [(0.0, 0.0), (0.5, 1.0), (1.0, 0.0), (0.0, 0.0)];

/// A greyscale image in front of a square sensor.
pub struct Scene<'a> {
    pixels: &'a [f32],
    height: usize,
    width: usize,
    /// Image pixels per sensor pixel.
    scale: f64,
    /// The image's position at each time sample, in sensor pixels.
    path: Vec<(f64, f64)>,
}

impl<'a> Scene<'a> {
    /// `[height][width]` values from 0 (black) to 1, in front of a sensor of `side` pixels a side; the image's longer
    /// side fills the sensor except for the travel.
    pub fn new(pixels: &'a [f32], height: usize, width: usize, side: u16) -> Self {
        debug_assert_eq!(pixels.len(), height * width);
        let side = f64::from(side);
        let travel = TRAVEL * side;
        let path = (0..=STEPS).map(place).map(|(x, y)| (travel * x, travel * y)).collect();
        Self { pixels, height, width, scale: height.max(width) as f64 / (side - travel), path }
    }

    /// The light on a sensor pixel at time sample `i`, interpolated between image pixels; black outside the image.
    pub fn light(&self, y: u16, x: u16, i: usize) -> f64 {
        let (dx, dy) = self.path[i];
        let u = (f64::from(x) + 0.5 - dx) * self.scale - 0.5;
        let v = (f64::from(y) + 0.5 - dy) * self.scale - 0.5;
        let (left, top) = (u.floor(), v.floor());
        let (right_share, low_share) = (u - left, v - top);
        let (left, top) = (left as isize, top as isize);
        let row = |y| (1.0 - right_share) * self.pixel(y, left) + right_share * self.pixel(y, left + 1);
        (1.0 - low_share) * row(top) + low_share * row(top + 1)
    }

    fn pixel(&self, y: isize, x: isize) -> f64 {
        let inside = |at: isize, extent: usize| usize::try_from(at).ok().filter(|&at| at < extent);
        match (inside(y, self.height), inside(x, self.width)) {
            (Some(y), Some(x)) => self.pixels[y * self.width + x].into(),
            _ => 0.0,
        }
    }
}

/// The position at time sample `i`, in units of the travel.
fn place(i: usize) -> (f64, f64) {
    let looks = (SACCADE / STEP) as usize;
    let saccade = (i / looks).min(SACCADES - 1);
    let share = (i - saccade * looks) as f64 / looks as f64;
    let moved = 0.5 - 0.5 * (std::f64::consts::PI * share).cos();
    let (from, to) = (CORNERS[saccade], CORNERS[saccade + 1]);
    (from.0 + moved * (to.0 - from.0), from.1 + moved * (to.1 - from.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_a_closed_triangle_without_jumps() {
        let near = |i, (x, y): (f64, f64)| {
            let (a, b) = place(i);
            assert!((a - x).abs() < 1e-12 && (b - y).abs() < 1e-12, "{i}: {a} {b}");
        };
        near(0, (0.0, 0.0));
        near(50, (0.25, 0.5));
        near(100, (0.5, 1.0));
        near(200, (1.0, 0.0));
        near(250, (0.5, 0.0));
        near(300, (0.0, 0.0));
        for i in 0..STEPS {
            let (a, b) = (place(i), place(i + 1));
            assert!((a.0 - b.0).hypot(a.1 - b.1) < 0.02, "{i}");
        }
    }

    #[test]
    fn an_image_of_28_is_seen_as_it_is_on_34_and_stays_in_sight() {
        let pixels: Vec<f32> = (0..784).map(|i| (i * 37 % 101) as f32 / 100.0).collect();
        let scene = Scene::new(&pixels, 28, 28, 34);
        let total: f64 = pixels.iter().map(|&p| f64::from(p)).sum();
        for i in 0..=STEPS {
            let seen: f64 = (0..34 * 34).map(|at| scene.light(at / 34, at % 34, i)).sum();
            assert!((seen - total).abs() < 1e-6 * total, "look {i}: {seen} of {total}");
        }
        let mut compared = 0;
        for (i, dx, dy) in [(0, 0, 0), (100, 3, 6), (200, 6, 0)] {
            for (at, &pixel) in pixels.iter().enumerate() {
                let light = scene.light((at / 28 + dy) as u16, (at % 28 + dx) as u16, i);
                assert!((light - f64::from(pixel)).abs() < 1e-9);
                compared += 1;
            }
        }
        assert_eq!(compared, 3 * 784);
    }

    #[test]
    fn a_small_image_is_enlarged_between_its_pixels() {
        // Two columns, black and white, on 34 pixels: 14 pixels to one.
        let scene = Scene::new(&[0.0, 1.0], 1, 2, 34);
        let row: Vec<f64> = (0..28).map(|x| scene.light(7, x, 0)).collect();
        assert!(row[..7].iter().all(|&light| light == 0.0) && row[20] > 0.9, "{row:?}");
        assert!(row[..21].is_sorted() && (row[13] + row[14] - row[7] - row[20]).abs() < 1e-9, "{row:?}");
    }
}
