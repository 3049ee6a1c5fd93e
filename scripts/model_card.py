"""The model card: README.md of a package, written from its manifest and what quality.py and neighbours.py left beside it."""

import json

PREDICTIONS = {"epsilon": "An ε-prediction", "v_prediction": "A v-prediction"}


def converted(manifest, pipeline):
    """README.md as text for a package that from_diffusers.py made of the folder `pipeline`."""
    image, diffusion, defaults, licence = (manifest[key] for key in ("image", "diffusion", "defaults", "licence"))
    return "\n".join(
        [
            f"# {manifest['title']}",
            "",
            f"{image['width']}x{image['height']} pixels, {image['channels']} channels; converted from the diffusers pipeline `{pipeline}`.",
            "",
            f"- schedule {diffusion['schedule']}, T = {diffusion['train-timesteps']}, prediction {diffusion['prediction']}",
            f"- default: {defaults['sampler']}, {defaults['steps']} steps, {defaults['spacing']}, {defaults['variance']}",
            f"- licence of the weights: {licence['weights']}; trained on: {licence['data']}",
            "",
        ]
    )


def history(training):
    """How the weights came to be, as lines."""
    return [*lessons(training), *again(training)]


def again(training):
    """The run as one would start it again, as lines; nothing of packages older than these facts."""
    if "command" not in training:
        return []
    processes = "" if training["processes"] == 1 else f", {training['processes']} processes"
    return ["", f"{training['steps']:,} steps on {training['hardware']}{processes}, commit {training['commit']}, last started as", f"`{training['command']}`"]


def lessons(training):
    """What the weights have learned from, as lines."""
    if "teacher" not in training:
        runs = [f"{run['images']:,} images in {run['minutes']:.0f} minutes" for run in [*training.get("earlier", []), training]]
        return [
            f"Trained on {', then on '.join(runs)} with `scripts/train.py`",
            "(T = 1000, cosine schedule, min-SNR weights); these are the averaged (EMA) weights.",
        ]
    rounds = [f"{one['from']} steps to {one['to']} ({one['images']:,} images, {one['minutes']:.0f} minutes)" for one in training["rounds"]]
    return [
        f"Distilled from {training['teacher']} with `scripts/distill.py`, DDIM, {', then '.join(rounds)}.",
        "It is made for that number of steps alone, so it has no analytic variance. These are the averaged (EMA) weights.",
    ]


def walk(way):
    """How a way of quality.json paints, file aside: "ddpm, analytic, 25 steps"."""
    guidance = "" if way["guidance"] == 1 else f"guidance {way['guidance']:g}"
    prior = "without its prior" if "no-prior" in way else ""
    return ", ".join(filter(None, [way["sampler"], way["variance"], f"{way['steps']} steps", way["spacing"], guidance, prior]))


def painter(way):
    """What painted a way of quality.json: the engine where it is not ours, and the file."""
    return f"PyTorch, {way['file']} weights" if way["engine"] == "pytorch" else way["file"]


def counted(quality, painted, real):
    """How many pictures of each way were held against how many real ones, "5,000 `painted` against 5,000 `real`"; the walks
    of which there are fewer by name, and by painter where others painted more of the same."""
    counts = {}
    for way in quality["ways"]:
        both = way["pictures"], way.get("real", quality["real"]["pictures"])
        counts.setdefault(walk(way), {}).setdefault(both, []).append(painter(way))
    found = {}
    for name, painters in counts.items():
        for both, some in painters.items():
            found.setdefault(both, []).append(name if len(painters) == 1 else f"{name} by {' and '.join(some)}")
    most, *fewer = sorted(found, reverse=True)
    named = [f" ({both[0]:,} against {both[1]:,}: {'; '.join(found[both])})" for both in fewer]
    return f"{most[0]:,} {painted} against {most[1]:,} {real}" + "".join(named)


def figures(one):
    """The cells of one way to paint."""
    kid, error = (1000 * part for part in one["kid"])
    return f"{kid:.2f} ± {error:.2f} | {one['precision'][0]:.3f} | {one['recall'][0]:.3f}"


def halved(way, other):
    """Whether a pair of quality.json holds the analytic variance in 25 steps against fixed-small in 50: of all pairs,
    only those of two variances differ in steps."""
    return (way["steps"], other["steps"]) == (25, 50)


def analytic(quality):
    """Why the analytic variance is not what the model is walked with, as lines; nothing where it is worth its while.

    The paper (Bao et al. 2022) finds it better in half as many steps. `quality` is None where nothing was measured.
    """
    quality = quality or {"ways": [], "pairs": []}
    ways = {way["name"]: way for way in quality["ways"]}
    pairs = [(ways[pair["way"]], ways[pair["other"]], pair["kid"][0]) for pair in quality["pairs"]]
    pairs = [pair for pair in pairs if halved(*pair[:2])]
    if not pairs:
        return [
            "Whether its analytic variance in 25 steps is better than `fixed-small` in 50 has not been measured. For",
            "photographs it is, for our other models it is not ([docs/quality.md](../../docs/quality.md#what-the-figures-see)),",
            "so it is not what this one is walked with.",
            "",
        ]
    for way, other, difference in pairs:
        if difference >= 0:
            kids = [f"{1000 * one['kid'][0]:.1f}" for one in (way, other)]
            return [
                f"Its analytic variance in 25 steps is not better than `fixed-small` in 50 (KID {kids[0]} against {kids[1]}), as it is",
                "for photographs: it is the best one number for a whole picture, but what this network does not know lies along",
                "edges, and the smooth places get as much noise. More in [docs/quality.md](../../docs/quality.md#what-the-figures-see).",
                "",
            ]
    return []


def measured(manifest, quality):
    """What quality.py found, as lines; nothing where it has not been measured."""
    if quality is None:
        return []
    files = {name for name, sha256 in quality["sha256"].items() if manifest["files"].get(name, {}).get("sha256") == sha256}
    rows = [["real pictures", "", quality["floor"]]]
    for way in sorted(quality["ways"], key=lambda way: way["kid"][0]):
        if way["engine"] == "driftglass":
            earlier = "" if way["file"] in files else ", before the present one"
            rows.append([walk(way), way["file"] + earlier, way])
    return [
        "| painted by | file | KID-Lite0 × 1000 | precision | recall |",
        "|---|---|---|---|---|",
        *(f"| {how} | {file} | {figures(one)} |" for how, file, one in rows),
        "",
        f"{counted(quality, 'pictures of each', 'that training had not seen')}, with the standard error:",
        "what this says, and how it was measured, is in [docs/quality.md](../../docs/quality.md).",
        "",
    ]


def neighbours(found):
    """What neighbours.py found, as lines; nothing where nobody has looked."""
    if found is None:
        return []
    painted, real = (f"{found[name]['levels'][0]:.1f} ± {found[name]['levels'][1]:.1f}" for name in ("painted", "real"))
    return [
        "![nearest neighbours](neighbours.png)",
        "",
        "Above: painted, the first seeds of each class. Below each: the nearest training picture in pixels, and the",
        f"nearest in features of the hundred nearest in pixels; there are {found['training']:,} of them. On average over",
        f"{found['painted']['pictures']:,} painted pictures the nearest one is {painted} levels of 255 away (root mean",
        f"square), and over {found['real']['pictures']:,} real pictures that training had not seen {real}:",
        "a model that recites would be nearer.",
        "",
    ]


def trained(manifest, quality=None, nearest=None):
    """README.md as text for a package of export.py; [training] holds what train.py knows about the network, and where the
    pictures are not for everyone a `caution`."""
    image, training, licence, defaults = (manifest[key] for key in ("image", "training", "licence", "defaults"))
    classes = manifest.get("classes")
    shown = f"One row per class ({', '.join(classes['names'])})" if classes else "Samples"
    rows = [
        f"| {precision} | `{entry['file']}` | {entry['bytes'] / 1e6:.2f} MB | {entry['max-error']:.1e} | {entry['final-psnr-db']:.1f} dB |"
        for precision, entry in manifest["files"].items()
    ]
    shape = f"{image['width']}×{image['height']} pixels in {image['channels']} channel(s)"
    widths, attention = (", ".join(map(str, training[key])) for key in ("channels", "attention-levels"))
    null = f" The null class is {classes['null']}." if classes else ""
    tables = manifest.get("analytic-variance")
    variance = f", variance {defaults['variance']}" if defaults["sampler"] == "ddpm" else ""
    guidance = f", guidance {defaults['guidance']:g}" if "guidance" in defaults else ""
    walk = f"Sampled by default with {defaults['sampler']}, {defaults['steps']} steps, {defaults['spacing']}{variance}{guidance}."
    if "prior" in manifest:
        walk += "\nIts first step draws from a prior, a Gaussian of thumbnails for each class (`scripts/prior.py`)."
    if tables:
        walk += f"\nIts analytic variance is measured for {', '.join(tables)} steps (`scripts/analytic_variance.py`)."
    return "\n".join(
        [
            f"# {manifest['name']}",
            "",
            f"{manifest['title']}.",
            "",
            "![samples](samples.png)",
            "",
            f"{shown}, {defaults['sampler'].upper()}, {defaults['steps']} steps{guidance}, one draw of noise, not picked.",
            "",
            *([training["caution"], ""] if "caution" in training else []),
            f"{PREDICTIONS[manifest['diffusion']['prediction']]} U-Net with {training['parameters'] / 1e6:.2f} M parameters for {shape}:",
            f"levels of {widths} channels, {training['blocks']} residual block(s) per level going down and one more going up,",
            f"attention at level(s) {attention or 'none'} and in the middle, GroupNorm with {training['groups']} groups.{null}",
            "",
            *history(training),
            "",
            walk,
            "",
            "| precision | file | size | largest error of an answer | final picture, PSNR |",
            "|---|---|---|---|---|",
            *rows,
            "",
            "Errors are against PyTorch in fp32 along the steps of `reference.npz`, by ONNX Runtime.",
            "",
            *measured(manifest, quality),
            *(analytic(quality) if tables and defaults["variance"] != "analytic" else []),
            *neighbours(nearest),
            f"Weights: {licence['weights']}. Data: {licence['data']}.",
            "",
        ]
    )


def of(folder, manifest):
    """README.md as text for the package of export.py in `folder`, with what was left beside its manifest."""
    beside = [folder / name for name in ("quality.json", "neighbours.json")]
    return trained(manifest, *(json.loads(path.read_text()) if path.exists() else None for path in beside))


def write(folder, manifest):
    """Writes `folder`/README.md of a package of export.py; the card of a converted one tells no precisions and stays."""
    if "training" in manifest:
        (folder / "README.md").write_text(of(folder, manifest))
