"""One peer in one process, started by peers.py: a JSON request a line on stdin, a JSON answer a line on stdout.

  {"do": "prepare", "case": {...}, "warmup": n}   builds the work, proves parity, warms up
  {"do": "turn", "iterations": n}                 seconds of each iteration
A case is {"level": "neuron", "steps", "shape", "neuron"} or {"level": "network", "text", "input", "batch",
"surrogate", "optimizer"}. {"do": "adali_parity"} wants "adali", a folder, in it. An answer has "skipped" or "failed" if that is what happened.
"""

import gc
import json
import math
import os
import sys
import time
import traceback
from pathlib import Path

answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what libraries print must not come between

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

from models import DTYPES, KITS, Network, PlainLif, PyTorch, Skip, adali_name  # noqa: E402

LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 0.01, 0.9, 1e-4
MIB = 2**20


class Clock:
    """Marks on the device's time line (CUDA events), or the host's."""

    def __init__(self, device):
        self.cuda = device.type == "cuda"

    def mark(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def seconds(self, marks):
        """Between successive marks of one iteration, after synchronize()."""
        if self.cuda:
            return [a.elapsed_time(b) / 1e3 for a, b in zip(marks, marks[1:])]
        return [b - a for a, b in zip(marks, marks[1:])]


def cosine(a, b):
    a, b = a.detach().double().flatten(), b.detach().double().flatten()
    norms = a.norm() * b.norm()
    return (a @ b / norms).item() if norms > 0 else float(a.norm() == b.norm())


def size_ratio(a, b):
    """What a cosine does not see."""
    a, b = a.detach().double().norm().item(), b.detach().double().norm().item()
    return a / b if b > 0 else float(a == b) or math.inf


def differing(a, b):
    return ((a.detach() > 0) != (b.detach() > 0)).double().mean().item()


def captured(work):
    """`work` as a CUDA graph: warmed up on a side stream, as torch asks."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(5):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=side):
        work()
    return graph.replay


class true_f32:
    """TF32 off within, for what the reference computes."""

    def __enter__(self):
        self.before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        set_tf32(False)

    def __exit__(self, *_):
        torch.set_float32_matmul_precision(self.before[0])
        torch.backends.cudnn.allow_tf32 = self.before[1]


def set_tf32(on):
    torch.set_float32_matmul_precision("high" if on else "highest")
    torch.backends.cudnn.allow_tf32 = on


class NeuronWork:
    """Forward and backward of neurons alone, from currents to the gradient of the currents."""

    def __init__(self, case, kit, device, dtype):
        self.kit, self.device, self.clock = kit, device, Clock(device)
        generator = torch.Generator().manual_seed(0)
        size = [case["steps"], *case["shape"]]
        currents = (0.5 + 1.5 * torch.randn(size, generator=generator)).to(device, dtype)
        self.currents = currents.requires_grad_()
        self.gradient = torch.randn(size, generator=generator).to(device, dtype)
        self.neuron = case["neuron"]
        module = torch.nn.Sequential(kit.neuron(self.neuron)).to(device)
        kit.prepare(module)
        forward = torch.compile(module) if "compile" in kit.features_on else module
        self.module, self.forward, self.replay = module, forward, None
        self.flushed = torch.empty(256 * MIB, dtype=torch.uint8, device=device) if self.clock.cuda else None

    def both(self):
        spikes = self.forward(self.currents)
        middle = None if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing() else self.clock.mark()
        (slopes,) = torch.autograd.grad(spikes, self.currents, self.gradient)
        self.kit.reset(self.module)
        self.result = spikes.detach(), slopes
        return middle

    def capture(self):
        self.replay = captured(self.both)

    def iteration(self):
        """Marks of one iteration; the caches are emptied before it, as after a layer between."""
        if self.flushed is not None:
            self.flushed.zero_()
        start = self.clock.mark()
        if self.replay:
            self.replay()
            return [start, self.clock.mark()]
        middle = self.both()
        return [start, middle, self.clock.mark()]

    def parity(self):
        self.iteration()
        spikes, slopes = self.result
        own = self.currents.detach().clone().requires_grad_()
        expected = PlainLif(self.neuron)(own)
        (gradient,) = torch.autograd.grad(expected, own, self.gradient)
        return {"spikes_differ": differing(spikes, expected), "cosine": cosine(slopes, gradient),
                "size_ratio": size_ratio(slopes, gradient), "firing_rate": expected.detach().double().mean().item()}


class NetworkWork:
    """A training step of a network: forward, cross-entropy, backward, optimiser."""

    def __init__(self, case, kit, device):
        self.case, self.kit, self.device, self.clock = case, kit, device, Clock(device)
        features, self.replay = kit.features_on, None
        torch.manual_seed(0)
        self.layout = torch.channels_last if "channels_last" in features else torch.contiguous_format
        shape = case["input"]
        self.network = Network(case["text"], kit, shape, case["surrogate"]).to(device, memory_format=self.layout)
        images = torch.randn(case["batch"], *shape)
        self.images = images.to(device).contiguous(memory_format=self.layout)
        self.labels = torch.randint(10, (case["batch"],)).to(device)
        kit.prepare(self.network)
        options = {"fused": True} if "fused" in features else {}
        parameters = self.network.parameters()
        if case["optimizer"] == "adam":
            capturable = {"capturable": True} if "graph" in features else {}
            self.optimizer = torch.optim.Adam(parameters, lr=1e-3, weight_decay=WEIGHT_DECAY, **options, **capturable)
        else:
            self.optimizer = torch.optim.SGD(
                parameters, lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, **options)
        self.forward = torch.compile(self.network) if "compile" in features else self.network
        scaled = kit.precision == "f16" and device.type == "cuda"
        self.scaler = torch.amp.GradScaler(device.type, init_scale=1024.0, enabled=scaled)  # parity is its first step
        if self.scaler.is_enabled() and "graph" in features:
            raise Skip("f16's gradient scaler decides on the host, which no graph can hold; take bf16")

    def step(self):
        self.optimizer.zero_grad(set_to_none=True)
        with self.kit.autocast():
            logits = self.forward(self.images)
        loss = F.cross_entropy(logits.float(), self.labels)
        self.scaler.scale(loss).backward()
        self.loss = loss.detach()  # a live autograd graph would tie a later capture to this stream
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.kit.reset(self.network)

    def capture(self):
        self.replay = captured(self.step)

    def iteration(self):
        start = self.clock.mark()
        (self.replay or self.step)()
        return [start, self.clock.mark()]

    def parity(self):
        """Spikes of each layer, eager; gradients of a step as it is timed; both against the reference."""
        state = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        spikes = spikes_of(self.network, self.kit, self.images)
        self.kit.reset(self.network)
        self.network.load_state_dict(state)
        self.iteration()
        gradients = {name: parameter.grad.clone() for name, parameter in self.network.named().items()}
        plain = PyTorch(None, set(), self.device, "f32")
        reference = self.built_with(plain, state)
        with true_f32():
            expected_spikes, expected, loss = seen_by(reference, plain, self.images, self.labels)
        result = compared(spikes, expected_spikes, gradients, expected)
        result["loss_differs"] = abs(self.loss.item() - loss) / loss
        if self.kit.precision != "f32" or torch.backends.cudnn.allow_tf32:
            # Rounding alone flips spikes, and a flipped spike changes all that come after it. So: how far rounding
            # takes plain PyTorch, and this peer's own layers in f32.
            floor = PyTorch(None, set(), self.device, self.kit.precision)
            rounded = seen_by(self.built_with(floor, state), floor, self.images, self.labels)
            result["rounding"] = compared(rounded[0], expected_spikes, rounded[1], expected)
            exact = same_in_f32(self.kit)
            with true_f32():
                own = seen_by(self.built_with(exact, state), exact, self.images, self.labels)
            result["in_f32"] = compared(own[0], expected_spikes, own[1], expected)
        return result

    def built_with(self, kit, state):
        """The network of another kit with these weights."""
        network = Network(self.case["text"], kit, self.case["input"], self.case["surrogate"]).to(self.device)
        kit.prepare(network)
        given = {adali_name(name): tensor for name, tensor in state.items()}
        with torch.no_grad():
            for name, tensor in network.state_dict().items():
                if adali_name(name) in given:
                    tensor.copy_(given[adali_name(name)])
        return network


def same_in_f32(kit):
    """This peer's layers and neurons, eager, in f32."""
    return type(kit)(kit.provider, kit.features_on - {"compile", "graph"}, kit.device, "f32")


def seen_by(network, kit, images, labels):
    """Spikes of each layer, gradients by name, loss: eager, in training mode."""
    spikes = spikes_of(network, kit, images)
    kit.reset(network)
    with kit.autocast():
        logits = network(images)
    loss = F.cross_entropy(logits.float(), labels)
    scale = 4096 if kit.precision == "f16" else 1  # f16's least numbers; a cosine has no scale
    (scale * loss).backward()
    kit.reset(network)
    return spikes, {name: parameter.grad for name, parameter in network.named().items()}, loss.item()


def parity_with_adali(case, kit, device):
    """The same network, weights and samples that adali inspected, run by this peer's layers and neurons, eager."""
    from safetensors.torch import load_file

    folder = Path(case["adali"])
    seen, weights = (load_file(folder / name) for name in ("inspect.safetensors", "run/model.safetensors"))
    images, labels = seen["input"].to(device), seen["labels"].to(device)
    network = Network(case["text"], kit, images.shape[1:], case["surrogate"]).to(device)
    kit.prepare(network)
    named = network.named()
    theirs = {name.removeprefix("grad.") for name in seen if name.startswith("grad.")}
    if theirs != set(named):
        raise ValueError(f"adali and the peers disagree on parameters: {', '.join(sorted(theirs ^ set(named)))}")
    with torch.no_grad():
        for name, parameter in named.items():
            parameter.copy_(weights[name])
    with true_f32():
        spikes, gradients, _ = seen_by(network, kit, images, labels)
    given = {i: seen[f"spikes.{i}"].to(device).view_as(spikes[i]) for i in spikes}
    return compared(spikes, given, gradients, {
        name: seen[f"grad.{name}"].to(device).view_as(parameter) for name, parameter in named.items()})


def spikes_of(network, kit, images):
    """Spikes by layer number of a forward pass in training mode."""
    spikes = {}
    hooks = [module.register_forward_hook(lambda _module, _input, output, i=i: spikes.update({i: output.detach()}))
             for i, module in network.neurons().items()]
    with torch.no_grad(), kit.autocast():
        network(images)
    for hook in hooks:
        hook.remove()
    return spikes


def compared(spikes, expected_spikes, gradients, expected):
    cosines = {name: cosine(gradients[name], expected[name]) for name in expected}
    worst = min(cosines, key=cosines.get)
    total = sum(s.numel() for s in spikes.values())
    return {
        "spikes_differ": sum(differing(spikes[i], expected_spikes[i]) * spikes[i].numel() for i in spikes) / total,
        "firing_rate": sum((s > 0).sum().item() for s in expected_spikes.values()) / total,
        "cosine": cosines[worst], "worst": worst,
        "size_ratio": max((size_ratio(gradients[name], expected[name]) for name in expected), key=lambda r: abs(r - 1)),
    }


class Worker:
    def __init__(self, peer, settings):
        self.settings, self.work = settings, None
        self.device = torch.device(settings["device"])
        if self.device.type == "cuda":
            if not torch.cuda.is_available():
                raise Skip("torch finds no CUDA device")
            torch.cuda.set_device(self.device.index or 0)
        torch.set_num_threads(settings["threads"])
        torch.backends.cudnn.benchmark = True
        set_tf32(settings["tf32"])
        name, *features = peer.split("+")
        library, _, provider = name.partition(":")
        self.kit_arguments = KITS[library], provider or None, set(features)
        unknown = set(features) - KITS[library].features
        if unknown:
            raise Skip(f"{library} has no {', '.join(sorted(unknown))}")
        if "graph" in features and self.device.type != "cuda":
            raise Skip("CUDA graphs want --device cuda")

    def hello(self, _request):
        machine = {"torch": torch.__version__, "threads": torch.get_num_threads()}
        if self.device.type == "cuda":
            properties = torch.cuda.get_device_properties(self.device)
            machine |= {"gpu": properties.name, "memory_mib": properties.total_memory // MIB,
                        "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
        return {"machine": machine}

    def prepare(self, request):
        self.work = None
        gc.collect()
        case, (make, provider, features) = request["case"], self.kit_arguments
        if case["level"] == "neuron":
            features = features - {"once", "channels_last", "fused"}
        precision = self.settings["precision"]
        kit = make(provider, features, self.device, precision)
        if case["level"] == "neuron":
            work = NeuronWork(case, kit, self.device, DTYPES[precision])
        else:
            work = NetworkWork(case, kit, self.device)
        if "graph" in features:
            work.capture()
        parity = work.parity()
        self.work = work
        self.turn({"iterations": request["warmup"]})
        return {"what": kit.what(), "parity": parity}

    def adali_parity(self, request):
        make, provider, features = self.kit_arguments
        kit = make(provider, features - {"compile", "graph"}, self.device, "f32")
        return {"parity": parity_with_adali(request["case"], kit, self.device)}

    def turn(self, request):
        cuda = self.device.type == "cuda"
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        gc.disable()
        for _ in range(3):
            self.work.iteration()
        marks = [self.work.iteration() for _ in range(request["iterations"])]
        if cuda:
            torch.cuda.synchronize()
        gc.enable()
        seconds = [self.work.clock.seconds(m) for m in marks]
        peak = torch.cuda.max_memory_reserved() if cuda else None
        if cuda:
            torch.cuda.empty_cache()  # the other peers need the memory
        return {"seconds": seconds, "peak_bytes": peak}


def main():
    peer, settings = sys.argv[1], json.loads(sys.argv[2])
    worker, broken = None, None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if broken:
                raise broken
            if worker is None:
                worker = Worker(peer, settings)
            answer = getattr(worker, request["do"])(request)
        except Skip as skip:
            broken = skip if worker is None else None
            answer = {"skipped": str(skip)}
        except Exception as error:  # noqa: BLE001  whatever a library throws is reported, and the others go on
            traceback.print_exc()
            answer = {"failed": f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0]}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
