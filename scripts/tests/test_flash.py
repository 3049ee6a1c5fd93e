"""What scripts/flash writes, and what it refuses: files, a loop device where root has one, and disks that are described.

    python -m unittest discover -s scripts/tests
"""

import hashlib
import importlib.machinery
import importlib.util
import lzma
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

SCRIPT = Path(__file__).resolve().parent.parent / "flash"
loader = importlib.machinery.SourceFileLoader("flash", str(SCRIPT))
flash = importlib.util.module_from_spec(importlib.util.spec_from_loader("flash", loader))
sys.dont_write_bytecode = True
loader.exec_module(flash)


def image(size, seed=0):
    """Bytes with a partition table's mark, as an image begins."""
    content = bytearray(random.Random(seed).randbytes(size))
    content[510:512] = b"\x55\xaa"
    return bytes(content)


def run(*arguments, **options):
    return subprocess.run([sys.executable, SCRIPT, *map(str, arguments)], capture_output=True, text=True, stdin=subprocess.DEVNULL, **options)


class Folder(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def put(self, name, content):
        (self.folder / name).write_bytes(content)
        return self.folder / name


class ToFiles(Folder):
    def test_an_image_and_a_compressed_one_arrive_whole(self):
        for size in 5_000_192, 512 * 1024, 9 << 20:
            content = image(size)
            for path in self.put("card.img", content), self.put("card.img.xz", lzma.compress(content, preset=0)):
                done = run("--file", path, self.folder / "out")
                self.assertEqual((done.returncode, done.stderr), (0, ""), path)
                self.assertIn("written and read back", done.stdout)
                self.assertEqual((self.folder / "out").read_bytes(), content)

    def test_sums_beside_it_are_held_against_it(self):
        content = image(2 << 20)
        path = self.put("card.img", content)
        self.put("SHA256SUMS", f"{hashlib.sha256(content).hexdigest()}  card.img\n".encode())
        self.assertIn("as in SHA256SUMS", run("--file", path, self.folder / "out").stdout)
        self.put("card.img", image(2 << 20, seed=1))
        done = run("--file", path, self.folder / "fresh")
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "expected the SHA-256 [0-9a-f]{64} of SHA256SUMS, found [0-9a-f]{64}")
        self.assertFalse((self.folder / "fresh").exists())

    def test_what_is_no_image_is_refused_before_anything_is_written(self):
        packed = lzma.compress(image(1 << 20), preset=0)
        for name, content, told in [
            ("card.img.xz", packed[:-40], "expected an image in xz, found a damaged one"),
            ("cut.img.xz", packed[: len(packed) // 2], "expected an image in xz, found a damaged one"),
            ("text.img", b"no image\n" * 200, "expected an image with a partition table"),
            ("empty.img", b"", "expected an image with a partition table"),
            ("card.zip", image(4096), "expected a file .img or .img.xz"),
        ]:
            done = run("--file", self.put(name, content), self.folder / "out")
            self.assertEqual(done.returncode, 1, name)
            self.assertIn(told, done.stderr)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertFalse((self.folder / "out").exists(), name)

    def test_an_ordinary_file_is_a_target_only_when_asked(self):
        path, out = self.put("card.img", image(4096)), self.put("out", b"precious")
        done = run("--yes", path, out)
        self.assertEqual(done.returncode, 1)
        self.assertIn("expected a disk, found a file", done.stderr)
        self.assertEqual(out.read_bytes(), b"precious")
        self.assertIn("there is no such disk", run("--yes", path, self.folder / "none").stderr)

    def test_what_ends_it_suddenly_leaves_a_sentence_and_nothing_that_starts(self):
        path, out = self.put("card.img", 256 * image(1 << 20)), self.folder / "out"
        child = subprocess.Popen([sys.executable, SCRIPT, "--file", path, out], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        deadline = time.monotonic() + 120
        # Some way in, and far from the end.
        while not (out.exists() and out.stat().st_blocks * 512 > 16 << 20) and time.monotonic() < deadline:
            self.assertIsNone(child.poll(), "it ended before it could be stopped")
            time.sleep(0.001)
        child.send_signal(signal.SIGTERM)
        told = child.communicate(timeout=120)[1]
        self.assertEqual(child.returncode, 1)
        self.assertIn("stopped", told)
        self.assertEqual(told.count("\n"), 1, told)
        with open(out, "rb") as file:
            self.assertEqual(file.read(512), bytes(512))

    def test_a_disk_that_keeps_something_else_is_found_out(self):
        content = image(2 << 20)
        path = self.put("card.img", content)
        kept = flash.read_back
        self.addCleanup(setattr, flash, "read_back", kept)

        def worn(file, size):
            os.pwrite(file, b"\0", 1_500_000)
            return kept(file, size)

        flash.read_back = worn
        with self.assertRaisesRegex(SystemExit, "what was read back is not what was written"):
            flash.main(["--file", str(path), str(self.folder / "out")])


class Described(Folder):
    """Disks as a machine's /sys and /proc describe them."""

    def machine(self, mounts=(), swaps=()):
        lines = [f"{i} 1 {number} / {place} rw - {kind} {source} rw" for i, (number, place, kind, source) in enumerate(mounts)]
        (self.folder / "self").mkdir(exist_ok=True)
        (self.folder / "self/mountinfo").write_text("\n".join(lines) + "\n")
        (self.folder / "swaps").write_text("Filename Type Size Used Priority\n" + "".join(f"{swap} partition 1 0 -2\n" for swap in swaps))

    def disk(self, name, number, sectors, parts=(), removable=1, holders=(), **words):
        folder = self.folder / "class/block"
        for index, part in enumerate(["", *parts]):
            inside = folder / name / part if part else folder / name
            (inside / "holders").mkdir(parents=True)
            (inside / "dev").write_text(f"8:{number + index}\n")
            for holder in holders if part else ():
                (inside / "holders" / holder).symlink_to(folder / holder)
            if part:
                (inside / "partition").write_text(f"{index}\n")
        for word, value in {"size": sectors, "removable": removable, "ro": 0, **words}.items():
            (folder / name / word).write_text(f"{value}\n")
        return flash.Disk(name, self.folder, self.folder)

    def refusal(self, disk, needs=1 << 30, any_disk=False):
        return disk.refusal(needs, any_disk)

    def test_a_card_is_taken(self):
        self.machine(mounts=[("8:0", "/", "ext4", "/dev/sda")])
        self.assertIsNone(self.refusal(self.disk("sdb", 16, 60_000_000, ["sdb1", "sdb2"])))

    def test_the_systems_disk_is_refused_also_by_way_of_a_volume(self):
        disk = self.disk("sda", 0, 60_000_000, ["sda1", "sda2"], removable=1)
        self.machine(mounts=[("8:2", "/", "ext4", "/dev/sda2")])
        self.assertEqual(self.refusal(disk, any_disk=True), "this system runs from it")
        self.machine(swaps=["/dev/sda1"])
        self.assertEqual(self.refusal(disk, any_disk=True), "this system runs from it")
        # btrfs has a number of its own.
        self.machine(mounts=[("0:30", "/", "btrfs", "/dev/sda2")])
        self.assertEqual(self.refusal(disk, any_disk=True), "this system runs from it")
        crypt = self.disk("dm-0", 200, 50_000_000)
        behind = self.disk("sdc", 32, 60_000_000, ["sdc1"], holders=["dm-0"])
        self.machine(mounts=[("8:200", "/", "ext4", "/dev/mapper/system")])
        self.assertEqual(self.refusal(behind, any_disk=True), "this system runs from it")
        self.assertEqual(self.refusal(crypt, any_disk=True), "this system runs from it")

    def test_each_reason_has_its_sentence(self):
        self.machine(mounts=[("8:17", "/media/my\\040card", "vfat", "/dev/sdb1")])
        self.assertEqual(self.refusal(self.disk("sdb", 16, 60_000_000, ["sdb1"])), "it is mounted on /media/my card: umount it first")
        self.assertEqual(self.refusal(self.disk("sdc", 32, 1_000_000)), "it has 512 MB, the image needs 1.1 GB")
        self.assertEqual(self.refusal(self.disk("sdd", 48, 0)), "there is no card in it")
        self.assertEqual(self.refusal(self.disk("sde", 64, 60_000_000, ro=1)), "it is write-protected")
        fixed = self.disk("sdf", 80, 60_000_000, removable=0)
        self.assertRegex(self.refusal(fixed), "not removable: say --any-disk")
        self.assertIsNone(self.refusal(fixed, any_disk=True))

    def test_the_list_says_which(self):
        self.machine(mounts=[("8:0", "/", "ext4", "/dev/sda")])
        self.disk("sda", 0, 60_000_000)
        self.disk("sdb", 16, 62_333_952)
        self.disk("loop0", 100, 60_000_000)
        lines = list(flash.listing(flash.disks(self.folder, self.folder)))
        self.assertEqual([line.split()[0] for line in lines], ["/dev/sda", "/dev/sdb"])
        self.assertIn("not: this system runs from it", lines[0])
        self.assertRegex(lines[1], r"31\.9 GB .* can be written")


def loop_devices():
    return os.geteuid() == 0 and Path("/dev/loop-control").exists() and shutil.which("losetup") is not None


@unittest.skipUnless(loop_devices(), "needs root, losetup and loop devices")
class ToADisk(Folder):
    def attach(self, size):
        backing = self.put("disk", b"")
        os.truncate(backing, size)
        done = subprocess.run(["losetup", "--find", "--show", backing], capture_output=True, text=True)
        if done.returncode != 0:
            self.skipTest(f"losetup: {done.stderr.strip()}")
        device = done.stdout.strip()
        self.addCleanup(subprocess.run, ["losetup", "--detach", device])
        return device, backing

    def test_a_block_device_is_written_and_read_back(self):
        content = image(20 << 20)
        path = self.put("card.img.xz", lzma.compress(content, preset=0))
        device, backing = self.attach(32 << 20)
        refused = run(path, device)
        self.assertIn("not removable", refused.stderr)
        self.assertIn("say --yes", run("--any-disk", path, device).stderr)
        self.assertEqual(backing.read_bytes(), bytes(32 << 20))
        done = run("--yes", "--any-disk", path, device)
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertEqual(backing.read_bytes()[: len(content)], content)

    def test_a_block_device_that_is_too_small_stays_as_it_is(self):
        path = self.put("card.img", image(20 << 20))
        device, backing = self.attach(16 << 20)
        done = run("--yes", "--any-disk", path, device)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the image needs 21 MB", done.stderr)
        self.assertEqual(backing.read_bytes(), bytes(16 << 20))


if __name__ == "__main__":
    unittest.main()
