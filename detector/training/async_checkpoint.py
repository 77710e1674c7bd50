"""AsyncCheckpoint: the state is copied to host memory, then written by a background thread.

At most one write is running. A checkpoint appears under its name only when it is complete on disk and metrics.jsonl is
flushed as well. Only rank 0 saves; an error of the background thread is raised at the next vote of the ranks.
"""

import contextlib
import threading
import time
from pathlib import Path
from typing import Callable

import torch

from detector.distributed import collectives
from detector.errors import BadInput, MachineError
from detector.loggers.run_log import RunLog
from detector.run.checkpoint_files import keep_newest, write_checkpoint


class AsyncCheckpoint:
    """Writes checkpoints of one run in the background.

    Args:
        keep: how many of the newest checkpoints stay on disk.
        flush_metrics: makes metrics.jsonl safe on disk; called before a checkpoint gets its name.
        step: the last step that is already on disk.
    """

    def __init__(self, folder: Path, keep: int, flush_metrics: Callable[[], None], step: int):
        self.folder, self.keep, self.flush_metrics = folder, keep, flush_metrics
        self.step = step                         # of the checkpoint that is being written, or was written last
        self.host_copy: dict | None = None       # its content
        self.thread: threading.Thread | None = None
        self.error: Exception | None = None
        self.saved_in_s: float | None = None     # seconds from start() until the last checkpoint was complete on disk

    def start(self, content: dict) -> bool:
        """Copies the content and starts to write it; the caller may change the tensors at once.

        Returns:
            False, and does nothing, while an earlier write is running.

        Raises:
            Exception: the error of the earlier write, once.
        """
        if self.is_writing():
            return False
        self.wait()
        started_at, self.step = time.monotonic(), content["step"]
        self.host_copy = copy_to_host(content, self.host_copy)
        copied = torch.cuda.Event() if torch.cuda.is_initialized() else None
        if copied:
            copied.record()
        self.thread = threading.Thread(target=self._write, args=(copied, started_at), name="checkpoint")
        self.thread.start()
        return True

    def is_writing(self) -> bool:
        return self.thread is not None and self.thread.is_alive()

    def wait(self) -> None:
        """Waits until no write is running. Raises the error of the last write, once."""
        if self.thread is not None:
            self.thread.join()
            self.thread = None
        error, self.error = self.error, None
        if error is not None:
            raise error

    def drop_error(self) -> None:
        """Waits until no write is running, and forgets the error of the last write, whose step is not on the disk."""
        try:
            self.wait()
        except Exception:  # has been reported
            self.step = -1

    def close(self) -> None:
        """Waits until no write is running. Raises nothing, because another exception may be passing through."""
        if self.thread is not None:
            self.thread.join()

    def _write(self, copied: torch.cuda.Event | None, started_at: float) -> None:
        try:
            if copied:
                copied.synchronize()  # until the GPU has run the copies that start() queued
            write_checkpoint(self.folder, self.host_copy, self.flush_metrics)
            keep_newest(self.folder, self.keep)
            self.saved_in_s = time.monotonic() - started_at
        except Exception as error:  # any error must reach all ranks
            self.error = error


def save_if_possible(save: Callable[[], str], saver: AsyncCheckpoint, scoring_error: BaseException | None,
                     run_log: RunLog) -> None:
    """Saves the current step before an error ends the run; an error of saving does not replace that one. Collective.

    Nothing is saved where scoring failed: the next start repeats the evaluation from the checkpoint that it belongs to.

    Args:
        save: saves the current step, and returns a sentence about that.

    Raises:
        NotFinite: the weights are not worth saving.
    """
    if collectives.any_rank(scoring_error is not None)[0]:
        return
    with contextlib.suppress(BadInput, MachineError, RuntimeError, OSError):
        collectives.run_on_main(saver.drop_error)
        run_log.message(f"{save()}; the run ends with an error, start again to continue")


def copy_to_host(value, reuse=None):
    """Returns nested dicts with every tensor copied to host memory.

    Args:
        reuse: an earlier copy, whose tensors are overwritten where shape, type and strides are the same.
    """
    if isinstance(value, dict):
        reuse = reuse if isinstance(reuse, dict) else {}
        return {key: copy_to_host(inner, reuse.get(key)) for key, inner in value.items()}
    if not isinstance(value, torch.Tensor):
        return value
    fits = isinstance(reuse, torch.Tensor) and (reuse.shape, reuse.dtype, reuse.stride()) == (
        value.shape, value.dtype, value.stride())
    pinned = value.device.type == "cuda"  # a copy to memory that is not pinned would block the host
    target = reuse if fits else torch.empty_like(value, device="cpu", pin_memory=pinned)
    return target.copy_(value, non_blocking=True)


def describe_save(step: int, elapsed_s: float | None) -> str:
    """Returns what is on disk after a stop; elapsed_s: seconds of this save, None if the step was on disk already."""
    if elapsed_s is not None:
        return f"saved step {step} in {elapsed_s:.1f} s"
    return f"step {step} is saved" if step else "before the first step there is nothing to save"
