"""Writes the reference of tests/augmentations.rs: what Pillow makes of small images, one line and one hash per operation.

    pip install pillow==11.3.0  # 13 resizes some shapes vertically first, which rounds differently
    python tests/parity/augmentations.py > tests/parity/augmentations.txt

The policy's operations get torchvision's magnitudes: the `AutoAugment` of torchvision/transforms/autoaugment.py calls the
same functions of Pillow (`_apply_op`), with the matrices of torchvision/transforms/functional.py. With torchvision installed,
the script also checks its own arithmetic against `_apply_op` itself.
"""

import math
import struct
import sys

from PIL import Image, ImageEnhance, ImageOps

try:
    import torch
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.autoaugment import AutoAugment, AutoAugmentPolicy, _apply_op
except ImportError:
    torch = None

# Height, width, channels, contrast: 0 for all bytes, 1 for few.
IMAGES = [(32, 32, 3, 0), (32, 32, 3, 1), (17, 23, 3, 0), (9, 12, 1, 0), (40, 31, 1, 1)]
SIGNED = ["ShearY", "TranslateX", "TranslateY", "Rotate", "Brightness", "Color", "Contrast", "Sharpness"]
PLAIN = ["AutoContrast", "Equalize", "Invert"]


def image(height, width, channels, contrast):
    """The image of tests/augmentations.rs: a slope with noise."""

    def byte(i):
        y, x, c = i // channels // width, i // channels % width, i % channels
        value = (7 * x + 5 * y + 60 * c + (i * 2654435761 % 2**32 >> 26)) % 256
        return 40 + value // 3 if contrast else value

    data = bytes(byte(i) for i in range(height * width * channels))
    return Image.frombytes("RGB" if channels == 3 else "L", (width, height), data)


def fnv(data):
    state = 0xCBF29CE484222325
    for byte in data:
        state = (state ^ byte) * 0x100000001B3 % 2**64
    return f"{state:016x}"


def affine(img, matrix):
    return img.transform(img.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


def f32(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def spaced(last, number):
    """The `number`-th value of `torch.linspace(0, last, 10)`, which is in f32."""
    step = f32(f32(last) / 9)
    return f32(step * number) if number < 5 else f32(f32(last) - f32(step * (9 - number)))


def apply(img, name, number, sign):
    """torchvision's `_apply_op` on a Pillow image, for the `number`-th of ten magnitudes."""
    width, height = img.size
    factor = 1 + sign * spaced(0.9, number)
    if name == "ShearY":
        return affine(img, (1, 0, 0, math.tan(math.atan(sign * spaced(0.3, number))), 1, 0))
    if name == "TranslateX":
        return affine(img, (1, 0, -int(sign * spaced(150 / 331 * width, number)), 0, 1, 0))
    if name == "TranslateY":
        return affine(img, (1, 0, 0, 0, 1, -int(sign * spaced(150 / 331 * height, number))))
    if name == "Rotate":
        return img.rotate(sign * spaced(30, number), Image.Resampling.NEAREST)
    if name == "Brightness":
        return ImageEnhance.Brightness(img).enhance(factor)
    if name == "Color":
        return ImageEnhance.Color(img).enhance(factor)
    if name == "Contrast":
        return ImageEnhance.Contrast(img).enhance(factor)
    if name == "Sharpness":
        return ImageEnhance.Sharpness(img).enhance(factor)
    if name == "Posterize":
        return ImageOps.posterize(img, 8 - round(number / (9 / 4)))
    if name == "Solarize":
        return ImageOps.solarize(img, 255 - spaced(255, number))
    return {"AutoContrast": ImageOps.autocontrast, "Equalize": ImageOps.equalize, "Invert": ImageOps.invert}[name](img)


def check(img, name, number, sign, result):
    if torch is None:
        return
    width, height = img.size
    space = AutoAugment(AutoAugmentPolicy.CIFAR10)._augmentation_space(10, (height, width))
    magnitudes, _ = space[name]
    magnitude = float(magnitudes[number]) if magnitudes.ndim else 0.0
    theirs = _apply_op(img, name, sign * magnitude, InterpolationMode.NEAREST, None)
    assert theirs.tobytes() == result.tobytes(), f"{name} {number} {sign} on {img.size} differs from torchvision's"


def main():
    print("# Written by augmentations.py: height width channels contrast, operation, FNV-1a of the result.")
    for extents in IMAGES:
        img = image(*extents)
        place = " ".join(map(str, extents))
        print(place, "Itself", fnv(img.tobytes()))
        cases = [(name, number, sign) for name in SIGNED for number in range(10) for sign in (1, -1)]
        cases += [(name, number, 1) for name in ("Posterize", "Solarize") for number in range(10)]
        cases += [(name, 0, 1) for name in PLAIN]
        for name, number, sign in cases:
            result = apply(img, name, number, sign)
            check(img, name, number, sign, result)
            print(place, name, number, "+" if sign > 0 else "-", fnv(result.tobytes()))
        for height, width in [(32, 32), (64, 48), (7, 30), (30, 7), (extents[0], 50), (5, extents[1])]:
            resized = img.resize((width, height), Image.Resampling.BILINEAR)
            print(place, "Resize", height, width, fnv(resized.tobytes()))
    print("torchvision agrees" if torch else "torchvision is not installed: not compared", file=sys.stderr)


main()
