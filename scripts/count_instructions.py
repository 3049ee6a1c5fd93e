"""Counts the instructions that a program executes on an Arm core that is not here, by QEMU's plugin.

    python scripts/count_instructions.py --cpu cortex-a53 target/aarch64-unknown-linux-gnu/release/driftglass --version
    python scripts/count_instructions.py --cpu cortex-a72 --between 2 4 PROGRAM sample --steps {} --out picture.png
    python scripts/count_instructions.py --cpu cortex-a76 --wheel onnxruntime --between 1 3 peer.py network.onnx {}

Seconds under an emulator say nothing about a board; instructions are the same on every machine, to some thousands where
a program starts threads. --between runs the program twice, with each number in the place of {}, and divides the
difference: what loading costs is gone, and one evaluation is left. --wheel counts a Python program, in an aarch64
Python with that package from PyPI, so that other engines are measured by the same gauge.

QEMU is built once, from Debian's source package, since no Debian package of it takes plugins and knows all cores'
/proc/cpuinfo: 5 min, into --cache, with an aarch64 C library beside it. Wants a Debian machine with gcc, flex, bison,
pkg-config, libglib2.0-dev and zlib1g-dev; installs nothing.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import command_line
from debian import C_LIBRARY, SUITE, Apt, quietly, unpack

QEMU = f"qemu/{SUITE}-backports"
LEAST = ("--disable-system", "--disable-tools", "--disable-docs", "--disable-guest-agent", "--disable-install-blobs")
PYTHON = (
    *("python3.11-minimal:arm64", "libpython3.11-minimal:arm64", "libpython3.11-stdlib:arm64", "zlib1g:arm64"),
    *("libexpat1:arm64", "libffi8:arm64", "libssl3:arm64", "liblzma5:arm64", "libbz2-1.0:arm64", "libcrypt1:arm64"),
)
CACHE = Path("target/count-instructions")
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def build_qemu(cache):
    """The emulator and its plugin, built from Debian's source package where they are not there yet."""
    build = cache / "qemu-build"
    made = (build / "qemu-aarch64", build / "tests/tcg/plugins/libinsn.so")
    if all(file.exists() for file in made):
        return made
    for tool in ("gcc", "flex", "bison", "pkg-config"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool}: there is no such program, and QEMU is built with it")
    print(f"building QEMU in {cache}", file=sys.stderr)
    source, tools = cache / "qemu", cache / "venv"
    Apt(cache / "apt").fetch(cache / "source", "source", "--tar-only", QEMU)
    (tarball,) = (cache / "source").glob("qemu_*.orig.tar.xz")
    source.mkdir(exist_ok=True)
    quietly(source, "tar", "--extract", "--strip-components=1", f"--file={tarball}")
    venv.create(tools, with_pip=True)
    quietly(cache, tools / "bin/pip", "install", "meson<1.9", "ninja", "pycotap", "setuptools")
    shutil.rmtree(build, ignore_errors=True)
    build.mkdir()
    path = {"PATH": f"{tools / 'bin'}:{os.environ['PATH']}"}
    chosen = ("--target-list=aarch64-linux-user", "--enable-plugins", "--disable-werror", *LEAST)
    quietly(build, source / "configure", f"--python={tools / 'bin/python'}", *chosen, env=os.environ | path)
    quietly(build, tools / "bin/ninja", *(file.relative_to(build) for file in made), env=os.environ | path)
    return made


def install_wheels(cache, root, wheels):
    """Unpacks aarch64 wheels from PyPI, and numpy, into `root`, once; returns its Python."""
    platforms = (f"--platform=manylinux{version}_aarch64" for version in ("2014", "_2_17", "_2_27", "_2_28"))
    chosen = ("--no-deps", "--only-binary=:all:", "--python-version=3.11", *platforms)
    site = root / "usr/lib/python3/dist-packages"
    site.mkdir(parents=True, exist_ok=True)
    for wheel in ("numpy", *wheels):
        folder = cache / "wheels" / wheel
        if not folder.exists():
            partial = folder.with_name(f"{wheel}.partial")
            quietly(cache, sys.executable, "-m", "pip", "download", *chosen, f"--dest={partial}", wheel)
            (file,) = partial.iterdir()
            zipfile.ZipFile(file).extractall(site)
            partial.rename(folder)
    return root / "usr/bin/python3.11"


def count(emulator, command):
    """Instructions that `command` executes, all threads together; what it prints goes to stderr."""
    pipes = {"stdout": sys.stderr, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*emulator, *command], **pipes, env=os.environ | ONE_THREAD) as process:
        total = None
        for line in process.stderr:
            told = re.fullmatch(r"(cpu \d+|total) insns: (\d+)\n", line)
            if told is None:
                sys.stderr.write(line)
            elif told[1] == "total":
                total = int(told[2])
    if process.returncode != 0 or total is None:
        raise SystemExit(f"{command[0]}: ended with {process.returncode}, expected 0")
    return total


def emulator_of(cache, cpu):
    """The command before a program that runs it as `cpu` and counts; everything of it is made in `cache`, once."""
    qemu, plugin = build_qemu(cache)
    unpack(cache, cache / "root", C_LIBRARY)
    return qemu, "-cpu", cpu, "-L", cache / "root", "-plugin", f"{plugin},inline=on", "-d", "plugin"


def between(emulator, program, few, many):
    """Instructions of one evaluation, and of the two runs whose difference it is divided from."""
    counts = [count(emulator, [str(word).replace("{}", str(n)) for word in program]) for n in (few, many)]
    return (counts[1] - counts[0]) / (many - few), counts


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--cpu", default="cortex-a53", help="QEMU's name of the core (default cortex-a53, the least)")
    p.add_argument("--between", nargs=2, type=command_line.seed, metavar=("FEW", "MANY"), help="how many evaluations, twice")
    p.add_argument("--wheel", action="append", help="a package, may be given again; the program is then a Python script")
    p.add_argument("--cache", type=Path, default=CACHE, help="folder of what is built and fetched (default %(default)s)")
    p.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM ...", help="an aarch64 program and its arguments")
    args = p.parse_args(arguments)
    if not args.command:
        p.error("expected a program")
    few, many = args.between or (0, 1)
    if few >= many:
        p.error(f"expected more evaluations than {few} as the second number of --between, got {many}")
    cache = args.cache.resolve()
    emulator = emulator_of(cache, args.cpu)
    program = args.command
    if args.wheel:
        unpack(cache, cache / "root", PYTHON)
        program = [install_wheels(cache, cache / "root", args.wheel), *program]
    if args.between is None:
        print(f"{args.cpu}: {count(emulator, program):,} instructions")
        return
    each, counts = between(emulator, program, few, many)
    print(f"{args.cpu}: {each:,.0f} instructions each; {few}: {counts[0]:,}; {many}: {counts[1]:,}")


if __name__ == "__main__":
    main()
