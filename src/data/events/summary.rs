//! A recording in numbers, counted in one pass, and as frames in another.

use super::{Event, EventReader, SensorSize};
use anyhow::Result;
use serde::Serialize;

/// The rate is counted in at most this many pieces of equal time,
const PIECES: usize = 1024;
/// initially this many microseconds each.
const FIRST_PIECE: u64 = 1000;
/// Pixels that are counted individually; events at others are only reported.
const PIXELS: usize = 1 << 24;

/// Events of both polarities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Polarities {
    pub off: u64,
    pub on: u64,
}

impl Polarities {
    fn count(&mut self, on: bool) {
        if on {
            self.on += 1;
        } else {
            self.off += 1;
        }
    }

    /// Both together.
    pub fn total(self) -> u64 {
        self.off + self.on
    }
}

/// A pixel with the number of its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pixel {
    pub x: u16,
    pub y: u16,
    pub events: u64,
}

/// A recording in numbers.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    pub events: Polarities,
    /// First and last time in microseconds, whatever the order in the file.
    pub times: Option<(u64, u64)>,
    /// Events that are earlier than the previous one.
    pub out_of_order: u64,
    /// The size that the file states.
    pub stated: Option<SensorSize>,
    /// The smallest sensor that contains all pixels seen.
    pub seen: Option<SensorSize>,
    /// The number of pixels with an event, and the pixel with the most, among those counted individually.
    pub active: usize,
    pub busiest: Option<Pixel>,
    /// Events over time, in pieces of `piece` microseconds from the first event on; earlier ones count in the first piece.
    pub rate: Vec<Polarities>,
    pub piece: u64,
    /// The reader's notes, see [`EventReader::notes`].
    pub notes: Vec<String>,
}

/// Events per pixel, in tiles that are allocated on demand: a far pixel takes no more memory than a near one.
struct Grid {
    /// The index of each tile plus 1; 0: not allocated. `[SIDE][SIDE]`.
    tiles: Vec<u32>,
    /// The position in `tiles` of each allocated tile.
    places: Vec<usize>,
    /// `[tiles][TILE][TILE]`.
    counts: Vec<u64>,
    /// Events of pixels for which there is no room.
    beyond: u64,
}

impl Grid {
    /// Pixels along a tile, and tiles along the largest sensor.
    const TILE: usize = 64;
    const SIDE: usize = (1 << 16) / Self::TILE;

    fn new() -> Self {
        Self { tiles: vec![0; Self::SIDE * Self::SIDE], places: Vec::new(), counts: Vec::new(), beyond: 0 }
    }

    fn count(&mut self, x: u16, y: u16) {
        const PIXELS_OF_TILE: usize = Grid::TILE * Grid::TILE;
        let (x, y) = (usize::from(x), usize::from(y));
        let place = y / Self::TILE * Self::SIDE + x / Self::TILE;
        let tile = &mut self.tiles[place];
        if *tile == 0 {
            if self.counts.len() >= PIXELS {
                self.beyond += 1;
                return;
            }
            self.counts.resize(self.counts.len() + PIXELS_OF_TILE, 0);
            self.places.push(place);
            *tile = self.places.len() as u32;
        }
        let first = (*tile as usize - 1) * PIXELS_OF_TILE;
        self.counts[first + y % Self::TILE * Self::TILE + x % Self::TILE] += 1;
    }

    /// Pixels with an event.
    fn pixels(&self) -> impl Iterator<Item = Pixel> {
        let tiles = self.places.iter().zip(self.counts.chunks(Self::TILE * Self::TILE));
        tiles.flat_map(|(place, counts)| {
            let (left, top) = (place % Self::SIDE * Self::TILE, place / Self::SIDE * Self::TILE);
            counts.iter().enumerate().filter(|(_, events)| **events > 0).map(move |(i, &events)| Pixel {
                x: (left + i % Self::TILE) as u16,
                y: (top + i / Self::TILE) as u16,
                events,
            })
        })
    }
}

impl Summary {
    /// Reads a recording to its end; after each piece `read` is called with the number of events so far.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn of(reader: &mut dyn EventReader, mut read: impl FnMut(u64)) -> Result<Self> {
        let mut summary = Self { stated: reader.size(), piece: FIRST_PIECE, ..Self::default() };
        let (mut grid, mut piece, mut last, mut first) = (Grid::new(), Vec::new(), 0, None);
        let (mut width, mut height) = (0, 0);
        loop {
            reader.read(&mut piece)?;
            if piece.is_empty() {
                break;
            }
            for &Event { time, x, y, on } in &piece {
                let first = *first.get_or_insert(time);
                summary.events.count(on);
                summary.out_of_order += u64::from(time < last);
                last = time;
                let (low, high) = summary.times.get_or_insert((time, time));
                (*low, *high) = ((*low).min(time), (*high).max(time));
                (width, height) = (width.max(x), height.max(y));
                grid.count(x, y);
                summary.at(time.saturating_sub(first)).count(on);
            }
            read(summary.events.total());
        }
        if summary.events.total() > 0 {
            summary.seen = Some(SensorSize { width: u32::from(width) + 1, height: u32::from(height) + 1 });
        }
        summary.notes = reader.notes();
        if grid.beyond > 0 {
            let (beyond, events) = (grid.beyond, summary.events.total());
            summary.notes.push(format!(
                "{beyond} of {events} events lie on more pixels than the {PIXELS} that are counted one by one; the active \
                 and the busiest pixels leave them out"
            ));
        }
        summary.active = grid.pixels().count();
        // Of several, the first in row order.
        summary.busiest = grid.pixels().max_by_key(|pixel| (pixel.events, std::cmp::Reverse((pixel.y, pixel.x))));
        Ok(summary)
    }

    /// The counts for a time after the first event; pieces become longer if there are too many.
    fn at(&mut self, time: u64) -> &mut Polarities {
        while time / self.piece >= PIECES as u64 {
            let pairs = self.rate.chunks(2).map(|pair| {
                let sum = |get: fn(&Polarities) -> u64| pair.iter().map(get).sum();
                Polarities { off: sum(|p| p.off), on: sum(|p| p.on) }
            });
            self.rate = pairs.collect();
            self.piece *= 2;
        }
        let index = (time / self.piece) as usize;
        if index >= self.rate.len() {
            self.rate.resize(index + 1, Polarities::default());
        }
        &mut self.rate[index]
    }

    /// From the first to the last event, in seconds.
    pub fn duration(&self) -> f64 {
        self.times.map_or(0.0, |(first, last)| (last - first) as f64 / 1e6)
    }

    /// Events per second over the whole recording; 0 if it has no duration.
    pub fn mean_rate(&self) -> f64 {
        if self.duration() > 0.0 { self.events.total() as f64 / self.duration() } else { 0.0 }
    }

    /// Events per second in the busiest piece of time.
    pub fn peak_rate(&self) -> f64 {
        self.rate.iter().map(|piece| piece.total()).max().unwrap_or(0) as f64 / (self.piece as f64 / 1e6)
    }

    /// The sensor's size as stated by the file, otherwise as seen.
    pub fn size(&self) -> Option<SensorSize> {
        self.stated.or(self.seen)
    }
}

/// Pictures of a recording: frames of equal time, each a grid of ON minus OFF events.
pub struct Frames {
    pub width: usize,
    pub height: usize,
    /// `[frames][height][width]`.
    pub values: Vec<Vec<i64>>,
}

impl Frames {
    /// Reads a recording again into `count` frames; each cell is a square of pixels, at most `side` cells wide and high.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn of(reader: &mut dyn EventReader, summary: &Summary, count: usize, side: usize) -> Result<Self> {
        let size = summary.size().unwrap_or(SensorSize { width: 1, height: 1 });
        let pixels = (size.width.max(size.height) as usize).div_ceil(side).max(1);
        let [width, height] = [size.width, size.height].map(|extent| (extent as usize).div_ceil(pixels).max(1));
        let (first, last) = summary.times.unwrap_or_default();
        let length = ((last - first) / count as u64).saturating_add(1);
        let mut values = vec![vec![0; width * height]; count];
        let mut piece = Vec::new();
        loop {
            reader.read(&mut piece)?;
            if piece.is_empty() {
                return Ok(Self { width, height, values });
            }
            for event in &piece {
                let frame = (event.time.saturating_sub(first) / length) as usize;
                let (x, y) = (usize::from(event.x) / pixels, usize::from(event.y) / pixels);
                if frame < count && x < width && y < height {
                    values[frame][y * width + x] += if event.on { 1 } else { -1 };
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Events in pieces of three.
    struct Listed(Vec<Event>);

    impl EventReader for Listed {
        fn size(&self) -> Option<SensorSize> {
            None
        }

        fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
            let count = self.0.len().min(3);
            *events = self.0.drain(..count).collect();
            Ok(())
        }
    }

    fn event(time: u64, x: u16, y: u16, on: bool) -> Event {
        Event { time, x, y, on }
    }

    #[test]
    fn a_recording_is_counted() {
        let events = vec![
            event(500, 1, 2, true),
            event(400, 1, 2, false),
            event(2_000_500, 40, 0, true),
            event(900, 1, 2, true),
        ];
        let summary = Summary::of(&mut Listed(events.clone()), |_| {}).unwrap();
        assert_eq!(summary.events, Polarities { off: 1, on: 3 });
        assert_eq!((summary.times, summary.out_of_order), (Some((400, 2_000_500)), 2));
        assert_eq!(summary.seen, Some(SensorSize { width: 41, height: 3 }));
        assert_eq!((summary.active, summary.busiest), (2, Some(Pixel { x: 1, y: 2, events: 3 })));
        assert_eq!(summary.piece, 2000);
        assert_eq!((summary.rate[0].total(), summary.rate.len()), (3, 1001));
        assert_eq!(summary.peak_rate(), 1500.0);
        let frames = Frames::of(&mut Listed(events), &summary, 2, 8).unwrap();
        assert_eq!((frames.width, frames.height), (7, 1));
        assert_eq!(frames.values, [vec![1, 0, 0, 0, 0, 0, 0], vec![0, 0, 0, 0, 0, 0, 1]]);
    }

    #[test]
    fn an_empty_recording_has_no_times() {
        let summary = Summary::of(&mut Listed(Vec::new()), |_| {}).unwrap();
        assert_eq!((summary.events.total(), summary.times, summary.size()), (0, None, None));
        assert_eq!((summary.mean_rate(), summary.peak_rate()), (0.0, 0.0));
        assert_eq!(Frames::of(&mut Listed(Vec::new()), &summary, 3, 8).unwrap().values, vec![vec![0]; 3]);
    }

    #[test]
    fn far_pixels_and_long_times_take_no_more_memory() {
        let events = vec![event(0, 65535, 65535, true), event(u64::MAX, 0, 0, false), event(1, 65535, 65535, true)];
        let summary = Summary::of(&mut Listed(events), |_| {}).unwrap();
        assert!(summary.rate.len() <= PIECES);
        assert_eq!(summary.seen, Some(SensorSize { width: 65536, height: 65536 }));
        assert_eq!((summary.active, summary.busiest), (2, Some(Pixel { x: 65535, y: 65535, events: 2 })));
        assert!(summary.notes.is_empty(), "{:?}", summary.notes);
    }

    #[test]
    fn more_pixels_than_are_counted_are_said() {
        let tiles = PIXELS / Grid::TILE.pow(2);
        let corner =
            |i: usize| event(0, (i % Grid::SIDE * Grid::TILE) as u16, (i / Grid::SIDE * Grid::TILE) as u16, true);
        let summary = Summary::of(&mut Listed((0..tiles + 7).map(corner).collect()), |_| {}).unwrap();
        assert_eq!((summary.active, summary.events.total()), (tiles, tiles as u64 + 7));
        assert!(summary.notes[0].starts_with(&format!("7 of {} events", tiles + 7)), "{:?}", summary.notes);
    }
}
