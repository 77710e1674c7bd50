"""Helper of tests: runs `python -m detector` and counts the collectives of each training step.

    COLLECTIVES=FOLDER python count_collectives.py train CONFIG key=value ...

Each rank writes FOLDER/rankN: a JSON list with the calls of torch.distributed between two calls of the training step, from
the second step on. DistributedDataParallel sums gradients in C++, which is not counted.
"""

import json
import os
import sys
from pathlib import Path

import torch.distributed as dist

import detector.training.loop
from detector.__main__ import main

COLLECTIVES = [name for name in ("all_gather", "all_gather_into_tensor", "all_gather_object", "all_reduce", "all_to_all", "barrier",
                                 "broadcast", "broadcast_object_list", "gather", "gather_object", "monitored_barrier", "reduce",
                                 "reduce_scatter", "reduce_scatter_tensor", "scatter", "send", "recv") if hasattr(dist, name)]
calls: list[list[str]] = [[]]


def count(name: str) -> None:
    original = getattr(dist, name)

    def counted(*args, **kwargs):
        calls[-1].append(name)
        return original(*args, **kwargs)
    setattr(dist, name, counted)


def counted_step(*args, original=detector.training.loop.train_step, **kwargs):
    calls.append([])
    return original(*args, **kwargs)


if __name__ == "__main__":
    for collective in COLLECTIVES:
        count(collective)
    detector.training.loop.train_step = counted_step
    try:
        status = main(sys.argv[1:])
    finally:
        Path(os.environ["COLLECTIVES"], f"rank{os.environ['RANK']}").write_text(json.dumps(calls[1:]))
    sys.exit(status)
