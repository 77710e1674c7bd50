"""What a run folder tells a launcher: plain files, which the detector or an earlier start left there."""

import json
import os
import re
import time
from pathlib import Path

from detector.config.load import load_config, run_folder
from detector.config.schema import Config
from detector.errors import BadInput

FAILED = "slurm/failed"    # a file for each rank that ended badly in this start
STOPPED = "slurm/stopped"  # is there if a rank stopped early in this start


def run_of(verb: str, arguments: tuple[str, ...]) -> tuple[Path, Config]:
    """The run folder, absolute, and the config of `train CONFIG key=value ...` or `evaluate RUN key=value ...`."""
    words = [word for word in arguments if not word.startswith("-")]
    if not words:
        raise BadInput(f"{verb} what? Name a config file or a run; fleet-rcnn {verb} --help tells more")
    if verb == "evaluate":
        if not (Path(words[0]) / "config.yaml").is_file():
            raise BadInput(f"{words[0]} is no run folder: it holds no config.yaml")
        overrides = [word for word in words[1:] if "=" in word]
        return Path(words[0]).absolute(), load_config(str(Path(words[0]) / "config.yaml"), overrides)
    config = load_config(words[0], words[1:])
    return run_folder(config).absolute(), config


def read_json(path: Path) -> dict:
    """A small JSON file; nothing where there is none, or none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def read_lines(path: Path) -> list[dict]:
    """The whole lines of a JSON-lines file; a line cut short by a crash is left out."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def write_whole(path: Path, text: str) -> None:
    """The file appears whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}. Make room, or set run.folder") from error


def write_json(path: Path, said: dict) -> None:
    write_whole(path, json.dumps(said, indent=1) + "\n")


def status_of(run: Path) -> dict:
    """The detector's last word on a training: {"state", "step", "total_steps", "saved_in_s", "by", "at", ...}."""
    return read_json(run / "status.json")


def note_job(run: Path, **said) -> None:
    """One line of slurm/jobs.jsonl: a job of this run was submitted or has started."""
    path = run / "slurm" / "jobs.jsonl"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps({**said, "at": time.time()}) + "\n")
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}. Make room, or set run.folder") from error


def jobs_of(run: Path) -> list[dict]:
    """What note_job noted, the newest last."""
    return read_lines(run / "slurm" / "jobs.jsonl")


def last_checkpoint(run: Path) -> int:
    """The step of the newest checkpoint by its name; 0 where there is none."""
    steps = [int(found[1]) for path in (run / "checkpoints").glob("step-*.pt")
             if (found := re.fullmatch(r"step-(\d+)\.pt", path.name))]
    return max(steps, default=0)


def last_metrics(run: Path) -> dict[str, dict]:
    """The last line of each kind in metrics.jsonl: {"train": {...}, "evaluation": {...}}."""
    return {said["kind"]: said for said in read_lines(run / "metrics.jsonl")}


def heartbeats(run: Path) -> list[dict]:
    """The last sign of life of each rank, the oldest first: {"rank", "host", "phase", "step", "at"}."""
    beats = [read_json(path) for path in (run / "heartbeats").glob("rank-*.json")]
    return sorted((beat for beat in beats if "at" in beat), key=lambda beat: beat["at"])


def seen(beat: dict) -> str:
    return (f"rank {beat['rank']} on {beat['host']}: {beat['phase']} at step {beat['step']}, last seen "
            f"{time.time() - beat['at']:.0f} s ago")
