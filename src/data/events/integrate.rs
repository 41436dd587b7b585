//! Events to frames: the number of events of each polarity at each pixel, in each of T pieces of a recording.
//!
//! By count, as in SpikingJelly (`split_by="number"`) and the AdaLi authors' code: of N events in the file's order, frame
//! `i` takes those from `i d` to `(i + 1) d` with `d = N / T` rounded down, and the last frame takes the rest. By time:
//! frame `i` takes those whose time, counted from the earliest event, is in `[i d, (i + 1) d)`, where `d` is the time between
//! the earliest and the latest event over T, rounded down to a microsecond (at least one); the last frame takes the rest.
//! SpikingJelly uses the first and the last event in the file instead, which is the same if times rise.
//! Channel 0 counts OFF events, channel 1 ON events; counts saturate at 255.

use super::counts::{EventCounts, MAX_CELLS};
use super::options::Sensor;
use super::{Event, SensorSize};
use crate::data::SampleShape;
use anyhow::Result;
use serde::{Deserialize, Serialize};

/// Most frames per recording.
pub const MAX_FRAMES: usize = 4096;

/// What the frames of a recording have in common.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum FramesBy {
    /// Equal numbers of events.
    #[default]
    Count,
    /// Equal time.
    Time,
}

/// How recordings without an official test part are divided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "kebab-case")]
pub enum Split {
    /// The first nine of ten of each class train, in the order of their names, as in SpikingJelly.
    #[default]
    Name,
    /// Those with numbers below 900 at the end of their names train, as in the AdaLi authors' code.
    Number,
}

impl Split {
    fn is_usual(&self) -> bool {
        *self == Self::default()
    }
}

/// How a recording becomes frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Integration {
    /// Frames T of a sample, one for each of the network's steps.
    pub frames: usize,
    /// What they have in common.
    pub frames_by: FramesBy,
    /// Squares of this many pixels a side are summed into one; smaller squares at the right and lower edges.
    pub downsample: usize,
    /// The chip of AEDAT 2.0 recordings that do not name it; the data set's own if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sensor: Option<Sensor>,
    /// Which of several event streams to read; the first if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream: Option<u32>,
    /// How CIFAR10-DVS is divided into training and test.
    #[serde(skip_serializing_if = "Split::is_usual")]
    pub split: Split,
}

impl Default for Integration {
    /// T = 16 by count \[authors\].
    fn default() -> Self {
        Self { frames: 16, frames_by: FramesBy::Count, downsample: 1, sensor: None, stream: None, split: Split::Name }
    }
}

impl Integration {
    /// The extents of a sample: `[T][H][W][2]`.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if there would be no frame or pixel, or too many.
    pub fn shape(&self, size: SensorSize) -> Result<SampleShape> {
        let Self { frames, downsample, .. } = *self;
        if frames == 0 || frames > MAX_FRAMES {
            crate::bail_input!("frames {frames} must be between 1 and {MAX_FRAMES}");
        }
        let side = size.width.min(size.height) as usize;
        if downsample == 0 || downsample > side {
            crate::bail_input!("downsample {downsample} must be between 1 and {side}, the sensor's smaller side");
        }
        let [height, width] = [size.height, size.width].map(|extent| (extent as usize).div_ceil(downsample));
        let shape = SampleShape { frames, height, width, channels: 2 };
        if shape.len() > MAX_CELLS {
            crate::bail_input!(
                "samples of {shape} (frames x height x width x polarities) have {} values, but at most {MAX_CELLS} are \
                 used; use fewer frames or a larger downsample",
                shape.len()
            );
        }
        Ok(shape)
    }

    /// Adds the frames of a recording to `counts`; every event must lie on the sensor that `shape` was made for.
    pub fn add(&self, events: &[Event], shape: SampleShape, counts: &mut EventCounts) {
        let times = events.iter().map(|event| event.time);
        let (earliest, latest) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(0));
        let (each, step) = (events.len() / self.frames, ((latest - earliest) / self.frames as u64).max(1));
        let cell = |(index, event): (usize, &Event)| {
            let frame = match self.frames_by {
                // With fewer events than frames, all of them are the rest.
                FramesBy::Count => index.checked_div(each).unwrap_or(usize::MAX),
                FramesBy::Time => usize::try_from((event.time - earliest) / step).unwrap_or(usize::MAX),
            };
            let frame = frame.min(self.frames - 1);
            let [y, x] = [event.y, event.x].map(|at| usize::from(at) / self.downsample);
            ((((frame * shape.height) + y) * shape.width + x) * 2 + usize::from(event.on)) as u32
        };
        counts.push(events.iter().enumerate().map(cell).collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::CounterRng;

    fn frames(integration: Integration, size: SensorSize, events: &[Event]) -> Vec<u8> {
        let shape = integration.shape(size).unwrap();
        let mut counts = EventCounts::default();
        integration.add(events, shape, &mut counts);
        counts.bytes(shape.len())
    }

    fn event(time: u64, x: u16, y: u16, on: bool) -> Event {
        Event { time, x, y, on }
    }

    /// The definition as plain loops: the events of a frame are a slice found from its ends.
    fn by_loops(integration: Integration, size: SensorSize, events: &[Event]) -> Vec<u8> {
        let Integration { frames, frames_by, downsample, .. } = integration;
        let [height, width] = [size.height, size.width].map(|n| (n as usize).div_ceil(downsample));
        let mut out = Vec::new();
        for frame in 0..frames {
            let last = frame == frames - 1;
            let mine: Vec<&Event> = match frames_by {
                FramesBy::Count => {
                    let d = events.len() / frames;
                    let end = if last { events.len() } else { (frame + 1) * d };
                    events[frame * d..end].iter().collect()
                }
                FramesBy::Time => {
                    let t0 = events.iter().map(|e| e.time).min().unwrap_or(0);
                    let t1 = events.iter().map(|e| e.time).max().unwrap_or(0);
                    let d = ((t1 - t0) / frames as u64).max(1);
                    let (from, to) = (t0 + frame as u64 * d, t0 + (frame as u64 + 1) * d);
                    events.iter().filter(|e| e.time >= from && (last || e.time < to)).collect()
                }
            };
            for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
                for on in [false, true] {
                    let here = |e: &&&Event| {
                        (usize::from(e.y) / downsample, usize::from(e.x) / downsample, e.on) == (y, x, on)
                    };
                    out.push(mine.iter().filter(here).count().min(255) as u8);
                }
            }
        }
        out
    }

    #[test]
    fn frames_are_those_of_the_definition() {
        let mut rng = CounterRng::new(11, 99);
        let (mut cases, mut whole) = (0, 0);
        for (width, height) in [(5, 7), (34, 34), (16, 9)] {
            for count in [0, 1, 2, 7, 100, 3001] {
                for span in [1, 10, 300_000] {
                    let size = SensorSize { width, height };
                    let mut times: Vec<u64> = (0..count).map(|_| 1_000_000 + rng.below(span)).collect();
                    // Most recordings have their events in order; others do not.
                    if span != 10 {
                        times.sort_unstable();
                    }
                    let mut draw = |time| {
                        let [x, y] = [width, height].map(|n| rng.below(n.into()) as u16);
                        event(time, x, y, rng.below(2) == 1)
                    };
                    let events: Vec<Event> = times.into_iter().map(&mut draw).collect();
                    for frames_by in [FramesBy::Count, FramesBy::Time] {
                        for (steps, downsample) in [(1, 1), (4, 2), (16, 1), (10, 3)] {
                            let integration =
                                Integration { frames: steps, frames_by, downsample, ..Integration::default() };
                            let got = frames(integration, size, &events);
                            assert!(got == by_loops(integration, size, &events), "{integration:?} {size:?} {count}");
                            if got.iter().all(|&count| count < 255) {
                                let sum: usize = got.iter().map(|&count| usize::from(count)).sum();
                                assert_eq!(sum, count, "an event was lost");
                                whole += 1;
                            }
                            cases += 1;
                        }
                    }
                }
            }
        }
        assert!(cases == 3 * 6 * 3 * 2 * 4 && whole > cases - 20, "{whole} of {cases}");
    }

    #[test]
    fn seven_events_by_hand() {
        // SpikingJelly's formulas: by number 7 // 3 = 2, so [0:2], [2:4], [4:7]; by time (100 - 10) // 3 = 30, so 10.. 40.. 70..
        let size = SensorSize { width: 2, height: 1 };
        let events = [
            event(10, 0, 0, false),
            event(12, 0, 0, true),
            event(39, 1, 0, true),
            event(40, 1, 0, true),
            event(41, 0, 0, false),
            event(99, 1, 0, false),
            event(100, 1, 0, true),
        ];
        let three = Integration { frames: 3, ..Integration::default() };
        assert_eq!(frames(three, size, &events), [1, 1, 0, 0, 0, 0, 0, 2, 1, 0, 1, 1]);
        let by_time = Integration { frames_by: FramesBy::Time, ..three };
        assert_eq!(frames(by_time, size, &events), [1, 1, 0, 1, 1, 0, 0, 1, 0, 0, 1, 1]);
        let coarse = Integration { downsample: 1, frames: 1, ..three };
        assert_eq!(frames(coarse, size, &vec![event(0, 1, 0, true); 300]), [0, 0, 0, 255]);
    }

    #[test]
    fn an_event_with_an_early_time_at_the_end_does_not_empty_the_frames() {
        let size = SensorSize { width: 1, height: 1 };
        let by_time = Integration { frames: 4, frames_by: FramesBy::Time, ..Integration::default() };
        // 200 events from 21 to 8180 µs, one every 41 µs, then one at 0: SpikingJelly's first and last event span nothing.
        let mut events: Vec<Event> = (0..200).map(|i| event(21 + 41 * i, 0, 0, true)).collect();
        events.push(event(0, 0, 0, true));
        assert_eq!(frames(by_time, size, &events), [0, 51, 0, 50, 0, 50, 0, 50]);
        events.sort_unstable_by_key(|event| event.time);
        assert_eq!(frames(by_time, size, &events), [0, 51, 0, 50, 0, 50, 0, 50]);
        let far = [event(0, 0, 0, true), event(u64::MAX, 0, 0, true)];
        assert_eq!(frames(by_time, size, &far), [0, 1, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn coordinates_up_to_65535_count() {
        let size = SensorSize { width: 65_536, height: 65_536 };
        let coarse =
            Integration { frames: 1, frames_by: FramesBy::Count, downsample: 65_536, ..Integration::default() };
        assert_eq!(frames(coarse, size, &[event(0, 65_535, 65_535, true), event(0, 0, 65_535, false)]), [1, 1]);
    }

    #[test]
    fn impossible_frames_are_refused() {
        let size = SensorSize { width: 128, height: 100 };
        let usual = Integration::default();
        for (integration, part) in [
            (Integration { frames: 0, ..usual }, "frames 0"),
            (Integration { frames: 4097, ..usual }, "frames 4097"),
            (Integration { downsample: 0, ..usual }, "downsample 0"),
            (Integration { downsample: 101, ..usual }, "between 1 and 100"),
            (Integration { frames: 4096, ..usual }, "larger downsample"),
        ] {
            let error = integration.shape(size).unwrap_err();
            assert!(error.is::<crate::error::InputError>() && error.to_string().contains(part), "{error}");
        }
        let shape = Integration { downsample: 3, ..usual }.shape(size).unwrap();
        assert_eq!(shape, SampleShape { frames: 16, height: 34, width: 43, channels: 2 });
    }
}
