"""Everything that `jobs` tells about a run: state, progress, metrics, cost and the cause of a bad end."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from detector.run.checkpoint_files import last_checkpoint_step
from detector.run.files import LOG_FILE, METRICS_FILE, parse_json_lines
from detector.run.usage import Cost, read_cost
from launcher.backends import JobState, load_backend
from launcher.failure_cause import Cause, find_cause
from launcher.run_folders import Target, display_name, list_runs
from launcher.run_info import job_records
from launcher.run_state import Phase, RunFacts, RunState, Schedulers, collect_facts, look_for_signs, state_of

HEADLINE_METRICS = ("AP", "mAP", "AP50")


@dataclass(frozen=True)
class Metric:
    """The headline metric of one evaluation."""

    name: str
    value: float
    step: int

    def as_json(self) -> dict:
        """Returns the fields for a JSON file; null for a value that is not finite."""
        return {**asdict(self), "value": self.value if math.isfinite(self.value) else None}


@dataclass(frozen=True)
class RunSummary:
    """The facts about one run that `jobs` tells."""

    name: str
    run: Path
    state: RunState
    backend: str = ""
    jobs: tuple[str, ...] = ()  # the oldest first
    log: Path | None = None
    step: int = 0
    total_steps: int | None = None
    images_per_s: float | None = None
    seconds_left: float | None = None
    restarts: int = 0
    best: Metric | None = None
    last: Metric | None = None
    cost: Cost | None = None
    cause: Cause | None = None

    def as_json(self) -> dict:
        """Returns the fields for a JSON file; null for what is not known."""
        job_state = self.state.job_state
        return {
            "name": self.name, "run": str(self.run.absolute()), "state": self.state.text,
            "phase": self.state.phase.value,
            "backend": self.backend or None, "job": self.state.job or None, "jobs": list(self.jobs),
            "scheduler": {"state": job_state.name, "reason": job_state.reason, "exit_code": job_state.exit_code}
            if job_state else None,
            "log": str(self.log.absolute()) if self.log else None, "step": self.step, "total_steps": self.total_steps,
            "images_per_s": self.images_per_s, "seconds_left": self.seconds_left, "restarts": self.restarts,
            "best": self.best.as_json() if self.best else None, "last": self.last.as_json() if self.last else None,
            "cost": self.cost.as_json() if self.cost else None, "cause": self.cause.as_json() if self.cause else None}


def summarize_folder(folder: Path, note: Callable[[str], None]) -> list[RunSummary]:
    """Returns a summary of each run below a folder, sorted by name.

    Args:
        note: called with a sentence about a scheduler that does not answer.
    """
    return summarize([Target(run.absolute(), display_name(run, folder)) for run in list_runs(folder)], note)


def summarize(targets: list[Target], note: Callable[[str], None]) -> list[RunSummary]:
    """Returns a summary of each of the runs, in their order. A run that cannot be read is one line that says so."""
    schedulers, facts, unreadable = Schedulers(note), {}, {}
    for target in targets:
        try:
            facts[target] = collect_facts(target.run, schedulers, target.job)
        except OSError as error:
            unreadable[target] = error
    signs = look_for_signs({target.run: fact for target, fact in facts.items()})
    return [describe_unreadable(target, unreadable[target]) if target in unreadable else
            summarize_run(target, replace(facts[target], gives_signs=signs.get(target.run, False)), schedulers)
            for target in targets]


def describe_unreadable(target: Target, error: OSError) -> RunSummary:
    """Returns the summary of a run that cannot be read, as one of a colleague."""
    owner = ""
    with contextlib.suppress(OSError, KeyError):
        owner = f", owner {target.run.owner()}"
    return RunSummary(target.name, target.run, RunState(f"unreadable ({error.strerror}{owner})", Phase.UNKNOWN))


def summarize_run(target: Target, facts: RunFacts, schedulers: Schedulers) -> RunSummary:
    """Returns the summary of a run with these facts."""
    run = target.run
    try:
        records, backend, state = facts.records, facts.backend, state_of(facts)
        progress, evaluations = read_metrics_tail(run)
        log = log_of(run, state.job)
        past = ask_past_state(backend, state, schedulers)
        status = facts.status
        metrics = [metric for metric in map(headline, evaluations) if metric]
        return RunSummary(
            target.name, run, replace(state, job_state=past or state.job_state), backend,
            tuple(dict.fromkeys(record["job"] for record in records)), log,
            status.get("step") or last_checkpoint_step(run), status.get("total_steps") or None,
            (status.get("images_per_s") or progress.get("images_per_s")) if state.phase is not Phase.WAITING else None,
            status.get("seconds_left") if is_training(state) else None,
            max((record.get("restart", 0) for record in records), default=0),
            max((metric for metric in metrics if math.isfinite(metric.value)), key=lambda metric: metric.value,
                default=None),
            metrics[-1] if metrics else None, read_cost(run), find_cause(run, state, past, log, facts.owner))
    except OSError as error:
        return describe_unreadable(target, error)


def is_training(state: RunState) -> bool:
    """Returns whether the run is trained right now, and is not suspended or ending."""
    return state.phase is Phase.RUNNING and (state.job_state is None or state.job_state.name == "RUNNING")


def ask_past_state(backend: str, state: RunState, schedulers: Schedulers) -> JobState | None:
    """Returns what the scheduler remembers of a job that is over; None for other runs."""
    if not state.job or not state.job_state or not state.job_state.over or state.phase is Phase.FINISHED:
        return None
    past_state = load_backend(backend).past_state
    if not past_state or state.job_state.name != "UNKNOWN" and state.job_state.reason:
        return state.job_state
    return schedulers.ask(backend, lambda: past_state(state.job)) or state.job_state


def log_of(run: Path, job: str) -> Path:
    """Returns the log of a job of a run; without a job the run's own log.txt.

    The log that was chosen at the submission is preferred to the one that the job has reported.
    """
    records = [record for record in job_records(run) if record["job"] == job and record.get("log")]
    if not job or not records:
        return run / "slurm" / f"{job}.log" if job else run / LOG_FILE
    paths = [Path(record["log"]) for record in sorted(records, key=lambda record: "backend" not in record)]
    moved = [run / "slurm" / path.name for path in paths]  # the run folder was moved
    return next((path for path in [*paths, *moved] if path.is_file()), paths[0])


def read_metrics_tail(run: Path) -> tuple[dict, list[dict]]:
    """Returns the last logged step and all evaluations of metrics.jsonl; parses no other line of it."""
    last_step, evaluations = "", []
    with contextlib.suppress(FileNotFoundError), open(run / METRICS_FILE, encoding="utf-8", errors="replace") as file:
        for line in file:
            if '"kind": "train"' in line:
                last_step = line if line.endswith("}\n") else last_step
            elif '"kind": "evaluation"' in line:
                evaluations.append(line)
    return next(iter(parse_json_lines([last_step])), {}), parse_json_lines(evaluations)


def headline(evaluation: dict) -> Metric | None:
    """Returns the headline metric of an evaluation; None if it has none."""
    name = next((name for name in HEADLINE_METRICS if name in evaluation), None)
    if not name:
        return None
    value = math.nan if evaluation[name] is None else evaluation[name]  # JSON has no number for NaN
    return Metric(name, float(value), evaluation.get("step", 0)) if isinstance(value, (int, float)) else None
