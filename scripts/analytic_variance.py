"""Measures how large a network's answers are, and writes the variance of every reverse step that follows into model.toml.

    python scripts/data.py scenes --size 32 --first 48000 --count 1024 --out ../runs/fresh-32.npz
    python scripts/analytic_variance.py --package models/scenes-32 --data ../runs/fresh-32.npz

Analytic-DPM (Bao et al. 2022, arXiv 2201.06503): the best sigma^2 of a step follows from E ||epsilon_theta(x_t, t)||^2 / d
alone, which is measured on pictures that the network was not trained on, noised to t. Prints how sure the tables are
after how many pictures. Where the package's default is ddpm with the fixed-small variance over steps that have a table
now, the default becomes analytic.
"""

from pathlib import Path

import command_line
import numpy as np
import torch

import data
import diffusion
import model_card
import package
import published
import weights

STEPS = (10, 20, 25, 50, 100)
PICTURES = 128
BATCH = 64


def answers(folder, manifest):
    """The package's finest network: (x `[n, c, h, w]`, t, labels `[n]` or None) -> its answers, float32."""
    finest = next(precision for precision in ("fp32", "fp16", "int8") if precision in manifest["files"])
    if "attention-levels" in manifest.get("training", {}):
        network, _ = weights.load(folder, finest)
        return torch_answers(network)
    one = package.OnnxNetwork(folder / manifest["files"][finest]["file"], manifest["network"])

    def predict(x, t, labels):
        labels = [None] * len(x) if labels is None else labels.tolist()
        return np.concatenate([one(picture[None], t, label) for picture, label in zip(x, labels)])

    return predict


def torch_answers(network):
    """A PyTorch module (sample, timestep, class_labels or None) as `answers`."""

    @torch.no_grad()
    def predict(x, t, labels):
        labels = None if labels is None else torch.from_numpy(labels)
        return network(torch.from_numpy(x), torch.full((len(x),), t), labels).numpy()

    return predict


def powers(predict, x0, labels, t, process, seed=0):
    """||epsilon_theta(x_t, t)||^2 / d of each picture of x0 `[n, c, h, w]`, float64 `[n]`; x_t drawn from q(x_t | x0)."""
    abar, channels = diffusion.alphas_cumprod(process)[t], x0.shape[1]
    rng, found = np.random.default_rng([seed, t]), []
    for start in range(0, len(x0), BATCH):
        part = x0[start : start + BATCH]
        x_t = (np.sqrt(abar) * part + np.sqrt(1 - abar) * rng.standard_normal(part.shape)).astype(np.float32)
        output = predict(x_t, t, None if labels is None else labels[start : start + BATCH])[:, :channels]
        if process["prediction"] != "epsilon":
            estimate = published.to_x0(process["prediction"], x_t.astype(np.float64), output, abar)
            output = published.to_epsilon(x_t, estimate, abar)
        found.append(np.square(output, dtype=np.float64).mean(axis=(1, 2, 3)))
    return np.concatenate(found)


class Estimate:
    """The measured powers `[n]` of every t that a table of `steps` needs, and the tables that follow from them."""

    def __init__(self, predict, x0, labels, process, steps=None):
        self.abar = diffusion.alphas_cumprod(process)
        total = process["train-timesteps"]
        self.kept = {count: published.linspace(total, count) for count in steps or STEPS if count <= total}
        wanted = sorted(set().union(*self.kept.values()))
        self.powers = {t: powers(predict, x0, labels, t, process) for t in wanted}
        self.pictures = len(x0)

    def table(self, steps):
        """sigma^2 per kept step."""
        means = [self.powers[t].mean() for t in self.kept[steps]]
        return published.analytic_variance(published.kept_steps(self.abar, self.kept[steps]), means)

    def tables(self):
        """[analytic-variance] of a manifest."""
        return {str(steps): [float(f"{sigma2:.6e}") for sigma2 in self.table(steps)] for steps in self.kept}

    def relative_errors(self, steps, pictures=None):
        """The standard error of each sigma^2 as a share of it, but of the last two, which follow from no measurement;
        of a measurement on all pictures, or on so many.

        No error is larger than the bounds of x0's variance leave room for: near t = T they decide.
        """
        kept_list, errors = published.kept_steps(self.abar, self.kept[steps]), []
        larger = np.sqrt(self.pictures / pictures) if pictures else 1.0
        for kept, sigma2 in zip(kept_list[:-2], self.table(steps)):
            weight, _ = published.posterior(kept, 1.0, 0.0)
            x0_error = larger * (1 - kept.abar) / kept.abar * standard_error(self.powers[kept.t])
            errors.append(weight**2 * min(x0_error, 1.0) / sigma2)
        return np.array(errors)

    def tell(self):
        """Prints the standard error of the tables, for fewer pictures also."""
        counts = [count for count in (8, 32, 128) if count < self.pictures] + [self.pictures]
        print("standard error of sigma^2, the largest and the median of a table's steps, after so many pictures:")
        print("steps" + "".join(f"{count:>18}" for count in counts))
        for steps in self.kept:
            if steps > 2:
                errors = [100 * self.relative_errors(steps, count) for count in counts]
                print(f"{steps:5d}" + "".join(f"  {found.max():6.3f} % {np.median(found):6.3f} %" for found in errors))


def standard_error(values):
    return values.std(ddof=1) / np.sqrt(len(values)) if len(values) > 1 else 0.0


def last_pictures(path, image, classes, count):
    """The last pictures of a data set, (x0 `[n, c, h, w]`, labels `[n]` or None): `count` of them, or all.

    `image` is the manifest's, `classes` its names or None.
    """
    pictures, labels, names, _ = data.load(path)
    expected = (image["height"], image["width"], image["channels"])
    if pictures.shape[1:] != expected:
        raise SystemExit(f"{path}: unexpected shape of a picture, expected {expected} as the network, got {pictures.shape[1:]}")
    if classes and names != classes:
        raise SystemExit(f"{path}: unexpected classes, expected {', '.join(classes)}, got {', '.join(names)}")
    return diffusion.from_uint8(pictures[-count:]), labels[-count:] if classes else None


def adopt(manifest, tables):
    """Writes the tables into a manifest, and makes analytic its default where the default was made for it."""
    defaults = manifest["defaults"]
    manifest["analytic-variance"] = tables
    walk = (defaults["sampler"], defaults["spacing"], defaults["variance"])
    if walk == ("ddpm", "linspace", "fixed-small") and str(defaults["steps"]) in tables:
        defaults["variance"] = "analytic"


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--package", type=Path, required=True, help="the folder export.py or from_diffusers.py wrote")
    p.add_argument("--data", type=Path, required=True, help="an .npz of data.py; its last pictures are taken")
    p.add_argument("--pictures", type=command_line.count, default=PICTURES, help=f"how many of them (default {PICTURES})")
    args = p.parse_args(arguments)
    folder = args.package.resolve()
    manifest = package.read_manifest(folder)
    torch.set_num_threads(1)
    x0, labels = last_pictures(args.data, manifest["image"], manifest.get("classes", {}).get("names"), args.pictures)
    estimate = Estimate(answers(folder, manifest), x0, labels, manifest["diffusion"])
    estimate.tell()
    adopt(manifest, estimate.tables())
    package.write_manifest(folder, manifest)
    model_card.write(folder, manifest)
    steps, default = ", ".join(manifest["analytic-variance"]), manifest["defaults"]["variance"]
    print(f"{folder / 'model.toml'}: {steps} steps; default {default}")


if __name__ == "__main__":
    main()
