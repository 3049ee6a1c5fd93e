"""One small U-Net in every spelling of ONNX that the engine has to read.

    python scripts/spellings.py [--out tests/data/onnx]

Both of PyTorch's exporters at several opsets, two kinds of fp16, int8 as QDQ and as QOperator, and four types of time
step. io.npz holds `sample` f32 [k, 1, 1, h, w], `timestep` int64 [k], the answers of PyTorch in float32 and float64
(`pytorch`, `pytorch64`), and those of ONNX Runtime for each file under the file's stem. One file has none there:
fp16-io32-mistyped.onnx is what onnxconverter-common makes of such a graph, and ONNX Runtime refuses it. Takes 15 s; the
same files, byte for byte, with the packages of requirements.txt.
"""

import math
from pathlib import Path

import command_line
import numpy as np
import onnx
import onnxruntime
import torch
from onnxconverter_common import float16
from onnxruntime.quantization import CalibrationDataReader, QuantType
from torch import nn
from torch.nn import functional as F

import noise
import package
import quantize

CHANNELS, EMBEDDING, SIDE = 8, 16, 16
TIMESTEPS = (0, 500, 999)
SAMPLE_SHAPE = (1, 1, SIDE, SIDE)
MISTYPED = "fp16-io32-mistyped"


class Block(nn.Module):
    """x `[n, c_in, h, w]`, embedding `[n, d]` -> `[n, c, h, w]`: a residual block after Ho et al. 2020."""

    def __init__(self, channels_in):
        super().__init__()
        self.norm_1 = nn.GroupNorm(4, channels_in)
        self.conv_1 = nn.Conv2d(channels_in, CHANNELS, 3, padding=1)
        self.time = nn.Linear(EMBEDDING, CHANNELS)
        self.norm_2 = nn.GroupNorm(2, CHANNELS)
        self.conv_2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, CHANNELS, 1)

    def forward(self, x, embedding):
        h = self.conv_1(F.silu(self.norm_1(x))) + self.time(F.silu(embedding))[:, :, None, None]
        return self.shortcut(x) + self.conv_2(F.silu(self.norm_2(h)))


class SmallUNet(nn.Module):
    """sample `[n, 1, h, w]`, timestep of any type, `[n]` or scalar -> epsilon `[n, 1, h, w]`: two levels, one skip."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(EMBEDDING, EMBEDDING), nn.SiLU(), nn.Linear(EMBEDDING, EMBEDDING))
        self.conv_in = nn.Conv2d(1, CHANNELS, 3, padding=1)
        self.down = Block(CHANNELS)
        self.downsample = nn.Conv2d(CHANNELS, CHANNELS, 3, stride=2, padding=1)
        self.norm = nn.GroupNorm(2, CHANNELS)
        self.qkv = nn.Linear(CHANNELS, 3 * CHANNELS)
        self.out = nn.Linear(CHANNELS, CHANNELS)
        self.upsample = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1)
        self.up = Block(2 * CHANNELS)
        self.norm_out = nn.GroupNorm(2, CHANNELS)
        self.conv_out = nn.Conv2d(CHANNELS, 1, 3, padding=1)
        half = EMBEDDING // 2
        self.register_buffer("omega", torch.exp(-math.log(10000) * torch.arange(half) / half))

    def attention(self, x):
        """Two heads over the pixels of `[n, c, h, w]`, added to x."""
        n, c, h, w = x.shape
        parts = self.qkv(self.norm(x).flatten(2).transpose(1, 2)).reshape(n, h * w, 3, 2, c // 2)
        q, k, v = (parts[:, :, part].transpose(1, 2) for part in range(3))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, h * w, c)
        return x + self.out(mixed).transpose(1, 2).reshape(n, c, h, w)

    def forward(self, sample, timestep):
        phase = timestep.to(self.omega.dtype).reshape(-1, 1) * self.omega
        embedding = self.embed(torch.cat([phase.sin(), phase.cos()], dim=1))
        skip = self.down(self.conv_in(sample), embedding)
        h = self.attention(self.downsample(skip))
        h = self.upsample(F.interpolate(h, scale_factor=2.0, mode="nearest"))
        h = self.up(torch.cat([h, skip], dim=1), embedding)
        return self.conv_out(F.silu(self.norm_out(h)))


def export(network, path, opset, dynamo, timestep=torch.tensor([1])):
    """One file by PyTorch's newer (`dynamo`) or older (TorchScript) exporter."""
    sample = torch.zeros(SAMPLE_SHAPE, dtype=next(network.parameters()).dtype)
    package.export_onnx(network, path, {"sample": sample, "timestep": timestep}, opset=opset, dynamo=dynamo)


def with_true_casts(model):
    """onnxconverter-common 1.16 leaves a Cast to float32 as it is and calls its output float16, which ONNX Runtime
    refuses to load. This makes such a Cast do what its output says."""
    types = {value.name: value.type.tensor_type.elem_type for value in model.graph.value_info}
    for node in model.graph.node:
        if node.op_type == "Cast" and types.get(node.output[0]) == onnx.TensorProto.FLOAT16:
            node.attribute[0].i = onnx.TensorProto.FLOAT16
    return model


class Calibration(CalibrationDataReader):
    """Noise at times spread evenly over the schedule."""

    def __init__(self):
        times = np.linspace(0, 999, 16).astype(np.int64)
        self.feeds = iter([{"sample": noise.normal(7, int(t), SAMPLE_SHAPE), "timestep": t.reshape(1)} for t in times])

    def get_next(self):
        return next(self.feeds, None)


def quantized(source, path, *settings):
    """An int8 file by quantize_plainly, without what differs from one machine to the next."""
    quantize.quantize_plainly(source, path, Calibration(), *settings)
    onnx.save(package.without_notes(onnx.load(path)), path)


def write_all(network, out):
    """Writes every file but io.npz."""
    for opset in (17, 18, 21):
        export(network, out / f"torchscript-{opset}.onnx", opset, dynamo=False)
    for opset in (17, 18, 21):
        export(network, out / f"dynamo-{opset}.onnx", opset, dynamo=True)
    times = {"scalar": torch.tensor(1), "int32": torch.tensor([1], dtype=torch.int32), "float": torch.tensor([1.0])}
    for name, timestep in times.items():
        export(network, out / f"timestep-{name}.onnx", 17, dynamo=False, timestep=timestep)

    for name, keep in {"fp16-io32": True, "fp16-converted": False}.items():
        half = float16.convert_float_to_float16(onnx.load(out / "torchscript-17.onnx"), keep_io_types=keep)
        if keep:
            onnx.save(half, out / f"{MISTYPED}.onnx")
        package.save_onnx(with_true_casts(half), out / f"{name}.onnx")
    half = SmallUNet().eval()
    half.load_state_dict(network.state_dict())
    export(half.half(), out / "fp16-exported.onnx", 17, dynamo=False)

    source = out / "torchscript-17.onnx"
    for kind, activations in {"u8": QuantType.QUInt8, "s8": QuantType.QInt8}.items():
        quantized(source, out / f"qdq-{kind}.onnx", "qdq", activations, ["Conv", "Gemm", "MatMul"])
        quantized(source, out / f"qoperator-{kind}.onnx", "qoperator", activations)
    quantized(source, out / "qdq-all-s8.onnx", "qdq", QuantType.QInt8)


def answers(path, samples):
    """ONNX Runtime's answers to `samples` `[k, 1, 1, h, w]` at TIMESTEPS, f32, like samples."""
    predict = package.OnnxNetwork(path)
    return np.stack([predict(x, t) for x, t in zip(samples, TIMESTEPS)])


def main(arguments=None):
    parser = command_line.parser(__doc__)
    home = Path(__file__).resolve().parent.parent / "tests" / "data" / "onnx"
    parser.add_argument("--out", type=Path, default=home, help="the folder to write (default tests/data/onnx)")
    out = parser.parse_args(arguments).out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = SmallUNet().eval().requires_grad_(False)
    write_all(network, out)

    samples = np.stack([noise.normal(8, t, SAMPLE_SHAPE) for t in TIMESTEPS])
    times = [torch.tensor([t]) for t in TIMESTEPS]
    single = np.stack([network(torch.from_numpy(x), t).numpy() for x, t in zip(samples, times)])
    files = sorted(out.glob("*.onnx"))
    made = {path.stem: answers(path, samples) for path in files if path.stem != MISTYPED}
    network.double()
    double = np.stack([network(torch.from_numpy(x).double(), t).numpy() for x, t in zip(samples, times)])
    np.savez_compressed(
        out / "io.npz", sample=samples, timestep=np.array(TIMESTEPS, np.int64), pytorch=single, pytorch64=double, **made
    )
    for path in files:
        answer = made.get(path.stem)
        said = "refused" if answer is None else f"{np.max(np.abs(answer - double)):.1e} off"
        print(f"{path.name}: {path.stat().st_size} bytes, ONNX Runtime {onnxruntime.__version__}: {said}")


if __name__ == "__main__":
    main()
