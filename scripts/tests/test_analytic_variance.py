"""analytic_variance.py: on data whose best variance is known in closed form, and on the committed package."""

import tempfile
import unittest
from pathlib import Path
from unittest import mock

from needs import EXPORT, demand

demand(EXPORT)

import numpy as np

import analytic_variance
import data
import diffusion
import package
import procedural
import published

SCENES = Path(__file__).resolve().parents[2] / "models/scenes-32"
DEVIATION = 0.3


def best_answer(x, t, labels):
    """E[epsilon | x_t] for pictures of independent normal numbers."""
    abar = diffusion.alphas_cumprod()[t]
    return x * np.sqrt(1 - abar) / (abar * DEVIATION**2 + 1 - abar)


def scenes(count):
    """Pictures that no training has seen, and their classes."""
    styles = list(procedural.STYLES)
    pictures = [data.draw((styles[k % 8], 7000 + k // 8, 32)) for k in range(count)]
    return diffusion.from_uint8(np.stack(pictures)), np.arange(count) % 8


class Estimate(unittest.TestCase):
    def test_on_normal_numbers_every_table_is_the_variance_that_follows_from_bayes(self):
        x0 = DEVIATION * np.random.default_rng(1).standard_normal((200, 1, 16, 16)).astype(np.float32)
        estimate = analytic_variance.Estimate(best_answer, x0, None, diffusion.PROCESS, steps=(10, 25))
        for steps in (10, 25):
            kept = published.kept_steps(diffusion.alphas_cumprod(), published.linspace(1000, steps))
            errors = estimate.relative_errors(steps)
            self.assertEqual(len(errors), steps - 2)
            for step, sigma2, error in zip(kept, estimate.table(steps), errors):
                weight, tilde = published.posterior(step, 1.0, 0.0)
                uncertainty = (1 - step.abar) * DEVIATION**2 / (step.abar * DEVIATION**2 + 1 - step.abar)
                expected = tilde + weight**2 * uncertainty
                with self.subTest(steps=steps, t=step.t):
                    # Five standard errors, and the last digits of the sum.
                    self.assertLess(abs(sigma2 / expected - 1), 5 * error + 1e-5)
            self.assertLess(errors.max(), 0.05)

    def test_the_prediction_does_not_change_the_power(self):
        x0 = DEVIATION * np.random.default_rng(2).standard_normal((4, 1, 8, 8)).astype(np.float32)

        def velocity(x, t, labels):
            abar = diffusion.alphas_cumprod()[t]
            epsilon = best_answer(x, t, labels)
            x0_estimate = published.to_x0("epsilon", x, epsilon, abar)
            return (np.sqrt(abar) * epsilon - np.sqrt(1 - abar) * x0_estimate).astype(np.float32)

        for t in (0, 500, 900):
            expected = analytic_variance.powers(best_answer, x0, None, t, diffusion.PROCESS)
            found = analytic_variance.powers(velocity, x0, None, t, diffusion.PROCESS | {"prediction": "v_prediction"})
            np.testing.assert_allclose(found, expected, rtol=1e-3)

    def test_the_committed_tables_are_the_committed_network_s(self):
        manifest = package.read_manifest(SCENES)
        x0, labels = scenes(16)
        predict = analytic_variance.answers(SCENES, manifest)
        estimate = analytic_variance.Estimate(predict, x0, labels, manifest["diffusion"], steps=(10,))
        committed, errors = manifest["analytic-variance"]["10"], estimate.relative_errors(10)
        for committed_sigma2, sigma2, error in zip(committed, estimate.table(10), errors):
            self.assertLess(abs(sigma2 / committed_sigma2 - 1), 5 * error + 1e-4)
        self.assertLess(errors.max(), 0.05)
        self.assertEqual(set(manifest["analytic-variance"]), {str(steps) for steps in analytic_variance.STEPS})

    def test_a_package_of_another_origin_is_asked_through_its_onnx_file(self):
        manifest = package.read_manifest(SCENES)
        x0, labels = scenes(2)
        torch_made = analytic_variance.answers(SCENES, manifest)(x0, 300, labels)
        manifest.pop("training")
        np.testing.assert_allclose(analytic_variance.answers(SCENES, manifest)(x0, 300, labels), torch_made, atol=0.01)


class Script(unittest.TestCase):
    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)

    def test_only_a_default_that_the_tables_serve_becomes_analytic(self):
        tables = {"10": [0.5, 0.1, 0.0]}
        cases = [
            ({"steps": 10, "spacing": "linspace"}, "analytic"),
            ({"steps": 30, "spacing": "linspace"}, "fixed-small"),
            ({"steps": 10}, "fixed-small"),
            ({"steps": 10, "spacing": "linspace", "sampler": "ddim"}, "fixed-small"),
            ({"steps": 10, "spacing": "linspace", "variance": "fixed-large"}, "fixed-large"),
        ]
        for changes, expected in cases:
            with self.subTest(changes):
                manifest = {"defaults": diffusion.DEFAULTS | changes}
                analytic_variance.adopt(manifest, tables)
                self.assertEqual((manifest["defaults"]["variance"], manifest["analytic-variance"]), (expected, tables))

    def test_data_of_another_model_ends_in_a_sentence(self):
        path = self.folder / "tiles.npz"
        data.save(path, np.zeros((20, 32, 32, 3)), np.zeros(20), ["orc"], "CC0-1.0")
        with self.assertRaisesRegex(SystemExit, "tiles.npz: unexpected classes, expected mountains, .* got orc"):
            analytic_variance.main(["--package", str(SCENES), "--data", str(path)])

    def test_a_package_gets_its_tables_and_its_default(self):
        import shutil

        folder = self.folder / "scenes-32"
        folder.mkdir()
        shutil.copy(SCENES / "fp16.onnx", folder)
        manifest = package.read_manifest(SCENES)
        manifest["defaults"] |= {"steps": 50, "variance": "fixed-small", "spacing": "linspace"}
        del manifest["analytic-variance"]
        package.write_manifest(folder, manifest)
        path = self.folder / "one.npz"
        data.save(path, np.zeros((1, 32, 32, 3)), np.zeros(1), manifest["classes"]["names"], "CC0-1.0")
        with mock.patch("builtins.print"), mock.patch.object(analytic_variance, "STEPS", (3, 50)):
            analytic_variance.main(["--package", str(folder), "--data", str(path)])
        written = package.read_manifest(folder)
        self.assertEqual([len(table) for table in written["analytic-variance"].values()], [3, 50])
        self.assertEqual(written["defaults"]["variance"], "analytic")


if __name__ == "__main__":
    unittest.main()
