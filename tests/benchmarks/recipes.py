"""The same config with the default options ("modern") and with `base: recipe/original`, on the same steps and learning rates.

    python tests/benchmarks/recipes.py configs/custom/bccd.yaml data.root=DIR [key=value ...] [--seeds 0 1 2]

The two trainings of a seed run at the same time, each with half of the cores. Appends a JSON line for each seed to
tests/benchmarks/results/recipes.jsonl and prints means and spread of AP50, and whether the means are within noise of each
other: their difference is at most twice its standard error. Exits 1 if they are not.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from measuring import append_result

from detector.config.load import load_config
from detector.data.read import read_datasets, select_for_training
from detector.data.samplers import epoch_sizes
from detector.training.schedule import plan_run

RECIPES = ("modern", "original")


def schedules(name: str, overrides: list[str]) -> dict[str, list[str]]:
    """Returns overrides that give both recipes the steps and milestones of the modern one.

    They differ because an epoch of the original recipe has every image twice.
    """
    plans = {}
    for recipe in RECIPES:
        config = load_config(name, [*overrides, f"recipe={recipe}"])
        data = select_for_training(read_datasets(config.data)[0], config.data)
        sizes = epoch_sizes(data.sizes, config.augment.mirrored_copies)
        plans[recipe] = plan_run(config.batch, config.optim, config.schedule, sizes, 0, 1)
    modern = plans["modern"]
    return {recipe: [f"schedule.steps={modern.total_steps}", "schedule.milestones=["
                     + ",".join(f"{step / plan.steps_per_epoch:.6f}" for step in modern.milestones) + "]"]
            for recipe, plan in plans.items()}


def run_pair(name: str, overrides: list[str], seed: int, schedule: dict[str, list[str]], folder: str) -> dict[str, float]:
    """Returns AP50 of each recipe."""
    threads = max(1, len(os.sched_getaffinity(0)) // 2)
    processes = {recipe: subprocess.Popen(
        [sys.executable, "-m", "detector", "train", name, *overrides, f"recipe={recipe}", f"seed={seed}", *schedule[recipe],
         "evaluate.every_epochs=0", f"run.folder={folder}", f"run.name={recipe}-{seed}"],
        env={**os.environ, "OMP_NUM_THREADS": str(threads)}, stdout=subprocess.DEVNULL) for recipe in RECIPES}
    if failed := [recipe for recipe, process in processes.items() if process.wait()]:
        sys.exit(f"the training with recipe {' and '.join(failed)} failed")
    return {recipe: json.loads(Path(folder, f"{recipe}-{seed}", "results.json").read_text())["metrics"]["AP50"]
            for recipe in RECIPES}


def within_noise(a: list[float], b: list[float]) -> tuple[float, float, bool]:
    """Returns the difference of the means, its standard error (Welch), and whether it is at most twice that error."""
    difference = statistics.mean(b) - statistics.mean(a)
    error = math.sqrt(statistics.variance(a) / len(a) + statistics.variance(b) / len(b)) if len(a) > 1 else float("nan")
    return difference, error, abs(difference) <= 2 * error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", default="", help="file to which the JSON lines are appended")
    args = parser.parse_intermixed_args()
    schedule, results = schedules(args.config, args.overrides), []
    with tempfile.TemporaryDirectory() as folder:
        for seed in args.seeds:
            results.append(run_pair(args.config, args.overrides, seed, schedule, folder))
            line = {"config": args.config, "overrides": args.overrides, "seed": seed, "schedule": schedule,
                    "AP50": results[-1]}
            append_result("recipes", line, args.out)
            print(f"seed {seed}: AP50 " + ", ".join(f"{recipe} {value:.4f}" for recipe, value in results[-1].items()), flush=True)
    modern, original = ([result[recipe] for result in results] for recipe in RECIPES)
    difference, error, equal = within_noise(modern, original)
    print(f"modern {statistics.mean(modern):.4f}, original {statistics.mean(original):.4f}; difference {difference:+.4f}, "
          f"standard error {error:.4f}: {'within' if equal else 'not within'} noise")
    sys.exit(0 if equal else 1)


if __name__ == "__main__":
    main()
