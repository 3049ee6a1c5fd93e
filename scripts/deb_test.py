"""Installs, upgrades, removes and purges the Debian package in Debian systems for 64-bit Arm, under emulation.

    scripts/deb --test                          bookworm and trixie
    python scripts/deb_test.py --suite trixie target/deb/driftglass_0.1.0_arm64.deb

A root of each suite is made by mmdebstrap with what the package depends on, and thrown away. In it: every file is as
packaged (dpkg --verify), the service's user and groups are there, its unit and its rules are understood by that suite's
own systemd, the program paints; an upgrade keeps the owner's file and the service enabled; removing keeps the owner's
file, purging leaves nothing. Before that lintian looks at the package, where it is installed.

Wants mmdebstrap, and an emulator that the kernel starts aarch64 programs with (Debian: qemu-user-static); root can name
one with --emulator instead, a static qemu-aarch64, and it is registered until the next boot. About two minutes a suite.
"""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import command_line

SUITES = ("bookworm", "trixie")
MIRROR = "http://deb.debian.org/debian"
BINFMT = Path("/proc/sys/fs/binfmt_misc")
DEADLINE_S = 1800
# An aarch64 ELF file, as binfmt_misc wants to hear of it: magic, and which of its bits count.
MAGIC = r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00"
MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"

# Runs in the root: $old is the package, $new the same with a later version. A failing line ends it.
TRIAL = r"""
set -eu
step() { echo "-- $*"; }
fail() { echo "$*" >&2; exit 1; }
pure() { [ -z "$(dpkg --verify driftglass)" ] || { dpkg --verify driftglass; fail "$1: files are not as packaged"; }; }
apt() { apt-get --quiet=2 --yes --no-install-recommends -o Dpkg::Use-Pty=0 -o APT::Sandbox::User= "$@"; }
export DEBIAN_FRONTEND=noninteractive
state=/var/lib/driftglass
config=/etc/driftglass/config.toml

step install
apt install "$old"
pure install
id driftglass
for group in video render input spi gpio i2c; do getent group $group >/dev/null || fail "no group $group"; done
systemd-tmpfiles --create driftglass.conf
[ "$(stat --format=%U "$state")" = driftglass ] || fail "$state: expected it to be driftglass's"

step "the unit and the rules, as this systemd reads them"
systemd-analyze --man=no verify driftglass.service
if udevadm verify --help >/dev/null 2>&1; then udevadm verify --no-style /usr/lib/udev/rules.d/60-driftglass.rules; fi
[ "$(systemctl is-enabled driftglass || true)" = disabled ] || fail "expected the service to be disabled at first"
systemctl enable driftglass
[ -h /etc/systemd/system/multi-user.target.wants/driftglass.service ] || fail "expected the service to be enabled"

step "the program"
driftglass --version
driftglass models list
for model in /usr/share/driftglass/models/*/; do
    driftglass sample --model "$model" --steps 2 --preview none --quiet --out /tmp/painted || fail "$model: expected a picture"
done
rm -r /tmp/painted
driftglass boards show raspberry-pi-zero-2-w >/dev/null
cd "$state"
setpriv --reuid driftglass --regid driftglass --init-groups driftglass run --panel headless --steps 3 --pictures 1
[ "$(head -c 4 latest.png | tail -c 3)" = PNG ] || fail "$state/latest.png: expected a picture"
[ "$(stat --format=%U latest.png)" = driftglass ] || fail "latest.png: expected it to be driftglass's"
cd /

step upgrade
echo 'hold-s = 300' >>$config
touch "$state/.latest.png.1-0.tmp"
apt install "$new"
[ "$(dpkg-query --show --showformat='${Version}' driftglass)" = "$new_version" ] || fail "expected version $new_version"
[ "$(tail -n 1 $config)" = 'hold-s = 300' ] || fail "$config: the owner's change is gone"
[ "$(dpkg --verify driftglass)" = "??5?????? c $config" ] || fail "upgrade: $(dpkg --verify driftglass)"
[ "$(systemctl is-enabled driftglass)" = enabled ] || fail "expected the service to be still enabled"
systemd-tmpfiles --boot --remove driftglass.conf
[ ! -e "$state/.latest.png.1-0.tmp" ] || fail "half a picture is left"
[ -e "$state/latest.png" ] || fail "the picture is gone"

step remove
apt remove driftglass
[ ! -e /usr/bin/driftglass ] || fail "/usr/bin/driftglass is left"
[ -e $config ] && [ -e "$state/latest.png" ] || fail "the owner's file or the picture is gone"

step purge
apt purge driftglass
left=$(find / -xdev \( -path /proc -o -path /sys -o -path /trial \) -prune -o -iname '*driftglass*' -print)
[ -z "$left" ] || fail "left after purging: $left"

step "and again, and gone at once"
apt install "$new"
pure "second install"
apt purge driftglass
"""


def emulate(emulator):
    """Sees to it that the kernel starts aarch64 programs."""
    if os.uname().machine == "aarch64":
        return
    if not (BINFMT / "status").exists() and os.geteuid() == 0:
        subprocess.run(["mount", "-t", "binfmt_misc", "none", BINFMT], check=False)
    if (BINFMT / "qemu-aarch64").exists():
        return
    if emulator is None or os.geteuid() != 0:
        raise SystemExit(f"{BINFMT}: expected an emulator for aarch64, found none (Debian: qemu-user-static)")
    # F: the emulator is opened now, so that a root without it can use it; the magic keeps its backslashes.
    (BINFMT / "register").write_text(f":qemu-aarch64:M::{MAGIC}:{MASK}:{Path(emulator).resolve()}:F\n")


def later(package, folder):
    """The same package with a later version."""
    unpacked = folder / "unpacked"
    subprocess.run(["dpkg-deb", "--raw-extract", package, unpacked], check=True)
    control = unpacked / "DEBIAN/control"
    lines = control.read_text().splitlines()
    version = next(line for line in lines if line.startswith("Version: ")) + "+1"
    control.write_text("".join(version + "\n" if line.startswith("Version: ") else line + "\n" for line in lines))
    newer = folder / "later.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", unpacked, newer], check=True)
    shutil.rmtree(unpacked)
    return newer, version.removeprefix("Version: ")


def trial(suite, mirror, package):
    """Everything, in a root of this suite; whether it went well."""
    with tempfile.TemporaryDirectory(prefix="deb-test-") as folder:
        folder = Path(folder)
        newer, version = later(package, folder)
        script = f"old=/trial/old.deb new=/trial/new.deb new_version={version}\n{TRIAL}"
        (folder / "trial.sh").write_text(script)
        command = [
            "mmdebstrap",
            "--quiet",
            # It would ask a program of another package whether there is an emulator; emulate() has seen to it.
            "--skip=check/qemu",
            "--architectures=arm64",
            "--variant=minbase",
            "--include=systemd,udev",
            "--format=null",
            '--customize-hook=mkdir "$1/trial"',
            f"--customize-hook=upload {package.resolve()} /trial/old.deb",
            f"--customize-hook=upload {newer} /trial/new.deb",
            f"--customize-hook=upload {folder / 'trial.sh'} /trial/trial.sh",
            '--customize-hook=chroot "$1" sh /trial/trial.sh',
            suite,
            "/dev/null",
            mirror,
        ]
        return subprocess.run(command, timeout=DEADLINE_S).returncode == 0


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--suite", action="append", help="a release of Debian; more than once for more (default: both)")
    p.add_argument("--mirror", default=MIRROR, help="where packages come from (default %(default)s)")
    p.add_argument("--emulator", default=shutil.which("qemu-aarch64-static"), help="a static qemu-aarch64")
    p.add_argument("package", nargs="?", type=Path, help="default: the only one in target/deb")
    args = p.parse_args(arguments)
    package = args.package
    if package is None:
        found = sorted(Path("target/deb").glob("driftglass_*_arm64.deb"))
        if len(found) != 1:
            raise SystemExit(f"target/deb: expected one package, found {len(found)} (scripts/deb makes it)")
        package = found[0]
    package.stat()
    if shutil.which("mmdebstrap") is None:
        raise SystemExit("mmdebstrap: there is no such program (Debian: mmdebstrap)")
    emulate(args.emulator)
    if shutil.which("lintian"):
        if subprocess.run(["lintian", "--fail-on", "error", package]).returncode != 0:
            raise SystemExit(f"{package}: lintian found an error")
        print("lintian: no error", flush=True)
    else:
        print("lintian: skipped, it is not installed", flush=True)
    for suite in args.suite or SUITES:
        print(f"== {suite}", flush=True)
        if not trial(suite, args.mirror, package):
            raise SystemExit(f"{suite}: the package did not pass")
    print("the package passed")


if __name__ == "__main__":
    main()
