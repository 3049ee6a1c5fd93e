"""The quality figures: against their definitions, on sets whose answer is known, and their errors against the true spread."""

import unittest

from needs import demand

demand(("numpy",))

import numpy as np

import kid


def normal(seed, count, shift=0.0):
    return np.random.default_rng(seed).normal(shift, 1, (count, 12)).astype(np.float32)


def kid_by_definition(x, y):
    """Bińkowski et al. 2018, equation 4, pair by pair."""
    x, y = x.astype(np.float64), y.astype(np.float64)
    n, m = len(x), len(y)
    own = [(kid.kernel(one, one).sum() - kid.kernel(one, one).trace()) / (len(one) * (len(one) - 1)) for one in (x, y)]
    return sum(own) - 2 * kid.kernel(x, y).sum() / (n * m)


def covered_by_definition(x, y):
    """Kynkäänniemi et al. 2019, equation 1."""
    distances = np.sqrt(np.square(y[:, None].astype(np.float64) - y).sum(2))
    radii = np.sort(distances, 1)[:, kid.NEIGHBOURS]  # the first is the point itself
    return (np.sqrt(np.square(x[:, None].astype(np.float64) - y).sum(2)) <= radii).any(1).mean()


class Kid(unittest.TestCase):
    def test_value_and_the_value_without_a_group_are_the_definition(self):
        x, y = normal(0, 220), normal(1, 210, shift=0.2)
        figure = kid.Kid(y).of(x)
        self.assertAlmostEqual(figure.value, kid_by_definition(x, y), places=6)
        stays = kid.groups(220) != 7, kid.groups(210) != 7
        self.assertAlmostEqual(figure.without[7], kid_by_definition(x[stays[0]], y[stays[1]]), places=6)

    def test_two_draws_of_one_source_are_at_no_distance_and_the_error_is_the_spread(self):
        # Of tiles 97 are held back, against which many more are painted.
        for shift, least, most, real, painted in [(0.0, -0.01, 0.01, 300, 300), (0.3, 0.25, 0.4, 300, 300), (0.3, 0.25, 0.4, 97, 1000)]:
            figures = [kid.Kid(normal(1000 + seed, real)).of(normal(seed, painted, shift)) for seed in range(60)]
            values, told = [figure.value for figure in figures], np.mean([figure.error() for figure in figures])
            self.assertTrue(least < np.mean(values) < most, np.mean(values))
            self.assertTrue(0.75 < told / np.std(values, ddof=1) < 1.35, told / np.std(values, ddof=1))

    def test_the_error_of_a_difference_leaves_out_what_both_share(self):
        real, painted = kid.Kid(normal(0, 400)), normal(1, 400, shift=0.3)
        one, other = real.of(painted), real.of(painted + np.float32(1e-3))
        self.assertLess((one - other).error(), 0.1 * one.error())
        self.assertEqual((one - one).value, 0)
        self.assertEqual((one - one).error(), 0)

    def test_too_few_pictures_are_refused(self):
        with self.assertRaisesRegex(SystemExit, "expected at least 50 pictures, found 49"):
            kid.Kid(normal(0, 49))


class PrecisionAndRecall(unittest.TestCase):
    def test_both_are_the_definition_with_and_without_a_group(self):
        x, y = normal(0, 210, shift=0.3), normal(1, 200)
        precision, recall = kid.Manifold(y).of(x)
        self.assertAlmostEqual(precision.value, covered_by_definition(x, y))
        self.assertAlmostEqual(recall.value, covered_by_definition(y, x))
        stays = kid.groups(210) != 3, kid.groups(200) != 3
        self.assertAlmostEqual(precision.without[3], covered_by_definition(x[stays[0]], y[stays[1]]))
        self.assertAlmostEqual(recall.without[3], covered_by_definition(y[stays[1]], x[stays[0]]))

    def test_a_painter_of_one_half_is_precise_and_forgets_the_other(self):
        halves = np.concatenate([normal(0, 200, shift=-9), normal(1, 200, shift=9)])
        precision, recall = kid.Manifold(halves).of(normal(2, 400, shift=9))
        self.assertGreater(precision.value, 0.6)
        self.assertTrue(0.3 < recall.value <= 0.5, recall.value)

    def test_the_error_is_not_smaller_than_the_spread(self):
        figures = [kid.Manifold(normal(1000 + seed, 200)).of(normal(seed, 200, shift=0.3))[0] for seed in range(40)]
        spread = np.std([figure.value for figure in figures], ddof=1)
        self.assertTrue(0.9 < np.mean([figure.error() for figure in figures]) / spread < 2.5)


class Pictures(unittest.TestCase):
    def test_colours_are_mean_and_deviation_over_all_pixels(self):
        pictures = np.random.default_rng(0).integers(0, 256, (130, 4, 6, 3), np.uint8)
        mean, deviation = kid.colours(pictures)
        np.testing.assert_allclose([figure.value for figure in mean], pictures.mean((0, 1, 2)))
        np.testing.assert_allclose([figure.value for figure in deviation], pictures.std((0, 1, 2)))
        stays = kid.groups(130) != 5
        np.testing.assert_allclose([figure.without[5] for figure in deviation], pictures[stays].std((0, 1, 2)))

    def test_psnr_of_a_known_difference_and_of_none(self):
        black = np.zeros((2, 4, 4, 3), np.uint8)
        other = black.copy()
        other[0] = 255
        np.testing.assert_allclose(kid.psnrs_db(black, other), [0, 10 * np.log10(255**2 * 48)])


if __name__ == "__main__":
    unittest.main()
