"""The SD card's own parts: its network file, its drivers' order, its device trees' names.

    python -m unittest discover -s scripts/tests
"""

import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import tomllib
import unittest
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

import initramfs

CARD = Path(__file__).resolve().parent.parent / "card"
WIFI = CARD / "root/usr/lib/driftglass-card/wifi"


# The device trees on the card, by what Debian's kernel compiles into them.
COMPATIBLE = {
    "bcm2837-rpi-zero-2-w": "raspberrypi,model-zero-2-w",
    "bcm2837-rpi-3-b": "raspberrypi,3-model-b",
    "bcm2837-rpi-3-b-plus": "raspberrypi,3-model-b-plus",
    "bcm2837-rpi-3-a-plus": "raspberrypi,3-model-a-plus",
    "bcm2711-rpi-4-b": "raspberrypi,4-model-b",
    "bcm2711-rpi-400": "raspberrypi,400",
    "bcm2712-rpi-5-b": "raspberrypi,5-model-b",
    "bcm2712-d-rpi-5-b": "raspberrypi,5-model-b",
}


class Boards(unittest.TestCase):
    def test_every_board_that_the_card_starts_is_known_to_the_program(self):
        settle = (CARD / "settle").read_text()
        self.assertEqual(re.search(r"^boards=\(([^)]*)\)", settle, re.MULTILINE)[1].split(), list(COMPATIBLE))
        files = (CARD.parents[1] / "boards").glob("*.toml")
        known = {name for file in files for name in tomllib.loads(file.read_text()).get("compatible", [])}
        self.assertLessEqual(set(COMPATIBLE.values()), known)


class Settle(unittest.TestCase):
    def test_what_the_builder_still_needs_stays_and_nothing_tells_of_it(self):
        """Its settings for apt lie in the root's tmp, and apt without them would be this machine's."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            settle = (CARD / "settle").read_text()
            kernel = root / "usr/lib/modules/6.0"
            boards, firmware = (re.search(rf"^{name}=\(([^)]*)\)", settle, re.MULTILINE)[1].split() for name in ("boards", "firmware"))
            files = [kernel / "vmlinuz", *(kernel / f"dtb/broadcom/{board}.dtb" for board in boards)]
            files += [root / "usr/lib/raspi-firmware" / name for name in firmware]
            files += [root / "tmp/apt.conf", root / "var/lib/apt/lists/a", root / "var/log/a", root / "run/a", root / "etc/passwd"]
            files += [root / "etc/apt/sources.list"]
            for file in files:
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text("driftglass:x:0:0::/:/bin/false\n" if file.name == "passwd" else "")
            debian = "deb http://deb.debian.org/debian trixie main\n"
            files[-1].write_text(f"{debian}deb [trusted=yes] copy:/tmp/folder/repository ./\n")
            done = subprocess.run(["bash", CARD / "settle", root], capture_output=True, text=True)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            left = {str(path.relative_to(root)) for path in files if path.exists()}
            self.assertEqual(left, {"tmp/apt.conf", "etc/passwd", "etc/apt/sources.list"})
            self.assertEqual(files[-1].read_text(), debian)


class Wifi(unittest.TestCase):
    def convert(self, content):
        with tempfile.TemporaryDirectory() as folder:
            source, out = Path(folder) / "wifi.txt", Path(folder) / "out.conf"
            source.write_bytes(content)
            done = subprocess.run(["sh", WIFI, source, out], capture_output=True, text=True)
            return done, out.read_text() if out.exists() else None

    def test_what_windows_editors_write_is_read(self):
        for content in [
            b"country = DE\nname = Caf\xc3\xa9 \"7\"\npassword = pass = word\n",
            b"\xef\xbb\xbfcountry=DE\r\nname=Caf\xc3\xa9 \"7\"  \r\n\r\n# a comment\r\n  password =  pass = word",
        ]:
            done, made = self.convert(content)
            self.assertEqual((done.returncode, done.stderr), (0, ""))
            self.assertIn("country=DE\n", made)
            name = 'Café "7"'.encode().hex()
            self.assertIn(f"ssid={name}\n", made)
            self.assertIn('psk="pass = word"\n', made)

    def test_an_open_network_and_a_key_in_hexadecimal(self):
        self.assertIn("key_mgmt=NONE", self.convert(b"country=DE\nname=open\n")[1])
        key = b"0123456789abcdef" * 4
        self.assertIn(f"psk={key.decode()}\n", self.convert(b"country=DE\nname=x\npassword=" + key)[1])

    def test_a_mistake_is_told_with_its_place(self):
        for content, told in [
            (b"name=x\n", "country: expected two capital letters, found nothing"),
            (b"country=de\nname=x\n", "country: expected two capital letters, found de"),
            (b"country=DE\n", "name: expected the network's, found nothing"),
            (b"country=DE\nname=x\npassword=short\n", "password: expected 8 to 63 characters, found 5"),
            (b"country=DE\nname=x\npassword=" + b"y" * 70, "password: expected 8 to 63 characters, found 70"),
            (b"country=DE\nssid=x\n", "line 2: expected country, name or password, found ssid"),
            (b"country=DE\nmy network\n", "line 2: expected KEY = VALUE, found my network"),
        ]:
            done, made = self.convert(content)
            self.assertEqual((done.returncode, made), (1, None), content)
            self.assertTrue(done.stderr.endswith(f"wifi.txt: {told}\n"), done.stderr)


def disks_can_be_made():
    tools = ["losetup", "sfdisk", "partx", "mke2fs", "e2fsck", "resize2fs"]
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and all(map(shutil.which, tools))


def may_resize():
    """Whether mounted file systems may be grown: some containers' root may not (CAP_SYS_RESOURCE)."""
    capabilities = int(re.search(r"^CapEff:\s*(\w+)", Path("/proc/self/status").read_text(), re.MULTILINE)[1], 16)
    return capabilities >> 24 & 1 == 1


@unittest.skipUnless(disks_can_be_made(), "needs root, loop devices, fdisk and e2fsprogs")
class Data(unittest.TestCase):
    """The data partition of a real disk, in a file, mounted by the card's own script."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.place = Path(folder.name) / "data"
        self.place.mkdir()
        self.disk = Path(folder.name) / "disk"
        self.disk.touch()
        os.truncate(self.disk, 24 << 20)
        table = "label: dos\nstart=1MiB, size=2MiB, type=c\nstart=3MiB, size=4MiB, type=83\nstart=7MiB, size=16MiB, type=83\n"
        subprocess.run(["sfdisk", "--quiet", self.disk], input=table, text=True, check=True)
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-E", "offset=7340032,resize=268435456", self.disk, "16M"], check=True, stderr=subprocess.DEVNULL
        )

    def attach(self):
        done = subprocess.run(["losetup", "--find", "--show", "--partscan", self.disk], capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"losetup: {done.stderr.strip()}")
        device = done.stdout.strip()
        self.addCleanup(self.detach, device)
        # Some kernels read no tables by themselves.
        if not Path(f"{device}p3").exists():
            subprocess.run(["partx", "--add", device], check=True)
        return f"{device}p3"

    def detach(self, device):
        subprocess.run(["partx", "--delete", device], stderr=subprocess.DEVNULL)
        subprocess.run(["losetup", "--detach", device], stderr=subprocess.DEVNULL)

    def mount(self, partition):
        done = subprocess.run(["sh", CARD / "root/usr/lib/driftglass-card/data", partition, self.place], capture_output=True, text=True)
        self.addCleanup(subprocess.run, ["umount", self.place], stderr=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def umount(self):
        subprocess.run(["umount", self.place], check=True)

    def size_mib(self):
        return shutil.disk_usage(self.place).total >> 20

    def test_it_grows_over_a_larger_disk_and_keeps_what_is_on_it(self):
        partition = self.attach()
        self.mount(partition)
        self.assertLess(self.size_mib(), 16)
        (self.place / "picture").write_bytes(b"kept")
        self.umount()
        self.detach(partition.removesuffix("p3"))
        os.truncate(self.disk, 300 << 20)
        partition = self.attach()
        self.mount(partition)
        self.assertGreater(int((Path("/sys/class/block") / Path(partition).name / "size").read_text()) >> 11, 290)
        if may_resize():
            self.assertGreater(self.size_mib(), 250)
        self.assertEqual((self.place / "picture").read_bytes(), b"kept")
        self.umount()
        # And once is enough.
        self.assertEqual("could not" in self.mount(partition), not may_resize())
        self.assertEqual((self.place / "picture").read_bytes(), b"kept")

    def test_a_broken_one_is_made_anew(self):
        partition = self.attach()
        with open(partition, "r+b") as file:
            file.write(b"\xa5" * (12 << 20))
        self.assertIn("is made anew", self.mount(partition))
        (self.place / "picture").write_bytes(b"new")

    def test_without_one_the_folder_is_in_memory(self):
        self.assertIn("is in memory until the next start", self.mount("/dev/no-such-partition"))
        (self.place / "picture").write_bytes(b"in memory")


class Kernel(unittest.TestCase):
    """A root with a kernel of a few modules."""

    FILES = {
        "modules.dep": "kernel/drivers/mmc/card.ko: kernel/drivers/clk/clock.ko\nkernel/drivers/clk/clock.ko:\n"
        "kernel/fs/ext4.ko: kernel/fs/jbd2.ko\nkernel/fs/jbd2.ko:\nkernel/lib/crc-sum.ko:\nkernel/drivers/sound/beep.ko:\n",
        "modules.builtin": "kernel/drivers/gpio/pins.ko\n",
        "modules.softdep": "softdep ext4 pre: crc_sum\n",
        "modules.alias": "alias of:N*T*Cmaker,cardC* card\nalias of:N*T*Cmaker,card card\nalias of:N*T*Cmaker,beep beep\n"
        "alias of:N*T*Cmaker,cardreader other\nalias pci:v1d2 card\n",
    }

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        path = Path(folder.name) / "root.tar"
        with tarfile.open(path, "w") as tar:
            for name, text in self.FILES.items():
                member = tarfile.TarInfo(f"./usr/lib/modules/7.0/{name}")
                member.size = len(text)
                tar.addfile(member, io.BytesIO(text.encode()))
            for name, there in [("./lib", "usr/lib"), ("./usr/lib/round", "round"), ("./usr/lib/kernel.list", "modules/7.0/modules.builtin")]:
                member = tarfile.TarInfo(name)
                member.type, member.linkname = tarfile.SYMTYPE, there
                tar.addfile(member)
        self.root = initramfs.Root(path)
        self.addCleanup(self.root.tar.close)

    def test_each_module_comes_after_what_it_needs(self):
        order = initramfs.Modules(self.root).ordered(["ext4", "card", "pins"])
        self.assertEqual(
            order, ["kernel/fs/jbd2.ko", "kernel/lib/crc-sum.ko", "kernel/fs/ext4.ko", "kernel/drivers/clk/clock.ko", "kernel/drivers/mmc/card.ko"]
        )
        with self.assertRaisesRegex(SystemExit, "expected a module nothing, found none"):
            initramfs.Modules(self.root).ordered(["nothing"])

    def test_drivers_are_found_by_the_devices_names_and_kinds(self):
        modules = initramfs.Modules(self.root)
        self.assertEqual(modules.of({"maker,card", "maker,beep", "maker,other"}, ["mmc", "clk"]), ["card"])
        self.assertEqual(modules.of({"maker,car"}, ["mmc"]), [])

    def test_links_are_followed_and_circles_end(self):
        self.assertEqual(self.root.read("lib/kernel.list"), self.FILES["modules.builtin"].encode())
        self.assertIsNone(self.root.find("lib/round"))


class Archive(unittest.TestCase):
    @unittest.skipUnless(shutil.which("cpio"), "cpio is not installed")
    def test_cpio_reads_what_was_written(self):
        entries = [("bin", initramfs.FOLDER, b""), ("bin/a", initramfs.FILE | initramfs.EXECUTABLE, b"12345"), ("b", initramfs.FILE, b"x" * 4096)]
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(["cpio", "--extract", "--quiet"], input=initramfs.archive(entries), cwd=folder, check=True)
            self.assertEqual((Path(folder) / "bin/a").read_bytes(), b"12345")
            self.assertEqual((Path(folder) / "bin/a").stat().st_mode & 0o777, 0o755)
            self.assertEqual((Path(folder) / "b").read_bytes(), b"x" * 4096)


@unittest.skipUnless(shutil.which("dtc") and shutil.which("fdtoverlay"), "device-tree-compiler is not installed")
class Overlays(unittest.TestCase):
    """The overlays on trees with the labels that the kernel's have."""

    def apply(self, base, *overlays):
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder) / "base.dtb"
            subprocess.run(["dtc", "-q", "-@", "-O", "dtb", "-o", tree], input=base, text=True, check=True)
            for name in overlays:
                overlay, out = Path(folder) / f"{name}.dtbo", Path(folder) / "out.dtb"
                subprocess.run(["dtc", "-q", "-@", "-O", "dtb", "-o", overlay, CARD / f"overlays/{name}.dts"], check=True)
                subprocess.run(["fdtoverlay", "-i", tree, "-o", out, overlay], check=True)
                out.rename(tree)
            return tree.read_bytes(), subprocess.run(["dtc", "-q", "-O", "dts", tree], capture_output=True, text=True, check=True).stdout

    def test_spi_gets_two_devices_and_leaves_gpio_8_when_told(self):
        base = """/dts-v1/; / { soc { gpio: header_gpio: gpio { phandle = <9>; }; spi: spi { status = "disabled"; compatible = "chip"; }; }; };"""
        tree, text = self.apply(base, "spi")
        self.assertEqual(set(initramfs.compatibles(tree)), {"chip", "rohm,dh2228fv"})
        self.assertRegex(text, r"cs-gpios = <0x0?9 0x0?8 0x0?1 0x0?9 0x0?7 0x0?1>")
        self.assertEqual(text.count("rohm,dh2228fv"), 2)
        _, text = self.apply(base, "spi", "spi0-0cs")
        self.assertRegex(text, r"cs-gpios = <0x0?9 0x0?7 0x0?1>")
        self.assertRegex(text, r'header@1 \{[^}]*status = "disabled"')


class BootFiles(unittest.TestCase):
    def test_every_line_of_the_owners_file_is_one_that_could_be_taken(self):
        text = (CARD / "boot/driftglass.toml").read_text()
        self.assertEqual(tomllib.loads(text), {})
        taken = tomllib.loads(re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE))
        self.assertEqual(set(taken), {"panel", "hold-s", "steps", "emergence", "captions", "progress-line", "first-seed", "mount", "correction"})
        # docs/config.md, whose snippets the program's tests read, names each.
        documented = (CARD.parent.parent / "docs/config.md").read_text()
        for key in [*taken, *taken["mount"], *taken["correction"]]:
            self.assertIn(key, documented)

    def test_the_root_is_named_alike_everywhere(self):
        signature = re.search(r"^signature=(\w+)$", (CARD.parent / "image").read_text(), re.MULTILINE)[1]
        self.assertIn(f"root=PARTUUID={signature}-02 ", (CARD / "boot/cmdline.txt").read_text())
        self.assertIn(f"PARTUUID={signature}-02 / ext4 ro,", (CARD / "root/etc/fstab").read_text())
        self.assertIn(f"/dev/disk/by-partuuid/{signature}-03 ", (CARD / "root/etc/systemd/system/driftglass-data.service").read_text())


if __name__ == "__main__":
    unittest.main()
