"""Writes what quality.py measured into docs/quality.md, its two plots, and the models' cards.

    python scripts/quality_page.py models/scenes-32

Reads quality.json of each package that is named, and needs none of what was painted.
"""

import contextlib
import json
import math
from pathlib import Path

import command_line

import model_card
import package
from model_card import counted, halved, painter, walk

HOME = Path(__file__).resolve().parent.parent
PAGE = HOME / "docs/quality.md"
DISTILLED_MOST = 0.1  # share by which a student's KID may be above its teacher's best in 50 steps
INT8_MOST = {50: 1, 10: 2}  # KID-Lite0 x 1000 that int8 may cost after so many steps
SHOWN = {"kid": (2, 1000), "precision": (3, 1), "recall": (3, 1)}  # figures of the tables: digits, factor


def read(folder):
    """quality.json of a package."""
    path = folder / "quality.json"
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as fault:
        raise SystemExit(f"{path}: not JSON: {fault}") from None


def with_error(figure, digits, factor=1, sign=""):
    """[value, standard error] as text."""
    value, error = (factor * part for part in figure)
    return f"{value:{sign}.{digits}f} ± {error:.{digits}f}"


def by_walk(ways):
    """In the order of a reader: by sampler and variance, then file, then steps."""
    keys = ("sampler", "variance", "spacing", "engine", "file", "guidance", "steps")
    return sorted(ways, key=lambda way: ["no-prior" in way, *(way[key] for key in keys)])


def table(head, rows):
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *("| " + " | ".join(row) + " |" for row in rows), ""]


def milliseconds(found, way):
    """ms per picture of a way; None for PyTorch, which is not timed."""
    evaluations = way["steps"] * (1 if way["guidance"] == 1 else 2)
    return None if way["engine"] == "pytorch" else evaluations * found["milliseconds"][way["file"]]


def figures(found):
    """The table of all ways to paint."""
    rows = [["real pictures", "", "", *(with_error(found["floor"][name], *how) for name, how in SHOWN.items())]]
    for one in found["noise"]:
        name = f"real pictures, noise of {one['levels']} level{'s' if one['levels'] > 1 else ''}"
        rows.append([name, "", "", *(with_error(one[figure], *how) for figure, how in SHOWN.items())])
    for way in by_walk(found["ways"]):
        ms = milliseconds(found, way)
        cells = [with_error(way[name], *how) for name, how in SHOWN.items()]
        rows.append([walk(way), painter(way), "" if ms is None else f"{ms:.0f}", *cells])
    return table(["painted by", "file", "ms a picture", "KID-Lite0 × 1000", "precision", "recall"], rows)


def comparisons(found):
    """The table of pairs of ways that painted the same seeds."""
    ways, rows = {way["name"]: way for way in found["ways"]}, []
    for pair in found["pairs"]:
        way, other = ways[pair["way"]], ways[pair["other"]]
        same_walk = walk(way) == walk(other)
        left, right = (painter(one) if same_walk else walk(one) for one in (way, other))
        differences = [with_error(pair[name], *how, sign="+") for name, how in SHOWN.items()]
        psnr = f"{with_error(pair['psnr-db'], 1)} ({pair['psnr-db-least']:.1f})" if "psnr-db" in pair else ""
        rows.append([f"{left} − {right}", walk(way) if same_walk else painter(way), *differences, psnr])
    return table(["difference", "of", "KID-Lite0 × 1000", "precision", "recall", "PSNR, mean (least), dB"], rows)


def against_teacher(found, teacher):
    """Rows of `bars`: what a distilled model lost to the best that its teacher paints in 50 steps."""
    best = min((way for way in teacher["ways"] if way["steps"] == 50), key=lambda way: way["kid"][0])
    rows = []
    for way in found["ways"]:
        share = way["kid"][0] / best["kid"][0] - 1
        error = (1 + share) * math.hypot(*(one["kid"][1] / one["kid"][0] for one in (way, best)))
        bar = f"{way['file']}, {walk(way)}: KID at most {DISTILLED_MOST:.0%} above {teacher['model']}'s best in 50 steps, {walk(best)}"
        rows.append([bar, f"{100 * share:+.0f} ± {100 * error:.0f} %", share <= DISTILLED_MOST])
    return rows


def bars(found, teacher=None):
    """What was asked of the program, and whether it holds: a table of the pairs that a bar is set for.

    `teacher` is the quality.json of the model that this one was distilled from.
    """
    ways, rows = {way["name"]: way for way in found["ways"]}, against_teacher(found, teacher) if teacher else []
    for pair in found["pairs"]:
        way, other = ways[pair["way"]], ways[pair["other"]]
        off, kid = 1000 * pair["kid"][0], with_error(pair["kid"], *SHOWN["kid"], sign="+")
        if other["engine"] == "pytorch":
            most = 2000 * other["kid"][1]
            rows.append([f"PyTorch's pictures, {walk(way)}: KID within two standard errors, {most:.2f}", kid, abs(off) <= most])
        elif way["file"] != other["file"] and way["steps"] in INT8_MOST:
            most = INT8_MOST[way["steps"]]
            rows.append([f"{way['file']} − {other['file']}, {walk(way)}: KID × 1000 at most {most} more", kid, off <= most])
            if way["steps"] == 50:
                psnr = with_error(pair["psnr-db"], 1)
                rows.append([f"{way['file']} − {other['file']}, {walk(way)}: PSNR at least 30 dB", psnr, pair["psnr-db"][0] >= 30])
        elif halved(way, other):
            rows.append([f"{walk(way)}: lower KID than {walk(other)}", kid, off < 0])
    return table(["bar", "measured", "holds"], [[*cells, "yes" if holds else "no"] for *cells, holds in rows]) if rows else []


def colours(found):
    """The table of means and deviations of the channels."""
    rows = [["real pictures", "", *channels(found["real"])]]
    for way in by_walk(found["ways"]):
        rows.append([walk(way), painter(way), *channels(way)])
    names = ["red", "green", "blue"] if len(found["real"]["mean"]) == 3 else ["grey"]
    return table(["painted by", "file", *(f"{name}: mean" for name in names), *(f"{name}: deviation" for name in names)], rows)


def channels(entry):
    return [with_error(figure, 1) for figure in [*entry["mean"], *entry["deviation"]]]


def section(found, teacher=None):
    """All tables of one model, as lines."""
    shas = ", ".join(f"{name} `{sha[:12]}`" for name, sha in found["sha256"].items())
    return [
        f"{counted(found, 'pictures of each way to paint', 'real ones')}, {found['date']}; files {shas}.",
        f"Milliseconds: steps times the median step of `driftglass bench --threads 1`, {found['processor']}.",
        "",
        *figures(found),
        *comparisons(found),
        *bars(found, teacher),
        *colours(found),
    ]


def replaced(text, name, lines):
    """`text` with what stands between the markers of the model `name` replaced."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    if begin not in text or end not in text:
        raise SystemExit(f"{PAGE}: expected {begin} and {end}")
    before, after = text.split(begin, 1)[0], text.split(end, 1)[1]
    return before + begin + "\n" + "\n".join(lines).rstrip("\n") + "\n" + end + after


# ---- plots ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def drawing(path, columns, size):
    """(figure, axes) to draw on, which are at `path` afterwards, the same bytes for the same drawing."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, columns, figsize=size)
    yield figure, axes
    figure.tight_layout()
    figure.savefig(path, dpi=100, metadata={"Software": None})
    pyplot.close(figure)


def plot(found, axes, label, position):
    """KID-Lite0 over `position(way)`, one line per file and sampler, between real pictures and roughened ones."""
    from matplotlib import ticker

    lines = {}
    for way in by_walk(found["ways"]):
        if way["engine"] != "pytorch" and way["guidance"] == 1 and "no-prior" not in way:
            lines.setdefault((way["file"], way["sampler"], way["variance"], way["spacing"]), []).append(way)
    for marker, ((file, sampler, variance, spacing), ways) in zip("osD^vP*X", lines.items()):
        x, y = [position(way) for way in ways], [1000 * way["kid"][0] for way in ways]
        errors, style = [1000 * way["kid"][1] for way in ways], "--" if file == "int8" else "-"
        name = " ".join(filter(None, [sampler, variance, spacing, file]))
        axes.errorbar(x, y, errors, marker=marker, linestyle=style, capsize=3, label=name)
    for levels, one in [(0, found["floor"]), *((one["levels"], one) for one in found["noise"])]:
        name = f"real pictures, noise of {levels}" if levels else "real pictures"
        axes.axhline(1000 * one["kid"][0], color="0.6", linestyle=":", zorder=0)
        axes.annotate(name, (1, 1000 * one["kid"][0]), xycoords=("axes fraction", "data"), ha="right", va="bottom", color="0.4")
    axes.set(xscale="log", xlabel=label, ylabel="KID-Lite0 × 1000", title=found["model"])
    axes.set_ylim(bottom=min(0, *axes.get_ylim()))
    axes.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    ticks = sorted({float(f"{position(way):.2g}") for ways in lines.values() for way in ways})
    axes.set_xticks([tick for index, tick in enumerate(ticks) if index == 0 or tick / ticks[index - 1] > 1.15])
    axes.grid(True, which="both", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the axes, since points lie anywhere in them


def plot_guidance(found, axes, guided):
    """KID-Lite0 on one of two axes, precision and recall on the other, over the weight of guidance of the walk `guided`."""

    def unguided(way):
        return walk(way | {"guidance": 1}), way["engine"], way["file"]

    ways = [way for way in by_walk(found["ways"]) if unguided(way) == unguided(guided)]
    for axis, names in zip(axes, [["kid"], ["precision", "recall"]]):
        for name, marker in zip(names, "os"):
            factor = SHOWN[name][1]
            values, errors = ([factor * way[name][part] for way in ways] for part in (0, 1))
            axis.errorbar([way["guidance"] for way in ways], values, errors, marker=marker, capsize=3, label=name)
        axis.set_xlabel(f"weight of guidance; {unguided(guided)[0]}")
        axis.grid(True, alpha=0.3)
    axes[0].set_ylabel("KID-Lite0 × 1000")
    axes[1].legend()


def plots(found):
    """All plots of one model that have something to show, beside the page."""
    timed = f"ms per picture on one core: {found['processor']}"
    over = [("steps", "kept steps", lambda way: way["steps"]), ("time", timed, lambda way: milliseconds(found, way))]
    if len({way["steps"] for way in found["ways"]}) > 1:
        for name, label, position in over:
            with drawing(PAGE.parent / f"quality-{found['model']}-{name}.png", 1, (8, 5)) as (_, axes):
                plot(found, axes, label, position)
    guided = [way for way in found["ways"] if way["guidance"] != 1]
    if guided:
        with drawing(PAGE.parent / f"quality-{found['model']}-guidance.png", 2, (8, 4)) as (figure, axes):
            plot_guidance(found, axes, guided[0])
            figure.suptitle(found["model"])


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument("packages", type=Path, nargs="+", help="folders with a quality.json")
    args = p.parse_args(arguments)
    for folder in args.packages:
        folder = folder.resolve()
        found, manifest = read(folder), package.read_manifest(folder)
        teacher = folder.parent / manifest.get("training", {}).get("teacher", "none")
        teacher = read(teacher) if (teacher / "quality.json").exists() else None
        PAGE.write_text(replaced(PAGE.read_text(), folder.name, section(found, teacher)))
        plots(found)
        model_card.write(folder, manifest)


if __name__ == "__main__":
    main()
