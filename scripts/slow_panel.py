"""What a slow panel costs whoever paints: `sample` with and without one, in turn, medians.

Beside the time on the clock, the time that the painting thread had a processor: it says what the panel adds also where
other programs share the machine.
"""

import argparse
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PANEL = ROOT / "tests/data/panels/slow.toml"


def seconds(program, arguments, folder):
    """From the first picture's path on stdout to the last one's: the painting, without the start of the program and
    without the panel's last frame, which the program waits for when all is painted."""
    command = [program, "sample", "--quiet", "--out", ".", *arguments]
    clock, processor = [], []
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True) as child:
        thread = Path(f"/proc/{child.pid}/task/{child.pid}/schedstat")
        for _ in child.stdout:
            clock.append(time.perf_counter())
            # Where the program has ended already, the last picture is not counted: for both ways alike.
            processor.append(int(thread.read_text().split()[0]) / 1e9 if thread.exists() else None)
    if child.returncode:
        raise SystemExit(f"{' '.join(map(str, command))}: exit code {child.returncode}")
    return clock[-2] - clock[0], processor[-2] - processor[0]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--program", type=Path, default=ROOT / "target/release/driftglass")
    parser.add_argument("--panel", type=Path, default=PANEL)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--count", type=int, default=21, help="pictures of a run; the first and the last one are not timed")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    painting = ["--count", options.count, "--steps", options.steps, "--threads", options.threads, "--scale", "1"]
    painting = [str(argument) for argument in painting]
    ways = {"without": [], "with": ["--display", str(options.panel)]}
    taken = {way: [] for way in ways}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(options.runs):
            for way, more in ways.items():
                taken[way].append(seconds(options.program, painting + more, folder))
    for index, clock in enumerate(("on the clock", "on the processor")):
        medians = {}
        for way, runs in taken.items():
            times = sorted(run[index] for run in runs)
            medians[way] = statistics.median(times)
            print(f"{clock}, {way}: median {medians[way]:.3f} s of {times[0]:.3f} to {times[-1]:.3f}")
        pairs = [slow[index] / plain[index] for slow, plain in zip(taken["with"], taken["without"])]
        print(f"{clock}, with / without: {medians['with'] / medians['without']:.4f}, of pairs {statistics.median(pairs):.4f}")


if __name__ == "__main__":
    main()
