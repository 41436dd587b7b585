"""A network of adali's presets in SpikingJelly 2, trained as adali trains it. Used by residual.py.

The network is built of SpikingJelly's layers from adali's config.toml and begins with the weights of its
model.safetensors. Samples, their order, loss, SGD and learning rates are adali's.
"""

import math
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

import spikingjelly_cpu as sj

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "parity"))
WORD, GAMMA = 2**64 - 1, 0x9E3779B97F4A7C15
TIME_OVERFLOWED = 240  # N-MNIST's y of a mark that is no event
WARMUP, WINDOW = 5, 5


# adali's order of samples: src/random.rs and src/data/sampling.rs


def mix(z):
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & WORD
    z = (z ^ z >> 27) * 0x94D049BB133111EB & WORD
    return z ^ z >> 31


def order_of(samples, epoch, seed=0):
    state = mix(seed + GAMMA & WORD)
    for case in (1, epoch):
        state = mix(~mix(state + case * GAMMA & WORD) & WORD)
    samples = list(samples)
    for last in range(len(samples) - 1, 0, -1):
        while True:
            state = state + GAMMA & WORD
            product = mix(state) * (last + 1)
            if product & WORD >= (2**64 - last - 1) % (last + 1):
                break
        other = product >> 64
        samples[last], samples[other] = samples[other], samples[last]
    return samples


assert order_of(range(8), 3, 42) == [4, 3, 0, 2, 6, 7, 5, 1]  # as in adali's tests


def load(args, part):
    """Bytes [N, C, H, W] or frames [N, T, C, H, W], and labels."""
    import torch

    folder = Path(args.data_dir)
    if args.data == "cifar10":
        names = [f"data_batch_{i}.bin" for i in range(1, 6)] if part == "train" else ["test_batch.bin"]
        data = np.concatenate([np.fromfile(folder / name, np.uint8).reshape(-1, 3073) for name in names])
        return torch.from_numpy(data[:, 1:].reshape(-1, 3, 32, 32).copy()), torch.from_numpy(data[:, 0]).long()
    paths = sorted((folder / part.title()).glob("*/*.bin"))
    frames = np.zeros((len(paths), args.steps, 2, 34, 34), np.int32)
    for sample, path in zip(frames, paths):
        x, y, sign, *_ = np.fromfile(path, np.uint8).reshape(-1, 5).astype(int).T
        assert y.max() < TIME_OVERFLOWED, path
        step = np.minimum(np.arange(len(x)) // (len(x) // args.steps), args.steps - 1)
        np.add.at(sample, (step, sign >> 7, y, x), 1)
    labels = torch.tensor([int(path.parent.name) for path in paths])
    return torch.from_numpy(frames.clip(max=255).astype(np.uint8)), labels


def network_of(config, tensors, features):
    """The network and a dictionary of its parameters by adali's names, whose values they take."""
    import pytorch as parity
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from torch import nn

    given, populations = config["neuron"], parity.populations_of(config["layers"])
    steps = config["steps"]
    once = config["direct"] and "once" in features
    usual = {"gain": None, "scale": 1, "sum_norm": "none", "sum_scale": 1, "pool": None, "spiking": False, "vote": 1}
    for spec in [p for p in populations] + [s for p in populations for s in p.get("shortcuts", [])]:
        assert all(spec.get(key, value) == value for key, value in usual.items()), spec
        assert spec.get("neurons", True), spec
    assert given["threshold"] == 1 and config["surrogate"]["kind"] == "arctan"

    def neurons():
        options = {"v_threshold": 1.0, "v_reset": None if given["reset"] == "soft" else given["v_reset"],
                   "surrogate_function": surrogate.ATan(alpha=config["surrogate"]["k"]),
                   "detach_reset": given["detach_reset"]}
        if given["model"] == "if":
            return neuron.IFNode(**options)
        return neuron.LIFNode(tau=given["tau"], decay_input=given["decay_input"], **options)

    def pool(spec):
        if spec["type"] == "global_avg_pool":
            return layer.AdaptiveAvgPool2d(1)
        kind = {"max_pool": layer.MaxPool2d, "avg_pool": layer.AvgPool2d}[spec["type"]]
        return kind(spec["kernel"], spec.get("stride", spec["kernel"]), spec.get("padding", 0))

    def projection(name, spec):
        """A convolution or matrix, and its norm; nothing if there are no weights."""
        if f"{name}.weight" not in tensors:
            return nn.Identity()
        out, into, *kernel = tensors[f"{name}.weight"].shape
        bias = f"{name}.bias" in tensors
        if kernel:
            parts = [layer.Conv2d(into, out, kernel, spec.get("stride", 1), spec.get("padding", 0), bias=bias)]
        else:
            parts = [layer.Flatten(), layer.Linear(into, out, bias=bias)]
        named[name] = parts[-1]
        if spec.get("norm") == "batch":
            parts.append(layer.BatchNorm2d(out))
            named[f"{name}.norm"] = parts[-1]
        return nn.Sequential(*parts)

    class Population(nn.Module):
        def __init__(self, spec):
            super().__init__()
            label = spec["label"]
            self.own = projection(label, spec)
            shortcuts = enumerate(spec.get("shortcuts", []))
            self.shortcuts = nn.ModuleList(projection(f"{label}.shortcuts.{j}", s) for j, s in shortcuts)
            self.neurons = None if spec["type"] == "readout" else neurons()
            self.after = nn.Sequential(*map(pool, spec["after"]))

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.populations = nn.ModuleList(map(Population, populations))
            functional.set_step_mode(self, "m")
            if once:
                functional.set_step_mode(self.populations[0].own, "s")

        def forward(self, x):
            """Logits [T, N, classes] of images [N, C, H, W] or frames [T, N, C, H, W]."""
            outputs, sums = {}, {}
            if config["direct"] and not once:
                x = x.expand(steps, *x.shape)
            for i, (spec, part) in enumerate(zip(populations, self.populations)):
                x = part.own(outputs[spec["from"]] if "from" in spec else x)
                if once and i == 0:
                    x = x.expand(steps, *x.shape)
                for shortcut, added in zip(spec.get("shortcuts", []), part.shortcuts):
                    x = x + added((sums if shortcut.get("take") == "currents" else outputs)[shortcut["from"]])
                sums[spec.get("name")] = x
                if part.neurons is None:
                    return x
                x = part.neurons(x)
                if "combine" in spec:
                    x = parity.combined(x, outputs[spec["combine"]["from"]], spec["combine"]["with"])
                x = outputs[spec.get("name")] = part.after(x)

    named = {}
    network = Network()
    parameters = {f"{name}.{kind}": p for name, module in named.items() for kind, p in module.named_parameters()}
    assert parameters.keys() == {name for name in tensors if name.endswith((".weight", ".bias"))}
    for name, parameter in parameters.items():
        parameter.data.copy_(tensors[name].view_as(parameter))
    return network


def train(args):
    features = sj.features_of(args.variant)
    if "malloc" in features and sj.KEEP_MEMORY not in os.environ.get("GLIBC_TUNABLES", ""):
        os.environ["GLIBC_TUNABLES"] = sj.KEEP_MEMORY  # read by glibc at start-up only
        os.execv(sys.executable, [sys.executable, *sys.argv])
    import pytorch as parity
    import torch
    from safetensors.torch import load_file
    from spikingjelly.activation_based import functional

    if "compile" in features:
        import torch._inductor.compile_fx  # noqa: F401  an import cost, not a training cost
    imports = sj.memory("VmRSS")
    torch.set_num_threads(1)
    layout = torch.channels_last if "channels_last" in features else torch.contiguous_format
    config = parity.read_config(args.out / "start" / "config.toml")
    network = network_of(config, load_file(args.out / "start" / "model.safetensors"), features).to(memory_format=layout)
    forward = torch.compile(network) if "compile" in features else network
    optimiser = torch.optim.SGD(network.parameters(), lr=args.rate, momentum=0.9, weight_decay=1e-4)
    (images, labels), (test_images, test_labels) = load(args, "train"), load(args, "test")
    mean, deviation = (torch.tensor(v).view(3, 1, 1) for v in ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]))
    training = range(len(labels))
    if args.limit < len(labels):
        training = sorted(order_of(training, 0)[: args.limit])
    per_epoch = len(training) // args.batch
    used = per_epoch * args.batch
    clock, losses, epochs, right, cpu = sj.Windows(args.batch, WARMUP, WINDOW), [], [], 0, 0.0

    def prepare(x):
        if args.data == "cifar10":
            return ((x.float() / 255 - mean) / deviation).contiguous(memory_format=layout)
        x = x.transpose(0, 1)  # time first
        return x.flatten(0, 1).float().contiguous(memory_format=layout).unflatten(0, x.shape[:2])

    def step(index):
        nonlocal right, cpu
        if len(losses) == WARMUP:
            cpu = time.process_time()
        share = len(losses) / (per_epoch * args.epochs)
        optimiser.param_groups[0]["lr"] = args.rate * 0.5 * (1 + math.cos(math.pi * share))
        optimiser.zero_grad(set_to_none=True)
        logits = forward(prepare(images[index]))
        loss = parity.loss_of(logits, labels[index], config["loss"])
        loss.backward()
        optimiser.step()
        functional.reset_net(network)
        right += (logits.mean(0).argmax(1) == labels[index]).sum().item()
        losses.append(loss.item())

    def accuracy():
        network.eval()
        found = 0
        with torch.no_grad():
            for index in torch.arange(len(test_labels)).split(args.batch):
                found += (network(prepare(test_images[index])).mean(0).argmax(1) == test_labels[index]).sum().item()
                functional.reset_net(network)
        network.train()
        return found / len(test_labels)

    for epoch in range(1, args.epochs + 1):
        right = 0
        for index in torch.tensor(order_of(training, epoch)[:used]).split(args.batch):
            clock.time(step, index)
        epochs.append({"train_loss": statistics.mean(losses[-per_epoch:]), "train_accuracy": right / used})
        used_cpu = time.process_time() - cpu
        if args.test:
            epochs[-1]["test_accuracy"] = accuracy()
        print(f"SpikingJelly epoch {epoch}: {epochs[-1]}", file=sys.stderr, flush=True)
    peak, rates = sj.memory("VmHWM"), clock.rates or [0.0]
    return {"images_per_second": statistics.median(rates), "images_per_second_min": min(rates),
            "images_per_second_max": max(rates), "peak_rss_bytes": peak, "rss_after_imports_bytes": imports,
            "images_per_cpu_second": 0.0 if args.test else max(len(losses) - WARMUP, 0) * args.batch / used_cpu,
            "torch": torch.__version__, "epochs": epochs}
