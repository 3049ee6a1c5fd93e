"""Quantizes a package's network to int8: W8A8 convolutions, signed, weights per channel and symmetric.

    python scripts/quantize.py --package models/scenes-32 --fp32 ../runs/scenes-32/fp32.onnx
    python scripts/quantize.py --package models/scenes-32 --sensitivity models/scenes-32/sensitivity.csv

Calibrated on pictures that the model itself paints, evenly over the kept time steps (that beats sampling some times
more often: iszry/DI2N-PTQ4DM). In float stay the first and the last convolution, every norm, the time embedding and the
attention's products. The two halves of a skip concatenation have scales of their own (Q-Diffusion, Li et al. 2023).
Where the pictures are then further from fp32's than --bar, or the last step's answer further off than --last, the layers
that cost most stay float as well, one after the other. Writes int8.onnx, what is float in it as fp16, and its entry in
model.toml, and prints the error per step and of whole pictures against fp32.

With --sensitivity nothing is written but a table: what each layer costs, quantized alone and left float alone.
"""

import csv
import tempfile
from pathlib import Path

import command_line
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import diffusion
import half
import int8_graph
import model_card
import package
import prior

FORMATS = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}
METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}


class Trajectories:
    """Paints pictures with a network as the manifest says, keeping every network input on the way; `prior` is the package's."""

    def __init__(self, network, manifest, steps=None, prior=None):
        image, settings = manifest["image"], (manifest["diffusion"], manifest["defaults"])
        self.network = network
        self.shape = (1, image["channels"], image["height"], image["width"])
        self.classes = len(manifest["classes"]["names"]) if "classes" in manifest else 0
        self.null, self.guidance = manifest.get("classes", {}).get("null"), settings[1].get("guidance", 1)
        self.timesteps = diffusion.timesteps(steps, *settings)
        tables = manifest.get("analytic-variance", {}) if settings[1]["spacing"] == "linspace" else {}
        self.step = diffusion.reverse_update(self.timesteps, *settings, tables.get(str(len(self.timesteps))))
        self.prior, self.process = prior if diffusion.unseen(self.timesteps, settings[0]) else None, settings[0]

    def answer(self, network, label):
        """What `network` answers to (x, t), guided as the manifest says."""
        return diffusion.guided(network, label, self.null, self.guidance)

    def asked(self, label):
        """The labels that a network is asked for at each step of a picture of `label`."""
        return [label] if self.guidance == 1 else [label, self.null]

    def walk(self, seed, network=None):
        """(t, x_t, label, answer, x_next) of each step of the picture `seed` at which the network is asked; its class is
        seed modulo classes."""
        network = network or self.network
        rng = np.random.default_rng([seed, 1])
        label = seed % self.classes if self.classes else None

        def noise(_):
            return rng.standard_normal(self.shape).astype(np.float32)

        answer = self.answer(network, label)
        if self.prior:
            z = rng.standard_normal((1, self.prior.factors.shape[1])).astype(np.float32)
            x0 = self.prior.draw(None if label is None else [label], z, self.shape[2:])
            answer = diffusion.informed(answer, x0, self.timesteps, self.process)
        for index, (t, x, output, x_next) in enumerate(diffusion.trajectory(answer, self.step, noise(0), self.timesteps, noise)):
            if index > 0 or not self.prior:
                yield t, x.astype(np.float32), label, output, x_next


class Calibration(CalibrationDataReader):
    """Network inputs of whole trajectories, one picture after the other."""

    def __init__(self, trajectories, seeds):
        feed, walks = trajectories.network.feed, (step for seed in seeds for step in trajectories.walk(seed))
        self.inputs = (feed(x, t, asked) for t, x, label, _, _ in walks for asked in trajectories.asked(label))

    def get_next(self):
        return next(self.inputs, None)


def ends(model, ports):
    """Names of the convolutions that read the picture, and of those between which and the answer is no other; `ports` is
    [network] of the manifest."""
    maker = {name: node for node in model.graph.node for name in node.output}
    found = {node.name for node in model.graph.node if node.op_type == "Conv" and ports["sample"] in node.input}
    names = [ports["output"]]
    while names:
        node = maker.get(names.pop())
        if node is not None and node.op_type == "Conv":
            found.add(node.name)
        elif node is not None:
            names += node.input
    return sorted(found)


def layers(model, ports):
    """What is quantized: the convolutions' names, by those of their weights without `.weight`."""
    kept, nodes = ends(model, ports), int8_graph.convolutions(model)
    return {node.input[1].removesuffix(".weight"): node.name for node in nodes if node.name not in kept}


def quantize(fp32, path, calibration, ports, layout, method, kept=(), ranges=None):
    """Writes the int8 network; with QDQ the convolutions' results stay float, so each is rounded once, at its input.

    `kept` names convolutions that stay float beside the first and the last. `ranges` is a file: what the calibration
    found is read from it where it exists, and written to it otherwise.
    """
    options = {"ActivationSymmetric": False, "WeightSymmetric": True, "CalibTensorRangeSymmetric": False}
    if layout == "qdq":
        options["OpTypesToExcludeOutputQuantization"] = ["Conv"]
    with package.quietly():
        quantize_static(
            str(fp32),
            str(path),
            calibration,
            quant_format=FORMATS[layout],
            op_types_to_quantize=["Conv"],
            nodes_to_exclude=[*ends(onnx.load(fp32), ports), *kept],
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options=options,
            calibration_cache_path=ranges,
        )
    model = package.without_notes(onnx.load(path))
    int8_graph.round_for_convolutions_alone(model)
    model.graph.ClearField("value_info")
    package.save_onnx(model, path)


def quantize_plainly(source, path, calibration, layout, activations, operators=None):
    """int8 as ONNX Runtime's quantizer comes: weights signed, per channel; `operators` None for all that it can."""
    prepared = path.with_suffix(".prepared.onnx")
    with package.quietly():
        quant_pre_process(str(source), str(prepared))
        quantize_static(
            str(prepared),
            str(path),
            calibration,
            quant_format=FORMATS[layout],
            per_channel=True,
            activation_type=activations,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=operators,
        )
    prepared.unlink()


class Yardstick:
    """Pictures that fp32 paints, and how far int8 is from them at every step and at the end."""

    def __init__(self, trajectories, seeds):
        self.trajectories = trajectories
        self.pictures = {seed: list(trajectories.walk(seed)) for seed in seeds}

    def share(self, network, step):
        """How far the answer at one step is off, relative to its size, squared."""
        t, x, label, output, _ = step
        return np.square(self.trajectories.answer(network, label)(x, t) - output).mean() / np.square(output).mean()

    def errors(self, network):
        """Per kept step the error of the answer relative to its size, over all pictures."""
        return np.sqrt(np.mean([[self.share(network, step) for step in steps] for steps in self.pictures.values()], 0))

    def last_error(self, network):
        """The error of the last step's answer, the largest of all: it stays in the picture as noise."""
        return np.sqrt(np.mean([self.share(network, steps[-1]) for steps in self.pictures.values()]))

    def psnrs(self, network):
        """PSNR of every finished picture, painted by `network` alone from the same noise."""
        found = []
        for seed, steps in self.pictures.items():
            *_, (*_, picture) = self.trajectories.walk(seed, network)
            found.append(package.psnr_db(picture, steps[-1][-1]))
        return found

    def tell(self, errors, psnrs):
        """Prints what was found, at about ten of the steps, the first and the last among them."""
        timesteps = self.trajectories.timesteps[-len(errors) :]
        for index in np.linspace(0, len(timesteps) - 1, min(len(timesteps), 11)).round().astype(int):
            print(f"t {timesteps[index]:4d}: the answer is {100 * errors[index]:.2f} % off")
        pictures = ", ".join(f"{psnr:.1f}" for psnr in psnrs)
        print(f"all steps {100 * rms(errors):.2f} %; pictures {pictures} dB, {np.mean(psnrs):.1f} on average")


class Mixer:
    """Makes int8 networks of one fp32 file, with any of its convolutions left float; calibrated once.

    `calibration()` makes a Calibration, from its beginning each time.
    """

    def __init__(self, source, calibration, ports, layout, method, folder):
        self.source, self.ports, self.layout, self.folder = source, ports, layout, folder
        self.layers = layers(onnx.load(source), ports)
        self.plain = folder / "plain.onnx"
        self.settings = (method, folder / "ranges.json")
        self.quantize(source, self.plain, calibration(), "qdq", [])
        self.means = int8_graph.lost_means(source, self.plain, iter(calibration().get_next, None))

    def quantize(self, source, path, calibration, layout, kept):
        method, ranges = self.settings
        quantize(source, path, calibration, self.ports, layout, method, kept, ranges)

    def write(self, kept):
        """The path of the network in which the layers `kept` stay float."""
        names = [self.layers[layer] for layer in kept]
        model, shifted, path = onnx.load(self.source), self.folder / "shifted.onnx", self.folder / "int8.onnx"
        int8_graph.give_back(model, {name: mean for name, mean in self.means.items() if name not in names})
        package.save_onnx(model, shifted)
        self.quantize(shifted, path, None, self.layout, names)
        return path

    def network(self, kept):
        return package.OnnxNetwork(self.write(kept), self.ports)


def rms(errors):
    return np.sqrt(np.square(errors).mean())


def cost(mixer, yardstick, kept):
    """(error of the answer in percent over all steps, mean PSNR of the pictures) with the layers `kept` left float."""
    network = mixer.network(kept)
    return 100 * rms(yardstick.errors(network)), np.mean(yardstick.psnrs(network))


def sensitivity(mixer, yardstick):
    """A row per layer, costliest first: what it costs quantized alone, and what is left where it alone is float."""
    everything = set(mixer.layers)
    whole = cost(mixer, yardstick, [])
    rows = [("all of them", *whole, 0.0, package.MOST_PSNR_DB)]
    for layer in mixer.layers:
        rows.append((layer, *cost(mixer, yardstick, everything - {layer}), *cost(mixer, yardstick, [layer])))
    return [rows[0], *sorted(rows[1:], key=lambda row: row[1], reverse=True)]


SENSITIVITY_COLUMNS = ("layer", "quantized alone: error %", "PSNR dB", "float alone: error %", "PSNR dB")


def mixed(mixer, yardstick, bar, last):
    """The layers that stay float so that the pictures' mean PSNR is at least `bar` dB and the last step's answer at most
    `last` percent off: those that cost this answer most, quantized alone."""
    kept, order = [], None
    while len(kept) < len(mixer.layers):
        network = mixer.network(kept)
        error = 100 * yardstick.last_error(network)
        print(f"{len(mixer.layers) - len(kept)} of {len(mixer.layers)} layers quantized: the last answer {error:.2f} % off")
        if error <= last:  # a step is looked at before whole walks are
            psnr = np.mean(yardstick.psnrs(network))
            print(f"pictures {psnr:.1f} dB on average")
            if psnr >= bar:
                break
        if order is None:
            everything = set(mixer.layers)
            alone = {layer: yardstick.last_error(mixer.network(everything - {layer})) for layer in mixer.layers}
            order = iter(sorted(alone, key=alone.get, reverse=True))
        kept.append(next(order))
        print(f"{kept[-1]} stays float")
    return kept


def fp32_network(folder, given, temporary):
    """The fp32 network of a package: the file `given`, or its own, or its fp16 one with its weights widened."""
    if given or (folder / "fp32.onnx").is_file():
        path = given or folder / "fp32.onnx"
        if not path.is_file():
            raise SystemExit(f"{path}: there is no such file, expected the fp32 network that export.py wrote")
        return path
    stored = folder / "fp16.onnx"
    if not stored.is_file():
        raise SystemExit(f"{folder}: there is neither fp32.onnx nor fp16.onnx (--fp32 says where export.py put the first)")
    half.widen(stored, temporary / "fp32.onnx")
    return temporary / "fp32.onnx"


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--package", type=Path, required=True, help="the folder export.py or from_diffusers.py wrote")
    p.add_argument("--fp32", type=Path, help="the fp32 network (default fp32.onnx of the package, or else fp16.onnx)")
    p.add_argument("--format", choices=FORMATS, default="qdq", help="QuantizeLinear pairs, or QLinearConv (default qdq)")
    p.add_argument("--method", choices=METHODS, default="percentile", help="how ranges are found (default percentile)")
    p.add_argument("--steps", type=command_line.count, help="kept steps to calibrate on (default: the manifest's)")
    p.add_argument("--pictures", type=command_line.count, default=8, help="pictures to calibrate on (default 8)")
    p.add_argument("--check", type=command_line.count, default=4, help="other pictures to measure on (default 4)")
    p.add_argument("--bar", type=command_line.amount_or_none, default=30.0, help="dB that pictures have on average (default 30)")
    p.add_argument("--last", type=command_line.amount_or_none, default=100.0, help="%% that the last step's answer is off at most (default 100)")
    p.add_argument("--sensitivity", type=Path, help="write what every layer costs to this .csv, and nothing else")
    args = p.parse_args(arguments)
    folder = args.package.resolve()
    manifest, int8 = package.read_manifest(folder), folder / "int8.onnx"
    ports = manifest["network"]
    with tempfile.TemporaryDirectory() as temporary:
        temporary = Path(temporary)
        fp32 = fp32_network(folder, args.fp32, temporary)
        split = onnx.load(fp32)
        int8_graph.split_concatenations(split)
        package.save_onnx(split, temporary / "split.onnx")
        trajectories = Trajectories(package.OnnxNetwork(fp32, ports), manifest, args.steps, prior.read(folder, manifest))

        def calibration():
            return Calibration(trajectories, range(args.pictures))

        mixer = Mixer(temporary / "split.onnx", calibration, ports, args.format, args.method, temporary)
        yardstick = Yardstick(trajectories, range(args.pictures, args.pictures + args.check))
        if args.sensitivity:
            write_sensitivity(args.sensitivity, sensitivity(mixer, yardstick))
            return
        half.store(mixer.write(mixed(mixer, yardstick, args.bar, args.last)), int8)
        network = package.OnnxNetwork(int8, ports)
        yardstick.tell(yardstick.errors(network), yardstick.psnrs(network))
    reference = package.read_reference(folder)
    step = diffusion.reverse_update(reference["timesteps"].tolist(), manifest["diffusion"], manifest["defaults"])
    entry = package.file_entry(int8) | package.measure(network, reference, step)
    manifest["files"]["int8"] = entry
    package.write_manifest(folder, manifest)
    model_card.write(folder, manifest)
    print(f"int8.onnx: {entry['bytes']} bytes, max-error {entry['max-error']}, final {entry['final-psnr-db']} dB")


def write_sensitivity(path, rows):
    """Writes and prints the rows of `sensitivity`."""
    lines = [(layer, f"{alone:.2f}", f"{alone_db:.1f}", f"{rest:.2f}", f"{rest_db:.1f}")
             for layer, alone, alone_db, rest, rest_db in rows]  # fmt: skip
    with open(path, "w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([SENSITIVITY_COLUMNS, *lines])
    for line in [SENSITIVITY_COLUMNS, *lines]:
        print(" | ".join(line))


if __name__ == "__main__":
    main()
