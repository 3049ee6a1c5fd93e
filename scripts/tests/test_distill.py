"""Progressive distillation: the lesson against closed forms, a round on a network of a few thousand parameters.

    python -m unittest discover -s scripts/tests
"""

import csv
import unittest
from unittest import mock

from needs import EXPORT, TRAINING, demand, needs

demand(TRAINING)

import numpy as np
import torch
from test_train import Case, arguments, small_data

import diffusion
import distill
import published
import train

MEAN, DEVIATION = 0.2, 0.15  # of every pixel: so narrow that no estimate is clipped


def gaussian(prediction):
    """predict(x, t) of the best denoiser of pixels that are N(MEAN, DEVIATION^2), in float64."""
    abar = torch.tensor(diffusion.alphas_cumprod())

    def predict(x, t):
        a = abar[t][:, None, None, None]
        x0 = MEAN + a.sqrt() * DEVIATION**2 / (a * DEVIATION**2 + 1 - a) * (x.double() - a.sqrt() * MEAN)
        epsilon = (x.double() - a.sqrt() * x0) / (1 - a).sqrt()
        return {"epsilon": epsilon, "v_prediction": a.sqrt() * epsilon - (1 - a).sqrt() * x0}[prediction]

    return predict


def flow(x, abar, abar_to):
    """Where the probability flow of these pixels carries x: their deviation shrinks as that of the noised pixels does."""

    def deviation(a):
        return np.sqrt(a * DEVIATION**2 + 1 - a)

    return np.sqrt(abar_to) * MEAN + deviation(abar_to) / deviation(abar) * (x - np.sqrt(abar) * MEAN)


def teachers_steps(process, teacher_steps, predict, x):
    """Where the teacher's steps lead x `[n, ...]`, picture i from the student's step i of eight to its next one."""
    kept_list = published.kept_steps(diffusion.alphas_cumprod(), published.trailing(1000, teacher_steps))
    ends, stride = [], teacher_steps // 8
    for index, end in enumerate(x.double()):
        for kept in kept_list[index * stride : (index + 1) * stride]:
            output = predict(end[None], torch.tensor([kept.t]))[0]
            x0 = published.to_x0(process["prediction"], end, output, kept.abar).clip(-process["clip"], process["clip"])
            end = published.ddim_step(kept, end, x0, 0.0, 0.0)
        ends.append(end.numpy())
    return np.stack(ends)


def long_steps(lesson, predict, x, pictures):
    """What one step of a student that has learned the lesson makes of x `[n, ...]`, picture i at its step i."""
    v = lesson.target(lambda x, t, which: predict(x, t), x, pictures, torch.arange(len(x)))
    kept_list = published.kept_steps(diffusion.alphas_cumprod(), lesson.t.tolist())
    steps = []
    for kept, one, velocity in zip(kept_list, x.double().numpy(), v.double().numpy()):
        x0 = published.to_x0("v_prediction", one, velocity, kept.abar)
        steps.append(published.ddim_step(kept, one, x0, 0.0, eta=0.0))
    return np.stack(steps), kept_list


class Lesson(unittest.TestCase):
    def setUp(self):
        picture, noise = np.random.default_rng(0).standard_normal((2, 8, 1, 4, 4))
        pictures = MEAN + DEVIATION * picture
        abar = diffusion.alphas_cumprod()[published.trailing(1000, 8)][:, None, None, None]
        self.x = torch.from_numpy((np.sqrt(abar) * pictures + np.sqrt(1 - abar) * noise).astype(np.float32))
        self.pictures = torch.from_numpy(pictures.astype(np.float32))

    def test_one_step_of_the_student_is_the_teachers_steps_and_the_last_the_picture(self):
        for prediction in ("epsilon", "v_prediction"):
            for teacher_steps in (16, 32):
                predict, process = gaussian(prediction), diffusion.PROCESS | {"prediction": prediction}
                found, _ = long_steps(distill.Lesson(process, teacher_steps, 8), predict, self.x, self.pictures)
                expected = teachers_steps(process, teacher_steps, predict, self.x)
                self.assertGreater(np.abs(expected[-1] - self.pictures[-1].numpy()).max(), 0.05)
                expected[-1] = self.pictures[-1]
                # The first steps divide by a root of abar of about 1e-4, in float32.
                np.testing.assert_allclose(found, expected, atol=5e-4, err_msg=f"{prediction} {teacher_steps}")

    def test_many_steps_of_the_teacher_follow_the_flow(self):
        off = {}
        for teacher_steps in (16, 1000):
            lesson = distill.Lesson(diffusion.PROCESS, teacher_steps, 8)
            found, kept_list = long_steps(lesson, gaussian("epsilon"), self.x, self.pictures)
            exact = [flow(x, kept.abar, kept.abar_prev) for x, kept in zip(self.x.double().numpy(), kept_list)]
            off[teacher_steps] = np.abs(found - exact)[:-1].max()
        self.assertLess(off[1000], 0.01)
        self.assertGreater(off[16], 5 * off[1000])

    def test_the_teachers_estimates_are_clipped_as_when_it_paints(self):
        def predict(x, t):
            return torch.full_like(x, -100.0)

        found, _ = long_steps(distill.Lesson(diffusion.PROCESS, 16, 8), predict, self.x, self.pictures)
        expected = teachers_steps(diffusion.PROCESS, 16, predict, self.x)
        np.testing.assert_allclose(found[:-1], expected[:-1], atol=5e-4)

    def test_the_teacher_is_not_asked_about_the_last_step(self):
        asked = []

        def predict(x, t, which):
            asked.append((which.tolist(), t.tolist()))
            return torch.zeros_like(x)

        index = torch.tensor([7, 2, 7, 0, 6, 1, 5, 3])
        distill.Lesson(diffusion.PROCESS, 16, 8).target(predict, self.x, self.pictures, index)
        numbers = [1, 3, 4, 5, 6, 7]
        self.assertEqual([which for which, _ in asked], [numbers, numbers])
        self.assertEqual(asked[0][1], [749, 999, 249, 874, 374, 624])

    def test_the_students_steps_are_those_of_the_program(self):
        lesson = distill.Lesson(diffusion.PROCESS, 32, 8)
        self.assertEqual(lesson.t.tolist(), [999, 874, 749, 624, 499, 374, 249, 124])
        self.assertEqual(lesson.teacher_t.tolist()[-4:], [124, 93, 61, 30])


class Round(Case):
    def setUp(self):
        super().setUp()
        teacher = train.Training(arguments(self.folder, "--images", "160", "--lr", "2e-3"))
        while teacher.progress() < 1:
            teacher.update()
        train.save_checkpoint(teacher.checkpoint, teacher.state())
        self.checkpoint = teacher.checkpoint

    def arguments(self, *more):
        small = ["--batch", "8", "--warmup", "4", "--precision", "fp32", "--teacher", str(self.checkpoint)]
        data = ["--data", str(self.folder / "small.npz"), "--out", str(self.folder / "student")]
        return [*small, *data, "--teacher-steps", "8", "--steps", "4", *more]

    def distillation(self, *more):
        return distill.Distillation(train.checked(distill.parser(), self.arguments(*more)))

    def test_the_student_starts_as_its_teacher(self):
        round = self.distillation("--images", "64")
        x, label = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([1])
        for t in [249, 749]:
            abar = diffusion.alphas_cumprod()[t]
            with torch.no_grad():
                epsilon, v = (network(x, torch.tensor([t]), label).numpy() for network in (round.teacher.network, round.network))
            x0 = published.to_x0("epsilon", x.numpy(), epsilon, abar)
            np.testing.assert_allclose(v, published.to_v(x.numpy(), x0, abar), atol=1e-5)

    def test_a_round_brings_the_student_to_its_teacher(self):
        round = self.distillation("--images", "1600", "--lr", "2e-3")
        predict = gaussian("epsilon")
        round.teach = lambda x, t, labels: predict(x, t)
        before = round.validate()
        train.train(round)
        self.assertLess(round.validate(), 0.2 * before)
        with (round.run / "log.csv").open() as file:
            self.assertLess(float([*csv.DictReader(file)][-1]["val_loss"]), 0.2 * before)

    def test_the_checkpoint_says_what_was_learned(self):
        distill.main(self.arguments("--images", "16"))
        after = self.distillation("--images", "16")
        self.assertEqual(after.defaults | {"steps": 4, "sampler": "ddpm", "variance": "fixed-small", "spacing": "trailing"}, after.defaults)
        _, state = train.load_network(self.folder / "student" / "checkpoint.pt")
        self.assertEqual((state["teacher"], [(one["from"], one["to"]) for one in state["rounds"]]), ("run", [(8, 4)]))
        self.assertEqual(state["process"]["prediction"], "v_prediction")

    def test_a_resumed_round_equals_an_unbroken_one(self):
        unbroken, broken = self.distillation("--images", "64"), self.distillation("--images", "64")
        for _ in range(3):
            unbroken.update()
        broken.update()
        train.save_checkpoint(broken.checkpoint, broken.state())
        resumed = self.distillation("--images", "64")
        for _ in range(2):
            resumed.update()
        torch.testing.assert_close(resumed.state()["network"], unbroken.state()["network"], rtol=0, atol=0)

    def test_what_does_not_fit_ends_in_a_sentence(self):
        with self.assertRaises(SystemExit), mock.patch("sys.stderr") as told:
            distill.main(self.arguments("--images", "8", "--steps", "3"))
        self.assertIn("expected a multiple of --steps 3", str(told.write.call_args_list))
        round = self.distillation("--images", "64")
        train.save_checkpoint(round.checkpoint, round.state())
        with self.assertRaisesRegex(SystemExit, "checkpoint.pt: a network for another walk, expected .*'steps': 2"):
            self.distillation("--images", "64", "--steps", "2")
        small_data(self.folder, size=16)
        with self.assertRaisesRegex(SystemExit, r"small.npz: pictures and classes are \(\(16, 16, 3\), 2\), expected \(\(8, 8, 3\), 2\)"):
            self.distillation("--images", "64", "--no-resume")

    @needs(EXPORT)
    def test_the_students_package_says_how_it_walks(self):
        import export
        import package
        import quantize
        import weights

        round = self.distillation("--images", "8")
        round.update()
        train.save_checkpoint(round.checkpoint, round.state())
        folder = self.folder / "quick"
        export.main(["--checkpoint", str(round.checkpoint), "--package", str(folder)])
        quantize.main(["--package", str(folder), "--pictures", "2", "--check", "1"])
        manifest, reference = package.read_manifest(folder), package.read_reference(folder)
        self.assertEqual((manifest["diffusion"]["prediction"], manifest["network"]["output"]), ("v_prediction", "v"))
        self.assertEqual(reference["timesteps"].tolist(), [999, 749, 499, 249])
        self.assertGreater(manifest["files"]["fp16"]["final-psnr-db"], 50)
        self.assertEqual(manifest["training"]["rounds"][0]["to"], 4)
        self.assertIn("Distilled from run", (folder / "README.md").read_text())
        network, _ = weights.load(folder, "fp32")
        again = package.torch_network(network)(reference["start"], 999, 0)
        np.testing.assert_allclose(again, reference["epsilon"][0], atol=1e-5)
        # A second round's teacher is the first one's package, which predicts v.
        self.checkpoint = folder
        second = self.distillation("--images", "8", "--teacher-steps", "4", "--steps", "2", "--no-resume")
        self.assertEqual([one["to"] for one in second.state()["rounds"]], [4, 2])


if __name__ == "__main__":
    unittest.main()
