"""The network epsilon_theta(x_t, t, class): a small U-Net after Ho et al. 2020 (arXiv 2006.11239), appendix B.

Every layer exports to plain ONNX opset 17 operators with fixed shapes:
`sample` f32 [n, c, h, w], `timestep` int64 [n], `class_labels` int64 [n] -> `epsilon` f32 [n, c, h, w], or `v`.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

import diffusion


@dataclass(frozen=True)
class UNetConfig:
    """The shape of a U-Net. Level 0 is the full picture; each further level halves its sides."""

    image_channels: int = 3
    size: int = 32
    channels: tuple[int, ...] = (32, 64, 96)
    blocks: int = 1  # residual blocks per level going down; one more per level going up
    attention_levels: tuple[int, ...] = (2,)
    head_channels: int = 32
    groups: int = 8
    classes: int = 0  # 0: unconditional; otherwise the null class has index `classes`
    alpha_floor: float = 0.0  # 0: answers with epsilon; otherwise with v, see Velocity

    def __post_init__(self):
        """ValueError with a sentence where no network has this shape."""
        levels, side = len(self.channels), 2 ** (len(self.channels) - 1)
        if self.size % side:
            raise ValueError(f"{levels} levels halve a picture {levels - 1} times, so its side is a multiple of {side}, found {self.size}")
        for width in self.channels:
            if width % self.groups or width % max(1, width // self.head_channels):
                raise ValueError(f"{width} channels do not divide into {self.groups} groups and heads of about {self.head_channels}")
        if not set(self.attention_levels) <= set(range(levels)):
            raise ValueError(f"attention at levels {self.attention_levels}, but they go from 0 to {levels - 1}")

    @property
    def null_class(self):
        return self.classes

    @property
    def embedding_channels(self):
        return 4 * self.channels[0]


class TimeEmbedding(nn.Module):
    """t int64 `[n]` -> `[n, d]`: [cos, sin] of t at geometric frequencies 1 .. 1/10000, then a two-layer perceptron."""

    def __init__(self, frequencies, dim):
        super().__init__()
        half = frequencies // 2
        self.register_buffer("omega", torch.exp(-math.log(10000) * torch.arange(half) / half), persistent=False)
        self.linear_1 = nn.Linear(frequencies, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, timestep):
        phase = timestep.float()[:, None] * self.omega[None]
        waves = torch.cat([phase.cos(), phase.sin()], dim=1)
        return self.linear_2(F.silu(self.linear_1(waves)))


class ResidualBlock(nn.Module):
    """x `[n, c_in, h, w]`, embedding `[n, d]` -> `[n, c_out, h, w]`: x + conv(norm(conv(norm(x)) + embedding))."""

    def __init__(self, channels_in, channels_out, embedding, groups):
        super().__init__()
        self.norm_1 = nn.GroupNorm(groups, channels_in)
        self.conv_1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.time = nn.Linear(embedding, channels_out)
        self.norm_2 = nn.GroupNorm(groups, channels_out)
        self.conv_2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1) if channels_in != channels_out else nn.Identity()
        nn.init.zeros_(self.conv_2.weight)
        nn.init.zeros_(self.conv_2.bias)

    def forward(self, x, embedding):
        h = self.conv_1(F.silu(self.norm_1(x)))
        h = h + self.time(F.silu(embedding))[:, :, None, None]
        h = self.conv_2(F.silu(self.norm_2(h)))
        return self.shortcut(x) + h


class Attention(nn.Module):
    """Self-attention over the pixels of `[n, c, h, w]`, added to its input (Vaswani et al. 2017, equation 1)."""

    def __init__(self, channels, head_channels, groups):
        super().__init__()
        self.heads = max(1, channels // head_channels)
        self.scale = (channels // self.heads) ** -0.5
        self.norm = nn.GroupNorm(groups, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, x):
        n, c, h, w = x.shape
        qkv = self.qkv(self.norm(x))
        q, k, v = (qkv[:, i * c : (i + 1) * c].reshape(n, self.heads, c // self.heads, h * w) for i in range(3))
        weights = torch.softmax(q.transpose(2, 3) @ k * self.scale, dim=-1)
        mixed = v @ weights.transpose(2, 3)
        return x + self.out(mixed.reshape(n, c, h, w))


class Upsample(nn.Module):
    """Twice the height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Velocity(nn.Module):
    """epsilon `[n, c, h, w]` at x_t -> v = (epsilon - sqrt(1 - abar) x_t) / alpha, alpha = max(sqrt(abar), floor).

    So a network that has learned epsilon predicts v without learning anything anew. Where abar is so small that epsilon
    says nothing of the picture, the floor stands in for its root: there the convolutions answer with what makes v.
    """

    def __init__(self, floor):
        super().__init__()
        abar = torch.from_numpy(diffusion.alphas_cumprod())
        alpha = abar.sqrt().clamp(min=floor)
        self.register_buffer("gain", (1 / alpha).float(), persistent=False)
        self.register_buffer("skip", (-(1 - abar).sqrt() / alpha).float(), persistent=False)

    def forward(self, epsilon, sample, timestep):
        gain, skip = (table[timestep][:, None, None, None] for table in (self.gain, self.skip))
        return gain * epsilon + skip * sample


class UNet(nn.Module):
    """Down, middle, up; what each down layer made is concatenated to what the mirrored up layer reads."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        d, groups = config.embedding_channels, config.groups
        self.time = TimeEmbedding(config.channels[0], d)
        self.classes = nn.Embedding(config.classes + 1, d) if config.classes else None
        self.conv_in = nn.Conv2d(config.image_channels, config.channels[0], 3, padding=1)

        def attention(level, channels):
            here = level in config.attention_levels
            return Attention(channels, config.head_channels, groups) if here else nn.Identity()

        self.down, skips, c = nn.ModuleList(), [config.channels[0]], config.channels[0]
        for level, width in enumerate(config.channels):
            for _ in range(config.blocks):
                self.down.append(nn.ModuleList([ResidualBlock(c, width, d, groups), attention(level, width)]))
                skips.append(c := width)
            if level + 1 < len(config.channels):
                self.down.append(nn.Conv2d(c, c, 3, stride=2, padding=1))
                skips.append(c)

        self.middle = nn.ModuleList(
            [ResidualBlock(c, c, d, groups), Attention(c, config.head_channels, groups), ResidualBlock(c, c, d, groups)]
        )

        self.up = nn.ModuleList()
        for level, width in reversed(list(enumerate(config.channels))):
            for _ in range(config.blocks + 1):
                block = ResidualBlock(c + skips.pop(), width, d, groups)
                self.up.append(nn.ModuleList([block, attention(level, width)]))
                c = width
            if level > 0:
                self.up.append(Upsample(c))

        self.norm_out = nn.GroupNorm(groups, c)
        self.conv_out = nn.Conv2d(c, config.image_channels, 3, padding=1)
        nn.init.zeros_(self.conv_out.weight)
        nn.init.zeros_(self.conv_out.bias)
        self.velocity = Velocity(config.alpha_floor) if config.alpha_floor else None

    def forward(self, sample, timestep, class_labels=None):
        """sample x_t `[n, c, h, w]`, timestep int64 `[n]` in 0..T, class_labels int64 `[n]` -> epsilon or v, like sample."""
        embedding = self.time(timestep)
        if self.classes is not None:
            embedding = embedding + self.classes(class_labels)

        h = self.conv_in(sample)
        skips = [h]
        for layer in self.down:
            if isinstance(layer, nn.ModuleList):
                block, attention = layer
                h = attention(block(h, embedding))
            else:
                h = layer(h)
            skips.append(h)

        block_1, attention, block_2 = self.middle
        h = block_2(attention(block_1(h, embedding)), embedding)

        for layer in self.up:
            if isinstance(layer, Upsample):
                h = layer(h)
            else:
                block, attention = layer
                h = attention(block(torch.cat([h, skips.pop()], dim=1), embedding))
        answer = self.conv_out(F.silu(self.norm_out(h)))
        return self.velocity(answer, sample, timestep) if self.velocity is not None else answer
