"""Seeded Gaussian noise, format "philox4x32-10/as241" version 1: the same bits from Python as from the Rust program.

word(seed, stream, index) is output `index % 4` of Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3") with key [seed lo, seed hi] and counter [index / 4 lo, hi, stream lo, hi]. uniform = (word + 0.5) / 2^32.
normal = the quantile of uniform by AS241 (Wichura 1988), rounded to f32. Streams: 0 is the starting noise, 1 + i the
noise injected after kept step i.

Only + - * / and the square root are used on floats, all exact to the last bit by IEEE 754; the logarithm is our own.
"""

import math
import struct

import numpy as np

MASK = 0xFFFFFFFF

# e_log.c of fdlibm (Sun Microsystems 1993): minimax polynomial of log(1+f) in s = f / (2 + f).
LN2_HI = float.fromhex("0x1.62e42feep-1")
LN2_LO = float.fromhex("0x1.a39ef35793c76p-33")
LG = [
    float.fromhex(value)
    for value in (
        "0x1.5555555555593p-1",
        "0x1.999999997fa04p-2",
        "0x1.2492494229359p-2",
        "0x1.c71c51d8e78afp-3",
        "0x1.7466496cb03dep-3",
        "0x1.39a09d078c69fp-3",
        "0x1.2f112df3e5244p-3",
    )
]

# AS241 routine PPND16, coefficients from the constant term upwards.
A = [
    3.3871328727963666080e0, 1.3314166789178437745e2, 1.9715909503065514427e3, 1.3731693765509461125e4,
    4.5921953931549871457e4, 6.7265770927008700853e4, 3.3430575583588128105e4, 2.5090809287301226727e3,
]  # fmt: skip
B = [
    1.0, 4.2313330701600911252e1, 6.8718700749205790830e2, 5.3941960214247511077e3,
    2.1213794301586595867e4, 3.9307895800092710610e4, 2.8729085735721942674e4, 5.2264952788528545610e3,
]  # fmt: skip
C = [
    1.42343711074968357734e0, 4.63033784615654529590e0, 5.76949722146069140550e0, 3.64784832476320460504e0,
    1.27045825245236838258e0, 2.41780725177450611770e-1, 2.27238449892691845833e-2, 7.74545014278341407640e-4,
]  # fmt: skip
D = [
    1.0, 2.05319162663775882187e0, 1.67638483018380384940e0, 6.89767334985100004550e-1,
    1.48103976427480074590e-1, 1.51986665636164571966e-2, 5.47593808499534494600e-4, 1.05075007164441684324e-9,
]  # fmt: skip
E = [
    6.65790464350110377720e0, 5.46378491116411436990e0, 1.78482653991729133580e0, 2.96560571828504891230e-1,
    2.65321895265761230930e-2, 1.24266094738807843860e-3, 2.71155556874348757815e-5, 2.01033439929228813265e-7,
]  # fmt: skip
F = [
    1.0, 5.99832206555887937690e-1, 1.36929880922735805310e-1, 1.48753612908506148525e-2,
    7.86869131145613259100e-4, 1.84631831751005468180e-5, 1.42151175831644588870e-7, 2.04426310338993978564e-15,
]  # fmt: skip


def philox4x32(counter, key):
    """Four 32-bit words from a counter of four words and a key of two: ten rounds, section 2.2 of Salmon et al."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        left, right = 0xD2511F53 * c0, 0xCD9E8D57 * c2
        c0, c1, c2, c3 = (right >> 32) ^ c1 ^ k0, right & MASK, (left >> 32) ^ c3 ^ k1, left & MASK
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def word(seed, stream, index):
    """The 32-bit word at `index` of a stream; seed, stream and index are 64-bit."""
    block = index // 4
    counter = (block & MASK, block >> 32, stream & MASK, stream >> 32)
    return philox4x32(counter, (seed & MASK, seed >> 32))[index % 4]


def ln(x):
    """Natural logarithm of a positive, normal x: x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)], as in fdlibm."""
    high, low = struct.unpack(">II", struct.pack(">d", x))
    high += 0x3FF00000 - 0x3FE6A09E
    k = (high >> 20) - 0x3FF
    high = (high & 0x000FFFFF) + 0x3FE6A09E
    return ln_of_parts(k, struct.unpack(">d", struct.pack(">II", high, low))[0] - 1.0)


def ln_of_parts(k, f):
    """The logarithm of 2^k (1 + f)."""
    half_square = 0.5 * f * f
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    t1 = w * (LG[1] + w * (LG[3] + w * LG[5]))
    t2 = z * (LG[0] + w * (LG[2] + w * (LG[4] + w * LG[6])))
    r = t2 + t1
    return s * (half_square + r) + k * LN2_LO - half_square + f + k * LN2_HI


def horner(coefficients, r):
    total = 0.0
    for coefficient in reversed(coefficients):
        total = total * r + coefficient
    return total


def quantile(u):
    """The u-quantile of the standard normal distribution, u in (0, 1): AS241, routine PPND16, about 1e-16 accurate."""
    q = u - 0.5
    if abs(q) <= 0.425:
        r = 0.180625 - q * q
        return q * horner(A, r) / horner(B, r)
    r = math.sqrt(-ln(u if q < 0.0 else 1.0 - u))
    if r <= 5.0:
        r -= 1.6
        value = horner(C, r) / horner(D, r)
    else:
        r -= 5.0
        value = horner(E, r) / horner(F, r)
    return -value if q < 0.0 else value


def uniform(seed, stream, index):
    return (word(seed, stream, index) + 0.5) * 2.0**-32


def normal(seed, stream, shape):
    """Standard normal numbers, f32, C order: element k is index k of the stream."""
    count = math.prod(shape)
    values = [quantile(uniform(seed, stream, index)) for index in range(count)]
    return np.array(values, np.float32).reshape(shape)


def words(seeds, stream, count):
    """The first `count` words of a stream under each of `seeds`: uint32 `[seeds, count]`, as `word` gives them."""
    blocks, seeds = np.arange(-(-count // 4), dtype=np.uint64), np.asarray(seeds, np.uint64)[:, None]
    mask, half = np.uint64(MASK), np.uint64(32)
    counter = (blocks & mask, blocks >> half, np.uint64(stream & MASK), np.uint64(stream >> 32))
    counter = [np.broadcast_to(part, (len(seeds), len(blocks))) for part in counter]
    found = np.stack(philox4x32(counter, (seeds & mask, seeds >> half)), axis=-1)
    return found.astype(np.uint32).reshape(len(seeds), -1)[:, :count]


def lns(x):
    """`ln` of every number of a float64 array."""
    high, low = (x.view(np.uint64) >> np.uint64(32)).astype(np.int64), x.view(np.uint64) & np.uint64(MASK)
    high += 0x3FF00000 - 0x3FE6A09E
    k = (high >> 20) - 0x3FF
    high = (high & 0x000FFFFF) + 0x3FE6A09E
    f = (high.astype(np.uint64) << np.uint64(32) | low).view(np.float64) - 1.0
    return ln_of_parts(k, f)


def normals(seeds, stream, shape):
    """`normal` of each of `seeds`, f32 `[seeds, *shape]`: the same bits, computed side by side."""
    u = (words(seeds, stream, math.prod(shape)).astype(np.float64) + 0.5) * 2.0**-32
    q = u - 0.5
    r = 0.180625 - q * q
    values = q * horner(A, r) / horner(B, r)
    outside = np.abs(q) > 0.425
    u, q = u[outside], q[outside]
    r = np.sqrt(-lns(np.where(q < 0.0, u, 1.0 - u)))
    near, far = r - 1.6, r - 5.0
    tail = np.where(r <= 5.0, horner(C, near) / horner(D, near), horner(E, far) / horner(F, far))
    values[outside] = np.where(q < 0.0, -tail, tail)
    return values.astype(np.float32).reshape(len(seeds), *shape)


def of_walk(seed, shape, steps):
    """(start, injected) of a walk of `steps` steps: f32 `shape` and `[steps, *shape]`, the last injected noise zero."""
    injected = [normal(seed, 1 + index, shape) for index in range(steps - 1)]
    return normal(seed, 0, shape), np.stack([*injected, np.zeros(shape, np.float32)])
