"""The network of a package that export.py wrote, as PyTorch knows it: its weights come back out of the ONNX file.

    network, manifest = weights.load(Path("models/scenes-32"))

A checkpoint is large and stays outside the repository; what is committed is fp16.onnx. Its weights, rounded to fp16
once, are those that every precision of the product starts from.
"""

import numpy as np
import onnx
import torch
from onnx import numpy_helper

import package
from unet import UNet, UNetConfig


def initializers(path):
    """Every constant of an ONNX file by name, in the order of the file; fp16 as float32, under the name it is used by."""
    tensors = {}
    for tensor in onnx.load(path).graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.float16:
            array = array.astype(np.float32)
        tensors[tensor.name.removesuffix("_fp16")] = array
    return tensors


def state_dict(network, path):
    """The parameters of `network` out of the ONNX file `path`.

    The exporter keeps the names of all but the norms' scales and biases: those are nameless constants `[c, 1, 1]`, in
    the order in which the network applies them, which is the order in which it holds them.
    """
    tensors = initializers(path)
    own = network.state_dict()
    nameless = iter([array for name, array in tensors.items() if name not in own and array.ndim == 3 and array.shape[1:] == (1, 1)])
    found = {}
    for name, value in own.items():
        array = tensors[name] if name in tensors else next(nameless, None)
        if array is None or array.size != value.numel():
            raise SystemExit(f"{path}: expected {name} of {tuple(value.shape)}, found {None if array is None else array.shape}")
        found[name] = torch.from_numpy(np.array(array, np.float32).reshape(value.shape))
    if next(nameless, None) is not None:
        raise SystemExit(f"{path}: more scales and biases than norms, expected a network that export.py wrote")
    return found


def load(folder, precision="fp16"):
    """(network, manifest) of the package in `folder`: the UNet, ready to predict, and model.toml as a dict."""
    manifest = package.read_manifest(folder)
    image, training = manifest["image"], manifest.get("training", {})
    if image["height"] != image["width"] or "attention-levels" not in training:
        raise SystemExit(f"{folder}: expected a square network that train.py trained and export.py wrote")
    classes = len(manifest["classes"]["names"]) if "classes" in manifest else 0
    shape = (tuple(training["channels"]), training["blocks"], tuple(training["attention-levels"]))
    more = {"groups": training["groups"], "classes": classes, "alpha_floor": training.get("alpha-floor", 0.0)}
    network = UNet(UNetConfig(image["channels"], image["height"], *shape, **more))
    network.load_state_dict(state_dict(network, folder / manifest["files"][precision]["file"]))
    return network.eval().requires_grad_(False), manifest
