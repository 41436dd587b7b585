//! AutoAugment's policy for CIFAR-10 (E. Cubuk et al., "AutoAugment: learning augmentation strategies from data", CVPR 2019),
//! with torchvision's meaning of its magnitudes (`AutoAugment(AutoAugmentPolicy.CIFAR10)`, nearest pixels, fill 0).

use super::image_ops::Image;
use crate::random::CounterRng;

/// The operations of the policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Invert,
    Contrast,
    Rotate,
    TranslateX,
    TranslateY,
    Sharpness,
    ShearY,
    AutoContrast,
    Equalize,
    Posterize,
    Color,
    Brightness,
    Solarize,
}

use Operation::{
    AutoContrast, Brightness, Color, Contrast, Equalize, Invert, Posterize, Rotate, Sharpness, ShearY, Solarize,
    TranslateX, TranslateY,
};

/// Magnitudes are numbered from 0 to this.
const STRONGEST: usize = 9;

/// An operation, its probability, and the number of its magnitude, 0 where it has none.
type Step = (Operation, f64, usize);

/// The sub-policies: one is drawn for each image, and both of its operations are tried.
const POLICY: [[Step; 2]; 25] = [
    [(Invert, 0.1, 0), (Contrast, 0.2, 6)],
    [(Rotate, 0.7, 2), (TranslateX, 0.3, 9)],
    [(Sharpness, 0.8, 1), (Sharpness, 0.9, 3)],
    [(ShearY, 0.5, 8), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.5, 0), (Equalize, 0.9, 0)],
    [(ShearY, 0.2, 7), (Posterize, 0.3, 7)],
    [(Color, 0.4, 3), (Brightness, 0.6, 7)],
    [(Sharpness, 0.3, 9), (Brightness, 0.7, 9)],
    [(Equalize, 0.6, 0), (Equalize, 0.5, 0)],
    [(Contrast, 0.6, 7), (Sharpness, 0.6, 5)],
    [(Color, 0.7, 7), (TranslateX, 0.5, 8)],
    [(Equalize, 0.3, 0), (AutoContrast, 0.4, 0)],
    [(TranslateY, 0.4, 3), (Sharpness, 0.2, 6)],
    [(Brightness, 0.9, 6), (Color, 0.2, 8)],
    [(Solarize, 0.5, 2), (Invert, 0.0, 0)],
    [(Equalize, 0.2, 0), (AutoContrast, 0.6, 0)],
    [(Equalize, 0.2, 0), (Equalize, 0.6, 0)],
    [(Color, 0.9, 9), (Equalize, 0.6, 0)],
    [(AutoContrast, 0.8, 0), (Solarize, 0.2, 8)],
    [(Brightness, 0.1, 3), (Color, 0.7, 0)],
    [(Solarize, 0.4, 5), (AutoContrast, 0.9, 0)],
    [(TranslateY, 0.9, 9), (TranslateY, 0.7, 9)],
    [(AutoContrast, 0.9, 0), (Solarize, 0.8, 3)],
    [(Equalize, 0.8, 0), (Invert, 0.1, 0)],
    [(TranslateY, 0.7, 9), (AutoContrast, 0.9, 0)],
];

/// Applies a sub-policy drawn by `rng`.
pub fn apply(image: &mut Image, mut rng: CounterRng) {
    let policy = POLICY[rng.below(POLICY.len() as u64) as usize];
    for (operation, probability, magnitude) in policy {
        // Both are drawn for every operation, so that no draw depends on another.
        let (drawn, negative) = (rng.uniform(), rng.next_u64() >> 63 == 0);
        if drawn < probability {
            perform(image, operation, magnitude, negative);
        }
    }
}

/// The `number`-th of ten equally spaced values from 0 to `last`, as `torch.linspace` computes them.
fn spaced(last: f32, number: usize) -> f32 {
    let step = last / STRONGEST as f32;
    if number <= STRONGEST / 2 { step * number as f32 } else { last - step * (STRONGEST - number) as f32 }
}

/// Performs an operation with the `magnitude`-th of its ten magnitudes; `negative` if it goes both ways: to the left or up,
/// clockwise, or towards less.
pub fn perform(image: &mut Image, operation: Operation, magnitude: usize, negative: bool) {
    let sign = if negative { -1.0 } else { 1.0 };
    // The policy was found on images of 331 pixels a side.
    let moved = |extent: usize| f64::from(sign * spaced((150.0 / 331.0 * extent as f64) as f32, magnitude)).trunc();
    let factor = 1.0 + sign * spaced(0.9, magnitude);
    match operation {
        Invert => image.invert(),
        Contrast => image.contrast(factor),
        Rotate => image.rotate(f64::from(sign * spaced(30.0, magnitude))),
        TranslateX => image.affine([1.0, 0.0, -moved(image.width), 0.0, 1.0, 0.0]),
        TranslateY => image.affine([1.0, 0.0, 0.0, 0.0, 1.0, -moved(image.height)]),
        Sharpness => image.sharpness(factor),
        ShearY => image.affine([1.0, 0.0, 0.0, f64::from(sign * spaced(0.3, magnitude)), 1.0, 0.0]),
        AutoContrast => image.auto_contrast(),
        Equalize => image.equalize(),
        Posterize => image.posterize(8 - (magnitude as f64 / (STRONGEST as f64 / 4.0)).round_ties_even() as u32),
        Color => image.color(factor),
        Brightness => image.brightness(factor),
        Solarize => image.solarize(255.0 - spaced(255.0, magnitude)),
    }
}
