"""Debian's packages for this machine and for arm64: fetched from lists of our own and unpacked, never installed.

The release is the same everywhere, so that an emulator and a C library are, whatever Debian the machine has.
"""

import os
import subprocess

SUITE = "bookworm"  # and its backports
C_LIBRARY = ("libc6:arm64", "libgcc-s1:arm64", "libstdc++6:arm64", "libgomp1:arm64")


def quietly(folder, *command, **settings):
    """Runs a command in `folder`, and shows what it said only if it fails."""
    ended = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **settings)
    if ended.returncode != 0:
        raise SystemExit(f"{ended.stdout}\n{' '.join(map(str, command))}: ended with {ended.returncode}, expected 0")


def told(*command):
    """What a command prints, without the line's end."""
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def mirror():
    """Where this machine has its Debian packages from."""
    lines = told("apt-get", "indextargets", "--format", "$(ORIGIN) $(SUITE) $(REPO_URI)", "Created-By: Packages")
    # Updates come from the same place, security from another one.
    found = {line.split()[-1] for line in lines.splitlines() if line.startswith("Debian ") and "-" not in line.split()[1]}
    if not found:
        raise SystemExit("apt-get indextargets: expected a source of Debian, found none (apt-get update makes its lists)")
    return min(found)


class Apt:
    """Packages from lists of their own in `folder`; packages are `name`, `name:arm64` or `name/suite`."""

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
        architectures = {told("dpkg", "--print-architecture"): None, "arm64": None}
        settings.append("APT::Architectures { %s };" % " ".join(f'"{name}";' for name in architectures))
        settings.append('Dir::Etc::TrustedParts "/usr/share/keyrings";')
        partial = folder / "partial.conf"
        partial.write_text("\n".join([*settings, 'APT::Sandbox::User "";']) + "\n")
        quietly(folder, "apt-get", "update", env=os.environ | {"APT_CONFIG": str(partial)})
        partial.rename(self.config)

    def fetch(self, folder, *arguments):
        """Runs apt-get with these arguments in `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        quietly(folder, "apt-get", *arguments, env=os.environ | {"APT_CONFIG": str(self.config)})


def unpack(cache, root, packages):
    """Unpacks packages into `root`, each once; lists and archives are kept in `cache`."""
    debs, fresh = cache / "debs", cache / "debs/fresh"
    for package in packages:
        name = package.partition("/")[0].partition(":")[0]
        if any(debs.glob(f"{name}_*.deb")):
            continue
        Apt(cache / "apt").fetch(fresh, "download", package)
        (deb,) = fresh.glob("*.deb")
        root.mkdir(parents=True, exist_ok=True)
        quietly(fresh, "dpkg-deb", "--extract", deb, root)
        deb.rename(debs / deb.name)


def emulator(cache):
    """QEMU for arm64 programs and the folder of their C library, unpacked into `cache`.

    Bookworm's own QEMU shows a program this machine's /proc/cpuinfo; that of its backports shows the core's.
    """
    unpack(cache, cache / "qemu", (f"qemu-user/{SUITE}-backports",))
    unpack(cache, cache / "root", C_LIBRARY)
    return cache / "qemu/usr/bin/qemu-aarch64", cache / "root"
