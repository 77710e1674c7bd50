"""The files in checkpoints/: written whole, verified when read, the newest whole one found again, best.pt kept.

A checkpoint holds what cannot be recomputed: weights, momentum, the loss scale, the moving average of the weights and
the step; also the resolved config and the classes, to know what they belong to. Samplers, schedules and random
generators have no state.
"""

import contextlib
import errno
import os
import re
import shutil
from pathlib import Path
from typing import Callable

from detector.config.aliases import translate_saved
from detector.errors import BadInput, shorten
from detector.run.evaluation_history import best_of
from detector.run.file_digest import Damaged, SealedWriter, verify_file
from detector.run.files import CHECKPOINTS_FOLDER

FORMAT = 1
BEST = "best.pt"
NOT_SUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF)  # of fsync, on some network disks
MAX_NAMES = 3  # tensors that a message lists


def write_checkpoint(folder: Path, content: dict, before_rename: Callable[[], None] = lambda: None) -> Path:
    """Writes checkpoints/step-N.pt of a run folder and removes checkpoints of later steps.

    The file is written beside its place, flushed to disk and renamed: a checkpoint is complete or does not exist. It
    ends with a digest, see file_digest.py; torch.load reads it as any other file of torch.save.

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
            writer = SealedWriter(file)
            torch.save(content, writer)
            writer.seal()
            file.flush()
            os.fsync(file.fileno())
        before_rename()
        os.replace(partial, path)
        _flush(path.parent)
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
        _flush(partial)
    os.replace(partial, best_path(folder))


def restore_best(folder: Path, step: int, evaluations: list[tuple[int, float]]) -> list[str]:
    """Replaces best.pt when a run resumes at `step`, if it is damaged or of a later step.

    The steps after `step` are trained anew. best.pt becomes the best checkpoint up to `step`; if that one is not on
    disk, there is none until the next evaluation. A damaged best.pt is kept as best.pt.damaged.

    Args:
        evaluations: (step, value) of all evaluations in metrics.jsonl before it was cut at `step`.

    Returns:
        A sentence if best.pt is damaged.
    """
    best, damage = best_path(folder), damage_of(best_path(folder))
    best_step, _ = best_of(evaluations) or (0, 0.0)
    if not damage and best_step <= step:
        return []
    kept_step, _ = best_of([pair for pair in evaluations if pair[0] <= step]) or (0, 0.0)
    successor = checkpoint_path(folder, kept_step)
    if damage:
        os.replace(best, best.with_name(f"{BEST}.damaged"))
    if successor.is_file() and not damage_of(successor):
        mark_best(folder, successor)
    else:
        best.unlink(missing_ok=True)
    return [f"{best} is damaged: {damage}. It is kept as {BEST}.damaged; "
            + (f"{successor.name}, the same step, takes its place" if best.exists() else
               "the checkpoint of the next evaluation takes its place")] if damage else []


def damage_of(path: Path) -> str:
    """Returns in which way a file differs from what was written; "" if it does not, or cannot be read at all."""
    try:
        verify_file(path)
    except Damaged as error:
        return str(error)
    except OSError:
        return ""
    return ""


def step_files(folder: Path) -> list[Path]:
    """Returns the checkpoints of a run folder, newest step first, without best.pt."""
    paths = (folder / CHECKPOINTS_FOLDER).glob("step-*.pt")
    return sorted((path for path in paths if re.fullmatch(r"step-\d+\.pt", path.name) and path.is_file()),
                  reverse=True)


def last_checkpoint_step(folder: Path) -> int:
    """Returns the step of the newest checkpoint by its file name; 0 if there is none. No file is read."""
    return max((int(path.stem.removeprefix("step-")) for path in step_files(folder)), default=0)


def newest_readable(folder: Path) -> tuple[Path | None, dict | None, list[str]]:
    """Returns the newest whole checkpoint (None: there is none), its content, and a sentence for each that is not.

    best.pt is taken where no other is whole, or left. A checkpoint whose tensors are not finite is passed over as well:
    a run that resumes from it could only fail.
    """
    notes = []
    for path in filter(Path.exists, [*step_files(folder), best_path(folder)]):
        try:
            content = read_checkpoint(path)
        except BadInput as error:
            notes.append(f"{error}; it is skipped")
            continue
        names = names_not_finite(content)
        if not names:
            return path, content, notes
        notes.append(f"{path} holds values that are not finite, in {shorten(names, MAX_NAMES)}: the training had "
                     "diverged when it was saved; it is skipped")
    return None, None, notes


def read_checkpoint(path: Path) -> dict:
    """Returns the content of a checkpoint, its tensors on the CPU, its config with the option names of today.

    The file is verified first, see file_digest.py. It is data only: no code in it is run.

    Raises:
        BadInput: the file does not exist, is damaged, or is no checkpoint of this format.
    """
    import torch
    try:
        verify_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise BadInput(f"no such checkpoint: {path}") from error
    except Damaged as error:
        raise BadInput(f"{path} is damaged or no checkpoint: {error}") from error
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from error
    except Exception as error:  # the errors that torch.load raises for a foreign file have no common base
        reason = (str(error) or type(error).__name__).splitlines()[0][:100]
        raise BadInput(f"{path} is damaged or no checkpoint: {reason}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise BadInput(f"{path} is no checkpoint of this program's format {FORMAT}")
    content["config"] = translate_saved(content["config"], str(path))  # option names of version 0.1
    return content


def whole_beside(path: Path) -> list[Path]:
    """Returns the other checkpoints in the folder of this one that are as they were written, newest first."""
    folder = path.parent.parent
    others = [other for other in [*step_files(folder), best_path(folder)] if other.is_file() and other != path]
    return [other for other in others if not damage_of(other)] if path.parent.name == CHECKPOINTS_FOLDER else []


def names_not_finite(value, name: str = "") -> list[str]:
    """Returns the names of the tensors in nested dicts that hold infinity or NaN, such as model/rpn.conv.weight."""
    import torch
    if isinstance(value, dict):
        return [name_below for key, inner in value.items()
                for name_below in names_not_finite(inner, f"{name}/{key}" if name else str(key))]
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return []
    is_finite = value.sum().isfinite() or value.isfinite().all()  # the sum is fast; it may overflow
    return [] if is_finite else [name]


def _flush(path: Path) -> None:
    """Waits until a file, or the names in a folder, are on the disk; some network disks cannot do that for a folder."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NOT_SUPPORTED or not path.is_dir():
            raise
    finally:
        os.close(descriptor)
