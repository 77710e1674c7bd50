"""The state of a run on disk: whole files only, the newest good one found again.

A checkpoint holds what cannot be recomputed: weights, momentum, the loss scale, the average, the step; and the
resolved config and classes, to know what they belong to. No sampler, scheduler or generator has a state.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Callable

from detector.config.aliases import translate
from detector.errors import BadInput

FORMAT = 1


def write_checkpoint(folder: Path, content: dict, before_it_counts: Callable[[], None] = lambda: None) -> Path:
    """Writes checkpoints/step-N.pt: beside, flushed, renamed. A full disk is BadInput, with nothing left behind."""
    path = checkpoint_path(folder, content["step"])
    beside = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        import torch  # here, so that the launcher can import this module without torch
        with open(beside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        before_it_counts()
        os.replace(beside, path)
        _flush_folder(path.parent)
        for later in step_files(folder):  # of a branch that was given up because they could not be read
            if later.name > path.name:
                later.unlink()
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        written = beside.stat().st_size if beside.is_file() else 0
        with contextlib.suppress(OSError):
            beside.unlink()
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise BadInput(f"cannot write checkpoint {path}: {error} ({written >> 20} MiB written, {free >> 20} MiB free). "
                       "Make room, or set run.folder to another disk; the last good checkpoint is untouched") from error
    return path


def remove_partial_files(folder: Path) -> None:
    """Removes what a write that was killed left behind."""
    for path in (folder / "checkpoints").glob("*.part"):
        path.unlink(missing_ok=True)


def keep_newest(folder: Path, count: int) -> None:
    """Removes all but the newest checkpoints; best.pt is a file of its own."""
    for path in step_files(folder)[count:]:
        path.unlink(missing_ok=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / "checkpoints" / f"step-{step:08d}.pt"


def mark_best(folder: Path, path: Path) -> None:
    """best.pt becomes this checkpoint, by rename; a hard link where the disk knows those."""
    beside = folder / "checkpoints" / "best.part"
    beside.unlink(missing_ok=True)
    try:
        os.link(path, beside)
    except OSError:
        shutil.copyfile(path, beside)
    os.replace(beside, folder / "checkpoints" / "best.pt")


def restore_best(folder: Path, step: int, record: list[tuple[int, float]]) -> None:
    """best.pt is never of a later step than a run goes on from: that branch is given up. `record`: (step, value)."""
    best = max(record, key=lambda pair: pair[1], default=(0, 0.0))
    if best[0] <= step:
        return
    kept = max((pair for pair in record if pair[0] <= step), key=lambda pair: pair[1], default=(0, 0.0))
    if checkpoint_path(folder, kept[0]).is_file():
        mark_best(folder, checkpoint_path(folder, kept[0]))
    else:
        (folder / "checkpoints" / "best.pt").unlink(missing_ok=True)


def step_files(folder: Path) -> list[Path]:
    """The checkpoints of a run, newest first."""
    found = [path for path in (folder / "checkpoints").glob("step-*.pt") if re.fullmatch(r"step-\d+\.pt", path.name)]
    return sorted(found, reverse=True)


def newest_readable(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that can be read, and a sentence for each that cannot."""
    notes = []
    for path in step_files(folder):
        try:
            read_checkpoint(path)
            return path, notes
        except BadInput as error:
            notes.append(f"{error}; the one before it is used")
    return None, notes


def read_checkpoint(path: Path) -> dict:
    """The content of a checkpoint, on the CPU. Raises BadInput for a truncated or foreign file."""
    import torch
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"no such checkpoint: {path}") from error
    except Exception as error:  # torch.load names no common base for what a foreign file makes it raise
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise BadInput(f"{path} is truncated or no checkpoint ({reason})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f"{path} is no checkpoint of this program's format {FORMAT}")
    content["config"], _ = translate(content["config"], str(path))  # option names of version 0.1
    return content


def _flush_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
