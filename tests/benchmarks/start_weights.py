"""AP50 of trainings that start from ImageNet weights and of trainings that start from random ones, after as many steps.

    python tests/benchmarks/start_weights.py [key=value ...] --data DIR --weights DIR [--cases vgg16_bccd ...] [--seeds 0 1 2]

DIR of the data holds the VOC trees bccd and voc2012_100, DIR of the weights vgg16_caffe_features.pth (Oxford's VGG16 without
its hidden layers) and resnet18_imagenet_to_layer3.pth. The cases: VGG16 in the original recipe, at a short side of 320;
ResNet-18 FPN in the modern one, with all stages and norms trained. Both trainings have the same data, batches, steps and
learning rates, in bf16 where the CPU has it. VGG16's first two stages stay frozen where they are ImageNet's, as in the original recipe.

The two trainings of a seed run at the same time, each with half of the cores. Appends a JSON line for each case and seed to
tests/benchmarks/results/start_weights.jsonl as soon as it is measured, so that cases and seeds can be measured one by one.
Exits 1 if of some case a seed with weights is not better than all seeds without them.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import yaml
from measuring import append_result, format_spread, spread


@dataclass(frozen=True)
class Case:
    data: str      # folder below --data
    weights: str   # file below --weights
    config: dict   # what both trainings have
    frozen_stages: int = 0  # of the training from weights


ORIGINAL = {"base": "recipe/original", "model": {"backbone": "vgg16", "anchor_sizes": [[24, 56, 128]]},
            "batch": {"size": 4, "micro_batch_size": 4},
            "optim": {"lr": 0.004, "reference_batch_size": 4, "weight_decay": 0.0005, "bias_lr_factor": 2, "grad_clip_norm": 10},
            "augment": {"min_size": [320]}, "evaluate": {"min_size": 320},
            "schedule": {"steps": 160, "lr_schedule": "milestones", "milestones": [1.2]}}  # an epoch has 102 steps
MODERN = {"base": "custom/bccd", "evaluate": {"every_epochs": 0}}
CASES = {
    "vgg16_bccd": Case("bccd", "vgg16_caffe_features.pth", ORIGINAL, 2),
    "resnet18_bccd": Case("bccd", "resnet18_imagenet_to_layer3.pth",
                          {**MODERN, "schedule": {"steps": 104, "milestones": [1.5]}}),  # two epochs
    "resnet18_voc2012_100": Case("voc2012_100", "resnet18_imagenet_to_layer3.pth",
                                 {**MODERN, "schedule": {"steps": 208, "milestones": [12]}})}  # 16 epochs of 50 images
STARTS = ("weights", "random")


def write_config(case: Case, start: str, seed: int, data: Path, weights: Path, folder: Path) -> Path:
    """Writes the config of one training into `folder`, and returns its path."""
    model = {"weights": str(weights / case.weights) if start == "weights" else "", "norm": "trained",
             "frozen_stages": case.frozen_stages if start == "weights" else 0}
    config = {**case.config, "model": {**case.config.get("model", {}), **model}, "seed": seed,
              "data": {"format": "voc", "root": str(data / case.data), "train": "train", "val": "val"},
              "run": {"folder": str(folder), "name": start, "precision": "auto"}}
    path = folder / f"{start}.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def run_pair(case: Case, seed: int, data: Path, weights: Path, overrides: list[str]) -> dict[str, dict[str, float]]:
    """Trains from both starts at the same time; returns AP50, steps and minutes of each."""
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    with tempfile.TemporaryDirectory() as folder:
        started_at = time.monotonic()
        processes = {start: subprocess.Popen(
            [sys.executable, "-m", "detector", "train", str(write_config(case, start, seed, data, weights, Path(folder))),
             *overrides], env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL) for start in STARTS}
        minutes = {}
        while len(minutes) < len(processes) and not any(process.returncode for process in processes.values()):
            time.sleep(0.2)
            for start, process in processes.items():
                if start not in minutes and process.poll() is not None:
                    minutes[start] = (time.monotonic() - started_at) / 60
        if failed := [start for start, process in processes.items() if process.returncode]:
            for process in processes.values():
                process.kill()
            sys.exit(f"the training from {' and '.join(failed)} failed")
        results = {start: json.loads((Path(folder) / start / "results.json").read_text()) for start in STARTS}
    return {start: {"AP50": result["metrics"]["AP50"], "step": result["step"], "minutes": round(minutes[start], 2)}
            for start, result in results.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=Path)
    parser.add_argument("--weights", required=True, type=Path)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    parser.add_argument("overrides", nargs="*")
    args = parser.parse_intermixed_args()
    is_better = True
    for name in args.cases:
        pairs = []
        for seed in args.seeds:
            pairs.append(run_pair(CASES[name], seed, args.data.resolve(), args.weights.resolve(), args.overrides))
            append_result("start_weights", {"case": name, "overrides": args.overrides, "seed": seed, **pairs[-1]}, args.out)
            print(f"{name}, seed {seed}: AP50 " + ", ".join(
                f"from {start} {result['AP50']:.4f} in {result['minutes']:.1f} minutes"
                for start, result in pairs[-1].items()), flush=True)
        weights, random = ([pair[start]["AP50"] for pair in pairs] for start in STARTS)
        is_better &= min(weights) > max(random)
        print(f"{name}: AP50 from weights {format_spread(spread(weights), 3)}, from random {format_spread(spread(random), 3)}; "
              f"the smallest margin is {min(weights) - max(random):+.3f}", flush=True)
    sys.exit(0 if is_better else 1)


if __name__ == "__main__":
    main()
