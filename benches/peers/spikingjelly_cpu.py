#!/usr/bin/env python3
"""Training speed and memory of SpikingJelly on the CPU, alone or beside another program.

Network   conv(1->C, 3x3, pad 1) - BN - LIF - maxpool 2 - conv(C->C) - BN - LIF - maxpool 2 - linear 10, T = 4
Neuron    tau 2, decay_input, threshold 1, soft (v_reset=None) or hard (v_reset=0) reset, reset not detached
Work      forward + backward + Adam in f32, cross-entropy on the mean over T, Fashion-MNIST held in memory

One variant runs in this process and prints images/s and memory; its last line is a JSON object. Several
variants (comma-separated), or --against, run as fresh processes in turn, A/B/A/B, and give a table.
"""

import argparse
import gzip
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

T = 4
FEATURES = {
    "once": "first conv and BN once, repeated over T (same values, but running variance takes n/(n-1) of a smaller n)",
    "channels_last": "weights and images in channels_last memory format",
    "compile": "torch.compile on the network (needs a C++ compiler)",
    "malloc": "glibc keeps freed memory instead of returning it, so pages are not faulted in again each step",
    "memopt": "spikingjelly optimize_memory level 1: checkpointed LIF and pool layers, spikes packed to bits",
}
BEST = "once+channels_last+compile+malloc"
KEEP_MEMORY = "glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=4294967296"
MIB = 2**20

EPILOG = f"""variants: plain (the documented usage), best, or features joined by '+':
{chr(10).join(f"  {name:14} {text}" for name, text in FEATURES.items())}
  {"best":14} {BEST}

examples:
  spikingjelly_cpu.py --variant best                        one run
  spikingjelly_cpu.py --variant plain,best --rounds 5       two variants, interleaved
  spikingjelly_cpu.py --variant plain --epochs 3            whole epochs with test accuracy
  spikingjelly_cpu.py --variant plain,best --rounds 5 --against "PROGRAM ARGUMENTS"

PROGRAM prints, as its last line, a JSON object with "images_per_second" and "peak_rss_bytes"
("rss_after_imports_bytes" if it has one). It must do the same work: same C, batch, T, threads, training step.
Two OpenMP programs on the same cores slow each other by ten times and more: run this on a quiet machine, and
believe no round in which others used more than a few per cent of a core ("others" in the output).
The first run of a compile variant also fills the compiler's cache; that is in the warm-up, not in images/s.
"""


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--variant", default="plain", help="which SpikingJelly, see below (default plain); a,b,c to compare")
    add("--channels", type=int, default=32, help="C (default 32)")
    add("--batch", type=int, default=64, help="images per step (default 64)")
    add("--surrogate", choices=["arctan", "sigmoid", "quadratic"], default="arctan",
        help="ATan alpha=2 (default), Sigmoid alpha=4, PiecewiseQuadratic alpha=1")
    add("--reset", choices=["soft", "hard"], default="soft", help="default soft")
    add("--threads", type=int, default=2, help="torch threads (default 2)")
    add("--steps", type=int, default=100, help="timed steps (default 100)")
    add("--warmup", type=int, default=20, help="steps before timing (default 20)")
    add("--window", type=int, default=20, help="steps per timing window; the median window counts (default 20)")
    add("--epochs", type=int, default=0, help="train E whole epochs with test accuracy, instead of --steps")
    add("--seed", type=int, default=0)
    add("--data", default="/usr/share/datasets/fashion-mnist",
        help="folder of the four *-ubyte.gz files (default: Debian's dataset-fashion-mnist)")
    add("--against", metavar="COMMAND", help="another program to run in turn with this one")
    add("--rounds", type=int, default=5, help="rounds when comparing (default 5)")
    add("--json", metavar="FILE", help="also write the result there")
    args = parser.parse_args()
    for variant in args.variant.split(","):
        unknown = features_of(variant) - set(FEATURES)
        if unknown:
            parser.error(f"unknown variant {', '.join(sorted(unknown))}; known: plain, best, {', '.join(FEATURES)}")
    if not Path(args.data, "train-images-idx3-ubyte.gz").is_file():
        parser.error(f"no train-images-idx3-ubyte.gz in {args.data}; try: apt-get install dataset-fashion-mnist")
    return args


def features_of(variant):
    return set((BEST if variant == "best" else variant).split("+")) - {"plain"}


def memory(field):
    """Bytes of VmRSS (resident now) or VmHWM (its highest value so far)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"/proc/self/status has no {field}")


# One measured run


def load(folder, part):
    """Images as u8 [N,1,28,28] and labels [N]."""
    import torch

    def read(name, header):
        with gzip.open(Path(folder, f"{part}-{name}-ubyte.gz")) as file:
            return torch.frombuffer(bytearray(file.read()), dtype=torch.uint8, offset=header)

    return read("images-idx3", 16).view(-1, 1, 28, 28), read("labels-idx1", 8).long()


def build(args, features):
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from torch import nn

    slopes = {
        "arctan": lambda: surrogate.ATan(alpha=2.0),
        "sigmoid": lambda: surrogate.Sigmoid(alpha=4.0),
        "quadratic": lambda: surrogate.PiecewiseQuadratic(alpha=1.0),
    }
    channels, once = args.channels, "once" in features

    def lif():
        return neuron.LIFNode(
            tau=2.0, decay_input=True, v_threshold=1.0, v_reset=None if args.reset == "soft" else 0.0,
            surrogate_function=slopes[args.surrogate](), detach_reset=False,
        )

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Sequential(layer.Conv2d(1, channels, 3, padding=1, bias=False), layer.BatchNorm2d(channels))
            self.rest = nn.Sequential(
                lif(), layer.MaxPool2d(2, 2),
                layer.Conv2d(channels, channels, 3, padding=1, bias=False), layer.BatchNorm2d(channels),
                lif(), layer.MaxPool2d(2, 2),
                layer.Flatten(), layer.Linear(channels * 7 * 7, 10),
            )
            functional.set_step_mode(self, "m")
            if once:
                functional.set_step_mode(self.first, "s")

        def forward(self, images):
            current = self.first(images if once else repeated(images))
            return self.rest(repeated(current) if once else current).mean(0)

    def repeated(x):
        return x.unsqueeze(0).expand(T, *x.shape)

    return Network()


def run(args):
    features = features_of(args.variant)
    if "malloc" in features and KEEP_MEMORY not in os.environ.get("GLIBC_TUNABLES", ""):
        os.environ["GLIBC_TUNABLES"] = KEEP_MEMORY  # read by glibc at start-up only
        os.execv(sys.executable, [sys.executable, *sys.argv])

    import torch
    import torch.nn.functional as F
    from spikingjelly.activation_based import functional, memopt, neuron

    if "compile" in features:
        import torch._inductor.compile_fx  # noqa: F401  an import cost, not a training cost
    rss_imports = memory("VmRSS")

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    layout = torch.channels_last if "channels_last" in features else torch.contiguous_format
    images, labels = load(args.data, "train")
    test_images, test_labels = load(args.data, "t10k")
    rss_data = memory("VmRSS")

    def prepare(batch):
        return ((batch.float() / 255 - 0.2860) / 0.3530).contiguous(memory_format=layout)

    network = build(args, features).to(memory_format=layout)
    if "memopt" in features:
        from spikingjelly.activation_based import layer

        example = prepare(images[: args.batch])
        memopt.optimize_memory(network, (neuron.LIFNode, layer.MaxPool2d), lambda net: net(example), level=1)
        functional.reset_net(network)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3)
    forward = torch.compile(network) if "compile" in features else network

    def step(index):
        optimiser.zero_grad(set_to_none=True)
        loss = F.cross_entropy(forward(prepare(images[index])), labels[index])
        loss.backward()
        optimiser.step()
        functional.reset_net(network)
        return loss.item()

    def batches():
        return torch.randperm(len(images)).split(args.batch)[: len(images) // args.batch]

    def accuracy():
        network.eval()
        right = 0
        with torch.no_grad():
            for index in torch.arange(len(test_images)).split(args.batch):
                right += (network(prepare(test_images[index])).argmax(1) == test_labels[index]).sum().item()
                functional.reset_net(network)
        network.train()
        return right / len(test_images)

    clock = Windows(args.batch, args.warmup, args.window)
    accuracies = []
    if args.epochs:
        for epoch in range(1, args.epochs + 1):
            for index in batches():
                clock.time(step, index)
            accuracies.append(accuracy())
            print(f"epoch {epoch}: test accuracy {100 * accuracies[-1]:.2f} %", flush=True)
    else:
        while clock.steps < args.warmup + args.steps:
            for index in batches()[: args.warmup + args.steps - clock.steps]:
                clock.time(step, index)

    peak = memory("VmHWM")
    return {
        "program": "spikingjelly", "variant": args.variant, "channels": args.channels, "batch": args.batch,
        "surrogate": args.surrogate, "reset": args.reset, "threads": args.threads, "steps": clock.steps,
        "torch": torch.__version__, "last_loss": clock.last_result, "test_accuracy": accuracies,
        "images_per_second": statistics.median(clock.rates),
        "images_per_second_min": min(clock.rates), "images_per_second_max": max(clock.rates),
        "warmup_seconds": clock.warmup_seconds, "peak_rss_bytes": peak,
        "rss_after_imports_bytes": rss_imports, "rss_after_data_bytes": rss_data,
        "peak_beyond_imports_bytes": peak - rss_imports, "peak_beyond_data_bytes": peak - rss_data,
    }


class Windows:
    """Images per second over windows of steps, after a warm-up."""

    def __init__(self, batch, warmup, window):
        self.batch, self.warmup, self.window = batch, warmup, window
        self.steps, self.rates, self.seconds, self.warmup_seconds = 0, [], 0.0, 0.0
        self.last_result = None

    def time(self, step, index):
        start = time.perf_counter()
        self.last_result = step(index)
        seconds = time.perf_counter() - start
        self.steps += 1
        if self.steps <= self.warmup:
            self.warmup_seconds += seconds
            return
        self.seconds += seconds
        if (self.steps - self.warmup) % self.window == 0:
            self.rates.append(self.window * self.batch / self.seconds)
            self.seconds = 0.0


def report(result):
    print(f"SpikingJelly {result['variant']}, C={result['channels']}, batch {result['batch']}, T={T}, "
          f"{result['surrogate']}, {result['reset']} reset, {result['threads']} threads")
    print(f"  {result['images_per_second']:.0f} images/s (windows {result['images_per_second_min']:.0f} to "
          f"{result['images_per_second_max']:.0f}), warm-up {result['warmup_seconds']:.1f} s")
    print("  memory, MiB: " + ", ".join(
        f"{name} {result[key] / MIB:.0f}" for name, key in [
            ("imports", "rss_after_imports_bytes"), ("with data", "rss_after_data_bytes"), ("peak", "peak_rss_bytes"),
            ("peak beyond imports", "peak_beyond_imports_bytes"), ("peak beyond data", "peak_beyond_data_bytes")]))


# Several programs in turn


def busy_seconds():
    """CPU seconds spent by all programs of this machine since it started."""
    user, nice, system, _, _, irq, softirq = map(int, Path("/proc/stat").read_text().split(maxsplit=8)[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def child(command, watch=None):
    """Run a command, return its last line's JSON, the peak the kernel saw, and what other programs used meanwhile.

    `watch` is called with the number of the process, in a thread.
    """
    start, busy = time.perf_counter(), busy_seconds()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if watch:
        threading.Thread(target=watch, args=(process.pid,), daemon=True).start()
    lines = process.stdout.read().strip().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    others = busy_seconds() - busy - usage.ru_utime - usage.ru_stime
    process.returncode = os.waitstatus_to_exitcode(status)
    shown = shlex.join(command)
    if process.returncode:
        raise SystemExit(f"exit code {process.returncode} from: {shown}")
    try:
        result = json.loads(lines[-1])
        float(result["images_per_second"]), int(result["peak_rss_bytes"])
    except (IndexError, ValueError, KeyError, TypeError):
        raise SystemExit(f"last line is no JSON object with images_per_second and peak_rss_bytes, from: {shown}")
    result["kernel_peak_rss_bytes"] = usage.ru_maxrss * 1024
    result["others_cores"] = max(0.0, others / (time.perf_counter() - start))
    return result


def compare(args):
    passed = "channels batch surrogate reset threads steps warmup window epochs seed data".split()
    options = [text for name in passed for text in (f"--{name}", str(getattr(args, name)))]
    programs = {
        variant: [sys.executable, __file__, "--variant", variant, *options] for variant in args.variant.split(",")
    }
    if args.against:
        programs["against"] = shlex.split(args.against)
    results = {name: [] for name in programs}
    for number in range(1, args.rounds + 1):
        for name, command in programs.items():
            result = child(command)
            results[name].append(result)
            low, middle, high = (
                result.get(f"images_per_second{end}", math.nan) for end in ("_min", "", "_max"))
            print(f"round {number}: {name:32} {middle:6.0f} images/s (windows {low:.0f} to {high:.0f}), "
                  f"others {result['others_cores']:.2f} cores", flush=True)
    table(results)
    return results


def table(results):
    def spread(values, scale=1.0, digits=0):
        values = sorted(values)
        return "  ".join(f"{v / scale:8.{digits}f}" for v in (values[0], statistics.median(values), values[-1]))

    def values(runs, key):
        return [run[key] for run in runs]

    print(f"\n{'':40} {'images/s':^28}   {'peak RSS, MiB':^28}   beyond\n"
          f"{'':40} {'min':>8}  {'median':>8}  {'max':>8}   {'min':>8}  {'median':>8}  {'max':>8}   imports")
    for name, runs in results.items():
        beyond = [run["peak_rss_bytes"] - run.get("rss_after_imports_bytes", 0) for run in runs]
        print(f"{name:40} {spread(values(runs, 'images_per_second'))}   "
              f"{spread(values(runs, 'peak_rss_bytes'), MIB)}   {statistics.median(beyond) / MIB:7.0f}")
    reference = "against" if "against" in results else next(iter(results))
    print(f"\nratio of images/s within a round{'':8} {'min':>8}  {'median':>8}  {'max':>8}")
    for name in results:
        if name == reference:
            continue
        top, bottom = (reference, name) if reference == "against" else (name, reference)
        pairs = zip(values(results[top], "images_per_second"), values(results[bottom], "images_per_second"))
        print(f"{top + ' / ' + bottom:40} {spread([a / b for a, b in pairs], digits=2)}")


def main():
    args = parse_arguments()
    if args.against or "," in args.variant:
        result = compare(args)
    else:
        result = run(args)
        report(result)
        print(json.dumps(result))
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
