"""What a run folder tells a launcher: plain files, which the detector or an earlier start left there."""

import json
import os
import re
from pathlib import Path

from detector.errors import BadInput


def read_json(path: Path) -> dict:
    """A small JSON file; nothing where there is none, or none that can be read."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def write_json(path: Path, said: dict) -> None:
    """The file appears whole or not at all."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise BadInput(f"cannot write {path}: {error.strerror}. Make room, or set run.folder") from error


def launched(run: Path, verb: str = "train") -> dict:
    """How a verb of this run was last submitted: {"on", "job", "log", "restarts", "command", "submitted_at"}."""
    return read_json(run / "slurm" / f"launched-{verb}.json")


def note_launch(run: Path, verb: str, said: dict) -> None:
    write_json(run / "slurm" / f"launched-{verb}.json", said)


def last_checkpoint(run: Path) -> int:
    """The step of the newest checkpoint by its name; 0 where there is none."""
    steps = [int(found[1]) for path in (run / "checkpoints").glob("step-*.pt")
             if (found := re.fullmatch(r"step-(\d+)\.pt", path.name))]
    return max(steps, default=0)


def last_metrics(run: Path) -> dict[str, dict]:
    """The last line of each kind in metrics.jsonl: {"train": {...}, "evaluation": {...}}."""
    found: dict[str, dict] = {}
    path = run / "metrics.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # the line that is being written
        found[said["kind"]] = said
    return found


def heartbeats(run: Path) -> list[dict]:
    """The last sign of life of each rank, the oldest first."""
    beats = [read_json(path) for path in (run / "heartbeats").glob("rank-*.json")]
    return sorted((beat for beat in beats if "at" in beat), key=lambda beat: beat["at"])
