#!/usr/bin/env python3
"""Events a second of adali's readers beside expelliarmus, aedat, tonic, SpikingJelly and NumPy, on the same files.

    pip install numpy expelliarmus==1.1.12 aedat==2.3.0 tonic==1.7.0 spikingjelly==2.0.0
    python benches/peers/events.py --adali target/release/adali

Random events in time order on a sensor of 640x480 (128x128 where a format is of that sensor), written to a folder that is
deleted in the end; AEDAT 4 only from a file that is given (--aedat4), for no reader here writes it. Each round reads every
file with every program in turn, in the page cache, on one thread; medians over the rounds. adali is `adali events --time`:
decoding alone. Peers return all events as arrays, adali gives pieces.
"""

import argparse
import json
import statistics
import struct
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np


def random_events(count, width, height):
    rng = np.random.default_rng(7)
    events = np.zeros(count, dtype=[("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "u1")])
    events["t"] = np.sort(rng.integers(0, 8_000_000, count))
    events["x"], events["y"] = rng.integers(0, width, count), rng.integers(0, height, count)
    events["p"] = rng.integers(0, 2, count)
    return events


def prophesee(encoding, folder, count):
    from expelliarmus import Wizard

    path = folder / f"{encoding}.{'dat' if encoding == 'dat' else 'raw'}"
    Wizard(encoding=encoding).save(path, random_events(count, 640, 480))
    return path, ("expelliarmus", lambda: Wizard(encoding=encoding).read(path))


def nmnist(folder, count):
    events = random_events(count, 34, 34)
    words = events["p"].astype(np.uint32) << 23 | events["t"].astype(np.uint32) & 0x7FFFFF
    data = np.stack([events["x"], events["y"], words >> 16, words >> 8 & 0xFF, words & 0xFF], axis=1)
    path = folder / "nmnist.bin"
    data.astype(np.uint8).tofile(path)

    def read():
        from tonic.io import read_mnist_file

        return read_mnist_file(str(path), dtype=np.dtype([("x", int), ("y", int), ("t", int), ("p", int)]))

    return path, ("tonic", read)


def aedat2(folder, count):
    events = random_events(count, 128, 128)
    address = (events["x"].astype(">u4") << 8) | (events["y"].astype(">u4") << 1) | events["p"]
    path = folder / "dvs128.aedat"
    data = np.stack([address, events["t"]], axis=1).astype(">u4")
    path.write_bytes(b"#!AER-DAT2.0\r\n# by adali's benches\r\n" + data.tobytes())

    def read():
        from spikingjelly.datasets.cifar10_dvs import _load_origin_data

        return _load_origin_data(path)

    return path, ("spikingjelly", read)


def aedat3(folder, count):
    events = random_events(count, 128, 128)
    data = np.zeros(count, dtype=[("data", "<u4"), ("t", "<u4")])
    data["data"] = events["x"].astype(np.uint32) << 17 | events["y"].astype(np.uint32) << 2 | events["p"] << 1 | 1
    data["t"] = events["t"]
    path = folder / "gesture.aedat"
    with open(path, "wb") as file:
        file.write(b"#!AER-DAT3.1\r\n#!END-HEADER\r\n")
        for first in range(0, count, 8192):
            part = data[first : first + 8192]
            file.write(struct.pack("<HHIIIIII", 1, 1, 8, 4, 0, len(part), len(part), len(part)) + part.tobytes())

    def read():
        from spikingjelly.datasets.utils import load_aedat_v3

        return load_aedat_v3(path)

    return path, ("spikingjelly", read)


def npz(folder, count):
    events = random_events(count, 640, 480)
    path = folder / "events.npz"
    np.savez(path, **{name: events[name] for name in "xytp"})

    def read():
        with np.load(path) as arrays:
            return [arrays[name] for name in "xytp"]

    return path, ("numpy", read)


def csv(folder, count):
    events = random_events(count // 10, 640, 480)
    path = folder / "events.csv"
    np.savetxt(path, np.stack([events[name] for name in "xytp"], axis=1), fmt="%d", delimiter=",")
    return path, ("numpy", lambda: np.loadtxt(path, dtype=np.int64, delimiter=","))


def aedat4(path):
    def read():
        import aedat

        return sum(len(packet["events"]) for packet in aedat.Decoder(str(path)) if "events" in packet)

    return path, ("aedat", read)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adali", required=True, help="the program")
    parser.add_argument("--events", type=int, default=5_000_000, help="in a file (a tenth in text) [%(default)s]")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--aedat4", type=Path, help="a recording in AEDAT 4")
    parser.add_argument("--json", type=Path, help="also write the figures there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        makers = [lambda e=e: prophesee(e, folder, args.events) for e in ("evt2", "evt3", "dat")]
        makers += [lambda f=f: f(folder, args.events) for f in (nmnist, aedat2, aedat3, npz, csv)]
        makers += [lambda: aedat4(args.aedat4)] if args.aedat4 else []
        files = [maker() for maker in makers]
        ours, theirs, counts = {}, {}, {}
        for _ in range(args.rounds):
            for path, (peer, read) in files:
                done = subprocess.run([args.adali, "events", path, "--time", "--json"], capture_output=True, check=True)
                said = json.loads(done.stdout)
                counts[path] = said["events"]
                ours.setdefault(path, []).append(said["decode_seconds"])
                if isinstance(theirs.get(path), str):
                    continue
                begin = time.perf_counter()
                try:
                    read()
                    theirs.setdefault(path, []).append(time.perf_counter() - begin)
                except Exception as error:  # a peer that cannot read a file is not timed
                    theirs[path] = f"{type(error).__name__}: {error}"
        figures = []
        print(f"{'file':16}{'events':>10}{'adali':>12}{'peer':>12}   million events a second, medians of {args.rounds}")
        for path, (peer, _) in files:
            mine = counts[path] / statistics.median(ours[path]) / 1e6
            other = theirs[path]
            if isinstance(other, str):
                text = f"   {peer}: {other}"
            else:
                other = counts[path] / statistics.median(other) / 1e6
                text = f"{other:12.1f}   {peer}, adali is {mine / other:.1f} times as fast"
            print(f"{path.name:16}{counts[path]:10}{mine:12.1f}{text}")
            figures.append({"file": path.name, "events": counts[path], "adali": mine, "peer": peer, "theirs": other})
        if args.json:
            args.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
