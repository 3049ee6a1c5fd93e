"""The pictures that networks are trained on.

    python -m unittest discover -s scripts/tests
"""

import tempfile
import unittest
from pathlib import Path

from needs import PICTURES, demand

demand(PICTURES)

import numpy as np
from PIL import Image

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

    def test_large_pictures_are_not_enlarged(self):
        found = [procedural.enlargement(size, 128, 3) for size in (8, 32, 64, 128, 256)]
        self.assertEqual(found, [3, 3, 2, 1, 1])


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

    def test_training_crops_show_nothing_that_is_held_out(self):
        columns, rows = np.meshgrid(np.arange(1280), np.arange(640))
        told_apart = np.stack([columns // 5, rows // 5, (columns * 7 + rows * 13) % 256], -1).astype(np.uint8)
        trained, held = data.crops(Image.fromarray(told_apart), 128)
        self.assertEqual(len(held), 5)
        self.assertGreater(len(trained), 50)

        def shown(crops):
            return {tuple(pixel) for crop in crops for pixel in crop[::5, ::5, :2].reshape(-1, 2)}

        cells = [shown([crop]) for crop in held]
        seen = shown(trained)
        # Five pixels share a colour, so those at an edge are also seen beside it.
        self.assertTrue(all(len(cell & seen) < len(cell) / 5 for cell in cells))

    def test_flat_crops_are_no_pictures(self):
        self.assertFalse(data.structured(Image.new("RGB", (128, 128), "#204080")))
        gradient = np.broadcast_to(np.arange(128, dtype=np.uint8)[:, None, None], (128, 128, 3))
        self.assertFalse(data.structured(Image.fromarray(gradient.copy())))

    def test_an_emoji_is_known_by_its_code_points(self):
        self.assertEqual(data.plain("1f441-fe0f"), "1f441")
        self.assertEqual(data.plain("1f9d1-200d-2708-fe0f"), "1f9d1-200d-2708")

    def test_a_moved_emoji_is_the_same_one_elsewhere(self):
        square = Image.new("RGBA", (64, 64))
        square.paste("#2080c0", (16, 16, 48, 48))
        for seed in range(20):
            alpha = np.asarray(data.moved(square, np.random.default_rng(seed)))[..., 3] / 255
            self.assertTrue(0.85**2 * 32**2 * 0.97 < alpha.sum() < 32**2 * 1.03, seed)
            down, across = ((alpha * axis).sum() / alpha.sum() - 31.5 for axis in np.indices(alpha.shape))
            self.assertLess(max(abs(down), abs(across)), 0.06 * 64 + 0.1, seed)
            self.assertEqual(alpha[0].sum(), 0, seed)


if __name__ == "__main__":
    unittest.main()
