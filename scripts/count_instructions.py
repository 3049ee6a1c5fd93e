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

SUITE = "bookworm"  # and its backports
QEMU = f"qemu/{SUITE}-backports"
LEAST = ("--disable-system", "--disable-tools", "--disable-docs", "--disable-guest-agent", "--disable-install-blobs")
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "libgomp1")
PYTHON = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "zlib1g", "libexpat1", "libffi8"),
    *("libssl3", "liblzma5", "libbz2-1.0", "libcrypt1"),
)
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def quietly(folder, *command, **settings):
    """Runs a command in `folder`, and shows what it said only if it fails."""
    ended = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings)
    if ended.returncode != 0:
        raise SystemExit(f"{ended.stdout}\n{' '.join(map(str, command))}: ended with {ended.returncode}, expected 0")


def mirror():
    """Where this machine has its Debian packages from."""
    command = ("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}")
    found = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.split()
    if not found:
        raise SystemExit(f"apt-get indextargets: expected a source of Debian's {SUITE}, found none")
    return found[0]


class Apt:
    """Debian's packages for amd64 and arm64, from lists of their own: they can be fetched, never installed."""

    def __init__(self, folder):
        self.config = folder / "apt.conf"
        if self.config.exists():
            return
        for name in ("lists/partial", "archives/partial", "etc/apt.conf.d", "etc/preferences.d", "etc/sources.list.d"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        suites, debian = (SUITE, f"{SUITE}-backports"), mirror()
        lines = [f"{kind} {debian} {suite} main" for suite in suites for kind in ("deb", "deb-src")]
        (folder / "etc/sources.list").write_text("\n".join(lines) + "\n")
        (folder / "status").touch()
        places = {"Etc": "etc", "State": ".", "State::lists": "lists", "State::status": "status", "Cache": "."}
        settings = [f'Dir::{key} "{folder / place}";' for key, place in places.items()]
        settings += ['APT::Architectures { "amd64"; "arm64"; };', 'Dir::Etc::TrustedParts "/usr/share/keyrings";']
        partial = folder / "partial.conf"
        partial.write_text("\n".join([*settings, 'APT::Sandbox::User "";']) + "\n")
        quietly(folder, "apt-get", "update", env=os.environ | {"APT_CONFIG": str(partial)})
        partial.rename(self.config)

    def fetch(self, folder, *arguments):
        folder.mkdir(parents=True, exist_ok=True)
        quietly(folder, "apt-get", *arguments, env=os.environ | {"APT_CONFIG": str(self.config)})


def build_qemu(apt, cache):
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
    apt().fetch(cache / "source", "source", "--tar-only", QEMU)
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


def install(apt, cache, root, packages):
    """Unpacks Debian's arm64 packages into `root`, once."""
    debs = cache / "debs"
    for package in packages:
        if not any(debs.glob(f"{package}_*_arm64.deb")):
            apt().fetch(debs, "download", f"{package}:arm64")
            (deb,) = debs.glob(f"{package}_*_arm64.deb")
            quietly(debs, "dpkg-deb", "--extract", deb, root)


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


def main(arguments=None):
    p = command_line.parser(__doc__)
    cache = Path("target/count-instructions")
    p.add_argument("--cpu", default="cortex-a53", help="QEMU's name of the core (default cortex-a53, the least)")
    p.add_argument("--between", nargs=2, type=command_line.seed, metavar=("FEW", "MANY"), help="how many evaluations, twice")
    p.add_argument("--wheel", action="append", help="a package, may be given again; the program is then a Python script")
    p.add_argument("--cache", type=Path, default=cache, help=f"folder of what is built and fetched (default {cache})")
    p.add_argument("command", nargs=argparse.REMAINDER, metavar="PROGRAM ...", help="an aarch64 program and its arguments")
    args = p.parse_args(arguments)
    if not args.command:
        p.error("expected a program")
    few, many = args.between or (0, 1)
    if few >= many:
        p.error(f"expected more evaluations than {few} as the second number of --between, got {many}")
    cache = args.cache.resolve()
    root = cache / "root"
    root.mkdir(parents=True, exist_ok=True)

    def apt():
        return Apt(cache / "apt")

    qemu, plugin = build_qemu(apt, cache)
    install(apt, cache, root, LIBRARIES)
    program = args.command
    if args.wheel:
        install(apt, cache, root, PYTHON)
        program = [install_wheels(cache, root, args.wheel), *program]
    emulator = (qemu, "-cpu", args.cpu, "-L", root, "-plugin", f"{plugin},inline=on", "-d", "plugin")
    if args.between is None:
        print(f"{args.cpu}: {count(emulator, program):,} instructions")
        return
    counts = [count(emulator, [str(word).replace("{}", str(n)) for word in program]) for n in (few, many)]
    each = (counts[1] - counts[0]) / (many - few)
    print(f"{args.cpu}: {each:,.0f} instructions each; {few}: {counts[0]:,}; {many}: {counts[1]:,}")


if __name__ == "__main__":
    main()
