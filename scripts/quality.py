"""Measures what the program paints: KID-Lite0, precision and recall, colours, each with its standard error.

    python scripts/data.py scenes --size 32 --count 10000 --first 1000000 --out ../runs/scenes-32-fresh.npz
    python scripts/quality.py --package models/scenes-32 --program target/release/driftglass \\
        --real ../runs/scenes-32-fresh.npz --work ../runs/quality

--real is a data set of pictures that training has not seen, or with --held-out the end of one: its first half is what
all is measured against, its second half shows what no painter can be better than. As many pictures are painted as the
first half has, with the same classes; --pictures paints more of each where few are held back. --work keeps pictures and
features, so a run goes on where it was stopped.
Writes quality.json into the package; quality_page.py makes tables, plots and the card of it.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import subprocess
from pathlib import Path

import command_line
import numpy as np

import data
import features
import hardware
import kid
import package
import painting
from painting import Way

FIRST_SEED = 1_000_000

# What is measured, the most telling first.
WAYS = [
    Way("fp16", "ddpm", 10, "fixed-small"),
    Way("fp16", "ddpm", 10, "fixed-small", "pytorch"),
    Way("int8", "ddpm", 10, "fixed-small"),
    Way("fp16", "ddpm", 50, "fixed-small"),
    Way("int8", "ddpm", 50, "fixed-small"),
    Way("fp16", "ddpm", 25, "analytic", spacing="linspace"),
    Way("fp16", "ddpm", 50, "fixed-small", spacing="linspace"),
    Way("fp16", "ddpm", 10, "fixed-small", spacing="linspace"),
    Way("fp16", "ddpm", 10, "analytic", spacing="linspace"),
    Way("fp16", "ddim", 25, spacing="linspace"),
    Way("fp16", "ddpm", 25, "fixed-small"),
    Way("fp16", "ddpm", 8, "fixed-small"),
    Way("int8", "ddpm", 8, "fixed-small"),
    Way("fp16", "dpmpp-2m", 10),
    Way("fp16", "dpmpp-2m", 15),
    Way("fp16", "dpmpp-2m", 20),
    Way("fp16", "ddim", 8),
    Way("fp16", "ddim", 25),
    Way("fp16", "ddim", 50),
    *(Way("fp16", "ddpm", 10, "fixed-small", guidance=weight) for weight in (1.5, 2.0, 3.0)),
    Way("fp16", "ddpm", 25, "fixed-small", guidance=2.0),
    *(Way("fp16", "ddpm", steps, "fixed-small", prior=False) for steps in (10, 25)),
    Way("fp16", "ddpm", 50, "fixed-small", "pytorch"),
]
NOISE = (1, 2)  # levels of 255 that real pictures are roughened by, to show what the figures see
ROUNDING = 6  # significant digits of a figure


class Real:
    """Pictures that training has not seen: `against` and `floor`, each (pictures, labels), both ordered by class."""

    def __init__(self, path, held_out):
        pictures, labels, self.classes, _ = data.load(path)
        pictures, labels = pictures[-held_out:] if held_out else pictures, labels[-held_out:] if held_out else labels
        half = len(labels) // 2
        self.against = self.by_class(pictures[:half], labels[:half])
        self.floor = self.by_class(pictures[half : 2 * half], labels[half : 2 * half])

    def by_class(self, pictures, labels):
        order = np.argsort(labels, kind="stable")
        return pictures[order], labels[order]

    def order(self, count=None):
        """What is to be painted: a picture for each one of `against`, of its class, or `count` with classes as frequent."""
        own = self.against[1]
        count = count or len(own)
        labels = own[np.arange(count) * len(own) // count]
        return painting.Order(FIRST_SEED, tuple(labels.tolist() if len(self.classes) > 1 else [None] * len(labels)))


class Measured:
    """Figures of painted pictures against real ones, and the features that they stand on, kept in the folder `keep`."""

    def __init__(self, real, keep):
        self.keep, self.extractor = keep, None
        self.real = self.features(real)
        self.kid, self.manifold = kid.Kid(self.real), kid.Manifold(self.real)

    def features(self, pictures):
        """Features of pictures, computed once for the same bytes."""
        kept = self.keep / f"features-{hashlib.sha256(np.ascontiguousarray(pictures)).hexdigest()[:12]}.npy"
        if not kept.exists():
            self.extractor = self.extractor or features.Extractor()
            seen = self.extractor.of(pictures)
            painting.write_whole(kept, lambda path: np.save(path, seen))
        return np.load(kept)

    def of(self, pictures):
        """Every figure by name; `mean` and `deviation` are lists, one per channel."""
        seen = self.features(pictures)
        precision, recall = self.manifold.of(seen)
        mean, deviation = kid.colours(pictures)
        return {"kid": self.kid.of(seen), "precision": precision, "recall": recall, "mean": mean, "deviation": deviation}


def noisy(pictures, levels):
    """The pictures with normal noise of a standard deviation of so many levels, rounded."""
    noise = np.random.default_rng(0).normal(0, levels, pictures.shape)
    return np.clip(np.round(pictures + noise), 0, 255).astype(np.uint8)


# ---- what is written ------------------------------------------------------------------------------------------------


def rounded(value):
    return float(f"{value:.{ROUNDING}g}")


def told(figure):
    """A figure as it is written: [value, standard error], or a list of them."""
    return [told(one) for one in figure] if isinstance(figure, list) else [rounded(figure.value), rounded(figure.error())]


def pair(way, other, measured, painted):
    """How `way` differs from `other`, which painted the same seeds: figures, and picture by picture where only engine or
    file differ."""
    entry = {"way": way.name, "other": other.name}
    if same_walk(way, other):
        psnrs, off = kid.psnrs_db(painted[way], painted[other]), np.abs(painted[way].astype(int) - painted[other])
        entry |= {"same": int((off.max((1, 2, 3)) == 0).sum()), "largest": int(off.max())}
        entry |= {"psnr-db": told(kid.mean(psnrs)), "psnr-db-least": rounded(psnrs.min())}
    return entry | {name: told(measured[way][name] - measured[other][name]) for name in ("kid", "precision", "recall")}


def same_walk(way, other):
    return dataclasses.replace(way, engine=other.engine, precision=other.precision) == other


def pairs(ways):
    """Those of `ways` that are worth a comparison, (way, other): the same walk by another engine or with another file,
    another variance after as many steps, and the analytic one after half as many, with a prior and without."""
    engines, files, variances, priors = [], [], [], []
    for way in ways:
        for other in ways:
            same_engine, same_file = way.engine == other.engine, way.precision == other.precision
            if same_walk(way, other) and same_file and (way.engine, other.engine) == ("driftglass", "pytorch"):
                engines.append((way, other))
            if same_walk(way, other) and same_engine and (way.precision, other.precision) == ("int8", "fp16"):
                files.append((way, other))
            same_steps = way.sampler == other.sampler and other.steps in (way.steps, 2 * way.steps)
            same_rest = way.guidance == other.guidance == 1 and (way.spacing, way.prior) == (other.spacing, other.prior)
            if same_engine and same_file and same_steps and same_rest and (way.variance, other.variance) == ("analytic", "fixed-small"):
                variances.append((way, other))
            if way.prior and dataclasses.replace(way, prior=False) == other:
                priors.append((way, other))
    return engines + files + variances + priors


def milliseconds(program, folder, precision):
    """The median of a step on one thread, in ms, as the program measures it."""
    command = [program, "bench", "--model", folder, "--precision", precision, "--threads", 1, "--json"]
    run = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{program}: {run.stderr.strip()}")
    return rounded(json.loads(run.stdout)["median_ms"])


def entry(way, figures, count):
    return {
        "name": way.name,
        "engine": way.engine,
        "file": way.precision,
        "sampler": way.sampler,
        "variance": way.variance,
        "steps": way.steps,
        "guidance": way.guidance,
        "spacing": way.spacing,
        "pictures": count,
    } | ({} if way.prior else {"no-prior": True}) | {name: told(figure) for name, figure in figures.items()}


def pictures_told(real):
    """How many pictures there are, and their colours as kid.colours has them: what quality.json tells of the real ones."""
    mean, deviation = map(told, kid.colours(real))
    return {"pictures": len(real), "mean": mean, "deviation": deviation}


def of_others(told, earlier):
    """Whether two `pictures_told` of as many are of other ones. The same, drawn on two machines, may be a level apart."""
    means = zip(told["mean"], earlier["mean"], strict=True)
    apart = any(abs(mean - before) > error / 100 for (mean, error), (before, _) in means)
    return told["pictures"] == earlier["pictures"] and apart


def joined(told, earlier, manifest):
    """`told` with those ways of `earlier`, a quality.json before it, that it has not itself and whose file the package has
    still.

    They say against how many real pictures they were measured, where it was another number.
    """
    own, real = {way["name"] for way in told["ways"]}, earlier["real"]["pictures"]
    entries = manifest["files"]
    files = {file: sha256 for file, sha256 in earlier["sha256"].items() if file in entries and entries[file]["sha256"] == sha256}
    ways = {way["name"]: way for way in earlier["ways"] if way["file"] in files}
    said = {} if real == told["real"]["pictures"] else {"real": real}
    kept = [said | way for name, way in ways.items() if name not in own]
    pairs = [pair for pair in earlier["pairs"] if {pair["way"], pair["other"]} <= ways.keys() and not {pair["way"], pair["other"]} <= own]
    return told | {
        "sha256": files | told["sha256"],
        "ways": told["ways"] + kept,
        "pairs": told["pairs"] + pairs,
    }


def add_arguments(p):
    """What whoever paints a package's pictures beside real ones has to be told."""
    p.add_argument("--package", type=Path, required=True, help="the model's folder, e.g. models/scenes-32")
    p.add_argument("--program", type=Path, required=True, help="the release binary")
    p.add_argument("--real", required=True, help="an .npz of data.py with pictures that training has not seen")
    p.add_argument("--held-out", type=command_line.count, help="of --real only so many at its end (default: all)")
    p.add_argument("--work", type=Path, required=True, help="folder that keeps pictures and features")
    p.add_argument("--processes", type=command_line.count, default=os.cpu_count(), help="of the program (default: one per core)")


def opened(args):
    """(folder, manifest, Real, the folder that keeps what is painted) of `add_arguments`."""
    folder = args.package.resolve()
    return folder, package.read_manifest(folder), Real(args.real, args.held_out), args.work / folder.name


def own_way(manifest):
    """How the model paints when nothing is said."""
    own = manifest["defaults"]
    variance = own["variance"] if own["sampler"] == "ddpm" else ""
    return Way(own["precision"], own["sampler"], own["steps"], variance, guidance=own.get("guidance", 1.0))


def main(arguments=None):
    p = command_line.parser(__doc__)
    add_arguments(p)
    p.add_argument("--out", type=Path, help="the file to write (default quality.json of the package)")
    names = [way.name for way in WAYS]
    p.add_argument("--ways", nargs="+", choices=names, metavar="WAY", default=names, help=f"default all: {', '.join(names)}")
    p.add_argument("--pictures", type=command_line.count, help="to paint (default: as many as there are real ones)")
    p.add_argument("--add", action="store_true", help="keep what the file has of other ways, if of the same networks")
    p.add_argument("--paint", action="store_true", help="paint and go no further")
    args = p.parse_args(arguments)
    folder, manifest, real, keep = opened(args)
    out, against = args.out or folder / "quality.json", pictures_told(real.against[0])
    earlier = json.loads(out.read_text()) if args.add and out.exists() else None
    if earlier and of_others(against, earlier["real"]):
        raise SystemExit(f"{out}: was measured against other pictures than {args.real} has, expected the same ones with --add")
    ways = [way for way in WAYS if way.name in args.ways and (way.prior or "prior" in manifest)]
    order = real.order(args.pictures)
    painted = {way: painting.paint(folder, manifest, way, order, keep, args.program, args.processes) for way in ways}
    if args.paint:
        return
    measure = Measured(real.against[0], keep)
    floor, measured = measure.of(real.floor[0]), {}
    rough = {levels: measure.of(noisy(real.floor[0], levels)) for levels in NOISE}
    for way in ways:
        measured[way] = measure.of(painted[way])
        figure = measured[way]["kid"].scaled(1000)
        print(f"{way.name}: KID-Lite0 x 1000 {figure.value:.3f} +- {figure.error():.3f}", flush=True)
    precisions = sorted({way.precision for way in ways})
    told_all = {
        "model": manifest["name"],
        "date": datetime.date.today().isoformat(),
        "sha256": {precision: manifest["files"][precision]["sha256"] for precision in precisions},
        "real": against,
        "floor": {"pictures": len(real.floor[1])} | {name: told(figure) for name, figure in floor.items()},
        "noise": [{"levels": levels} | {name: told(figure) for name, figure in one.items()} for levels, one in rough.items()],
        "ways": [entry(way, measured[way], len(painted[way])) for way in ways],
        "pairs": [pair(*both, measured, painted) for both in pairs(ways)],
    }
    if earlier:
        told_all = joined(told_all, earlier, manifest)
    told_all["milliseconds"] = {file: milliseconds(args.program, folder, file) for file in sorted(told_all["sha256"])}
    told_all["processor"] = hardware.processor()
    painting.write_whole(out, lambda path: path.write_text(json.dumps(told_all, indent=1) + "\n"))
    print(f"{out}: {len(ways)} ways to paint, {len(told_all['pairs'])} comparisons")


if __name__ == "__main__":
    main()
