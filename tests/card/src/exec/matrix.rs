//! `ldmatrix` and `mma.m16n8k16`.

use super::Fault;
use super::block::Context;
use super::lanes::{Files, V32};
use super::memory::check;
use super::warp::Warp;
use crate::half::f32_of_f16;
use crate::lower::{Instruction, Space, TRANSPOSED, WIDE_ADDRESS};
use crate::ops::b as bits;

pub(super) fn load_matrix(
    warp: &Warp,
    context: &mut Context,
    files: &Files,
    i: &Instruction,
    at: usize,
) -> Result<(), Fault> {
    let list = &context.launch.kernel.lists[i.x as usize..];
    let mut rows = files.addresses(i.a, i.flags & WIDE_ADDRESS != 0, list[4]);
    let base = check(warp, context, &mut rows, files.mask, Space::Shared, 16, at)?;
    for matrix in 0..4 {
        let mut t = V32([0; 32]);
        // SAFETY: each row's 16 bytes were checked.
        unsafe {
            for l in 0..32 {
                t.0[l] = if i.flags & TRANSPOSED == 0 {
                    *((rows[8 * matrix + l / 4] + base) as *const u32).add(l % 4)
                } else {
                    let element = |row: usize| *((rows[8 * matrix + row] + base) as *const u16).add(l / 4) as u32;
                    element(2 * (l % 4)) | element(2 * (l % 4) + 1) << 16
                };
            }
        }
        files.set_r(list[matrix], &t);
    }
    Ok(())
}

#[inline(always)]
pub(super) fn widen(bits: u32, bf16: bool) -> [f32; 2] {
    if bf16 {
        [f32::from_bits(bits << 16), f32::from_bits(bits & 0xffff_0000)]
    } else {
        [f32_of_f16(bits as u16), f32_of_f16((bits >> 16) as u16)]
    }
}

/// `mma.m16n8k16`: lane 4 g + t holds, of A, rows g and g + 8, columns 2 t and 2 t + 1 and those plus 8; of B, the same indices
/// as rows, in column g; of C and D, rows g and g + 8, columns 2 t and 2 t + 1.
#[inline(always)]
pub(super) fn multiply(files: &Files, list: &[u32], bf16: bool, cuts_off: bool) {
    let mut a = [[0f32; 16]; 16];
    let mut b = [[0f32; 8]; 16];
    let mut c = [[0f32; 8]; 16];
    for register in 0..4 {
        let value = files.r(list[4 + register]);
        for l in 0..32 {
            let (row, column) = (l / 4 + 8 * (register % 2), 2 * (l % 4) + 8 * (register / 2));
            [a[row][column], a[row][column + 1]] = widen(value.0[l], bf16);
        }
    }
    for register in 0..2 {
        let value = files.r(list[8 + register]);
        for l in 0..32 {
            let row = 2 * (l % 4) + 8 * register;
            [b[row][l / 4], b[row + 1][l / 4]] = widen(value.0[l], bf16);
        }
    }
    for register in 0..4 {
        let value = files.r(list[10 + register]);
        for l in 0..32 {
            c[l / 4 + 8 * (register / 2)][2 * (l % 4) + register % 2] = f32::from_bits(value.0[l]);
        }
    }
    for row in 0..16 {
        for k in 0..16 {
            for column in 0..8 {
                let sum = a[row][k].mul_add(b[k][column], c[row][column]);
                c[row][column] = if cuts_off { cut_off(a[row][k], b[k][column], c[row][column], sum) } else { sum };
            }
        }
    }
    for register in 0..4 {
        let mut t = V32([0; 32]);
        for l in 0..32 {
            t.0[l] = bits(c[l / 4 + 8 * (register / 2)][2 * (l % 4) + register % 2]);
        }
        files.set_r(list[register], &t);
    }
}

/// The sum `x y + z` truncated towards zero, given the nearest number `near`: one step smaller if that was rounded up.
fn cut_off(x: f32, y: f32, z: f32, near: f32) -> f32 {
    // The product of 16-bit numbers is exact in f64, and so is the sign of the difference.
    let exact = x as f64 * y as f64 + z as f64;
    if near.is_finite() && near != 0.0 && (near as f64).abs() > exact.abs() {
        f32::from_bits(near.to_bits() - 1)
    } else {
        near
    }
}
