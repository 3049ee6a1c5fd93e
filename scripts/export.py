"""Exports a checkpoint of train.py (its EMA weights) as a model package that driftglass loads.

    python scripts/export.py --checkpoint ../runs/scenes-32/checkpoint.pt --package models/scenes-32 \\
        --data ../runs/scenes-32.npz --fp32 ../runs/scenes-32/fp32.onnx

Writes fp32.onnx and fp16.onnx (opset 17, fixed shapes), reference.npz (ten steps by PyTorch), samples.png, model.toml
with the measured errors, and README.md. The folder's name becomes the model's name. With --fp32 the large file stays
out of the package and its manifest. quantize.py then adds int8.onnx.
"""

from pathlib import Path

import command_line
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import data
import diffusion
import model_card
import noise
import package
import published
from procedural import contact_sheet
from train import load_network, paint, to_signal

ANALYTIC_STEPS = (10, 20, 50)


def export_fp32(network, path):
    """The network as one self-contained ONNX file: sample, timestep[, class_labels] -> epsilon, batch 1."""
    config = network.config
    inputs = package.graph_inputs((config.image_channels, config.size, config.size), config.classes > 0)
    package.export_onnx(network, path, inputs, dynamo=True)
    model = onnx.load(path)
    del model.functions[:]
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", package.OPSET))
    model.graph.ClearField("value_info")
    package.save_onnx(model, path)


def store_fp16(source, path):
    """Stores every weight of two or more dimensions as fp16, cast back to fp32 where it is used; biases stay fp32."""
    model = onnx.load(source)
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT or len(tensor.dims) < 2:
            continue
        name = tensor.name
        half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{name}_fp16")
        tensor.CopyFrom(half)
        casts.append(helper.make_node("Cast", [half.name], [name], name=f"{name}_cast", to=TensorProto.FLOAT))
    nodes = casts + list(graph.node)
    del graph.node[:]
    graph.node.extend(nodes)
    package.save_onnx(model, path)


def make_reference(network, seed):
    """The arrays of reference.npz, and the reverse updates they were made with.

    Ten DDPM steps by fp32 PyTorch, first class, with the noise that the product draws from `seed`.
    """
    config = network.config
    timesteps = diffusion.timesteps(package.REFERENCE_STEPS)
    start, injected = noise.of_walk(seed, (1, config.image_channels, config.size, config.size), len(timesteps))
    step = diffusion.reverse_update(timesteps)
    label = 0 if config.classes else None
    return package.walk(package.torch_network(network), step, start, timesteps, injected, label), step


@torch.no_grad()
def epsilon_power(network, x0, labels, t, generator):
    """E ||epsilon_theta(x_t, t)||^2 / d over the pictures x0 `[n, c, h, w]`, x_t drawn from q(x_t | x0)."""
    abar = diffusion.alphas_cumprod()[t]
    x_t = np.sqrt(abar) * x0 + np.sqrt(1 - abar) * torch.randn(x0.shape, generator=generator)
    epsilon = network(x_t.float(), torch.full((len(x0),), t), labels if network.config.classes else None)
    return epsilon.double().square().mean().item()


def analytic_tables(network, path, count=64):
    """sigma^2 per kept step for each of ANALYTIC_STEPS, from `count` held-out pictures; see published.analytic_variance."""
    pictures, labels, _, _ = data.load(path)
    config, shape = network.config, pictures.shape[1:]
    expected = (config.size, config.size, config.image_channels)
    if shape != expected:
        raise SystemExit(f"{path}: unexpected shape of a picture, expected {expected} as the network, got {shape}")
    x0, labels = to_signal(torch.from_numpy(pictures[-count:])), torch.from_numpy(labels[-count:])
    generator = torch.Generator().manual_seed(0)
    kept = {steps: diffusion.timesteps(steps) for steps in ANALYTIC_STEPS}
    powers = {t: epsilon_power(network, x0, labels, t, generator) for t in sorted(set().union(*kept.values()))}
    tables = {}
    for steps, timesteps in kept.items():
        kept_list = published.kept_steps(diffusion.alphas_cumprod(), timesteps)
        table = published.analytic_variance(kept_list, [powers[t] for t in timesteps])
        tables[str(steps)] = [float(f"{sigma2:.6e}") for sigma2 in table]
    return tables


def build_manifest(name, title, network, state, files, reference, analytic):
    config = network.config
    manifest = {
        "name": name,
        "title": title,
        "image": {"channels": config.image_channels, "height": config.size, "width": config.size},
        "network": {"sample": "sample", "timestep": "timestep", "output": "epsilon"},
        "diffusion": dict(diffusion.PROCESS),
        "defaults": diffusion.DEFAULTS | {"precision": "fp16"},
    }
    if analytic:
        manifest["analytic-variance"] = analytic
    if config.classes:
        manifest["network"]["class"] = "class_labels"
        manifest["classes"] = {"names": state["classes"], "null": config.null_class}
    return manifest | {
        "files": files,
        "reference": reference,
        "licence": {"weights": "CC0-1.0", "data": state["licence"]},
        "training": {
            "images": state["images"],
            "minutes": round(state["minutes"], 1),
            "parameters": sum(p.numel() for p in network.parameters()),
            "channels": list(config.channels),
            "blocks": config.blocks,
            "attention-levels": list(config.attention_levels),
            "groups": config.groups,
        },
    }


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of train.py, from any moment of the run")
    p.add_argument("--package", type=Path, required=True, help="folder to write, e.g. models/scenes-32")
    p.add_argument("--title", default="Small scenes in eight styles", help="one line for tables")
    p.add_argument("--data", help="the training .npz: adds the analytic variance tables (Analytic-DPM)")
    p.add_argument("--fp32", type=Path, help="where fp32.onnx goes (default: into the package, and then the manifest lists it)")
    p.add_argument("--seed", type=command_line.seed, default=0, help="of the reference trajectory and the samples (default 0)")
    args = p.parse_args(arguments)
    network, state = load_network(args.checkpoint)
    analytic = analytic_tables(network, args.data) if args.data else None
    folder = package.folder(args.package)
    reference, step = make_reference(network, args.seed)
    fp32, fp16 = args.fp32 or folder / "fp32.onnx", folder / "fp16.onnx"
    export_fp32(network, fp32)
    store_fp16(fp32, fp16)
    files = {}
    for path in [fp16] if args.fp32 else [fp32, fp16]:
        entry = files[path.stem] = package.file_entry(path) | package.measure(package.OnnxNetwork(path), reference, step)
        print(f"{path.name}: {entry['bytes']} bytes, max-error {entry['max-error']}, final {entry['final-psnr-db']} dB")
    entry = package.write_reference(folder, reference)
    manifest = build_manifest(folder.name, args.title, network, state, files, entry, analytic)
    package.write_manifest(folder, manifest)
    pictures = paint(network, per_class=8, steps=manifest["defaults"]["steps"], seed=args.seed)
    contact_sheet(pictures, columns=8, scale=3).save(folder / "samples.png", optimize=True)
    model_card.write(folder, manifest)


if __name__ == "__main__":
    main()
