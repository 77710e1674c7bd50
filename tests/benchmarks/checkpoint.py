"""How long does training stop for a checkpoint? The same steps without saving, with saving in the background, with saving
in the foreground, and with the torch.save of torchvision's reference loop.

    python tests/benchmarks/checkpoint.py [CONFIG] [key=value ...] [--saves 8] [--every 3] [--folder /on/the/disk]

Without a config: format shapes with resnet50_fpn from random weights on small images, on the GPU if there is one.
stops_s: seconds of the call that saves, during which no step runs. time_ratio: seconds from one save to the next,
relative to the same steps without saving; this includes what a background write costs the steps. As in a run, a save is
skipped while the one before is still being written: set --every so that this happens rarely. Appends a JSON line to
tests/benchmarks/results/checkpoint.jsonl.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Callable

import torch
from measuring import append_result, format_spread, spread

from detector.checks.problems import CheckReport
from detector.checks.trial import build_initial_state, checkpoint_bytes
from detector.config.load import load_config
from detector.data.read import read_datasets, select_for_training
from detector.data.samplers import epoch_sizes
from detector.distributed.process_group import choose_device
from detector.run import checkpoint_files
from detector.training.async_checkpoint import AsyncCheckpoint
from detector.training.checkpoint import TrainState, checkpoint_content
from detector.training.schedule import plan_run
from detector.training.trial_batches import plan_trial
from detector.training.trial_step import run_micro_batch

SMALL = ["data.format=shapes", "model.weights=", "model.norm=trained", "model.frozen_stages=0", "data.val=[]",
         "augment.min_size=[128]", "augment.max_size=256", "batch.size=1", "batch.micro_batch_size=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--every", type=int, default=3, help="steps between two saves")
    parser.add_argument("--folder", default=None, help="on the disk to be measured; default: that of temporary files")
    parser.add_argument("--out", default="", help="file to which the JSON line is appended")
    args = parser.parse_intermixed_args()
    if "=" in args.config:
        args.config, args.overrides = "", [args.config, *args.overrides]
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        append_result("checkpoint", measure(args, Path(folder)), args.out)


def measure(args: argparse.Namespace, folder: Path) -> dict:
    """Returns the result line, and prints it."""
    empty = folder / "empty.yaml"
    empty.write_text("")
    small = [] if args.config else [*SMALL, f"data.root={folder / 'shapes'}"]
    config = load_config(args.config or str(empty), [*small, *args.overrides])
    device = choose_device(config.run.device)
    data = select_for_training(read_datasets(config.data)[0], config.data)
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    plan = plan_run(config.batch, config.optim, config.schedule, sizes, 0, 1)
    state = build_initial_state(config, data, device, False, CheckReport())
    batch = plan_trial(config, data, plan).median

    def step() -> None:
        run_micro_batch(config, data, plan, state, device, batch)
        state.step += 1
    for _ in range(3):
        step()  # not measured: the first steps set up memory
    methods = save_methods(state, folder, config)
    spans, stops = {name: [] for name in methods}, {name: [] for name in methods}
    names = list(methods)
    for number in range(args.saves):
        first = number % len(names)
        for name in names[first:] + names[:first]:
            span, stop = timed(step, *methods[name], args.every)
            spans[name].append(span)
            if stop is not None:
                stops[name].append(stop)
    line = {"config": args.config or "small", "overrides": args.overrides, "every": args.every,
            "checkpoint_mib": round(checkpoint_bytes(state) / 2**20, 1), "spans_s": spans, "stops_s": stops,
            "time_ratio": {name: spread([a / b for a, b in zip(spans[name], spans["none"])]) for name in methods}}
    saved = [name for name in methods if stops[name] and name != "none"]
    line["stop_ratio"] = {name: spread([peer / statistics.median(stops[name]) for peer in stops["torch.save"]])
                          for name in saved}
    print(f"{line['checkpoint_mib']} MiB; a step takes {statistics.median(spans['none']) / args.every:.3f} s; saved before every "
          f"{args.every}")
    for name in saved:
        print(f"{name:>10}: {len(stops[name])} times, a step stops for {format_spread(spread(stops[name]), 3)} s, ratio "
              f"{format_spread(line['stop_ratio'][name])}; with it the steps take "
              f"{format_spread(line['time_ratio'][name], 3)} times as long")
    return line


def save_methods(state: TrainState, folder: Path, config) -> dict[str, tuple[Callable[[], bool], Callable[[], None]]]:
    """Returns two functions for each method: save (True if something was saved), and wait for its end."""
    saver = AsyncCheckpoint(folder / "background", config.run.keep_checkpoints, lambda: None, 0)

    def content() -> dict:
        return checkpoint_content(state, config, ("thing",), config.batch.size)

    def save_in_foreground() -> bool:
        checkpoint_files.write_checkpoint(folder / "here", content())
        checkpoint_files.keep_newest(folder / "here", config.run.keep_checkpoints)
        return True

    def save_as_peer() -> bool:
        torch.save({"model": state.model.state_dict(), "optimizer": state.optimizer.state_dict()}, folder / "peer.pth")
        return True
    return {"none": (lambda: False, lambda: None), "background": (lambda: saver.start(content()), saver.wait),
            "here": (save_in_foreground, lambda: None), "torch.save": (save_as_peer, lambda: None)}


def timed(step: Callable[[], None], save: Callable[[], bool], wait: Callable[[], None],
          every: int) -> tuple[float, float | None]:
    """Returns the seconds of a save with the steps until the next one, and of the save alone; None if it was skipped."""
    started_at = time.monotonic()
    saved = save()
    stop = time.monotonic() - started_at
    for _ in range(every):
        step()
    span = time.monotonic() - started_at
    wait()
    return span, stop if saved else None


if __name__ == "__main__":
    main()
