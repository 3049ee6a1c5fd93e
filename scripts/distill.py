"""Distils a model into one that paints in fewer steps: Progressive Distillation (Salimans & Ho 2022, arXiv 2202.00512).

    python scripts/distill.py --teacher models/scenes-32 --teacher-steps 32 --steps 8 \\
        --data ../runs/scenes-32.npz --out ../runs/quick-8 --images 100000
    python scripts/distill.py --teacher ../runs/quick-8/checkpoint.pt --teacher-steps 8 --steps 4 ...

One round. The student starts with the teacher's weights and learns to go in one DDIM step where the teacher goes in
--teacher-steps / --steps of them; the paper takes two, and four to be done sooner (appendix G). It predicts v, since in
pure noise epsilon says nothing of the picture; a teacher of epsilon needs no training for that (unet.Velocity). Steps
are spaced `trailing`: those of the student are among the teacher's, the first is pure noise, and the program asks for
exactly those that were trained.

Its last step, to the picture itself, it learns from the pictures, as train.py teaches it. What DDIM leaves in a picture
is the teacher's last noise, and eyes and figures see that more than anything else (docs/quality.md).

The student learns DDIM's steps and is walked with DDPM's. Either keeps x_t at the noise it was trained at, but DDIM
carries the error of every step on to the picture, where DDPM draws most of it anew (scripts/README.md has both).

Checkpoint, log, sheets, sittings and torchrun are train.py's; export.py makes the package.
"""

import dataclasses
from collections import namedtuple
from pathlib import Path

import command_line
import torch

import diffusion
import published
import train
import weights
from unet import UNet

ALPHA_FLOOR = 0.15  # below sqrt(abar) of every step but the first, up to ten of them

Teacher = namedtuple("Teacher", "network process name rounds")


def load_teacher(path):
    """The network to learn from: a package's folder, or a checkpoint of train.py or of a round before."""
    if path.is_dir():
        network, manifest = weights.load(path)
        return Teacher(network, manifest["diffusion"], manifest["name"], manifest["training"].get("rounds", []))
    network, state = train.load_network(path)
    return Teacher(network, state["process"], state.get("teacher", path.parent.name), state.get("rounds", []))


def mix(formula):
    """(a, b) of a formula that is a x + b y."""
    return formula(1.0, 0.0), formula(0.0, 1.0)


class Lesson:
    """What the student is to answer at each of its steps, out of the teacher's answers at all of them.

    Tables are float32 `[steps, 2]`: what multiplies the two things that are mixed, one row per kept step, noisiest first.
    """

    def __init__(self, process, teacher_steps, steps, device="cpu"):
        abar, total = diffusion.alphas_cumprod(process), process["train-timesteps"]
        teacher = published.kept_steps(abar, published.trailing(total, teacher_steps))
        student = published.kept_steps(abar, published.trailing(total, steps))
        self.stride = teacher_steps // steps
        assert [kept.t for kept in teacher[:: self.stride]] == [kept.t for kept in student]
        self.clip = process.get("clip")

        def table(formula, kept_list):
            rows = [mix(lambda x, y, kept=kept: formula(kept, x, y)) for kept in kept_list]
            return torch.tensor(rows, dtype=torch.float32, device=device)

        def estimate(kept, x, output):
            return published.to_x0(process["prediction"], x, output, kept.abar)

        def step(kept, x, x0):
            return published.ddim_step(kept, x, x0, 0.0, eta=0.0)

        def velocity(kept, x, x0):
            return published.to_v(x, x0, kept.abar)

        self.estimate, self.step = table(estimate, teacher), table(step, teacher)
        self.long_step, self.velocity = table(step, student), table(velocity, student)
        self.teacher_t, self.t = (torch.tensor([kept.t for kept in kept_list], device=device) for kept_list in (teacher, student))

    def target(self, predict, x, x0, index):
        """v `[n, c, h, w]` with which one step of the student from x ends where the teacher's steps do (algorithm 2), or
        the last one at the picture x0 that x is made of.

        `predict(x, t, which)` is the teacher, t `[m]`, for the pictures whose numbers in the batch are `which` `[m]`;
        `index` int64 `[n]` is each picture's place among the student's steps.
        """
        taught = (index < len(self.t) - 1).nonzero().squeeze(1)
        walked = self.walked(lambda y, t: predict(y, t, taught), x[taught], index[taught])
        end = x0.to(walked.dtype).index_copy(0, taught, walked)
        a, b = self.long_step[index].T[..., None, None, None]
        return mixed(self.velocity[index], x, (end - a * x) / b)

    def walked(self, predict, x, index):
        """Where the teacher's steps lead x, each picture from its place among the student's steps to the next one."""
        for at in (index * self.stride + passed for passed in range(self.stride)):
            estimate = mixed(self.estimate[at], x, predict(x, self.teacher_t[at]))
            if self.clip is not None:
                estimate = estimate.clip(-self.clip, self.clip)
            x = mixed(self.step[at], x, estimate)
        return x


def mixed(coefficients, x, y):
    """a x + b y, coefficients `[n, 2]`, pictures `[n, c, h, w]`."""
    a, b = coefficients.T[..., None, None, None]
    return a * x + b * y


class Distillation(train.Training):
    """A run of train.py whose network learns v from a teacher, at few time steps."""

    validated = 128  # the teacher has to take its steps for each

    def __init__(self, args):
        self.teacher = load_teacher(args.teacher)
        self.process = self.teacher.process | {"prediction": "v_prediction"}
        self.defaults = diffusion.DEFAULTS | {"steps": args.steps}
        super().__init__(args)
        self.lesson = Lesson(self.teacher.process, args.teacher_steps, args.steps, self.device)
        self.place = torch.full((len(self.abar),), -1, device=self.device)
        self.place[self.lesson.t] = torch.arange(args.steps, device=self.device)
        network = self.teacher.network.to(self.device, memory_format=self.layout)
        self.teach = torch.compile(network) if args.compile else network

    def shape_of_network(self):
        """The teacher's, which the data must fit."""
        config = self.teacher.network.config
        expected = (config.size, config.size, config.image_channels), config.classes
        found = tuple(self.pictures.shape[1:]), len(self.classes) if len(self.classes) > 1 else 0
        if found != expected:
            raise SystemExit(f"{self.args.data}: pictures and classes are {found}, expected {expected} as the teacher's")
        return dataclasses.replace(config, alpha_floor=ALPHA_FLOOR)

    def first_network(self):
        """A network that answers v as the teacher does, wherever sqrt(abar) is above ALPHA_FLOOR."""
        network = UNet(self.config)
        network.load_state_dict(self.teacher.network.state_dict())
        return network

    def state(self):
        args = self.args
        taken = {"from": args.teacher_steps, "to": args.steps, "images": self.images, "minutes": round(self.minutes(), 1)}
        return super().state() | {"teacher": self.teacher.name, "rounds": [*self.teacher.rounds, taken]}

    def learned_walk(self, state):
        return super().learned_walk(state) | {"steps": state["defaults"]["steps"]}

    def times(self, share):
        steps = len(self.lesson.t)
        return self.lesson.t[(share * steps).long().clamp(max=steps - 1)]

    def errors(self, network, x0, t, noise, labels):
        """Mean squared error of v per picture, `[n]`."""
        x_t = self.noised(x0, t, noise)
        with torch.no_grad():
            v = self.lesson.target(lambda x, t, which: self.answer(self.teach, x, t, labels[which]), x_t, x0, self.place[t])
        return (self.answer(network, x_t, t, labels) - v).square().mean((1, 2, 3))

    def loss(self, errors, t):
        """The geometric mean, over the student's steps, of the mean error at each.

        The paper weights x0's error by SNR + 1, which is v's error. Here a thousand times less is missing at most steps
        than at the first, where a teacher of epsilon guesses, and every step is to come as much nearer as it can.
        """
        steps = len(self.lesson.t)
        place = self.place[t]
        counts = torch.bincount(place, minlength=steps)
        sums = torch.zeros(steps, device=errors.device).index_add(0, place, errors)
        return (sums[counts > 0] / counts[counts > 0]).log().mean().exp()

    held_out_error = loss


def parser():
    p = command_line.parser(__doc__)
    p.add_argument("--teacher", type=Path, required=True, help="a package's folder, or a checkpoint.pt")
    p.add_argument("--teacher-steps", type=command_line.count, required=True, help="DDIM steps the teacher takes, a multiple of --steps")
    p.add_argument("--steps", type=command_line.count, required=True, help="DDIM steps the student is to take")
    train.add_run(p)
    p.set_defaults(weight_decay=0.0, min_snr=0)
    return p


def main(arguments=None):
    p = parser()
    args = train.checked(p, arguments)
    if args.teacher_steps % args.steps or args.teacher_steps == args.steps:
        p.error(f"--teacher-steps {args.teacher_steps}: expected a multiple of --steps {args.steps}")
    train.train(Distillation(args))


if __name__ == "__main__":
    main()
