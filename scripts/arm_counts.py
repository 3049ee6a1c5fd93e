"""The gauge of speed on Arm: instructions of one step of the shipped model, per core, against docs/performance.md.

    python scripts/arm_counts.py            counts, and fails where a count is more than 3 % from the table
    python scripts/arm_counts.py --write    writes the table anew

Instructions are no seconds, but they are the same on every machine, so that a change of the engine shows without a
board. A change of more than 3 % is explained by the commit that writes the table anew. Counts what scripts/cross has
built, on one thread, by scripts/count_instructions.py, which builds its emulator at first.
"""

import re
import sys
import tempfile
from pathlib import Path

import command_line
import count_instructions

CORES = ("cortex-a53", "cortex-a72", "cortex-a76", "max")
FILES = ("fp16", "int8")
FEW, MANY = 2, 6
TOLERANCE = 0.03
TABLE = Path(__file__).parents[1] / "docs/performance.md"
PROGRAM = Path("target/cross-aarch64/aarch64-unknown-linux-gnu/release/driftglass")
MARKERS = "<!-- arm: begin -->", "<!-- arm: end -->"
HEADING = "| scenes-32, thousands of instructions | " + " | ".join(CORES) + " |"


def parts(text, path):
    """What stands before the table's markers, between them, and after them."""
    found = re.fullmatch(f"(.*{MARKERS[0]}\n)(.*)({MARKERS[1]}.*)", text, re.DOTALL)
    if found is None:
        raise SystemExit(f"{path}: expected a line {MARKERS[0]} and after it a line {MARKERS[1]}, found no such lines")
    return found.groups()


def table(counts):
    """Counts by file and core, as the lines of a table."""
    lines = [HEADING, "|---|" + "---|" * len(CORES)]
    for file in FILES:
        cells = (f"{round(counts[file, core] / 1000):,}" for core in CORES)
        lines.append(f"| {file} file | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def read(text, path):
    """The counts of a table's lines."""
    lines = text.splitlines()
    if not lines or lines[0] != HEADING:
        raise SystemExit(f"{path}: expected the table's heading `{HEADING}`, found {lines[:1]}; --write makes it")
    counts = {}
    for line in lines[2:]:
        file, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        for core, cell in zip(CORES, cells):
            counts[file.removesuffix(" file"), core] = 1000 * int(cell.replace(",", ""))
    return counts


def differences(counts, expected, path):
    """A sentence for every count that is not the table's, to within the tolerance."""
    for (file, core), count in counts.items():
        before = expected.get((file, core))
        if before is None:
            yield f"{path}: expected a count of the {file} file as {core}, found none"
        elif abs(count / before - 1) > TOLERANCE:
            change = f"{100 * (count / before - 1):+.1f} %"
            yield f"{path}: {file} file as {core}: expected {before:,} to within 3 %, counted {count:,.0f} ({change})"


def measure(program, cache):
    """Instructions of one step, by file and core."""
    counts = {}
    with tempfile.TemporaryDirectory() as folder:
        for core in CORES:
            emulator = count_instructions.emulator_of(cache, core)
            for file in FILES:
                chosen = ("--precision", file, "--threads", "1", "--seed", "1", "--preview", "none", "--scale", "1")
                command = [program, "sample", *chosen, "--steps", "{}", "--out", f"{folder}/picture.png"]
                counts[file, core], _ = count_instructions.between(emulator, command, FEW, MANY)
                print(f"{core}, {file} file: {counts[file, core]:,.0f} instructions each step", file=sys.stderr)
    return counts


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--write", action="store_true", help="write the table anew instead of comparing with it")
    p.add_argument("--cache", type=Path, default=count_instructions.CACHE, help="as count_instructions.py (%(default)s)")
    p.add_argument("program", nargs="?", type=Path, default=PROGRAM, help="default: %(default)s")
    args = p.parse_args(arguments)
    if not args.program.exists():
        raise SystemExit(f"{args.program}: no such file; scripts/cross makes it")
    before, old, after = parts(TABLE.read_text(), TABLE)
    expected = {} if args.write else read(old, TABLE)
    counts = measure(args.program.resolve(), args.cache.resolve())
    if args.write:
        TABLE.write_text(before + table(counts) + after)
        return
    wrong = list(differences(counts, expected, TABLE))
    if wrong:
        raise SystemExit("\n".join([*wrong, "a change of the engine is explained in its commit, which runs --write"]))
    print(f"{len(counts)} counts are those of {TABLE.name}, to within 3 %")


if __name__ == "__main__":
    main()
