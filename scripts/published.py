"""The formulas of the papers, written from the papers and OpenAI's code, without diffusers: the only place for them.

`abar` is alphas_cumprod. Kept steps are (t, abar, abar_prev) in sampling order, abar_prev 1 at the last.
Pictures are `[n, c, h, w]`, about [-1, 1] plus noise. Coefficients are numpy float64 scalars: a numpy picture is
computed in float64, whatever it came in, and a torch tensor (epsilon, clipped, fixed variance) in its own type.
"""

import math
from collections import namedtuple
from fractions import Fraction

import numpy as np
from scipy.special import ndtr

Kept = namedtuple("Kept", "t abar abar_prev")


# A grey level of 255 times E|z| of a normal z: the most that sigma^2 may be where the picture is nearly finished
# (Bao et al. 2022, one level for the cosine schedule).
ONE_LEVEL = (2 / 255 * math.sqrt(math.pi / 2)) ** 2


def betas(schedule, train_timesteps, beta_start=None, beta_end=None):
    """betas float64 `[T]` of a schedule as the program writes it: "cosine", "linear", "scaled-linear"."""
    if schedule == "cosine":
        return cosine_betas(train_timesteps)
    formula = {"linear": linear_betas, "scaled-linear": scaled_linear_betas}[schedule]
    return formula(train_timesteps, beta_start, beta_end)


def linear_betas(train_timesteps, beta_start, beta_end):
    """Ho et al. 2020, section 4."""
    return np.linspace(beta_start, beta_end, train_timesteps)


def scaled_linear_betas(train_timesteps, beta_start, beta_end):
    """Linear in the square root: "quad" of Ho et al.'s code, the schedule of latent diffusion."""
    return np.linspace(beta_start**0.5, beta_end**0.5, train_timesteps) ** 2


def cosine_betas(train_timesteps):
    """Nichol & Dhariwal 2021, equation 17, and `betas_for_alpha_bar` of improved-diffusion."""

    def abar(u):
        return math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2

    pairs = ((i / train_timesteps, (i + 1) / train_timesteps) for i in range(train_timesteps))
    return np.array([min(1 - abar(after) / abar(before), 0.999) for before, after in pairs])


def alphas_cumprod(betas):
    """The share of signal variance left after each step, `[T]`."""
    return np.cumprod(1.0 - betas)


def sections(train_timesteps, counts):
    """`space_timesteps` of improved-diffusion respace.py: Python's round, ties to even, of a running sum."""
    size, extra = divmod(train_timesteps, len(counts))
    start, steps = 0, []
    for section, count in enumerate(counts):
        length = size + (section < extra)
        if length < count:
            raise ValueError(f"cannot divide section of {length} steps into {count}")
        stride = 1 if count <= 1 else (length - 1) / (count - 1)
        current = 0.0
        for _ in range(count):
            steps.append(start + round(current))
            current += stride
        start += length
    return sorted(set(steps), reverse=True)


def ddim(train_timesteps, count):
    """`space_timesteps(T, "ddimN")`: the smallest integer stride that keeps exactly `count` steps."""
    for stride in range(1, train_timesteps):
        steps = range(0, train_timesteps, stride)
        if len(steps) == count:
            return list(reversed(steps))
    raise ValueError(f"cannot create exactly {count} steps with an integer stride")


def linspace(train_timesteps, count):
    """Lin et al. 2023 (arXiv 2305.08891), table 2, in exact fractions; ties to even."""
    if count == 1:
        return [0]
    return [round(Fraction((train_timesteps - 1) * k, count - 1)) for k in reversed(range(count))]


def leading(train_timesteps, count, offset):
    stride = train_timesteps // count
    return [k * stride + offset for k in reversed(range(count))]


def trailing(train_timesteps, count):
    """Lin et al. 2023, table 2, in exact fractions; ties to even."""
    return [round(Fraction(train_timesteps * k, count)) - 1 for k in range(count, 0, -1)]


def spaced(spacing, train_timesteps, count):
    """Kept steps, descending, for a spacing as the program writes it: "linspace", "leading+1", "sections:10,10"."""
    name, _, argument = spacing.partition(":")
    if name == "sections":
        return sections(train_timesteps, [int(part) for part in argument.split(",")] if argument else [count])
    if name == "ddim":
        return ddim(train_timesteps, count)
    if name == "linspace":
        return linspace(train_timesteps, count)
    if name == "trailing":
        return trailing(train_timesteps, count)
    if name == "explicit":
        return [int(part) for part in argument.split(",")]
    return leading(train_timesteps, count, int(name.removeprefix("leading") or 0))


def kept_steps(abar, timesteps):
    return [
        Kept(t, abar[t], abar[previous] if previous is not None else 1.0)
        for t, previous in zip(timesteps, [*timesteps[1:], None])
    ]


def to_x0(prediction, x, output, abar):
    """Ho et al. equation 15; Salimans & Ho 2022, appendix D, for v."""
    if prediction == "epsilon":
        return (x - output * np.sqrt(1 - abar)) / np.sqrt(abar)
    if prediction == "v_prediction":
        return x * np.sqrt(abar) - output * np.sqrt(1 - abar)
    assert prediction == "sample"
    return output


def from_x0(prediction, x, x0, abar):
    """The answer that `to_x0` makes x0 of."""
    if prediction == "epsilon":
        return to_epsilon(x, x0, abar)
    if prediction == "v_prediction":
        return to_v(x, x0, abar)
    assert prediction == "sample"
    return x0


def to_epsilon(x, x0, abar):
    return (x - x0 * np.sqrt(abar)) / np.sqrt(1 - abar)


def to_v(x, x0, abar):
    """v = sqrt(abar) epsilon - sqrt(1 - abar) x0: Salimans & Ho 2022, appendix D."""
    return to_epsilon(x, x0, abar) * np.sqrt(abar) - x0 * np.sqrt(1 - abar)


def clip(x0, clipping):
    """`clipping`: None, {"clip": range}, or {"ratio", "max"}: dynamic thresholding, Saharia et al. 2022, section 2.3."""
    if clipping is None:
        return x0
    if "clip" in clipping:
        return x0.clip(-clipping["clip"], clipping["clip"])
    quantiles = [np.quantile(np.abs(picture), clipping["ratio"]) for picture in x0]
    s = np.clip(quantiles, 1.0, clipping["max"]).reshape(-1, 1, 1, 1)
    return np.clip(x0, -s, s) / s


def posterior(kept, x0, x):
    """Mean and variance of q(x_prev | x, x0): Ho et al. equations 6 and 7 with the betas of the kept steps."""
    alpha = kept.abar / kept.abar_prev
    beta = 1 - alpha
    mean = x0 * (beta * np.sqrt(kept.abar_prev) / (1 - kept.abar))
    mean = mean + x * ((1 - kept.abar_prev) * np.sqrt(alpha) / (1 - kept.abar))
    return mean, beta * (1 - kept.abar_prev) / (1 - kept.abar)


def log_variances(kept_list):
    """ln of beta-tilde and of beta for every kept step; the last step takes the beta-tilde of the one before it, as in
    `posterior_log_variance_clipped` and the fixed_large of improved-diffusion."""
    tilde = [posterior(kept, 0.0, 0.0)[1] for kept in kept_list]
    beta = [1 - kept.abar / kept.abar_prev for kept in kept_list]
    if len(kept_list) > 1:
        tilde[-1] = beta[-1] = tilde[-2]
    return np.log(tilde), np.log(beta)


def ddpm_step(kept_list, index, x, x0, noise, variance, fraction=None):
    """Algorithm 2 of Ho et al.; `variance` is a name of the program or sigma^2 per kept step (analytic_variance).

    `fraction` is v of learned_range in [-1, 1] (Nichol & Dhariwal equation 15). The last kept step adds no noise,
    whatever its t.
    """
    kept = kept_list[index]
    mean, tilde = posterior(kept, x0, x)
    if index == len(kept_list) - 1:
        return mean
    if variance == "fixed-small":
        sigma = np.sqrt(tilde)
    elif variance == "fixed-large":
        sigma = np.sqrt(1 - kept.abar / kept.abar_prev)
    elif variance == "learned-range":
        log_tilde, log_beta = log_variances(kept_list)
        f = (fraction + 1) / 2
        sigma = np.exp(0.5 * (f * log_beta[index] + (1 - f) * log_tilde[index]))
    else:
        sigma = np.sqrt(variance[index])
    return mean + noise * sigma


def analytic_variance(kept_list, powers):
    """sigma^2 of every kept step: Bao et al. 2022 (Analytic-DPM, arXiv 2201.06503), theorem 1.

    `powers` is E ||epsilon_theta(x_t, t)||^2 / d at each of them. As in that paper's code, the variance of x0 given x_t
    that follows from it is clipped to [0, 1], the bounds for data in [-1, 1]; where abar is tiny an error of the
    expectation would otherwise be multiplied by 1 / abar. So every entry lies between beta-tilde and the upper bound
    of theorem 2. The last step adds no noise and has 0; the one before it is at most ONE_LEVEL.
    """
    table = []
    for kept, power in zip(kept_list[:-1], powers):
        weight, tilde = posterior(kept, 1.0, 0.0)
        x0_variance = min(max((1 - kept.abar) / kept.abar * (1 - power), 0.0), 1.0)
        table.append(tilde + weight**2 * x0_variance)
    if table:
        table[-1] = min(table[-1], ONE_LEVEL)
    return [*table, 0.0]


def ddim_step(kept, x, x0, noise, eta):
    """Song et al. 2021, equations 12 and 16; epsilon is derived again from the clipped x0, as improved-diffusion does."""
    epsilon = to_epsilon(x, x0, kept.abar)
    tilde = (1 - kept.abar_prev) / (1 - kept.abar) * (1 - kept.abar / kept.abar_prev)
    sigma = eta * np.sqrt(tilde)
    direction = np.sqrt(max(1 - kept.abar_prev - sigma**2, 0.0))
    return x0 * np.sqrt(kept.abar_prev) + epsilon * direction + noise * sigma


def dpmpp_2m_step(kept_list, index, x, x0, x0_before):
    """Lu et al. 2022 (arXiv 2211.01095), algorithm 2; `x0_before` is the step before's.

    The first step is of order 1 for want of an earlier x0. The last goes to lambda = infinity and is x0 itself.
    """

    def half_log_snr(abar):
        return 0.5 * math.log(abar / (1 - abar))

    kept = kept_list[index]
    if index == len(kept_list) - 1:
        return x0
    h = half_log_snr(kept.abar_prev) - half_log_snr(kept.abar)
    data = x0
    if index > 0:
        r = (half_log_snr(kept.abar) - half_log_snr(kept_list[index - 1].abar)) / h
        data = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before
    carried = x * np.sqrt((1 - kept.abar_prev) / (1 - kept.abar))
    return carried - data * (np.sqrt(kept.abar_prev) * math.expm1(-h))


def prior_bits(x0, abar_last):
    """KL(q(x_T | x_0) || N(0, 1)) per dimension in bits: L_T of Ho et al. equation 5, in closed form."""
    variance = 1 - abar_last
    nats = 0.5 * (variance + abar_last * x0**2 - 1 - math.log(variance))
    return float(np.mean(nats)) / math.log(2)


def denoising_bits(kept_list, index, x, x0_true, x0_predicted, log_variance):
    """KL(q(x_prev | x, x0) || p(x_prev | x)) per dimension in bits: L_{t-1} of Ho et al. equation 5.

    The true posterior has the clipped log variance of improved-diffusion; `log_variance` is the model's.
    """
    true_mean, _ = posterior(kept_list[index], x0_true, x)
    mean, _ = posterior(kept_list[index], x0_predicted, x)
    true_log_variance = log_variances(kept_list)[0][index]
    nats = 0.5 * (
        log_variance
        - true_log_variance
        - 1.0
        + np.exp(true_log_variance - log_variance)
        + (true_mean - mean) ** 2 * np.exp(-log_variance)
    )
    return float(np.mean(nats)) / math.log(2)


def reconstruction_bits(x0, mean, log_scale):
    """-log2 p(x_0 | x_1) per dimension: the discretised Gaussian of Ho et al. equation 13, bins 2/255 wide.

    Probabilities below 1e-12 count as 1e-12, as in improved-diffusion.
    """
    scale = np.exp(log_scale)
    above = np.where(x0 > 0.999, 1.0, ndtr((x0 - mean + 1 / 255) / scale))
    below = np.where(x0 < -0.999, 0.0, ndtr((x0 - mean - 1 / 255) / scale))
    nats = -np.log(np.maximum(above - below, 1e-12))
    return float(np.mean(nats)) / math.log(2)
