//! Event-driven sums: what a convolution adds up when its input is spikes.
//!
//! Spikes are listed once. A sum over a patch of spikes then walks over pieces of that list, and each entry adds one row of
//! weights (forward) or one row of gradients (weight gradient). No multiplications, and no work for silent neurons.

use super::layout::words;
use crate::backend::shape::Volume;

/// The spikes of one sample at one step, ordered by row, column and channel.
#[derive(Default)]
pub struct Events {
    /// `x * 32 ceil(C/32) + c` of each spike, within its row.
    positions: Vec<u32>,
    /// First spike at or after each pixel; one more entry at the end.
    starts: Vec<u32>,
}

impl Events {
    /// Lists the spikes of `[H][W][C/32]` words.
    pub fn collect(&mut self, bits: &[u32], volume: Volume) {
        let words = words(volume.c);
        self.positions.clear();
        self.starts.clear();
        for row in bits.chunks_exact(volume.w * words) {
            for (x, pixel) in row.chunks_exact(words).enumerate() {
                self.starts.push(self.positions.len() as u32);
                for (w, &word) in pixel.iter().enumerate() {
                    push_bits(&mut self.positions, word, (32 * (x * words + w)) as u32);
                }
            }
        }
        self.starts.push(self.positions.len() as u32);
    }

    /// The spikes between two pixels, counted row by row.
    #[inline(always)]
    pub fn between(&self, from: usize, to: usize) -> &[u32] {
        &self.positions[self.starts[from] as usize..self.starts[to] as usize]
    }
}

/// Appends `base + b` for every bit `b` set in `word`.
#[inline(always)]
pub fn push_bits(list: &mut Vec<u32>, word: u32, base: u32) {
    let mut rest = word;
    while rest != 0 {
        list.push(base + rest.trailing_zeros());
        rest &= rest - 1;
    }
}

/// Adds `table[(event + base) * pitch + k ..][..B]` for every event. Two sums run in parallel, because one alone would wait
/// for the latency of each addition; `sums` takes the even entries, and the odd ones are added at the end.
#[inline(always)]
pub fn add_rows<const B: usize>(sums: &mut [f32; B], events: &[u32], base: i32, table: &[f32], pitch: usize, k: usize) {
    #[inline(always)]
    fn row<const B: usize>(table: &[f32], event: u32, base: i32, pitch: usize, k: usize) -> &[f32; B] {
        let start = event.wrapping_add_signed(base) as usize * pitch + k;
        table[start..].first_chunk().expect("an event's row lies inside its table")
    }
    let mut odd = [0.0; B];
    let (pairs, last) = events.as_chunks::<2>();
    for &[first, second] in pairs {
        let (a, b) = (row::<B>(table, first, base, pitch, k), row::<B>(table, second, base, pitch, k));
        for i in 0..B {
            sums[i] += a[i];
        }
        for i in 0..B {
            odd[i] += b[i];
        }
    }
    for &event in last {
        let a = row::<B>(table, event, base, pitch, k);
        for i in 0..B {
            sums[i] += a[i];
        }
    }
    for i in 0..B {
        sums[i] += odd[i];
    }
}
