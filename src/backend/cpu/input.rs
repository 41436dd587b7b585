//! Gathers a batch from the data set's bytes.

use super::simd::simd;
use crate::backend::{Normalisation, keeps};
use crate::data::SampleShape;
use crate::data::sampling::Placement;
use rayon::prelude::*;

/// See [`crate::backend::Training::input`].
pub fn gather(
    set: &[u8],
    shape: &SampleShape,
    normalisation: &Normalisation,
    indices: &[u32],
    placements: &[Placement],
    drop: f32,
    out: &mut [f32],
) {
    let len = shape.len();
    let table = normalisation.table();
    out.par_chunks_mut(len).zip(indices.par_iter().zip(placements)).for_each(|(out, (&index, placement))| {
        let sample = &set[index as usize * len..][..len];
        for (i, out) in out.chunks_exact_mut(shape.channels).enumerate() {
            let (line, x) = (i / shape.width, i % shape.width);
            let (frame, y) = (line / shape.height, line % shape.height);
            let source = placement.source(y, x, shape.height, shape.width);
            let pixel = source.map(|(y, x)| &sample[((frame * shape.height + y) * shape.width + x) * shape.channels..]);
            for (c, out) in out.iter_mut().enumerate() {
                let place = (i * shape.channels + c) as u64;
                let kept = drop == 0.0 || keeps(placement.mask, place, drop);
                *out = table[256 * c + pixel.filter(|_| kept).map_or(0, |pixel| pixel[c] as usize)];
            }
        }
    });
}

/// Mixes samples of `len` values in pairs from both ends of the batch; see [`crate::data::mixup::shares`].
pub fn mix(shares: &[f32], len: usize, samples: &mut [f32]) {
    let half = shares.len() / 2;
    let (front, back) = samples[..shares.len() * len].split_at_mut(half * len);
    let (fronts, backs) = (front.par_chunks_exact_mut(len), back.par_chunks_exact_mut(len).rev());
    fronts.zip(backs).zip(&shares[..half]).zip(shares.par_iter().rev()).for_each(
        |(((first, last), of_first), of_last)| {
            simd(
                #[inline(always)]
                || {
                    for (a, b) in first.iter_mut().zip(last) {
                        let (x, y) = (*a, *b);
                        (*a, *b) = (of_first.mul_add(x - y, y), of_last.mul_add(y - x, x));
                    }
                },
            )
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::sampling::{Augmentation, placement};

    #[test]
    fn rolled_samples_keep_their_values_and_thinned_ones_lose_a_share() {
        let shape = SampleShape { frames: 3, height: 20, width: 30, channels: 2 };
        let samples = 4;
        // Every value of a frame and channel occurs once, and none is 0.
        let set: Vec<u8> = (0..samples * shape.len()).map(|i| (i / 2 % 600 % 255 + 1) as u8).collect();
        let normalisation = Normalisation { full_scale: 1.0, mean: vec![0.0; 2], std: vec![1.0; 2] };
        let gathered = |augmentation: Augmentation| {
            let indices: Vec<u32> = (0..samples as u32).collect();
            let placements: Vec<_> = indices.iter().map(|&i| placement(&augmentation, 7, 1, i)).collect();
            let mut out = vec![0.0; set.len()];
            gather(&set, &shape, &normalisation, &indices, &placements, augmentation.drop, &mut out);
            out
        };
        let plain = gathered(Augmentation::default());
        let rolled = gathered(Augmentation { roll: 19, flip: true, ..Augmentation::default() });
        assert_ne!(plain, rolled);
        for (plain, rolled) in plain.chunks_exact(1200).zip(rolled.chunks_exact(1200)) {
            let [mut a, mut b] = [plain.to_vec(), rolled.to_vec()];
            a.sort_by(f32::total_cmp);
            b.sort_by(f32::total_cmp);
            assert_eq!(a, b, "a roll moves values about within their frame");
        }
        let thinned = gathered(Augmentation { drop: 0.3, ..Augmentation::default() });
        assert!(thinned.iter().zip(&plain).all(|(thinned, plain)| *thinned == 0.0 || thinned == plain));
        let share = thinned.iter().filter(|&&value| value == 0.0).count() as f64 / thinned.len() as f64;
        // Of 14400 independent draws, within four standard deviations.
        assert!((share - 0.3).abs() < 4.0 * (0.21f64 / 14_400.0).sqrt(), "{share}");
        let (first, second) = thinned.split_at(shape.len());
        let differ = first.iter().zip(second).filter(|(a, b)| (**a == 0.0) != (**b == 0.0)).count();
        assert!(differ > shape.len() / 4, "each sample has a mask of its own");
    }
}
