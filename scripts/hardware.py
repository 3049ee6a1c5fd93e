"""The machine that something was trained or measured on."""

import platform
from pathlib import Path

# What the kernels of networks are chosen by, as /proc/cpuinfo spells it.
VECTORS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "asimd", "asimdhp", "asimddp", "i8mm")


def processor(cpuinfo=Path("/proc/cpuinfo")):
    """The processor's name and its vector instructions: machines of one name differ in them, and in which file is faster."""
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")]
    vectors = [vector for vector in VECTORS if vector in text.split()]
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({', '.join(vectors)})" if vectors else name
