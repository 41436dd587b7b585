//! Samples unfolded into columns.

use super::harness::*;
use crate::oracle::Rng;
use adali::backend::gpu::Buffer;
use adali::backend::gpu::params::Unfold;
use adali::backend::shape::{Extent, Span, Volume, output_extent};

struct Case {
    span: Span,
    input: Volume,
    kernel: Extent,
    stride: Extent,
    padding: Extent,
    /// Its channels are the columns.
    output: Volume,
}

impl Case {
    fn new(span: Span, c: usize, [kernel, stride, padding]: [[usize; 2]; 3]) -> Self {
        let input = Volume { h: 5, w: 7, c };
        let h = output_extent(input.h, kernel[0], stride[0], padding[0]).expect("it fits");
        let w = output_extent(input.w, kernel[1], stride[1], padding[1]).expect("it fits");
        let output = Volume { h, w, c: kernel[0] * kernel[1] * c };
        let [kernel, stride, padding] = [kernel, stride, padding].map(|[h, w]| Extent { h, w });
        Self { span, input, kernel, stride, padding, output }
    }

    /// The definition: `[T][N][P][Q][R S C to 32]` from `[T][N][H][W][C]`.
    fn columns(&self, samples: &[f32]) -> Vec<f32> {
        let (input, output) = (self.input, self.output);
        let mut columns = Vec::new();
        for image in samples.chunks_exact(input.values()) {
            for (p, q) in (0..output.h).flat_map(|p| (0..output.w).map(move |q| (p, q))) {
                for (r, s) in (0..self.kernel.h).flat_map(|r| (0..self.kernel.w).map(move |s| (r, s))) {
                    let y = (p * self.stride.h + r).checked_sub(self.padding.h).filter(|&y| y < input.h);
                    let x = (q * self.stride.w + s).checked_sub(self.padding.w).filter(|&x| x < input.w);
                    let pixel = y.zip(x).map(|(y, x)| &image[(y * input.w + x) * input.c..][..input.c]);
                    columns.extend_from_slice(pixel.unwrap_or(&vec![0.0; input.c]));
                }
                columns.resize(columns.len().next_multiple_of(32), 0.0);
            }
        }
        columns
    }
}

#[test]
fn unfold_matches_its_definition() {
    let mut rng = Rng::fresh("unfold");
    let geometries = [
        [[3, 3], [1, 1], [1, 1]],
        [[3, 3], [2, 2], [1, 1]],
        [[5, 3], [1, 2], [2, 0]],
        [[1, 1], [1, 1], [0, 0]],
        [[7, 7], [2, 1], [3, 3]],
        [[2, 4], [3, 3], [0, 3]],
    ];
    let mut cases = 0;
    for value in VALUES {
        for steps in [1, 2, 4, 7] {
            for channels in [1, 2, 3, 33] {
                for geometry in geometries {
                    let case = Case::new(Span { batch: 2, steps }, channels, geometry);
                    let count = 2 * steps * case.input.values();
                    let samples: Vec<_> = (0..count).map(|_| value.round(rng.normal() as f32)).collect();

                    let device = Device::new(rng.next_u64());
                    let from = device.put(&value.encode(&samples));
                    let to = device.empty_values(value, case.span, case.output);
                    let places = places(case.span, case.output);
                    let params = Unfold {
                        samples: from.address(),
                        columns: to.address(),
                        places,
                        height: case.input.h as u32,
                        width: case.input.w as u32,
                        channels: channels as u32,
                        output_h: case.output.h as u32,
                        output_w: case.output.w as u32,
                        kernel_h: case.kernel.h as u32,
                        kernel_w: case.kernel.w as u32,
                        stride_h: case.stride.h as u32,
                        stride_w: case.stride.w as u32,
                        padding_h: case.padding.h as u32,
                        padding_w: case.padding.w as u32,
                    };
                    device.run(&format!("unfold_{}", value.name()), over_places(places), &params);
                    let what = format!("{value:?} T={steps} C={channels} {geometry:?}");
                    assert!(device.get::<u8>(&to) == value.encode(&case.columns(&samples)), "{what}");
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 4 * 4 * 6);
}
