//! A model of a dynamic vision sensor's pixels: light in, events out.
//!
//! A pixel remembers the logarithm of the light at its last event. When the logarithm has risen or fallen by the
//! pixel's threshold, it fires ON or OFF and is held in reset for the refractory time; it then remembers the light
//! at the end of that time. Thresholds differ between pixels, and noise fires pixels at random (P. Lichtsteiner,
//! C. Posch and T. Delbruck, "A 128x128 120 dB 15 µs latency asynchronous temporal contrast vision sensor", 2008). Not
//! modelled: the photoreceptor's bandwidth and the bus on which events queue.

use super::{Event, SensorSize};
use crate::random::{CounterRng, stream};
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Properties of a sensor's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct PixelModel {
    /// The mean threshold: a change in the natural logarithm of light.
    pub contrast: f64,
    /// Standard deviation of the thresholds over pixels, as a share of `contrast`.
    pub mismatch: f64,
    /// Microseconds after an event during which a pixel is blind.
    pub refractory: u64,
    /// Background activity: events per pixel and second, ON and OFF equally often.
    pub noise: f64,
    /// Light of a black pixel; a white one has 1 more.
    pub dark: f64,
}

impl Default for PixelModel {
    /// Mismatch as measured by Lichtsteiner et al.; the rest \[ours\].
    fn default() -> Self {
        Self { contrast: 0.4, mismatch: 0.021, refractory: 100, noise: 1.0, dark: 0.1 }
    }
}

/// The smallest threshold as a share of the mean, however large the mismatch.
const LEAST_THRESHOLD: f64 = 0.1;

impl PixelModel {
    /// Checks the ranges.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) that names the value and its limits.
    pub fn validate(&self) -> Result<()> {
        for (name, value, least, most) in [
            ("contrast", self.contrast, 0.01, 10.0),
            ("mismatch", self.mismatch, 0.0, 0.5),
            ("refractory", self.refractory as f64, 0.0, 1e6),
            ("noise", self.noise, 0.0, 1e4),
            ("dark", self.dark, 1e-6, 1e3),
        ] {
            if !(least..=most).contains(&value) {
                crate::bail_input!("{name} {value} must be between {least} and {most}");
            }
        }
        Ok(())
    }
}

/// A sensor: the thresholds of its pixels, the same in every recording.
#[derive(Clone, Debug)]
pub struct Sensor {
    /// Columns and rows.
    pub size: SensorSize,
    model: PixelModel,
    /// OFF and ON, `[height][width]`.
    thresholds: Vec<[f64; 2]>,
}

impl Sensor {
    /// The sensor for a seed.
    pub fn new(model: PixelModel, size: SensorSize, seed: u64) -> Self {
        let rng = CounterRng::new(seed, stream::THRESHOLDS);
        let threshold = |z: f64| model.contrast * (1.0 + model.mismatch * z).max(LEAST_THRESHOLD);
        let pixels = u64::from(size.width) * u64::from(size.height);
        let thresholds = (0..pixels).map(|pixel| rng.fork(pixel).normal_pair().map(threshold)).collect();
        Self { size, model, thresholds }
    }

    /// The sensor's events for a scene, ordered by time, then row, then column.
    ///
    /// `light(y, x, i)` is the light on a pixel at `i * step` microseconds, 0 for black and 1 for white, for `i` from 0
    /// to `steps`; its logarithm is interpolated linearly. `rng` draws the noise.
    pub fn record(
        &self,
        step: u64,
        steps: usize,
        light: impl Fn(u16, u16, usize) -> f64,
        rng: &CounterRng,
    ) -> Vec<Event> {
        let SensorSize { width, height } = self.size;
        let mut events = Vec::new();
        for (index, &thresholds) in self.thresholds.iter().enumerate() {
            let (y, x) = ((index / width as usize) as u16, (index % width as usize) as u16);
            debug_assert!(u32::from(y) < height);
            let (mut before, mut log) = (light(y, x, 0), (light(y, x, 0) + self.model.dark).ln());
            let mut pixel = Pixel::new(&self.model, thresholds, log, rng.fork(index as u64));
            for i in 1..=steps {
                let now = light(y, x, i);
                // Most pixels see no change most of the time.
                let next = if now == before { log } else { (now + self.model.dark).ln() };
                let [start, end] = [i - 1, i].map(|i| i as f64 * step as f64);
                pixel.follow((start, log), (end, next), |time, on| events.push(Event { time, x, y, on }));
                (before, log) = (now, next);
            }
        }
        // A pixel has at most one event per microsecond, so this order is unique.
        events.sort_unstable_by_key(|event| (event.time, event.y, event.x));
        events
    }
}

/// One pixel during a recording. Times are in microseconds.
struct Pixel<'a> {
    model: &'a PixelModel,
    /// OFF and ON.
    thresholds: [f64; 2],
    /// Logarithm of the light against which changes are measured.
    reference: f64,
    /// The end of the reset, if the pixel is in one.
    held: Option<f64>,
    /// When noise fires it next.
    noise: f64,
    rng: CounterRng,
}

impl<'a> Pixel<'a> {
    fn new(model: &'a PixelModel, thresholds: [f64; 2], reference: f64, rng: CounterRng) -> Self {
        let mut pixel = Self { model, thresholds, reference, held: None, noise: 0.0, rng };
        pixel.draw_noise();
        pixel
    }

    /// The next time of a Poisson process.
    fn draw_noise(&mut self) {
        let silent = self.model.noise == 0.0;
        self.noise += if silent { f64::INFINITY } else { -(1.0 - self.rng.uniform()).ln() * 1e6 / self.model.noise };
    }

    /// Follows the light linearly from one time and logarithm to another.
    fn follow(&mut self, (start, from): (f64, f64), (end, to): (f64, f64), mut fire: impl FnMut(u64, bool)) {
        let slope = (to - from) / (end - start);
        let mut now = start;
        loop {
            if let Some(until) = self.held {
                if until >= end {
                    return;
                }
                now = now.max(until);
                self.reference = from + slope * (now - start);
                self.held = None;
            }
            while self.noise < now {
                self.draw_noise();
            }
            let on = slope > 0.0;
            let target = if on { self.reference + self.thresholds[1] } else { self.reference - self.thresholds[0] };
            let crossing = if slope == 0.0 { f64::INFINITY } else { now.max(start + (target - from) / slope) };
            if crossing.min(self.noise) >= end {
                return;
            }
            let (time, on) = if crossing <= self.noise {
                (crossing, on)
            } else {
                let time = self.noise;
                self.draw_noise();
                (time, self.rng.next_u64() >> 63 == 1)
            };
            // A timestamp is whole and not before the event, so that the refractory time holds between timestamps.
            let stamp = time.ceil();
            fire(stamp as u64, on);
            self.held = Some(stamp + self.model.refractory as f64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: PixelModel = PixelModel { contrast: 0.3, mismatch: 0.0, refractory: 0, noise: 0.0, dark: 0.1 };
    const SIZE: SensorSize = SensorSize { width: 20, height: 10 };

    fn sensor(model: PixelModel) -> Sensor {
        Sensor::new(model, SIZE, 3)
    }

    fn rng() -> CounterRng {
        CounterRng::new(1, 99)
    }

    /// Events of a bright bar, four columns wide, that crosses the sensor in 200 ms.
    fn bar(model: PixelModel) -> Vec<Event> {
        let light = |_, x, i: usize| {
            let left = i as f64 / 200.0 * 26.0 - 5.0;
            (2.5 - (f64::from(x) - left - 1.5).abs()).clamp(0.0, 1.0)
        };
        sensor(model).record(1000, 200, light, &rng())
    }

    #[test]
    fn a_still_image_gives_only_noise() {
        let still = |y: u16, x: u16, _| f64::from(x * y % 7) / 7.0;
        assert_eq!(sensor(QUIET).record(1000, 300, still, &rng()), []);
        let (noise, seconds) = (20.0, 10);
        let noisy = sensor(PixelModel { noise, ..QUIET });
        let events = noisy.record(1000, 1000 * seconds, still, &rng());
        // Poisson: the variance of the count is its mean; the same holds for half of it.
        let want = noise * seconds as f64 * 200.0;
        let on = events.iter().filter(|event| event.on).count() as f64;
        assert!((events.len() as f64 - want).abs() < 4.0 * want.sqrt(), "{} of {want}", events.len());
        assert!((on - want / 2.0).abs() < 4.0 * (want / 2.0).sqrt(), "{on} of {want} are ON");
        // The times of a Poisson process are uniform: half of them in each half.
        let early = events.iter().filter(|event| event.time < 5_000_000).count() as f64;
        assert!((early - want / 2.0).abs() < 4.0 * (want / 2.0).sqrt(), "{early}");
    }

    #[test]
    fn a_bright_bar_gives_on_then_off() {
        let events = bar(QUIET);
        let mut pixels = 0;
        for y in 0..SIZE.height as u16 {
            for x in 0..SIZE.width as u16 {
                let own: Vec<bool> = events.iter().filter(|e| (e.x, e.y) == (x, y)).map(|e| e.on).collect();
                // ln(1.1 / 0.1) is 2.4: seven thresholds of 0.3 up, and as many down or, for the parts of a
                // microsecond that are lost at each event, one fewer.
                let off = own.len() - 7;
                assert!(
                    own[..7] == [true; 7] && own[7..] == vec![false; off] && (6..=7).contains(&off),
                    "{x},{y}: {own:?}"
                );
                pixels += 1;
            }
        }
        assert_eq!(pixels, 200);
    }

    #[test]
    fn events_come_when_the_logarithm_crosses_the_threshold() {
        // The light rises so that its logarithm is linear in time from ln 0.1 on: 0.003 a millisecond.
        let light = |_, _, i: usize| 0.1 * (0.003 * i as f64).exp() - 0.1;
        let size = SensorSize { width: 1, height: 1 };
        let times = |refractory| {
            let sensor = Sensor::new(PixelModel { refractory, ..QUIET }, size, 0);
            sensor.record(1000, 1000, light, &rng()).iter().map(|event| event.time).collect::<Vec<_>>()
        };
        let near = |times: Vec<u64>, want: &[u64]| {
            assert_eq!(times.len(), want.len(), "{times:?}");
            assert!(times.iter().zip(want).all(|(time, want)| time.abs_diff(*want) <= 9), "{times:?}");
        };
        near(times(0), &[100_000, 200_000, 300_000, 400_000, 500_000, 600_000, 700_000, 800_000, 900_000]);
        // Held in reset for 50 ms after each event, the pixel starts again from the light at the end of that time.
        near(times(50_000), &[100_000, 250_000, 400_000, 550_000, 700_000, 850_000]);
    }

    #[test]
    fn a_higher_threshold_gives_fewer_events() {
        let counts = [0.1, 0.2, 0.4, 0.8, 1.6, 3.2].map(|contrast| bar(PixelModel { contrast, ..QUIET }).len());
        assert!(counts.is_sorted_by(|a, b| a > b) && counts[5] == 0, "{counts:?}");
    }

    #[test]
    fn the_refractory_time_is_kept_and_the_order_is_that_of_time() {
        let mut compared = 0;
        for refractory in [0, 1, 700, 5000] {
            let events = bar(PixelModel { refractory, noise: 500.0, mismatch: 0.2, ..QUIET });
            assert!(events.is_sorted_by_key(|event| (event.time, event.y, event.x)));
            assert!(events.iter().all(|e| SIZE.has(e) && e.time <= 200_000));
            let mut last = [None; 200];
            for event in &events {
                let last = &mut last[usize::from(event.y) * 20 + usize::from(event.x)];
                if let Some(last) = last.replace(event.time) {
                    assert!(event.time >= last + refractory.max(1), "{last} then {}", event.time);
                    compared += 1;
                }
            }
        }
        assert!(compared > 10_000, "{compared}");
    }

    #[test]
    fn thresholds_differ_between_pixels_by_the_mismatch_and_stay() {
        let model = PixelModel { mismatch: 0.1, ..QUIET };
        let size = SensorSize { width: 100, height: 100 };
        let all: Vec<f64> = Sensor::new(model, size, 5).thresholds.concat();
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        let deviation = (all.iter().map(|t| (t - mean).powi(2)).sum::<f64>() / all.len() as f64).sqrt();
        assert!((mean - 0.3).abs() < 0.001 && (deviation - 0.03).abs() < 0.001, "{mean} {deviation}");
        assert_eq!(all, Sensor::new(model, size, 5).thresholds.concat());
        assert_ne!(all, Sensor::new(model, size, 6).thresholds.concat());
    }
}
