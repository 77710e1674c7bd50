"""What a run says while it goes: console and log.txt, metrics.jsonl, TensorBoard. Only rank 0 writes.

metrics.jsonl is the record: the best evaluation and the patience are read back from it, and a resumed run first cuts
off what lies after the step it resumes from, so that no step is there twice.
"""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from tqdm import tqdm

from detector.run.evaluation_history import evaluations_of
from detector.run.files import read_lines, write_whole
from detector.visualization.validation_images import Picture


def clock(seconds: float) -> str:
    """h:mm:ss"""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


class RunLog:
    """Opened at the step a run starts or resumes from; `total_steps` is for the progress bar and the time left."""

    def __init__(self, folder: Path, step: int, total_steps: int, main: bool):
        self.folder, self.total_steps, self.main = folder, total_steps, main
        self.started_at, self.first_step = time.monotonic(), step
        self.bar = None
        if not main:
            return
        kept = [line for line in read_lines(folder / "metrics.jsonl") if line["step"] <= step]
        write_whole(folder / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in kept))
        self.metrics = open(folder / "metrics.jsonl", "a", encoding="utf-8")
        self.log = open(folder / "log.txt", "a", encoding="utf-8")
        from torch.utils.tensorboard import SummaryWriter  # here, because the other ranks need none
        self.board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def start_bar(self) -> None:
        """A progress bar on a terminal; elsewhere each logged step is a plain line."""
        if self.main and sys.stderr.isatty():
            self.bar = tqdm(total=self.total_steps, initial=self.first_step, unit="step", dynamic_ncols=True)

    def say(self, text: str, console: bool = True) -> None:
        """One or more plain lines."""
        if not self.main:
            return
        if console and self.bar:
            self.bar.write(text, file=sys.stdout)
        elif console:
            print(text, flush=True)
        self.log.write("".join(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in text.splitlines()))
        self.log.flush()

    def training(self, step: int, values: dict[str, float]) -> None:
        """A logged step: losses by name, rate, gradient norm, speed, waiting, memory."""
        if not self.main:
            return
        self._record("train", step, values)
        line = (f"step {step}/{self.total_steps} epoch {values['epoch']:.2f} loss {values['loss']:.4f} "
                f"rate {values['rate']:.3g} {values['images_per_s']:.1f} images/s, waiting {values['data_wait']:.0%}, "
                f"{clock(self.seconds_left(step))} left")
        if self.bar:
            self.bar.set_postfix_str(f"loss {values['loss']:.3f}, {values['images_per_s']:.1f} images/s")
        self.say(line, console=self.bar is None)

    def seconds_left(self, step: int) -> float:
        """Until the end of the run, at the pace since its last start, evaluations included."""
        elapsed_s = time.monotonic() - self.started_at
        return elapsed_s / max(step - self.first_step, 1) * (self.total_steps - step)

    def advance(self, step: int) -> None:
        if self.bar:
            self.bar.update(step - self.bar.n)

    def evaluation(self, step: int, metrics: dict[str, float], per_class: dict[str, dict[str, float]]) -> None:
        """A finished evaluation; it stays on record, also for the best checkpoint and the patience."""
        if not self.main:
            return
        self._record("evaluation", step, metrics)
        for name, values in per_class.items():
            for key, value in values.items():
                self.board.add_scalar(f"{key} by class/{name}", value, step)
        self.board.flush()
        self.say(f"evaluation at step {step}: " + ", ".join(f"{key} {value:.4g}" for key, value in metrics.items()))

    def picture(self, step: int, picture: Picture) -> None:
        if self.main:
            from tensorboard.compat.proto.summary_pb2 import Summary
            image = Summary.Image(height=picture.height, width=picture.width, colorspace=3,
                                  encoded_image_string=picture.png)
            self.board.file_writer.add_summary(Summary(value=[Summary.Value(tag=picture.name, image=image)]), step)

    def precision_recall(self, step: int, name: str, counts: np.ndarray) -> None:
        """float64 [6, T], as charts.counts gives it."""
        if self.main:
            self.board.add_pr_curve_raw(f"precision and recall/{name}", *counts, step, counts.shape[1])

    def flush(self) -> None:
        """All that is on record so far is safe on disk: no checkpoint may know more steps than the record."""
        os.fsync(self.metrics.fileno())

    def evaluations(self, metric: str) -> list[tuple[int, float]]:
        """(step, value) of every evaluation on record."""
        return evaluations_of(self.folder, metric)

    def close(self) -> None:
        if self.main:
            for thing in (self.metrics, self.log, self.board, *([self.bar] if self.bar else [])):
                thing.close()

    def _record(self, kind: str, step: int, values: dict[str, float]) -> None:
        self.metrics.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")
        self.metrics.flush()
        for name, value in values.items():
            self.board.add_scalar(f"{kind}/{name}", value, step)
        self.board.flush()
