#!/usr/bin/env python3
"""What the main loop of a kernel consists of, in machine instructions (SASS).

    kernels/tools/instruction_mix.py norm_lif                      every kernel of norm_lif.cu, as last built
    kernels/tools/instruction_mix.py conv 'forward_.*_bf16' --arch sm_90
    kernels/tools/instruction_mix.py some.cubin --print            the loops themselves

The main loop is, among the innermost loops, the one with the most matrix instructions, or where there are none, the
one with the most instructions; a kernel without loops counts whole. An unrolled loop holds several steps of the
source's loop: compare ratios, not counts. Counts are of instructions in the program, each once, predicated or not.

matrix: HMMA and its kin; lds: loads from shared memory, LDSM too; ldg: from global and local memory; sts: stores,
atomics and asynchronous copies (LDGSTS) to shared memory; stg: stores and atomics to global and local memory;
barrier: also waits for asynchronous copies (LDGDEPBAR, DEPBAR) and the marks where a warp's branches meet again
(BSSY, BSYNC); integer: IMAD, LOP3, SHF, PRMT, IADD3, LEA, ISETP, POPC and the like.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]

# The first that matches an instruction's name counts it.
CLASSES = [
    ("matrix", r"[A-Z]*MMA"),
    ("lds", r"LDS|LDSM|ULDS"),
    ("ldg", r"LDG|LD|LDL|UTMALDG|UBLKCP"),
    ("sts", r"STS|STSM|LDGSTS|ATOMS"),
    ("stg", r"STG|ST|STL|RED|REDG|ATOM|ATOMG|UTMASTG"),
    (
        "barrier",
        r"BAR|LDGDEPBAR|DEPBAR|WARPSYNC|SYNCS|MEMBAR|ERRBAR|FENCE|CCTL|BSSY|BSYNC|WARPGROUP|B2R|NANOSLEEP|YIELD",
    ),
    ("branch", r"BRA|BRX|BRXU|JMP|CALL|RET|EXIT|BREAK|KILL|BPT"),
    ("fp32", r"FADD|FMUL|FFMA|FSETP|FSET|FSEL|FMNMX|FMNMX3|FCHK|FSWZADD|MUFU|FADD2|FMUL2|FFMA2"),
    ("half", r"HADD2|HMUL2|HFMA2|HSETP2|HSET2|HMNMX2"),
    ("convert", r"F2F|F2FP|F2I|I2F|I2FP|I2I|FRND|I2IP"),
    ("shuffle", r"SHFL|VOTE|VOTEU|MATCH|REDUX"),
    (
        "integer",
        r"U?(IMAD|LOP3|LOP|PLOP3|SHF|SHL|SHR|PRMT|IADD3|IADD|LEA|ISETP|IMNMX|VIMNMX|VIMNMX3|VIADD|VIADDMNMX|SEL"
        r"|POPC|FLO|BREV|BMSK|SGXT|IABS|IDP|IDP4A|P2R|R2P|I2UR|BITEXTRACT)",
    ),
    ("move", r"U?(MOV|MOVM|CS2R|S2R|LDC|LDCU)|R2UR|S2UR"),
]
CLASSES = [(name, re.compile(rf"(?:{pattern})$")) for name, pattern in CLASSES]
COLUMNS = [name for name, _ in CLASSES] + ["other", "total"]

INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][A-Z0-9]*)([^;]*);")
TARGET = re.compile(r"\b0x([0-9a-f]+)\s*$")


def tool(name):
    """A program of the CUDA toolkit, from .cuda/bin or PATH."""
    ours = PROJECT / ".cuda/bin" / name
    found = str(ours) if ours.exists() else shutil.which(name)
    return found or sys.exit(f"{name} is neither in .cuda/bin nor in PATH: run `make cuda`")


def find_binary(name):
    """A file as given, or the newest fatbin that cargo made of kernels/{name}.cu."""
    if Path(name).suffix != ".cu" and Path(name).is_file():
        return Path(name)
    target = Path(os.environ.get("CARGO_TARGET_DIR", PROJECT / "target"))
    built = [p for depth in ("*", "*/*") for p in target.glob(f"{depth}/build/adali-*/out/{Path(name).stem}.fatbin")]
    if not built:
        sys.exit(f"no {Path(name).stem}.fatbin under {target}: build with nvcc first, or name a fatbin or cubin")
    return max(built, key=lambda path: path.stat().st_mtime)


def kernels(binary, arch):
    """Yields (arch, kernel, [(address, name, operands, text)])."""
    environment = dict(os.environ, PATH=f"{Path(tool('nvdisasm')).parent}:{os.environ['PATH']}")
    command = [tool("cuobjdump"), "-sass", *(["-arch", arch] if arch else []), str(binary)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    sass_arch, kernel, instructions = None, None, []
    for line in done.stdout.splitlines():
        if found := re.match(r"\s*(?:code for|Function :) (\S+)", line):
            if kernel:
                yield sass_arch, kernel, instructions
            kernel, instructions = None, []
            if "Function :" in line:
                kernel = found[1]
            else:
                sass_arch = found[1]
        elif found := INSTRUCTION.search(line):
            address, name, operands = found.groups()
            if name != "NOP":
                instructions.append((int(address, 16), name, operands, found[0]))
    if kernel:
        yield sass_arch, kernel, instructions


def is_matrix(instruction):
    return instruction[1].endswith("MMA")


def main_loop(instructions):
    """The instructions of the main loop and what to call them."""
    loops = set()
    for address, name, operands, _ in instructions:
        target = TARGET.search(operands)
        if name in ("BRA", "JMP") and target and int(target[1], 16) < address:
            loops.add((int(target[1], 16), address))
    bodies = {loop: [i for i in instructions if loop[0] <= i[0] <= loop[1]] for loop in loops}
    if not bodies:
        return instructions, "whole"
    matrix = {loop: sum(map(is_matrix, body)) for loop, body in bodies.items()}
    if any(matrix.values()):  # a loop without them, such as a wait, does not make the one around it less the main one
        loops = {loop for loop in loops if matrix[loop]}

    def inside(inner, outer):
        return inner != outer and outer[0] <= inner[0] and inner[1] <= outer[1]

    innermost = [loop for loop in loops if not any(inside(other, loop) for other in loops)]
    best = max(innermost, key=lambda loop: (matrix[loop], len(bodies[loop])))
    return bodies[best], f"{best[0]:#x}-{best[1]:#x}"


def count(instructions):
    counts = Counter(total=len(instructions))
    for _, name, _, _ in instructions:
        counts[next((kind for kind, pattern in CLASSES if pattern.match(name)), "other")] += 1
    return counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary", help="a fatbin or cubin, or the name of a kernels/*.cu that cargo has built")
    parser.add_argument("kernel", nargs="?", default="", help="a regular expression that the kernel's name contains")
    parser.add_argument("--arch", help="only this architecture, such as sm_90")
    parser.add_argument("--whole", action="store_true", help="the whole kernel instead of its main loop")
    parser.add_argument("--print", action="store_true", help="print the instructions too")
    arguments = parser.parse_intermixed_args()

    binary = find_binary(arguments.binary)
    found = [k for k in kernels(binary, arguments.arch) if re.search(arguments.kernel, k[1])]
    if not found:
        sys.exit(f"{binary}: no kernel like {arguments.kernel!r} for {arguments.arch or 'any architecture'}")
    print(binary)
    width = max(len(kernel) for _, kernel, _ in found)
    print(f"{'kernel':{width}}  arch    {'loop':16}" + "".join(f"{column:>9}" for column in COLUMNS))
    for arch, kernel, instructions in sorted(found, key=lambda k: (k[1], k[0])):
        body, where = (instructions, "whole") if arguments.whole else main_loop(instructions)
        counts = count(body)
        print(f"{kernel:{width}}  {arch:6}  {where:16}" + "".join(f"{counts[column]:9}" for column in COLUMNS))
        if arguments.print:
            print("\n".join(f"    {text}" for *_, text in body))


if __name__ == "__main__":
    main()
