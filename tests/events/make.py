#!/usr/bin/env python3
"""Write small recordings of event cameras, each beside the events that programs other than adali read from it.

  python make.py OUT_FOLDER

For each recording F the folder gets F.expected.csv: a line `time,x,y,on` an event, in the file's order, times in
microseconds, `on` 1 or 0. Where a format has a program that writes it, that program does; else the bytes are laid out
here by the format's published definition. What is expected is always what a reader gives, and where two can read a
file they must agree. The same versions give the same bytes. README.md says which program made what.

Needs Python 3.11 and
  pip install numpy==2.4.6 expelliarmus==1.1.12 faery==0.7.1 aedat==2.3.0 dv-processing==2.0.4 tonic==1.7.0 \\
              spikingjelly==2.0.0 torch==2.15.0 torchvision==0.29.2
torch only because SpikingJelly loads it.
"""

import struct
import sys
import tempfile
import types
from pathlib import Path

import aedat
import dv_processing as dv
import faery
import numpy as np
import tonic.io
from expelliarmus import Wizard

# SpikingJelly loads torchaudio for data sets of speech, of which nothing is used here.
sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
from spikingjelly.datasets import cifar10_dvs, dvs128_gesture, utils  # noqa: E402

EVENT = np.dtype(faery.EVENTS_DTYPE)  # t, x, y, on
LARGEST = 15_000  # bytes of a recording


# Events


def events(t, x, y, on):
    """Columns as one array."""
    found = np.empty(len(t), EVENT)
    for name, column in zip(EVENT.names, (t, x, y, on), strict=True):
        found[name] = column
    return found


def drawn(seed, count, first, last, size):
    """Random events, sorted, from `first` up to `last` microseconds."""
    rng = np.random.default_rng(seed)
    t = np.sort(rng.integers(first, last, count))
    return events(t, rng.integers(0, size[0], count), rng.integers(0, size[1], count), rng.integers(0, 2, count))


def twice_drawn(seed, counts, around, reach, size):
    """Random events in the first `reach` microseconds and as near to `around`, where a clock goes round.

    The first is at 0, because faery writes times less the first one.
    """
    early = drawn(seed, counts[0], 0, reach, size)
    early["t"][0] = 0
    return np.concatenate([early, drawn(seed + 1, counts[1], around - reach, around + reach, size)])


def with_edges(found, width, seed):
    """Each 25th event grows to an edge: neighbours in one row at one time, of one polarity, with gaps."""
    rng = np.random.default_rng(seed)
    parts = []
    for i, one in enumerate(found):
        columns = [int(one["x"])]
        if i % 25 == 12:
            reach = int(rng.integers(2, 40))
            columns = [c for c in range(columns[0], min(columns[0] + reach, width)) if rng.random() < 0.8]
        parts += [(one["t"], c, one["y"], one["on"]) for c in columns]
    return np.array(parts, EVENT)


def same(name, found, *others):
    """Readers must give the same events."""
    for number, other in enumerate(others):
        if not np.array_equal(found, other):
            raise SystemExit(f"{name}: reader {number + 2} of {len(others) + 1} gives other events than the first")
    return found


def expect(path, found):
    """Write what was read from `path`."""
    if not len(found) or path.stat().st_size > LARGEST:
        raise SystemExit(f"{path.name}: {len(found)} events in {path.stat().st_size} bytes")
    lines = [f"{e['t']},{e['x']},{e['y']},{int(e['on'])}\n" for e in found]
    path.with_name(path.name + ".expected.csv").write_text("".join(lines))


# Readers


def by_expelliarmus(path, encoding):
    found = Wizard(encoding=encoding).read(path)
    return events(found["t"], found["x"], found["y"], found["p"])


def by_faery(path, size):
    found = faery.events_stream_from_file(path, dimensions_fallback=size).to_array()
    return events(found["t"], found["x"], found["y"], found["on"])


def by_aedat(path):
    packets = [packet["events"] for packet in aedat.Decoder(path) if "events" in packet]
    found = np.concatenate(packets)
    return events(found["t"], found["x"], found["y"], found["on"])


def by_dv(path):
    recording, batches = dv.io.MonoCameraRecording(str(path)), []
    while (batch := recording.getNextEventBatch()) is not None:
        batches.append(batch.numpy())
    found = np.concatenate(batches)
    return events(found["timestamp"], found["x"], found["y"], found["polarity"])


def of_copy(path, raw, reader, *options):
    """What a reader gives of a file of the same name with other bytes."""
    with tempfile.TemporaryDirectory() as home:
        copy = Path(home, path.name)
        copy.write_bytes(raw)
        return reader(copy, *options)


# Data sets


def nmnist(folder):
    """N-MNIST: x, y, a bit of polarity and 23 bits of time, five bytes big-endian.

    An event of row 240 tells that the clock went round and adds 2^13 µs to the events behind it, as tonic's reader and
    the data set's own scripts have it. SpikingJelly's load_ATIS_bin gives such an event as one of a pixel.
    """
    path, around = folder / "nmnist.bin", 1 << 13
    wanted, raw = drawn(1, 400, 100, 3 * around, (34, 34)), bytearray()

    def put(x, y, on, t):
        raw.extend(struct.pack(">BBBH", x, y, int(on) << 7 | t >> 16, t & 0xFFFF))

    rounds = 0
    for e in wanted:
        while e["t"] >= (rounds + 1) * around:
            put(0, 240, 0, 0)
            rounds += 1
        put(int(e["x"]), int(e["y"]), e["on"], int(e["t"]) - rounds * around)
    path.write_bytes(raw)
    found = tonic.io.read_mnist_file(path, tonic.io.events_struct)
    expect(path, same(path.name, events(found["t"], found["x"], found["y"], found["p"]), wanted))


def cifar10dvs(folder):
    """CIFAR10-DVS: AEDAT 2.0 of a DVS128, a u32 of address and a u32 of time, big-endian.

    The expected events are SpikingJelly's, which turns both axes and the polarity. tonic's give the bits as they are.
    """
    path = folder / "cifar10dvs.aedat"
    wanted = drawn(2, 300, 5_000, 1_300_000, (128, 128))
    x, y, off = 127 - wanted["x"], 127 - wanted["y"], ~wanted["on"]
    words = np.stack([x.astype(">u4") << 8 | y.astype(">u4") << 1 | off, wanted["t"]], axis=1).astype(">u4")
    header = "#!AER-DAT2.0\r\n# Raw address events: int32 address, int32 time in microseconds, big-endian\r\n"
    path.write_bytes(header.encode() + words.tobytes())
    read = cifar10_dvs._load_origin_data(path)
    bits = tonic.io.get_aer_events_from_file(path, *tonic.io.read_aedat_header_from_file(path)[:2])
    address = bits["address"]
    other = events(bits["timeStamp"], 127 - (address >> 8 & 127), 127 - (address >> 1 & 127), 1 - (address & 1))
    expect(path, same(path.name, events(read["t"], read["x"], read["y"], read["p"]), other, wanted))


def packet3(kind, words, overflows=0, invalid=0):
    """A packet of AEDAT 3.1: 28 bytes of header, then a u32 of data and an i32 of time an event."""
    count = len(words)
    return struct.pack("<hhiiiiii", kind, 1, 8, 4, overflows, count, count, count - invalid) + words.tobytes()


def polarity_words(found, valid=None):
    """Data and time of polarity events; the overflows of the clock are the packet's."""
    valid = np.ones(len(found), bool) if valid is None else valid
    data = found["x"].astype("<u4") << 17 | found["y"].astype("<u4") << 2 | found["on"].astype("<u4") << 1 | valid
    return np.stack([data, found["t"] & 0x7FFF_FFFF], axis=1).astype("<u4")


def gesture(folder):
    """DVS128 Gesture: AEDAT 3.1, packets of polarity events among others, and the tables of its trials.

    SpikingJelly reads invalid events as it does valid ones; the one in the file is left out of what is expected.
    tonic's reader takes every packet for polarity events and knows no overflow, so it is not asked.
    """
    path, around, size = folder / "gesture.aedat", 1 << 31, (128, 128)
    early, middle = drawn(3, 120, 1_000_000, 3_000_000, size), drawn(4, 120, 3_000_000, 5_000_000, size)
    late, last = drawn(5, 60, around - 900_000, around, size), drawn(6, 60, around, around + 900_000, size)
    valid = np.ones(len(middle), bool)
    valid[20] = False
    special = np.array([[1 | 2 << 1, 2_999_000], [1 | 3 << 1, 2_999_500]], "<u4")
    header = "#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#Start-Time: 2024-01-01 12:00:00 (TZ+0000)\r\n"
    path.write_bytes(
        (header + "#!END-HEADER\r\n").encode()
        + packet3(1, polarity_words(early))
        + packet3(0, special)
        + packet3(1, polarity_words(middle, valid), invalid=1)
        + packet3(1, polarity_words(late))
        + packet3(1, polarity_words(last), overflows=1)
    )
    read = utils.load_aedat_v3(path)
    found = events(read["t"], read["x"], read["y"], read["p"])
    same(path.name, found, np.concatenate([early, middle, late, last]))
    expect(path, np.delete(found, len(early) + 20))

    # The invalid event lies in none of these spans.
    first, second = middle["t"][18], middle["t"][40]
    spans = [(2, 1_200_000, first), (7, second, 4_500_000), (11, around - 300_000, around + 600_000)]
    labels = folder / "gesture_labels.csv"
    labels.write_text("class,startTime_usec,endTime_usec\n" + "".join(f"{c},{a},{b}\n" for c, a, b in spans))
    for part in ("train", "test"):
        (folder / f"trials_to_{part}.txt").write_text("gesture.aedat\n")
    lines = []
    with tempfile.TemporaryDirectory() as home:
        for label in range(11):
            Path(home, str(label)).mkdir()
        dvs128_gesture._split_aedat_files_to_np("gesture", path, labels, Path(home))
        for label, *_ in spans:
            trial = np.load(Path(home, str(label - 1), "gesture_0.npz"))
            lines.append(f"{label - 1},{len(trial['t'])},{trial['t'][0]},{trial['t'][-1]}\n")
    labels.with_name("gesture_labels.expected.csv").write_text("".join(lines))


# iniVation's AEDAT 4


def aedat4(folder):
    """Three packets of events among triggers, in each compression of dv-processing's writer."""
    size, start = (64, 48), 1_700_000_000_000_000
    wanted = drawn(7, 180, start, start + 60_000, size)
    for suffix, compression in (("none", "NONE"), ("lz4", "LZ4"), ("zstd", "ZSTD")):
        path = folder / f"dv_{suffix}.aedat4"
        config = dv.io.MonoCameraWriter.Config("DVXplorer_sample", getattr(dv.CompressionType, compression))
        config.addTriggerStream()
        config.addEventStream(size)
        writer = dv.io.MonoCameraWriter(str(path), config)
        writer.setPackagingCount(1)
        for part in np.split(wanted, [50, 130]):
            store = dv.EventStore()
            for e in part:
                store.push_back(int(e["t"]), int(e["x"]), int(e["y"]), bool(e["on"]))
            writer.writeTrigger(dv.Trigger(int(part["t"][0]), dv.TriggerType.EXTERNAL_SIGNAL_PULSE))
            writer.writeEvents(store)
        # The file is whole once its writer is gone.
        del writer
        expect(path, same(path.name, by_aedat(path), by_dv(path), by_faery(path, size), wanted))


# Prophesee's RAW and DAT


def evt2(folder):
    """EVT 2.0 of two writers. expelliarmus's reader does not follow the clock's going round after 2^34 µs."""
    size = (640, 480)
    path, wanted = folder / "evt2.raw", drawn(8, 250, 50_000, 150_000, size)
    # Before the first event it writes as many words of EVT_TIME_HIGH as its buffer holds.
    Wizard(encoding="evt2", buff_size=64).save(path, expelliarmus_array(wanted))
    expect(path, same(path.name, by_expelliarmus(path, "evt2"), by_faery(path, size), wanted))

    path, around = folder / "evt2_faery.raw", 1 << 34
    wanted = twice_drawn(9, (100, 200), around, 9_000, size)
    faery.events_stream_from_array(wanted, size).to_file(path, version="evt2")
    found, other = by_faery(path, size), by_expelliarmus(path, "evt2")
    other["t"][wanted["t"] >= around] += around
    expect(path, same(path.name, found, other, wanted))


def evt3(folder):
    """EVT 3.0 of two writers.

    expelliarmus writes no TIME_HIGH but the first and counts both that and each fall of TIME_LOW when it reads, so its
    file stays within one TIME_HIGH, and of the other file its times are not asked.
    """
    size = (640, 480)
    path, wanted = folder / "evt3_expelliarmus.raw", drawn(11, 200, 5 << 12, 6 << 12, size)
    Wizard(encoding="evt3").save(path, expelliarmus_array(wanted))
    expect(path, same(path.name, by_expelliarmus(path, "evt3"), by_faery(path, size), wanted))

    path, around = folder / "evt3.raw", 1 << 24
    wanted = with_edges(twice_drawn(12, (60, 140), around, 30_000, size), size[0], 14)
    faery.events_stream_from_array(wanted, size).to_file(path, version="evt3")
    found, other = by_faery(path, size), by_expelliarmus(path, "evt3")
    kinds = words_of(path) >> 12
    if not {0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8} <= set(kinds.tolist()):
        raise SystemExit(f"{path.name}: a kind of word is missing")
    other["t"] = found["t"]
    expect(path, same(path.name, found, other, wanted))


def evt3_words(folder):
    """EVT 3.0 laid out by its definition: what a camera sends and the writers do not.

    TIME_HIGH is repeated, vectors follow one another and have no bit set, and among them are EXT_TRIGGER, OTHERS and
    CONTINUED words. The header is that of the Metavision SDK. expelliarmus refuses EXT_TRIGGER and
    is given the file without; its times are not asked, as in `evt3`.
    """
    path, rng, around = folder / "evt3_words.raw", np.random.default_rng(15), 1 << 24
    words, high = [], None
    for step, t in enumerate(np.sort(rng.integers(around - 20_000, around + 20_000, 48)) % around):
        if high != t >> 12 or step % 7 == 0:
            high = t >> 12
            words.append(0x8000 | high)
        words += [0x6000 | t & 0xFFF, 0x0000 | rng.integers(720)]
        for _ in range(rng.integers(1, 3)):
            words.append(0x2000 | rng.integers(2) << 11 | rng.integers(1280))
        if step % 3 == 0:
            words.append(0x3000 | rng.integers(2) << 11 | rng.integers(1280 - 60))
            words += [0x4000 | rng.integers(1 << 12) & rng.integers(1 << 12) for _ in range(rng.integers(1, 4))]
            words += [0x4000, 0x5000 | rng.integers(1 << 8), 0x4FFF][: rng.integers(1, 4)]
        if step % 8 == 2:
            words.append(0xA000 | rng.integers(2) | 6 << 8)
        if step % 8 == 5:
            words += [0xE000 | 0x014, 0x7000 | 0x3, 0xF000 | 0x123]
    header = "% date 2024-01-01 12:00:00\n% evt 3.0\n% format EVT3;height=720;width=1280\n% geometry 1280x720\n% end\n"
    words = np.array(words, "<u2")
    path.write_bytes(header.encode() + words.tobytes())
    found = by_faery(path, (1280, 720))
    other = of_copy(path, header.encode() + words[words >> 12 != 0xA].tobytes(), by_expelliarmus, "evt3")
    other["t"] = found["t"]
    expect(path, same(path.name, found, other))


def dat(folder):
    """DAT of two writers: type 0 without a size, and type 12 with one, over the clock's going round after 2^32 µs.

    faery refuses type 0, whose events are those of type 12, and is given a copy that says 12.
    """
    size = (304, 240)
    path, wanted = folder / "td.dat", drawn(16, 250, 1_000, 900_000, size)
    Wizard(encoding="dat").save(path, expelliarmus_array(wanted))
    lines, kind, rest = path.read_bytes().partition(b"\n\x00\x08")
    other = of_copy(path, lines + kind.replace(b"\x00", b"\x0c") + rest, by_faery, size)
    expect(path, same(path.name, by_expelliarmus(path, "dat"), other, wanted))

    path, around = folder / "td_faery.dat", 1 << 32
    wanted = twice_drawn(17, (60, 140), around, 9_000, size)
    faery.events_stream_from_array(wanted, size).to_file(path, version="dat2")
    expect(path, same(path.name, by_faery(path, size), by_expelliarmus(path, "dat"), wanted))


def expelliarmus_array(found):
    """Events as Wizard.save wants them."""
    array = np.empty(len(found), [("t", np.int64), ("x", np.int16), ("y", np.int16), ("p", np.uint8)])
    for name, column in zip("txyp", EVENT.names, strict=True):
        array[name] = found[column]
    return array


def words_of(path):
    """The words behind a header that ends in no `% end`."""
    raw = path.read_bytes()
    while raw.startswith(b"%"):
        raw = raw[raw.index(b"\n") + 1 :]
    return np.frombuffer(raw, "<u2")


# Tables


def tables(folder):
    """NumPy's archives and text, written and read by NumPy."""
    wanted = drawn(19, 200, 0, 200_000, (128, 128))
    path = folder / "events.npz"
    np.savez_compressed(path, x=wanted["x"], y=wanted["y"], t=wanted["t"].astype("<i8"), p=wanted["on"])
    read = np.load(path)
    expect(path, same(path.name, events(read["t"], read["x"], read["y"], read["p"]), wanted))

    path = folder / "structured.npz"
    np.savez_compressed(path, events=expelliarmus_array(wanted))
    read = np.load(path)["events"]
    expect(path, same(path.name, events(read["t"], read["x"], read["y"], read["p"]), wanted))

    for name, header in (("events.csv", "x,y,t,p\n"), ("plain.csv", "")):
        path = folder / name
        lines = [f"{e['x']},{e['y']},{e['t']},{int(e['on'])}\n" for e in wanted]
        path.write_text(header + "".join(lines))
        read = np.loadtxt(path, dtype=np.int64, delimiter=",", skiprows=header.count("\n"))
        expect(path, same(path.name, events(read[:, 2], read[:, 0], read[:, 1], read[:, 3]), wanted))


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for make in (nmnist, cifar10dvs, gesture, aedat4, evt2, evt3, evt3_words, dat, tables):
        make(folder)


if __name__ == "__main__":
    main()
