"""What a pulled plug is judged by: the card's partitions, whole pictures, files that must not change."""

import struct
import tempfile
import unittest
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

import boot_test
from guest import Fault, write_png

SECTOR = 512


def image(path, partitions):
    """A disk with a partition table, each partition full of its number; {start: sectors}."""
    table = b"".join(
        struct.pack("<8xII", start, sectors) for start, sectors in partitions.items()
    )
    disk = bytearray(446) + table.ljust(64, b"\0") + b"\x55\xaa"
    for number, (start, sectors) in enumerate(partitions.items(), 1):
        disk = disk.ljust(start * SECTOR, b"\0") + bytes([number]) * sectors * SECTOR
    path.write_bytes(disk)


class BootTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    def card(self, partitions):
        image(self.folder / "image", partitions)
        return boot_test.Card(self.folder / "image", self.folder)

    def test_a_card_is_larger_than_its_image_and_has_its_partitions(self):
        card = self.card({1: 2, 3: 1, 4: 3})
        self.assertEqual(card.path.stat().st_size, boot_test.DISK_BYTES)
        self.assertEqual(card.partitions(), [(512, 1024), (1536, 512), (2048, 1536)])
        self.assertEqual(card.partition(2).read_bytes(), b"\3" * 1536)
        before = card.digest(1)
        with open(card.path, "r+b") as disk:
            disk.seek(1536 + 511)
            disk.write(b"!")
        self.assertNotEqual(card.digest(1), before)

    def test_a_card_with_other_partitions_is_refused(self):
        with self.assertRaisesRegex(Fault, "expected three partitions, found 2"):
            self.card({1: 2, 3: 1})

    def test_half_a_picture_and_a_changed_favourite_are_found(self):
        write_png(self.folder / "picture.png", (2, 2, bytes(12)))
        data = (self.folder / "picture.png").read_bytes()
        files = {"pictures/latest.png": data, ".latest.png.7-0.tmp": data[:20], "favourite-1.png": data}
        boot_test.whole(files, {"favourite-1.png": data})
        with self.assertRaisesRegex(Fault, "favourite-1.png: expected the same bytes"):
            boot_test.whole(files, {"favourite-1.png": data + b"!"})
        with self.assertRaisesRegex(Fault, "favourite-2.png: expected the same bytes"):
            boot_test.whole(files, {"favourite-2.png": data})
        with self.assertRaisesRegex(Fault, "pictures/latest.png: expected a whole picture, found 40 bytes"):
            boot_test.whole(files | {"pictures/latest.png": data[:40]}, {})


if __name__ == "__main__":
    unittest.main()
