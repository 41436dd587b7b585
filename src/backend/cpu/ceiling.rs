//! The processor's peak rates.

use super::Cpu;
use crate::backend::Rates;
use anyhow::Result;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use std::hint::black_box;

/// Fused multiply-adds in flight per thread: more than two units with a latency of four cycles hold.
const CHAINS: usize = 12;
/// Values copied per task.
const PIECE: usize = 1 << 16;

impl Rates for Cpu {
    fn copy(&self, from: &Vec<f32>, to: &mut Vec<f32>) -> Result<usize> {
        let len = from.len().min(to.len());
        let pieces = to[..len].par_chunks_mut(PIECE).zip(from[..len].par_chunks(PIECE));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
        Ok(size_of::<f32>() * len)
    }

    /// Fused multiply-adds in registers only, on every thread.
    fn multiply(&self, rounds: u32) -> Result<f64> {
        let done: usize = rayon::broadcast(|_| Arch::new().dispatch(Multiply(rounds))).into_iter().sum();
        Ok(2.0 * done as f64)
    }
}

struct Multiply(u32);

impl WithSimd for Multiply {
    type Output = usize;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> usize {
        let factor = simd.splat_f32s(black_box(0.999));
        let mut sums: [_; CHAINS] = std::array::from_fn(|i| simd.splat_f32s(i as f32));
        for _ in 0..self.0 {
            sums.iter_mut().for_each(|sum| *sum = simd.mul_add_f32s(*sum, factor, factor));
        }
        black_box(sums.map(|sum| simd.reduce_sum_f32s(sum)));
        self.0 as usize * CHAINS * S::F32_LANES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_whole() {
        let from: Vec<f32> = (0..200_000).map(|i| i as f32).collect();
        let mut to = vec![0.0; from.len()];
        assert_eq!(Cpu.copy(&from, &mut to).unwrap(), 4 * from.len());
        assert_eq!(from, to);
    }

    #[test]
    fn every_thread_multiplies() {
        let threads = rayon::current_num_threads();
        let [few, many] = [10, 1000].map(|rounds| Cpu.multiply(rounds).unwrap());
        assert_eq!(many, 100.0 * few);
        assert!((few as usize).is_multiple_of(threads * 10 * 2 * CHAINS) && few > 0.0);
    }
}
