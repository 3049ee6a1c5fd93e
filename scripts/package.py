"""Writes a model package: the ONNX files, model.toml, reference.npz and what the one says about the others.

A manifest is a dict shaped like model.toml, kebab-case keys and all:

    folder = package.folder(path)
    package.export_onnx(module, folder / "fp32.onnx", package.graph_inputs((c, h, w), conditional))
    reference = package.walk(package.torch_network(module), step, start, timesteps, noise)
    entry = package.file_entry(onnx) | package.measure(package.OnnxNetwork(onnx), reference, step)
    manifest["files"] = {"fp32": entry}
    manifest["reference"] = package.write_reference(folder, reference)
    package.write_manifest(folder, manifest)

Pictures are float32 `[1, c, h, w]`, about [-1, 1] plus noise. `predict(x, t, label)` is a network, label None where it
has no classes. `step(index, x, output, noise)` is one reverse update of a sampler and returns the next x.
"""

import contextlib
import hashlib
import io
import json
import logging
import math
import os
import re
import tomllib
import warnings

import numpy as np

import diffusion

FORMAT = 1
OPSET = 17
REFERENCE = "reference.npz"
REFERENCE_STEPS = 10  # of a shipped trajectory
MOST_PSNR_DB = 200.0  # stands for "the same to the last bit", since no manifest may hold infinity
PORTS = {"sample": "sample", "timestep": "timestep", "class": "class_labels", "output": "epsilon"}
REQUIRED = ("name", "title", "image", "network", "diffusion", "defaults", "files", "reference", "licence")
TABLES = ("network", "diffusion", "defaults", "analytic-variance", "classes", "files", "reference", "prior", "licence", "training")


def folder(path):
    """The folder of a package, made where it is missing; its name is the model's, so it must be one."""
    path = path.resolve()
    if not re.fullmatch(r"[a-z0-9-]{1,64}", path.name):
        raise SystemExit(f"{path}: a model is called {path.name!r}, expected at most 64 lower-case letters, digits and '-'")
    path.mkdir(parents=True, exist_ok=True)
    return path


def walk(predict, step, start, timesteps, noise, label=None):
    """Samples with `predict` from `start` over `timesteps` (n of them, descending): the arrays of reference.npz.

    `start` `[1, c, h, w]`; `noise` `[n, 1, c, h, w]`, injected after every kept step, the last all zero; `epsilon`
    `[n, 1, c, h, w]`, the raw answers, 2c channels with learned variance; `final` x0 `[1, c, h, w]`; `class` `[1]`.
    """

    def answer(x, t):
        return np.asarray(predict(x, t, label), np.float32)

    def rounded(index, x, output, noise):
        return np.asarray(step(index, x, output, noise), np.float32)

    start = np.asarray(start, np.float32)
    taken = list(diffusion.trajectory(answer, rounded, start, timesteps, lambda index: noise[index]))
    arrays = {
        "start": start,
        "timesteps": np.asarray(timesteps, np.int64),
        "noise": np.asarray(noise, np.float32),
        "epsilon": np.stack([output for _, _, output, _ in taken]),
        "final": taken[-1][-1],
    }
    return arrays if label is None else arrays | {"class": np.array([label], np.int64)}


def measure(predict, reference, step):
    """`max-error` of the answers to the reference's own x_t; `final-psnr-db` between the pictures of two free walks."""
    label = int(reference["class"][0]) if "class" in reference else None
    timesteps, noise = reference["timesteps"], reference["noise"]
    recorded, errors = iter(reference["epsilon"]), []

    def compared(x, t, label):
        output = next(recorded)
        errors.append(float(np.max(np.abs(predict(x, t, label) - output))))
        return output

    walk(compared, step, reference["start"], timesteps, noise, label)
    free = walk(predict, step, reference["start"], timesteps, noise, label)
    return {
        "max-error": float(f"{max(errors):.2e}"),
        "final-psnr-db": round(psnr_db(free["final"], reference["final"]), 1),
    }


def psnr_db(picture, reference):
    """Peak signal-to-noise ratio of pictures in [-1, 1]; the peak is 2."""
    mean_square = float(np.mean((picture.astype(np.float64) - reference) ** 2))
    return min(MOST_PSNR_DB, 10 * math.log10(4 / mean_square)) if mean_square > 0 else MOST_PSNR_DB


NUMPY_TYPES = {"tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(float)": np.float32, "tensor(float16)": np.float16}


def session(source, fused=False):
    """ONNX Runtime, on one thread, for a file's path or the bytes of a model.

    The graph is run as it is written, since fusions of quantized operators round otherwise, unless it may be `fused`.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    if not fused:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    source = source if isinstance(source, bytes) else str(source)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


class OnnxNetwork:
    """An ONNX file as `predict`, by ONNX Runtime on one thread; `ports` is [network] of the manifest."""

    def __init__(self, path, ports=PORTS):
        self.session = session(path)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.ports = ports

    def feed(self, x, t, label=None):
        """The graph's inputs by name; the time step in whatever type and rank the graph asks for."""
        sample, time = (self.inputs[self.ports[port]] for port in ("sample", "timestep"))
        value = np.full([1] * len(time.shape), t * self.ports.get("timestep-scale", 1.0), NUMPY_TYPES[time.type])
        feed = {sample.name: x.astype(NUMPY_TYPES[sample.type]), time.name: value}
        return feed if label is None else feed | {self.ports["class"]: np.array([label], np.int64)}

    def __call__(self, x, t, label=None):
        return self.session.run([self.ports["output"]], self.feed(x, t, label))[0].astype(np.float32)


def torch_network(module):
    """A PyTorch module (sample, timestep, class_labels or None) -> output, as `predict`."""
    import torch

    @torch.no_grad()
    def predict(x, t, label=None):
        labels = None if label is None else torch.tensor([label])
        return module(torch.tensor(x), torch.tensor([t]), labels).numpy()

    return predict


def file_entry(path):
    """What a manifest says about any file: its name, its length, its SHA-256."""
    content = path.read_bytes()
    return {"file": path.name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def write_reference(folder, reference):
    """Writes the arrays of `walk` to `folder`/reference.npz and returns its file_entry."""
    path = folder / REFERENCE
    partial = folder / ".reference.partial.npz"
    np.savez_compressed(partial, **{name: np.ascontiguousarray(array) for name, array in reference.items()})
    os.replace(partial, path)
    return file_entry(path)


def read_reference(folder):
    """The arrays of `folder`/reference.npz, by name."""
    with np.load(folder / REFERENCE) as arrays:
        return dict(arrays)


def write_manifest(folder, manifest):
    """Writes `folder`/model.toml, checked for its required keys and read back."""
    missing = [key for key in REQUIRED if key not in manifest]
    assert not missing, f"the manifest lacks {', '.join(missing)}"
    assert manifest["name"] == folder.name, f"{folder}: the package is called {manifest['name']}"
    manifest = {"format": FORMAT} | manifest
    text = to_toml(manifest)
    assert tomllib.loads(text) == manifest, "the manifest does not read back as it was written"
    partial = folder / ".model.partial.toml"
    partial.write_text(text)
    os.replace(partial, folder / "model.toml")


def read_manifest(folder):
    """`folder`/model.toml as a dict."""
    path = folder / "model.toml"
    try:
        return tomllib.loads(path.read_text())
    except tomllib.TOMLDecodeError as fault:
        raise SystemExit(f"{path}: not TOML: {fault}") from None


def listed(manifest):
    """The names of the files that a manifest lists."""
    return {entry["file"] for entry in (*manifest.get("files", {}).values(), manifest.get("reference"), manifest.get("prior")) if entry}


def to_toml(manifest):
    """model.toml as text: the top-level values and `image`, then the tables in their order."""
    unknown = [key for key, value in manifest.items() if isinstance(value, dict) and key not in ("image", *TABLES)]
    assert not unknown, f"the manifest has no place for {', '.join(unknown)}"
    lines = [f"{key} = {value_text(value)}" for key, value in manifest.items() if key not in TABLES]
    for key in TABLES:
        table = manifest.get(key)
        tables = {f"files.{part}": value for part, value in table.items()} if key == "files" else {key: table}
        for name, entries in tables.items():
            if entries:
                lines += ["", f"[{name}]", *(f"{entry} = {value_text(value)}" for entry, value in entries.items())]
    return "\n".join(lines) + "\n"


def value_text(value):
    """One TOML value: strings, booleans, numbers, lists, and dicts as inline tables."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {value_text(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(value_text(part) for part in value) + "]"
    if isinstance(value, float):
        assert math.isfinite(value), f"{value} has no place in a manifest"
        return repr(float(value))
    return json.dumps(value, ensure_ascii=False)


@contextlib.contextmanager
def quietly():
    """Holds back what PyTorch's exporters and ONNX Runtime's quantizer tell of their own affairs."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        before = logging.root.manager.disable
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(before)


def graph_inputs(image_shape, conditional):
    """The inputs every exported graph has, as tensors: `sample` f32 `[1, c, h, w]`, `timestep` int64 `[1]` and, where
    conditional, `class_labels` int64 `[1]`; `image_shape` is (c, h, w)."""
    import torch

    inputs = {"sample": torch.zeros(1, *image_shape), "timestep": torch.tensor([1])}
    return inputs | {"class_labels": torch.tensor([0])} if conditional else inputs


def export_onnx(module, path, inputs, output="epsilon", opset=OPSET, dynamo=False):
    """Writes a PyTorch module as ONNX with fixed shapes, every tensor inside the one file.

    `inputs` are tensors by name, of the types and shapes that the graph is to have. `dynamo` chooses PyTorch's newer
    exporter; the older one, TorchScript's, writes only plain operators for any module.
    """
    import onnx
    import torch

    options = {"external_data": False, "verbose": False} if dynamo else {}
    names = {"input_names": list(inputs), "output_names": [output]}
    with torch.no_grad(), quietly():
        torch.onnx.export(module, tuple(inputs.values()), str(path), **names, opset_version=opset, dynamo=dynamo, **options)
    save_onnx(without_notes(onnx.load(path)), path, opset)


def save_onnx(model, path, opset=OPSET):
    """Writes a checked onnx.ModelProto, whose opset must be the one that was asked for."""
    import onnx

    found = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    assert found == opset, f"{path.name}: asked for opset {opset}, got {found}"
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)


def without_notes(model):
    """An onnx.ModelProto without documentation strings and metadata, where PyTorch's newer exporter notes the paths of
    its sources on the machine that it ran on."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer, *model.functions):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")
    return model
