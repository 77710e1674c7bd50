"""Not a test: runs `python -m detector` with a stop asked for after a given step, as a signal would ask.

    python cut_run.py STOP_AFTER train CONFIG key=value ...

STOP_AFTER is a step, or 0 for none. With RANK_HASHES=FOLDER each rank leaves a hash of its final weights and buffers.
"""

import hashlib
import os
import sys
from pathlib import Path

import detector.training.loop
from detector.__main__ import main


def install(stop_after: int, hashes: str) -> None:
    """Watches the steps of the real loop; nothing of it is replaced."""
    original = detector.training.loop.train_step

    def watched(state, *rest):
        outcome = original(state, *rest)
        if state.step + 1 == stop_after and os.environ.get("RANK", "0") == os.environ.get("STOPPED_RANK", "0"):
            os.kill(os.getpid(), 15)  # one rank is told; all must leave after this step
        if hashes:
            digest = hashlib.sha256()
            for value in state.model.state_dict().values():
                digest.update(value.numpy().tobytes())
            Path(hashes, f"rank{os.environ.get('RANK', 0)}").write_text(digest.hexdigest())
        return outcome
    detector.training.loop.train_step = watched


if __name__ == "__main__":
    install(int(sys.argv[1]), os.environ.get("RANK_HASHES", ""))
    sys.exit(main(sys.argv[2:]))
