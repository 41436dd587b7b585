#!/usr/bin/env python3
"""Train every preset and every network of networks/ briefly, and compare each with PyTorch: prints a table.

  python tests/parity/all.py [--adali target/release/adali] [NAME ...]

The data are drawn here: frames, and pictures of 32x32 (digits: its own), for NAME@64 of 64x64, at which ResNets
begin with a convolution of 7x7. pytorch.py compares every network with batch statistics and with running ones.
Needs what pytorch.py needs. Exit code 1 if anything failed.
"""

import argparse
import contextlib
import io
import itertools
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytorch
from safetensors.numpy import save_file

HERE = Path(__file__).parent
FIXED = ["vgg11"]  # its width
PRESETS = ["digits", "conv2", "csnn", "dvs-gesture-net", "vggsnn", "resnet18-cifar", "resnet18-preact", "resnet19",
           "sew-resnet18", "sew-resnet34", "ms-resnet18", "ms-resnet34", "nf-resnet34", "sew-resnet18@64", "ms-resnet18@64",
           "nf-resnet34@64", *FIXED]
FRAMES = ["dvs-gesture-net", "vggsnn", "frames"]
STEPS = 5


def write_frames(path, steps, channels, pixels):
    """A file of ten classes: a blob that moves from a place of its own under noise; pictures have one step."""
    draw = np.random.default_rng(0)
    tensors, (y, x) = {}, np.mgrid[:pixels, :pixels]
    for part, count in (("train", 60), ("test", 10)):
        labels = np.arange(count) % 10
        frames = draw.poisson(0.3, (count, steps, channels, pixels, pixels))
        for i, label in enumerate(labels):
            for t in range(steps):
                row, column = pixels * (1 + label // 3) // 5 + t, pixels * (1 + label % 3) // 4 - t
                frames[i, t, t % channels] += 4 * ((y - row) ** 2 + (x - column) ** 2 < 2 * pixels)
        tensors |= {f"{part}.frames": frames.astype(np.uint8), f"{part}.labels": labels}
    save_file(tensors, path)


def options(name, folder):
    name, _, pixels = name.partition("@")
    own = HERE / "networks" / f"{name}.toml"
    network = ["--network", own if own.exists() else name]
    if name in PRESETS and name not in FIXED:
        network += ["--channels", 8]
    if name == "digits":
        return [*network, "--data", "digits"]
    if name in FRAMES:
        network += ["--steps", STEPS]
    file = folder / ("frames" if name in FRAMES else f"pictures{pixels or 32}")
    return [*network, "--data", "frames", "--data-dir", file]


def compare(adali, name, surrogate, folder, report):
    run, seen = folder / f"{name}-{surrogate}", folder / f"{name}-{surrogate}.safetensors"
    train = [adali, "train", *options(name, folder), "--surrogate", surrogate, "--limit", 60, "--batch", 15,
             "--epochs", 2, "--device", "cpu", "--quiet", "--out", run]
    subprocess.run([str(word) for word in train], check=True)
    for mode in (["--train-mode"], []):
        inspect = [adali, "inspect", run, "--grads", "--device", "cpu", "--quiet", "--force", "--out", seen, *mode]
        subprocess.run([str(word) for word in inspect], check=True)
        pytorch.compare_files(run, seen, bool(mode), "f64", report)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="presets or networks (default: all)")
    parser.add_argument("--adali", default="target/release/adali", help="the program (default %(default)s)")
    args = parser.parse_args()
    names = args.names or PRESETS + sorted(path.stem for path in (HERE / "networks").glob("*.toml"))
    failed = 0
    print("| network | surrogate | tensors that agree | that differ | largest relative error | spikes that differ |\n"
          "|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_frames(folder / "frames", STEPS, 2, 32)
        for pixels in (32, 64):
            write_frames(folder / f"pictures{pixels}", 1, 3, pixels)
        for name, surrogate in itertools.product(names, ("adali", "arctan")):
            report, text = pytorch.Report(1e-4), io.StringIO()
            with contextlib.redirect_stdout(text):
                compare(args.adali, name, surrogate, folder, report)
            spikes = f"{report.spikes_that_differ} of {report.spikes_seen}"
            row = (name, surrogate, report.passed, report.failed, f"{report.largest_error:.1e}", spikes)
            print(f"| {' | '.join(map(str, row))} |", flush=True)
            if report.failed:
                print(*[line for line in text.getvalue().splitlines() if line.startswith("FAIL")], sep="\n")
            failed += report.failed
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
