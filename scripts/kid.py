"""How far painted pictures are from real ones, each figure with its standard error.

KID (Bińkowski et al. 2018, arXiv 1801.01401): the squared maximum mean discrepancy of features under the kernel
(x.y / d + 1)^3, without bias: 0 on average where both are independent draws of one source. Where both have the very
same classes it lies a little below, for a pair of one class is rarer within a set than between two; a floor measured
with the same classes says by how much. Precision and recall (Kynkäänniemi et al.
2019, arXiv 1904.06991): the share of painted pictures that lie among the real ones, and of real among the painted.

Standard errors are a grouped jackknife's (Efron & Stein 1981): both sets are dealt into GROUPS groups, every figure is
computed again without each group in turn, and those values' spread is the error. Two ways to paint that were dealt
alike have a difference whose error comes from the differences, so what both share does not count.
"""

import math
from dataclasses import dataclass

import numpy as np

GROUPS = 50
DEGREE = 3
NEIGHBOURS = 3
CHUNK = 500  # rows of a distance matrix held at a time


@dataclass(frozen=True)
class Figure:
    """A value, and what it is without each group in turn: `[GROUPS]`."""

    value: float
    without: np.ndarray

    def error(self):
        """The standard error."""
        return math.sqrt((GROUPS - 1) / GROUPS * np.square(self.without - self.without.mean()).sum())

    def __sub__(self, other):
        return Figure(self.value - other.value, self.without - other.without)

    def scaled(self, factor):
        return Figure(self.value * factor, self.without * factor)


def groups(count):
    """The group of each of `count` pictures; neighbours in order are in different ones."""
    if count < GROUPS:
        raise SystemExit(f"expected at least {GROUPS} pictures, found {count}")
    return np.arange(count) % GROUPS


def dealt(count):
    """`groups` as a matrix of ones and zeros, float32 `[count, GROUPS]`."""
    return (groups(count)[:, None] == np.arange(GROUPS)).astype(np.float32)


def chunks(x):
    return (slice(first, first + CHUNK) for first in range(0, len(x), CHUNK))


# ---- KID ------------------------------------------------------------------------------------------------------------


def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** DEGREE


def kernel_sums(x, y):
    """Sums of the kernel over each pair of groups, float64 `[GROUPS, GROUPS]`."""
    in_x, in_y = dealt(len(x)), dealt(len(y))
    return sum(in_x[rows].T.astype(np.float64) @ (kernel(x[rows], y) @ in_y) for rows in chunks(x))


def own_sums(x):
    """`kernel_sums` of a set with itself, without the pairs of a picture and itself."""
    return kernel_sums(x, x) - np.diag(((x.astype(np.float64) ** 2).sum(1) / x.shape[1] + 1) ** DEGREE @ dealt(len(x)))


def left(sums):
    """The sum over all pairs, and over those without each group in turn: `[1 + GROUPS]`."""
    return np.concatenate([[sums.sum()], sums.sum() - sums.sum(0) - sums.sum(1) + np.diag(sums)])


def sizes(count):
    """How many pictures there are, and without each group in turn: `[1 + GROUPS]`."""
    return count - np.concatenate([[0], np.bincount(groups(count))])


class Kid:
    """KID against the real features `[n, d]`, whose own part is computed once."""

    def __init__(self, real):
        self.real, n = real, sizes(len(real))
        self.own = left(own_sums(real)) / (n * (n - 1))

    def of(self, painted):
        n, m = sizes(len(painted)), sizes(len(self.real))
        means = left(own_sums(painted)) / (n * (n - 1)) + self.own - 2 * left(kernel_sums(painted, self.real)) / (n * m)
        return Figure(means[0], means[1:])


# ---- precision and recall -------------------------------------------------------------------------------------------


def square_distances(x, y):
    """`[len(x), len(y)]`"""
    return np.maximum(np.square(x).sum(1)[:, None] + np.square(y).sum(1) - 2 * (x @ y.T), 0)


def square_radii(x):
    """The squared distance of each picture to its third nearest neighbour, and to that without each group in turn.

    `[1 + GROUPS, n]`; a picture of the group that is left out has no ball, which is a radius below 0.
    """
    of, within = groups(len(x)), 8 * NEIGHBOURS
    within = min(within, len(x) - 1)
    radii = np.full((1 + GROUPS, len(x)), -1, np.float32)
    for rows in chunks(x):
        squares = square_distances(x[rows], x)
        own = np.arange(len(x))[rows]
        squares[np.arange(len(own)), own] = np.inf
        nearest = np.argpartition(squares, within - 1, 1)[:, :within]
        order = np.take_along_axis(squares, nearest, 1).argsort(1)
        nearest = np.take_along_axis(nearest, order, 1)
        distances = np.take_along_axis(squares, nearest, 1)
        radii[0, rows] = distances[:, NEIGHBOURS - 1]
        for group in range(GROUPS):
            stays = (of[nearest] != group).cumsum(1)
            assert (stays[:, -1] >= NEIGHBOURS).all(), "more near neighbours in one group than were looked at"
            third = (stays >= NEIGHBOURS).argmax(1)
            kept = of[own] != group
            radii[1 + group, own[kept]] = distances[np.arange(len(own)), third][kept]
    return radii


def covered(x, y, radii):
    """The share of `x` that lies in some ball around `y`, with `square_radii` of y."""
    of = groups(len(x))
    inside = np.empty((1 + GROUPS, len(x)), bool)
    for rows in chunks(x):
        squares = square_distances(x[rows], y)
        for index, radius in enumerate(radii):
            inside[index, rows] = (squares <= radius).any(1)
    return Figure(inside[0].mean(), np.array([inside[1 + group, of != group].mean() for group in range(GROUPS)]))


class Manifold:
    """The real features `[n, d]` and their balls: precision and recall against them."""

    def __init__(self, real):
        self.real, self.radii = real, square_radii(real)

    def of(self, painted):
        """(precision, recall) of painted features."""
        return covered(painted, self.real, self.radii), covered(self.real, painted, square_radii(painted))


# ---- colours, and pairs of pictures ---------------------------------------------------------------------------------


def mean_without(values):
    """The mean of one number per picture `[n]`, or of several `[n, k]`, and without each group: `[1 + GROUPS(, k)]`."""
    values = np.asarray(values, np.float64)
    sums = dealt(len(values)).T.astype(np.float64) @ values
    counts = sizes(len(values)).reshape(-1, *[1] * (values.ndim - 1))
    return np.concatenate([values.sum(0)[None], values.sum(0) - sums]) / counts


def mean(values):
    """The mean over pictures of one number each."""
    means = mean_without(values)
    return Figure(means[0], means[1:])


def colours(pictures):
    """(mean, deviation) over all pixels, a list per channel of figures in levels of 0..255."""
    pixels = pictures.astype(np.float64)
    means, squares = mean_without(pixels.mean((1, 2))), mean_without(np.square(pixels).mean((1, 2)))
    deviations = np.sqrt(squares - np.square(means))
    return [[Figure(column[0], column[1:]) for column in columns.T] for columns in (means, deviations)]


def psnrs_db(pictures, others):
    """Peak signal-to-noise ratio of each pair of uint8 pictures; the same picture counts as one that has a single value
    one level off, so that there is a mean."""
    squares = np.square(pictures.astype(np.float64) - others).mean((1, 2, 3))
    return 10 * np.log10(255**2 / np.maximum(squares, 1 / pictures[0].size))
