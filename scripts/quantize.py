"""Quantizes a package's network to int8: W8A8 convolutions, signed, weights per channel and symmetric.

    python scripts/quantize.py --package models/scenes-32 --fp32 ../runs/scenes-32/fp32.onnx

Calibrated on pictures that the model itself paints, evenly over the kept time steps (that beats sampling some times
more often: iszry/DI2N-PTQ4DM). In float stay the first and the last convolution, every norm, the time embedding and the
attention's products. Prints the error per step and of whole pictures against fp32, writes int8.onnx and its entry in
model.toml.
"""

import tempfile
from pathlib import Path

import command_line
import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

import diffusion
import model_card
import package

FORMATS = {"qdq": QuantFormat.QDQ, "qoperator": QuantFormat.QOperator}
METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile, "entropy": CalibrationMethod.Entropy}


class Trajectories:
    """Paints pictures with a network as the manifest says, keeping every network input on the way."""

    def __init__(self, network, manifest, steps=None):
        image, settings = manifest["image"], (manifest["diffusion"], manifest["defaults"])
        self.network = network
        self.shape = (1, image["channels"], image["height"], image["width"])
        self.classes = len(manifest["classes"]["names"]) if "classes" in manifest else 0
        self.timesteps = diffusion.timesteps(steps, *settings)
        self.step = diffusion.reverse_update(self.timesteps, *settings)

    def walk(self, seed, network=None):
        """(t, x_t, label, output, x_next) of each step of the picture `seed`; its class is seed modulo classes."""
        network = network or self.network
        rng = np.random.default_rng([seed, 1])
        label = seed % self.classes if self.classes else None

        def noise(_):
            return rng.standard_normal(self.shape).astype(np.float32)

        def predict(x, t):
            return network(x, t, label)

        for t, x, output, x_next in diffusion.trajectory(predict, self.step, noise(0), self.timesteps, noise):
            yield t, x.astype(np.float32), label, output, x_next


class Calibration(CalibrationDataReader):
    """Network inputs of whole trajectories, one picture after the other."""

    def __init__(self, trajectories, seeds):
        feed = trajectories.network.feed
        self.inputs = (feed(x, t, label) for seed in seeds for t, x, label, _, _ in trajectories.walk(seed))

    def get_next(self):
        return next(self.inputs, None)


def ends(model, ports):
    """Names of the convolutions that read the picture or write the answer; `ports` is [network] of the manifest."""
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    return [node.name for node in convolutions if ports["sample"] in node.input or ports["output"] in node.output]


def quantize(fp32, path, calibration, ports, layout, method):
    """Writes the int8 network; with QDQ the convolutions' results stay float, so each is rounded once, at its input."""
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
            nodes_to_exclude=ends(onnx.load(fp32), ports),
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=METHODS[method],
            extra_options=options,
        )
    model = package.without_notes(onnx.load(path))
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


def compare(trajectories, network, seeds):
    """int8 against fp32: per step the error of the answer relative to its size, over `seeds`, and each picture's PSNR."""
    errors, psnrs = [], []
    for seed in seeds:
        steps = list(trajectories.walk(seed))
        errors.append([np.square(network(x, t, label) - output).mean() / np.square(output).mean() for t, x, label, output, _ in steps])
        *_, (*_, picture) = trajectories.walk(seed, network)
        psnrs.append(package.psnr_db(picture, steps[-1][-1]))
    return np.sqrt(np.mean(errors, 0)), psnrs


def tell(timesteps, errors, psnrs):
    """Prints what `compare` found, at about ten of the steps, the first and the last among them."""
    for index in np.linspace(0, len(timesteps) - 1, min(len(timesteps), 11)).round().astype(int):
        print(f"t {timesteps[index]:4d}: the answer is {100 * errors[index]:.2f} % off")
    print(f"all steps {100 * np.sqrt(np.square(errors).mean()):.2f} %; pictures {', '.join(f'{psnr:.1f}' for psnr in psnrs)} dB")


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--package", type=Path, required=True, help="the folder export.py or from_diffusers.py wrote")
    p.add_argument("--fp32", type=Path, help="the fp32 network (default fp32.onnx of the package)")
    p.add_argument("--format", choices=FORMATS, default="qdq", help="QuantizeLinear pairs, or QLinearConv (default qdq)")
    p.add_argument("--method", choices=METHODS, default="percentile", help="how ranges are found (default percentile)")
    p.add_argument("--steps", type=command_line.count, help="kept steps to calibrate on (default: the manifest's)")
    p.add_argument("--pictures", type=command_line.count, default=8, help="pictures to calibrate on (default 8)")
    p.add_argument("--check", type=command_line.count, default=4, help="other pictures to measure on (default 4)")
    args = p.parse_args(arguments)
    folder = args.package.resolve()
    manifest, reference = package.read_manifest(folder), package.read_reference(folder)
    ports, fp32, int8 = manifest["network"], args.fp32 or folder / "fp32.onnx", folder / "int8.onnx"
    if not fp32.is_file():
        raise SystemExit(f"{fp32}: there is no such file, expected the fp32 network (--fp32 says where export.py put it)")
    trajectories = Trajectories(package.OnnxNetwork(fp32, ports), manifest, args.steps)
    with tempfile.TemporaryDirectory() as temporary:
        written = Path(temporary) / "int8.onnx"
        quantize(fp32, written, Calibration(trajectories, range(args.pictures)), ports, args.format, args.method)
        int8.write_bytes(written.read_bytes())
    network = package.OnnxNetwork(int8, ports)
    tell(trajectories.timesteps, *compare(trajectories, network, range(args.pictures, args.pictures + args.check)))
    step = diffusion.reverse_update(reference["timesteps"].tolist(), manifest["diffusion"], manifest["defaults"])
    entry = package.file_entry(int8) | package.measure(network, reference, step)
    manifest["files"]["int8"] = entry
    package.write_manifest(folder, manifest)
    model_card.write(folder, manifest)
    print(f"int8.onnx: {entry['bytes']} bytes, max-error {entry['max-error']}, final {entry['final-psnr-db']} dB")


if __name__ == "__main__":
    main()
