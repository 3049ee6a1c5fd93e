"""The networks that peers.py times: two diffusers U-Nets with random weights, and the shipped package.

make_all(work) leaves these in the folder `work`, for each NAME of NETWORKS, and makes nothing twice:

    NAME.fp32.onnx, NAME.fp16.onnx         fp16 stores weights of two or more dimensions, as export.py does
    NAME.KIND.onnx                         one for each KIND of INT8
    NAME.ncnn.{param,bin}                  fp32, and NAME.ncnn-fp16.{param,bin}, both through pnnx
    NAME.io.npz                            one evaluation: the inputs by name, PyTorch's answer as `epsilon`
    packages/NAME, packages/NAME-KIND      for driftglass; the second where KIND is not INT8's first

The random weights have a fixed seed and calibration sees noise alone: the times say something, the pictures do not.
"""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import numpy as np

import diffusion
import noise
import package

SEED = 0
TIMESTEP = 600  # of the evaluation in NAME.io.npz
CALIBRATION_STEPS = (0, 250, 500, 750, 999)
REFERENCE_STEPS = 3  # of the packages: enough for a manifest, and cifar10 is slow
SHIPPED = "scenes-32"

UNETS = {
    "small": {
        "sample_size": 64,
        "block_out_channels": (32, 64, 128, 128),
        "layers_per_block": 1,
        "norm_num_groups": 8,
        "attention_head_dim": 32,
        "down_block_types": ("DownBlock2D", "DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "UpBlock2D", "UpBlock2D", "UpBlock2D"),
    },
    "cifar10": {  # google/ddpm-cifar10-32
        "sample_size": 32,
        "block_out_channels": (128, 256, 256, 256),
        "layers_per_block": 2,
        "norm_num_groups": 32,
        "norm_eps": 1e-6,
        "attention_head_dim": None,
        "flip_sin_to_cos": False,
        "freq_shift": 1,
        "downsample_padding": 0,
        "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    },
}
NETWORKS = (*UNETS, SHIPPED)

# kind: (whose settings, the settings). quantize.py: signed activations, convolutions alone, and their results stay float
# in QDQ. u8: unsigned activations, with which the peers are fastest, by ONNX Runtime's quantizer as it comes; the layout,
# and the operators that are quantized with their results, None for all that can be.
MATRIX = ["Conv", "Gemm", "MatMul"]
INT8 = {
    "int8-qdq": ("quantize.py", "qdq"),
    "int8-qoperator": ("quantize.py", "qoperator"),
    "u8-conv-qdq": ("u8", ("qdq", ["Conv"])),
    "u8-conv-qoperator": ("u8", ("qoperator", ["Conv"])),
    "u8-matrix-qdq": ("u8", ("qdq", MATRIX)),
    "u8-matrix-qoperator": ("u8", ("qoperator", MATRIX)),
    "u8-all-qdq": ("u8", ("qdq", None)),
}
FILES = ("fp32", "fp16", *INT8)


def package_of(work, name, kind):
    """(folder, precision) of a file of FILES as driftglass is told of it."""
    precision = kind if kind in ("fp32", "fp16") else "int8"
    apart = precision == "int8" and kind != next(iter(INT8))
    return work / "packages" / (f"{name}-{kind}" if apart else name), precision


def random_unet(settings):
    """A UNet2DModel with random weights that hide no shortcut, and answers of about 1.

    PyTorch starts every norm with gains of 1 and shifts of 0, which an engine could forget without being noticed.
    """
    import torch
    from diffusers import UNet2DModel

    from from_diffusers import Plain

    torch.manual_seed(SEED)
    unet = UNet2DModel(in_channels=3, out_channels=3, **settings).eval().requires_grad_(False)
    for norm in (module for module in unet.modules() if isinstance(module, torch.nn.GroupNorm)):
        norm.weight += 0.2 * torch.randn_like(norm.weight)
        norm.bias += 0.2 * torch.randn_like(norm.bias)
    plain, side = Plain(unet), settings["sample_size"]
    unet.conv_out.weight /= plain(torch.randn(1, 3, side, side), torch.tensor([TIMESTEP])).std()
    return plain


def made_up_inputs(manifest, t):
    """Noise at time step `t` as the inputs of a manifest's network, by name; the first class."""
    image, ports = manifest["image"], manifest["network"]
    shape = (1, image["channels"], image["height"], image["width"])
    inputs = {ports["sample"]: noise.normal(SEED, t, shape), ports["timestep"]: np.array([t], np.int64)}
    return inputs | ({ports["class"]: np.array([0], np.int64)} if "class" in ports else {})


def make_int8(kind, source, path, manifest):
    """Writes the file of one KIND of INT8 from the fp32 network `source`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType

    import quantize

    class Noise(CalibrationDataReader):
        def __init__(self):
            self.inputs = (made_up_inputs(manifest, t) for t in CALIBRATION_STEPS)

        def get_next(self):
            return next(self.inputs, None)

    who, settings = INT8[kind]
    if who == "u8":
        layout, operators = settings
        quantize.quantize_plainly(source, path, Noise(), layout, QuantType.QUInt8, operators)
    else:
        quantize.quantize(source, path, Noise(), manifest["network"], settings, "minmax")


def fix_input(model, name, value):
    """Makes an input of an onnx.ModelProto a constant, where it has one of that name."""
    from onnx import numpy_helper

    for port in [port for port in model.graph.input if port.name == name]:
        model.graph.input.remove(port)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


def make_ncnn(source, stem, evaluation, fp16):
    """Writes `stem`.param and `stem`.bin from an ONNX file; pnnx leaves seven files more, which are dropped.

    ncnn has no Gather to look a class up with, so that of `evaluation` becomes a part of the network.
    """
    import onnx
    import pnnx

    label = package.PORTS["class"]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        onnx.save(fix_input(onnx.load(source), label, evaluation.get(label)), folder / "network.onnx")
        command = [pnnx.EXEC_PATH, "network.onnx", f"fp16={fp16:d}"]
        ended = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        made = folder / "network.ncnn.param"
        if ended.returncode or not made.is_file():
            raise SystemExit(f"{source}: pnnx ends with {ended.returncode}: {ended.stderr.strip()[-300:]}")
        # The cast of the time step is left over and no layer of ncnn's. It gets a float, and Dropout passes that on.
        Path(f"{stem}.param").write_text(re.sub("^Tensor.to ", "Dropout ", made.read_text(), flags=re.MULTILINE))
        shutil.move(folder / "network.ncnn.bin", f"{stem}.bin")


def link(path, place):
    """The same file under a second name, without a copy where the file system can."""
    place.unlink(missing_ok=True)
    try:
        os.link(path, place)
    except OSError:
        shutil.copy(path, place)


def write_packages(work, name, manifest, reference):
    """Every file of a network as packages/NAME and packages/NAME-KIND."""
    step = diffusion.reverse_update(reference["timesteps"].tolist(), manifest["diffusion"], manifest["defaults"])
    entries = {}
    for kind in FILES:
        folder, precision = package_of(work, name, kind)
        folder.mkdir(parents=True, exist_ok=True)
        onnx = folder / f"{precision}.onnx"
        link(work / f"{name}.{kind}.onnx", onnx)
        error = package.measure(package.OnnxNetwork(onnx, manifest["network"]), reference, step)
        entries.setdefault(folder, {})[precision] = package.file_entry(onnx) | error
    for folder, files in entries.items():
        defaults = manifest["defaults"] | {"precision": next(iter(files))}
        files = {"defaults": defaults, "files": files, "reference": package.write_reference(folder, reference)}
        package.write_manifest(folder, manifest | {"name": package.folder(folder).name} | files)


def unet(work, name):
    """Writes fp32 and fp16 of one of UNETS; its manifest, without files, and its reference."""
    import torch

    import half

    torch.set_num_threads(1)  # another order of sums would be another answer
    settings = UNETS[name]
    side = settings["sample_size"]
    network = random_unet(settings)
    package.export_onnx(network, work / f"{name}.fp32.onnx", package.graph_inputs((3, side, side), conditional=False))
    half.store(work / f"{name}.fp32.onnx", work / f"{name}.fp16.onnx")
    manifest = {
        "name": name,
        "title": f"Random weights: {name}",
        "image": {"channels": 3, "height": side, "width": side},
        "network": {port: package.PORTS[port] for port in ("sample", "timestep", "output")},
        "diffusion": diffusion.PROCESS,
        "defaults": diffusion.DEFAULTS,
        "licence": {"weights": "CC0-1.0", "data": "none, the weights are random"},
    }
    kept = diffusion.timesteps(REFERENCE_STEPS)
    start, injected = noise.of_walk(SEED, (1, 3, side, side), REFERENCE_STEPS)
    predict = package.torch_network(network)
    reference = package.walk(predict, diffusion.reverse_update(kept), start, kept, injected)
    inputs = made_up_inputs(manifest, TIMESTEP)
    return manifest, reference, inputs | {"epsilon": predict(inputs["sample"], TIMESTEP, None)}


def shipped(work, home):
    """fp32, fp16 and int8-qdq of the package in the folder `home`; as `unet`.

    Its PyTorch network is not in the repository, so what stands for the answer is the first step of its reference.
    """
    import half

    manifest, reference = package.read_manifest(home), package.read_reference(home)
    ports, files = manifest["network"], manifest.pop("files")
    for kind, precision in {"fp16": "fp16", next(iter(INT8)): "int8"}.items():
        shutil.copy(home / files[precision]["file"], work / f"{SHIPPED}.{kind}.onnx")
    half.widen(work / f"{SHIPPED}.fp16.onnx", work / f"{SHIPPED}.fp32.onnx")
    inputs = {ports["sample"]: reference["start"], ports["timestep"]: reference["timesteps"][:1], ports["class"]: reference["class"]}
    return manifest, reference, inputs | {"epsilon": reference["epsilon"][0]}


def make(work, name, home):
    """Everything of one network; NAME.io.npz comes last and says that the rest is there."""
    manifest, reference, evaluation = shipped(work, home) if name == SHIPPED else unet(work, name)
    fp32 = work / f"{name}.fp32.onnx"
    for kind in INT8:
        path = work / f"{name}.{kind}.onnx"
        if name != SHIPPED or kind != next(iter(INT8)):  # that one is shipped
            make_int8(kind, fp32, path, manifest)
    make_ncnn(fp32, work / f"{name}.ncnn", evaluation, fp16=False)
    make_ncnn(fp32, work / f"{name}.ncnn-fp16", evaluation, fp16=True)
    write_packages(work, name, manifest, reference)
    np.savez(work / f"{name}.io.npz", **evaluation)


def make_all(work, home, names=NETWORKS):
    """The files of `names` in the folder `work`; `home` is the shipped package."""
    work.mkdir(parents=True, exist_ok=True)
    for name in names:
        if not (work / f"{name}.io.npz").is_file():
            print(f"{name}: making its files in {work}", flush=True)
            make(work, name, home)
