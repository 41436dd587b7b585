//! A batch gathered from the data set's bytes.

use crate::backend::{Normalisation, keeps};
use crate::data::SampleShape;
use crate::data::sampling::Placement;
use rayon::prelude::*;

/// See [`crate::backend::Backend::input`].
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
