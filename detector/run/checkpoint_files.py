"""The files in checkpoints/: written whole, the newest readable one found again, best.pt kept.

A checkpoint holds what cannot be recomputed: weights, momentum, the loss scale, the moving average of the weights and
the step; also the resolved config and the classes, to know what they belong to. Samplers, schedules and random
generators have no state.
"""

import contextlib
import os
import re
import shutil
from pathlib import Path
from typing import Callable

from detector.config.aliases import translate_saved
from detector.errors import BadInput
from detector.run.files import CHECKPOINTS_FOLDER

FORMAT = 1
BEST = "best.pt"


def write_checkpoint(folder: Path, content: dict, before_rename: Callable[[], None] = lambda: None) -> Path:
    """Writes checkpoints/step-N.pt of a run folder and removes checkpoints of later steps.

    The file is written beside its place, flushed to disk and renamed: a checkpoint is complete or does not exist.

    Args:
        content: what torch.save writes; `content["step"]` names the file.
        before_rename: called when the content is safe on disk, before the file gets its name.

    Returns:
        The path of the checkpoint.

    Raises:
        BadInput: the file cannot be written, such as on a full disk. Other checkpoints are left as they are.
    """
    path = checkpoint_path(folder, content["step"])
    partial = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        import torch  # not at the top: the launcher imports this module without torch
        with open(partial, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
        before_rename()
        os.replace(partial, path)
        _flush_folder(path.parent)
        for other in step_files(folder):  # the run has resumed before unreadable later ones; they are outdated now
            if other.name > path.name:
                other.unlink()
    except (OSError, RuntimeError) as error:  # torch's writer turns a full disk into a RuntimeError
        written = partial.stat().st_size if partial.is_file() else 0
        with contextlib.suppress(OSError):
            partial.unlink()
        free = shutil.disk_usage(folder).free if folder.exists() else 0
        raise BadInput(f"cannot write checkpoint {path}: {error} ({written >> 20} MiB written, {free >> 20} MiB free). "
                       "Make room, or set run.folder to another disk; the last good checkpoint is untouched") from error
    return path


def remove_partial_files(folder: Path) -> None:
    """Removes the incomplete files of writes that were killed."""
    for path in (folder / CHECKPOINTS_FOLDER).glob("*.part"):
        path.unlink(missing_ok=True)


def keep_newest(folder: Path, count: int) -> None:
    """Removes all but the `count` newest checkpoints. best.pt is a file of its own and stays."""
    for path in step_files(folder)[count:]:
        path.unlink(missing_ok=True)


def checkpoint_path(folder: Path, step: int) -> Path:
    """Returns the path of the checkpoint of this step."""
    return folder / CHECKPOINTS_FOLDER / f"step-{step:08d}.pt"


def best_path(folder: Path) -> Path:
    """Returns the path of the checkpoint with the best evaluation."""
    return folder / CHECKPOINTS_FOLDER / BEST


def mark_best(folder: Path, path: Path) -> None:
    """Makes this checkpoint best.pt, by rename: a hard link, or a copy where the disk has no hard links."""
    partial = folder / CHECKPOINTS_FOLDER / "best.part"
    partial.unlink(missing_ok=True)
    try:
        os.link(path, partial)
    except OSError:
        shutil.copyfile(path, partial)
    os.replace(partial, best_path(folder))


def restore_best(folder: Path, step: int, evaluations: list[tuple[int, float]]) -> None:
    """Replaces best.pt when a run resumes at `step`, before the step of its best evaluation.

    The steps after `step` are trained anew. best.pt becomes the best checkpoint up to `step`, or is removed if that
    one is not on disk.

    Args:
        evaluations: (step, value) of all evaluations in metrics.jsonl before it was cut at `step`.
    """
    best_step, _ = max(evaluations, key=lambda pair: pair[1], default=(0, 0.0))
    if best_step <= step:
        return
    kept = [pair for pair in evaluations if pair[0] <= step]
    best_kept_step, _ = max(kept, key=lambda pair: pair[1], default=(0, 0.0))
    if checkpoint_path(folder, best_kept_step).is_file():
        mark_best(folder, checkpoint_path(folder, best_kept_step))
    else:
        best_path(folder).unlink(missing_ok=True)


def step_files(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run folder, newest step first, without best.pt."""
    paths = (folder / CHECKPOINTS_FOLDER).glob("step-*.pt")
    return sorted((path for path in paths if re.fullmatch(r"step-\d+\.pt", path.name)), reverse=True)


def last_checkpoint_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint by its file name; 0 if there is none. No file is read."""
    return max((int(path.stem.removeprefix("step-")) for path in step_files(folder)), default=0)


def newest_readable(folder: Path) -> tuple[Path | None, list[str]]:
    """Returns the newest checkpoint that can be read (None: there is none), and a sentence for each that cannot."""
    notes = []
    for path in step_files(folder):
        try:
            read_checkpoint(path)
            return path, notes
        except BadInput as error:
            notes.append(f"{error}; it is skipped")
    return None, notes


def read_checkpoint(path: Path) -> dict:
    """Returns the content of a checkpoint, its tensors on the CPU, its config with the option names of today.

    The file is data only: no code in it is run.

    Raises:
        BadInput: the file does not exist, is truncated, or is no checkpoint of this format.
    """
    import torch
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"no such checkpoint: {path}") from error
    except Exception as error:  # the errors that torch.load raises for a foreign file have no common base
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise BadInput(f"{path} is truncated or no checkpoint ({reason})") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f"{path} is no checkpoint of this program's format {FORMAT}")
    content["config"] = translate_saved(content["config"], str(path))  # option names of version 0.1
    return content


def _flush_folder(folder: Path) -> None:
    """Waits until the names in a folder are on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
