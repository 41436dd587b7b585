#!/usr/bin/env python3
"""Rebuild a trained network in plain PyTorch and compare it with what adali computed.

  adali inspect RUN_FOLDER --grads ...            writes INSPECT_FILE
  python tests/parity/pytorch.py RUN_FOLDER INSPECT_FILE

A single spike that rounding flips changes every later value, so everything judged here is computed with the
spikes forced: each neuron's output is the spike in INSPECT_FILE, and the backward pass takes the surrogate slope
at the membrane there, in f32, since rounding may move one across an end of the surrogate's window. Each layer is then
checked from the same inputs as adali's. A spike may differ from PyTorch's only where PyTorch's membrane is within
the tolerance of the threshold. A free run, in which PyTorch fires by itself, is printed for information and not
judged.

Needs torch, numpy, safetensors and Python 3.11. Exit code 1 if anything failed.
"""

import argparse
import math
import sys
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

SHARPNESS = {"sigmoid": 4.0, "arctan": 2.0, "triangle": 1.0, "softsign": 2.0}
BATCH_NORM_EPS = 1e-5
WEIGHT_NORM_EPS = 1e-4


def read_config(path):
    """The parts of config.toml that define the function, with defaults filled in."""
    text = tomllib.loads(Path(path).read_text())
    network = text["network"]
    neuron = {"model": "lif", "tau": 2.0, "decay_input": True, "threshold": 1.0, "reset": "soft", "v_reset": 0.0,
              "detach_reset": False} | network.get("neuron", {})
    surrogate = {"kind": "adali"} | network.get("surrogate", {})
    leaky = neuron["model"] == "lif"
    neuron["lambda"] = 1 - 1 / neuron["tau"] if leaky else 1.0
    neuron["kappa"] = 1 / neuron["tau"] if leaky and neuron["decay_input"] else 1.0
    surrogate["k"] = surrogate.get("sharpness", SHARPNESS.get(surrogate["kind"]))
    return {
        "steps": network["steps"],
        "direct": network["input"] == "direct",
        "neuron": neuron,
        "surrogate": surrogate,
        "loss": {"mse": 0.0, "label_smoothing": 0.0, "tet": False} | text.get("loss", {}),
        "layers": network["layers"],
    }


# Neuron


def slope(z, surrogate, bounds, spikes):
    """dS/dz; `bounds` broadcasts to [..., 4]: left, right, alpha, beta. A spike belongs to the right side."""
    kind, k = surrogate["kind"], surrogate["k"]
    if kind == "sigmoid":
        s = torch.sigmoid(k * z)
        return k * s * (1 - s)
    if kind == "arctan":
        return (k / 2) / (1 + (math.pi * k * z / 2) ** 2)
    if kind == "triangle":
        return (k - k * k * z.abs()).clamp(min=0)
    if kind == "softsign":
        return (k / 2) / (1 + k * z.abs()) ** 2
    if kind == "rectangle":
        bounds = torch.full((4,), 0.5, dtype=z.dtype)
    elif kind != "adali":
        raise SystemExit(f"unknown surrogate kind {kind!r}")
    left, right, alpha, beta = bounds.unbind(-1)
    height = torch.where(spikes > 0, beta / right, alpha / left)
    return height * ((z >= -left) & (z <= right))


class Fire(torch.autograd.Function):
    """Spikes of a membrane, or those given with theirs; backward multiplies by the surrogate slope."""

    @staticmethod
    def forward(ctx, membrane, given, threshold, surrogate, bounds):
        spikes, membrane = ((membrane >= threshold).to(membrane.dtype), membrane) if given is None else given
        z = ((membrane - threshold) / threshold).to(spikes.dtype)
        ctx.save_for_backward(slope(z, surrogate, bounds, spikes) / threshold)
        return spikes.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None, None


def fire_over_time(current, config, bounds, given):
    """Spikes and membranes (before firing) of currents, all [T, N, ...]; `given`: both, to force, or None."""
    neuron = config["neuron"]
    if bounds is not None:
        bounds = bounds.view(bounds.shape[0], *[1] * (current.dim() - 3), 4)
    voltage, spikes, membranes = torch.zeros_like(current[0]), [], []
    for t, now in enumerate(current):
        membrane = neuron["lambda"] * voltage + neuron["kappa"] * now
        spike = Fire.apply(
            membrane, given and (given[0][t], given[1][t]), neuron["threshold"], config["surrogate"], bounds)
        reset = spike.detach() if neuron["detach_reset"] else spike
        if neuron["reset"] == "soft":
            voltage = membrane - neuron["threshold"] * reset
        else:
            voltage = (1 - reset) * membrane + reset * neuron["v_reset"]
        spikes.append(spike)
        membranes.append(membrane)
    return torch.stack(spikes), torch.stack(membranes)


# Network


def per_step(function, x):
    """Apply a function of [N, ...] to [T, N, ...]."""
    return function(x.flatten(0, 1)).unflatten(0, x.shape[:2])


def populations_of(layers):
    """The layers with weights or neurons, each with its name in the checkpoint and the pools and dropouts that follow it."""
    populations = []
    for i, layer in enumerate(layers):
        if layer["type"] in ("conv", "linear", "neurons", "readout"):
            populations.append(layer | {"index": i, "label": f"layers.{i}", "after": []})
        else:
            populations[-1]["after"].append(layer)
    return populations


def weight_of(synapse, name, tensors):
    """The filter in use: scaled weight standardisation where the layer asks for it."""
    weight = tensors[f"{name}.weight"]
    if synapse.get("norm") != "weight":
        return weight
    axes = tuple(range(1, weight.dim()))
    fan_in = weight[0].numel()
    mean = weight.mean(axes, keepdim=True)
    variance = weight.var(axes, keepdim=True, unbiased=synapse.get("weight_variance") == "sample")
    gain = tensors[f"{name}.norm.weight"].view(-1, *[1] * len(axes))
    return gain * synapse.get("weight_scale", 2.5) * (weight - mean) / torch.sqrt(variance * fan_in + WEIGHT_NORM_EPS)


class Currents:
    """Currents of populations. `terms` keeps what every bias is added to: its gradient is a sum over theirs."""

    def __init__(self, tensors, train):
        self.tensors, self.train, self.terms = tensors, train, {}

    def batch_norm(self, name, x):
        mean, variance = (self.tensors[f"{name}.running_{which}"].clone() for which in ("mean", "var"))
        scale, shift = self.tensors[f"{name}.weight"], self.tensors[f"{name}.bias"]
        norm = lambda y: F.batch_norm(y, mean, variance, scale, shift, self.train, 0.1, BATCH_NORM_EPS)
        x = self.terms[f"{name}.bias"] = per_step(norm, x)
        return x

    def convolution(self, spec, name, x):
        weight, which = weight_of(spec, name, self.tensors), f"{name}.bias"
        if spec.get("norm") == "weight" and which not in self.tensors:
            which = f"{name}.norm.bias"
        bias = self.tensors.get(which)
        if "kernel" in spec:
            x = per_step(lambda y: F.conv2d(y, weight, bias, spec.get("stride", 1), spec.get("padding", 0)), x)
        else:
            x = F.linear(x.flatten(2), weight, bias)
        self.terms[which] = x
        return self.batch_norm(f"{name}.norm", x) if spec.get("norm") == "batch" else x

    def projection(self, spec, name, x):
        """What a layer's own convolution, or a shortcut, adds to the currents; `x` is what it reads, [T, N, ...]."""
        if "pool" in spec:
            x = per_step(lambda y: F.avg_pool2d(y, spec["pool"]), x)
        if f"{name}.weight" in self.tensors:
            x = self.convolution(spec, name, x)
        return x * spec.get("scale", 1.0) * self.tensors.get(f"{name}.gain", 1.0)

    def sum(self, population, x, outputs, sums):
        """A population's summed currents; `x` is the output above, `outputs` and `sums` those of named populations."""
        label = population["label"]
        total = self.projection(population, label, outputs[population["from"]] if "from" in population else x)
        for j, shortcut in enumerate(population.get("shortcuts", [])):
            taken = sums if shortcut.get("take") == "currents" else outputs
            total = total + self.projection(shortcut, f"{label}.shortcuts.{j}", taken[shortcut["from"]])
        return total


def combined(spikes, other, how):
    return {"add": spikes + other, "and": spikes * other, "iand": other * (1 - spikes)}[how]


def pooled(layer, x):
    kind, size = layer["type"], layer.get("kernel")
    if kind == "max_pool":
        return per_step(lambda y: F.max_pool2d(y, size, layer.get("stride", size), layer.get("padding", 0)), x)
    if kind == "avg_pool":
        return per_step(lambda y: F.avg_pool2d(y, size, layer.get("stride", size), layer.get("padding", 0)), x)
    if kind == "global_avg_pool":
        return x.mean((3, 4), keepdim=True)
    if kind == "dropout":  # inactive in inspect
        return x
    raise SystemExit(f"unknown layer type {kind!r}")


def forward(config, currents, x, given):
    """Logits per step [T, N, classes], and spikes and membranes by layer. `given`: those to force, or None."""
    if config["direct"]:
        x = x.expand(config["steps"], *x.shape)
    outputs, sums, spikes, membranes = {}, {}, {}, {}
    for population in populations_of(config["layers"]):
        i, label, name = population["index"], population["label"], population.get("name")
        x = sums[name] = currents.sum(population, x, outputs, sums)
        if population.get("sum_norm") == "batch":
            x = currents.batch_norm(f"{label}.sum_norm", x)
        if population.get("neurons", True) if population["type"] != "readout" else population.get("spiking", False):
            if given is not None and f"spikes.{i}" not in given:
                raise SystemExit(f"the inspect file has no spikes.{i}")
            forced = given and (given[f"spikes.{i}"].view_as(x).to(x.dtype), given[f"membrane.{i}"].view_as(x))
            x = x * population.get("sum_scale", 1.0)
            x, membranes[i] = fire_over_time(x, config, currents.tensors.get(f"{label}.bounds"), forced)
            spikes[i] = x
        if "combine" in population:
            x = combined(x, outputs[population["combine"]["from"]], population["combine"]["with"])
        for layer in population["after"]:
            x = pooled(layer, x)
        outputs[name] = x
    if population["type"] != "readout":
        raise SystemExit("the last layer is no readout")
    return x.unflatten(2, (-1, population.get("vote", 1))).mean(-1), spikes, membranes


def loss_of(logits_per_step, labels, loss):
    """(1 - mse) cross-entropy + mse x squared error to one-hot, of the mean logits, or with TET the mean over t."""

    def once(logits):
        entropy = F.cross_entropy(logits, labels, label_smoothing=loss["label_smoothing"])
        target = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        return (1 - loss["mse"]) * entropy + loss["mse"] * F.mse_loss(logits, target)

    if loss["tet"]:
        return torch.stack([once(logits) for logits in logits_per_step]).mean()
    return once(logits_per_step.mean(0))


# Comparison


class Report:
    def __init__(self, tolerance):
        self.tolerance, self.passed, self.failed = tolerance, 0, 0
        self.largest_error, self.spikes_seen, self.spikes_that_differ = 0.0, 0, 0

    def judge(self, good, text):
        self.passed += good
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {text}")

    def tensor(self, name, ours, reference, terms=None):
        """Judge adali's tensor against PyTorch's, by norm and by worst element.

        `terms`, [T, N, channels, ...], are what a bias's gradient sums. They may cancel, even to 0 before a batch norm:
        where a tenth of the sum of their magnitudes is more than the gradient, errors are relative to that.
        """
        if ours is None:
            return self.judge(False, f"{name}: not in the inspect file")
        if ours.numel() != reference.numel():
            return self.judge(False, f"{name}: shape {tuple(ours.shape)}, PyTorch has {tuple(reference.shape)}")
        reference = reference.detach().double()
        error = (ours.double().reshape(reference.shape) - reference).abs()
        scale = reference.abs()
        if terms is not None:
            scale = torch.maximum(scale, 0.1 * terms.double().abs().transpose(0, 2).flatten(1).sum(1))
        relative = (error.norm() / (scale.norm() + 1e-7 * math.sqrt(error.numel()))).item()
        worst, largest = error.max().item(), scale.max().item()
        self.largest_error = max(self.largest_error, relative)
        good = relative <= self.tolerance and worst <= 10 * self.tolerance * largest + 1e-6
        self.judge(good, f"{name:32} max abs error {worst:.2e} (scale {largest:.2e}), relative norm {relative:.2e}")

    def spikes(self, name, given, membrane, threshold):
        """Judge where adali's spikes differ from PyTorch's, given the same inputs."""
        given = given.view_as(membrane) > 0
        differ = given != (membrane >= threshold)
        count, total = int(differ.sum()), differ.numel()
        self.spikes_seen += total
        self.spikes_that_differ += count
        text = f"{name:32} {count} of {total} spikes differ, firing rate {given.double().mean():.4f}"
        distance = ((membrane - threshold).abs() / threshold)[differ]
        if count:
            text += f", |z| there at most {distance.max():.2e}"
        self.judge(count == 0 or distance.max().item() <= 10 * self.tolerance, text)


def compare(config, tensors, seen, train, report):
    neuron, labels = config["neuron"], seen["labels"].long().flatten()
    trainable = [name for name in tensors if name.endswith((".weight", ".bias", ".gain"))]
    dtype = tensors[trainable[0]].dtype
    image = seen["input"].to(dtype)

    with torch.no_grad():
        logits, spikes, _ = forward(config, Currents(tensors, train), image, None)
    print("free run, not judged:")
    for i, own in spikes.items():
        print(f"     spikes.{i}: {100 * (own != seen[f'spikes.{i}'].view_as(own)).double().mean():.4f} % differ")
    error = (logits.mean(0) - seen["logits"].to(dtype)).abs().max()
    print(f"     logits: max abs error {error:.2e}, same class for "
          f"{int((logits.mean(0).argmax(1) == seen['logits'].argmax(1)).sum())} of {len(labels)}")

    print("spikes forced:")
    for name in trainable:
        tensors[name].requires_grad_()
    currents = Currents(tensors, train)
    logits, _, membranes = forward(config, currents, image, seen)
    loss = loss_of(logits, labels, config["loss"])
    wanted = [tensors[name] for name in trainable] + list(currents.terms.values())
    gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    terms = dict(zip(currents.terms, gradients[len(trainable):]))
    for i, membrane in membranes.items():
        report.tensor(f"membrane.{i}", seen.get(f"membrane.{i}"), membrane)
        report.spikes(f"spikes.{i}", seen[f"spikes.{i}"], membrane.detach(), neuron["threshold"])
    report.tensor("logits_per_step", seen.get("logits_per_step"), logits)
    report.tensor("logits", seen.get("logits"), logits.mean(0))
    report.tensor("loss", seen.get("loss"), loss.reshape(1))
    for name, gradient in zip(trainable, gradients):
        report.tensor(f"grad.{name}", seen.get(f"grad.{name}"),
                      torch.zeros_like(tensors[name]) if gradient is None else gradient, terms.get(name))
    for name in seen.keys() - {f"grad.{name}" for name in trainable}:
        if name.startswith("grad."):
            report.judge(False, f"{name}: no such parameter in the checkpoint")


def compare_files(run_folder, inspect_file, train, dtype, report):
    dtype = torch.float64 if dtype == "f64" else torch.float32
    config = read_config(run_folder / "config.toml")
    tensors = {name: t.to(dtype) for name, t in load_file(run_folder / "model.safetensors").items()}
    compare(config, tensors, load_file(inspect_file), train, report)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run_folder", type=Path, help="holds config.toml and model.safetensors")
    parser.add_argument("inspect_file", type=Path, help="safetensors file from adali inspect --grads")
    parser.add_argument("--train-mode", action="store_true",
                        help="inspect used batch statistics in batch norm (default: the running ones)")
    parser.add_argument("--dtype", choices=["f32", "f64"], default="f64", help="what PyTorch computes in (default f64)")
    parser.add_argument("--tolerance", type=float, default=1e-4,
                        help="relative norm of the error allowed in a tensor; ten times that, of the largest value, "
                             "in an element; ten times that in |z| for a differing spike (default 1e-4)")
    args = parser.parse_args()

    report = Report(args.tolerance)
    compare_files(args.run_folder, args.inspect_file, args.train_mode, args.dtype, report)
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
