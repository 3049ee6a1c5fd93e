"""guest.py without a guest: its pictures and its archive.

    python -m unittest discover -s scripts/tests
"""

import struct
import tempfile
import unittest
import zlib
from pathlib import Path

import needs  # noqa: F401 (makes the scripts importable)

import guest

# 3 wide, 2 high: a to f.
LETTERS = (3, 2, b"".join(bytes((ord(letter), 0, 255)) for letter in "abcdef"))


def letters(picture):
    return picture[0], picture[1], picture[2][::3].decode()


def filtered(kind, row, above):
    """A row of PNG under one of its five filters, by the formulas of the PNG specification, section 9."""
    out = bytearray()
    for x, value in enumerate(row):
        a, b, c = (row[x - 3] if x > 2 else 0), above[x], (above[x - 3] if x > 2 else 0)
        p = a + b - c
        distances = (abs(p - a), abs(p - b), abs(p - c))
        paeth = (a, b, c)[distances.index(min(distances))]
        out.append((value - (0, a, b, (a + b) // 2, paeth)[kind]) & 255)
    return bytes((kind,)) + bytes(out)


class Pictures(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "picture"

    def test_a_png_is_read_as_it_was_written(self):
        guest.write_png(self.path, LETTERS)
        self.assertEqual(guest.read_png(self.path), LETTERS)

    def test_every_filter_of_png_is_undone(self):
        width, height = 7, 10
        rgb = bytes((31 * at * at + 7 * at) & 255 for at in range(3 * width * height))
        guest.write_png(self.path, (width, height, rgb))
        rows = [rgb[21 * y : 21 * y + 21] for y in range(height)]
        above = [bytes(21), *rows]
        packed = zlib.compress(b"".join(filtered(y % 5, rows[y], above[y]) for y in range(height)))
        data = self.path.read_bytes()
        start, end = data.index(b"IDAT") - 4, data.index(b"IEND") - 4
        chunk = struct.pack(">I", len(packed)) + b"IDAT" + packed + struct.pack(">I", zlib.crc32(b"IDAT" + packed))
        self.path.write_bytes(data[:start] + chunk + data[end:])
        self.assertEqual(guest.read_png(self.path), (width, height, rgb))

    def test_a_screendump_is_read(self):
        self.path.write_bytes(b"P6\n3 2\n255\n" + LETTERS[2])
        self.assertEqual(guest.read_ppm(self.path), LETTERS)

    def test_turning_is_clockwise_and_mirroring_swaps_left_and_right(self):
        self.assertEqual(letters(guest.turned(LETTERS)), (2, 3, "daebfc"))
        self.assertEqual(letters(guest.mirrored(LETTERS)), (3, 2, "cbafed"))

    def test_pictures_differ_by_their_worst_colour(self):
        width, height, rgb = LETTERS
        self.assertEqual(guest.difference(LETTERS, LETTERS), 0)
        self.assertEqual(guest.difference((width, height, rgb[:-2] + bytes((9, 250))), LETTERS), 9)
        self.assertIsNone(guest.difference((height, width, rgb), LETTERS))


class Archive(unittest.TestCase):
    def test_folders_come_before_their_files_and_everything_is_aligned(self):
        data = guest.archive({"a/b/c": (0o100644, b"12345"), "dev/console": (0o020600, b"")})
        found, at = {}, 0
        while at < len(data):
            self.assertEqual(data[at : at + 6], b"070701")
            fields = [int(data[at + 6 + 8 * field :][:8], 16) for field in range(13)]
            name_end = at + 110 + fields[11]
            name = data[at + 110 : name_end - 1].decode()
            body = (name_end + 3) // 4 * 4
            found[name] = (fields[1], data[body : body + fields[6]], fields[9:11])
            at = (body + fields[6] + 3) // 4 * 4
        self.assertEqual(list(found), ["a", "a/b", "a/b/c", "dev", "dev/console", "TRAILER!!!"])
        self.assertEqual(found["a/b"], (0o040755, b"", [0, 0]))
        self.assertEqual(found["a/b/c"], (0o100644, b"12345", [0, 0]))
        self.assertEqual(found["dev/console"], (0o020600, b"", [5, 1]))


if __name__ == "__main__":
    unittest.main()
