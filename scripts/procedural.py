"""Procedural pictures: eight labelled styles, drawn from numbers alone. Licence of the pictures: CC0.

A picture is a function of (style, index): `picture("aurora", 7, 32)` is the same bytes on every machine with the
same numpy. Each is rendered at four times the size asked for, in a unit square with y pointing down, and averaged
down, so edges are smooth and shapes stay bold enough to be recognised at 32x32.

    python scripts/procedural.py sheet.png --size 32       # a contact sheet, one row per style

Inside this file a canvas is float32 `[n, n, 3]` in 0..1 (sRGB), a field is float32 `[n, n]`.
"""

import command_line
import numpy as np
from PIL import Image

SUPERSAMPLING = 4
LICENCE = "CC0-1.0"


# ---- pieces every style uses ----------------------------------------------------------------------------------------


def hex_colors(text):
    """`"1b2a49 f2c14e"` -> float32 `[k, 3]` in 0..1."""
    return np.array([[int(word[i : i + 2], 16) / 255 for i in (0, 2, 4)] for word in text.split()], np.float32)


def grid(n):
    """Pixel centres of the unit square: fields x (to the right) and y (down), each `[n, n]`."""
    centres = (np.arange(n, dtype=np.float32) + 0.5) / n
    return np.meshgrid(centres, centres)


def smoothstep(low, high, value):
    """0 below `low`, 1 above `high`, a smooth ramp between."""
    u = np.clip((value - low) / (high - low), 0, 1)
    return u * u * (3 - 2 * u)


def mix(a, b, weight):
    """`a` where weight is 0, `b` where it is 1; weight is a field, a and b are colours or canvases."""
    return a + (b - a) * np.asarray(weight, np.float32)[..., None]


def gradient(colors, u):
    """Colours `[k, 3]` spread evenly over u = 0..1, interpolated; u is a field, clipped."""
    position = np.clip(u, 0, 1) * (len(colors) - 1)
    left = np.minimum(position.astype(np.int32), len(colors) - 2)
    return mix(colors[left], colors[left + 1], smoothstep(0, 1, position - left))


def value_noise(rng, x, y, cells):
    """Smooth noise in -1..1 with about `cells` bumps per unit; x and y in -1..2."""
    lattice = rng.uniform(-1, 1, (3 * cells + 2, 3 * cells + 2)).astype(np.float32)
    u, v = np.clip((x + 1) * cells, 0, 3 * cells), np.clip((y + 1) * cells, 0, 3 * cells)
    i, j = u.astype(np.int32), v.astype(np.int32)
    a, b = smoothstep(0, 1, u - i), smoothstep(0, 1, v - j)
    top = lattice[j, i] * (1 - a) + lattice[j, i + 1] * a
    bottom = lattice[j + 1, i] * (1 - a) + lattice[j + 1, i + 1] * a
    return top * (1 - b) + bottom * b


def fractal_noise(rng, x, y, cells, octaves=3):
    """A sum of `octaves` noises, each twice as fine and half as strong; in about -1..1."""
    return sum(value_noise(rng, x, y, cells << k) / 2**k for k in range(octaves)) / 1.5


def ridge_line(rng, x, roughness):
    """The height of a mountain crest along x, in about -1..1: a few peaks and their shoulders."""
    height = np.zeros_like(x)
    for octave, cells in enumerate((2, 4, 8, 16)):
        heights = rng.uniform(-1, 1, cells + 2).astype(np.float32)
        u = x * cells + rng.uniform()
        i = u.astype(np.int32)
        height += (heights[i] + (heights[i + 1] - heights[i]) * (u - i)) * roughness**octave
    return height


def stars(rng, canvas, count, below=1.0):
    """Adds `count` round stars above the height `below`."""
    x, y = grid(len(canvas))
    for _ in range(count):
        cx, cy = rng.uniform(0, 1), rng.uniform(0, below)
        glow = np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / rng.uniform(0.008, 0.014) ** 2)
        canvas = mix(canvas, np.float32([1, 0.97, 0.9]), glow * rng.uniform(0.4, 0.95))
    return canvas


def choose(rng, palettes):
    """One palette of a list of hex strings."""
    return hex_colors(palettes[rng.integers(len(palettes))])


# ---- the styles -----------------------------------------------------------------------------------------------------

# zenith, middle, horizon, disc, nearest ridge
MOUNTAIN_PALETTES = [
    "2b3a67 b56576 ffcb9a fff1d0 1d1e33",
    "1f2f54 5c6b9c e8b4a0 fff4e0 141a2e",
    "4f7cac 9fc5d8 f3ead7 fffdf2 22384f",
    "5b2a4e d1495b f6ae5d fff0c2 2a1226",
    "0b1330 24345f 5f7ea6 f4f1de 060a18",
    "d9c5a0 ead9b9 f6ecd4 c8553d 3a2e2a",
    "17434f 4f8f8b e9d8a6 fff3d6 0c2530",
    "6d597a e56b6f eaac8b fff0dd 2c2138",
]


def mountains(rng, n):
    """Ridges in mist under a sun or a moon; farther ridges take the colour of the air."""
    x, y = grid(n)
    zenith, middle, horizon, disc, near = choose(rng, MOUNTAIN_PALETTES)
    canvas = gradient(np.stack([zenith, middle, horizon]), y / 0.72)
    cx, cy, radius = rng.uniform(0.2, 0.8), rng.uniform(0.16, 0.42), rng.uniform(0.07, 0.14)
    distance = np.hypot(x - cx, y - cy)
    canvas = mix(canvas, disc, 0.55 * np.exp(-((distance / (2.2 * radius)) ** 2)))
    canvas = mix(canvas, disc, smoothstep(radius + 0.008, radius - 0.008, distance))
    ridges = rng.integers(3, 5)
    for k in range(ridges):
        depth = (k + 1) / ridges
        crest = 0.42 + 0.42 * depth - 0.1 - (0.15 - 0.05 * depth) * ridge_line(rng, x, 0.5)
        ridge = mix(horizon * 0.75 + middle * 0.25, near, np.full_like(x, 0.15 + 0.85 * depth**1.3))
        ridge = mix(ridge, horizon, 0.6 * (1 - depth * 0.8) * smoothstep(0.0, 0.3, y - crest))
        canvas = mix(canvas, ridge, smoothstep(-0.006, 0.006, y - crest))
    return canvas


# space, glow, then the surface from dark to light
PLANET_PALETTES = [
    "070a1a 1b2350 7a3b2e c46a3f e9b872 f7e3b5",
    "05080f 12304a 1f4e79 2f86a6 8ec9c9 f1f3e4",
    "0a0612 35184f 4a2a6a 8a4f9e d08fb5 f7d9dc",
    "090909 3b2417 5b4636 a3815b d9bd8b f5ead0",
    "04101a 0f3a44 1c5560 4f9a94 b7d3b0 f4efcf",
    "0b0a18 3c1530 7d1f3a c43e4a ef8a62 fbd9a5",
    "060914 22304f 46577a 8492ad c2c9d6 f6f4ee",
]


def planet(rng, n):
    """A large banded or mottled planet lit from one side, sometimes ringed, before few stars."""
    x, y = grid(n)
    palette = choose(rng, PLANET_PALETTES)
    space, glow, surface = palette[0], palette[1], palette[2:]
    cx, cy, radius = rng.uniform(0.44, 0.56), rng.uniform(0.44, 0.56), rng.uniform(0.25, 0.34)
    towards = rng.uniform(0, 2 * np.pi)
    u, v = (x - cx) / radius, (y - cy) / radius
    distance = np.hypot(u, v)
    lit = u * np.cos(towards) + v * np.sin(towards)
    canvas = mix(np.broadcast_to(space, (n, n, 3)), glow, 0.75 * np.exp(-np.hypot(u - np.cos(towards), v - np.sin(towards))))
    canvas = stars(rng, canvas, rng.integers(5, 10))
    tilt = rng.uniform(-0.6, 0.6)
    along, across = u * np.cos(tilt) + v * np.sin(tilt), v * np.cos(tilt) - u * np.sin(tilt)
    z = np.sqrt(np.clip(1 - distance**2, 0, 1))
    if rng.uniform() < 0.6:
        wobble = value_noise(rng, along / 3 + 0.5, across / 3 + 0.5, 4) * 0.12
        tone = 0.5 + 0.35 * np.sin((across + wobble) * rng.uniform(5, 9) + rng.uniform(0, 6)) + 0.15 * np.sin(across * 13)
    else:
        tone = 0.5 + 0.9 * fractal_noise(rng, along / (2.4 + z) + 0.5, across / (2.4 + z) + 0.5, 4)
    ball = gradient(surface, tone) * (0.08 + 0.95 * smoothstep(-0.85, 0.6, lit + 0.45 * z))[..., None]
    body = smoothstep(1.02, 0.98, distance)
    if rng.uniform() < 0.5:
        flatness = rng.uniform(0.22, 0.4)
        orbit = np.hypot(along, across / flatness)
        ring = smoothstep(1.25, 1.32, orbit) * smoothstep(1.85, 1.75, orbit) * (0.8 - 0.5 * smoothstep(0.05, 0.0, abs(orbit - 1.55)))
        canvas = mix(canvas, surface[2], ring * (across < 0))
        canvas = mix(canvas, ball, body)
        return mix(canvas, surface[3], ring * (across >= 0))
    return mix(canvas, ball, body)


# far from the set ... near it, then the inside
FRACTAL_PALETTES = [
    "0b132b 1c2541 3a506b 5bc0be f4f1de f2a65a",
    "1a1423 3d314a 684756 b8756a f3d9b1 fff7e6",
    "f7f0e3 ecd9b6 d9985f b0413e 5a1f33 1f1020",
    "03071e 370617 9d0208 dc6f2e ffba49 fff3c4",
    "0d1b2a 22577a 38a3a5 bfd8bd fdf0d5 c1666b",
    "f4f1ea cfd8dc 7ba3b8 2f6690 16425b 0b1d2b",
    "10002b 3c096c 7b2cbf c77dff f7d6e0 fff8f0",
]
JULIA_CONSTANTS = [-0.8 + 0.156j, -0.4 + 0.6j, 0.285 + 0.01j, -0.7269 + 0.1889j, -0.123 + 0.745j, -0.75 + 0.05j, 0.3 + 0.5j, -1.0 + 0.22j]


def fractal(rng, n):
    """A Julia set z -> z^2 + c: escape count outside, nearest pass to the origin inside; few iterations keep it bold."""
    x, y = grid(n)
    palette = choose(rng, FRACTAL_PALETTES)
    c = JULIA_CONSTANTS[rng.integers(len(JULIA_CONSTANTS))] + complex(*rng.uniform(-0.02, 0.02, 2))
    turn = np.exp(1j * rng.uniform(0, np.pi))
    z = ((x - 0.5) + 1j * (y - 0.5)) * turn * rng.uniform(2.3, 2.8)
    limit = 20
    count, escaped, nearest = np.full((n, n), limit, np.float32), np.zeros((n, n), bool), abs(z)
    for k in range(limit):
        z = np.where(escaped, z, z * z + c)
        nearest = np.minimum(nearest, abs(z))
        now = ~escaped & (abs(z) > 8)
        count[now] = k + 1 - np.log2(np.log(abs(z[now])) / np.log(8))
        escaped |= now
    outside = gradient(palette[:5], smoothstep(0, 1, (np.clip(count, 1, limit) - 1) / (limit - 1)) ** 0.55)
    inside = gradient(palette[[5, 4, 2]], nearest * 1.9)
    return mix(inside, outside, escaped)


# ground to vein
MARBLE_PALETTES = [
    "f6f2ea e6dfd3 b9b2a8 5f5b58",
    "14213d 1f3a5f 4f6d8f e9d8a6",
    "1a1a1a 2f2d2c 5a4632 d9b36c",
    "0f3d3e 1f5f5b 5c9a8b f1e3c6",
    "f3e1d7 e3b9a6 b5707a 5a2a41",
    "2a1a2e 5b2a50 a8577e f2cfc4",
    "ece6d8 c9d3d0 7fa0a3 2e4a52",
    "3b1f1b 7a3323 c0693a f4d9a8",
]


def marble(rng, n):
    """Polished stone: noise bent by noise, with veins where it crosses zero."""
    x, y = grid(n)
    palette = choose(rng, MARBLE_PALETTES)
    turn = rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    bend = fractal_noise(rng, x, y, 2, 3)
    cloud = fractal_noise(rng, x + 0.2 * bend, y, 2, 2)
    ground = gradient(palette[:3], 0.5 + 0.6 * cloud)
    wave = np.sin(np.pi * (u * rng.uniform(2.0, 3.2) + 1.4 * bend + rng.uniform(0, 2)))
    vein = np.exp(-((wave / 0.22) ** 2)) * smoothstep(-0.7, 0.5, value_noise(rng, v, u, 3))
    shimmer = np.exp(-((wave / 0.6) ** 2)) * 0.35
    return mix(mix(ground, palette[2], shimmer), palette[3], vein)


# lead, then the glass from the rim to the light
GLASS_PALETTES = [
    "12100e 1d3557 457b9d a8c5da f1e3b8 e9a23b",
    "140f10 5a1a2b a4303f e07a5f f2cc8f fff1d6",
    "0e1116 2a2d5b 5e548e 9f86c0 e0b1cb fbe4e0",
    "0d1414 12494f 2a7f7b 7fb8a4 e9d8a6 ee9b3a",
    "15120c 6b2d1a b5542a e09f3e f3d98b fff6d8",
    "0f0f18 273469 3e6fa3 e4b363 d1495b f6e7cb",
]


def glass(rng, n):
    """Stained glass: few large panes between dark leads, brightening towards one light."""
    x, y = grid(n)
    palette = choose(rng, GLASS_PALETTES)
    lead, colors = palette[0], palette[1:]
    side = rng.integers(3, 5)
    corner = np.stack(np.meshgrid(np.arange(-1, side + 1), np.arange(-1, side + 1)), -1).reshape(-1, 2)
    sites = (corner + rng.uniform(0.12, 0.88, corner.shape)) / side
    light = rng.uniform(0.25, 0.75, 2)
    tone = 1.05 - np.hypot(*(sites - light).T) / 0.75 + rng.uniform(-0.22, 0.22, len(sites))
    distance = np.hypot(x[..., None] - sites[:, 0], y[..., None] - sites[:, 1])
    order = np.argpartition(distance, 1, axis=-1)
    nearest, second = order[..., 0], order[..., 1]
    pick = np.take_along_axis(distance, order[..., :2], -1)
    apart = np.hypot(*(sites[nearest] - sites[second]).transpose(2, 0, 1))
    to_lead = (pick[..., 1] ** 2 - pick[..., 0] ** 2) / (2 * apart)
    pane = gradient(colors, tone.astype(np.float32))[nearest]
    pane = pane * (0.82 + 0.18 * smoothstep(0.0, 0.12, to_lead))[..., None]
    return mix(lead, pane, smoothstep(0.012, 0.024, to_lead))


# ground, then rings of petals outwards
MANDALA_PALETTES = [
    "14213d fca311 f7ede2 d1495b 2a6f97",
    "f6efe0 9b2226 e9a23b 0f4c5c c8553d",
    "1b1b2f e4c590 a64253 f3ead3 3f5e8c",
    "0b2b33 f2d5a3 d9734e f7f0e0 2f8f83",
    "f3ece2 3d405b e07a5f 81a5a0 f2c078",
    "2b0f2e f2b5a7 c1447e fbe8d3 6d4c8d",
    "efe6d8 1f3a5f bf8b3e 7d2e3d 5f8a8b",
]


def mandala(rng, n):
    """Rings of petals with one rotational symmetry, flat colours, a round centre."""
    x, y = grid(n)
    palette = choose(rng, MANDALA_PALETTES)
    ground, colors = palette[0], palette[1:]
    u, v = x - 0.5, y - 0.5
    radius, angle = np.hypot(u, v), np.arctan2(v, u) + rng.uniform(0, 2 * np.pi)
    fold = (6, 8, 8, 10, 12)[rng.integers(5)]
    canvas = np.broadcast_to(ground, (n, n, 3)).astype(np.float32)
    start = rng.integers(len(colors))
    reaches = np.array([0.47, 0.37, 0.27, 0.17]) + rng.uniform(-0.02, 0.02, 4)
    for k, reach in enumerate(reaches):
        petal = abs(np.cos(fold / 2 * angle + (k % 2) * np.pi / 2))
        depth, sharp = rng.uniform(0.2, 0.42), rng.uniform(0.6, 1.6)
        edge = reach * (1 - depth + depth * petal**sharp)
        color = colors[(start + k) % len(colors)]
        canvas = mix(canvas, color, smoothstep(edge + 0.006, edge - 0.006, radius))
        inner = edge - 0.045
        canvas = mix(canvas, color * 0.72 + ground * 0.28, smoothstep(inner + 0.006, inner - 0.006, radius))
    canvas = mix(canvas, colors[(start + 2) % len(colors)], smoothstep(0.086, 0.074, radius))
    return mix(canvas, ground, smoothstep(0.046, 0.034, radius))


# shadow to sheen
SILK_PALETTES = [
    "1a1033 4a2a6a 9a5b9c e7b7c8 fff2ec",
    "0d1b2a 1f4068 4f86a6 b7d4de fdfaf0",
    "2b0d12 7a1f2b c4473f f0a07c fff0dc",
    "0f2526 1f5654 5b9b8c c6d9b8 fbf6e0",
    "2a1c0c 7a5122 c8963e f0d08a fffaea",
    "1c1c24 454a5c 8a90a3 cdd0d8 fbfaf6",
    "0c1030 2d2f7a 7a5bb0 ec9bb0 ffe6c9",
]


def silk(rng, n):
    """Folded cloth: a slow flow bends parallel folds, and light falls across them."""
    x, y = grid(n)
    palette = choose(rng, SILK_PALETTES)
    turn = rng.uniform(0, np.pi)
    u, v = (x - 0.5) * np.cos(turn) + (y - 0.5) * np.sin(turn), (y - 0.5) * np.cos(turn) - (x - 0.5) * np.sin(turn)
    flow = value_noise(rng, x, y, 2) * 0.28 + 0.12 * np.sin(3.5 * v + rng.uniform(0, 6))
    phase = 2 * np.pi * (u + flow) * rng.uniform(1.6, 2.6) + rng.uniform(0, 6)
    fold = 0.5 + 0.5 * np.sin(phase + 0.6 * np.sin(phase))
    tone = 0.08 + 0.62 * fold + 0.3 * smoothstep(0.75, 1.0, fold) * (0.5 + 0.5 * np.sin(4 * v + rng.uniform(0, 6)))
    return gradient(palette, tone + 0.14 * value_noise(rng, x, y, 2))


# zenith, sky behind the ridge, curtain foot, curtain middle, curtain top, ridge
AURORA_PALETTES = [
    "060a1e 12263f d8f3dc 4fb7a3 6a4c93 02040c",
    "050716 14213d cfe8ff 5f8fd0 7a4fa3 02030a",
    "080818 241a3f ffd9c7 d9708f 6a3f94 04030c",
    "041018 0c2b3a e3f7e8 3fae9f 2c5d9b 02060c",
    "070a1e 1a1f4a f6e7ff a06cd5 3f4aa8 03030c",
]


def aurora(rng, n):
    """Curtains of light in the night sky: each has a bright wavering foot and fades upwards in rays, over a black ridge."""
    x, y = grid(n)
    zenith, horizon, foot, middle, top, ridge = choose(rng, AURORA_PALETTES)
    canvas = stars(rng, mix(zenith, horizon, smoothstep(0.2, 0.9, y)), rng.integers(5, 10), below=0.7)
    veil = np.stack([foot, middle, middle * 0.6 + top * 0.4, top])
    slope, sway, turns, shift = rng.uniform(-0.45, 0.45), rng.uniform(0.06, 0.13), rng.uniform(0.7, 1.3), rng.uniform()
    for strength, lift in ((0.6, 0.2), (1.0, 0.0))[-rng.integers(1, 3) :]:
        base = 0.6 - lift + slope * (x - 0.5) + sway * np.sin(2 * np.pi * (x * turns + shift + lift))
        rays = 0.5 + 0.5 * abs(value_noise(rng, x + 0.1 * (y - 0.5), np.zeros_like(x), 8))
        above = (base - y) / (0.42 * rays)
        light = smoothstep(-0.42, 0.2, above) * np.exp(-1.1 * np.clip(above, 0, 9) ** 1.2)
        canvas = mix(canvas, gradient(veil, above / 1.5), strength * np.clip(1.1 * light, 0, 1))
    crest = 0.86 - 0.09 * ridge_line(rng, x, 0.5)
    return mix(canvas, ridge, smoothstep(-0.006, 0.006, y - crest))


STYLES = {
    "mountains": mountains,
    "planet": planet,
    "fractal": fractal,
    "marble": marble,
    "glass": glass,
    "mandala": mandala,
    "silk": silk,
    "aurora": aurora,
}


def picture(style, index, size):
    """The picture `index` of `style`: uint8 `[size, size, 3]`."""
    rng = np.random.default_rng([list(STYLES).index(style), index])
    canvas = STYLES[style](rng, size * SUPERSAMPLING)
    boxes = canvas.reshape(size, SUPERSAMPLING, size, SUPERSAMPLING, 3).mean((1, 3))
    return np.round(np.clip(boxes, 0, 1) * 255).astype(np.uint8)


def enlargement(size, side=128, most=3):
    """How many times a sheet enlarges pictures of `size` px: `most`, but to no more than `side` px, and at least once."""
    return max(1, min(most, side // size))


def contact_sheet(pictures, columns, scale=1, gap=2):
    """uint8 `[n, h, w, c]` (c = 1 or 3) -> one PIL image, row by row on grey, each pixel `scale` times enlarged."""
    n, h, w, c = pictures.shape
    pictures = np.broadcast_to(pictures, (n, h, w, 3)).repeat(scale, 1).repeat(scale, 2)
    rows = -(-n // columns)
    sheet = np.full((rows * (h * scale + gap) + gap, columns * (w * scale + gap) + gap, 3), 40, np.uint8)
    for k, one in enumerate(pictures):
        top, left = gap + k // columns * (h * scale + gap), gap + k % columns * (w * scale + gap)
        sheet[top : top + h * scale, left : left + w * scale] = one
    return Image.fromarray(sheet)


def main(arguments=None):
    parser = command_line.parser(__doc__)
    parser.add_argument("out", help="the PNG to write")
    parser.add_argument("--size", type=command_line.count, default=32, help="pixels per side of each picture (default 32)")
    parser.add_argument("--columns", type=command_line.count, default=12, help="pictures per style (default 12)")
    parser.add_argument("--first", type=command_line.whole(0), default=0, help="index of the first picture (default 0)")
    parser.add_argument("--scale", type=command_line.count, default=2, help="enlargement in the sheet (default 2)")
    args = parser.parse_args(arguments)
    indices = range(args.first, args.first + args.columns)
    pictures = np.stack([picture(style, index, args.size) for style in STYLES for index in indices])
    contact_sheet(pictures, args.columns, args.scale).save(args.out)


if __name__ == "__main__":
    main()
