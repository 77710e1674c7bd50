"""Reads what runs measured from the files in their run folders: config, metrics, environment and log."""

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from detector.config.load import load_config, to_dict
from detector.config.options import fill_auto
from detector.config.schema import Config
from detector.config.sections import flatten
from detector.errors import BadInput
from detector.run.evaluation_history import read_metrics
from detector.run.files import CONFIG_FILE, ENVIRONMENT_FILE, LOG_FILE

# Options, or sections ("run."), that do not change what is trained: a run may differ from its row in them.
PLACE_OPTIONS = ("run.", "data.root", "data.cache", "seed", "batch.micro_batch_size", "evaluate.batch_size",
                 "evaluate.compute_loss", "evaluate.every_epochs")


@dataclass(frozen=True)
class RunFigures:
    """The figures of one run of a row."""

    folder: Path
    config: Config
    changes: tuple[str, ...]       # options that differ from the row's config, such as "schedule.steps: 0 -> 10"
    step: int                      # the last logged step
    total_steps: int
    steps_per_epoch: float
    map: float | None              # percent, of the evaluation after the last step; None: not evaluated yet
    step_s: float                  # seconds per step, without evaluations and checkpoints
    memory_gib: float              # peak of rank 0: of its GPU, or of its process
    processes: int
    hardware: str
    commit: str
    date: str                      # of the last line of log.txt

    @property
    def is_finished(self) -> bool:
        return self.map is not None

    @property
    def epoch_h(self) -> float:
        return self.step_s * self.steps_per_epoch / 3600


@dataclass(frozen=True)
class MeasuredRow:
    """The runs of a row that count, which are finished and have the row's config; or else the one closest to that."""

    runs: tuple[RunFigures, ...]

    @property
    def is_counted(self) -> bool:
        return bool(self.runs) and all(run.is_finished and not run.changes for run in self.runs)

    @property
    def map(self) -> float | None:
        values = [run.map for run in self.runs if run.map is not None]
        return statistics.fmean(values) if values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation of mAP over the runs (n - 1); None for a single run."""
        values = [run.map for run in self.runs if run.map is not None]
        return statistics.stdev(values) if len(values) > 1 else None

    def mean(self, name: str) -> float:
        """Returns the mean of a field of RunFigures over the runs."""
        return statistics.fmean(getattr(run, name) for run in self.runs)


def read_measured_row(row: str, runs: Path) -> MeasuredRow:
    """Reads the run folders ROW and ROW-seedN below `runs`; folders that are no runs are left out."""
    row_config = load_config(f"tables/{row}")
    pattern = re.compile(re.escape(row) + r"(-seed\d+)?")
    folders = sorted(folder for folder in runs.iterdir() if pattern.fullmatch(folder.name)) if runs.is_dir() else []
    all_runs = [run for run in (read_run(folder, row_config) for folder in folders) if run is not None]
    counting = [run for run in all_runs if run.is_finished and not run.changes]
    closest = sorted(all_runs, key=lambda run: (bool(run.changes), -run.step))[:1]
    return MeasuredRow(tuple(counting or closest))


def read_run(folder: Path, row_config: Config) -> RunFigures | None:
    """Returns the figures of a run; None if it has not logged a step, or its files cannot be read."""
    try:
        config = load_config(str(folder / CONFIG_FILE))
        environment = json.loads((folder / ENVIRONMENT_FILE).read_text(encoding="utf-8"))
    except (BadInput, OSError, json.JSONDecodeError):
        return None
    lines = read_metrics(folder)
    steps = [line for line in lines if line["kind"] == "train"]
    if not steps:
        return None
    last = steps[-1]
    steps_per_epoch = last["step"] / last["epoch"]
    total_steps = config.schedule.steps or max(1, round(config.schedule.epochs * round(steps_per_epoch)))
    best_metric = config.evaluate.best_metric
    final_values = [line[best_metric] for line in lines
                    if line["kind"] == "evaluation" and line["step"] == total_steps and best_metric in line]
    return RunFigures(
        folder, config, find_changes(row_config, config), last["step"], total_steps, steps_per_epoch,
        100 * final_values[-1] if final_values else None, seconds_per_step(steps, config, environment["processes"]),
        max(line["memory_gib"] for line in steps), environment["processes"],
        describe_hardware(row_config, config, environment), environment["commit"], last_date(folder / LOG_FILE))


def find_changes(row_config: Config, config: Config) -> tuple[str, ...]:
    """Returns the options that differ from the row's, except PLACE_OPTIONS.

    Of model.weights the file name counts; any file may stand for `imagenet`, and describe_hardware names it. What the
    row leaves to the run (`auto`) is no difference.
    """
    before, now = flatten(to_dict(fill_auto(row_config, config))), flatten(to_dict(config))
    if stand_in_weights(row_config, config):
        now["model.weights"] = "imagenet"
    for options in (before, now):
        options["model.weights"] = Path(options["model.weights"]).name
    return tuple(f"{key}: {before.get(key)} -> {now.get(key)}" for key in {**before, **now}
                 if before.get(key) != now.get(key) and not key.startswith(PLACE_OPTIONS))


def seconds_per_step(steps: list[dict], config: Config, processes: int) -> float:
    """Returns the mean over all steps; the speed in a logged line is that of the steps since the line before it."""
    batch = config.batch.size or config.batch.micro_batch_size * processes
    previous = [0, *(line["step"] for line in steps[:-1])]
    spans = [(line["step"] - start, batch / line["images_per_s"]) for start, line in zip(previous, steps)]
    return sum(count * step_s for count, step_s in spans) / max(sum(count for count, _ in spans), 1)


def stand_in_weights(row_config: Config, config: Config) -> str:
    """Returns the name of the file from which a run starts where its row says `imagenet`; "" if none stands for it."""
    path = Path(config.model.weights)
    is_file = path.suffix in (".pth", ".pt", ".pkl", ".safetensors")  # else the name of an entry of torchvision
    return path.name if row_config.model.weights == "imagenet" and is_file else ""


def describe_hardware(row_config: Config, config: Config, environment: dict) -> str:
    """Returns devices, precision, and the file that stands for the row's `imagenet`, if one does."""
    gpus, count = environment["gpus"], environment["processes"]
    if gpus and config.run.device != "cpu":
        device = f"{count} x {gpus[0]}"
    else:
        device = f"{count} {'process' if count <= 1 else 'processes'} on {environment['cores']} CPU cores"
    weights = stand_in_weights(row_config, config)
    return f"{device}, {config.run.precision}" + (f", from {weights}" if weights else "")


def last_date(log: Path) -> str:
    """Returns the date YYYY-MM-DD of the last line of a log; "" if there is none."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return next((line[:10] for line in reversed(lines) if re.match(r"\d{4}-\d\d-\d\d ", line)), "")
