"""Messages on the console and in log.txt; a progress bar on a terminal."""

import sys
import time
from pathlib import Path

from tqdm import tqdm

from detector.loggers.progress import Progress, format_duration
from detector.loggers.protocol import Logger
from detector.run.files import LOG_FILE


class ConsoleLogger(Logger):
    """Prints messages, logged steps and evaluations, and appends them with the time to log.txt.

    With a progress bar, logged steps are shown in the bar and written to log.txt only.
    """

    def __init__(self, folder: Path, step: int, total_steps: int):
        self.progress = Progress(step, total_steps)
        self.bar: tqdm | None = None
        self.is_log_lost = False
        self.log = open(folder / LOG_FILE, "a", encoding="utf-8", errors="backslashreplace")

    def start_progress_bar(self) -> None:
        """Shows a progress bar if stderr is a terminal."""
        if sys.stderr.isatty():
            self.bar = tqdm(total=self.progress.total_steps, initial=self.progress.first_step, unit="step",
                            dynamic_ncols=True)

    def advance(self, step: int) -> None:
        """Moves the progress bar to `step` completed steps."""
        if self.bar:
            self.bar.update(step - self.bar.n)

    def scalars(self, kind: str, step: int, values: dict[str, float]) -> None:
        if kind == "train":
            if self.bar:
                self.bar.set_postfix_str(f"loss {values['loss']:.3f}, {values['images_per_s']:.1f} images/s")
            self.text(self._step_line(step, values), console=self.bar is None)
        elif kind == "evaluation":
            metrics = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
            self.text(f"evaluation at step {step}: {metrics}")

    def _step_line(self, step: int, values: dict[str, float]) -> str:
        gpu = f", GPU {values['gpu_utilization']:.0%}" if "gpu_utilization" in values else ""
        return (f"step {step}/{self.progress.total_steps} epoch {values['epoch']:.2f} loss {values['loss']:.4f} "
                f"lr {values['lr']:.3g} {values['images_per_s']:.1f} images/s, waiting {values['data_wait']:.0%}{gpu}, "
                f"{format_duration(self.progress.seconds_left(step))} left")

    def text(self, text: str, console: bool = True) -> None:
        if console and self.bar:
            self.bar.write(text, file=sys.stdout)
        elif console:
            print(text, flush=True)
        try:
            self.log.write("".join(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n" for line in text.splitlines()))
            self.log.flush()
        except OSError as error:
            if not self.is_log_lost:
                self.is_log_lost = True
                print(f"{self.log.name} cannot be written ({error.strerror}); the run goes on", flush=True)

    def close(self) -> None:
        if self.bar:
            self.bar.close()
        self.log.close()
