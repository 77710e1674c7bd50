"""Speed of training steps with everything that a run shows, relative to the same run in a pipe without plots.

    python tests/benchmarks/progress_cost.py [--rounds 3] [--config shapes/demo] [key=value ...]

Shown: live lines on a terminal of 100 columns, and plots that a process draws beside the steps after each evaluation.
Both variants train whole runs in turns; compared are the images per second of their steps, without evaluations. Appends a JSON
line to tests/benchmarks/results/progress_cost.jsonl. Exits 1 if the median ratio is below 0.98.
"""

import argparse
import contextlib
import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

from measuring import append_result, format_spread, ratio

MIN_RATIO = 0.98
DEFAULTS = ["schedule.steps=100", "evaluate.every_epochs=1", "run.log_every_steps=5"]


def in_a_terminal(command: list[str]) -> int:
    """Runs a program in a terminal of its own, 100 columns wide, and returns its exit status."""
    terminal, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    with subprocess.Popen(command, stdin=end, stdout=end, stderr=end, env={**os.environ, "TERM": "xterm-256color"}) as process:
        os.close(end)
        with contextlib.suppress(OSError):  # EIO: the program has closed the terminal
            while os.read(terminal, 1 << 16):
                pass
    os.close(terminal)
    return process.returncode


def in_a_pipe(command: list[str]) -> int:
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT).returncode


VARIANTS = {"shown": (in_a_terminal, "run.plots=true"), "plain": (in_a_pipe, "run.plots=false")}


def images_per_s(run: Path) -> float:
    """Returns the images per second of the steps behind the first logged one, which includes the start."""
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "train"]
    seconds = sum((line["step"] - before["step"]) / line["images_per_s"] for before, line in zip(steps, steps[1:]))
    return (steps[-1]["step"] - steps[0]["step"]) / seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--config", default="shapes/demo")
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    speeds: dict[str, list[float]] = {name: [] for name in VARIANTS}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(args.rounds):
            for name in list(VARIANTS)[::1 if number % 2 else -1]:
                start, plots = VARIANTS[name]
                options = [*DEFAULTS, *args.overrides, plots, f"run.folder={folder}", f"run.name={name}{number}"]
                if start([sys.executable, "-m", "detector", "train", args.config, *options]):
                    sys.exit(f"the training in turn {number} ({name}) failed")
                speeds[name].append(images_per_s(Path(folder, f"{name}{number}")))
    ratios = ratio(speeds["shown"], speeds["plain"])
    append_result("progress_cost", {"config": args.config, "overrides": args.overrides, "images_per_s": speeds, "ratio": ratios},
                  args.out)
    print(f"steps with everything that is shown: {format_spread(ratios, 3)} times the speed of those without")
    sys.exit(0 if ratios["median"] >= MIN_RATIO else 1)


if __name__ == "__main__":
    main()
