"""Turns a diffusers pipeline folder into a model package.

    python scripts/from_diffusers.py ../ddpm-cifar10-32 --out models/cifar10-32
    driftglass models check models/cifar10-32

The folder holds unet/{config.json, *.safetensors} and scheduler/scheduler_config.json. The scheduler's own settings
become the package's; reference.npz is walked by that scheduler. A setting that the program does not know ends the
conversion with one sentence. quantize.py then adds int8.onnx.
"""

import json
from pathlib import Path
from unittest import mock

import command_line
import diffusers
import torch

import model_card
import noise
import package

SCHEDULES = {"squaredcos_cap_v2": "cosine", "linear": "linear", "scaled_linear": "scaled-linear"}
VARIANCES = {  # the two *_log are OpenAI's names; fixed_small_log is the square root of the same variance
    "fixed_small": "fixed-small",
    "fixed_small_log": "fixed-small",
    "fixed_large": "fixed-large",
    "learned_range": "learned-range",
}
SCHEDULERS = {"DDPMScheduler": diffusers.DDPMScheduler, "DDIMScheduler": diffusers.DDIMScheduler}


def stop(sentence):
    raise SystemExit(f"from_diffusers: {sentence}")


def demand(place, setting, value, allowed):
    """`value`, or the end with a sentence that says what would have been right."""
    if value not in allowed:
        stop(f"{place}: {setting} is {value!r}, expected {' or '.join(repr(known) for known in allowed)}")
    return value


def read_json(path):
    if not path.is_file():
        stop(f"{path}: there is no such file")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as fault:
        stop(f"{path}: not JSON: {fault}")


class DdpmWalk:
    """diffusers' DDPMScheduler.step over its own timesteps, fed with given noise.

    The last kept step gets noise of zero: where its t is not 0, diffusers would leave that noise in the picture.
    """

    def __init__(self, scheduler, steps):
        self.scheduler = scheduler
        scheduler.set_timesteps(steps)
        self.timesteps = scheduler.timesteps.tolist()

    def __call__(self, index, x, output, injected):
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.tensor(injected)):
            made = self.scheduler.step(torch.tensor(output), self.timesteps[index], torch.tensor(x))
        return made.prev_sample.numpy()


class DdimWalk:
    """diffusers' DDIMScheduler.step with eta 0, of a scheduler that knows only the kept steps.

    Its own step after t is t - T // n, which is not the next kept one under linspace and trailing. epsilon follows
    the clipped x0, as in OpenAI's code.
    """

    def __init__(self, scheduler, steps):
        scheduler.set_timesteps(steps)
        self.timesteps = scheduler.timesteps.tolist()
        self.kept = diffusers.DDIMScheduler.from_config(scheduler.config, num_train_timesteps=steps, steps_offset=0,
                                                        timestep_spacing="leading", trained_betas=None)  # fmt: skip
        self.kept.set_timesteps(steps)
        self.kept.alphas_cumprod = scheduler.alphas_cumprod[scheduler.timesteps.flip(0)]

    def __call__(self, index, x, output, injected):
        t = int(self.kept.timesteps[index])
        made = self.kept.step(torch.tensor(output), t, torch.tensor(x), eta=0.0, use_clipped_model_output=True)
        return made.prev_sample.numpy()


def read_unet(folder):
    """The U-Net of a pipeline folder, checked for what the program can show: grey or colour pixels."""
    for part in ("vae", "vqvae", "text_encoder"):
        if (folder / part).exists():
            stop(f"{folder}: has a {part}, expected a pipeline that works on pixels without text")
    place = folder / "unet" / "config.json"
    config = read_json(place)
    demand(place, "_class_name", config.get("_class_name"), ["UNet2DModel"])
    demand(place, "in_channels", config.get("in_channels"), [1, 3])
    demand(place, "class_embed_type", config.get("class_embed_type"), [None])
    if config.get("sample_size") is None:
        stop(f"{place}: sample_size is missing, expected the side of a picture in pixels")
    if not list((folder / "unet").glob("*.safetensors")):
        stop(f"{folder / 'unet'}: there is no .safetensors file")
    unet = diffusers.UNet2DModel.from_pretrained(folder / "unet", use_safetensors=True, low_cpu_mem_usage=False)
    return unet.eval().requires_grad_(False)


def read_scheduler(folder, unet):
    """The scheduler of a pipeline folder, every setting of which the program honours."""
    place = folder / "scheduler" / "scheduler_config.json"
    config = read_json(place)
    kind = demand(place, "_class_name", config.get("_class_name"), list(SCHEDULERS))
    demand(place, "beta_schedule", config.get("beta_schedule", "linear"), [*SCHEDULES, "sigmoid", "laplace"])
    demand(place, "prediction_type", config.get("prediction_type", "epsilon"), ["epsilon", "v_prediction", "sample"])
    demand(place, "rescale_betas_zero_snr", config.get("rescale_betas_zero_snr", False), [False])
    demand(place, "timestep_spacing", config.get("timestep_spacing", "leading"), ["linspace", "leading", "trailing"])
    demand(place, "variance_type", config.get("variance_type", "fixed_small"), list(VARIANCES))
    if kind == "DDIMScheduler":
        demand(place, "set_alpha_to_one", config.get("set_alpha_to_one", True), [True])
    learned = kind == "DDPMScheduler" and config.get("variance_type") == "learned_range"
    channels = unet.config.in_channels * (2 if learned else 1)
    demand(folder / "unet" / "config.json", "out_channels", unet.config.out_channels, [channels])
    return SCHEDULERS[kind].from_pretrained(folder / "scheduler")


def diffusion_settings(scheduler):
    """[diffusion] of the manifest. A schedule the program has no name for goes in as its table of betas."""
    config = scheduler.config
    settings = {"train-timesteps": config.num_train_timesteps}
    name = SCHEDULES.get(config.beta_schedule) if config.trained_betas is None else None
    settings["schedule"] = name or "table"
    if name in ("linear", "scaled-linear"):
        settings |= {"beta-start": config.beta_start, "beta-end": config.beta_end}
    if name is None:
        settings["betas"] = [float(beta) for beta in scheduler.betas]
    settings["prediction"] = config.prediction_type
    if config.thresholding:
        settings["threshold"] = {"ratio": config.dynamic_thresholding_ratio, "max": float(config.sample_max_value)}
    elif config.clip_sample:
        settings["clip"] = float(config.clip_sample_range)
    return settings


def default_settings(scheduler, steps):
    """[defaults] of the manifest."""
    config = scheduler.config
    spacing = config.timestep_spacing
    if spacing == "leading" and config.steps_offset:
        spacing = f"leading+{config.steps_offset}"
    return {
        "steps": steps,
        "sampler": "ddpm" if isinstance(scheduler, diffusers.DDPMScheduler) else "ddim",
        "spacing": spacing,
        "variance": VARIANCES[config.get("variance_type", "fixed_small")],
        "precision": "fp32",
    }


def class_settings(unet, names):
    """[classes] of the manifest, or nothing. One name fewer than the network knows: its last index is the null class."""
    count = unet.config.num_class_embeds
    if count is None:
        if names:
            stop("--classes: this network is unconditional")
        return {}
    names = names or [f"class-{index}" for index in range(count)]
    if len(names) not in (count, count - 1):
        stop(f"--classes: the network knows {count} classes, found {len(names)} names")
    return {"classes": {"names": names, **({"null": len(names)} if len(names) < count else {})}}


class Plain(torch.nn.Module):
    """A UNet2DModel that returns its tensor and not a record, as the exporters want it."""

    def __init__(self, unet):
        super().__init__()
        self.unet = unet

    def forward(self, sample, timestep, class_labels=None):
        return self.unet(sample, timestep, class_labels=class_labels, return_dict=False)[0]


def convert(folder, out, title, steps, reference_steps, seed, weights, data, names):
    """Writes the package `out` from the pipeline `folder`; the arguments are the command line's."""
    unet = read_unet(folder)
    scheduler = read_scheduler(folder, unet)
    total = scheduler.config.num_train_timesteps
    if max(steps, reference_steps) > total:
        stop(f"--steps: the schedule has {total}, found {max(steps, reference_steps)}")
    size = unet.config.sample_size
    height, width = (size, size) if isinstance(size, int) else size
    classes = class_settings(unet, names)
    used = ("sample", "timestep", *(["class"] if classes else []))
    ports = {key: package.PORTS[key] for key in used} | {"output": "output"}

    out, channels, plain = package.folder(out), unet.config.in_channels, Plain(unet)
    onnx = out / "fp32.onnx"
    package.export_onnx(plain, onnx, package.graph_inputs((channels, height, width), bool(classes)), ports["output"])

    made = DdpmWalk if isinstance(scheduler, diffusers.DDPMScheduler) else DdimWalk
    step = made(scheduler, reference_steps)
    start, injected = noise.of_walk(seed, (1, channels, height, width), reference_steps)
    reference = package.walk(package.torch_network(plain), step, start, step.timesteps, injected, 1 if classes else None)

    manifest = {
        "name": out.name,
        "title": title or out.name,
        "image": {"channels": channels, "height": height, "width": width},
        "network": ports,
        "diffusion": diffusion_settings(scheduler),
        "defaults": default_settings(scheduler, steps),
        **classes,
        "files": {"fp32": package.file_entry(onnx) | package.measure(package.OnnxNetwork(onnx, ports), reference, step)},
        "reference": package.write_reference(out, reference),
        "licence": {"weights": weights, "data": data},
    }
    package.write_manifest(out, manifest)
    (out / "README.md").write_text(model_card.converted(manifest, folder.resolve().name))
    return manifest, reference


def main(arguments=None):
    parser = command_line.parser(__doc__)
    parser.add_argument("folder", type=Path, help="the diffusers pipeline")
    parser.add_argument("--out", type=Path, required=True, help="the package's folder; its name is the package's")
    parser.add_argument("--title", help="one line for people (default: the name)")
    parser.add_argument("--steps", type=command_line.count, default=50, help="kept steps by default (default 50)")
    parser.add_argument("--reference-steps", type=command_line.count, default=package.REFERENCE_STEPS, help="of reference.npz (default 10)")
    parser.add_argument("--seed", type=command_line.seed, default=0, help="of the reference's noise (default 0)")
    parser.add_argument("--weights-licence", default="LicenseRef-unknown", help="SPDX expression for the weights")
    parser.add_argument("--data-licence", default="unknown", help="what it was trained on, and its licence")
    parser.add_argument("--classes", help="comma-separated; one name fewer than the network knows: the last is the null class")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    names = args.classes.split(",") if args.classes else None
    licences = args.weights_licence, args.data_licence
    manifest, _ = convert(args.folder, args.out, args.title, args.steps, args.reference_steps, args.seed, *licences, names)
    entry = manifest["files"]["fp32"]
    print(f"{args.out}: {entry['bytes']} bytes, largest error {entry['max-error']:g}, final PSNR {entry['final-psnr-db']} dB")


if __name__ == "__main__":
    main()
