#!/usr/bin/env python3
"""What PyTorch reaches on this card: a copy, and matrix products of random bf16 and f16."""

import json

import torch


def seconds(run, rounds=20):
    """The median time of a call."""
    for _ in range(3):
        run()
    times = []
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return sorted(times)[rounds // 2]


bytes_, side = 1 << 30, 8192
source, target = (torch.empty(bytes_, dtype=torch.uint8, device="cuda") for _ in range(2))
rates = {"copy_gb_per_s": 2 * bytes_ / seconds(lambda: target.copy_(source)) / 1e9}
for name, kind in [("bf16", torch.bfloat16), ("f16", torch.float16)]:
    a, b = (torch.randn(side, side, device="cuda", dtype=kind) for _ in range(2))
    rates[f"{name}_tflop_per_s"] = 2 * side**3 / seconds(lambda: torch.mm(a, b)) / 1e12
print(json.dumps({"torch": torch.__version__, "card": torch.cuda.get_device_name(), **rates}))
