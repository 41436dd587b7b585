//! Times of alternatives that take turns, so that other load on the machine affects all of them alike.

use crate::metrics::median;
use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Rounds in which the alternatives take turns.
pub const ROUNDS: usize = 11;
/// Seconds that an operation's turn should take.
pub const TURN: f64 = 0.02;

/// Median and extremes over rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Timing {
    /// Of at least one value.
    pub fn of(values: &[f64]) -> Self {
        Self {
            median: median(values).expect("there was a round"),
            min: values.iter().copied().fold(f64::INFINITY, f64::min),
            max: values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        }
    }

    /// Of the ratios `values / first`, round by round.
    pub fn of_ratios(values: &[f64], first: &[f64]) -> Self {
        Self::of(&values.iter().zip(first).map(|(value, first)| value / first).collect::<Vec<_>>())
    }
}

/// Runs `alternative(i)` for each `i` below `count`, for `rounds` rounds, each starting with another one.
/// An alternative returns the parts of its time in seconds. Returns `[alternative][part][round]`, or `None` if `stop`
/// was set.
pub fn take_turns<const PARTS: usize>(
    count: usize,
    rounds: usize,
    stop: &AtomicBool,
    mut alternative: impl FnMut(usize) -> Result<[f64; PARTS]>,
) -> Result<Option<Vec<[Vec<f64>; PARTS]>>> {
    let mut times = vec![[const { Vec::new() }; PARTS]; count];
    for round in 0..rounds {
        for i in (0..count).map(|i| (i + round) % count) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let parts = alternative(i)?;
            times[i].iter_mut().zip(parts).for_each(|(times, part)| times.push(part));
        }
    }
    Ok(Some(times))
}

/// Seconds that `f` takes.
pub fn seconds(f: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begin = Instant::now();
    f()?;
    Ok(begin.elapsed().as_secs_f64())
}

/// How often to repeat something that takes `once` seconds, so that it takes about `wanted`.
pub fn repetitions(once: f64, wanted: f64) -> usize {
    ((wanted / once.max(1e-9)).round() as usize).clamp(1, 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alternatives_take_turns() {
        let mut order = Vec::new();
        let stop = AtomicBool::new(false);
        let times = take_turns(3, 4, &stop, |i| {
            order.push(i);
            Ok([i as f64, order.len() as f64])
        });
        assert_eq!(order, [0, 1, 2, 1, 2, 0, 2, 0, 1, 0, 1, 2]);
        let times = times.unwrap().unwrap();
        assert_eq!((times.len(), &times[1][0], &times[0][1]), (3, &vec![1.0; 4], &vec![1.0, 6.0, 8.0, 10.0]));
        stop.store(true, Ordering::Relaxed);
        assert!(take_turns(3, 4, &stop, |_| Ok([0.0])).unwrap().is_none());
    }

    #[test]
    fn ratios_are_taken_round_by_round() {
        let timing = Timing::of_ratios(&[2.0, 9.0, 4.0], &[1.0, 3.0, 4.0]);
        assert_eq!(timing, Timing { median: 2.0, min: 1.0, max: 3.0 });
    }
}
