"""How long does training stop for a checkpoint? The same steps without saving, saving in the background, and saving
here and now.

    python tests/benchmarks/checkpoint.py [CONFIG] [key=value ...] [--saves 8] [--every 3] [--folder /on/the/disk]

Without a config: shapes with resnet50_fpn from random weights on small images, on the GPU where there is one. A
step stops for as long as the call takes that saves; what the write behind it costs the steps that follow is in the ratio
of the whole time to that without saving. As in a run, a save is left out while the one before is still being written:
choose --every so that few are. Appends a JSON line to tests/benchmarks/results/checkpoint.jsonl.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from detector import checkpoint
from detector.checkpoint import TrainState
from detector.checks.trial import build, canvases, checkpoint_bytes, one_turn
from detector.config.load import load_config
from detector.data.batches import epoch_sizes
from detector.data.read import for_training, read_datasets
from detector.distributed import choose_device
from detector.findings import Findings
from detector.optim import plan_run
from detector.saving import Saver
from detector.surroundings import surroundings

RESULTS = Path(__file__).parent / "results" / "checkpoint.jsonl"
SMALL = ["data.format=shapes", "model.weights=", "model.norm=trained", "model.frozen_stages=0", "data.val=[]",
         "augment.short_sides=[128]", "augment.long_side=256", "batch.size=1", "batch.per_process=1"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", nargs="?", default="")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--saves", type=int, default=8)
    parser.add_argument("--every", type=int, default=3, help="steps between two saves")
    parser.add_argument("--folder", default=None, help="on the disk to be measured; default: that of temporary files")
    said = parser.parse_args()
    if "=" in said.config:
        said.config, said.overrides = "", [said.config, *said.overrides]
    with tempfile.TemporaryDirectory(dir=said.folder) as folder:
        line = measure(said, Path(folder))
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    with open(RESULTS, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def measure(said: argparse.Namespace, folder: Path) -> dict:
    empty = folder / "empty.yaml"
    empty.write_text("")
    small = [] if said.config else [*SMALL, f"data.root={folder / 'shapes'}"]
    config = load_config(said.config or str(empty), [*small, *said.overrides])
    device = choose_device(config.run.device)
    data = for_training(read_datasets(config.data)[0], config.data)
    sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
    plan = plan_run(config.batch, config.optim, config.schedule, sizes, 0, 1)
    state = build(config, data, device, False, Findings())
    canvas = canvases(config, data, plan)[1]

    def step() -> None:
        one_turn(config, data, plan, state, device, canvas)
        state.step += 1
    found, stops = {}, {}
    for _ in range(3):
        step()  # not measured: the first ones set up memory
    for name in ("none", "background", "here", "none again"):
        found[name], stops[name], last = timed(step, *saves(name, state, folder / name.replace(" ", "-"), config), said)
        if name == "background":
            written_s = last
    usual = statistics.median(found["none"] + found["none again"])
    line = {"benchmark": "checkpoint", "config": said.config or "small", "overrides": said.overrides,
            "checkpoint_mib": round(checkpoint_bytes(state) / 2**20, 1), "step_s": usual, "saves": said.saves,
            "every": said.every, "written_in_s": written_s}
    print(f"{line['checkpoint_mib']} MiB; a step takes {usual:.3f} s, and a write {written_s:.2f} s")
    for name in ("background", "here"):
        line[name] = {"stop_median_s": statistics.median(stops[name]), "stop_least_s": min(stops[name]),
                      "stop_most_s": max(stops[name]), "saved": len(stops[name]),
                      "time_ratio": sum(found[name]) / (usual * len(found[name]))}
        print(f"saving {name:10}: {len(stops[name])} times, a step stops for {line[name]['stop_median_s']:.3f} s "
              f"({min(stops[name]):.3f} to {max(stops[name]):.3f}); all steps together take "
              f"{line[name]['time_ratio']:.3f} times as long")
    return {**line, **surroundings()}


def saves(name: str, state: TrainState, folder: Path, config):
    """What is done before every so manieth step, and what at the end."""
    saver = Saver(folder, config.run.keep, lambda: None, 0)

    def save() -> bool:
        content = checkpoint.content_of(state, config, ("thing",), config.batch.size)
        if name == "background":
            return saver.start(content)
        if name == "here":
            checkpoint.write(folder, content)
            checkpoint.keep_newest(folder, config.run.keep)
        return name == "here"
    return save, saver


def timed(step, save, saver: Saver, said: argparse.Namespace) -> tuple[list[float], list[float], float | None]:
    """Seconds of each step with the save before it, of each save, and of the last write in the background."""
    seconds, stops = [], []
    for number in range(said.saves * said.every):
        started_at = time.monotonic()
        if number % said.every == 0 and save():
            stops.append(time.monotonic() - started_at)
        step()
        seconds.append(time.monotonic() - started_at)
    saver.wait()
    return seconds, stops, saver.saved_in_s


if __name__ == "__main__":
    main()
