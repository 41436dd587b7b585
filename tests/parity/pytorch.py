#!/usr/bin/env python3
"""Rebuild a trained network in plain PyTorch and compare it with what adali computed.

  adali inspect RUN_FOLDER --grads ...            writes INSPECT_FILE
  python tests/parity/pytorch.py RUN_FOLDER INSPECT_FILE

A single spike that rounding flips changes every later value, so everything judged here is computed with the
spikes forced: each neuron's output is the spike in INSPECT_FILE, and the backward pass takes the surrogate slope
at PyTorch's own membrane. Each layer is then checked from the same inputs as adali's. A spike may differ from
PyTorch's only where PyTorch's membrane is within the tolerance of the threshold. A free run, in which PyTorch
fires by itself, is printed for information and not judged.

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
    """Spikes of a membrane, own or given; backward multiplies by the surrogate slope."""

    @staticmethod
    def forward(ctx, membrane, given, threshold, surrogate, bounds):
        spikes = (membrane >= threshold).to(membrane.dtype) if given is None else given
        z = (membrane - threshold) / threshold
        ctx.save_for_backward(slope(z, surrogate, bounds, spikes) / threshold)
        return spikes.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0], None, None, None, None


def fire_over_time(current, config, bounds, given):
    """Spikes and membranes (before firing) of currents, all [T, N, ...]."""
    neuron = config["neuron"]
    if bounds is not None:
        bounds = bounds.view(bounds.shape[0], *[1] * (current.dim() - 3), 4)
    voltage, spikes, membranes = torch.zeros_like(current[0]), [], []
    for t, now in enumerate(current):
        membrane = neuron["lambda"] * voltage + neuron["kappa"] * now
        spike = Fire.apply(
            membrane, None if given is None else given[t], neuron["threshold"], config["surrogate"], bounds)
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


def weight_of(layer, name, tensors):
    """The filter in use: scaled weight standardisation where the layer asks for it."""
    weight = tensors[f"{name}.weight"]
    if layer.get("norm") != "weight":
        return weight
    axes = tuple(range(1, weight.dim()))
    fan_in = weight[0].numel()
    mean = weight.mean(axes, keepdim=True)
    variance = weight.var(axes, keepdim=True, unbiased=False)
    gain = tensors[f"{name}.norm.weight"].view(-1, *[1] * len(axes))
    return gain * layer.get("weight_scale", 2.5) * (weight - mean) / torch.sqrt(variance * fan_in + WEIGHT_NORM_EPS)


def current_of(layer, name, x, tensors, train):
    """Input current of a conv, linear or readout layer for [T, N, ...]."""
    weight = weight_of(layer, name, tensors)
    bias = tensors.get(f"{name}.bias")
    if layer.get("norm") == "weight" and bias is None:
        bias = tensors.get(f"{name}.norm.bias")
    if layer["type"] == "conv":
        stride, padding = layer.get("stride", 1), layer.get("padding", 0)
        x = per_step(lambda y: F.conv2d(y, weight, bias, stride, padding), x)
    else:
        x = F.linear(x.flatten(2), weight, bias)
    if layer.get("norm") == "batch":
        mean, variance = (tensors[f"{name}.norm.running_{which}"].clone() for which in ("mean", "var"))
        scale, shift = tensors[f"{name}.norm.weight"], tensors[f"{name}.norm.bias"]
        x = per_step(lambda y: F.batch_norm(y, mean, variance, scale, shift, train, 0.1, BATCH_NORM_EPS), x)
    return x


def forward(config, tensors, x, train, given):
    """Logits per step [T, N, classes], and spikes and membranes by layer. `given`: spikes to force, or None."""
    if config["direct"]:
        x = x.expand(config["steps"], *x.shape)
    spikes, membranes = {}, {}
    for i, layer in enumerate(config["layers"]):
        name, kind = f"layers.{i}", layer["type"]
        if kind == "max_pool":
            size = layer["kernel"]
            x = per_step(lambda y: F.max_pool2d(y, size, layer.get("stride", size), layer.get("padding", 0)), x)
        elif kind == "avg_pool":
            size = layer["kernel"]
            x = per_step(lambda y: F.avg_pool2d(y, size, layer.get("stride", size)), x)
        elif kind in ("conv", "linear", "readout"):
            x = current_of(layer, name, x, tensors, train)
            if kind != "readout" or layer.get("spiking", False):
                if given is not None and f"spikes.{i}" not in given:
                    raise SystemExit(f"the inspect file has no spikes.{i}")
                forced = None if given is None else given[f"spikes.{i}"].view_as(x).to(x.dtype)
                x, membranes[i] = fire_over_time(x, config, tensors.get(f"{name}.bounds"), forced)
                spikes[i] = x
            if kind == "readout":
                return x.unflatten(2, (-1, layer.get("vote", 1))).mean(-1), spikes, membranes
        elif kind != "dropout":  # inactive in inspect
            raise SystemExit(f"unknown layer type {kind!r} in layer {i}")
    raise SystemExit("the last layer is no readout")


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

    def judge(self, good, text):
        self.passed += good
        self.failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {text}")

    def tensor(self, name, ours, reference):
        """Judge adali's tensor against PyTorch's, by norm and by worst element."""
        if ours is None:
            return self.judge(False, f"{name}: not in the inspect file")
        if ours.numel() != reference.numel():
            return self.judge(False, f"{name}: shape {tuple(ours.shape)}, PyTorch has {tuple(reference.shape)}")
        reference = reference.detach().double()
        error = (ours.double().reshape(reference.shape) - reference).abs()
        relative = (error.norm() / (reference.norm() + 1e-7 * math.sqrt(error.numel()))).item()
        worst, largest = error.max().item(), reference.abs().max().item()
        good = relative <= self.tolerance and worst <= 10 * self.tolerance * largest + 1e-6
        self.judge(good, f"{name:32} max abs error {worst:.2e} (largest {largest:.2e}), relative norm {relative:.2e}")

    def spikes(self, name, given, membrane, threshold):
        """Judge where adali's spikes differ from PyTorch's, given the same inputs."""
        given = given.view_as(membrane) > 0
        differ = given != (membrane >= threshold)
        count, total = int(differ.sum()), differ.numel()
        text = f"{name:32} {count} of {total} spikes differ, firing rate {given.double().mean():.4f}"
        distance = ((membrane - threshold).abs() / threshold)[differ]
        if count:
            text += f", |z| there at most {distance.max():.2e}"
        self.judge(count == 0 or distance.max().item() <= 10 * self.tolerance, text)


def near_window_edges(membrane, threshold, bounds, tolerance):
    """How many potentials lie so near to an end of the window that rounding may change their slope."""
    z = (membrane.detach() - threshold) / threshold
    left, right = bounds.view(bounds.shape[0], *[1] * (z.dim() - 3), 4).unbind(-1)[:2]
    return int((((z + left).abs() < tolerance) | ((z - right).abs() < tolerance)).sum())


def compare(config, tensors, seen, train, report):
    neuron, labels = config["neuron"], seen["labels"].long().flatten()
    trainable = [name for name in tensors if name.endswith((".weight", ".bias"))]
    dtype = tensors[trainable[0]].dtype
    image = seen["input"].to(dtype)

    with torch.no_grad():
        logits, spikes, _ = forward(config, tensors, image, train, None)
    print("free run, not judged:")
    for i, own in spikes.items():
        print(f"     spikes.{i}: {100 * (own != seen[f'spikes.{i}'].view_as(own)).double().mean():.4f} % differ")
    error = (logits.mean(0) - seen["logits"].to(dtype)).abs().max()
    print(f"     logits: max abs error {error:.2e}, same class for "
          f"{int((logits.mean(0).argmax(1) == seen['logits'].argmax(1)).sum())} of {len(labels)}")

    print("spikes forced:")
    for name in trainable:
        tensors[name].requires_grad_()
    logits, _, membranes = forward(config, tensors, image, train, seen)
    loss = loss_of(logits, labels, config["loss"])
    gradients = torch.autograd.grad(loss, [tensors[name] for name in trainable], allow_unused=True)
    for i, membrane in membranes.items():
        report.tensor(f"membrane.{i}", seen.get(f"membrane.{i}"), membrane)
        report.spikes(f"spikes.{i}", seen[f"spikes.{i}"], membrane.detach(), neuron["threshold"])
    report.tensor("logits_per_step", seen.get("logits_per_step"), logits)
    report.tensor("logits", seen.get("logits"), logits.mean(0))
    report.tensor("loss", seen.get("loss"), loss.reshape(1))
    for name, gradient in zip(trainable, gradients):
        report.tensor(f"grad.{name}", seen.get(f"grad.{name}"),
                      torch.zeros_like(tensors[name]) if gradient is None else gradient)
    for name in seen.keys() - {f"grad.{name}" for name in trainable}:
        if name.startswith("grad."):
            report.judge(False, f"{name}: no such parameter in the checkpoint")
    if config["surrogate"]["kind"] == "adali":
        near = sum(near_window_edges(m, neuron["threshold"], tensors[f"layers.{i}.bounds"], 1e-6)
                   for i, m in membranes.items())
        print(f"     {near} potentials within 1e-6 of an end of the window: their slope may differ by rounding")


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

    dtype = torch.float64 if args.dtype == "f64" else torch.float32
    config = read_config(args.run_folder / "config.toml")
    tensors = {name: t.to(dtype) for name, t in load_file(args.run_folder / "model.safetensors").items()}
    report = Report(args.tolerance)
    compare(config, tensors, load_file(args.inspect_file), args.train_mode, report)
    print(f"{report.passed} passed, {report.failed} failed")
    sys.exit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
