"""What was measured: the figures of run folders, each read from what the run itself wrote. Nothing is typed in."""

import json
import re
import statistics
from dataclasses import dataclass
from pathlib import Path

from detector.config.load import flatten, load_config, to_dict
from detector.config.schema import Config
from detector.errors import BadInput
from detector.run.files import read_lines

# Options that say where and how fast, and not what is trained: runs that differ in them are still runs of the row.
OF_THE_PLACE = ("run.", "data.root", "data.cache", "seed", "batch.micro_batch_size", "evaluate.batch_size", "evaluate.compute_loss",
                "evaluate.every_epochs")


@dataclass(frozen=True)
class Figures:
    """One run of a row."""

    folder: Path
    config: Config
    changes: tuple[str, ...]       # what its config has otherwise than the row's, "schedule.steps: 0 -> 10"
    step: int                      # the last one on record
    total_steps: int
    steps_per_epoch: float
    map: float | None              # percent, of the evaluation after the last step; None: there is none yet
    step_s: float                  # seconds of a step, without evaluations and checkpoints
    memory_gib: float              # the most that rank 0 reported: of its GPU, or of its process
    processes: int
    hardware: str
    commit: str
    date: str                      # of its last line of log.txt

    @property
    def finished(self) -> bool:
        return self.map is not None

    @property
    def epoch_h(self) -> float:
        return self.step_s * self.steps_per_epoch / 3600


@dataclass(frozen=True)
class Measured:
    """All runs of a row that count: finished, and with the row's own config; else the one that came closest."""

    runs: tuple[Figures, ...]

    @property
    def counts(self) -> bool:
        """Do these runs say something about the row?"""
        return bool(self.runs) and all(run.finished and not run.changes for run in self.runs)

    @property
    def map(self) -> float | None:
        values = [run.map for run in self.runs if run.map is not None]
        return statistics.fmean(values) if values else None

    @property
    def spread(self) -> float | None:
        """Standard deviation over seeds (n - 1); None for a single run."""
        values = [run.map for run in self.runs if run.map is not None]
        return statistics.stdev(values) if len(values) > 1 else None

    def mean(self, name: str) -> float:
        return statistics.fmean(getattr(run, name) for run in self.runs)


def measured(row: str, runs: Path) -> Measured:
    """The runs ROW and ROW-seedN below a folder. Raises nothing for folders that are no runs or have just begun."""
    wanted = load_config(f"tables/{row}")
    pattern = re.compile(re.escape(row) + r"(-seed\d+)?")
    folders = sorted(folder for folder in runs.iterdir() if pattern.fullmatch(folder.name)) if runs.is_dir() else []
    found = [figures for figures in (read_run(folder, wanted) for folder in folders) if figures]
    whole = [run for run in found if run.finished and not run.changes]
    return Measured(tuple(whole) or tuple(sorted(found, key=lambda run: (bool(run.changes), -run.step))[:1]))


def read_run(folder: Path, wanted: Config) -> Figures | None:
    """None where the run has not logged a step, or was made by another version."""
    try:
        config = load_config(str(folder / "config.yaml"))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (BadInput, OSError, json.JSONDecodeError):
        return None
    lines = read_lines(folder / "metrics.jsonl")
    steps = [line for line in lines if line["kind"] == "train"]
    if not steps:
        return None
    last = steps[-1]
    steps_per_epoch = last["step"] / last["epoch"]
    total = config.schedule.steps or max(1, round(config.schedule.epochs * round(steps_per_epoch)))
    at_the_end = [line[config.evaluate.best_metric] for line in lines if line["kind"] == "evaluation"
                  and line["step"] == total and config.evaluate.best_metric in line]
    return Figures(
        folder, config, changes(wanted, config), last["step"], total, steps_per_epoch,
        100 * at_the_end[-1] if at_the_end else None, seconds_per_step(steps, config, environment["processes"]),
        max(line["memory_gib"] for line in steps), environment["processes"], hardware(config, environment),
        environment["commit"], last_date(folder / "log.txt"))


def changes(wanted: Config, config: Config) -> tuple[str, ...]:
    """What decides a result and is otherwise than the row has it; weights are told by the name of their file."""
    before, now = flatten(to_dict(wanted)), flatten(to_dict(config))
    for options in (before, now):
        options["model.weights"] = Path(options["model.weights"]).name
    return tuple(f"{key}: {before.get(key)} -> {now.get(key)}" for key in {**before, **now}
                 if before.get(key) != now.get(key) and not key.startswith(OF_THE_PLACE))


def seconds_per_step(steps: list[dict], config: Config, processes: int) -> float:
    """The mean over all logged stretches; each line tells the pace since the one before it."""
    batch = config.batch.size or config.batch.micro_batch_size * processes
    firsts = [0, *(line["step"] for line in steps[:-1])]
    spans = [(line["step"] - first, batch / line["images_per_s"]) for first, line in zip(firsts, steps)]
    return sum(count * pace for count, pace in spans) / max(sum(count for count, _ in spans), 1)


def hardware(config: Config, environment: dict) -> str:
    gpus, count = environment["gpus"], environment["processes"]
    if gpus and config.run.device != "cpu":
        return f"{count} x {gpus[0]}, {config.run.precision}"
    return f"{count} process{'es' * (count > 1)} on {environment['cores']} CPU cores"


def last_date(log: Path) -> str:
    """YYYY-MM-DD of the last line; empty where there is none."""
    lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
    return next((line[:10] for line in reversed(lines) if re.match(r"\d{4}-\d\d-\d\d ", line)), "")
