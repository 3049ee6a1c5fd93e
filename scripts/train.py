"""Trains an epsilon-prediction U-Net: Algorithm 1 of DDPM (Ho et al. 2020) with the cosine schedule.

    python scripts/train.py --data ../runs/scenes-32.npz --out ../runs/scenes-32 --minutes 90

The run folder receives checkpoint.pt (whole or absent), log.csv, loss.png and sheet-*.png painted with the averaged
(EMA) weights. Started again with the same --out, training goes on where the checkpoint left it, so that a run may have
many sittings (--sitting-minutes). The pictures that the data set holds out are never trained on.

Two processes on two CPU cores, as scenes-32 was trained:
    OMP_NUM_THREADS=1 python -m torch.distributed.run --standalone --nproc-per-node=2 scripts/train.py \\
        --data ../runs/scenes-32.npz --out ../runs/scenes-32 --minutes 90 --batch 32 --lr 8e-4

--batch is per process. What a CPU core with bf16 instructions gains, in ms of its time per image of fashion (0.7 M
parameters, batch 64): fp32 13.1, bf16 5.5. Channels last, which GPUs want, makes that 8.1, since PyTorch's norms have no
fast way back through it. --compile is for GPUs: on a CPU PyTorch 2.15 answered with gradients that are no numbers.

At 64 px the finest level is what costs: of 3.7 M parameters, a core took 43 ms per image for --channels 32,64,96,128 and
29 ms for 16,32,128,128, which scenes-64 has.

One GPU (bf16, --compile) wants larger batches and has room for larger networks, e.g. at 64 px:
    --channels 32,64,96,128 --attention 3 --batch 512 --lr 8e-4 --compile
    --channels 48,96,144,192 --blocks 2 --attention 2,3 --batch 256 --compile
and at 128 px:
    --channels 32,64,96,128,192 --attention 3,4 --batch 128 --compile
"""

import argparse
import contextlib
import copy
import csv
import dataclasses
import functools
import math
import os
import pickle
import subprocess
import time
from pathlib import Path

import command_line
import torch
from torch import distributed
from torch.nn.parallel import DistributedDataParallel

import data
import diffusion
import hardware
import prior
from procedural import contact_sheet, enlargement
from unet import UNet, UNetConfig

# Arguments that change nothing of what a run learns.
PLACES_AND_PACE = {"data", "out", "sitting_minutes", "report_minutes", "sheet_minutes", "resume"}
LOG_COLUMNS = ["images", "minutes", "lr", "loss", "val_loss"]


def save_checkpoint(path, state):
    """Writes `state` so that a crash leaves either the old checkpoint or the new one."""
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def load_checkpoint(path, device):
    """What save_checkpoint wrote; a file that is something else ends in a sentence."""
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        state["config"] = {key: tuple(v) if isinstance(v, list) else v for key, v in state["config"].items()}
    except (EOFError, KeyError, RuntimeError, TypeError, pickle.UnpicklingError):
        raise SystemExit(f"{path}: not a checkpoint, expected what train.py writes") from None
    return state


def load_network(path, device="cpu"):
    """The averaged (EMA) network of a checkpoint, ready to predict, and the checkpoint itself."""
    state = load_checkpoint(path, device)
    network = UNet(UNetConfig(**state["config"])).to(device)
    network.load_state_dict(state["ema"])
    return network.eval().requires_grad_(False), state


def commit():
    """Which of the repository's commits these scripts are, with "-dirty" where they differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    found = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() or "unknown"


def facts(command, processes, device):
    """What a card says of a run, so that it can be run again; asked as it starts, since sources change while it runs."""
    processor = torch.cuda.get_device_name() if device.type == "cuda" else hardware.processor()
    return {"command": command, "processes": processes, "hardware": processor, "commit": commit()}


def loss_weights(abar, gamma):
    """min-SNR weights for epsilon prediction (Hang et al. 2023, arXiv 2303.09556): min(SNR, gamma) / SNR; gamma 0: ones."""
    snr = abar / (1 - abar)
    return torch.ones_like(snr) if gamma == 0 else snr.clamp(max=gamma) / snr


def to_signal(pictures):
    """uint8 `[n, h, w, c]` -> float32 `[n, c, h, w]` in [-1, 1]."""
    return pictures.permute(0, 3, 1, 2).float().div(127.5).sub(1)


class Training:
    """Everything a run holds: the network, its average, the optimizer, the data, and how far it has come.

    `process` and `defaults` are [diffusion] and [defaults] of the model that comes of it.
    """

    process, defaults = diffusion.PROCESS, diffusion.DEFAULTS
    validated = 512  # of the held-out pictures, as many as a report has time for

    def __init__(self, args):
        self.args = args
        self.rank, self.world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        self.device = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu")
        if self.device.type == "cuda":
            torch.cuda.set_device(self.device)
        if self.world > 1:
            distributed.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        if args.compile and self.device.type == "cpu":
            raise SystemExit("--compile: on a CPU PyTorch computes gradients that are no numbers, expected a GPU")
        pictures, labels, self.classes, self.licence = data.load(args.data)
        self.pictures = torch.from_numpy(pictures).to(self.device)
        self.labels = torch.from_numpy(labels).to(self.device)
        self.held_out = data.held_out(args.data)
        if self.held_out == 0 or pictures.shape[1] != pictures.shape[2]:
            raise SystemExit(f"{args.data}: expected at least 10 square pictures, found {pictures.shape}")
        self.config = self.shape_of_network()
        self.earlier = []  # what the network had learned from before this run
        self.facts = facts(self.args.command, self.world, self.device)
        # The order in memory that convolutions and norms together are fastest in.
        self.layout = torch.channels_last if self.device.type == "cuda" else torch.contiguous_format
        torch.manual_seed(args.seed)
        self.network = self.first_network().to(self.device, memory_format=self.layout)
        self.ema = copy.deepcopy(self.network).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=args.lr, betas=(0.9, 0.99), weight_decay=args.weight_decay, fused=True
        )
        self.abar = torch.tensor(diffusion.alphas_cumprod(self.process), dtype=torch.float32, device=self.device)
        self.weights = loss_weights(self.abar, args.min_snr)
        self.step, self.images, self.minutes_before = 0, 0, 0.0
        self.run = Path(args.out)
        self.run.mkdir(parents=True, exist_ok=True)
        self.checkpoint = self.run / "checkpoint.pt"
        if args.resume and self.checkpoint.exists():
            self.restore()
        self.started = time.monotonic()
        self.forward = self.network
        if args.compile:
            self.forward = torch.compile(self.forward)
        if self.world > 1:
            self.forward = DistributedDataParallel(self.forward)

    def shape_of_network(self):
        """The U-Net's configuration from the arguments and the data; unconditional where there is one class."""
        args, (_, size, _, channels) = self.args, self.pictures.shape
        classes = len(self.classes) if len(self.classes) > 1 else 0
        try:
            return UNetConfig(channels, size, args.channels, args.blocks, args.attention, groups=args.groups, classes=classes)
        except ValueError as fault:
            raise SystemExit(f"train.py: {fault}") from None

    def first_network(self):
        """The network before the first step."""
        if self.args.start is None:
            return UNet(self.config)
        import weights  # needs onnx, which a run from chance does not

        network, manifest = weights.load(self.args.start)
        if network.config != self.config:
            raise SystemExit(f"{self.args.start}: expected {self.config}, found {network.config}")
        lesson = {key: manifest["training"][key] for key in ("images", "minutes")}
        self.earlier = [*manifest["training"].get("earlier", []), lesson]
        return network.train().requires_grad_(True)

    # ---- state ------------------------------------------------------------------------------------------------------

    def state(self):
        return {
            "config": dataclasses.asdict(self.config),
            "network": self.network.state_dict(),
            "ema": self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "images": self.images,
            "minutes": self.minutes(),
            "classes": self.classes,
            "licence": self.licence,
            "process": self.process,
            "defaults": self.defaults,
            "earlier": self.earlier,
            "told": {"steps": self.step} | self.facts,
        }

    def learned_walk(self, state):
        """What of a checkpoint's walk its network has learned, so that a run with another can not go on with it."""
        return state["process"]

    def restore(self):
        state = load_checkpoint(self.checkpoint, self.device)
        if state["config"] != dataclasses.asdict(self.config):
            raise SystemExit(f"{self.checkpoint}: another network, expected {self.config}; choose another --out or --no-resume")
        expected = self.learned_walk({"process": self.process, "defaults": self.defaults})
        if self.learned_walk(state) != expected:
            raise SystemExit(f"{self.checkpoint}: a network for another walk, expected {expected}; choose another --out or --no-resume")
        self.network.load_state_dict(state["network"])
        self.ema.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.images, self.minutes_before = state["step"], state["images"], state["minutes"]

    def minutes(self):
        """Minutes trained so far, over all starts of this run."""
        return self.minutes_before + (time.monotonic() - self.started) / 60

    def agreed(self, share):
        """`share` as the first process sees it, on every process: their clocks differ."""
        if self.world == 1:  # a GPU would be waited for, twice a step
            return share
        share = torch.tensor(share, device=self.device)
        distributed.broadcast(share, 0)
        return share.item()

    def progress(self):
        """0 at the start, 1 when the budget (minutes, images, or whichever ends first) is spent."""
        spent = [0.0]
        if self.args.minutes:
            spent.append(self.minutes() / self.args.minutes)
        if self.args.images:
            spent.append(self.images / self.args.images)
        return self.agreed(max(spent))

    def sitting_is_over(self):
        """Whether this start has trained for as long as it may, whatever is left of the budget."""
        sitting = self.args.sitting_minutes
        return sitting is not None and self.agreed((self.minutes() - self.minutes_before) / sitting) >= 1

    def learning_rate(self, progress):
        """Linear warm-up by steps, then a cosine down to a fiftieth by share of the budget."""
        warm = min(1.0, (self.step + 1) / self.args.warmup)
        return self.args.lr * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0))))

    # ---- one step ---------------------------------------------------------------------------------------------------

    def autocast(self):
        if self.args.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def batch(self):
        """x0, t, noise, labels of this step; drawn from (seed, step, rank) alone, so a resumed run sees the same ones.

        Times are stratified over the batch (Kingma et al. 2021, arXiv 2107.00630, appendix I.1); a tenth of the labels
        become the null class (classifier-free guidance, Ho & Salimans 2022).
        """
        n = self.args.batch
        seed = (self.args.seed * 1_000_003 + self.step) * self.world + self.rank
        generator = torch.Generator(self.device).manual_seed(seed)

        def uniform(*shape):
            return torch.rand(*shape, generator=generator, device=self.device)

        pick = torch.randint(len(self.pictures) - self.held_out, (n,), generator=generator, device=self.device)
        x0 = to_signal(self.pictures[pick])
        if self.args.flip:
            x0 = torch.where(uniform(n, 1, 1, 1) < 0.5, x0, x0.flip(3))
        t = self.times((torch.randperm(n, generator=generator, device=self.device) + uniform(1)) / n)
        noise = torch.randn(x0.shape, generator=generator, device=self.device)
        labels = torch.where(uniform(n) < self.args.class_dropout, self.config.null_class, self.labels[pick])
        return x0, t, noise, labels

    def times(self, share):
        """The time steps at shares `[n]` in [0, 1) of all that the network is trained at."""
        return (share * len(self.abar)).long().clamp(max=len(self.abar) - 1)

    def noised(self, x0, t, noise):
        """x_t = sqrt(abar) x0 + sqrt(1 - abar) noise (DDPM equation 4)."""
        abar = self.abar[t][:, None, None, None]
        return (abar.sqrt() * x0 + (1 - abar).sqrt() * noise).contiguous(memory_format=self.layout)

    def answer(self, network, x_t, t, labels):
        """What `network` predicts, float32."""
        with self.autocast():
            return network(x_t, t, labels if self.config.classes else None).float()

    def errors(self, network, x0, t, noise, labels):
        """Mean squared error of epsilon per picture, `[n]`."""
        epsilon = self.answer(network, self.noised(x0, t, noise), t, labels)
        return (epsilon - noise).square().mean((1, 2, 3))

    def loss(self, errors, t):
        """What a step lowers: one number of the pictures' errors `[n]` at their times `[n]`."""
        # These weights are quick to find a picture's forms, but next to blind to its last noise.
        if self.progress() >= self.args.min_snr_until:
            return errors.mean()
        return (self.weights[t] * errors).mean()

    def held_out_error(self, errors, t):
        """What the log tells of held-out pictures."""
        return errors.mean()

    def update(self):
        """One optimizer step; the loss before it, as a tensor."""
        x0, t, noise, labels = self.batch()
        lr = self.learning_rate(self.progress())
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        loss = self.loss(self.errors(self.forward, x0, t, noise, labels), t)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        self.step += 1
        self.images += self.args.batch * self.world
        self.average()
        return loss.detach()

    @torch.no_grad()
    def average(self):
        """EMA with a half-life of `--ema` of the images seen so far: short at first, long at the end."""
        half_life = self.args.ema * self.images
        keep = 0.5 ** (self.args.batch * self.world / half_life)
        ours, theirs = list(self.ema.parameters()), list(self.network.parameters())
        torch._foreach_lerp_(ours, theirs, 1 - keep)

    # ---- looking at it ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def prior(self):
        """The prior of the pictures that are trained on."""
        shown = [values[: len(values) - self.held_out].cpu().numpy() for values in (self.pictures, self.labels)]
        return prior.estimate(*shown, max(self.config.classes, 1), self.args.flip)

    @torch.no_grad()
    def validate(self):
        """The error of the EMA weights on held-out pictures, always with the same times and noise."""
        generator, last = torch.Generator().manual_seed(0), min(self.held_out, self.validated)
        errors, times = [], []
        for x0, labels in zip(self.pictures[-last:].split(128), self.labels[-last:].split(128), strict=True):
            n = len(x0)
            t = self.times((torch.arange(n) / n).to(self.device))
            noise = torch.randn(n, self.config.image_channels, self.config.size, self.config.size, generator=generator)
            errors.append(self.errors(self.ema, to_signal(x0), t, noise.to(self.device), labels))
            times.append(t)
        return self.held_out_error(torch.cat(errors), torch.cat(times)).item()

    def log(self, row):
        """Appends to log.csv and draws loss.png again; rows newer than a restored checkpoint are dropped."""
        path, rows = self.run / "log.csv", []
        if path.exists():
            with path.open() as file:
                rows = [old for old in csv.DictReader(file) if int(old["images"]) < self.images]
        rows.append(dict(zip(LOG_COLUMNS, row, strict=True)))
        partial = path.with_suffix(".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, LOG_COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
        os.replace(partial, path)
        plot(rows, self.run / "loss.png")


@torch.no_grad()
def paint(network, per_class, seed, process, defaults, autocast=contextlib.nullcontext, table=None, prior=None):
    """uint8 `[n, h, w, c]`: `per_class` pictures of each class, one class after the other, walked as the defaults say.

    `table` is the analytic variance of these steps; without one it is beta-tilde. The first step draws from `prior` (a
    prior.Prior), where there is one. Guided where the defaults have guidance.
    """
    config, device = network.config, next(network.parameters()).device
    labels = torch.arange(max(config.classes, 1), device=device).repeat_interleave(per_class)
    shape = (len(labels), config.image_channels, config.size, config.size)
    generator = torch.Generator().manual_seed(seed)

    def noise(_):
        return torch.randn(shape, generator=generator).to(device)

    def predict(x, t, labels):
        with autocast():
            return network(x, torch.full((len(x),), t, device=device), labels if config.classes else None).float()

    answer = diffusion.guided(predict, labels, torch.full_like(labels, config.null_class), defaults.get("guidance", 1))
    kept = diffusion.timesteps(None, process, defaults)
    step = diffusion.reverse_update(kept, process, defaults, table)
    if prior and diffusion.unseen(kept, process):
        z = torch.randn(len(labels), prior.factors.shape[1], generator=generator).numpy()
        x0 = torch.from_numpy(prior.draw(labels.cpu(), z, shape[2:])).to(device)
        answer = diffusion.informed(answer, x0, kept, process)
    *_, (*_, x) = diffusion.trajectory(answer, step, noise(0), kept, noise)
    return diffusion.to_uint8(x.cpu().numpy())


def plot(rows, path):
    """Loss and held-out loss over images seen, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4))
    images = [int(row["images"]) for row in rows]
    axes.loglog(images, [float(row["loss"]) for row in rows], label="training loss")
    axes.loglog(images, [float(row["val_loss"]) for row in rows], label="held-out error, EMA")
    axes.set_xlabel("images")
    axes.grid(True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def sheet(training):
    """Six pictures of each class by the EMA weights, the same noise each time: sheet-<images>.png."""
    pictures = paint(training.ema, 6, 0, training.process, training.defaults, training.autocast, prior=training.prior)
    contact_sheet(pictures, columns=12, scale=enlargement(pictures.shape[1])).save(training.run / f"sheet-{training.images:08d}.png")


def report(training, losses):
    """Validates, saves, logs, and prints the line that it logs; a run that has broken down ends, its last checkpoint whole."""
    loss, val_loss = torch.stack(losses).mean().item(), training.validate()
    if not math.isfinite(loss + val_loss):
        raise SystemExit(f"{training.run}: after {training.images} images the loss is {loss} and the held-out error {val_loss}")
    lr = training.optimizer.param_groups[0]["lr"]
    save_checkpoint(training.checkpoint, training.state())
    training.log([training.images, f"{training.minutes():.2f}", f"{lr:.2e}", f"{loss:.5f}", f"{val_loss:.5f}"])
    print(f"{training.minutes():6.1f} min {training.images:9d} images  lr {lr:.1e}  loss {loss:.4f}  held-out {val_loss:.4f}", flush=True)


def train(training):
    """Runs until the budget is spent or the sitting is over; returns the Training."""
    parameters = sum(p.numel() for p in training.network.parameters())
    if training.rank == 0:
        print(f"{parameters / 1e6:.2f} M parameters on {training.device.type}, {training.images} images already seen", flush=True)
    losses, reported, painted = [], time.monotonic(), time.monotonic()
    while training.progress() < 1 and not training.sitting_is_over():
        losses.append(training.update())
        if training.rank > 0:
            continue
        if time.monotonic() - reported > 60 * training.args.report_minutes:
            report(training, losses)
            losses, reported = [], time.monotonic()
        if time.monotonic() - painted > 60 * training.args.sheet_minutes:
            sheet(training)
            painted = time.monotonic()
    if training.rank == 0 and losses:
        report(training, losses)
        sheet(training)
    if training.world > 1:
        distributed.destroy_process_group()
    return training


def widths(text):
    """`"32,64,96"` -> (32, 64, 96)."""
    return tuple(command_line.count(word) for word in text.split(","))


def levels(text):
    """`"1,2"` -> (1, 2); `""` -> ()."""
    words = text.split(",") if text else []
    if not all(word.isascii() and word.isdigit() for word in words):
        raise argparse.ArgumentTypeError(f"expected levels like 1,2, got {text!r}")
    return tuple(int(word) for word in words)


def add_run(p):
    """The arguments of every run, whatever is trained."""
    count, amount, share = command_line.count, command_line.amount, command_line.share
    p.add_argument("--data", required=True, help="the .npz made by data.py")
    p.add_argument("--out", required=True, help="folder of the checkpoint, the log and the sheets")
    p.add_argument("--minutes", type=amount, help="budget of wall-clock minutes over all starts; the learning rate follows it")
    p.add_argument("--images", type=count, help="budget of training images; with --minutes, whichever ends first")
    p.add_argument("--sitting-minutes", type=amount, help="stop after so many minutes of this start; the next one goes on")
    p.add_argument("--batch", type=count, default=64, help="images per step and process (default %(default)s)")
    p.add_argument("--lr", type=amount, default=6e-4, help="peak learning rate of AdamW (default %(default)s)")
    p.add_argument("--warmup", type=count, default=200, help="steps of linear warm-up (default %(default)s)")
    p.add_argument("--weight-decay", type=command_line.amount_or_none, default=1e-3, help="of AdamW (default %(default)s)")
    p.add_argument("--ema", type=amount, default=0.03, help="EMA half-life as a share of the images seen (default %(default)s)")
    p.add_argument("--class-dropout", type=share, default=0.1, help="share of pictures shown as the null class (default %(default)s)")
    p.add_argument("--flip", action=argparse.BooleanOptionalAction, default=True, help="mirror half of the pictures (default yes)")
    p.add_argument("--precision", choices=("bf16", "fp32"), default="bf16", help="bf16 autocast or plain fp32 (default %(default)s)")
    p.add_argument("--compile", action="store_true", help="torch.compile, on a GPU: a minute to start, faster after")
    p.add_argument("--resume", action=argparse.BooleanOptionalAction, default=True, help="go on from the run's checkpoint (default yes)")
    p.add_argument("--report-minutes", type=amount, default=3.0, help="minutes between checkpoints and log rows (default 3)")
    p.add_argument("--sheet-minutes", type=amount, default=10.0, help="minutes between sample sheets (default 10)")
    p.add_argument("--seed", type=command_line.seed, default=0, help="of the weights and of every batch (default 0)")


def parser():
    count, share = command_line.count, command_line.share
    p = command_line.parser(__doc__)
    add_run(p)
    p.add_argument("--channels", type=widths, default=(32, 64, 96), help="channels per level (default 32,64,96)")
    p.add_argument("--blocks", type=count, default=1, help="residual blocks per level (default 1)")
    p.add_argument("--attention", type=levels, default=(2,), help="levels with attention, 0 the finest (default 2)")
    p.add_argument("--groups", type=count, default=8, help="groups of each GroupNorm (default 8)")
    p.add_argument("--min-snr", type=command_line.amount_or_none, default=5.0, help="gamma of the min-SNR weights, 0 for none (default 5)")
    p.add_argument("--min-snr-until", type=share, default=1.0, help="share of the budget with these weights, then all times weigh the same (default 1)")
    p.add_argument("--start", type=Path, help="a package whose weights the run starts with, instead of chance")
    return p


def checked(p, arguments):
    """The arguments of a run, with a budget."""
    args = p.parse_args(arguments)
    if not args.minutes and not args.images:
        p.error("give a budget: --minutes, --images or both")
    args.command = command_line.spelled(p, args, PLACES_AND_PACE)
    return args


def main(arguments=None):
    train(Training(checked(parser(), arguments)))


if __name__ == "__main__":
    main()
