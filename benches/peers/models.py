"""The same neurons and networks in plain PyTorch (the reference), SpikingJelly and snnTorch. Used by worker.py.

A neuron is a dictionary {"tau", "reset": "soft" or "hard", "detach", "surrogate": "arctan" or "sigmoid"}:
H[t] = V[t-1] + (X[t] - V[t-1]) / tau; S[t] = H[t] >= 1; V[t] = H[t] - S[t] (soft) or H[t] (1 - S[t]) (hard).
Currents and spikes are [T, N, ...]. A network is adali's TOML, limited to what all of them have.
"""

import importlib.metadata
import math

import torch
from torch import nn

SHARPNESS = {"arctan": 2.0, "sigmoid": 4.0}
DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
SPIKINGJELLY_TYPES = {"f32": "fp32", "bf16": "bf16", "f16": "fp16"}


class Skip(Exception):
    """This peer cannot do this work here, and why."""


# Plain PyTorch: the reference


class Fire(torch.autograd.Function):
    @staticmethod
    def forward(ctx, z, surrogate):
        ctx.save_for_backward(z)
        ctx.surrogate = surrogate
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx, gradient):
        (z,) = ctx.saved_tensors
        k = SHARPNESS[ctx.surrogate]
        if ctx.surrogate == "arctan":
            return gradient * (k / 2) / (1 + (math.pi / 2 * k * z) ** 2), None
        s = torch.sigmoid(k * z)
        return gradient * k * s * (1 - s), None


class PlainLif(nn.Module):
    """State in f32, spikes in the currents' type."""

    def __init__(self, neuron):
        super().__init__()
        self.neuron = neuron

    def forward(self, currents):
        neuron, voltage, spikes = self.neuron, 0.0, []
        for current in currents:
            membrane = voltage + (current.float() - voltage) / neuron["tau"]
            spike = Fire.apply(membrane - 1.0, neuron["surrogate"])
            reset = spike.detach() if neuron["detach"] else spike
            voltage = membrane - reset if neuron["reset"] == "soft" else membrane * (1 - reset)
            spikes.append(spike.to(current.dtype))
        return torch.stack(spikes)


class EachStep(nn.Module):
    """A module of [N, ...], applied to [T, N, ...]."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class PyTorch:
    """The reference as a peer. Also the layers of snnTorch, whose own examples use PyTorch's.

    A kit makes layers and neurons, says what it is, and resets the neurons of a network between sequences.
    """

    features = {"compile", "graph", "once", "channels_last", "fused"}

    def __init__(self, provider, features, device, precision):
        if provider:
            raise Skip(f"pytorch has no provider {provider}")
        self.provider, self.features_on, self.device, self.precision = None, features, device, precision

    def what(self):
        return f"torch {torch.__version__}, a loop over the steps, state in f32"

    def layer(self, module):
        return EachStep(module)

    def neuron(self, neuron):
        return PlainLif(neuron)

    def prepare(self, network):
        """Called once, before an optimiser is made."""

    def reset(self, network):
        pass

    def autocast(self):
        return torch.autocast(self.device.type, DTYPES[self.precision], enabled=self.precision != "f32")


# snnTorch


class SnnTorchLif(nn.Module):
    """snnTorch fires at > where the others fire at >=, and has no 1/tau on the current: that is applied here."""

    def __init__(self, neuron):
        super().__init__()
        import snntorch
        from snntorch import surrogate

        if neuron["reset"] == "soft":
            raise Skip("snnTorch's soft resets are other dynamics: with delay beta misses the threshold, without it "
                       "a membrane above twice the threshold is reset twice")
        slope = surrogate.atan(alpha=SHARPNESS["arctan"])
        if neuron["surrogate"] == "sigmoid":
            slope = surrogate.sigmoid(slope=SHARPNESS["sigmoid"])
        self.scale = 1 / neuron["tau"]
        self.lif = snntorch.Leaky(beta=1 - 1 / neuron["tau"], threshold=1.0, spike_grad=slope,
                                  reset_mechanism="zero", reset_delay=neuron["detach"])

    def forward(self, currents):
        membrane, spikes = self.lif.reset_mem(), []
        for current in currents * self.scale:
            spike, membrane = self.lif(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes).to(currents.dtype)


class SnnTorch(PyTorch):
    def what(self):
        return f"snntorch {importlib.metadata.version('snntorch')}, Leaky, torch {torch.__version__}"

    def neuron(self, neuron):
        try:
            return SnnTorchLif(neuron)
        except ImportError as error:
            raise Skip(f"{error}; pip install -r benches/peers/requirements.txt") from None

    def reset(self, network):
        for module in network.modules():
            if isinstance(module, SnnTorchLif):
                module.lif.mem = module.lif.mem.detach()  # else the last graph lives on


# SpikingJelly, 2.x or 0.0.0.0.14


class FunctionalLif(nn.Module):
    """SpikingJelly 2's functional call with its state in f32; LIFNode itself keeps the state in the currents' type."""

    def __init__(self, neuron, slope):
        super().__init__()
        self.neuron, self.slope = neuron, slope

    def forward(self, currents):
        from spikingjelly.activation_based import functional

        voltage = torch.zeros_like(currents[0], dtype=torch.float32)
        return functional.lif_multi_step(
            currents, voltage, self.neuron["tau"], True, 1.0, None if self.neuron["reset"] == "soft" else 0.0,
            self.slope, self.neuron["detach"], False)[0]


class SpikingJelly(PyTorch):
    features = PyTorch.features | {"storage", "functional"}

    def __init__(self, provider, features, device, precision):
        try:
            from spikingjelly.activation_based import functional, neuron
        except ImportError as error:
            raise Skip(f"{error}; pip install -r benches/peers/requirements.txt") from None
        super().__init__(None, features, device, precision)
        self.provider, self.functional = provider, functional
        self.version = importlib.metadata.version("spikingjelly")
        self.old = self.version.startswith("0.")
        offered = ("torch", "cupy") if self.old else ("triton", "cuda", "torch")
        if provider and provider not in offered:
            raise Skip(f"spikingjelly {self.version} has no provider {provider}; it has {', '.join(offered)}")
        if provider not in (None, "torch") and device.type != "cuda":
            raise Skip(f"the {provider} provider wants --device cuda")
        if self.old:
            if features & {"storage", "functional"}:
                raise Skip(f"spikingjelly {self.version} has neither storage types nor functional neurons")
            if provider == "cupy":
                if neuron.cupy is None:
                    raise Skip("cupy is not installed")
                if features & {"graph", "compile"}:
                    raise Skip("cupy launches on a stream of its own, which torch neither captures nor compiles")
                if precision == "bf16":
                    raise Skip(f"the cupy backend of spikingjelly {self.version} has f32 and f16 only")
            return
        sixteen_bits_as_module = precision != "f32" and not features & {"storage", "functional"}
        if provider and device.type == "cuda" and sixteen_bits_as_module:
            raise Skip(f"LIFNode keeps its state in {precision}, for which spikingjelly falls back to a loop; "
                       "add +functional or +storage, or take plain sj, which does fall back")
        if "storage" in features and (device.type != "cuda" or provider not in (None, "triton")):
            raise Skip("storage types are triton's: wants --device cuda and sj:triton")
        self.implementation = "a loop of torch operations"
        if device.type == "cuda" and not sixteen_bits_as_module:
            execution = "compile" if "compile" in features else "eager"
            try:
                found = functional.neuron_implementation("lif", device, execution=execution)
            except RuntimeError as error:
                raise Skip(f"spikingjelly {self.version}: {error}") from None
            self.implementation = found["implementation"]
            if provider and self.implementation != provider:
                raise Skip(f"asked for {provider}, spikingjelly chose {self.implementation}: {found['unavailable']}")

    def what(self):
        how = f"backend {self.provider or 'torch'}" if self.old else f"LIF by {self.implementation}"
        return f"spikingjelly {self.version}, {how}, torch {torch.__version__}"

    def layer(self, module):
        """SpikingJelly's own layer of the same kind, multi-step."""
        from spikingjelly.activation_based import layer

        if isinstance(module, nn.Conv2d):
            module = layer.Conv2d(module.in_channels, module.out_channels, module.kernel_size, module.stride,
                                  module.padding, bias=module.bias is not None)
        elif isinstance(module, nn.BatchNorm2d):
            module = layer.BatchNorm2d(module.num_features)
        elif isinstance(module, nn.MaxPool2d):
            module = layer.MaxPool2d(module.kernel_size, module.stride, module.padding)
        elif isinstance(module, nn.AvgPool2d):
            module = layer.AvgPool2d(module.kernel_size, module.stride, module.padding)
        else:
            return EachStep(module)
        module.step_mode = "m"
        return module

    def neuron(self, neuron):
        from spikingjelly.activation_based import neuron as neurons, surrogate

        kind = surrogate.ATan if neuron["surrogate"] == "arctan" else surrogate.Sigmoid
        slope = kind(alpha=SHARPNESS[neuron["surrogate"]])
        if "functional" in self.features_on:
            return FunctionalLif(neuron, slope)
        options = {"backend": self.provider or "torch"} if self.old else {}
        return neurons.LIFNode(
            tau=float(neuron["tau"]), decay_input=True, v_threshold=1.0, detach_reset=neuron["detach"],
            v_reset=None if neuron["reset"] == "soft" else 0.0, surrogate_function=slope, step_mode="m", **options)

    def prepare(self, network):
        if "storage" in self.features_on:
            from spikingjelly.activation_based.precision import PrecisionConfig, prepare_model_for_precision

            kind = SPIKINGJELLY_TYPES[self.precision]
            prepare_model_for_precision(network, self.device, PrecisionConfig(mode=kind, neuron_storage=kind))

    def reset(self, network):
        self.functional.reset_net(network)


KITS = {"pytorch": PyTorch, "sj": SpikingJelly, "old": SpikingJelly, "snntorch": SnnTorch}


# Networks


class Network(nn.Module):
    """Logits [N, classes], averaged over T, of images [N, C, H, W]. Built of a kit's layers."""

    def __init__(self, text, kit, input_shape, surrogate):
        super().__init__()
        given = text.get("neuron", {})
        neuron = {"tau": given.get("tau", 2.0), "reset": given.get("reset", "soft"),
                  "detach": given.get("detach_reset", False), "surrogate": surrogate}
        self.steps, self.once = text["steps"], "once" in kit.features_on
        self.parts = nn.ModuleDict()
        channels, height, width = input_shape
        for i, layer in enumerate(text["layers"]):
            kind, first = layer["type"], i == 0 and self.once
            bias = layer.get("bias", layer.get("norm", "none") == "none")
            if kind in ("conv", "max_pool", "avg_pool"):
                kernel = layer["kernel"]
                stride, padding = layer.get("stride", 1 if kind == "conv" else kernel), layer.get("padding", 0)
                height, width = ((size + 2 * padding - kernel) // stride + 1 for size in (height, width))
            wrap = (lambda module: module) if first else kit.layer
            if kind == "conv":
                self.parts[f"{i}"] = wrap(nn.Conv2d(channels, layer["channels"], kernel, stride, padding,
                                                    bias=bias))
                channels = layer["channels"]
                if layer.get("norm") == "batch":
                    self.parts[f"{i}-norm"] = wrap(nn.BatchNorm2d(channels))
            elif kind in ("linear", "readout"):
                out = layer["features" if kind == "linear" else "classes"]
                dense = nn.Linear(channels * height * width, out, bias=bias)
                self.parts[f"{i}"] = EachStep(nn.Sequential(nn.Flatten(), dense))
                channels, height, width = out, 1, 1
            else:
                pool = nn.MaxPool2d if kind == "max_pool" else nn.AvgPool2d
                self.parts[f"{i}"] = kit.layer(pool(kernel, stride, padding))
            if kind in ("conv", "linear"):
                self.parts[f"{i}-fire"] = kit.neuron(neuron)

    def forward(self, images):
        def over_time(x):
            return x.unsqueeze(0).expand(self.steps, *x.shape)

        x, expanded = images, False
        for name, part in self.parts.items():
            if not expanded and not (self.once and name in ("0", "0-norm")):
                x, expanded = over_time(x), True
            x = part(x)
        return x.mean(0)

    def neurons(self):
        """Layer number: module."""
        return {int(name.split("-")[0]): part for name, part in self.parts.items() if name.endswith("-fire")}

    def named(self):
        """Parameters by the names of adali's model.safetensors."""
        return {adali_name(name): parameter for name, parameter in self.named_parameters()}


def adali_name(name):
    """parts.0-norm.module.weight -> layers.0.norm.weight"""
    part, kind = name.split(".")[1], name.split(".")[-1]
    return f"layers.{part.replace('-', '.')}.{kind}"
