"""Helper of tests: runs `python -m detector` and requests a stop after a given step, by a signal as Slurm does.

    python cut_run.py STOP_AFTER train CONFIG key=value ...

STOP_AFTER is a step, or 0 for none; only rank STOPPED_RANK (default 0) gets the signal. With RANK_HASHES=FOLDER each rank
writes a hash of its weights and buffers after every step.
"""

import hashlib
import os
import signal
import sys
from pathlib import Path

import detector.training.loop
from detector.__main__ import main


def wrap_train_step(stop_after: int, hash_folder: str) -> None:
    """Wraps the step of the real training loop; replaces no part of it."""
    train_step = detector.training.loop.train_step
    rank, stopped_rank = os.environ.get("RANK", "0"), os.environ.get("STOPPED_RANK", "0")

    def watched_step(state, *args, **kwargs):
        result = train_step(state, *args, **kwargs)
        if state.step + 1 == stop_after and rank == stopped_rank:
            os.kill(os.getpid(), signal.SIGTERM)  # one rank gets the signal; all must leave after this step
        if hash_folder:
            digest = hashlib.sha256()
            for value in state.model.state_dict().values():
                digest.update(value.numpy().tobytes())
            Path(hash_folder, f"rank{rank}").write_text(digest.hexdigest())
        return result
    detector.training.loop.train_step = watched_step


if __name__ == "__main__":
    wrap_train_step(int(sys.argv[1]), os.environ.get("RANK_HASHES", ""))
    sys.exit(main(sys.argv[2:]))
