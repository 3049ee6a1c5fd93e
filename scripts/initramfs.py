"""Makes the initramfs of the SD card from its root's tar: a shell, drivers, the splash, nothing else.

    python scripts/initramfs.py root.tar --dtbs DIR --init scripts/card/init --splash scripts/card/splash.png --out initrd.img

Which drivers: those that the kernel's list of aliases gives for what the boards' device trees (--dtbs) name, as far as
it takes part in reading a card or lighting a screen, and those of QEMU's virtual machine. They are loaded in the order
in which they depend on each other, from two lists: modules.display and modules.disk. The same tar makes the same bytes.
"""

import fnmatch
import gzip
import lzma
import posixpath
import struct
import sys
import tarfile
from pathlib import Path

import command_line

# Folders of drivers that may be in the way to a card and to a screen.
DISK = ["clk", "dma", "firmware", "gpio", "irqchip", "mailbox", "mfd", "mmc", "pinctrl", "pmdomain", "regulator", "reset", "soc"]
DISPLAY = ["gpu", "i2c", "phy", "pwm", "video"]
# QEMU's, the file system, and the timer that restarts a board that hangs.
DISK_ALWAYS = ["ext4", "virtio_blk", "virtio_mmio", "bcm2835_wdt"]
DISPLAY_ALWAYS = ["virtio_gpu", "vc4"]
SHELL = "usr/bin/busybox"
PROGRAM = "usr/bin/driftglass"
EXECUTABLE, LINK, FILE, FOLDER = 0o111, 0o120777, 0o100644, 0o040755


class Root:
    """The files of a tar, by path without a leading ./; links are followed."""

    def __init__(self, path):
        self.tar = tarfile.open(path)
        self.path = path
        self.members = {posixpath.normpath(member.name): member for member in self.tar}

    def find(self, name):
        """The member at a path, through links of its folders and its own; None where there is none."""
        for _ in range(40):
            name = posixpath.normpath(name.lstrip("/"))
            parts = name.split("/")
            for i in range(1, len(parts) + 1):
                member = self.members.get("/".join(parts[:i]))
                if member is not None and member.issym():
                    there = member.linkname
                    name = posixpath.join(there if there.startswith("/") else posixpath.join(*parts[: i - 1], there), *parts[i:])
                    break
                if member is not None and member.islnk() and i == len(parts):
                    name = member.linkname
                    break
            else:
                return self.members.get(name)
        return None

    def read(self, name):
        member = self.find(name)
        if member is None or not member.isfile():
            raise SystemExit(f"{self.path}: expected a file {name}, found none")
        return self.tar.extractfile(member).read()


def needed(program):
    """The names of the libraries that a 64-bit little-endian ELF program asks for."""
    table, entry, count = struct.unpack_from("<Q14xHH", program, 0x20)
    segments = [struct.unpack_from("<IIQQQQ", program, table + i * entry) for i in range(count)]

    def offset(address):
        for kind, _, at, start, _, size in segments:
            if kind == 1 and start <= address < start + size:
                return at + address - start
        raise ValueError(f"address {address:#x} is in no segment")

    tags = []
    for kind, _, at, _, _, size in segments:
        if kind == 2:
            tags = list(struct.iter_unpack("<QQ", program[at : at + size]))
    names = next((offset(value) for tag, value in tags if tag == 5), 0)
    starts = [names + value for tag, value in tags if tag == 1]
    return [program[start : program.index(b"\0", start)].decode() for start in starts]


def libraries(root, program):
    """The libraries of a program, by name, and theirs."""
    found, open_names = {}, needed(program) + ["ld-linux-aarch64.so.1"]
    while open_names:
        name = open_names.pop()
        if name not in found:
            found[name] = root.read(f"usr/lib/aarch64-linux-gnu/{name}")
            open_names += needed(found[name])
    return found


def compatibles(dtb):
    """What a flattened device tree says that its devices are: the strings of all properties `compatible`."""
    magic, _, structure, strings = struct.unpack_from(">IIII", dtb)
    if magic != 0xD00DFEED:
        raise SystemExit("expected a flattened device tree, found other bytes")
    at = structure
    while True:
        (token,) = struct.unpack_from(">I", dtb, at)
        at += 4
        if token == 1:  # a node, with its name
            at = (dtb.index(b"\0", at) + 4) & ~3
        elif token == 3:  # a property
            size, name = struct.unpack_from(">II", dtb, at)
            at += 8
            if dtb.startswith(b"compatible\0", strings + name):
                yield from dtb[at : at + size].rstrip(b"\0").decode().split("\0")
            at = (at + size + 3) & ~3
        elif token == 9:
            return


class Modules:
    """The kernel's modules in a root."""

    def __init__(self, root):
        folders = {name.split("/")[3] for name in root.members if name.startswith("usr/lib/modules/") and name.count("/") == 4}
        if len(folders) != 1:
            raise SystemExit(f"{root.path}: expected one kernel in /usr/lib/modules, found {sorted(folders) or 'none'}")
        self.root, self.folder = root, f"usr/lib/modules/{folders.pop()}"
        self.depends = {}
        for line in self.text("modules.dep").splitlines():
            path, _, others = line.partition(":")
            self.depends[path] = others.split()
        self.paths = {self.name(path): path for path in self.depends}
        self.builtin = {self.name(path) for path in self.text("modules.builtin").split()}
        self.aliases = []
        for line in self.text("modules.alias").splitlines():
            word, pattern, name = (line.split() + [""] * 3)[:3]
            if word == "alias" and pattern.startswith("of:"):
                self.aliases.append((pattern.rpartition("C")[0], pattern, name))
        self.soft = {}
        for line in self.text("modules.softdep").splitlines():
            words = line.split()
            if words[:1] == ["softdep"] and "pre:" in words:
                before = words[words.index("pre:") + 1 :]
                self.soft[words[1].replace("-", "_")] = before[: before.index("post:")] if "post:" in before else before

    def text(self, name):
        return self.root.read(f"{self.folder}/{name}").decode()

    @staticmethod
    def name(path):
        return posixpath.basename(path).partition(".ko")[0].replace("-", "_")

    def of(self, names, folders):
        """The modules in drivers/`folders` for devices of these names."""
        # The name of a device in an alias: of:N<node>T<type>C<compatible>, with wildcards.
        found = set()
        for name in sorted(names):
            device = f"of:NxT(null)C{name}"
            for _, pattern, module in self.aliases:
                if name in pattern and fnmatch.fnmatchcase(device, pattern):
                    found.add(module.replace("-", "_"))
        inside = tuple(f"kernel/drivers/{folder}/" for folder in folders)
        return sorted(module for module in found if self.paths.get(module, "").startswith(inside))

    def ordered(self, wanted):
        """The paths of modules and of all they need, each after those."""
        order, seen = [], set()

        def take(path):
            if path in seen:
                return
            seen.add(path)
            for other in self.depends[path]:
                take(other)
            for other in self.soft.get(self.name(path), []):
                if other.replace("-", "_") in self.paths:
                    take(self.paths[other.replace("-", "_")])
            order.append(path)

        for module in wanted:
            if module in self.paths:
                take(self.paths[module])
            elif module not in self.builtin:
                raise SystemExit(f"{self.root.path}: expected a module {module}, found none in {self.folder}")
        return order


def archive(entries):
    """A newc cpio archive of (path, mode, content), without dates or owners."""
    out = bytearray()
    for number, (path, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        name = path.encode() + b"\0"
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        out += b"070701" + b"".join(b"%08X" % field for field in fields) + name
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return bytes(out)


def contents(root, dtbs, init, splash):
    """What is in the initramfs: path, mode, bytes."""
    modules = Modules(root)
    names = {name for dtb in dtbs for name in compatibles(dtb)}
    disk = modules.ordered(modules.of(names, DISK) + DISK_ALWAYS)
    # The screen first, but not before the clocks, pins and regulators it hangs on.
    display = modules.ordered(modules.of(names, DISK) + modules.of(names, DISPLAY) + DISPLAY_ALWAYS)
    display = [path for path in display if not path.startswith("kernel/drivers/mmc/")]
    disk = [path for path in disk if path not in display]
    program = root.read(PROGRAM)
    folders = ["bin", "dev", "etc", "lib", "lib/modules", "proc", "run", "sys"]
    entries = [(folder, FOLDER, b"") for folder in folders]
    entries += [
        ("init", FILE | EXECUTABLE, init),
        ("bin/busybox", FILE | EXECUTABLE, root.read(SHELL)),
        ("bin/driftglass", FILE | EXECUTABLE, program),
        ("splash.png", FILE, splash),
    ]
    entries += [(f"lib/{name}", FILE | EXECUTABLE, content) for name, content in sorted(libraries(root, program).items())]
    for name, paths in ("modules.display", display), ("modules.disk", disk):
        inside = {path: f"lib/modules/{modules.name(path)}.ko" for path in paths}
        for path in paths:
            content = root.read(f"{modules.folder}/{path}")
            entries.append((inside[path], FILE, lzma.decompress(content) if path.endswith(".xz") else content))
        entries.append((name, FILE, "".join(f"/{inside[path]}\n" for path in paths).encode()))
    return entries


def main(arguments):
    parser = command_line.parser(__doc__)
    parser.add_argument("root", type=Path, help="the tar of the root")
    parser.add_argument("--dtbs", type=Path, required=True, help="the folder of the boards' device trees")
    parser.add_argument("--init", type=Path, required=True, help="the first program")
    parser.add_argument("--splash", type=Path, required=True, help="the first picture")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    dtbs = [path.read_bytes() for path in sorted(options.dtbs.glob("*.dtb"))]
    if not dtbs:
        parser.error(f"{options.dtbs}: expected device trees, found none")
    entries = contents(Root(options.root), dtbs, options.init.read_bytes(), options.splash.read_bytes())
    options.out.write_bytes(gzip.compress(archive(entries), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main(sys.argv[1:])
