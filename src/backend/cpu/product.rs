//! The one dense kernel: rows gathered from a tensor times a matrix.
//!
//! Every dense convolution, input gradient and weight gradient is this product with other offsets, so nothing is copied into
//! patches. A block of 6 rows by 16 columns stays in registers (12 vectors of 8).

use crate::backend::Put;
use pulp::{Arch, Simd, WithSimd};

/// Columns of a panel.
pub const PANEL: usize = 16;
/// Rows of a register block.
const BLOCK: usize = 6;

/// The initial value of the result.
#[derive(Clone, Copy)]
pub enum Start<'a> {
    Zero,
    /// One value per column.
    Bias(&'a [f32]),
    /// The current content of `out`.
    Out,
}

impl Start<'_> {
    /// Of a result that is written or added.
    pub fn of(put: Put) -> Self {
        match put {
            Put::Write => Self::Zero,
            Put::Add => Self::Out,
        }
    }
}

/// `out[p][k] = start + sum over runs i, j < run_len of x[rows[p] + runs[i] + j step] b(i run_len + j, k)`, where
/// `b(j, k)` is `b[(k / 16) b_panel + j b_row + k % 16]`. The order of the sum is that of `i`, then `j`.
pub struct Product<'a> {
    pub x: &'a [f32],
    pub rows: &'a [u32],
    pub runs: &'a [u32],
    pub run_len: usize,
    pub step: usize,
    pub b: &'a [f32],
    pub b_row: usize,
    pub b_panel: usize,
    pub start: Start<'a>,
    /// `rows.len()` rows of `pitch` values.
    pub out: &'a mut [f32],
    /// Columns, a multiple of 16.
    pub pitch: usize,
}

impl Product<'_> {
    /// Computes the product on the calling thread.
    pub fn run(self) {
        debug_assert_eq!(self.out.len(), self.rows.len() * self.pitch);
        debug_assert_eq!(self.pitch % PANEL, 0);
        Arch::new().dispatch(self);
    }

    #[inline(always)]
    fn block<S: Simd, const P: usize>(&mut self, simd: S, first: usize, k: usize) {
        let width = 2 * S::F32_LANES;
        let rows: [usize; P] = std::array::from_fn(|p| self.rows[first + p] as usize);
        let mut sums = match self.start {
            Start::Zero => [[simd.splat_f32s(0.0); 2]; P],
            Start::Bias(bias) => [pair::<S>(&bias[k..][..width]); P],
            Start::Out => std::array::from_fn(|p| pair::<S>(&self.out[(first + p) * self.pitch + k..][..width])),
        };
        let extent = (self.run_len - 1) * self.step + 1;
        let panel = &self.b[k / PANEL * self.b_panel + k % PANEL..];
        let mut j = 0;
        for &run in self.runs {
            let x: [&[f32]; P] = std::array::from_fn(|p| &self.x[rows[p] + run as usize..][..extent]);
            let mut at = 0;
            for _ in 0..self.run_len {
                let b = pair::<S>(&panel[j..][..width]);
                for p in 0..P {
                    let a = simd.splat_f32s(x[p][at]);
                    sums[p] = [simd.mul_add_e_f32s(a, b[0], sums[p][0]), simd.mul_add_e_f32s(a, b[1], sums[p][1])];
                }
                at += self.step;
                j += self.b_row;
            }
        }
        for p in 0..P {
            let (out, _) = S::as_mut_simd_f32s(&mut self.out[(first + p) * self.pitch + k..][..width]);
            out.copy_from_slice(&sums[p]);
        }
    }
}

#[inline(always)]
fn pair<S: Simd>(values: &[f32]) -> [S::f32s; 2] {
    let (vectors, _) = S::as_simd_f32s(values);
    [vectors[0], vectors[1]]
}

impl WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let rows = self.rows.len();
        // Panels outermost: a panel stays in cache while all rows pass.
        for k in (0..self.pitch).step_by(2 * S::F32_LANES) {
            let mut first = 0;
            while first + BLOCK <= rows {
                self.block::<S, BLOCK>(simd, first, k);
                first += BLOCK;
            }
            match rows - first {
                5 => self.block::<S, 5>(simd, first, k),
                4 => self.block::<S, 4>(simd, first, k),
                3 => self.block::<S, 3>(simd, first, k),
                2 => self.block::<S, 2>(simd, first, k),
                1 => self.block::<S, 1>(simd, first, k),
                _ => {}
            }
        }
    }
}
