"""Thousands of pictures of one model and one way to paint them, by the program or by PyTorch, kept in a folder.

What was painted once is never painted again: it is kept under a name that tells the model's bytes and the way, in parts
of at most PART pictures until all are there, so that a run may be stopped at any moment.

Picture i has seed `first + i` and its class from outside, whoever paints it: the program's own noise is noise.py's, so
two ways to paint can be held against each other picture by picture.
"""

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import diffusion
import noise
import package
import prior

PART = 100
BATCH_PIXELS = 25 * 64 * 64  # of PyTorch at once: more leave a processor's cache, fewer leave its threads idle


@dataclass(frozen=True)
class Way:
    """How pictures are painted: by "driftglass" or "pytorch", with which of the model's files, sampler and steps."""

    precision: str
    sampler: str
    steps: int
    variance: str = ""  # of ddpm
    engine: str = "driftglass"
    guidance: float = 1.0  # the weight of classifier-free guidance; 1 is none
    spacing: str = ""  # of the kept steps; the model's own where it is not said
    prior: bool = True  # whether the first step draws from the model's prior, where it has one

    @property
    def name(self):
        parts = [self.engine, self.precision, self.sampler, self.variance, str(self.steps), self.spacing]
        parts += [f"guidance-{self.guidance:g}" if self.guidance != 1 else "", "" if self.prior else "no-prior"]
        return "-".join(filter(None, parts))


@dataclass(frozen=True)
class Order:
    """Which pictures: consecutive seeds from `first`, one for each of `labels` (None where the model has no classes)."""

    first: int
    labels: tuple

    def parts(self):
        """(first seed, number, label) of runs of at most PART seeds of one class."""
        at = 0
        while at < len(self.labels):
            end = at
            while end < len(self.labels) and end - at < PART and self.labels[end] == self.labels[at]:
                end += 1
            yield self.first + at, end - at, self.labels[at]
            at = end


def recipe(folder, manifest, way):
    """What the program writes into each picture that is painted this way, seed and class aside."""
    entry = manifest["files"][way.precision]
    expected = {"model": manifest["name"], "sha256": entry["sha256"], "precision": way.precision}
    expected |= {"steps": way.steps, "sampler": way.sampler, "spacing": way.spacing or manifest["defaults"]["spacing"]}
    if package.file_entry(folder / entry["file"])["sha256"] != entry["sha256"]:
        raise SystemExit(f"{folder / entry['file']}: its sha256 is not that of model.toml")
    expected |= {"variance": way.variance} if way.variance else {}
    expected |= {"prior": manifest["prior"]["sha256"]} if way.prior and "prior" in manifest else {}
    return expected | ({"guidance": way.guidance} if way.guidance != 1 else {})


def paint(folder, manifest, way, order, keep, program, processes):
    """The pictures of `order`, uint8 `[n, h, w, c]`, painted by `way` or found in the folder `keep`."""
    expected = recipe(folder, manifest, way)
    table = manifest.get("analytic-variance", {}).get(str(way.steps)) if way.variance == "analytic" else None
    if way.variance == "analytic" and table is None:
        raise SystemExit(f"{folder / 'model.toml'}: no analytic variance for {way.steps} steps")
    identity = json.dumps([way.engine, expected, table, order.first, order.labels])
    kept = keep / f"{way.name}-{hashlib.sha256(identity.encode()).hexdigest()[:12]}.npz"
    if kept.exists():
        with np.load(kept) as arrays:
            return arrays["pictures"]
    parts = kept.with_suffix(".parts")
    parts.mkdir(parents=True, exist_ok=True)
    wanted = [part for part in order.parts() if not (parts / f"{part[0]}.npy").exists()]
    if way.engine == "driftglass":
        painter = Program(program, folder, manifest, way, expected)
    else:
        painter, processes = PyTorch(folder, manifest, way), 1
    with ThreadPoolExecutor(processes) as pool:
        for done, (part, pictures) in enumerate(zip(wanted, pool.map(painter.part, wanted)), 1):
            write_whole(parts / f"{part[0]}.npy", lambda path, pictures=pictures: np.save(path, pictures))
            print(f"\r{way.name}: {done} of {len(wanted)} parts", end="" if done < len(wanted) else "\n", flush=True)
    pictures = np.concatenate([np.load(parts / f"{first}.npy") for first, _, _ in order.parts()])
    write_whole(kept, lambda path: np.savez_compressed(path, pictures=pictures, identity=np.array(identity)))
    shutil.rmtree(parts)
    return pictures


def write_whole(path, write):
    """Lets `write` make a file beside `path` and gives it this name when it is whole."""
    partial = path.with_name(f".partial-{path.name}")
    write(partial)
    os.replace(partial, path)


class Program:
    """The release binary, one process per part, each on one thread."""

    def __init__(self, program, folder, manifest, way, expected):
        self.program, self.folder, self.manifest, self.way, self.expected = program, folder, manifest, way, expected

    def part(self, part):
        first, count, label = part
        way, name = self.way, None if label is None else self.manifest["classes"]["names"][label]
        command = [self.program, "sample", "--model", self.folder, "--count", count, "--seed", first, "--threads", 1]
        command += ["--precision", way.precision, "--sampler", way.sampler, "--steps", way.steps]
        command += ["--scale", 1, "--preview", "none", "--quiet"]
        command += ["--variance", way.variance] if way.variance else []
        command += ["--spacing", way.spacing] if way.spacing else []
        command += [] if way.prior else ["--no-prior"]
        command += ["--class", name, "--guidance", way.guidance] if name else []
        with tempfile.TemporaryDirectory() as out:
            run = subprocess.run([*map(str, command), "--out", out], capture_output=True, text=True, check=False)
            if run.returncode:
                raise SystemExit(f"{self.program}: {run.stderr.strip()}")
            paths = [Path(out) / f"{self.manifest['name']}-{seed}.png" for seed in range(first, first + count)]
            own = {"class": name} if name else {}
            return np.stack([self.read(path, own | {"seed": first + index}) for index, path in enumerate(paths)])

    def read(self, path, own):
        """One picture, whose recipe must be what was asked for."""
        with Image.open(path) as image:
            found, pixels = json.loads(image.text["driftglass"]), np.asarray(image)
        found.setdefault("guidance", 1.0)  # a recipe says nothing where there is none
        for key, value in ({"prior": None} | self.expected | own | {"guidance": self.way.guidance}).items():
            if found.get(key) != value:
                raise SystemExit(f"{path.name}: asked for {key} {value}, and its recipe says {found.get(key)}")
        return pixels[..., : self.manifest["image"]["channels"]]


class PyTorch:
    """The same numbers as PyTorch's network, in fp32 (on a GPU where there is one), walked by the formulas of published.py
    in float32."""

    def __init__(self, folder, manifest, way):
        import torch

        import weights

        walked = way.variance != "analytic" and way.sampler != "dpmpp-2m"
        assert walked, f"{way.name}: diffusion.py does not walk it"
        self.torch, self.device = torch, "cuda" if torch.cuda.is_available() else "cpu"
        torch.backends.cudnn.allow_tf32 = False  # by default a GPU's convolutions keep ten bits of a number
        network = weights.load(folder, way.precision)[0]
        self.network = network.to(self.device, memory_format=torch.channels_last)  # convolves up to 1.3 times as fast
        image, defaults = manifest["image"], manifest["defaults"] | {"sampler": way.sampler, "variance": way.variance}
        defaults["spacing"] = way.spacing or defaults["spacing"]
        self.shape = (image["channels"], image["height"], image["width"])
        self.together = max(1, BATCH_PIXELS // (image["height"] * image["width"]))
        self.kept = diffusion.timesteps(way.steps, manifest["diffusion"], defaults)
        self.step = diffusion.reverse_update(self.kept, manifest["diffusion"], defaults)
        self.process, self.guidance, self.null = manifest["diffusion"], way.guidance, manifest.get("classes", {}).get("null")
        drawn = way.prior and diffusion.unseen(self.kept, self.process)
        self.prior = prior.read(folder, manifest) if drawn else None

    def part(self, part):
        first, count, label = part
        seeds = range(first, first + count)
        batches = [seeds[at : at + self.together] for at in range(0, count, self.together)]
        return np.concatenate([self.batch(some, label) for some in batches])

    def batch(self, seeds, label):
        torch, last = self.torch, len(self.kept) - 1

        def drawn(stream):
            return torch.from_numpy(noise.normals(seeds, stream, self.shape))

        def predict(x, t, label):
            labels = None if label is None else torch.full((len(x),), label, device=self.device)
            with torch.no_grad():
                return self.network(x.to(self.device), torch.full((len(x),), t, device=self.device), labels).cpu()

        def injected(index):
            return drawn(1 + index) if index < last else torch.zeros(len(seeds), *self.shape)

        answer = diffusion.guided(predict, label, self.null, self.guidance)
        if self.prior:
            labels = None if label is None else [label] * len(seeds)
            x0 = self.prior.draw(labels, self.prior.numbers(seeds), self.shape[1:])
            answer = diffusion.informed(answer, torch.from_numpy(x0), self.kept, self.process)
        *_, (*_, x) = diffusion.trajectory(answer, self.step, drawn(0), self.kept, injected)
        return diffusion.to_uint8(x.numpy())
