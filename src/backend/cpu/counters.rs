//! Counts membrane potentials, many at a time.

use super::layout::pitch;
use crate::autotune::Histogram;
use crate::histogram::{BINS, RANGE};

/// Positions of the counts in a table: below the range, its bins, above it, not finite.
const BELOW: usize = 0;
const ABOVE: usize = BINS + 1;
const NON_FINITE: usize = BINS + 2;
/// For padding channels.
const PADDING: usize = BINS + 3;
/// The next power of two, so that a masked index needs no check.
const TABLE: usize = 1024;
/// Tables per histogram: neighbours then seldom increment the same counter, which would mean waiting for the first sum.
const SPREAD: usize = 4;
/// Added to a smaller whole number, it leaves that number in the lowest bits of the mantissa.
const WHOLE: f32 = (1 << 23) as f32;

/// Counters of one sample's potentials, fewer than 2^32, before they go into histograms: one, or one per channel.
pub struct Counters {
    tables: Vec<[u32; TABLE]>,
    per_channel: bool,
}

impl Counters {
    /// Counters of `histograms` histograms, all 0.
    pub fn new(histograms: usize) -> Self {
        let per_channel = histograms > 1;
        Self { tables: vec![[0; TABLE]; if per_channel { pitch(histograms) } else { SPREAD }], per_channel }
    }

    /// Counts the potentials `z` of the channels from `channel` on as [`Histogram::count`] does, but only the first `real`.
    #[inline(always)]
    pub fn count<const L: usize>(&mut self, z: [f32; L], channel: usize, real: usize) {
        let mut places = [0; L];
        for i in 0..L {
            let bin = (z[i] * (BINS as f64 / (2.0 * RANGE)) as f32).floor() + (BINS / 2 + 1) as f32;
            let place = (bin.clamp(BELOW as f32, ABOVE as f32) + WHOLE).to_bits() & (TABLE - 1) as u32;
            let place = if z[i].is_finite() { place } else { NON_FINITE as u32 };
            places[i] = if i < real { place } else { PADDING as u32 };
        }
        let (tables, mask) = match self.per_channel {
            true => (&mut self.tables[channel..], usize::MAX),
            false => (&mut self.tables[..], SPREAD - 1),
        };
        for i in 0..L {
            tables[i & mask][places[i] as usize & (TABLE - 1)] += 1;
        }
    }

    /// Adds the counts to histograms, as many as were announced.
    pub fn add_to(&self, histograms: &mut [Histogram]) {
        let last = histograms.len() - 1;
        for (i, table) in self.tables.iter().enumerate() {
            // The tables of padding channels hold nothing.
            let histogram = &mut histograms[i.min(last)];
            histogram.bins.iter_mut().zip(&table[BELOW + 1..ABOVE]).for_each(|(bin, &count)| *bin += u64::from(count));
            histogram.underflow += u64::from(table[BELOW]);
            histogram.overflow += u64::from(table[ABOVE]);
            histogram.non_finite += u64::from(table[NON_FINITE]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Borders of bins, their neighbours, and values outside the range.
    fn potentials() -> Vec<f32> {
        let borders = (-300..300).map(|border| border as f32 / 64.0);
        let near = |x: f32| [x, x.next_up(), x.next_down(), x + 0.004];
        let outside =
            [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e30, -1e30, f32::MAX, f32::MIN, f32::MIN_POSITIVE];
        borders.flat_map(near).chain(outside).collect()
    }

    #[test]
    fn counts_are_those_of_the_histogram() {
        let potentials = potentials();
        let mut expected = Histogram::default();
        potentials.iter().for_each(|&z| expected.count(z));
        assert_eq!(expected.non_finite, 3);
        let mut counters = Counters::new(1);
        for z in potentials.chunks(8) {
            let mut lanes = [1.0; 8];
            lanes[..z.len()].copy_from_slice(z);
            counters.count(lanes, 0, z.len());
        }
        let mut found = [Histogram::default()];
        counters.add_to(&mut found);
        assert_eq!(found[0], expected);
    }

    #[test]
    fn channels_have_their_own() {
        let mut counters = Counters::new(5);
        counters.count([-1.0f32, 0.0, 1.0, 2.0], 0, 4);
        counters.count([3.0f32, 7.0, 7.0, 7.0], 4, 1);
        let mut found = vec![Histogram::default(); 5];
        counters.add_to(&mut found);
        for (channel, z) in [-1.0, 0.0, 1.0, 2.0, 3.0].into_iter().enumerate() {
            let mut expected = Histogram::default();
            expected.count(z);
            assert_eq!(found[channel], expected, "{channel}");
        }
    }
}
