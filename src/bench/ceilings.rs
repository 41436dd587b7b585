//! The rates that operations are compared with.

use super::operation::Work;
use super::tensors::random;
use super::timing::{TURN, Timing, repetitions};
use crate::backend::Backend;
use crate::backend::shape::{Span, Volume};
use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

const ROUNDS: usize = 5;
const BYTES: usize = 256 << 20;

/// Measured limits of the device.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Bytes per second of a copy, read and written.
    pub copy: f64,
    /// Floating-point operations per second of matrix products (on the CPU and in f32: of vectors) in registers.
    pub products: f64,
}

impl Ceilings {
    /// Measures both.
    pub fn measure<B: Backend>(backend: &B) -> Result<Self> {
        let volume = Volume { h: 1, w: 1, c: 1024 };
        let batch = BYTES / backend.floats_size(Span { batch: 1, steps: 1 }, volume);
        let span = Span { batch, steps: 1 };
        let from = random(backend, span, volume, 1.0, 1)?;
        let mut to = backend.activations(span, volume)?;
        copies_right(backend)?;
        let mut copied = 0;
        let mut copy = |times: usize| {
            backend.seconds(&mut || {
                (0..times).try_for_each(|_| {
                    copied = backend.copy(&from, &mut to)?;
                    Ok(())
                })
            })
        };
        copy(1)?;
        let times = repetitions(copy(1)?, TURN);
        let seconds: Vec<f64> = (0..ROUNDS).map(|_| copy(times)).collect::<Result<_>>()?;
        let copy = 2.0 * (copied * times) as f64 / Timing::of(&seconds).median;

        let mut flops = 0.0;
        let mut multiply = |rounds: u32| {
            backend.seconds(&mut || {
                flops = backend.multiply(rounds)?;
                Ok(())
            })
        };
        // Rounds grow until they fill a turn; each takes at least a few nanoseconds.
        let mut rounds = 1 << 2;
        while multiply(rounds)? < TURN && rounds < 1 << 28 {
            rounds *= 2;
        }
        let seconds: Vec<f64> = (0..ROUNDS).map(|_| multiply(rounds)).collect::<Result<_>>()?;
        Ok(Self { copy, products: flops / Timing::of(&seconds).median })
    }

    /// The least seconds for the work, and whether memory is the limit.
    pub fn floor(&self, work: Work) -> (f64, bool) {
        let (memory, products) = (work.bytes / self.copy, work.flops / self.products);
        (memory.max(products), memory >= products)
    }
}

/// Checks that a copy holds the values that were copied.
fn copies_right<B: Backend>(backend: &B) -> Result<()> {
    let (span, volume) = (Span { batch: 64, steps: 1 }, Volume { h: 1, w: 1, c: 1024 });
    let from = random(backend, span, volume, 1.0, 2)?;
    let mut to = backend.activations(span, volume)?;
    backend.copy(&from, &mut to)?;
    let [from, to] = [&from, &to].map(|floats| backend.read_activations(floats, span, volume));
    let (from, to) = (from?, to?);
    ensure!(
        from == to && from.iter().any(|&x| x != 0.0),
        "a copy does not hold what was copied: the device does not compute"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CEILINGS: Ceilings = Ceilings { copy: 1e10, products: 1e11 };

    #[test]
    fn the_larger_need_is_the_floor() {
        assert_eq!(CEILINGS.floor(Work { bytes: 1e9, flops: 1e9 }), (0.1, true));
        assert_eq!(CEILINGS.floor(Work { bytes: 1e9, flops: 1e11 }), (1.0, false));
    }
}
