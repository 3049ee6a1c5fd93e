"""weights.py: the committed package as PyTorch, and a file that holds another network."""

import tempfile
import unittest
from pathlib import Path

from needs import EXPORT, demand

demand(EXPORT)

import numpy as np
import onnx

import package
import weights

SCENES = Path(__file__).resolve().parents[2] / "models/scenes-32"


class Weights(unittest.TestCase):
    def test_the_package_is_the_network_that_wrote_its_reference(self):
        network, manifest = weights.load(SCENES)
        reference = package.read_reference(SCENES)
        predict = package.torch_network(network)
        label = int(reference["class"][0])
        x = reference["start"]
        off = abs(predict(x, int(reference["timesteps"][0]), label) - reference["epsilon"][0]).max()
        self.assertLess(off, 2 * manifest["files"]["fp16"]["max-error"])

    def test_the_files_answers_are_the_networks_whatever_the_time(self):
        network, manifest = weights.load(SCENES)
        file, predict = package.OnnxNetwork(SCENES / manifest["files"]["fp16"]["file"]), package.torch_network(network)
        x = package.read_reference(SCENES)["start"]
        for t in (999, 700, 0):
            # Frequencies rounded to fp16 are off by 5e-4 at t = 999.
            np.testing.assert_allclose(file(x, t, 0), predict(x, t, 0), rtol=0, atol=2e-5)

    def test_a_file_of_another_network_is_named(self):
        network, _ = weights.load(SCENES)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "other.onnx"
            model = onnx.load(SCENES / "fp16.onnx")
            del model.graph.initializer[:60]
            onnx.save(model, path)
            with self.assertRaisesRegex(SystemExit, "other.onnx: expected .* found"):
                weights.state_dict(network, path)


if __name__ == "__main__":
    unittest.main()
