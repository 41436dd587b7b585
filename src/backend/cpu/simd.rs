//! Spreads work over SIMD lanes.

use crate::backend::Put;

/// Runs `$body` over all of `0..$pitch` with the constant `$L` being 32 or 16 and `$first` the first channel. Compilers
/// vectorise steps of 32 best; loops of 16 they unroll first.
macro_rules! each_lanes {
    ($pitch:expr, |$L:ident, $first:ident| $body:block) => {
        let mut $first = 0;
        while $first + 32 <= $pitch {
            const $L: usize = 32;
            $body
            $first += 32;
        }
        if $first < $pitch {
            const $L: usize = 16;
            $body
        }
    };
}
pub(super) use each_lanes;

/// Runs `f` compiled for this machine's widest SIMD; `f` must be `#[inline(always)]`.
#[inline(always)]
pub fn simd<R>(f: impl FnOnce() -> R) -> R {
    pulp::Arch::new().dispatch(f)
}

/// Pieces of `len` values, or as many `None`.
pub fn split<V>(values: Option<&mut Vec<V>>, len: usize, batch: usize) -> Vec<Option<&mut [V]>> {
    match values {
        Some(values) => values.chunks_exact_mut(len).take(batch).map(Some).collect(),
        None => (0..batch).map(|_| None).collect(),
    }
}

/// `L` values from `start` on.
#[inline(always)]
pub fn lanes<const L: usize>(values: &[f32], start: usize) -> &[f32; L] {
    values[start..].first_chunk().expect("channels are padded to whole lanes")
}

/// Writes `values` to the start of `out`, or adds them.
#[inline(always)]
pub fn put_lanes<const L: usize>(put: Put, out: &mut [f32], values: &[f32; L]) {
    let out: &mut [f32; L] = out.first_chunk_mut().expect("channels are padded to whole lanes");
    match put {
        Put::Write => *out = *values,
        Put::Add => out.iter_mut().zip(values).for_each(|(out, value)| *out += value),
    }
}
