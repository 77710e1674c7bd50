"""Checkpoints without stopping the step for the disk: a copy to host memory, then a write in the background.

At most one write is under way, and a checkpoint counts only when it is whole on disk and the record is, too. Only rank
0 saves; what goes wrong in the background is told of at the next vote.
"""

import threading
import time
from pathlib import Path
from typing import Callable

import torch

from detector.run import checkpoint_files


class Saver:
    """`record` makes the record of the run safe on disk; `keep` checkpoints stay there; that of `step` is there."""

    def __init__(self, folder: Path, keep: int, record: Callable[[], None], step: int):
        self.folder, self.keep, self.record = folder, keep, record
        self.step = step                         # of the content under way, or that was written last
        self.copy: dict | None = None            # that content
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None
        self.saved_in_s: float | None = None     # of the last that is whole on disk: from the call until then

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
        self.thread = threading.Thread(target=self._write, args=(copied, started_at), name="saver")
        self.thread.start()
        return True

    def writing(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def wait(self) -> None:
        """Until nothing is under way. Raises what went wrong, once."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Until nothing is under way; whatever went wrong has been told, or another error is more important."""
        if self.thread is not None:
            self.thread.join()

    def _write(self, copied: torch.cuda.Event | None, started_at: float) -> None:
        try:
            if copied:
                copied.synchronize()  # the copies queue behind the step on the device, and the next step behind them
            checkpoint_files.write_checkpoint(self.folder, self.copy, self.record)
            checkpoint_files.keep_newest(self.folder, self.keep)
            self.saved_in_s = time.monotonic() - started_at
        except Exception as error:  # whatever it is, all ranks must hear of it
            self.error = error


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


def kept(step: int, elapsed_s: float | None) -> str:
    """What is on disk, and the seconds that it took; None: it had been there. Step 0 is never saved."""
    if elapsed_s is not None:
        return f"saved step {step} in {elapsed_s:.1f} s"
    return f"step {step} is saved" if step else "before the first step there is nothing to save"
