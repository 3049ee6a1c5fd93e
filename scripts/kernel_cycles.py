"""Models the cycles that the inner loops of an aarch64 driftglass take on the boards' cores.

    python scripts/kernel_cycles.py target/cross-aarch64/aarch64-unknown-linux-gnu/release/driftglass

Finds the loops in the program's machine code by what they multiply (a stripped program will do), and has llvm-mca run
each a hundred times on LLVM's models of three cores: what an iteration takes, and what its multiplications alone would
take on the ports that can multiply, which no order of instructions goes below. Every load hits the first cache.

These are models, not times. LLVM has the Cortex-A57's for the A72, and the Neoverse N1's for the A76, whose design that
is. Its A53 ends instructions in the order in which they began, so that a load waits for the multiplications before it,
which the real one does not; the column "A53, published" therefore counts what the authors of ncnn measured on one
(their arm-a53-a55-dual-issue.md): a multiplication of vectors takes a cycle, a load of 64 bits into a vector register
one more and of 128 bits two, a store as long as a load, an insertion into a vector one, unless a load of 64 bits comes
before it, and everything else happens beside them. Nothing waits for a value in this count, which an order can reach
but need not.

Wants Debian's package llvm-19, or takes it from there into --cache without installing it.
"""

import collections
import json
import os
import re
import subprocess
from pathlib import Path

import command_line
import debian

CORES = (("A53", "cortex-a53"), ("A72", "cortex-a72"), ("A76", "neoverse-n1"))
ITERATIONS = 100
# What a loop multiplies (and adds, inserts or rounds, where that tells it from others), and what that is.
KERNELS = (
    ("f32 product, 6 × 16", {"fmla.4s": 192}),
    ("f32 product, 4 × 16", {"fmla.4s": 128}),
    ("f32 product in order, 6 × 16", {"fmla.4s": 96, "mov.d": 28}),
    ("f32 product in order, 4 × 16", {"fmla.4s": 64, "mov.d": 24}),
    ("f16 product, 6 × 16", {"fmla.8h": 96, "fcvtn.4h": 6}),
    ("f16 product, 4 × 16", {"fmla.8h": 64, "fcvtn.4h": 4}),
    ("int8 product with SDOT, 8 × 8", {"sdot.4s": 64}),
    ("int8 product with SMULL, 4 × 4", {"smull.8h": 16, "smlal2.8h": 16, "sadalp.4s": 16}),
    ("F(4×4, 3×3), patches", {"fmla.4s": 72}),
    ("F(4×4, 3×3), outputs", {"fmla.4s": 40, "fmul.4s": 20, "fadd.4s": 40, "fsub.4s": 20}),
    ("F(4×4, 2×2), patches", {"fmla.4s": 50}),
    ("F(4×4, 2×2), outputs", {"fmla.4s": 36, "fmul.4s": 18, "fadd.4s": 27, "fsub.4s": 18}),
)
INSERT = re.compile(r"(mov)\s+v\d+\.(d)\[")
ROUND = re.compile(r"(fcvtn)\s+v\d+\.(4h)")
# What only the newest of the cores can multiply.
NEW = {"sdot.4s", "fmla.8h"}
ARITHMETIC = re.compile(r"(fmla|fmls|fmul|fadd|fsub|sdot|smull2?|smlal2?|sadalp)\s+v\d+\.(\w+)")
BRANCH = re.compile(r"(b|b\.\w+|bl|blr|br|ret|cbn?z|tbn?z)\b")
BACK = re.compile(r"(?:b\.\w+|cbn?z|tbn?z)\s.*?0x([0-9a-f]+) <")
VECTOR_MEMORY = re.compile(r"(?:ld|st)(?P<pair>p|n?p)?u?r?\s+(?P<size>[qd])\d+")


def instructions(text):
    """The addresses and instructions of what llvm-objdump says."""
    for line in text.splitlines():
        found = re.match(r"\s*([0-9a-f]+):\s+(\S.*)", line)
        if found:
            yield int(found[1], 16), found[2].split("//")[0].strip().replace("\t", " ")


def loops(code):
    """Loops without a branch inside, as lists of instructions."""
    code = list(code)
    place = {address: i for i, (address, _) in enumerate(code)}
    last_branch = -1
    for i, (address, instruction) in enumerate(code):
        if not BRANCH.match(instruction):
            continue
        back = BACK.match(instruction)
        start = place.get(int(back[1], 16)) if back else None
        if start is not None and last_branch < start <= i:
            yield [instruction for _, instruction in code[start : i + 1]]
        last_branch = i


def arithmetic(loop):
    """How often what KERNELS names is in a loop: instructions on vectors, with the kind of their elements."""
    found = (kind.match(instruction) for instruction in loop for kind in (ARITHMETIC, INSERT, ROUND))
    return collections.Counter(f"{f[1]}.{f[2]}" for f in found if f)


def find(code):
    """The first loop of every kernel, in their order."""
    kernels = {}
    for loop in loops(code):
        counted = arithmetic(loop)
        for name, wanted in KERNELS:
            if counted == wanted:
                kernels.setdefault(name, loop)
    return [(name, kernels[name]) for name, _ in KERNELS if name in kernels]


def published_cycles(loop):
    """Cycles of an iteration on an A53, by what was measured of single instructions."""
    cycles = 0
    before = None
    for instruction in loop:
        moved = VECTOR_MEMORY.match(instruction)
        if moved:
            cycles += {"q": 2, "d": 1}[moved["size"]] * (2 if moved["pair"] else 1)
        elif ARITHMETIC.match(instruction) or (INSERT.match(instruction) and not before):
            cycles += 1
        before = moved
    return cycles


class Llvm:
    """LLVM's tools, installed or unpacked."""

    def __init__(self, cache):
        self.environment = dict(os.environ)
        installed = Path("/usr/lib/llvm-19")
        root = cache / "root"
        self.folder = installed / "bin" if (installed / "bin/llvm-mca").exists() else root / "usr/lib/llvm-19/bin"
        if not (self.folder / "llvm-mca").exists():
            debian.unpack(cache, root, ("llvm-19", "libllvm19"))
        libraries = root / "usr/lib/x86_64-linux-gnu"
        if libraries.exists():
            self.environment["LD_LIBRARY_PATH"] = str(libraries)

    def run(self, tool, *arguments, text=None):
        command = [self.folder / tool, *map(str, arguments)]
        ended = subprocess.run(command, input=text, env=self.environment, capture_output=True, text=True)
        if ended.returncode != 0:
            raise SystemExit(f"{tool}: {ended.stderr.strip()}")
        return ended.stdout

    def code(self, program):
        return instructions(self.run("llvm-objdump", "--disassemble", "--no-show-raw-insn", program))

    def model(self, core, code):
        """llvm-mca's summary of a loop."""
        machine = ("-mtriple=aarch64", f"-mcpu={core}", "-mattr=+dotprod,+fullfp16")
        arguments = (*machine, f"-iterations={ITERATIONS}", "-json")
        told = json.loads(self.run("llvm-mca", *arguments, text="\n".join(["loop:", *code, ""])))
        return told["CodeRegions"][0]["SummaryView"]


def row(llvm, name, loop):
    """The table's row of a kernel."""
    counted = arithmetic(loop)
    multiplied = [i for i in loop if ARITHMETIC.match(i)]
    # The branch's target means nothing outside the program.
    runnable = [*loop[:-1], re.sub(r"0x[0-9a-f]+ <.*", "loop", loop[-1])]
    cells = [name, f"{len(loop)}", f"{len(multiplied)}"]
    for core, model in CORES:
        if core != "A76" and NEW & counted.keys():
            cells += ["–"] * (2 if core == "A53" else 1)
            continue
        cycles = llvm.model(model, runnable)["TotalCycles"] / ITERATIONS
        limit = llvm.model(model, multiplied)["BlockRThroughput"]
        cells.append(share(cycles, limit))
        if core == "A53":
            cells.append(share(published_cycles(loop), limit))
    return cells


def share(cycles, limit):
    return f"{cycles:.0f} / {limit:.0f}: {limit / cycles:.0%}"


def main(arguments=None):
    p = command_line.parser(__doc__)
    cache = Path("target/llvm-19")
    p.add_argument("--cache", type=Path, default=cache, help=f"folder of what is fetched (default {cache})")
    p.add_argument("program", type=Path, help="an aarch64 driftglass")
    args = p.parse_args(arguments)
    llvm = Llvm(args.cache.resolve())
    kernels = find(llvm.code(args.program))
    if not kernels:
        raise SystemExit(f"{args.program}: expected the loops of driftglass's kernels for aarch64, found none")
    print("| loop | instructions | arithmetic | A53, LLVM | A53, published | A72, LLVM's A57 | A76, LLVM's N1 |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for name, loop in kernels:
        print(f"| {' | '.join(row(llvm, name, loop))} |")


if __name__ == "__main__":
    main()
