"""What pictures are like before anything of one is seen: a Gaussian of thumbnails for each class.

    python scripts/prior.py --package models/scenes-64 --data ../runs/scenes-64.npz

At t = T - 1 nothing is left of a picture, and p(x_0 | x_T) is p(x_0): there a walk draws x_0 from this prior instead of
asking the network, whose error an epsilon-prediction divides by sqrt(alpha_bar), 5e-5 on the cosine schedule (Lin et al.
2024, arXiv 2305.08891, section 3). Of that x_0 only the coarsest features stand out of the noise after the step.

Writes prior.npz and its entry in model.toml, and paints samples.png again. The thumbnails are those of the pictures that
the network was trained on, mirrored as it was; a row for each class, and one of all for the null class.
"""

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import command_line
import numpy as np

import data
import model_card
import noise
import package

SIDE = 4  # rows and columns of a thumbnail, or fewer where a picture has no four equal parts
FACTORS = 16  # at most; the rest of the covariance is left out
STREAM = 2**64 - 2  # of the normal numbers of a draw: Stream::Draw(1)
FILE = "prior.npz"


@dataclass(frozen=True)
class Prior:
    """`mean` float32 `[classes, c, rows, columns]` and `factors` `[classes, factors, c, rows, columns]`, in about [-1, 1]."""

    mean: np.ndarray
    factors: np.ndarray

    def numbers(self, seeds):
        """The normal numbers that the program draws with under each of `seeds`: `[seeds, factors]`."""
        return noise.normals(seeds, STREAM, (self.factors.shape[1],))

    def draw(self, labels, z, size):
        """x_0 `[n, c, h, w]` of `labels` `[n]` (None: all of the one class) and normal numbers z `[n, factors]`; `size` is (h, w)."""
        labels = np.zeros(len(z), int) if labels is None else np.asarray(labels)
        thumbnails = self.mean[labels] + np.einsum("nf,nfcyx->ncyx", z, self.factors[labels])
        for axis, to in zip((2, 3), size):
            before, after, share = positions(thumbnails.shape[axis], to)
            share = share.reshape([-1 if one == axis else 1 for one in range(4)])
            thumbnails = thumbnails.take(before, axis) * (1 - share) + thumbnails.take(after, axis) * share
        return thumbnails.astype(np.float32)


def positions(before, after):
    """Where `after` pixels of a side lie on one of `before`: the pixel before, the one after, and how much of the latter."""
    at = np.clip((np.arange(after) + 0.5) * before / after - 0.5, 0, before - 1)
    pixel = at.astype(int)
    return pixel, np.minimum(pixel + 1, before - 1), (at - pixel).astype(np.float32)


def thumbnails(pictures):
    """uint8 `[n, h, w, c]` -> float64 `[n, c, rows, columns]` in [-1, 1], means of equal parts."""
    n, height, width, channels = pictures.shape
    rows, columns = math.gcd(SIDE, height), math.gcd(SIDE, width)
    parts = pictures.reshape(n, rows, height // rows, columns, width // columns, channels)
    return parts.mean((2, 4)).transpose(0, 3, 1, 2) / 127.5 - 1


def gaussian(found):
    """(mean, factors) of thumbnails `[n, c, rows, columns]`: the covariance's largest axes, each as long as its deviation."""
    if len(found) < 2:
        raise SystemExit(f"a prior: expected at least 2 pictures of every class, found {len(found)} of one")
    mean, flat = found.mean(0), found.reshape(len(found), -1)
    variances, axes = np.linalg.eigh(np.atleast_2d(np.cov(flat.T)))
    variances, axes = variances[::-1][:FACTORS], axes.T[::-1][:FACTORS]
    signs = np.sign(np.take_along_axis(axes, np.abs(axes).argmax(1)[:, None], 1))  # so that there is one answer
    factors = axes * signs * np.sqrt(np.maximum(variances, 0))[:, None]
    return mean, factors.reshape(-1, *mean.shape)


def estimate(pictures, labels, classes, flip=True):
    """The Prior of uint8 pictures `[n, h, w, c]`; `classes` is how many there are, 1 where there are none to tell apart."""
    found = thumbnails(pictures)
    if flip:
        found, labels = np.concatenate([found, found[..., ::-1]]), np.concatenate([labels, labels])
    rows = [found] if classes == 1 else [*(found[labels == label] for label in range(classes)), found]
    means, factors = zip(*map(gaussian, rows))
    return Prior(np.stack(means).astype(np.float32), np.stack(factors).astype(np.float32))


def read(folder, manifest):
    """The Prior of a package; None where it has none."""
    if "prior" not in manifest:
        return None
    with np.load(folder / manifest["prior"]["file"]) as arrays:
        return Prior(arrays["mean"], arrays["factors"])


def write(folder, manifest, prior):
    """Writes `folder`/prior.npz and its entry into the manifest."""
    np.savez_compressed(folder / FILE, mean=prior.mean, factors=prior.factors)
    manifest["prior"] = package.file_entry(folder / FILE)


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("--package", type=Path, required=True, help="the folder export.py wrote")
    p.add_argument("--data", required=True, help="the .npz that the network was trained on")
    p.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True, help="it was shown mirrored pictures too (default yes)")
    p.add_argument("--seed", type=command_line.seed, default=0, help="of the samples (default 0)")
    args = p.parse_args(arguments)
    import export
    import weights

    folder = args.package.resolve()
    manifest = package.read_manifest(folder)
    pictures, labels, names, _ = data.load(args.data)
    expected = tuple(manifest["image"][key] for key in ("height", "width", "channels"))
    if pictures.shape[1:] != expected or names != manifest.get("classes", {"names": names})["names"]:
        raise SystemExit(f"{args.data}: expected the pictures of {folder.name}, found {pictures.shape[1:]} of {', '.join(names)}")
    trained = len(pictures) - data.held_out(args.data)
    found = estimate(pictures[:trained], labels[:trained], len(names) if "classes" in manifest else 1, args.flip)
    write(folder, manifest, found)
    package.write_manifest(folder, manifest)
    network = weights.load(folder, "fp16")[0]
    export.write_samples(folder, network, manifest, args.seed, found)
    model_card.write(folder, manifest)
    print(f"{folder / FILE}: {manifest['prior']['bytes']} bytes, {found.factors.shape[1]} factors for each of {len(found.mean)} classes")


if __name__ == "__main__":
    main()
