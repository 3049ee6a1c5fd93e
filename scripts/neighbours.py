"""Looks for painted pictures in the training set: whether a model invents, or recites what it was shown.

    python scripts/neighbours.py --package models/scenes-32 --program target/release/driftglass \\
        --data ../runs/scenes-32.npz --real ../runs/scenes-32-fresh.npz --work ../runs/quality

Writes neighbours.png, the first painted pictures of each class above their nearest training pictures, in pixels and in
features; and neighbours.json, how far off the nearest training picture is from pictures that were painted and from
real ones that training has not seen. A model that recites is nearer than those.
"""

import json

import command_line
import numpy as np

import data
import features
import kid
import model_card
import painting
import quality
from procedural import contact_sheet, enlargement

SHOWN = 16
LOOKED_AT = 100  # of the nearest in pixels, in which the nearest in features is looked for
CHUNK = 4000  # training pictures held as numbers at a time


def to_rows(pictures):
    """uint8 `[n, h, w, c]` -> float32 `[n, h w c]` in 0..1."""
    return pictures.reshape(len(pictures), -1).astype(np.float32) / 255


def nearest(pictures, training, count):
    """The `count` nearest training pictures of each, nearest first: indices and root mean square differences, levels."""
    rows = to_rows(pictures)
    indices, squares = np.empty((len(rows), 0), int), np.empty((len(rows), 0), np.float32)
    for first in range(0, len(training), CHUNK):
        found = kid.square_distances(rows, to_rows(training[first : first + CHUNK]))
        indices = np.concatenate([indices, np.broadcast_to(np.arange(found.shape[1]) + first, found.shape)], 1)
        squares = np.concatenate([squares, found], 1)
        order = squares.argsort(1, kind="stable")[:, :count]
        indices, squares = (np.take_along_axis(values, order, 1) for values in (indices, squares))
    # Exactly: sums of squares and products are a rounding apart where two pictures are the same.
    differences = [np.square(picture - training[own].astype(np.float64)).mean((1, 2, 3)) for picture, own in zip(pictures, indices)]
    return indices, np.sqrt(differences)


def nearest_in_features(pictures, training, candidates):
    """The index of the nearest training picture in features of each, among its own `candidates` `[n, k]`."""
    extractor, found = features.Extractor(), []
    for own, indices in zip(extractor.of(pictures), candidates):
        found.append(indices[np.square(extractor.of(training[indices]) - own).sum(1).argmin()])
    return np.array(found)


def two_of_each(labels):
    """Indices of SHOWN pictures, as many of each class as there is room for, the first ones."""
    classes = np.unique(labels)
    each = max(1, SHOWN // len(classes))
    return np.concatenate([np.flatnonzero(labels == label)[:each] for label in classes])[:SHOWN]


def main(arguments=None):
    p = command_line.parser(__doc__)
    quality.add_arguments(p)
    p.add_argument("--data", required=True, help="the .npz that the model was trained on")
    p.add_argument("--trained", type=command_line.count, help="of --data only so many at its beginning (default: all that it does not hold out)")
    args = p.parse_args(arguments)
    folder, manifest, real, keep = quality.opened(args)
    way = quality.own_way(manifest)
    painted = painting.paint(folder, manifest, way, real.order(), keep, args.program, args.processes)
    pictures = data.load(args.data)[0]
    training = pictures[: args.trained or len(pictures) - data.held_out(args.data)]
    told = {"training": len(training), "way": way.name}
    for name, pictures in [("painted", painted), ("real", real.against[0])]:
        distances = nearest(pictures, training, 1)[1][:, 0]
        mean, error = distances.mean(), distances.std(ddof=1) / np.sqrt(len(distances))
        told[name] = {"pictures": len(pictures), "levels": [quality.rounded(mean), quality.rounded(error)]}
    shown = two_of_each(real.against[1])
    by_pixels, _ = nearest(painted[shown], training, LOOKED_AT)
    by_features = nearest_in_features(painted[shown], training, by_pixels)
    rows = [painted[shown], training[by_pixels[:, 0]], training[by_features]]
    scale = enlargement(training.shape[1], 64, 2)
    contact_sheet(np.concatenate(rows), columns=len(shown), scale=scale).save(folder / "neighbours.png", optimize=True)
    (folder / "neighbours.json").write_text(json.dumps(told, indent=1) + "\n")
    model_card.write(folder, manifest)
    print(f"nearest of {len(training)} training pictures: {told['painted']['levels'][0]} levels from painted ones,")
    print(f"{told['real']['levels'][0]} from real ones")


if __name__ == "__main__":
    main()
