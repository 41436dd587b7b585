#!/usr/bin/env python3
"""The same work in adali, SpikingJelly, snnTorch and plain PyTorch: parity first, then time, in turns, in one table.

  neuron   L0  forward and backward of LIF neurons alone
  block    L1  a training step of a stem and four equal blocks conv-BN-LIF (block.toml)
  step     L2  a training step of a small classifier (step.toml, or --network)

Every peer is a process of its own that stays up and is asked in turn, A/B/A/B; adali is started afresh for every turn.
A peer whose spikes or gradients are not the reference's is not timed. README.md here says what is compared.
"""

import argparse
import sys
import tempfile
import tomllib
from pathlib import Path

from contest import Adali, Contest, Peer, Unusable

HERE = Path(__file__).resolve().parent
PEERS = """peers: LIBRARY[:PROVIDER][+FEATURE...], separated by commas
  pytorch          the reference itself, a loop over the steps
  sj               SpikingJelly as it chooses; sj:triton, sj:cuda, sj:torch (2.x), sj:cupy, sj:torch (0.0.0.0.14)
  old              the same in --old-python, an environment with the other SpikingJelly
  snntorch         snnTorch (hard reset only: its soft resets are other dynamics)
features:
  compile          torch.compile             graph         one CUDA graph of the whole iteration
  once             first conv and norm once  channels_last memory format        fused   fused optimiser
  storage          SpikingJelly 2 PrecisionConfig(neuron_storage), 16-bit state, by triton
  functional       SpikingJelly 2 lif_multi_step with f32 state, for 16-bit currents
  tuned            once+channels_last+fused and, on CUDA, +graph (of neurons alone: graph)
  best             tuned+compile
"""
EXAMPLES = """examples:
  peers.py neuron                                            small, on the CPU, under a minute
  peers.py neuron --reset soft,hard-detached --steps 4,8,16 --surrogate arctan,sigmoid
  peers.py step --adali target/release/adali --peers sj,sj+best
  peers.py neuron --device cuda --shape N=1,C=1024,H=32,W=32 --steps 4,8,16,32
  peers.py neuron --device cuda --precision f16 --shape N=64,C=64,H=32,W=32 --steps 8,16,32 --old-python OLD/bin/python
  peers.py step --device cuda --precision bf16 --batch 64,8 --adali ./adali --json step.json
  peers.py block --device cuda --precision bf16 --channels 64,128,256 --steps 4,16

Exit codes: 0 done, or skipped for the reason given; 1 something failed, lacks parity, or no peer ran at all;
2 an argument cannot be used.
"""
DEFAULT_PEERS = {
    ("neuron", "cpu", "f32"): "pytorch,sj,snntorch",
    ("neuron", "cuda", "f32"): "pytorch,pytorch+compile,sj:torch,sj:cuda,sj:triton,sj:triton+compile,sj:triton+graph,"
                               "snntorch,snntorch+compile",
    ("neuron", "cuda", "16"): "pytorch,pytorch+compile,sj,sj:cuda+functional,sj:triton+functional,"
                              "sj:triton+functional+compile,sj:triton+functional+graph,sj:triton+storage,"
                              "sj:triton+storage+graph,snntorch,snntorch+compile",
    ("network", "cpu", "f32"): "pytorch,sj,sj+tuned,snntorch",
    ("network", "cuda", "f32"): "pytorch,pytorch+best,sj:torch,sj:cuda,sj:triton,sj:triton+best,snntorch,snntorch+best",
    ("network", "cuda", "16"): "pytorch,pytorch+best,sj,sj:cuda+functional,sj:triton+functional,sj:triton+storage,"
                               "sj:triton+functional+best,sj:triton+storage+tuned,"
                               "snntorch,snntorch+best",
}
FEATURES = {"compile", "graph", "once", "channels_last", "fused", "storage", "functional", "tuned", "best"}
OLD_PEERS = ",old:cupy,old:torch"


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=PEERS + "\n" + EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("level", choices=["neuron", "block", "step"])
    add = parser.add_argument
    add("--device", default="cpu", help="cpu (default), cuda or cuda:N")
    add("--precision", choices=["f32", "bf16", "f16"], default="f32", help="16 bits by autocast (default f32)")
    add("--tf32", action="store_true", help="let f32 multiply in TF32 (default off)")
    add("--threads", type=int, default=1, help="threads on the CPU, for all (default 1)")
    add("--peers", help="see below; the default depends on level, device and precision")
    add("--adali", metavar="FILE", help="the adali program, for parity and for its rows")
    add("--python", default=sys.executable, metavar="FILE", help="Python of the peers (default: this one)")
    add("--old-python", metavar="FILE", help="Python of an environment with spikingjelly 0.0.0.0.14: adds old:…")
    add("--steps", help="T, a list (default: neuron 4,8; block and step 4; on CUDA 4,8,16,32; 4,16; 16)")
    add("--surrogate", default="arctan", help="arctan, sigmoid (default arctan)")
    add("--reset", default="soft,hard-detached", help="neuron: soft, hard, soft-detached, hard-detached, a list")
    add("--shape", help="neuron: N=1,C=1024,H=32,W=32 (default on CUDA; CPU: C=32)")
    add("--network", metavar="FILE", help="block and step: another network, in adali's TOML")
    add("--input", help="block and step: CxHxW (default on CUDA 3x32x32 and 3x64x64; CPU 3x16x16)")
    add("--batch", help="block and step: images, a list (default on CUDA 32 and 64,8; CPU 4)")
    add("--channels", help="block: C, a list (default 64; CPU 16)")
    add("--optimizer", choices=["sgd", "adam"], default="sgd", help="block and step: momentum 0.9 (default), or Adam")
    add("--rounds", type=int, help="turns of each (default 5; CPU 3)")
    add("--iterations", type=int, help="timed iterations in all turns together (default 100; CPU 15)")
    add("--warmup", type=int, help="iterations before (default 20; CPU 3)")
    add("--parity-only", action="store_true", help="no timing")
    add("--json", metavar="FILE", help="also write everything there")
    args = parser.parse_args()
    try:
        settle(args)
    except Unusable as error:
        parser.exit(2, f"error: {error}\n")
    return args


def settle(args):
    """Fill in the defaults; turn texts into lists; refuse what cannot be used."""
    cuda = args.device.startswith("cuda")
    if not cuda and args.device != "cpu":
        raise Unusable(f"--device {args.device}: cpu, cuda or cuda:N")
    block = args.level == "block"
    defaults = {
        "steps": {"neuron": ("4,8", "4,8,16,32"), "block": ("4", "4,16"), "step": ("4", "16")}[args.level],
        "shape": ("N=1,C=32,H=32,W=32", "N=1,C=1024,H=32,W=32"),
        "input": ("3x16x16", "3x32x32" if block else "3x64x64"),
        "batch": ("4", "32" if block else "64,8"), "channels": ("16", "64"),
        "rounds": (3, 5), "iterations": (15, 100), "warmup": (3, 20),
    }
    for name, (on_cpu, on_cuda) in defaults.items():
        if getattr(args, name) is None:
            setattr(args, name, on_cuda if cuda else on_cpu)
    for name in ("steps", "batch", "channels"):
        setattr(args, name, [whole(f"--{name}", item) for item in getattr(args, name).split(",")])
    for name in ("rounds", "iterations", "threads"):
        whole(f"--{name}", getattr(args, name))
    args.surrogate, args.reset = args.surrogate.split(","), args.reset.split(",")
    for given, known in [(args.surrogate, ("arctan", "sigmoid")),
                         (args.reset, ("soft", "hard", "soft-detached", "hard-detached"))]:
        for item in given:
            if item not in known:
                raise Unusable(f"{item}: one of {', '.join(known)}")
    try:
        args.dimensions = {key: whole(f"--shape {key}", n) for key, n in (p.split("=") for p in args.shape.split(","))}
    except ValueError:
        args.dimensions = {}
    if list(args.dimensions) != ["N", "C", "H", "W"]:
        raise Unusable(f"--shape {args.shape}: wants N=1,C=1024,H=32,W=32")
    args.input_shape = [whole("--input", n) for n in args.input.split("x")]
    if len(args.input_shape) != 3:
        raise Unusable(f"--input {args.input}: wants CxHxW")
    kind = "neuron" if args.level == "neuron" else "network"
    bits = "f32" if args.precision == "f32" or not cuda else "16"
    if args.peers is None:
        args.peers = DEFAULT_PEERS[kind, "cuda" if cuda else "cpu", bits] + (OLD_PEERS if args.old_python else "")
    args.peers = [peer.strip() for peer in args.peers.split(",")]
    for peer in args.peers:
        library = peer.split("+")[0].split(":")[0]
        if library not in ("pytorch", "sj", "old", "snntorch"):
            raise Unusable(f"--peers {peer}: no library {library}; one of pytorch, sj, old, snntorch")
        unknown = set(peer.split("+")[1:]) - FEATURES
        if unknown:
            raise Unusable(f"--peers {peer}: no feature {', '.join(sorted(unknown))}; one of {', '.join(sorted(FEATURES))}")
        if library == "old" and not args.old_python:
            raise Unusable(f"--peers {peer}: wants --old-python")
    for name in ("adali", "python", "old_python", "network"):
        path = getattr(args, name)
        if path and not Path(path).is_file():
            raise Unusable(f"--{name.replace('_', '-')} {path}: no such file")


def whole(name, text):
    try:
        value = int(text)
    except ValueError:
        value = 0
    if value < 1:
        raise Unusable(f"{name} {text}: wants whole numbers above 0")
    return value


def spelled(peer, args):
    """`tuned` and `best` written out."""
    tuned = [] if args.level == "neuron" else ["once", "channels_last", "fused"]
    tuned += ["graph"] if args.device.startswith("cuda") else []
    name, *features = peer.split("+")
    meaning = {"tuned": tuned, "best": [*tuned, "compile"]}
    return "+".join([name, *(part for feature in features for part in meaning.get(feature, [feature]))])


def neuron_cases(args):
    for surrogate in args.surrogate:
        for reset in args.reset:
            for steps in args.steps:
                kind, _, detached = reset.partition("-")
                size = ",".join(f"{name}={n}" for name, n in args.dimensions.items())
                yield {"level": "neuron", "title": f"T={steps}, {size}, {surrogate}, {reset} reset",
                       "steps": steps, "shape": list(args.dimensions.values()),
                       "neuron": {"tau": 2.0, "reset": kind, "detach": bool(detached), "surrogate": surrogate},
                       "adali_shape": f"T={steps},{size}"}


def network_cases(args, scratch):
    file = Path(args.network) if args.network else HERE / f"{args.level}.toml"
    given = file.read_text()
    for surrogate in args.surrogate:
        for channels in args.channels if args.level == "block" else [None]:
            for steps in args.steps:
                lines = given.splitlines()
                lines = [f"steps = {steps}" if line.startswith("steps") else line for line in lines]
                if channels:
                    lines = [f"channels = {channels}" if line.startswith("channels") else line for line in lines]
                try:
                    text = tomllib.loads("\n".join(lines))
                except tomllib.TOMLDecodeError as error:
                    raise Unusable(f"{file}: {error}") from None
                wrong = wrong_with(text)
                if wrong:
                    raise Unusable(f"{file}: {wrong}")
                network = scratch / f"{args.level}-T{steps}-C{channels or 0}.toml"
                network.write_text("\n".join(lines) + "\n")
                for batch in args.batch:
                    title = (f"{file.name}, T={steps}" + (f", C={channels}" if channels else "")
                             + f", {batch} images {args.input}, {surrogate}, {text['neuron'].get('reset', 'soft')} reset, "
                             + ("SGD, momentum 0.9" if args.optimizer == "sgd" else "Adam"))
                    yield {"level": "network", "title": title, "text": text, "input": args.input_shape, "batch": batch,
                           "surrogate": surrogate, "optimizer": args.optimizer, "network": str(network)}


def wrong_with(text):
    """Why the peers cannot build this network; empty if they can."""
    neuron = {"model": "lif", "decay_input": True, "threshold": 1.0, "v_reset": 0.0} | text.setdefault("neuron", {})
    fixed = {"model": "lif", "decay_input": True, "threshold": 1.0, "v_reset": 0.0}
    wrong = [f"neuron.{name} must be {want!r}" for name, want in fixed.items() if neuron[name] != want]
    if text.get("input") != "direct":
        wrong.append('input must be "direct"')
    layers = text.get("layers", [])
    if [i for i, layer in enumerate(layers) if layer.get("type") == "readout"] != [len(layers) - 1]:
        wrong.append("the last layer, and no other, must be a readout")
    for i, layer in enumerate(layers):
        if layer.get("type") not in ("conv", "max_pool", "avg_pool", "linear", "readout"):
            wrong.append(f"layer {i}: the peers have no type {layer.get('type')}")
        if layer.get("norm") == "weight" or layer.get("norm_gain", 1.0) != 1.0:
            wrong.append(f"layer {i}: batch norm with gain 1, or none")
        if layer.get("type") == "linear" and layer.get("norm", "none") != "none":
            wrong.append(f"layer {i}: linear without norm")
        if layer.get("spiking") or layer.get("vote", 1) != 1:
            wrong.append(f"layer {i}: the readout must not spike or vote")
    return "; ".join(wrong)


def main():
    args = parse_arguments()
    with tempfile.TemporaryDirectory(prefix="peers-") as folder:
        scratch = Path(folder)
        try:
            cases = list(neuron_cases(args) if args.level == "neuron" else network_cases(args, scratch))
        except Unusable as error:
            print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
        peers = [Peer(peer, spelled(peer, args), args, scratch) for peer in args.peers]
        adali = Adali(args, scratch) if args.adali else None
        contest = Contest(args, peers, adali)
        try:
            contest.run(cases)
        finally:
            for peer in peers:
                peer.stop()
        if args.json:
            print(f"\nwritten: {args.json}")
    sys.exit(1 if contest.failures else 0)


if __name__ == "__main__":
    main()
