"""The engines that peers.py compares, each in a process of its own that obeys its standard input.

    python scripts/peer_engines.py ENGINE WORK NAME KIND THREADS    (peers.py starts it, and pins it)

Loads one file of peer_networks.py, says so in a line of JSON, and then answers every line of its standard input by one:
`run K` by the milliseconds of K evaluations, `answer FILE` by writing one as .npy, `memory` by its peak. It imports
nothing but numpy and its engine, so that its memory is theirs.

Another engine is a class like these, in ENGINES: `module` is its package, `__init__` loads and `__call__` evaluates once.
"""

import importlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PROGRAM = "DRIFTGLASS"  # the environment variable that says where driftglass is
UNTIMED = 2  # evaluations at the start of each `run`, after other engines had the caches


class Refused(Exception):
    """This engine has no way to evaluate this file."""


class Engine:
    """`inputs` are arrays by name; `work`, `name` and `kind` say which file, as in peer_networks.py."""

    load_ms = None  # where the engine does not say it, how long __init__ took

    def times_ms(self, count):
        """The milliseconds of `count` evaluations."""
        for _ in range(UNTIMED):
            self()
        times = []
        for _ in range(count):
            start = time.perf_counter()
            self()
            times.append(1e3 * (time.perf_counter() - start))
        return times

    def peak_bytes(self):
        """The most memory that the process ever had."""
        return peak_bytes()


class OnnxRuntime(Engine):
    title = product = "ONNX Runtime"
    module = "onnxruntime"

    def __init__(self, work, name, kind, threads, inputs):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.log_severity_level = 3
        path = str(work / f"{name}.{kind}.onnx")
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = inputs

    def __call__(self):
        return self.session.run(None, self.inputs)[0]


class OpenVino(Engine):
    title = product = "OpenVINO"
    module = "openvino"

    def __init__(self, work, name, kind, threads, inputs):
        import openvino

        # Without the hint a processor that has bfloat16 would compute in it.
        settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        core = openvino.Core()
        try:
            model = core.read_model(work / f"{name}.{kind}.onnx")
            self.request = core.compile_model(model, "CPU", settings).create_infer_request()
        except RuntimeError as fault:
            raise Refused(str(fault).strip().splitlines()[-1]) from None
        self.inputs = inputs

    def __call__(self):
        return self.request.infer(self.inputs)[0]


class Ncnn(Engine):
    """Floats only: its wheel has no quantizer."""

    title = product = "ncnn"
    module = "ncnn"
    FILES = {"fp32": "ncnn", "fp16": "ncnn-fp16"}

    def __init__(self, work, name, kind, threads, inputs):
        import ncnn

        if kind not in self.FILES:
            raise Refused("no quantizer in the wheel")
        self.ncnn, self.net = ncnn, ncnn.Net()
        self.net.opt.num_threads = threads
        stem = work / f"{name}.{self.FILES[kind]}"
        if self.net.load_param(f"{stem}.param") or self.net.load_model(f"{stem}.bin"):
            raise Refused(f"{stem}.param does not load")
        # Numbers are floats, the batch is no dimension, and the class is in the network.
        wanted = [inputs["sample"][0], inputs["timestep"]]
        self.inputs = [np.ascontiguousarray(array, np.float32) for array in wanted]

    def __call__(self):
        # A Mat of an array borrows it, and a layer that works in place ends the process on such a one.
        with self.net.create_extractor() as extractor:
            for index, array in enumerate(self.inputs):
                extractor.input(f"in{index}", self.ncnn.Mat(array).clone())
            failed, answer = extractor.extract("out0")
            assert not failed, "ncnn did not evaluate the network"
            return np.array(answer)[None]


class Driftglass(Engine):
    """`driftglass onnx bench`: the whole graph in each evaluation, as the peers are timed."""

    title = product = "driftglass"
    module = None

    def __init__(self, work, name, kind, threads, inputs):
        self.program = os.environ[PROGRAM]
        self.onnx, self.threads = work / f"{name}.{kind}.onnx", threads
        self.io = work / f"{name}.io.npz"
        self.place = work, name, kind
        self.told = self.bench(1)
        self.load_ms = self.told["load_ms"]

    def tell(self, *arguments):
        """The program's standard output."""
        command = [self.program, *map(str, arguments), "--threads", str(self.threads)]
        ended = subprocess.run(command, capture_output=True, text=True)
        if ended.returncode:
            raise Refused(ended.stderr.strip())
        return ended.stdout

    def bench(self, count):
        """What one run of the program tells of `count` evaluations."""
        return json.loads(self.tell("onnx", "bench", self.onnx, "--inputs", self.io, "--rounds", count, "--json"))

    def times_ms(self, count):
        self.told = self.bench(count)
        return [self.told["median_ms"]]

    def __call__(self):
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "made.npz"
            self.tell("onnx", "run", self.onnx, "--inputs", self.io, "--outputs", made)
            with np.load(made) as arrays:
                return next(iter(arrays.values()))

    def peak_bytes(self):
        return self.told["peak_rss_bytes"]


class DriftglassWalk(Driftglass):
    """`driftglass bench`: the steps of a picture, with what depends on the time step alone computed before the first."""

    title = "driftglass, in a walk"

    def bench(self, count):
        from peer_networks import package_of

        folder, precision = package_of(*self.place)
        return json.loads(self.tell("bench", "--model", folder, "--precision", precision, "--steps", max(count, 3), "--json"))


ENGINES = {
    "driftglass": Driftglass,
    "driftglass-walk": DriftglassWalk,
    "onnxruntime": OnnxRuntime,
    "ncnn": Ncnn,
    "openvino": OpenVino,
}


def version(engine):
    """The version of one of ENGINES; None where it is not installed."""
    kind = ENGINES[engine]
    if kind.module is None:
        told = subprocess.run([os.environ[PROGRAM], "--version"], capture_output=True, text=True)
        return told.stdout.split()[-1] if told.returncode == 0 else None
    try:
        return importlib.metadata.version(kind.module)
    except importlib.metadata.PackageNotFoundError:
        return None


def peak_bytes():
    """The most memory that this process ever had: VmHWM of Linux."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def obey(engine, line):
    """Does what a line of the standard input says, and returns the answer."""
    command, *words = line.split(maxsplit=1)
    if command == "run":
        return {"ms": engine.times_ms(int(words[0]))}
    if command == "answer":
        np.save(words[0], np.asarray(engine(), np.float32))
        return {}
    assert command == "memory", f"expected run, answer or memory, got {line!r}"
    return {"peak_bytes": engine.peak_bytes()}


def main(arguments):
    engine, work, name, kind, threads = arguments
    # Engines talk; what they say must not come between two answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def tell(answer):
        print(json.dumps(answer), file=answers, flush=True)

    work, bare_bytes = Path(work), peak_bytes()
    with np.load(work / f"{name}.io.npz") as arrays:
        inputs = {key: array for key, array in arrays.items() if key != "epsilon"}
    made = ENGINES[engine]
    if made.module:
        importlib.import_module(made.module)
    try:
        start = time.perf_counter()
        engine = made(work, name, kind, int(threads), inputs)
        load_ms = engine.load_ms or 1e3 * (time.perf_counter() - start)
        tell({"load_ms": load_ms, "bare_bytes": bare_bytes})
        for line in sys.stdin:
            tell(obey(engine, line.rstrip("\n")))
    except Refused as fault:
        tell({"refused": str(fault)})


if __name__ == "__main__":
    main(sys.argv[1:])
