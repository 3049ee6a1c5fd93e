"""The prior of a walk's first step: against known Gaussians, PyTorch's enlargement, and the reverse step that it stands in."""

import unittest

from needs import TRAINING, demand

demand(TRAINING)

import numpy as np
import torch

import diffusion
import prior
import published


def pictures(count, seed=0):
    """Grey pictures `[n, 8, 8, 1]` of random thumbnails."""
    shades = np.random.default_rng(seed).integers(0, 256, (count, 4, 4, 1), np.uint8)
    return shades.repeat(2, 1).repeat(2, 2)


class Estimate(unittest.TestCase):
    def test_mean_and_covariance_are_those_of_the_thumbnails(self):
        found = prior.thumbnails(pictures(300))
        mean, factors = prior.gaussian(found)
        np.testing.assert_allclose(mean, found.mean(0))
        axes = factors.reshape(16, 16)
        np.testing.assert_allclose(axes.T @ axes, np.cov(found.reshape(300, 16).T), atol=1e-12)

    def test_a_thumbnail_is_the_mean_of_equal_parts(self):
        picture = np.arange(64, dtype=np.uint8).reshape(1, 8, 8, 1)
        self.assertEqual(prior.thumbnails(picture)[0, 0, 0, 1], (2 + 3 + 10 + 11) / 4 / 127.5 - 1)
        self.assertEqual(prior.thumbnails(np.zeros((1, 6, 9, 3), np.uint8)).shape, (1, 3, 2, 1))

    def test_each_class_has_a_row_and_the_null_class_has_all_pictures(self):
        shown, labels = np.concatenate([pictures(90) // 2, 128 + pictures(90, 1) // 2]), np.arange(180) // 90
        found = prior.estimate(shown, labels, 2)
        thumbnails = prior.thumbnails(shown)
        np.testing.assert_allclose(found.mean.mean((1, 2, 3)), [thumbnails[:90].mean(), thumbnails[90:].mean(), thumbnails.mean()], atol=1e-6)
        np.testing.assert_allclose(found.mean, found.mean[..., ::-1], atol=1e-6)  # since mirrored pictures are as likely
        self.assertEqual(prior.estimate(shown, labels, 1, flip=False).mean.shape, (1, 1, 4, 4))
        self.assertEqual(prior.estimate(shown[:, :5, :5], labels, 2).factors.shape, (3, 1, 1, 1, 1))
        with self.assertRaisesRegex(SystemExit, "expected at least 2 pictures of every class, found 0 of one"):
            prior.estimate(shown, labels, 3)


class Draw(unittest.TestCase):
    def setUp(self):
        rng = np.random.default_rng(3)
        self.prior = prior.Prior(rng.normal(size=(2, 3, 4, 4)).astype(np.float32), rng.normal(size=(2, 5, 3, 4, 4)).astype(np.float32))

    def test_a_draw_is_enlarged_as_by_pytorch(self):
        z = np.random.default_rng(4).normal(size=(2, 5)).astype(np.float32)
        drawn = self.prior.draw([1, 0], z, (12, 32))
        small = self.prior.mean[[1, 0]] + np.einsum("nf,nfcyx->ncyx", z, self.prior.factors[[1, 0]])
        expected = torch.nn.functional.interpolate(torch.from_numpy(small), (12, 32), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(drawn, expected, atol=1e-5)

    def test_numbers_are_of_the_seed_alone(self):
        numbers = self.prior.numbers([7, 8])
        self.assertEqual(numbers.shape, (2, 5))
        np.testing.assert_array_equal(self.prior.numbers([8])[0], numbers[1])

    def test_the_first_answer_is_the_one_that_the_drawn_picture_follows_from(self):
        kept = diffusion.timesteps(10)
        self.assertTrue(diffusion.unseen(kept))
        self.assertFalse(diffusion.unseen(kept[1:]))
        x0 = self.prior.draw([0], np.zeros((1, 5), np.float32), (8, 8))
        x = np.random.default_rng(5).normal(size=x0.shape)
        abar = diffusion.alphas_cumprod()[kept[0]]
        for prediction in ("epsilon", "v_prediction", "sample"):
            answer = diffusion.informed(lambda x, t: t, x0, kept, diffusion.PROCESS | {"prediction": prediction})
            np.testing.assert_allclose(published.to_x0(prediction, x, answer(x, kept[0]), abar), x0, atol=1e-6)
            self.assertEqual(answer(x, kept[1]), kept[1])


if __name__ == "__main__":
    unittest.main()
