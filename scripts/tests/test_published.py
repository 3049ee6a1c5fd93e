"""The formulas of published.py and the walks of diffusion.py against values and cases known in closed form.

    python -m unittest discover -s scripts/tests
"""

import unittest

from needs import NUMBERS, demand, needs

demand(NUMBERS)

import numpy as np

import diffusion
import published


def kept_list(steps, process=diffusion.PROCESS):
    return published.kept_steps(diffusion.alphas_cumprod(process), published.linspace(process["train-timesteps"], steps))


LINEAR = diffusion.PROCESS | {"schedule": "linear", "beta-start": 1e-4, "beta-end": 0.02}


class Schedule(unittest.TestCase):
    def test_cosine_has_the_published_values(self):
        betas = published.cosine_betas(1000)
        abar = published.alphas_cumprod(betas)
        for i, beta, value in [
            (0, 4.128422482196914e-05, 0.99995871577517803),
            (500, 3.1556914415850068e-03, 0.49228517244880304),
            (998, 0.74999939290111661, 2.4287669070348544e-06),
            (999, 0.999, 2.4287669070348567e-09),
        ]:
            np.testing.assert_allclose([betas[i], abar[i]], [beta, value], rtol=1e-9)

    def test_a_table_of_betas_is_taken_as_it_is(self):
        table = diffusion.PROCESS | {"schedule": "table", "betas": published.linear_betas(1000, 1e-4, 0.02).tolist()}
        np.testing.assert_array_equal(diffusion.alphas_cumprod(table), diffusion.alphas_cumprod(LINEAR))

    def test_kept_steps(self):
        linspace = diffusion.DEFAULTS | {"spacing": "linspace"}
        self.assertEqual(diffusion.timesteps(10, defaults=linspace), [999, 888, 777, 666, 555, 444, 333, 222, 111, 0])
        self.assertEqual(diffusion.timesteps(4, defaults=linspace), [999, 666, 333, 0])
        self.assertEqual(diffusion.timesteps(4), [999, 749, 499, 249])
        self.assertEqual(len(diffusion.timesteps()), diffusion.DEFAULTS["steps"])


class Walk(unittest.TestCase):
    def test_a_perfect_network_lands_on_the_one_picture_there_is(self):
        x0, rng, abar = np.full((1, 1, 2, 2), 0.3), np.random.default_rng(0), diffusion.alphas_cumprod()

        def noise(_):
            return rng.standard_normal(x0.shape)

        for kept in [[999], *map(diffusion.timesteps, (2, 10, 1000))]:
            *_, (*_, last) = diffusion.trajectory(
                lambda x, t: (x - np.sqrt(abar[t]) * x0) / np.sqrt(1 - abar[t]), diffusion.reverse_update(kept), noise(0), kept, noise
            )
            np.testing.assert_allclose(last, x0, atol=1e-6)

    def test_a_float32_picture_is_computed_in_float64(self):
        kept = diffusion.timesteps(10)
        step = diffusion.reverse_update(kept)
        x, epsilon, z = np.random.default_rng(0).standard_normal((3, 1, 1, 4, 4)).astype(np.float32)
        wide = [array.astype(np.float64) for array in (x, epsilon, z)]
        for index in range(len(kept)):
            np.testing.assert_array_equal(step(index, x, epsilon, z), step(index, *wide))

    @needs(["torch"])
    def test_torch_tensors_take_the_same_steps(self):
        import torch

        kept = diffusion.timesteps(10)
        step = diffusion.reverse_update(kept)
        x, epsilon, z = np.random.default_rng(0).standard_normal((3, 2, 3, 4, 4)).astype(np.float32)
        for index in range(len(kept)):
            stepped = step(index, *map(torch.from_numpy, (x, epsilon, z)))
            self.assertEqual(stepped.dtype, torch.float32)
            np.testing.assert_allclose(stepped.numpy(), step(index, x, epsilon, z), atol=1e-3 if index == 0 else 1e-5)

    def test_colours(self):
        x = np.array([-1.2, -1, 0, 1, 1.2]).reshape(1, 1, 1, 5)
        self.assertEqual(diffusion.to_uint8(x).ravel().tolist(), [0, 0, 128, 255, 255])


class AnalyticVariance(unittest.TestCase):
    """published.analytic_variance against theorem 2 of Bao et al. 2022 and a case known in closed form."""

    def test_every_entry_lies_between_the_papers_bounds(self):
        for process in (diffusion.PROCESS, LINEAR):
            for steps in (2, 3, 10, 20, 50, 999):
                kept = kept_list(steps, process)
                for power in (0.0, 0.5, 0.97, 1 - 1e-6, 1.0, 1.3):
                    table = published.analytic_variance(kept, [power] * steps)
                    self.assertEqual((len(table), table[-1]), (steps, 0.0))
                    for now, sigma2 in zip(kept[:-2], table):
                        lower = published.posterior(now, 0.0, 0.0)[1]
                        remains = np.sqrt((1 - now.abar_prev - lower) * now.abar / (1 - now.abar))
                        upper = lower + (np.sqrt(now.abar_prev) - remains) ** 2  # (b - a) / 2 = 1 for data in [-1, 1]
                        self.assertLessEqual(lower, sigma2)
                        self.assertLessEqual(sigma2, upper * (1 + 1e-9))
                        self.assertLess(upper, 1.0001)
                    self.assertLessEqual(table[-2], published.ONE_LEVEL)

    def test_an_error_of_the_expectation_is_not_multiplied_where_abar_is_tiny(self):
        kept = kept_list(10)
        right, off = (published.analytic_variance(kept, [power] * 10) for power in (1.0, 0.999))
        self.assertAlmostEqual(right[0], 0.97037, places=5)  # beta-tilde
        self.assertLess(off[0] - right[0], 0.03)

    def test_gaussian_data_get_the_variance_of_their_exact_posterior(self):
        spread = 0.25  # variance of the data
        for steps in (3, 10, 50):
            kept = kept_list(steps)
            variances = [now.abar * spread + 1 - now.abar for now in kept]  # of x_t; epsilon = sqrt(1 - abar) x_t / variance
            table = published.analytic_variance(kept, [(1 - now.abar) / v for now, v in zip(kept, variances)])
            for now, before, after, sigma2 in zip(kept[:-2], variances, variances[1:], table):
                exact = after - now.abar / now.abar_prev * after**2 / before  # Var(x_prev | x_t)
                self.assertAlmostEqual(sigma2, exact, delta=1e-7)

    def test_one_step_and_a_walk_with_a_table(self):
        self.assertEqual(published.analytic_variance(kept_list(1), [0.9]), [0.0])
        kept, x = kept_list(10), np.ones((1, 1, 1, 1))
        table = published.analytic_variance(kept, [0.5] * 10)
        moved = published.ddpm_step(kept, 4, x, x, x, table) - published.ddpm_step(kept, 4, x, x, 0 * x, table)
        self.assertAlmostEqual(float(moved.item()), table[4] ** 0.5)


if __name__ == "__main__":
    unittest.main()
