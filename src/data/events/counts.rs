//! Event frames as their nonzero cells: how many events each cell of a sample has.

use crate::data::SampleShape;
use anyhow::Result;
use rayon::prelude::*;

/// A cell is a position in a sample's `[T][H][W][2]`; there are fewer than this.
pub const MAX_CELLS: usize = 1 << 24;
/// The largest count of a cell.
pub const MAX_COUNT: usize = u8::MAX as usize;

/// The counts of many samples; the cells of each sample are ascending.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// `cell | count << 24`, count 1 … 255, sample after sample.
    entries: Vec<u32>,
    /// `[N]`: where each sample's entries end.
    ends: Vec<usize>,
}

/// The cell of an entry.
fn cell(entry: u32) -> u32 {
    entry & (MAX_CELLS as u32 - 1)
}

/// The count of an entry.
fn count(entry: u32) -> u8 {
    (entry >> 24) as u8
}

impl EventCounts {
    /// The number of samples.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no samples.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All entries, `cell | count << 24`.
    pub fn entries(&self) -> &[u32] {
        &self.entries
    }

    /// `[N]`: where each sample's entries end.
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The entries of one sample. Panics if there is no such sample.
    pub fn sample(&self, index: usize) -> &[u32] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.entries[start..self.ends[index]]
    }

    /// The number of events in each frame of a sample; a cell counts as at most 255.
    pub fn per_frame(&self, index: usize, shape: SampleShape) -> Vec<usize> {
        let mut frames = vec![0; shape.frames];
        for &entry in self.sample(index) {
            frames[cell(entry) as usize / (shape.len() / shape.frames)] += usize::from(count(entry));
        }
        frames
    }

    /// Adds a sample, given the cell of each of its events, below [`MAX_CELLS`], in any order; counts saturate at 255.
    pub fn push(&mut self, mut cells: Vec<u32>) {
        cells.sort_unstable();
        self.entries.extend(cells.chunk_by(|a, b| a == b).map(|run| {
            debug_assert!((run[0] as usize) < MAX_CELLS);
            run[0] | (run.len().min(MAX_COUNT) as u32) << 24
        }));
        self.ends.push(self.entries.len());
    }

    /// Appends the samples of another.
    pub fn append(&mut self, other: &Self) {
        let start = self.entries.len();
        self.entries.extend_from_slice(&other.entries);
        self.ends.extend(other.ends.iter().map(|end| start + end));
    }

    /// The samples as bytes, `[N][cells]`, one byte per cell.
    pub fn bytes(&self, cells: usize) -> Vec<u8> {
        let mut bytes = vec![0; self.len() * cells];
        self.write_all(cells, &mut bytes);
        bytes
    }

    /// Writes the counts of all samples over zeros, `[N][cells]`.
    pub fn write_all(&self, cells: usize, bytes: &mut [u8]) {
        bytes.par_chunks_exact_mut(cells).enumerate().for_each(|(index, bytes)| self.write(index, bytes));
    }

    /// Writes the counts of one sample over zeros, one byte per cell.
    pub fn write(&self, index: usize, bytes: &mut [u8]) {
        for &entry in self.sample(index) {
            bytes[cell(entry) as usize] = count(entry);
        }
    }

    /// Packs a sample: for each entry, twice its distance from the cell after the last one, plus one if a byte
    /// with the count follows because it is not 1; as a little-endian number with seven bits per byte (LEB128).
    pub fn pack(&self, index: usize, out: &mut Vec<u8>) {
        let mut next = 0;
        for &entry in self.sample(index) {
            let many = count(entry) != 1;
            let mut number = (cell(entry) - next) << 1 | u32::from(many);
            while number >= 0x80 {
                out.push(number as u8 | 0x80);
                number >>= 7;
            }
            out.push(number as u8);
            if many {
                out.push(count(entry));
            }
            next = cell(entry) + 1;
        }
    }

    /// Adds a sample from the bytes made by [`EventCounts::pack`]; every cell must be below `cells`.
    ///
    /// # Errors
    /// What no packed sample can contain.
    pub fn unpack(&mut self, bytes: &[u8], cells: usize) -> Result<()> {
        let mut bytes = bytes.iter();
        let mut next = 0u64;
        while !bytes.as_slice().is_empty() {
            let mut number = 0u64;
            for shift in (0..).step_by(7) {
                let Some(&byte) = bytes.next().filter(|_| shift < 35) else {
                    anyhow::bail!("a number does not end");
                };
                number |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            let count = if number & 1 == 1 { bytes.next().copied().unwrap_or(0) } else { 1 };
            let cell = next + (number >> 1);
            if count == 0 || cell >= cells.min(MAX_CELLS) as u64 {
                anyhow::bail!("a count of {count} in cell {cell} of {cells}");
            }
            self.entries.push(cell as u32 | u32::from(count) << 24);
            next = cell + 1;
        }
        self.ends.push(self.entries.len());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::CounterRng;

    #[test]
    fn events_are_counted_and_counts_end_at_255() {
        let mut counts = EventCounts::default();
        counts.push(vec![5, 2, 5, 0, 5]);
        counts.push(vec![]);
        counts.push(vec![7; 1000]);
        assert_eq!(counts.sample(0), [1 << 24, 2 | 1 << 24, 5 | 3 << 24]);
        assert_eq!(counts.sample(1), [0u32; 0]);
        assert_eq!(counts.sample(2), [7 | 255 << 24]);
        let want = [[1, 0, 1, 0, 0, 3, 0, 0], [0; 8], [0, 0, 0, 0, 0, 0, 0, 255]];
        assert_eq!(counts.bytes(8), want.concat());
    }

    #[test]
    fn packed_samples_come_back_and_are_small() {
        let mut rng = CounterRng::new(4, 99);
        let mut counts = EventCounts::default();
        for (events, cells) in [(0, 1), (1, MAX_CELLS), (3000, 36_992), (50, MAX_CELLS), (5000, 20)] {
            counts.push((0..events).map(|_| rng.below(cells as u64) as u32).collect());
        }
        counts.push(vec![MAX_CELLS as u32 - 1]);
        let mut read = EventCounts::default();
        let mut sizes = Vec::new();
        for index in 0..counts.len() {
            let mut bytes = Vec::new();
            counts.pack(index, &mut bytes);
            read.unpack(&bytes, MAX_CELLS).unwrap();
            sizes.push(bytes.len());
        }
        assert_eq!(read, counts);
        // 3000 events over the cells of 16 frames of N-MNIST take hardly more than a byte each.
        assert!(sizes[2] < 3400, "{sizes:?}");
    }

    #[test]
    fn bytes_that_no_sample_has_are_refused() {
        let refused: [(&[u8], &str); 6] = [
            (&[0x80], "does not end"),
            (&[0xff; 9], "does not end"),
            (&[1], "a count of 0"),
            (&[1, 0], "a count of 0"),
            (&[20], "cell 10 of 10"),
            (&[0xfe, 0xff, 0xff, 0xff, 0x7f], "of 10"),
        ];
        for (bytes, part) in refused {
            let error = EventCounts::default().unpack(bytes, 10).unwrap_err().to_string();
            assert!(error.contains(part), "{bytes:?}: {error}");
        }
        EventCounts::default().unpack(&[18], 10).unwrap();
    }
}
