"""Golden numbers for the Rust mathematics, each from two sources that must agree here first.

    python scripts/golden.py [--out tests/golden]

"published" is published.py, the papers' formulas in float64. "diffusers" runs the schedulers of huggingface/diffusers,
with their float32 tables replaced by float64 ones where the row is about a formula and not about a table. Where both
are right and still differ, the row says why under "differs", and the Rust program follows "published". Nothing here
runs a line of the program that is tested. Takes 10 s; the same files, byte for byte, every time.
"""

import json
import math
from pathlib import Path
from unittest import mock

import command_line
import numpy as np
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from scipy.special import ndtri

import noise
import published

RANGES = {
    "cosine": {},
    "linear": {"beta_start": 1e-4, "beta_end": 0.02},
    "scaled-linear": {"beta_start": 0.00085, "beta_end": 0.012},
}
IN_DIFFUSERS = {"cosine": "squaredcos_cap_v2", "linear": "linear", "scaled-linear": "scaled_linear"}


def numbers(values):
    """Any array as a flat list of JSON numbers; Python prints a float with the 17 digits that give it back."""
    return [float(value) for value in np.asarray(values, np.float64).ravel()]


def agree(name, ours, theirs, tolerance):
    """Stops everything where two sources differ by more than `tolerance`, absolute and relative to values over one."""
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    error = np.max(np.abs(ours - theirs) / np.maximum(1.0, np.abs(ours)))
    assert error <= tolerance, f"{name}: the sources differ by {error:g}"


def abar_of(schedule, train_timesteps=1000):
    return published.alphas_cumprod(published.betas(schedule, train_timesteps, **RANGES[schedule]))


# --- schedules.json


def schedules():
    """Selected betas and alphas_cumprod per schedule. diffusers stores both in float32."""
    made = {}
    wanted = [("cosine", 1000), ("linear", 1000), ("scaled-linear", 1000), ("cosine", 100), ("cosine", 4000)]
    for schedule, steps in wanted:
        betas = published.betas(schedule, steps, **RANGES[schedule])
        abar = published.alphas_cumprod(betas)
        theirs = DDPMScheduler(steps, beta_schedule=IN_DIFFUSERS[schedule], **RANGES[schedule])
        assert theirs.betas.dtype == torch.float32
        np.testing.assert_allclose(theirs.betas, betas, rtol=2e-6, atol=6e-8)
        np.testing.assert_allclose(theirs.alphas_cumprod, abar, rtol=2e-3 if steps == 4000 else 2e-4)

        tenths = [round(steps * k / 20) for k in range(20)]
        chosen = sorted({0, 1, 2, *tenths, steps - 10, steps - 3, steps - 2, steps - 1})
        sources = [("published", betas, abar), ("diffusers", theirs.betas, theirs.alphas_cumprod)]
        made[f"{schedule.replace('-', '_')}_{steps}"] = {
            "schedule": schedule,
            "train_timesteps": steps,
            **RANGES[schedule],
            "sources": [
                {
                    "source": source,
                    **({"differs": "stored as float32"} if source == "diffusers" else {}),
                    "betas": {str(i): float(b[i]) for i in chosen},
                    "alphas_cumprod": {str(i): float(a[i]) for i in chosen},
                }
                for source, b, a in sources
            ],
        }

    cosine = made["cosine_1000"]["sources"][0]
    assert [cosine["betas"][i] for i in ("0", "1", "999")] == [4.128422482196914e-05, 4.6141752736650332e-05, 0.999]
    assert cosine["alphas_cumprod"]["999"] == 2.4287669070348567e-09
    analytic_dpm_table_7()
    return made


def analytic_dpm_table_7():
    """Smallest non-zero beta-tilde of the cosine schedule, as Bao et al. 2022 print it for K = 10, 25, 50, 100."""
    for count, printed in [(10, 4.12e-5), (25, 4.10e-5), (50, 4.04e-5), (100, 3.89e-5)]:
        kept = published.kept_steps(abar_of("cosine"), published.spaced("sections", 1000, count))
        tilde = published.posterior(kept[-2], 0.0, 0.0)[1]
        assert round(tilde, 7) == printed, (count, tilde)


# --- timesteps.json


def diffusers_timesteps(spacing, train_timesteps, steps):
    """(timesteps, prev) by DDPMScheduler, or None for a spacing that it does not have."""
    name, _, argument = spacing.partition(":")
    if name in ("sections", "ddim"):
        return None
    base, _, offset = name.partition("+")
    known = base if base != "explicit" else "leading"
    scheduler = DDPMScheduler(train_timesteps, timestep_spacing=known, steps_offset=int(offset or 0))
    if name == "explicit":
        scheduler.set_timesteps(timesteps=[int(part) for part in argument.split(",")])
    else:
        scheduler.set_timesteps(steps)
    timesteps = scheduler.timesteps.tolist()
    return timesteps, [int(scheduler.previous_timestep(t)) for t in timesteps]


# Where diffusers rounds a float that drifted: at a tie it can go the other way, and np.arange can give one value too
# many, the last one below step 0.
DRIFT = {48: "np.arange drifts off a tie", 61: "np.arange gives a 62nd step, t = -1"}


def timesteps():
    """Kept steps, descending, and for each the one after it (-1 after the last)."""
    wanted = [("sections", n, 1000) for n in (1, 2, 3, 4, 8, 10, 11, 13, 20, 21, 23, 25, 50, 61, 100, 1000)]
    wanted += [("sections", 20, 100), ("sections", 50, 4000)]
    wanted += [("sections:10,10,30", 50, 1000), ("sections:3,2", 5, 10), ("sections:5,5,5", 15, 1000)]
    wanted += [("ddim", n, 1000) for n in (4, 10, 25, 50, 100, 250)]
    for spacing in ("linspace", "leading", "leading+1", "trailing"):
        wanted += [(spacing, n, 1000) for n in (1, 2, 4, 8, 10, 13, 20, 50)]
    wanted += [("linspace", 21, 1000), ("linspace", 1000, 1000), ("linspace", 50, 4000)]
    wanted += [("trailing", 48, 1000), ("trailing", 61, 1000), ("trailing", 7, 100)]
    wanted += [("explicit:999,500,0", 3, 1000), ("explicit:900,17,5", 3, 1000)]

    rows = []
    for spacing, steps, total in wanted:
        ours = published.spaced(spacing, total, steps)
        assert len(ours) == steps and all(a > b for a, b in zip(ours, ours[1:])), (spacing, ours)
        assert 0 <= ours[-1] and ours[0] < total, (spacing, ours)
        row = {"spacing": spacing, "steps": steps, "train_timesteps": total}
        rows.append({**row, "source": "published", "timesteps": ours, "prev": [*ours[1:], -1]})

        theirs = diffusers_timesteps(spacing, total, steps)
        if theirs is None:
            continue
        differs = DRIFT.get(steps) if spacing == "trailing" else None
        assert (theirs[0] == ours) == (differs is None), (spacing, steps, theirs[0], ours)
        assert differs or theirs[1] == [*ours[1:], -1], (spacing, steps, theirs[1])
        why = {"differs": differs} if differs else {}
        rows.append({**row, "source": "diffusers", **why, "timesteps": theirs[0], "prev": theirs[1]})

    notes = {
        4: "0 333 666 999",
        8: "0 143 285 428 571 714 856 999",
        10: "0 111 222 333 444 555 666 777 888 999",
    }
    for count, kept in notes.items():
        assert published.sections(1000, [count])[::-1] == [int(t) for t in kept.split()]
    return rows


# --- steps.json and loops.json: diffusers' own updates, in float64


def threshold_options(clipping):
    """The scheduler options of a clipping as published.clip reads it."""
    if clipping is None:
        return {"clip_sample": False}
    if "clip" in clipping:
        return {"clip_sample": True, "clip_sample_range": clipping["clip"]}
    return {
        "thresholding": True,
        "dynamic_thresholding_ratio": clipping["ratio"],
        "sample_max_value": clipping["max"],
    }


class DiffusersDdpm:
    """diffusers' DDPMScheduler over chosen timesteps, its tables replaced by float64 ones."""

    def __init__(self, case, abar):
        variance = case["variance"].replace("-", "_")
        self.timesteps = [kept.t for kept in case["kept"]]
        self.scheduler = DDPMScheduler(
            len(abar), prediction_type=case["prediction"], variance_type=variance, **threshold_options(case["clipping"])
        )
        self.scheduler.set_timesteps(timesteps=self.timesteps)
        self.scheduler.alphas_cumprod = torch.from_numpy(abar)
        self.scheduler.one = torch.tensor(1.0, dtype=torch.float64)

    def step(self, index, x, output, z):
        """(x_prev, x0) of kept step `index`."""
        with mock.patch("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: torch.from_numpy(z)):
            made = self.scheduler.step(torch.from_numpy(output), self.timesteps[index], torch.from_numpy(x))
        return made.prev_sample.numpy(), made.pred_original_sample.numpy()


class DiffusersDdim:
    """diffusers' DDIMScheduler, trained on exactly the kept steps: it takes t - T // n for the step after t."""

    def __init__(self, case, abar):
        count = len(case["kept"])
        self.eta = case["eta"]
        self.scheduler = DDIMScheduler(count, prediction_type=case["prediction"], **threshold_options(case["clipping"]))
        self.scheduler.set_timesteps(count)
        self.scheduler.alphas_cumprod = torch.tensor([kept.abar for kept in reversed(case["kept"])], dtype=torch.float64)
        self.scheduler.final_alpha_cumprod = torch.tensor(1.0, dtype=torch.float64)

    def step(self, index, x, output, z, again=True):
        t = int(self.scheduler.timesteps[index])
        made = self.scheduler.step(
            torch.from_numpy(output),
            t,
            torch.from_numpy(x),
            eta=self.eta,
            use_clipped_model_output=again,
            variance_noise=torch.from_numpy(z),
        )
        return made.prev_sample.numpy(), made.pred_original_sample.numpy()


class DiffusersDpmSolver:
    """diffusers' DPMSolverMultistepScheduler: dpmsolver++, order 2, midpoint, lower_order_final, final sigma zero.

    It has no clip_sample; thresholding with a largest value of 1 is the same as clipping to [-1, 1]. Its step rounds
    the picture to float32.
    """

    def __init__(self, case, abar):
        clipping = case["clipping"]
        options = {}
        if clipping is not None:
            ratio, most = (0.995, clipping["clip"]) if "clip" in clipping else (clipping["ratio"], clipping["max"])
            assert "clip" not in clipping or most == 1.0
            options = {"thresholding": True, "dynamic_thresholding_ratio": ratio, "sample_max_value": most}
        self.scheduler = DPMSolverMultistepScheduler(
            len(abar),
            algorithm_type="dpmsolver++",
            solver_order=2,
            solver_type="midpoint",
            lower_order_final=True,
            final_sigmas_type="zero",
            prediction_type=case["prediction"],
            **options,
        )
        self.timesteps = [kept.t for kept in case["kept"]]
        self.scheduler.set_timesteps(timesteps=self.timesteps)
        sigmas = [math.sqrt((1 - kept.abar) / kept.abar) for kept in case["kept"]] + [0.0]
        self.scheduler.sigmas = torch.tensor(sigmas, dtype=torch.float64)

    def step(self, index, x, output, z):
        made = self.scheduler.step(torch.from_numpy(output), self.timesteps[index], torch.from_numpy(x))
        return made.prev_sample.numpy(), self.scheduler.model_outputs[-1].numpy()


class Published:
    """The papers' updates. With float32 pictures it shows how far rounding alone can carry a loop."""

    def __init__(self, case):
        self.case = case
        self.x0_before = None

    def step(self, index, x, output, z):
        case, kept = self.case, self.case["kept"][index]
        channels = x.shape[1]
        estimate, fraction = output[:, :channels], output[:, channels:]
        x0 = published.clip(published.to_x0(case["prediction"], x, estimate, kept.abar), case["clipping"])
        if case["sampler"] == "ddpm":
            after = published.ddpm_step(case["kept"], index, x, x0, z, case["variance"], fraction)
        elif case["sampler"] == "ddim":
            after = published.ddim_step(kept, x, x0, z, case["eta"])
        else:
            after = published.dpmpp_2m_step(case["kept"], index, x, x0, self.x0_before)
        self.x0_before = x0
        return after, x0


def diffusers_for(case, abar):
    kinds = {"ddpm": DiffusersDdpm, "ddim": DiffusersDdim, "dpmpp-2m": DiffusersDpmSolver}
    return kinds[case["sampler"]](case, abar)


def make_case(schedule, spacing, steps, sampler, **options):
    """One recipe, with its kept steps; `options` are variance, eta, prediction and clipping."""
    case = {
        "schedule": schedule,
        "train_timesteps": 1000,
        **RANGES[schedule],
        "spacing": spacing,
        "steps": steps,
        "sampler": sampler,
        **({"variance": "fixed-small"} if sampler == "ddpm" else {}),
        **({"eta": 0.0} if sampler == "ddim" else {}),
        "prediction": "epsilon",
        "clipping": {"clip": 1.0},
        **options,
    }
    abar = abar_of(schedule)
    case["kept"] = published.kept_steps(abar, published.spaced(spacing, 1000, steps))
    return case, abar


def described(case):
    return {key: value for key, value in case.items() if key != "kept"}


def float32(values):
    """Values that an f32 holds exactly, as float64."""
    return np.asarray(values, np.float32).astype(np.float64)


def step_inputs(case, kept, seed, shape):
    """A plausible x_t, network answer and noise, exact in f32: a picture a little outside [-1, 1], an answer a little
    off the true one, so that clipping has something to do."""
    picture = 1.5 * noise.normal(seed, 0, shape).astype(np.float64)
    epsilon = noise.normal(seed, 1, shape).astype(np.float64)
    wrong = 0.1 * noise.normal(seed, 2, shape).astype(np.float64)
    x = math.sqrt(kept.abar) * picture + math.sqrt(1 - kept.abar) * epsilon
    velocity = math.sqrt(kept.abar) * epsilon - math.sqrt(1 - kept.abar) * picture
    output = {"epsilon": epsilon, "v_prediction": velocity, "sample": picture}[case["prediction"]] + wrong
    if case.get("variance") == "learned-range":
        output = np.concatenate([output, np.clip(noise.normal(seed, 3, shape), -1, 1)], axis=1)
    return float32(x), float32(output), float32(noise.normal(seed, 4, shape))


def step_cases():
    """(case, abar, index) of every row of steps.json."""
    dynamic = [{"ratio": 0.995, "max": 1.0}, {"ratio": 0.8, "max": 2.0}]
    ancestral = [{"variance": v} for v in ("fixed-small", "fixed-large", "learned-range")]
    for variance in ancestral:
        for index in (0, 5, 8, 9):
            yield *make_case("cosine", "linspace", 10, "ddpm", **variance), index
        for spacing, steps, index in [("leading", 50, 30), ("trailing", 13, 11), ("sections:10,10,30", 50, 44)]:
            yield *make_case("linear", spacing, steps, "ddpm", **variance), index
        yield *make_case("linear", "trailing", 13, "ddpm", **variance), 12
    yield *make_case("scaled-linear", "leading+1", 20, "ddpm"), 7
    for prediction in ("epsilon", "v_prediction", "sample"):
        for clipping in [None, {"clip": 1.0}, {"clip": 0.5}, *dynamic]:
            yield *make_case("cosine", "linspace", 20, "ddpm", prediction=prediction, clipping=clipping), 11
        for eta in (0.0, 0.5, 1.0):
            yield *make_case("cosine", "linspace", 10, "ddim", prediction=prediction, eta=eta), 3
    for eta in (0.0, 0.5, 1.0):
        for clipping in [None, {"clip": 1.0}, dynamic[1]]:
            yield *make_case("linear", "leading", 25, "ddim", eta=eta, clipping=clipping), 12
        for index in (0, 8, 9):
            yield *make_case("cosine", "linspace", 10, "ddim", eta=eta), index


def steps():
    """Single reverse updates: everything that goes in and everything that must come out.

    `tolerance` follows from how far an f32's last bit in the inputs moves the result.
    """
    rows = []
    for number, (case, abar, index) in enumerate(step_cases()):
        kept = case["kept"][index]
        shape = (2, 1, 2, 3) if case["clipping"] and "ratio" in case["clipping"] else (1, 1, 2, 3)
        x, output, z = step_inputs(case, kept, 1000 + number, shape)
        after, x0 = Published(case).step(index, x, output, z)
        expected = [{"source": "published", "prev": numbers(after), "x0": numbers(x0)}]

        upstream = diffusers_for(case, abar)
        their_after, their_x0 = upstream.step(index, x, output, z)
        theirs = {"source": "diffusers", "prev": numbers(their_after), "x0": numbers(their_x0)}
        agree("x0", x0, their_x0, 1e-11)
        last = index == len(case["kept"]) - 1
        if last and kept.t > 0 and case.get("variance") != "fixed-small":
            theirs["differs"] = "adds noise at the last kept step because its t is not 0"
        else:
            agree(f"step {number}", after, their_after, 1e-9)
        expected.append(theirs)

        if case["sampler"] == "ddim" and case["clipping"]:
            plain, _ = upstream.step(index, x, output, z, again=False)
            if np.max(np.abs(plain - after)) > 1e-9:
                why = "use_clipped_model_output off, its default: epsilon is not derived again from the clipped x0"
                expected.append({"source": "diffusers", "differs": why, "prev": numbers(plain), "x0": numbers(x0)})

        ulp = 2.0**-23
        nudged = Published(case).step(index, x * (1 + ulp), output * (1 - ulp), z)
        moved = max(float(np.max(np.abs(nudged[0] - after))), float(np.max(np.abs(nudged[1] - x0))))
        rows.append(
            {
                **described(case),
                "index": index,
                "t": kept.t,
                "shape": list(shape),
                "x": numbers(x),
                "output": numbers(output),
                "noise": numbers(z),
                "tolerance": 2e-6 + 4 * moved,
                "expected": expected,
            }
        )
    return rows


DENOISERS = {
    "half": "epsilon = 0.5 * x * (t + 1) / T",
    "gaussian": "the optimal denoiser of N(m, s^2): x0 = m + sqrt(abar) s^2 (x - sqrt(abar) m) / (abar s^2 + 1 - abar), "
    "epsilon = (x - sqrt(abar) x0) / sqrt(1 - abar), v = sqrt(abar) epsilon - sqrt(1 - abar) x0",
}
NOISE_FORMULA = "noise[i][k] = ((7 i + 3 k) mod 11 - 5) / 4 after kept step i, for element k in C order"
START_FORMULA = "start[k] = (k - 2.5) / 2"
LOOP_SHAPE = (1, 1, 2, 3)


def denoise(case, kept, x):
    """The network's answer to x in closed form; see DENOISERS."""
    if case["denoiser"] == "half":
        return 0.5 * x * (kept.t + 1) / case["train_timesteps"]
    m, s = case["m"], case["s"]
    root, rest = math.sqrt(kept.abar), math.sqrt(1 - kept.abar)
    x0 = m + root * s**2 * (x - root * m) / (kept.abar * s**2 + 1 - kept.abar)
    epsilon = (x - root * x0) / rest
    return {"epsilon": epsilon, "v_prediction": root * epsilon - rest * x0, "sample": x0}[case["prediction"]]


def walk(case, stepper, rounded=np.asarray):
    """(x after the first step, final x) of a whole loop; `rounded` is applied to every picture and answer."""
    count = int(np.prod(LOOP_SHAPE))
    element = np.arange(count)
    x = ((element - 2.5) / 2).reshape(LOOP_SHAPE)
    first = None
    for index, kept in enumerate(case["kept"]):
        z = (((7 * index + 3 * element) % 11 - 5) / 4).reshape(LOOP_SHAPE)
        output = rounded(denoise(case, kept, x))
        x, _ = stepper.step(index, x, output, z)
        x = rounded(x)
        first = x if first is None else first
    return first, x


def loop_cases():
    half = {"denoiser": "half"}
    gaussian = {"denoiser": "gaussian", "m": 0.25, "s": 0.5}
    velocity = {**gaussian, "clipping": None, "prediction": "v_prediction"}
    dynamic = {"denoiser": "gaussian", "m": 0.5, "s": 2.0, "clipping": {"ratio": 0.8, "max": 2.0}}
    for schedule in ("cosine", "linear"):
        for steps in (4, 10, 50):
            yield make_case(schedule, "linspace", steps, "ddpm", **half)
            yield make_case(schedule, "linspace", steps, "ddpm", **gaussian)
        yield make_case(schedule, "leading", 50, "ddpm", variance="fixed-large", **half)
        yield make_case(schedule, "trailing", 13, "ddpm", **half)
        yield make_case(schedule, "sections:10,10,30", 50, "ddpm", **half)
        for eta in (0.0, 0.5, 1.0):
            yield make_case(schedule, "linspace", 10, "ddim", eta=eta, **half)
            yield make_case(schedule, "linspace", 10, "ddim", eta=eta, **gaussian)
            yield make_case(schedule, "linspace", 20, "ddim", eta=eta, **velocity)
        for steps in (2, 4, 10, 20, 50):
            yield make_case(schedule, "linspace", steps, "dpmpp-2m", **gaussian)
            yield make_case(schedule, "linspace", steps, "dpmpp-2m", **velocity)
        yield make_case(schedule, "trailing", 13, "dpmpp-2m", **half)
        for prediction in ("epsilon", "v_prediction", "sample"):
            yield make_case(schedule, "linspace", 10, "ddpm", prediction=prediction, **dynamic)
    yield make_case("scaled-linear", "leading+1", 20, "ddpm", **half)
    yield make_case("cosine", "linspace", 1, "ddpm", **gaussian)
    yield make_case("cosine", "trailing", 1, "ddpm", **gaussian)
    yield make_case("cosine", "linspace", 1000, "ddpm", **gaussian)


def loops():
    """Whole loops on denoisers in closed form. `tolerance`: what f32 pictures and answers alone can change, eightfold."""
    rows = []
    for case, abar in loop_cases():
        first, final = walk(case, Published(case))
        their_first, their_final = walk(case, diffusers_for(case, abar))
        _, single = walk(case, Published(case), float32)
        agree(f"{described(case)}", final, their_final, 3e-6 if case["sampler"] == "dpmpp-2m" else 1e-8)
        tolerance = 2e-6 + 8 * float(np.max(np.abs(single - final)))
        expected = [
            {"source": "published", "first": numbers(first), "final": numbers(final)},
            {"source": "diffusers", "first": numbers(their_first), "final": numbers(their_final)},
        ]
        rows.append({**described(case), "shape": list(LOOP_SHAPE), "tolerance": tolerance, "expected": expected})
    return {"start": START_FORMULA, "noise": NOISE_FORMULA, "denoisers": DENOISERS, "loops": rows}


# --- noise.json


def hex32(value):
    return f"0x{np.float32(value).view(np.uint32):08x}"


def normals():
    """Words, uniforms and normals, and the two mappings behind them on arguments of their own."""
    known = [  # kat_vectors of Random123, philox4x32 with 10 rounds: counter, key, output
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ]
    for counter, key, output in known:
        assert noise.philox4x32(counter, key) == output

    most = 2**64 - 1
    places = [(0, 0, index) for index in range(12)] + [(1, 0, 0), (1, 1, 0), (42, 0, 7), (42, 50, 3071)]
    places += [(2**32, 0, 0), (0, 2**32, 0), (0, 0, 2**34), (0, 0, 2**34 + 1), (most, most, most), (7, most - 1, 5)]
    places += [(0x0123456789ABCDEF, 0xFEDCBA9876543210, 0x1122334455667788)]
    places += tail_places()
    draws = []
    for seed, stream, index in places:
        u = noise.uniform(seed, stream, index)
        value = noise.quantile(u)
        agree(f"normal of {u}", value, ndtri(u), 2e-15)
        draws.append(
            {
                "seed": seed,
                "stream": stream,
                "index": index,
                "word": noise.word(seed, stream, index),
                "uniform": u,
                "normal_bits": hex32(value),
                "normal": value,
                "ndtri": float(ndtri(u)),
            }
        )

    least = 0.5 * 2.0**-32
    arguments = [least, 3 * least, 1e-9, 1e-6, 1e-3, 0.0749999, 0.075, 0.0750001, 0.2, 0.4999999, 0.5 - least, 0.5 + least]
    arguments += [0.7, 0.9249999, 0.925, 0.9250001, 0.999, 1 - 1e-6, 1 - 3 * least, 1 - least, 1e-12, 1e-100, 1e-300]
    quantiles = []
    for u in arguments:
        value = noise.quantile(u)
        np.testing.assert_allclose(value, ndtri(u), rtol=2e-15, atol=1e-16)
        quantiles.append({"u": u, "normal_bits": hex32(value), "normal": value, "ndtri": float(ndtri(u))})

    logarithms = []
    for x in [least, 1e-300, 1e-9, 0.01, 0.07499999, 0.5, 0.7071067811865475, 0.7071067811865476, 1 - 2.0**-52, 1.0, 1.5, 2.0, 1e10]:
        assert abs(noise.ln(x) - math.log(x)) <= math.ulp(math.log(x)), x
        logarithms.append({"x": x, "ln": noise.ln(x)})

    return {
        "format": "philox4x32-10/as241",
        "version": 1,
        "philox": [{"counter": list(c), "key": list(k), "output": list(o)} for c, k, o in known],
        "draws": draws,
        "quantiles": quantiles,
        "logarithms": logarithms,
    }


def tail_places():
    """Indices of stream 0 of seed 0 below 2^16 whose words are the smallest, the largest and nearest to the middle."""
    words = [word for block in range(2**14) for word in noise.philox4x32((block, 0, 0, 0), (0, 0))]
    by_word = np.argsort(np.array(words, np.int64), kind="stable")
    by_middle = np.argsort(np.abs(np.array(words, np.int64) - 2**31), kind="stable")
    return [(0, 0, int(index)) for index in [*by_word[:3], *by_word[-3:], *by_middle[:2]]]


# --- elbo.json


def torch_kl_bits(mean_1, log_variance_1, mean_2, log_variance_2):
    """KL of two Gaussians per dimension in bits, by torch.distributions."""

    def gaussian(mean, log_variance):
        return torch.distributions.Normal(torch.as_tensor(mean), torch.as_tensor(np.exp(0.5 * log_variance)))

    first, second = gaussian(mean_1, log_variance_1), gaussian(mean_2, log_variance_2)
    return float(torch.distributions.kl_divergence(first, second).mean()) / math.log(2)


def tanh_bits(x0, mean, log_scale):
    """The reconstruction term with improved-diffusion's approximate distribution function."""

    def cdf(x):
        return 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    above = np.where(x0 > 0.999, 1.0, cdf((x0 - mean + 1 / 255) / math.exp(log_scale)))
    below = np.where(x0 < -0.999, 0.0, cdf((x0 - mean - 1 / 255) / math.exp(log_scale)))
    return float(np.mean(-np.log(np.maximum(above - below, 1e-12)))) / math.log(2)


def elbo():
    """Terms of the variational bound in bits per dimension, for pictures whose values are exact in f32."""
    shape = (1, 1, 2, 3)
    pictures = [float32([-1.0, -0.5, 0.0, 0.3, 0.9, 1.0]), float32(np.arange(6) * 2 / 255 - 5 / 255)]
    made = {"prior": [], "denoising": [], "reconstruction": []}
    for schedule in RANGES:
        last = float(abar_of(schedule)[-1])
        for picture in pictures:
            bits = published.prior_bits(picture, last)
            theirs = torch_kl_bits(math.sqrt(last) * picture, np.full(6, math.log1p(-last)), np.zeros(6), np.zeros(6))
            agree("prior", bits, theirs, 1e-9)
            made["prior"].append(
                {"schedule": schedule, "train_timesteps": 1000, **RANGES[schedule], "alpha_cumprod": last, "shape": list(shape),
                 "x0": numbers(picture), "source": "published", "bits": bits}
            )  # fmt: skip

    cases = [("linear", 1000, 1), ("linear", 1000, 500), ("linear", 1000, 999), ("cosine", 1000, 500)]
    cases += [("cosine", 10, 0), ("cosine", 10, 5), ("cosine", 10, 8), ("cosine", 1000, 998)]
    for number, (schedule, steps, index) in enumerate(cases):
        for variance in ("fixed-small", "fixed-large"):
            case, _ = make_case(schedule, "linspace", steps, "ddpm", variance=variance)
            made_row = denoising_row(case, min(index, steps - 2), pictures[number % 2].reshape(shape), 2000 + number)
            made["denoising"].append(made_row)
            made["reconstruction"].append(reconstruction_row(case, pictures[number % 2].reshape(shape), 3000 + number))
    return made


def elbo_inputs(kept, picture, seed):
    """x_t of a picture and an answer a tenth off the true epsilon, exact in f32."""
    epsilon = noise.normal(seed, 0, picture.shape).astype(np.float64)
    x = float32(math.sqrt(kept.abar) * picture + math.sqrt(1 - kept.abar) * epsilon)
    return x, float32(epsilon + 0.1 * noise.normal(seed, 1, picture.shape))


def elbo_row(case, index, picture, x, output, x0, bits, source="published"):
    return {
        **described(case), "index": index, "t": case["kept"][index].t, "shape": list(picture.shape), "x0": numbers(picture),
        "x": numbers(x), "output": numbers(output), "x0_predicted": numbers(x0), "source": source, "bits": bits,
    }  # fmt: skip


def model_log_variance(case, index):
    small, large = published.log_variances(case["kept"])
    return (small if case["variance"] == "fixed-small" else large)[index]


def denoising_row(case, index, picture, seed):
    kept = case["kept"][index]
    x, output = elbo_inputs(kept, picture, seed)
    x0 = published.clip(published.to_x0("epsilon", x, output, kept.abar), case["clipping"])
    log_variance = model_log_variance(case, index)
    bits = published.denoising_bits(case["kept"], index, x, picture, x0, log_variance)
    true_mean, tilde = published.posterior(kept, picture, x)
    mean, _ = published.posterior(kept, x0, x)
    full = np.full_like(x, 1.0)
    agree("denoising", bits, torch_kl_bits(true_mean, full * math.log(tilde), mean, full * log_variance), 1e-8)
    return elbo_row(case, index, picture, x, output, x0, bits)


def reconstruction_row(case, picture, seed):
    index = len(case["kept"]) - 1
    kept = case["kept"][index]
    x, output = elbo_inputs(kept, picture, seed)
    x0 = published.clip(published.to_x0("epsilon", x, output, kept.abar), case["clipping"])
    mean, _ = published.posterior(kept, x0, x)
    log_scale = 0.5 * float(model_log_variance(case, index))
    bits = published.reconstruction_bits(picture, mean, log_scale)
    tanh = tanh_bits(picture, mean, log_scale)
    assert abs(bits - tanh) < 0.02 * max(1.0, bits), (bits, tanh)
    return {**elbo_row(case, index, picture, x, output, x0, bits), "improved_diffusion_tanh_bits": tanh}


# --- files


def write(path, value):
    """One row a line, so that a changed number is one changed line."""

    def rows(value, depth):
        if depth and isinstance(value, (dict, list)) and value:
            indent = "  " * (3 - depth)
            if isinstance(value, dict):
                lines = [f"{json.dumps(key)}: {rows(item, depth - 1)}" for key, item in value.items()]
            else:
                lines = [rows(item, depth - 1) for item in value]
            opened, closed = ("{", "}") if isinstance(value, dict) else ("[", "]")
            return f"{opened}\n" + ",\n".join(indent + line for line in lines) + f"\n{indent[2:]}{closed}"
        return json.dumps(value, allow_nan=False)

    depth = 2 if isinstance(value, dict) and path.stem in ("loops", "noise", "elbo") else 1
    text = rows(value, depth) + "\n"
    assert len(text) < 200_000, f"{path} has {len(text)} bytes"
    path.write_text(text)


FILES = {
    "schedules": schedules,
    "timesteps": timesteps,
    "steps": steps,
    "loops": loops,
    "noise": normals,
    "elbo": elbo,
}


def main(arguments=None):
    parser = command_line.parser(__doc__)
    home = Path(__file__).resolve().parent.parent / "tests" / "golden"
    parser.add_argument("--out", type=Path, default=home, help="the folder to write (default tests/golden)")
    out = parser.parse_args(arguments).out
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    for name, make in FILES.items():
        write(out / f"{name}.json", make())


if __name__ == "__main__":
    main()
