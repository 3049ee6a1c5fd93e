"""Training a U-Net of a few thousand parameters, and from its checkpoint to a quantized package.

    python -m unittest discover -s scripts/tests
"""

import csv
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from needs import EXPORT, SCRIPTS, TRAINING, demand, needs

demand(TRAINING)

import numpy as np
import torch

import data
import package
import train
from unet import UNet, UNetConfig


def small_data(folder, count=320, size=8, held_out=None):
    """A data set of small pictures: two classes, one dark and one bright."""
    rng = np.random.default_rng(0)
    labels = np.arange(count) % 2
    pictures = np.clip(60 + 130 * labels[:, None, None, None] + rng.integers(-40, 40, (count, size, size, 3)), 0, 255)
    path = folder / "small.npz"
    data.save(path, pictures, labels, ["dark", "bright"], "CC0-1.0", held_out)
    return path


def arguments(folder, *more):
    """train.py's arguments for a small network on small_data."""
    small = ["--channels", "8,16", "--attention", "1", "--groups", "4", "--batch", "8", "--warmup", "4", "--precision", "fp32"]
    budget = [] if "--minutes" in more else ["--images", "64"]
    places = ["--data", str(small_data(folder)), "--out", str(folder / "run")]
    return train.checked(train.parser(), [*places, *small, *budget, *more])


class Case(unittest.TestCase):
    """Each test in an empty folder, with nothing printed."""

    def setUp(self):
        temporary = tempfile.TemporaryDirectory()
        self.addCleanup(temporary.cleanup)
        self.folder = Path(temporary.name)
        printed = mock.patch("builtins.print")
        self.printed = printed.start()
        self.addCleanup(printed.stop)


class Network(unittest.TestCase):
    def test_default_network_has_1_8_million_parameters_and_keeps_the_shape(self):
        network = UNet(UNetConfig(classes=8))
        self.assertEqual(sum(p.numel() for p in network.parameters()), 1_807_427)
        epsilon = network(torch.zeros(2, 3, 32, 32), torch.tensor([0, 999]), torch.tensor([0, 8]))
        self.assertEqual(tuple(epsilon.shape), (2, 3, 32, 32))
        unconditional = UNet(UNetConfig(image_channels=1, channels=(8, 16), attention_levels=(), groups=4, head_channels=16))
        self.assertEqual(tuple(unconditional(torch.zeros(1, 1, 16, 16), torch.tensor([5])).shape), (1, 1, 16, 16))

    def test_impossible_shapes_are_refused(self):
        cases = [
            ({"size": 30}, "multiple of 4, found 30"),
            ({"channels": (32, 60)}, "60 channels do not divide into 8 groups"),
            ({"channels": (32, 112), "attention_levels": ()}, "112 channels do not divide into 8 groups and heads"),
            ({"attention_levels": (3,)}, "they go from 0 to 2"),
        ]
        for changes, sentence in cases:
            with self.subTest(sentence), self.assertRaisesRegex(ValueError, sentence):
                UNetConfig(**changes)

    def test_min_snr_weights(self):
        abar = torch.tensor([0.5, 5 / 6, 0.99])
        torch.testing.assert_close(train.loss_weights(abar, 5.0), torch.tensor([1.0, 1.0, 5 / 99]))
        torch.testing.assert_close(train.loss_weights(abar, 0), torch.ones(3))


class Training(Case):
    def test_training_lowers_the_held_out_error_and_leaves_its_files(self):
        args = arguments(self.folder, "--images", "640", "--lr", "2e-3")
        before = train.Training(args).validate()
        after = train.train(train.Training(args))
        self.assertLess(after.validate(), 0.8 * before)
        names = {path.name for path in (self.folder / "run").iterdir()}
        self.assertEqual(names, {"checkpoint.pt", "log.csv", "loss.png", "sheet-00000640.png"})
        told = train.load_checkpoint(after.checkpoint, "cpu")["told"]
        self.assertEqual((told["steps"], told["processes"]), (after.step, 1))
        self.assertIn("--images 640 ", told["command"])
        self.assertNotIn(str(self.folder), told["command"])

    def test_resumed_run_equals_an_unbroken_one(self):
        args = arguments(self.folder, "--images", "64")
        unbroken = train.Training(args)
        for _ in range(4):
            unbroken.update()
        broken = train.Training(args)
        for _ in range(2):
            broken.update()
        train.save_checkpoint(broken.checkpoint, broken.state())
        resumed = train.Training(args)
        self.assertEqual((resumed.step, resumed.images), (2, 16))
        for _ in range(2):
            resumed.update()
        for part in ("network", "ema"):
            torch.testing.assert_close(resumed.state()[part], unbroken.state()[part], rtol=0, atol=0)

    def test_the_end_of_a_run_weighs_all_times_alike(self):
        training = train.Training(arguments(self.folder, "--images", "160", "--min-snr-until", "0.5"))
        errors, t = torch.ones(4), torch.tensor([0, 1, 2, 3])
        self.assertLess(training.loss(errors, t).item(), 0.01)
        training.images = 80
        self.assertEqual(training.loss(errors, t).item(), 1)

    def test_a_run_may_start_with_the_weights_of_a_package(self):
        scenes = SCRIPTS.parent / "models/scenes-32"
        pictures = np.zeros((64, 32, 32, 3), np.uint8)
        data.save(self.folder / "scenes.npz", pictures, np.arange(64) % 8, list("abcdefgh"), "CC0-1.0")
        places = ["--data", str(self.folder / "scenes.npz"), "--out", str(self.folder / "run")]
        places += ["--images", "2", "--batch", "2", "--precision", "fp32"]
        training = train.Training(train.checked(train.parser(), [*places, "--start", str(scenes)]))
        reference = package.read_reference(scenes)
        x, t = torch.tensor(reference["start"]), torch.tensor(reference["timesteps"][:1])
        with torch.no_grad():
            answer = training.ema(x, t, torch.tensor(reference["class"]))
        self.assertLess(np.abs(answer.numpy() - reference["epsilon"][0]).max(), 0.01)
        (earlier,) = train.train(training).state()["earlier"]
        self.assertEqual(earlier["images"], package.read_manifest(scenes)["training"]["images"])
        other = train.checked(train.parser(), [*places, "--channels", "32,64", "--attention", "1", "--start", str(scenes)])
        with self.assertRaisesRegex(SystemExit, "scenes-32: expected UNetConfig.*found"):
            train.Training(other)

    def test_a_sitting_ends_and_the_next_one_goes_on_in_the_same_log(self):
        args = arguments(self.folder, "--images", "32", "--sitting-minutes", "1e-9")
        self.assertEqual(train.train(train.Training(args)).images, 0)
        first = train.Training(arguments(self.folder, "--images", "32", "--sitting-minutes", "60"))
        for _ in range(2):
            loss = first.update()
        train.report(first, [loss])
        finished = train.train(train.Training(args := arguments(self.folder, "--images", "32")))
        self.assertEqual(finished.images, 32)
        with (Path(args.out) / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        self.assertEqual([int(row["images"]) for row in rows], [16, 32])
        for row in rows:
            self.assertTrue(0 < float(row["loss"]) < 10 and 0 < float(row["val_loss"]) < 10, row)

    def test_a_run_that_breaks_down_keeps_its_checkpoint(self):
        training = train.Training(arguments(self.folder, "--images", "64"))
        train.report(training, [training.update()])
        whole = training.checkpoint.read_bytes()
        with torch.no_grad():
            training.ema.conv_out.bias.fill_(torch.nan)
        with self.assertRaisesRegex(SystemExit, "after 16 images the loss is .* and the held-out error nan"):
            train.report(training, [training.update()])
        self.assertEqual(training.checkpoint.read_bytes(), whole)

    @unittest.skipIf(torch.cuda.is_available(), "what is refused without a GPU")
    def test_compiling_for_a_cpu_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "--compile: on a CPU"):
            train.Training(arguments(self.folder, "--compile"))

    def test_pictures_that_are_held_out_are_never_trained_on(self):
        args = arguments(self.folder, "--images", "800", "--no-flip")
        small_data(self.folder, count=40, held_out=30)
        training, seen = train.Training(args), set()
        for training.step in range(20):
            x0, *_ = training.batch()
            seen |= {picture.numpy().tobytes() for picture in x0}
        signal = train.to_signal(training.pictures)
        self.assertEqual(seen, {picture.numpy().tobytes() for picture in signal[:10]})

    def test_two_processes_step_by_the_mean_of_their_gradients(self):
        args = arguments(self.folder, "--images", "48")
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPTS / "train.py")]
        small = ["--channels", "8,16", "--attention", "1", "--groups", "4", "--batch", "8", "--warmup", "4", "--precision", "fp32"]
        ran = subprocess.run(
            [*command, "--data", args.data, "--out", args.out, "--images", "48", *small],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        self.assertEqual(ran.returncode, 0, ran.stderr)
        found = train.load_checkpoint(Path(args.out) / "checkpoint.pt", "cpu")
        self.assertEqual((found["step"], found["images"]), (3, 48))

        args.resume = False
        alone = train.Training(args)
        alone.world = 2
        for alone.images in range(0, 48, 16):
            for group in alone.optimizer.param_groups:
                group["lr"] = alone.learning_rate(alone.images / 48)
            alone.optimizer.zero_grad()
            for alone.rank in range(2):
                x0, t, noise, labels = alone.batch()
                (alone.weights[t] * alone.errors(alone.network, x0, t, noise, labels)).mean().div(2).backward()
            torch.nn.utils.clip_grad_norm_(alone.network.parameters(), 1.0)
            alone.optimizer.step()
            alone.step += 1
        torch.testing.assert_close(found["network"], alone.network.state_dict(), rtol=1e-4, atol=1e-5)

    def test_another_default_walk_goes_on_and_another_process_does_not(self):
        training = train.Training(arguments(self.folder))
        training.update()
        state = training.state()
        train.save_checkpoint(training.checkpoint, state | {"defaults": state["defaults"] | {"steps": 7}})
        self.assertEqual(train.Training(arguments(self.folder)).state()["defaults"], state["defaults"])
        train.save_checkpoint(training.checkpoint, state | {"process": state["process"] | {"schedule": "linear"}})
        with self.assertRaisesRegex(SystemExit, "checkpoint.pt: a network for another walk, expected .*'cosine'"):
            train.Training(arguments(self.folder))

    def test_a_checkpoint_of_another_network_is_refused(self):
        training = train.Training(arguments(self.folder))
        train.save_checkpoint(training.checkpoint, training.state())
        with self.assertRaisesRegex(SystemExit, "checkpoint.pt: another network"):
            train.Training(arguments(self.folder, "--channels", "8,8"))
        training.checkpoint.write_bytes(b"no checkpoint")
        with self.assertRaisesRegex(SystemExit, "checkpoint.pt: not a checkpoint"):
            train.Training(arguments(self.folder))


@needs(EXPORT)
class Export(Case):
    def setUp(self):
        super().setUp()
        training = train.Training(arguments(self.folder))
        for parameter in training.ema.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        train.save_checkpoint(training.checkpoint, training.state())
        self.export = ["--checkpoint", str(training.checkpoint), "--package", str(self.folder / "small")]

    def test_package_of_a_small_network_answers_like_pytorch_and_quantizes(self):
        import onnx

        import export
        import package
        import quantize

        export.main([*self.export, "--data", str(self.folder / "small.npz")])
        quantize.main(["--package", str(self.folder / "small"), "--pictures", "2", "--check", "1", "--steps", "10"])
        manifest = package.read_manifest(self.folder / "small")
        for precision, error, psnr in [("fp32", 1e-4, 80), ("fp16", 1e-2, 50), ("int8", 0.5, 20)]:
            entry = manifest["files"][precision]
            self.assertLess(entry["max-error"], error, precision)
            self.assertGreater(entry["final-psnr-db"], psnr, precision)
            self.assertEqual(entry | package.file_entry(self.folder / "small" / f"{precision}.onnx"), entry)
        kernels = [tensor for tensor in onnx.load(self.folder / "small" / "int8.onnx").graph.initializer if len(tensor.dims) == 4]
        self.assertEqual({tensor.data_type for tensor in kernels}, {onnx.TensorProto.INT8, onnx.TensorProto.FLOAT16})
        self.assertEqual(manifest["classes"], {"names": ["dark", "bright"], "null": 2})
        self.assertEqual([len(table) for table in manifest["analytic-variance"].values()], [10, 20, 25, 50, 100])
        self.assertEqual((manifest["defaults"]["variance"], manifest["defaults"]["spacing"]), ("fixed-small", "trailing"))
        self.assertTrue(all(0 <= sigma2 < 1 for table in manifest["analytic-variance"].values() for sigma2 in table))
        self.assertTrue(any("% off" in str(call) for call in self.printed.call_args_list))
        self.assertIn("| int8 | `int8.onnx` |", (self.folder / "small" / "README.md").read_text())

    def test_guidance_of_its_own_is_in_all_that_is_made_of_a_model(self):
        import export
        import quantize

        sheets = []
        for weight in ("1", "3"):
            export.main([*self.export, "--guidance", weight])
            sheets.append((self.folder / "small" / "samples.png").read_bytes())
        self.assertNotEqual(*sheets)
        manifest = package.read_manifest(self.folder / "small")
        self.assertEqual(manifest["defaults"]["guidance"], 3)
        self.assertIn("trailing, variance fixed-small, guidance 3.", (self.folder / "small" / "README.md").read_text())
        network = package.OnnxNetwork(self.folder / "small" / "fp32.onnx")
        trajectories = quantize.Trajectories(network, manifest, 4)
        t, x, label, output, _ = next(trajectories.walk(1))
        of_class, of_none = network(x, t, label), network(x, t, 2)
        self.assertGreater(np.abs(of_class - of_none).max(), 1e-3)
        np.testing.assert_allclose(output, of_none + 3 * (of_class - of_none), atol=1e-5)
        calibration = quantize.Calibration(trajectories, [0])
        self.assertEqual([int(feed["class_labels"][0]) for feed in iter(calibration.get_next, None)], 4 * [0, 2])

    def test_a_prior_is_in_all_that_is_made_of_a_model(self):
        import export
        import prior
        import quantize

        export.main(self.export)
        folder = self.folder / "small"
        before = (folder / "samples.png").read_bytes()
        prior.main(["--package", str(folder), "--data", str(self.folder / "small.npz")])
        self.assertNotEqual((folder / "samples.png").read_bytes(), before)
        manifest = package.read_manifest(folder)
        self.assertEqual(manifest["prior"], package.file_entry(folder / "prior.npz"))
        self.assertIn("Its first step draws from a prior", (folder / "README.md").read_text())
        found = prior.read(folder, manifest)
        self.assertEqual((found.mean.shape, found.factors.shape), ((3, 3, 4, 4), (3, 16, 3, 4, 4)))
        trajectories = quantize.Trajectories(package.OnnxNetwork(folder / "fp32.onnx"), manifest, 4, found)
        steps = [t for t, *_ in trajectories.walk(1)]
        self.assertEqual(steps, trajectories.timesteps[1:])
        quantize.main(["--package", str(folder), "--pictures", "2", "--check", "1", "--steps", "4"])
        self.assertEqual(package.read_manifest(folder)["prior"], manifest["prior"])
        export.main(self.export)
        self.assertEqual(package.listed(package.read_manifest(folder)), {"fp32.onnx", "fp16.onnx", "reference.npz"})
        self.assertEqual(self.printed.call_args.args, (f"{folder}/model.toml lists int8.onnx, prior.npz no longer: of the model before; make anew or delete",))
        with self.assertRaisesRegex(SystemExit, "expected the pictures of small"):
            other = self.folder / "other.npz"
            data.save(other, np.zeros((20, 16, 16, 3)), np.zeros(20), ["one"], "CC0-1.0")
            prior.main(["--package", str(folder), "--data", str(other)])

    def test_guidance_wants_classes(self):
        import export

        with self.assertRaisesRegex(SystemExit, "--guidance 2: the model has one class, expected several to tell apart"):
            export.own_defaults({"classes": ["one"], "defaults": {}}, 2.0)

    def test_wrong_input_ends_in_a_sentence(self):
        import export
        import quantize

        other = self.folder / "other.npz"
        data.save(other, np.zeros((20, 16, 16, 3)), np.zeros(20), ["one"], "CC0-1.0")
        with self.assertRaisesRegex(SystemExit, r"other.npz: unexpected shape of a picture, expected \(8, 8, 3\)"):
            export.main([*self.export, "--data", str(other)])
        # What is wrong with the package is told before the long work on --data.
        export_other = [*self.export, "--data", str(other), "--package"]
        with self.assertRaisesRegex(SystemExit, "a model is called 'Not This'"):
            export.main([*export_other, str(self.folder / "Not This")])
        (self.folder / "small").mkdir(exist_ok=True)
        (self.folder / "small/model.toml").write_text("format = ")
        with self.assertRaisesRegex(SystemExit, "model.toml: not TOML"):
            export.main([*export_other, str(self.folder / "small")])
        with self.assertRaisesRegex(SystemExit, "model.toml: not TOML"):
            quantize.main(["--package", str(self.folder / "small")])


if __name__ == "__main__":
    unittest.main()
