"""from_diffusers.py on a small pipeline: what it writes, what it honours, what it refuses and how.

    python -m unittest discover -s scripts/tests
"""

import contextlib
import hashlib
import io
import json
import tempfile
import unittest
from pathlib import Path

from needs import DIFFUSERS, demand

demand(DIFFUSERS)

import diffusers
import numpy as np
import torch

import from_diffusers
import package
import published
import quantize


class FromDiffusers(unittest.TestCase):
    """Every test changes its own copy of one saved pipeline's settings."""

    @classmethod
    def setUpClass(cls):
        torch.manual_seed(0)
        torch.set_num_threads(1)
        cls.unet = diffusers.UNet2DModel(
            sample_size=(8, 16),
            in_channels=1,
            out_channels=1,
            layers_per_block=1,
            block_out_channels=(4, 8),
            norm_num_groups=2,
            attention_head_dim=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        )

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.pipeline, self.out = Path(temporary.name) / "pipeline", Path(temporary.name) / "small-1"

    def save(self, scheduler="DDPMScheduler", **settings):
        diffusers.DDPMPipeline(self.unet, getattr(diffusers, scheduler)(**settings)).save_pretrained(self.pipeline)

    def convert(self, *arguments):
        """The manifest and the reference that a conversion leaves behind."""
        with contextlib.redirect_stdout(io.StringIO()):
            from_diffusers.main([str(self.pipeline), "--out", str(self.out), *arguments])
        return package.read_manifest(self.out), package.read_reference(self.out)

    def refused(self):
        with self.assertRaises(SystemExit) as caught:
            self.convert()
        sentence = str(caught.exception)
        self.assertNotIn("\n", sentence)
        return sentence

    def test_the_schedulers_settings_are_honoured(self):
        self.save(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample_range=1.5,
                  variance_type="fixed_large", timestep_spacing="leading", steps_offset=1, num_train_timesteps=500)  # fmt: skip
        manifest, reference = self.convert("--steps", "25")
        self.assertEqual(manifest["image"], {"channels": 1, "height": 8, "width": 16})
        self.assertEqual(
            manifest["diffusion"], {"train-timesteps": 500, "schedule": "cosine", "prediction": "v_prediction", "clip": 1.5}
        )
        self.assertEqual(
            manifest["defaults"],
            {"steps": 25, "sampler": "ddpm", "spacing": "leading+1", "variance": "fixed-large", "precision": "fp32"},
        )
        self.assertEqual(reference["timesteps"].tolist(), list(range(451, 0, -50)))

    def test_the_files_are_what_the_manifest_says(self):
        self.save(timestep_spacing="linspace")
        manifest, reference = self.convert()
        for entry in (manifest["files"]["fp32"], manifest["reference"]):
            content = (self.out / entry["file"]).read_bytes()
            self.assertEqual((len(content), hashlib.sha256(content).hexdigest()), (entry["bytes"], entry["sha256"]))
        self.assertLess(manifest["files"]["fp32"]["max-error"], 1e-4)
        self.assertEqual(reference["start"].shape, (1, 1, 8, 16))
        self.assertEqual(reference["epsilon"].shape, (10, 1, 1, 8, 16))
        self.assertEqual(reference["noise"].shape, (10, 1, 1, 8, 16))
        self.assertFalse(np.any(reference["noise"][-1]))
        self.assertLessEqual(np.max(np.abs(reference["final"])), 1.0)

    def test_a_schedule_without_a_name_becomes_a_table(self):
        self.save(trained_betas=np.linspace(0.001, 0.2, 100).tolist(), num_train_timesteps=100, timestep_spacing="trailing")
        manifest, _ = self.convert()
        self.assertEqual(manifest["diffusion"]["schedule"], "table")
        np.testing.assert_allclose(manifest["diffusion"]["betas"], np.linspace(0.001, 0.2, 100), rtol=1e-6)

    def test_ddim_under_linspace_goes_to_the_next_kept_step(self):
        self.save("DDIMScheduler", timestep_spacing="linspace")
        manifest, reference = self.convert()
        self.assertEqual((manifest["defaults"]["sampler"], manifest["defaults"]["spacing"]), ("ddim", "linspace"))
        abar = published.alphas_cumprod(published.linear_betas(1000, 1e-4, 0.02))
        x = reference["start"]
        for kept, output in zip(published.kept_steps(abar, reference["timesteps"].tolist()), reference["epsilon"]):
            x0 = published.clip(published.to_x0("epsilon", x, output, kept.abar), {"clip": 1.0})
            x = published.ddim_step(kept, x, x0, 0.0, eta=0.0)
        np.testing.assert_allclose(reference["final"], x, atol=1e-4)

    def test_a_converted_package_quantizes_by_its_own_schedule(self):
        self.save(timestep_spacing="linspace")
        self.convert("--steps", "5")
        with contextlib.redirect_stdout(io.StringIO()):
            quantize.main(["--package", str(self.out), "--pictures", "2", "--check", "1"])
        entry = package.read_manifest(self.out)["files"]["int8"]
        self.assertLess(entry["max-error"], 0.5)
        self.assertGreater(entry["final-psnr-db"], 20)

    def test_more_steps_than_the_schedule_has(self):
        self.save(num_train_timesteps=20)
        with self.assertRaisesRegex(SystemExit, "the schedule has 20, found 50"):
            self.convert()

    def test_what_the_program_does_not_know_ends_with_a_sentence(self):
        self.assertIn("there is no such file", self.refused())
        cases = [
            ({"variance_type": "learned"}, "variance_type is 'learned', expected 'fixed_small'"),
            ({"beta_schedule": "laplace", "timestep_spacing": "middle"}, "timestep_spacing is 'middle', expected 'linspace'"),
            ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr is True, expected False"),
        ]
        for settings, sentence in cases:
            with self.subTest(sentence):
                self.save(**settings)
                self.assertIn(sentence, self.refused())
        with self.subTest("scheduler"):
            self.save("EulerDiscreteScheduler")
            self.assertIn("_class_name is 'EulerDiscreteScheduler', expected 'DDPMScheduler' or 'DDIMScheduler'", self.refused())
        with self.subTest("latent"):
            (self.pipeline / "vae").mkdir()
            self.assertIn("has a vae, expected a pipeline that works on pixels", self.refused())

    def test_a_latent_network_is_refused_by_its_channels(self):
        self.save()
        config = self.pipeline / "unet" / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"in_channels": 4}))
        self.assertIn("in_channels is 4, expected 1 or 3", self.refused())


if __name__ == "__main__":
    unittest.main()
