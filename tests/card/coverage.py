"""The instructions that no test has run, by line of the kernels' source, from a report of CARD_REPORT:

    CARD_REPORT=report.json cargo test --test gpu
    python3 tests/card/coverage.py report.json > tests/card/coverage.md
"""

import json
import re
import sys
from collections import Counter, defaultdict

kernels = json.load(open(sys.argv[1]))["executed"]
lines, by_line = Counter(), defaultdict(set)
for kernel in kernels:
    for place in kernel["left"]:
        line = re.search(r"PTX line \d+, (.*), \w+\)$", place)[1]
        lines[line] += 1
        by_line[line].add(kernel["kernel"])
total = sum(kernel["instructions"] for kernel in kernels)
print("# PTX instructions that no test has run\n")
print(f"{len(kernels)} kernels, {total} instructions, {sum(lines.values())} of them never run ({sum(lines.values()) / total:.1%}).")
print("Line 0 is what the compiler does not ascribe to a line. Made by `tests/card/coverage.py`.\n")
print("| source | instructions | in kernels | for example |\n|---|---|---|---|")
for line, count in lines.most_common():
    print(f"| `{line}` | {count} | {len(by_line[line])} | `{min(by_line[line])}` |")
