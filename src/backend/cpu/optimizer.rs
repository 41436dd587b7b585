//! Updates parameters from their gradients, value by value.

use super::simd::simd;
use crate::backend::UpdateRule;
use rayon::prelude::*;

const CHUNK: usize = 1 << 14;

/// The numbers of one update.
#[derive(Clone, Copy, Debug)]
pub struct Move {
    pub rule: UpdateRule,
    pub learning_rate: f32,
    pub decay: f32,
    /// Gradients are scaled by this first (clipping).
    pub gradient_scale: f32,
    /// 1 for the first update.
    pub count: u64,
}

/// Moves one parameter along its gradient.
pub fn update(update: &Move, value: &mut [f32], gradient: &[f32], first: &mut [f32], second: &mut [f32]) {
    let &Move { rule, learning_rate, decay, gradient_scale, count } = update;
    match rule {
        UpdateRule::Sgd { momentum } => {
            let chunks = value.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(first.par_chunks_mut(CHUNK));
            chunks.for_each(|((value, gradient), first)| {
                simd(
                    #[inline(always)]
                    || {
                        for i in 0..value.len() {
                            let g = decay.mul_add(value[i], gradient_scale * gradient[i]);
                            // PyTorch initialises the momentum to the first gradient; starting from zero gives the same.
                            first[i] = momentum.mul_add(first[i], g);
                            value[i] = (-learning_rate).mul_add(first[i], value[i]);
                        }
                    },
                );
            });
        }
        UpdateRule::Adam { beta1, beta2, epsilon, decoupled } => {
            let correction = |beta: f32| 1.0 - (beta as f64).powi(count.min(i32::MAX as u64) as i32);
            let step = (learning_rate as f64 / correction(beta1)) as f32;
            let root = correction(beta2).sqrt() as f32;
            let (kept, added) = if decoupled { (1.0 - learning_rate * decay, 0.0) } else { (1.0, decay) };
            let moments = first.par_chunks_mut(CHUNK).zip(second.par_chunks_mut(CHUNK));
            let chunks = value.par_chunks_mut(CHUNK).zip(gradient.par_chunks(CHUNK)).zip(moments);
            chunks.for_each(|((value, gradient), (first, second))| {
                simd(
                    #[inline(always)]
                    || {
                        for i in 0..value.len() {
                            let g = added.mul_add(value[i], gradient_scale * gradient[i]);
                            first[i] = beta1.mul_add(first[i], (1.0 - beta1) * g);
                            second[i] = beta2.mul_add(second[i], (1.0 - beta2) * g * g);
                            let size = second[i].sqrt() / root + epsilon;
                            value[i] = kept.mul_add(value[i], -step * first[i] / size);
                        }
                    },
                );
            });
        }
    }
}

/// The 2-norm of all gradients together: chunks of fixed size are added in order.
pub fn norm(gradients: &[&Vec<f32>]) -> f64 {
    let squares = |gradient: &&Vec<f32>| -> f64 {
        let chunks: Vec<f64> =
            gradient.par_chunks(CHUNK).map(|chunk| chunk.iter().map(|&g| g as f64 * g as f64).sum()).collect();
        chunks.iter().sum()
    };
    gradients.iter().map(squares).sum::<f64>().sqrt()
}
