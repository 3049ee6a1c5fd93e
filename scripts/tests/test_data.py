"""The pictures that networks are trained on.

    python -m unittest discover -s scripts/tests
"""

import tempfile
import unittest
from pathlib import Path

from needs import PICTURES, demand

demand(PICTURES)

import numpy as np

import data
import procedural


class Procedural(unittest.TestCase):
    def test_every_style_is_deterministic_and_varied(self):
        for style in procedural.STYLES:
            for size in (32, 64):
                first = procedural.picture(style, 3, size)
                self.assertEqual((first.shape, first.dtype), ((size, size, 3), np.uint8))
                np.testing.assert_array_equal(first, procedural.picture(style, 3, size))
            self.assertTrue((procedural.picture(style, 3, 32) != procedural.picture(style, 4, 32)).any(), style)
            self.assertGreater(first.std(), 8, f"{style} is nearly one flat colour")

    def test_contact_sheet_holds_every_picture(self):
        sheet = procedural.contact_sheet(np.zeros((5, 4, 4, 1), np.uint8), columns=3, scale=2, gap=1)
        self.assertEqual(sheet.size, (28, 19))


class Data(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def test_saved_arrays_come_back(self):
        path = self.folder / "small.npz"
        data.save(path, np.zeros((4, 8, 8, 3)), [0, 1, 0, 1], ["dark", "bright"], "CC0-1.0")
        pictures, labels, classes, licence = data.load(path)
        self.assertEqual((pictures.shape, pictures.dtype, labels.dtype), ((4, 8, 8, 3), np.uint8, np.int64))
        self.assertEqual((classes, licence), (["dark", "bright"], "CC0-1.0"))
        self.assertEqual([path], list(self.folder.iterdir()))

    def test_a_set_without_test_pictures_holds_out_a_tenth_or_512(self):
        path = self.folder / "small.npz"
        for count, given, expected in [(40, None, 4), (9000, None, 512), (40, 10, 10)]:
            data.save(path, np.zeros((count, 1, 1, 1)), np.zeros(count), ["one"], "CC0-1.0", given)
            self.assertEqual(data.held_out(path), expected)

    def test_a_file_that_is_no_data_set_is_refused(self):
        text, other = self.folder / "text.npz", self.folder / "other.npz"
        text.write_text("not an archive")
        np.savez(other, images=np.zeros(3))
        for path in (text, other):
            with self.assertRaisesRegex(SystemExit, f"{path.name}: not a data set"):
                data.load(path)

    def test_a_file_with_another_hash_is_refused(self):
        path = self.folder / "package.tgz"
        path.write_bytes(b"not what it says")
        with self.assertRaisesRegex(SystemExit, "sha256"):
            data.verified(path, "0" * 64)


if __name__ == "__main__":
    unittest.main()
