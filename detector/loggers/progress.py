"""Time left in a run, a logged step as a line, and the live lines of a terminal."""

import time
from dataclasses import dataclass, field
from typing import Mapping

from rich.text import Text

from detector.loggers.metric_tables import LOSS_PREFIX, short_loss_name
from detector.loggers.styled_lines import DIM, LABEL, flow

BAR, EMPTY = "━", "─"
MIN_BAR, MAX_BAR = 5, 60  # columns


class Progress:
    """Estimates the time left from the pace since this start of the run."""

    def __init__(self, first_step: int, total_steps: int):
        self.first_step, self.total_steps = first_step, total_steps
        self.started_at = time.monotonic()

    def seconds_left(self, step: int) -> float:
        """Returns the seconds from `step` to the end of the run, evaluations included."""
        elapsed_s = time.monotonic() - self.started_at
        return elapsed_s / max(step - self.first_step, 1) * (self.total_steps - step)


def format_duration(seconds: float) -> str:
    """Returns a duration as h:mm:ss."""
    return f"{int(seconds) // 3600}:{int(seconds) // 60 % 60:02d}:{int(seconds) % 60:02d}"


@dataclass(frozen=True)
class RunProgress:
    """How far a run is, and the numbers that were logged last."""

    step: int
    total_steps: int
    steps_per_epoch: int = 0       # 0: unknown
    seconds_left: float = 0.0
    values: Mapping[str, float] = field(default_factory=dict)  # of the last logged step, see Logger.scalars
    losses: Mapping[str, float] = field(default_factory=dict)  # of the newest step that is known, by name
    evaluated: tuple[int, int] | None = None                   # batches that are evaluated, of how many; None: training


def step_line(progress: RunProgress) -> str:
    """Returns the line of a logged step, for files and pipes."""
    values = progress.values
    losses = ", ".join(f"{short_loss_name(name)} {value:.4f}" for name, value in values.items()
                       if name.startswith(f"{LOSS_PREFIX}_"))
    gpu = f", GPU {values['gpu_utilization']:.0%}" if "gpu_utilization" in values else ""
    return (f"step {progress.step}/{progress.total_steps} epoch {values['epoch']:.2f} loss {values['loss']:.4f} "
            + (f"({losses}) " if losses else "")
            + f"lr {values['lr']:.3g} {values['images_per_s']:.1f} images/s, waiting {values['data_wait']:.0%}{gpu}, "
            f"{format_duration(progress.seconds_left)} left")


def live_lines(progress: RunProgress, width: int) -> list[Text]:
    """Returns the lines that a terminal shows below all others: a bar with epoch and time left, then the numbers."""
    if progress.evaluated:
        done, total = progress.evaluated
        left, right = f"evaluating  batch {done}/{total}  ", ""
    else:
        done, total = progress.step, progress.total_steps
        left = f"{epoch_text(progress)}step {done}/{total}  "
        right = f"  {format_duration(progress.seconds_left)} left" if done else ""
    percent = f"  {done / max(total, 1):4.0%}"
    columns = min(MAX_BAR, width - len(left) - len(percent) - len(right))
    bar = bar_text(done / max(total, 1), columns) if columns >= MIN_BAR else Text()
    first = Text.assemble((left, "bold"), bar, percent, right)
    first.truncate(width)
    return [first, *flow(number_fields(progress), width)]


def epoch_text(progress: RunProgress) -> str:
    """Returns the epoch of how many; empty while it is not known."""
    if not progress.steps_per_epoch:
        return ""
    epochs = progress.total_steps / progress.steps_per_epoch
    return f"epoch {progress.step / progress.steps_per_epoch:.1f}/{epochs:.3g}  "


def bar_text(fraction: float, columns: int) -> Text:
    """Returns a bar of this many columns."""
    full = round(min(max(fraction, 0), 1) * columns)
    return Text.assemble((BAR * full, "cyan"), (EMPTY * (columns - full), DIM))


def number_fields(progress: RunProgress) -> list[Text]:
    """Returns losses, learning rate, speed and use of the machine, as far as they are known."""
    values, losses = progress.values, progress.losses or progress.values
    fields = [labelled_value("loss", f"{losses['loss']:.3f}", "bold")] if "loss" in losses else []
    fields += [labelled_value(short_loss_name(name), f"{value:.3f}") for name, value in losses.items()
               if name.startswith(f"{LOSS_PREFIX}_")]
    shown = {"lr": ("lr", "{:.3g}"), "images_per_s": ("", "{:.1f} images/s"), "data_wait": ("waiting", "{:.0%}"),
             "gpu_utilization": ("GPU", "{:.0%}"), "gpu_memory_gib": ("GPU memory", "{:.1f} GiB"),
             "cpu_share": ("CPU", "{:.0%}"), "memory_gib": ("peak memory", "{:.1f} GiB")}
    return fields + [labelled_value(label, form.format(values[name])) for name, (label, form) in shown.items()
                     if name in values]


def labelled_value(label: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{label} " if label else "", LABEL), (value, style))
