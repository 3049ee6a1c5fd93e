"""Holds an aarch64 binary of driftglass against what boards ask of it, and runs it as the least and the most of cores.

    python scripts/check_arm_binary.py target/cross-aarch64/aarch64-unknown-linux-gnu/release/driftglass

Where it starts: the newest version of the C library that it names is at most --glibc (2.31: Debian bullseye, JetPack 5).
What it is fast with: it has int8 dot products and half-precision multiplications, since an assembler that does not know
them leaves tract's kernels out and says nothing. What it needs: as a Cortex-A53, which has neither, it says its version
and paints what the shipped model's reference says; so it does as the most capable core that QEMU knows, by other kernels.
How large it is without symbols.

The emulator and an aarch64 C library are Debian's, unpacked into target/arm, as for scripts/test-arm; --no-run does
without.
"""

import re
import struct
import subprocess
from pathlib import Path

import command_line
import debian

CACHE = Path("target/arm")
# So that it does not grow unseen; the models inside are 6 of them.
SIZE_MAX = 25_000_000
AARCH64 = 183
# Masks and bits of the instructions, from the Arm architecture reference manual (DDI 0487), C7.2.
INSTRUCTIONS = {
    "sdot": ((0xBFE0FC00, 0x0E809400), (0xBFC0F400, 0x0F80E000)),  # by vector, by element
    "fp16 fmla": ((0xBFE0FC00, 0x0E400C00), (0xBFC0F400, 0x0F001000)),
}


def sections(binary):
    """Name, flags, offset and size of the sections of a 64-bit little-endian ELF file."""
    table, entry, count, names = struct.unpack_from("<Q10xHHH", binary, 0x28)
    headers = [struct.unpack_from("<IIQQQQ", binary, table + i * entry) for i in range(count)]
    start = headers[names][4]
    for name, _, flags, _, offset, size in headers:
        text = binary[start + name : binary.index(b"\0", start + name)]
        yield text.decode(), flags, offset, size


def code(binary):
    """The words of all sections that hold instructions."""
    executable = 4
    for _, flags, offset, size in sections(binary):
        if flags & executable:
            yield from memoryview(binary)[offset : offset + size // 4 * 4].cast("I")


def glibc(binary):
    """The newest version of the C library among the names that are linked at the start."""
    versions = [
        tuple(map(int, version.split(b".")))
        for name, _, offset, size in sections(binary)
        if name == ".dynstr"
        for version in re.findall(rb"GLIBC_([0-9.]+)\0", binary[offset : offset + size])
    ]
    return max(versions, default=(0,))


def counts(binary):
    """How often each of INSTRUCTIONS stands in the code."""
    found = dict.fromkeys(INSTRUCTIONS, 0)
    for word in code(binary):
        if word & 0x0E000000 == 0x0E000000:
            for name, encodings in INSTRUCTIONS.items():
                found[name] += any(word & mask == bits for mask, bits in encodings)
    return found


def stripped_size(binary):
    """Bytes that are loaded, and the headers: what is left when symbols are stripped, to some hundred bytes."""
    allocated = 2
    ends = [offset + size for name, flags, offset, size in sections(binary) if flags & allocated and name != ".bss"]
    return max(ends) if ends else len(binary)


def runs(emulator, library, core, program, *arguments):
    """Whether the program ends well as a core; what it says is shown."""
    return subprocess.run([emulator, "-cpu", core, "-L", library, program, *arguments]).returncode == 0


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--glibc", default="2.31", metavar="VERSION", help="the newest C library it may ask for (default 2.31)")
    p.add_argument("--no-run", dest="run", action="store_false", help="only look at the file")
    p.add_argument("program", type=Path)
    args = p.parse_args(arguments)
    binary = args.program.read_bytes()
    if binary[:6] != b"\x7fELF\x02\x01" or struct.unpack_from("<H", binary, 18)[0] != AARCH64:
        raise SystemExit(f"{args.program}: expected a 64-bit Arm program, got another file")

    failed = []

    def gate(text, passed):
        print(f"{'ok    ' if passed else 'FAILED'} {text}", flush=True)
        if not passed:
            failed.append(text)

    newest = glibc(binary)
    limit = tuple(map(int, args.glibc.split(".")))
    gate(f"asks for glibc {'.'.join(map(str, newest))}, at most {args.glibc}", newest <= limit)
    for name, number in counts(binary).items():
        gate(f"{number} instructions {name}, at least 1", number > 0)
    size = stripped_size(binary)
    gate(f"{size / 1e6:.1f} MB without symbols, less than {SIZE_MAX / 1e6:.0f}", size < SIZE_MAX)
    if args.run:
        emulator, library = debian.emulator(CACHE.resolve())
        check = ("models", "check", "scenes-32")
        for core, command in (("cortex-a53", ("--version",)), ("cortex-a53", check), ("max", check)):
            gate(f"as {core}: {' '.join(command)}", runs(emulator, library, core, args.program, *command))
    if failed:
        raise SystemExit(f"{args.program}: {len(failed)} of the checks failed")


if __name__ == "__main__":
    main()
