//! Mixup (Zhang et al., 2018): each sample is mixed with another of its batch, and so is the loss of their labels.

use super::sampling::{Augmentation, Draw, draws};
use crate::random::CounterRng;

/// The share of each of these samples in what the network sees, drawn from Beta(a, a); the sample
/// at position `n` of a batch of `N` is mixed with that at `N - 1 - n`. Empty without mixup.
pub fn shares(augmentation: &Augmentation, seed: u64, epoch: u32, samples: &[u32]) -> Vec<f32> {
    if augmentation.mixup == 0.0 {
        return Vec::new();
    }
    samples.iter().map(|&sample| beta(augmentation.mixup, draws(seed, epoch, sample, Draw::Share))).collect()
}

/// A draw of Beta(a, a) for `a` up to 1 (Jöhnk, 1964), in logarithms because powers of small numbers may be 0.
fn beta(a: f32, mut rng: CounterRng) -> f32 {
    loop {
        let mut log_power = || (1.0 - rng.uniform()).ln() / f64::from(a);
        let (x, y) = (log_power(), log_power());
        if x.exp() + y.exp() <= 1.0 {
            return (1.0 / (1.0 + (y - x).exp())) as f32;
        }
    }
}
