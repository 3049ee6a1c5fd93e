"""Times driftglass beside ONNX Runtime, ncnn and OpenVINO on the same networks, and writes docs/performance.md.

    python scripts/peers.py --setup ../peers-venv    makes a virtual environment of them, then runs in it
    python scripts/peers.py --work ../peers          runs in this one, and keeps the networks in ../peers

Each engine has a process of its own, pinned to as many processors as it has threads, the first of those that this one
may use (taskset chooses). All of them load the same file and evaluate it in turn, some evaluations each, over several
rounds, so that what else the machine does meets everyone; ratios are taken within a round. Every answer is compared
with that of ONNX Runtime without its optimizations on the same file: who computes something else wins nothing.

On two cores that nothing else uses it takes half an hour, besides three minutes for making the networks once.
"""

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import command_line
import peer_setup

if __name__ == "__main__":
    peer_setup.enter(sys.argv[1:])  # before the packages that it installs

import numpy as np

import hardware
import package
import peer_engines
import peer_networks
from peer_engines import ENGINES

HOME = Path(__file__).resolve().parent.parent
OURS = ("driftglass", "driftglass-walk")
MARKERS = "<!-- peers: begin -->", "<!-- peers: end -->"
LOADS = 3  # processes of an engine that tell how long loading takes
PAUSE_S = 0.05  # between two engines: threads of the last one still spin

# The relative deviation (root mean square) from the same file's answer that another order of sums, or another rounding
# of levels, explains. int8 has more: one level off anywhere is another input to all that follows.
ALLOWED = {"fp32": 5e-3, "fp16": 5e-3, "int8": 0.1}


class Lost(Exception):
    """An engine cannot do this file; the text says why."""


class Process:
    """peer_engines.py with one engine and one file."""

    def __init__(self, engine, work, name, kind, threads, cpus):
        command = [sys.executable, peer_engines.__file__, engine, work, name, kind, threads]
        self.told = tempfile.TemporaryFile()
        self.child = subprocess.Popen(
            [*map(str, command)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.told,
            text=True,
            # Before Python begins, since numpy starts threads as well.
            preexec_fn=lambda: os.sched_setaffinity(0, cpus),
        )
        self.loaded = self.read()

    def read(self):
        line = self.child.stdout.readline()
        if not line:
            code = self.child.wait()
            self.told.seek(0)
            tail = self.told.read().decode(errors="replace").strip().splitlines()[-1:]
            self.close()
            raise Lost(f"ended by signal {-code}" if code < 0 else f"ended with {code}: {''.join(tail)}")
        answer = json.loads(line)
        if "refused" in answer:
            self.close()
            raise Lost(answer["refused"])
        return answer

    def ask(self, line):
        with contextlib.suppress(BrokenPipeError):  # what is left to read says more
            print(line, file=self.child.stdin, flush=True)
        return self.read()

    def close(self):
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.close()
        self.child.wait()
        self.child.stdout.close()
        self.told.close()


@dataclasses.dataclass
class Row:
    """What one engine did with one file on some threads; `lost` says why it did nothing."""

    ms: list = dataclasses.field(default_factory=list)  # one median per round
    load_ms: float | None = None
    peak_bytes: int | None = None
    bare_bytes: int | None = None  # of the process before it knew its engine
    max_abs: float | None = None  # deviation from the same file's answer
    relative_rms: float | None = None
    lost: str | None = None

    def median_ms(self):
        return statistics.median(self.ms)

    def right(self, kind):
        """Whether it computed what the file says."""
        return self.lost is None and self.relative_rms <= ALLOWED.get(kind, ALLOWED["int8"])


def deviation(answer, expected):
    """(largest absolute, relative root mean square) deviation; not a number counts as infinite."""
    apart = np.nan_to_num(answer.astype(np.float64) - expected, nan=np.inf)
    return float(np.abs(apart).max()), float(np.sqrt(np.square(apart).mean() / np.square(expected.astype(np.float64)).mean()))


def expected_answer(work, name, kind):
    """ONNX Runtime's answer without optimizations, and its deviation from PyTorch's with the weights in fp32."""
    with np.load(work / f"{name}.io.npz") as arrays:
        inputs = dict(arrays)
    pytorch = inputs.pop("epsilon")
    answer = package.OnnxNetwork(work / f"{name}.{kind}.onnx").session.run(None, inputs)[0]
    return answer, deviation(answer, pytorch)


def start(engine, place, loads, row):
    """A process that has loaded its file; `loads` of them were asked how long that takes."""
    times = []
    for last in [False] * (loads - 1) + [True]:
        process = Process(engine, *place)
        times.append(process.loaded["load_ms"])
        if not last:
            process.close()
    row.load_ms, row.bare_bytes = statistics.median(times), process.loaded["bare_bytes"]
    return process


def contest(place, engines, expected, rounds, evaluations, loads):
    """One Row per engine; `place` is (work, name, kind, threads, cpus), `expected` the answer that all should give."""
    rows, running = {engine: Row() for engine in engines}, {}
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as folder:

        def attempt(engine, act):
            try:
                return act()
            except Lost as fault:
                rows[engine] = Row(lost=str(fault))
                running.pop(engine, None)

        def compare(engine):
            path = Path(folder) / f"{engine}.npy"
            running[engine].ask(f"answer {path}")
            rows[engine].max_abs, rows[engine].relative_rms = deviation(np.load(path), expected)

        def turn(engine):
            time.sleep(PAUSE_S)
            rows[engine].ms.append(statistics.median(running[engine].ask(f"run {evaluations}")["ms"]))

        def remember(engine):
            rows[engine].peak_bytes = running[engine].ask("memory")["peak_bytes"]

        for engine in engines:
            process = attempt(engine, lambda: start(engine, place, loads, rows[engine]))
            if process:
                running[engine] = process
                stack.callback(process.close)
                attempt(engine, lambda: compare(engine))
        for index in range(rounds):
            # There and back, so that nobody always follows the same one.
            for engine in list(running)[:: 1 if index % 2 == 0 else -1]:
                attempt(engine, lambda: turn(engine))
        for engine in list(running):
            attempt(engine, lambda: remember(engine))
    return rows


def ratios(peer, ours):
    """How many times slower a peer is, one ratio per round."""
    return [theirs / own for theirs, own in zip(peer.ms, ours.ms)]


def fastest_peer(rows, kind):
    """The peer with the least median among those with the right answer; None where there is none."""
    able = [engine for engine, row in rows.items() if engine not in OURS and row.right(kind)]
    return min(able, key=lambda engine: rows[engine].median_ms(), default=None)


def best_int8(results, name, threads):
    """One Row per engine, of its fastest int8 file with the right answer, and that file's name."""
    best = {}
    for (other, kind, count), rows in results.items():
        if (other, count) != (name, threads) or kind not in peer_networks.INT8:
            continue
        for engine, row in rows.items():
            if row.right(kind) and (engine not in best or row.median_ms() < best[engine][0].median_ms()):
                best[engine] = row, kind
    return best


def time_cell(row, kind):
    if row is None or row.lost is not None:
        return "–"
    text = f"{row.median_ms():.1f}" if row.median_ms() >= 20 else f"{row.median_ms():.2f}"
    return text if row.right(kind) else f"({text})"


def ratio_cell(rows, kind):
    """The fastest peer's ratio to driftglass: the median round's, and the least and the most."""
    peer = fastest_peer(rows, kind)
    if peer is None or "driftglass" not in rows or not rows["driftglass"].right(kind):
        return "–"
    found = ratios(rows[peer], rows["driftglass"])
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f}) {ENGINES[peer].title}"


def load_cell(row):
    return "–" if row.lost is not None else f"{row.load_ms:.0f} ms, {row.peak_bytes / 1e6:.0f} MB"


def answer_cell(row):
    return "–" if row.lost is not None else f"{row.relative_rms:.1e} ({row.max_abs:.1e})"


def markdown(head, lines):
    return ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *lines)]


def times_table(results, engines):
    """The table of medians and ratios; results are {(network, file, threads): {engine: Row}}."""
    lines = []
    for (name, kind, threads), rows in results.items():
        cells = [time_cell(rows.get(engine), kind) for engine in engines]
        lines.append([name, kind, str(threads), *cells, ratio_cell(rows, kind)])
    for name, threads in dict.fromkeys((name, threads) for name, _, threads in results):
        best = best_int8(results, name, threads)
        if best:
            rows = {engine: row for engine, (row, _) in best.items()}
            cells = [f"{time_cell(rows[e], 'int8')} {best[e][1]}" if e in best else "–" for e in engines]
            lines.append([name, "each one's fastest int8", str(threads), *cells, ratio_cell(rows, "int8")])
    titles = [ENGINES[engine].title for engine in engines]
    return markdown(["network", "file", "threads", *titles, "fastest peer ÷ driftglass"], lines)


def once_per_file(results, engines, cell, more=lambda name, kind: []):
    """The lines of a table of what does not depend on the threads, at the first number of them."""
    first = next(iter(results))[2]
    return [
        [name, kind, *more(name, kind), *(cell(rows[engine]) for engine in engines)]
        for (name, kind, threads), rows in results.items()
        if threads == first
    ]


def machine():
    """One line about the processor."""
    count = len(os.sched_getaffinity(0))
    return f"{hardware.processor()}, {platform.machine()}, {count} processors"


def block(results, engines, files, about):
    """What goes between the markers; `files` is {(network, file): deviation from PyTorch}, `about` a dict of facts."""
    alike = [engine for engine in engines if engine != "driftglass-walk"]  # the same program on the same file
    titles = [ENGINES[engine].title for engine in alike]
    lost = {
        (ENGINES[engine].title, kind, row.lost.splitlines()[-1][:160]): None
        for (_, kind, _), rows in results.items()
        for engine, row in rows.items()
        if row.lost is not None
    }
    bare = [row.bare_bytes for rows in results.values() for row in rows.values() if row.bare_bytes]
    return [
        f"{about['machine']}; {', '.join(about['versions'])}; {about['date']}, `scripts/peers.py`, {about['rounds']} rounds of "
        f"{about['evaluations']} evaluations, load average at the start {about['load']:.2f}.",
        "",
        "Milliseconds per evaluation, the median of the rounds' medians; lower is better. In brackets: the engine computed something",
        "else than the file says, and is not counted. The ratio is that of one round, median (least to most): above 1, driftglass",
        "is ahead of the fastest peer that it names.",
        "",
        *times_table(results, engines),
        "",
        "From the file to a network that can be evaluated, and the most memory that its process ever had on one thread. Of the",
        f"peers' memory {max(bare) / 1e6:.0f} MB are Python and numpy.",
        "",
        *markdown(["network", "file", *titles], once_per_file(results, alike, load_cell)),
        "",
        "Relative root mean square (and largest) deviation of the answers from ONNX Runtime without optimizations on the same file;",
        "before them, that answer's own deviation from PyTorch's in fp32.",
        "",
        *markdown(
            ["network", "file", "the file", *titles],
            once_per_file(results, alike, answer_cell, lambda *place: ["{1:.1e} ({0:.1e})".format(*files[place])]),
        ),
        *(["", "Not done:", ""] if lost else []),
        *(f"- {title}, {kind}: {reason}" for title, kind, reason in lost),
    ]


def spliced(text, lines, path):
    """`text` with `lines` between its markers."""
    begin, end = MARKERS
    if text.count(begin) != 1 or text.count(end) != 1 or text.index(begin) > text.index(end):
        raise SystemExit(f"{path}: expected one line {begin} and one line {end} after it")
    before, after = text.split(begin)[0], text.split(end)[1]
    return "\n".join([before + begin, *lines, end]) + after


def write(path, lines):
    """Puts `lines` between the markers of `path`, which is made where it is missing."""
    text = path.read_text() if path.is_file() else "\n".join(["# Performance", "", *MARKERS, ""])
    text = spliced(text, lines, path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text)
    os.replace(partial, path)


def facts(args):
    """What to know about the machine, the engines and the rounds."""
    versions = {engine: peer_engines.version(engine) for engine in args.engines}
    for engine, version in versions.items():
        if version is None:
            raise SystemExit(f"{engine} is not installed: {peer_setup.OPTION} FOLDER makes a virtual environment that has it")
    return {
        "machine": machine(),
        "versions": list(dict.fromkeys(f"{ENGINES[engine].product} {version}" for engine, version in versions.items())),
        "date": datetime.date.today().isoformat(),
        "rounds": args.rounds,
        "evaluations": args.evaluations,
        "load": os.getloadavg()[0],
    }


def measure(work, args):
    """Runs every contest, telling what it finds: {(network, file, threads): {engine: Row}}, {(network, file): deviation}."""
    cpus, results, files = sorted(os.sched_getaffinity(0)), {}, {}
    for name in args.networks:
        for kind in args.files:
            expected, files[name, kind] = expected_answer(work, name, kind)
            for threads in args.threads:
                place = work, name, kind, threads, cpus[:threads]
                loads = LOADS if threads == args.threads[0] else 1
                rows = contest(place, args.engines, expected, args.rounds, args.evaluations, loads)
                results[name, kind, threads] = rows
                tell(name, kind, threads, rows)
    return results, files


def tell(name, kind, threads, rows):
    """Prints the rows of a contest, with every peer's ratio to driftglass in each round."""
    print(f"{name} {kind}, {threads} threads", flush=True)
    ours = rows.get("driftglass")
    for engine, row in rows.items():
        if row.lost is not None:
            print(f"  {engine:16} cannot: {row.lost[:100]}", flush=True)
            continue
        told = f"  {engine:16} {row.median_ms():8.2f} ms, {load_cell(row)}, {answer_cell(row)} off"
        told += "" if row.right(kind) else ", WRONG"
        if engine not in OURS and ours is not None and ours.lost is None:
            told += "; ratios " + " ".join(f"{ratio:.2f}" for ratio in ratios(row, ours))
        print(told, flush=True)


def listed(known):
    """The type of an argument: some of `known`, separated by commas."""

    def parse(text):
        chosen = text.split(",")
        unknown = [name for name in chosen if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got {','.join(unknown)!r}")
        return chosen

    return parse


def thread_counts(text):
    counts = [command_line.count(part) for part in text.split(",")]
    most = len(os.sched_getaffinity(0))
    if max(counts) > most:
        raise argparse.ArgumentTypeError(f"expected at most {most}, as many as there are processors, got {max(counts)}")
    return counts


def main(arguments=None):
    p = command_line.parser(__doc__)
    p.add_argument(peer_setup.OPTION, type=Path, metavar="FOLDER", help="make a virtual environment of the engines, and run in it")
    p.add_argument("--work", type=Path, help="where the networks are made and kept (default: a temporary folder)")
    p.add_argument("--driftglass", type=Path, default=HOME / "target" / "release" / "driftglass", help="the program to time")
    p.add_argument("--out", type=Path, default=HOME / "docs" / "performance.md", help="where the table goes, between its markers")
    p.add_argument("--networks", type=listed(peer_networks.NETWORKS), default=list(peer_networks.NETWORKS), help="separated by commas")
    p.add_argument("--files", type=listed(peer_networks.FILES), default=list(peer_networks.FILES), help="separated by commas")
    p.add_argument("--engines", type=listed(ENGINES), default=list(ENGINES), help="separated by commas")
    p.add_argument("--threads", type=thread_counts, default=[1, 2], help="separated by commas (default 1,2)")
    p.add_argument("--rounds", type=command_line.count, default=7, help="turns of each engine (default 7)")
    p.add_argument("--evaluations", type=command_line.count, default=10, help="in a turn (default 10)")
    args = p.parse_args(arguments)
    if not args.driftglass.is_file() and set(args.engines) & set(OURS):
        raise SystemExit(f"{args.driftglass}: there is no such file: cargo build --release makes it")
    with tempfile.TemporaryDirectory() as temporary:
        # A copy, so that a build in the meantime changes nothing.
        program = Path(temporary) / "driftglass"
        if args.driftglass.is_file():
            shutil.copy2(args.driftglass, program)
        os.environ[peer_engines.PROGRAM] = str(program)
        about = facts(args)
        work = (args.work or Path(temporary) / "work").resolve()
        peer_networks.make_all(work, HOME / "models" / peer_networks.SHIPPED, args.networks)
        results, files = measure(work, args)
    write(args.out, block(results, args.engines, files, about))
    print(f"{args.out}: written")


if __name__ == "__main__":
    main()
