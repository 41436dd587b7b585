#!/usr/bin/env python3
"""A deep network of adali beside the same one of SpikingJelly 2 on the CPU: first losses, curves, speed and memory.

Both begin with adali's first weights and visit the same samples in the same order; loss, SGD (momentum 0.9, weight
decay 1e-4), cosine schedule and neurons are the same. Nothing is augmented. Each program has one thread.

  first    mean loss of the first 1, 2, 5, 10 and 20 steps, each a training of its own
  curves   loss and test accuracy of every epoch, both programs at once; also curves.json and curves.svg in --out
  speed    images/s and peak memory, the programs in turn; also speed.json in --out

adali's test at the end is not in its images/s. Both programs keep all samples in memory. "others" is what the rest of
the machine used meanwhile: where that was much, believe only images per second of CPU time.
Needs requirements.txt, and matplotlib for curves.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import spikingjelly_cpu as sj

EXAMPLES = """examples:
  residual.py curves --data-dir cifar-10-batches-bin
  residual.py speed --data-dir cifar-10-batches-bin --limit 1280 --epochs 2
  residual.py speed --data n-mnist --data-dir N-MNIST --network sew-resnet18 --channels 8 --steps 8 --batch 32
"""


def parse_arguments():
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("what", choices=["first", "curves", "speed", "peer"], help="peer: one run of SpikingJelly, used by the others")
    add("--data", choices=["cifar10", "n-mnist"], default="cifar10", help="default %(default)s")
    add("--data-dir", required=True, help="CIFAR-10's *_batch*.bin, or N-MNIST's Train and Test")
    add("--network", default="resnet18-cifar", help="preset (default %(default)s)")
    add("--channels", type=int, default=16, help="its width (default %(default)s)")
    add("--steps", type=int, default=4, help="time steps T (default %(default)s)")
    add("--limit", type=int, default=10000, help="training samples (default %(default)s)")
    add("--batch", type=int, default=64, help="default %(default)s")
    add("--epochs", type=int, default=8, help="default %(default)s")
    add("--rate", type=float, default=0.1, help="first learning rate (default %(default)s)")
    add("--surrogate", default="arctan", help="adali's in curves, else both have arctan (default %(default)s)")
    add("--variant", default="plain", help="SpikingJelly's in first and curves, see spikingjelly_cpu.py (default plain)")
    add("--variants", default="plain,best", help="SpikingJelly's in speed (default %(default)s)")
    add("--rounds", type=int, default=3, help="of speed (default %(default)s)")
    add("--test", action="store_true", help="peer: test after every epoch")
    add("--adali", default="target/release/adali", help="the program (default %(default)s)")
    add("--out", type=Path, default=Path("runs/residual"), help="folder for everything (default %(default)s)")
    return parser.parse_args()


def words(args, names, changed):
    options = {name: getattr(args, name) for name in names.split()} | changed
    return [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]


def adali(args, folder, **changed):
    """The command of a training."""
    changed = {"surrogate": "arctan", "out": args.out / folder, "learning_rate": args.rate} | changed
    options = words(args, "data data_dir network channels steps limit batch epochs", changed)
    return [args.adali, "train", *options, "--validation=0", "--device=cpu", "--quiet", "--json", "--force"]


def peer(args, **changed):
    options = words(args, "data data_dir out steps limit batch epochs rate variant", changed)
    return [sys.executable, __file__, "peer", *options]


def epochs_of(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def first(args):
    print("| steps | adali | SpikingJelly | difference |\n|---|---|---|---|")
    for steps in (1, 2, 5, 10, 20):
        sj.child(adali(args, "first", limit=steps * args.batch, epochs=1))
        ours = epochs_of(args.out / "first")[0]["train_loss"]
        theirs = sj.child(peer(args, limit=steps * args.batch, epochs=1))["epochs"][0]["train_loss"]
        print(f"| {steps} | {ours:.6f} | {theirs:.6f} | {ours - theirs:+.1e} |", flush=True)


def curves(args):
    run, saved, theirs = args.out / "adali", 0, {}
    (run / "metrics.jsonl").unlink(missing_ok=True)
    process = subprocess.Popen(adali(args, "adali", surrogate=args.surrogate), stdout=subprocess.DEVNULL)
    thread = threading.Thread(target=lambda: theirs.update(sj.child([*peer(args), "--test"])))
    thread.start()
    while saved < args.epochs:
        ended = process.poll() is not None
        if (run / "metrics.jsonl").exists() and len(epochs_of(run)) > saved:
            saved += 1
            shutil.copy(run / "model.safetensors", args.out / f"epoch-{saved}.safetensors")
        elif ended:
            raise SystemExit(f"adali ended after {saved} epochs")
        time.sleep(1)
    process.wait()
    ours = epochs_of(run)
    for number, epoch in enumerate(ours, 1):
        command = [args.adali, "eval", args.out / f"epoch-{number}.safetensors", "--json", "--device=cpu", "--quiet"]
        epoch["test_accuracy"] = json.loads(subprocess.check_output(command))["accuracy"]
    thread.join()
    runs = {f"adali ({args.surrogate})": ours, "SpikingJelly (arctan)": theirs["epochs"]}
    print("| epoch |" + " | ".join(f" {name}: loss | train % | test %" for name in runs) + " |\n" + 7 * "|---" + "|")
    for number, pair in enumerate(zip(*runs.values()), 1):
        cells = (f"{e['train_loss']:.3f} | {100 * e['train_accuracy']:.1f} | {100 * e['test_accuracy']:.1f}" for e in pair)
        print(f"| {number} | {' | '.join(cells)} |")
    (args.out / "curves.json").write_text(json.dumps(runs, indent=1))
    plot(runs, args.out / "curves.svg")


def plot(runs, path):
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axis, field, title in zip(axes, ("train_loss", "test_accuracy"), ("training loss", "test accuracy")):
        for name, epochs in runs.items():
            axis.plot(range(1, len(epochs) + 1), [epoch[field] for epoch in epochs], marker=".", label=name)
        axis.set(xlabel="epoch", title=title)
    axes[0].legend()
    figure.savefig(path)


def cpu_of(run, marks):
    """A function that watches an adali: its CPU seconds at the end of every epoch."""

    def watch(pid):
        try:
            while True:
                after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                metrics = run / "metrics.jsonl"
                ended = metrics.read_text().count("\n") if metrics.exists() else 0
                if ended > len(marks):
                    marks.append((int(after[11]) + int(after[12])) / os.sysconf("SC_CLK_TCK"))
                time.sleep(0.05)
        except OSError:  # it has ended
            pass

    return watch


def speed(args):
    if args.epochs < 2:
        sys.exit("speed needs --epochs 2 or more: the first one is a warm-up")
    programs = {"against": adali(args, "speed")}
    programs |= {f"SpikingJelly {variant}": peer(args, variant=variant) for variant in args.variants.split(",")}
    results = {name: [] for name in programs}
    for number in range(1, args.rounds + 1):
        for name, command in programs.items():
            if name == "against":
                run, marks = args.out / "speed", []
                (run / "metrics.jsonl").unlink(missing_ok=True)
                result = sj.child(command, cpu_of(run, marks))
                images = args.limit // args.batch * args.batch * (len(marks) - 1)
                result["images_per_cpu_second"] = images / (marks[-1] - marks[0])
            else:
                result = sj.child(command)
            results[name].append(result)
            print(f"round {number}: {'adali' if name == 'against' else name:20} {result['images_per_second']:7.1f} images/s, "
                  f"{result['images_per_cpu_second']:7.1f} a CPU second, others {result['others_cores']:.2f} cores", flush=True)
    print('\n"against" is adali:', end="")
    sj.table(results)
    print("\nthe same of images per second of CPU time")
    for name in list(programs)[1:]:
        ratios = [a["images_per_cpu_second"] / b["images_per_cpu_second"] for a, b in zip(results["against"], results[name])]
        low, middle, high = min(ratios), statistics.median(ratios), max(ratios)
        print(f"against / {name:30} {low:8.2f}  {middle:8.2f}  {high:8.2f}")
    (args.out / "speed.json").write_text(json.dumps(results, indent=1))


def main():
    args = parse_arguments()
    if args.what == "peer":
        from residual_peer import train

        return print(json.dumps(train(args)))
    os.environ |= {"RAYON_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    args.out.mkdir(parents=True, exist_ok=True)
    # A learning rate that moves no weight: the model it saves is the first.
    sj.child(adali(args, "start", limit=args.batch, epochs=1, learning_rate=1e-30, weight_decay=0))
    {"first": first, "curves": curves, "speed": speed}[args.what](args)


if __name__ == "__main__":
    main()
