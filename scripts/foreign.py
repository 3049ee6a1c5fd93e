"""Packages made from other people's kind of network: small diffusers U-Nets with random weights of a fixed seed.

    python scripts/foreign.py [--out tests/data/foreign]

Each is saved as a diffusers pipeline, painted by diffusers' own DDPMPipeline over 50 steps with given noise, and then
converted by from_diffusers.py; the two pictures must be the same. reference.npz keeps all 50 steps. The package alone,
through ONNX Runtime and the formulas of published.py, must then lead to the same picture again. Takes 20 s; the same
files, byte for byte, with the packages of requirements.txt.
"""

import tempfile
from functools import partial
from pathlib import Path
from unittest import mock

import command_line
import numpy as np
import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DModel
from diffusers.utils import logging

import diffusion
import from_diffusers
import package

STEPS = 50
SMALL = {
    "sample_size": 16,
    "in_channels": 1,
    "out_channels": 1,
    "layers_per_block": 1,
    "block_out_channels": (8, 12),
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}

# name: (title, changes to SMALL, scheduler settings, gain of the last convolution)
PACKAGES = {
    "cosine": (
        "Epsilon, cosine, fixed_small, linspace",
        {},
        {"beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "linspace"},
        3.0,
    ),
    "linear-large": (
        "Epsilon, linear, fixed_large, leading, shaped like google/ddpm-cifar10-32",
        {"flip_sin_to_cos": False, "freq_shift": 1, "norm_eps": 1e-6, "downsample_padding": 0, "attention_head_dim": None},
        {"beta_schedule": "linear", "variance_type": "fixed_large"},
        3.0,
    ),
    "velocity": (
        "v, cosine, fixed_small, trailing, time embedding by scale and shift",
        {"resnet_time_scale_shift": "scale_shift", "act_fn": "gelu"},
        {"beta_schedule": "squaredcos_cap_v2", "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
        3.0,
    ),
    "classes": (
        "Class-conditional, scaled_linear, leading + 1, dynamic thresholding",
        {"num_class_embeds": 4, "down_block_types": ("AttnDownBlock2D", "DownBlock2D"), "up_block_types": ("UpBlock2D", "AttnUpBlock2D")},
        {
            "beta_schedule": "scaled_linear",
            "beta_start": 0.00085,
            "beta_end": 0.012,
            "steps_offset": 1,
            "thresholding": True,
            "dynamic_thresholding_ratio": 0.9,
            "sample_max_value": 1.5,
        },
        3.0,
    ),
    "resnet-sampling": (
        "x0, sigmoid schedule as a table, wider than high, sampling by residual blocks",
        {
            "sample_size": (8, 16),
            "block_out_channels": (8, 8, 8),
            "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            "up_block_types": ("UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D"),
            "downsample_type": "resnet",
            "upsample_type": "resnet",
        },
        {"beta_schedule": "sigmoid", "prediction_type": "sample", "clip_sample": False, "timestep_spacing": "linspace"},
        1.0,
    ),
    "skip-blocks": (
        "Epsilon, linear, linspace, colour, skip blocks with FIR filters",
        {
            "sample_size": (16, 8),
            "in_channels": 3,
            "out_channels": 3,
            "block_out_channels": (4, 8),
            "down_block_types": ("SkipDownBlock2D", "SkipDownBlock2D"),
            "up_block_types": ("SkipUpBlock2D", "SkipUpBlock2D"),
        },
        {"beta_schedule": "linear", "timestep_spacing": "linspace"},
        3.0,
    ),
    "learned-range": (
        "Learned variance, cosine, linspace, T = 400",
        {"out_channels": 2},
        {
            "num_train_timesteps": 400,
            "beta_schedule": "squaredcos_cap_v2",
            "variance_type": "learned_range",
            "timestep_spacing": "linspace",
        },
        3.0,
    ),
}


def unet_of(changes, gain, seed):
    """A UNet2DModel with PyTorch's random initial weights; the last layer is louder, so that answers are about 1."""
    torch.manual_seed(seed)
    unet = UNet2DModel(**{**SMALL, **changes}).eval()
    with torch.no_grad():
        unet.conv_out.weight *= gain
    return unet


def painted(folder, reference):
    """The picture in [0, 1] by diffusers' pipeline in `folder`, with the start and noise of `reference`."""
    pipeline = DDPMPipeline.from_pretrained(folder, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    if "class" in reference:
        pipeline.unet.forward = partial(pipeline.unet.forward, class_labels=torch.from_numpy(reference["class"]))
    draws = iter([reference["start"], *reference["noise"]])

    def given(*_, **__):
        return torch.from_numpy(next(draws))

    with (
        mock.patch("diffusers.pipelines.ddpm.pipeline_ddpm.randn_tensor", given),
        mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", given),
    ):
        return pipeline(num_inference_steps=STEPS, output_type="pt").images.numpy()


def replayed(folder):
    """The final picture of a package by what its files say and nothing else: float64, published formulas."""
    manifest, arrays = package.read_manifest(folder), package.read_reference(folder)
    settings = manifest["diffusion"], manifest["defaults"]
    kept = diffusion.timesteps(None, *settings)
    assert kept == arrays["timesteps"].tolist(), f"{folder}: the kept steps are not diffusers'"
    network = package.OnnxNetwork(folder / "fp32.onnx", manifest["network"])
    label = int(arrays["class"][0]) if "class" in arrays else None

    def predict(x, t):
        return network(x, t, label).astype(np.float64)

    step, start = diffusion.reverse_update(kept, *settings), arrays["start"].astype(np.float64)
    *_, (*_, picture) = diffusion.trajectory(predict, step, start, kept, lambda index: arrays["noise"][index])
    return picture


def write(name, out, seed):
    """Writes one package; its manifest, its reference, and how far `replayed` is from diffusers."""
    title, changes, settings, gain = PACKAGES[name]
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder) / f"random-weights-{name}"
        DDPMPipeline(unet_of(changes, gain, seed), DDPMScheduler(**settings)).save_pretrained(folder)
        manifest, reference = from_diffusers.convert(
            folder=folder,
            out=out / name,
            title=title,
            steps=STEPS,
            reference_steps=STEPS,
            seed=seed,
            weights="CC0-1.0",
            data="none, the weights are random",
            names=["one", "two", "three"] if "num_class_embeds" in changes else None,
        )
        picture = painted(folder, reference)
    ours = np.clip(reference["final"] / 2 + 0.5, 0, 1)
    assert np.array_equal(picture, ours), f"{name}: diffusers' pipeline painted another picture, {np.abs(picture - ours).max()} apart"
    apart = float(np.max(np.abs(replayed(out / name) - reference["final"])))
    assert apart < 1e-3, f"{name}: the published formulas lead {apart} away"
    return manifest, reference, apart


def main(arguments=None):
    parser = command_line.parser(__doc__)
    home = Path(__file__).resolve().parent.parent / "tests" / "data" / "foreign"
    parser.add_argument("--out", type=Path, default=home, help="the folder of packages (default tests/data/foreign)")
    out = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    for seed, name in enumerate(PACKAGES):
        manifest, reference, apart = write(name, out, seed)
        picture = reference["final"]
        rim = float(np.mean(np.abs(picture) > 0.999))
        entry = manifest["files"]["fp32"]
        print(f"{name}: {entry['bytes']} + {manifest['reference']['bytes']} bytes, {rim:.0%} of the picture at +-1, "
              f"deviation {picture.std():.2f}, ONNX Runtime {entry['max-error']:g}, {entry['final-psnr-db']} dB, "
              f"published formulas {apart:.1e}")  # fmt: skip


if __name__ == "__main__":
    main()
