"""Peers and adali in turn: processes, rounds, the table. Used by peers.py; does not import torch itself."""

import json
import os
import shlex
import statistics
import subprocess
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
MIB = 2**20

# Largest share of spikes that may differ from the reference's, and least cosine of a gradient. A network in 16 bits
# has its own rule (breach): rounding flips spikes there, and every flipped spike changes all that come after it.
NEURON_F32, NEURON_16, NETWORK_F32 = (1e-4, 0.9999), (1e-2, 0.99), (2e-3, 0.99)
SAME_SPIKES = 0.9999  # the least cosine where no spike differs, so that nothing but rounding may
SIZE = 0.05  # the largest relative error of a gradient's norm
ROUNDINGS = 3  # times as far from f32 as plain PyTorch in the same 16 bits


class Unusable(Exception):
    """An argument that cannot be used."""


class Failed(Exception):
    pass


class Skipped(Exception):
    pass


class Peer:
    """A worker process. `name` is as given, `spec` has `best` written out."""

    def __init__(self, name, spec, args, scratch):
        self.name, self.log = name, scratch / f"{name.replace(':', '-')}.log"
        library, _, provider = spec.split("+")[0].partition(":")
        environment = dict(os.environ, OMP_NUM_THREADS=str(args.threads), PYTHONDONTWRITEBYTECODE="1")
        environment.pop("SJ_LIF_CUDA_IMPLEMENTATION", None)
        if library == "sj" and provider in ("triton", "cuda", "torch"):
            environment["SJ_LIF_CUDA_IMPLEMENTATION"] = provider  # read when spikingjelly is imported
        settings = {"device": args.device, "precision": args.precision, "threads": args.threads, "tf32": args.tf32}
        python = args.old_python if library == "old" else args.python
        self.process = subprocess.Popen(
            [python, str(HERE / "worker.py"), spec, json.dumps(settings)], env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log.open("w"))
        self.dead = None

    def ask(self, **request):
        """The worker's answer; Skipped or Failed with the reason instead of one."""
        if self.dead:
            raise Failed(self.dead)
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            self.dead = f"process ended with {self.process.returncode}: {self.last_words()}"
            raise Failed(self.dead)
        answer = json.loads(line)
        if "skipped" in answer:
            raise Skipped(answer["skipped"])
        if "failed" in answer:
            raise Failed(answer["failed"])
        return answer

    def last_words(self):
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else "no message"

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Adali:
    """The adali program: its own numbers for parity (inspect), and its time (bench)."""

    def __init__(self, args, scratch):
        self.args, self.scratch, self.answers = args, scratch, []
        self.program = str(Path(args.adali).resolve())
        self.where = ["--device", args.device, "--threads", str(args.threads)]

    def call(self, *arguments):
        command = [self.program, *map(str, arguments)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise Failed(f"{self.program}: {error.strerror}") from None
        if done.returncode:
            words = (done.stderr.strip() or done.stdout.strip() or "no message").splitlines()[0]
            raise Failed(f"adali {arguments[0]} ended with {done.returncode}: {words}")
        return done.stdout

    def inspected(self, network, surrogate):
        """A folder with run/ and inspect.safetensors: a few steps on the built-in digits, and a batch's gradients."""
        folder = self.scratch / f"parity-{Path(network).stem}-{surrogate}"
        if not folder.exists():
            self.call("train", "--data", "digits", "--network", network, "--surrogate", surrogate, "--epochs", 1,
                      "--limit", 64, "--batch", 16, "--validation", 0, "--optimizer", "sgd", "--learning-rate", 0.01,
                      "--precision", "f32", "--out", folder / "run", "--quiet", *self.where)
            self.call("inspect", folder / "run", "--grads", "--train-mode", "--precision", "f32",
                      "--out", folder / "inspect.safetensors", *self.where)
        return str(folder)

    def bench(self, *arguments):
        file = self.scratch / "adali-bench.json"
        file.unlink(missing_ok=True)
        self.call("bench", *arguments, *self.where, "--precision", self.args.precision, "--json", file, "-q")
        try:
            answer = json.loads(file.read_text())
            self.answers.append(answer)
            results = answer["results"]
            return [(r["operation"], r.get("variant", ""), r["seconds"]["median"]) for r in results]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Failed(f"adali bench {arguments[0]} left no usable --json: {error!r}") from None

    def turn(self, case):
        """Rows of one turn: name -> [seconds] or [forward, backward]."""
        if case["level"] == "network":
            size = ["--network", case["network"], "--input", "x".join(map(str, case["input"])),
                    "--batch", case["batch"]]
            if case["optimizer"] != "sgd":
                size += ["--optimizer", case["optimizer"]]
            rows = {}
            for surrogate in ("adali", case["surrogate"]):
                for operation, _, seconds in self.bench("train_step", *size, "--surrogate", surrogate):
                    if operation == "train_step":
                        rows[f"adali: {surrogate}"] = [seconds]
            if not rows:
                raise Failed("adali bench train_step has no result of that name")
            return rows
        results = self.bench("norm_lif_forward", "spike_backward", "--shape", case["adali_shape"])
        forward = {variant: seconds for operation, variant, seconds in results if operation == "norm_lif_forward"}
        if not forward:
            raise Failed("adali bench gave no norm_lif_forward")
        plain = forward.get("", next(iter(forward.values())))  # "with histogram" is another
        neuron, rows = case["neuron"], {}
        for operation, variant, seconds in results:
            words = variant.replace(",", " ").split()
            same = (words and words[0] in ("adali", neuron["surrogate"]) and ("detached" in words) == neuron["detach"]
                    and ("hard" in words) == (neuron["reset"] == "hard"))
            if operation == "spike_backward" and same:
                rows[f"adali: {variant}"] = [plain, seconds]
        if not rows:
            raise Skipped(f"adali bench has no spike_backward of {neuron['surrogate']} or adali with this reset")
        return rows


class Contest:
    def __init__(self, args, peers, adali):
        self.args, self.peers, self.adali = args, peers, adali
        self.failures, self.introduced = 0, set()
        settings = {k: v for k, v in vars(args).items() if k != "dimensions"}
        self.record = {"machine": machine(), "settings": settings, "cases": []}

    def run(self, cases):
        self.header()
        for case in cases:
            started = time.perf_counter()
            print(f"\n{case['title']}, {self.args.precision}", flush=True)
            entry = {"case": case["title"], "rows": [], "left_out": []}
            self.record["cases"].append(entry)
            alive = self.prepare(case, entry)
            if not self.args.parity_only:
                self.turns(case, entry, alive)
            if not any(row["turns"] or self.args.parity_only for row in entry["rows"]):
                self.failures += 1
            table(entry, case)
            entry["seconds_in_all"] = time.perf_counter() - started
            if self.args.json:  # after each case, so that a kill costs one
                self.record["adali_bench"] = self.adali.answers if self.adali else []
                Path(self.args.json).write_text(json.dumps(self.record, indent=1) + "\n")

    def header(self):
        args, facts = self.args, self.record["machine"]
        for peer in self.peers:  # all import at the same time
            try:
                facts |= peer.ask(do="hello")["machine"]
            except (Skipped, Failed):
                pass
        print(", ".join(f"{name} {value}" for name, value in facts.items()))
        on_cuda = args.device.startswith("cuda")
        print(f"{args.rounds} turns of {self.each()} iterations after {args.warmup} (and 3 in each turn), "
              f"TF32 {'on' if args.tf32 else 'off'}, cudnn.benchmark on, contiguous tensors but for +channels_last, "
              + ("CUDA events, L2 flushed before each neuron iteration" if on_cuda else "wall clock"))
        if on_cuda and (args.warmup < 20 or args.rounds * self.each() < 100):
            print("fewer than 20 iterations of warm-up or 100 timed ones: not to be published")

    def each(self):
        return -(-self.args.iterations // self.args.rounds)

    def leave_out(self, entry, name, error):
        kind = "skipped" if isinstance(error, Skipped) else "FAILED"
        self.failures += kind == "FAILED"
        entry["left_out"].append({"peer": name, "kind": kind, "why": str(error)})

    def prepare(self, case, entry):
        """Build, prove parity, warm up; those that may be timed."""
        inspected = None
        if self.adali:
            try:
                inspected = self.inspected(case)
            except Failed as error:
                self.leave_out(entry, "adali, parity", error)
        alive = []
        limits = NETWORK_F32
        if case["level"] == "neuron":
            limits = NEURON_F32 if self.args.precision == "f32" else NEURON_16
        for peer in self.peers:
            try:
                answer = peer.ask(do="prepare", case=case, warmup=self.args.warmup)
                parity = answer["parity"]
                if peer.name not in self.introduced:
                    self.introduced.add(peer.name)
                    print(f"  {peer.name}: {answer['what']}", flush=True)
                row = {"peer": peer.name, "what": answer["what"], "parity": parity, "turns": []}
                entry["rows"].append(row)
                why = breach(parity, limits)
                if inspected:
                    row["parity_with_adali"] = peer.ask(do="adali_parity", case=inspected)["parity"]
                    why = why or breach(row["parity_with_adali"], NETWORK_F32, " with adali")
                if why:
                    raise Failed(why)
                alive.append((peer, row))
            except (Skipped, Failed) as error:
                self.leave_out(entry, peer.name, error)
        return alive

    def inspected(self, case):
        """A network case that adali has run; for neurons alone, of the same dynamics."""
        if case["level"] == "network":
            return case | {"adali": self.adali.inspected(case["network"], case["surrogate"])}
        neuron = case["neuron"]
        text = {"steps": case["steps"], "input": "direct",
                "neuron": {"tau": neuron["tau"], "reset": neuron["reset"], "detach_reset": neuron["detach"]},
                "layers": [{"type": "conv", "channels": 8, "kernel": 3, "padding": 1, "norm": "batch"},
                           {"type": "conv", "channels": 8, "kernel": 3, "padding": 1, "norm": "batch"},
                           {"type": "readout", "classes": 10}]}
        detached = "-detached" if neuron["detach"] else ""
        network = self.adali.scratch / f"neuron-T{case['steps']}-{neuron['reset']}{detached}.toml"
        network.write_text(toml(text))
        return {"text": text, "surrogate": neuron["surrogate"],
                "adali": self.adali.inspected(network, neuron["surrogate"])}

    def turns(self, case, entry, alive):
        adali_rows = {}
        run_adali = self.adali is not None
        for _ in range(self.args.rounds):
            if run_adali:
                try:
                    for name, seconds in self.adali.turn(case).items():
                        row = adali_rows.setdefault(name, {"peer": name, "what": self.adali.program, "turns": []})
                        row["turns"].append({"seconds": [seconds]})
                except (Skipped, Failed) as error:
                    self.leave_out(entry, "adali, time", error)
                    run_adali = False
            for pair in list(alive):
                peer, row = pair
                try:
                    row["turns"].append(peer.ask(do="turn", iterations=self.each()))
                except (Skipped, Failed) as error:
                    self.leave_out(entry, peer.name, error)
                    alive.remove(pair)
        entry["rows"] = list(adali_rows.values()) + entry["rows"]


def breach(parity, limits, what=""):
    """Why this is no parity; empty if it is."""
    differ, cosine = limits
    if "rounding" in parity:
        why = breach(parity["in_f32"], limits, " in f32")
        if why:
            return why
        differ = max(differ, ROUNDINGS * parity["rounding"]["spikes_differ"])
        cosine = min(cosine, 1 - ROUNDINGS * (1 - parity["rounding"]["cosine"]))
    elif limits is NETWORK_F32 and parity["spikes_differ"] == 0:
        cosine = SAME_SPIKES
    if not parity["spikes_differ"] <= differ:
        return f"no parity{what}: {100 * parity['spikes_differ']:.4f} % of spikes differ, limit {100 * differ:.4f} %"
    if not 0.01 <= parity["firing_rate"] <= 0.99:
        return f"no parity{what}: firing rate {parity['firing_rate']:.4f}, so equal spikes say nothing"
    if not parity["cosine"] >= cosine:
        return f"no parity{what}: cosine of a gradient {parity['cosine']:.6f}, limit {cosine:.6f}"
    if "rounding" not in parity and not abs(parity["size_ratio"] - 1) <= SIZE:
        return f"no parity{what}: a gradient is {parity['size_ratio']:.4f} times as large"
    return ""


def toml(text):
    """The little TOML that a network needs."""
    def lines(values):
        return [f"{name} = {json.dumps(value)}" for name, value in values.items()]

    top = {name: value for name, value in text.items() if not isinstance(value, (dict, list))}
    out = lines(top) + ["[neuron]"] + lines(text["neuron"])
    for layer in text["layers"]:
        out += ["[[layers]]"] + lines(layer)
    return "\n".join(out) + "\n"


def machine():
    cpu = [line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line]
    return {"cpu": cpu[0] if cpu else "unknown", "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 2)}


def totals(row, part=None):
    """Each turn's median, in ms, of an iteration or of a part of it."""
    values = [[sum(s) if part is None else s[part] for s in turn["seconds"]] for turn in row["turns"]]
    return [1e3 * statistics.median(turn) for turn in values]


def table(entry, case):
    rows, neuron = entry["rows"], case["level"] == "neuron"
    with_adali = any("parity_with_adali" in row for row in rows)
    reference = next((row for row in rows if row["turns"]), None)
    extra = f"{'forward':>9} {'backward':>9}" if neuron else f"{'images/s':>9} {'MiB':>7}"
    print(f"{'':42} {'fires,%':>7} {'spikes':>9} {'gradient':>8}" + (f"   {'with adali':>17}" if with_adali else "")
          + f"   {'ms':>9} {'over the turns':>19}   {'':>{len(extra)}}   times the")
    print(f"{'':42} {'':7} {'differ,%':>9} {'1-cosine':>8}" + (f"   {'differ,%':>8} {'1-cosine':>8}" if with_adali else "")
          + f"   {'median':>9} {'min':>9} {'max':>9}   {extra}   {'first (min-max)':>18}")
    for row in rows:
        rate = f"{100 * row['parity']['firing_rate']:7.1f}" if row.get("parity") else ""
        line = f"{row['peer']:42} {rate:7} " + parity_text(row.get("parity"), 9)
        if with_adali:
            line += "   " + parity_text(row.get("parity_with_adali"), 8)
        if row["turns"]:
            line += times_text(row, reference, case, neuron)
        print(line.rstrip())
    rounding = next((row["parity"]["rounding"] for row in rows if "rounding" in row.get("parity", {})), None)
    if rounding:
        print(f"{'(how far rounding takes plain PyTorch)':42} {'':7} " + parity_text(rounding, 9))
    if not any("parity" in row for row in rows):
        print("no peer ran")
    for out in entry["left_out"]:
        print(f"{out['peer']:42} {out['kind']}: {out['why']}")


def parity_text(parity, width):
    if not parity:
        return f"{'':{width}} {'':8}"
    return f"{100 * parity['spikes_differ']:{width}.4f} {max(0.0, 1 - parity['cosine']):8.1e}"


def times_text(row, reference, case, neuron):
    times = totals(row)
    row["ms"] = {"median": statistics.median(times), "min": min(times), "max": max(times)}
    line = f"   {row['ms']['median']:9.3f} {min(times):9.3f} {max(times):9.3f}"
    if neuron and len(row["turns"][0]["seconds"][0]) == 2:
        line += "   " + " ".join(f"{statistics.median(totals(row, part)):9.3f}" for part in (0, 1))
    elif neuron:
        line += f"   {'':9} {'':9}"
    else:
        peaks = [turn["peak_bytes"] for turn in row["turns"] if turn.get("peak_bytes")]
        line += f"   {1e3 * case['batch'] / row['ms']['median']:9.1f} " + (f"{max(peaks) / MIB:7.0f}" if peaks else " " * 7)
    ratios = [a / b for a, b in zip(times, totals(reference))]
    row["times_the_first"] = {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}
    return line + f"   {statistics.median(ratios):5.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
