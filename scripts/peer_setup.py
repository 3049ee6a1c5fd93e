"""The virtual environment that peers.py runs in, made from the Python registry; needs nothing but Python itself."""

import os
import subprocess
import sys
import venv
from pathlib import Path

OPTION = "--setup"
REQUIREMENTS = Path(__file__).resolve().parent / "requirements.txt"
PEERS = ("onnxruntime==1.32.0", "ncnn==1.0.20261020", "pnnx==20261020", "openvino==2026.4.1")


def wanted_folder(arguments):
    """The folder that --setup names, None where it is not among the arguments."""
    for word, following in zip(arguments, [*arguments[1:], None]):
        if word == OPTION and following is not None:
            return Path(following)
        if word.startswith(f"{OPTION}="):
            return Path(word.removeprefix(f"{OPTION}="))
    return None


def install(python, packages):
    if subprocess.run([python, "-m", "pip", "install", "--quiet", *packages]).returncode:
        raise SystemExit(f"{python}: pip could not install {' '.join(map(str, packages))}")


def enter(arguments):
    """Where --setup is among the arguments: makes that environment and begins again in it."""
    folder = wanted_folder(arguments)
    if folder is None or folder.resolve() == Path(sys.prefix).resolve():
        return
    python = folder / "bin" / "python"
    if not python.is_file():
        venv.create(folder, with_pip=True)
    # Two calls: the peers are newer than what the package's errors were measured with.
    install(python, ["-r", REQUIREMENTS])
    install(python, PEERS)
    os.execv(python, [str(python), *sys.argv])
