"""Exports a checkpoint of train.py (its EMA weights) as a model package that driftglass loads.

    python scripts/export.py --checkpoint ../runs/scenes-32/checkpoint.pt --package models/scenes-32 \\
        --data ../runs/scenes-32.npz --fp32 ../runs/scenes-32/fp32.onnx

Writes fp32.onnx and fp16.onnx (opset 17, fixed shapes), reference.npz (ten steps by PyTorch), samples.png, model.toml
with the measured errors, and README.md. The folder's name becomes the model's name. With --fp32 the large file stays
out of the package and its manifest. quantize.py then adds int8.onnx. Over an earlier export, what later scripts had
added (prior.npz, int8.onnx) stays in the folder, no longer listed, and is named.
"""

from pathlib import Path

import command_line
import onnx
from onnx import helper

import analytic_variance
import data
import diffusion
import half
import model_card
import noise
import package
from procedural import contact_sheet, enlargement
from train import load_network, paint

OUTPUTS = {"epsilon": "epsilon", "v_prediction": "v"}  # of the graph, by what it predicts


def export_fp32(network, path, output="epsilon"):
    """The network as one self-contained ONNX file: sample, timestep[, class_labels] -> `output`, batch 1."""
    config = network.config
    inputs = package.graph_inputs((config.image_channels, config.size, config.size), config.classes > 0)
    package.export_onnx(network, path, inputs, output, dynamo=True)
    model = onnx.load(path)
    del model.functions[:]
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", package.OPSET))
    model.graph.ClearField("value_info")
    package.save_onnx(model, path)


def make_reference(network, process, defaults, seed):
    """The arrays of reference.npz, and the reverse updates they were made with.

    Ten steps by fp32 PyTorch, or all where the defaults have fewer, first class, with the noise that the product draws
    from `seed`.
    """
    config = network.config
    timesteps = diffusion.timesteps(min(package.REFERENCE_STEPS, defaults["steps"]), process, defaults)
    start, injected = noise.of_walk(seed, (1, config.image_channels, config.size, config.size), len(timesteps))
    step = diffusion.reverse_update(timesteps, process, defaults)
    label = 0 if config.classes else None
    return package.walk(package.torch_network(network), step, start, timesteps, injected, label), step


def analytic_tables(network, state, path):
    """[analytic-variance] of the network, from the pictures that train.py has held out of its data set."""
    config = network.config
    image = {"channels": config.image_channels, "height": config.size, "width": config.size}
    classes = state["classes"] if config.classes else None
    count = min(analytic_variance.PICTURES, data.held_out(path))
    x0, labels = analytic_variance.last_pictures(path, image, classes, count)
    estimate = analytic_variance.Estimate(analytic_variance.torch_answers(network), x0, labels, state["process"])
    estimate.tell()
    return estimate.tables()


def own_defaults(state, guidance):
    """[defaults] of the model; the guidance is said where there is one."""
    if guidance != 1 and len(state["classes"]) < 2:
        raise SystemExit(f"--guidance {guidance:g}: the model has one class, expected several to tell apart")
    return state["defaults"] | {"precision": "fp16"} | ({"guidance": guidance} if guidance != 1 else {})


def build_manifest(name, title, network, state, defaults, files, reference):
    config = network.config
    manifest = {
        "name": name,
        "title": title,
        "image": {"channels": config.image_channels, "height": config.size, "width": config.size},
        "network": {"sample": "sample", "timestep": "timestep", "output": OUTPUTS[state["process"]["prediction"]]},
        "diffusion": state["process"],
        "defaults": defaults,
    }
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
            **({"earlier": state["earlier"]} if state.get("earlier") else {}),
            **state.get("told", {}),
        }
        | ({"alpha-floor": config.alpha_floor, "teacher": state["teacher"], "rounds": state["rounds"]} if config.alpha_floor else {}),
    }


def write_samples(folder, network, manifest, seed, prior=None):
    """Writes `folder`/samples.png: eight pictures of each class, as the manifest says that the model is walked."""
    defaults = manifest["defaults"]
    table = manifest.get("analytic-variance", {}).get(str(defaults["steps"]))
    pictures = paint(network, 8, seed, manifest["diffusion"], defaults, table=table, prior=prior)
    contact_sheet(pictures, columns=8, scale=enlargement(pictures.shape[1])).save(folder / "samples.png", optimize=True)


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of train.py, from any moment of the run")
    p.add_argument("--package", type=Path, required=True, help="folder to write, e.g. models/scenes-32")
    p.add_argument("--title", default="Small scenes in eight styles", help="one line for tables")
    p.add_argument("--data", help="the training .npz: adds the tables of analytic_variance.py")
    p.add_argument("--guidance", type=command_line.guidance, default=1.0, help="the model's own weight of classifier-free guidance, 0 to 20 (default 1: none)")
    p.add_argument("--fp32", type=Path, help="where fp32.onnx goes (default: into the package, and then the manifest lists it)")
    p.add_argument("--seed", type=command_line.seed, default=0, help="of the reference trajectory and the samples (default 0)")
    args = p.parse_args(arguments)
    network, state = load_network(args.checkpoint)
    process, defaults = state["process"], own_defaults(state, args.guidance)
    folder = package.folder(args.package)
    before = package.listed(package.read_manifest(folder)) if (folder / "model.toml").exists() else set()
    tables = analytic_tables(network, state, args.data) if args.data else None
    reference, step = make_reference(network, process, defaults, args.seed)
    fp32, fp16 = args.fp32 or folder / "fp32.onnx", folder / "fp16.onnx"
    ports = package.PORTS | {"output": OUTPUTS[process["prediction"]]}
    export_fp32(network, fp32, ports["output"])
    half.store(fp32, fp16)
    files = {}
    for path in [fp16] if args.fp32 else [fp32, fp16]:
        entry = files[path.stem] = package.file_entry(path) | package.measure(package.OnnxNetwork(path, ports), reference, step)
        print(f"{path.name}: {entry['bytes']} bytes, max-error {entry['max-error']}, final {entry['final-psnr-db']} dB")
    entry = package.write_reference(folder, reference)
    manifest = build_manifest(folder.name, args.title, network, state, defaults, files, entry)
    if tables:
        analytic_variance.adopt(manifest, tables)
    package.write_manifest(folder, manifest)
    write_samples(folder, network, manifest, args.seed)
    model_card.write(folder, manifest)
    if left := before - package.listed(manifest):
        print(f"{folder}/model.toml lists {', '.join(sorted(left))} no longer: of the model before; make anew or delete")


if __name__ == "__main__":
    main()
