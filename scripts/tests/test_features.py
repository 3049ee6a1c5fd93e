"""The feature extractor: that the weights are in their places, and that it looks the same at a picture every time."""

import unittest
from pathlib import Path
from unittest import mock

from needs import FEATURES, demand

demand(FEATURES)

import matplotlib
import numpy as np
import torch
from PIL import Image

import features

MILITARY_UNIFORM = 652  # of the thousand classes of ImageNet


class Features(unittest.TestCase):
    def test_a_photograph_is_recognised(self):
        portrait = Path(matplotlib.get_data_path()) / "sample_data/grace_hopper.jpg"  # an admiral in uniform
        with Image.open(portrait) as image:
            square = np.asarray(image.convert("RGB").crop((0, 0, image.width, image.width)))
        with torch.no_grad():
            shares = features.load().classify(features.to_input(square[None])).softmax(1)[0]
        self.assertEqual(int(shares.argmax()), MILITARY_UNIFORM)
        self.assertGreater(shares.max().item(), 0.3)

    def test_the_extractor_is_the_network_and_sees_each_picture_by_itself(self):
        pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
        with torch.no_grad():
            expected = features.load()(features.to_input(pictures)).numpy()
        extractor = features.Extractor()
        seen = extractor.of(pictures)
        self.assertEqual((seen.shape, seen.dtype), ((3, features.FEATURES), np.float32))
        np.testing.assert_allclose(seen, expected, atol=1e-4)
        np.testing.assert_array_equal(extractor.of(pictures[1:2]), seen[1:2])

    def test_grey_is_colour_without_colour(self):
        grey = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 1), np.uint8)
        torch.testing.assert_close(features.to_input(grey), features.to_input(grey.repeat(3, 3)), rtol=0, atol=0)

    def test_other_weights_are_refused(self):
        with mock.patch.object(features, "WEIGHTS_SHA256", "0" * 64), self.assertRaisesRegex(SystemExit, "unexpected sha256"):
            features.load()


if __name__ == "__main__":
    unittest.main()
