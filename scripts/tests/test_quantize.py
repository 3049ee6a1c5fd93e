"""quantize.py: what is done to a graph before it is quantized, and which layers stay float.

From a checkpoint to a quantized package is in test_train.py.
"""

import csv
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from needs import EXPORT, demand

demand(EXPORT)

import numpy as np
import onnx
import torch

import half
import int8_graph
import package
import quantize
from export import export_fp32
from unet import UNet, UNetConfig


def small_network():
    """A U-Net of two levels whose every weight matters."""
    torch.manual_seed(3)
    network = UNet(UNetConfig(size=8, channels=(8, 16), attention_levels=(), groups=4, head_channels=16, classes=2))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval().requires_grad_(False)


class Case(unittest.TestCase):
    """A small network as fp32.onnx and fp16.onnx of a folder."""

    @classmethod
    def setUpClass(cls):
        temporary = tempfile.TemporaryDirectory()
        cls.addClassCleanup(temporary.cleanup)
        cls.folder = Path(temporary.name) / "small"
        cls.folder.mkdir()
        cls.unet = small_network()
        export_fp32(cls.unet, cls.folder / "fp32.onnx")
        half.store(cls.folder / "fp32.onnx", cls.folder / "fp16.onnx")

    def answer(self, path, t=999):
        x = np.random.default_rng(4).standard_normal((1, 3, 8, 8)).astype(np.float32)
        return package.OnnxNetwork(path)(x, t, 1)


class Graph(Case):
    def test_only_weights_are_rounded_to_fp16(self):
        tensors = onnx.load(self.folder / "fp16.onnx").graph.initializer
        halves = {tensor.name for tensor in tensors if tensor.data_type == onnx.TensorProto.FLOAT16}
        weights = {f"{name}_fp16" for name, parameter in self.unet.named_parameters() if parameter.dim() >= 2}
        self.assertEqual(halves, weights)
        frequencies = self.unet.time.omega.numpy().reshape(1, -1)
        exact = [onnx.numpy_helper.to_array(tensor) for tensor in tensors if list(tensor.dims) == [1, 4]]
        self.assertTrue(any(np.array_equal(array, frequencies) for array in exact))

    def test_widened_weights_answer_as_the_file_that_stores_halves(self):
        path = self.folder / "widened.onnx"
        half.widen(self.folder / "fp16.onnx", path)
        self.assertFalse(any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in onnx.load(path).graph.initializer))
        np.testing.assert_allclose(self.answer(path), self.answer(self.folder / "fp16.onnx"), atol=1e-5)

    def test_a_convolution_of_a_concatenation_becomes_one_for_each_half(self):
        model = onnx.load(self.folder / "fp32.onnx")
        before = quantize.layers(model, package.PORTS)
        int8_graph.split_concatenations(model)
        after, path = quantize.layers(model, package.PORTS), self.folder / "split.onnx"
        shortcuts = {f"up.{index}.0.shortcut" for index in (0, 1, 3, 4)}
        self.assertEqual(set(before) - set(after), shortcuts)
        self.assertEqual(set(after) - set(before), {f"{name}.{half}" for name in shortcuts for half in (0, 1)})
        package.save_onnx(model, path)
        np.testing.assert_allclose(self.answer(path), self.answer(self.folder / "fp32.onnx"), atol=1e-4)


class Levels(Case):
    """The small network quantized, on a few inputs of its own."""

    def setUp(self):
        rng = np.random.default_rng(6)
        network = package.OnnxNetwork(self.folder / "fp32.onnx")
        pictures = rng.standard_normal((5, 1, 3, 8, 8)).astype(np.float32)
        self.inputs = [network.feed(picture, 200 * index, index % 2) for index, picture in enumerate(pictures)]

    def mixer(self, layout="qdq"):
        folder = self.folder / f"mixer-{layout}"
        folder.mkdir(exist_ok=True)
        reader = type("Reader", (quantize.CalibrationDataReader,), {"get_next": lambda this: next(this.inputs, None)})

        def calibration():
            made = reader()
            made.inputs = iter(self.inputs)
            return made

        return quantize.Mixer(self.folder / "fp32.onnx", calibration, package.PORTS, layout, "minmax", folder)

    def test_only_convolutions_read_what_is_rounded(self):
        mixer = self.mixer()
        kept = [layer for layer in mixer.layers if layer.startswith("up.4")]
        nodes = onnx.load(mixer.write(kept)).graph.node
        rounded = {output for node in nodes if node.op_type == "DequantizeLinear" for output in node.output}
        readers = [node for node in nodes if rounded & {*node.input}]
        self.assertEqual({node.op_type for node in readers}, {"Conv"})
        self.assertEqual(len(readers), len(mixer.layers) - len(kept))

    def means(self, path, output):
        """The mean of one convolution's answer per channel, over the inputs."""
        model = onnx.load(path)
        model.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
        session = package.session(model.SerializeToString())
        return np.mean([session.run([output], feed)[0].mean(axis=(0, 2, 3)) for feed in self.inputs], axis=0)

    def test_what_a_layer_loses_on_average_is_given_back(self):
        mixer = self.mixer()
        source = onnx.load(self.folder / "fp32.onnx")
        answers = {node.name: node.output[0] for node in int8_graph.convolutions(source)}
        for layer in ("down.0.0.conv_1", "up.4.0.shortcut"):
            name, kept = mixer.layers[layer], set(mixer.layers) - {layer}
            exact = self.means(self.folder / "fp32.onnx", answers[name])
            mended = self.means(mixer.write(kept), answers[name])
            plain = self.folder / "plain.onnx"
            mixer.quantize(self.folder / "fp32.onnx", plain, None, "qdq", [mixer.layers[other] for other in kept])
            lost = np.abs(self.means(plain, answers[name]) - exact)
            self.assertGreater(lost.max(), 1e-3, layer)
            # A bias is rounded to whole products of a level and a weight's step.
            self.assertLess(np.abs(mended - exact).max(), 0.05 * lost.max(), layer)

    def test_both_spellings_answer_like_fp32(self):
        for layout, kinds in (("qdq", {"Conv"}), ("qoperator", {"Conv", "QLinearConv"})):
            path = self.mixer(layout).write([])
            found = {node.op_type for node in onnx.load(path).graph.node if "Conv" in node.op_type}
            self.assertEqual(found, kinds)
            answer, exact = self.answer(path, 500), self.answer(self.folder / "fp32.onnx", 500)
            self.assertLess(np.square(answer - exact).mean(), 0.01 * np.square(exact).mean())


class Mixing(Case):
    """With a stand-in for the yardstick: what a picture is worth is known for every choice."""

    LAYERS = ("a", "b", "c")

    def setUp(self):
        printed = mock.patch("builtins.print")
        printed.start()
        self.addCleanup(printed.stop)
        self.mixer = mock.Mock(layers={name: name for name in self.LAYERS}, network=lambda kept: set(kept))
        gains = {"a": 1.0, "b": 6.0, "c": 3.0}
        self.yardstick = mock.Mock(psnrs=lambda kept: [24.0 + sum(gains[name] for name in kept), 26.0])
        costs = {"a": 0.01, "b": 0.3, "c": 0.1}

        def last_error(kept):
            return sum(costs[name] for name in self.LAYERS if name not in kept)

        self.yardstick.last_error = last_error
        self.yardstick.errors = lambda kept: np.array([last_error(kept)] * 2)

    def test_layers_stay_float_until_the_pictures_meet_the_bar(self):
        for bar, kept in [(25, []), (27, ["b"]), (29, ["b", "c"]), (99, ["b", "c", "a"])]:
            self.assertEqual(quantize.mixed(self.mixer, self.yardstick, bar, 100), kept, bar)

    def test_layers_stay_float_until_the_last_answer_meets_its_bar(self):
        for last, kept in [(41, []), (12, ["b"]), (2, ["b", "c"]), (0, ["b", "c", "a"])]:
            self.assertEqual(quantize.mixed(self.mixer, self.yardstick, 0, last), kept, last)

    def test_sensitivity_is_a_table_with_a_row_for_each_layer(self):
        rows = quantize.sensitivity(self.mixer, self.yardstick)
        self.assertEqual([row[0] for row in rows], ["all of them", "b", "c", "a"])
        alone, without = rows[1][1:3], rows[1][3:]
        np.testing.assert_allclose(alone, (30.0, 27.0))
        np.testing.assert_allclose(without, (11.0, 28.0))
        path = self.folder / "sensitivity.csv"
        quantize.write_sensitivity(path, rows)
        with open(path, newline="") as file:
            read = list(csv.reader(file))
        self.assertEqual(read[0], list(quantize.SENSITIVITY_COLUMNS))
        self.assertEqual(read[2], ["b", "30.00", "27.0", "11.00", "28.0"])

    def test_a_package_without_a_float_network_is_named(self):
        empty = self.folder / "empty"
        empty.mkdir()
        with self.assertRaisesRegex(SystemExit, "empty: there is neither fp32.onnx nor fp16.onnx"):
            quantize.fp32_network(empty, None, self.folder)
        with self.assertRaisesRegex(SystemExit, "lost.onnx: there is no such file"):
            quantize.fp32_network(empty, self.folder / "lost.onnx", self.folder)


if __name__ == "__main__":
    unittest.main()
