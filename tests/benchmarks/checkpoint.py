"""How long does training stop for a checkpoint? The same steps without saving, saving in the background, saving here and
now, and with the torch.save of torchvision's reference loop.

    python tests/benchmarks/checkpoint.py [CONFIG] [key=value ...] [--saves 8] [--every 3] [--folder /on/the/disk]

Without a config: shapes with resnet50_fpn from random weights on small images, on the GPU where there is one. A
step stops for as long as the call takes that saves; what the write behind it costs the steps that follow is in the ratio
of the time from one save to the next to that without saving. The four take turns. As in a run, a save is left out while
the one before is still being written: choose --every so that few are. Appends a JSON line to
tests/benchmarks/results/checkpoint.jsonl.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable

import torch
from measuring import append, spread, told

from detector.checks.problems import CheckReport
from detector.checks.trial_step import build_initial_state, largest_and_median_batch, checkpoint_bytes, run_micro_batch
from detector.config.load import load_config
from detector.data.read import read_datasets, select_for_training
from detector.data.samplers import epoch_sizes
from detector.distributed.process_group import choose_device
from detector.run import checkpoint_files
from detector.training import checkpoint
from detector.training.async_checkpoint import Saver
from detector.training.checkpoint import TrainState
from detector.training.schedule import plan_run

SMALL = ["data.format=shapes", "model.weights=", "model.norm=trained", "model.frozen_stages=0", "data.val=[]",
         "augment.min_size=[128]", "augment.max_size=256", "batch.size=1", "batch.micro_batch_size=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--every", type=int, default=3, help="steps between two saves")
    parser.add_argument("--folder", default=None, help="on the disk to be measured; default: that of temporary files")
    parser.add_argument("--out", default="", help="where the JSON line is appended")
    said = parser.parse_intermixed_args()
    if "=" in said.config:
        said.config, said.overrides = "", [said.config, *said.overrides]
    with tempfile.TemporaryDirectory(dir=said.folder) as folder:
        append("checkpoint", measure(said, Path(folder)), said.out)


def measure(said: argparse.Namespace, folder: Path) -> dict:
    empty = folder / "empty.yaml"
    empty.write_text("")
    small = [] if said.config else [*SMALL, f"data.root={folder / 'shapes'}"]
    config = load_config(said.config or str(empty), [*small, *said.overrides])
    device = choose_device(config.run.device)
    data = select_for_training(read_datasets(config.data)[0], config.data)
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    plan = plan_run(config.batch, config.optim, config.schedule, sizes, 0, 1)
    state = build_initial_state(config, data, device, False, CheckReport())
    canvas = largest_and_median_batch(config, data, plan)[1]

    def step() -> None:
        run_micro_batch(config, data, plan, state, device, canvas)
        state.step += 1
    for _ in range(3):
        step()  # not measured: the first ones set up memory
    ways = ways_to_save(state, folder, config)
    spans, stops = {name: [] for name in ways}, {name: [] for name in ways}
    for turn in range(said.saves):
        for name in [*ways][turn % len(ways):] + [*ways][:turn % len(ways)]:
            span, stop = timed(step, *ways[name], said.every)
            spans[name].append(span)
            stops[name] += [stop] * (stop is not None)
    line = {"config": said.config or "small", "overrides": said.overrides, "every": said.every,
            "checkpoint_mib": round(checkpoint_bytes(state) / 2**20, 1), "spans_s": spans, "stops_s": stops,
            "time_ratio": {name: spread([a / b for a, b in zip(spans[name], spans["none"])]) for name in ways}}
    saved = [name for name in ways if stops[name] and name != "none"]
    line["stop_ratio"] = {name: spread([theirs / statistics.median(stops[name]) for theirs in stops["torch.save"]])
                          for name in saved}
    print(f"{line['checkpoint_mib']} MiB; a step takes {statistics.median(spans['none']) / said.every:.3f} s; saved before every "
          f"{said.every}")
    for name in saved:
        print(f"{name:>10}: {len(stops[name])} times, a step stops for {told(spread(stops[name]), 3)} s, ratio "
              f"{told(line['stop_ratio'][name])}; with it the steps take {told(line['time_ratio'][name], 3)} times as long")
    return line


def ways_to_save(state: TrainState, folder: Path, config) -> dict[str, tuple[Callable[[], bool], Callable[[], None]]]:
    """How to save, which says whether it did, and what to wait for before another way has its turn."""
    saver = Saver(folder / "background", config.run.keep_checkpoints, lambda: None, 0)

    def content() -> dict:
        return checkpoint.content_of(state, config, ("thing",), config.batch.size)

    def here() -> bool:
        checkpoint_files.write_checkpoint(folder / "here", content())
        checkpoint_files.keep_newest(folder / "here", config.run.keep_checkpoints)
        return True

    def peer() -> bool:
        torch.save({"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}, folder / "peer.pth")
        return True
    return {"none": (lambda: False, lambda: None), "background": (lambda: saver.start(content()), saver.wait),
            "here": (here, lambda: None), "torch.save": (peer, lambda: None)}


def timed(step: Callable[[], None], save: Callable[[], bool], settle: Callable[[], None],
          every: int) -> tuple[float, float | None]:
    """Seconds of a save and the steps up to the next one, and of the save alone, if it was one."""
    started_at = time.monotonic()
    saved = save()
    stop = time.monotonic() - started_at
    for _ in range(every):
        step()
    span = time.monotonic() - started_at
    settle()
    return span, stop if saved else None


if __name__ == "__main__":
    main()
