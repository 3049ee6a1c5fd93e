"""The walk from noise to picture that a model is made for: which steps are kept, and the reverse update of each.

A walk is described as in model.toml, by [diffusion] and [defaults]; PROCESS and DEFAULTS are those of every model that
train.py trains. The formulas are published.py's. x may be a numpy array or a torch tensor `[n, c, h, w]`, about [-1, 1]
plus noise.
"""

import numpy as np

import published

PROCESS = {"train-timesteps": 1000, "schedule": "cosine", "prediction": "epsilon", "clip": 1.0}
UNSEEN = 1e-4  # the largest alpha_bar at which nothing of a picture can be seen
DEFAULTS = {"steps": 25, "sampler": "ddpm", "spacing": "trailing", "variance": "fixed-small"}


def alphas_cumprod(process=PROCESS):
    """The share of signal variance left after each step, float64 `[T]`."""
    if process["schedule"] == "table":
        return published.alphas_cumprod(np.array(process["betas"]))
    betas = published.betas(process["schedule"], process["train-timesteps"], process.get("beta-start"), process.get("beta-end"))
    return published.alphas_cumprod(betas)


def timesteps(steps=None, process=PROCESS, defaults=DEFAULTS):
    """The kept steps, descending, ints; `steps` of them, or as many as the defaults say."""
    return published.spaced(defaults["spacing"], process["train-timesteps"], steps or defaults["steps"])


def reverse_update(kept, process=PROCESS, defaults=DEFAULTS, table=None):
    """The reverse updates over the kept steps `kept` as one function: step(index, x, output, noise) -> next x.

    `table` is the analytic variance of just these steps; without it beta-tilde stands for it, as where driftglass
    checks a model. dpmpp-2m, which needs no noise, is walked as ddpm.
    """
    kept_list = published.kept_steps(alphas_cumprod(process), kept)
    clipping = {"clip": process["clip"]} if "clip" in process else process.get("threshold")
    variance = defaults["variance"]
    if variance == "analytic":
        variance = "fixed-small" if table is None else table

    def step(index, x, output, noise):
        now, channels = kept_list[index], x.shape[1]
        estimate, fraction = output[:, :channels], output[:, channels:]
        x0 = published.clip(published.to_x0(process["prediction"], x, estimate, now.abar), clipping)
        if defaults["sampler"] == "ddim":
            return published.ddim_step(now, x, x0, noise, eta=0.0)
        return published.ddpm_step(kept_list, index, x, x0, noise, variance, fraction)

    return step


def trajectory(predict, step, start, kept, noise):
    """Walks `kept` from `start`, yielding (t, x_t, output, x_next) after each reverse update; the last x_next is x0.

    `predict(x, t)` is the network, `step` a reverse_update; `noise(index)` is what step `index` injects.
    """
    x = start
    for index, t in enumerate(kept):
        output = predict(x, int(t))
        x_next = step(index, x, output, noise(index))
        yield int(t), x, output, x_next
        x = x_next


def unseen(kept, process=PROCESS):
    """Whether nothing of a picture can be seen at the first kept step, so that a prior says more than the network."""
    return alphas_cumprod(process)[kept[0]] <= UNSEEN


def informed(answer, x0, kept, process=PROCESS):
    """`answer(x, t)`, but at the first kept step the answer from which x0 follows: prior.py's."""
    abar = alphas_cumprod(process)[kept[0]]

    def predict(x, t):
        return published.from_x0(process["prediction"], x, x0, abar) if t == kept[0] else answer(x, t)

    return predict


def guided(predict, label, null, weight):
    """`predict(x, t, label)` as a function of x and t, the picture made more like its class by classifier-free guidance.

    null + weight (class - null) of two answers, `null` being the label that stands for no class (Ho & Salimans 2022,
    arXiv 2207.12598, with the weight as it is usually written since Imagen): 1 is the network as it is.
    """

    def answer(x, t):
        of_class = predict(x, t, label)
        if weight == 1:
            return of_class
        of_none = predict(x, t, null)
        return of_none + weight * (of_class - of_none)

    return answer


def from_uint8(pictures):
    """0..255 -> [-1, 1]; uint8 `[n, h, w, c]` -> float32 `[n, c, h, w]`."""
    return (pictures.transpose(0, 3, 1, 2) / np.float32(127.5) - 1).astype(np.float32)


def to_uint8(x):
    """[-1, 1] -> 0..255, rounded as diffusers does; numpy `[n, c, h, w]` -> uint8 `[n, h, w, c]`."""
    return np.round(np.clip(x * 0.5 + 0.5, 0, 1) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
