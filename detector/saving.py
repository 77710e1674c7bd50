"""Checkpoints without stopping the step for the disk: a copy to host memory, then a write in the background.

At most one write is under way, and a checkpoint counts only when it is whole on disk and the record is, too. Only rank
0 saves; what goes wrong in the background is told of at the next vote.
"""

import time
from pathlib import Path
from typing import Callable

import torch

from detector import checkpoint
from detector.background import Background


class Saver:
    """`record` makes the record of the run safe on disk; `keep` checkpoints stay there; that of `step` is there."""

    def __init__(self, folder: Path, keep: int, record: Callable[[], None], step: int):
        self.folder, self.keep, self.record = folder, keep, record
        self.step = step                      # of the content under way, or that was written last
        self.copy: dict | None = None         # that content
        self.disk = Background("saver")
        self.saved_in_s: float | None = None  # of the last that is whole on disk: from the call until then

    @property
    def error(self) -> Exception | None:
        """What went wrong in the background, until somebody waits."""
        return self.disk.error

    def start(self, content: dict) -> bool:
        """The content as it is now will be written; changing it is allowed at once. False, and nothing is done, while
        an earlier write is under way. Raises what went wrong with that."""
        if self.writing():
            return False
        self.wait()
        started_at, self.step = time.monotonic(), content["step"]
        self.copy = on_host(content, self.copy)
        copied = torch.cuda.Event() if torch.cuda.is_initialized() else None
        if copied:
            copied.record()
        self.disk.start(lambda: self._write(copied, started_at))
        return True

    def writing(self) -> bool:
        return self.disk.busy()

    def wait(self) -> None:
        """Until nothing is under way. Raises what went wrong, once."""
        self.disk.wait()

    def close(self) -> None:
        """Until nothing is under way; whatever went wrong has been told, or another error is more important."""
        self.disk.close()

    def _write(self, copied: torch.cuda.Event | None, started_at: float) -> None:
        if copied:
            copied.synchronize()  # the copies queue behind the step on the device, and the next step behind them
        checkpoint.write(self.folder, self.copy, self.record)
        checkpoint.keep_newest(self.folder, self.keep)
        self.saved_in_s = time.monotonic() - started_at


def on_host(value, before=None):
    """The same dicts, lists and values, with every tensor copied to the host; into the one of `before` if that fits."""
    if isinstance(value, dict):
        before = before if isinstance(before, dict) else {}
        return {key: on_host(inner, before.get(key)) for key, inner in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    fits = isinstance(before, torch.Tensor) and (before.shape, before.dtype, before.stride()) == (
        value.shape, value.dtype, value.stride())
    pinned = value.device.type == "cuda"  # else the copy would wait for the device
    target = before if fits else torch.empty_like(value, device="cpu", pin_memory=pinned)
    return target.copy_(value, non_blocking=True)
