//! Convolutions as their kernels see them: where output positions lie in the source.
//!
//! A linear layer is a 1x1 convolution over 1x1 images with all its inputs as channels. The input gradient of a strided
//! convolution is one convolution per parity class of the input's pixels.

use super::params::ConvShape;
use crate::backend::shape::{Conv, Span};

/// Number of 32-channel words.
fn words(channels: usize) -> usize {
    channels.div_ceil(32)
}

/// Words per pixel of a convolution's input; of the whole input if the layer is linear.
pub fn input_words(conv: &Conv) -> usize {
    words(conv.input.c) * if conv.is_linear() { conv.input.pixels() } else { 1 }
}

/// A convolution from its input to its output.
pub fn forward(conv: &Conv, span: Span) -> ConvShape {
    let linear = conv.is_linear();
    let [source_h, source_w, taps_h, taps_w] =
        if linear { [1; 4] } else { [conv.input.h, conv.input.w, conv.kernel.h, conv.kernel.w] };
    ConvShape {
        images: span.batch as u32,
        steps: span.steps as u32,
        source_h: source_h as u32,
        source_w: source_w as u32,
        source_words: input_words(conv) as u32,
        rows: conv.output.h as u32,
        columns: conv.output.w as u32,
        origin_h: -(conv.padding.h as i32),
        origin_w: -(conv.padding.w as i32),
        stride_h: conv.stride.h as u32,
        stride_w: conv.stride.w as u32,
        taps_h: taps_h as u32,
        taps_w: taps_w as u32,
        out_h: conv.output.h as u32,
        out_w: conv.output.w as u32,
        out_words: words(conv.output.c) as u32,
        first_h: 0,
        first_w: 0,
        step_h: 1,
        step_w: 1,
    }
}

/// One parity class of a convolution's input gradient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GradientClass {
    pub shape: ConvShape,
    /// First tap, `[h, w]`; the others follow by strides.
    pub first_tap: [u32; 2],
}

/// The taps that reach input pixel `class + stride i` from the output, along one axis: the first tap, their number, the
/// number of pixels, and the output position of pixel 0 at the last tap.
fn gradient_axis(
    class: usize,
    input: usize,
    kernel: usize,
    stride: usize,
    padding: usize,
) -> (usize, usize, usize, i32) {
    let pixels = (input - class).div_ceil(stride);
    let first = (class + padding) % stride;
    let taps = if first < kernel { (kernel - first).div_ceil(stride) } else { 0 };
    let origin = ((class + padding - first) / stride) as i32 - (taps as i32 - 1);
    (first, taps, pixels, origin)
}

/// A convolution's input gradient from its output gradient, class by class. Classes that no tap reaches are included,
/// because their gradient, zero, must be written.
pub fn input_gradient(conv: &Conv, span: Span) -> Vec<GradientClass> {
    if conv.is_linear() {
        let shape = ConvShape {
            source_words: words(conv.output.c) as u32,
            out_words: input_words(conv) as u32,
            ..forward(conv, span)
        };
        return vec![GradientClass { shape, first_tap: [0, 0] }];
    }
    let (stride, input) = (conv.stride, conv.input);
    let classes = (0..stride.h.min(input.h)).flat_map(|h| (0..stride.w.min(input.w)).map(move |w| (h, w)));
    let class = |(h, w)| {
        let (first_h, taps_h, rows, origin_h) = gradient_axis(h, input.h, conv.kernel.h, stride.h, conv.padding.h);
        let (first_w, taps_w, columns, origin_w) = gradient_axis(w, input.w, conv.kernel.w, stride.w, conv.padding.w);
        let shape = ConvShape {
            images: span.batch as u32,
            steps: span.steps as u32,
            source_h: conv.output.h as u32,
            source_w: conv.output.w as u32,
            source_words: words(conv.output.c) as u32,
            rows: rows as u32,
            columns: columns as u32,
            origin_h,
            origin_w,
            stride_h: 1,
            stride_w: 1,
            taps_h: taps_h as u32,
            taps_w: taps_w as u32,
            out_h: input.h as u32,
            out_w: input.w as u32,
            out_words: words(input.c) as u32,
            first_h: h as u32,
            first_w: w as u32,
            step_h: stride.h as u32,
            step_w: stride.w as u32,
        };
        GradientClass { shape, first_tap: [first_h as u32, first_w as u32] }
    };
    classes.map(class).collect()
}
